"""Making a data directory another member's, in place, so that a loss of power at any moment leaves one or the other.

It is what ``--force-new-cluster`` does to the survivor of a cluster that has lost its majority for good: the same
state, under a new incarnation, in a cluster of its own. The order::

    1. snapshots/SLOT.snapshot.next    the state, as a snapshot of the new cluster; durable with its name
    2. identity.next                   who the directory belongs to from now on; durable with its name: the decision
    3. log/, initial, other snapshots  removed: they are the old member's
    4. SLOT.snapshot.next -> SLOT.snapshot
    5. identity.next -> identity       done: an identity that has never run, with a snapshot and without a log

Before 2 nothing has happened, and what there is of 1 is cleared away by the next start. From 2 on every start, of a
server or of the command, first goes through 3 to 5, each of which may be done twice.
"""

import contextlib
from collections.abc import Iterable

from paxos_rsm.errors import LogDamaged
from paxos_rsm.storage.files import FileSystem
from paxos_rsm.storage.identity import (
    IDENTITY_NAME,
    NEXT_IDENTITY_NAME,
    Identity,
    read_identity,
    write_identity,
)
from paxos_rsm.storage.initial import INITIAL_NAME
from paxos_rsm.storage.snapshot_format import SnapshotEncoder, SnapshotMeta

__all__ = ["decide_replacement", "finish_replacement", "stage_snapshot"]

_LOG_NAME = "log"
_SNAPSHOTS_NAME = "snapshots"
_NEXT = ".next"
_SNAPSHOT = ".snapshot"
_DIGITS = 19
_WRITE_BYTES = 1 << 20


def stage_snapshot(files: FileSystem, directory: str, meta: SnapshotMeta, slices: Iterable[bytes]) -> None:
    """Step 1. Raises OSError."""
    snapshots = f"{directory}/{_SNAPSHOTS_NAME}"
    files.mkdir(snapshots)
    files.sync_directory(directory)
    encoder = SnapshotEncoder(meta)
    path = f"{snapshots}/{meta.slot:0{_DIGITS}d}{_SNAPSHOT}{_NEXT}"
    parts, waiting, written = [encoder.header], len(encoder.header), 0
    with contextlib.closing(files.create(path, 0)) as file:
        for each in slices:
            if not each:
                continue
            for part in encoder.slice(each):
                parts.append(part)
                waiting += len(part)
            if waiting >= _WRITE_BYTES:
                file.pwrite(b"".join(parts), written)
                written += waiting
                parts, waiting = [], 0
        parts.append(encoder.end())
        file.pwrite(b"".join(parts), written)
        file.fdatasync()
    files.sync_directory(snapshots)


def decide_replacement(files: FileSystem, directory: str, identity: Identity) -> None:
    """Step 2. Raises OSError."""
    write_identity(files, directory, identity, NEXT_IDENTITY_NAME)


def finish_replacement(files: FileSystem, directory: str) -> None:
    """Steps 3 to 5 where it was decided; else what there is of step 1 is cleared away.

    To be called by whoever holds the directory's lock. Raises OSError, and LogDamaged where the new identity does not
    hold, or its snapshot is not there.
    """
    snapshots = f"{directory}/{_SNAPSHOTS_NAME}"
    names = _names(files, snapshots)
    if read_identity(files, directory, NEXT_IDENTITY_NAME) is None:
        for name in names:
            if name.endswith(_NEXT):
                files.remove(f"{snapshots}/{name}")
        return
    # The new one is of a later slot than all others; it has its name already where a crash came after step 4.
    newest = max((name for name in names if name.endswith((_SNAPSHOT, _NEXT))), default=None)
    if newest is None:
        raise LogDamaged(
            f"{directory}/{NEXT_IDENTITY_NAME} says that this directory becomes a new cluster's, and the snapshot "
            f"that goes with it is missing in {snapshots}. Put back the copy of the directory that was made before"
        )
    _clear(files, f"{directory}/{_LOG_NAME}")
    with contextlib.suppress(FileNotFoundError):
        files.remove(f"{directory}/{INITIAL_NAME}")
    for name in names:
        if name != newest:
            files.remove(f"{snapshots}/{name}")
    if newest.endswith(_NEXT):
        files.rename(f"{snapshots}/{newest}", f"{snapshots}/{newest.removesuffix(_NEXT)}")
    files.sync_directory(snapshots)
    files.rename(f"{directory}/{NEXT_IDENTITY_NAME}", f"{directory}/{IDENTITY_NAME}")
    files.sync_directory(directory)


def _clear(files: FileSystem, directory: str) -> None:
    names = _names(files, directory)
    for name in names:
        files.remove(f"{directory}/{name}")
    if names:
        files.sync_directory(directory)


def _names(files: FileSystem, directory: str) -> list[str]:
    try:
        return files.names(directory)
    except FileNotFoundError:
        return []
