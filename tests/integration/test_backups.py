"""A cluster that is gone, and another that begins with its backup."""

import json
import threading
from pathlib import Path

import pytest

from paxos_rsm.client import Op
from paxos_rsm.codec.kv import KvCodec
from paxos_rsm.errors import Compacted
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.storage.backup_format import check_backup, read_slices
from paxos_rsm.storage.files import open_read_only
from paxos_rsm.testing.cluster import LocalCluster, LocalServer
from tests.integration.clients import client_at
from tests.integration.command_line import ask
from tests.integration.conftest import NewCluster
from tests.integration.kills import LONG
from tests.integration.raw import RawSession, put_command
from tests.integration.waiting import eventually, same_state

KEYS = 300


def saved(cluster: LocalCluster, file: Path) -> Path:
    """A backup of the cluster."""
    result = ask(cluster, "snapshot", "save", str(file))
    assert result.returncode == 0, result.stderr
    return file


def restore(cluster: LocalCluster, server: LocalServer, file: Path, *more: str) -> None:
    """Makes the data directory of a server that has not been started."""
    flag, members = server.flags[server.flags.index("--initial-cluster") :][:2]
    args = ("--name", server.name, "--data-dir", str(server.data_dir), flag, members)
    result = ask(cluster, "snapshot", "restore", str(file), *args, *more)
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def backup(new_shared_cluster: NewCluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a cluster that is gone; its revision is KEYS + 2."""
    cluster = new_shared_cluster(3)
    cluster.start()
    with client_at(*cluster.endpoints) as client:
        for number in range(KEYS):
            client.put(f"key/{number:04d}", f"value {number}")
        client.put("key/0000", "changed")
    file = saved(cluster, tmp_path_factory.mktemp("backup") / "backup.db")
    cluster.close()
    return file


def test_a_new_cluster_begins_with_the_state_of_the_old_one(new_cluster: NewCluster, backup: Path) -> None:
    cluster = new_cluster(3)
    for server in cluster:
        restore(cluster, server, backup)
    cluster.start()
    with client_at(*cluster.endpoints) as client:
        assert client.get("key/0000").value == b"changed"
        assert client.get("key/0299").value == b"value 299"
        assert client.put("key/new", "n").revision == KEYS + 3
        assert client.get("key/0000", revision=KEYS + 1).value == b"value 0"
    # Killed before any snapshot was taken: the state is that of the backup and the log after it.
    cluster.kill()
    cluster.start()
    with client_at(*cluster.endpoints) as client:
        assert client.get("key/0299").value == b"value 299"
        assert client.get("key/new").value == b"n"
    eventually(lambda: same_state(cluster), "state that all have")
    status = json.loads(ask(cluster, "snapshot", "status", str(backup), "-w", "json").stdout)
    assert (status["revision"], status["totalKey"]) == (KEYS + 2, KEYS)


def test_a_server_that_joins_has_the_restored_state_too(new_cluster: NewCluster, backup: Path) -> None:
    """The log of such a cluster begins with slot 1, and yet does not say all."""
    cluster = new_cluster(1)
    restore(cluster, cluster["n1"], backup)
    cluster.start()
    with client_at(*cluster.endpoints) as client:
        client.put("key/new", "n")
    server = cluster.add()
    added = ask(cluster, "member", "add", server.name, "--peer-urls", server.peer_url)
    assert added.returncode == 0, added.stderr
    server.start()
    eventually(lambda: same_state(cluster), "state that both have")
    assert "installed a snapshot" in server.log()
    with client_at(server.endpoint) as client:
        assert client.get("key/0299").value == b"value 299"


@LONG[0]
@LONG[1]
def test_sessions_of_the_old_cluster_are_not_taken_for_those_of_the_new(
    new_cluster: NewCluster, backup: Path, tmp_path: Path
) -> None:
    old = new_cluster(1)
    old.start()
    with RawSession(old["n1"].endpoint) as session:
        opened = session.open()
        session.submit(1, put_command(b"a", b"1"))
        session.results(1, 1)
    file = saved(old, tmp_path / "b")
    old.close()
    cluster = new_cluster(1)
    restore(cluster, cluster["n1"], file)
    cluster.start()
    with RawSession(cluster["n1"].endpoint) as session, pytest.raises(Exception, match="cluster"):
        session.open(opened.session, cluster_id=opened.cluster_id)
    with client_at(*cluster.endpoints) as client:
        assert client.get("a").value == b"1"


@LONG[0]
@LONG[1]
def test_watches_and_caches_notice_a_raised_revision(new_cluster: NewCluster, backup: Path) -> None:
    cluster = new_cluster(1)
    restore(cluster, cluster["n1"], backup, "--bump-revision", "1000000", "--mark-compacted")
    cluster.start()
    with client_at(*cluster.endpoints) as client:
        assert client.get("key/0000").value == b"changed"
        with pytest.raises(Compacted):
            client.get("key/0000", revision=KEYS + 2)
        with client.watch(prefix="key/", start_revision=KEYS + 100) as watch, pytest.raises(Compacted):
            next(iter(watch))
        assert client.put("key/new", "n").revision == 1_000_000 + KEYS + 3


def test_members_of_different_backups_never_form_a_cluster(
    new_cluster: NewCluster, backup: Path, tmp_path: Path
) -> None:
    cluster = new_cluster(2)
    other = new_cluster(1)
    other.start()
    file = saved(other, tmp_path / "other.db")
    restore(cluster, cluster["n1"], backup)
    restore(cluster, cluster["n2"], file)
    cluster.start(wait=False)
    sha256 = [each.read_bytes()[-32:].hex() for each in (backup, file)]

    def told() -> bool:
        return all(all(each in server.log() for each in sha256) for server in cluster)

    eventually(told, "word of both backups in both logs")
    assert all(answer.role == "forming" for answer in cluster.statuses().values())


@LONG[0]
@LONG[1]
def test_a_member_that_was_not_restored_does_not_join_those_that_were(
    new_cluster: NewCluster, backup: Path
) -> None:
    cluster = new_cluster(2)
    restore(cluster, cluster["n1"], backup)
    cluster.start(wait=False)
    eventually(lambda: "began empty" in cluster["n1"].log(), "word of the one that began empty")
    assert all(answer.role == "forming" for answer in cluster.statuses().values())


def test_any_state_machine_is_backed_up(new_cluster: NewCluster, tmp_path: Path) -> None:
    machine = "examples.counter:Counter"
    cluster = new_cluster(1, machine=machine)
    cluster.start()
    for amount in (b"5", b"7"):
        assert ask(cluster, "submit", amount.decode()).returncode == 0
    file = saved(cluster, tmp_path / "b")
    total = ask(cluster, "query", "").stdout
    assert b"12" in total
    cluster.close()
    again = new_cluster(1, machine=machine)
    restore(again, again["n1"], file)
    again.start()
    assert ask(again, "query", "").stdout == total
    again.close()
    # With another state machine it says which one it wants.
    wrong = new_cluster(1)
    restore(wrong, wrong["n1"], file)
    wrong.start(wait=False)
    assert wrong["n1"].wait() == 1
    assert f"--machine {machine}" in wrong["n1"].log()


@LONG[0]
@LONG[1]
def test_a_restored_state_that_is_lost_comes_from_the_others(new_cluster: NewCluster, backup: Path) -> None:
    cluster = new_cluster(3)
    for server in cluster:
        restore(cluster, server, backup)
    cluster.start()
    with client_at(*cluster.endpoints) as client:
        client.put("key/new", "n")
    server = cluster["n3"]
    server.terminate()
    with (server.data_dir / "initial").open("r+b") as file:
        file.seek(1_000)
        file.write(b"damaged")
    server.start()
    eventually(lambda: same_state(cluster), "state that all have")
    assert "waits for a snapshot of another member" in server.log()
    assert "installed a snapshot" in server.log()


@LONG[0]
@LONG[1]
def test_damage_before_the_first_start_is_refused(new_cluster: NewCluster, backup: Path) -> None:
    cluster = new_cluster(1)
    server = cluster["n1"]
    restore(cluster, server, backup)
    with (server.data_dir / "initial").open("r+b") as file:
        file.seek(1_000)
        file.write(b"damaged")
    server.start()
    assert server.wait() == 1
    assert "does not match the checksum at its end" in server.log()


def test_a_backup_is_of_one_moment_while_the_cluster_is_written_to(
    new_cluster: NewCluster, tmp_path: Path
) -> None:
    cluster = new_cluster(1)
    cluster.start()
    ended = threading.Event()

    def write() -> None:
        with client_at(*cluster.endpoints) as client:
            number = 0
            while not ended.is_set():
                number += 1
                client.txn([], [Op.put("a", f"{number}"), Op.put("z", f"{number}")])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with client_at(*cluster.endpoints) as client:
            # As long as some blobs of the stream, so that writes come in between.
            for number in range(200):
                client.put(f"filler/{number}", "x" * 5_000)
        files = [saved(cluster, tmp_path / f"{number}") for number in range(3)]
    finally:
        ended.set()
        writer.join()
    revisions = []
    for path in files:
        machine = KeyValueMachine(KvCodec())
        file = open_read_only(str(path))
        machine.restore(read_slices(file, check_backup(file, str(path))))
        file.close()
        values = {record[0]: record[4] for record in machine._store.scan(b"a", b"\0")}
        assert values[b"a"] == values[b"z"], "half of a transaction"
        assert len(values) == 202
        revisions.append(machine.revision)
    assert revisions == sorted(set(revisions))
