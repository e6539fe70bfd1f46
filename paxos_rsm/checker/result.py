"""What a check found: a verdict, and what shows it.

There are three verdicts, and only one of them is a pass. ``UNKNOWN`` means that the limit of time or steps came
first: nothing was shown, neither way. So a :class:`Result` is true only when it is ``LINEARIZABLE``.
"""

import enum
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from paxos_rsm.checker.history import Operation

__all__ = ["Result", "Verdict"]


class Verdict(enum.Enum):
    """The three ends of a check."""

    LINEARIZABLE = "linearizable"
    """There is an order that explains every answer."""
    VIOLATION = "violation"
    """There is none: every order was ruled out."""
    UNKNOWN = "unknown"
    """Not decided within the limits. This is no pass."""

    def __bool__(self) -> bool:
        return self is Verdict.LINEARIZABLE


@dataclass(frozen=True, kw_only=True)
class Result:
    """The outcome of one check."""

    verdict: Verdict
    reason: str
    """One sentence: what was shown, or why nothing was."""
    operations: int = 0
    """How many operations counted (failed ones do not)."""
    partitions: int = 0
    """How many independent keys the history had."""
    steps: int = 0
    """How many times an operation was tried on a state."""
    elapsed_s: float = 0.0
    """By the clock that the check was given."""

    key: Hashable = None
    """Of a violation: the key it is on. Of an unknown verdict: the first key that was not decided."""
    prefix: tuple[Operation, ...] = ()
    """Of a violation: the longest part of that key's history found to be linearizable, in the order found."""
    unplaced: tuple[Operation, ...] = ()
    """Of a violation: what cannot come next in any order, the operation that returned first ahead."""
    states: tuple[str, ...] = ()
    """Of a violation: the states possible when that operation returned, as text; the first few."""
    undecided: tuple[Hashable, ...] = ()
    """The keys that were not decided within the limits."""
    orders: Mapping[Hashable, tuple[Operation, ...]] = field(default_factory=dict)
    """For each key shown to be linearizable, an order that explains it. Open operations that never need to have taken
    effect are not in it."""

    @property
    def ok(self) -> bool:
        """Whether the history was shown to be linearizable: neither a violation nor unknown."""
        return self.verdict is Verdict.LINEARIZABLE

    def __bool__(self) -> bool:
        return self.ok
