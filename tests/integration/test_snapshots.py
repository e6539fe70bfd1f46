"""A log that stays short, on real servers: snapshots taken, started from, fetched, damaged and fetched again.

One history of one cluster, told in order: each test goes on where the one before has left it.
"""

import asyncio
from pathlib import Path

import pytest

from paxos_rsm.client import AsyncClient, Client
from paxos_rsm.testing.cluster import LocalCluster
from tests.integration.command_line import printed
from tests.integration.conftest import NewCluster
from tests.integration.waiting import eventually, same_state, status_now

LOG_BYTES = 256 << 10
VALUE = bytes(1_000)
KEYS = 200


@pytest.fixture(scope="module")
def cluster(new_shared_cluster: NewCluster) -> LocalCluster:
    cluster = new_shared_cluster(
        3,
        options={"snapshot-log-bytes": LOG_BYTES, "log-segment-bytes": 64 << 10, "max-request-bytes": 16_384},
    )
    cluster.start()
    cluster.wait_for_leader(everyone=True)
    return cluster


def write(cluster: LocalCluster, count: int) -> None:
    """Puts to a few keys, and compaction of what they replaced: the state stays small."""

    async def run() -> None:
        async with AsyncClient(cluster.endpoints) as client:
            for _ in range(0, count, KEYS):
                results = await asyncio.gather(*(client.put(b"k%d" % n, VALUE) for n in range(KEYS)))
                await client.compact(max(result.revision for result in results))

    asyncio.run(run())


def disk_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def a_follower(cluster: LocalCluster) -> str:
    leader = cluster.wait_for_leader(everyone=True)
    return next(name for name in cluster.names if name != leader)


def test_log_and_disk_stay_short_however_much_is_written(cluster: LocalCluster) -> None:
    write(cluster, 16_000)
    for server in cluster:
        eventually(lambda server=server: status_now(server).compacted_slot > 0, "a shorter log")  # type: ignore[misc]
        assert status_now(server).snapshot_slot > 0
        assert disk_bytes(server.data_dir) < 16_000 * len(VALUE) / 2
    eventually(lambda: same_state(cluster), "one state everywhere")


def test_all_start_again_from_snapshot_and_log(cluster: LocalCluster) -> None:
    before = eventually(lambda: same_state(cluster), "one state everywhere")
    cluster.kill()
    cluster.start()
    cluster.wait_for_leader(everyone=True)
    after = eventually(lambda: same_state(cluster), "one state everywhere")
    assert after[0] >= before[0]
    with Client(cluster.endpoints) as client:
        assert len(client.range(prefix="k")) == KEYS


def test_who_was_away_for_too_long_takes_a_snapshot_and_serves(cluster: LocalCluster) -> None:
    late = a_follower(cluster)
    was_at = status_now(cluster[late]).applied_slot
    cluster[late].kill()
    others = [server for server in cluster if server.name != late]
    while min(status_now(server).compacted_slot for server in others) <= was_at:
        write(cluster, 1_000)
    cluster[late].start()
    eventually(lambda: same_state(cluster), "one state everywhere")
    assert "installed a snapshot" in cluster[late].log()
    with Client([cluster[late].endpoint]) as client:
        client.put("after", "x")
        value = client.get("after")
        assert value is not None
        assert value.value == b"x"


def test_a_damaged_snapshot_is_named_put_aside_and_fetched_from_another(cluster: LocalCluster) -> None:
    late = a_follower(cluster)
    assert cluster[late].terminate() == 0
    snapshots = sorted((cluster[late].data_dir / "snapshots").glob("*.snapshot"))
    assert snapshots
    for path in snapshots:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    cluster[late].start()
    eventually(lambda: same_state(cluster), "one state everywhere")
    said = cluster[late].log()
    assert str(snapshots[-1]) in said
    assert "waits for one of another member" in said
    assert "installed a snapshot" in said


def test_a_snapshot_is_taken_on_demand(cluster: LocalCluster) -> None:
    write(cluster, KEYS)
    name = a_follower(cluster)
    before = status_now(cluster[name])
    with Client([cluster[name].endpoint]) as client:
        client.put("more", "x")
    said = printed(cluster, "snapshot", "take", "--endpoints", cluster[name].endpoint).decode()
    after = status_now(cluster[name])
    assert after.snapshot_slot > before.snapshot_slot
    assert f"snapshot of slot {after.snapshot_slot}" in said
