"""The engine against servers that lose replies, die, refuse, stall and forget."""

import asyncio
import functools
import random

import grpc
import pytest

from paxos_rsm._proto import session_pb2 as pb
from paxos_rsm.client import forks
from paxos_rsm.client.reads import Answer
from paxos_rsm.errors import (
    ClientError,
    DeadlineExceeded,
    SessionExpired,
    Unavailable,
    UnknownOutcome,
)
from tests.unit.client.calls import LONG_S, SHORT_S, Connect, raw
from tests.unit.client.conftest import StartServer
from tests.unit.client.fake_server import (
    FAILED_PRECONDITION,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    FakeCluster,
    FakeServer,
)

# ---- the plain case --------------------------------------------------------------------------------------


async def test_a_lone_command_is_registered_sent_and_answered(
    cluster: FakeCluster, server: FakeServer, connect: Connect
) -> None:
    caller = connect(server, session_timeout_ms=1_234)
    assert server.streams == 0, "nothing before the first call"
    assert await caller.submit("a") == b"1 raw:a"
    assert await caller.submit("b") == b"2 raw:b"
    assert cluster.session_timeouts_ms == [1_234]
    assert [(frame.first_seq, len(frame.commands), frame.received_below) for frame in server.frames] == [
        (1, 1, 1),
        (2, 1, 2),
    ]


async def test_what_is_called_in_one_turn_travels_in_full_frames_and_in_order(
    cluster: FakeCluster, server: FakeServer, connect: Connect
) -> None:
    caller = connect(server)
    await caller.submit("first")
    calls = [caller.submit(n) for n in range(2_000)]
    assert await asyncio.gather(*calls) == [b"%d raw:%d" % (n + 2, n) for n in range(2_000)]
    assert len(server.frames) == 1 + 8, "256 a frame"
    assert cluster.executed == [raw("first"), *(raw(n) for n in range(2_000))]
    assert server.streams == 1


async def test_pipelined_frames_do_not_wait_for_answers(server: FakeServer, connect: Connect) -> None:
    caller = connect(server)
    await caller.submit("first")
    server.working.clear()
    one = caller.submit("a")
    await server.until(lambda: len(server.frames) == 2)
    two = caller.submit("b")
    await server.until(lambda: len(server.frames) == 3)
    assert not one.done()
    server.working.set()
    assert [await one, await two] == [b"2 raw:a", b"3 raw:b"]


async def test_a_client_that_only_reads_registers_no_session(
    cluster: FakeCluster, server: FakeServer, connect: Connect
) -> None:
    caller = connect(server)
    answers = await asyncio.gather(*(caller.query(serializable=n % 2 == 0) for n in range(100)))
    assert answers == [Answer(b"0", 0, 3)] * 100
    assert server.opens == []
    assert cluster.sessions == {}
    assert len(server.reads) == 2, "one message for each kind"
    await caller.submit("a")
    assert len(server.opens) == 1
    assert server.streams == 1


async def test_no_more_than_the_window_is_in_flight(server: FakeServer, connect: Connect) -> None:
    caller = connect(server, in_flight_max=4)
    await caller.submit("first")
    server.working.clear()
    calls = [caller.submit(n) for n in range(20)]
    await server.until(lambda: len(server.frames) == 2)
    assert len(server.frames[-1].commands) == 4
    server.working.set()
    await asyncio.gather(*calls)
    assert max(len(frame.commands) for frame in server.frames) == 4


# ---- loss ------------------------------------------------------------------------------------------------


async def test_a_lost_reply_is_answered_elsewhere_with_the_first_result(
    cluster: FakeCluster, start_server: StartServer, connect: Connect
) -> None:
    one, two = await start_server(), await start_server()
    caller = connect(one, two)
    await caller.submit("before")
    one.lose_results = 1
    assert await caller.submit("a") == b"2 raw:a"
    assert cluster.executed == [raw("before"), raw("a")]
    assert [open.session for open in two.opens] == [next(iter(cluster.sessions))]
    assert [(frame.first_seq, list(frame.commands)) for frame in two.frames] == [(2, [raw("a")])]
    assert two.opens[0].cluster_id == cluster.cluster_id


