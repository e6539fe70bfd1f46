"""Writing the log: what comes back, what is refused, how segments follow each other, and that errors are final."""

import errno
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from paxos_rsm.errors import ConfigError, DiskFull, InvariantViolation, LogDamaged, LogIOError, StorageError
from paxos_rsm.paxos.ready import (
    Write,
    WriteAccepted,
    WriteCompacted,
    WriteDecided,
    WriteDecidedThrough,
    WritePromise,
)
from paxos_rsm.paxos.types import Ballot, Batch, Noop
from paxos_rsm.storage.base import LogStorage, Recovered
from paxos_rsm.storage.files import RealFiles
from paxos_rsm.storage.headers import RECORDS_START
from paxos_rsm.storage.memory import CrashMode, MemoryFiles
from paxos_rsm.storage.records import PAYLOAD_BYTES_MAX
from paxos_rsm.storage.segments import SEGMENT_BYTES_MIN, SegmentLog
from tests.unit.storage.helpers import LOG, accepted, disk, new_log, open_log, replayed

WRITES: list[Write] = [
    WritePromise(Ballot(1, 7)),
    accepted(1, b"first"),
    accepted(2, bytes(2000)),
    WriteDecided(3, Noop()),
    WriteDecidedThrough(3),
    WritePromise(Ballot(2, 9)),
    accepted(4, Random(1).randbytes(3000), round_=3),
]


def test_what_was_written_comes_back() -> None:
    files, log = new_log()
    log.append(WRITES[:3])
    log.append(WRITES[3:])
    log.sync()
    files.crash(Random(1), CrashMode.DROP)
    assert open_log(files)[1] == replayed(WRITES)


def test_what_was_not_synced_may_be_lost() -> None:
    files, log = new_log()
    log.append(WRITES[:3])
    log.sync()
    log.append(WRITES[3:])
    files.crash(Random(1), CrashMode.DROP)
    assert open_log(files)[1] == replayed(WRITES[:3])


def test_the_log_goes_on_after_each_start() -> None:
    files, log = new_log()
    for write in WRITES:
        log.append([write])
        log.close()
        log, _ = open_log(files)
    assert open_log(files)[1] == replayed(WRITES)


def test_real_files(tmp_path: Path) -> None:
    def start(create: bool = False) -> tuple[SegmentLog, Recovered]:
        return SegmentLog.open(
            RealFiles(),
            str(tmp_path),
            owner=1,
            draw_bits=Random(1).getrandbits,
            create=create,
            segment_bytes=32 << 10,
        )

    log, recovered = start(create=True)
    assert recovered.is_empty
    writes = [accepted(slot, Random(slot).randbytes(5000)) for slot in range(1, 31)]
    for write in writes:
        log.append([write])
        log.sync()
    log.close()
    assert len(list(tmp_path.glob("*.log"))) > 5
    assert not list(tmp_path.glob("*.new"))
    _, recovered = start()
    assert recovered == replayed(writes)


def test_a_log_that_is_not_there_is_not_made_in_silence() -> None:
    files = disk()
    with pytest.raises(LogDamaged, match=r"missing from /log.*add it anew"):
        open_log(files)
    assert files.names(LOG) == []


def test_one_write_and_one_sync_a_group() -> None:
    files, log = new_log()
    log.append([accepted(1)])  # this one also writes zeros ahead
    log.sync()
    before = files.counts.copy()
    log.append([accepted(slot) for slot in range(2, 50)])
    log.sync()
    log.sync()
    log.append([])
    log.sync()
    assert files.counts - before == {"pwrite": 1, "fdatasync": 1}


def test_a_group_may_span_segments_and_a_record_may_be_longer_than_one() -> None:
    files, log = new_log()
    writes = [
        *(accepted(slot, Random(slot).randbytes(3000)) for slot in range(1, 12)),
        accepted(12, Random(12).randbytes(100_000)),
        accepted(13),
    ]
    log.append(writes)
    log.sync()
    files.crash(Random(1), CrashMode.DROP)
    assert len(files.names(LOG)) > 5
    log, recovered = open_log(files)
    assert recovered == replayed(writes)
    log.append([accepted(14)])
    log.sync()
    assert open_log(files)[1] == replayed([*writes, accepted(14)])


def test_records_fill_a_segment_to_its_last_byte() -> None:
    """The sizes around the end of a segment, one by one."""
    room = SEGMENT_BYTES_MIN - RECORDS_START
    segments = set()
    for length in range(room - 140, room - 40):
        files, log = new_log()
        writes = [accepted(1, b"x" * length), accepted(2, b"y" * length)]
        for write in writes:
            log.append([write])
            log.sync()
        log.close()
        segments.add(len(files.names(LOG)))
        assert open_log(files)[1] == replayed(writes)
    assert segments == {2, 3}, "at some length the first record no longer fits the first segment"


