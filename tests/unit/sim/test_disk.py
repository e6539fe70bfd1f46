"""The storage thread without its thread: groups, one sync each, and nothing reported before its time."""

import errno
from collections.abc import Callable
from random import Random

import pytest

from paxos_rsm.errors import DiskFull, LogIOError
from paxos_rsm.paxos.ready import Write, WriteDecidedThrough
from paxos_rsm.sim.disk import SimDisk
from paxos_rsm.sim.oracle import DiskModel, Oracle
from paxos_rsm.storage.memory import CrashMode, MemoryFiles, PowerLost
from tests.unit.storage.helpers import FIRST, OWNER, accepted, new_log, open_log, replayed

ONE, TWO, THREE, FOUR = (accepted(slot) for slot in range(1, 5))


class Disk:
    """A SimDisk over a real log in memory."""

    def __init__(self) -> None:
        self.files, self.log = new_log()
        self.model = DiskModel(OWNER)
        self.started = 0
        self.disk = SimDisk(self.log, self.model, Oracle(), self._start)

    def _start(self) -> None:
        self.started += 1

    @property
    def syncs(self) -> int:
        return self.files.counts["fdatasync"]

    def held_after(self, mode: CrashMode) -> object:
        """What a new log finds after a loss of power."""
        self.files.crash(Random(1), mode)
        return open_log(self.files)[1]


@pytest.fixture
def at() -> Disk:
    return Disk()


def test_a_batch_goes_to_the_log_at_once_and_is_durable_when_it_is_finished(at: Disk) -> None:
    syncs = at.syncs
    at.disk.submit(1, [ONE, TWO])
    assert at.started == 1
    assert at.model.unsynced == [ONE, TWO]
    assert at.syncs == syncs
    assert at.files.unsynced_bytes(FIRST) > 0
    assert at.disk.finish() == (1, True)
    assert at.syncs == syncs + 1
    assert at.files.unsynced_bytes(FIRST) == 0


@pytest.mark.parametrize("finished", [False, True])
def test_what_a_loss_of_power_leaves(at: Disk, finished: bool) -> None:
    at.disk.submit(1, [ONE, TWO])
    if finished:
        at.disk.finish()
    assert at.held_after(CrashMode.DROP) == replayed([ONE, TWO] if finished else [])


def test_what_comes_meanwhile_is_one_group(at: Disk) -> None:
    at.disk.submit(1, [ONE])
    writes, syncs = at.files.counts["pwrite"], at.syncs
    at.disk.submit(2, [TWO])
    at.disk.submit(3, [THREE, FOUR])
    assert at.files.counts["pwrite"] == writes
    assert at.model.unsynced == [ONE]
    assert at.disk.finish() == (1, True)
    assert at.started == 1
    at.disk.go_on()
    assert at.started == 2
    assert at.model.unsynced == [ONE, TWO, THREE, FOUR]  # the oracle takes what is synced; here nobody did
    assert at.disk.finish() == (3, True)
    assert at.syncs == syncs + 2
    at.disk.go_on()
    assert at.started == 2
    assert at.held_after(CrashMode.DROP) == replayed([ONE, TWO, THREE, FOUR])


def test_going_on_does_not_disturb_a_group(at: Disk) -> None:
    at.disk.submit(1, [ONE])
    at.disk.submit(2, [TWO])
    at.disk.go_on()
    assert at.started == 1
    assert at.disk.finish() == (1, True)
    at.disk.submit(3, [THREE])  # nothing is being written: both that wait go now
    assert at.started == 2
    assert at.disk.finish() == (3, True)


def test_a_group_is_synced_where_one_of_it_must_be(at: Disk) -> None:
    at.disk.submit(1, [ONE])
    at.disk.finish()
    syncs = at.syncs
    mark: list[Write] = [WriteDecidedThrough(1)]
    at.disk.submit(2, mark, sync=False)
    assert at.disk.finish() == (2, False)
    assert at.syncs == syncs
    at.disk.submit(3, mark, sync=False)
    at.disk.submit(4, [TWO])
    at.disk.submit(5, mark, sync=False)
    assert at.disk.finish() == (3, False)
    at.disk.go_on()
    assert at.disk.finish() == (5, True)
    assert at.syncs == syncs + 1


def test_nothing_is_finished_where_nothing_was_begun(at: Disk) -> None:
    assert at.disk.finish() == (0, False)
    at.disk.go_on()
    assert at.started == 0


def test_a_sync_that_fails_makes_nothing_durable(at: Disk) -> None:
    at.disk.submit(1, [ONE])
    at.files.fail("fdatasync", 1, errno.EIO)
    with pytest.raises(LogIOError):
        at.disk.finish()
    with pytest.raises(LogIOError):  # and that is final
        at.disk.finish()
    assert at.held_after(CrashMode.KEEP) == replayed([])


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda files: files.fail("pwrite", 1, errno.EIO), LogIOError),
        (lambda files: files.fail("pwrite", 1, errno.ENOSPC), DiskFull),
        (lambda files: files.power_off_after(0), PowerLost),
    ],
)
def test_what_fails_while_it_is_written_may_have_reached_the_disk(
    at: Disk, spoil: Callable[[MemoryFiles], None], error: type[Exception]
) -> None:
    spoil(at.files)
    with pytest.raises(error):
        at.disk.submit(1, [ONE])
    assert at.model.unsynced == [ONE]
    assert at.started == 0


def test_closing_proves_what_was_written(at: Disk) -> None:
    at.disk.submit(1, [ONE])
    at.disk.close()
    assert at.held_after(CrashMode.DROP) == replayed([ONE])
