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


def _time_out(future: "asyncio.Future[Any]") -> None:
    """What ``asyncio.timeout`` does, for a future that waits for nothing of its own: at a fraction of the price."""
    if not future.done():
        future.set_exception(TimeoutError())


class _Readers:
    """Those who wait for one read index: each has a future, for who leaves must not cancel what the others share."""

    __slots__ = ("_loop", "_timer", "_waiting", "index")

    def __init__(
        self, index: "asyncio.Future[int]", loop: asyncio.AbstractEventLoop, timeout_s: float
    ) -> None:
        self.index = index
        self._loop = loop
        self._waiting: list[asyncio.Future[None]] = []
        self._timer = loop.call_later(timeout_s, self._out_of_time)
        index.add_done_callback(self._indexed)

    def wait(self) -> "asyncio.Future[None]":
        """Done when the index is there; fails with what that fails with, or with TimeoutError."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(future)
        if self.index.done():
            self._indexed(self.index)
        return future

    def _indexed(self, index: "asyncio.Future[int]") -> None:
        self._timer.cancel()
        error = index.exception()
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    def _out_of_time(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            _time_out(future)


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
        self._timeout_s = limits.request_timeout_ms / 1000
        self._loop = asyncio.get_running_loop()
        self._readers: _Readers | None = None
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
        if not self._leadership.has_leader:
            await self.need_leader(context)
        try:
            future = self._own.submit(command)
            timer = self._loop.call_later(self._timeout_s, _time_out, future)
            try:
                return await future
            finally:
                timer.cancel()
        except TimeoutError:
            raise status_of(TIMED_OUT) from None
        except PaxosRsmError as error:
            raise self._translated(error) from error

    async def read_index(self, context: Context) -> None:
        """From here on the local state has all that was acknowledged before the call. Raises StatusError."""
        if not self._leadership.has_leader:
            await self.need_leader(context)
        index = self._replica.read()
        readers = self._readers
        if readers is None or readers.index is not index:
            readers = self._readers = _Readers(index, self._loop, self._timeout_s)
        try:
            await readers.wait()
        except TimeoutError:
            raise status_of(TIMED_OUT) from None
        except PaxosRsmError as error:
            raise self._translated(error) from error

    async def query(self, command: bytes, context: Context, *, serializable: bool = False) -> bytes:
        """The answer of the state machine to a query, as of now. Raises StatusError."""
        if not serializable:
            await self.read_index(context)
        try:
            return self._replica.query(command)
        except PaxosRsmError as error:
            raise self._translated(error) from error

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
            async with asyncio.timeout(self._timeout_s):
                yield
        except TimeoutError:
            raise status_of(TIMED_OUT) from None
        except PaxosRsmError as error:
            raise self._translated(error) from error

    async def need_leader(self, context: Context) -> None:
        """Waits through an election, but not longer."""
        if self._leadership.has_leader:
            return
        patience_s = min(self._limits.leaderless_ms / 1000, self._timeout_s)
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
