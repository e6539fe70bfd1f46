"""The snapshots of a simulated server: taken, sent, fetched and installed, one piece of work after the other.

What ``replica/snapshots.py`` is in a process: the same calls of the replica, the same store and its files, in the same
order. The thread that reads and writes files is a queue here: each piece of work takes the disk's time, is done in one
event, and what follows from it follows in that event. Between any two of them slots are applied, votes are cast, and
the server may die; while a snapshot is written or restored, too, between any two operations of the disk.

A snapshot is written in small pieces, so that much happens while it is.
"""

from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from random import Random
from typing import Any, Protocol, TypeAlias

from paxos_rsm.errors import DiskFull, SnapshotDamaged, StorageError
from paxos_rsm.paxos.membership import Base
from paxos_rsm.paxos.types import Slot
from paxos_rsm.replica.replica import Replica
from paxos_rsm.replica.transfer import DropSnapshots, FinishFetch, ReadPart, SnapshotTask, WritePart
from paxos_rsm.sim.failure import Broken
from paxos_rsm.storage.snapshots import SnapshotFetch, SnapshotInfo, SnapshotMeta, SnapshotStore

__all__ = ["Host", "SimSnapshots"]

PIECE_BYTES = (100, 400, 3000)
"""What is written at once of a snapshot that is being taken: one of these."""
RETRY_TICKS = 8
"""After a snapshot for which there was no space."""

Work: TypeAlias = Callable[[], Any]
Doing: TypeAlias = Generator[Work, Any, None]
"""Gives work for the thread, one piece after the other, and is sent what came of each."""


class Host(Protocol):
    """The server, as this sees it."""

    def work_later(self) -> None:
        """The disk has something to do: :meth:`SimSnapshots.step` comes when that is done."""
        ...

    def effect(self) -> None:
        """Something has happened that the world can see; raises PowerLost where the power goes just then."""
        ...

    def stands_for(self, base: Base) -> None:
        """The state is that of ``base``: it is about to be written into a snapshot, or has come from one."""
        ...

    def fire(self, what: str) -> None:
        """Counts what has happened."""
        ...


