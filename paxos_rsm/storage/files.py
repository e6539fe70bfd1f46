"""The small file-system interface that the storage is written against, and the real one.

Everything in this package reaches a disk through :class:`FileSystem`, so that the simulator runs the very same code
over :class:`paxos_rsm.storage.memory.MemoryFiles`. What the interface promises is what POSIX promises, and no more:

- bytes written are durable once :meth:`File.fdatasync` of that file has returned; before that a loss of power may
  keep any of them, at least in whole 512-byte sectors;
- a name that was created, renamed or removed is so for good once :meth:`FileSystem.sync_directory` of its directory has
  returned; a rename is atomic;
- a failed sync is told once: the bytes may be lost although they can still be read, so nobody may sync again and
  believe it (Rebello et al., *Can Applications Recover from fsync Failures?*, ATC 2020).

Failures are OSError as the system raises them; the callers know what was being done and turn them into the typed
errors of :mod:`paxos_rsm.errors` with :func:`storage_error`.
"""

import contextlib
import errno
import fcntl
import os
from typing import Protocol

from paxos_rsm.errors import DirectoryUnusable, DiskFull, LogIOError, StorageError

__all__ = [
    "SECTOR_BYTES",
    "File",
    "FileSystem",
    "Lock",
    "RealFiles",
    "is_no_space",
    "open_read_only",
    "storage_error",
]

SECTOR_BYTES = 512
"""The least that a disk writes whole: a sector is all old or all new after a loss of power."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR)
_ZEROS = bytes(1 << 20)


class File(Protocol):
    """An open file. Offsets and sizes in bytes."""

    def pread(self, length: int, offset: int) -> bytes:
        """Up to ``length`` bytes; fewer only at the end of the file."""
        ...

    def pwrite(self, data: bytes, offset: int) -> None:
        """Writes all of ``data``, or raises after any part of it."""
        ...

    def size(self) -> int:
        """The length of the file."""
        ...

    def fdatasync(self) -> None:
        """Returns once what was written to this file, and its length, are durable."""
        ...

    def close(self) -> None:
        """Gives the handle back. Syncs nothing. Closing twice is allowed."""
        ...


class Lock(Protocol):
    """A lock that is held until it is released or the process ends."""

    def release(self) -> None:
        """Lets go of it. Releasing twice is allowed."""
        ...


class FileSystem(Protocol):
    """What the storage needs of a file system. Paths are absolute, joined with ``/``."""

    def open(self, path: str) -> File:
        """An existing file, to read and write. Raises FileNotFoundError."""
        ...

    def create(self, path: str, size: int) -> File:
        """A new file of ``size`` zero bytes, with their space allocated; one of that name is replaced."""
        ...

    def read(self, path: str) -> bytes:
        """The whole file. Raises FileNotFoundError."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Gives a file of the same directory another name, in place of whatever had it, atomically."""
        ...

    def remove(self, path: str) -> None:
        """Removes a file. Raises FileNotFoundError."""
        ...

    def names(self, path: str) -> list[str]:
        """The names in a directory, sorted. Raises FileNotFoundError."""
        ...

    def mkdir(self, path: str) -> bool:
        """Makes one directory; False where it was there already."""
        ...

    def sync_directory(self, path: str) -> None:
        """Returns once the names in this directory are durable."""
        ...

    def lock(self, path: str, note: bytes) -> Lock:
        """Locks a file, made where missing, and writes ``note`` into it for others to read.

        Raises BlockingIOError where somebody else holds it.
        """
        ...


def is_no_space(error: OSError) -> bool:
    """Whether the disk, or a quota on it, is full."""
    return error.errno in _NO_SPACE


def storage_error(error: OSError, what: str) -> StorageError:
    """The typed error for a failed ``what`` ("writing the log /d/log")."""
    if is_no_space(error):
        return DiskFull(
            f"no space left while {what}: {error.strerror}. This server has stopped voting; free some space on the "
            "disk and start it again"
        )
    if error.errno in _NOT_ALLOWED:
        return DirectoryUnusable(
            f"the data directory cannot be used: {error.strerror} while {what}. Give this server a directory that it "
            "may read and write (--data-dir)"
        )
    return LogIOError(
        f"an I/O error while {what}: {error.strerror or error}. It is not retried, because the system reports a lost "
        "write only once; check the disk, then start this server again"
    )


class _RealFile:
    """A file descriptor."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def pread(self, length: int, offset: int) -> bytes:
        parts: list[bytes] = []
        while length > 0 and (part := os.pread(self._fd, length, offset)):
            parts.append(part)
            length -= len(part)
            offset += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def pwrite(self, data: bytes, offset: int) -> None:
        written = os.pwrite(self._fd, data, offset)
        if written < len(data):  # rare: a signal, or a disk about to be full
            rest = memoryview(data)[written:]
            while rest:
                offset += written
                written = os.pwrite(self._fd, rest, offset)
                if written == 0:
                    raise OSError(errno.EIO, "the system wrote nothing and reported no error")
                rest = rest[written:]

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def fdatasync(self) -> None:
        os.fdatasync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _RealLock:
    """An flock, which the kernel drops with the descriptor, however the process ends."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class RealFiles:
    """The file system of this machine. Files are readable by their owner only."""

    def open(self, path: str) -> File:
        return _RealFile(os.open(path, os.O_RDWR | os.O_CLOEXEC))

    def create(self, path: str, size: int) -> File:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            if size:
                _allocate(fd, size)
        except BaseException:
            os.close(fd)
            raise
        return _RealFile(fd)

    def read(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new)

    def remove(self, path: str) -> None:
        os.remove(path)

    def names(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def mkdir(self, path: str) -> bool:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if not os.path.isdir(path):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None
            return False
        return True

    def sync_directory(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError as error:
            if (
                error.errno != errno.EINVAL
            ):  # how a file system says that it cannot sync a directory, and need not
                raise
        finally:
            os.close(fd)

    def lock(self, path: str, note: bytes) -> Lock:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The note only helps whoever comes second; a full disk must not keep a server from its own lock.
            with contextlib.suppress(OSError):
                os.ftruncate(fd, 0)
                os.pwrite(fd, note, 0)
        except BaseException:
            os.close(fd)
            raise
        return _RealLock(fd)


def open_read_only(path: str) -> File:
    """An existing file that need not be ours to write. Raises OSError, also where something is written to it."""
    return _RealFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def _allocate(fd: int, size: int) -> None:
    """Makes the file ``size`` zero bytes long with the space reserved, by writing where it cannot be asked for."""
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        file = _RealFile(fd)
        for at in range(0, size, len(_ZEROS)):
            file.pwrite(_ZEROS[: size - at], at)
