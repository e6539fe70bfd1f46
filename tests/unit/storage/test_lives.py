"""Random lives of a log: writes, syncs, deaths of the process, losses of power at any call, failing calls.

After each start the log must remember every write that was acknowledged, and of the others a prefix, whole. The power
may go at any call, those of a recovery included. Reproduced by the number of the seed.
"""

import errno
from random import Random

import pytest

from paxos_rsm.errors import DiskFull, LogDamaged, LogIOError
from paxos_rsm.paxos.ready import Write, WriteCompacted, WriteDecided, WriteDecidedThrough, WritePromise
from paxos_rsm.paxos.types import Ballot, Batch
from paxos_rsm.storage.base import Recovered
from paxos_rsm.storage.headers import RECORDS_START, segment_name
from paxos_rsm.storage.memory import PowerLost
from paxos_rsm.storage.segments import SegmentLog
from tests.unit.storage.helpers import LOG, accepted, disk, open_log, replayed


class Life:
    """One log and what is known of it: all that was written, and how much of that was acknowledged."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.files = disk()
        self.written: list[Write] = []
        self.acknowledged = 0
        self.next_slot = 1
        self.torn = 0
        self.log: SegmentLog | None = None
        self.start()

    def start(self) -> None:
        """Starts until a start succeeds; some are cut short."""
        while self.log is None:
            if self.rng.random() < 0.4:
                self.files.power_off_after(self.rng.randrange(12))
            try:
                self.log, recovered = open_log(self.files, create=not self.acknowledged)
            except PowerLost:
                self.files.crash(self.rng)
            except (LogIOError, DiskFull):
                self.files.kill()
            else:
                self.check(recovered)

    def check(self, recovered: Recovered) -> None:
        """What was recovered is a prefix of what was written, with all that was acknowledged, durable from now on."""
        prefix = replayed(self.written[: self.acknowledged])
        kept = self.acknowledged
        while prefix != recovered:
            assert kept < len(self.written), f"recovered {recovered}, no prefix of what was written"
            prefix.apply(self.written[kept])
            kept += 1
        self.torn += kept < len(self.written)
        del self.written[kept:]
        self.acknowledged = kept

    def live(self) -> None:
        """One step: some writes, a sync, an orderly stop, or a misfortune in the middle of one of these."""
        fate = self.rng.random()
        if fate < 0.15:
            self.files.power_off_after(self.rng.randrange(14))
        elif fate < 0.25:
            call = self.rng.choice(["pwrite", "fdatasync", "create", "rename", "sync_directory", "remove"])
            self.files.fail(call, self.rng.randint(1, 2), self.rng.choice([errno.EIO, errno.ENOSPC]))
        try:
            self.act()
        except PowerLost:
            self.files.crash(self.rng)
        except (LogIOError, DiskFull):
            self.end_of_process()
        else:
            if self.rng.random() < 0.15:
                self.end_of_process()
            return
        self.log = None
        self.start()

    def act(self) -> None:
        assert self.log is not None
        if self.rng.random() < 0.1:
            self.log.close()
            self.acknowledged = len(self.written)
            self.log = None
            self.start()
            return
        group = self.group()
        self.written += group
        self.log.append(group)
        if self.rng.random() < 0.6:
            self.log.sync()
            self.acknowledged = len(self.written)

    def end_of_process(self) -> None:
        """The process dies, and at times the machine with it."""
        self.files.kill()
        if self.rng.random() < 0.5:
            self.files.crash(self.rng)
        self.log = None
        self.start()

    def group(self) -> list[Write]:
        group: list[Write] = []
        for _ in range(self.rng.randrange(1, 6)):
            slot = self.next_slot
            self.next_slot += 1
            size = 20_000 if self.rng.random() < 0.02 else self.rng.choice([0, 9, 150, 700, 2500])
            data = self.rng.randbytes(size) if self.rng.random() < 0.5 else bytes(size)
            match self.rng.randrange(9):
                case 0:
                    group.append(WriteDecided(slot, Batch(data)))
                case 1:
                    group.append(WritePromise(Ballot(slot, 7)))
                case 2 if self.rng.random() < 0.6:
                    group.append(WriteCompacted(self.rng.randint(max(1, slot - 30), slot + 1)))
                case _:
                    group.append(accepted(slot, data, round_=slot))
        return group


@pytest.mark.parametrize("block", range(8))
def test_no_life_forgets_what_was_acknowledged(block: int) -> None:
    torn = dropped = 0
    for seed in range(block * 25, block * 25 + 25):
        life = Life(seed)
        try:
            for _ in range(25):
                life.live()
        except BaseException as error:
            error.add_note(f"Life({seed})")
            raise
        torn += life.torn
        assert all(name.endswith((".log", ".new", "start")) for name in life.files.names(LOG))
        dropped += segment_name(1) not in life.files.names(LOG)
    assert torn > 20, "lives in which nothing is ever torn prove nothing"
    assert dropped > 5, "nor do those in which nothing is dropped"


@pytest.mark.parametrize("seed", range(80))
def test_a_flipped_bit_after_a_life_is_found_or_changes_nothing(seed: int) -> None:
    life = Life(seed)
    for _ in range(6):
        life.live()
    life.files.crash(life.rng)
    opened = life.files.clone()
    unflipped = open_log(opened, create=not life.acknowledged)[1]
    needed = set(opened.names(LOG))  # a segment that is left over is read by nobody
    found = 0
    for _ in range(30):
        image = life.files.clone()
        names = sorted(needed.intersection(image.names(LOG)))
        if not names:
            return  # the life was too short
        path = f"{LOG}/{life.rng.choice(names)}"
        used = len(image.read(path).rstrip(b"\0"))
        first = life.rng.choice([0, RECORDS_START]) if used > RECORDS_START else 0
        image.flip(path, life.rng.randrange(first, max(1, used + 20)) * 8 + life.rng.randrange(8))
        try:
            _, recovered = open_log(image, create=not life.acknowledged)
        except LogDamaged:
            found += 1
        else:
            assert recovered == unflipped
    assert found or not life.written


def test_a_watermark_is_remembered_after_any_tear() -> None:
    """A watermark says something of the records before it, so it may never come back without them."""
    for seed in range(100):
        files = disk()
        log, _ = open_log(files, create=True)
        for slot in range(1, 6):
            log.append([accepted(slot, bytes(300))])
            log.append([WriteDecidedThrough(slot)])
        files.crash(Random(seed))
        _, recovered = open_log(files)
        assert recovered.decided_through <= len(recovered.slots) <= recovered.decided_through + 1
