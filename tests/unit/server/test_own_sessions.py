"""The server's own sessions: joined by turn, spread, bounded, and never executed twice or lost in silence."""

import asyncio
from typing import Any

import pytest

from paxos_rsm.codec.frames import decode_frame
from paxos_rsm.errors import ResourceExhausted, Unavailable, UnknownOutcome
from paxos_rsm.machines.frames import Frame
from paxos_rsm.machines.kv.types import PutResult
from paxos_rsm.server.own_sessions import SESSION_COUNT, OwnSessions
from tests.unit.server.fakes import FRAME_BYTES_MAX, FakeReplica, put, until


def own_sessions(replica: FakeReplica, *, in_flight_max: int = 1_000, session_count: int = 3) -> OwnSessions:
    return OwnSessions(
        replica, frame_bytes_max=FRAME_BYTES_MAX, in_flight_max=in_flight_max, session_count=session_count
    )


async def started(replica: FakeReplica, **limits: int) -> OwnSessions:
    own = own_sessions(replica, **limits)
    await until(lambda: replica.machine.session_count == limits.get("session_count", 3))
    return own


async def settled(*futures: "asyncio.Future[Any]") -> list[Any]:
    return await asyncio.gather(*futures, return_exceptions=True)


async def test_sessions_are_registered_once_a_leader_is_known() -> None:
    replica = FakeReplica(leader=False)
    own = OwnSessions(replica, frame_bytes_max=FRAME_BYTES_MAX, in_flight_max=10)
    waiting = own.submit(put(b"a", b"1"))
    await asyncio.sleep(0)
    assert not replica.local
    replica.set_leader(True)
    assert await waiting == PutResult(2)
    assert replica.machine.session_count == SESSION_COUNT
    for _ in range(3):  # elections later register no more
        replica.set_leader(False)
        replica.set_leader(True)
    await asyncio.sleep(0)
    assert len(replica.local) == SESSION_COUNT


async def test_the_commands_of_one_turn_are_one_frame_and_turns_are_spread() -> None:
    replica = FakeReplica()
    own = await started(replica)
    replica.hold()
    for _ in range(3):
        for _ in range(5):
            own.submit(put(b"a", b"1"))
        await asyncio.sleep(0)
    assert [count for _, _, count in replica.submitted] == [5, 5, 5]
    assert len({session for session, _, _ in replica.submitted}) == 3


async def test_each_caller_gets_the_result_of_its_own_command() -> None:
    replica = FakeReplica()
    own = await started(replica)
    futures = [own.submit(put(b"a", b"%d" % i)) for i in range(200)]
    assert await settled(*futures) == [PutResult(i) for i in range(2, 202)]
    assert own.in_flight == 0


async def test_frames_stay_below_the_limit_and_one_command_always_goes() -> None:
    replica = FakeReplica()
    own = await started(replica)
    sizes: list[int] = []
    submit = replica.local.submit

    def measured(session: Any, frame: bytes, first_seq: int, count: int) -> None:
        sizes.append(len(frame))
        submit(session, frame, first_seq, count)

    replica.local.submit = measured  # type: ignore[method-assign]
    futures = [own.submit(put(b"a", b"x" * 10_000)) for _ in range(20)]
    results = await settled(*futures)
    assert all(isinstance(each, PutResult) for each in results)
    assert len(sizes) == 4
    assert max(sizes) <= FRAME_BYTES_MAX
    largest = put(b"a", b"x" * (FRAME_BYTES_MAX - 64))
    assert isinstance(await own.submit(largest), PutResult)
    assert max(sizes) <= FRAME_BYTES_MAX


async def test_received_results_are_acknowledged_so_that_the_table_stays_small() -> None:
    replica = FakeReplica()
    own = await started(replica, session_count=1)
    for _ in range(10):
        await own.submit(put(b"a", b"1"))
    ((session,),) = [replica.machine.sessions()]
    kept = replica.machine.kept_results(session.session)
    assert kept is not None
    assert (kept.next_seq, len(kept.results)) == (11, 1)


async def test_too_many_in_flight_are_refused_before_anything_is_sent() -> None:
    replica = FakeReplica()
    own = await started(replica, in_flight_max=4)
    replica.hold()
    futures = [own.submit(put(b"a", b"1")) for _ in range(4)]
    with pytest.raises(ResourceExhausted, match="4 unary requests"):
        own.submit(put(b"a", b"1"))
    replica.release()
    await settled(*futures)
    assert isinstance(await own.submit(put(b"a", b"1")), PutResult)


