"""The stream of watches: failover without a gap, servers that are of no use, consumers that are slow."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial

import grpc
import pytest
import pytest_asyncio

from paxos_rsm import AsyncClient, Compacted, InvalidArgument, Op, ResourceExhausted, Unavailable, WatchEvent
from paxos_rsm.client.async_client import AsyncClient as Made
from paxos_rsm.client.patience import Patience
from paxos_rsm.client.subscription import BufferLimits
from paxos_rsm.client.watch import AsyncWatch
from paxos_rsm.client.watch_stream import WatchSettings, WatchStream
from tests.unit.client.calls import LONG_S
from tests.unit.client.conftest import StartServer
from tests.unit.client.fake_server import FakeCluster, FakeServer

QUICK = Patience(tick_s=0.02, probe_s=0.1, connect_s=2.0, silent_s=0.5, stuck_s=LONG_S)
PATIENT = Patience(connect_s=LONG_S, silent_s=LONG_S, stuck_s=LONG_S, probe_s=LONG_S)

MakeClient = Callable[..., AsyncClient]


@pytest_asyncio.fixture
async def client_of() -> AsyncIterator[MakeClient]:
    """Makes clients whose watches try the given servers in this order."""
    made: list[AsyncClient] = []

    def make(*servers: FakeServer, patience: Patience = PATIENT, linger_s: float = 5.0) -> AsyncClient:
        client = Made([server.endpoint for server in servers], timeout_s=LONG_S)
        core = client._core
        settings = WatchSettings(patience=patience, linger_s=linger_s, again_s=0.001)
        core.watches = WatchStream(client.endpoints, settings, core.session.of_another_cluster)
        core.watches.ring._order = [server.endpoint for server in servers]
        made.append(client)
        return client

    yield make
    for client in made:
        await client.close()


async def take(watch: AsyncWatch, count: int) -> list[tuple[str, bytes, bytes, int]]:
    taken: list[WatchEvent] = []
    async with asyncio.timeout(20):
        while len(taken) < count:
            taken += await watch.next_batch(count - len(taken))
    return [(event.kind, event.key, event.value, event.revision) for event in taken]


async def test_many_watches_share_one_stream(server: FakeServer, client_of: MakeClient) -> None:
    kv = client_of(server)
    async with kv.watch("a") as first, kv.watch(prefix="b") as second:
        await kv.put("a", "1")
        await kv.put("bb", "2")
        assert await take(first, 1) == [("put", b"a", b"1", 2)]
        assert await take(second, 1) == [("put", b"bb", b"2", 3)]
    assert server.watch.streams == 1
    assert ("hasleader", "true") in server.watch.metadata
    await server.watch.until(lambda: len(server.watch.cancels) == 2)


async def test_the_stream_is_kept_for_the_next_watch_for_a_while(
    server: FakeServer, client_of: MakeClient
) -> None:
    kv = client_of(server)
    for _ in range(3):
        async with kv.watch("a"):
            pass
    assert server.watch.streams == 1
    brief = client_of(server, linger_s=0.01)
    async with brief.watch("a"):
        pass
    runner = brief._core.watches._runner
    assert runner is not None
    await asyncio.wait_for(runner, 20)
    async with brief.watch("a"):
        await kv.put("a", "1")
    assert server.watch.streams == 3


async def test_a_change_of_server_leaves_no_gap_and_repeats_nothing(
    start_server: StartServer, client_of: MakeClient
) -> None:
    one, two = await start_server(), await start_server()
    kv = client_of(one, two)
    writer = client_of(two)
    async with kv.watch(prefix="k") as watch:
        await writer.put("k1", "a")
        assert await take(watch, 1) == [("put", b"k1", b"a", 2)]
        await one.stop()
        for n in range(2, 6):
            await writer.put(f"k{n}", "b")
        two.watch.repeat_below = 2  # and this one tells everything once more
        await writer.put("other", "x")
        assert await take(watch, 4) == [("put", b"k%d" % n, b"b", n + 1) for n in range(2, 6)]
        assert two.watch.creates[0].start_revision == 3


async def test_a_revision_that_was_cut_off_in_the_middle_comes_once_and_whole(
    start_server: StartServer, client_of: MakeClient
) -> None:
    one, two = await start_server(), await start_server()
    kv = client_of(one, two)
    one.watch.fragment_events = two.watch.fragment_events = 2
    one.watch.lose_after = 2
    async with kv.watch(prefix="k") as watch:
        await kv.txn([], [Op.put(f"k{n}", str(n)) for n in range(5)])
        await kv.put("k9", "x")
        expected = [("put", b"k%d" % n, b"%d" % n, 2) for n in range(5)]
        assert await take(watch, 6) == [*expected, ("put", b"k9", b"x", 3)]
    assert two.watch.creates[0].start_revision == 2


async def test_a_silent_server_is_left(start_server: StartServer, client_of: MakeClient) -> None:
    one, two = await start_server(), await start_server()
    kv = client_of(one, two, patience=QUICK)
    async with kv.watch("k") as watch:
        one.watch.silent = True
        await two.watch.until(lambda: bool(two.watch.creates))
        assert one.watch.progress_requests >= 1
        await kv.put("k", "v")
        assert await take(watch, 1) == [("put", b"k", b"v", 2)]
        await two.watch.until(lambda: two.watch.progress_requests >= 5)
    assert two.watch.streams == 1, "one that answers is kept"


async def test_a_server_that_cannot_be_reached_is_left(
    start_server: StartServer, client_of: MakeClient
) -> None:
    one, two = await start_server(), await start_server()
    await one.stop()
    kv = client_of(one, two)
    async with kv.watch("k") as watch:
        await kv.put("k", "v")
        assert await take(watch, 1) == [("put", b"k", b"v", 2)]


async def test_a_server_without_a_leader_ends_the_stream_and_the_watch_goes_on(
    start_server: StartServer, client_of: MakeClient
) -> None:
    one, two = await start_server(), await start_server()
    kv = client_of(one, two)
    async with kv.watch("k") as watch:
        one.watch.end_streams(grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")
        await two.watch.until(lambda: bool(two.watch.creates))
        await kv.put("k", "v")
        assert await take(watch, 1) == [("put", b"k", b"v", 2)]


async def test_progress_moves_the_place_so_that_compaction_does_not_overtake_it(
    start_server: StartServer, client_of: MakeClient
) -> None:
    one, two = await start_server(), await start_server()
    kv = client_of(one, two, patience=QUICK)
    async with kv.watch("quiet") as watch:
        for n in range(5):
            await kv.put("busy", str(n))
        asked = one.watch.progress_requests
        await one.watch.until(
            lambda: one.watch.progress_requests >= asked + 2
        )  # and one of them was answered
        assert watch.resume_revision == 7
        await kv.compact(6)
        one.watch.end_streams()
        await two.watch.until(lambda: bool(two.watch.creates))
        await kv.put("quiet", "x")
        assert await take(watch, 1) == [("put", b"quiet", b"x", 7)]


async def test_what_is_compacted_meanwhile_is_said(start_server: StartServer, client_of: MakeClient) -> None:
    one, two = await start_server(), await start_server()
    kv = client_of(one, two)
    async with kv.watch("k") as watch:
        one.watch.known_revision = 1
        for n in range(5):
            await kv.put("k", str(n))
        await kv.compact(5)
        one.watch.end_streams()
        with pytest.raises(Compacted, match="from revision 2 on") as caught:
            await take(watch, 1)
    assert caught.value.compact_revision == 5
    async with kv.watch("k", start_revision=6) as again:
        assert await take(again, 1) == [("put", b"k", b"4", 6)]


async def test_a_server_that_cancels_a_watch_is_asked_again(
    server: FakeServer, client_of: MakeClient
) -> None:
    kv = client_of(server)
    async with kv.watch("k") as watch:
        await kv.put("k", "1")
        server.watch.cancel_all("the client reads too slowly")
        await kv.put("k", "2")
        await server.watch.until(lambda: len(server.watch.creates) == 2)
        await kv.put("k", "3")
        assert [event[2] for event in await take(watch, 3)] == [b"1", b"2", b"3"]
    assert server.watch.streams == 1


async def test_a_watch_that_is_cancelled_for_ever_fails(server: FakeServer, client_of: MakeClient) -> None:
    kv = client_of(server)

    def created(times: int) -> bool:
        return len(server.watch.creates) == times

    async with kv.watch("k") as watch:
        for n in range(1, 7):
            await server.watch.until(partial(created, n))
            server.watch.cancel_all("for a reason")
        with pytest.raises(InvalidArgument, match="for a reason"):
            await take(watch, 1)


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("mvcc: watcher range is empty", InvalidArgument),
        ("paxos_rsm: too many watches at this server", ResourceExhausted),
    ],
)
async def test_what_a_server_refuses_is_raised(
    server: FakeServer, client_of: MakeClient, reason: str, error: type[Exception]
) -> None:
    kv = client_of(server)
    server.watch.refuse = reason
    with pytest.raises(error, match=reason):
        async with kv.watch("k"):
            pass
    server.watch.refuse = ""
    async with kv.watch("k"):
        pass


async def test_a_slow_consumer_pauses_its_own_watch_only(server: FakeServer, client_of: MakeClient) -> None:
    kv = client_of(server)
    async with kv.watch(prefix="") as slow, kv.watch(prefix="") as quick:
        slow._subscription.limits = BufferLimits(events_max=10)
        for n in range(100):
            await kv.put("k", str(n))
        assert [event[3] for event in await take(quick, 100)] == list(range(2, 102))
        await server.watch.until(lambda: bool(server.watch.cancels))
        assert len(slow._subscription._buffer) < 100
        assert [event[3] for event in await take(slow, 100)] == list(range(2, 102))
    assert server.watch.streams == 1


async def test_a_client_of_another_cluster_is_told(start_server: StartServer, client_of: MakeClient) -> None:
    foreign = await start_server(FakeCluster(cluster_id=8))
    one = await start_server()
    kv = client_of(foreign, one)
    assert kv._core.session.of_another_cluster(7) == ""
    async with kv.watch("k") as watch:
        await client_of(one).put("k", "v")
        assert await take(watch, 1) == [("put", b"k", b"v", 2)]
    lost = client_of(foreign)
    lost._core.session.of_another_cluster(7)
    with pytest.raises(InvalidArgument, match="cluster 8"):
        async with lost.watch("k"):
            pass


async def test_close_ends_the_watches(server: FakeServer, client_of: MakeClient) -> None:
    kv = client_of(server)
    async with kv.watch("k") as watch:
        waiting = asyncio.create_task(watch.next())
        await asyncio.sleep(0)
        await kv.close()
        with pytest.raises(Unavailable, match="closed"):
            await waiting
    with pytest.raises(Unavailable, match="closed"):
        await kv.watch("k").start()


async def test_no_server_at_all(server: FakeServer, client_of: MakeClient) -> None:
    kv = client_of(server)
    await server.stop()
    with pytest.raises(Unavailable, match=r"not created within 0\.3 s"):
        await kv.watch("k", timeout_s=0.3).start()
    with pytest.raises(Unavailable):
        await kv.watch("k", timeout_s=0.3).next()
