"""The store as it was at one moment, read a piece at a time while writes go on.

Nothing is copied. The store is multi-version, and a view asks it for what was there: the *base*, of each key the
version at the compaction of that moment, in the order of keys; and the *log*, every change from there up to the
revision of that moment. While a view is open the store drops nothing that it still needs, though compactions go on
(``MultiVersionStore.tidy``): what is overwritten meanwhile stays in memory until the view is closed, or let go.

The base is found by walking over the keys that there are *now*. Those that were written since give nothing, and
a million of them in a row take their time: so a batch may be empty, which is a chance for others to have their turn.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import islice

from sortedcontainers import SortedList

from paxos_rsm.errors import InvariantViolation
from paxos_rsm.machines.kv.changes import ChangeLog
from paxos_rsm.machines.kv.records import Record

__all__ = ["BATCH_RECORDS", "StoreView"]

BATCH_RECORDS = 500
"""Keys or changes that are looked at for one batch: less than a millisecond."""


class StoreView:
    """A view. Any number may be open; each is read from its beginning, as often as one likes, until it is closed."""

    __slots__ = (
        "__weakref__",
        "_dead",
        "_end",
        "_is_closed",
        "_live",
        "_log",
        "_version_at",
        "compacted_revision",
        "first",
        "revision",
    )

    def __init__(
        self,
        revision: int,
        compacted_revision: int,
        log: ChangeLog,
        keys: tuple[SortedList, SortedList],
        version_at: Callable[[bytes, int], Record | None],
    ) -> None:
        """``keys`` are those that exist, and those that are deleted and have versions; all are the store's own."""
        self.revision = revision
        self.compacted_revision = compacted_revision
        self.first = log.after(compacted_revision)
        """The position of the first change that the view needs."""
        self._end = log.end
        self._log = log
        self._live, self._dead = keys
        self._version_at = version_at
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        """Whether the store may drop what the view showed."""
        return self._is_closed

    def close(self) -> None:
        """Ends the view; more than once does nothing."""
        self._is_closed = True

    def base(self) -> Iterator[list[Record]]:
        """The versions at the compaction, in the order of keys, in batches; some may be empty."""
        at, version_at = self.compacted_revision, self._version_at
        if at <= 1:
            return
        after: bytes | None = b""
        while after is not None:
            self._require_open()
            keys, after = self._keys(after)
            found = [version_at(key, at) for key in keys]
            yield [record for record in found if record is not None]

    def log(self) -> Iterator[list[Record]]:
        """The changes after the compaction, in order, in batches."""
        for start in range(self.first, self._end, BATCH_RECORDS):
            self._require_open()
            yield self._log.between(start, min(start + BATCH_RECORDS, self._end))

    def _keys(self, after: bytes) -> tuple[list[bytes], bytes | None]:
        """The next keys behind ``after``, and the last of them, or None where there are no more."""
        live: list[bytes] = list(islice(self._live.irange(after, None, (False, True)), BATCH_RECORDS))
        last = live[-1] if len(live) == BATCH_RECORDS else None
        dead: list[bytes] = list(islice(self._dead.irange(after, last, (False, True)), BATCH_RECORDS))
        if not dead:
            return live, last
        if len(dead) == BATCH_RECORDS:
            last = dead[-1]
            del live[bisect_right(live, last) :]
        return sorted(live + dead), last

    def _require_open(self) -> None:
        if self._is_closed:
            raise InvariantViolation("a view of the store was read after it was closed: a bug in paxos_rsm")
