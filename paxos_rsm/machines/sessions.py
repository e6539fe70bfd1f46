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

**Running digest.** At every slot that is a multiple of :data:`DIGEST_SLOTS`, what has happened since the last such slot
is hashed into a chain: the sessions, and what the machine says of itself (``CheckedStateMachine``), or where it says
nothing, its results (all of them where they are bytes, else the last one). :meth:`SessionMachine.digests` has the last
of these: servers that differ at one slot have parted between it and the one before. A digest of the whole state costs
as much as a snapshot; this costs next to nothing. The chain is part of the snapshot; it starts afresh now and then, so
that a server whose snapshot does not have it yet can be compared again some time.

**Snapshots** (``session_snapshots.py``) copy a list of the sessions. Each session is copied when it changes for the
first time while a view is open: what was there is kept for the view.

**Failure.** An exception out of the user's ``apply`` would happen on every server alike. It becomes MachineFailed, the
slot counts as not applied, and this object refuses all further work: half a slot must reach neither a reader nor a
snapshot.
"""

import inspect
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from struct import Struct
from typing import Any
from weakref import WeakSet
from zlib import crc32

from paxos_rsm.errors import InvariantViolation, MachineFailed
from paxos_rsm.machines.base import (
    BatchStateMachine,
    CheckedStateMachine,
    Position,
    StateMachine,
    TimedStateMachine,
    Timer,
)
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
from paxos_rsm.machines.session_snapshots import (
    HEADER,
    LENGTH,
    MAGIC,
    MAGIC_1,
    RUNNING,
    SLOT_MAX,
    Session,
    SessionsView,
    machine_slices,
    packed,
    pieces,
    read_session,
)
from paxos_rsm.machines.slices import SliceReader, Slices, sealed

__all__ = ["DIGEST_SLOTS", "SESSION_RESULTS_MAX", "SessionInfo", "SessionMachine", "registration_slot"]

SESSION_RESULTS_MAX = 65_536
"""Results that one session may leave unreceived. A client keeps fewer commands than this in flight."""

FRAME_INDEX_BITS = 16
FRAME_INDEX_MAX = (1 << FRAME_INDEX_BITS) - 1

DIGEST_SLOTS = 64
"""A constant of the replicated state, as are the next two."""
CHAIN_SLOTS = 1 << 16
"""At every slot that is a multiple of this the chain of digests starts afresh."""
DIGESTS_MAX = 256
CHAIN_START = bytes(16)

LINK = Struct(">QQQI")  # slot, sessions, tally, checksum


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


class SessionMachine:
    """A state machine, fed slot by slot, that executes each command of each session once. Not thread-safe."""

    def __init__(
        self,
        machine: StateMachine,
        decoder: FrameDecoder,
        *,
        session_results_max: int = SESSION_RESULTS_MAX,
        digest_slots: int = DIGEST_SLOTS,
    ) -> None:
        self._machine = machine
        self._decode = decoder.decode
        self._results_max = session_results_max
        self._digest_slots = digest_slots
        self._sessions: dict[int, Session] = {}
        self._applied_slot = 0
        self._failure = ""
        self._views: WeakSet[SessionsView] = WeakSet()
        self._views_made = 0
        # The running digest: its chain (None: not known), and what goes into its next link.
        self._chain: bytes | None = CHAIN_START
        self._tally = 0
        self._checksum = 0
        # The last result, where results must be encoded: only the one that stands there at the link is.
        self._sample: list[Any] = []
        self._digests: deque[tuple[int, bytes]] = deque(maxlen=DIGESTS_MAX)
        self._running = machine.running_digest if isinstance(machine, CheckedStateMachine) else None
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
        if not slot % self._digest_slots:
            self._link(slot)
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
        if session.seen != self._views_made:
            self._keep(frame.session, session)
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
            self._tally += len(session.results)
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
            self._sessions[number] = Session(register.timeout_ms, slot, self._views_made)
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
        if self._running is None:
            if self._encode is None:
                self._checksum = crc32(b"".join(results), self._checksum)
            else:
                self._sample = results[-1:]
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
    def _info(number: int, session: Session) -> SessionInfo:
        return SessionInfo(
            number,
            session.next_seq - 1,
            session.received_below,
            session.timeout_ms,
            session.last_active_slot,
        )

    # ---- the running digest ------------------------------------------------------------------------------

    def digests(self) -> Sequence[tuple[int, bytes]]:
        """(slot, digest) at the last slots that have one, oldest first: equal logs, equal digests.

        None after a snapshot that did not have the chain, until it starts afresh; after any other, one.
        """
        return tuple(self._digests)

    def _link(self, slot: int) -> None:
        """Hashes what has happened up to ``slot`` into the chain."""
        said = b""
        if self._running is not None:
            try:
                said = bytes(self._running())
            except Exception as error:
                what = f"raised {type(error).__name__}: {error} out of running_digest, after that command"
                raise self._failed(Position(slot, 0), 1, what) from error
        if not slot % CHAIN_SLOTS:
            self._chain = CHAIN_START
        elif self._chain is not None:
            link = LINK.pack(slot, len(self._sessions), self._tally, self._sampled())
            self._chain = blake2b(self._chain + link + said, digest_size=16).digest()
            self._digests.append((slot, self._chain))
        self._tally = self._checksum = 0
        self._sample = []

    def _sampled(self) -> int:
        return crc32(b"".join(self.encode_results(self._sample))) if self._sample else self._checksum

    # ---- snapshots ---------------------------------------------------------------------------------------

    def snapshot(self) -> Slices:
        """Sessions, the user's state and the applied slot, as of this call, in slices, some of them empty.

        The call itself costs a list of the sessions and what the machine's own ``snapshot`` costs; results are
        encoded as the slices are taken. Raises MachineFailed where the machine has failed before.
        """
        self._require_sound()
        self._views_made += 1
        view = SessionsView(self._views_made, list(self._sessions.items()))
        self._views.add(view)
        known, chain = self._chain is not None, self._chain or CHAIN_START
        header = HEADER.pack(self._applied_slot, self._results_max, len(view.sessions))
        header += RUNNING.pack(known, chain, self._tally, self._sampled())
        slices = self._machine.snapshot()
        if inspect.isgeneratorfunction(self._machine.snapshot):
            # Nothing of it has run yet, and later applies would show in what it gives.
            slices = list(slices)

        def close() -> None:
            view.close()
            if (close_machine := getattr(slices, "close", None)) is not None:
                close_machine()

        return Slices(sealed(pieces(MAGIC + header, view, self.encode_results, slices, self._name())), close)

    def _keep(self, number: int, session: Session) -> None:
        """Keeps what a session is for the views that were taken since it has last changed: it is about to."""
        kept: tuple[bytes, list[Any]] | None = None
        for view in self._views:
            if view.number > session.seen and view.sessions:
                kept = kept or (packed(number, session), list(session.results))
                view.changed[number] = kept
        session.seen = self._views_made

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Replaces everything by what :meth:`snapshot` gave; how ``chunks`` are cut does not matter.

        Raises MachineFailed where they are damaged or of another kind, InvariantViolation where they are older than the
        state (rule 7). After an error past the first bytes the user's machine may hold half a state: this
        object then refuses all further work.
        """
        reader = SliceReader(chunks, "the sessions and the state machine")
        magic = reader.read(len(MAGIC))
        if magic not in (MAGIC, MAGIC_1):
            raise reader.damaged("it is not one of this version of paxos_rsm")
        applied_slot, results_max, count = HEADER.unpack(reader.read(HEADER.size))
        running = (False, CHAIN_START, 0, 0)
        if magic == MAGIC:
            running = RUNNING.unpack(reader.read(RUNNING.size))
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
        sessions: dict[int, Session] = {}
        for _ in range(count):
            number, session = read_session(reader)
            registered_slot = number >> FRAME_INDEX_BITS
            if number in sessions or not 1 <= registered_slot <= session.last_active_slot <= applied_slot:
                raise reader.damaged(f"session {number} cannot stand in a snapshot of slot {applied_slot}")
            # Views that are still open are of other sessions, of these numbers or not.
            session.seen = self._views_made
            sessions[number] = session
        self._failure = (
            "a snapshot was restored in part only; restore one whole, or start with an empty machine"
        )
        self._restore_machine(reader)
        self._sessions = sessions
        self._applied_slot = applied_slot
        is_known, chain, self._tally, self._checksum = running
        self._chain = chain if is_known else None
        self._sample = []
        self._digests.clear()
        linked = applied_slot - applied_slot % self._digest_slots
        if is_known and linked % CHAIN_SLOTS:
            self._digests.append((linked, chain))
        self._failure = ""

    def _restore_machine(self, reader: SliceReader) -> None:
        slices = machine_slices(reader)
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

    def digest(self) -> bytes:
        """A hash of 16 bytes over the applied slot, the sessions with their results, and the user's state."""
        self._require_sound()
        digest = blake2b(digest_size=16)
        digest.update(HEADER.pack(self._applied_slot, self._results_max, len(self._sessions)))
        for number, session in self._sessions.items():
            digest.update(packed(number, session))
            for result in self.encode_results(session.results):
                digest.update(LENGTH.pack(len(result)))
                digest.update(result)
        digest.update(self._machine.digest())
        return digest.digest()


def registration_slot(session: int) -> int:
    """The slot that registered the session of this number."""
    return session >> FRAME_INDEX_BITS
