"""Sessions that are attached to this server: what they have sent, until it is applied here.

A frame is kept from its submission until this server's own state machine has answered all of it. Until then it is
sent again when it was lost: when the leader, or the way to it, is new, and when apply finds a gap. Sending again is
always safe: commands are executed once.

What is sent again is the client's own frame, unchanged. Within a session frames are always sent in the order of their
sequence numbers, so that a gap means that something was lost, never that something was overtaken.

**Time alone sends nothing again.** Whoever repeats what is only late makes it later still: under load each frame would
pass through the log many times. So a session of which nothing has come for a while *asks*: an empty frame, of a few
bytes, that names the end of what was sent. It takes the way that the frames took, behind them, and its answer out of
the log says whether they are there. It is asked ever more seldom, for it may itself be only late; and never so seldom
that the session could expire meanwhile, for it is a sign of life, too.
"""

from collections import deque
from collections.abc import Callable

from paxos_rsm.codec.frames import encode_frame
from paxos_rsm.errors import InvalidArgument, PaxosRsmError, ResourceExhausted, SessionExpired, Unavailable
from paxos_rsm.machines.frames import (
    Executed,
    Expire,
    Expired,
    Frame,
    FrameOutcome,
    Gap,
    Overloaded,
    Register,
    Registered,
)
from paxos_rsm.machines.sessions import registration_slot
from paxos_rsm.replica.api import SessionSink

__all__ = ["LocalSession", "LocalSessions"]

MEND_PATIENCE_TICKS = 8
"""What was sent again is given so long before it counts as lost, too; each further time twice as long."""
DOUBLINGS_MAX = 3
"""Of the patience of a session of which nothing comes: a way that is lossy, and not slow, must not wait for ever."""


class _Pending:
    __slots__ = ("end_seq", "first_seq", "frame")

    def __init__(self, frame: bytes, first_seq: int, end_seq: int) -> None:
        self.frame = frame
        self.first_seq = first_seq
        self.end_seq = end_seq


class LocalSession:
    """One attached session; implements :class:`~paxos_rsm.replica.api.SessionHandle`."""

    def __init__(self, owner: "LocalSessions", sink: SessionSink, session: int, nonce: int) -> None:
        self._owner = owner
        self.sink = sink
        self.session = session
        self.nonce = nonce
        self.pending: deque[_Pending] = deque()
        self.waits_since = 0
        """The last tick at which something came of it, or it asked; where it is not registered yet: at which it did."""
        self.asked = 0
        """How often it has asked since something came of it."""
        self.mended_seq = 0
        """From where it was last sent again; ``mended`` times by now, at the tick ``mended_at``."""
        self.mended = 0
        self.mended_at = 0
        self.active_at = 0
        self.timeout_ms = owner.timeout_ms
        self.last_seq = 0
        """The last command known here to have been executed."""
        self.closed = False

    def submit(self, frame: bytes, first_seq: int, count: int) -> None:
        """See :meth:`paxos_rsm.replica.api.SessionHandle.submit`."""
        self._owner.submit(self, frame, first_seq, count)

    def close(self) -> None:
        """Detaches the sink."""
        self._owner.detach(self)

    def end(self) -> None:
        """Detaches the sink, and ends the session through the log."""
        self._owner.expire(self)