async def test_a_server_dies_with_commands_that_it_never_executed(
    cluster: FakeCluster, start_server: StartServer, connect: Connect
) -> None:
    one, two = await start_server(), await start_server()
    caller = connect(one, two)
    await caller.submit("before")
    one.working.clear()
    calls = [caller.submit(n) for n in range(600)]
    read = caller.query()
    await one.until(lambda: sum(len(frame.commands) for frame in one.frames) == 601)
    await one.stop()
    assert await asyncio.gather(*calls) == [b"%d raw:%d" % (n + 2, n) for n in range(600)]
    assert (await read).result.isdigit()
    assert cluster.executed == [raw("before"), *(raw(n) for n in range(600))]


async def test_order_and_exactly_once_hold_while_streams_break_again_and_again(
    cluster: FakeCluster, start_server: StartServer, connect: Connect
) -> None:
    servers = [await start_server() for _ in range(3)]
    caller = connect(*servers)
    rng = random.Random(1)
    calls = []
    for n in range(400):
        calls.append(caller.submit(n))
        if n % 10 == 0:
            await asyncio.sleep(0.002)
        if n % 20 == 0:
            server = rng.choice(servers)
            match rng.randrange(4):
                case 0:
                    server.lose_results = 1
                case 1:
                    server.end_streams()
                case 2:
                    server.refusals.append((RESOURCE_EXHAUSTED, "full"))
                case _:
                    await server.stop()
                    await server.start()
    assert await asyncio.gather(*calls) == [b"%d raw:%d" % (n + 1, n) for n in range(400)]
    assert cluster.executed == [raw(n) for n in range(400)]
    assert len(cluster.sessions) == 1
    assert sum(server.streams for server in servers) > 3


async def test_a_call_just_after_the_server_died(
    cluster: FakeCluster, start_server: StartServer, connect: Connect
) -> None:
    """Its frame may be written to a stream that is dead already, while that is being cleared away."""
    servers = [await start_server() for _ in range(2)]
    caller = connect(*servers)
    for n in range(20):
        await caller.submit(n)
        if n % 2:
            busy = next(server for server in servers if server._ends)
            await busy.stop()
            await busy.start()
    assert cluster.executed == [raw(n) for n in range(20)]


async def test_queries_are_asked_again_after_a_loss(start_server: StartServer, connect: Connect) -> None:
    one, two = await start_server(), await start_server()
    caller = connect(one, two)
    one.working.clear()
    reads = [caller.query() for _ in range(10)]
    await one.until(lambda: bool(one.reads))
    one.end_streams()
    assert [answer.result for answer in await asyncio.gather(*reads)] == [b"0"] * 10
    assert len(two.reads) == 1


async def test_a_stream_that_is_lost_while_nobody_waits_is_replaced_at_the_next_call(
    cluster: FakeCluster, server: FakeServer, connect: Connect
) -> None:
    caller = connect(server)
    await caller.submit("a")
    runner = caller.session._runner
    assert runner is not None
    server.end_streams()
    await asyncio.wait([runner], timeout=20)
    assert server.streams == 1
    await caller.submit("b")
    assert server.streams == 2
    assert [open.session for open in server.opens] == [0, next(iter(cluster.sessions))]


async def test_a_server_without_a_leader_is_left_for_another(
    start_server: StartServer, connect: Connect
) -> None:
    one, two = await start_server(), await start_server()
    one.open_failure = pb.Failure(code=UNAVAILABLE, message="no leader for 1000 ms")
    one.read_failures.extend([(UNAVAILABLE, "no leader")] * 10)
    caller = connect(one, two)
    assert await caller.submit("a") == b"1 raw:a"
    other = connect(one, two)
    assert (await other.query()).result == b"1"
    assert len(one.read_failures) == 9


# ---- deadlines and callers that go away ------------------------------------------------------------------


