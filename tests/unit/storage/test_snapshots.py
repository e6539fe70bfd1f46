"""Snapshots as files: taken, read, sent, fetched, pruned, and what a crash or damage makes of each."""

import errno
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from paxos_rsm.errors import DiskFull, InvariantViolation, LogIOError, SnapshotDamaged
from paxos_rsm.storage import snapshots
from paxos_rsm.storage.files import FileSystem, RealFiles
from paxos_rsm.storage.memory import CrashMode, MemoryFiles, PowerLost
from paxos_rsm.storage.snapshots import SnapshotInfo, SnapshotStore, snapshot_slot
from tests.unit.storage.helpers import snapshot_meta, state, take

DIRECTORY = "/snapshots"


def path_of(slot: int) -> str:
    return f"{DIRECTORY}/{slot:019d}.snapshot"


def opened(files: FileSystem) -> SnapshotStore:
    return SnapshotStore.open(files, DIRECTORY)


def content(store: SnapshotStore, slot: int) -> list[bytes]:
    meta, slices = store.read(slot)
    assert meta == snapshot_meta(slot)
    return list(slices)


def file_bytes(slot: int) -> bytes:
    """A whole snapshot, as a peer would send it."""
    files = MemoryFiles()
    return files.read(take(opened(files), slot).path)


# ---- taking and reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_real", [True, False])
def test_what_is_taken_is_read(is_real: bool, tmp_path: Path) -> None:
    files: FileSystem = RealFiles() if is_real else MemoryFiles()
    directory = f"{tmp_path}/snapshots" if is_real else DIRECTORY
    store = SnapshotStore.open(files, directory)
    assert store.newest() is None
    slices = [*state(40), Random(1).randbytes(3 << 20)]
    info = take(store, 40, slices)
    assert store.newest() == info
    assert (info.slot, info.meta) == (40, snapshot_meta(40))
    for each in (store, SnapshotStore.open(files, directory)):
        assert each.infos() == [info]
        meta, read = each.read(40)
        assert (meta, list(read)) == (snapshot_meta(40), slices)
        whole = files.read(info.path)
        assert info.bytes == len(whole)
        assert each.read_range(40, 10, 90) == whole[10:100]
        assert each.read_range(40, len(whole), 90) == b""


def test_what_is_taken_is_durable_when_it_is_finished() -> None:
    files = MemoryFiles()
    take(opened(files), 40)
    files.crash(Random(1), CrashMode.DROP)
    assert content(opened(files), 40) == state(40)


def test_all_but_the_newest_two_go() -> None:
    files = MemoryFiles()
    store = opened(files)
    for slot in (10, 20, 30, 40):
        take(store, slot)
    assert [info.slot for info in store.infos()] == [30, 40]
    assert files.paths(DIRECTORY) == [path_of(30), path_of(40)]
    assert store.read_range(20, 0, 10) is None
    with pytest.raises(SnapshotDamaged, match="is missing"):
        store.read(20)


def test_one_that_a_crash_brought_back_goes_again() -> None:
    files = MemoryFiles()
    store = opened(files)
    for slot in (10, 20, 30):
        take(store, slot)
    files.crash(Random(1), CrashMode.DROP)
    assert len(files.paths(DIRECTORY)) == 3, "or this test shows nothing"
    assert [info.slot for info in opened(files).infos()] == [20, 30]
    assert len(files.paths(DIRECTORY)) == 2


def test_the_same_slot_once_more_takes_the_place_of_the_first() -> None:
    store = opened(MemoryFiles())
    take(store, 10)
    take(store, 10, [b"other"])
    assert len(store.infos()) == 1
    assert content(store, 10) == [b"other"]


def test_one_that_is_pruned_while_it_is_read_is_read_to_its_end(tmp_path: Path) -> None:
    store = SnapshotStore.open(RealFiles(), f"{tmp_path}/snapshots")
    take(store, 10)
    _, slices = store.read(10)
    first = next(slices)
    for slot in (20, 30):
        take(store, slot)
    assert [first, *slices] == state(10)


