"""The seam to gRPC: handlers that take and give bytes.

gRPC's Python server answers a request that does not parse with UNKNOWN and logs a traceback. The services here
parse their own requests, so that garbage gets a clean INVALID_ARGUMENT; and a request that goes into the log as
it came need not be encoded again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import NoReturn, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from paxos_rsm.errors import InvalidArgument, PaxosRsmError
from paxos_rsm.server.status_codes import status_code_of

__all__ = [
    "BUG",
    "Context",
    "Handler",
    "StatusError",
    "ends_with",
    "length_delimited",
    "parse",
    "refuse",
    "service_handler",
    "stream_handler",
    "unary_handler",
    "watch_handler",
]

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"

M = TypeVar("M", bound=Message)
R = TypeVar("R")
T = TypeVar("T")

BUG = "the server met a bug; its log has the details"
"""What a client is told of an error that nobody foresaw."""

log = logging.getLogger(__name__)


class StatusError(Exception):
    """Ends a call with exactly this status: for clients that compare codes and words."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


def parse(message_type: type[M], data: bytes) -> M:
    """``data`` as a message. Raises InvalidArgument where it is none."""
    try:
        return message_type.FromString(data)
    except DecodeError:
        name = message_type.DESCRIPTOR.full_name
        raise InvalidArgument(
            f"{len(data)} bytes do not parse as a {name}; the client and the server speak different protocols"
        ) from None


def length_delimited(field: int, data: bytes) -> bytes:
    """A message of one field, ``data``: what is encoded already need not be encoded again."""
    head = bytearray((field << 3 | 2,))
    length = len(data)
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + data


async def refuse(context: Context, error: Exception) -> NoReturn:
    """Ends the call with the status of ``error``; one that nobody foresaw is logged, and hidden from the client."""
    if isinstance(error, StatusError):
        await context.abort(error.code, error.details)
    if isinstance(error, PaxosRsmError):
        await context.abort(status_code_of(error), str(error))
    log.error("a request failed for a reason that nobody foresaw", exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, BUG)


def ends_with(
    task: "asyncio.Task[None]", what: str, end: Callable[[PaxosRsmError | StatusError | None], None]
) -> None:
    """Has ``end`` called when ``task``, which serves ``what``, fails: with its error; None where the client has gone.

    An error that nobody foresaw is logged, and hidden from the client, as by :func:`refuse`.
    """

    def done(task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        if isinstance(error, PaxosRsmError | StatusError):
            end(error)
        elif isinstance(error, grpc.aio.BaseError | asyncio.InvalidStateError):
            end(None)  # the client has gone, and this is how gRPC says so
        else:
            log.error("%s failed for a reason that nobody foresaw", what, exc_info=error)
            end(StatusError(grpc.StatusCode.INTERNAL, BUG))

    task.add_done_callback(done)


def unary_handler(behaviour: Callable[[bytes, Context], Awaitable[bytes]]) -> Handler:
    """One request, one response."""
    return grpc.unary_unary_rpc_method_handler(_guarded(behaviour))


def watch_handler(behaviour: Callable[[bytes, Context], Awaitable[None]]) -> Handler:
    """One request, many responses by ``context.write``."""
    return grpc.unary_stream_rpc_method_handler(_guarded(behaviour))


def stream_handler(behaviour: Callable[[object, Context], Awaitable[None]]) -> Handler:
    """Many both ways, by ``context.read`` and ``context.write``."""
    return grpc.stream_stream_rpc_method_handler(_guarded(behaviour))


def _guarded(behaviour: Callable[[R, Context], Awaitable[T]]) -> Callable[[R, Context], Awaitable[T]]:
    """What ``behaviour`` raises becomes the status of the call."""

    async def guarded(request: R, context: Context) -> T:
        try:
            return await behaviour(request, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            try:
                await refuse(context, error)
            except (grpc.aio.InternalError, grpc.aio.UsageError) as gone:
                # So gRPC says that the client has left: the call is over, and there is nobody to tell.
                raise asyncio.CancelledError from gone

    return guarded


def service_handler(name: str, methods: Mapping[str, Handler]) -> grpc.GenericRpcHandler:
    """A service under its full name."""
    return grpc.method_handlers_generic_handler(name, dict(methods))
