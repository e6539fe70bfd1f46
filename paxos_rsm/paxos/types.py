"""The words of the protocol: who, where, under which ballot, and what.

A *node* is one incarnation of a server: a random 63-bit number drawn when its data directory is made, never
reused, so that a wiped server cannot be taken for the one it replaced (rule 9). A *slot* is a position in the
log, counted from 1; slot 0 means "before the log". A *ballot* is totally ordered by (round, node) and is used by
one proposer, once (rule 2). An *entry* is what a slot holds.

The frames of a batch rest and travel as bytes: nobody between the client and the state machine opens them.
``join_frames`` and ``split_frames`` are the one place that knows how they lie side by side.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from struct import Struct, error
from typing import NamedTuple, TypeAlias

from paxos_rsm.paxos.membership import Configuration

__all__ = [
    "NO_BALLOT",
    "Ballot",
    "Batch",
    "ConfigChange",
    "Entry",
    "NodeId",
    "Noop",
    "Slot",
    "are_frames",
    "join_frames",
    "split_frames",
]

_LENGTH = Struct(">I")

NodeId: TypeAlias = int
Slot: TypeAlias = int


class Ballot(NamedTuple):
    """A ballot number (Lamport, *Paxos Made Simple*, section 2.2), ordered by round, then by node."""

    round: int
    node: NodeId

    def __str__(self) -> str:
        return f"{self.round}.{self.node & 0xFFFF:04x}"


NO_BALLOT = Ballot(0, 0)
"""Below every ballot in use: an acceptor that has promised nothing."""


@dataclass(frozen=True, slots=True)
class Noop:
    """Fills a slot that no command needs, so that the log has no hole."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The client frames that one slot holds, joined by :func:`join_frames`."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ConfigChange:
    """The configuration that governs from the next slot on. In slot 1 it is the genesis entry."""

    configuration: Configuration


Entry: TypeAlias = Noop | Batch | ConfigChange


def join_frames(frames: Iterable[bytes]) -> bytes:
    """Lays frames side by side: a 4-byte big-endian length in bytes, then the frame, for each."""
    parts: list[bytes] = []
    for frame in frames:
        parts.append(len(frame).to_bytes(4, "big"))
        parts.append(frame)
    return b"".join(parts)


def are_frames(data: bytes) -> bool:
    """Whether :func:`split_frames` would find frames in it, to the last byte. Costs a step a frame; copies nothing."""
    length, at, end = _LENGTH.unpack_from, 0, len(data)
    try:
        while at < end:
            at += 4 + length(data, at)[0]
    except error:
        return False
    return at == end


def split_frames(data: bytes) -> Iterator[bytes]:
    """The frames of :func:`join_frames`, in order. Raises ValueError where the lengths do not add up."""
    at, end = 0, len(data)
    while at < end:
        start = at + 4
        at = start + int.from_bytes(data[at:start], "big")
        if start > end or at > end:
            raise ValueError(
                f"batch of {end} bytes is cut off inside the frame that starts at byte {start - 4}"
            )
        yield data[start:at]