def test_giving_up_leaves_nothing() -> None:
    files = MemoryFiles()
    store = opened(files)
    writer = store.begin(snapshot_meta(10))
    writer.write(b"x")
    writer.abort()
    writer.abort()
    assert files.paths(DIRECTORY) == []
    with pytest.raises(InvariantViolation, match="after its end"):
        writer.write(b"y")
    writer = store.begin(snapshot_meta(10))
    writer.finish()
    writer.abort()
    assert content(store, 10) == []


def test_a_long_one_is_synced_as_it_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "_WRITE_BYTES", 1_000)
    monkeypatch.setattr(snapshots, "_SYNC_BYTES", 10_000)
    files = MemoryFiles()
    writer = opened(files).begin(snapshot_meta(10))
    for _ in range(100):
        writer.write(bytes(1_000))
        assert sum(map(files.unsynced_bytes, files.paths(DIRECTORY))) < 11_500
    assert files.counts["fdatasync"] >= 9
    writer.finish()


@pytest.mark.parametrize("call", ["create", "pwrite", "fdatasync", "rename", "sync_directory"])
@pytest.mark.parametrize(("code", "kind"), [(errno.EIO, LogIOError), (errno.ENOSPC, DiskFull)])
def test_an_error_is_told_and_leaves_the_one_before(call: str, code: int, kind: type[Exception]) -> None:
    files = MemoryFiles()
    store = opened(files)
    take(store, 10)
    files.fail(call, 1, code)
    with pytest.raises(kind, match=r"snapshots/0000000000000000020\.snapshot") as told:
        take(store, 20)
    assert "stopped voting" not in str(told.value), "no vote depends on a snapshot"
    if call != "sync_directory":
        assert files.paths(DIRECTORY) == [path_of(10)]
    assert content(store, 10) == state(10)
    take(store, 30)
    files.crash(Random(1), CrashMode.DROP)
    assert content(opened(files), 30) == state(30)


@pytest.mark.parametrize("mode", list(CrashMode))
def test_a_crash_at_every_step_of_taking(mode: CrashMode) -> None:
    """The new one is there whole, or not at all; the one before is there; nothing else is left."""
    taken = changes = 0
    while taken < 3:
        files = MemoryFiles()
        store = opened(files)
        take(store, 10)
        files.power_off_after(changes)
        is_done = not is_cut_short(take, store, 20)
        files.crash(Random(changes), mode)
        store = opened(files)
        slots = [info.slot for info in store.infos()]
        assert slots in ([10], [10, 20])
        assert not is_done or slots == [10, 20]
        for slot in slots:
            assert content(store, slot) == state(slot)
        assert files.paths(DIRECTORY) == [path_of(slot) for slot in slots]
        taken += is_done
        changes += 1
    assert changes > 6


def is_cut_short(action: Callable[..., object], *args: object) -> bool:
    try:
        action(*args)
    except PowerLost:
        return True
    return False


# ---- damage --------------------------------------------------------------------------------------------------


def test_every_byte_of_a_snapshot_with_a_flipped_bit() -> None:
    """Put aside by the start, or told while it is read; never read as anything else."""
    base = MemoryFiles()
    info = take(opened(base), 40)
    at_start = while_read = 0
    for byte in range(info.bytes):
        files = base.clone()
        files.flip(info.path, byte * 8 + byte % 7)
        store = opened(files)
        if store.newest() is None:
            assert str(store.damaged[0]).startswith(f"the snapshot {info.path} is damaged at byte ")
            at_start += 1
            continue
        with pytest.raises(SnapshotDamaged):
            content(store, 40)
        while_read += 1
    assert at_start > 60
    assert while_read > 1000


def test_a_damaged_one_is_put_aside_and_the_one_before_is_the_newest() -> None:
    files = MemoryFiles()
    store = opened(files)
    for slot in (10, 20):
        take(store, slot)
    assert store.mark_damaged(20) == f"{path_of(20)}.damaged"
    assert store.mark_damaged(20) is None
    for each in (store, opened(files)):
        newest = each.newest()
        assert newest is not None
        assert newest.slot == 10
    assert store.mark_damaged(10) == f"{path_of(10)}.damaged"
    assert files.names(DIRECTORY) == [f"{path_of(10)}.damaged".split("/")[-1]], "only the last one is kept"


