"""Leases while leaders are killed, and while wall clocks are an hour off: kept ones stay, others end, in their time."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from paxos_rsm import AsyncClient
from paxos_rsm.client.leases import AsyncLease
from paxos_rsm.testing import FaultUnavailable
from paxos_rsm.testing.cluster import LocalCluster
from tests.integration.conftest import NewCluster
from tests.integration.kills import (
    LONG,
    Ballots,
    ballots_of,
    client_from,
    kill_leaders,
    longest_gap_s,
    writing,
)

KILL_EVERY_S = 3.0
SLACK_S = 30.0
"""Beyond a lease's times, for elections and a busy machine; what was needed is told."""
EARLY_S = 0.05
"""Two ticks: as exact as a server's watch is."""
TAKEN_OVER_S = 1.0
"""Another may have become the leader so long before the one that was killed had been asked."""
TIMEOUT_S = 120.0
CLOCK_TTL_S = 4


@asynccontextmanager
async def deletions(kv: AsyncClient, prefix: str) -> AsyncIterator[dict[bytes, float]]:
    """The keys below ``prefix`` that were deleted while the block runs, and when that was seen, by time.monotonic()."""
    seen: dict[bytes, float] = {}

    async def look() -> None:
        async for event in watch:
            seen[event.key] = time.monotonic()

    async with kv.watch(prefix=prefix, leave_out="put") as watch:
        task = asyncio.create_task(look())
        try:
            yield seen
            assert not task.done(), f"the watch has ended: {task}"
        finally:
            task.cancel()
            await asyncio.wait([task])


async def until_deleted(seen: dict[bytes, float], key: str) -> float:
    """When it was."""
    async with asyncio.timeout(TIMEOUT_S):
        while key.encode() not in seen:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return seen[key.encode()]


async def granted(kv: AsyncClient, key: str, ttl_s: int) -> float:
    """Writes a key with a lease that nobody keeps alive; gives when it was asked for, by time.monotonic()."""
    lease = (await kv.grant(ttl_s)).id
    asked_at = time.monotonic()
    assert await kv.keep_alive_once(lease) == ttl_s
    await kv.put(key, "not kept", lease=lease)
    return asked_at


def check_ended(
    asked_at: float, ended_at: float, ttl_s: int, ballots: Ballots, killed: Sequence[float] = ()
) -> str:
    """Not before its time, which each new leader gives again, and not long after it. Tells how long it took."""
    took, changes = ended_at - asked_at, ballots.changes(asked_at, ended_at)
    due = asked_at + ttl_s - EARLY_S
    for at in killed:
        if asked_at < at < due:  # it cannot have ended by then
            due = max(due, at + ttl_s - TAKEN_OVER_S)
    assert ended_at >= due, f"a lease of {ttl_s} s ended after {took:.2f} s, {due - ended_at:.2f} s too early"
    assert took <= ttl_s * (1 + changes) + SLACK_S, f"{took:.1f} s, with {changes} changes of leader"
    return f"one of {ttl_s} s that was not kept ended after {took:.1f} s, with {changes} changes of leader"


def check_kept(leases: dict[str, AsyncLease], deleted: dict[bytes, float], gap_s: float) -> int:
    """Those kept alive have their keys. One that was lost must have known, and have met an outage; gives how many."""
    lost = 0
    for key, lease in leases.items():
        if lease.alive:
            assert key.encode() not in deleted, f"{key} is gone, and its lease was kept alive"
        else:
            assert gap_s > lease.ttl_s / 2, f"lost, in an outage of {gap_s:.1f} s at most: {lease.loss()}"
            lost += 1
    return lost


@pytest.mark.parametrize(
    ("count", "ttl_s", "kills"),
    [pytest.param(6, 5, 2, id="short"), pytest.param(30, 20, 20, id="long", marks=LONG)],
)
async def test_one_that_is_kept_stays_and_one_that_is_not_ends(
    cluster: LocalCluster, count: int, ttl_s: int, kills: int, tell: Callable[[str], None]
) -> None:
    prefix = f"{count} leases/"
    async with AsyncExitStack() as stack:
        kv = await stack.enter_async_context(client_from(cluster, 0))
        ballots = await stack.enter_async_context(ballots_of(cluster))
        deleted = await stack.enter_async_context(deletions(kv, prefix))
        acknowledged = await stack.enter_async_context(writing(kv, "leases/load"))
        leases: dict[str, AsyncLease] = {}
        for number in range(count):
            keeper = await stack.enter_async_context(client_from(cluster, number))
            leases[f"{prefix}{number}"] = lease = await keeper.lease(ttl_s).grant()
            await keeper.put(f"{prefix}{number}", "kept", lease=lease)
        asked_at = await granted(kv, f"{prefix}alone", ttl_s)
        # A quorum is kept: no outage is longer than an election.
        killed = await kill_leaders(cluster, kills, KILL_EVERY_S, everyone=True)
        # When it ends, the others have lived by their keep-alives alone.
        told = check_ended(asked_at, await until_deleted(deleted, f"{prefix}alone"), ttl_s, ballots, killed)
        gap_s = longest_gap_s(acknowledged)
        lost = check_kept(leases, deleted, gap_s)
        ids = await kv.leases()
        assert all(lease.id in ids for lease in leases.values() if lease.alive)
    tell(
        f"{count} leases kept alive through {len(killed)} killed leaders: {lost} lost; {told}; "
        f"longest outage {gap_s:.1f} s"
    )


@pytest.fixture
def shimmed(new_cluster: NewCluster) -> LocalCluster:
    """Three servers whose wall clocks can be set."""
    try:
        cluster = new_cluster(shim=True)
        cluster.start()
    except FaultUnavailable as error:
        pytest.skip(str(error))
    for server in cluster:
        server.faults.check_loaded(server.pid)
    return cluster


async def test_a_wall_clock_that_is_an_hour_off_changes_nothing(
    shimmed: LocalCluster, tell: Callable[[str], None]
) -> None:
    """An hour forward at the leader; then an hour back at all of them, while the leader is killed."""
    leader = shimmed.wait_for_leader(everyone=True)
    async with (
        client_from(shimmed, 0) as kv,
        ballots_of(shimmed) as ballots,
        writing(kv, "clock/load") as acknowledged,
        deletions(kv, "clock/lease/") as deleted,
    ):
        lease = await kv.lease(CLOCK_TTL_S).grant()
        await kv.put("clock/lease/kept", "here", lease=lease)
        asked_at = await granted(kv, "clock/lease/forward", CLOCK_TTL_S)
        shimmed[leader].faults.clock_offset_s(3600)
        assert 0 < await lease.remaining() <= CLOCK_TTL_S
        ended_at = await until_deleted(deleted, "clock/lease/forward")
        forward = check_ended(asked_at, ended_at, CLOCK_TTL_S, ballots)

        asked_at = await granted(kv, "clock/lease/back", CLOCK_TTL_S)
        before = {server.name: server.faults.clocks_shifted for server in shimmed}
        for server in shimmed:
            server.faults.clock_offset_s(-3600)
        assert 0 < await lease.remaining() <= CLOCK_TTL_S
        killed = await kill_leaders(shimmed, 1, 0)
        ended_at = await until_deleted(deleted, "clock/lease/back")
        back = check_ended(asked_at, ended_at, CLOCK_TTL_S, ballots, killed)
        lost = check_kept({"clock/lease/kept": lease}, deleted, longest_gap_s(acknowledged))
        assert any(server.faults.clocks_shifted > before[server.name] for server in shimmed), "nobody looked"
    tell(f"wall clock an hour forward: {forward}; an hour back: {back}; the one that was kept: {lost} lost")
