"""Locks: never two holders by fencing token, in the order of coming, and nothing left behind."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from paxos_rsm import AsyncClient, AsyncLock, ClientError, DeadlineExceeded, InvalidArgument, LeaseLost
from tests.unit.client.fake_server import FakeCluster, FakeServer


@pytest_asyncio.fixture
async def kv(server: FakeServer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.endpoint, timeout_s=30) as kv:
        yield kv


def held(lock: AsyncLock) -> bool:
    """Asked anew: what was true before need not be now."""
    return lock.held


async def keys(kv: AsyncClient) -> list[bytes]:
    return [each.key for each in await kv.range(prefix="")]


async def waiters(kv: AsyncClient, name: str, count: int) -> None:
    """Returns once so many have a place in the queue."""
    async with asyncio.timeout(20), kv.watch(prefix=name + "/") as watch:
        while len(await kv.range(prefix=name + "/")) != count:
            await watch.next()


async def test_the_key_is_etcds_and_the_token_is_its_create_revision(kv: AsyncClient) -> None:
    await kv.put("other", "x")
    async with kv.lock("locks/one", ttl_s=60) as lock:
        assert lock.held
        assert lock.lease is not None
        assert lock.key == b"locks/one/%x" % lock.lease.id
        found = await kv.get(lock.key)
        assert found.create_revision == lock.fencing_token == 3
        assert (found.value, found.lease) == (b"", lock.lease.id)
        assert not lock.lost.is_set()
    assert not held(lock)
    assert await keys(kv) == [b"other"]
    assert await kv.leases() == []
    with pytest.raises(LeaseLost, match="is not held"):
        _ = lock.fencing_token
    with pytest.raises(LeaseLost, match="is not held"):
        _ = lock.lost


async def test_one_after_the_other_in_the_order_of_coming(kv: AsyncClient) -> None:
    held: list[int] = []
    tokens: list[int] = []
    inside = 0

    async def contend(number: int) -> None:
        nonlocal inside
        async with kv.lock("l", ttl_s=60) as lock:
            inside += 1
            assert inside == 1
            held.append(number)
            tokens.append(lock.fencing_token)
            await kv.put("work", str(number))
            inside -= 1

    first = kv.lock("l", ttl_s=60)
    await first.acquire()
    tasks = []
    for number in range(8):
        tasks.append(asyncio.create_task(contend(number)))
        await waiters(kv, "l", number + 2)
    await first.release()
    await asyncio.gather(*tasks)
    assert held == list(range(8))
    assert tokens == sorted(tokens)
    assert await kv.leases() == []


async def test_each_waiter_watches_one_key(kv: AsyncClient, server: FakeServer) -> None:
    async with kv.lock("l", ttl_s=60):
        tasks = []
        for number in range(5):
            tasks.append(asyncio.create_task(kv.lock("l", ttl_s=60).acquire()))
            await waiters(kv, "l", number + 2)

        def watched() -> set[bytes]:
            return {each.key for each in server.watch.creates if not each.range_end}

        await server.watch.until(lambda: len(watched()) == 5)  # no herd: everybody waits for another one
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_a_waiter_that_gives_up_in_the_middle_does_not_let_the_next_one_in(kv: AsyncClient) -> None:
    async with kv.lock("l", ttl_s=60):
        quitter = asyncio.create_task(kv.lock("l", ttl_s=60).acquire())
        await waiters(kv, "l", 2)
        last = kv.lock("l", ttl_s=60)
        waiting = asyncio.create_task(last.acquire())
        await waiters(kv, "l", 3)
        quitter.cancel()
        await waiters(kv, "l", 2)
        await kv.put("something", "else")
        assert not held(last)
        assert not waiting.done()
    await waiting
    assert held(last)
    await last.release()


async def test_a_time_out_leaves_no_key(kv: AsyncClient) -> None:
    async with kv.lock("l", ttl_s=60) as lock:
        late = kv.lock("l", ttl_s=60)
        with pytest.raises(DeadlineExceeded, match=r"still held by somebody else.* after 0\.2 s"):
            await late.acquire(timeout_s=0.2)
        assert await keys(kv) == [lock.key]
        assert len(await kv.leases()) == 1
        assert not await late.try_acquire()
        assert await keys(kv) == [lock.key]
    assert await late.try_acquire(), "it can be used again"
    await late.release()
    with pytest.raises(InvalidArgument, match="was not acquired"):
        await late.release()


async def test_a_cancelled_acquire_leaves_no_key(kv: AsyncClient, server: FakeServer) -> None:
    async with kv.lock("l", ttl_s=60) as lock:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await kv.lock("l", ttl_s=60).acquire()
        await kv.put("behind", "it")  # reads are not ordered behind what nobody awaits; commands are
        assert await keys(kv) == [b"behind", lock.key]
        server.working.clear()  # and while the answer to the creation is on its way
        frames = len(server.frames)
        task = asyncio.create_task(kv.lock("l", ttl_s=60).acquire())
        await server.until(lambda: len(server.frames) > frames)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        server.working.set()
        await kv.put("behind", "it")
        assert await keys(kv) == [b"behind", lock.key]
        assert len(await kv.leases()) == 1


async def test_closing_waits_for_what_is_to_be_undone(server: FakeServer, cluster: FakeCluster) -> None:
    async with AsyncClient(server.endpoint, timeout_s=30) as other, other.lock("l", ttl_s=60):
        kv = AsyncClient(server.endpoint, timeout_s=30)
        task = asyncio.create_task(kv.lock("l", ttl_s=60).acquire())
        await waiters(other, "l", 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await kv.close()
        assert len(await other.range(prefix="l/")) == 1


async def test_a_holder_whose_lease_is_lost_knows(kv: AsyncClient, cluster: FakeCluster) -> None:
    lock = kv.lock("l", ttl_s=2)
    token = await lock.acquire()
    assert lock.lease is not None
    lost = lock.lost
    working = asyncio.create_task(lock.guard(asyncio.sleep(60)))
    waiting = kv.lock("l", ttl_s=60)
    task = asyncio.create_task(waiting.acquire())
    await waiters(kv, "l", 2)
    cluster.store.end_lease(lock.lease.id)
    assert await task > token
    async with asyncio.timeout(20):
        await lost.wait()
    assert not held(lock)
    with pytest.raises(LeaseLost, match="it had ended"):
        _ = lock.fencing_token
    with pytest.raises(LeaseLost):
        await working
    await lock.release()  # in peace
    await waiting.release()


async def test_a_waiter_whose_lease_is_lost_queues_anew(kv: AsyncClient, cluster: FakeCluster) -> None:
    async with kv.lock("l", ttl_s=60) as lock:
        waiting = kv.lock("l", ttl_s=2)
        task = asyncio.create_task(waiting.acquire())
        await waiters(kv, "l", 2)
        assert waiting.lease is not None
        first = waiting.lease.id
        cluster.store.end_lease(first)
        await waiters(kv, "l", 1)
        await waiters(kv, "l", 2)
        assert waiting.lease.id != first
        assert lock.held
    await task
    assert waiting.held
    await waiting.release()


async def test_a_lease_that_is_given_serves_many_and_stays(kv: AsyncClient, cluster: FakeCluster) -> None:
    async with kv.lease(60) as lease:
        async with kv.lock("a", lease=lease) as one, kv.lock("b", lease=lease) as two:
            assert (one.key, two.key) == (b"a/%x" % lease.id, b"b/%x" % lease.id)
            assert one.lease is two.lease is lease
            with pytest.raises(InvalidArgument, match="holds or waits for b'a' already"):
                await kv.lock("a", lease=lease).acquire()
            assert one.held
        assert await keys(kv) == []
        assert lease.alive
        async with kv.lock("a", ttl_s=60), kv.lock("b", lease=lease) as two:
            waiting = asyncio.create_task(kv.lock("a", lease=lease).acquire())
            await waiters(kv, "a", 2)
            waiting.cancel()
            await waiters(kv, "a", 1)
            assert two.held
            assert await kv.get(two.key)
    with pytest.raises(LeaseLost, match="revoked"):
        await kv.lock("a", lease=lease).acquire()


async def test_a_given_lease_that_is_lost_while_waiting(kv: AsyncClient, cluster: FakeCluster) -> None:
    async with kv.lock("l", ttl_s=60):
        lease = await kv.lease(2).grant()
        task = asyncio.create_task(kv.lock("l", lease=lease).acquire())
        await waiters(kv, "l", 2)
        cluster.store.end_lease(lease.id)
        with pytest.raises(LeaseLost):
            await task


async def test_a_key_that_somebody_deletes(kv: AsyncClient) -> None:
    """Whoever comes to the front looks whether it is still there itself."""
    async with kv.lock("l", ttl_s=60) as lock, kv.lease(60) as lease:
        task = asyncio.create_task(kv.lock("l", lease=lease).acquire())
        await waiters(kv, "l", 2)
        await kv.delete(b"l/%x" % lease.id)
        await kv.delete(lock.key)
        with pytest.raises(LeaseLost, match="somebody deleted it"):
            await task


async def test_one_object_is_one_contender(kv: AsyncClient) -> None:
    lock = kv.lock("l", ttl_s=60)
    await lock.acquire()
    with pytest.raises(InvalidArgument, match="by this object already"):
        await lock.acquire()
    assert lock.held
    await lock.release()
    with pytest.raises(InvalidArgument, match="has a name"):
        kv.lock("")
    async with kv.lock("l", ttl_s=60):
        contender = kv.lock("l", ttl_s=60)
        task = asyncio.create_task(contender.acquire())
        await waiters(kv, "l", 2)
        with pytest.raises(InvalidArgument, match="by this object already"):
            await contender.acquire()
        task.cancel()
        await asyncio.wait([task])


async def test_within_a_namespace(kv: AsyncClient) -> None:
    view = kv.namespace("app/")
    async with view.lock("l", ttl_s=60) as lock:
        assert lock.key.startswith(b"l/")
        assert await kv.get(b"app/" + lock.key)
        assert not await kv.lock("app/l", ttl_s=60).try_acquire()
        assert await kv.lock("l", ttl_s=60).try_acquire()


async def test_no_server(kv: AsyncClient, server: FakeServer) -> None:
    await kv.put("k", "v")
    server.silent = True
    with pytest.raises(ClientError, match="no server answers"):
        await kv.lock("l", ttl_s=60).acquire(timeout_s=0.2)
    server.silent = False
