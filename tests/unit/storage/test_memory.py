"""The disk in memory does lose, tear and flip: a fault that never happens proves nothing."""

import errno
from random import Random

import pytest

from paxos_rsm.storage.files import File
from paxos_rsm.storage.memory import CrashMode, MemoryFiles, PowerLost

SIZE = 4096
OLD, NEW = b"o" * SIZE, b"n" * SIZE


def half_written(size: int = SIZE) -> tuple[MemoryFiles, File]:
    """A durable file of o's, over which n's were written and not synced."""
    files = MemoryFiles()
    file = files.create("/a", size)
    file.pwrite(OLD[:size], 0)
    file.fdatasync()
    files.sync_directory("/")
    file.pwrite(NEW[:size], 0)
    return files, file


def after_crashes(mode: CrashMode, seeds: int = 200) -> set[bytes]:
    files, _ = half_written()
    outcomes = set()
    for seed in range(seeds):
        clone = files.clone()
        clone.crash(Random(seed), mode)
        outcomes.add(clone.read("/a"))
    return outcomes


def test_unsynced_bytes_are_read_and_dropped() -> None:
    files, _ = half_written()
    assert files.read("/a") == NEW
    assert files.unsynced_bytes("/a") == SIZE
    assert after_crashes(CrashMode.DROP) == {OLD}
    assert after_crashes(CrashMode.KEEP) == {NEW}


def test_synced_bytes_survive_everything() -> None:
    for mode in CrashMode:
        files, file = half_written()
        file.fdatasync()
        assert files.unsynced_bytes("/a") == 0
        files.crash(Random(1), mode)
        assert files.read("/a") == NEW


def test_a_tear_keeps_a_prefix_cut_at_any_byte() -> None:
    outcomes = after_crashes(CrashMode.TEAR)
    cuts = {outcome.count(b"n") for outcome in outcomes}
    assert all(outcome == NEW[: outcome.count(b"n")] + OLD[outcome.count(b"n") :] for outcome in outcomes)
    assert len(cuts) > 100
    assert any(cut % 512 for cut in cuts)


def test_a_scatter_keeps_any_sectors() -> None:
    outcomes = after_crashes(CrashMode.SCATTER)
    kept = set()
    for outcome in outcomes:
        sectors = [outcome[at : at + 512] for at in range(0, SIZE, 512)]
        assert all(sector in (OLD[:512], NEW[:512]) for sector in sectors)
        kept.add("".join(chr(sector[0]) for sector in sectors))
    assert len(kept) > 50
    assert any("on" in each for each in kept), "a later sector without an earlier one"


def test_mixed_does_all_of_it() -> None:
    outcomes = after_crashes(CrashMode.MIXED)
    assert {OLD, NEW} <= outcomes
    assert len(outcomes) > 50


def test_the_same_seed_does_the_same() -> None:
    files, _ = half_written()
    twins = files.clone(), files.clone()
    for twin in twins:
        twin.crash(Random(5))
    assert twins[0].read("/a") == twins[1].read("/a")


def test_writes_are_kept_in_their_order() -> None:
    files, file = half_written()
    file.pwrite(b"last", 0)
    files.crash(Random(1), CrashMode.KEEP)
    assert files.read("/a") == b"last" + NEW[4:]


@pytest.mark.parametrize("keep", [0, 1, 700, SIZE])
def test_a_given_prefix_can_be_kept(keep: int) -> None:
    files, _ = half_written()
    files.crash_keeping("/a", keep)
    assert files.read("/a") == NEW[:keep] + OLD[keep:]


def test_given_sectors_can_be_kept() -> None:
    files, file = half_written()
    file.pwrite(b"x" * 600, 1000)
    files.crash_keeping("/a", lambda sector: sector in (0, 2))
    expected = bytearray(OLD)
    expected[:512] = NEW[:512]
    expected[1024:1536] = b"x" * 512
    assert files.read("/a") == expected


def test_a_file_may_lose_its_size() -> None:
    files = MemoryFiles()
    files.create("/a", 1000)
    files.sync_directory("/")
    twin = files.clone()
    files.crash(Random(1), CrashMode.DROP)
    assert files.read("/a") == b""
    twin.crash(Random(1), CrashMode.KEEP)
    assert twin.read("/a") == bytes(1000)


def test_names_are_lost_without_a_sync_of_their_directory() -> None:
    files = MemoryFiles()
    for name in ("kept", "removed", "renamed"):
        files.create(f"/{name}", 1).fdatasync()
    files.sync_directory("/")
    files.create("/created", 1).fdatasync()
    files.remove("/removed")
    files.rename("/renamed", "/other")
    assert files.names("/") == ["created", "kept", "other"]
    seen = set()
    for seed in range(100):
        clone = files.clone()
        clone.crash(Random(seed), CrashMode.SCATTER)
        seen.add(tuple(clone.names("/")))
    assert len(seen) == 8, "any of the three may be lost"
    twin = files.clone()
    files.crash(Random(1), CrashMode.DROP)
    assert files.names("/") == ["kept", "removed", "renamed"]
    twin.sync_directory("/")
    twin.crash(Random(1), CrashMode.DROP)
    assert twin.names("/") == ["created", "kept", "other"]


