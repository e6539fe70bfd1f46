"""Reading the log back: torn tails, damage, and the acknowledged never less than it was.

The long random lives of a log are in test_lives.py.
"""

import errno
from collections import Counter
from random import Random

import pytest

from paxos_rsm.errors import IdentityMismatch, LogDamaged, LogIOError
from paxos_rsm.paxos.ready import Write, WriteDecided, WriteDecidedThrough, WritePromise
from paxos_rsm.paxos.types import Ballot, Noop
from paxos_rsm.storage.base import Recovered
from paxos_rsm.storage.files import SECTOR_BYTES
from paxos_rsm.storage.headers import (
    RECORDS_START,
    SEAL_BYTES,
    SEAL_START,
    decode_header,
    encode_header,
    segment_name,
)
from paxos_rsm.storage.memory import CrashMode, MemoryFiles
from paxos_rsm.storage.records import RecordFormat, Row
from paxos_rsm.storage.recovery import has_segments, read_log
from tests.forms import of_form
from tests.unit.storage.helpers import FIRST, LOG, OWNER, SECOND, accepted, disk, new_log, open_log, replayed

GROUP: list[Write] = [
    WritePromise(Ballot(2, 7)),
    accepted(10, Random(1).randbytes(700), round_=2),
    accepted(11, bytes(1200), round_=2),
    WriteDecided(12, Noop()),
    accepted(13, b"short", round_=3),
    accepted(14, b"a" * 300 + bytes(600) + b"\x01", round_=3),
]


def recovered_from(files: MemoryFiles) -> Recovered:
    found = read_log(files, LOG, OWNER)
    assert found is not None
    return found[0]


def spoil(files: MemoryFiles, path: str, offset: int, data: bytes) -> None:
    """Overwrites durable bytes behind the log's back."""
    file = files.open(path)
    file.pwrite(data, offset)
    file.fdatasync()
    file.close()


# ------------------------------------------------------------------------------------------- torn tails


@pytest.mark.parametrize("lead", [0, 24, 48])
def test_a_crash_at_every_byte_of_the_last_group(lead: int) -> None:
    """What was synced is there, and of the group cut off a prefix of whole records."""
    synced = [accepted(1, b"x" * (300 + lead))]
    files, log = new_log()
    log.append(synced)
    log.sync()
    start = log.bytes_on_disk
    log.append(GROUP)
    group_bytes = log.bytes_on_disk - start
    assert files.unsynced_bytes(FIRST) >= group_bytes
    kept = 0
    for cut in range(group_bytes + 1):
        image = files.clone()
        image.crash_keeping(FIRST, cut)
        recovered = recovered_from(image)
        if recovered != replayed(synced + GROUP[:kept]):
            kept += 1
            assert recovered == replayed(synced + GROUP[:kept]), f"cut at {cut} of {group_bytes}"
    assert kept == len(GROUP)


def test_the_log_goes_on_after_a_tear() -> None:
    files, log = new_log()
    log.append([accepted(1)])
    log.sync()
    start = log.bytes_on_disk
    log.append(GROUP)
    for cut in range(0, log.bytes_on_disk - start, 97):
        image = files.clone()
        image.crash_keeping(FIRST, cut)
        log, recovered = open_log(image)
        image.crash(Random(1), CrashMode.DROP)
        log, again = open_log(image)
        assert again == recovered, "what a start believes is durable"
        log.append([accepted(50, round_=9)])
        log.sync()
        image.crash(Random(1), CrashMode.DROP)
        recovered.apply(accepted(50, round_=9))
        assert recovered_from(image) == recovered


@pytest.mark.parametrize("seed", range(150))
def test_any_sectors_of_the_last_group_may_be_missing(seed: int) -> None:
    rng = Random(seed)
    files, log = new_log(1 << 16)
    synced = [accepted(slot, rng.randbytes(rng.randrange(900))) for slot in range(1, 4)]
    log.append(synced)
    log.sync()
    group = [
        accepted(slot, rng.randbytes(size) if rng.random() < 0.5 else bytes(size))
        for slot, size in enumerate(rng.choices([5, 100, 600, 2000], k=10), 4)
    ]
    log.append(group[:5])
    log.append(group[5:])
    lost = {sector for sector in range(128) if rng.random() < rng.choice([0.03, 0.2, 0.6])}
    files.crash_keeping(FIRST, lambda sector: sector not in lost)
    _, recovered = open_log(files)
    kept = len(recovered.slots) - len(synced)
    assert recovered == replayed(synced + group[: max(0, kept)])
    assert kept >= 0


