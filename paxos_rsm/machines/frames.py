"""What goes into the session machine, and what comes out of it.

In goes a *frame*, as one client cut it: commands of one session with the sequence number of the first; or one word
about sessions themselves, Register or Expire; or timers of the machine that have run out. Frames travel and rest as
bytes; a :class:`FrameDecoder`, which is given to the machine, opens them, once a server.

Out comes one *outcome* for each frame, the same on every server. Only the server to which the session is attached
does anything with it, so it holds the results as the state machine gave them, not encoded::

    Executed     every command of the frame has been executed, now or before; results that are still owed
    Gap          an earlier frame is missing: nothing was executed, send again from next_seq
    Overloaded   too many results have not been received: nothing was executed, send again later
    Expired      no such session (any more): nothing was executed
    Registered   a new session
    Ended        a session was ended, or not, because it had moved
    TimedOut     timers of the machine have run out, or had been armed again
    Refused      the frame makes no sense: nothing was executed
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from paxos_rsm.machines.base import Timeout

__all__ = [
    "BadFrame",
    "Ended",
    "Executed",
    "Expire",
    "Expired",
    "Frame",
    "FrameDecoder",
    "FrameOutcome",
    "Gap",
    "Overloaded",
    "Refused",
    "Register",
    "Registered",
    "TimedOut",
]


@dataclass(frozen=True, slots=True)
class Register:
    """Asks for a session; ``nonce`` lets the server that proposed it find it again."""

    nonce: int
    timeout_ms: int
    """Without a word from its client for so long, the session may be ended."""


@dataclass(frozen=True, slots=True)
class Expire:
    """Ends a session, unless it has executed anything after ``last_seq`` meanwhile."""

    session: int
    last_seq: int


@dataclass(frozen=True, slots=True)
class Frame:
    """Commands of one session, or one of the last three fields.

    Without any of them: the session's word on what it has received, and (``first_seq``) how far its commands go.
    """

    session: int = 0
    first_seq: int = 0
    """The sequence number of ``commands[0]``; they start at 1."""
    received_below: int = 0
    """The client has every result below this, and needs none of them again."""
    commands: Sequence[bytes] = ()
    register: Register | None = None
    expire: Expire | None = None
    timeouts: Sequence[Timeout] = ()


@dataclass(frozen=True, slots=True)
class BadFrame:
    """Bytes that are no frame."""

    reason: str


class FrameDecoder(Protocol):
    """Opens frames. ``paxos_rsm.codec.frames`` has the one that the servers use."""

    def decode(self, data: bytes) -> Frame | BadFrame:
        """The frame in ``data``. Never raises, and gives the same for the same bytes on every server."""
        ...


@dataclass(frozen=True, slots=True)
class Executed:
    """Every command of the frame has been executed, once."""

    session: int
    first_seq: int
    """Of ``results[0]``: above the frame's own where the client has said that it has the first ones."""
    results: Sequence[Any]
    """One a command that is still owed; ``SessionMachine.encode_results`` gives their bytes."""
    next_seq: int
    """The session's next command: all below it are executed."""
    received_below: int = 0
    """The client has said that it has every result below this: none of them is owed."""


@dataclass(frozen=True, slots=True)
class Gap:
    """The frame starts above the session's next command; nothing of it was executed or kept."""

    session: int
    first_seq: int
    """Of the frame."""
    next_seq: int
    """Where to send again from."""


@dataclass(frozen=True, slots=True)
class Overloaded:
    """The session would keep more results than it may; nothing of the frame was executed."""

    session: int
    first_seq: int
    """Of the frame."""
    next_seq: int
    """Where to send again from, once the client has said which results it has."""


@dataclass(frozen=True, slots=True)
class Expired:
    """The session is unknown or has ended; nothing of the frame was executed."""

    session: int
    first_seq: int
    """Of the frame."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A session was registered; its first command has sequence number 1."""

    session: int
    nonce: int
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of an Expire."""

    session: int
    last_seq: int
    void: bool
    """Nothing happened: the session has executed something else since, or was not there."""


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The machine has been told of timers that ran out; nobody waits for it."""

    count: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The frame makes no sense."""

    reason: str


FrameOutcome: TypeAlias = Executed | Gap | Overloaded | Expired | Registered | Ended | TimedOut | Refused
