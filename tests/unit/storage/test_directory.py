"""The data directory as a whole: first starts cut short anywhere, later ones refused where something is missing."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from paxos_rsm.errors import (
    DirectoryLocked,
    DirectoryUnusable,
    DiskFull,
    IdentityMismatch,
    LogDamaged,
    LogIOError,
    SnapshotDamaged,
    StorageError,
)
from paxos_rsm.paxos.ready import WriteCompacted, WriteDecided, WriteDecidedThrough
from paxos_rsm.paxos.types import Noop
from paxos_rsm.storage.directory import DataDirectory
from paxos_rsm.storage.files import FileSystem, RealFiles
from paxos_rsm.storage.headers import segment_name
from paxos_rsm.storage.identity import Identity, read_identity, write_identity
from paxos_rsm.storage.memory import CrashMode, MemoryFiles, PowerLost
from paxos_rsm.storage.segments import SEGMENT_BYTES_MIN
from paxos_rsm.storage.snapshots import SnapshotStore
from tests.unit.storage.helpers import accepted, replayed, snapshot_meta, state, take

PATH = "/var/paxos/n1"
IDENTITY = f"{PATH}/identity"
FIRST = f"{PATH}/log/{segment_name(1)}"


def start(
    files: FileSystem,
    path: str = PATH,
    name: str = "n1",
    cluster_id: int = 1,
    seed: int = 1,
    hold_us: int = 0,
) -> DataDirectory:
    return DataDirectory.open(
        path,
        files,
        cluster_id=cluster_id,
        member_id=11,
        name=name,
        draw_bits=Random(seed).getrandbits,
        segment_bytes=SEGMENT_BYTES_MIN,
        hold_us=hold_us,
    )


def used() -> MemoryFiles:
    """A directory in which a server has voted, and stopped in order."""
    files = MemoryFiles()
    directory = start(files)
    directory.log.append([accepted(1)])
    directory.close()
    return files


def test_a_first_start_makes_everything() -> None:
    directory = start(MemoryFiles())
    assert directory.recovered.is_empty
    assert directory.path == PATH
    identity = directory.identity
    assert (identity.cluster_id, identity.member_id, identity.name, identity.boot_count) == (1, 11, "n1", 1)
    assert 0 < identity.incarnation < 2**63


def test_how_long_a_process_may_hold_for_a_leader_is_told_to_every_later_one() -> None:
    """Of two starts in quick succession, the second must wait for what the process before the first held for, too."""
    files = MemoryFiles()
    owed: list[int] = []
    for hold_us in (0, 300, 0, 200, 500, 0):
        directory = start(files, hold_us=hold_us)
        owed.append(directory.hold_owed_us)
        stored = read_identity(files, PATH)
        assert stored is not None
        assert stored.hold_us == max([hold_us, *owed])  # durable before anything is said
        directory.close()
    assert owed == [0, 0, 300, 300, 300, 500]


def test_an_incarnation_is_never_zero() -> None:
    drawn = iter([0, 0, 5, 6])
    directory = DataDirectory.open(
        PATH, MemoryFiles(), cluster_id=1, member_id=11, name="n1", draw_bits=lambda bits: next(drawn)
    )
    assert directory.identity.incarnation == 5


def test_later_starts_are_the_same_member() -> None:
    files = MemoryFiles()
    first = start(files).identity
    for boot_count in range(2, 6):
        files.crash(Random(boot_count), CrashMode.DROP)
        directory = start(files, seed=boot_count)
        assert directory.identity.incarnation == first.incarnation
        assert directory.identity.boot_count == boot_count
        assert directory.recovered == replayed(accepted(slot) for slot in range(2, boot_count))
        directory.log.append([accepted(boot_count)])
        directory.log.sync()


def test_a_directory_made_anew_is_another_member() -> None:
    assert (
        start(MemoryFiles(), seed=1).identity.incarnation != start(MemoryFiles(), seed=2).identity.incarnation
    )


@pytest.mark.parametrize("mode", list(CrashMode))
def test_a_first_start_may_be_cut_short_anywhere(mode: CrashMode) -> None:
    """Whatever is left of it, the next one boots, and what it then writes stays."""
    changes = 0
    is_done = False
    while not is_done:
        for seed in range(10):
            rng = Random(seed)
            files = MemoryFiles()
            is_done = attempt(files, changes)
            files.crash(rng, mode)
            if not attempt(files, rng.randrange(30)):  # and again, from what the first has left
                files.crash(rng, mode)
            files.kill()
            directory = start(files, seed=3)
            directory.log.append([accepted(1)])
            directory.log.sync()
            files.crash(rng, CrashMode.DROP)
            again = start(files, seed=4)
            assert again.recovered == replayed([accepted(1)])
            assert again.identity.incarnation == directory.identity.incarnation
            assert again.identity.boot_count == directory.identity.boot_count + 1
        changes += 1
    assert changes > 15


def attempt(files: MemoryFiles, changes: int) -> bool:
    """A start with the power going after so many changes. False where it went."""
    files.power_off_after(changes)
    try:
        start(files, seed=changes)
    except PowerLost:
        return False
    files.power_off_after(None)
    return True


def test_what_a_start_has_said_stands() -> None:
    """Once open() has returned, a crash leaves the incarnation and the boot count."""
    for seed in range(50):
        files = MemoryFiles()
        directory = start(files, seed=seed)
        files.crash(Random(seed))
        again = start(files, seed=seed + 1)
        assert again.identity.incarnation == directory.identity.incarnation
        assert again.identity.boot_count == 2


def test_a_log_without_its_identity_is_refused() -> None:
    files = used()
    files.remove(IDENTITY)
    with pytest.raises(LogDamaged, match=r"identity is missing, and there is a log.*add it anew"):
        start(files)
    assert not any(name.startswith("identity") for name in files.names(PATH))


def test_an_identity_without_its_log_is_refused() -> None:
    files = used()
    files.remove(FIRST)
    with pytest.raises(LogDamaged, match=r"the log is missing from /var/paxos/n1/log.*add it anew"):
        start(files)
    assert files.names(f"{PATH}/log") == []


def test_an_identity_without_the_directory_of_its_log_is_refused() -> None:
    whole, files = used(), MemoryFiles()
    for path in ("/var", "/var/paxos", PATH):
        files.mkdir(path)
    files.create(IDENTITY, 0).pwrite(whole.read(IDENTITY), 0)
    with pytest.raises(LogDamaged, match=r"the log is missing from /var/paxos/n1/log.*add it anew"):
        start(files)
    assert "log" not in files.names(PATH)


def test_an_identity_older_than_its_log_is_refused() -> None:
    files = MemoryFiles()
    files.power_off_after(11)
    with pytest.raises(PowerLost):
        start(files)
    files.crash(Random(1), CrashMode.KEEP)
    unborn = files.read(IDENTITY)
    start(files).log.append([accepted(1)])
    files.kill()
    files.create(IDENTITY, 0).pwrite(unborn, 0)
    with pytest.raises(LogDamaged, match="is older than the log"):
        start(files)


def test_a_damaged_identity_is_refused() -> None:
    files = used()
    files.flip(IDENTITY, 300)
    with pytest.raises(LogDamaged, match="identity is damaged"):
        start(files)


def test_a_damaged_log_is_refused_and_uses_up_no_boot_count() -> None:
    files = used()
    files.flip(FIRST, 8 * 8200)
    for _ in range(2):
        with pytest.raises(LogDamaged, match=FIRST):
            start(files)
    files.flip(FIRST, 8 * 8200)
    assert start(files).identity.boot_count == 2


def test_another_member_or_cluster_is_refused_and_leaves_no_trace() -> None:
    files = used()
    before = files.read(IDENTITY)
    with pytest.raises(IdentityMismatch, match=r"member n1.*member n2"):
        start(files, name="n2")
    with pytest.raises(IdentityMismatch, match=r"cluster 1.*cluster 2"):
        start(files, cluster_id=2)
    assert files.read(IDENTITY) == before
    assert start(files).identity.boot_count == 2


def test_the_log_of_another_directory_is_refused() -> None:
    mine, other = used(), MemoryFiles()
    start(other, seed=2).close()
    mine.create(FIRST, 0).pwrite(other.read(FIRST), 0)
    with pytest.raises(IdentityMismatch, match="belongs to another member"):
        start(mine)


# ------------------------------------------------------------------------------------------- the lock


@pytest.mark.parametrize("is_real", [True, False])
def test_a_second_start_is_refused_and_told_who_was_first(is_real: bool, tmp_path: Path) -> None:
    files: FileSystem = RealFiles() if is_real else MemoryFiles()
    path = f"{tmp_path}/n1" if is_real else PATH
    first = start(files, path)
    with pytest.raises(DirectoryLocked, match=f"in use by the process {os.getpid()}"):
        start(files, path)
    first.close()
    second = start(files, path)
    assert second.identity.boot_count == 2
    second.close()


def test_another_process_is_told_in_one_sentence(tmp_path: Path) -> None:
    directory = start(RealFiles(), str(tmp_path))
    other = (
        "import random\nfrom paxos_rsm.storage.directory import DataDirectory\n"
        "from paxos_rsm.storage.files import RealFiles\n"
        f"DataDirectory.open({str(tmp_path)!r}, RealFiles(), cluster_id=1, member_id=11, name='n1', "
        "draw_bits=random.getrandbits)\n"
    )
    done = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"is in use by the process {os.getpid()}. Stop that one" in done.stderr.splitlines()[-1]
    directory.close()
    subprocess.run([sys.executable, "-c", other], check=True, timeout=60)


def test_a_lock_without_a_readable_note_is_a_lock() -> None:
    files = MemoryFiles()
    files.mkdir("/d")
    files.lock("/d/LOCK", b"\xff\xfe")
    with pytest.raises(DirectoryLocked, match="in use by another process"):
        start(files, "/d")


@pytest.mark.parametrize(
    "call", ["read", "create", "fdatasync", "rename", "sync_directory", "names", "pwrite"]
)
def test_a_start_that_fails_lets_go_of_the_lock(call: str) -> None:
    files = used()
    files.fail(call, 1, errno.EIO)
    with pytest.raises(LogIOError):
        start(files)
    start(files).close()


def test_closing_lets_go_of_the_lock_even_where_the_log_fails() -> None:
    files = MemoryFiles()
    directory = start(files)
    directory.log.append([accepted(1)])
    files.fail("fdatasync", 1, errno.EIO)
    with pytest.raises(LogIOError):
        directory.close()
    start(files).close()


# ------------------------------------------------------------------------------------------- unusable


@pytest.mark.parametrize(
    ("code", "kind"),
    [(errno.EACCES, DirectoryUnusable), (errno.EROFS, DirectoryUnusable), (errno.ENOSPC, DiskFull)],
)
@pytest.mark.parametrize("call", ["mkdir", "lock", "create"])
def test_a_directory_that_cannot_be_written_is_told(call: str, code: int, kind: type[StorageError]) -> None:
    files = MemoryFiles()
    files.fail(call, 1, code)
    with pytest.raises(kind, match=PATH):
        start(files)


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "n1"):
        with pytest.raises(DirectoryUnusable, match=r"cannot be made or written.*--data-dir"):
            start(RealFiles(), str(path))


def test_a_log_that_may_not_be_read_is_told() -> None:
    files = used()
    files.fail("open", 1, errno.EACCES)
    with pytest.raises(DirectoryUnusable, match="may read and write"):
        start(files)


def test_directories_above_that_are_not_ours_need_no_sync() -> None:
    files = MemoryFiles()
    files.fail("sync_directory", 3, errno.EACCES)
    assert start(files).identity.boot_count == 1


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    directory = DataDirectory.open(
        Path("a/b"), RealFiles(), cluster_id=1, member_id=11, name="n1", draw_bits=Random(1).getrandbits
    )
    assert directory.path == f"{tmp_path}/a/b"
    directory.log.append([accepted(1)])
    directory.close()
    assert start(RealFiles(), f"{tmp_path}/a/b").recovered == replayed([accepted(1)])


# ------------------------------------------------------------------------------------------- log and snapshots


def test_state_comes_from_a_snapshot_and_the_log_after_it() -> None:
    files = MemoryFiles()
    directory = start(files)
    votes = [accepted(slot, bytes(6000)) for slot in range(1, 6)]
    directory.log.append([*votes, WriteDecidedThrough(4)])
    take(directory.snapshots, 3)
    directory.log.append([WriteCompacted(3)])
    directory.close()
    directory = start(files)
    assert not directory.snapshot_missing
    assert sorted(directory.recovered.slots) == [4, 5]
    assert directory.recovered.decided_through == 4
    assert list(directory.snapshots.read(3)[1]) == state(3)


@pytest.mark.parametrize("mode", list(CrashMode))
def test_a_snapshot_that_is_ahead_of_its_log(mode: CrashMode) -> None:
    """It was fetched, and the crash came before the log was told. What that holds need not be what was decided."""
    for changes in range(30):
        files = MemoryFiles()
        directory = start(files)
        directory.log.append([accepted(1), accepted(2), accepted(50), WriteDecidedThrough(1)])
        directory.log.sync()
        take(directory.snapshots, 40)
        files.kill()
        files.power_off_after(changes)
        is_cut_short = not attempt_again(files)
        files.crash(Random(changes), mode)
        directory = start(files)
        recovered = directory.recovered
        assert (recovered.compacted_through, recovered.decided_through, sorted(recovered.slots)) == (
            40,
            40,
            [50],
        )
        assert not directory.snapshot_missing
        directory.log.append([WriteDecided(41, Noop()), WriteDecidedThrough(41)])
        directory.close()
        files.crash(Random(changes), CrashMode.DROP)
        assert start(files).recovered.decided_through == 41
    assert not is_cut_short


def attempt_again(files: MemoryFiles) -> bool:
    try:
        start(files)
    except PowerLost:
        return False
    files.power_off_after(None)
    return True


def test_a_snapshot_that_the_log_has_outrun_changes_nothing() -> None:
    files = MemoryFiles()
    directory = start(files)
    directory.log.append([accepted(1), accepted(2), WriteDecidedThrough(2)])
    take(directory.snapshots, 2)
    directory.close()
    assert start(files).recovered == replayed([accepted(1), accepted(2), WriteDecidedThrough(2)])


@pytest.mark.parametrize("is_found_by_the_start", [True, False])
def test_without_the_snapshot_it_was_compacted_for_a_log_still_votes(is_found_by_the_start: bool) -> None:
    files = MemoryFiles()
    directory = start(files)
    directory.log.append([accepted(1, round_=6), accepted(50, round_=6)])
    take(directory.snapshots, 10)
    path = take(directory.snapshots, 40).path
    directory.log.append([WriteCompacted(40)])
    directory.close()
    files.flip(path, 8 * (30 if is_found_by_the_start else len(files.read(path)) // 2))
    directory = start(files)
    if not is_found_by_the_start:
        assert not directory.snapshot_missing
        with pytest.raises(SnapshotDamaged, match=path):
            list(directory.snapshots.read(40)[1])
        directory.snapshots.mark_damaged(40)
    assert directory.snapshot_missing
    newest = directory.snapshots.newest()
    assert newest is not None
    assert newest.slot == 10, "too old: the slots up to 40 are gone"
    assert directory.recovered.promised == (6, 7)
    assert sorted(directory.recovered.slots) == [50]
    take(directory.snapshots, 45)
    assert not directory.snapshot_missing


def test_a_directory_that_begins_with_a_snapshot_may_be_cut_short_anywhere() -> None:
    """As a restored one does: an identity that has never run, a snapshot, no log."""
    for changes in range(30):
        files = MemoryFiles()
        for path in ("/var", "/var/paxos", PATH):
            files.mkdir(path)
        write_identity(files, PATH, Identity(1, 11, "n1", 5))
        take(SnapshotStore.open(files, f"{PATH}/snapshots"), 9)
        for path in ("/", "/var", "/var/paxos"):
            files.sync_directory(path)
        files.power_off_after(changes)
        attempt_again(files)
        files.crash(Random(changes))
        directory = start(files)
        assert directory.identity.incarnation == 5
        assert directory.recovered == replayed([WriteCompacted(9)])


def test_a_snapshot_of_another_cluster_is_refused() -> None:
    files = used()
    store = SnapshotStore.open(files, f"{PATH}/snapshots")
    store.begin(snapshot_meta(9, cluster_id=2)).finish()
    with pytest.raises(IdentityMismatch, match=r"is a snapshot of the cluster 2.*says 1"):
        start(files)


def test_what_has_joined_is_not_asked_for_its_ids_again() -> None:
    files = MemoryFiles()

    def join(name: str) -> DataDirectory:
        return DataDirectory.open(
            PATH, files, cluster_id=77, member_id=88, name=name, draw_bits=Random(1).getrandbits, joined=True
        )

    join("n4").close()
    directory = start(files, name="n4", cluster_id=5)
    assert (directory.identity.cluster_id, directory.identity.member_id) == (77, 88)
    assert directory.identity.joined
    directory.close()
    with pytest.raises(IdentityMismatch, match=r"member n4.*member n1"):
        start(files, name="n1")