def test_a_lost_directory_takes_its_files_with_it() -> None:
    files = MemoryFiles()
    files.mkdir("/d")
    files.create("/d/a", 1)
    files.sync_directory("/d")
    files.crash(Random(1), CrashMode.DROP)
    assert files.names("/") == []
    with pytest.raises(FileNotFoundError):
        files.read("/d/a")


def test_a_replaced_file_comes_back_where_its_replacement_is_lost() -> None:
    files, _ = half_written()
    files.create("/b", 3).pwrite(b"new", 0)
    files.rename("/b", "/a")
    assert files.read("/a") == b"new"
    files.crash(Random(1), CrashMode.DROP)
    assert files.read("/a") == OLD


def test_handles_and_locks_do_not_survive() -> None:
    files, file = half_written()
    lock = files.lock("/LOCK", b"1")
    files.kill()
    for act in (lambda: file.pwrite(b"x", 0), file.fdatasync, lambda: file.pread(1, 0)):
        with pytest.raises(OSError, match="Bad file descriptor"):
            act()
    assert files.read("/a") == NEW, "the page cache outlives the process"
    assert files.unsynced_bytes("/a") == SIZE
    second = files.lock("/LOCK", b"2")
    lock.release()  # of the dead
    with pytest.raises(BlockingIOError):
        files.lock("/LOCK", b"3")
    second.release()


def test_a_closed_file_is_closed() -> None:
    _, file = half_written()
    file.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.pwrite(b"x", 0)


def test_a_flipped_bit_is_flipped_for_good() -> None:
    files, file = half_written()
    file.fdatasync()
    files.flip("/a", 8 * 100 + 3)
    expected = NEW[:100] + bytes([NEW[100] ^ 8]) + NEW[101:]
    assert files.read("/a") == expected
    files.crash(Random(1), CrashMode.DROP)
    assert files.read("/a") == expected


def test_a_call_can_be_made_to_fail_once() -> None:
    files, file = half_written()
    files.fail("fdatasync", 2, errno.EIO)
    file.fdatasync()
    with pytest.raises(OSError, match="Input/output"):
        file.fdatasync()
    file.fdatasync()


def test_a_failed_sync_forgets_what_can_still_be_read() -> None:
    files, file = half_written()
    files.fail("fdatasync", 1, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        file.fdatasync()
    file.fdatasync()
    assert files.read("/a") == NEW
    files.crash(Random(1), CrashMode.KEEP)
    assert files.read("/a") == OLD


def test_a_failed_write_leaves_half() -> None:
    files, file = half_written()
    files.fail("pwrite", 1, errno.ENOSPC)
    with pytest.raises(OSError, match="No space"):
        file.pwrite(b"xxxx", 0)
    assert files.read("/a") == b"xx" + NEW[2:]


def test_a_full_disk() -> None:
    files = MemoryFiles(capacity_bytes=1000)
    files.create("/a", 600)
    with pytest.raises(OSError, match="No space"):
        files.create("/b", 401)
    files.create("/b", 400)
    files.remove("/a")
    files.create("/c", 600)


def test_the_power_goes_after_so_many_changes() -> None:
    files, file = half_written()
    files.power_off_after(2)
    file.pwrite(b"1", 0)
    files.read("/a")
    file.pwrite(b"2", 1)
    files.read("/a")
    with pytest.raises(PowerLost):
        file.pwrite(b"3", 2)
    with pytest.raises(PowerLost):
        files.read("/a")
    with pytest.raises(PowerLost):
        file.fdatasync()
    files.crash(Random(1), CrashMode.KEEP)
    assert files.read("/a") == b"12" + NEW[2:]


def test_calls_are_counted() -> None:
    files, file = half_written()
    assert files.counts == {"create": 1, "pwrite": 2, "fdatasync": 1, "sync_directory": 1}
    file.pread(1, 0)
    assert files.counts["pread"] == 1


def test_a_clone_is_independent() -> None:
    files, file = half_written()
    clone = files.clone()
    file.pwrite(b"x", 0)
    files.create("/b", 1)
    assert clone.read("/a") == NEW
    assert clone.names("/") == ["a"]
    clone.crash(Random(1), CrashMode.DROP)
    assert files.names("/") == ["a", "b"]


def test_a_loss_of_power_can_be_called_off() -> None:
    files, file = half_written()
    files.power_off_after(0)
    files.power_off_after(None)
    file.fdatasync()