async def test_a_deadline_before_it_was_sent_means_not_executed(
    cluster: FakeCluster, server: FakeServer, connect: Connect
) -> None:
    caller = connect(server)
    server.working.clear()  # the session is never opened
    with pytest.raises(DeadlineExceeded, match="not executed"):
        await caller.submit("a", SHORT_S)
    with pytest.raises(DeadlineExceeded, match="not executed"):
        await caller.query(timeout_s=SHORT_S)
    server.working.set()
    await caller.submit("b")
    assert cluster.executed == [raw("b")]


async def test_a_deadline_after_it_was_sent_means_unknown_and_leaves_no_gap(
    cluster: FakeCluster, start_server: StartServer, connect: Connect
) -> None:
    one, two = await start_server(), await start_server()
    caller = connect(one, two)
    await caller.submit("before")
    one.working.clear()
    with pytest.raises(UnknownOutcome, match="may or may not"):
        await caller.submit("a", SHORT_S)
    assert cluster.executed == [raw("before")]
    assert len(one.frames) == 2
    later = caller.submit("b")
    await one.stop()
    assert await later == b"3 raw:b"
    assert cluster.executed == [raw("before"), raw("a"), raw("b")], "a was sent again, under its number"


async def test_deadlines_of_all_kinds_pass_in_their_order(server: FakeServer, connect: Connect) -> None:
    caller = connect(server)
    await caller.submit("before")
    server.working.clear()
    ended: list[str] = []
    calls = {}

    def note(name: str, _: object) -> None:
        ended.append(name)

    for name, timeout_s in (("c", 0.3), ("a", 0.1), ("d", LONG_S), ("b", 0.2)):
        calls[name] = caller.submit(name, timeout_s)
        calls[name].add_done_callback(functools.partial(note, name))
    await asyncio.wait([calls[name] for name in "abc"], timeout=20)
    assert ended == ["a", "b", "c"]
    assert all(isinstance(calls[name].exception(), UnknownOutcome) for name in "abc")
    server.working.set()
    assert await calls["d"] == b"4 raw:d"


async def test_a_caller_that_goes_away_before_and_after_the_command_was_sent(
    cluster: FakeCluster, server: FakeServer, connect: Connect
) -> None:
    caller = connect(server)
    await caller.submit("before")
    caller.submit("never").cancel()
    server.working.clear()
    sent = caller.submit("sent")
    await server.until(lambda: len(server.frames) == 2)
    sent.cancel()
    server.working.set()
    assert await caller.submit("after") == b"3 raw:after"
    assert cluster.executed == [raw("before"), raw("sent"), raw("after")]


async def test_nothing_listens(start_server: StartServer, connect: Connect) -> None:
    server = await start_server()
    await server.stop()
    caller = connect(server)
    with pytest.raises(Unavailable, match="not executed") as caught:
        await caller.submit("a", SHORT_S * 3)
    assert server.endpoint in str(caught.value)
    with pytest.raises(Unavailable, match=server.endpoint):
        await caller.query(timeout_s=SHORT_S * 3)
    call = caller.submit("b")
    await server.start()
    assert await call == b"1 raw:b"


# ---- expiry ----------------------------------------------------------------------------------------------


async def test_an_expired_session_fails_what_is_in_flight_and_never_sends_it_again(
    cluster: FakeCluster, start_server: StartServer, connect: Connect
) -> None:
    one, two = await start_server(), await start_server()
    caller = connect(one, two)
    await caller.submit("before")
    one.working.clear()
    calls = [caller.submit("a"), caller.submit("b")]
    await one.until(lambda: len(one.frames) == 2)
    cluster.expire()
    await one.stop()
    await one.start()
    one.working.set()
    for call in calls:
        with pytest.raises(SessionExpired, match="may or may not"):
            await call
    assert await caller.submit("after") == b"2 raw:after"
    assert cluster.executed == [raw("before"), raw("after")]
    assert len(cluster.sessions) == 1


async def test_a_session_that_expired_while_nothing_was_in_flight_is_replaced_in_silence(
    cluster: FakeCluster, server: FakeServer, connect: Connect
) -> None:
    caller = connect(server)
    await caller.submit("a")
    cluster.expire()
    server.end_streams()
    runner = caller.session._runner
    if runner is not None:
        await asyncio.wait([runner], timeout=20)
    assert await caller.submit("b") == b"2 raw:b"
    assert cluster.executed == [raw("a"), raw("b")]


