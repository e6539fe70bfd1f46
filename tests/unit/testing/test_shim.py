"""The preloaded shim, on processes that do one thing each: what fails, when, and what does not."""

import errno
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paxos_rsm.testing import FaultUnavailable, LocalClusterError, shim
from paxos_rsm.testing.shim import ServerFaults, cache_directory, preload_library

PRELUDE = """
import errno, json, os, sys, threading, time
folder = sys.argv[1]
def attempt(what, *arguments):
    try:
        what(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"
def file(name, where=folder):
    return os.open(os.path.join(where, name), os.O_RDWR | os.O_CREAT, 0o600)
def say(*told):
    print(json.dumps(told), flush=True)
"""


@pytest.fixture
def library() -> Path:
    try:
        return preload_library()
    except FaultUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def faults(tmp_path: Path) -> ServerFaults:
    return ServerFaults(tmp_path / "n1.faults")


@pytest.fixture
def run(library: Path, faults: ServerFaults, tmp_path: Path) -> Callable[[str], Any]:
    """Runs a few lines under the shim, with a data directory of their own; gives what they ``say``."""
    (tmp_path / "data").mkdir()
    (tmp_path / "database").mkdir()

    def run(lines: str) -> Any:
        environment = {**os.environ, **faults.environment(library, tmp_path / "data")}
        done = subprocess.run(
            [sys.executable, "-c", PRELUDE + lines, str(tmp_path / "data")],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


SYNCS = "fd = file('f'); say(*[attempt(sync, fd) for sync in (os.fsync, os.fdatasync, os.fsync)])"


def test_without_a_fault_nothing_changes(run: Callable[[str], Any], faults: ServerFaults) -> None:
    told = run(
        "fd = file('f'); now = time.time()\n"
        "say(attempt(os.pwrite, fd, b'x' * 10, 5), attempt(os.posix_fallocate, fd, 0, 99), attempt(os.write, fd, b'y'),"
        " attempt(os.fsync, fd), os.fstat(fd).st_size, now, os.getpid())"
    )
    assert told[:5] == ["done", "done", "done", "done", 99]
    assert abs(told[5] - time.time()) < 60
    assert faults.loaded_pid == told[6]
    assert (faults.syncs, faults.syncs_failed, faults.writes_refused) == (1, 0, 0)


def test_sync_fails_as_often_as_told(run: Callable[[str], Any], faults: ServerFaults) -> None:
    faults.sync_errors(2)
    assert run(SYNCS) == ["EIO", "EIO", "done"]
    assert (faults.syncs, faults.syncs_failed, faults.syncs_at_failure) == (3, 2, 2)
    faults.sync_errors(1, errno.ENOSPC)
    assert run(SYNCS) == ["ENOSPC", "done", "done"]
    assert faults.syncs_at_failure == 4


def test_directory_is_synced_under_the_same_rule(run: Callable[[str], Any], faults: ServerFaults) -> None:
    faults.sync_errors(1)
    assert run("fd = os.open(folder, os.O_RDONLY); say(attempt(os.fsync, fd))") == ["EIO"]


def test_only_the_data_directory_is_concerned(run: Callable[[str], Any], faults: ServerFaults) -> None:
    """Nor one whose name only begins alike, nor pipes."""
    faults.sync_errors(5)
    faults.no_space(True)
    faults.write_errors(5)
    told = run("fd = file('f', folder + 'base'); say(attempt(os.write, fd, b'x'), attempt(os.fsync, fd))")
    assert told == ["done", "done"]
    assert (faults.syncs, faults.writes_refused) == (0, 0)


def test_no_space_for_any_write(run: Callable[[str], Any], faults: ServerFaults) -> None:
    faults.no_space(True)
    told = run(
        "fd = file('f')\n"
        "say(attempt(os.pwrite, fd, b'x', 0), attempt(os.write, fd, b'x'), attempt(os.posix_fallocate, fd, 0, 9),"
        " attempt(os.fsync, fd), os.fstat(fd).st_size)"
    )
    assert told == ["ENOSPC", "ENOSPC", "ENOSPC", "done", 0]
    assert faults.writes_refused == 3


def test_no_space_to_grow(run: Callable[[str], Any], faults: ServerFaults, tmp_path: Path) -> None:
    (tmp_path / "data" / "f").write_bytes(bytes(100))
    faults.no_space(True, growth_only=True)
    lines = (
        "fd = file('f')\n"
        "say(attempt(os.pwrite, fd, b'x' * 50, 50), attempt(os.pwrite, fd, b'x' * 51, 50),"
        " attempt(os.posix_fallocate, fd, 0, 101))"
    )
    assert run(lines) == ["done", "ENOSPC", "ENOSPC"]
    faults.no_space(False)
    assert run(lines) == ["done", "done", "done"]


def test_write_fails_as_often_as_told(run: Callable[[str], Any], faults: ServerFaults) -> None:
    faults.write_errors(1)
    assert run("fd = file('f'); say(*[attempt(os.pwrite, fd, b'x', 0) for _ in '12'])") == ["EIO", "done"]


def test_sync_takes_longer_and_ends_when_told(run: Callable[[str], Any], faults: ServerFaults) -> None:
    faults.sync_delay_ms(300)
    (took_s,) = run(
        "fd = file('f'); begin = time.monotonic(); os.fdatasync(fd); say(time.monotonic() - begin)"
    )
    assert took_s >= 0.3
    assert faults.syncs_delayed == 1


def test_sync_that_waits_ends_when_the_delay_does(
    library: Path, faults: ServerFaults, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    faults.sync_delay_ms(3_600_000)
    lines = PRELUDE + "fd = file('f'); os.fsync(fd); say('synced')"
    command = [sys.executable, "-c", lines, str(tmp_path / "data")]
    environment = {**os.environ, **faults.environment(library, tmp_path / "data")}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        while not faults.syncs_delayed:
            assert process.poll() is None
            time.sleep(0.01)
        faults.clear()
        assert process.communicate(timeout=60)[0] == b'["synced"]\n'


@pytest.mark.parametrize("offset_s", [3600.5, -3600.5])
def test_wall_clock_is_off_and_the_monotonic_one_is_not(
    run: Callable[[str], Any], faults: ServerFaults, offset_s: float
) -> None:
    faults.clock_offset_s(offset_s)
    wall, coarse, monotonic = run(
        "say(time.time(), time.clock_gettime(5), time.monotonic())"  # 5 is CLOCK_REALTIME_COARSE
    )
    assert abs(wall - time.time() - offset_s) < 60
    assert abs(coarse - wall) < 1
    assert abs(monotonic - time.monotonic()) < 60
    assert faults.clocks_shifted >= 2


def test_waits_until_a_moment_of_the_wall_clock_end_in_time(
    run: Callable[[str], Any], faults: ServerFaults
) -> None:
    """By sem_timedwait and a futex, as gRPC's core does: a jump is no stall."""
    faults.clock_offset_s(3600)
    lines = """
import ctypes
class Moment(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]
libc = ctypes.CDLL(None, use_errno=True)
def soon():
    until = time.time() + 0.2
    return Moment(int(until), int(until % 1 * 1e9))
def took(wait):
    begin = time.monotonic()
    wait()
    return time.monotonic() - begin
semaphore = ctypes.create_string_buffer(64)
libc.sem_init(semaphore, 0, 0)
condition, mutex = ctypes.create_string_buffer(64), ctypes.create_string_buffer(64)
libc.pthread_cond_init(condition, None)
libc.pthread_mutex_init(mutex, None)
libc.pthread_mutex_lock(mutex)
word = ctypes.c_int(0)
FUTEX = {"x86_64": 202, "aarch64": 98}[os.uname().machine]
BITSET, CLOCK_REALTIME = 9 | 128, 256
def futex():
    until = soon()
    libc.syscall(ctypes.c_long(FUTEX), ctypes.byref(word), ctypes.c_long(BITSET | CLOCK_REALTIME), ctypes.c_long(0),
                 ctypes.byref(until), None, ctypes.c_long(0xFFFFFFFF))
say(took(lambda: libc.sem_timedwait(semaphore, ctypes.byref(soon()))),
    took(lambda: libc.pthread_cond_timedwait(condition, mutex, ctypes.byref(soon()))),
    took(futex))
"""
    assert all(0.1 < took_s < 30 for took_s in run(lines))


def test_clear_takes_back_everything(run: Callable[[str], Any], faults: ServerFaults) -> None:
    faults.sync_errors(1)
    faults.sync_delay_ms(3_600_000)
    faults.write_errors(1)
    faults.no_space(True)
    faults.clock_offset_s(1e6)
    faults.clear()
    lines = "fd = file('f'); say(attempt(os.write, fd, b'x'), attempt(os.fsync, fd), time.time())"
    wrote, synced, now = run(lines)
    assert (wrote, synced) == ("done", "done")
    assert abs(now - time.time()) < 60


def test_process_without_the_library_is_found_out(faults: ServerFaults) -> None:
    with pytest.raises(LocalClusterError, match=f"process {os.getpid()} has not loaded the shim"):
        faults.check_loaded(os.getpid())
    faults.close()
    faults.close()


def test_python_and_c_agree_on_the_places() -> None:
    source = shim.SOURCE.read_text(encoding="utf-8")
    places = {name: int(place) for name, place in re.findall(r"^\s+([A-Z_]+) = (\d+),", source, re.MULTILINE)}
    assert len(places) == 15
    assert all(getattr(shim, name) == place for name, place in places.items())
    assert f"{shim.MAGIC_VALUE:#x}" in source


def test_library_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: Path) -> None:
    assert library.parent == cache_directory()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = preload_library()
    assert made.parent == tmp_path / "paxos-rsm"
    assert [path.name for path in made.parent.iterdir()] == [made.name]
    monkeypatch.setenv("PATH", "")
    assert preload_library() == made


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "cc").write_text("#!/bin/sh\necho 'stdio.h: no such file' >&2\nexit 1\n")
    (tmp_path / "cc").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FaultUnavailable, match=r"cannot compile shim\.c: stdio\.h: no such file"):
        preload_library()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FaultUnavailable, match="needs a C compiler"):
        preload_library()
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(FaultUnavailable, match="needs Linux"):
        preload_library()