@pytest.mark.parametrize("size", [0, 10, 100, -1])
def test_one_cut_short_is_put_aside_by_the_start(size: int) -> None:
    files = MemoryFiles()
    path = take(opened(files), 10).path
    data = files.read(path)[:size]
    files.create(path, 0).pwrite(data, 0)
    store = opened(files)
    assert store.newest() is None
    assert len(store.damaged) == 1
    assert files.paths(DIRECTORY) == [f"{path}.damaged"]


def test_one_under_the_name_of_another_is_put_aside() -> None:
    files = MemoryFiles()
    files.rename(take(opened(files), 10).path, path_of(11))
    assert opened(files).newest() is None


def test_one_that_changed_its_slot_since_the_start_is_not_read() -> None:
    files = MemoryFiles()
    store = opened(files)
    take(store, 10)
    take(store, 20)
    files.rename(path_of(10), path_of(20))
    with pytest.raises(SnapshotDamaged, match="it is that of slot 10"):
        store.read(20)


def test_what_else_lies_in_the_directory_is_nobodys_business() -> None:
    files = MemoryFiles()
    take(opened(files), 10)
    files.create(f"{DIRECTORY}/notes.txt", 10)
    assert [info.slot for info in opened(files).infos()] == [10]
    assert "notes.txt" in files.names(DIRECTORY)


@pytest.mark.parametrize(
    ("name", "slot"),
    [
        (f"{7:019d}.snapshot", 7),
        (f"{2**63 - 1}.snapshot", 2**63 - 1),
        ("7.snapshot", None),
        (f"{7:019d}.snapshot.new", None),
        (f"{7:019d}", None),
        ("²".rjust(19, "0") + ".snapshot", None),
    ],
)
def test_names(name: str, slot: int | None) -> None:
    assert snapshot_slot(name) == slot


# ---- fetching ------------------------------------------------------------------------------------------------


def fetched(store: SnapshotStore, slot: int, data: bytes) -> SnapshotInfo:
    """A fetch all at once."""
    fetch = store.fetch(slot, len(data))
    fetch.write(0, data)
    return fetch.finish()


def test_a_fetch_in_pieces() -> None:
    files = MemoryFiles()
    store, data = opened(files), file_bytes(40)
    fetch = store.fetch(40, len(data))
    assert fetch.offset == 0
    while fetch.offset < len(data):
        assert fetch.write(fetch.offset, data[fetch.offset : fetch.offset + 77])
    info = fetch.finish()
    assert info == store.newest()
    files.crash(Random(1), CrashMode.DROP)
    assert content(opened(files), 40) == state(40)
    assert files.paths(DIRECTORY) == [path_of(40)]


def test_without_a_fetch_that_was_cut_off_there_is_no_part_of_one() -> None:
    store, data = opened(MemoryFiles()), file_bytes(40)
    assert store.partial() is None
    fetch = store.fetch(40, len(data))
    fetch.write(0, data[:10])
    fetch.close()
    assert store.partial() is None  # nothing of it holds
    fetch = store.fetch(40, len(data))
    fetch.write(0, data)
    fetch.finish()
    assert store.partial() is None


def test_bytes_that_are_not_the_next_are_not_written() -> None:
    store, data = opened(MemoryFiles()), file_bytes(40)
    fetch = store.fetch(40, len(data))
    assert fetch.write(0, data[:100])
    assert not fetch.write(0, data[:100])
    assert not fetch.write(101, data[101:])
    assert not fetch.write(100, data[100:] + b"x")
    assert fetch.offset == 100
    assert fetch.write(100, data[100:])
    fetch.finish()


