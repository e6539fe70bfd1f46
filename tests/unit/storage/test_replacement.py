"""A directory that becomes another member's: the old one or the new one after any loss of power, never a mixture."""

from random import Random

import pytest

from paxos_rsm.errors import LogDamaged
from paxos_rsm.paxos.ready import WriteDecided, WriteDecidedThrough
from paxos_rsm.paxos.types import Noop
from paxos_rsm.storage.directory import DataDirectory
from paxos_rsm.storage.identity import Identity, coming_identity, read_identity
from paxos_rsm.storage.memory import CrashMode, MemoryFiles, PowerLost
from paxos_rsm.storage.replacement import decide_replacement, finish_replacement, stage_snapshot
from paxos_rsm.storage.segments import SEGMENT_BYTES_MIN
from tests.unit.storage.helpers import accepted, snapshot_meta, take

PATH = "/d"
OLD, NEW = 1, 2
STATE = [b"state", b"", b"more" * 1_000]
NEXT = Identity(NEW, 11, "n1", 77, joined=True)


def start(files: MemoryFiles, cluster_id: int) -> DataDirectory:
    return DataDirectory.open(
        PATH,
        files,
        cluster_id=cluster_id,
        member_id=11,
        name="n1",
        draw_bits=Random(1).getrandbits,
        segment_bytes=SEGMENT_BYTES_MIN,
    )


def survivor() -> MemoryFiles:
    """A directory with a snapshot of slot 2 and a log up to slot 4."""
    files = MemoryFiles()
    directory = start(files, OLD)
    directory.log.append([WriteDecided(slot, Noop()) for slot in (1, 2, 3)])
    directory.log.append([WriteDecidedThrough(3), accepted(4)])
    take(directory.snapshots, 2)
    directory.close()
    return files


def replace(files: MemoryFiles) -> None:
    """All of it, as the command does."""
    finish_replacement(files, PATH)
    stage_snapshot(files, PATH, snapshot_meta(5, NEW), STATE)
    decide_replacement(files, PATH, NEXT)
    finish_replacement(files, PATH)


def check_old(files: MemoryFiles) -> None:
    directory = start(files, OLD)
    assert directory.recovered.decided_through == 3
    assert directory.recovered.slots.keys() == {1, 2, 3, 4}
    assert [info.slot for info in directory.snapshots.infos()] == [2]
    directory.close()


def check_new(files: MemoryFiles) -> None:
    assert coming_identity(files, PATH) == NEXT or read_identity(files, PATH) == NEXT
    directory = start(files, NEW)
    assert (directory.identity.incarnation, directory.identity.boot_count) == (77, 1)
    assert [info.slot for info in directory.snapshots.infos()] == [5]
    meta, slices = directory.snapshots.read(5)
    assert meta == snapshot_meta(5, NEW)
    assert list(slices) == [each for each in STATE if each]
    assert directory.recovered.compacted_through == 5
    assert not directory.recovered.slots
    assert not directory.snapshot_missing
    directory.close()
    assert not [path for path in files.paths(PATH) if path.endswith(".next")]


def test_the_directory_is_the_new_members_afterwards() -> None:
    files = survivor()
    replace(files)
    files.crash(Random(1), CrashMode.DROP)
    check_new(files)
    assert start(files, OLD).identity.cluster_id == NEW  # its ids are its own, whatever it is started as


def test_what_was_not_decided_has_not_happened() -> None:
    files = survivor()
    stage_snapshot(files, PATH, snapshot_meta(5, NEW), STATE)
    check_old(files)
    assert not [path for path in files.paths(PATH) if path.endswith(".next")]


def test_what_was_decided_is_done_by_the_next_start() -> None:
    files = survivor()
    stage_snapshot(files, PATH, snapshot_meta(5, NEW), STATE)
    decide_replacement(files, PATH, NEXT)
    assert coming_identity(files, PATH) == NEXT
    check_new(files)


@pytest.mark.parametrize("mode", list(CrashMode))
def test_a_loss_of_power_at_any_moment_leaves_the_old_or_the_new(mode: CrashMode) -> None:
    seen = set()
    changes, done = 0, False
    while not done:
        for seed in range(4):
            files = survivor()
            files.power_off_after(changes)
            try:
                replace(files)
                done = True
            except PowerLost:
                pass
            files.crash(Random(seed * 1_000 + changes), mode)
            # A second loss of power, in the middle of what the next start has to finish.
            files.power_off_after(Random(seed + changes).randrange(1, 14))
            try:
                found = coming_identity(files, PATH)
                finish_replacement(files, PATH)
            except PowerLost:
                pass
            files.crash(Random(seed * 1_000 + changes + 1), mode)
            assert found is not None
            seen.add(found.cluster_id)
            if found.cluster_id == OLD:
                check_old(files)
            else:
                check_new(files)
        changes += 1
    assert changes > 12
    assert seen == {OLD, NEW}


def test_a_new_identity_without_its_snapshot_is_refused() -> None:
    files = survivor()
    stage_snapshot(files, PATH, snapshot_meta(5, NEW), STATE)
    decide_replacement(files, PATH, NEXT)
    for path in files.paths(f"{PATH}/snapshots"):
        files.remove(path)
    with pytest.raises(LogDamaged, match="Put back the copy of the directory that was made before"):
        start(files, NEW)


def test_a_directory_in_which_nothing_was_begun_stays_as_it_is() -> None:
    files = survivor()
    finish_replacement(files, PATH)
    check_old(files)
    finish_replacement(MemoryFiles(), "/none")
