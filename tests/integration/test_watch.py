"""Watches of three real servers: each serves them from what it has applied itself.

Sizes are those that the store promises: ten thousand watches on one server, a thousand watchers of one key, and
readers that do not read, beside which nobody else notices anything.
"""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from time import perf_counter

import grpc
import pytest

from paxos_rsm import AsyncClient
from paxos_rsm.testing.cluster import LocalCluster
from tests.integration.clients import DEADLINE_S
from tests.integration.conftest import NewCluster
from tests.integration.kills import LONG
from tests.integration.waiting import status_now
from tests.integration.watches import SERVICES, RawWatches, compact, connected

MIB = 1024 * 1024


async def put_many(client: AsyncClient, keys: list[bytes], value: bytes = b"v") -> list[int]:
    """Writes each key, all of them in flight at once, in order; their revisions."""
    results = await asyncio.gather(*(client.put(key, value) for key in keys))
    return [result.revision for result in results]


@pytest.mark.parametrize("service", SERVICES)
async def test_every_server_shows_every_change_in_the_same_order(cluster: LocalCluster, service: str) -> None:
    prefix = service.encode() + b"/"
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        client = await enter(AsyncClient(cluster.endpoints, timeout_s=DEADLINE_S))
        first = (await client.put(prefix + b"first", b"")).revision
        channels = [await enter(connected(server.endpoint)) for server in cluster]
        streams = [RawWatches(channel, service) for channel in channels]
        end = prefix[:-1] + b"0"
        created = [await each.watch(prefix, range_end=end, start_revision=first) for each in streams]
        assert len({each.header.member_id for each in created}) == len(cluster)
        assert len({each.header.cluster_id for each in created}) == 1
        assert all(each.header.raft_term >= 1 for each in created)
        revisions = await put_many(client, [prefix + b"%d" % (n % 7) for n in range(100)])
        await client.delete(prefix + b"3")
        last = (await client.put(prefix + b"last", b"")).revision
        wanted = [first, *revisions, last - 1, last]
        for each in streams:
            assert await each.revisions(last) == wanted


async def test_ten_thousand_watches_on_one_server(cluster: LocalCluster, tell: Callable[[str], None]) -> None:
    server = next(each for each in cluster if each.name != cluster.leader())
    before = status_now(server).memory_bytes
    count, streams_count = 10_000, 10
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        client = await enter(AsyncClient(cluster.endpoints, timeout_s=DEADLINE_S))
        channel = await enter(connected(server.endpoint))
        streams = [RawWatches(channel) for _ in range(streams_count)]
        keys = [b"many/%05d" % number for number in range(count)]

        async def make(number: int, stream: RawWatches) -> None:
            for key in keys[number::streams_count]:
                await stream.watch(key)

        began = perf_counter()
        await asyncio.gather(*(make(*each) for each in enumerate(streams)))
        took_s = perf_counter() - began
        memory = status_now(server).memory_bytes - before
        # Every hundredth key is written twice, and as many that nobody watches.
        written = keys[::100]
        await put_many(client, [key + b"x" for key in written])
        revisions = await put_many(client, written * 2)
        wanted = sorted(zip(written * 2, revisions, strict=True))
        seen: list[tuple[bytes, int]] = []

        async def read(stream: RawWatches, events: int) -> None:
            while events:
                response = await stream.receive()
                seen.extend((event.kv.key, event.kv.mod_revision) for event in response.events)
                events -= len(response.events)

        of_each = [2 * len(set(keys[n::streams_count]) & set(written)) for n in range(streams_count)]
        await asyncio.gather(*(read(*each) for each in zip(streams, of_each, strict=True)))
        assert sorted(seen) == wanted
    tell(f"10,000 watches were made in {took_s:.1f} s, and take {memory / count:.0f} bytes each")


@LONG[0]
@LONG[1]
async def test_a_thousand_watchers_of_one_key(cluster: LocalCluster, tell: Callable[[str], None]) -> None:
    server = next(each for each in cluster if each.name != cluster.leader())
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        client = await enter(AsyncClient(cluster.endpoints, timeout_s=DEADLINE_S))
        channels = [await enter(connected(server.endpoint)) for _ in range(10)]
        # A thousand streams: each its own client, as far as the server can tell.
        streams = [RawWatches(channel) for channel in channels for _ in range(100)]
        await asyncio.gather(*(stream.watch(b"one") for stream in streams))
        began = perf_counter()
        revisions = [(await client.put(b"one", b"%d" % number)).revision for number in range(20)]
        seen = await asyncio.gather(*(stream.revisions(revisions[-1]) for stream in streams))
        took_s = perf_counter() - began
        assert all(each == revisions for each in seen)
    tell(f"20 writes were shown to 1,000 watchers of the key in {took_s:.1f} s, this client included")