class LocalSessions:
    """All of them. Always holds: ``pending_bytes`` is the size of every frame that is kept, and is bounded."""

    def __init__(
        self, frame_bytes_max: int, pending_bytes_max: int, session_timeout_ms: int, tick_ms: int
    ) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._pending_bytes_max = pending_bytes_max
        self.timeout_ms = session_timeout_ms
        self._tick_ms = tick_ms
        self._by_number: dict[int, LocalSession] = {}
        self._by_nonce: dict[int, LocalSession] = {}
        self.outgoing: list[bytes] = []
        """Frames to be sent towards the leader in this turn, in order."""
        self.pending_bytes = 0
        self.now = 0
        self.stopping = False

    def __len__(self) -> int:
        return len(self._by_number) + len(self._by_nonce)

    # ---- attached and detached -------------------------------------------------------------------------------

    def register(self, sink: SessionSink, nonce: int, timeout_ms: int = 0) -> LocalSession:
        """A new session: registered through the log, under a nonce that finds it again."""
        session = LocalSession(self, sink, 0, nonce)
        session.timeout_ms = timeout_ms or self.timeout_ms
        self._by_nonce[nonce] = session
        self._send_registration(session)
        return session

    def resume(self, sink: SessionSink, number: int) -> LocalSession:
        """A session that exists already. Where it was attached here before, the older sink is told."""
        older = self._by_number.get(number)
        if older is not None:
            self.detach(older)
            older.sink.failed(
                0, Unavailable(f"session {number:x} was opened again on another stream; this one ends")
            )
        session = LocalSession(self, sink, number, 0)
        session.active_at = self.now
        self._by_number[number] = session
        return session

    def detach(self, session: LocalSession) -> None:
        """Keeps nothing of it any more; what was sent may still be executed."""
        session.closed = True
        for pending in session.pending:
            self.pending_bytes -= len(pending.frame)
        session.pending.clear()
        if self._by_number.get(session.session) is session:
            del self._by_number[session.session]
        self._by_nonce.pop(session.nonce, None)

    def fail(self, session: LocalSession, error: PaxosRsmError) -> None:
        """Detaches a session and says why."""
        self.detach(session)
        session.sink.failed(0, error)

    def expire(self, session: LocalSession) -> None:
        """Its client needs it no more. Where anything of it is still on its way, it expires by itself."""
        if session.session and not session.closed and not session.pending:
            self.outgoing.append(encode_frame(Frame(expire=Expire(session.session, session.last_seq))))
        self.detach(session)

    def _send_registration(self, session: LocalSession) -> None:
        session.waits_since = self.now
        self.outgoing.append(encode_frame(Frame(register=Register(session.nonce, session.timeout_ms))))

    # ---- on the way to the log -------------------------------------------------------------------------------

    def submit(self, session: LocalSession, frame: bytes, first_seq: int, count: int) -> None:
        """Keeps a frame and sends it in this turn. Raises InvalidArgument, ResourceExhausted or Unavailable."""
        if session.closed or self.stopping:
            raise Unavailable("this session is not attached here any more; open it again, at any server")
        if len(frame) > self._frame_bytes_max:
            raise InvalidArgument(
                f"a frame of {len(frame)} bytes is larger than the limit of {self._frame_bytes_max}"
            )
        if self.pending_bytes and self.pending_bytes + len(frame) > self._pending_bytes_max:
            raise ResourceExhausted(
                f"{self.pending_bytes} bytes wait at this server for the log, the limit is {self._pending_bytes_max}; "
                "the frame was not taken, send it again after a pause"
            )
        if not session.pending:
            session.waits_since = self.now
        session.pending.append(_Pending(frame, first_seq, first_seq + count))
        self.pending_bytes += len(frame)
        session.active_at = self.now
        self.outgoing.append(frame)

    def resend_all(self) -> None:
        """The leader, or the way to it, is new: everything that is not applied goes out again, in order."""
        self.outgoing.clear()
        for session in list(self._by_number.values()):
            session.asked = session.mended_seq = 0
            self._resend(session)
        for session in self._by_nonce.values():
            session.asked = 0
            self._send_registration(session)

    def _resend(self, session: LocalSession) -> None:
        session.waits_since = self.now
        self.outgoing.extend([pending.frame for pending in session.pending])

    def tick(self, patience_ticks: int, is_queued: bool = False) -> None:
        """Time goes on: asks after what has waited for ``patience_ticks``; keeps idle sessions alive.

        ``is_queued``: all that waits is in this server's own queue, where nothing is lost and a question would only
        stand behind what it asks after.
        """
        self.now += 1
        now = self.now
        for session in list(self._by_number.values()):
            if session.pending and is_queued:
                session.waits_since = now
            elif session.pending:
                # Four signs of life a time-out, as of an idle one.
                quarter = max(1, session.timeout_ms // (4 * self._tick_ms))
                if now - session.waits_since >= min(patience_ticks << session.asked, quarter):
                    session.asked = min(session.asked + 1, DOUBLINGS_MAX)
                    session.waits_since = now
                    self._say(session, session.pending[-1].end_seq)
            elif (now - session.active_at) * self._tick_ms * 4 >= session.timeout_ms:
                session.active_at = now
                self._say(session, 0)
        for session in self._by_nonce.values() if not is_queued else ():
            if now - session.waits_since >= patience_ticks << session.asked:
                session.asked = min(session.asked + 1, DOUBLINGS_MAX)
                self._send_registration(session)

    def _say(self, session: LocalSession, end_seq: int) -> None:
        """A sign of life; with ``end_seq``, it asks whether all below that has come into the log."""
        self.outgoing.append(encode_frame(Frame(session=session.session, first_seq=end_seq)))

    # ---- back from apply -------------------------------------------------------------------------------------

    def applied(self, outcome: FrameOutcome) -> None:
        """What became of a frame; of no interest where its session is attached elsewhere."""
        if type(outcome) is Registered:
            self._registered(outcome)
        elif isinstance(outcome, Executed | Gap | Overloaded | Expired):
            session = self._by_number.get(outcome.session)
            if session is None:
                return
            session.asked = 0
            session.waits_since = self.now
            if type(outcome) is Executed:
                self._executed(session, outcome)
            elif type(outcome) is Gap:
                self._gap(session, outcome)
            elif type(outcome) is Overloaded:
                self._overloaded(session, outcome)
            else:
                self.fail(session, SessionExpired(expired_sentence(outcome.session)))

    def restored(self, slot: int, kept_results: Callable[[int], Executed | None]) -> None:
        """The state is that of ``slot``: what was executed in slots that were never applied here is in its table."""
        for number, session in list(self._by_number.items()):
            kept = kept_results(number)
            if kept is not None:
                self.applied(kept)
            elif registration_slot(number) <= slot:
                self.applied(Expired(number, session.last_seq + 1))

    def _registered(self, outcome: Registered) -> None:
        session = self._by_nonce.pop(outcome.nonce, None)
        if session is not None:
            session.session = outcome.session
            session.asked = 0
            session.active_at = self.now
            self._by_number[outcome.session] = session
            session.sink.opened(outcome.session, 1)

    def _executed(self, session: LocalSession, outcome: Executed) -> None:
        first_seq, results = outcome.first_seq, outcome.results
        session.last_seq = max(session.last_seq, outcome.next_seq - 1)
        # A frame is done with when its own answer is here: one that has been executed may still owe its client the
        # results, where they came out at another server, or before it was attached to this one.
        received, end_seq = outcome.received_below, first_seq + len(results)
        pending = session.pending
        while pending:
            head = pending[0]
            owed = max(head.first_seq, received)
            if owed < head.end_seq and not first_seq <= owed < head.end_seq <= end_seq:
                break
            if head.first_seq < min(first_seq, received):
                # The client has these already, and said so in a later frame. It still waits for this one.
                has = min(head.end_seq, received) - head.first_seq
                session.sink.results(head.first_seq, [None] * has)
            self.pending_bytes -= len(pending.popleft().frame)
        if results:
            session.sink.results(first_seq, results)
        elif pending and pending[0].first_seq < outcome.next_seq:
            # All has been executed, says the answer to a question, and the answer to this frame has not come: its
            # client gets it when it is sent again.
            self._mend(session, outcome.next_seq)

    def _gap(self, session: LocalSession, outcome: Gap) -> None:
        """Something before this frame was lost. Every frame behind it finds the same gap: it is mended once."""
        if not session.pending or session.pending[0].first_seq > outcome.next_seq:
            # This server never had what is missing; only the client can send it.
            if session.pending and session.pending[0].first_seq <= outcome.first_seq:
                self.fail(
                    session,
                    InvalidArgument(
                        f"session {outcome.session:x} submits from {outcome.first_seq}, its next to be executed "
                        f"is {outcome.next_seq}: open the session again and submit from there"
                    ),
                )
            return
        self._mend(session, outcome.next_seq)

    def _mend(self, session: LocalSession, next_seq: int) -> None:
        """Sends all again, unless that was done for the same reason a short while ago."""
        if session.mended_seq != next_seq:
            session.mended_seq, session.mended = next_seq, 0
        elif self.now - session.mended_at < MEND_PATIENCE_TICKS << session.mended:
            return
        else:
            session.mended = min(session.mended + 1, DOUBLINGS_MAX)
        session.mended_at = self.now
        self._resend(session)

    def _overloaded(self, session: LocalSession, outcome: Overloaded) -> None:
        """The client has too many results it has not acknowledged: it must read them and submit again."""
        self.fail(
            session,
            ResourceExhausted(
                f"session {outcome.session:x} has more results waiting than a session may; acknowledge them "
                f"(received_below), open it again and submit from {outcome.next_seq}"
            ),
        )


def expired_sentence(session: int) -> str:
    """What a client is told whose session is gone."""
    return (
        f"session {session:x} has expired or never was: of its commands without a result it is not known whether they "
        "were executed. Nothing is sent again under a new session; read the state to find out"
    )
