"""A file system in memory whose disk loses what was not synced, tears what was half written, and flips bits.

Each file has the bytes that are durable and, above them, the writes since its last sync, in order. What a process
reads is both together, as through a page cache. Names work alike: a directory's creations, renames and removals since
its last sync are a list of changes. A loss of power (:meth:`MemoryFiles.crash`) decides, for each file and each
directory, what of the unsynced was on its way to the disk:

    DROP      nothing                          KEEP      all of it
    TEAR      a prefix, cut at any byte        SCATTER   any 512-byte sectors, in any order
    MIXED     one of these, drawn for each file and directory

(:meth:`MemoryFiles.kill`, the death of the process alone, keeps the page cache, hence proves nothing about syncing.)
A sync that is made to fail forgets what it should have written: the bytes can still be read, the next sync succeeds,
and they are gone after a loss of power, as on Linux.

Deterministic: randomness is injected, there is no thread and no clock.
"""

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from random import Random

from paxos_rsm.storage.files import SECTOR_BYTES, File, Lock

__all__ = ["CrashMode", "MemoryFiles", "PowerLost"]


class CrashMode(Enum):
    """What a loss of power does to unsynced writes; see the module's docstring."""

    DROP = "drop"
    KEEP = "keep"
    TEAR = "tear"
    SCATTER = "scatter"
    MIXED = "mixed"


class PowerLost(Exception):
    """The machine is off: no call does anything until :meth:`MemoryFiles.crash`."""


_PURE_MODES = (CrashMode.DROP, CrashMode.KEEP, CrashMode.TEAR, CrashMode.SCATTER)
_CHANGES = frozenset({"pwrite", "fdatasync", "create", "rename", "remove", "mkdir", "sync_directory"})


@dataclass(eq=False)
class _Inode:
    """A file, whatever its name. ``unsynced`` are (offset, bytes) in the order they were written."""

    cached: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    unsynced: list[tuple[int, bytes]] = field(default_factory=list)
    is_directory: bool = False

    def sync(self) -> None:
        self._resize(len(self.cached))
        for offset, data in self.unsynced:
            self.durable[offset : offset + len(data)] = data
        self.unsynced.clear()

    def settle(self, kept: Iterator[tuple[int, bytes]], keep_size: bool) -> None:
        """The power is back: the durable bytes, and of the unsynced those ``kept``, are what there is."""
        if keep_size:
            self._resize(len(self.cached))
        for offset, data in kept:
            self._resize(max(len(self.durable), offset + len(data)))
            self.durable[offset : offset + len(data)] = data
        self.unsynced.clear()
        self.cached = bytearray(self.durable)

    def _resize(self, size: int) -> None:
        if len(self.durable) < size:
            self.durable.extend(bytes(size - len(self.durable)))


_NameChange = tuple[tuple[str, _Inode | None], ...]  # what one operation makes of each name it touches


