"""A record whose entry is damaged and whose header is not: the slot is named, the log goes on, the promise stands."""

from random import Random

import pytest

from paxos_rsm.errors import LogDamaged
from paxos_rsm.paxos.ready import (
    Write,
    WriteAccepted,
    WriteCompacted,
    WriteDecided,
    WriteDecidedThrough,
    WritePromise,
)
from paxos_rsm.paxos.types import Ballot, Batch, Noop
from paxos_rsm.storage.base import Recovered
from paxos_rsm.storage.directory import DataDirectory
from paxos_rsm.storage.files import SECTOR_BYTES
from paxos_rsm.storage.headers import RECORDS_START, segment_name
from paxos_rsm.storage.identity import FORMAT_VERSION, read_identity
from paxos_rsm.storage.memory import CrashMode, MemoryFiles
from paxos_rsm.storage.recovery import read_log
from paxos_rsm.storage.segments import SEGMENT_BYTES_MIN, SegmentLog
from tests.forms import of_form
from tests.unit.storage.helpers import FIRST, LOG, OWNER, accepted, disk, open_log, replayed
from tests.unit.storage.version_1 import WRITES, version_1

HEADER = 64
"""Bytes of a record's header."""


def written(writes: list[Write], *, is_closed: bool = False) -> tuple[MemoryFiles, list[int]]:
    """A log of one group a write, and where each record starts (the last number: where they end)."""
    files = disk()
    log, _ = open_log(files, create=True)
    starts = [RECORDS_START]
    for write in writes:
        log.append([write])
        log.sync()
        starts.append(log.bytes_on_disk)
    if is_closed:
        log.close()
    files.kill()
    return files, starts


def repaired(files: MemoryFiles) -> tuple[SegmentLog, Recovered]:
    return SegmentLog.open(
        files,
        LOG,
        owner=OWNER,
        draw_bits=Random(1).getrandbits,
        segment_bytes=SEGMENT_BYTES_MIN,
        repair=True,
    )


def without(writes: list[Write], *lost: int) -> Recovered:
    """What a log remembers of which the entries of these writes cannot be read."""
    recovered = Recovered()
    for at, write in enumerate(writes):
        if at not in lost:
            recovered.apply(write)
        elif isinstance(write, WriteAccepted):
            recovered.lose(write.slot, write.ballot)
        elif isinstance(write, WriteDecided):
            recovered.lose(write.slot, None)
    return recovered


VOTES: list[Write] = [accepted(1), accepted(2, bytes(700), round_=4), accepted(3, round_=5)]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_vote_that_cannot_be_read_is_named(at: int) -> None:
    """The last one too: it was written whole, and has changed since."""
    files, starts = written(VOTES)
    files.flip(FIRST, (starts[at] + HEADER + 3) * 8)
    with pytest.raises(LogDamaged, match=f"byte {starts[at]}, record {at + 1}:"):
        open_log(files)
    files.kill()
    log, recovered = repaired(files)
    assert recovered == without(VOTES, at)
    assert recovered.unreadable == {at + 1}
    assert recovered.promised == Ballot(5, 7), "also where the vote that raised it is the one that is lost"
    log.append([accepted(4, round_=9)])
    log.sync()
    files.crash(Random(1), CrashMode.DROP)
    assert repaired(files)[1] == without([*VOTES, accepted(4, round_=9)], at)


