"""The session stream over real gRPC: what is refused, and how. What it is for is in test_session_service.py."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from paxos_rsm._proto import session_pb2 as pb
from paxos_rsm.codec.frames import commands_frame, expire_frame, register_frame
from paxos_rsm.errors import LogIOError, Unavailable
from tests.unit.server.fakes import FRAME_BYTES_MAX, FakeReplica, get, put
from tests.unit.server.session_stage import CLUSTER, EXHAUSTED, INVALID, Stage, revision_of, staged


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with staged() as each:
        yield each


# ---- what is refused ---------------------------------------------------------------------------------------


async def test_another_cluster_is_refused(stage: Stage) -> None:
    client = stage.client()
    await client.send(pb.ClientMessage(open=pb.Open(cluster_id=0xBAD)))
    failure = (await client.receive()).failure
    assert failure.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert "cluster bad" in failure.message
    assert "cluster c1" in failure.message
    code, details = await client.ended()
    assert (code, details) == (grpc.StatusCode.FAILED_PRECONDITION, failure.message)
    assert stage.replica.machine.session_count == 0


async def test_a_read_for_another_cluster_is_refused_too(stage: Stage) -> None:
    client = stage.client()
    await client.send(pb.ClientMessage(read=pb.Read(id=1, cluster_id=0xBAD, requests=[get(b"a")])))
    answer = (await client.receive()).read_results
    assert (answer.id, answer.failure.code) == (1, grpc.StatusCode.FAILED_PRECONDITION.value[0])
    assert not answer.results
    assert (await client.read(2, get(b"a"))).cluster_id == CLUSTER


async def test_a_read_of_nothing_only_asks_whether_the_server_lives(stage: Stage) -> None:
    stage.replica.set_leader(False)
    answer = await stage.client().read(0)
    assert (answer.id, answer.cluster_id, len(answer.results)) == (0, CLUSTER, 0)
    assert stage.replica.reads_asked == 0


async def test_an_expired_session_is_told_so(stage: Stage) -> None:
    client = stage.client()
    await client.send(pb.ClientMessage(open=pb.Open(session=99 << 16)))
    failure = (await client.receive()).failure
    assert failure.session_expired
    assert failure.first_seq == 0
    assert (await client.ended())[0] == grpc.StatusCode.FAILED_PRECONDITION


async def test_a_session_that_expires_while_it_is_open_is_told_so(stage: Stage) -> None:
    client = await stage.opened()
    stage.replica.expire(client.session)
    assert (await client.receive()).failure.session_expired


def frames(session: int) -> list[tuple[bytes, str]]:
    """Frames that must not reach the log, and a word of why."""
    command = put(b"a", b"1")
    both = commands_frame(session, 1, 0, [command]) + register_frame(1, 1000)
    return [
        (commands_frame(session + 1, 1, 0, [command]), f"of session {session + 1}"),
        (commands_frame(session, 1, 0, []), "no command"),
        (commands_frame(session, 2**63 - 1, 0, [command]), "sequence numbers"),
        (commands_frame(session, 2**64 - 1, 0, [command]), "sequence numbers"),
        (commands_frame(session, 1, 9, [command]), "beyond it"),
        (commands_frame(session, 1, 0, [b"x" * FRAME_BYTES_MAX]), f"larger than {FRAME_BYTES_MAX}"),
        (both, "commands only"),
        (both.replace(register_frame(1, 1000), b"") + expire_frame(session, 0), "commands only"),
    ]


@pytest.mark.parametrize("which", range(8))
async def test_a_bad_frame_is_refused_before_the_log_and_the_stream_lives(stage: Stage, which: int) -> None:
    client = await stage.opened()
    frame, word = frames(client.session)[which]
    slot = stage.replica.machine.applied_slot
    await client.send(pb.ClientMessage(submit=pb.Submit(frame=frame)))
    failure = (await client.receive()).failure
    assert failure.code == INVALID
    assert failure.not_executed
    assert failure.first_seq >= 1
    assert word in failure.message
    assert stage.replica.machine.applied_slot == slot
    await client.submit(1, [put(b"a", b"1")])
    assert len(await client.results(1, first_seq=1)) == 1


@pytest.mark.parametrize(
    ("message", "word"),
    [
        (b"\xff\xff\xff", "do not parse as a paxos_rsm.v1.ClientMessage"),
        (b"", "neither Open, Submit, Read nor Close"),
        (pb.ClientMessage(submit=pb.Submit(frame=b"\xff\xff")), "do not parse as a paxos_rsm.v1.Frame"),
        (pb.ClientMessage(submit=pb.Submit(frame=register_frame(1, 1000))), "commands only"),
        (pb.ClientMessage(open=pb.Open()), "opened once"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "do not parse"),  # a length of 2**63 - 1
    ],
)
async def test_a_message_that_makes_no_sense_ends_the_stream_cleanly(
    stage: Stage, message: Any, word: str
) -> None:
    client = await stage.opened()
    await client.send(message)
    failure = (await client.receive()).failure
    assert (failure.code, failure.first_seq) == (INVALID, 0)
    assert word in failure.message
    assert (await client.ended()) == (grpc.StatusCode.INVALID_ARGUMENT, failure.message)
    await stage.opened()


async def test_a_frame_before_open_is_refused(stage: Stage) -> None:
    client = stage.client()
    await client.submit(1, [put(b"a", b"1")], session=5)
    failure = (await client.receive()).failure
    assert (failure.code, failure.first_seq, failure.not_executed) == (INVALID, 1, True)


async def test_a_frame_at_the_limit_is_taken(stage: Stage) -> None:
    client = await stage.opened()
    room = FRAME_BYTES_MAX - len(commands_frame(client.session, 1, 0, [put(b"a", b"x" * 60_000)])) + 60_000
    command = put(b"a", b"x" * room)
    assert len(commands_frame(client.session, 1, 0, [command])) == FRAME_BYTES_MAX
    await client.submit(1, [command])
    assert revision_of((await client.results(1))[0]) == 2


async def test_full_queues_refuse_a_frame_and_all_after_it_until_it_is_sent_again(stage: Stage) -> None:
    client = await stage.opened()
    stage.replica.hold()
    big = put(b"a", b"x" * 60_000)
    for seq in range(1, 7):
        await client.submit(seq, [big])
    await client.submit(7, [put(b"b", b"small")])
    failures = [(await client.receive()).failure for _ in range(3)]
    assert [each.first_seq for each in failures] == [5, 6, 7]
    assert all(each.code == EXHAUSTED and each.not_executed for each in failures)
    assert "again from sequence number 5" in failures[2].message
    stage.replica.release()
    await client.results(4, first_seq=1)
    for seq in range(5, 7):
        await client.submit(seq, [big])
    await client.submit(7, [put(b"b", b"small")])
    assert revision_of((await client.results(3, first_seq=5))[2]) == 8


async def test_a_read_without_a_leader_fails_and_the_stream_lives(stage: Stage) -> None:
    stage.replica.read_error = Unavailable("no leader to ask")
    client = stage.client()
    answer = await client.read(3, get(b"a"))
    assert (answer.id, answer.failure.code) == (3, grpc.StatusCode.UNAVAILABLE.value[0])
    assert not answer.results
    stage.replica.read_error = None
    assert (await client.read(4, get(b"a"))).results


async def test_a_query_that_raises_fails_its_caller_only() -> None:
    class Bad:
        def apply(self, command: bytes, at: object) -> bytes:
            return b""

        def query(self, request: bytes) -> bytes:
            raise ZeroDivisionError("no such thing")

        def snapshot(self) -> list[bytes]:
            return []

        def restore(self, chunks: object) -> None:
            pass

        def digest(self) -> bytes:
            return b""

    async with staged(replica=FakeReplica(Bad())) as stage:
        client = stage.client()
        answer = await client.read(1, b"q")
        assert answer.failure.code == grpc.StatusCode.UNKNOWN.value[0]
        assert "ZeroDivisionError: no such thing" in answer.failure.message
        await client.open()
        await client.submit(1, [b"c"])
        assert await client.results(1) == [b""]


async def test_a_failure_that_nobody_foresaw_is_not_told_to_the_client(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.replica.read_error = RuntimeError("a secret")
    answer = await stage.client().read(3, get(b"a"))
    assert answer.failure.code == grpc.StatusCode.UNKNOWN.value[0]
    assert "secret" not in answer.failure.message
    assert "secret" in caplog.text


async def test_an_error_of_the_disk_has_its_own_code(stage: Stage) -> None:
    client = await stage.opened()
    stage.replica.refuse_with = LogIOError("disk")
    await client.submit(1, [put(b"a", b"1")])
    assert (await client.receive()).failure.code == grpc.StatusCode.INTERNAL.value[0]
