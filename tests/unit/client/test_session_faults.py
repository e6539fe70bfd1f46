"""The engine against servers that refuse, say nothing, talk nonsense, or belong to another cluster."""

import asyncio
import time
from dataclasses import replace

import pytest

from paxos_rsm._proto import session_pb2 as pb
from paxos_rsm.client.patience import Patience
from paxos_rsm.errors import (
    ClientError,
    DeadlineExceeded,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
    UnknownOutcome,
)
from tests.unit.client.calls import LONG_S, SHORT_S, Connect, raw
from tests.unit.client.conftest import StartServer
from tests.unit.client.fake_server import (
    INVALID_ARGUMENT,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    FakeCluster,
    FakeServer,
)

# ---- refusals --------------------------------------------------------------------------------------------


async def test_what_is_refused_for_now_is_sent_again_after_a_pause(
    cluster: FakeCluster, server: FakeServer, connect: Connect
) -> None:
    caller = connect(server)
    await caller.submit("before")
    server.refusals.extend([(RESOURCE_EXHAUSTED, "full")] * 3)
    calls = [caller.submit(n) for n in range(1_000)]
    assert await asyncio.gather(*calls) == [b"%d raw:%d" % (n + 2, n) for n in range(1_000)]
    assert cluster.executed == [raw("before"), *(raw(n) for n in range(1_000))]
    assert server.streams == 1


async def test_what_is_refused_until_the_deadline_was_not_executed(
    cluster: FakeCluster, server: FakeServer, connect: Connect
) -> None:
    caller = connect(server)
    await caller.submit("before")
    server.refusals.extend([(RESOURCE_EXHAUSTED, "the queue is full")] * 10_000)
    began = time.monotonic()
    call = caller.submit("a")
    await server.until(lambda: len(server.frames) > 8)
    assert time.monotonic() - began > 0.5, "the pauses grow"
    # The deadline comes now, by hand, and in the midst of a pause: between a frame and its refusal nobody knows.
    session = caller.session
    while not session._frames_held:  # noqa: ASYNC110
        await asyncio.sleep(0)
    (command,) = session._window.pending
    command.deadline = 0.0
    session._ring_alarm()
    with pytest.raises(ResourceExhausted, match=r"not executed.*the queue is full"):
        await call
    server.refusals.clear()
    assert await caller.submit("b") == b"2 raw:b"
    assert cluster.executed == [raw("before"), raw("b")]


async def test_calls_that_come_during_the_pause_wait_for_its_end(
    cluster: FakeCluster, server: FakeServer, connect: Connect
) -> None:
    caller = connect(server)
    await caller.submit("before")
    server.refusals.extend([(RESOURCE_EXHAUSTED, "full")] * 10_000)
    calls = []
    for n in range(200):
        calls.append(caller.submit(n))
        await asyncio.sleep(0.0005)
    assert len(server.frames) < 50, "one for each pause, not one for each call"
    server.refusals.clear()
    assert await asyncio.gather(*calls) == [b"%d raw:%d" % (n + 2, n) for n in range(200)]


async def test_what_happened_before_a_success_is_no_excuse_after_it(
    cluster: FakeCluster, start_server: StartServer, connect: Connect
) -> None:
    one, two = await start_server(), await start_server()
    caller = connect(one, two)
    one.lose_results = 1
    two.refusals.append((RESOURCE_EXHAUSTED, "full"))
    assert await caller.submit("a") == b"1 raw:a"
    two.working.clear()
    with pytest.raises(DeadlineExceeded, match="has not answered in time"):
        await caller.query(timeout_s=SHORT_S)


async def test_a_server_that_is_stopping_hands_its_clients_on(
    cluster: FakeCluster, start_server: StartServer, connect: Connect
) -> None:
    one, two = await start_server(), await start_server()
    caller = connect(one, two)
    await caller.submit("before")
    one.refusals.extend([(UNAVAILABLE, "this server is stopping")] * 100)
    assert await caller.submit("a") == b"2 raw:a"
    assert cluster.executed == [raw("before"), raw("a")]
    assert two.streams == 1


async def test_what_is_refused_for_ever_fails_and_the_session_goes_on(
    cluster: FakeCluster, server: FakeServer, connect: Connect
) -> None:
    caller = connect(server)
    await caller.submit("before")
    server.refusals.append((INVALID_ARGUMENT, "larger than 10 bytes; cut it"))
    with pytest.raises(InvalidArgument, match="not executed: larger than 10 bytes; cut it"):
        await caller.submit("a")
    assert await caller.submit("b") == b"2 raw:b"
    assert len(cluster.sessions) == 1
    assert server.streams == 1


