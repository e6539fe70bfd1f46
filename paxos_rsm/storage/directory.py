"""The data directory: locked, identified, its log read, in one call.

    LOCK        held by the one process that uses the directory; says its process id
    identity    identity.py
    initial     initial.py: only where the first state was restored
    log/        segments.py, start.py
    snapshots/  snapshots.py

Opening it, in this order: lock; what replacement.py has begun; identity; snapshots; log; boot count. On the very first
start each step is durable before the next is taken, and the boot count is raised from zero last, before anybody hears
of this member. So a start that was cut short at any point is taken up again by the next, and a directory that has ever
been used is never begun anew in silence: an identity without its log, or a log without its identity, is refused
(rule 9).

*Log and snapshots.* A snapshot may be ahead of the log, where a crash came between the two, or where the end of the log
that said what is decided was never synced: then the log is compacted through it before anything else. The log may be
ahead of every snapshot, where the one it was compacted for is damaged or gone: then the votes are sound and the
state is not here. Such a server may start (``snapshot_missing``) and vote, and has to fetch a snapshot before it
applies or serves anything.
"""

import contextlib
import dataclasses
import errno
import os

from paxos_rsm.errors import DirectoryLocked, DirectoryUnusable, DiskFull, IdentityMismatch, LogDamaged
from paxos_rsm.paxos.ready import WriteCompacted
from paxos_rsm.paxos.types import NO_BALLOT
from paxos_rsm.storage.base import DrawBits, Recovered
from paxos_rsm.storage.files import FileSystem, Lock, storage_error
from paxos_rsm.storage.identity import IDENTITY_NAME, Identity, read_identity, write_identity
from paxos_rsm.storage.initial import INITIAL_NAME, NEXT_INITIAL_NAME, InitialState, read_initial
from paxos_rsm.storage.recovery import has_segments
from paxos_rsm.storage.replacement import finish_replacement
from paxos_rsm.storage.segments import SEGMENT_BYTES, SegmentLog
from paxos_rsm.storage.snapshots import SnapshotStore

__all__ = ["LOG_NAME", "SNAPSHOTS_NAME", "DataDirectory", "lock_directory", "make_and_lock", "sync_above"]

_LOCK_NAME = "LOCK"
LOG_NAME = "log"
SNAPSHOTS_NAME = "snapshots"
_ADD_ANEW = "remove this member from the cluster and add it anew with an empty data directory"


class DataDirectory:
    """An open data directory. ``recovered`` is what its log remembered; ``log`` goes on from there.

    ``snapshots`` holds what the log was compacted for, unless :attr:`snapshot_missing`: no slot that is neither in the
    newest snapshot nor in the log has ever been decided here. ``identity.boot_count`` is that of this start, 1 on the
    first, and durable.
    """

    def __init__(
        self,
        path: str,
        files: FileSystem,
        lock: Lock,
        identity: Identity,
        log: SegmentLog,
        recovered: Recovered,
        snapshots: SnapshotStore,
        hold_owed_us: int = 0,
    ) -> None:
        self.path = path
        self._files = files
        self.identity = identity
        self.log = log
        self.recovered = recovered
        self.snapshots = snapshots
        self.hold_owed_us = hold_owed_us
        """``identity.hold_us`` as the processes before this one had left it: the last may have been killed just now."""
        self._lock = lock

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        files: FileSystem,
        *,
        cluster_id: int,
        member_id: int,
        name: str,
        draw_bits: DrawBits,
        segment_bytes: int = SEGMENT_BYTES,
        joined: bool = False,
        repair: bool = False,
        hold_us: int = 0,
    ) -> "DataDirectory":
        """Opens the directory of the member ``name``, and makes it where there is nothing.

        ``draw_bits`` is where an incarnation comes from: ``secrets.randbits`` in a server. ``joined`` is remembered in
        a directory that is made: its ids come from a cluster that runs, and are not compared at later starts.
        ``repair``: entries of the log that cannot be read any more are told by ``recovered.unreadable``, and are no
        reason to refuse. ``hold_us``: see Identity; it is durable before anything is said.

        Raises DirectoryLocked, DirectoryUnusable, IdentityMismatch, LogDamaged, LogIOError, DiskFull, and UnknownEntry
        or InvariantViolation for what a newer version or a bug has written.
        """
        directory = os.path.abspath(path)
        lock = make_and_lock(files, directory)
        try:
            finish_replacement(files, directory)
            identity = _identify(
                files, directory, Identity(cluster_id, member_id, name, 0, joined=joined), draw_bits
            )
            snapshots = SnapshotStore.open(files, f"{directory}/{SNAPSHOTS_NAME}")
            log, recovered = SegmentLog.open(
                files,
                f"{directory}/{LOG_NAME}",
                owner=identity.incarnation,
                draw_bits=draw_bits,
                create=identity.boot_count == 0,
                segment_bytes=segment_bytes,
                repair=repair,
            )
            try:
                if identity.boot_count == 0 and (recovered.slots or recovered.promised != NO_BALLOT):
                    raise LogDamaged(
                        f"{directory}/{IDENTITY_NAME} is older than the log beside it: it says that no server has run "
                        f"here yet, and the log holds votes. Put back the files that belong together, or {_ADD_ANEW}"
                    )
                _reconcile(snapshots, log, recovered, identity)
                hold_owed_us = identity.hold_us
                identity = identity.started(hold_us)
                write_identity(files, directory, identity)
                if recovered.compacted_through or not identity.restored_from:
                    with contextlib.suppress(FileNotFoundError):
                        files.remove(f"{directory}/{INITIAL_NAME}")
            except BaseException:
                log.close()
                raise
        except OSError as error:
            lock.release()
            raise storage_error(error, f"opening the data directory {directory}") from error
        except BaseException:
            lock.release()
            raise
        return cls(directory, files, lock, identity, log, recovered, snapshots, hold_owed_us)

    @property
    def snapshot_missing(self) -> bool:
        """Whether the state that the log goes on from is in no snapshot here; to be asked again once one is damaged.

        It has to come from a peer before anything is applied or served. Votes and promise are sound all the same.
        """
        newest = self.snapshots.newest()
        return self.recovered.compacted_through > (newest.slot if newest is not None else 0)

    def initial(self) -> InitialState | None:
        """The state that slot 1 goes on from; None where that is an empty one, or where the log starts later.

        Raises SnapshotDamaged where it is missing or does not hold, and StorageError. Reads all of it.
        """
        if not self.identity.restored_from or self.recovered.compacted_through:
            return None
        return read_initial(self._files, self.path, self.identity.restored_from)

    def close(self) -> None:
        """Closes the log, if nobody has, and lets go of the lock. Raises LogIOError and DiskFull, the lock released."""
        try:
            self.log.close()
        finally:
            self._lock.release()


