"""What a replicated object looks like.

A user writes a class with the methods of :class:`StateMachine` and gets replication, exactly-once commands and
linearizable reads. Every server feeds it the same commands in the same order; so ``apply`` must be deterministic:
no clock, no randomness, no iteration over sets, nothing read from outside.

Bad input is *answered*: ``apply`` returns bytes that say so and leaves the state as it is. An exception out of
``apply`` means a broken machine, would happen on every server alike, and stops the server.

Machines on a hot path may also offer the methods of :class:`BatchStateMachine`: a whole frame in one call, and
results that are encoded only on the one server whose client waits for them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

__all__ = ["BatchStateMachine", "Position", "StateMachine"]


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where a command stands in the log: its slot, and its index among the commands of that slot, from 0."""

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
        """The whole state, in slices that later applies do not change."""
        ...

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Replaces the state by one that :meth:`snapshot` gave."""
        ...

    def digest(self) -> bytes:
        """A short hash of the state: equal states have equal digests."""
        ...


@runtime_checkable
class BatchStateMachine(StateMachine, Protocol):
    """A state machine that takes the commands of a frame in one call and encodes results late."""

    def apply_batch(self, commands: Sequence[bytes], at: Position) -> list[Any]:
        """Executes ``commands`` in order; the first stands at ``at``, the next at ``at.index + 1``.

        Gives one result for each, in any immutable form that :meth:`encode_result` understands.
        """
        ...

    def encode_result(self, result: Any) -> bytes:
        """The bytes that :meth:`StateMachine.apply` would have returned."""
        ...
