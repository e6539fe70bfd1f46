"""The sessions of the server itself: the place of unary calls in the log.

A unary call brings no session, so the server lends it one of its own, and the call is executed at most once, across
any change of leader. Its outcome is unknown only where this server dies before it could answer, or where the
cluster has expired the session meanwhile.

``submit(command)`` gives a future. The commands of one turn of the event loop are joined into one frame, which goes
to the session with the fewest commands in flight::

    turn 1:  put a, put b, put c   ->  frame (session 3: seq 7, 8, 9)
    turn 2:  put d                 ->  frame (session 5: seq 4)

There are several sessions, so that a frame which is lost and sent again holds up the calls of its own session, not
every caller. A caller that goes away leaves its sequence number behind: its command has been handed on, and
without it the session would have a gap.

A session in which a frame was refused after it had been handed on, or which has expired, is given up: what is
still in flight there is answered when the log answers it (or is told that its outcome is unknown), and a new
session takes its place.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any

from paxos_rsm.codec.frames import commands_frame
from paxos_rsm.errors import PaxosRsmError, ResourceExhausted, Unavailable, UnknownOutcome
from paxos_rsm.replica.api import ReplicaHandle, SessionHandle

__all__ = ["SESSION_COUNT", "OwnSessions"]

SESSION_COUNT = 8
"""Few enough to cost nothing in the log, enough that one gap holds up an eighth of the callers."""

RETRY_S = 0.25
"""Pause before another session is asked for, after one was refused."""

COMMAND_OVERHEAD_BYTES = 6
"""Of a command in a frame: its tag and its length."""
FRAME_HEAD_BYTES = 64
"""Of a frame without its commands, at most."""

log = logging.getLogger(__name__)

Call = tuple[bytes, "asyncio.Future[Any]"]


class OwnSessions:
    """Lends the server's sessions to commands that come without one. One event loop, no locks."""

    def __init__(
        self,
        replica: ReplicaHandle,
        *,
        frame_bytes_max: int,
        in_flight_max: int,
        session_count: int = SESSION_COUNT,
    ) -> None:
        self._replica = replica
        self._frame_bytes_max = frame_bytes_max
        self._in_flight_max = in_flight_max
        self._session_count = session_count
        self._sessions: list[_OwnSession] = []
        self._retired: set[_OwnSession] = set()
        self._waiting: deque[Call] = deque()
        self._in_flight = 0
        self._flushing = False
        self._started = False
        self._closed = False
        self._retry: asyncio.TimerHandle | None = None
        self._idle: asyncio.Event = asyncio.Event()
        self._idle.set()
        replica.watch_leader(self._leader_changed)

    @property
    def in_flight(self) -> int:
        """Commands that have no result yet."""
        return self._in_flight

    def submit(self, command: bytes) -> "asyncio.Future[Any]":
        """The result of ``command``, as the state machine gave it.

        Raises ResourceExhausted and Unavailable where nothing was handed on. The future fails with one of these (not
        executed), InvalidArgument, or UnknownOutcome. Cancelling it takes nothing back.
        """
        if self._closed:
            raise Unavailable("this server is stopping; use another one")
        if self._in_flight >= self._in_flight_max:
            raise ResourceExhausted(f"{self._in_flight} unary requests are in flight at this server already")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, future))
        self._in_flight += 1
        self._idle.clear()
        self._flush_soon()
        return future

    async def drain(self, grace_s: float) -> None:
        """Takes no more, and gives what is in flight ``grace_s`` seconds to be answered."""
        self._closed = True
        if not self._in_flight:
            return
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            log.warning("stopping with unary requests in flight", extra={"in_flight": self._in_flight})

    def close(self) -> None:
        """Detaches every session; what has no answer yet is told so."""
        self._closed = True
        if self._retry is not None:
            self._retry.cancel()
        self._refuse_waiting(Unavailable("this server is stopping; use another one"))
        for session in [*self._sessions, *self._retired]:
            session.fail(UnknownOutcome("this server stopped before the command was answered"))
            session.close()
        self._sessions.clear()
        self._retired.clear()

    # ---- sessions ------------------------------------------------------------------------------------------

    def _leader_changed(self, has_leader: bool) -> None:
        if has_leader and not self._started:
            # Not before: without a leader there is nobody who could register them.
            self._started = True
            self._fill()

    def _fill(self) -> None:
        """Asks for as many sessions as are missing."""
        self._retry = None
        try:
            while len(self._sessions) < self._session_count and not self._closed:
                session = _OwnSession(self)
                session.handle = self._replica.attach(session)
                self._sessions.append(session)
        except PaxosRsmError as error:
            log.warning("cannot register a session of this server yet", extra={"error": error})
            self._fill_later()

    def _fill_later(self) -> None:
        if self._retry is None and not self._closed:
            self._retry = asyncio.get_running_loop().call_later(RETRY_S, self._fill)

    def replace(self, session: "_OwnSession") -> None:
        """Takes ``session`` out of use; it stays attached while commands are in flight there."""
        if session in self._sessions:
            self._sessions.remove(session)
            self._retired.add(session)
            self._fill_later()
        self.forget_if_idle(session)

    def forget_if_idle(self, session: "_OwnSession") -> None:
        """Detaches a session that is out of use and waits for nothing."""
        if session in self._retired and not session.waiting:
            self._retired.discard(session)
            session.close()

    # ---- commands ------------------------------------------------------------------------------------------

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Sends what waits, cut into frames, each to the session with the fewest commands in flight."""
        self._flushing = False
        while self._waiting:
            open_sessions = [each for each in self._sessions if each.number]
            if not open_sessions:
                return  # the first session that opens calls again
            calls = self._next_frame()
            if calls:
                min(open_sessions, key=_OwnSession.in_flight).send(calls)

    def _next_frame(self) -> list[Call]:
        """What waits, as far as it fits into one frame; one command always does."""
        calls: list[Call] = []
        size_bytes = FRAME_HEAD_BYTES
        while self._waiting:
            command, future = self._waiting[0]
            size_bytes += len(command) + COMMAND_OVERHEAD_BYTES
            if calls and size_bytes > self._frame_bytes_max:
                break
            self._waiting.popleft()
            if future.done():
                self.answered(1)  # its caller left before it was handed on: there is nothing to execute
            else:
                calls.append((command, future))
        return calls

    def _refuse_waiting(self, error: PaxosRsmError) -> None:
        while self._waiting:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)
            self.answered(1)

    def answered(self, count: int) -> None:
        """``count`` commands are not in flight any more."""
        self._in_flight -= count
        if not self._in_flight:
            self._idle.set()


class _OwnSession:
    """One session of the server; the sink of its results."""

    def __init__(self, owner: OwnSessions) -> None:
        self.number = 0
        self.handle: SessionHandle | None = None
        self.waiting: dict[int, asyncio.Future[Any]] = {}
        self._owner = owner
        self._next_seq = 1
        self._received_below = 1

    def send(self, calls: list[Call]) -> None:
        """Hands one frame on; where it is refused, its calls are told so and nothing has happened."""
        first_seq, count, handle = self._next_seq, len(calls), self.handle
        commands = [command for command, _ in calls]
        frame = commands_frame(self.number, first_seq, self._received_below, commands)
        try:
            if handle is None:
                raise Unavailable("this server is stopping; use another one")
            handle.submit(frame, first_seq, count)
        except PaxosRsmError as error:
            for _, future in calls:
                if not future.done():
                    future.set_exception(error)
            self._owner.answered(count)
            return
        self._next_seq += count
        self.waiting.update(
            zip(range(first_seq, first_seq + count), (each for _, each in calls), strict=True)
        )

    def in_flight(self) -> int:
        """Commands that were handed on and have no result."""
        return len(self.waiting)

    def close(self) -> None:
        """Detaches from the replica."""
        handle, self.handle = self.handle, None
        if handle is not None:
            handle.close()

    def fail(self, error: PaxosRsmError) -> None:
        """Tells everybody who waits."""
        waiting, self.waiting = self.waiting, {}
        self._tell(waiting, error)

    # ---- SessionSink ---------------------------------------------------------------------------------------

    def opened(self, session: int, next_seq: int) -> None:
        """See SessionSink."""
        self.number = session
        self._next_seq = max(self._next_seq, next_seq)
        self._owner.flush()

    def results(self, first_seq: int, results: Sequence[Any]) -> None:
        """See SessionSink."""
        answered = 0
        for seq, result in enumerate(results, first_seq):
            future = self.waiting.pop(seq, None)
            if future is not None:
                answered += 1
                if not future.done():
                    future.set_result(result)
        if answered:
            # Commands take effect in order, so there is none below that still waits.
            self._received_below = max(self._received_below, first_seq + len(results))
            self._owner.answered(answered)
            self._owner.forget_if_idle(self)

    def failed(self, first_seq: int, error: PaxosRsmError) -> None:
        """See SessionSink."""
        if first_seq:
            # Refused after all. What follows it in this session has a gap before it, which nobody will fill: none of
            # it will ever be executed either.
            refused = {seq: future for seq, future in self.waiting.items() if seq >= first_seq}
            self.waiting = {seq: future for seq, future in self.waiting.items() if seq < first_seq}
            self._tell(refused, error)
        else:
            reason = f"the session that this server held for the command has ended ({error})"
            self.fail(UnknownOutcome(f"{reason}: whether it was executed cannot be known"))
        self._owner.replace(self)

    def _tell(self, calls: "dict[int, asyncio.Future[Any]]", error: PaxosRsmError) -> None:
        for future in calls.values():
            if not future.done():
                future.set_exception(error)
        self._owner.answered(len(calls))
