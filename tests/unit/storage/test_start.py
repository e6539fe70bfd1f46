"""Dropping the head of a log: what is kept, what goes, and in which order."""

import errno
from random import Random

import pytest

from paxos_rsm.errors import LogDamaged, LogIOError
from paxos_rsm.paxos.ready import Write, WriteCompacted, WriteDecided, WriteDecidedThrough, WritePromise
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Noop
from paxos_rsm.storage.base import Recovered
from paxos_rsm.storage.headers import segment_name
from paxos_rsm.storage.memory import CrashMode, MemoryFiles, PowerLost
from paxos_rsm.storage.segments import SegmentLog
from paxos_rsm.storage.start import LogStart, decode_start, encode_start, write_start
from tests.unit.storage.helpers import FIRST, LOG, accepted, disk, new_log, open_log, replayed

START = f"{LOG}/start"
BODY = Random(1).randbytes(6000)


def segments(files: MemoryFiles) -> list[str]:
    return [name for name in files.names(LOG) if name.endswith(".log")]


def long_log() -> tuple[MemoryFiles, SegmentLog, list[Write]]:
    """One slot a segment, five of them; the promise goes up in the third."""
    files, log = new_log()
    writes: list[Write] = [accepted(1, BODY), accepted(2, BODY), WritePromise(Ballot(3, 9))]
    writes += [accepted(slot, BODY, round_=4) for slot in (3, 4, 5)]
    log.append(writes)
    log.sync()
    assert len(segments(files)) == 5
    return files, log, writes


# ---- the file ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start", [LogStart(1, 1, NO_BALLOT), LogStart(7, 2**63 - 1, Ballot(2**63 - 1, 2**63 - 1))]
)
def test_a_start_comes_back(start: LogStart) -> None:
    assert decode_start(encode_start(start)) == start


@pytest.mark.parametrize(
    "start",
    [
        LogStart(0, 1, NO_BALLOT),
        LogStart(1, 0, NO_BALLOT),
        LogStart(1, 2**63, NO_BALLOT),
        LogStart(1, 1, Ballot(0, 5)),
        LogStart(1, 1, Ballot(2**63, 5)),
    ],
)
def test_a_start_that_no_server_writes_is_none(start: LogStart) -> None:
    assert decode_start(encode_start(start)) is None


def test_every_bit_of_a_start() -> None:
    data = encode_start(LogStart(3, 40, Ballot(2, 7)))
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        assert decode_start(bytes(flipped)) is None
    for cut in range(len(data)):
        assert decode_start(data[:cut]) is None
    assert decode_start(data + b"\0") is None


# ---- what is kept --------------------------------------------------------------------------------------------


def test_what_is_compacted_is_forgotten_and_the_rest_is_there() -> None:
    files, log, writes = long_log()
    before = log.bytes_on_disk
    log.append([WriteCompacted(3)])
    assert log.compacted_through == 3
    for _ in range(3):
        log.append([])
    assert segments(files) == [segment_name(4), segment_name(5)]
    assert log.bytes_on_disk < before / 2
    files.crash(Random(1), CrashMode.DROP)
    log, recovered = open_log(files)
    assert recovered == replayed([*writes, WriteCompacted(3)])
    assert (recovered.compacted_through, recovered.decided_through, sorted(recovered.slots)) == (3, 3, [4, 5])
    assert recovered.promised == Ballot(4, 7)
    assert log.compacted_through == 3
    assert not recovered.is_empty


def test_a_segment_with_a_slot_that_is_needed_stays_and_all_after_it() -> None:
    files, log = new_log()
    log.append([accepted(1, BODY), accepted(9, BODY), accepted(2, BODY), accepted(3, BODY)])
    log.append([WriteCompacted(4)])
    assert segments(files) == [segment_name(sequence) for sequence in (2, 3, 4)]
    log.append([WriteCompacted(9)])
    log.append([])
    assert segments(files) == [segment_name(4)], "the last one stays, whatever is in it"
    assert sorted(open_log(files.clone())[1].slots) == []


def test_a_slot_far_above_all_that_is_held() -> None:
    """What a snapshot from a peer leaves: votes above it are kept, and the log goes on there."""
    files, log = new_log()
    writes: list[Write] = [
        accepted(1),
        accepted(2),
        WriteDecidedThrough(1),
        accepted(500),
        WriteCompacted(400),
    ]
    writes += [WriteDecided(401, Noop()), WriteDecidedThrough(401), accepted(402)]
    log.append(writes)
    log.close()
    recovered = open_log(files)[1]
    assert recovered == replayed(writes)
    assert sorted(recovered.slots) == [401, 402, 500]
    assert recovered.decided_through == 401


def test_a_promise_is_kept_although_its_segment_is_dropped() -> None:
    files, log = new_log()
    log.append([WritePromise(Ballot(8, 9)), accepted(1, BODY, round_=9)])
    log.append([WriteDecided(2, Noop()), WriteDecided(3, Noop())] * 200)
    log.append([WriteDecided(2, Noop()), WriteDecided(3, Noop())] * 200)
    assert len(segments(files)) > 1
    log.append([WriteCompacted(3)])
    assert FIRST not in files.paths(LOG)
    files.crash(Random(1), CrashMode.DROP)
    log, recovered = open_log(files)
    assert recovered.promised == Ballot(9, 7)
    log.append([WriteCompacted(5)])
    assert open_log(files)[1].promised == Ballot(9, 7), "and through the next compaction too"


