"""Every change since the last compaction, in order.

The log of the store is a list that grows at its end, and is dropped at its front a piece at a time: a compaction that
drops a million records must not hold up the commands behind it, nor take a record away from a view that still reads
it. So what is *compacted* and what is *dropped* are two things: see ``store.py``.

Beside each record stands how many bytes it frees when it is compacted: those of the version before it, and, where it
is a deletion, its own. So the size of the state after a compaction is known at once, the same on every server, long
before the last of what it frees is dropped.

**Positions** count records since the store was made or restored; they mean nothing on another server.
"""

from bisect import bisect_left, bisect_right

from paxos_rsm.machines.kv.records import MOD, Record, mod_of

__all__ = ["ChangeLog"]

_GONE: Record = (b"", 0, 0, 0, b"", 0)
_TRIM_MIN = 1024


class ChangeLog:
    """The log. The store appends to ``records`` and ``freed`` itself: it does so once a put."""

    __slots__ = ("_dropped", "_first", "freed", "records")

    def __init__(self) -> None:
        self.records: list[Record] = []
        """The first ``_first`` of them are dropped: only their places are there still."""
        self.freed: list[int] = []
        """Of each record, how many bytes a compaction at it frees."""
        self._first = 0
        # Records whose places are gone too.
        self._dropped = 0

    def __len__(self) -> int:
        return len(self.records) - self._first

    @property
    def first(self) -> int:
        """The position of the first record that is there."""
        return self._dropped + self._first

    @property
    def end(self) -> int:
        """The position of the next record."""
        return self._dropped + len(self.records)

    def between(self, start: int, end: int, step: int = 1) -> list[Record]:
        """The records (every ``step``-th) from one position up to another; all of them must be there."""
        return self.records[start - self._dropped : end - self._dropped : step]

    def after(self, revision: int) -> int:
        """The position of the first change after a revision."""
        return self._dropped + bisect_right(self.records, revision, lo=self._first, key=mod_of)

    def freed_between(self, start: int, end: int) -> int:
        """What a compaction frees that takes the records from one position up to another; 10 ms for a million."""
        return sum(self.freed[start - self._dropped : end - self._dropped])

    def page(self, first_revision: int, records_max: int) -> list[Record]:
        """Whole revisions from ``first_revision`` on, one at least if any; see ``MultiVersionStore.changes``."""
        log = self.records
        start = bisect_left(log, first_revision, lo=self._first, key=mod_of)
        end = start + records_max
        if end < len(log):
            # Up to the last revision that ends within, or where none does, all of the first.
            cut = bisect_left(log, log[end][MOD], lo=start, key=mod_of)
            end = cut if cut > start else bisect_right(log, log[start][MOD], lo=start, key=mod_of)
        return log[start:end]

    def drop(self, count: int) -> list[Record]:
        """Takes away the first ``count`` records that are there, and gives them."""
        first, end = self._first, self._first + count
        gone = self.records[first:end]
        self.records[first:end] = [_GONE] * len(gone)
        self._first = first + len(gone)
        # Seldom, so that it costs little a record.
        if self._first > _TRIM_MIN and self._first * 2 > len(self.records):
            del self.records[: self._first]
            del self.freed[: self._first]
            self._dropped += self._first
            self._first = 0
        return gone
