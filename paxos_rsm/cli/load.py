"""One load process of ``bench``: ``python -m paxos_rsm.cli.load JOB``, JSON lines in and out.

::

    bench (parent)                              load (one process each)
      |                                           | connects, writes its share of the keys
      |<------------ {"event": "ready"} ----------|
      |-- {"warm_up_s": 1, "duration_s": 5} ----->|  all at once: the windows lie over each other
      |<------- {"event": "progress", ...} -------|  a few times a second
      |<--------- {"event": "done", ...} ---------|  when the last operation has been answered
      |-- {"clean": true} ----------------------->|  to one of them
      |-- end of input -------------------------->|  it ends; also where the parent has died

**What is measured.** A closed loop: ``in_flight`` slots, each of which starts its next operation when its
last has been answered, through one client, as an application with so many tasks would. An operation belongs
to the window if it *started* in it, and is waited for however long it takes, so that a stall at the end is
not cut off; operations a second are those *answered* within the window. A closed loop asks less of a system
that stalls: during a pause of a second it has ``in_flight`` slow operations, not a second's worth
("coordinated omission"). With ``rate`` the loop is open: operations have times at which they are due, however
the last one fares, and a latency counts from when it was due; that includes up to a millisecond by which the
loop's timers are late.
"""

import asyncio
import contextlib
import gc
import itertools
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

from paxos_rsm.cli.connect import connected
from paxos_rsm.cli.failures import describe, exit_code_of
from paxos_rsm.cli.latency import Latencies
from paxos_rsm.cli.options import Settings
from paxos_rsm.errors import ClientError

__all__ = ["Job", "Measured", "generate", "main", "measure"]

PROGRESS_INTERVAL_S = 0.25
PAUSE_AFTER_ERROR_S = 0.02
"""A slot that was refused waits a little: asking a server that is not there is no load."""
FILL_AT_ONCE = 256


