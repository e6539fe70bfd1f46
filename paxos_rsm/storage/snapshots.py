"""The snapshots of a data directory: taken, read, sent, fetched and pruned.

    SLOT.snapshot           a whole one (snapshot_format.py): the state as of that slot
    SLOT.snapshot.new       one that is being taken; what a crash leaves of it is removed
    SLOT-BYTES.part         one that is being fetched from a peer; a crash or a cut link leaves it, and it is taken up
                            again after the last of its chunks that holds
    SLOT.snapshot.damaged   one that was found damaged, kept for whoever wants to know why; the last one only

A snapshot has its name only after every byte of it is durable, and counts only after the name is (``sync_directory``):
whatever stands under such a name was whole once, so what does not hold there was damaged since. No log may be
compacted through a slot before (the order is told in start.py).

The newest :data:`KEPT` are kept. The second is what a slow peer is being sent from while the next is taken, and what
is started from where the newest is damaged and the log reaches back that far.

Everything here is synchronous and for one thread at a time; in a server that is neither the event loop nor the storage
thread. Long files are synced as they grow, so that the last sync, and a sync of the log meanwhile, has little to wait
for.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from paxos_rsm.errors import DiskFull, InvariantViolation, SnapshotDamaged, StorageError
from paxos_rsm.paxos.types import Slot
from paxos_rsm.storage.files import File, FileSystem, is_no_space, storage_error
from paxos_rsm.storage.snapshot_format import (
    SnapshotEncoder,
    SnapshotMeta,
    SnapshotScan,
    damaged,
    decode_header,
    has_end,
)

__all__ = [
    "KEPT",
    "SnapshotFetch",
    "SnapshotInfo",
    "SnapshotMeta",
    "SnapshotStore",
    "SnapshotWriter",
    "snapshot_slot",
]

KEPT = 2

_SUFFIX = ".snapshot"
_NEW = ".snapshot.new"
_PART = ".part"
_DAMAGED = ".snapshot.damaged"
_DIGITS = 19
_WRITE_BYTES = 1 << 20
_SYNC_BYTES = 8 << 20


class SnapshotInfo(NamedTuple):
    """A whole snapshot on disk. ``bytes`` is the length of its file."""

    slot: Slot
    bytes: int
    path: str
    meta: SnapshotMeta


class SnapshotStore:
    """See the module's docstring. Every method may raise LogIOError and DiskFull.

    ``damaged`` are those that :meth:`open` found damaged and put aside.
    """

    def __init__(self, files: FileSystem, directory: str) -> None:
        self._files = files
        self._directory = directory
        self._infos: list[SnapshotInfo] = []  # oldest first
        self.damaged: list[SnapshotDamaged] = []

    @classmethod
    def open(cls, files: FileSystem, directory: str) -> "SnapshotStore":
        """The snapshots in ``directory``, which is made where it is missing. Clears away what a crash has left.

        Looks at the head and the end of each file, not at what is between: :meth:`read` does.
        """
        store = cls(files, directory)
        with _io(f"opening the snapshots in {directory}"):
            files.mkdir(directory)
            # Always: whoever made it may have died before its name was durable, and a log relies on what is in it.
            files.sync_directory(os.path.dirname(directory))
            for name in files.names(directory):
                if name.endswith(_NEW):
                    files.remove(f"{directory}/{name}")
                slot = snapshot_slot(name)
                if slot is not None:
                    store._look_at(slot)
            store._prune()
        return store

    def newest(self) -> SnapshotInfo | None:
        """The newest whole snapshot."""
        return self._infos[-1] if self._infos else None

    def infos(self) -> list[SnapshotInfo]:
        """All whole snapshots, oldest first."""
        return list(self._infos)

    def begin(self, meta: SnapshotMeta) -> "SnapshotWriter":
        """A new snapshot, slice by slice."""
        return SnapshotWriter(self, self._files, self._path(meta.slot, _NEW), meta)

    def read(self, slot: Slot) -> tuple[SnapshotMeta, Iterator[bytes]]:
        """What the snapshot is of, and its slices, each checked before it is given.

        Raises SnapshotDamaged, also while the slices are read; all of them are what was written once the last has been
        asked for. A snapshot that is found damaged should be told of by :meth:`mark_damaged`.
        """
        path = self._path(slot, _SUFFIX)
        with _io(f"reading the snapshot {path}"), contextlib.closing(_open(self._files, path)) as file:
            meta = _scan(file, path, slot).meta
        return meta, _slices(self._files, path, slot)

    def read_range(self, slot: Slot, offset: int, length: int) -> bytes | None:
        """Bytes of the file as they are, unchecked, to send them; None where it is gone."""
        info = self._info(slot)
        if info is None:
            return None
        with _io(f"reading the snapshot {info.path}"):
            try:
                file = self._files.open(info.path)
            except FileNotFoundError:
                return None
            with contextlib.closing(file):
                return file.pread(length, offset)

    def fetch(self, slot: Slot, size: int) -> "SnapshotFetch":
        """A snapshot of ``size`` bytes that comes from a peer: begun, or taken up where an earlier fetch was cut off.

        What there is of any other is removed.
        """
        path = f"{self._directory}/{slot:0{_DIGITS}d}-{size}{_PART}"
        with _io(f"fetching the snapshot {path}"):
            for name in self._files.names(self._directory):
                other = f"{self._directory}/{name}"
                if name.endswith(_PART) and other != path:
                    self._files.remove(other)
            return SnapshotFetch(self, self._files, path, slot, size)

    def partial(self) -> tuple[Slot, int, int] | None:
        """What a fetch that was cut off has left: the slot, the length of the whole file, and the bytes that hold.

        None where there is none. Reads what there is of it.
        """
        with _io(f"looking for a fetch that was cut off in {self._directory}"):
            for name in sorted(self._files.names(self._directory), reverse=True):
                slot, dash, size = name.removesuffix(_PART).partition("-")
                if name.endswith(_PART) and dash and (slot + size).isascii() and (slot + size).isdigit():
                    path = f"{self._directory}/{name}"
                    with contextlib.closing(_open(self._files, path)) as file:
                        held = _valid_bytes(file, path)
                    return (int(slot), int(size), held) if held else None
        return None

    def mark_damaged(self, slot: Slot) -> str | None:
        """Puts a snapshot aside, under another name, which is returned; None where there is none."""
        info = self._info(slot)
        if info is None:
            return None
        aside = self._path(slot, _DAMAGED)
        with _io(f"putting the damaged snapshot {info.path} aside"):
            for name in self._files.names(self._directory):
                if name.endswith(_DAMAGED):
                    self._files.remove(f"{self._directory}/{name}")
            self._files.rename(info.path, aside)
            self._files.sync_directory(self._directory)
        self._infos.remove(info)
        return aside

    # ---------------------------------------------------------------------------------- inside

    def adopt(self, temporary: str, size: int, meta: SnapshotMeta) -> SnapshotInfo:
        """A whole, synced file gets its name, durably; then the oldest go. Raises OSError."""
        path = self._path(meta.slot, _SUFFIX)
        self._files.rename(temporary, path)
        self._files.sync_directory(self._directory)
        info = SnapshotInfo(meta.slot, size, path, meta)
        others = [each for each in self._infos if each.slot != meta.slot]
        self._infos = sorted([*others, info], key=lambda each: each.slot)
        self._prune()
        return info

    def _look_at(self, slot: Slot) -> None:
        """Lists a file, or puts it aside where its head or its end does not hold."""
        path = self._path(slot, _SUFFIX)
        with contextlib.closing(self._files.open(path)) as file:
            size = file.size()
            head = decode_header(file)
            is_whole = has_end(file, size)
        info = SnapshotInfo(slot, size, path, head.meta) if head is not None else None
        if info is not None and info.meta.slot == slot and is_whole:
            self._infos.append(info)
            return
        why = (
            "its end is missing"
            if info is not None and info.meta.slot == slot
            else "its header does not hold"
        )
        self.damaged.append(damaged(path, 0 if why.startswith("its header") else size, why))
        self._files.rename(path, self._path(slot, _DAMAGED))
        self._files.sync_directory(self._directory)

    def _prune(self) -> None:
        """Removes all but the newest. One that a crash brings back is removed by the next start."""
        while len(self._infos) > KEPT:
            self._files.remove(self._infos[0].path)
            del self._infos[0]

    def _info(self, slot: Slot) -> SnapshotInfo | None:
        return next((info for info in self._infos if info.slot == slot), None)

    def _path(self, slot: Slot, suffix: str) -> str:
        return f"{self._directory}/{slot:0{_DIGITS}d}{suffix}"


class SnapshotWriter:
    """A snapshot that is being taken. After an error it is gone, and so is what it had written."""

    def __init__(self, store: SnapshotStore, files: FileSystem, path: str, meta: SnapshotMeta) -> None:
        self._store = store
        self._files = files
        self._path = path
        self._meta = meta
        self._encoder = SnapshotEncoder(meta)
        self._parts = [self._encoder.header]
        self._waiting = len(self._encoder.header)
        self._written = 0
        self._unsynced = 0
        with _io(f"taking the snapshot {path}"):
            self._file: File | None = files.create(path, 0)

    def write(self, data: bytes) -> None:
        """The next slice, of any length. Raises LogIOError and DiskFull."""
        with self._io():
            for part in self._encoder.slice(data):
                self._put(part)

    def finish(self) -> SnapshotInfo:
        """The snapshot is whole: durable, with its name, when this returns; the oldest go. Raises as :meth:`write`."""
        with self._io() as file:
            self._put(self._encoder.end())
            self._flush()
            file.fdatasync()
            info = self._store.adopt(self._path, self._written, self._meta)
        file.close()
        self._file = None
        return info

    def abort(self) -> None:
        """Gives up; nothing is left of it. Allowed at any time, also after :meth:`finish`, when it does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None
            with contextlib.suppress(OSError):  # the next start does it
                self._files.remove(self._path)

    def _put(self, part: bytes) -> None:
        self._parts.append(part)
        self._waiting += len(part)
        if self._waiting >= _WRITE_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._file is None:
            raise InvariantViolation(f"the snapshot {self._path} was written to after its end")
        self._file.pwrite(b"".join(self._parts), self._written)
        self._written += self._waiting
        self._unsynced += self._waiting
        self._parts, self._waiting = [], 0
        if self._unsynced >= _SYNC_BYTES:
            self._file.fdatasync()
            self._unsynced = 0

    @contextlib.contextmanager
    def _io(self) -> Iterator[File]:
        if self._file is None:
            raise InvariantViolation(f"the snapshot {self._path} was written to after its end")
        try:
            with _io(f"taking the snapshot {self._path}"):
                yield self._file
        except Exception:
            self.abort()
            raise


