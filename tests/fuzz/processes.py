"""Several processes at work on the targets, each within limits that no decoder must reach."""

import multiprocessing
import resource
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from itertools import islice
from types import FrameType

from tests.fuzz.runner import CHUNK, Report, TooSlow, run_chunk
from tests.fuzz.targets import TARGETS

__all__ = ["fuzz"]

MEMORY_BYTES_MORE = 2 << 30
"""What a process may take beyond what it has after its start."""
PROGRESS_S = 30.0


def _prepare() -> None:
    """In each process: limits that no decoder must reach."""
    with open("/proc/self/statm", "rb") as statm:
        have = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (have + MEMORY_BYTES_MORE, have + MEMORY_BYTES_MORE))

    def alarmed(_number: int, _frame: FrameType | None) -> None:
        raise TooSlow("one input takes beyond all measure")

    signal.signal(signal.SIGALRM, alarmed)


def _work(task: tuple[str, int, int, int]) -> Report:
    """One chunk."""
    name, seed, chunk, count = task
    try:
        return run_chunk(TARGETS[name], seed, chunk, count, limit_time=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _tasks(names: list[str], inputs: int, seed: int) -> Iterator[tuple[str, int, int, int]]:
    """Chunks of all targets in turns, so that every one of them gets its share early."""
    each = -(-inputs // len(names))
    for chunk in range(-(-each // CHUNK)):
        for name in names:
            yield name, seed, chunk, min(CHUNK, each - chunk * CHUNK)


def fuzz(names: list[str], inputs: int, seed: int, jobs: int, seconds: float) -> dict[str, Report]:
    """So many inputs over all targets together, in ``jobs`` processes, or what can be tried in so many seconds.

    Raises what breaks a process.
    """
    reports = {name: Report(name) for name in names}
    started = told = time.monotonic()
    context = multiprocessing.get_context("spawn")
    tasks = _tasks(names, inputs, seed)
    with ProcessPoolExecutor(jobs, context, initializer=_prepare) as pool:
        # Few at a time, so that it can stop soon.
        at_work = {pool.submit(_work, task) for task in islice(tasks, 2 * jobs)}
        while at_work:
            done, at_work = wait(at_work, return_when=FIRST_COMPLETED)
            now = time.monotonic()
            for report in (each.result() for each in done):
                reports[report.target].add(report)
                if report.failure is not None:
                    sys.stderr.write(f"... {report.target} failed: {report.failure.error[:300]}\n")
            if now - started <= seconds:
                at_work |= {pool.submit(_work, task) for task in islice(tasks, len(done))}
            if now - told > PROGRESS_S:
                told = now
                sys.stderr.write(f"... {sum(each.inputs for each in reports.values()):,} of {inputs:,}\n")
    return reports
