"""How long writes stood still: read off the times at which they were acknowledged, to anybody.

The outage of a fault is the longest time between two acknowledgements, one after the other, that overlaps its window:
from its start to :data:`~paxos_rsm.testing.chaos.plan.RECOVERY_S` after its end, or to the next fault's start. A gap
that reaches beyond the window counts whole. Probers write every few milliseconds at every server, so that a gap is
an outage and not a lack of callers.

The clients and proxies share their processor with the servers, and a gap may be theirs: the longest time that the
measuring loop itself stood still in the window is told beside it.
"""

import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from paxos_rsm.testing.chaos.kinds import KINDS, Goal

__all__ = ["Gap", "KindFigures", "Occurrence", "calm_gap_ms", "figures", "longest_gap", "percentile"]


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without an acknowledged write."""

    start_ms: float
    end_ms: float

    @property
    def ms(self) -> float:
        """How long."""
        return self.end_ms - self.start_ms


@dataclass(slots=True)
class Occurrence:
    """A fault that has struck, and what it cost."""

    number: int
    kind: str
    begin_ms: float
    end_ms: float
    victims: tuple[str, ...]
    what: str
    combined: bool = False
    """Whether another struck in its time: its figures count for no kind."""
    window_end_ms: float = 0.0
    gap: Gap | None = None
    held_gap_ms: float | None = None
    """The longest gap that began before it was mended."""
    leader_changes: int = 0
    stall_ms: float = 0.0
    """The longest time, in its window, that the process with clients and proxies stood still."""


@dataclass(frozen=True, slots=True)
class KindFigures:
    """What one kind of fault cost, over its occurrences that were alone."""

    kind: str
    gaps_ms: tuple[float, ...]
    """In ascending order."""
    held_gaps_ms: tuple[float, ...]
    """The same, of gaps that began before the fault was mended."""
    leader_changes_max: int
    stall_ms: float

    @property
    def median_ms(self) -> float:
        """Of the gaps."""
        return percentile(self.gaps_ms, 50)

    @property
    def p99_ms(self) -> float:
        """Of the gaps, by nearest rank: with fewer than a hundred, the longest."""
        return percentile(self.gaps_ms, 99)

    @property
    def max_ms(self) -> float:
        """The longest gap."""
        return self.gaps_ms[-1]

    @property
    def goal(self) -> Goal | None:
        """What is to be reached; None where nothing is."""
        return KINDS[self.kind].goal

    @property
    def missed(self) -> list[str]:
        """The goals that were missed, each as a phrase; none where there is no goal."""
        goal = self.goal
        if goal is None:
            return []
        compared = (
            ("median", self.median_ms, goal.median_ms),
            ("p99", self.p99_ms, goal.p99_ms),
            ("longest", self.max_ms, goal.max_ms),
        )
        told = [
            f"{name} {value:.0f} ms, goal {limit:.0f} ms"
            for name, value, limit in compared
            if limit is not None and value > limit
        ]
        changes = goal.leader_changes_max
        if changes is not None and self.leader_changes_max > changes:
            told.append(f"{self.leader_changes_max} changes of leader, goal {changes}")
        return told


def percentile(ascending: Sequence[float], percent: float) -> float:
    """By nearest rank. Raises ValueError where there is nothing."""
    if not ascending:
        raise ValueError("no percentile of nothing")
    return ascending[max(1, math.ceil(len(ascending) * percent / 100)) - 1]


def longest_gap(
    times_ms: Sequence[float], begin_ms: float, end_ms: float, over_ms: float | None = None
) -> Gap:
    """The longest gap that overlaps ``begin_ms``..``end_ms``; ``times_ms`` ascend.

    The one that has begun before counts whole, and so does the one that lasts longer. Where nothing was acknowledged
    before or after, the run's own start (0) and end (``over_ms``, by default ``end_ms``) stand for it.
    """
    first = bisect_right(times_ms, begin_ms)
    last = bisect_left(times_ms, end_ms)
    at = times_ms[first - 1] if first else 0.0
    longest = Gap(at, at)
    for index in range(first, last):
        following = times_ms[index]
        if following - at > longest.ms:
            longest = Gap(at, following)
        at = following
    final = times_ms[last] if last < len(times_ms) else max(end_ms, over_ms or 0.0)
    return Gap(at, final) if final - at > longest.ms else longest


def calm_gap_ms(
    times_ms: Sequence[float], windows: Iterable[tuple[float, float]], over_ms: float
) -> float | None:
    """The longest gap that lies wholly outside all ``windows``: what this machine does to writes without any fault.

    None where there is no time outside them.
    """
    longest: float | None = None
    at = times_ms[0] if times_ms else over_ms
    for begin_ms, end_ms in [*sorted(windows), (over_ms, over_ms)]:
        inside = times_ms[bisect_left(times_ms, at) : bisect_right(times_ms, begin_ms)]
        for earlier, later in itertools.pairwise(inside):
            longest = max(longest or 0.0, later - earlier)
        at = max(at, end_ms)
    return longest


def figures(occurrences: Iterable[Occurrence]) -> list[KindFigures]:
    """One row for each kind that struck alone at least once, in the order of the catalogue."""
    by_kind: dict[str, list[Occurrence]] = {name: [] for name in KINDS}
    for each in occurrences:
        if not each.combined and each.gap is not None:
            by_kind[each.kind].append(each)
    return [
        KindFigures(
            kind,
            tuple(sorted(each.gap.ms for each in found if each.gap is not None)),
            tuple(sorted(each.held_gap_ms for each in found if each.held_gap_ms is not None)),
            max(each.leader_changes for each in found),
            max(each.stall_ms for each in found),
        )
        for kind, found in by_kind.items()
        if found
    ]