def test_compacting_less_than_before_changes_nothing() -> None:
    files, log, _ = long_log()
    log.append([WriteCompacted(2)])
    start, calls = files.read(START), files.counts["sync_directory"]
    log.append([WriteCompacted(1), WriteCompacted(2)])
    assert (files.read(START), files.counts["sync_directory"]) == (start, calls)


def test_a_vote_below_what_is_compacted_is_forgotten_at_once() -> None:
    files, log = new_log()
    log.append([accepted(1), WriteCompacted(5), accepted(4, round_=6), WriteDecided(3, Noop())])
    log.sync()
    recovered = open_log(files)[1]
    assert (recovered.slots, recovered.promised) == ({}, Ballot(6, 7))


# ---- the order -----------------------------------------------------------------------------------------------


def test_what_was_written_before_is_durable_before_anything_is_dropped() -> None:
    """Nobody has called sync: the promise and the vote were written in the same group."""
    files, log, writes = long_log()
    more: list[Write] = [accepted(6, b"x", round_=5), WriteCompacted(4)]
    log.append(more)
    files.crash(Random(1), CrashMode.DROP)
    assert open_log(files)[1] == replayed(writes + more)


@pytest.mark.parametrize("mode", list(CrashMode))
def test_a_crash_at_every_step(mode: CrashMode) -> None:
    """Before the drop or after it, never between; the next start finishes what was begun."""
    seen = set()
    for changes in range(20):
        for seed in range(6):
            rng = Random(seed)
            files, log, writes = long_log()
            files.power_off_after(changes)
            try:
                log.append([WriteCompacted(3)])
                for _ in range(3):
                    log.append([])
            except PowerLost:
                pass
            files.crash(rng, mode)
            files.power_off_after(rng.randrange(12))
            try:
                open_log(files)
            except PowerLost:
                files.crash(rng, mode)
            files.power_off_after(None)
            files.kill()
            log, recovered = open_log(files)
            kept, dropped = replayed(writes), replayed([*writes, WriteCompacted(3)])
            assert recovered in (kept, dropped)
            seen.add(recovered == dropped)
            assert len(segments(files)) == (2 if recovered == dropped else 5)
            log.append([accepted(7, round_=8)])
            log.close()
            assert 7 in open_log(files)[1].slots
    assert seen == {True, False}


@pytest.mark.parametrize("call", ["fdatasync", "create", "pwrite", "rename", "sync_directory", "remove"])
def test_an_error_on_the_way_is_final_and_loses_nothing(call: str) -> None:
    files, log, writes = long_log()
    files.fail(call, 1, errno.EIO)
    if call == "fdatasync":
        log.append([accepted(6, round_=4)])
        writes.append(accepted(6, round_=4))
    with pytest.raises(LogIOError):
        log.append([WriteCompacted(3)])
    with pytest.raises(LogIOError, match="takes no more"):
        log.append([])
    files.kill()
    assert open_log(files)[1] in (replayed(writes), replayed([*writes, WriteCompacted(3)]))


def test_no_group_waits_for_more_than_one_segment_to_go() -> None:
    files, log, _ = long_log()
    log.append([WriteCompacted(5)])
    assert len(segments(files)) == 4
    log.append([])
    assert len(segments(files)) == 3


def test_what_a_start_finds_left_over_is_never_read() -> None:
    files, log, writes = long_log()
    log.append([WriteCompacted(4)])
    files.kill()
    left = segments(files)
    assert len(left) == 4
    files.flip(f"{LOG}/{left[0]}", 5)
    assert open_log(files)[1] == replayed([*writes, WriteCompacted(4)])
    assert len(segments(files)) == 1


# ---- damage --------------------------------------------------------------------------------------------------


def compacted() -> tuple[MemoryFiles, Recovered]:
    files, log, writes = long_log()
    log.append([WriteCompacted(2)])
    log.append([])
    log.close()
    return files, replayed([*writes, WriteCompacted(2)])


def test_every_byte_of_a_compacted_log_with_a_flipped_bit() -> None:
    files, expected = compacted()
    size = len(files.read(START))
    for bit in range(size * 8):
        files.flip(START, bit)
        with pytest.raises(LogDamaged, match="/log/start at byte 0: it does not match its checksum"):
            open_log(files)
        files.flip(START, bit)
    assert open_log(files)[1] == expected


@pytest.mark.parametrize("sequence", [3, 4, 5])
def test_a_segment_missing_after_the_start_is_damage(sequence: int) -> None:
    files, _ = compacted()
    files.remove(f"{LOG}/{segment_name(sequence)}")
    with pytest.raises(LogDamaged, match=rf"{segment_name(sequence)}.* is missing"):
        open_log(files)


def test_a_log_of_which_only_the_start_is_left_is_damage() -> None:
    files, _ = compacted()
    for name in segments(files):
        files.remove(f"{LOG}/{name}")
    with pytest.raises(LogDamaged, match=rf"{segment_name(3)}.* is missing, and start names it"):
        open_log(files)


def test_a_start_that_is_missing_is_damage() -> None:
    files, _ = compacted()
    files.remove(START)
    with pytest.raises(LogDamaged, match=rf"{segment_name(1)}.* is missing"):
        open_log(files)


def test_an_older_start_put_back_is_damage() -> None:
    files, _ = compacted()
    write_start(files, LOG, LogStart(1, 1, NO_BALLOT))
    with pytest.raises(LogDamaged, match=rf"{segment_name(1)}.* is missing"):
        open_log(files)


def test_a_start_that_was_never_finished_is_nothing() -> None:
    files = disk()
    log, _ = open_log(files, create=True)
    log.append([accepted(1)])
    log.close()
    files.create(f"{LOG}/start.new", 10).fdatasync()
    assert open_log(files)[1] == replayed([accepted(1)])
