"""Reading a directory without a server: what is said of each file, and whether a start agrees."""

import errno
from pathlib import Path
from random import Random

import pytest

from paxos_rsm.errors import DirectoryLocked, DirectoryUnusable, LogIOError, StorageError
from paxos_rsm.paxos.ready import Write, WriteCompacted, WriteDecided, WriteDecidedThrough
from paxos_rsm.paxos.types import Noop
from paxos_rsm.storage.directory import DataDirectory
from paxos_rsm.storage.files import RealFiles
from paxos_rsm.storage.headers import RECORDS_START, segment_name
from paxos_rsm.storage.identity import Identity
from paxos_rsm.storage.memory import MemoryFiles
from paxos_rsm.storage.replacement import decide_replacement
from paxos_rsm.storage.restore import restore_directory
from paxos_rsm.storage.snapshots import SnapshotStore
from paxos_rsm.storage.verify import Report, Verdict, verify
from tests.unit.storage.crash_images import PATH, opened
from tests.unit.storage.helpers import accepted, backup_bytes, take
from tests.unit.storage.version_1 import version_1

FIRST, SECOND = (f"{PATH}/log/{segment_name(sequence)}" for sequence in (3, 4))
"""Of those that are left."""


def used() -> MemoryFiles:
    """Six segments, of which the first two are dropped; two snapshots; stopped in order."""
    files = MemoryFiles()
    directory = opened(files)
    writes: list[Write] = [accepted(slot, Random(slot).randbytes(3000), round_=2) for slot in range(1, 12)]
    directory.log.append([*writes, WriteDecidedThrough(9)])
    take(directory.snapshots, 4)
    take(directory.snapshots, 6)
    directory.log.append([WriteCompacted(4)])
    directory.log.append([])
    directory.close()
    return files


def files_of(report: Report) -> dict[str, str | None]:
    return {file.name: file.problem for file in report.files}


def test_a_sound_directory() -> None:
    report = verify(used(), PATH)
    assert report.verdict is Verdict.SOUND
    assert report.first_problem is None
    assert files_of(report) == dict.fromkeys(
        [
            "identity",
            "log/start",
            *(f"log/{segment_name(sequence)}" for sequence in (3, 4, 5, 6)),
            f"snapshots/{4:019d}.snapshot",
            f"snapshots/{6:019d}.snapshot",
        ]
    )
    assert (report.promised, report.decided_through, report.compacted_through) == ((2, 7), 9, 4)
    assert (report.snapshot, report.unreadable) == (6, ())
    assert report.identity is not None
    assert report.identity.name == "n1"
    by_name = {file.name: file.content for file in report.files}
    assert by_name["identity"].startswith("member n1 (b) of cluster 1, incarnation ")
    assert by_name[f"log/{segment_name(3)}"] == "records 5 to 6, slots 5 to 6"
    assert by_name[f"log/{segment_name(6)}"] == "records 11 to 13, slots 9 to 11"
    assert report.meaning == ("everything that this server has acknowledged is there",)


def test_nothing_is_changed() -> None:
    files = used()
    before = {path: files.read(path) for path in files.paths(PATH) if not path.endswith("LOCK")}
    assert verify(files, PATH) == verify(files, PATH)
    assert {path: files.read(path) for path in files.paths(PATH) if not path.endswith("LOCK")} == before
    opened(files).close()


def test_a_lost_entry_is_named() -> None:
    files = used()
    files.flip(FIRST, (RECORDS_START + 500) * 8)
    report = verify(files, PATH)
    assert report.verdict is Verdict.REPAIRABLE
    assert len(report.unreadable) == 1
    problem = report.first_problem
    assert problem is not None
    assert (problem.name, problem.offset) == (f"log/{segment_name(3)}", RECORDS_START)
    assert "does not match its checksum" in str(problem.problem)
    assert problem.content.endswith("1 of them cannot be read")
    assert f"1 slots cannot be read ({report.unreadable[0]})" in report.meaning[0]
    assert "No promise and no vote is in doubt" in report.meaning[-1]


def test_damage_that_was_mended_is_told_as_that() -> None:
    files = used()
    files.flip(FIRST, (RECORDS_START + 500) * 8)
    (lost,) = verify(files, PATH).unreadable
    directory = opened(files, repair=True)
    directory.log.append([WriteDecided(lost, Noop())])
    directory.log.append([])
    directory.close()
    report = verify(files, PATH)
    assert (report.verdict, report.unreadable) == (Verdict.SOUND, ())
    assert report.first_problem is not None
    assert "was mended since" in report.meaning[1]


