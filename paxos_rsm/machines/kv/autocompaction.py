"""When a store is to be compacted by itself, and at which revision: etcd's two modes.

*revision*
    keeps the last so many revisions; looked at every five minutes.
*periodic*
    keeps what was written in the last so many milliseconds. The revision is noted ten times an hour, or ten times a
    period if that is shorter; once an hour, or a period, it is compacted at what was noted a period before.

There is no clock here: whoever leads says what time it is and which revision there is, and proposes the Compact that
comes out. A new leader begins with an empty memory: in periodic mode it compacts after a whole period of its own.
"""

from collections import deque
from enum import Enum

from paxos_rsm.errors import ConfigError

__all__ = ["AutoCompaction", "CompactionMode", "parse_retention"]

HOUR_MS = 3_600_000
REVISION_INTERVAL_MS = 300_000
NOTES_A_PERIOD = 10
DIGITS_MAX = 18

_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": HOUR_MS}


class CompactionMode(Enum):
    """What is kept: see the head of the module. The values are etcd's ``--auto-compaction-mode``."""

    PERIODIC = "periodic"
    REVISION = "revision"


def parse_retention(mode: CompactionMode, text: str) -> int:
    """The retention that etcd's ``--auto-compaction-retention`` means: revisions, or milliseconds; 0 is off.

    A number is one of revisions, or of hours; in periodic mode there may be units: 90s, 1h30m. Raises ConfigError.
    """
    if text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX:
        return int(text) * (HOUR_MS if mode is CompactionMode.PERIODIC else 1)
    total, left = 0, text if mode is CompactionMode.PERIODIC and len(text) <= DIGITS_MAX else ""
    while left:
        number = left[: len(left) - len(left.lstrip("0123456789"))]
        letters = left[len(number) :]
        unit = letters[: len(letters) - len(letters.lstrip("hms"))]
        if not number or unit not in _UNITS_MS or not left.isascii():
            break
        total += int(number) * _UNITS_MS[unit]
        left = letters[len(unit) :]
    if left or not total:
        what = "hours, or with units: 10m, 1h30m" if mode is CompactionMode.PERIODIC else "revisions: 10000"
        told = text[:DIGITS_MAX]
        raise ConfigError(f"an auto-compaction retention of {told!r} cannot be read: give a number of {what}")
    return total


class AutoCompaction:
    """What a leader compacts at."""

    def __init__(self, mode: CompactionMode, retention: int) -> None:
        """``retention`` in revisions or milliseconds, at least 1. Raises ConfigError."""
        if retention < 1:
            raise ConfigError(f"an auto-compaction retention of {retention} keeps nothing: give 1 or more")
        self._mode = mode
        self._retention = retention
        if mode is CompactionMode.REVISION:
            self._every_ms = REVISION_INTERVAL_MS
            self.interval_ms = REVISION_INTERVAL_MS
        else:
            self._every_ms = min(retention, HOUR_MS)
            self.interval_ms = max(1, self._every_ms // NOTES_A_PERIOD)
        self._notes: deque[tuple[int, int]] = deque()
        self._next_ms: int | None = None

    interval_ms: int
    """How often :meth:`observe` is to be called; sooner is ignored as far as it matters."""

    def forget(self) -> None:
        """This server does not lead any more."""
        self._notes.clear()
        self._next_ms = None

    def observe(self, now_ms: int, revision: int, compacted_revision: int) -> int | None:
        """The revision to compact at now, or None. ``now_ms`` is of any clock that does not go backwards."""
        if self._next_ms is None:
            wait_ms = self._every_ms if self._mode is CompactionMode.REVISION else self._retention
            self._next_ms = now_ms + wait_ms
        if self._mode is CompactionMode.PERIODIC and (
            not self._notes or now_ms - self._notes[-1][0] >= self.interval_ms
        ):
            self._notes.append((now_ms, revision))
        if now_ms < self._next_ms:
            return None
        self._next_ms = now_ms + self._every_ms
        at = revision - self._retention if self._mode is CompactionMode.REVISION else self._noted(now_ms)
        return at if at > max(compacted_revision, 1) else None

    def _noted(self, now_ms: int) -> int:
        """The revision of a period ago: the last that was noted then; older notes are dropped."""
        while len(self._notes) > 1 and self._notes[1][0] <= now_ms - self._retention:
            self._notes.popleft()
        return self._notes[0][1] if self._notes[0][0] <= now_ms - self._retention else 0
