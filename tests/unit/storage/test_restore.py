"""A directory that begins with a restored state: made whole or not at all, and never taken for an empty one."""

import errno
from collections.abc import Iterator
from random import Random

import pytest

from paxos_rsm.errors import DirectoryLocked, DirectoryUnusable, DiskFull, LogDamaged, SnapshotDamaged
from paxos_rsm.paxos.ready import WriteCompacted, WriteDecided, WriteDecidedThrough
from paxos_rsm.paxos.types import Noop
from paxos_rsm.storage.backup_format import BackupHead, check_backup, read_slices
from paxos_rsm.storage.directory import DataDirectory
from paxos_rsm.storage.files import File
from paxos_rsm.storage.identity import Identity, read_identity, write_identity
from paxos_rsm.storage.memory import CrashMode, MemoryFiles, PowerLost
from paxos_rsm.storage.restore import copy_backup, restore_directory, write_backup
from paxos_rsm.storage.segments import SEGMENT_BYTES_MIN
from tests.unit.storage.helpers import backup_bytes, take

PATH = "/var/paxos/n1"
SLICES = [b"one", b"\0" * 3_000, b"three"]
BACKUP = backup_bytes(SLICES)
SHA256 = BACKUP[-32:].hex()


def cluster_id_of(sha256: str) -> int:
    return int(sha256[:8], 16)


def restore(
    files: MemoryFiles, data: bytes = BACKUP, seed: int = 1, error: OSError | None = None
) -> Identity:
    def fill(file: File) -> None:
        file.pwrite(data, 0)
        if error is not None:
            raise error

    identity, _ = restore_directory(
        files,
        PATH,
        fill,
        name="n1",
        member_id=11,
        cluster_id_of=cluster_id_of,
        draw_bits=Random(seed).getrandbits,
    )
    return identity


def start(files: MemoryFiles) -> DataDirectory:
    return DataDirectory.open(
        PATH,
        files,
        cluster_id=cluster_id_of(SHA256),
        member_id=11,
        name="n1",
        draw_bits=Random(2).getrandbits,
        segment_bytes=SEGMENT_BYTES_MIN,
    )


def slices(directory: DataDirectory) -> list[bytes] | None:
    initial = directory.initial()
    return list(initial.slices) if initial is not None else None


def test_a_server_starts_with_what_was_restored() -> None:
    files = MemoryFiles()
    identity = restore(files)
    assert (identity.restored_from, identity.cluster_id, identity.boot_count) == (
        SHA256,
        cluster_id_of(SHA256),
        0,
    )
    files.crash(Random(1), CrashMode.DROP)
    for boot in (1, 2):
        directory = start(files)
        assert slices(directory) == SLICES
        assert directory.recovered.is_empty
        assert not directory.snapshot_missing
        assert (directory.identity.boot_count, directory.identity.incarnation) == (boot, identity.incarnation)
        assert directory.identity.restored_from == SHA256
        directory.close()


def test_each_restore_draws_another_incarnation() -> None:
    assert restore(MemoryFiles(), seed=1).incarnation != restore(MemoryFiles(), seed=2).incarnation


@pytest.mark.parametrize("mode", list(CrashMode))
def test_a_loss_of_power_at_any_moment_leaves_a_directory_that_can_be_restored_or_is(mode: CrashMode) -> None:
    changes, done = 0, False
    while not done:
        files = MemoryFiles()
        files.power_off_after(changes)
        try:
            restore(files)
            done = True
        except PowerLost:
            pass
        files.crash(Random(changes), mode)
        try:
            found = read_identity(files, PATH)
        except FileNotFoundError:
            found = None
        if found is None:
            if {"initial", "initial.new"} & set(names(files)):
                with pytest.raises(DirectoryUnusable):
                    start(files)
            restore(files)
        directory = start(files)
        assert slices(directory) == SLICES
        directory.close()
        changes += 1
    assert changes > 8


def names(files: MemoryFiles) -> list[str]:
    try:
        return files.names(PATH)
    except FileNotFoundError:
        return []


def test_a_restore_that_was_cut_short_is_no_empty_directory() -> None:
    files = MemoryFiles()
    restore(files)
    files.remove(f"{PATH}/identity")
    with pytest.raises(
        DirectoryUnusable, match="was cut short: run the same `paxos-rsm snapshot restore` again"
    ):
        start(files)
    restore(files)
    assert slices(start(files)) == SLICES