class SimSnapshots:
    """See the module's docstring."""

    def __init__(
        self, host: Host, replica: Replica, store: SnapshotStore, cluster_id: int, random: Random
    ) -> None:
        self._host = host
        self._replica = replica
        self._store = store
        self._cluster_id = cluster_id
        self._random = random
        self._queue: deque[tuple[Doing, Work]] = deque()
        self._works = False
        self._fetch: SnapshotFetch | None = None
        self._fetching = (0, 0)
        self._waits_ticks = 0
        self.taking = False
        self._dropping = False
        self.installing = False
        """The state is being replaced: nobody may ask for it."""

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return self._works

    # ---- what happens to it ----------------------------------------------------------------------------------

    def tick(self) -> None:
        """Takes a snapshot where one is due."""
        self._waits_ticks = max(0, self._waits_ticks - 1)
        if not self._waits_ticks and self._replica.snapshot_is_due:
            self.take()

    def take(self) -> None:
        """Takes a snapshot of the state as it is now, unless one is being taken or that state is in one."""
        replica = self._replica
        if self.taking or self.installing or replica.machine.applied_slot <= replica.transfer.newest:
            return
        self.taking = True
        self._go_on(self._take(), None)

    def perform(self, tasks: list[SnapshotTask]) -> None:
        """Does what a turn asked for, after all that was asked for before."""
        for task in tasks:
            match task:
                case ReadPart():
                    self._go_on(self._read(task), None)
                case WritePart():
                    self._go_on(self._write(task), None)
                case FinishFetch():
                    self._go_on(self._finish(task), None)
                case DropSnapshots():
                    self.installing = self._dropping = True
                    self._go_on(self._drop(), None)

    @property
    def slots(self) -> list[Slot]:
        """Of the snapshots that there are."""
        return [info.slot for info in self._store.infos()]

    def restore(self, base: Base) -> None:
        """At a start: the state is that of a snapshot."""
        size = next(info.bytes for info in self._store.infos() if info.slot == base.slot)
        self._replica.machine.restore(self._store.read(base.slot)[1])
        self._replica.started_from(base.slot, size)
        self._host.stands_for(base)

    def resume(self) -> None:
        """At a start: what has been fetched of a snapshot is not fetched again."""
        partial_fetch = self._store.partial()
        if partial_fetch is not None:
            self._host.fire("fetch resumed")
            self._replica.transfer.resume(*partial_fetch)

    def step(self) -> None:
        """The oldest piece of work is done."""
        doing, work = self._queue.popleft()
        try:
            result = work()
        except StorageError as error:
            self._go_on(doing, None, error)
        else:
            self._host.effect()
            self._go_on(doing, result)
        self._works = bool(self._queue)
        if self._works:
            self._host.work_later()

    def _go_on(self, doing: Doing, result: Any, error: StorageError | None = None) -> None:
        """Up to the next piece of work, which queues up."""
        try:
            work = doing.send(result) if error is None else doing.throw(error)
        except StopIteration:
            return
        except DiskFull:
            self._host.fire("no space for a snapshot")
            self._fetch = None
            self._replica.transfer.finished()
            return
        self._queue.append((doing, work))
        if not self._works:
            self._works = True
            self._host.work_later()

    # ---- taking ----------------------------------------------------------------------------------------------

    def _take(self) -> Doing:
        replica = self._replica
        base, slices = replica.begin_snapshot()
        self._host.stands_for(base)
        meta = SnapshotMeta(self._cluster_id, base.slot, base.changed_in, base.configuration)
        try:
            writer = yield partial(self._store.begin, meta)
            size = self._random.choice(PIECE_BYTES)
            for part in slices:
                for at in range(0, len(part), size):
                    yield partial(writer.write, part[at : at + size])
            info: SnapshotInfo = yield writer.finish
        except DiskFull:
            self.taking = False
            self._waits_ticks = RETRY_TICKS
            self._host.fire("no space for a snapshot")
            return
        self.taking = False
        if self.installing:
            self._host.fire("snapshot of a wrong state")
            return
        replica.snapshot_taken(info.slot, info.bytes)
        self._host.fire("snapshot taken")

    # ---- sending and fetching --------------------------------------------------------------------------------

    def _read(self, task: ReadPart) -> Doing:
        size, data = yield partial(self._read_part, task)
        self._host.fire("part of a snapshot read" if data else "snapshot gone")
        self._replica.transfer.read(task.to, task.slot, size, task.offset, data)

    def _read_part(self, task: ReadPart) -> tuple[int, bytes]:
        size = next((each.bytes for each in self._store.infos() if each.slot == task.slot), 0)
        part_bytes = self._replica.settings.snapshot_part_bytes
        data = self._store.read_range(task.slot, task.offset, part_bytes) if size else None
        return (size, data) if data else (0, b"")

    def _write(self, task: WritePart) -> Doing:
        through = yield partial(self._write_part, task)
        self._replica.transfer.written(task.slot, through)

    def _write_part(self, task: WritePart) -> int:
        fetch = self._open_fetch(task.slot, task.size)
        fetch.write(task.offset, task.data)
        return fetch.offset

    def _open_fetch(self, slot: Slot, size: int) -> SnapshotFetch:
        if self._fetch is None or self._fetching != (slot, size):
            if self._fetch is not None:
                self._fetch.close()
            self._fetch, self._fetching = self._store.fetch(slot, size), (slot, size)
        return self._fetch

    def _drop(self) -> Doing:
        while self.taking:
            yield _nothing
        yield self._drop_all
        self._dropping = False
        self._host.fire("snapshots put aside")

    def _drop_all(self) -> None:
        if self._fetch is not None:
            self._fetch.abort()
            self._fetch = None
        for info in list(self._store.infos()):
            self._store.mark_damaged(info.slot)

    def _finish(self, task: FinishFetch) -> Doing:
        while self._dropping:
            yield _nothing
        info: SnapshotInfo | None = None
        try:
            info = yield partial(self._finish_fetch, task)
        except SnapshotDamaged:
            self._host.fire("fetched in vain")
        if info is not None:
            yield from self._install(info)
            self._replica.transfer.newest = max(self._replica.transfer.newest, info.slot)
        self._replica.transfer.finished()

    def _finish_fetch(self, task: FinishFetch) -> SnapshotInfo:
        fetch = self._open_fetch(task.slot, task.size)
        self._fetch = None
        return fetch.finish()

    def _install(self, info: SnapshotInfo) -> Doing:
        replica = self._replica
        if not replica.node.may_install(info.slot):
            self._host.fire("fetched too late")
            return
        meta, slices = yield partial(self._store.read, info.slot)
        if meta.cluster_id != self._cluster_id:
            raise Broken("9", f"a snapshot of cluster {meta.cluster_id:x} is about to be installed")
        while self.taking:
            yield _nothing
        if not replica.node.may_install(info.slot):
            self._host.fire("fetched too late")
            return
        replica.hold(True)
        self.installing = True
        yield partial(replica.machine.restore, slices)
        base = Base(meta.slot, meta.changed_in, meta.configuration)
        self._host.stands_for(base)
        replica.installed(base, info.bytes)
        self.installing = False
        self._host.fire("snapshot installed")


def _nothing() -> None:
    """Waits for the one that is being taken: its next piece of work comes first."""