@dataclass(frozen=True)
class Job:
    """What one load process is to do."""

    kind: str
    """``write`` or ``read``."""
    endpoints: tuple[str, ...]
    in_flight: int
    """Operations at once, of this process."""
    rate: float
    """Operations a second, of this process; 0 is as fast as they are answered."""
    prefix: str
    """Of every key of this run."""
    keys: int
    """How many keys there are, for all processes."""
    first_key: int
    """Where this process begins: elsewhere than the others, so that they do not write in step."""
    fill: tuple[int, ...]
    """Start and step of the keys that this process writes before it is ready; empty for none."""
    value_bytes: int
    serializable: bool
    command_timeout_s: float
    dial_timeout_s: float

    def to_json(self) -> str:
        """For the command line of the process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Job":
        """What :meth:`to_json` wrote."""
        loaded = json.loads(text)
        lists = {name: tuple(value) for name, value in loaded.items() if isinstance(value, list)}
        return cls(**{**loaded, **lists})

    def key(self, number: int) -> bytes:
        """The ``number``-th key, counted from 0 and around."""
        return b"%s%08d" % (self.prefix.encode(), number % self.keys)

    def settings(self) -> Settings:
        """For the client."""
        return Settings(
            endpoints=self.endpoints,
            command_timeout_s=self.command_timeout_s,
            dial_timeout_s=self.dial_timeout_s,
        )


class Measured:
    """What the slots of one process have seen."""

    def __init__(self) -> None:
        self.latencies = Latencies()
        self.answered = 0
        """Within the window."""
        self.errors = 0
        self.first_error = ""
        self.total = 0
        """Warm-up included, for the progress bar."""

    def note_error(self, error: Exception) -> None:
        """Counts an operation that failed."""
        self.errors += 1
        if not self.first_error:
            self.first_error = f"{type(error).__name__}: {describe(error)}"


async def measure(
    operate: Callable[[], Awaitable[Any]],
    measured: Measured,
    *,
    in_flight: int,
    rate: float,
    warm_up_s: float,
    duration_s: float,
) -> None:
    """Keeps ``in_flight`` operations going, or ``rate`` a second, for the warm-up and the window."""
    started = perf_counter()
    begin = started + warm_up_s
    end = begin + duration_s
    tickets = itertools.count()

    async def attempt(due: float) -> float:
        """One operation that is due now; gives the time of its answer."""
        try:
            await operate()
        except ClientError as error:
            if due >= begin:
                measured.note_error(error)
            await asyncio.sleep(PAUSE_AFTER_ERROR_S)
            return perf_counter()
        answered = perf_counter()
        measured.total += 1
        if due >= begin:
            measured.latencies.note(answered - due)
        if begin <= answered < end:
            measured.answered += 1
        return answered

    async def closed() -> None:
        due = perf_counter()
        while due < end:
            due = await attempt(due)

    async def open_() -> None:
        while (due := started + next(tickets) / rate) < end:
            early_s = due - perf_counter()
            if early_s > 0:
                await asyncio.sleep(early_s)
            await attempt(due)

    async with asyncio.TaskGroup() as slots:
        for _ in range(in_flight):
            slots.create_task(open_() if rate else closed())


def generate(job: Job, client: Any) -> Callable[[], Awaitable[Any]]:
    """The operation of ``job``: each call goes to the next key."""
    keys: Iterator[bytes] = itertools.cycle([job.key(job.first_key + number) for number in range(job.keys)])
    value = os.urandom(job.value_bytes)
    if job.kind == "write":
        return lambda: client.put(next(keys), value)
    return lambda: client.get(next(keys), serializable=job.serializable)


def _say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


async def _fill(job: Job, client: Any) -> None:
    value = os.urandom(job.value_bytes)
    numbers = range(job.fill[0], job.keys, job.fill[1]) if job.fill else range(0)
    for at in range(0, len(numbers), FILL_AT_ONCE):
        await asyncio.gather(*(client.put(job.key(n), value) for n in numbers[at : at + FILL_AT_ONCE]))


async def _report(measured: Measured) -> None:
    while True:
        await asyncio.sleep(PROGRESS_INTERVAL_S)
        _say(event="progress", total=measured.total, errors=measured.errors)


async def serve(job: Job, told: Callable[[], Awaitable[str]]) -> None:
    """The whole life of a load process; ``told`` gives the parent's next line, empty at the end."""
    async with connected(job.settings()) as client:
        await _fill(job, client)
        operate = generate(job, client)
        _say(event="ready")
        line = await told()
        if not line:
            return
        window = json.loads(line)
        gc.collect()
        gc.freeze()  # what has been loaded is not looked through again while latencies are taken
        measured = Measured()
        progress = asyncio.create_task(_report(measured))
        try:
            await measure(operate, measured, in_flight=job.in_flight, rate=job.rate, **window)
        finally:
            progress.cancel()
        _say(
            event="done",
            answered=measured.answered,
            errors=measured.errors,
            first_error=measured.first_error,
            latencies_us=measured.latencies.to_json(),
        )
        if await told():
            await client.delete(prefix=job.prefix)


async def _stdin_lines() -> Callable[[], Awaitable[str]]:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def next_line() -> str:
        return (await reader.readline()).decode()

    return next_line


async def _main(job: Job) -> None:
    lines: asyncio.Queue[str] = asyncio.Queue()
    next_line = await _stdin_lines()

    async def listen() -> None:
        while line := await next_line():
            await lines.put(line)
        # The parent has no more to say, or is gone: whatever is under way is of use to nobody.
        await lines.put("")

    work = asyncio.create_task(serve(job, lines.get))
    listening = asyncio.create_task(listen())
    await asyncio.wait({work, listening}, return_when=asyncio.FIRST_COMPLETED)
    if not work.done():
        await asyncio.wait({work}, timeout=job.command_timeout_s)
        work.cancel()
    listening.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work


def main() -> None:
    """Runs the job on the command line."""
    job = Job.from_json(sys.argv[1])
    try:
        asyncio.run(_main(job))
    except Exception as error:
        _say(event="failed", message=describe(error), exit_code=exit_code_of(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