def test_valid_records_after_a_torn_one_are_dropped_with_it() -> None:
    files, log = new_log()
    log.append([accepted(1)])
    log.sync()
    log.append([accepted(2, Random(1).randbytes(2000)), accepted(3), accepted(4)])
    files.crash_keeping(FIRST, lambda sector: sector != RECORDS_START // SECTOR_BYTES + 2)
    log, recovered = open_log(files)
    assert recovered == replayed([accepted(1)])
    assert len(files.read(FIRST).rstrip(b"\0")) == log.bytes_on_disk, "the dropped bytes are gone"
    # A record of the length of the torn one, so that the dropped ones would follow it if they were still there.
    other = accepted(2, Random(2).randbytes(2000))
    log.append([other])
    log.sync()
    assert recovered_from(files) == replayed([accepted(1), other])


@pytest.mark.parametrize("mode", [CrashMode.TEAR, CrashMode.SCATTER])
@pytest.mark.parametrize("seed", range(40))
def test_a_recovery_that_is_cut_short_is_taken_up_again(mode: CrashMode, seed: int) -> None:
    files, log = new_log()
    log.append([accepted(1)])
    log.sync()
    log.append(GROUP)
    rng = Random(seed)
    files.crash(rng, mode)
    expected = recovered_from(files)
    for changes in (1, 0, 2, 1):
        files.power_off_after(changes)
        with pytest.raises(Exception, match="the power went"):
            open_log(files)
        files.crash(rng, mode)
        assert recovered_from(files) == expected
    assert open_log(files)[1] == expected


def test_what_a_failed_sync_lost_is_written_again_before_it_is_believed() -> None:
    """The bytes can be read and the pages are clean: only a new write brings them to the disk."""
    files, log = new_log()
    log.append([accepted(1)])
    log.sync()
    log.append([accepted(2)])
    files.fail("fdatasync", 1, errno.EIO)
    with pytest.raises(LogIOError):
        log.sync()
    files.kill()
    _, recovered = open_log(files)
    assert recovered == replayed([accepted(1), accepted(2)])
    files.crash(Random(1), CrashMode.DROP)
    assert open_log(files)[1] == recovered


# ------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("repair", [False, True])
def test_every_byte_of_a_log_with_a_flipped_bit(repair: bool) -> None:
    """Two segments, not closed: each flip is found, or changes nothing that was remembered.

    With ``repair`` the entry that is lost is named, and nothing else is. Every third byte of segments of 16 KiB; in the
    long form every one of 32 KiB.
    """
    rng = Random(1)
    segment = of_form(16 << 10, 32 << 10)
    step = of_form(3, 1)
    sizes = of_form((3000, 3000, 6000, 900), (9000, 7000, 12_000, 3000))
    files, log = new_log(segment)
    groups: list[list[Write]] = [
        [accepted(1, rng.randbytes(sizes[0]))],
        [accepted(2, rng.randbytes(sizes[1])), WriteDecidedThrough(2)],
        [accepted(3, rng.randbytes(sizes[2]))],
        [WritePromise(Ballot(2, 1)), accepted(4, rng.randbytes(sizes[3]) + bytes(600), round_=2)],
    ]
    for group in groups:
        log.append(group)
        log.sync()
    writes = [write for group in groups for write in group]
    expected = replayed(writes)
    paths = [f"{LOG}/{name}" for name in files.names(LOG)]
    assert len(paths) == 2
    outcomes: Counter[str] = Counter()
    for path in paths:
        for byte in range(0, len(files.read(path)), step):
            bit = byte * 8 + byte % 7
            files.flip(path, bit)
            try:
                found = read_log(files, LOG, OWNER, repair=repair)
            except LogDamaged:
                outcomes["refused"] += 1
            else:
                assert found is not None
                lost = found[0].unreadable
                assert len(lost) <= repair
                for slot in lost:
                    found[0].slots[slot] = expected.slots[slot]
                found[0].unreadable = set()
                assert found[0] == expected, f"byte {byte} of {path}"
                outcomes["named" if lost else "unchanged"] += 1
            files.flip(path, bit)
    assert step * (outcomes["refused"] + outcomes["named"]) > sum(sizes), "all that is in use"
    assert (step * outcomes["named"] > sum(sizes)) == repair
    assert outcomes.total() == 2 * -(-segment // step)


@pytest.mark.parametrize("target", [1, 2, 3, 4])
def test_every_bit_of_a_small_record(target: int) -> None:
    """The last group holds the records 3 and 4; 1 was synced before it, 2 with 3 and 4."""
    files, log = new_log()
    log.append([accepted(1)])
    log.sync()
    starts = [RECORDS_START, log.bytes_on_disk]
    log.append([WritePromise(Ballot(1, 9))])
    starts.append(log.bytes_on_disk)
    log.append([accepted(3, round_=2)])
    starts.append(log.bytes_on_disk)
    log.append([WriteDecided(4, Noop())])
    starts.append(log.bytes_on_disk)
    log.sync()
    for bit in range(starts[target - 1] * 8, starts[target] * 8):
        files.flip(FIRST, bit)
        with pytest.raises(LogDamaged, match=f"byte {starts[target - 1]}, record {target}:"):
            recovered_from(files)
        files.flip(FIRST, bit)
    assert len(recovered_from(files).slots) == 3


def test_damage_is_named_and_says_what_to_do() -> None:
    files, log = new_log()
    log.append([accepted(1)])
    log.sync()
    start = log.bytes_on_disk
    log.append([accepted(2)])
    log.sync()
    files.flip(FIRST, (start + 45) * 8)
    with pytest.raises(LogDamaged) as caught:
        open_log(files)
    message = str(caught.value)
    for part in (
        FIRST,
        f"byte {start}",
        "record 2",
        "Restore the disk",
        "add it anew",
        "do not edit or delete",
    ):
        assert part in message


@pytest.mark.parametrize("count", [SECTOR_BYTES, 1500])
def test_a_hole_in_what_a_later_group_proves_is_damage(count: int) -> None:
    files, log = new_log()
    for slot in range(1, 5):
        log.append([accepted(slot, Random(slot).randbytes(700))])
        log.sync()
    spoil(files, FIRST, RECORDS_START + SECTOR_BYTES, bytes(count))
    with pytest.raises(LogDamaged, match=r"record 1: .* says that it was synced"):
        open_log(files)


def test_a_hole_in_the_last_group_is_damage_once_the_log_was_closed() -> None:
    files, log = new_log()
    log.append([accepted(1, Random(1).randbytes(2000))])
    log.close()
    spoil(files, FIRST, RECORDS_START + SECTOR_BYTES, bytes(SECTOR_BYTES))
    with pytest.raises(LogDamaged, match=r"record 1: .* record 2 .* says that it was synced"):
        open_log(files)


def test_a_hole_in_the_last_group_is_a_tear_where_nothing_came_after() -> None:
    """The limit of what one disk can tell: here a lost sector and one never written look the same."""
    files, log = new_log()
    log.append([accepted(1, Random(1).randbytes(2000))])
    log.sync()
    spoil(files, FIRST, RECORDS_START + SECTOR_BYTES, bytes(SECTOR_BYTES))
    assert open_log(files)[1].is_empty


def test_a_hole_before_another_segment_is_damage() -> None:
    files, log = new_log()
    log.append([accepted(slot, Random(slot).randbytes(3000)) for slot in range(1, 4)])
    log.sync()
    spoil(files, FIRST, RECORDS_START + 2 * SECTOR_BYTES, bytes(SECTOR_BYTES))
    with pytest.raises(LogDamaged, match=rf"{FIRST} .*record 1: .*{segment_name(2)} goes on after it"):
        open_log(files)


def test_a_record_that_does_not_follow_is_damage() -> None:
    """A write that the disk put in the wrong place, or an old one that came back."""
    for number, previous_crc in ((3, 0), (1, 0), (2, 12345)):
        files, log = new_log()
        log.append([accepted(1)])
        log.sync()
        found = read_log(files, LOG, OWNER)
        assert found is not None
        tail = found[1]
        parts: list[bytes] = []
        RecordFormat(tail.header.salt).encode(
            parts, Row(4, 1, 0, 0, b""), number, 0, previous_crc or tail.previous_crc
        )
        spoil(files, FIRST, tail.end, b"".join(parts))
        with pytest.raises(LogDamaged, match="does not follow"):
            open_log(files)


def test_a_record_that_is_none_is_damage() -> None:
    files, _ = new_log()
    found = read_log(files, LOG, OWNER)
    assert found is not None
    tail = found[1]
    parts: list[bytes] = []
    RecordFormat(tail.header.salt).encode(parts, Row(3, 1, 0, 0, b"\xff\xff\xff"), 1, 0, tail.previous_crc)
    spoil(files, FIRST, tail.end, b"".join(parts))
    with pytest.raises(LogDamaged, match="record 1: 3 bytes are no Entry"):
        open_log(files)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (Row(3, 1, 0, 0, b"\x08\x03\x12\x00"), "a configuration needs at least one member"),
        (Row(3, 1, 0, 0, b"\x08\x03\x12\x02\xff\xff"), "2 bytes are no Configuration"),
        (Row(4, 2**64 - 1, 0, 0, b""), "it names slot 18446744073709551615"),
        (Row(1, 0, 3, 0, b""), "it names 3.0, which is no ballot"),
    ],
)
def test_a_record_that_no_server_writes_is_damage(row: Row, why: str) -> None:
    """Found by fuzzing: a DecodeError or a ConfigError came out, and slots beyond 63 bits were believed."""
    files, _ = new_log()
    found = read_log(files, LOG, OWNER)
    assert found is not None
    parts: list[bytes] = []
    RecordFormat(found[1].header.salt).encode(parts, row, 1, 0, found[1].previous_crc)
    spoil(files, FIRST, found[1].end, b"".join(parts))
    with pytest.raises(LogDamaged, match=f"record 1: .*{why}"):
        open_log(files)


