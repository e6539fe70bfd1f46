"""Taking snapshots, fetching them, and putting them in the place of the state: what the loop does of it.

Files are read and written on a thread of their own, one thing after the other. The state is walked on the event loop,
for it is the loop that changes it: a few milliseconds at a time, and as long again for everything else in between.

A snapshot that was fetched is restored on the thread, with nothing applied meanwhile: the server goes on voting, lets
linearizable reads wait, and answers others from its old state where the state machine allows that.

Order (rule 7, docs/ARCHITECTURE.md): a snapshot is complete, checked and durable under its name; then the log is told
that it may start later; then it drops what it does not need. A server that dies in between has one state and a log
that reaches it.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import thread_time
from typing import Any

from paxos_rsm.errors import DiskFull, InvariantViolation, SnapshotDamaged, Unavailable
from paxos_rsm.paxos.membership import Base
from paxos_rsm.paxos.types import Slot
from paxos_rsm.replica.replica import Replica
from paxos_rsm.replica.transfer import DropSnapshots, FinishFetch, ReadPart, SnapshotTask, WritePart
from paxos_rsm.storage.snapshots import SnapshotFetch, SnapshotInfo, SnapshotMeta, SnapshotStore

__all__ = ["SnapshotKeeper", "sound_snapshot"]

log = logging.getLogger(__name__)

SLICE_S = 0.005
"""Of the state walked at once: a client's command waits so much longer at most."""
RETRY_S = 10.0
"""After a snapshot for which there was no space."""


