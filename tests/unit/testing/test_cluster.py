"""LocalCluster over stand-ins for servers: processes that take the flags and answer Status."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paxos_rsm.testing import CLIENTS, FaultUnavailable, LocalCluster, LocalClusterError

COMMAND = [sys.executable, str(Path(__file__).with_name("fake_server.py"))]


def until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    made = LocalCluster(3, directory=tmp_path / "data", command=COMMAND)
    yield made
    made.close()


def test_starts_servers_with_the_flags_that_make_them_one_cluster(cluster: LocalCluster) -> None:
    cluster.start()
    assert cluster.names == ["n1", "n2", "n3"]
    assert len(set(cluster.endpoints)) == 3
    flags = cluster["n2"].log().splitlines()[0]
    peers = ",".join(f"{server.name}=http://127.0.0.1:{server.peer_port}" for server in cluster)
    assert f"--initial-cluster {peers}" in flags
    assert f"--listen-client-urls http://{cluster['n2'].endpoint}" in flags
    assert cluster["n2"].data_dir == cluster.directory / "n2"
    assert cluster["n2"].data_dir.is_dir()


def test_base_port_machine_and_options(tmp_path: Path) -> None:
    cluster = LocalCluster(
        2, directory=tmp_path, base_port=2379, machine="m:C", options={"log-level": "debug", "tick-ms": 5}
    )
    assert cluster.endpoints == ["127.0.0.1:2379", "127.0.0.1:2381"]
    assert [server.peer_port for server in cluster] == [2380, 2382]
    assert cluster["n1"].command_line()[-6:] == [
        *("--machine", "m:C"),
        *("--log-level", "debug"),
        *("--tick-ms", "5"),
    ]
    cluster.close()


def test_a_cluster_needs_a_server() -> None:
    with pytest.raises(LocalClusterError, match="needs one"):
        LocalCluster(0)


def test_leader_is_one_whom_a_majority_follows(cluster: LocalCluster) -> None:
    cluster.start()
    assert cluster.leader() == "n1"
    cluster["n3"].kill()
    assert cluster.leader() == "n1"
    cluster["n2"].kill()
    assert cluster.leader() is None  # its own word alone is not a majority


def test_kill_and_start_again(cluster: LocalCluster) -> None:
    cluster.start()
    server = cluster["n2"]
    first = server.pid
    server.kill()
    assert (server.running, server.returncode) == (False, -signal.SIGKILL)
    assert server.describe_end() == "was killed by SIGKILL"
    with pytest.raises(LocalClusterError, match="does not answer"):
        server.status()
    server.start()
    cluster.wait_for_leader(everyone=True)
    assert server.running
    assert server.pid != first
    with pytest.raises(LocalClusterError, match="running already"):
        server.start()


def test_terminate_ends_in_order_even_where_stopped(cluster: LocalCluster) -> None:
    cluster.start()
    cluster["n1"].stop()
    until(lambda: "n1" not in cluster.statuses())  # a signal takes its time on a busy machine
    with pytest.raises(LocalClusterError, match="does not answer"):
        cluster["n1"].status(timeout_s=0.3)
    assert cluster.terminate() == {"n1": 0, "n2": 0, "n3": 0}
    # Not the last line always: gRPC may say something of its own while the process ends.
    assert all("ended in order" in log for log in cluster.logs().values())


def test_stop_and_cont(cluster: LocalCluster) -> None:
    cluster.start()
    cluster["n1"].stop()
    until(lambda: "n1" not in cluster.statuses())
    cluster["n1"].cont()
    until(lambda: "n1" in cluster.statuses())
    assert cluster["n1"].status(digest=True).digest == b"\x00\xff"
    cluster["n1"].kill()
    with pytest.raises(LocalClusterError, match="not running"):
        cluster["n1"].cont()


def test_deaf_server_is_killed_and_told_of(cluster: LocalCluster) -> None:
    cluster["n1"].environment["FAKE_DEAF"] = "1"
    cluster.start()
    with pytest.raises(LocalClusterError, match=r"did not end within 0\.2 s"):
        cluster["n1"].terminate(0.2)
    assert not cluster["n1"].running


def test_wipe_needs_the_process_gone(cluster: LocalCluster) -> None:
    cluster.start()
    with pytest.raises(LocalClusterError, match="running"):
        cluster["n3"].wipe()
    cluster["n3"].kill()
    cluster["n3"].wipe()
    assert not cluster["n3"].data_dir.exists()
    assert cluster["n1"].data_dir.exists()


def test_server_that_ends_at_once_is_an_error_with_its_words(cluster: LocalCluster) -> None:
    cluster["n2"].environment["FAKE_EXIT"] = "3"
    with pytest.raises(LocalClusterError, match=r"n2 ended with exit code 3(?s:.)*cannot start: told so"):
        cluster.start()
    assert cluster["n2"].wait() == 3


def test_time_out_says_how_the_servers_are(tmp_path: Path) -> None:
    cluster = LocalCluster(2, directory=tmp_path, command=COMMAND, environment={"FAKE_LEADER": ""})
    try:
        cluster.start(wait=False)
        until(lambda: len(cluster.statuses()) == 2)
        cluster["n2"].kill()
        with pytest.raises(LocalClusterError, match=r"n1 is follower, ballot 7.*n2 was killed by SIGKILL"):
            cluster.wait_for_leader(0.2)
    finally:
        cluster.close()


def test_port_in_use_is_said_before_the_start(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        cluster = LocalCluster(1, directory=tmp_path, base_port=port, command=COMMAND)
        with pytest.raises(LocalClusterError, match=f"port {port} of 127.0.0.1 is in use"):
            cluster.start()
        cluster.close()


def test_environment_of_the_caller_does_not_configure_the_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAXOS_RSM_DATA_DIR", "elsewhere")
    monkeypatch.setenv("GREETING", "hello")
    cluster = LocalCluster(1, directory=tmp_path, command=COMMAND)
    assert "PAXOS_RSM_DATA_DIR" not in cluster["n1"].environment
    cluster.start()
    assert "greeting hello" in cluster["n1"].log()
    cluster.close()


def test_restart_in_order_and_by_sigkill(cluster: LocalCluster) -> None:
    cluster.start()
    server = cluster["n1"]
    pids = [server.pid]
    server.restart()
    assert "ended in order" in server.log()
    pids.append(server.pid)
    server.restart(kill=True)
    pids.append(server.pid)
    cluster.wait_for_leader(everyone=True)
    assert len(set(pids)) == 3


def test_proxied_servers_dial_each_other_through_links_of_their_own(tmp_path: Path) -> None:
    with LocalCluster(3, directory=tmp_path, command=COMMAND, proxied=True) as cluster:
        flags = cluster["n2"].command_line()
        dialed = flags[flags.index("--peer-dial-urls") + 1]
        assert dialed == ",".join(
            f"{name}=http://127.0.0.1:{cluster.links.port('n2', name)}" for name in ("n1", "n3")
        )
        assert cluster["n2"].endpoint == cluster["n2"].direct_endpoint
        assert "--advertise-client-urls" not in flags
        pid = cluster.links.proxy_pid
    assert gone(pid)
    single = LocalCluster(1, directory=tmp_path / "single", command=COMMAND, proxied=True)
    assert "--peer-dial-urls" not in single["n1"].command_line()
    single.close()


def test_proxied_clients_are_told_of_their_links(tmp_path: Path) -> None:
    with LocalCluster(2, directory=tmp_path, command=COMMAND, proxied_clients=True) as cluster:
        port = cluster.links.port(CLIENTS, "n1")
        assert cluster.endpoints[0] == f"127.0.0.1:{port}"
        assert cluster["n1"].direct_endpoint == f"127.0.0.1:{cluster['n1'].client_port}"
        assert cluster["n1"].command_line()[-2:] == ["--advertise-client-urls", f"http://127.0.0.1:{port}"]
        cluster.links.cut(CLIENTS, "n1")
        assert cluster["n1"].status().name == "n1"  # asked directly


def test_shim_is_loaded_into_every_server(tmp_path: Path) -> None:
    try:
        cluster = LocalCluster(2, directory=tmp_path, command=COMMAND, shim=True)
    except FaultUnavailable as error:
        pytest.skip(str(error))
    with cluster:
        for server in cluster:
            server.faults.check_loaded(server.pid)
        cluster["n1"].restart()
        cluster.wait_for_leader(everyone=True)
        cluster["n1"].faults.check_loaded(cluster["n1"].pid)


def test_small_disks_hold_the_data_of_those_that_are_named(tmp_path: Path) -> None:
    cluster = LocalCluster(2, directory=tmp_path, command=COMMAND, disk_bytes={"n1": 4 << 20})
    try:
        cluster.start()
    except FaultUnavailable as error:
        pytest.skip(str(error))
    finally:
        if not cluster.running:
            cluster.close()
    with cluster:
        small = cluster["n1"]
        assert small.data_dir.parent.is_mount()
        small.fill_disk()
        with pytest.raises(OSError, match="No space"):
            (small.data_dir / "file").write_bytes(bytes(4096))
        small.free_disk()
        (small.data_dir / "file").write_bytes(bytes(4096))
        small.restart()
        assert (small.data_dir / "file").exists()
        with pytest.raises(LocalClusterError, match="no disk of its own"):
            cluster["n2"].fill_disk()
    assert not small.data_dir.parent.is_mount()


def test_faults_that_were_not_asked_for_are_refused(cluster: LocalCluster) -> None:
    with pytest.raises(LocalClusterError, match="proxied=True"):
        _ = cluster.links
    with pytest.raises(LocalClusterError, match="shim=True"):
        _ = cluster["n1"].faults
    with pytest.raises(LocalClusterError, match="disk_bytes"):
        cluster["n1"].free_disk()


def test_with_block_ends_servers_and_removes_a_temporary_directory() -> None:
    with LocalCluster(2, command=COMMAND) as cluster:
        pids = [server.pid for server in cluster]
        assert cluster.directory.is_dir()
    assert not any(server.running for server in cluster)
    assert all(pid is not None and gone(pid) for pid in pids)
    assert not cluster.directory.exists()


def test_servers_end_when_their_owner_is_killed(tmp_path: Path) -> None:
    """SIGKILL lets nobody clean up: the servers notice by the end of their standard input."""
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from paxos_rsm.testing import LocalCluster\n"
        f"cluster = LocalCluster(2, directory=Path({str(tmp_path)!r}), command={COMMAND!r})\n"
        "cluster.start()\n"
        "print(*(server.pid for server in cluster), flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        owner.kill()
    assert len(pids) == 2
    until(lambda: all(map(gone, pids)))


def test_servers_end_with_the_interpreter(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path\n"
        "from paxos_rsm.testing import LocalCluster\n"
        f"cluster = LocalCluster(1, directory=Path({str(tmp_path)!r}), command={COMMAND!r})\n"
        "cluster.start()\n"
        "print(cluster['n1'].pid)\n"
        "raise SystemExit(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 3
    assert gone(int(done.stdout))


def test_a_further_server_joins_what_runs_and_one_is_forgotten(cluster: LocalCluster) -> None:
    cluster.start()
    new = cluster.add()
    assert (new.name, new.running, len(cluster)) == ("n4", False, 4)
    new.start()
    until(lambda: new.log() != "")
    flags = new.log().splitlines()[0]
    peers = ",".join(f"{server.name}={server.peer_url}" for server in cluster)
    assert f"--initial-cluster {peers}" in flags
    assert "--initial-cluster-state existing" in flags
    pid = new.pid
    assert pid is not None
    cluster.remove("n4")
    until(lambda: gone(pid))
    assert cluster.names == ["n1", "n2", "n3"]
    assert cluster.add().name == "n5"
    with pytest.raises(LocalClusterError, match="a server n1 already"):
        cluster.add("n1")


def test_a_further_server_has_the_next_ports_of_a_row(tmp_path: Path) -> None:
    with contextlib.closing(LocalCluster(1, directory=tmp_path, base_port=2379, machine="m:C")) as cluster:
        assert (cluster.add().client_port, cluster["n2"].peer_port) == (2381, 2382)
        assert cluster["n2"].command_line()[-2:] == ["--machine", "m:C"]


def test_links_that_are_proxied_are_those_of_the_start(tmp_path: Path) -> None:
    made = LocalCluster(2, directory=tmp_path, command=COMMAND, proxied=True)
    with contextlib.closing(made) as cluster, pytest.raises(LocalClusterError, match="proxied"):
        cluster.add()
