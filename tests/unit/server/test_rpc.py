"""The seam to gRPC: parsing, encoding by hand, and how what is raised becomes a status."""

import asyncio
from typing import Any

import grpc
import pytest

from paxos_rsm._proto import session_pb2 as pb
from paxos_rsm.errors import InvalidArgument, SessionExpired
from paxos_rsm.server.rpc import (
    Context,
    StatusError,
    ends_with,
    length_delimited,
    parse,
    service_handler,
    stream_handler,
    unary_handler,
    watch_handler,
)
from tests.unit.server.fakes import serving

Code = grpc.StatusCode


def test_what_does_not_parse_is_an_invalid_argument() -> None:
    assert parse(pb.Open, b"").session == 0
    with pytest.raises(InvalidArgument, match=r"3 bytes do not parse as a paxos_rsm\.v1\.Open"):
        parse(pb.Open, b"\xff\xff\xff")


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152])
def test_a_message_around_bytes_is_what_protobuf_writes(size: int) -> None:
    data = b"x" * size
    assert length_delimited(1, data) == pb.Submit(frame=data).SerializeToString() or not size
    assert pb.Submit.FromString(length_delimited(1, data)).frame == data


def raising(error: Exception) -> Any:
    async def behave(_request: Any, _context: Context) -> Any:
        raise error

    return behave


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_stream"])
@pytest.mark.parametrize(
    ("error", "code", "details"),
    [
        (SessionExpired("gone"), Code.FAILED_PRECONDITION, "gone"),
        (StatusError(Code.NOT_FOUND, "not here"), Code.NOT_FOUND, "not here"),
        (KeyError("a secret"), Code.INTERNAL, "the server met a bug; its log has the details"),
    ],
)
async def test_what_is_raised_becomes_the_status(
    kind: str, error: Exception, code: grpc.StatusCode, details: str, caplog: pytest.LogCaptureFixture
) -> None:
    behave = raising(error)
    methods = {
        "unary_unary": unary_handler(behave),
        "unary_stream": watch_handler(behave),
        "stream_stream": stream_handler(behave),
    }
    async with serving(service_handler("test.Service", {"Do": methods[kind]})) as (_, channel):
        method: Any = getattr(channel, kind)("/test.Service/Do")
        call = method() if kind == "stream_stream" else method(b"")
        assert (await call.code(), await call.details()) == (code, details)
    assert ("a secret" in caplog.text) == isinstance(error, KeyError)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SessionExpired("gone"), "gone"),
        (StatusError(Code.NOT_FOUND, "not here"), "not here"),
        (grpc.aio.UsageError("the call is over"), None),
        (asyncio.InvalidStateError("the call is over"), None),
        (KeyError("a secret"), "the server met a bug; its log has the details"),
    ],
)
async def test_a_stream_ends_with_what_its_tasks_raise(
    error: Exception, told: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[Exception | None] = []
    task: asyncio.Task[None] = asyncio.create_task(raising(error)(None, None))
    ends_with(task, "a test", ended.append)
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert [each and str(each) for each in ended] == [told]
    assert ("a test failed for a reason" in caplog.text) == isinstance(error, KeyError)


async def test_a_task_of_a_stream_that_returns_or_is_cancelled_ends_nothing() -> None:
    ended: list[Exception | None] = []
    tasks = [asyncio.create_task(asyncio.sleep(delay_s)) for delay_s in (0, 60)]
    for task in tasks:
        ends_with(task, "a test", ended.append)
    await asyncio.wait([tasks[0]])
    tasks[1].cancel()
    await asyncio.wait(tasks)
    await asyncio.sleep(0)
    assert not ended


async def test_a_client_that_has_left_is_no_bug(caplog: pytest.LogCaptureFixture) -> None:
    left = asyncio.Event()
    ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def stubborn(_request: bytes, _context: Context) -> bytes:
        try:
            left.set()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.set_result(True)
        raise SessionExpired("nobody hears this")

    handler = service_handler("test.Service", {"Do": unary_handler(stubborn)})
    async with serving(handler) as (_, channel):
        method: Any = channel.unary_unary("/test.Service/Do")
        call = method(b"")
        await left.wait()
        call.cancel()
        assert await ended
    # gRPC's one poller may still call into the loop of an earlier test (grpc #25364): that is asyncio's complaint.
    assert not [record for record in caplog.records if record.name != "asyncio"]