async def test_a_command_that_is_too_large_is_refused_here(
    cluster: FakeCluster, server: FakeServer, connect: Connect
) -> None:
    server.frame_bytes_max = 1_000
    caller = connect(server)
    calls = [caller.submit("a"), caller.submit("x" * 1_000), caller.submit("b")]
    with pytest.raises(InvalidArgument, match="961 bytes"):
        await calls[1]
    assert [await calls[0], await calls[2]] == [b"1 raw:a", b"2 raw:b"]
    assert await caller.submit("y" * 957)
    with pytest.raises(InvalidArgument):
        await caller.submit("z" * 958)


async def test_queries_are_refused_for_now_and_for_ever(server: FakeServer, connect: Connect) -> None:
    caller = connect(server)
    server.read_failures.extend([(RESOURCE_EXHAUSTED, "too many reads")] * 2)
    assert (await caller.query()).result == b"0"
    assert len(server.reads) == 3
    server.read_failures.extend([(RESOURCE_EXHAUSTED, "too many reads")] * 10_000)
    with pytest.raises(ResourceExhausted, match="too many reads"):
        await caller.query(timeout_s=SHORT_S)
    server.read_failures.clear()
    good, bad = caller.query(), caller.query(request=b"bad:")
    with pytest.raises(ClientError, match="cannot bear"):
        await bad
    assert (await good).result == b"0", "its neighbour in the message"
    assert server.streams == 1


# ---- servers that say nothing ----------------------------------------------------------------------------

QUICK = Patience(tick_s=0.02, probe_s=0.1, connect_s=0.5, silent_s=0.5, stuck_s=LONG_S)


async def test_a_server_that_is_silent_is_left(
    cluster: FakeCluster, start_server: StartServer, connect: Connect
) -> None:
    one, two = await start_server(), await start_server()
    caller = connect(one, two, patience=QUICK)
    await caller.submit("before")
    one.silent = True
    assert await caller.submit("a") == b"2 raw:a"
    assert one.probes > 1
    assert cluster.executed == [raw("before"), raw("a")]
    assert two.streams == 1


@pytest.mark.parametrize("first", ["submit", "query"])
async def test_a_server_that_falls_silent_in_between_is_left(
    start_server: StartServer, connect: Connect, first: str
) -> None:
    """Whatever it owes then: to open a session, or to answer a query."""
    one, two = await start_server(), await start_server()
    caller = connect(one, two, patience=QUICK)
    await (caller.submit("a") if first == "submit" else caller.query())
    one.silent = True
    await (caller.query() if first == "submit" else caller.submit("a"))
    assert two.streams == 1


async def test_a_server_that_never_spoke_is_left(start_server: StartServer, connect: Connect) -> None:
    one, two = await start_server(), await start_server()
    one.silent = True
    caller = connect(one, two, patience=QUICK)
    reads = [caller.query(), caller.query(serializable=True)]
    assert await caller.submit("a") == b"1 raw:a"
    assert [answer.result for answer in await asyncio.gather(*reads)]


async def test_a_slow_server_that_gives_signs_of_life_is_not_left(
    start_server: StartServer, connect: Connect
) -> None:
    one, two = await start_server(), await start_server()
    caller = connect(one, two, patience=replace(QUICK, connect_s=LONG_S))
    await caller.submit("before")
    one.working.clear()
    call = caller.submit("a")
    await one.until(
        lambda: one.probes >= 9
    )  # each comes after a silence of probe_s: longer than silent_s together
    one.working.set()
    assert await call == b"2 raw:a"
    assert (one.streams, two.streams) == (1, 0)


async def test_a_server_that_gives_nothing_but_signs_of_life_is_left_in_the_end(
    start_server: StartServer, connect: Connect
) -> None:
    one, two = await start_server(), await start_server()
    caller = connect(one, two, patience=replace(QUICK, stuck_s=0.4))
    await caller.submit("before")
    one.working.clear()
    assert await caller.submit("a") == b"2 raw:a"
    assert two.streams == 1


async def test_no_signs_of_life_are_asked_of_a_server_that_owes_nothing(
    server: FakeServer, connect: Connect
) -> None:
    # While it owes an answer, and this machine may be busy, it is asked for none either.
    caller = connect(server, patience=replace(QUICK, probe_s=LONG_S, connect_s=LONG_S, silent_s=LONG_S))
    await caller.submit("a")
    caller.session._lookout._patience = QUICK
    await asyncio.sleep(0.3)  # three times as long as it would take
    assert server.probes == 1, "the one that a new stream begins with"
    assert caller.session._next_look is None