def test_damage_in_one_file_does_not_hide_that_in_another() -> None:
    files = used()
    for path in (FIRST, SECOND, f"{PATH}/snapshots/{6:019d}.snapshot"):
        files.flip(path, 8 * ((RECORDS_START if path.endswith("log") else 600) + 20))
    report = verify(files, PATH)
    assert report.verdict is Verdict.REFUSED
    assert [name for name, problem in files_of(report).items() if problem] == [
        f"log/{segment_name(3)}",
        f"log/{segment_name(4)}",
        f"snapshots/{6:019d}.snapshot",
    ]
    assert report.snapshot == 4
    assert FIRST in report.meaning[0]


@pytest.mark.parametrize(
    ("name", "problem"),
    [("identity", "it cannot be read"), ("log/start", "it does not match its checksum")],
)
def test_a_small_file_that_does_not_hold(name: str, problem: str) -> None:
    files = used()
    files.flip(f"{PATH}/{name}", 8 * 30)
    report = verify(files, PATH)
    assert report.verdict is Verdict.REFUSED
    assert files_of(report)[name] == problem
    assert f"{PATH}/{name}" in report.meaning[0]


def test_files_that_are_missing() -> None:
    for name, sentence in (
        ("identity", "identity is missing"),
        (f"log/{segment_name(3)}", "the segment is missing"),
        ("log/start", "the segment is missing"),
    ):
        files = used()
        files.remove(f"{PATH}/{name}")
        report = verify(files, PATH)
        assert report.verdict is Verdict.REFUSED
        assert sentence in report.meaning[0]


def test_a_log_that_is_gone() -> None:
    files = used()
    for path in files.paths(f"{PATH}/log"):
        files.remove(path)
    assert "the log is missing" in verify(files, PATH).meaning[0]


def test_a_state_that_has_to_come_from_the_others() -> None:
    files = used()
    for slot in (4, 6):
        files.remove(f"{PATH}/snapshots/{slot:019d}.snapshot")
    report = verify(files, PATH)
    assert (report.verdict, report.snapshot) == (Verdict.REPAIRABLE, 0)
    assert "no sound snapshot reaches that far" in report.meaning[0]


