"""The KV service: unary calls in etcd's own words, for any etcd client and any language.

One servicer under two names, ``paxos_rsm.v1.KV`` and ``etcdserverpb.KV``: the messages have etcd's field numbers,
so there is nothing to translate. What happens to a request::

    Range, Txn that only reads   checked -> read index -> asked of the local state    (serializable: at once)
    Put, DeleteRange, Txn, ...   checked -> one of the server's own sessions -> log -> result of the local apply

A request is checked here, before the log, by the function that the state machine applies again when it comes out of
the log; so both answer alike. A write goes into the log as the bytes it came as, with one tag in front.

Errors are etcd's, code and words: its clients compare them. A write that could not be handed on says so (no
leader, too many requests: not executed); one that was handed on and is not answered in time is UNAVAILABLE
"request timed out", or DEADLINE_EXCEEDED where the client's own deadline came first, and its outcome is unknown.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc

from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm.codec.kv import Request, Response, request_from_pb, result_to_pb
from paxos_rsm.errors import (
    InvalidArgument,
    PaxosRsmError,
    ResourceExhausted,
    SessionExpired,
    Unavailable,
    UnknownOutcome,
)
from paxos_rsm.machines.kv.check import check, is_read_only
from paxos_rsm.machines.kv.types import REQUEST_TOO_LARGE, Command, KvError, Operation, Range, Txn
from paxos_rsm.replica.api import ReplicaHandle
from paxos_rsm.server.leadership import Leadership
from paxos_rsm.server.own_sessions import OwnSessions
from paxos_rsm.server.rpc import (
    Context,
    StatusError,
    length_delimited,
    parse,
    service_handler,
    unary_handler,
)
from paxos_rsm.server.status_codes import code_of_number, number_of, status_code_of

__all__ = ["SERVICES", "KvLimits", "KvService", "UnimplementedKv"]

SERVICES = ("paxos_rsm.v1.KV", "etcdserverpb.KV")

# Of each method: its field in KvCommand, and its request.
METHODS: dict[str, tuple[int, type[Request]]] = {
    "Range": (1, pb.RangeRequest),
    "Put": (2, pb.PutRequest),
    "DeleteRange": (3, pb.DeleteRangeRequest),
    "Txn": (4, pb.TxnRequest),
    "Compact": (5, pb.CompactionRequest),
}

# etcd's words, where the store itself has none.
NO_LEADER = KvError(number_of(grpc.StatusCode.UNAVAILABLE), "etcdserver: no leader")
STOPPED = KvError(number_of(grpc.StatusCode.UNAVAILABLE), "etcdserver: server stopped")
TIMED_OUT = KvError(number_of(grpc.StatusCode.UNAVAILABLE), "etcdserver: request timed out")
LEADER_FAILED = KvError(
    number_of(grpc.StatusCode.UNAVAILABLE),
    "etcdserver: request timed out, possibly due to previous leader failure",
)
TOO_MANY_REQUESTS = KvError(number_of(grpc.StatusCode.RESOURCE_EXHAUSTED), "etcdserver: too many requests")

DEADLINE_SHARE = 0.8
"""A call without a leader is answered within this share of its deadline: a reason beats a time-out."""


@dataclass(frozen=True, slots=True)
class KvLimits:
    """What a request is held to."""

    request_bytes_max: int
    request_timeout_ms: int
    """For the log, where the client's deadline is not shorter."""
    leaderless_ms: int
    """A request waits so long for a leader: through an election, not longer."""