def test_bytes_on_disk_are_those_in_use() -> None:
    files, log = new_log()
    empty = log.bytes_on_disk
    log.append([accepted(1, b"x" * 5000)])
    assert empty + 5000 < log.bytes_on_disk < empty + 5200
    log.append([accepted(2, b"x" * 5000)])
    used = log.bytes_on_disk
    assert used > 2 * empty + 10_000
    log.close()
    closed = log.bytes_on_disk
    assert open_log(files)[0].bytes_on_disk == closed


def test_closing_leaves_one_mark_however_often() -> None:
    files, log = new_log()
    log.close()
    empty = open_log(files)[0]
    assert empty.bytes_on_disk == RECORDS_START, "nothing to prove, no mark"
    empty.append([accepted(1)])
    empty.close()
    sizes = set()
    for _ in range(3):
        log, _ = open_log(files)
        sizes.add(log.bytes_on_disk)
        log.close()
    assert len(sizes) == 1


def test_a_closed_log_is_closed() -> None:
    _, log = new_log()
    log.append([accepted(1)])
    log.close()
    log.close()
    with pytest.raises(LogIOError, match="closed"):
        log.append([accepted(2)])
    with pytest.raises(LogIOError, match="closed"):
        log.sync()


@pytest.mark.parametrize(
    "down", [WritePromise(Ballot(2, 6)), accepted(9, round_=1), WritePromise(Ballot(1, 8))]
)
def test_a_promise_never_goes_down(down: Write) -> None:
    files, log = new_log()
    log.append([WritePromise(Ballot(2, 7))])
    with pytest.raises(InvariantViolation, match="rule 3"):
        log.append([accepted(1, round_=2), down])
    log.append([accepted(1, round_=2)])
    log.close()
    log, recovered = open_log(files)
    assert recovered == replayed([accepted(1, round_=2)]), "nothing of the refused group was written"
    with pytest.raises(InvariantViolation, match="rule 3"):
        log.append([down])


def test_an_entry_beyond_all_bounds_is_refused() -> None:
    _, log = new_log()
    with pytest.raises(InvariantViolation, match="bounded before"):
        log.append([accepted(1, bytes(PAYLOAD_BYTES_MAX))])
    log.append([accepted(1)])


def test_segments_cannot_be_too_short() -> None:
    with pytest.raises(ConfigError, match="too short"):
        open_log(disk(), create=True, segment_bytes=SEGMENT_BYTES_MIN - 1)


Step = Callable[[SegmentLog], None]


def append_a_little(log: SegmentLog) -> None:
    log.append([accepted(100)])


def append_and_roll(log: SegmentLog) -> None:
    log.append([accepted(100, b"x" * SEGMENT_BYTES_MIN)])


def sync(log: SegmentLog) -> None:
    log.sync()


@pytest.mark.parametrize(
    ("call", "nth", "step"),
    [
        ("fdatasync", 1, sync),
        ("pwrite", 1, append_a_little),
        ("fdatasync", 1, append_and_roll),  # of the full segment
        ("create", 1, append_and_roll),
        ("pwrite", 1, append_and_roll),  # the new header
        ("fdatasync", 2, append_and_roll),  # of the new segment
        ("rename", 1, append_and_roll),
        ("sync_directory", 1, append_and_roll),
        ("pwrite", 2, append_and_roll),  # the seal
        ("fdatasync", 3, append_and_roll),
        ("pwrite", 3, append_and_roll),
        ("pwrite", 1, SegmentLog.close),  # the mark
        ("fdatasync", 1, SegmentLog.close),
    ],
)
@pytest.mark.parametrize(("code", "kind"), [(errno.EIO, LogIOError), (errno.ENOSPC, DiskFull)])
def test_the_first_error_is_final(
    call: str, nth: int, step: Step, code: int, kind: type[StorageError]
) -> None:
    files, log = new_log()
    log.append([accepted(1)])
    log.sync()
    log.append([accepted(2)])
    files.fail(call, nth, code)
    with pytest.raises(kind, match="log in /log"):
        step(log)
    before = files.counts.copy()
    refusals: list[Callable[[], None]] = [
        lambda: log.append([accepted(101)]),
        log.sync,
        lambda: log.append([]),
    ]
    for refused in refusals:
        with pytest.raises(kind, match="takes no more"):
            refused()
    log.close()
    assert files.counts == before, "nothing reached the disk after the error"
    files.kill()
    files.crash(Random(1), CrashMode.DROP)
    _, recovered = open_log(files)
    assert recovered.slots[1] == replayed([accepted(1)]).slots[1]


