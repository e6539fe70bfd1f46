"""The commands of one session: queued, numbered, sent, sent again, answered. Exactly once is decided here.

A command is in one of two places::

    pending                        in flight                          done
    |  queued by a caller          |  has a sequence number           |  its caller has the result,
    |  has no number, was never    |  was written to a stream:        |  or was told that there is none
    |  sent: can be taken out      |  may be executed at any time     |

It gets its number at the last moment, when the stream is ready to take the frame that it stands in: numbers
are dense, one that may have reached the log is never taken back (else a gap would hold up all behind it), and a
command without one is certain not to have been executed. So a deadline, or a caller that goes away, takes a
pending command out; one in flight stays, is sent again with the others after a loss, and its result is dropped
when it comes.

**Loss of a stream.** Whatever has no result is sent again under its old number, in order, at whatever server
comes next. The cluster executes a number once and answers with the first result.

**Refusal.** A server may refuse a frame before the log (too much waits there already). It then refuses every
frame behind it, for they would leave a gap. Two cases:

- Commands above all that may be in the log: no frame at or behind them is unanswered, and none was sent on an
  earlier stream (``_logged_below``). They lose their numbers and are pending again, in their old order: their
  deadlines may take them out, and their callers can be told that nothing was executed.
- The others keep their numbers and are sent again from the refused frame on.

**Expiry.** When the cluster has forgotten the session, nobody can tell what became of the commands in flight:
they fail with SessionExpired, and are never sent under another session. Those pending wait for a new one.

Pure: no clock, no socket. ``now`` and deadlines are seconds on whatever clock the caller has.
"""

import math
from asyncio import Future
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from paxos_rsm.client.wire import COMMAND_OVERHEAD_BYTES, FRAME_HEAD_BYTES_MAX, submit_message
from paxos_rsm.errors import ClientError, InvalidArgument, UnknownOutcome

__all__ = ["IN_FLIGHT_BYTES_MAX", "Command", "Window"]

IN_FLIGHT_BYTES_MAX = 16 * 1024 * 1024
"""Commands that are sent and not answered have at most so many bytes together; one alone may have more."""

FRAME_COMMANDS_MAX = 256
PENDING_SWEEP_MIN = 1024


class Command:
    """A command and who waits for its result."""

    __slots__ = ("data", "deadline", "future")

    def __init__(self, data: bytes, deadline: float, future: "Future[bytes]") -> None:
        self.data = data
        self.deadline = deadline
        self.future = future


class _Sent(NamedTuple):
    """A frame that was written to the stream of now and has been neither answered nor refused."""

    first_seq: int
    end_seq: int
    """Of the command behind the last."""