def test_a_snapshot_is_read_to_its_end() -> None:
    files = used()
    path = f"{PATH}/snapshots/{6:019d}.snapshot"
    files.flip(path, 8 * (len(files.read(path)) // 2))
    report = verify(files, PATH)
    assert (report.verdict, report.snapshot) == (Verdict.REPAIRABLE, 4)
    problem = report.first_problem
    assert problem is not None
    assert problem.problem == "a chunk does not match its checksum"
    assert 0 < (problem.offset or 0) <= len(files.read(path)) // 2
    assert report.meaning[0] == "snapshots are damaged: 1; an older one, of slot 4, has the state"


def test_what_is_left_over_or_put_aside_is_no_problem() -> None:
    files = used()
    store = SnapshotStore.open(files, f"{PATH}/snapshots")
    store.mark_damaged(4)
    store.fetch(9, 500).close()
    files.create(f"{PATH}/log/{segment_name(1)}", 10)
    report = verify(files, PATH)
    assert report.verdict is Verdict.SOUND
    by_name = {file.name: file.content for file in report.files}
    assert by_name[f"log/{segment_name(1)}"] == "left over from a compaction, and no part of the log"
    assert by_name[f"snapshots/{4:019d}.snapshot.damaged"] == "put aside, for it is damaged"
    assert by_name[f"snapshots/{9:019d}-500.part"] == "not whole, and not used"


def test_a_directory_of_format_1() -> None:
    report = verify(version_1(PATH), PATH)
    assert report.verdict is Verdict.SOUND
    assert report.promised == (5, 9)


def test_a_directory_that_was_never_used(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(DirectoryUnusable, match="there is no data directory at"):
            verify(RealFiles(), path)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_in_use() -> None:
    files = MemoryFiles()
    opened(files)
    with pytest.raises(DirectoryLocked, match="in use by the process"):
        verify(files, PATH)


def test_an_error_while_reading_is_told_and_lets_go() -> None:
    files = used()
    files.fail("read", 3, errno.EIO)
    with pytest.raises(LogIOError, match="verifying the data directory"):
        verify(files, PATH)
    verify(files, PATH)


def test_on_a_real_disk(tmp_path: Path) -> None:
    directory = DataDirectory.open(
        tmp_path, RealFiles(), cluster_id=1, member_id=11, name="n1", draw_bits=Random(1).getrandbits
    )
    directory.log.append([accepted(1)])
    take(directory.snapshots, 1)
    directory.close()
    assert verify(RealFiles(), tmp_path).verdict is Verdict.SOUND


@pytest.mark.parametrize("seed", range(150))
def test_a_start_agrees_with_the_verdict(seed: int) -> None:
    """One flipped bit anywhere; a start reads no snapshot to its end, and we do here."""
    rng = Random(seed)
    files = used()
    path = rng.choice([path for path in files.paths(PATH) if not path.endswith("LOCK")])
    used_bytes = len(files.read(path).rstrip(b"\0"))
    first = RECORDS_START if used_bytes > RECORDS_START and rng.random() < 0.8 else 0
    files.flip(path, rng.randrange(first, used_bytes) * 8 + rng.randrange(8))
    report = verify(files, PATH)
    refusal, directory = attempt(files)
    if directory is None:
        assert report.verdict is Verdict.REFUSED
        assert refusal in report.meaning
        assert report.first_problem is not None or "belongs to" in refusal
        return
    assert report.verdict is not Verdict.REFUSED
    assert report.unreadable == tuple(sorted(directory.recovered.unreadable))
    assert report.promised == directory.recovered.promised
    is_snapshot = path.endswith(".snapshot")
    assert (report.verdict is Verdict.REPAIRABLE) == (is_snapshot or bool(report.unreadable))
    if report.verdict is Verdict.REPAIRABLE:
        assert report.first_problem is not None


def attempt(files: MemoryFiles) -> tuple[str, DataDirectory | None]:
    try:
        return "", opened(files)
    except StorageError as error:
        return str(error), None


RESTORED = backup_bytes([b"state"])


def restored(*writes: Write) -> MemoryFiles:
    """A directory that began with a restored state, and may have been used."""
    files = MemoryFiles()
    restore_directory(
        files,
        PATH,
        lambda file: file.pwrite(RESTORED, 0),
        name="n1",
        member_id=11,
        cluster_id_of=lambda sha256: 1,
        draw_bits=Random(1).getrandbits,
    )
    if writes:
        directory_ = DataDirectory.open(
            PATH, files, cluster_id=1, member_id=11, name="n1", draw_bits=Random(1).getrandbits
        )
        directory_.log.append(writes)
        directory_.close()
    return files


def test_a_state_that_was_restored() -> None:
    report = verify(restored(), PATH)
    assert report.verdict is Verdict.SOUND
    assert [(f.name, f.problem) for f in report.files] == [("identity", None), ("initial", None)]
    assert RESTORED[-32:].hex() in report.files[1].content


@pytest.mark.parametrize("damage", ["flipped", "missing"])
@pytest.mark.parametrize("used", [False, True])
def test_a_state_that_was_restored_and_does_not_hold(damage: str, used: bool) -> None:
    files = restored(*([WriteDecided(1, Noop())] if used else []))
    if damage == "missing":
        files.remove(f"{PATH}/initial")
    else:
        files.flip(f"{PATH}/initial", 8 * 520)
    report = verify(files, PATH)
    assert report.verdict is (Verdict.REPAIRABLE if used else Verdict.REFUSED)
    assert report.first_problem is not None
    assert report.first_problem.name == "initial"
    assert ("the other members have the state" if used else "restore it again") in report.meaning[0]


def test_a_directory_that_is_half_another_members() -> None:
    files = restored(WriteDecided(1, Noop()))
    decide_replacement(files, PATH, Identity(0xABC, 11, "n1", 5, joined=True))
    report = verify(files, PATH)
    assert report.verdict is Verdict.REPAIRABLE
    assert "becomes that of the new cluster abc: the next start of a server finishes it" in report.meaning[0]
    files.flip(f"{PATH}/identity.next", 200)
    report = verify(files, PATH)
    assert (report.verdict, report.files[-1].problem) == (Verdict.REFUSED, "it cannot be read")
