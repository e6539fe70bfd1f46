"""A lease keeps itself alive, and counts as lost no later than the cluster may end it."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from paxos_rsm import (
    AsyncClient,
    ClientError,
    GrantResult,
    InvalidArgument,
    LeaseLost,
    OutOfRange,
    TimeToLive,
    Unavailable,
)
from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm.client.leases import AsyncLease
from tests.unit.client.fake_server import FakeCluster, FakeServer


@pytest_asyncio.fixture
async def kv(server: FakeServer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.endpoint, timeout_s=30) as kv:
        yield kv


def alive(lease: AsyncLease) -> bool:
    """Asked anew: what was true before need not be now."""
    return lease.alive


def requests(cluster: FakeCluster, kind: str) -> list[pb.KvCommand]:
    commands = [pb.KvCommand.FromString(each) for each in cluster.executed]
    return [each for each in commands if each.WhichOneof("request") == kind]


async def sleep_through(lease: AsyncLease, s: float) -> None:
    """As if the loop had stood still, or the process been stopped: time has passed, and no timer has run."""
    loop = asyncio.get_running_loop()
    lease._deadline -= s
    assert loop.time() >= lease._deadline


async def test_entering_grants_and_leaving_revokes(kv: AsyncClient, cluster: FakeCluster) -> None:
    async with kv.lease(10) as lease:
        assert lease.id
        assert lease.ttl_s == 10
        assert lease.alive
        await kv.put("k", "v", lease=lease)
        assert (await kv.get("k")).lease == lease.id
        assert await kv.leases() == [lease.id]
    assert not alive(lease)
    assert not lease.lost.is_set(), "it was given up on purpose"
    assert not await kv.get("k")
    assert await kv.leases() == []
    with pytest.raises(LeaseLost, match="it was revoked"):
        lease.check()


async def test_a_short_time_is_what_the_cluster_makes_of_it(kv: AsyncClient) -> None:
    async with kv.lease(1) as lease:
        assert lease.ttl_s == 2
    with pytest.raises(OutOfRange, match="too large lease TTL"):
        await kv.lease(9_000_000_001).grant()
    for wrong in (0, -1, 1.5, "5"):
        with pytest.raises(InvalidArgument, match="ttl_s"):
            kv.lease(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="number of a lease"):
        kv.lease(5, id=-1)


async def test_a_number_that_is_taken(kv: AsyncClient) -> None:
    async with kv.lease(10, id=7) as lease:
        assert lease.id == 7
        with pytest.raises(InvalidArgument, match="lease already exists"):
            await kv.lease(10, id=7).grant()
        assert lease.alive
        assert await kv.leases() == [7], "what was refused is not revoked, it is another's"
        with pytest.raises(InvalidArgument, match="granted before"):
            await lease.grant()


async def test_it_keeps_itself_alive(kv: AsyncClient, cluster: FakeCluster, server: FakeServer) -> None:
    loop = asyncio.get_running_loop()
    async with kv.lease(2) as lease:
        began = loop.time()
        await server.until(lambda: len(requests(cluster, "lease_keep_alive")) >= 4)
        took = loop.time() - began
        assert lease.alive
        assert lease._deadline > began + 2
    assert took > 4 * 2 / 3 * 0.75, "a third of its time lies between two keep-alives, less the jitter"
    assert kv._core.leases == set()


async def test_it_is_lost_when_the_servers_say_so(kv: AsyncClient, cluster: FakeCluster) -> None:
    async with kv.lease(2) as lease:
        told: list[str] = []
        lease.when_lost(lambda: told.append("lost"))
        cluster.store.end_lease(lease.id)
        async with asyncio.timeout(20):
            await lease.lost.wait()
        assert told == ["lost"]
        assert not alive(lease)
        with pytest.raises(LeaseLost, match="it had ended when its keep-alive came"):
            lease.check()
        lease.when_lost(lambda: told.append("late"))
        assert told == ["lost", "late"]


async def test_it_is_lost_when_nobody_answers_for_its_time(
    kv: AsyncClient, cluster: FakeCluster, server: FakeServer
) -> None:
    loop = asyncio.get_running_loop()
    async with kv.lease(2) as lease:
        began = loop.time()
        server.silent = True
        async with asyncio.timeout(20):
            await lease.lost.wait()
        assert lease._deadline <= began + 2, "that it was granted counts, and nothing after it"
        with pytest.raises(LeaseLost, match="no keep-alive of it was acknowledged within its 2 s"):
            lease.check()
        server.silent = False


async def test_a_process_that_was_stopped_does_not_believe_in_it(kv: AsyncClient) -> None:
    async with kv.lease(60) as lease:
        await sleep_through(lease, 61)
        assert not alive(lease), "no timer has told it, and yet it knows"
        assert lease.lost.is_set()


async def test_time_counts_from_the_sending(
    kv: AsyncClient, cluster: FakeCluster, server: FakeServer
) -> None:
    loop = asyncio.get_running_loop()
    await kv.put("k", "v")
    server.working.clear()
    before = loop.time()
    granting = asyncio.create_task(kv.lease(60).grant())
    await server.until(lambda: len(server.frames) == 2)
    sent_by = loop.time()
    await asyncio.sleep(0.2)
    server.working.set()
    lease = await granting
    assert before + 60 <= lease._deadline <= sent_by + 60
    await lease.revoke()


async def test_a_grant_that_comes_too_late_is_lost_from_the_start(
    kv: AsyncClient, server: FakeServer
) -> None:
    await kv.put("k", "v")
    server.working.clear()
    granting = asyncio.create_task(kv.lease(2).grant())
    await asyncio.sleep(2.1)
    server.working.set()
    lease = await granting
    assert not alive(lease)
    with pytest.raises(LeaseLost, match="longer than its 2 s"):
        lease.check()
    await lease.revoke()
    assert await kv.leases() == []


async def test_a_cancelled_grant_does_not_end_the_lease_of_another(
    kv: AsyncClient, cluster: FakeCluster, server: FakeServer
) -> None:
    async with kv.lease(60, id=7) as lease:
        server.working.clear()
        granting = asyncio.create_task(kv.lease(60, id=7).grant())
        await server.until(lambda: len(server.frames) == 2)
        granting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await granting
        server.working.set()
        await kv.put("k", "w")  # behind it, in the order of the session
        assert len(requests(cluster, "lease_grant")) == 2
        assert requests(cluster, "lease_revoke") == []
        assert lease.alive
        assert await kv.leases() == [7]


async def test_a_cancelled_grant_leaves_no_lease(
    kv: AsyncClient, cluster: FakeCluster, server: FakeServer
) -> None:
    await kv.put("k", "v")
    server.working.clear()
    granting = asyncio.create_task(kv.lease(60).grant())
    await server.until(lambda: len(server.frames) == 2)
    granting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await granting
    server.working.set()
    await kv.put("k", "w")  # behind it, in the order of the session
    assert len(requests(cluster, "lease_grant")) == len(requests(cluster, "lease_revoke")) == 1
    assert await kv.leases() == []


async def test_closing_the_client_ends_the_keeping_alive_and_says_so(server: FakeServer) -> None:
    kv = AsyncClient(server.endpoint, timeout_s=30)
    lease = await kv.lease(60).grant()
    await kv.close()
    assert lease.lost.is_set()
    with pytest.raises(LeaseLost, match="the client was closed"):
        lease.check()
    await lease.revoke()
    with pytest.raises(Unavailable, match="closed"):
        await kv.lease(60).grant()


async def test_leaving_in_trouble_does_not_hide_the_trouble(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def leave(kv: AsyncClient, trouble: Exception | None) -> None:
        async with kv.lease(60):
            server.silent = True
            if trouble is not None:
                raise trouble

    async with AsyncClient(server.endpoint, timeout_s=0.2) as kv:
        with caplog.at_level(logging.WARNING), pytest.raises(KeyError):
            await leave(kv, KeyError("the trouble"))
        assert "ends by itself" in caplog.text
        server.silent = False
        with pytest.raises(ClientError):
            await leave(kv, None)
        server.silent = False


async def test_what_is_left_of_it(kv: AsyncClient, cluster: FakeCluster, server: FakeServer) -> None:
    async with kv.lease(10) as lease:
        assert await lease.remaining() == 7
        cluster.store.end_lease(lease.id)
        assert await lease.remaining() == 0
        assert not alive(lease)


async def test_guarded_work_ends_with_the_lease(kv: AsyncClient, cluster: FakeCluster) -> None:
    cancelled = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def done() -> str:
        return "done"

    async with kv.lease(60) as lease:
        assert await lease.guard(done()) == "done"
        working = asyncio.create_task(lease.guard(work()))
        await asyncio.sleep(0.01)
        lease._lose("a test wants it")
        with pytest.raises(LeaseLost, match="a test wants it"):
            await working
        assert cancelled.is_set()
        with pytest.raises(LeaseLost):
            await lease.guard(work())
        with pytest.raises(LeaseLost):
            await lease.guard(done())


async def test_guarded_work_is_cancelled_with_whoever_waits_for_it(kv: AsyncClient) -> None:
    async with kv.lease(60) as lease:
        working = asyncio.create_task(lease.guard(asyncio.sleep(60)))
        await asyncio.sleep(0.01)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working


async def test_the_bare_calls(kv: AsyncClient, server: FakeServer) -> None:
    granted = await kv.grant(10)
    assert granted == GrantResult(granted.id, 10)
    assert granted.id > 0
    assert await kv.grant(20, id=5) == GrantResult(5, 20)
    await kv.put("a", "", lease=granted)
    await kv.put("b", "", lease=5)
    assert await kv.keep_alive_once(granted) == 10
    assert await kv.keep_alive_once(4) == 0
    assert await kv.time_to_live(5, keys=True) == TimeToLive(5, 7, 20, (b"b",))
    assert await kv.time_to_live(granted) == TimeToLive(granted.id, 7, 10)
    assert not await kv.time_to_live(4)
    assert await kv.leases() == sorted([5, granted.id])
    await kv.revoke(granted)
    with pytest.raises(InvalidArgument, match="requested lease not found"):
        await kv.revoke(granted)
    with pytest.raises(InvalidArgument, match="requested lease not found"):
        await kv.put("a", "", lease=granted)
    assert [each.key for each in await kv.range(prefix="")] == [b"b"]
    with pytest.raises(InvalidArgument, match="a lease is"):
        await kv.revoke("5")  # type: ignore[arg-type]


async def test_a_put_that_keeps_value_or_lease(kv: AsyncClient) -> None:
    lease = await kv.grant(10)
    await kv.put("k", "v", lease=lease)
    await kv.put("k", "w", ignore_lease=True)
    found = await kv.get("k")
    assert (found.value, found.lease) == (b"w", lease.id)
    await kv.put("k", ignore_value=True)
    found = await kv.get("k")
    assert (found.value, found.lease, found.version) == (b"w", 0, 3)
    with pytest.raises(InvalidArgument, match="value is provided"):
        await kv.put("k", "x", ignore_value=True)
    with pytest.raises(InvalidArgument, match="lease is provided"):
        await kv.put("k", "x", lease=lease, ignore_lease=True)