class MemoryFiles:
    """A :class:`paxos_rsm.storage.files.FileSystem`; see the module's docstring.

    ``counts`` tells how often each call was made, ``capacity_bytes`` (None: unlimited) bounds the sum of file sizes.
    """

    def __init__(self, capacity_bytes: int | None = None) -> None:
        self.capacity_bytes = capacity_bytes
        self.counts: Counter[str] = Counter()
        self.epoch = 0
        self._names: dict[str, _Inode] = {"/": _Inode(is_directory=True)}
        self._durable_names = dict(self._names)
        self._changes: dict[str, list[_NameChange]] = {}
        self._locked: set[str] = set()
        self._failures: list[tuple[str, int, int]] = []
        self._changes_left: int | None = None
        self._is_off = False

    # ---------------------------------------------------------------------------------- the interface

    def open(self, path: str) -> File:
        self.step("open")
        return _MemoryFile(self, self._file(path), path)

    def create(self, path: str, size: int) -> File:
        self.step("create")
        self._directory(_parent(path))
        used = sum(len(inode.cached) for name, inode in self._names.items() if name != path)
        if self.capacity_bytes is not None and used + size > self.capacity_bytes:
            raise _os_error(errno.ENOSPC, path)
        inode = _Inode(cached=bytearray(size))
        self._change(_parent(path), ((path, inode),))
        return _MemoryFile(self, inode, path)

    def read(self, path: str) -> bytes:
        self.step("read")
        return bytes(self._file(path).cached)

    def rename(self, old: str, new: str) -> None:
        self.step("rename")
        self._change(_parent(new), ((old, None), (new, self._file(old))))

    def remove(self, path: str) -> None:
        self.step("remove")
        self._file(path)
        self._change(_parent(path), ((path, None),))

    def names(self, path: str) -> list[str]:
        self.step("names")
        self._directory(path)
        return sorted(os.path.basename(name) for name in self._names if name != "/" and _parent(name) == path)

    def mkdir(self, path: str) -> bool:
        self.step("mkdir")
        self._directory(_parent(path))
        inode = self._names.get(path)
        if inode is not None:
            self._directory(path)
            return False
        self._change(_parent(path), ((path, _Inode(is_directory=True)),))
        return True

    def sync_directory(self, path: str) -> None:
        self.step("sync_directory")
        self._directory(path)
        self._apply(self._changes.pop(path, []))

    def lock(self, path: str, note: bytes) -> Lock:
        self.step("lock")
        if path in self._locked:
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), path)
        if path not in self._names:
            self._change(_parent(path), ((path, _Inode()),))
        inode = self._file(path)
        inode.cached[:] = note
        self._locked.add(path)
        return _MemoryLock(self, path)

    # ---------------------------------------------------------------------------------- faults

    def kill(self) -> None:
        """The process dies: handles and locks are gone, what it wrote stays readable and as unsynced as it was."""
        self.epoch += 1
        self._locked.clear()

    def crash(self, rng: Random, mode: CrashMode = CrashMode.MIXED) -> None:
        """The power goes and comes back: what was not synced is dropped, kept or torn."""
        inodes = {
            id(inode): inode for names in (self._durable_names, self._names) for inode in names.values()
        }
        for changes in self._changes.values():
            inodes.update(
                (id(inode), inode) for change in changes for _, inode in change if inode is not None
            )
        for inode in inodes.values():
            drawn = _draw(rng, mode)
            inode.settle(_surviving_bytes(inode.unsynced, rng, drawn), drawn is not CrashMode.DROP)
        for directory in sorted(self._changes):
            self._apply(_surviving_changes(self._changes[directory], rng, _draw(rng, mode)))
        self._restart()

    def crash_keeping(self, path: str, keep: Callable[[int], bool] | int) -> None:
        """The power goes: of this file's unsynced bytes a given part survives, and nothing else unsynced does.

        ``keep`` is how many of them, in the order they were written, or says of each 512-byte sector of the file
        (by its number) whether what was written into it survives.
        """
        kept = self._file(path)
        pieces = _prefix(kept.unsynced, keep) if isinstance(keep, int) else _sectors(kept.unsynced, keep)
        kept.settle(iter(list(pieces)), keep_size=True)
        for inode in {id(inode): inode for inode in self._names.values()}.values():
            if inode is not kept:
                inode.settle(iter(()), keep_size=False)
        self._restart()

    def flip(self, path: str, bit: int) -> None:
        """Flips one bit of a file, in what is durable and in what is read. Bit 0 is the lowest of byte 0."""
        inode = self._file(path)
        for content in (inode.cached, inode.durable):
            if bit // 8 < len(content):
                content[bit // 8] ^= 1 << bit % 8

    def fail(self, call: str, nth: int, code: int) -> None:
        """The ``nth`` call from now (1: the next) of that name fails, once, with this errno.

        A failing ``pwrite`` writes half of its bytes first; a failing ``fdatasync`` forgets what it should have synced.
        """
        self._failures.append((call, self.counts[call] + nth, code))

    def forget_failures(self) -> None:
        """No call that was planned to fail will."""
        self._failures.clear()

    def power_off_after(self, changes: int | None) -> None:
        """So many more calls that change something are done; the next, and all after it, raise :class:`PowerLost`.

        None: the power stays.
        """
        self._changes_left = changes

    @property
    def used_bytes(self) -> int:
        """The sum of the sizes of all files."""
        return sum(len(inode.cached) for inode in self._names.values())

    def paths(self, directory: str) -> list[str]:
        """The files below a directory, in order."""
        return sorted(
            path
            for path, inode in self._names.items()
            if path.startswith(f"{directory}/") and not inode.is_directory
        )

    def unsynced_bytes(self, path: str) -> int:
        """How many bytes were written to the file since its last sync."""
        return sum(len(data) for _, data in self._file(path).unsynced)

    def clone(self) -> "MemoryFiles":
        """The same disk and page cache once more, without handles, locks and planned failures."""
        copies: dict[int, _Inode] = {}

        def copy(inode: _Inode) -> _Inode:
            if id(inode) not in copies:
                copies[id(inode)] = _Inode(
                    bytearray(inode.cached),
                    bytearray(inode.durable),
                    list(inode.unsynced),
                    inode.is_directory,
                )
            return copies[id(inode)]

        other = MemoryFiles(self.capacity_bytes)
        other._names = {name: copy(inode) for name, inode in self._names.items()}
        other._durable_names = {name: copy(inode) for name, inode in self._durable_names.items()}
        other._changes = {
            directory: [tuple((name, inode and copy(inode)) for name, inode in change) for change in changes]
            for directory, changes in self._changes.items()
        }
        return other

    # ---------------------------------------------------------------------------------- inside

    def step(self, call: str) -> None:
        """Counts a call, and raises where this one was planned to fail."""
        if call in _CHANGES and self._changes_left is not None:
            self._changes_left -= 1
            self._is_off = self._changes_left < 0
        if self._is_off:
            raise PowerLost(f"the power went before {call}")
        self.counts[call] += 1
        for failure in self._failures:
            if failure[:2] == (call, self.counts[call]):
                self._failures.remove(failure)
                raise _os_error(failure[2], call)

    def unlock(self, path: str) -> None:
        """Lets go of a lock."""
        self._locked.discard(path)

    def _file(self, path: str) -> _Inode:
        inode = self._names.get(path)
        if inode is None:
            raise _os_error(errno.ENOENT, path)
        if inode.is_directory:
            raise _os_error(errno.EISDIR, path)
        return inode

    def _directory(self, path: str) -> None:
        inode = self._names.get(path)
        if inode is None:
            raise _os_error(errno.ENOENT, path)
        if not inode.is_directory:
            raise _os_error(errno.ENOTDIR, path)

    def _change(self, directory: str, change: _NameChange) -> None:
        _assign(self._names, change)
        self._changes.setdefault(directory, []).append(change)

    def _apply(self, changes: list[_NameChange]) -> None:
        for change in changes:
            _assign(self._durable_names, change)

    def _restart(self) -> None:
        """What is durable is what there is; names below a directory that was lost are lost with it."""
        self._changes.clear()
        durable = self._durable_names
        for name in sorted(durable):  # a directory comes before what is in it
            if name != "/" and _parent(name) not in durable:
                del durable[name]
        self._names = dict(durable)
        self._changes_left = None
        self._is_off = False
        self.kill()


class _BadHandle(OSError):
    """A handle that was closed, or whose process has died."""


class _MemoryFile:
    """A handle; one from before a crash is bad."""

    def __init__(self, files: MemoryFiles, inode: _Inode, path: str) -> None:
        self._files = files
        self._inode = inode
        self._path = path
        self._epoch = files.epoch
        self._closed = False

    def pread(self, length: int, offset: int) -> bytes:
        self._check("pread")
        return bytes(self._inode.cached[offset : offset + length])

    def pwrite(self, data: bytes, offset: int) -> None:
        try:
            self._check("pwrite")
        except _BadHandle:
            raise
        except OSError:
            self._write(data[: len(data) // 2], offset)
            raise
        self._write(data, offset)

    def size(self) -> int:
        return len(self._inode.cached)

    def fdatasync(self) -> None:
        try:
            self._check("fdatasync")
        except _BadHandle:
            raise
        except OSError:
            self._inode.unsynced.clear()
            raise
        self._inode.sync()

    def close(self) -> None:
        self._closed = True

    def _check(self, call: str) -> None:
        if self._closed or self._epoch != self._files.epoch:
            raise _BadHandle(errno.EBADF, os.strerror(errno.EBADF), self._path)
        self._files.step(call)

    def _write(self, data: bytes, offset: int) -> None:
        cached = self._inode.cached
        if len(cached) < offset + len(data):
            cached.extend(bytes(offset + len(data) - len(cached)))
        cached[offset : offset + len(data)] = data
        self._inode.unsynced.append((offset, bytes(data)))


class _MemoryLock:
    """A lock; one from before a crash locks nothing any more."""

    def __init__(self, files: MemoryFiles, path: str) -> None:
        self._files = files
        self._path = path
        self._epoch = files.epoch

    def release(self) -> None:
        if self._epoch == self._files.epoch:
            self._files.unlock(self._path)
            self._epoch = -1


def _os_error(code: int, path: str) -> OSError:
    return OSError(code, os.strerror(code), path)


@lru_cache(maxsize=4_096)
def _parent(path: str) -> str:
    return os.path.dirname(path)


def _assign(names: dict[str, _Inode], change: _NameChange) -> None:
    for name, inode in change:
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode


def _draw(rng: Random, mode: CrashMode) -> CrashMode:
    return rng.choice(_PURE_MODES) if mode is CrashMode.MIXED else mode


def _surviving_changes(changes: list[_NameChange], rng: Random, mode: CrashMode) -> list[_NameChange]:
    if mode is CrashMode.DROP:
        return []
    if mode is CrashMode.KEEP:
        return changes
    if mode is CrashMode.TEAR:
        return changes[: rng.randint(0, len(changes))]
    return [change for change in changes if rng.random() < 0.5]


def _surviving_bytes(
    unsynced: list[tuple[int, bytes]], rng: Random, mode: CrashMode
) -> Iterator[tuple[int, bytes]]:
    if mode is CrashMode.DROP:
        return iter(())
    if mode is CrashMode.KEEP:
        return iter(unsynced)
    if mode is CrashMode.TEAR:
        return _prefix(unsynced, rng.randint(0, sum(len(data) for _, data in unsynced)))
    fates: dict[int, bool] = {}
    kept_share = rng.random()
    return _sectors(unsynced, lambda sector: fates.setdefault(sector, rng.random() < kept_share))


def _prefix(unsynced: list[tuple[int, bytes]], keep: int) -> Iterator[tuple[int, bytes]]:
    """The first ``keep`` bytes that were written."""
    for offset, data in unsynced:
        if keep <= 0:
            return
        yield offset, data[:keep]
        keep -= len(data)


def _sectors(unsynced: list[tuple[int, bytes]], keep: Callable[[int], bool]) -> Iterator[tuple[int, bytes]]:
    """What was written into the sectors that ``keep`` keeps, in the order it was written."""
    for offset, data in unsynced:
        at = 0
        while at < len(data):
            sector = (offset + at) // SECTOR_BYTES
            end = min(len(data), (sector + 1) * SECTOR_BYTES - offset)
            if keep(sector):
                yield offset + at, data[at:end]
            at = end