def test_a_full_disk_stops_the_log_until_space_is_freed() -> None:
    files, log = new_log()
    files.capacity_bytes = SEGMENT_BYTES_MIN + 1000
    log.append([accepted(1)])
    log.sync()
    longer = accepted(2, b"x" * SEGMENT_BYTES_MIN)
    for _ in range(2):  # starting again is of no use before space is free
        with pytest.raises(DiskFull, match="free some space"):
            log.append([longer])
        log.close()
        files.kill()
        log, recovered = open_log(files)
        assert recovered == replayed([accepted(1)])
    files.capacity_bytes = None
    log.append([longer])
    log.sync()
    files.crash(Random(1), CrashMode.DROP)
    assert open_log(files)[1] == replayed([accepted(1), longer])


def wait_until_freed(files: MemoryFiles, log: SegmentLog, looks: int) -> list[int]:
    """Space is freed after so many looks; how much there was in use at each, is told."""
    seen: list[int] = []

    def wait() -> bool:
        seen.append(files.used_bytes)
        if len(seen) == looks:
            files.capacity_bytes = None
        return len(seen) <= looks

    log.wait_for_space = wait
    return seen


def test_a_full_disk_can_be_waited_out() -> None:
    files, log = new_log()
    files.capacity_bytes = SEGMENT_BYTES_MIN + 1000
    seen = wait_until_freed(files, log, 3)
    writes = [accepted(1), accepted(2, b"x" * SEGMENT_BYTES_MIN), accepted(3)]
    log.append(writes)
    assert len(seen) == 3
    assert len(set(seen)) == 1, "nothing is left of what was tried"
    log.append([accepted(4)])
    log.sync()
    files.crash(Random(1), CrashMode.DROP)
    assert open_log(files)[1] == replayed([*writes, accepted(4)])


def test_what_was_written_before_is_durable_while_a_full_disk_is_waited_out() -> None:
    files, log = new_log()
    files.capacity_bytes = SEGMENT_BYTES_MIN + 1000
    images: list[MemoryFiles] = []

    def wait() -> bool:
        images.append(files.clone())
        return False

    log.wait_for_space = wait
    with pytest.raises(DiskFull):
        log.append([accepted(1), accepted(2, b"x" * SEGMENT_BYTES_MIN)])
    images[0].kill()
    images[0].crash(Random(1), CrashMode.DROP)
    assert open_log(images[0])[1] == replayed([accepted(1)])
    with pytest.raises(DiskFull, match="takes no more"):
        log.append([accepted(3)])


def test_a_log_that_is_to_be_compacted_waits_for_space_too() -> None:
    files, log = new_log()
    log.append([accepted(1), accepted(2, b"x" * SEGMENT_BYTES_MIN), WriteDecidedThrough(2)])
    files.capacity_bytes = files.used_bytes
    seen = wait_until_freed(files, log, 2)
    log.append([WriteCompacted(1)])
    assert len(seen) == 2
    assert log.compacted_through == 1
    files.crash(Random(1), CrashMode.DROP)
    assert open_log(files)[1].compacted_through == 1


@pytest.mark.parametrize("call", ["pwrite", "fdatasync", "rename", "sync_directory"])
def test_no_space_once_there_is_a_file_is_final(call: str) -> None:
    files, log = new_log()
    log.wait_for_space = lambda: True
    log.append([accepted(1)])
    log.sync()
    files.fail(call, 1, errno.ENOSPC)
    with pytest.raises(DiskFull):
        append_and_roll(log)


def test_an_interruption_is_final_too() -> None:
    files, log = new_log()
    files.power_off_after(0)
    with pytest.raises(Exception, match="the power went"):
        log.append([accepted(1)])
    with pytest.raises(LogIOError, match="cut short"):
        log.sync()


@pytest.mark.parametrize("call", ["open", "read", "names", "pwrite", "fdatasync", "sync_directory"])
def test_an_error_while_opening_is_told(call: str) -> None:
    files, log = new_log()
    log.append([accepted(1)])
    log.sync()
    log.append([WriteAccepted(2, Ballot(1, 7), Batch(b"x"))])
    files.kill()
    files.fail(call, 1, errno.EIO)
    with pytest.raises(LogIOError, match=r"(reading|opening) the log in /log"):
        open_log(files)
    files.kill()
    assert len(open_log(files)[1].slots) == 2


def test_it_is_a_log() -> None:
    _, log = new_log()
    storage: LogStorage = log
    storage.append([accepted(1)])
    storage.sync()
    storage.close()