async def test_a_loop_that_stood_still_does_not_blame_the_server(
    start_server: StartServer, connect: Connect
) -> None:
    one, two = await start_server(), await start_server()
    caller = connect(one, two, patience=replace(QUICK, connect_s=LONG_S))
    await caller.submit("before")
    call = caller.submit("a")
    await asyncio.sleep(0)
    time.sleep(QUICK.silent_s * 2)  # noqa: ASYNC251 - somebody's blocking call, on the client's own loop
    assert await call == b"2 raw:a"
    assert (one.streams, two.streams) == (1, 0)


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b"", b"\x12\x05abc"])
async def test_a_server_that_talks_nonsense_is_left(
    cluster: FakeCluster, start_server: StartServer, connect: Connect, garbage: bytes
) -> None:
    one, two = await start_server(), await start_server()
    caller = connect(one, two)
    await caller.submit("before")
    one.garbage = garbage
    assert await caller.submit("a") == b"2 raw:a"
    assert cluster.executed == [raw("before"), raw("a")]
    assert two.streams == 1


async def test_what_is_no_grpc_server_at_all_is_left(start_server: StartServer, connect: Connect) -> None:
    async def chat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready\r\n")
        await reader.read()
        writer.close()

    other = await start_server()
    nonsense = await asyncio.start_server(chat, "127.0.0.1", 0)
    one = FakeServer(other.cluster)
    one.port = nonsense.sockets[0].getsockname()[1]
    caller = connect(one, other)
    assert await caller.submit("a") == b"1 raw:a"
    nonsense.close()
    await nonsense.wait_closed()


# ---- another cluster -------------------------------------------------------------------------------------


async def test_another_cluster_is_refused_and_left_alone(
    cluster: FakeCluster, server: FakeServer, connect: Connect
) -> None:
    caller = connect(server, cluster_id=99)
    with pytest.raises(InvalidArgument, match="this is cluster 7"):
        await caller.submit("a")
    with pytest.raises(InvalidArgument, match="this is cluster 7"):
        await caller.query()
    assert cluster.sessions == {}
    assert cluster.executed == []


async def test_settings_that_no_server_takes_are_told_at_once(
    cluster: FakeCluster, start_server: StartServer, connect: Connect
) -> None:
    servers = [await start_server() for _ in range(2)]
    for server in servers:
        server.open_failure = pb.Failure(
            code=INVALID_ARGUMENT, message="a session time-out of 1 ms is too short"
        )
    caller = connect(*servers, session_timeout_ms=1)
    with pytest.raises(InvalidArgument, match="a session time-out of 1 ms is too short"):
        await caller.submit("a")
    assert (await caller.query()).result == b"0"


async def test_one_endpoint_of_another_cluster_does_not_hurt(
    cluster: FakeCluster, start_server: StartServer, connect: Connect
) -> None:
    stray = FakeCluster(cluster_id=99)
    one, two = await start_server(stray), await start_server()
    caller = connect(one, two, cluster_id=7)
    assert await caller.submit("a") == b"1 raw:a"
    assert (await caller.query()).result == b"1"
    assert stray.sessions == {}
    two.end_streams()
    assert await caller.submit("b") == b"2 raw:b", "past the stray one, round the ring"
    assert stray.executed == []


@pytest.mark.parametrize("first", ["submit", "query"])
async def test_the_cluster_that_answered_first_is_the_one_to_stay_with(
    cluster: FakeCluster, start_server: StartServer, connect: Connect, first: str
) -> None:
    stray = FakeCluster(cluster_id=99)
    one, two = await start_server(), await start_server(stray)
    caller = connect(one, two)
    await (caller.submit("a") if first == "submit" else caller.query())
    one.working.clear()
    call, read = caller.submit("b", SHORT_S * 5), caller.query(timeout_s=SHORT_S * 5)
    await one.stop()
    with pytest.raises((UnknownOutcome, Unavailable)):
        await call
    with pytest.raises(Unavailable):
        await read
    assert stray.sessions == {}
    assert len(two.reads) + len(two.opens) > 0


async def test_a_server_that_does_not_check_clusters_is_checked(
    cluster: FakeCluster, server: FakeServer, connect: Connect
) -> None:
    def lie(opened: pb.Opened) -> None:
        opened.cluster_id = 99

    server.edit_opened = lie
    caller = connect(server, cluster_id=7)
    with pytest.raises(InvalidArgument, match="it is of cluster 63"):
        await caller.submit("a")
    assert cluster.executed == []