def test_what_is_half_written_is_no_empty_directory() -> None:
    """A server that began empty on it would serve an empty store in place of the backup."""
    files = MemoryFiles()
    restore(files)
    files.remove(f"{PATH}/identity")
    files.rename(f"{PATH}/initial", f"{PATH}/initial.new")
    with pytest.raises(DirectoryUnusable, match="was cut short"):
        start(files)


def test_a_restore_that_fails_leaves_nothing() -> None:
    files = MemoryFiles()
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(DiskFull, match="Free some on that disk, and run the same command again"):
        restore(files, error=full)
    with pytest.raises(SnapshotDamaged):
        restore(files, b"no backup")
    assert names(files) == ["LOCK"]


def test_a_directory_that_holds_anything_is_refused_and_left_alone() -> None:
    files = MemoryFiles()
    restore(files)
    before = {path: files.read(path) for path in files.paths(PATH)}
    with pytest.raises(DirectoryUnusable, match=r"is not empty: it holds identity\. .* nothing was changed"):
        restore(files)
    assert {path: files.read(path) for path in files.paths(PATH)} == before


def test_a_directory_that_is_in_use_is_refused() -> None:
    files = MemoryFiles()
    for directory in ("/var", "/var/paxos", PATH):
        files.mkdir(directory)
    files.lock(f"{PATH}/LOCK", b"12\n")
    with pytest.raises(DirectoryLocked):
        restore(files)


def test_what_is_no_backup_leaves_no_member() -> None:
    files = MemoryFiles()
    with pytest.raises(SnapshotDamaged):
        restore(files, BACKUP[:-1])
    assert read_identity(files, PATH) is None
    restore(files)


def test_a_full_disk_leaves_no_member() -> None:
    files = MemoryFiles(capacity_bytes=1_000)
    with pytest.raises(DiskFull):
        restore(files)
    assert read_identity(files, PATH) is None


def test_the_state_is_told_when_it_does_not_hold() -> None:
    files = MemoryFiles()
    restore(files)
    directory = start(files)
    files.flip(f"{PATH}/initial", 8 * 700)
    with pytest.raises(SnapshotDamaged, match="does not match the checksum"):
        directory.initial()
    other = files.create(f"{PATH}/initial", 0)
    other.pwrite(backup_bytes([b"other"]), 0)
    with pytest.raises(SnapshotDamaged, match=f"this directory was restored from {SHA256}"):
        directory.initial()
    files.remove(f"{PATH}/initial")
    with pytest.raises(SnapshotDamaged, match="is missing: the state that this directory was restored with"):
        directory.initial()


def test_it_stays_until_the_log_starts_later() -> None:
    files = MemoryFiles()
    restore(files)
    directory = start(files)
    directory.log.append([WriteDecided(slot, Noop()) for slot in (1, 2, 3)])
    directory.log.append([WriteDecidedThrough(3)])
    directory.close()
    directory = start(files)
    assert slices(directory) == SLICES
    take(directory.snapshots, 3)
    # That of another cluster would be refused at the next start.
    meta = directory.snapshots.infos()[0].meta
    assert meta.cluster_id != directory.identity.cluster_id
    files.remove(directory.snapshots.infos()[0].path)
    directory.log.append([WriteCompacted(3)])
    directory.close()
    directory = start(files)
    assert directory.initial() is None
    assert "initial" not in files.names(PATH)
    assert directory.snapshot_missing


def test_one_that_nobody_was_restored_from_goes() -> None:
    files = MemoryFiles()
    restore(files)
    identity = read_identity(files, PATH)
    assert identity is not None
    write_identity(
        files, PATH, Identity(identity.cluster_id, identity.member_id, identity.name, identity.incarnation)
    )
    directory = start(files)
    assert directory.initial() is None
    assert "initial" not in files.names(PATH)


def test_a_backup_that_is_written_here_is_one() -> None:
    files = MemoryFiles()
    file = files.create("/b", 0)
    head = BackupHead(0, 1, 2, 3, 4, "m:M", 5)

    def given() -> Iterator[bytes]:
        yield from (b"one", b"", b"two" * 400)

    write_backup(file, head, given())
    backup = check_backup(file, "/b")
    assert list(read_slices(file, backup)) == [b"one", b"two" * 400]
    assert (backup.head.revision, backup.head.keys) == (4, 5)
    copied = files.create("/c", 0)
    copy_backup(file)(copied)
    assert files.read("/c") == files.read("/b")


def test_an_identity_without_a_log_is_still_refused_once_it_has_run() -> None:
    files = MemoryFiles()
    restore(files)
    start(files).close()
    for path in files.paths(f"{PATH}/log"):
        files.remove(path)
    with pytest.raises(LogDamaged):
        start(files)
