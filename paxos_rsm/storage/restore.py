"""Founding a member of a new cluster on a backup: what ``paxos-rsm snapshot restore`` does to a directory.

The backup becomes ``initial`` (initial.py), and the identity names it: drawn anew, never started. The identity comes
last, and a directory that has ``initial``, whole or half written, without it was left by a restore that was cut short:
no server starts on it, and the same command does it again. One that fails, and is not cut short, leaves nothing.
"""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable

from paxos_rsm.errors import DirectoryUnusable, DiskFull
from paxos_rsm.storage.backup_format import (
    END,
    HEAD_BYTES,
    SLICE_HEAD,
    Backup,
    BackupHead,
    check_backup,
    encode_head,
    padding,
)
from paxos_rsm.storage.base import DrawBits
from paxos_rsm.storage.directory import make_and_lock, sync_above
from paxos_rsm.storage.files import File, FileSystem, is_no_space, storage_error
from paxos_rsm.storage.identity import Identity, write_identity
from paxos_rsm.storage.initial import INITIAL_NAME, NEXT_INITIAL_NAME

__all__ = ["copy_backup", "restore_directory", "write_backup"]

_LEFT_OVERS = frozenset(["LOCK", INITIAL_NAME, NEXT_INITIAL_NAME, "identity.new"])
"""What a restore that was cut short leaves."""
_COPY_BYTES = 1 << 20
_SYNC_BYTES = 8 << 20


def restore_directory(
    files: FileSystem,
    path: str | os.PathLike[str],
    fill: Callable[[File], None],
    *,
    name: str,
    member_id: int,
    cluster_id_of: Callable[[str], int],
    draw_bits: DrawBits,
) -> tuple[Identity, Backup]:
    """Makes the data directory of the member ``name``, whose state before slot 1 is what ``fill`` writes.

    ``cluster_id_of`` gives the cluster's id from the checksum of that state, so that members which were restored from
    different ones can never form one cluster. Raises DirectoryUnusable where something is in the directory already,
    DirectoryLocked, SnapshotDamaged where what was written is no backup, LogIOError and DiskFull.
    """
    directory = os.path.abspath(path)
    _require_empty(files, directory)
    lock = make_and_lock(files, directory)
    try:
        _require_empty(files, directory)
        backup = _write_initial(files, directory, fill)
        files.rename(f"{directory}/{NEXT_INITIAL_NAME}", f"{directory}/{INITIAL_NAME}")
        files.sync_directory(directory)
        sync_above(files, directory)
        incarnation = 0
        while incarnation == 0:
            incarnation = draw_bits(63)
        identity = Identity(
            cluster_id_of(backup.sha256), member_id, name, incarnation, restored_from=backup.sha256
        )
        write_identity(files, directory, identity)
    except OSError as error:
        if is_no_space(error):
            raise DiskFull(
                f"no space left while restoring into {directory}: {error.strerror}. Free some on that disk, and run "
                "the same command again"
            ) from error
        raise storage_error(error, f"restoring into {directory}") from error
    finally:
        lock.release()
    return identity, backup


def _write_initial(files: FileSystem, directory: str, fill: Callable[[File], None]) -> Backup:
    """The state, durable under the name that it has until it is whole."""
    path = f"{directory}/{NEXT_INITIAL_NAME}"
    try:
        with contextlib.closing(files.create(path, 0)) as file:
            fill(file)
            backup = check_backup(file, f"{directory}/{INITIAL_NAME}")
            file.fdatasync()
    except Exception:
        with contextlib.suppress(OSError):
            files.remove(path)
        raise
    return backup


def _require_empty(files: FileSystem, directory: str) -> None:
    try:
        names = files.names(directory)
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(error, f"looking into {directory}") from error
    found = sorted(set(names) - _LEFT_OVERS)
    if found:
        raise DirectoryUnusable(
            f"{directory} is not empty: it holds {', '.join(found[:5])}. A backup is restored into a directory of its "
            "own (--data-dir); nothing was changed"
        )


def copy_backup(source: File) -> Callable[[File], None]:
    """Fills a file with a backup as it is."""

    def fill(file: File) -> None:
        size = source.size()
        for at in range(0, size, _COPY_BYTES):
            file.pwrite(source.pread(_COPY_BYTES, at), at)
            if at % _SYNC_BYTES == 0:
                file.fdatasync()

    return fill


def write_backup(file: File, head: BackupHead, slices: Iterable[bytes]) -> None:
    """Writes a whole backup into an empty file; ``head.bytes`` is worked out. Empty slices are no part of it."""
    at = HEAD_BYTES
    for each in slices:
        if each:
            file.pwrite(SLICE_HEAD.pack(len(each)) + each, at)
            at += SLICE_HEAD.size + len(each)
    file.pwrite(END, at)
    size = at + len(END) - HEAD_BYTES
    head = dataclasses.replace(head, bytes=size)
    file.pwrite(encode_head(head), 0)
    end = HEAD_BYTES + size + len(padding(size))
    file.pwrite(padding(size), HEAD_BYTES + size)
    hashed = hashlib.sha256()
    for start in range(0, end, _COPY_BYTES):
        hashed.update(file.pread(min(_COPY_BYTES, end - start), start))
    file.pwrite(hashed.digest(), end)
