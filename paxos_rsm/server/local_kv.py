"""The store, as services of this very server use it: what a client would ask by gRPC, without gRPC.

Locks and elections are made of transactions, reads and watches, like anybody's. They take the same ways as the KV
service: writes through the server's own sessions and the log, reads after a read index. What they look at in between
(who stands before me?) is the local state, which is as new as any result that came back from it.

Whatever the store refuses is answered with UNKNOWN and etcd's words: that is how etcd's own lock and election services
hand on the errors of the client that they have inside. What the way to the log refuses is as in the KV service.
"""

import asyncio
from typing import Any

import grpc

from paxos_rsm.codec.kv import encode_command, result_to_pb
from paxos_rsm.errors import InvariantViolation
from paxos_rsm.machines.kv.check import check
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.types import (
    REQUEST_TOO_LARGE,
    Command,
    KeyValue,
    KvError,
    Range,
    RangeResult,
    SortOrder,
    SortTarget,
)
from paxos_rsm.server.etcd_calls import EtcdCalls
from paxos_rsm.server.headers import Headers
from paxos_rsm.server.own_sessions import OwnSessions
from paxos_rsm.server.rpc import Context, StatusError

__all__ = ["LocalKv", "first_created", "prefix_end"]


class LocalKv:
    """Writes, reads, and looks at the local state."""

    def __init__(
        self, machine: KeyValueMachine, own_sessions: OwnSessions, calls: EtcdCalls, request_bytes_max: int
    ) -> None:
        self._machine = machine
        self._own = own_sessions
        self._calls = calls
        self._request_bytes_max = request_bytes_max

    # ---- through the log ------------------------------------------------------------------------------------

    def encode(self, command: Command) -> bytes:
        """A command as the log takes it. Raises StatusError for what is refused whatever the state."""
        error = check(command)
        if error is None and len(data := encode_command(command)) > self._request_bytes_max:
            error = REQUEST_TOO_LARGE
        if error is not None:
            raise refused(error)
        return data

    async def submit(self, command: Command, context: "Context | None" = None) -> "asyncio.Future[Any]":
        """Hands a command on, after waiting for a leader where the caller's ``context`` is given.

        What comes of it :meth:`answer` tells, or the future. Raises StatusError: then nothing has happened.
        """
        data = self.encode(command)
        async with self._calls.in_etcds_words():
            if context is not None:
                self._calls.refuse(None)
                await self._calls.need_leader(context)
            return self._own.submit(data)

    async def answer(self, future: "asyncio.Future[Any]") -> Any:
        """etcd's response message to what :meth:`submit` has handed on, its header filled.

        Raises StatusError. Neither a time-out nor the caller's end takes anything back: the future goes on.
        """
        async with self._calls.in_etcds_words():
            result = await asyncio.shield(future)
        response = result_to_pb(result)
        if isinstance(response, KvError):
            raise refused(response)
        self._calls.headers.fill(response.header)
        return response

    async def execute(self, command: Command, context: Context) -> Any:
        """Waits for a leader, hands a command on and gives etcd's response message. Raises StatusError."""
        return await self.answer(await self.submit(command, context))

    # ---- reads ----------------------------------------------------------------------------------------------

    async def read_index(self, context: Context) -> None:
        """Returns once the local state is as new as the moment of the call. Raises StatusError."""
        self._calls.refuse(None)
        await self._calls.read_index(context)

    @property
    def headers(self) -> Headers:
        """Makes headers of responses."""
        return self._calls.headers

    @property
    def revision(self) -> int:
        """Of the local state."""
        return self._machine.revision

    def look(self, request: Range) -> tuple[KeyValue, ...]:
        """What the local state holds, as it is. Raises StatusError."""
        result = self._machine.execute_query(request)
        if isinstance(result, KvError):
            raise refused(result)
        if not isinstance(result, RangeResult):
            raise InvariantViolation(f"a range was answered with a {type(result).__name__}")
        return result.kvs

    def get(self, key: bytes) -> KeyValue | None:
        """The newest version of a key in the local state."""
        found = self.look(Range(key))
        return found[0] if found else None


def refused(error: KvError) -> StatusError:
    """The status of what the store refuses."""
    return StatusError(grpc.StatusCode.UNKNOWN, error.message)


def prefix_end(prefix: bytes) -> bytes:
    """The range_end that, with ``prefix`` as the key, makes a range of everything that begins with it."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes((stripped[-1] + 1,)) if stripped else b"\0"


def first_created(prefix: bytes) -> Range:
    """Asks for the oldest key that begins with ``prefix``."""
    return Range(
        prefix, prefix_end(prefix), limit=1, sort_order=SortOrder.ASCEND, sort_target=SortTarget.CREATE
    )