class SnapshotFetch:
    """A snapshot that is being fetched. ``offset``: up to where it is there; the next byte to ask for.

    It is resumed after the last chunk that holds, so whatever a crash made of its last bytes is fetched again.
    """

    def __init__(self, store: SnapshotStore, files: FileSystem, path: str, slot: Slot, size: int) -> None:
        self._store = store
        self._files = files
        self._path = path
        self._slot = slot
        self._size = size
        self._unsynced = 0
        try:
            file = files.open(path)
        except FileNotFoundError:
            try:
                file = files.create(path, size)
            except OSError:
                with contextlib.suppress(OSError):  # a part of it may take the space that somebody now frees
                    files.remove(path)
                raise
            self.offset = 0
        else:
            self.offset = _valid_bytes(file, path)
        self._file: File | None = file

    def write(self, offset: int, data: bytes) -> bool:
        """The next bytes. False, with nothing written, where they are not those at :attr:`offset` or are too many.

        Raises LogIOError and DiskFull.
        """
        if offset != self.offset or offset + len(data) > self._size:
            return False
        with self._io() as file:
            file.pwrite(data, offset)
            self.offset += len(data)
            self._unsynced += len(data)
            if self._unsynced >= _SYNC_BYTES:
                file.fdatasync()
                self._unsynced = 0
        return True

    def finish(self) -> SnapshotInfo:
        """Checks every byte; the snapshot is durable, with its name, when this returns; the oldest go.

        Raises SnapshotDamaged where it is not whole or not sound (nothing is left of it then), LogIOError, DiskFull.
        """
        with self._io() as file:
            file.fdatasync()
            scan = _scan(file, self._path, self._slot)
            scan.check()
            info = self._store.adopt(self._path, self._size, scan.meta)
        self.close()
        return info

    def abort(self) -> None:
        """Gives up; nothing is left of it. Does nothing after :meth:`finish` and :meth:`close`."""
        if self._file is not None:
            self.close()
            with contextlib.suppress(OSError):  # the next fetch does it
                self._files.remove(self._path)

    def close(self) -> None:
        """Stops for now; a later fetch of the same goes on from here. Closing twice is allowed."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @contextlib.contextmanager
    def _io(self) -> Iterator[File]:
        if self._file is None:
            raise InvariantViolation(f"the snapshot {self._path} was written to after its end")
        try:
            with _io(f"fetching the snapshot {self._path}"):
                yield self._file
        except StorageError:
            self.abort()  # after a failed sync nobody knows what is there, whatever can be read
            raise


def snapshot_slot(name: str) -> Slot | None:
    """The slot of a whole snapshot by the name of its file; None for any other file."""
    digits = name.removesuffix(_SUFFIX)
    if name == digits or len(digits) != _DIGITS or not (digits.isascii() and digits.isdigit()):
        return None
    return int(digits)


def _slices(files: FileSystem, path: str, slot: Slot) -> Iterator[bytes]:
    with _io(f"reading the snapshot {path}"), contextlib.closing(_open(files, path)) as file:
        yield from _scan(file, path, slot).slices()


def _open(files: FileSystem, path: str) -> File:
    try:
        return files.open(path)
    except FileNotFoundError:
        raise damaged(path, 0, "it is missing") from None


def _scan(file: File, path: str, slot: Slot) -> SnapshotScan:
    """A pass over a file that must be the snapshot of ``slot``."""
    scan = SnapshotScan(file, path)
    if scan.meta.slot != slot:
        raise damaged(path, 0, f"it is that of slot {scan.meta.slot}")
    return scan


def _valid_bytes(file: File, path: str) -> int:
    """How many of the first bytes of a file that is not whole are known to hold. Raises OSError."""
    try:
        scan = SnapshotScan(file, path)
    except SnapshotDamaged:
        return 0
    with contextlib.suppress(SnapshotDamaged):
        scan.check()
    return scan.offset


@contextlib.contextmanager
def _io(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_no_space(error):
            # No vote depends on it: unlike one whose log finds no space, the server does as before.
            raise DiskFull(
                f"no space left while {what}: {error.strerror}. Free some on that disk: a server that runs goes on, "
                "and its log grows until there is space for a snapshot"
            ) from error
        raise storage_error(error, what) from error