def test_every_bit_of_a_log_marks_a_slot_or_is_refused_or_changes_nothing() -> None:
    writes: list[Write] = [
        *VOTES,
        WriteDecided(4, Batch(b"four")),
        WritePromise(Ballot(6, 9)),
        WriteDecidedThrough(1),
    ]
    writes += [accepted(5, b"five", round_=7)]
    files, starts = written(writes, is_closed=True)
    expected = replayed(writes)
    outcomes = []
    end = len(files.read(FIRST).rstrip(b"\0"))
    for bit in range(RECORDS_START * 8, end * 8):
        files.flip(FIRST, bit)
        at = sum(start <= bit // 8 for start in starts) - 1
        within = bit // 8 - starts[at]
        found: Recovered | None
        try:
            read = read_log(files, LOG, OWNER, repair=True)
            assert read is not None
            found = read[0]
        except LogDamaged:
            found = None
        files.flip(FIRST, bit)
        if within < HEADER:
            assert found is None, "a header that does not hold"
        elif at < len(writes) and isinstance(writes[at], WriteAccepted | WriteDecided):
            assert found == without(writes, at)
        else:
            assert found == expected, "a promise and a mark stand in their headers"
        outcomes.append(found is None or bool(found.unreadable))
    assert 0 < sum(outcomes) < len(outcomes)


def test_several_are_lost_and_the_others_are_there() -> None:
    rng = Random(3)
    writes: list[Write] = [accepted(slot, rng.randbytes(300)) for slot in range(1, 200)]
    files, starts = written(writes)
    size = starts[1] - starts[0]
    names = [name for name in files.names(LOG) if name.endswith(".log")]
    assert len(names) > 3
    for name in names:
        data = files.read(f"{LOG}/{name}")
        for at in range(RECORDS_START + HEADER + 30, len(data.rstrip(b"\0")), 5 * size):
            files.flip(f"{LOG}/{name}", at * 8)
    _, recovered = repaired(files)
    lost = recovered.unreadable
    assert len(lost) > 10
    assert recovered == without(writes, *(slot - 1 for slot in lost))


def test_the_last_record_of_a_segment() -> None:
    writes: list[Write] = [accepted(1, b"a" * 6000), accepted(2, b"b" * 6000)]
    files, _ = written(writes)
    assert len(files.names(LOG)) == 2
    files.flip(FIRST, (RECORDS_START + 3000) * 8)
    assert repaired(files)[1] == without(writes, 0)


def test_a_zeroed_sector_in_what_was_synced() -> None:
    writes: list[Write] = [accepted(1, b"a" * 2000), accepted(2)]
    files, _ = written(writes)
    file = files.open(FIRST)
    file.pwrite(bytes(SECTOR_BYTES), RECORDS_START + SECTOR_BYTES)
    file.fdatasync()
    assert repaired(files)[1] == without(writes, 0)


def test_a_torn_record_is_not_taken_for_a_damaged_one() -> None:
    files = disk()
    log, _ = open_log(files, create=True)
    log.append([accepted(1)])
    log.sync()
    log.append([accepted(2, b"a" * 2000), accepted(3)])
    files.crash_keeping(FIRST, lambda sector: sector != RECORDS_START // SECTOR_BYTES + 1)
    assert repaired(files)[1] == replayed([accepted(1)])


def test_what_is_written_again_is_readable() -> None:
    """Decided, or voted on in a later ballot; then the damaged record is of no interest any more."""
    for again in (WriteDecided(2, Noop()), accepted(2, b"other", round_=8)):
        files, starts = written(VOTES)
        files.flip(FIRST, (starts[1] + HEADER + 3) * 8)
        log, recovered = repaired(files)
        assert recovered.unreadable == {2}
        log.append([again])
        log.close()
        recovered = repaired(files)[1]
        assert not recovered.unreadable
        assert recovered.slots[2].entry == again.entry


def test_a_decided_entry_that_was_written_before_is_kept() -> None:
    """What is lost is a later vote for what is known to be decided."""
    writes: list[Write] = [WriteDecided(1, Batch(b"one")), accepted(2, b"two"), WriteDecidedThrough(2)]
    writes += [accepted(1, b"one", round_=3), accepted(2, b"two", round_=3), accepted(3, round_=3)]
    files, starts = written(writes)
    for at in (3, 4):
        files.flip(FIRST, (starts[at] + HEADER + 3) * 8)
    recovered = repaired(files)[1]
    assert not recovered.unreadable
    assert recovered.promised == Ballot(3, 7)
    assert recovered.slots == replayed([*writes[:3], writes[5]]).slots


def test_a_decided_slot_may_be_unreadable() -> None:
    writes: list[Write] = [accepted(1), accepted(2), WriteDecidedThrough(2), accepted(3)]
    files, starts = written(writes)
    files.flip(FIRST, (starts[0] + HEADER + 3) * 8)
    recovered = repaired(files)[1]
    assert (recovered.unreadable, recovered.decided_through) == ({1}, 2)
    assert not recovered.is_empty


def test_what_is_compacted_is_not_missed() -> None:
    writes: list[Write] = [accepted(1), accepted(2), accepted(3), WriteCompacted(2)]
    files, starts = written(writes)
    files.flip(FIRST, (starts[1] + HEADER + 3) * 8)
    assert repaired(files)[1] == replayed(writes)
    recovered = Recovered()
    recovered.lose(1, None)
    recovered.lose(5, None)
    recovered.apply(WriteCompacted(3))
    assert recovered.unreadable == {5}


def test_a_record_that_does_not_follow_is_damage_all_the_same() -> None:
    """Its header is sound, and it is not the next: which slot the missing one was, nobody knows."""
    files, starts = written(VOTES)
    data = files.read(FIRST)
    moved = data[starts[2] : starts[3]]
    file = files.open(FIRST)
    file.pwrite(moved[:-20] + b"\x55" + moved[-19:], starts[1])
    file.fdatasync()
    with pytest.raises(LogDamaged, match=f"byte {starts[1]}, record 2:"):
        repaired(files)


# ---- version 1 -----------------------------------------------------------------------------------------------

PATH = "/old"
OLD_FIRST, OLD_SECOND, NEW = (f"{PATH}/log/{segment_name(sequence)}" for sequence in (1, 2, 3))


def start(files: MemoryFiles, *, repair: bool = True) -> DataDirectory:
    return DataDirectory.open(
        PATH,
        files,
        cluster_id=1,
        member_id=11,
        name="n1",
        draw_bits=Random(1).getrandbits,
        segment_bytes=SEGMENT_BYTES_MIN,
        repair=repair,
    )


def test_a_directory_of_format_1_is_read_and_goes_on_as_format_2() -> None:
    files = version_1(PATH)
    before = read_identity(files, PATH)
    assert before is not None
    assert (before.format_version, before.boot_count) == (1, 2)
    directory = start(files)
    assert directory.recovered == replayed(WRITES)
    assert (directory.identity.format_version, directory.identity.boot_count) == (FORMAT_VERSION, 3)
    assert read_identity(files, PATH) == directory.identity
    more = [accepted(5, round_=6), accepted(6, round_=6)]
    directory.log.append(more)
    directory.log.sync()
    files.crash(Random(1), CrashMode.DROP)
    assert start(files).recovered == replayed([*WRITES, *more])
    assert [files.read(path)[7:8] for path in (OLD_FIRST, OLD_SECOND, NEW)] == [b"1", b"1", b"2"]


def test_a_directory_of_format_1_may_be_opened_and_closed_often() -> None:
    files = version_1(PATH)
    for _ in range(3):
        directory = start(files)
        assert directory.recovered == replayed(WRITES)
        directory.close()
    assert NEW not in files.paths(PATH)


@pytest.mark.parametrize("mode", list(CrashMode))
def test_the_upgrade_may_be_cut_short_anywhere(mode: CrashMode) -> None:
    more = accepted(5, round_=6)
    for changes in range(40):
        files = version_1(PATH)
        files.power_off_after(changes)
        written = 0
        try:
            directory = start(files)
            directory.log.append([more])
            directory.log.sync()
            written = 1
            directory.log.append([WriteCompacted(4)])
            directory.log.append([])
        except Exception as error:
            assert "the power went" in str(error)  # noqa: PT017 (it may also not go)
        files.crash(Random(changes), mode)
        found = start(files).recovered
        writes: list[Write] = [*WRITES, more]
        expected = [replayed(WRITES), replayed(writes), replayed([*writes, WriteCompacted(4)])]
        assert found in expected[written:]
    assert found == expected[2]


def test_a_damaged_record_of_version_1_is_refused() -> None:
    """Its header says neither slot nor ballot."""
    files = version_1(PATH)
    files.flip(OLD_FIRST, (RECORDS_START + 200) * 8)
    with pytest.raises(LogDamaged, match=OLD_FIRST):
        start(files)


def test_every_byte_of_a_log_of_version_1_with_a_flipped_bit() -> None:
    files = version_1(PATH)
    owner = start(files.clone()).identity.incarnation
    found = 0
    for path in (OLD_FIRST, OLD_SECOND):
        for byte in range(0, len(files.read(path).rstrip(b"\0")), of_form(3, 1)):
            files.flip(path, byte * 8 + byte % 7)
            try:
                read = read_log(files, f"{PATH}/log", owner, repair=True)
                assert read is not None
                assert read[0] == replayed(WRITES)
            except LogDamaged:
                found += 1
            files.flip(path, byte * 8 + byte % 7)
    assert found > of_form(3_800, 11_500)
