"""etcd's own etcdctl, as it comes from the distribution, against three servers of ours.

What needs no other servers to compare with is in test_same_command.py; here is what goes on for a while, and what knows
of members. Tests that kill a server start it again.
"""

import hashlib
import itertools
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from paxos_rsm.testing.cluster import LocalCluster
from tests.etcd.etcdctl import Etcdctl, Running

WRITES = 60


@pytest.fixture(autouse=True)
def all_up(cluster: LocalCluster) -> None:
    """Every test begins with three servers that follow one leader."""
    cluster.start()


def events(running: Running, count: int) -> list[tuple[str, ...]]:
    """What a watch in the simple format has written: (PUT, key, value) or (DELETE, key)."""
    found: list[tuple[str, ...]] = []
    for _ in range(count):
        kind = running.line()
        lines = 2 if kind == "PUT" else 1
        found.append((kind, *running.lines(lines + (kind == "DELETE"))))
    return found


# ---- watch ---------------------------------------------------------------------------------------------------


def test_watch_forms(etcdctl: Etcdctl) -> None:
    etcdctl("put", "wf/a", "1")
    etcdctl("put", "wf/b", "2")
    etcdctl("del", "wf/a")
    revision = etcdctl.json("get", "wf/b")["header"]["revision"]
    with etcdctl.start("watch", "wf/", "--prefix", "--rev", str(revision - 2)) as watch:
        assert events(watch, 3) == [("PUT", "wf/a", "1"), ("PUT", "wf/b", "2"), ("DELETE", "wf/a", "")]
        etcdctl("put", "wf/c", "3")
        assert events(watch, 1) == [("PUT", "wf/c", "3")]
        assert watch.interrupt() != 1
    with etcdctl.start("watch", "wf/b", "--prev-kv", "--rev", str(revision + 1)) as watch:
        etcdctl("put", "wf/b", "4")
        assert watch.lines(5) == ["PUT", "wf/b", "2", "wf/b", "4"]
    with etcdctl.start("watch", "-i") as watch:
        watch.write(f"watch --rev {revision} wf/a wf/z")
        watch.write(f"watch --rev {revision - 1} wf/b")
        lines = sorted(watch.lines(3 * 5))
        assert lines.count("wf/c") == 1
        assert lines.count("wf/b") == 4 - 1


def test_watch_runs_a_command(etcdctl: Etcdctl) -> None:
    revision = int(etcdctl.json("put", "wc", "1")["header"]["revision"])
    with etcdctl.start(
        "watch", "wc", "--rev", str(revision), "--", "sh", "-c", "echo saw $ETCD_WATCH_KEY"
    ) as watch:
        assert watch.lines(4) == ["PUT", "wc", "1", 'saw "wc"']


def test_a_watch_outlives_the_leader(etcdctl: Etcdctl, cluster: LocalCluster) -> None:
    """Events of writes before, amid and after: every one, once, in order."""
    written: list[str] = []
    enough = threading.Event()

    def write() -> None:
        for number in itertools.count():
            if enough.is_set():
                return
            if etcdctl.run("put", "wl/key", str(number)).code == 0:
                written.append(str(number))

    with etcdctl.start("watch", "wl/", "--prefix") as watch:
        assert watch.says_nothing(1.0)  # until it is there
        writer = threading.Thread(target=write)
        writer.start()
        try:
            seen = [events(watch, 1)[0][2] for _ in range(5)]
            killed = cluster.wait_for_leader()
            cluster[killed].kill()
            mark = len(written)
            while len(written) < mark + 10:
                seen.append(events(watch, 1)[0][2])
        finally:
            enough.set()
            writer.join()
        while seen[-1] != written[-1]:
            seen.append(events(watch, 1)[0][2])
    numbers = [int(each) for each in seen]
    assert numbers == sorted(set(numbers)), "an event came twice, or out of order"
    assert set(written) <= set(seen), "an event of an acknowledged write is missing"


# ---- leases --------------------------------------------------------------------------------------------------


def test_a_lease_ends_with_its_keys(etcdctl: Etcdctl) -> None:
    lease = etcdctl("lease", "grant", "2")[0].split()[1]
    with etcdctl.start("watch", "le/", "--prefix") as watch:
        assert watch.says_nothing(1.0)
        etcdctl("put", "le/a", "x", "--lease", lease)
        assert events(watch, 2) == [("PUT", "le/a", "x"), ("DELETE", "le/a", "")]
    assert etcdctl("lease", "timetolive", lease) == [f"lease {lease} already expired"]


def test_a_lease_is_kept_alive(etcdctl: Etcdctl, cluster: LocalCluster) -> None:
    """Through the death of the leader, for longer than its time."""
    lease = etcdctl("lease", "grant", "3")[0].split()[1]
    etcdctl("put", "lk", "x", "--lease", lease)
    with etcdctl.start("lease", "keep-alive", lease) as keeper:
        assert keeper.line() == f"lease {lease} keepalived with TTL(3)"
        cluster[cluster.wait_for_leader()].kill()
        for _ in range(6):  # one a second
            assert keeper.line() == f"lease {lease} keepalived with TTL(3)"
        assert etcdctl("get", "lk", "--print-value-only") == ["x"]
    etcdctl("lease", "revoke", lease)
    assert etcdctl("get", "lk") == []


# ---- locks and elections -------------------------------------------------------------------------------------


