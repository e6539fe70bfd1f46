"""Watches of the client against real servers that are killed, stopped and cut off: every event once, in order."""

import asyncio
import time
from collections.abc import Callable

import pytest

from paxos_rsm import AsyncClient, Client, Compacted, WatchEvent
from paxos_rsm.client.watch import AsyncWatch
from paxos_rsm.testing.cluster import LocalCluster, LocalServer
from tests.integration.conftest import NewCluster
from tests.integration.kills import LONG
from tests.integration.waiting import TIMEOUT_S

WATCHERS = 12
KILLS = 3
LEFT_WITHIN_S = 15.0
"""Generous: the machine does much else. What was measured is told."""


def client(cluster: LocalCluster) -> AsyncClient:
    return AsyncClient(cluster.endpoints, timeout_s=TIMEOUT_S)


def server_of(kv: AsyncClient, cluster: LocalCluster) -> LocalServer:
    """Where the watches of a client are right now."""
    endpoint = kv._core.watches.ring.current
    return next(server for server in cluster if server.endpoint == endpoint)


async def until(watch: AsyncWatch, value: bytes) -> list[WatchEvent]:
    """Everything up to the event with this value."""
    events: list[WatchEvent] = []
    async with asyncio.timeout(TIMEOUT_S):
        while not events or events[-1].value != value:
            events.append(await anext(watch))
    return events


@LONG[0]
@LONG[1]
async def test_every_event_once_and_in_order_while_leaders_are_killed(cluster: LocalCluster) -> None:
    async def watcher() -> list[tuple[int, bytes]]:
        async with client(cluster) as kv, kv.watch(prefix="killed/", start_revision=first) as watch:
            return [(event.revision, event.value) for event in await until(watch, b"last")]

    async with client(cluster) as kv:
        first = (await kv.get("x")).revision + 1
        watchers = [asyncio.create_task(watcher()) for _ in range(WATCHERS)]
        written: list[tuple[int, bytes]] = []
        for number in range(KILLS):
            for n in range(100):
                value = b"%d %d" % (number, n)
                written.append(((await kv.put(b"killed/%d" % (n % 7), value)).revision, value))
            leader = await asyncio.to_thread(cluster.wait_for_leader)
            cluster[leader].kill()
            for n in range(100, 200):
                value = b"%d %d" % (number, n)
                written.append(((await kv.put(b"killed/%d" % (n % 7), value)).revision, value))
            await asyncio.to_thread(cluster[leader].start)
        written.append(((await kv.put("killed/end", "last")).revision, b"last"))
        for seen in await asyncio.gather(*watchers):
            assert seen == written


async def test_a_server_that_is_stopped_is_left(cluster: LocalCluster, tell: Callable[[str], None]) -> None:
    async with client(cluster) as kv, client(cluster) as writer:
        async with kv.watch("stopped") as watch:
            await writer.put("stopped", "1")
            await until(watch, b"1")
            server = server_of(kv, cluster)
            server.stop()
            try:
                began = time.monotonic()
                await writer.put("stopped", "2")
                await until(watch, b"2")
                took_s = time.monotonic() - began
            finally:
                server.cont()
        assert took_s < LEFT_WITHIN_S
        tell(f"a watch left a stopped server and had its event after {took_s:.1f} s")


async def test_a_server_that_is_cut_off_is_left(new_cluster: NewCluster, tell: Callable[[str], None]) -> None:
    cluster = new_cluster(proxied=True)
    await asyncio.to_thread(cluster.start)
    async with client(cluster) as kv, kv.watch("cut off") as watch:
        server = server_of(kv, cluster)
        cluster.links.isolate(server.name)
        began = time.monotonic()
        others = [each.endpoint for each in cluster if each is not server]
        async with AsyncClient(others, timeout_s=TIMEOUT_S) as writer:
            await writer.put("cut off", "1")
        await until(watch, b"1")
        took_s = time.monotonic() - began
        cluster.links.heal_all()
    assert took_s < LEFT_WITHIN_S
    tell(f"a watch left a server that was cut off and had its event after {took_s:.1f} s")


async def test_a_slow_consumer_misses_nothing_and_holds_nobody_up(cluster: LocalCluster) -> None:
    value = b"x" * 1_000
    count = 20_000
    async with client(cluster) as kv, kv.watch(prefix="slow/") as slow, kv.watch("slow/end") as quick:
        puts = [kv.put(b"slow/%d" % (n % 100), value) for n in range(count)]
        for at in range(0, count, 2_000):
            await asyncio.gather(*puts[at : at + 2_000])
        await kv.put("slow/end", "last")
        await until(quick, b"last")
        waiting = slow._subscription
        assert len(waiting._buffer) < count / 2
        events = await until(slow, b"last")
        assert len(events) == count + 1
        revisions = [event.revision for event in events]
        assert revisions == sorted(set(revisions))


async def test_a_watch_that_compaction_has_overtaken(cluster: LocalCluster) -> None:
    async with client(cluster) as kv:
        first = (await kv.put("compacted", "1")).revision
        for n in range(2, 10):
            last = (await kv.put("compacted", str(n))).revision
        await kv.compact(last)
        with pytest.raises(Compacted) as caught:
            async with kv.watch("compacted", start_revision=first) as watch:
                await watch.next()
        assert caught.value.compact_revision == last
        async with kv.watch("compacted", start_revision=last) as watch:
            event = await watch.next()
            assert event is not None
            assert event.value == b"9"


async def test_an_idle_watch_is_not_overtaken_by_compaction(cluster: LocalCluster) -> None:
    """Asked how far it has come, the server says so while nothing happens to what is watched."""
    async with client(cluster) as kv, kv.watch("idle") as watch:
        last = 0
        for n in range(10):
            last = (await kv.put("busy", str(n))).revision
        async with asyncio.timeout(TIMEOUT_S):
            while watch.resume_revision <= last:  # noqa: ASYNC110 (it asks by itself, and tells nobody)
                await asyncio.sleep(0.05)
        await kv.compact(last)
        server = server_of(kv, cluster)
        server.kill()
        await kv.put("idle", "still here")
        await until(watch, b"still here")
        await asyncio.to_thread(server.start)


async def test_a_scan_reads_what_stood_there_when_it_began(cluster: LocalCluster) -> None:
    async with client(cluster) as kv:
        await asyncio.gather(*(kv.put(f"scan/{n:05}", b"x" * 2_000) for n in range(3_000)))
        seen = []
        async for each in kv.scan(prefix="scan/"):
            seen.append(each.key)
            if len(seen) == 10:
                await kv.delete("scan/02999")
                await kv.put("scan/029995", "new")
        assert seen == [b"scan/%05d" % n for n in range(3_000)]


async def test_for_threads_too(cluster: LocalCluster) -> None:
    def work() -> None:
        with Client(cluster.endpoints, timeout_s=TIMEOUT_S) as kv, kv.watch(prefix="threads/") as watch:
            for n in range(50):
                kv.put("threads/k", str(n))
            leader = cluster.wait_for_leader()
            cluster[leader].kill()
            for n in range(50, 100):
                kv.put("threads/k", str(n))
            values = [next(watch).value for _ in range(100)]
            assert values == [b"%d" % n for n in range(100)]
            cluster[leader].start()

    await asyncio.to_thread(work)


async def test_members_and_their_addresses(cluster: LocalCluster) -> None:
    async with AsyncClient(cluster.endpoints[0], timeout_s=TIMEOUT_S) as kv:
        members = await kv.members()
        assert [member.name for member in members] == cluster.names
        assert set(await kv.refresh_endpoints()) == set(cluster.endpoints)
