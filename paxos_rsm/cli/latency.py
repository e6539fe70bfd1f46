"""How long operations took: exact to a microsecond, for a cost that the measured loop can bear.

Noting one operation is one addition in a dictionary keyed by microseconds, which cannot outgrow the number of
different durations however long a run lasts. Percentiles are read off afterwards, by the nearest-rank method, over
the notes of all load processes together.
"""

import math
from collections import defaultdict
from collections.abc import Mapping

__all__ = ["Latencies"]


class Latencies:
    """Counts of operations by their duration."""

    def __init__(self) -> None:
        self._counts: defaultdict[int, int] = defaultdict(int)

    def note(self, seconds: float) -> None:
        """Counts one operation."""
        self._counts[int(seconds * 1e6)] += 1

    def to_json(self) -> dict[str, int]:
        """Microseconds to count, where there is one."""
        return {str(us): count for us, count in self._counts.items()}

    def add_json(self, counts: Mapping[str, int]) -> None:
        """Adds what :meth:`to_json` of another process gave."""
        for us, count in counts.items():
            self._counts[int(us)] += count

    def summary(self) -> dict[str, float | None]:
        """``p50_ms, p90_ms, p99_ms, max_ms``; None where nothing was counted."""
        counts = sorted(self._counts.items())
        total = sum(self._counts.values())
        found: dict[str, float | None] = {}
        for percent in (50, 90, 99):
            found[f"p{percent}_ms"] = _at_rank(counts, -(-total * percent // 100))
        found["max_ms"] = counts[-1][0] / 1e3 if counts else None
        return found

    def stddev_ms(self) -> float | None:
        """The standard deviation; None where nothing was counted."""
        total = sum(self._counts.values())
        if not total:
            return None
        mean = sum(us * count for us, count in self._counts.items()) / total
        return math.sqrt(sum((us - mean) ** 2 * count for us, count in self._counts.items()) / total) / 1e3


def _at_rank(counts: list[tuple[int, int]], rank: int) -> float | None:
    """Milliseconds of the ``rank``-th fastest operation, counted from 1; None where there is none."""
    passed = 0
    for us, count in counts:
        passed += count
        if passed >= rank:
            return us / 1e3
    return None