async def test_a_frame_that_is_refused_leaves_no_gap() -> None:
    replica = FakeReplica()
    own = await started(replica, session_count=1)
    replica.refuse_with = ResourceExhausted("full")
    refused = await settled(*[own.submit(put(b"a", b"1")) for _ in range(3)])
    assert all(isinstance(each, ResourceExhausted) for each in refused)
    replica.refuse_with = None
    assert await own.submit(put(b"a", b"1")) == PutResult(2)
    assert replica.submitted[-1][1] == 1
    assert own.in_flight == 0


async def test_a_caller_that_leaves_takes_nothing_back() -> None:
    replica = FakeReplica()
    own = await started(replica, session_count=1)
    replica.hold()
    left = own.submit(put(b"a", b"1"))
    await asyncio.sleep(0)
    left.cancel()
    stays = own.submit(put(b"a", b"2"))
    replica.release()
    assert await stays == PutResult(3)
    assert own.in_flight == 0


async def test_a_caller_that_leaves_before_its_turn_is_not_executed() -> None:
    replica = FakeReplica()
    own = await started(replica, session_count=1)
    own.submit(put(b"a", b"1")).cancel()
    stays = own.submit(put(b"a", b"2"))
    assert await stays == PutResult(2)
    assert own.in_flight == 0


async def test_an_expired_session_is_replaced_and_its_callers_are_told_the_truth() -> None:
    replica = FakeReplica()
    own = await started(replica, session_count=1)
    (old,) = replica.machine.sessions()
    replica.hold()
    in_flight = own.submit(put(b"a", b"1"))
    await asyncio.sleep(0)
    replica.expire(old.session)
    replica.release()
    with pytest.raises(UnknownOutcome, match="has ended"):
        await in_flight
    # Callers that come meanwhile wait for the new session.
    assert isinstance(await own.submit(put(b"a", b"2")), PutResult)
    (new,) = replica.machine.sessions()
    assert new.session != old.session
    assert own.in_flight == 0


async def test_an_idle_session_that_expires_is_replaced_too() -> None:
    replica = FakeReplica()
    await started(replica, session_count=2)
    old = replica.machine.sessions()[0].session
    replica.expire(old)
    await until(lambda: replica.machine.session_count == 2)
    assert replica.machine.session(old) is None


async def test_a_frame_refused_after_all_fails_itself_and_what_follows_it_and_nothing_else() -> None:
    replica = FakeReplica()
    own = await started(replica, session_count=1)
    (old,) = replica.machine.sessions()
    replica.hold()
    futures = []
    for value in (b"1", b"2", b"3"):
        futures.append(own.submit(put(b"a", value)))
        await asyncio.sleep(0)
    sink = replica.local._by_number[old.session].sink
    sink.failed(2, Unavailable("dropped"))
    replica.local.outgoing = [each for each in replica.local.outgoing if first_seq_of(each) < 2]
    replica.release()
    first, second, third = await settled(*futures)
    assert isinstance(first, PutResult)
    assert isinstance(second, Unavailable)
    assert isinstance(third, Unavailable)
    assert isinstance(await own.submit(put(b"a", b"4")), PutResult)
    assert old.session in replica.closed_sessions
    assert own.in_flight == 0


def first_seq_of(frame: bytes) -> int:
    decoded = decode_frame(frame)
    assert isinstance(decoded, Frame)
    return decoded.first_seq


async def test_attaching_is_tried_again() -> None:
    replica = FakeReplica()
    attach, tried = replica.attach, 0

    def refusing(sink: Any, session: int = 0, timeout_ms: int = 0) -> Any:
        nonlocal tried
        tried += 1
        if tried < 3:
            raise Unavailable("not yet")
        return attach(sink, session)

    replica.attach = refusing  # type: ignore[method-assign]
    own = own_sessions(replica, session_count=1)
    assert isinstance(await own.submit(put(b"a", b"1")), PutResult)
    assert tried == 3


async def test_draining_waits_for_what_is_in_flight_and_takes_no_more() -> None:
    replica = FakeReplica()
    own = await started(replica)
    replica.hold()
    in_flight = own.submit(put(b"a", b"1"))
    draining = asyncio.create_task(own.drain(30))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="stopping"):
        own.submit(put(b"a", b"2"))
    assert not draining.done()
    replica.release()
    await draining
    assert in_flight.done()
    own.close()
    assert len(replica.closed_sessions) == 3


async def test_closing_tells_everybody_what_is_known() -> None:
    replica = FakeReplica()
    own = await started(replica)
    replica.hold()
    sent = own.submit(put(b"a", b"1"))
    await own.drain(0.01)
    own.close()
    assert isinstance(sent.exception(), UnknownOutcome)
    assert own.in_flight == 0

    own = own_sessions(FakeReplica(leader=False))
    never_sent = own.submit(put(b"a", b"1"))
    own.close()
    assert isinstance(never_sent.exception(), Unavailable)
    assert own.in_flight == 0
