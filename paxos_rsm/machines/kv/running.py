"""A running hash of what the store has written: what servers compare to find that one has gone wrong.

A hash over the whole state takes as long as a snapshot. This one is over a sample of the records written since it was
last asked for, every :data:`STRIDE`-th from there on, and over sums that every write is part of: revision, keys, size,
leases. A server that misses a write, makes one too many or numbers one otherwise shows in all that follows; one that
only has another value under one key may go unseen here, and is found by the hash over everything.

It is asked for at the same slots on every server, so that it covers the same records everywhere; what is compacted in
between is counted before it goes.
"""

from hashlib import blake2b
from struct import Struct
from zlib import crc32

from paxos_rsm.machines.kv.changes import ChangeLog
from paxos_rsm.machines.kv.records import packed

__all__ = ["STRIDE", "RunningHash"]

STRIDE = 16
"""A constant of the replicated state. At 16 the hash costs some 40 ns a record, less than 2 % of applying a put."""

SUMS = Struct(">IqqQQQqQ")


class RunningHash:
    """Where the hash stands in a log."""

    __slots__ = ("_counted", "checksum")

    def __init__(self, counted: int = 0, checksum: int = 0) -> None:
        self._counted = counted
        """The position in the log of the first record that is not in ``checksum``."""
        self.checksum = checksum
        """Of what was counted since the hash was last taken."""

    def uncounted(self, log: ChangeLog) -> int:
        """Records at the end of the log that are not counted yet."""
        return log.end - self._counted

    def count(self, log: ChangeLog) -> None:
        """Counts what the log holds. To be called before any of it is dropped."""
        if self._counted < log.end:
            sample = log.between(self._counted, log.end, STRIDE)
            self.checksum = crc32(packed(sample), self.checksum)
            self._counted = log.end

    def take(self, log: ChangeLog, revisions: tuple[int, int], sums: tuple[int, int, int, int, int]) -> bytes:
        """The hash of what was written since the last time, 16 bytes."""
        self.count(log)
        packed = SUMS.pack(self.checksum, *revisions, *sums)
        self.checksum = 0
        return blake2b(packed, digest_size=16).digest()