def test_locks_exclude_each_other(etcdctl: Etcdctl) -> None:
    with etcdctl.start("lock", "mutex") as first:
        key = first.line()
        assert re.fullmatch(r"mutex/[0-9a-f]+", key)
        with etcdctl.start("lock", "mutex") as second, etcdctl.start("lock", "mutex") as third:
            assert second.says_nothing(1.5)
            assert third.says_nothing(0.1)
            assert first.interrupt() != 1
            waiting = [second, third]
            holder = next(each for each in itertools.cycle(waiting) if not each.says_nothing(0.2))
            other = waiting[1 - waiting.index(holder)]
            assert holder.line() != key
            assert other.says_nothing(1.0)
            holder.interrupt()
            assert other.line().startswith("mutex/")


def test_a_lock_of_the_dead_is_free_after_its_lease(etcdctl: Etcdctl) -> None:
    with etcdctl.start("lock", "grave", "--ttl", "3") as first:
        first.line()
        first.process.kill()
    with etcdctl.start("lock", "grave", "--ttl", "3") as second:
        assert second.line(timeout_s=30).startswith("grave/")


def test_a_lock_runs_a_command(etcdctl: Etcdctl) -> None:
    assert etcdctl("lock", "run", "--", "sh", "-c", "echo with $ETCD_LOCK_KEY")[0].startswith("with run/")
    failed = etcdctl.run("lock", "run", "--", "sh", "-c", "exit 7")
    assert (failed.code, failed.err.strip()) == (1, "Error: exit status 7")


def test_elections(etcdctl: Etcdctl) -> None:
    with etcdctl.start("elect", "office", "anna") as anna:
        key, value = anna.lines(2)
        assert re.fullmatch(r"office/[0-9a-f]+", key)
        assert value == "anna"
        with (
            etcdctl.start("elect", "office", "bert") as bert,
            etcdctl.start("elect", "-l", "office") as observer,
        ):
            assert observer.lines(2) == [key, "anna"]
            assert bert.says_nothing(1.0)
            anna.interrupt()
            assert bert.lines(2)[1] == "bert"
            assert observer.lines(2)[1] == "bert"


# ---- the cluster and its members -----------------------------------------------------------------------------


def test_endpoints(etcdctl: Etcdctl, cluster: LocalCluster) -> None:
    health = etcdctl.run("endpoint", "health")
    assert health.code == 0
    assert (health.out + health.err).count("is healthy") == 3
    statuses = etcdctl.json("endpoint", "status")
    assert [each["Endpoint"] for each in statuses] == cluster.endpoints
    leaders = {each["Status"]["leader"] for each in statuses}
    ids = {each["Status"]["header"]["member_id"]: each["Endpoint"] for each in statuses}
    assert len(leaders) == 1
    assert ids[leaders.pop()] == cluster[cluster.wait_for_leader()].endpoint
    assert {each["Status"]["dbSize"] > 0 for each in statuses} == {True}
    hashes = etcdctl.json("endpoint", "hashkv", "--rev", "1")
    assert len({each["HashKV"]["hash"] for each in hashes}) == 1
    by_cluster = etcdctl.at(cluster.endpoints[0]).json("endpoint", "status", "--cluster")
    assert sorted(each["Endpoint"] for each in by_cluster) == sorted(
        f"http://{each}" for each in cluster.endpoints
    )


def test_a_dead_endpoint_is_unhealthy(etcdctl: Etcdctl, cluster: LocalCluster) -> None:
    dead = next(server for server in cluster if server.name != cluster.wait_for_leader())
    dead.kill()
    health = etcdctl.run("endpoint", "health", "--command-timeout", "3s")
    assert health.code == 1
    said = health.out + health.err
    assert said.count("is healthy") == 2
    assert f"{dead.endpoint} is unhealthy" in said


def test_members(etcdctl: Etcdctl, cluster: LocalCluster) -> None:
    members = {each["name"]: each for each in etcdctl.json("member", "list")["members"]}
    assert {name: each["clientURLs"] for name, each in members.items()} == {
        server.name: [f"http://{server.endpoint}"] for server in cluster
    }
    lines = etcdctl("member", "list")
    assert all(
        re.fullmatch(r"[0-9a-f]+, started, n\d, http://\S+, http://\S+, false", line) for line in lines
    )
    assert len(lines) == 3


def test_maintenance(etcdctl: Etcdctl) -> None:
    assert etcdctl("alarm", "list") == []
    assert etcdctl("alarm", "disarm") == []
    assert len(etcdctl("defrag")) == 3


def test_a_snapshot_is_saved(etcdctl: Etcdctl, cluster: LocalCluster, tmp_path: Path) -> None:
    """The last 32 bytes are the SHA-256 of what is before, which etcdctl itself verifies by the size only."""
    etcdctl("put", "in/snapshot", "the value to be found")
    for endpoint in cluster.endpoints:
        path = tmp_path / f"{endpoint.rpartition(':')[2]}.db"
        said = "".join(etcdctl.at(endpoint)("snapshot", "save", str(path)))
        assert str(path) in said
        data = path.read_bytes()
        assert len(data) % 512 == 32
        assert hashlib.sha256(data[:-32]).digest() == data[-32:]
        assert b"the value to be found" in data


@pytest.mark.slow
def test_check_perf(etcdctl: Etcdctl, tell: Callable[[str], None]) -> None:
    """A minute of 150 writes a second. Whether they pass is a matter of the machine; that all are answered is not."""
    said = etcdctl.run("check", "perf", "--load", "s", timeout_s=180)
    # The first may stand behind the last word of the progress bar.
    verdicts = re.findall(r"(?:PASS|FAIL|Slowest|Stddev).*$", said.out, re.MULTILINE)
    assert len(verdicts) == 4, said
    assert (said.code == 0) == (verdicts[-1] == "PASS"), said
    assert "too many errors" not in said.out.lower()
    tell("etcdctl check perf --load s: " + "; ".join(verdicts))
