"""Commands that go on: watch, lease keep-alive, lock, elect, and the shell; against real servers."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from paxos_rsm.testing import LocalCluster
from tests.integration.command_line import TIMEOUT_S, ask, lines_of, printed, running

pytestmark = pytest.mark.integration


def lease_of(cluster: LocalCluster, ttl_s: int) -> str:
    """A new lease, as it is printed."""
    return printed(cluster, "lease", "grant", str(ttl_s)).split()[1].decode()


def wait_for(path: Path) -> str:
    """What a command writes there."""
    deadline = time.monotonic() + TIMEOUT_S
    while not path.exists() or not path.read_text().endswith("\n"):
        assert time.monotonic() < deadline, f"nothing was written to {path}"
        time.sleep(0.02)
    return path.read_text()


def test_watch_goes_on_when_its_server_dies(cluster: LocalCluster) -> None:
    printed(cluster, "put", "w/1", "a")
    revision = json.loads(printed(cluster, "get", "w/1", "-w", "json"))["header"]["revision"]
    with running(cluster, "watch", "--prefix", "w/", "--rev", str(revision), "--prev-kv") as watch:
        assert lines_of(watch, 3) == b"PUT\nw/1\na\n"
        for number, server in enumerate(cluster.names, 2):
            cluster[server].kill()
            printed(cluster, "put", f"w/{number}", "b")
            assert lines_of(watch, 3) == b"PUT\nw/%d\nb\n" % number
            cluster.start()
        printed(cluster, "del", "w/1")
        assert lines_of(watch, 5) == b"DELETE\nw/1\na\nw/1\n\n"
        watch.send_signal(signal.SIGINT)
        assert watch.wait(TIMEOUT_S) == 5


def test_watch_runs_a_command(cluster: LocalCluster, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = f"import os; open({str(out)!r}, 'w').write(os.environ['PAXOS_RSM_WATCH_VALUE'] + chr(10))"
    with running(cluster, "watch", "run", "--", sys.executable, "-c", code):
        # It may not be in place yet: what is written before that does not count.
        deadline = time.monotonic() + TIMEOUT_S
        while not out.exists():
            assert time.monotonic() < deadline
            printed(cluster, "put", "run", "this")
        assert wait_for(out) == "this\n"


def test_watch_of_what_is_compacted(cluster: LocalCluster) -> None:
    printed(cluster, "put", "c", "1")
    revision = json.loads(printed(cluster, "put", "c", "2", "-w", "json"))["header"]["revision"]
    printed(cluster, "compaction", str(revision), "--physical")
    done = ask(cluster, "watch", "c", "--rev", "1")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"compacted" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_interactive_watch(cluster: LocalCluster) -> None:
    with running(cluster, "watch", "-i") as watch:
        assert watch.stdin is not None
        watch.stdin.write(b"watch i\nprogress\n")
        watch.stdin.flush()
        assert lines_of(watch, 1).startswith(b"progress notify: ")
        printed(cluster, "put", "i", "1")
        assert lines_of(watch, 3) == b"PUT\ni\n1\n"
        watch.stdin.close()
        assert watch.wait(TIMEOUT_S) == 0


def test_leases(cluster: LocalCluster) -> None:
    lease = lease_of(cluster, 60)
    assert printed(cluster, "put", "bound", "v", "--lease", lease) == b"OK\n"
    told = printed(cluster, "lease", "timetolive", lease, "--keys").decode()
    assert told.startswith(f"lease {lease} granted with TTL(60s), remaining(")
    assert told.endswith("), attached keys([bound])\n")
    assert lease in printed(cluster, "lease", "list").decode().splitlines()
    with running(cluster, "lease", "keep-alive", lease) as keeping:
        assert lines_of(keeping, 1).decode() == f"lease {lease} keepalived with TTL(60)\n"
        keeping.send_signal(signal.SIGINT)
        assert keeping.wait(TIMEOUT_S) == 5
    assert printed(cluster, "lease", "revoke", lease).decode() == f"lease {lease} revoked\n"
    assert printed(cluster, "get", "bound") == b""
    gone = printed(cluster, "lease", "timetolive", lease).decode()
    assert gone == f"lease {lease} already expired\n"


def test_a_lock_excludes_and_is_released_when_its_holder_is_interrupted(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    code = f"import os, time; open({str(started)!r}, 'w').write(f'{{os.getpid()}}\\n'); time.sleep(600)"
    with running(cluster, "lock", "one", sys.executable, "-c", code) as holder:
        pid = int(wait_for(started))
        with running(cluster, "lock", "one", sys.executable, "-c", "raise SystemExit(7)") as second:
            time.sleep(0.5)  # long enough to be wrong in
            assert second.poll() is None
            holder.send_signal(signal.SIGTERM)
            assert holder.wait(TIMEOUT_S) == 5
            assert second.wait(TIMEOUT_S) == 7
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)  # it went with its lock
    assert printed(cluster, "get", "--prefix", "one/", "--count-only") == b"0\n"


def test_a_lock_that_is_lost_ends_its_command(cluster: LocalCluster, tmp_path: Path) -> None:
    started = tmp_path / "started"
    code = f"import os, time; open({str(started)!r}, 'w').write(os.environ['ETCD_LOCK_KEY'] + chr(10)); time.sleep(600)"
    with running(cluster, "lock", "--ttl", "2", "lost", sys.executable, "-c", code) as holder:
        key = wait_for(started).strip()
        printed(cluster, "lease", "revoke", key.rpartition("/")[2])
        _, errors = holder.communicate(timeout=TIMEOUT_S)
        assert holder.returncode == 1
        assert errors.startswith(b"Error: ")


def test_elections(cluster: LocalCluster) -> None:
    with running(cluster, "elect", "boss") as listener, running(cluster, "elect", "boss", "first") as first:
        key = lines_of(first, 2).split()[0]
        assert lines_of(listener, 2) == key + b"\nfirst\n"
        with running(cluster, "elect", "boss", "second") as second:
            first.send_signal(signal.SIGINT)
            assert first.wait(TIMEOUT_S) == 5
            key = lines_of(second, 2).split()[0]
            assert lines_of(listener, 2) == key + b"\nsecond\n"


def test_shell(cluster: LocalCluster) -> None:
    script = b'put s \'a b\'\nnonsense\ntxn\nvalue("s") = "a b"\n\ndel s\n\n\nget s\n'
    done = ask(cluster, "shell", stdin=script)
    assert (done.returncode, done.stdout) == (0, b"OK\nSUCCESS\n\n1\n")
    assert done.stderr.startswith(b"Error: No such command 'nonsense'")


def test_servers_one_by_one(cluster: LocalCluster, tmp_path: Path) -> None:
    healthy = printed(cluster, "endpoint", "health", "--cluster").decode().splitlines()
    assert len(healthy) == 3
    assert all(" is healthy: successfully committed proposal: took = " in line for line in healthy)
    status = [row["Status"] for row in json.loads(printed(cluster, "endpoint", "status", "-w", "json"))]
    assert [row["leader"] == row["header"]["member_id"] for row in status].count(True) == 1
    members = printed(cluster, "member", "list").decode().splitlines()
    assert sorted(line.split(", ")[2] for line in members) == ["n1", "n2", "n3"]
    assert {int(line.split(", ")[0], 16) for line in members} == {
        row["header"]["member_id"] for row in status
    }
    printed(cluster, "put", "h", "1")
    revision = json.loads(printed(cluster, "get", "h", "-w", "json"))["header"]["revision"]
    hashes = printed(cluster, "endpoint", "hashkv", "--rev", str(revision)).decode().splitlines()
    assert len({line.split(", ")[1] for line in hashes}) == 1
    assert printed(cluster, "alarm", "list") == printed(cluster, "alarm", "disarm") == b""
    saved = tmp_path / "saved"
    assert printed(cluster, "snapshot", "save", str(saved)).decode() == f"Snapshot saved at {saved}\n"
    assert saved.stat().st_size > 32


def test_check_perf(cluster: LocalCluster) -> None:
    done = ask(cluster, "check", "perf", "--duration", "500ms", "-w", "json")
    result = json.loads(done.stdout)
    assert done.returncode == (0 if result["pass"] else 1)  # this machine may be busy
    assert result["ops_per_s"] > 0
    assert [check["text"].split()[0] for check in result["checks"]][:3] == ["Throughput", "Slowest", "Stddev"]
    assert printed(cluster, "get", "--prefix", "/paxos-rsm-check-perf/", "--count-only") == b"0\n"