def test_a_header_that_leaves_no_room_for_records_is_damage() -> None:
    """Found by fuzzing: a segment of 100 bytes was read as an empty log."""
    files, log = new_log()
    log.append([accepted(1)])
    log.sync()
    header = decode_header(files.read(FIRST))
    assert header is not None
    spoil(files, FIRST, 0, encode_header(header._replace(capacity=100)))
    with pytest.raises(LogDamaged, match="its header says that it is 100 bytes long"):
        open_log(files)


@pytest.mark.parametrize("knows_the_salt", [False, True])
def test_a_value_that_looks_like_a_record_is_a_value(knows_the_salt: bool) -> None:
    """Whoever knew the salt could make a torn tail look damaged."""
    files, log = new_log()
    found = read_log(files, LOG, OWNER)
    assert found is not None
    parts: list[bytes] = []
    RecordFormat(found[1].header.salt if knows_the_salt else 0).encode(
        parts, Row(4, 1, 0, 0, b""), 100, 99, 0
    )
    forged = b"".join(b"." * 7 + b"".join(parts) for _ in range(8))
    log.append([accepted(1, b"." * 600 + forged)])
    files.crash_keeping(FIRST, lambda sector: sector != RECORDS_START // SECTOR_BYTES)
    if knows_the_salt:
        with pytest.raises(LogDamaged, match=r"record 100 .* says that it was synced"):
            open_log(files)
    else:
        assert open_log(files)[1].is_empty


# ------------------------------------------------------------------------------------------- segments


def three_segments() -> tuple[MemoryFiles, Recovered]:
    files, log = new_log()
    writes = [accepted(slot, Random(slot).randbytes(6000)) for slot in range(1, 4)]
    log.append(writes)
    log.sync()
    assert files.names(LOG) == [segment_name(sequence) for sequence in (1, 2, 3)]
    files.kill()
    return files, replayed(writes)


@pytest.mark.parametrize("sequence", [1, 2, 3])
def test_a_missing_segment_is_damage(sequence: int) -> None:
    files, _ = three_segments()
    files.remove(f"{LOG}/{segment_name(sequence)}")
    with pytest.raises(LogDamaged, match=rf"{segment_name(sequence)}.*is missing"):
        open_log(files)


@pytest.mark.parametrize("sequence", [1, 2, 3])
@pytest.mark.parametrize("size", [0, 10, 12 << 10, (16 << 10) - 1])
def test_a_segment_cut_short_is_damage(sequence: int, size: int) -> None:
    files, _ = three_segments()
    path = f"{LOG}/{segment_name(sequence)}"
    content = files.read(path)[:size]
    files.create(path, 0).pwrite(content, 0)
    with pytest.raises(LogDamaged, match=segment_name(sequence)):
        open_log(files)


def test_segments_that_changed_places_are_damage() -> None:
    files, _ = three_segments()
    files.rename(FIRST, f"{LOG}/aside")
    files.rename(SECOND, FIRST)
    files.rename(f"{LOG}/aside", SECOND)
    with pytest.raises(LogDamaged, match="under another name"):
        open_log(files)


def test_a_segment_of_another_history_is_damage() -> None:
    """The same member, the same place in the log, but not after these records."""
    files, _ = three_segments()
    other = disk()
    log, _ = open_log(other, create=True)
    log.append([accepted(slot, Random(slot + 10).randbytes(6000)) for slot in range(1, 4)])
    log.sync()
    spoil(files, SECOND, 0, other.read(SECOND))
    with pytest.raises(LogDamaged, match="does not follow the segment before"):
        open_log(files)


def test_a_log_of_another_member_is_told() -> None:
    files, _ = three_segments()
    with pytest.raises(IdentityMismatch, match="belongs to another member"):
        open_log(files, owner=OWNER + 1)


def test_any_part_of_a_seal_says_that_the_log_goes_on() -> None:
    files, _ = three_segments()
    seal = files.read(SECOND)[SEAL_START : SEAL_START + SEAL_BYTES]
    assert any(seal)
    assert not any(files.read(f"{LOG}/{segment_name(3)}")[SEAL_START : SEAL_START + SEAL_BYTES])
    files.remove(f"{LOG}/{segment_name(3)}")
    for cut in range(1, SEAL_BYTES):
        spoil(files, SECOND, SEAL_START, seal[:cut].ljust(SEAL_BYTES, b"\0"))
        with pytest.raises(LogDamaged, match=r"was sealed.*is missing"):
            open_log(files)


def test_a_lost_seal_is_set_again() -> None:
    """The power went after the next segment had its name and before the seal of this one was synced."""
    files, expected = three_segments()
    spoil(files, SECOND, SEAL_START, bytes(SEAL_BYTES))
    assert open_log(files)[1] == expected
    files.crash(Random(1), CrashMode.DROP)
    assert any(files.read(SECOND)[SEAL_START : SEAL_START + SEAL_BYTES])


def test_a_segment_without_its_name_is_left_alone() -> None:
    """The power went while it was made."""
    files, expected = three_segments()
    files.create(f"{LOG}/{segment_name(4)}.new", 100).fdatasync()
    log, recovered = open_log(files)
    assert recovered == expected
    more = accepted(4, Random(4).randbytes(6000))
    log.append([more])
    log.sync()
    expected.apply(more)
    assert recovered_from(files) == expected


def test_a_last_segment_without_records_is_a_roll_that_was_cut_short() -> None:
    files, log = new_log()
    log.append([accepted(1, b"x" * 6000)])
    log.sync()
    files.power_off_after(6)  # create, header, sync, rename, directory, seal
    with pytest.raises(Exception, match="the power went before fdatasync"):
        log.append([accepted(2, b"x" * 6000)])
    files.crash(Random(1), CrashMode.DROP)
    assert files.names(LOG) == [segment_name(1), segment_name(2)]
    log, recovered = open_log(files)
    assert recovered == replayed([accepted(1, b"x" * 6000)])
    log.append([accepted(2)])
    log.close()
    assert len(recovered_from(files).slots) == 2


def test_what_else_lies_in_the_directory_is_nobodys_business() -> None:
    files, expected = three_segments()
    files.create(f"{LOG}/notes.txt", 10)
    assert recovered_from(files) == expected


def test_whether_there_is_a_log() -> None:
    files = disk()
    assert not has_segments(files, LOG)
    assert not has_segments(files, "/none")
    assert read_log(files, LOG, OWNER) is None
    files.create(f"{LOG}/{segment_name(1)}.new", 10)
    assert not has_segments(files, LOG)
    open_log(files, create=True)
    assert has_segments(files, LOG)
