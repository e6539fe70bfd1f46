"""What a replicated object looks like.

A user writes a class with the methods of :class:`StateMachine` and gets replication, exactly-once commands and
linearizable reads. Every server feeds it the same commands in the same order; so ``apply`` must be deterministic:
no clock, no randomness, no iteration over sets, nothing read from outside.

Bad input is *answered*: ``apply`` returns bytes that say so and leaves the state as it is. An exception out of
``apply`` means a broken machine, would happen on every server alike, and stops the server.

Most machines are small enough to be written down as one bytes value. :class:`SimpleMachine` makes the snapshots and
the digest of such a one from its ``dump`` and ``load``; ``examples/counter.py`` is a whole machine in twenty lines.

Machines on a hot path may also offer the methods of :class:`BatchStateMachine`: a whole frame in one call, and
results that are encoded only on the one server whose client waits for them.

A machine that can say cheaply what it has lately done to its state offers the method of :class:`CheckedStateMachine`:
servers compare it, and find the one among them that has gone wrong.

A machine that has deadlines (leases, time-outs of its own) offers those of :class:`TimedStateMachine`. It still knows
no clock: it *arms* timers, the leader watches them on its monotonic clock, and that one has run out is a step of the
log like any other.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol, runtime_checkable

from paxos_rsm.machines.slices import cut

__all__ = [
    "BatchStateMachine",
    "CheckedStateMachine",
    "Position",
    "SimpleMachine",
    "StateMachine",
    "TimedStateMachine",
    "Timeout",
    "Timer",
]


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where a command stands in the log: its slot, and its index among the commands of that slot, from 0.

    Every command of the slot's frames counts, executed or not (a duplicate is not): so a position names one
    command of the log for ever, whatever the sessions remember.
    """

    slot: int
    index: int


@runtime_checkable
class StateMachine(Protocol):
    """An object that the log replicates."""

    def apply(self, command: bytes, at: Position) -> bytes:
        """Executes one command, deterministically, and returns its result."""
        ...

    def query(self, request: bytes) -> bytes:
        """Answers from the state without changing it."""
        ...

    def snapshot(self) -> Iterable[bytes]:
        """The whole state, in slices that later applies do not change.

        An empty slice is no part of it: others have their turn, since the next one takes long. What the view holds on
        to is let go when the iterator ends, or by its ``close`` if it has one, or with it.

        The view is taken by the call, not when the first slice is asked for. A method that is itself a generator
        (one with ``yield`` in it) cannot do that; it is tolerated, and run to its end at once.
        """
        ...

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Replaces the state by one that :meth:`snapshot` gave, slice by slice as it gave them.

        All of ``chunks`` have been read when it returns. Where it raises, the server stops.
        """
        ...

    def digest(self) -> bytes:
        """A short hash of the state: equal states have equal digests."""
        ...


@runtime_checkable
class BatchStateMachine(StateMachine, Protocol):
    """A state machine that takes the commands of a frame in one call and encodes results late."""

    def apply_batch(self, commands: Sequence[bytes], at: Position) -> list[Any]:
        """Executes ``commands`` in order; the first stands at ``at``, the next at ``at.index + 1``.

        Gives a new list with one result for each, immutable: either bytes, which are the final answer, or anything
        else that :meth:`encode_result` understands.
        """
        ...

    def encode_result(self, result: Any) -> bytes:
        """The bytes that :meth:`StateMachine.apply` would have returned, for a result that is not bytes."""
        ...


@runtime_checkable
class CheckedStateMachine(StateMachine, Protocol):
    """A state machine that can be compared all the time."""

    def running_digest(self) -> bytes:
        """A hash of what was done to the state since the last call: equal logs, equal hashes.

        Called at the same slots on every server, and cheap: what is due since the last call must not take long.
        What it has not covered yet is part of the snapshot, though not of :meth:`StateMachine.digest`.
        """
        ...


class Timer(NamedTuple):
    """A deadline that a machine has set."""

    timer: int
    """The machine's own number for it; 64 bits, signed."""
    armed: int
    """Another number each time that it is armed, for ever: it tells a time-out whether it comes too late."""
    duration_ms: int


class Timeout(NamedTuple):
    """That a timer has run out, as the log says it."""

    timer: int
    armed: int
    """Of the arming that ran out; the machine ignores it where the timer has been armed again since."""


@runtime_checkable
class TimedStateMachine(StateMachine, Protocol):
    """A state machine with timers.

    The leader alone decides that a timer has run out, by its own monotonic clock; the machine executes it where it
    stands in the log. A timer runs for its whole duration under one leader: a new leader starts them all afresh. So it
    is never early, and late by a change of leader at most, one duration (or a second, if that is more) each.
    """

    def take_timers(self) -> Sequence[Timer]:
        """Timers that were armed since the last call, in the order in which they were; after ``restore``, all of them.

        Not state: what is taken here shows in no digest.
        """
        ...

    def is_armed(self, timer: int) -> bool:
        """Whether there is such a timer, and it runs."""
        ...

    def time_out(self, timeouts: Sequence[Timeout], at: Position) -> None:
        """Executes time-outs, deterministically, in order; void ones (see :class:`Timeout`) change nothing."""
        ...


class SimpleMachine(ABC):
    """A state machine whose whole state fits comfortably into one bytes value.

    ``dump`` runs on every snapshot and every digest, and nothing else happens on the server meanwhile: a state of
    more than some megabytes wants ``snapshot`` and ``restore`` of its own.
    """

    @abstractmethod
    def apply(self, command: bytes, at: Position) -> bytes:
        """Executes one command, deterministically, and returns its result."""

    @abstractmethod
    def query(self, request: bytes) -> bytes:
        """Answers from the state without changing it."""

    @abstractmethod
    def dump(self) -> bytes:
        """The whole state. Equal states give equal bytes: sort what has no order of its own."""

    @abstractmethod
    def load(self, state: bytes) -> None:
        """Replaces the state by one that :meth:`dump` gave."""

    def snapshot(self) -> Iterator[bytes]:
        """:meth:`dump`, cut into slices."""
        return cut([self.dump()])

    def restore(self, chunks: Iterable[bytes]) -> None:
        """:meth:`load`, of the slices joined."""
        self.load(b"".join(chunks))

    def digest(self) -> bytes:
        """A hash of :meth:`dump`, 16 bytes."""
        return blake2b(self.dump(), digest_size=16).digest()