async def test_a_session_that_expires_on_a_live_stream_says_so(
    cluster: FakeCluster, server: FakeServer, connect: Connect
) -> None:
    caller = connect(server)
    await caller.submit("a")
    cluster.expire()
    with pytest.raises(SessionExpired):
        await caller.submit("b")
    assert await caller.submit("c") == b"2 raw:c"


async def test_a_server_that_confuses_sessions_is_not_believed(
    cluster: FakeCluster, server: FakeServer, connect: Connect
) -> None:
    def confuse(opened: pb.Opened) -> None:
        opened.next_seq = 99

    caller = connect(server)
    await caller.submit("before")
    server.edit_opened = confuse
    server.lose_results = 1
    with pytest.raises(UnknownOutcome, match="somebody else uses it"):
        await caller.submit("a")
    assert await caller.submit("after") == b"3 raw:after"
    assert len(cluster.sessions) == 2


# ---- the end ---------------------------------------------------------------------------------------------


async def test_close_takes_leave_and_leaves_nothing(
    cluster: FakeCluster, server: FakeServer, connect: Connect
) -> None:
    caller = connect(server)
    await caller.submit("a")
    await caller.session.close()
    await server.until(lambda: server.closes == 1)
    await caller.session.close()
    for call in (lambda: caller.submit("b"), caller.query):
        with pytest.raises(Unavailable, match="closed"):
            await call()


async def test_close_says_what_became_of_calls(
    cluster: FakeCluster, server: FakeServer, connect: Connect
) -> None:
    caller = connect(server, in_flight_max=2)
    await caller.submit("before")
    server.working.clear()
    calls = [caller.submit(n) for n in range(4)]
    read = caller.query()
    await server.until(lambda: len(server.frames) == 2 and bool(server.reads))
    await caller.session.close()
    errors = [call.exception() for call in calls]
    assert [type(error) for error in errors] == [UnknownOutcome, UnknownOutcome, Unavailable, Unavailable]
    assert isinstance(read.exception(), Unavailable)


async def test_close_of_a_client_that_never_connected(server: FakeServer, connect: Connect) -> None:
    await connect(server).session.close()
    assert server.streams == 0


async def test_close_while_no_server_can_be_reached(start_server: StartServer, connect: Connect) -> None:
    server = await start_server()
    await server.stop()
    caller = connect(server)
    call = caller.submit("a")
    await asyncio.sleep(0.05)
    await caller.session.close()
    assert isinstance(call.exception(), Unavailable)


async def test_close_does_not_wait_for_a_server_that_is_silent(server: FakeServer, connect: Connect) -> None:
    caller = connect(server, close_s=0.05)
    await caller.submit("a")
    server.silent = True
    server.end_streams = lambda *_: None  # type: ignore[method-assign]
    await asyncio.wait_for(caller.session.close(), 20)


async def test_connections_are_noted_for_forks(server: FakeServer, connect: Connect) -> None:
    caller = connect(server)
    await caller.submit("a")
    assert len(forks._open) == 1
    await caller.session.close()
    assert not forks._open


async def test_a_session_belongs_to_one_loop(server: FakeServer, connect: Connect) -> None:
    caller = connect(server)
    await caller.submit("a")

    async def elsewhere() -> None:
        caller.submit("b")

    def other_loop() -> None:
        asyncio.run(elsewhere())

    with pytest.raises(ClientError, match="another event loop"):
        await asyncio.to_thread(other_loop)


async def test_a_status_without_a_failure_is_a_loss_like_any_other(
    start_server: StartServer, connect: Connect
) -> None:
    one, two = await start_server(), await start_server()
    caller = connect(one, two)
    await caller.submit("a")
    one.working.clear()
    call = caller.submit("b")
    await one.until(lambda: len(one.frames) == 2)
    one.end_streams(grpc.StatusCode.FAILED_PRECONDITION, "who knows")
    assert await call == b"2 raw:b"
    assert grpc.StatusCode.FAILED_PRECONDITION.value[0] == FAILED_PRECONDITION
