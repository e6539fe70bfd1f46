"""Exactly once: which commands of which session have been executed, and with what results.

:class:`SessionMachine` stands between the log and a user's state machine. The log may hold a command several times
(its client, or the server its client is attached to, sent it again because no answer came), and each of these
frames may be cut differently. Here each command takes effect at its first standing only, and every later one gets the
first result. All of this is replicated state: a function of the log alone, the same on every server, and one with
the user's state and the applied slot, in one snapshot (rule 7).

**Sessions.** A Register makes one. Its number is ``slot << 16 | index of the frame in its slot``, so no two
registrations give the same one. It lives until an Expire that names its last executed command; an Expire that names
an older one is void. Whoever proposes Expire watches the clients; there is no clock here.

**Commands.** Each session has a ``next_seq``. Of a frame, the commands below it are duplicates, those from it on
are executed in order, and a frame that *starts* above it is a gap: nothing is executed and every server answers
alike with the ``next_seq`` expected. So commands take effect in the order of their numbers, whatever was lost.

A frame without commands is answered likewise: with a gap where it names a sequence number above ``next_seq``. So a
server can ask whether all that it has sent for a session has come into the log, without sending it again.

**Results** of ``received_below <= seq < next_seq`` are kept, as the machine gave them. Every frame says up to where
its client has received them (also one that is then refused), and those are forgotten; a duplicate of a forgotten
command is not executed and owes no answer. What bounds the rest is the client's own limit on commands in flight, since
it sends nothing more before it has received something. A client that breaks this meets ``session_results_max``: a
frame that would leave more results than that is answered Overloaded, and nothing of it is executed. The limit counts
results, not bytes: a machine should keep its results small, and answer what is large by query. It is a constant
of the replicated state, not a setting: servers that disagree on it would diverge.

**Positions.** ``Position.index`` counts every command in the well-formed frames of the slot, executed or not: it says
where a command stands in the log, and does not depend on the state of sessions.

**Failure.** An exception out of the user's ``apply`` would happen on every server alike. It becomes MachineFailed, the
slot counts as not applied, and this object refuses all further work: half a slot must reach neither a reader nor a
snapshot.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from struct import Struct
from typing import Any

from paxos_rsm.errors import InvariantViolation, MachineFailed
from paxos_rsm.machines.base import BatchStateMachine, Position, StateMachine, TimedStateMachine, Timer
from paxos_rsm.machines.frames import (
    BadFrame,
    Ended,
    Executed,
    Expired,
    Frame,
    FrameDecoder,
    FrameOutcome,
    Gap,
    Overloaded,
    Refused,
    Registered,
    TimedOut,
)
from paxos_rsm.machines.slices import SliceReader, sealed

__all__ = ["SESSION_RESULTS_MAX", "SessionInfo", "SessionMachine", "registration_slot"]

SESSION_RESULTS_MAX = 65_536
"""Results that one session may leave unreceived. A client keeps fewer commands than this in flight."""

FRAME_INDEX_BITS = 16
FRAME_INDEX_MAX = (1 << FRAME_INDEX_BITS) - 1

# The snapshot: MAGIC, HEADER, then for each session SESSION and each of its results after its LENGTH; then each slice
# of the machine's own snapshot after its LENGTH, and a LENGTH of END. Sealed (see slices.py).
MAGIC = b"paxos_rsm sessions 1\n"
HEADER = Struct(">QQQ")  # applied slot, session_results_max, sessions
SESSION = Struct(">QQQQII")  # number, next_seq, received_below, last active slot, timeout_ms, results
LENGTH = Struct(">I")
END = 0xFFFF_FFFF

SLOT_MAX = 1 << 47
SEQ_MAX = (1 << 63) - 1
"""Of a snapshot that is believed: no log and no client gets there, and what comes after still fits its field."""


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What is known of one session: enough to propose its Expire."""

    session: int
    last_seq: int
    """The last command executed; 0 before the first."""
    received_below: int
    timeout_ms: int
    last_active_slot: int
    """The last slot that held a frame of this session."""


class _Session:
    __slots__ = ("last_active_slot", "next_seq", "received_below", "results", "timeout_ms")

    def __init__(self, timeout_ms: int, slot: int) -> None:
        self.timeout_ms = timeout_ms
        self.last_active_slot = slot
        self.next_seq = 1
        self.received_below = 1
        # Invariant: one for each seq with received_below <= seq < next_seq.
        self.results: list[Any] = []


