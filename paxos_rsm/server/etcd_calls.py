"""How a call in etcd's words gets to the log or to the state, and what it is told where it does not.

What the services that speak etcd's language share. A change goes through one of the server's own sessions, so it is
executed at most once; a read waits for a read index, so that it sees everything that was acknowledged before it came.

Errors are etcd's, code and words: its clients compare them. A change that could not be handed on says so (no leader,
too many requests: not executed); one that was handed on and is not answered in time is UNAVAILABLE "request timed out",
or DEADLINE_EXCEEDED where the client's own deadline came first, and its outcome is unknown.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from paxos_rsm.codec.kv import Response, result_to_pb
from paxos_rsm.errors import (
    InvalidArgument,
    InvariantViolation,
    PaxosRsmError,
    ResourceExhausted,
    SessionExpired,
    Unavailable,
    UnknownOutcome,
)
from paxos_rsm.machines.kv.types import REQUEST_TOO_LARGE, KvError
from paxos_rsm.replica.api import ReplicaHandle
from paxos_rsm.server.headers import Headers
from paxos_rsm.server.leadership import Leadership
from paxos_rsm.server.own_sessions import OwnSessions
from paxos_rsm.server.rpc import Context, StatusError
from paxos_rsm.server.status_codes import code_of_number, number_of, status_code_of

__all__ = ["CallLimits", "EtcdCalls", "status_of"]

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

R = TypeVar("R", bound=Response)


@dataclass(frozen=True, slots=True)
class CallLimits:
    """What a request is held to."""

    request_bytes_max: int
    request_timeout_ms: int
    """For the log, where the client's deadline is not shorter."""
    leaderless_ms: int
    """A request waits so long for a leader: through an election, not longer."""


def status_of(error: KvError) -> StatusError:
    """What ends a call with this error."""
    return StatusError(code_of_number(error.code), error.message)


class EtcdCalls:
    """One for all the services of a server. Without sessions of its own it only reads."""

    def __init__(
        self,
        replica: ReplicaHandle,
        own_sessions: OwnSessions | None,
        leadership: Leadership,
        headers: Headers,
        limits: CallLimits,
    ) -> None:
        self._replica = replica
        self._own = own_sessions
        self._leadership = leadership
        self.headers = headers
        self._limits = limits
        self.stopping = False

    def refuse(self, error: KvError | None, size_bytes: int = 0) -> None:
        """Raises StatusError for what the log must not see: ``error``, or a request that is too large, or too late."""
        if error is None and size_bytes > self._limits.request_bytes_max:
            error = REQUEST_TOO_LARGE
        if error is None and self.stopping:
            error = STOPPED
        if error is not None:
            raise status_of(error)

    async def submit(self, command: bytes, context: Context) -> Any:
        """The result of a KvCommand that has gone through the log. Raises StatusError, in etcd's words."""
        if self._own is None:
            raise InvariantViolation(
                "a server without sessions of its own was given a command: a bug in paxos_rsm"
            )
        async with self.in_etcds_words():
            await self.need_leader(context)
            return await self._own.submit(command)

    async def read_index(self, context: Context) -> None:
        """From here on the local state has all that was acknowledged before the call. Raises StatusError."""
        async with self.in_etcds_words():
            await self.need_leader(context)
            # Shielded: a caller who leaves must not cancel what the other readers of this turn share.
            await asyncio.shield(self._replica.read())

    async def query(self, command: bytes, context: Context, *, serializable: bool = False) -> bytes:
        """The answer of the state machine to a query, as of now. Raises StatusError."""
        if not serializable:
            await self.read_index(context)
        async with self.in_etcds_words():
            return self._replica.query(command)

    def response(self, result: Any) -> Response:
        """The response to a result, with its header filled. Raises StatusError where it is an error."""
        response: Response | KvError = result_to_pb(result)
        if isinstance(response, KvError):
            raise status_of(response)
        self.headers.fill(response.header)
        return response

    @asynccontextmanager
    async def in_etcds_words(self) -> AsyncIterator[None]:
        """Within it, what takes too long or cannot be done raises StatusError."""
        try:
            async with asyncio.timeout(self._limits.request_timeout_ms / 1000):
                yield
        except TimeoutError:
            raise status_of(TIMED_OUT) from None
        except PaxosRsmError as error:
            raise self._translated(error) from error

    async def need_leader(self, context: Context) -> None:
        """Waits through an election, but not longer."""
        if self._leadership.has_leader:
            return
        patience_s = self._limits.leaderless_ms / 1000
        remaining_s: float | None = context.time_remaining()
        if remaining_s is not None:
            patience_s = min(patience_s, remaining_s * DEADLINE_SHARE)
        if not await self._leadership.wait(patience_s):
            raise status_of(NO_LEADER)

    def _translated(self, error: PaxosRsmError) -> StatusError:
        if isinstance(error, UnknownOutcome | SessionExpired):
            return status_of(LEADER_FAILED)
        if isinstance(error, ResourceExhausted):
            return status_of(TOO_MANY_REQUESTS)
        if isinstance(error, InvalidArgument):
            return status_of(REQUEST_TOO_LARGE)  # the one thing that is found out only on the way to the log
        if isinstance(error, Unavailable):
            if self.stopping:
                return status_of(STOPPED)
            return status_of(TIMED_OUT if self._leadership.has_leader else NO_LEADER)
        return StatusError(status_code_of(error), f"paxos_rsm: {error}")
