"""What a server may find where it is started: taken ports, somebody else's directory, a damaged log, a foreign cluster.

It stops with one sentence that says what to do, and no traceback; nothing on its disk has changed; the others go on.
"""

import socket
from pathlib import Path

import pytest

from paxos_rsm.storage.headers import RECORDS_START
from paxos_rsm.testing.cluster import LocalCluster, LocalServer
from paxos_rsm.testing.ports import PortHolder
from tests.integration.clients import client_at
from tests.integration.conftest import NewCluster
from tests.integration.disks import log_on_disk, segments_of
from tests.integration.processes import check_one_sentence, flags_with, run_server
from tests.integration.waiting import eventually, same_state


def follower_of(cluster: LocalCluster) -> LocalServer:
    """A server that does not lead."""
    leader = cluster.wait_for_leader(everyone=True)
    return next(server for server in cluster if server.name != leader)


def still_works(cluster: LocalCluster) -> None:
    """Everybody is there, and serves."""
    with client_at(*cluster.endpoints) as client:
        client.put("works", "yes")
        assert client.get("works").value == b"yes"
    assert len(cluster.running) == len(cluster)


def contents(directory: Path) -> dict[str, bytes]:
    """Every file below a directory."""
    return {str(path): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("which", ["client", "peer"])
def test_a_port_in_use(new_cluster: NewCluster, which: str) -> None:
    server = new_cluster(size=1)["n1"]
    taken = server.client_port if which == "client" else server.peer_port
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", taken))
        holder.listen()
        sentence = check_one_sentence(run_server(server.command_line()))
    assert str(taken) in sentence
    assert f"--listen-{which}-urls" in sentence
    # Nothing is left behind that would be in the way of the next start.
    server.start()
    with client_at(server.endpoint) as client:
        client.put("k", "v")


def test_a_second_process_on_the_directory(cluster: LocalCluster) -> None:
    server = follower_of(cluster)
    with PortHolder() as ports:
        client_port, peer_port = ports.take(2)
        sentence = check_one_sentence(
            run_server(
                flags_with(
                    server,
                    listen_client_urls=f"http://127.0.0.1:{client_port}",
                    listen_peer_urls=f"http://127.0.0.1:{peer_port}",
                )
            )
        )
    assert str(server.data_dir) in sentence
    assert str(server.pid) in sentence, "it does not say which process has the directory"
    # With the very same flags, too, whichever it finds first.
    check_one_sentence(run_server(server.command_line()))
    still_works(cluster)


def test_a_file_in_place_of_the_directory(new_cluster: NewCluster, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    server = new_cluster(size=1)["n1"]
    sentence = check_one_sentence(run_server(flags_with(server, data_dir=str(file))))
    assert str(file) in sentence
    assert "--data-dir" in sentence
    assert file.read_text() == "mine"


@pytest.mark.parametrize("directory", ["/proc/paxos-rsm", "/sys/paxos-rsm/n1"])
def test_a_directory_that_nobody_can_write(new_cluster: NewCluster, directory: str) -> None:
    server = new_cluster(size=1)["n1"]
    sentence = check_one_sentence(run_server(flags_with(server, data_dir=directory)))
    assert directory in sentence
    assert "--data-dir" in sentence


def test_a_directory_of_another_member_or_cluster(cluster: LocalCluster) -> None:
    server = follower_of(cluster)
    server.terminate()
    before = contents(server.data_dir)
    other = next(name for name in cluster.names if name != server.name)
    for changed in ({"name": other}, {"initial_cluster_token": "another"}):
        sentence = check_one_sentence(run_server(flags_with(server, **changed)))
        assert "belongs to" in sentence
        assert str(server.data_dir) in sentence
    check_nothing_changed(server, before)
    cluster.start()
    still_works(cluster)


def test_a_server_of_another_cluster_at_a_peers_address(
    new_cluster: NewCluster, cluster: LocalCluster
) -> None:
    """Same names, same addresses, another token: it is refused by the members that it calls, and they do not care."""
    server = follower_of(cluster)
    server.terminate()
    with client_at(*cluster.endpoints) as client:
        client.put("before", "v")
        flags = flags_with(
            server, initial_cluster_token="another", data_dir=str(server.data_dir.with_name("foreign"))
        )
        sentence = check_one_sentence(run_server(flags))
        assert "--initial-cluster-token" in sentence
        client.put("before", "w")
    cluster.start()
    still_works(cluster)
    eventually(lambda: same_state(cluster), "equal states")


def flip(file: Path, offset: int, mask: int = 0x10) -> None:
    """Changes one bit."""
    with file.open("r+b") as opened:
        opened.seek(offset)
        byte = opened.read(1)[0]
        opened.seek(offset)
        opened.write(bytes([byte ^ mask]))


def damages(server: LocalServer) -> dict[str, tuple[Path, int]]:
    """What is flipped, and where, after which a promise may be lost: in the log, and in the identity."""
    segment = segments_of(server)[-1]
    identity = server.data_dir / "identity"
    return {
        "the header of a segment": (segment, 20),
        "the head of the first record": (segment, RECORDS_START + 10),
        "the identity": (identity, identity.stat().st_size - 4),
    }


def test_a_flipped_bit_on_the_disk(cluster: LocalCluster) -> None:
    """Where a promise may be lost the server says so each time it is started, mends nothing, and the others go on; an
    entry that cannot be read it says, too, and has it from them.
    """
    server = follower_of(cluster)
    with client_at(*cluster.endpoints) as client:
        for number in range(50):
            client.put(f"flip/{number}", "v" * 200)
        eventually(lambda: same_state(cluster), "equal states")
        assert server.terminate() == 0
        remembered = log_on_disk(server)
        for what, (file, offset) in damages(server).items():
            flip(file, offset)
            damaged = contents(server.data_dir)
            sentence = check_one_sentence(run_server(server.command_line()))
            assert str(file) in sentence, what
            assert "damage" in sentence or "does not match" in sentence, what
            assert "add it anew" in sentence, what
            check_nothing_changed(server, damaged)
            client.put("flip/meanwhile", what)
            flip(file, offset)  # the disk is restored to what it was
        segment = segments_of(server)[0]
        aside = segment.rename(segment.with_suffix(".aside"))
        assert "missing" in check_one_sentence(run_server(server.command_line()))
        aside.rename(segment)
        assert log_on_disk(server) == remembered
        flip(segment, segment.read_bytes().index(b"flip/25"))
        last = segments_of(server)[-1]
        flip(last, len(last.read_bytes().rstrip(b"\0")) - 3)  # the last record, which is whole and not torn
        cluster.start()
        assert "cannot be read; they are fetched" in server.log()
        assert len(client.range(prefix="flip/")) == 51
    still_works(cluster)
    eventually(lambda: same_state(cluster), "equal states")


def check_nothing_changed(server: LocalServer, before: dict[str, bytes]) -> None:
    """Of all that lies in the directory, but for the note of who last had its lock."""
    after = contents(server.data_dir)
    assert {path for path in {**before, **after} if before.get(path) != after.get(path)} <= {
        f"{server.data_dir}/LOCK"
    }


BAD_FLAGS = [
    ({"name": "nobody"}, "--name"),
    ({"listen_client_urls": "https://127.0.0.1:2379"}, "TLS"),
    ({"election_timeout": "60"}, "--election-timeout"),
    ({"machine": "no_such_package.machine:Machine"}, "no_such_package"),
    ({"machine": "paxos_rsm.machines.base:Position"}, "paxos_rsm.machines.base:Position"),
    ({"no_such_flag": "1"}, "--no-such-flag"),
]


@pytest.mark.parametrize(("changed", "named"), BAD_FLAGS, ids=[" ".join(each) for each, _ in BAD_FLAGS])
def test_bad_flags(new_cluster: NewCluster, changed: dict[str, str], named: str) -> None:
    server = new_cluster(size=1)["n1"]
    ended = run_server(flags_with(server, **changed))
    assert named in check_one_sentence(ended)
    assert not (server.data_dir / "log").exists(), "it has made a log before it looked at its flags"