class Window:
    """What is pending and what is in flight, in one session after the other.

    Invariants: ``in_flight`` is in the order of its numbers, all of them within ``received_below <= seq <
    next_seq``; ``received_below`` is the lowest of them, or ``next_seq``; ``_cursor`` is the next to be
    written to the stream.
    """

    def __init__(
        self,
        *,
        in_flight_max: int,
        in_flight_bytes_max: int = IN_FLIGHT_BYTES_MAX,
        frame_commands_max: int = FRAME_COMMANDS_MAX,
    ) -> None:
        self.session = 0
        self.next_seq = 1
        self.received_below = 1
        self.frame_bytes_max = 0
        self.pending: deque[Command] = deque()
        self.in_flight: dict[int, Command] = {}
        self._in_flight_max = in_flight_max
        self._in_flight_bytes_max = in_flight_bytes_max
        self._in_flight_bytes = 0
        self._frame_commands_max = frame_commands_max
        self._cursor = 1
        self._logged_below = 1
        self._sent: deque[_Sent] = deque()
        self._sweep_at = PENDING_SWEEP_MIN

    # ---- what waits --------------------------------------------------------------------------------------

    def add(self, command: Command) -> None:
        """Queues a command behind all others."""
        self.pending.append(command)
        if len(self.pending) > self._sweep_at:
            # Callers that went away must not pile up while nothing can be sent.
            self.pending = deque(each for each in self.pending if not each.future.done())
            self._sweep_at = 2 * len(self.pending) + PENDING_SWEEP_MIN

    @property
    def has_commands(self) -> bool:
        """Whether there is anything to submit, first of all or again."""
        return bool(self.pending or self.in_flight)

    @property
    def has_callers(self) -> bool:
        """Whether somebody still waits for a command. Looks at every one: not for the hot path."""
        return not all(each.future.done() for each in self._all())

    @property
    def awaits_results(self) -> bool:
        """Whether a frame is out on the stream of now that has been neither answered nor refused."""
        return bool(self._sent)

    def _all(self) -> Iterable[Command]:
        yield from self.in_flight.values()
        yield from self.pending

    # ---- to the server -----------------------------------------------------------------------------------

    def next_message(self) -> bytes | None:
        """The next frame, as a serialized ClientMessage; None where there is nothing that may be sent now.

        From here on its commands count as sent. One too large for any frame fails with InvalidArgument,
        unnumbered.
        """
        if not self.session:
            return None
        commands = self._again() if self._cursor < self.next_seq else self._number()
        if not commands:
            return None
        first_seq = self._cursor
        self._cursor += len(commands)
        self._sent.append(_Sent(first_seq, self._cursor))
        return submit_message(self.session, first_seq, self.received_below, commands)

    def _again(self) -> list[bytes]:
        """Moves the cursor to the next command in flight; gives it, and those that follow without a hole."""
        in_flight, seq = self.in_flight, self._cursor
        while seq < self.next_seq and seq not in in_flight:
            seq += 1  # answered out of turn, by an older frame
        if seq == self.next_seq:
            self._cursor = seq
            return self._number()
        self._cursor = seq
        commands: list[bytes] = []
        room = self.frame_bytes_max - FRAME_HEAD_BYTES_MAX
        while seq in in_flight and len(commands) < self._frame_commands_max:
            data = in_flight[seq].data
            room -= len(data) + COMMAND_OVERHEAD_BYTES
            if room < 0 and commands:
                break
            commands.append(data)
            seq += 1
        return commands

    def _number(self) -> list[bytes]:
        """Gives numbers to the commands of the next frame."""
        pending, in_flight = self.pending, self.in_flight
        frame_room = room = self.frame_bytes_max - FRAME_HEAD_BYTES_MAX
        window_room = self._in_flight_bytes_max - self._in_flight_bytes
        seq = self.next_seq
        seq_end = min(seq + self._frame_commands_max, self.received_below + self._in_flight_max)
        commands: list[bytes] = []
        while pending and seq < seq_end:
            command = pending[0]
            if command.future.done():
                pending.popleft()
                continue
            data = command.data
            size = len(data) + COMMAND_OVERHEAD_BYTES
            if size > frame_room:
                pending.popleft()
                command.future.set_exception(self._too_large(len(data)))
                continue
            if size > room or (len(data) > window_room and in_flight):
                break
            pending.popleft()
            in_flight[seq] = command
            commands.append(data)
            room -= size
            window_room -= len(data)
            seq += 1
        self.next_seq = seq
        self._in_flight_bytes = self._in_flight_bytes_max - window_room
        return commands

    def _too_large(self, size_bytes: int) -> InvalidArgument:
        most = self.frame_bytes_max - FRAME_HEAD_BYTES_MAX - COMMAND_OVERHEAD_BYTES
        return InvalidArgument(
            f"a command of {size_bytes} bytes was not sent: the server takes at most {most} bytes; "
            "store less under one key, or raise the server's --max-request-bytes"
        )

    # ---- from the server ---------------------------------------------------------------------------------

    def opened(self, session: int, next_seq: int, frame_bytes_max: int) -> None:
        """The session is open on a new stream: with the first frame, everything in flight is sent again.

        Raises UnknownOutcome where the server has executed numbers that this client never gave: the session
        is not this client's alone, and nothing that it says about commands can be trusted.
        """
        if self.session and session != self.session:
            raise UnknownOutcome(
                f"session {self.session} was to be opened, and the server opened session {session}. "
                "What was in flight may or may not have been executed"
            )
        if self.session and next_seq > self.next_seq:
            raise UnknownOutcome(
                f"session {session} has executed commands up to {next_seq - 1}, and this client has numbered only "
                f"{self.next_seq - 1}: somebody else uses it. What was in flight may or may not have been executed"
            )
        self.session = session
        self.frame_bytes_max = frame_bytes_max

    def results(self, first_seq: int, results: Iterable[bytes]) -> bool:
        """Hands out results of ``first_seq, first_seq + 1, ...``; says whether one of them was new."""
        in_flight = self.in_flight
        before = len(in_flight)
        seq = first_seq
        size = 0
        for result in results:
            command = in_flight.pop(seq, None)
            seq += 1
            # None: answered before, by another server or as part of another frame.
            if command is not None:
                size += len(command.data)
                if not command.future.done():
                    command.future.set_result(result)
        self._in_flight_bytes -= size
        received_below, next_seq = self.received_below, self.next_seq
        while received_below < next_seq and received_below not in in_flight:
            received_below += 1
        self.received_below = received_below
        sent = self._sent
        while sent and sent[0].end_seq <= received_below:
            sent.popleft()
        return len(in_flight) < before

    def refused(self, first_seq: int, error: ClientError | None) -> bool:
        """The frame at ``first_seq`` was refused before the log.

        ``error`` None: it may be sent again. Otherwise it would be refused for ever, and its commands fail
        with it; where that cannot be because they may be in the log already, this returns False: the session
        is at its end.
        """
        refused = next((each for each in self._sent if each.first_seq == first_seq), None)
        if refused is None:
            return True  # answered meanwhile, by an earlier frame with the same commands
        self._sent.remove(refused)
        self._cursor = min(self._cursor, max(first_seq, self.received_below))
        if error is not None:
            if first_seq < self._logged_below:
                return False
            for seq in range(first_seq, refused.end_seq):
                command = self.in_flight.get(seq)
                if command is not None and not command.future.done():
                    command.future.set_exception(type(error)(str(error)))
        self._take_back()
        return True

    def _take_back(self) -> None:
        """What was refused wherever it was sent is neither in the log nor on its way there: it is pending again."""
        may_be_logged = (each.end_seq for each in self._sent)
        first_seq = max(self._logged_below, self.received_below, *may_be_logged)
        numbers = range(self.next_seq - 1, first_seq - 1, -1)
        if not all(seq in self.in_flight for seq in numbers):
            return  # one of them was answered: whoever refused the frame was wrong, so they keep their numbers
        for seq in numbers:
            command = self.in_flight.pop(seq)
            self._in_flight_bytes -= len(command.data)
            if not command.future.done():
                self.pending.appendleft(command)
        self.next_seq = first_seq
        self._cursor = min(self._cursor, first_seq)

    def stream_lost(self) -> None:
        """The stream is gone: what was written to it and not refused may be in the log."""
        for each in self._sent:
            self._logged_below = max(self._logged_below, each.end_seq)
        self._sent.clear()
        self._take_back()
        self._cursor = self.received_below

    # ---- ends --------------------------------------------------------------------------------------------

    def session_lost(self, make_error: Callable[[], ClientError]) -> None:
        """The session has ended: everything in flight fails, and the next session starts from 1."""
        for command in self.in_flight.values():
            if not command.future.done():
                command.future.set_exception(make_error())
        self.in_flight.clear()
        self._sent.clear()
        self._in_flight_bytes = 0
        self.session = 0
        self.next_seq = self.received_below = self._cursor = self._logged_below = 1

    def expire(self, now: float, pending_error: Callable[[], ClientError], situation: str = "") -> float:
        """Fails the commands whose deadline has passed; returns the earliest deadline of the rest, or infinity.

        ``situation``: what is known of the servers, for whoever reads that an outcome is unknown.
        """
        earliest = math.inf
        late = False
        for command in self.pending:
            if command.future.done():
                late = True
            elif command.deadline <= now:
                late = True
                command.future.set_exception(pending_error())
            else:
                earliest = min(earliest, command.deadline)
        if late:
            self.pending = deque(each for each in self.pending if not each.future.done())
        for command in self.in_flight.values():
            if command.future.done():
                continue
            if command.deadline <= now:
                command.future.set_exception(
                    UnknownOutcome(
                        "the deadline passed after the command was sent and before its result came: it may or may not "
                        f"have been executed, and may still be; only reading the state can tell{situation}"
                    )
                )
            else:
                earliest = min(earliest, command.deadline)
        return earliest

    def fail_pending(self, make_error: Callable[[], ClientError]) -> None:
        """Fails every command that was never sent."""
        for command in self.pending:
            if not command.future.done():
                command.future.set_exception(make_error())
        self.pending.clear()
