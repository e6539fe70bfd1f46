"""The session stream over real gRPC: what is answered, who wins, who is cut off. Refusals have a file of their own."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from paxos_rsm._proto import kv_pb2
from paxos_rsm._proto import session_pb2 as pb
from paxos_rsm.codec.frames import commands_frame
from paxos_rsm.errors import ResourceExhausted
from paxos_rsm.server import session_service
from tests.unit.server.fakes import FRAME_BYTES_MAX, SessionClient, get, put, until
from tests.unit.server.session_stage import CLUSTER, EXHAUSTED, MEMBER, Stage, revision_of, staged


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with staged() as each:
        yield each


# ---- what it is for ----------------------------------------------------------------------------------------


async def test_a_session_is_registered_and_says_who_answers(stage: Stage) -> None:
    client = stage.client()
    opened = await client.open()
    assert opened.session > 0
    assert opened.next_seq == 1
    assert (opened.cluster_id, opened.member_id) == (CLUSTER, MEMBER)
    assert opened.frame_bytes_max == FRAME_BYTES_MAX


async def test_commands_are_answered_in_order_pipelined(stage: Stage) -> None:
    client = await stage.opened()
    for first in range(1, 101, 10):
        await client.submit(first, [put(b"k%d" % i, b"v") for i in range(first, first + 10)])
    results = await client.results(100, first_seq=1)
    assert [revision_of(each) for each in results] == list(range(2, 102))


async def test_results_that_come_together_leave_in_one_message(stage: Stage) -> None:
    client = await stage.opened()
    stage.replica.hold()
    for seq in range(1, 51):
        await client.submit(seq, [put(b"k", b"v")])
    await until(lambda: len(stage.replica.submitted) == 50)
    stage.replica.release()
    message = await client.receive()
    assert len(message.results.results) == 50


async def test_a_command_sent_again_is_not_executed_again(stage: Stage) -> None:
    client = await stage.opened()
    await client.submit(1, [put(b"a", b"1"), put(b"a", b"2")])
    first = await client.results(2)
    await client.submit(2, [put(b"a", b"other"), put(b"a", b"3")])
    again = await client.results(2, first_seq=2)
    assert again[0] == first[1]
    assert revision_of(again[1]) == 4


async def test_what_the_client_has_received_is_forgotten(stage: Stage) -> None:
    client = await stage.opened()
    await client.submit(1, [put(b"a", b"1"), put(b"a", b"2")])
    await client.results(2)
    await client.submit(3, [put(b"a", b"3")], received_below=3)
    await client.results(1, first_seq=3)
    kept = stage.replica.machine.kept_results(client.session)
    assert kept is not None
    assert (kept.first_seq, len(kept.results)) == (3, 1)


async def test_a_session_goes_on_on_another_stream(stage: Stage) -> None:
    client = await stage.opened()
    await client.submit(1, [put(b"a", b"1")])
    first = await client.results(1)
    client.call.cancel()
    again = stage.client()
    opened = await again.open(session=client.session, cluster_id=CLUSTER)
    assert (opened.session, opened.next_seq) == (client.session, 2)
    await again.submit(1, [put(b"a", b"1"), put(b"a", b"2")])
    results = await again.results(2, first_seq=1)
    assert results[0] == first[0]


async def test_a_read_sees_what_was_answered_and_shares_one_index(stage: Stage) -> None:
    client = await stage.opened()
    await client.submit(1, [put(b"a", b"1")])
    await client.results(1)
    stage.replica.reads_asked = 0
    answer = await client.read(7, get(b"a"), get(b"b"), get(b"a"))
    assert answer.id == 7
    values = [[kv.value for kv in kv_pb2.KvResult.FromString(each).range.kvs] for each in answer.results]
    assert values == [[b"1"], [], [b"1"]]
    assert answer.applied_slot == stage.replica.machine.applied_slot
    assert stage.replica.reads_asked == 1


async def test_reads_need_no_session(stage: Stage) -> None:
    answer = await stage.client().read(1, get(b"a"))
    assert len(answer.results) == 1


async def test_a_serializable_read_needs_no_leader_and_says_how_old_it_may_be(stage: Stage) -> None:
    stage.replica.set_leader(False)
    stage.replica.leader_age_ms = 1_234
    answer = await stage.client().read(1, get(b"a"), serializable=True)
    assert len(answer.results) == 1
    assert answer.leader_age_ms == 1_234
    assert answer.applied_slot == stage.replica.machine.applied_slot


async def test_a_read_waits_for_its_index(stage: Stage) -> None:
    stage.replica.hold()
    client = stage.client()
    await client.send(pb.ClientMessage(read=pb.Read(id=1, requests=[get(b"a")])))
    await until(lambda: stage.replica.reads_asked == 1)
    # What is asked after it and needs no index overtakes it.
    assert (await client.read(2, get(b"a"), serializable=True)).id == 2
    stage.replica.release()
    assert (await client.receive()).read_results.id == 1


async def test_a_long_read_lets_the_loop_have_its_turns(stage: Stage) -> None:
    turns, seen = 0, set()
    query = stage.replica.query

    def counted(request: bytes) -> bytes:
        seen.add(turns)
        return query(request)

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    stage.replica.query = counted  # type: ignore[method-assign]
    counting = asyncio.create_task(count_turns())
    answer = await stage.client().read(1, *[get(b"a")] * 2_000)
    counting.cancel()
    assert len(answer.results) == 2_000
    assert len(seen) >= 2_000 // 256


async def test_close_and_half_close_end_the_stream_in_order(stage: Stage) -> None:
    client = await stage.opened()
    await client.submit(1, [put(b"a", b"1")])
    await client.send(pb.ClientMessage(close=pb.Close()))
    assert len(await client.results(1)) == 1
    assert (await client.ended())[0] == grpc.StatusCode.OK

    client = await stage.opened()
    stage.replica.hold()
    await client.submit(1, [put(b"a", b"1")])
    await client.call.done_writing()
    await until(lambda: len(stage.replica.submitted) == 2)
    stage.replica.release()
    assert len(await client.results(1)) == 1
    assert (await client.ended())[0] == grpc.StatusCode.OK
    await until(lambda: stage.service.stream_count == 0)


async def test_close_ends_the_session_for_good_and_half_close_does_not(stage: Stage) -> None:
    stays, goes = await stage.opened(), await stage.opened()
    await stays.call.done_writing()
    await goes.send(pb.ClientMessage(close=pb.Close()))
    await until(lambda: stage.service.stream_count == 0)
    await until(lambda: stage.replica.machine.session(goes.session) is None)
    assert stage.replica.machine.session(stays.session) is not None


async def test_a_session_has_the_time_out_that_its_client_asked_for(stage: Stage) -> None:
    client = stage.client()
    await client.send(pb.ClientMessage(open=pb.Open(session_timeout_ms=12_345)))
    opened = (await client.receive()).opened
    info = stage.replica.machine.session(opened.session)
    assert info is not None
    assert info.timeout_ms == 12_345
    late = stage.client()
    await late.send(pb.ClientMessage(open=pb.Open(session_timeout_ms=1)))
    assert (await late.ended())[0] == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_stream_that_dies_gives_its_session_back(stage: Stage) -> None:
    client = await stage.opened()
    client.call.cancel()
    await until(lambda: stage.replica.closed_sessions == [client.session])
    assert stage.service.stream_count == 0


# ---- who wins, who is cut off ------------------------------------------------------------------------------


async def test_the_newest_stream_of_a_session_wins(stage: Stage) -> None:
    older = await stage.opened()
    newer = stage.client()
    await newer.open(session=older.session)
    failure = (await older.receive()).failure
    assert failure.code == grpc.StatusCode.ABORTED.value[0]
    assert "newer stream" in failure.message
    assert (await older.ended())[0] == grpc.StatusCode.ABORTED
    await until(lambda: stage.service.stream_count == 1)
    await newer.submit(1, [put(b"a", b"1")])
    assert len(await newer.results(1)) == 1


async def test_a_client_that_does_not_read_is_cut_off_and_may_come_back() -> None:
    async with staged(results_bytes_max=200_000) as stage:
        client = await stage.opened()
        value = b"x" * 50_000
        await client.submit(1, [put(b"a", value)])
        await client.results(1)
        # Results of 50 kB each, of which nothing is read: the flow control of HTTP/2 holds them here.
        for seq in range(2, 1_000):
            if not stage.service.stream_count:
                break
            await client.submit(seq, [get(b"a")])
        await until(lambda: stage.service.stream_count == 0)
        assert stage.replica.closed_sessions == [client.session]
        code, details = await client.ended()
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "does not read" in details
        # Nothing is lost: the session goes on, and what was not read is answered again.
        again = stage.client()
        opened = await again.open(session=client.session)
        assert opened.next_seq > 2
        await again.submit(2, [get(b"a")])
        result = kv_pb2.KvResult.FromString((await again.results(1, first_seq=2))[0])
        assert result.range.kvs[0].value == value


async def test_all_streams_together_are_bounded_and_the_slowest_goes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_service, "TOTAL_SHARE", 1)
    async with staged(results_bytes_max=10_000) as stage:
        stage.replica.hold()
        clients = [stage.client() for _ in range(3)]
        for read_id, (client, size) in enumerate(zip(clients, (2_000, 6_000, 3_000), strict=True)):
            # Each stays below its own limit.
            await client.send(pb.ClientMessage(read=pb.Read(id=read_id, requests=[get(b"x" * size)])))
            await until(lambda: stage.replica.reads_asked == read_id + 1)  # noqa: B023
        assert (await clients[1].ended())[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert stage.service.stream_count == 2
        assert stage.service.queued_bytes < 6_000
        stage.replica.release()
        for read_id in (0, 2):
            assert (await clients[read_id].receive()).read_results.id == read_id
        await until(lambda: stage.service.queued_bytes == 0)


async def test_what_a_dead_stream_had_waiting_is_not_counted_any_more(stage: Stage) -> None:
    stage.replica.hold()
    client = stage.client()
    for read_id in range(1, 4):
        await client.send(pb.ClientMessage(read=pb.Read(id=read_id, requests=[get(b"a")])))
    await until(lambda: stage.replica.reads_asked == 3)
    assert stage.service.queued_bytes > 0
    client.call.cancel()
    await until(lambda: stage.service.stream_count == 0)
    stage.replica.release()
    await until(lambda: not stage.replica._reads)
    assert stage.service.queued_bytes == 0


async def test_a_command_whose_result_was_received_is_not_waited_for(stage: Stage) -> None:
    client = await stage.opened()
    await client.submit(1, [put(b"a", b"1")])
    await client.results(1)
    await client.submit(1, [put(b"a", b"1")], received_below=2)
    await client.call.done_writing()
    assert (await client.ended())[0] == grpc.StatusCode.OK


async def test_reads_that_pile_up_are_refused_one_by_one() -> None:
    async with staged(results_bytes_max=10_000) as stage:
        stage.replica.hold()
        client = stage.client()
        for read_id in range(1, 7):
            await client.send(pb.ClientMessage(read=pb.Read(id=read_id, requests=[get(b"x" * 2_000)])))
        refused = [(await client.receive()).read_results for _ in range(2)]
        assert [each.id for each in refused] == [5, 6]
        assert all(each.failure.code == EXHAUSTED for each in refused)
        stage.replica.release()
        assert [(await client.receive()).read_results.id for _ in range(4)] == [1, 2, 3, 4]


async def test_streams_that_wait_are_sent_elsewhere_when_the_leader_stays_away(stage: Stage) -> None:
    idle, busy, opening = await stage.opened(), await stage.opened(), stage.client()
    stage.replica.set_leader(False)
    await busy.submit(1, [put(b"a", b"1")])
    await opening.send(pb.ClientMessage(open=pb.Open()))
    for client in (busy, opening):
        failure = (await client.receive()).failure
        assert failure.code == grpc.StatusCode.UNAVAILABLE.value[0]
        assert not failure.session_expired
        assert (await client.ended())[0] == grpc.StatusCode.UNAVAILABLE
    assert stage.service.stream_count == 1
    stage.replica.set_leader(True)
    await idle.submit(1, [put(b"a", b"1")])
    assert len(await idle.results(1)) == 1


async def executed_elsewhere(stage: Stage) -> SessionClient:
    """Commands 1 to 3 came into the log by another server, and so does, once the client has come here, what follows.

    The client has no results of the first three, and sends them again, just as the leader is gone.
    """
    left = await stage.opened()
    left.call.cancel()
    await until(lambda: stage.service.stream_count == 0)
    machine = stage.replica.machine
    commands = [put(b"k", b"%d" % seq) for seq in range(1, 6)]
    machine.apply_slot(machine.applied_slot + 1, [commands_frame(left.session, 1, 1, commands[:3])])
    client = stage.client()
    await client.open(session=left.session)
    late = commands_frame(client.session, 4, 1, commands[3:])
    for outcome in machine.apply_slot(machine.applied_slot + 1, [late]):
        stage.replica.local.applied(outcome)
    assert len(await client.results(2, first_seq=4)) == 2
    stage.replica.hold()
    await client.submit(1, commands[:3])
    await until(lambda: stage.replica.submitted[-1:] == [(client.session, 1, 3)])
    return client


async def test_results_of_what_follows_do_not_hide_that_a_stream_waits(stage: Stage) -> None:
    client = await executed_elsewhere(stage)
    stage.replica.set_leader(False)
    code, details = await client.ended()
    assert code == grpc.StatusCode.UNAVAILABLE
    assert "try another one" in details


async def test_results_of_what_follows_do_not_end_a_stream_that_is_half_closed(stage: Stage) -> None:
    client = await executed_elsewhere(stage)
    await client.call.done_writing()
    stage.replica.release()
    assert [revision_of(each) for each in await client.results(3, first_seq=1)] == [2, 3, 4]
    assert (await client.ended())[0] == grpc.StatusCode.OK


async def test_a_stream_does_not_wait_for_results_that_its_client_has(stage: Stage) -> None:
    """A client that sends its old frames again as they were: the last one had said which results it has."""
    client = await stage.opened()
    await client.submit(1, [put(b"k", b"1"), put(b"k", b"2")])
    await client.submit(3, [put(b"k", b"3")], received_below=2)
    await client.results(3)
    client.call.cancel()
    again = stage.client()
    await again.open(session=client.session)
    await again.submit(1, [put(b"k", b"1"), put(b"k", b"2")])
    await again.call.done_writing()
    results = await again.results(2, first_seq=1)
    assert results[0] == b""
    assert revision_of(results[1]) == 3
    assert (await again.ended())[0] == grpc.StatusCode.OK


async def test_an_election_disturbs_nobody(stage: Stage) -> None:
    client = await stage.opened()
    stage.replica.set_leader(False)
    await client.submit(1, [put(b"a", b"1")])
    stage.replica.set_leader(True)
    assert len(await client.results(1)) == 1


async def test_a_server_that_stops_answers_what_is_in_flight_and_takes_no_more(stage: Stage) -> None:
    client, idle = await stage.opened(), await stage.opened()
    stage.replica.hold()
    await client.submit(1, [put(b"a", b"1")])
    await until(lambda: len(stage.replica.submitted) == 1)
    draining = asyncio.create_task(stage.service.drain(10))
    assert (await idle.ended())[0] == grpc.StatusCode.UNAVAILABLE
    await client.submit(2, [put(b"a", b"2")])
    failure = (await client.receive()).failure
    assert (failure.first_seq, failure.not_executed) == (2, True)
    assert failure.code == grpc.StatusCode.UNAVAILABLE.value[0]
    stage.replica.release()
    await client.results(1, first_seq=1)
    assert (await client.ended())[0] == grpc.StatusCode.UNAVAILABLE
    await draining
    late = stage.client()
    await late.send(pb.ClientMessage(open=pb.Open()))
    assert (await late.ended())[0] == grpc.StatusCode.UNAVAILABLE


async def test_a_stream_ends_though_a_part_of_what_was_answered_is_sent_again(stage: Stage) -> None:
    """Commands 1 to 3 are answered, then 1 and 2 come again: nothing is owed, and 3 will not be answered twice."""
    client = await stage.opened()
    await client.submit(1, [put(b"a", b"1"), put(b"a", b"2"), put(b"a", b"3")])
    await client.results(3)
    await client.submit(1, [put(b"a", b"1"), put(b"a", b"2")])
    await client.results(2, first_seq=1)
    draining = asyncio.create_task(stage.service.drain(60))
    assert (await client.ended())[0] == grpc.StatusCode.UNAVAILABLE
    await asyncio.wait_for(draining, 30)


async def test_a_server_that_stops_does_not_wait_for_ever(stage: Stage) -> None:
    client = await stage.opened()
    stage.replica.hold()
    await client.submit(1, [put(b"a", b"1")])
    await until(lambda: len(stage.replica.submitted) == 1)
    await stage.service.drain(0.05)
    assert (await client.ended())[0] == grpc.StatusCode.UNAVAILABLE
    assert stage.service.stream_count == 0


async def test_a_frame_that_is_refused_after_all_names_its_sequence_number(stage: Stage) -> None:
    client = await stage.opened()
    stage.replica.hold()
    await client.submit(1, [put(b"a", b"1")])
    await until(lambda: len(stage.replica.submitted) == 1)
    (stream,) = stage.service._streams
    stream.failed(1, ResourceExhausted("dropped"))
    failure = (await client.receive()).failure
    assert (failure.first_seq, failure.code, failure.not_executed) == (1, EXHAUSTED, True)
