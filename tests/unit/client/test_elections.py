"""Elections: one leads, the next follows, and everybody can see who."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from paxos_rsm import AsyncClient, DeadlineExceeded, InvalidArgument, Leader, LeaseLost
from tests.unit.client.fake_server import FakeCluster, FakeServer
from tests.unit.client.test_locks import waiters


@pytest_asyncio.fixture
async def kv(server: FakeServer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.endpoint, timeout_s=30) as kv:
        yield kv


async def test_one_leads_and_then_the_next(kv: AsyncClient) -> None:
    async with kv.election("e", ttl_s=60) as one, kv.election("e", ttl_s=60) as two:
        assert await one.leader() is None
        token = await one.campaign("host-1")
        assert one.leads
        assert one.fencing_token == token
        campaign = asyncio.create_task(two.campaign("host-2"))
        await waiters(kv, "e", 2)
        leader = await two.leader()
        assert leader is not None
        assert leader == Leader(one.key, b"host-1", token, leader.revision)
        assert not two.leads
        with pytest.raises(LeaseLost, match="is not held"):
            await two.proclaim("me")
        await one.resign()
        await one.resign()
        assert await campaign > token
        assert two.key
        assert one.key == b""
    assert len(await kv.range(prefix="")) == 0
    assert await kv.leases() == []


async def test_a_leader_proclaims(kv: AsyncClient) -> None:
    async with kv.election("e", ttl_s=60) as election:
        await election.campaign("one")
        await election.proclaim("two")
        found = await kv.get(election.key)
        assert (found.value, found.create_revision) == (b"two", election.fencing_token)
        assert election.lease is not None
        assert found.lease == election.lease.id
        await kv.delete(election.key)
        with pytest.raises(LeaseLost, match="somebody deleted it"):
            await election.proclaim("three")


async def test_observers_see_every_word(kv: AsyncClient) -> None:
    seen: list[bytes] = []
    told = asyncio.Event()

    async def observe() -> None:
        async for leader in kv.election("e").observe():
            seen.append(leader.value)
            told.set()

    async def until(count: int) -> None:
        async with asyncio.timeout(20):
            while len(seen) < count:
                told.clear()
                await told.wait()

    observer = asyncio.create_task(observe())
    async with kv.election("e", ttl_s=60) as one, kv.election("e", ttl_s=60) as two:
        await one.campaign("a")
        await until(1)
        await one.proclaim("b")
        await until(2)
        campaign = asyncio.create_task(two.campaign("c"))
        await waiters(kv, "e", 2)
        await one.resign()
        await campaign
        await until(3)
    assert seen == [b"a", b"b", b"c"]
    observer.cancel()
    await asyncio.wait([observer])


async def test_a_leader_whose_lease_is_lost_knows(kv: AsyncClient, cluster: FakeCluster) -> None:
    async with kv.election("e", ttl_s=2) as election:
        await election.campaign("a")
        assert election.lease is not None
        lost = election.lost
        working = asyncio.create_task(election.guard(asyncio.sleep(60)))
        cluster.store.end_lease(election.lease.id)
        with pytest.raises(LeaseLost, match="it had ended"):
            await working
        assert lost.is_set()
        assert not election.leads
        with pytest.raises(LeaseLost):
            await election.proclaim("b")
        with pytest.raises(LeaseLost):
            _ = election.fencing_token


async def test_a_campaign_that_is_given_up(kv: AsyncClient) -> None:
    async with kv.election("e", ttl_s=60) as one:
        await one.campaign("a")
        async with kv.election("e", ttl_s=60) as two:
            with pytest.raises(DeadlineExceeded):
                await two.campaign("b", timeout_s=0.1)
            assert len(await kv.range(prefix="e/")) == 1
            waiting = asyncio.create_task(two.campaign("b"))
            await waiters(kv, "e", 2)
            with pytest.raises(InvalidArgument, match="already"):
                await two.campaign("c")
            waiting.cancel()
            await waiters(kv, "e", 1)