class SnapshotKeeper:
    """See the module's docstring. Belongs to the event loop; ``store`` to this object's thread from now on."""

    def __init__(self, replica: Replica, store: SnapshotStore, cluster_id: int) -> None:
        self._replica = replica
        self._store = store
        self._cluster_id = cluster_id
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "snapshots")
        self._fetch: SnapshotFetch | None = None
        self._fetching = (0, 0)
        """The slot and the bytes of what ``_fetch`` is."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._taking: asyncio.Task[SnapshotInfo | None] | None = None
        self._dropping: asyncio.Task[None] | None = None
        self._not_before = 0.0
        self._closed = False
        self.installing = False
        """The state is being replaced: the state machine must not be asked."""
        self.ask_turn: Callable[[], None] = lambda: None
        self.fail: Callable[[BaseException], None] = lambda error: None
        self.on_installing: Callable[[bool], None] = lambda begins: None
        """Called right before the state is replaced, and right after."""

    # ---- taking ----------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Takes a snapshot where one is due and none is being taken."""
        if (
            self._taking is None
            and not self.installing
            and self._replica.snapshot_is_due
            and self._loop.time() >= self._not_before
        ):
            self._begin()

    async def take(self) -> SnapshotInfo | None:
        """Takes a snapshot of the state as it is now, or waits for the one that is being taken.

        None where nothing was applied since the last one.

        Raises DiskFull, and Unavailable while the state is being replaced; anything else stops the server.
        """
        if self._taking is None:
            if self.installing or self._closed:
                raise Unavailable("this server is replacing its state by a snapshot; ask again in a while")
            return await asyncio.shield(self._begin())
        return await asyncio.shield(self._taking)

    def _begin(self) -> asyncio.Task[SnapshotInfo | None]:
        self._taking = task = self._loop.create_task(self._take())
        task.add_done_callback(self._taken)
        return task

    def _taken(self, task: asyncio.Task[SnapshotInfo | None]) -> None:
        self._taking = None
        error = None if task.cancelled() else task.exception()
        if isinstance(error, DiskFull):
            self._not_before = self._loop.time() + RETRY_S
            log.warning("no snapshot was taken: %s", error)
        elif error is not None:
            self.fail(error)

    async def _take(self) -> SnapshotInfo | None:
        replica = self._replica
        if replica.machine.applied_slot <= replica.transfer.newest:
            return None
        base, slices = replica.begin_snapshot()
        writer = await self._run(self._store.begin, self._meta(base))
        try:
            await self._walk(slices, writer.write)
            info: SnapshotInfo = await self._run(writer.finish)
        except BaseException:
            if not self._closed:
                await self._run(writer.abort)
            raise
        finally:
            close = getattr(slices, "close", None)
            if close is not None:
                close()
        if self.installing:
            return None  # the state was found to be wrong meanwhile: so is what was made of it
        replica.snapshot_taken(info.slot, info.bytes)
        self.ask_turn()
        log.info("took a snapshot", extra={"slot": info.slot, "bytes": info.bytes})
        return info

    async def _walk(self, slices: Iterator[bytes], write: Callable[[bytes], None]) -> None:
        """Hands the slices to the thread, a few milliseconds' work at a time."""
        parts: list[bytes] = []
        started = thread_time()
        for part in slices:
            parts.append(part)
            spent = thread_time() - started
            if spent >= SLICE_S:
                await asyncio.sleep(spent)
                await self._run(write, b"".join(parts))
                parts = []
                started = thread_time()
        await self._run(write, b"".join(parts))

    def _meta(self, base: Base) -> SnapshotMeta:
        return SnapshotMeta(self._cluster_id, base.slot, base.changed_in, base.configuration)

    # ---- what the replica asks for -----------------------------------------------------------------------------

    def perform(self, tasks: list[SnapshotTask]) -> None:
        """Does what a turn asked for, after all that was asked for before."""
        for task in tasks:
            match task:
                case ReadPart():
                    self._start(self._read(task))
                case WritePart():
                    self._start(self._write(task))
                case FinishFetch():
                    self._start(self._finish(task))
                case DropSnapshots():
                    if not self.installing:
                        self.installing = True
                        self.on_installing(True)
                    self._dropping = self._start(self._drop())

    async def _read(self, task: ReadPart) -> None:
        size, data = await self._run(self._read_part, task)
        self._replica.transfer.read(task.to, task.slot, size, task.offset, data)
        self.ask_turn()

    def _read_part(self, task: ReadPart) -> tuple[int, bytes]:
        info = next((each for each in self._store.infos() if each.slot == task.slot), None)
        part_bytes = self._replica.settings.snapshot_part_bytes
        data = self._store.read_range(task.slot, task.offset, part_bytes) if info is not None else None
        return (info.bytes, data) if info is not None and data is not None else (0, b"")

    async def _write(self, task: WritePart) -> None:
        through = await self._run(self._write_part, task)
        self._replica.transfer.written(task.slot, through)
        self.ask_turn()

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

    async def _drop(self) -> None:
        if self._taking is not None:
            await asyncio.wait([self._taking])
        await self._run(self._drop_all)

    def _drop_all(self) -> None:
        if self._fetch is not None:
            self._fetch.abort()
            self._fetch = None
        for info in list(self._store.infos()):
            self._store.mark_damaged(info.slot)

    async def _finish(self, task: FinishFetch) -> None:
        if self._dropping is not None:
            # Not before: it is to stay.
            await asyncio.wait([self._dropping])
            self._dropping = None
        try:
            info = await self._run(self._finish_fetch, task)
        except SnapshotDamaged as error:
            log.warning("a snapshot that was fetched is of no use: %s", error)
            info = None
        try:
            if info is not None:
                await self._install(info)
                # Installed or not (this server may have come to lead): it is here, and may outlive an older one.
                self._replica.transfer.newest = max(self._replica.transfer.newest, info.slot)
        finally:
            self._replica.transfer.finished()
            self.ask_turn()

    def _finish_fetch(self, task: FinishFetch) -> SnapshotInfo:
        fetch = self._open_fetch(task.slot, task.size)
        self._fetch = None
        return fetch.finish()

    async def _install(self, info: SnapshotInfo) -> None:
        replica = self._replica
        if not replica.node.may_install(info.slot):
            return
        meta, slices = await self._run(self._store.read, info.slot)
        if meta.cluster_id != self._cluster_id:
            raise InvariantViolation(f"a peer has sent a snapshot of cluster {meta.cluster_id:x}")
        while self._taking is not None:
            # Whoever waited for that one may have begun another before this goes on.
            await asyncio.wait([self._taking])
        if not replica.node.may_install(info.slot):
            return
        replica.hold(True)
        if not self.installing:
            self.installing = True
            self.on_installing(True)
        await self._run(replica.machine.restore, slices)
        replica.installed(Base(meta.slot, meta.changed_in, meta.configuration), info.bytes)
        self.installing = False
        self.on_installing(False)
        log.info("installed a snapshot", extra={"slot": info.slot, "bytes": info.bytes})

    # ---- life ------------------------------------------------------------------------------------------------

    async def restore(self, slot: Slot) -> None:
        """At a start: restores the snapshot of ``slot``."""
        size, slices = await self._run(self._open_snapshot, slot)
        await self._run(self._replica.machine.restore, slices)
        self._replica.started_from(slot, size)

    def _open_snapshot(self, slot: Slot) -> tuple[int, Iterator[bytes]]:
        size = next(each.bytes for each in self._store.infos() if each.slot == slot)
        return size, self._store.read(slot)[1]

    def resume(self) -> None:
        """At a start: what has been fetched of a snapshot is not fetched again."""
        partial = self._store.partial()
        if partial is not None:
            self._replica.transfer.resume(*partial)

    async def close(self) -> None:
        """Ends what is going on; a snapshot that is not finished is not there."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        if self._taking is not None:
            self._taking.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._fetch is not None:
            await self._run(self._fetch.close)
        await asyncio.to_thread(self._thread.shutdown)

    async def _run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await self._loop.run_in_executor(self._thread, partial(work, *arguments))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begins something whose failure stops the server, unless it is that there is no space.

        What is begun first is given to the thread first.
        """
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, DiskFull):
            log.warning("no space for a snapshot: %s", error)
            self._fetch = None
            self._replica.transfer.finished()
        elif error is not None:
            self.fail(error)


def sound_snapshot(store: SnapshotStore, at_least: Slot) -> SnapshotMeta | None:
    """The newest snapshot of a slot from ``at_least`` on that holds, read whole; those that do not are put aside."""
    while (newest := store.newest()) is not None and newest.slot >= at_least:
        try:
            meta, slices = store.read(newest.slot)
            for _ in slices:
                pass
        except SnapshotDamaged as error:
            log.error("%s", error)
            store.mark_damaged(newest.slot)
        else:
            return meta
    return None
