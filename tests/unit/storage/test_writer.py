"""Group commit: what is reported durable is, in order, and the first error is the last word."""

import asyncio
import errno
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import pytest

from paxos_rsm.errors import DiskFull, InvariantViolation, LogIOError
from paxos_rsm.paxos.ready import Write, WriteDecidedThrough, WritePromise
from paxos_rsm.paxos.types import Ballot
from paxos_rsm.storage import writer
from paxos_rsm.storage.base import LogWriter, Recovered
from paxos_rsm.storage.files import RealFiles
from paxos_rsm.storage.memory import CrashMode
from paxos_rsm.storage.segments import SEGMENT_BYTES_MIN, SegmentLog
from paxos_rsm.storage.writer import StorageThread
from tests.unit.storage.helpers import accepted, new_log, open_log, replayed

WAIT_S = 60


class GatedLog:
    """A log whose syncs wait to be let through, and which notes what is asked of it."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.in_sync = threading.Semaphore(0)
        self.may_sync = threading.Semaphore(0)
        self.threads: set[int] = set()
        self.bytes_on_disk = 0
        self.wait_for_space: Callable[[], bool] = lambda: False

    def append(self, writes: Sequence[Write]) -> None:
        self.threads.add(threading.get_ident())
        slots = [write.slot for write in writes if not isinstance(write, WritePromise)]
        self.calls.append(f"append {slots}")

    def sync(self) -> None:
        self.in_sync.release()
        if not self.may_sync.acquire(timeout=WAIT_S):
            raise TimeoutError("the test did not let the sync through")
        self.calls.append("sync")

    def close(self) -> None:
        self.calls.append("close")


class Told:
    """What a storage thread has said, in order."""

    def __init__(self) -> None:
        self.durable: list[int] = []
        self.failures: list[Exception] = []
        self.failed = threading.Event()

    def on_failure(self, error: Exception) -> None:
        self.failures.append(error)
        self.failed.set()


def test_what_gathers_during_a_sync_is_one_group() -> None:
    log, told = GatedLog(), Told()
    thread = StorageThread(log, told.durable.append, told.on_failure)
    thread.submit(1, [accepted(1)])
    assert log.in_sync.acquire(timeout=WAIT_S)
    for number in (2, 3, 4):
        thread.submit(number, [accepted(number)])
    log.may_sync.release()
    assert log.in_sync.acquire(timeout=WAIT_S)
    assert told.durable == [1], "nothing is durable before its own sync"
    log.may_sync.release()
    thread.close()
    assert told.durable == [1, 4]
    assert log.calls == ["append [1]", "sync", "append [2, 3, 4]", "sync", "close"]
    assert not told.failures


def test_what_can_be_learned_again_forces_no_sync() -> None:
    log, told = GatedLog(), Told()
    thread = StorageThread(log, told.durable.append, told.on_failure)
    thread.submit(1, [WriteDecidedThrough(7)], sync=False)
    thread.submit(2, [WriteDecidedThrough(8)], sync=False)
    thread.close()
    assert told.durable[-1] == 2
    assert "sync" not in log.calls


def test_one_batch_that_needs_a_sync_is_enough() -> None:
    log, told = GatedLog(), Told()
    thread = StorageThread(log, told.durable.append, told.on_failure)
    thread.submit(1, [accepted(1)])
    assert log.in_sync.acquire(timeout=WAIT_S)
    thread.submit(2, [WriteDecidedThrough(1)], sync=False)
    thread.submit(3, [accepted(2)])
    thread.submit(4, [WriteDecidedThrough(2)], sync=False)
    log.may_sync.release(2)
    thread.close()
    assert told.durable == [1, 4]
    assert log.calls == ["append [1]", "sync", "append [1, 2, 2]", "sync", "close"]


def test_the_log_is_used_by_one_thread_that_is_not_the_caller() -> None:
    log, told = GatedLog(), Told()
    thread = StorageThread(log, told.durable.append, told.on_failure)
    log.may_sync.release(100)
    for number in range(1, 101):
        thread.submit(number, [accepted(number)])
    thread.close()
    assert len(log.threads) == 1
    assert threading.get_ident() not in log.threads
    assert told.durable == sorted(set(told.durable))
    assert told.durable[-1] == 100


def test_a_batch_without_writes_waits_for_those_before_it() -> None:
    log, told = GatedLog(), Told()
    thread = StorageThread(log, told.durable.append, told.on_failure)
    thread.submit(1, [accepted(1)])
    thread.submit(2, [])
    log.may_sync.release(2)
    thread.close()
    assert told.durable[-1] == 2


def test_all_that_was_reported_survives_a_loss_of_power() -> None:
    files, log = new_log(1 << 16)
    told = Told()
    reached = threading.Event()

    def on_durable(number: int) -> None:
        told.durable.append(number)
        if number >= 50:
            reached.set()

    thread = StorageThread(log, on_durable, told.on_failure)
    writes = [accepted(number, Random(number).randbytes(300)) for number in range(1, 51)]
    for number, write in enumerate(writes, 1):
        thread.submit(number, [write])
    assert reached.wait(WAIT_S)
    files.crash(Random(1), CrashMode.DROP)
    assert open_log(files)[1] == replayed(writes)
    thread.close()


def test_closing_drains_and_closes_the_log() -> None:
    files, log = new_log()
    told = Told()
    thread = StorageThread(log, told.durable.append, told.on_failure)
    thread.submit(1, [accepted(1)])
    thread.submit(2, [WriteDecidedThrough(1)], sync=False)
    thread.close()
    thread.close()
    assert told.durable[-1] == 2
    files.crash(Random(1), CrashMode.DROP)
    assert open_log(files)[1] == replayed([accepted(1), WriteDecidedThrough(1)])
    with pytest.raises(LogIOError, match="closed"):
        log.sync()


def test_nothing_is_taken_after_closing() -> None:
    _, log = new_log()
    thread = StorageThread(log, lambda number: None, lambda error: None)
    thread.close()
    with pytest.raises(InvariantViolation, match="batch 7"):
        thread.submit(7, [])


@pytest.mark.parametrize(
    ("call", "code", "kind"),
    [
        ("fdatasync", errno.EIO, LogIOError),
        ("pwrite", errno.EIO, LogIOError),
        ("pwrite", errno.ENOSPC, DiskFull),
    ],
)
def test_the_first_error_is_told_once_and_nothing_is_durable_after_it(
    call: str, code: int, kind: type[Exception]
) -> None:
    files, log = new_log()
    told = Told()
    thread = StorageThread(log, told.durable.append, told.on_failure)
    files.fail(call, 1, code)
    thread.submit(1, [accepted(1)])
    assert told.failed.wait(WAIT_S)
    thread.submit(2, [accepted(2)])  # the disk would take it now
    thread.close()
    assert [type(error) for error in told.failures] == [kind]
    assert told.durable == []
    assert files.counts["fdatasync"] <= 2, "the one of the new segment, and the one that failed"


def test_a_write_that_must_not_be_stops_the_thread() -> None:
    files, log = new_log()
    told = Told()
    thread = StorageThread(log, told.durable.append, told.on_failure)
    thread.submit(1, [WritePromise(Ballot(2, 1)), accepted(1, round_=2)])
    thread.submit(2, [WritePromise(Ballot(1, 1))])
    thread.close()
    assert [type(error) for error in told.failures] == [InvariantViolation]
    files.kill()
    assert len(open_log(files)[1].slots) <= 1


def test_an_error_while_closing_is_told() -> None:
    files, log = new_log()
    told = Told()
    thread = StorageThread(log, told.durable.append, told.on_failure)
    thread.submit(1, [WriteDecidedThrough(0)], sync=False)
    files.fail("fdatasync", 1, errno.EIO)
    thread.close()
    assert [type(error) for error in told.failures] == [LogIOError]


def test_a_callback_that_fails_stops_the_thread() -> None:
    _, log = new_log()
    told = Told()

    def on_durable(number: int) -> None:
        raise RuntimeError("the event loop is closed")

    thread = StorageThread(log, on_durable, told.on_failure)
    thread.submit(1, [accepted(1)])
    thread.close()
    assert [str(error) for error in told.failures] == ["the event loop is closed"]


class FullDisk:
    """A thread over a log with no space for another segment, and what was said of that."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(writer, "SPACE_LOOK_S", 0.01)
        self.files, log = new_log()
        self.files.capacity_bytes = self.files.used_bytes
        self.told = Told()
        self.full: list[bool] = []
        self.is_full = threading.Event()
        self.thread = StorageThread(log, self.told.durable.append, self.told.on_failure, self.on_full)
        self.thread.submit(1, [accepted(1)])
        self.thread.submit(2, [accepted(2, bytes(SEGMENT_BYTES_MIN))])
        assert self.is_full.wait(WAIT_S)

    def on_full(self, is_full: bool) -> None:
        self.full.append(is_full)
        self.is_full.set()

    def recovered(self) -> Recovered:
        self.files.kill()
        return open_log(self.files)[1]


