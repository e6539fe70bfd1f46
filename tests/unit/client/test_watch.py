"""What a consumer calls; how the stream behaves is test_watch_stream.py's."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from paxos_rsm import AsyncClient, DeadlineExceeded, InvalidArgument, Op
from paxos_rsm._proto import watch_pb2 as pb
from paxos_rsm.client.watch import filters_of
from tests.unit.client.fake_server import FakeServer


@pytest_asyncio.fixture
async def kv(server: FakeServer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.endpoint, timeout_s=30) as kv:
        yield kv


async def test_iterating_and_calling_the_client_meanwhile(kv: AsyncClient) -> None:
    seen = []
    async with kv.watch(prefix="k") as watch:
        await kv.put("k1", "x")
        async for event in watch:
            seen.append((event.key, event.value))
            if len(seen) == 3:
                break
            await kv.put(b"k%d" % (len(seen) + 1), event.key)
    assert seen == [(b"k1", b"x"), (b"k2", b"k1"), (b"k3", b"k2")]


async def test_from_the_past_with_what_was_before(kv: AsyncClient) -> None:
    await kv.put("k", "1")
    await kv.put("k", "2")
    await kv.delete("k")
    async with kv.watch("k", start_revision=2, prev_kv=True) as watch:
        events = [await watch.next() for _ in range(3)]
    told = [(e.kind, e.value, e.prev_kv.value if e.prev_kv else None, e.revision) for e in events if e]
    assert told == [("put", b"1", None, 2), ("put", b"2", b"1", 3), ("delete", b"", b"2", 4)]


async def test_what_is_left_out(kv: AsyncClient) -> None:
    async with kv.watch("k", leave_out="put") as gone, kv.watch("k", leave_out=["delete"]) as written:
        await kv.put("k", "1")
        await kv.delete("k")
        await kv.put("k", "2")
        first = await gone.next()
        assert first is not None
        assert (first.kind, first.revision) == ("delete", 3)
        assert [e.value for e in (await written.next(), await written.next()) if e] == [b"1", b"2"]
    assert filters_of(()) == []
    assert filters_of("put") == [pb.WatchCreateRequest.NOPUT]
    with pytest.raises(InvalidArgument, match="leave_out"):
        kv.watch("k", leave_out="puts")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="start_revision"):
        kv.watch("k", start_revision=-1)


async def test_a_transaction_shares_a_revision(kv: AsyncClient) -> None:
    async with kv.watch(prefix="") as watch:
        await kv.txn([], [Op.put("a", "1"), Op.put("b", "2")])
        events = await watch.next_batch()
        assert [(event.key, event.revision) for event in events] == [(b"a", 2), (b"b", 2)]
        assert watch.resume_revision == 3


async def test_waiting_has_an_end(kv: AsyncClient) -> None:
    async with kv.watch("k") as watch:
        with pytest.raises(DeadlineExceeded, match=r"nothing happened.*0\.05 s"):
            await watch.next(timeout_s=0.05)
        await kv.put("k", "v")
        assert await watch.next(timeout_s=20)


async def test_closing_ends_the_iteration(kv: AsyncClient) -> None:
    async def consume() -> int:
        return len([event async for event in watch])

    async with kv.watch("k") as watch:
        consumer = asyncio.create_task(consume())
        await kv.put("k", "v")
        while not consumer.done():
            await watch.close()
            await asyncio.sleep(0)
    assert await consumer <= 1
    assert await watch.next() is None
    await watch.close()


async def test_it_starts_by_itself(kv: AsyncClient) -> None:
    await kv.put("k", "v")
    watch = kv.watch("k", start_revision=2)
    assert watch.resume_revision == 2
    event = await anext(watch)
    assert event.value == b"v"
    await watch.close()


async def test_progress_is_told_to_whoever_asks(kv: AsyncClient, server: FakeServer) -> None:
    async with kv.watch("k", progress=True) as watch:
        await kv.put("other", "v")
        event = await watch.next(timeout_s=20)  # the stream asks when it has heard nothing for a while
        assert event is not None
        assert (event.kind, event.revision) == ("progress", 2)
    assert server.watch.creates[0].progress_notify


async def test_within_a_namespace(kv: AsyncClient) -> None:
    view = kv.namespace("app/")
    async with view.watch(prefix="") as everything, view.watch("k") as one, view.watch("b", b"\0") as tail:
        await kv.put("app0", "outside")
        await kv.put("app/a", "1")
        await kv.put("app/k", "2")
        assert [event.key for event in (await anext(everything), await anext(everything))] == [b"a", b"k"]
        event = await one.next()
        assert event is not None
        assert (event.key, event.value) == (b"k", b"2")
        event = await tail.next()
        assert event is not None
        assert event.key == b"k"