@LONG[0]
@LONG[1]
async def test_readers_that_do_not_read_cost_one_buffer_and_nobody_else(
    new_cluster: NewCluster, tell: Callable[[str], None]
) -> None:
    cluster = new_cluster()
    cluster.start()
    leader = cluster.wait_for_leader(everyone=True)
    watched, other = (each for each in cluster if each.name != leader)
    writes, value, slow_count = 8_000, b"v" * 4_096, 8
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        client = await enter(AsyncClient(cluster.endpoints, timeout_s=DEADLINE_S))
        channels = [await enter(connected(watched.endpoint)) for _ in range(slow_count + 1)]
        *slow, quick = [RawWatches(channel) for channel in channels]
        # Ranges of their own, so that nothing is shared.
        for number, stream in enumerate(slow):
            await stream.watch(b"k", range_end=b"k%d" % number + b"x")
        await quick.watch(b"k")
        reading = asyncio.create_task(quick.revisions(writes + 1))
        before = [status_now(each).memory_bytes for each in (watched, other)]
        for _ in range(writes // 500):
            await put_many(client, [b"k"] * 500, value)
        wanted = list(range(2, writes + 2))
        assert await reading == wanted
        after = [status_now(each).memory_bytes for each in (watched, other)]
        grown = [(now - then) / MIB for now, then in zip(after, before, strict=True)]
        whole = slow_count * writes * len(value) / MIB
        assert grown[0] - grown[1] < whole / 2, f"grew by {grown} MiB, with and without slow readers"
        tell(
            f"{slow_count} readers that left {whole:.0f} MiB of events unread cost {grown[0] - grown[1]:.0f} MiB"
        )
        for stream in slow[:2]:
            assert await stream.revisions(writes + 1) == wanted, "late, and nothing is missed"


async def test_a_watch_outlives_a_leader(new_cluster: NewCluster) -> None:
    cluster = new_cluster()
    cluster.start()
    leader = cluster.wait_for_leader(everyone=True)
    survivors = [each for each in cluster if each.name != leader]
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        client = await enter(AsyncClient([each.endpoint for each in survivors], timeout_s=DEADLINE_S))
        streams = [
            RawWatches(await enter(connected(each.endpoint)), metadata=(("hasleader", "true"),))
            for each in survivors
        ]
        for stream in streams:
            await stream.watch(b"k", range_end=b"l")
        revisions = await put_many(client, [b"k%d" % n for n in range(50)])
        writing = asyncio.create_task(put_many(client, [b"k%d" % n for n in range(200)]))
        await asyncio.to_thread(cluster[leader].kill)
        revisions += await writing
        revisions += await put_many(client, [b"k"])
        for stream in streams:
            assert await stream.revisions(revisions[-1]) == revisions
        # Where no leader can be, who asked for one is sent away.
        await asyncio.to_thread(survivors[1].kill)
        assert await streams[0].ended() == (grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")


async def test_a_restarted_server_shows_the_past_and_says_what_is_compacted(new_cluster: NewCluster) -> None:
    cluster = new_cluster()
    cluster.start()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        async with AsyncClient(cluster.endpoints, timeout_s=DEADLINE_S) as client:
            revisions = await put_many(client, [b"k"] * 50)
        async with connected(cluster.endpoints[0]) as channel:
            await compact(channel, revisions[20])
        await asyncio.to_thread(cluster["n2"].restart, kill=True)
        await asyncio.to_thread(cluster.wait_for_leader, everyone=True)
        async with AsyncClient([cluster["n2"].endpoint], timeout_s=DEADLINE_S) as client:
            await client.get(b"k")  # a read that is linearizable: the compaction has been applied here
        channel = await enter(connected(cluster["n2"].endpoint))
        for start, first in ((revisions[20], 20), (revisions[30], 30)):
            stream = RawWatches(channel)
            await stream.watch(b"k", start_revision=start)
            assert await stream.revisions(revisions[-1]) == revisions[first:]
        late = RawWatches(channel)
        await late.watch(b"k", start_revision=revisions[19])
        told = await late.receive()
        assert (told.canceled, told.compact_revision) == (True, revisions[20])


async def test_a_server_that_stops_ends_its_watches_at_once(new_cluster: NewCluster) -> None:
    cluster = new_cluster(1)
    cluster.start()
    async with connected(cluster.endpoints[0]) as channel:
        stream = RawWatches(channel)
        await stream.watch(b"k")
        ending = asyncio.to_thread(cluster["n1"].terminate)
        code, ended = await asyncio.gather(ending, stream.ended())
        assert code == 0
        assert ended == (grpc.StatusCode.UNAVAILABLE, "etcdserver: server stopped")
