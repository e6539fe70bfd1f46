"""A place in a queue, where it differs from what locks and elections show."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from paxos_rsm import AsyncClient, ClientError
from paxos_rsm.client.namespace import ROOT
from paxos_rsm.client.places import Place
from tests.unit.client.fake_server import FakeCluster, FakeServer


@pytest_asyncio.fixture
async def kv(server: FakeServer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.endpoint, timeout_s=30) as kv:
        yield kv


def place(kv: AsyncClient) -> Place:
    return Place(kv, kv._core, ROOT, "p", 60, None)


async def test_a_session_that_expires_in_between_costs_nothing_but_the_place(
    kv: AsyncClient, cluster: FakeCluster, server: FakeServer
) -> None:
    await kv.put("k", "v")
    contender = place(kv)
    server.drop_results = 2  # of the grant and whatever comes with it
    entering = asyncio.create_task(contender.enter(b"", None))
    await server.until(lambda: len(server.frames) >= 2)
    cluster.expire()
    server.drop_results = 0
    server.end_streams()
    assert await entering
    assert contender.first
    assert contender.token
    await contender.leave()
    assert contender.key == b""
    await contender.leave()


async def test_a_leave_that_is_cancelled_leaves_no_key_to_a_lease_that_lives_on(kv: AsyncClient) -> None:
    async with kv.lease(60) as lease:
        contender = Place(kv, kv._core, ROOT, "p", 60, lease)
        assert await contender.enter(b"", None)
        leaving = asyncio.create_task(contender.leave())
        await asyncio.sleep(0)
        leaving.cancel()  # nothing has been sent
        with pytest.raises(asyncio.CancelledError):
            await leaving
        await kv.put("behind", "it")
        assert not await kv.range(prefix="p/")
        assert await contender.enter(b"", 20)
        await contender.leave()


async def test_a_watch_from_a_compacted_revision_looks_again(kv: AsyncClient, server: FakeServer) -> None:
    one, two = place(kv), place(kv)
    await one.enter(b"", None)
    server.watch.silent = True
    entering = asyncio.create_task(two.enter(b"", None))
    await server.watch.until(lambda: bool(server.watch.creates))
    for _ in range(3):
        await kv.put("k", "v")
    await one.leave()
    await kv.compact((await kv.get("k")).revision)
    server.watch.end_streams()
    server.watch.silent = False
    async with asyncio.timeout(20):
        assert await entering
    await two.leave()


async def test_a_client_that_is_closed_waits_no_longer(server: FakeServer) -> None:
    kv = AsyncClient(server.endpoint, timeout_s=30)
    await kv.put("k", "v")
    server.working.clear()
    entering = asyncio.create_task(place(kv).enter(b"", None))
    await server.until(lambda: len(server.frames) == 2)
    await kv.close()
    with pytest.raises(ClientError, match="the client was closed"):
        await entering
    server.working.set()


async def test_impatience(kv: AsyncClient) -> None:
    one, two = place(kv), place(kv)
    assert await one.enter(b"v", None, patient=False)
    assert (await kv.get(one.key)).value == b"v"
    assert not await two.enter(b"", None, patient=False)
    assert (two.key, two.token) == (b"", 0)
    await one.leave()
