"""A store that is full, and one that compacts by itself, as etcd's own etcdctl sees them; three servers of ours.

What a user of etcd does when the alarm rings (make room, disarm) works here; the last step does nothing.
"""

import time
from collections.abc import Callable, Iterator

import grpc
import pytest

from paxos_rsm._proto import maintenance_pb2, maintenance_pb2_grpc
from paxos_rsm.testing.cluster import LocalCluster
from tests.etcd.etcdctl import Etcdctl
from tests.etcd.real_etcd import HOW_TO_INSTALL, etcdctl_path

QUOTA_BYTES = 100_000
VALUE = "v" * 5_000
WAIT_S = 60.0


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {WAIT_S:g} s"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def small() -> Iterator[LocalCluster]:
    """Three servers with a quota, which keep what was written in the last two seconds."""
    options: dict[str, str | int] = {"quota-backend-bytes": QUOTA_BYTES, "auto-compaction-retention": "2s"}
    with LocalCluster(3, options=options) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def ctl(small: LocalCluster) -> Etcdctl:
    path = etcdctl_path()
    if path is None:
        pytest.skip(f"etcdctl is not installed; {HOW_TO_INSTALL}")
    small.wait_for_leader()
    # The first leader's first command: what is written before it has no quota.
    until(lambda: quotas(small) == [QUOTA_BYTES] * 3, "the quota is set")
    return Etcdctl(path, small.endpoints)


def quotas(cluster: LocalCluster) -> list[int]:
    found = []
    for endpoint in cluster.endpoints:
        with grpc.insecure_channel(endpoint) as channel:
            status = maintenance_pb2_grpc.MaintenanceStub(channel).Status(
                maintenance_pb2.EndpointStatusRequest()
            )
            found.append(status.dbSizeQuota)
    return found


def ids(ctl: Etcdctl) -> list[int]:
    return sorted(member["ID"] for member in ctl.json("member", "list")["members"])


def fill(ctl: Etcdctl, prefix: str) -> int:
    """Puts until one is refused: how many were taken."""
    for number in range(2 * QUOTA_BYTES // len(VALUE)):
        said = ctl.run("put", f"{prefix}/{number}", VALUE)
        if said.code:
            assert said.err.splitlines()[-1] == "Error: etcdserver: mvcc: database space exceeded"
            return number
    raise AssertionError("no put was refused")


def test_a_full_store_rings_the_alarm_and_stops_by_itself_when_there_is_room(
    ctl: Etcdctl, small: LocalCluster, tell: Callable[[str], None]
) -> None:
    ctl("put", "first", "x")
    taken = fill(ctl, "a")
    tell(f"a quota of {QUOTA_BYTES} bytes takes {taken} values of {len(VALUE)} bytes")
    assert QUOTA_BYTES // (len(VALUE) + 400) - 1 <= taken <= QUOTA_BYTES // len(VALUE) + 1
    alarms = sorted(ctl("alarm", "list"))
    assert alarms == sorted(f"memberID:{each} alarm:NOSPACE " for each in ids(ctl))
    for status in ctl.json("endpoint", "status"):
        assert [each.strip() for each in status["Status"]["errors"]] == sorted(
            each.strip() for each in alarms
        )
        assert status["Status"]["dbSizeInUse"] >= QUOTA_BYTES
    # What needs no room is taken, and so is what makes some.
    assert ctl("get", "first", "--print-value-only") == ["x"]
    leader = small.wait_for_leader()
    small[leader].kill()
    small.wait_for_leader()
    said = ctl.run("put", "more", "x")
    assert "database space exceeded" in said.err, "another leader refuses it too"
    small.start()
    assert ctl("alarm", "disarm") == []
    assert ctl("alarm", "list"), "there is no room yet"
    assert ctl("del", "a/", "--prefix") == [str(taken)]
    # The compaction comes by itself.
    until(lambda: ctl("alarm", "list") == [], "the alarm ends")
    ctl("put", "more", "y")
    assert ctl("get", "more", "--print-value-only") == ["y"]
    assert not any(each["Status"].get("errors") for each in ctl.json("endpoint", "status"))


def test_old_revisions_are_compacted_by_the_leader_and_by_the_next_one(
    ctl: Etcdctl, small: LocalCluster
) -> None:
    for _ in range(2):
        revision = ctl.json("put", "k", "1")["header"]["revision"]
        ctl("put", "k", "2")

        def compacted(revision: int = revision) -> bool:
            said = ctl.run("get", "k", "--rev", str(revision))
            return said.code != 0 and "required revision has been compacted" in said.err

        assert not compacted()
        ctl("put", "k", "3")
        until(compacted, "the leader compacts")
        small[small.wait_for_leader()].restart()
        small.start()


def test_a_quota_is_changed_by_starting_the_servers_with_another(ctl: Etcdctl, small: LocalCluster) -> None:
    fill(ctl, "b")
    small.terminate()
    for server in small:
        server.flags[server.flags.index("--quota-backend-bytes") + 1] = "-1"
    small.start()
    until(lambda: ctl.run("put", "more", VALUE).code == 0, "the quota goes")
    assert ctl("alarm", "list") == []
