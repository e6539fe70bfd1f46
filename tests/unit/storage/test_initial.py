"""The state before slot 1, as it stands in a directory; test_restore.py has how it comes there and goes."""

import pytest

from paxos_rsm.errors import LogIOError, SnapshotDamaged
from paxos_rsm.storage.initial import read_initial
from paxos_rsm.storage.memory import MemoryFiles
from tests.unit.storage.helpers import backup_bytes

SLICES = [b"one", b"two" * 1_000]
BACKUP = backup_bytes(SLICES)
SHA256 = BACKUP[-32:].hex()


def disk(data: bytes = BACKUP) -> MemoryFiles:
    files = MemoryFiles()
    files.mkdir("/d")
    files.create("/d/initial", 0).pwrite(data, 0)
    return files


def test_the_slices_come_back_as_they_were_given() -> None:
    initial = read_initial(disk(), "/d", SHA256)
    assert initial.backup.sha256 == SHA256
    assert list(initial.slices) == SLICES


def test_damage_is_named() -> None:
    files = disk()
    files.flip("/d/initial", 8 * 700)
    with pytest.raises(SnapshotDamaged, match="/d/initial is damaged: it does not match the checksum"):
        read_initial(files, "/d", SHA256)


def test_another_backup_is_not_taken() -> None:
    other = backup_bytes([b"other"])
    with pytest.raises(
        SnapshotDamaged, match=f"is the backup {other[-32:].hex()}, .* restored from {SHA256}"
    ):
        read_initial(disk(other), "/d", SHA256)


def test_a_missing_one_is_damage() -> None:
    with pytest.raises(SnapshotDamaged, match="/d/initial is missing"):
        read_initial(MemoryFiles(), "/d", SHA256)


def test_what_changes_after_it_was_checked_is_found_on_the_way() -> None:
    files = disk()
    initial = read_initial(files, "/d", SHA256)
    files.create("/d/initial", 0).pwrite(BACKUP[:600], 0)
    with pytest.raises(SnapshotDamaged):
        list(initial.slices)


def test_an_error_of_the_disk_is_one() -> None:
    files = disk()
    files.fail("pread", 2, 5)
    with pytest.raises(LogIOError, match="reading /d/initial"):
        read_initial(files, "/d", SHA256)
