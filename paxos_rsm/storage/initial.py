"""The state that slot 1 goes on from, where that is not an empty one: a backup, in the data directory as ``initial``.

``paxos-rsm snapshot restore`` puts it there, in a directory that is made by it, and its checksum into the identity
(``restored_from``), of which the cluster's id is made. It is restored into the state machine at a start where no
snapshot is newer; once the log has been compacted it is of no use to anybody and goes.

Why not a snapshot of slot 0: a snapshot of the data directory says which configuration governs the next slot, and
before slot 1 there is none; it is sent to peers, which this is not; and it holds sessions, of which a new log has
none.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from paxos_rsm.errors import SnapshotDamaged
from paxos_rsm.storage.backup_format import Backup, check_backup, read_slices
from paxos_rsm.storage.files import FileSystem, storage_error

__all__ = ["INITIAL_NAME", "NEXT_INITIAL_NAME", "InitialState", "read_initial"]

INITIAL_NAME = "initial"
NEXT_INITIAL_NAME = "initial.new"
"""While it is written: a restore that was cut short leaves it behind."""


class InitialState(NamedTuple):
    """What stands before slot 1. ``slices`` are read from the disk as they are taken."""

    backup: Backup
    slices: Iterator[bytes]


def read_initial(files: FileSystem, directory: str, restored_from: str) -> InitialState:
    """The state that the directory began with, checked whole.

    Raises SnapshotDamaged where it is missing or is not what ``restored_from`` says, and StorageError.
    """
    path = f"{directory}/{INITIAL_NAME}"
    try:
        with contextlib.closing(files.open(path)) as file:
            backup = check_backup(file, path)
    except FileNotFoundError:
        raise SnapshotDamaged(
            f"{path} is missing: the state that this directory was restored with. Put the file back, or remove this "
            "member from the cluster and add it anew with an empty data directory"
        ) from None
    except OSError as error:
        raise storage_error(error, f"reading {path}") from error
    if backup.sha256 != restored_from:
        raise SnapshotDamaged(
            f"{path} is the backup {backup.sha256}, and this directory was restored from {restored_from}. Put back the "
            "files that belong together; do not mix data directories"
        )
    return InitialState(backup, _slices(files, backup))


def _slices(files: FileSystem, backup: Backup) -> Iterator[bytes]:
    try:
        with contextlib.closing(files.open(backup.path)) as file:
            yield from read_slices(file, backup)
    except OSError as error:
        raise storage_error(error, f"reading {backup.path}") from error