def test_a_full_disk_takes_long_and_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk(monkeypatch)
    disk.thread.submit(3, [accepted(3)])
    assert disk.told.durable in ([], [1])
    disk.files.capacity_bytes = None
    while 3 not in disk.told.durable:
        assert not disk.told.failed.wait(0.001)
    disk.thread.close()
    assert disk.full == [True, False]
    assert not disk.told.failures
    assert disk.recovered() == replayed([accepted(1), accepted(2, bytes(SEGMENT_BYTES_MIN)), accepted(3)])


def test_a_server_that_is_told_to_stop_does_not_wait_for_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk(monkeypatch)
    disk.thread.close()
    assert [type(error) for error in disk.told.failures] == [DiskFull]
    assert 2 not in disk.told.durable
    disk.files.capacity_bytes = None
    assert disk.recovered() == replayed([accepted(1)])


def test_what_waits_for_a_full_disk_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "FULL_BYTES_MAX", 10_000)
    disk = FullDisk(monkeypatch)
    for number in range(3, 13):
        disk.thread.submit(number, [accepted(number, bytes(900)), WriteDecidedThrough(number)])
    assert not disk.told.failures
    disk.thread.submit(13, [accepted(13, bytes(2_000))])
    assert disk.told.failed.wait(WAIT_S)
    assert [type(error) for error in disk.told.failures] == [DiskFull]
    disk.thread.close()


async def test_from_an_event_loop_on_a_real_disk(tmp_path: Path) -> None:
    def open_real(create: bool) -> SegmentLog:
        log, _ = SegmentLog.open(
            RealFiles(),
            str(tmp_path),
            owner=1,
            draw_bits=Random(1).getrandbits,
            create=create,
            segment_bytes=1 << 20,
        )
        return log

    loop = asyncio.get_running_loop()
    told: asyncio.Queue[int] = asyncio.Queue()
    failures: list[Exception] = []

    def on_durable(number: int) -> None:
        loop.call_soon_threadsafe(told.put_nowait, number)

    writer: LogWriter = StorageThread(open_real(create=True), on_durable, failures.append)
    for number in range(1, 301):
        writer.submit(number, [accepted(number, bytes(2000))])
        if number % 50 == 0:
            while await asyncio.wait_for(told.get(), WAIT_S) < number:
                pass
    await asyncio.to_thread(writer.close)
    assert not failures
    found, recovered = SegmentLog.open(RealFiles(), str(tmp_path), owner=1, draw_bits=Random(1).getrandbits)
    found.close()
    assert recovered == replayed(accepted(number, bytes(2000)) for number in range(1, 301))