class KvService:
    """Range, Put, DeleteRange, Txn and Compact."""

    def __init__(
        self,
        replica: ReplicaHandle,
        own_sessions: OwnSessions,
        leadership: Leadership,
        *,
        cluster_id: int,
        member_id: int,
        limits: KvLimits,
    ) -> None:
        self._replica = replica
        self._own = own_sessions
        self._leadership = leadership
        self._cluster_id = cluster_id
        self._member_id = member_id
        self._limits = limits
        self.stopping = False

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """What a gRPC server is given: the one servicer, under both names."""
        methods = {name: unary_handler(self._method(*each)) for name, each in METHODS.items()}
        return [service_handler(service, methods) for service in SERVICES]

    def _method(
        self, field: int, request_type: type[Request]
    ) -> Callable[[bytes, Context], Awaitable[bytes]]:
        async def call(data: bytes, context: Context) -> bytes:
            request = request_from_pb(parse(request_type, data))
            self._refuse_bad(request, len(data))
            command = length_delimited(field, data)
            try:
                async with asyncio.timeout(self._limits.request_timeout_ms / 1000):
                    if is_read_only(request):
                        return self._answer(await self._ask(request, command, context))
                    await self._need_leader(context)
                    return self._answer(await self._own.submit(command))
            except TimeoutError:
                raise _status(TIMED_OUT) from None
            except PaxosRsmError as error:
                raise self._in_etcds_words(error) from error

        return call

    def _refuse_bad(self, request: Command, size_bytes: int) -> None:
        """Raises StatusError for what the log must not see."""
        error = check(request)
        if error is None and size_bytes > self._limits.request_bytes_max:
            error = REQUEST_TOO_LARGE
        if error is None and self.stopping:
            error = STOPPED
        if error is not None:
            raise _status(error)

    async def _need_leader(self, context: Context) -> None:
        """Waits through an election, but not longer."""
        if self._leadership.has_leader:
            return
        patience_s = self._limits.leaderless_ms / 1000
        remaining_s: float | None = context.time_remaining()
        if remaining_s is not None:
            patience_s = min(patience_s, remaining_s * DEADLINE_SHARE)
        if not await self._leadership.wait(patience_s):
            raise _status(NO_LEADER)

    async def _ask(self, request: Command, command: bytes, context: Context) -> bytes:
        if not _is_serializable(request):
            await self._need_leader(context)
            # Shielded: a caller who leaves must not cancel what the other readers of this turn share.
            await asyncio.shield(self._replica.read())
        return self._replica.query(command)

    def _answer(self, result: Any) -> bytes:
        """The response, with what only this server knows in its header."""
        response: Response | KvError = result_to_pb(result)
        if isinstance(response, KvError):
            raise _status(response)
        header = response.header
        header.cluster_id = self._cluster_id
        header.member_id = self._member_id
        header.raft_term = self._replica.status().ballot.round
        return response.SerializeToString()

    def _in_etcds_words(self, error: PaxosRsmError) -> StatusError:
        if isinstance(error, UnknownOutcome | SessionExpired):
            return _status(LEADER_FAILED)
        if isinstance(error, ResourceExhausted):
            return _status(TOO_MANY_REQUESTS)
        if isinstance(error, InvalidArgument):
            return _status(REQUEST_TOO_LARGE)  # the one thing that is found out only on the way to the log
        if isinstance(error, Unavailable):
            if self.stopping:
                return _status(STOPPED)
            return _status(TIMED_OUT if self._leadership.has_leader else NO_LEADER)
        return StatusError(status_code_of(error), f"paxos_rsm: {error}")


class UnimplementedKv:
    """The KV service of a server that runs another state machine: a sentence instead of a riddle."""

    def __init__(self, machine_name: str) -> None:
        self._sentence = (
            f"this server runs the state machine {machine_name}, not the key-value store; send its commands "
            "with the paxos_rsm client's submit and query"
        )

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """What a gRPC server is given."""
        methods = {name: unary_handler(self._refuse) for name in METHODS}
        return [service_handler(service, methods) for service in SERVICES]

    async def _refuse(self, _request: bytes, _context: Context) -> bytes:
        raise StatusError(grpc.StatusCode.UNIMPLEMENTED, self._sentence)


def _status(error: KvError) -> StatusError:
    return StatusError(code_of_number(error.code), error.message)


def _is_serializable(request: Command | Operation) -> bool:
    """Whether stale state will do: a transaction of reads says so by each of them, as in etcd."""
    if isinstance(request, Txn):
        inner = [*request.success, *request.failure]
        return bool(inner) and all(map(_is_serializable, inner))
    return isinstance(request, Range) and request.serializable