class SessionMachine:
    """A state machine, fed slot by slot, that executes each command of each session once. Not thread-safe."""

    def __init__(
        self, machine: StateMachine, decoder: FrameDecoder, *, session_results_max: int = SESSION_RESULTS_MAX
    ) -> None:
        self._machine = machine
        self._decode = decoder.decode
        self._results_max = session_results_max
        self._sessions: dict[int, _Session] = {}
        self._applied_slot = 0
        self._failure = ""
        self._apply_batch: Callable[[Sequence[bytes], Position], list[Any]]
        self._encode: Callable[[Any], bytes] | None = None
        if isinstance(machine, BatchStateMachine):
            self._apply_batch = machine.apply_batch
            self._encode = machine.encode_result
        else:
            self._apply_batch = self._apply_each
        self._timed = machine if isinstance(machine, TimedStateMachine) else None

    @property
    def applied_slot(self) -> int:
        """The last slot applied; 0 before the first."""
        return self._applied_slot

    @property
    def session_count(self) -> int:
        """Sessions that are alive."""
        return len(self._sessions)

    def sessions(self) -> list[SessionInfo]:
        """Every session that is alive, oldest first."""
        return [self._info(number, session) for number, session in self._sessions.items()]

    def session(self, number: int) -> SessionInfo | None:
        """One session, or None where it is unknown or has ended."""
        session = self._sessions.get(number)
        return self._info(number, session) if session is not None else None

    def kept_results(self, number: int) -> Executed | None:
        """Every result that a session has not acknowledged, as if its frames had just been applied.

        For a server that restored a snapshot: commands of the sessions attached to it may have been executed in slots
        that it never applied itself. None where the session is unknown or has ended.
        """
        session = self._sessions.get(number)
        if session is None:
            return None
        received_below = session.received_below
        return Executed(number, received_below, list(session.results), session.next_seq, received_below)

    def apply_slot(self, slot: int, frames: Iterable[bytes]) -> list[FrameOutcome]:
        """Applies what one slot holds (nothing, for a no-op or a configuration): an outcome for each frame.

        Raises InvariantViolation where ``slot`` is not the one after the last, MachineFailed where the user's machine
        raised (now or before).
        """
        self._require_sound()
        if slot != self._applied_slot + 1:
            raise InvariantViolation(
                f"slot {slot} was to be applied after slot {self._applied_slot}: every slot is applied once, in order. "
                "This is a bug in paxos_rsm; stop this server and keep its data directory"
            )
        # Stands until the slot is applied whole: any exception on the way leaves half a slot in the state.
        self._failure = f"slot {slot} was applied in part only"
        outcomes: list[FrameOutcome] = []
        index = 0
        for frame_index, data in enumerate(frames):
            frame = self._decode(data)
            if isinstance(frame, BadFrame):
                outcomes.append(Refused(frame.reason))
                continue
            if frame.register is None and frame.expire is None and not frame.timeouts:
                outcomes.append(self._execute(frame, slot, index))
            else:
                outcomes.append(self._govern(frame, slot, frame_index, index))
            index += len(frame.commands)
        self._applied_slot = slot
        self._failure = ""
        return outcomes

    def query(self, request: bytes) -> bytes:
        """Asks the user's machine; what it raises comes through. MachineFailed where it has failed before."""
        self._require_sound()
        return self._machine.query(request)

    def encode_result(self, result: Any) -> bytes:
        """The bytes of one result of an outcome."""
        # A result that was kept in a snapshot is bytes already.
        if self._encode is None or type(result) is bytes:
            return bytes(result)
        return self._encode(result)

    def encode_results(self, results: Sequence[Any]) -> list[bytes]:
        """The bytes of every result of an outcome, in order."""
        encode = self._encode
        if encode is None:
            return list(results)
        return [result if type(result) is bytes else encode(result) for result in results]

    # ---- commands and sessions ---------------------------------------------------------------------------

    def _execute(self, frame: Frame, slot: int, index: int) -> FrameOutcome:
        session = self._sessions.get(frame.session)
        first_seq = frame.first_seq
        if session is None:
            return Expired(frame.session, first_seq)
        session.last_active_slot = slot
        next_seq = session.next_seq
        if frame.received_below > session.received_below:
            received_below = min(frame.received_below, next_seq)
            del session.results[: received_below - session.received_below]
            session.received_below = received_below
        commands = frame.commands
        if first_seq > next_seq:
            return Gap(frame.session, first_seq, next_seq)
        if not commands:
            return Executed(frame.session, next_seq, (), next_seq, session.received_below)
        if first_seq < 1:
            return Refused("sequence numbers start at 1")
        end_seq = first_seq + len(commands)
        results: list[Any] = []
        if end_seq > next_seq:
            if end_seq - session.received_below > self._results_max:
                return Overloaded(frame.session, first_seq, next_seq)
            known = next_seq - first_seq
            results = self._run(commands[known:] if known else commands, Position(slot, index + known))
            session.results += results
            session.next_seq = end_seq
        if first_seq < next_seq:
            first_seq = max(first_seq, session.received_below)
            start = first_seq - session.received_below
            results = session.results[start : max(start, end_seq - session.received_below)]
        return Executed(frame.session, first_seq, results, session.next_seq, session.received_below)

    def _govern(self, frame: Frame, slot: int, frame_index: int, index: int) -> FrameOutcome:
        register, expire = frame.register, frame.expire
        if sum((bool(frame.commands), register is not None, expire is not None, bool(frame.timeouts))) > 1:
            return Refused("a frame holds commands, or Register, or Expire, or time-outs, and no two of them")
        if frame.timeouts:
            return self._time_out(frame, Position(slot, index))
        if register is not None:
            if frame_index > FRAME_INDEX_MAX:
                return Refused(
                    f"a session is registered by one of the first {FRAME_INDEX_MAX + 1} frames of a slot"
                )
            number = slot << FRAME_INDEX_BITS | frame_index
            self._sessions[number] = _Session(register.timeout_ms, slot)
            return Registered(number, register.nonce, register.timeout_ms)
        if expire is None:
            raise InvariantViolation("a frame without Register and Expire is executed: a bug in paxos_rsm")
        session = self._sessions.get(expire.session)
        void = session is None or session.next_seq - 1 != expire.last_seq
        if not void:
            del self._sessions[expire.session]
        return Ended(expire.session, expire.last_seq, void)

    def _time_out(self, frame: Frame, at: Position) -> FrameOutcome:
        if self._timed is None:
            return Refused("the state machine has no timers")
        try:
            self._timed.time_out(frame.timeouts, at)
        except Exception as error:
            what = f"raised {type(error).__name__}: {error} out of time_out, before that command"
            raise self._failed(at, 1, what) from error
        return TimedOut(len(frame.timeouts))

    def take_timers(self) -> Sequence[Timer]:
        """The timers that the user's machine has armed since the last call; none where it has no timers."""
        return self._timed.take_timers() if self._timed is not None else ()

    def is_armed(self, timer: int) -> bool:
        """Whether the user's machine has such a timer, and it runs."""
        return self._timed is not None and self._timed.is_armed(timer)

    def _run(self, commands: Sequence[bytes], at: Position) -> list[Any]:
        try:
            results = self._apply_batch(commands, at)
        except MachineFailed as failed:
            self._failure = str(failed)
            raise
        except Exception as error:
            raise self._failed(at, len(commands), f"raised {type(error).__name__}: {error}") from error
        if len(results) != len(commands):
            raise self._failed(at, len(commands), f"gave {len(results)} results for {len(commands)} commands")
        return results

    def _apply_each(self, commands: Sequence[bytes], at: Position) -> list[Any]:
        """What ``apply_batch`` does for a machine that does not offer it."""
        apply, slot = self._machine.apply, at.slot
        results = []
        for index, command in enumerate(commands, at.index):
            try:
                result = apply(command, Position(slot, index))
            except Exception as error:
                here = Position(slot, index)
                raise self._failed(here, 1, f"raised {type(error).__name__}: {error}") from error
            if type(result) is not bytes:
                here = Position(slot, index)
                raise self._failed(here, 1, f"gave {type(result).__name__} where bytes are due")
            results.append(result)
        return results

    def _failed(self, at: Position, count: int, what: str) -> MachineFailed:
        which = (
            f"command {at.index}" if count == 1 else f"one of commands {at.index} to {at.index + count - 1}"
        )
        self._failure = (
            f"the state machine {self._name()} failed at slot {at.slot}, {which} of that slot: it {what}. Every server "
            "fails here alike, and a command is never skipped: mend the class so that it answers bad input instead of "
            "raising, install it on every server, and start them again"
        )
        return MachineFailed(self._failure)

    def _require_sound(self) -> None:
        if self._failure:
            raise MachineFailed(self._failure)

    def _name(self) -> str:
        return f"{type(self._machine).__module__}.{type(self._machine).__qualname__}"

    @staticmethod
    def _info(number: int, session: _Session) -> SessionInfo:
        return SessionInfo(
            number,
            session.next_seq - 1,
            session.received_below,
            session.timeout_ms,
            session.last_active_slot,
        )

    # ---- snapshots ---------------------------------------------------------------------------------------

    def snapshot(self) -> Iterator[bytes]:
        """Sessions, the user's state and the applied slot, as of this call, in slices.

        The call itself costs a shallow copy of the table of sessions and what the machine's own ``snapshot`` costs;
        results are encoded as the slices are taken. Raises MachineFailed where the machine has failed before.
        """
        self._require_sound()
        view = [
            (_packed(number, session), list(session.results)) for number, session in self._sessions.items()
        ]
        header = MAGIC + HEADER.pack(self._applied_slot, self._results_max, len(view))
        slices = self._machine.snapshot()
        if inspect.isgeneratorfunction(self._machine.snapshot):
            # Nothing of it has run yet, and later applies would show in what it gives.
            slices = list(slices)
        return sealed(self._pieces(header, view, slices))

    def _pieces(
        self, header: bytes, view: list[tuple[bytes, list[Any]]], slices: Iterable[bytes]
    ) -> Iterator[bytes]:
        yield header
        for packed, results in view:
            yield packed
            for result in self.encode_results(results):
                yield LENGTH.pack(len(result))
                yield result
        for each in slices:
            if len(each) >= END:
                raise MachineFailed(
                    f"a snapshot slice of {self._name()} has {len(each)} bytes: give slices of at most some megabytes"
                )
            yield LENGTH.pack(len(each))
            yield each
        yield LENGTH.pack(END)

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Replaces everything by what :meth:`snapshot` gave; how ``chunks`` are cut does not matter.

        Raises MachineFailed where they are damaged or of another kind, InvariantViolation where they are older than the
        state (rule 7). After an error past the first bytes the user's machine may hold half a state: this
        object then refuses all further work.
        """
        reader = SliceReader(chunks, "the sessions and the state machine")
        reader.expect(MAGIC, "it is not one of this version of paxos_rsm")
        applied_slot, results_max, count = HEADER.unpack(reader.read(HEADER.size))
        if applied_slot < self._applied_slot:
            raise InvariantViolation(
                f"a snapshot of slot {applied_slot} was to replace the state of slot {self._applied_slot}: "
                "slots are never taken back. This is a bug in paxos_rsm"
            )
        if results_max != self._results_max:
            raise reader.damaged(
                f"it was made with session_results_max {results_max} and this server has {self._results_max}"
            )
        if applied_slot > SLOT_MAX:
            raise reader.damaged(f"it is of slot {applied_slot}, which no log reaches")
        sessions: dict[int, _Session] = {}
        for _ in range(count):
            number, session = self._read_session(reader)
            registered_slot = number >> FRAME_INDEX_BITS
            if number in sessions or not 1 <= registered_slot <= session.last_active_slot <= applied_slot:
                raise reader.damaged(f"session {number} cannot stand in a snapshot of slot {applied_slot}")
            sessions[number] = session
        self._failure = (
            "a snapshot was restored in part only; restore one whole, or start with an empty machine"
        )
        self._restore_machine(reader)
        self._sessions = sessions
        self._applied_slot = applied_slot
        self._failure = ""

    @staticmethod
    def _read_session(reader: SliceReader) -> tuple[int, _Session]:
        number, next_seq, received_below, slot, timeout_ms, kept = SESSION.unpack(reader.read(SESSION.size))
        if not 1 <= received_below <= next_seq <= SEQ_MAX or next_seq - received_below != kept:
            raise reader.damaged(f"session {number} does not hold the results that it says")
        session = _Session(timeout_ms, slot)
        session.next_seq = next_seq
        session.received_below = received_below
        session.results = [reader.read(LENGTH.unpack(reader.read(4))[0]) for _ in range(kept)]
        return number, session

    def _restore_machine(self, reader: SliceReader) -> None:
        slices = self._machine_slices(reader)
        try:
            self._machine.restore(slices)
        except MachineFailed:
            raise
        except Exception as error:
            raise reader.damaged(f"{self._name()}.restore raised {type(error).__name__}: {error}") from error
        # What the machine did not want is still part of the stream that is checked.
        for _ in slices:
            pass
        reader.finish()

    @staticmethod
    def _machine_slices(reader: SliceReader) -> Iterator[bytes]:
        while (length := LENGTH.unpack(reader.read(4))[0]) != END:
            yield reader.read(length)

    def digest(self) -> bytes:
        """A hash of 16 bytes over the applied slot, the sessions with their results, and the user's state."""
        self._require_sound()
        digest = blake2b(digest_size=16)
        digest.update(HEADER.pack(self._applied_slot, self._results_max, len(self._sessions)))
        for number, session in self._sessions.items():
            digest.update(_packed(number, session))
            for result in self.encode_results(session.results):
                digest.update(LENGTH.pack(len(result)))
                digest.update(result)
        digest.update(self._machine.digest())
        return digest.digest()


def registration_slot(session: int) -> int:
    """The slot that registered the session of this number."""
    return session >> FRAME_INDEX_BITS


def _packed(number: int, session: _Session) -> bytes:
    return SESSION.pack(
        number,
        session.next_seq,
        session.received_below,
        session.last_active_slot,
        session.timeout_ms,
        len(session.results),
    )