def test_a_fetch_goes_on_after_its_last_whole_chunk() -> None:
    files = MemoryFiles()
    data = file_bytes(40)
    fetch = opened(files).fetch(40, len(data))
    fetch.write(0, data[: len(data) // 2])
    fetch.close()
    files.kill()
    store = opened(files)
    partial = store.partial()
    fetch = store.fetch(40, len(data))
    assert partial == (40, len(data), fetch.offset)
    assert len(data) // 4 < fetch.offset <= len(data) // 2
    fetch.write(fetch.offset, data[fetch.offset :])
    fetch.finish()


def test_a_fetch_of_something_else_begins_anew_and_clears_away() -> None:
    files = MemoryFiles()
    data, store = file_bytes(40), opened(files)
    fetch = store.fetch(40, len(data))
    fetch.write(0, data)
    fetch.close()
    assert store.fetch(40, len(data) + 1).offset == 0
    assert store.fetch(41, len(data)).offset == 0
    assert len(files.paths(DIRECTORY)) == 1


@pytest.mark.parametrize("mode", list(CrashMode))
def test_a_crash_at_every_step_of_fetching(mode: CrashMode, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is resumed, and what comes of it is what was sent."""
    monkeypatch.setattr(snapshots, "_SYNC_BYTES", 500)
    data = file_bytes(40)

    def attempt(files: MemoryFiles) -> None:
        fetch = opened(files).fetch(40, len(data))
        assert fetch.offset <= len(data)
        while fetch.offset < len(data):
            fetch.write(fetch.offset, data[fetch.offset : fetch.offset + 200])
        fetch.finish()

    resumed = changes = 0
    is_done = False
    while not is_done:
        for seed in range(4):
            rng = Random(seed * 1000 + changes)
            files = MemoryFiles()
            take(opened(files), 10)
            files.power_off_after(changes)
            is_done = not is_cut_short(attempt, files)
            files.crash(rng, mode)
            store = opened(files)
            slots = [info.slot for info in store.infos()]
            assert slots == [10, 40] if is_done else slots in ([10], [10, 40])
            assert content(store, 10) == state(10)
            if slots == [10]:
                resumed += store.fetch(40, len(data)).offset > 0
                attempt(files)
            assert content(opened(files), 40) == state(40)
        changes += 1
    assert resumed > 5 or mode is CrashMode.DROP
    assert changes > 15


def test_every_byte_of_what_was_sent_with_a_flipped_bit() -> None:
    data = file_bytes(40)
    for byte in range(0, len(data), 3):
        files = MemoryFiles()
        store = opened(files)
        take(store, 10)
        spoilt = bytearray(data)
        spoilt[byte] ^= 1 << byte % 8
        fetch = store.fetch(40, len(data))
        assert fetch.write(0, bytes(spoilt))
        with pytest.raises(SnapshotDamaged):
            fetch.finish()
        assert files.paths(DIRECTORY) == [path_of(10)], "nothing is left of it"


def test_a_fetch_that_is_not_whole_is_not_finished() -> None:
    data = file_bytes(40)
    fetch = opened(MemoryFiles()).fetch(40, len(data))
    fetch.write(0, data[:-1])
    with pytest.raises(SnapshotDamaged):
        fetch.finish()


def test_a_snapshot_of_another_slot_is_not_taken() -> None:
    data = file_bytes(41)
    fetch = opened(MemoryFiles()).fetch(40, len(data))
    fetch.write(0, data)
    with pytest.raises(SnapshotDamaged, match="it is that of slot 41"):
        fetch.finish()


@pytest.mark.parametrize(("call", "nth"), [("create", 1), ("pwrite", 1), ("fdatasync", 1), ("rename", 1)])
def test_an_error_while_fetching_leaves_nothing_of_it(call: str, nth: int) -> None:
    """After a failed sync what can be read may not be what is on the disk."""
    files = MemoryFiles()
    data, store = file_bytes(40), opened(files)
    take(store, 10)
    files.fail(call, nth, errno.EIO)
    with pytest.raises(LogIOError, match="fetching the snapshot"):
        fetched(store, 40, data)
    assert files.paths(DIRECTORY) == [path_of(10)]


def test_no_space_is_found_out_before_anything_is_sent() -> None:
    files = MemoryFiles(capacity_bytes=1_000)
    with pytest.raises(DiskFull):
        opened(files).fetch(40, 2_000)
    assert files.paths(DIRECTORY) == []


def test_a_fetch_that_is_given_up() -> None:
    files = MemoryFiles()
    fetch = opened(files).fetch(40, 1_000)
    fetch.abort()
    fetch.abort()
    assert files.paths(DIRECTORY) == []
    with pytest.raises(InvariantViolation):
        fetch.write(0, b"x")
