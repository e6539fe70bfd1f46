"""The table of sessions, and how it lies in a snapshot: the sessions, each with its results, then the user's state.

MAGIC, HEADER, RUNNING (not in version 1), then for each session SESSION and each of its results after its LENGTH; then
each slice of the machine's own snapshot after its LENGTH, and a LENGTH of END. Sealed (see ``slices.py``).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from struct import Struct
from typing import Any

from paxos_rsm.errors import MachineFailed
from paxos_rsm.machines.slices import SliceReader

__all__ = ["Session", "SessionsView", "machine_slices", "packed", "pieces", "read_session"]

MAGIC = b"paxos_rsm sessions 2\n"
MAGIC_1 = b"paxos_rsm sessions 1\n"
HEADER = Struct(">QQQ")  # applied slot, session_results_max, sessions
# Of the running digest: whether the chain is known, the chain, the tally and the checksum since its last slot.
RUNNING = Struct(">?16sQI")
SESSION = Struct(">QQQQII")  # number, next_seq, received_below, last active slot, timeout_ms, results
LENGTH = Struct(">I")
END = 0xFFFF_FFFF

SLOT_MAX = 1 << 47
SEQ_MAX = (1 << 63) - 1
"""Of a snapshot that is believed: no log and no client gets there, and what comes after still fits its field."""

RESULTS_AT_ONCE = 1000
"""Results that are encoded, or sessions that are packed, between two chances for others to have their turn."""


class Session:
    """One session."""

    __slots__ = ("last_active_slot", "next_seq", "received_below", "results", "seen", "timeout_ms")

    def __init__(self, timeout_ms: int, slot: int, seen: int = 0) -> None:
        # The number of the newest view that needs nothing of this session any more: see ``SessionMachine._keep``.
        self.seen = seen
        self.timeout_ms = timeout_ms
        self.last_active_slot = slot
        self.next_seq = 1
        self.received_below = 1
        # Invariant: one for each seq with received_below <= seq < next_seq.
        self.results: list[Any] = []


class SessionsView:
    """The sessions as of one moment."""

    __slots__ = ("__weakref__", "changed", "number", "sessions")

    def __init__(self, number: int, sessions: list[tuple[int, Session]]) -> None:
        self.number = number
        self.sessions = sessions
        self.changed: dict[int, tuple[bytes, list[Any]]] = {}
        """By session: what was there, packed, and its results, of those that have changed since."""

    def close(self) -> None:
        """Lets go of what it holds."""
        self.sessions = []
        self.changed.clear()


def packed(number: int, session: Session) -> bytes:
    """A session without its results."""
    return SESSION.pack(
        number,
        session.next_seq,
        session.received_below,
        session.last_active_slot,
        session.timeout_ms,
        len(session.results),
    )


def pieces(
    header: bytes,
    view: SessionsView,
    encode: Callable[[Sequence[Any]], list[bytes]],
    slices: Iterable[bytes],
    name: str,
) -> Iterator[bytes]:
    """What a snapshot consists of; ``slices`` are those of the user's machine, whose class is called ``name``."""
    yield header
    work = 0
    for number, session in view.sessions:
        kept = view.changed.pop(number, None)
        head, results = kept or (packed(number, session), list(session.results))
        yield head
        for start in range(0, len(results), RESULTS_AT_ONCE):
            encoded = encode(results[start : start + RESULTS_AT_ONCE])
            yield b"".join([part for each in encoded for part in (LENGTH.pack(len(each)), each)])
            work += len(encoded)
            if work >= RESULTS_AT_ONCE:
                work = 0
                yield b""
        work += 1
        if work >= RESULTS_AT_ONCE:
            work = 0
            yield b""
    for each in slices:
        if len(each) >= END:
            raise MachineFailed(
                f"a snapshot slice of {name} has {len(each)} bytes: give slices of at most some megabytes"
            )
        # An empty one goes on as it is, without a length.
        yield LENGTH.pack(len(each)) + each if each else each
    yield LENGTH.pack(END)


def read_session(reader: SliceReader) -> tuple[int, Session]:
    """A session, under its number. Raises MachineFailed where it cannot be one."""
    number, next_seq, received_below, slot, timeout_ms, kept = SESSION.unpack(reader.read(SESSION.size))
    if not 1 <= received_below <= next_seq <= SEQ_MAX or next_seq - received_below != kept:
        raise reader.damaged(f"session {number} does not hold the results that it says")
    session = Session(timeout_ms, slot)
    session.next_seq = next_seq
    session.received_below = received_below
    session.results = [reader.read(LENGTH.unpack(reader.read(4))[0]) for _ in range(kept)]
    return number, session


def machine_slices(reader: SliceReader) -> Iterator[bytes]:
    """The slices of the user's machine, as it gave them, and the end of the snapshot is next."""
    while (length := LENGTH.unpack(reader.read(4))[0]) != END:
        yield reader.read(length)