def make_and_lock(files: FileSystem, directory: str) -> Lock:
    """Makes the directory where it is missing, and locks it. Raises as :func:`lock_directory` does."""
    try:
        _make_directories(files, directory)
    except OSError as error:
        raise _unusable(directory, error) from error
    return lock_directory(files, directory)


def lock_directory(files: FileSystem, directory: str) -> Lock:
    """Locks a directory that is there. Raises DirectoryLocked, DirectoryUnusable, DiskFull."""
    path = f"{directory}/{_LOCK_NAME}"
    try:
        return files.lock(path, f"{os.getpid()}\n".encode())
    except BlockingIOError as error:
        raise DirectoryLocked(
            f"the data directory {directory} is in use by {_holder(files, path)}. Stop that one, or give this server a "
            "directory of its own (--data-dir)"
        ) from error
    except OSError as error:
        raise _unusable(directory, error) from error


def _unusable(directory: str, error: OSError) -> DiskFull | DirectoryUnusable:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"no space left to make the data directory {directory}; free some, then start again")
    return DirectoryUnusable(
        f"the data directory {directory} cannot be made or written: {error.strerror or error}. Give this server a "
        "directory that it may read and write (--data-dir)"
    )


def _holder(files: FileSystem, path: str) -> str:
    """Who holds the lock, as far as can be told."""
    try:
        note = files.read(path).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        note = ""
    return f"the process {note}" if note.isdigit() else "another process"


def _make_directories(files: FileSystem, directory: str) -> None:
    """Makes a directory and those above it that are missing."""
    try:
        files.mkdir(directory)
    except FileNotFoundError:
        _make_directories(files, os.path.dirname(directory))
        files.mkdir(directory)


def _identify(files: FileSystem, directory: str, wanted: Identity, draw_bits: DrawBits) -> Identity:
    """The identity of the directory, made where nothing was ever there; on a first start, a place for the log too.

    ``wanted`` is who the server was started as, without an incarnation.
    """
    log_directory = f"{directory}/{LOG_NAME}"
    identity = read_identity(files, directory)
    if identity is None:
        if has_segments(files, log_directory):
            raise LogDamaged(
                f"{directory}/{IDENTITY_NAME} is missing, and there is a log beside it, so it cannot be told under "
                "which incarnation this member has voted. Restore the file from a copy of this very directory, or "
                f"{_ADD_ANEW}"
            )
        if not {INITIAL_NAME, NEXT_INITIAL_NAME}.isdisjoint(files.names(directory)):
            raise DirectoryUnusable(
                f"a restore into {directory} was cut short: run the same `paxos-rsm snapshot restore` again, or give "
                "this server a directory of its own (--data-dir)"
            )
        incarnation = 0
        while incarnation == 0:
            incarnation = draw_bits(63)
        identity = dataclasses.replace(wanted, incarnation=incarnation)
        write_identity(files, directory, identity)
    identity.check(directory, cluster_id=wanted.cluster_id, member_id=wanted.member_id, name=wanted.name)
    if identity.boot_count == 0:
        files.mkdir(log_directory)
        files.sync_directory(directory)
        sync_above(files, directory)
    return identity


def _reconcile(snapshots: SnapshotStore, log: SegmentLog, recovered: Recovered, identity: Identity) -> None:
    """Brings the log up to a snapshot that is ahead of it: what it may hold below need not be what was decided."""
    newest = snapshots.newest()
    if newest is None:
        return
    if newest.meta.cluster_id != identity.cluster_id:
        raise IdentityMismatch(
            f"{newest.path} is a snapshot of the cluster {newest.meta.cluster_id:x}, and the identity file says "
            f"{identity.cluster_id:x}. Put back the files that belong together; do not mix data directories"
        )
    if newest.slot > recovered.decided_through:
        compacted = WriteCompacted(newest.slot)
        log.append([compacted])
        recovered.apply(compacted)


def sync_above(files: FileSystem, directory: str) -> None:
    """Makes durable the names of the directories above, which this or an earlier start may have made."""
    while directory != "/":
        directory = os.path.dirname(directory)
        try:
            files.sync_directory(directory)
        except PermissionError:
            return  # not ours to read, hence not ours to have made
