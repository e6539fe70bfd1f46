"""``paxos-rsm`` as people use it: the command against real servers, and a cluster of its own in the foreground."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from paxos_rsm import Client
from paxos_rsm.testing import LocalCluster, PortHolder
from tests.integration.command_line import TIMEOUT_S, ask, command, environment, printed, run


def test_keys_and_values(cluster: LocalCluster) -> None:
    assert run(cluster, "put", "greeting", "hello").stdout == b"OK\n"  # a process of its own, once
    for endpoint in cluster.endpoints:
        assert (
            printed(cluster, "get", "greeting", "--endpoints", f"http://{endpoint}") == b"greeting\nhello\n"
        )
    assert printed(cluster, "put", "raw", stdin=b"\x00\xff") == b"OK\n"
    raw = json.loads(printed(cluster, "-w", "json", "get", "raw"))["kvs"][0]
    assert (raw["value"], raw["key_text"], "value_text" in raw, raw["version"]) == ("AP8=", "raw", False, 1)
    assert printed(cluster, "cas", "greeting", "hello", "hi") == b"OK\n"
    refused = ask(cluster, "cas", "greeting", "hello", "hi")
    assert (refused.returncode, refused.stdout) == (1, b"")
    assert refused.stderr == b"Error: nothing was written: 'greeting' does not hold 'hello'\n"
    assert printed(cluster, "get", "--prefix", "--keys-only", "--order", "DESCEND") == b"raw\n\ngreeting\n\n"
    assert printed(cluster, "del", "--prefix", "--prev-kv", "g") == b"1\ngreeting\nhi\n"
    assert printed(cluster, "get", "greeting") == b""
    assert printed(cluster, "get", "--prefix", "--count-only") == b"1\n"
    assert printed(cluster, "compaction", "3") == b"compacted revision 3\n"
    old = ask(cluster, "get", "raw", "--rev", "2")
    assert (old.returncode, old.stderr) == (
        1,
        b"Error: etcdserver: mvcc: required revision has been compacted\n",
    )


def test_status_shows_a_dead_member(new_cluster: Callable[[], LocalCluster]) -> None:
    cluster = new_cluster()
    cluster.start()
    cluster["n2"].kill()
    leader = cluster.wait_for_leader(TIMEOUT_S)
    rows = json.loads(printed(cluster, "status", "-w", "json", "--endpoints", cluster[leader].endpoint))
    assert [row["name"] for row in rows] == ["n1", "n2", "n3"]
    assert [row["error"] for row in rows] == [None, "connection refused", None]
    assert {row["leader"] for row in rows} == {leader, None}
    assert [row["role"] == "leader" for row in rows].count(True) == 1
    for row in rows:
        assert row["endpoint"] == cluster[row["name"]].endpoint
        if row["name"] != "n2":
            assert set(row["ballot"]) == {"round", "node"}
            assert row["decided_slot"] >= row["applied_slot"] >= 1
            assert min(row["log_bytes"], row["memory_bytes"], row["revision"]) > 0
    cluster.kill()
    nobody = ask(cluster, "get", "a", "--dial-timeout", "200ms")
    assert (nobody.returncode, nobody.stdout) == (2, b"")
    assert nobody.stderr.startswith(b"Error: no server could be reached")


@pytest.mark.parametrize("kind", ["write", "read"])
def test_bench(cluster: LocalCluster, kind: str, tell: Callable[[str], None]) -> None:
    line = ["bench", kind, "--in-flight", "64", "--clients", "2", "--keys", "100", "--duration", "300ms"]
    result = json.loads(printed(cluster, *line, "--warm-up", "100ms", "-w", "json"))
    tell(f"{kind}: {result['ops_per_s']:,.0f}/s with 64 in flight, p50 {result['p50_ms']} ms")
    assert result["ops_per_s"] > 0
    assert result["errors"] == 0
    assert 0 < result["p50_ms"] <= result["p90_ms"] <= result["p99_ms"] <= result["max_ms"]
    left = printed(cluster, "get", "--prefix", "paxos-rsm-bench/", "--count-only")
    assert left == b"0\n"  # it cleans up after itself


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_cluster_in_the_foreground_takes_its_servers_with_it(tmp_path: Path, number: signal.Signals) -> None:
    """Also where it is killed without a word: what was written is there when it is started again."""
    with PortHolder() as holder:
        base = holder.take_row(6)[0]
        for start in (1, 2) if number is signal.SIGKILL else (1,):
            line = command("cluster", "--base-port", str(base), "--data-dir", str(tmp_path / "data"))
            with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment()) as process:
                assert process.stdout is not None
                output = ""
                while "leader: n" not in output:
                    line_read = process.stdout.readline()
                    assert line_read, f"it has ended: {output}"
                    output += line_read
                pids = [int(pid) for pid in re.findall(r"│ +(\d+) │ [^│]*data/n\d", output)]
                assert len(pids) == 3, output
                with Client([f"127.0.0.1:{base + 2}"], timeout_s=TIMEOUT_S) as client:
                    client.put(f"start{start}", "here")
                    assert client.get("start1").value == b"here"
                process.send_signal(number)
                process.stdout.read()
                assert process.wait(TIMEOUT_S) == (0 if number is signal.SIGINT else -number)
            deadline = time.monotonic() + TIMEOUT_S
            while any(Path(f"/proc/{pid}").exists() for pid in pids):
                assert time.monotonic() < deadline
                time.sleep(0.05)
