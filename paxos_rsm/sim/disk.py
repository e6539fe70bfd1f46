"""The storage thread of a simulated server: the real segment log, over a disk in memory that takes its time.

As in ``storage/writer.py``: all that is queued becomes one group, is appended in one piece and synced once; while
that goes on, the next group gathers; and a batch is reported durable when its group is. Only the thread is missing:
:meth:`SimDisk.finish` comes by the simulation's clock.
"""

from collections.abc import Callable, Sequence

from paxos_rsm.paxos.ready import Write, WriteCompacted
from paxos_rsm.sim.oracle import DiskModel, Oracle
from paxos_rsm.storage.segments import SegmentLog

__all__ = ["SimDisk"]


class SimDisk:
    """A :class:`paxos_rsm.storage.base.LogWriter`; ``start`` is told that a group is on its way to the disk.

    Every method may raise LogIOError and DiskFull, after which the server stops, and PowerLost.
    """

    def __init__(self, log: SegmentLog, model: DiskModel, oracle: Oracle, start: Callable[[], None]) -> None:
        self._log = log
        self._model = model
        self._oracle = oracle
        self._start = start
        self._queue: list[tuple[int, Sequence[Write], bool]] = []
        self._group: tuple[int, bool] | None = None

    def submit(self, batch_number: int, writes: Sequence[Write], sync: bool = True) -> None:
        """Queues a batch; where nothing is being written it is appended at once."""
        self._queue.append((batch_number, writes, sync))
        if self._group is None:
            self._next_group()

    def _next_group(self) -> None:
        if not self._queue:
            return
        queue, self._queue = self._queue, []
        writes = [write for _, batch, _ in queue for write in batch]
        self._group = queue[-1][0], any(sync for _, _, sync in queue)
        self._model.unsynced += writes
        self._log.append(writes)
        compacted = [at for at, write in enumerate(writes, 1) if type(write) is WriteCompacted]
        if compacted:
            # What the log has forgotten is gone for good, and all before it is durable.
            self._oracle.synced(self._model, len(self._model.unsynced) - len(writes) + compacted[-1])
        self._start()

    def finish(self) -> tuple[int, bool]:
        """The group is done: the last batch that is durable now, and whether it was synced."""
        if self._group is None:
            return 0, False
        last, must_sync = self._group
        if must_sync:
            self._log.sync()
        self._group = None
        return last, must_sync

    def go_on(self) -> None:
        """Begins the next group, where one has gathered."""
        if self._group is None:
            self._next_group()

    def close(self) -> None:
        """Closes the log."""
        self._log.close()
