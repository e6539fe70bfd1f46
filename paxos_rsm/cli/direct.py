"""Calls to one server: what the client does not do, because it speaks to the cluster as a whole.

``endpoint status`` asks each server what *it* knows; ``snapshot save`` wants the state of one; ``member list`` will
take the word of any. These are unary calls of the services that etcd has too (Maintenance, Cluster, Lease), each over a
connection of its own. Nothing is asked twice: what is asked this way either only reads, or may be done twice.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from paxos_rsm.cli.connect import dial
from paxos_rsm.cli.options import Settings
from paxos_rsm.errors import ClientError, InvalidArgument, Unavailable

if TYPE_CHECKING:
    import grpc
    from google.protobuf.message import Message

    from paxos_rsm._proto import kv_pb2 as pb

__all__ = ["ask", "ask_any", "ask_each", "channel_to", "complete_header", "error_from"]

M = TypeVar("M", bound="Message")

PACKAGE = "paxos_rsm.v1"


@contextlib.asynccontextmanager
async def channel_to(endpoint: str) -> "AsyncIterator[grpc.aio.Channel]":
    """A connection of its own, not by way of a proxy."""
    import grpc

    async with grpc.aio.insecure_channel(endpoint, options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield channel


async def ask(endpoint: str, method: str, request: "Message", answer_type: type[M], timeout_s: float) -> M:
    """The answer of one server to ``Service/Method``. Raises ClientError, in the server's words."""
    import grpc

    async with channel_to(endpoint) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{PACKAGE}.{method}")
        try:
            data = await call(request.SerializeToString(), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise error_from(error, endpoint, method, timeout_s) from None
    return answer_type.FromString(data)


async def ask_each(
    endpoints: Sequence[str], method: str, request: "Message", answer_type: type[M], timeout_s: float
) -> list[M | ClientError]:
    """The answers of all of ``endpoints``, in their order, asked at the same time; an error where one has none."""
    asked = (ask(endpoint, method, request, answer_type, timeout_s) for endpoint in endpoints)
    answers = await asyncio.gather(*asked, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, ClientError):
            raise answer
    return [
        answer
        for answer in answers
        if not isinstance(answer, BaseException) or isinstance(answer, ClientError)
    ]


async def ask_any(settings: Settings, method: str, request: "Message", answer_type: type[M]) -> M:
    """The answer of the first server that has one.

    Raises BadConnection where none can be connected to, and else the error of the last one asked, or of the first that
    refused for a reason that every other would have too.
    """
    await dial(settings.endpoints, settings.dial_timeout_s)
    share_s = settings.command_timeout_s / len(settings.endpoints)
    last: ClientError | None = None
    for endpoint in settings.endpoints:
        try:
            return await ask(endpoint, method, request, answer_type, share_s)
        except InvalidArgument:
            raise
        except ClientError as error:
            last = error
    raise last or ClientError("there is no endpoint to ask")


def error_from(error: "grpc.aio.AioRpcError", endpoint: str, method: str, timeout_s: float) -> ClientError:
    """The exception that says what a call ended with: the server's words, or that it is not there."""
    import grpc

    from paxos_rsm.cli.status import plain_reason
    from paxos_rsm.client.failures import error_of, number_of

    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return error_of(number_of(code), f"{endpoint} does not offer {method.replace('/', '.')}")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unavailable(f"{endpoint}: no answer within {timeout_s:.3g} s")
    if code is grpc.StatusCode.UNAVAILABLE and not details.startswith("etcdserver"):
        return Unavailable(f"{endpoint}: {plain_reason(details)}")
    return error_of(number_of(code), details)


async def complete_header(settings: Settings, header: "pb.ResponseHeader") -> None:
    """Fills in what an answer out of the log does not say: the cluster, the term, and a member that tells of both.

    Only where it is shown. What no server tells stays empty.
    """
    from paxos_rsm._proto import admin_pb2

    if settings.write_out not in ("json", "fields") or header.member_id:
        return
    timeout_s = min(settings.dial_timeout_s, settings.command_timeout_s)
    for endpoint in settings.endpoints:
        try:
            told = await ask(
                endpoint, "Admin/Status", admin_pb2.StatusRequest(), admin_pb2.StatusResponse, timeout_s
            )
        except ClientError:
            continue
        header.cluster_id = told.cluster_id
        header.member_id = told.member_id
        header.raft_term = told.ballot.round
        return
