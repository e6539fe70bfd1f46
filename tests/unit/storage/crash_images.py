"""Disks as a crash leaves them: a story is played once, and before each of its changes the power is lost many times.

A story is what a server does to its data directory: votes, snapshots taken and fetched, logs compacted, starts. Before
every call that changes anything (a write, a sync, a creation, a rename, a removal, a sync of a directory) images of the
disk are made, each of which has lost its power in one of the ways of memory.py. An image must start, hold every write
that was acknowledged, the promise, and of the others a prefix; its snapshots must be what was taken, the log must not
reach back less than the newest of them; and it must go on. Some lose their power again during the start.

:func:`damaged` flips bits instead: a start refuses with a sentence that names the file, or has everything that is not
named as lost.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from paxos_rsm.errors import IdentityMismatch, LogDamaged, SnapshotDamaged, StorageError
from paxos_rsm.paxos.ready import Write, WriteCompacted, WriteDecided, WriteDecidedThrough, WritePromise
from paxos_rsm.paxos.types import Ballot, Batch, Noop
from paxos_rsm.storage import snapshots
from paxos_rsm.storage.base import Recovered
from paxos_rsm.storage.directory import DataDirectory
from paxos_rsm.storage.files import File
from paxos_rsm.storage.memory import CrashMode, MemoryFiles, PowerLost
from paxos_rsm.storage.segments import SEGMENT_BYTES_MIN
from paxos_rsm.storage.snapshots import SnapshotStore
from tests.unit.storage.helpers import accepted, replayed, snapshot_meta, state, take
from tests.unit.storage.version_1 import WRITES, version_1

PATH = "/n1"
STORE = f"{PATH}/snapshots"
FETCHED = 60
_CHANGES = {"pwrite", "fdatasync", "create", "rename", "remove", "mkdir", "sync_directory"}


class WatchedFiles(MemoryFiles):
    """A disk that calls ``before`` before each call that changes something.

    ``forgets`` says of a call and a path whether that sync is to do nothing: a bug that images must find.
    """

    before: Callable[[], None] | None = None
    forgets: Callable[[str, str], bool] = staticmethod(lambda call, path: False)

    def step(self, call: str) -> None:
        if call in _CHANGES and self.before is not None:
            self.before()
        super().step(call)

    def open(self, path: str) -> File:
        return self._watched(super().open(path), path)

    def create(self, path: str, size: int) -> File:
        return self._watched(super().create(path, size), path)

    def sync_directory(self, path: str) -> None:
        if not self.forgets("sync_directory", path):
            super().sync_directory(path)

    def _watched(self, file: File, path: str) -> File:
        if self.forgets("fdatasync", path):
            file.fdatasync = lambda: None  # type: ignore[method-assign]
        return file


@dataclass
class Story:
    """What is known of a directory while it is used: all that was written, and what of it was acknowledged."""

    files: WatchedFiles
    written: list[Write] = field(default_factory=list)
    acknowledged: int = 0
    snapshot: int = 0
    """The newest that was finished."""
    boots: int = 0
    directory: DataDirectory | None = None

    def start(self) -> DataDirectory:
        self.directory = opened(self.files)
        self.acknowledged = len(self.written)
        self.boots = self.directory.identity.boot_count
        return self.directory

    def write(self, *writes: Write, sync: bool = True) -> None:
        assert self.directory is not None
        self.written += writes
        self.directory.log.append(writes)
        if sync:
            self.directory.log.sync()
            self.acknowledged = len(self.written)

    def take(self, slot: int) -> None:
        assert self.directory is not None
        take(self.directory.snapshots, slot)
        self.snapshot = slot

    def stop(self) -> None:
        assert self.directory is not None
        self.directory.close()
        self.acknowledged = len(self.written)


def opened(files: MemoryFiles, *, repair: bool = True) -> DataDirectory:
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


# ---- stories -------------------------------------------------------------------------------------------------


def a_life(story: Story) -> None:
    """From the first start: votes, snapshots, compactions, an orderly stop, a kill, a fetch, a promise and no votes."""
    rng = Random(5)

    def votes(first: int, last: int, round_: int) -> None:
        for slot in range(first, last + 1):
            story.write(accepted(slot, rng.randbytes(rng.choice((40, 700, 2500))), round_=round_))
            story.write(WriteDecidedThrough(slot), sync=slot % 3 == 0)

    directory = story.start()
    story.write(WritePromise(Ballot(1, 7)))
    votes(1, 9, 1)
    story.take(7)
    story.write(WriteCompacted(5))
    votes(10, 14, 2)
    story.write(WritePromise(Ballot(4, 9)), accepted(15, round_=5), WriteDecidedThrough(14), sync=False)
    story.take(14)
    story.write(WriteCompacted(14), accepted(16, round_=5))
    story.stop()
    directory = story.start()
    votes(15, 22, 5)
    writer = directory.snapshots.begin(snapshot_meta(20))
    writer.write(b"never finished")
    writer.abort()
    story.take(21)
    story.write(WriteCompacted(19), accepted(64, round_=6))
    directory.snapshots.mark_damaged(14)
    story.files.kill()
    directory = story.start()
    data = snapshot_bytes(FETCHED)
    for _ in range(2):
        fetch = directory.snapshots.fetch(FETCHED, len(data))
        for _ in range(4):
            fetch.write(fetch.offset, data[fetch.offset : fetch.offset + 400])
        fetch.close()
    fetch = directory.snapshots.fetch(FETCHED, len(data))
    fetch.write(fetch.offset, data[fetch.offset :])
    fetch.finish()
    story.snapshot = FETCHED
    story.write(WriteCompacted(FETCHED), WriteDecided(61, Noop()), WriteDecidedThrough(61))
    votes(62, 66, 7)
    story.write(WriteDecided(67, Noop()), sync=False)
    story.write(WritePromise(Ballot(8, 9)))
    for slot in range(68, 76):  # nothing here says a ballot: the promise stands in what is dropped
        story.write(WriteDecided(slot, Batch(rng.randbytes(2900))), sync=slot % 3 == 0)
    story.write(WriteDecidedThrough(74))
    story.take(74)
    story.write(WriteCompacted(74), WriteDecided(76, Noop()))
    story.stop()


def an_upgrade(story: Story) -> None:
    """A directory of format 1 goes on as one of format 2."""
    story.written, story.acknowledged = list(WRITES), len(WRITES)
    story.start()
    story.write(accepted(5, round_=6))
    story.write(WriteDecided(4, accepted(4, b"abc" * 2000).entry), WriteDecidedThrough(5))
    story.take(4)
    story.write(WriteCompacted(4))
    story.stop()
    story.start()
    story.write(accepted(6, bytes(9000), round_=6), accepted(7, bytes(9000), round_=6))
    story.stop()


def snapshot_bytes(slot: int) -> bytes:
    """What a peer would send."""
    files = MemoryFiles()
    return files.read(take(SnapshotStore.open(files, "/snapshots"), slot).path)


def beginnings() -> Iterator[tuple[Callable[[Story], None], WatchedFiles]]:
    """Each story, and the disk that it begins with."""
    yield a_life, WatchedFiles()
    files = WatchedFiles()
    older = version_1(PATH).clone()
    files.__dict__.update({name: value for name, value in older.__dict__.items() if name != "before"})
    yield an_upgrade, files


# ---- images --------------------------------------------------------------------------------------------------


def changes() -> int:
    """How many changes all stories make."""
    return sum(len(list(_moments(play, files))) for play, files in beginnings())


def check_all(images: int, forgets: Callable[[str, str], bool] | None = None) -> Counter[str]:
    """At least so many images, spread over every change of every story. Raises where one is not what it must be.

    ``forgets`` plants a bug (:class:`WatchedFiles`).
    """
    each = -(-images // changes())
    outcomes: Counter[str] = Counter()
    for play, files in beginnings():
        if forgets is not None:
            files.forgets = forgets
        for number, (image, story) in enumerate(_moments(play, files)):
            for at in range(each):
                mode = list(CrashMode)[at % len(CrashMode)]
                try:
                    outcomes[_check(image.clone(), story, Random(number * 1_000_003 + at), mode)] += 1
                except BaseException as error:
                    error.add_note(f"{play.__name__}, before change {number}, image {at} ({mode.value})")
                    raise
    return outcomes


def _moments(play: Callable[[Story], None], files: WatchedFiles) -> Iterator[tuple[MemoryFiles, Story]]:
    """The disk before each change, and what was known then."""
    story = Story(files)
    seen: list[tuple[MemoryFiles, Story]] = []

    def before() -> None:
        known = Story(files, list(story.written), story.acknowledged, story.snapshot, story.boots)
        seen.append((files.clone(), known))

    files.before = before
    play(story)
    return iter(seen)


def _check(files: MemoryFiles, story: Story, rng: Random, mode: CrashMode) -> str:
    files.crash(rng, mode)
    outcome = "started"
    if rng.random() < 0.3:
        files.power_off_after(rng.randrange(30))
        try:
            opened(files)
        except PowerLost:
            files.crash(rng, mode)
            outcome = "started at the second try"
        files.power_off_after(None)
        files.kill()
    directory = opened(files, repair=rng.random() < 0.5)
    _check_log(directory, story)
    _check_snapshots(directory, story)
    assert directory.identity.boot_count > story.boots
    if rng.random() < 0.3:
        _go_on(files, directory)
    return outcome


def _check_log(directory: DataDirectory, story: Story) -> None:
    newest = directory.snapshots.newest()
    found = directory.recovered
    prefix = replayed(story.written[: story.acknowledged])
    for at in range(story.acknowledged, len(story.written) + 1):
        expected = replayed(story.written[:at]) if at > story.acknowledged else prefix
        if newest is not None and newest.slot > expected.decided_through:
            expected.apply(WriteCompacted(newest.slot))
        if expected == found:
            return
    raise AssertionError(f"recovered {_said(found)}; acknowledged was {_said(prefix)}")


def _check_snapshots(directory: DataDirectory, story: Story) -> None:
    assert not directory.snapshot_missing, "a gap between the snapshot and the log"
    assert not directory.snapshots.damaged
    infos = directory.snapshots.infos()
    assert len(infos) <= snapshots.KEPT
    assert story.snapshot <= max((info.slot for info in infos), default=0), "a finished snapshot is gone"
    for info in infos:
        meta, slices = directory.snapshots.read(info.slot)
        assert meta == snapshot_meta(info.slot)
        assert list(slices) == state(info.slot)


def _go_on(files: MemoryFiles, directory: DataDirectory) -> None:
    """What is begun is finished, what is written stays."""
    newest = directory.snapshots.newest()
    if newest is not None and newest.slot > FETCHED:
        return
    data = snapshot_bytes(FETCHED)
    fetch = directory.snapshots.fetch(FETCHED, len(data))
    fetch.write(fetch.offset, data[fetch.offset :])
    fetch.finish()
    recovered = directory.recovered
    more: list[Write] = [accepted(90, round_=9), WriteCompacted(FETCHED), WriteDecided(95, Noop())]
    directory.log.append(more)
    directory.log.sync()
    files.crash(Random(1), CrashMode.DROP)
    for write in more:
        recovered.apply(write)
    directory = opened(files)
    assert directory.recovered == recovered
    assert list(directory.snapshots.read(FETCHED)[1]) == state(FETCHED)


def _said(recovered: Recovered) -> str:
    return (
        f"promised {recovered.promised}, slots {sorted(recovered.slots)}, decided {recovered.decided_through}, "
        f"compacted {recovered.compacted_through}"
    )


# ---- damage --------------------------------------------------------------------------------------------------


def damaged(images: int) -> Counter[str]:
    """So many images with one flipped bit in some file of a directory that was used, at every kind of place."""
    outcomes: Counter[str] = Counter()
    bases = [story_disk for play, files in beginnings() for story_disk in _ends(play, files)]
    for number in range(images):
        rng = Random(number)
        base = rng.choice(bases)
        files = base.clone()
        paths = [path for path in files.paths(PATH) if not path.endswith(("LOCK", ".new", ".damaged"))]
        path = rng.choice(paths)
        size = len(files.read(path).rstrip(b"\0")) + 8
        files.flip(path, rng.randrange(size) * 8 + rng.randrange(8))
        try:
            outcomes[_check_damaged(base, files, path)] += 1
        except BaseException as error:
            error.add_note(f"damaged image {number}, {path}")
            raise
    return outcomes


def _ends(play: Callable[[Story], None], files: WatchedFiles) -> Iterator[MemoryFiles]:
    """The disk at the end of a story, and as it was after three quarters of it, without a loss of power."""
    moments = list(_moments(play, files))
    yield files.clone()
    yield moments[len(moments) * 3 // 4][0]


def _check_damaged(base: MemoryFiles, files: MemoryFiles, path: str) -> str:
    real = opened(base.clone())
    try:
        directory = opened(files)
    except (LogDamaged, IdentityMismatch) as error:
        _names(error, path)
        return "refused"
    except StorageError as error:
        raise AssertionError(f"refused for a wrong reason: {error}") from error
    found, whole = directory.recovered, real.recovered
    assert found.promised == whole.promised
    if not directory.snapshots.damaged:
        assert (found.decided_through, found.compacted_through) == (
            whole.decided_through,
            whole.compacted_through,
        )
    for slot, held in whole.slots.items():
        assert slot in found.unreadable or found.slots.get(slot) == held
    outcome = "marked unreadable" if found.unreadable else "started"
    for info in directory.snapshots.infos():
        try:
            assert list(directory.snapshots.read(info.slot)[1]) == state(info.slot)
        except SnapshotDamaged as error:
            _names(error, path)
            directory.snapshots.mark_damaged(info.slot)
            outcome = "snapshot damaged"
    if directory.snapshots.damaged:
        _names(directory.snapshots.damaged[0], path)
        outcome = "snapshot damaged"
    newest = directory.snapshots.newest()
    assert directory.snapshot_missing == (found.compacted_through > (newest.slot if newest else 0))
    return outcome


def _names(error: Exception, path: str) -> None:
    assert path in str(error)
    assert ". " in str(error), "it does not say what to do"
