"""``paxos-rsm bench``: how fast writes and reads are, with load from processes of their own.

Each client process (see `paxos_rsm.cli.load`) shares the operations in flight evenly with the others and
measures by itself; this process only starts them, draws the progress bar, and adds up what they counted.
Keys of a run stand under a prefix of its own, and are deleted at the end.
"""

import asyncio
import contextlib
import json
import secrets
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from paxos_rsm.cli.answers import print_fields
from paxos_rsm.cli.failures import EXIT_BAD_CONNECTION, BadConnection, Failure
from paxos_rsm.cli.latency import Latencies
from paxos_rsm.cli.load import Job
from paxos_rsm.cli.options import DurationType, SectionCommand, Settings, global_options, pass_settings
from paxos_rsm.cli.output import print_json, print_line, print_table

__all__ = ["COMMANDS", "bench", "plan", "run_bench"]

EPILOG = """\
\b
Examples:
  paxos-rsm bench write                           one at a time: the latency of a lone write
  paxos-rsm bench write --in-flight 512 --value-bytes 200 --duration 10s
  paxos-rsm bench read --in-flight 512 -w json
  paxos-rsm bench read --serializable --clients 2 --in-flight 512
  paxos-rsm bench write --in-flight 512 --rate 5000

Without --rate the loop is closed: each of the operations in flight starts when the one before it has been
answered. With --rate each is due at its time, and its latency counts from then, so that a stall counts for
everything it held up. The warm-up is not counted. Operations that fail are counted as errors, and not as
operations.
"""

LOAD_COMMAND = (sys.executable, "-m", "paxos_rsm.cli.load")
LINE_BYTES_MAX = 64 * 1024 * 1024
"""A load process says all it counted in one line."""
GRACE_S = 10.0


def plan(
    settings: Settings,
    kind: str,
    *,
    in_flight: int,
    clients: int,
    keys: int,
    value_bytes: int,
    rate: float,
    serializable: bool,
) -> list[Job]:
    """The jobs of the client processes: operations in flight and rate shared evenly, keys for all of them."""
    prefix = f"paxos-rsm-bench/{secrets.token_hex(4)}/"
    return [
        Job(
            kind=kind,
            endpoints=settings.endpoints,
            in_flight=in_flight // clients + (index < in_flight % clients),
            rate=rate / clients,
            prefix=prefix,
            keys=keys,
            first_key=index * keys // clients,
            fill=(index, clients) if kind == "read" else (),
            value_bytes=value_bytes,
            serializable=serializable,
            command_timeout_s=settings.command_timeout_s,
            dial_timeout_s=settings.dial_timeout_s,
        )
        for index in range(clients)
    ]


class _Load:
    """One load process, seen from here."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.total = 0

    @classmethod
    async def start(cls, job: Job) -> "_Load":
        return cls(
            await asyncio.create_subprocess_exec(
                *(*LOAD_COMMAND, job.to_json()),
                stdin=PIPE,
                stdout=PIPE,
                limit=LINE_BYTES_MAX,
                start_new_session=True,  # Ctrl-C is ours to handle
            )
        )

    def tell(self, message: dict[str, Any]) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def hear(self, event: str, progress: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Reads until ``event``. Raises Failure where the process says that it failed, or ends."""
        while True:
            line = b"" if self._process.stdout is None else await self._process.stdout.readline()
            if not line:
                raise Failure("a client process ended without a result; its error is above")
            message: dict[str, Any] = json.loads(line)
            if message["event"] == "failed":
                kind = BadConnection if message["exit_code"] == EXIT_BAD_CONNECTION else Failure
                raise kind(message["message"])
            if message["event"] == "progress":
                self.total = message["total"]
                progress()
            if message["event"] == event:
                return message

    async def end(self) -> None:
        """Closes its input, and waits for it, not for ever."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), GRACE_S)
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """Ends it at once, where it has not ended."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._process.communicate()  # which closes the pipes too


@contextlib.asynccontextmanager
async def _loads(jobs: Sequence[Job]) -> AsyncIterator[list[_Load]]:
    """The load processes, none of which outlives the block."""
    started: list[_Load] = []
    try:
        for job in jobs:
            started.append(await _Load.start(job))  # noqa: PERF401  # the block below ends those that did start
        yield started
        await asyncio.gather(*(load.end() for load in started))
    finally:
        for load in started:
            await load.kill()


async def run_bench(jobs: Sequence[Job], *, warm_up_s: float, duration_s: float) -> dict[str, Any]:
    """Runs the jobs at the same time, and adds up what they counted."""
    async with _loads(jobs) as loads:
        await asyncio.gather(*(load.hear("ready") for load in loads))
        for load in loads:
            load.tell({"warm_up_s": warm_up_s, "duration_s": duration_s})
        async with _progress_bar(loads, warm_up_s + duration_s) as advance:
            results = await asyncio.gather(*(load.hear("done", advance) for load in loads))
        loads[0].tell({"clean": True})
    latencies = Latencies()
    for result in results:
        latencies.add_json(result["latencies_us"])
    return {
        "ops_per_s": round(sum(result["answered"] for result in results) / duration_s, 1),
        **latencies.summary(),
        "stddev_ms": latencies.stddev_ms(),
        "errors": sum(result["errors"] for result in results),
        "first_error": next((result["first_error"] for result in results if result["first_error"]), None),
    }


@contextlib.asynccontextmanager
async def _progress_bar(loads: Sequence[_Load], seconds: float) -> AsyncIterator[Callable[[], None]]:
    """A bar on stderr that moves with the time, where stderr is a terminal; yields what redraws it."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    # It draws when told to, a few times a second: a thread of its own would take processor from what is
    # measured.
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        task = progress.add_task("warming up", total=seconds)
        loop = asyncio.get_running_loop()
        started = loop.time()

        def advance() -> None:
            done = sum(load.total for load in loads)
            passed = min(loop.time() - started, seconds)
            progress.update(task, completed=passed, description=f"{done:,} operations")
            progress.refresh()

        yield advance


@click.command("bench", cls=SectionCommand, epilog=EPILOG)
@click.argument("kind", type=click.Choice(["write", "read"]))
@click.option(
    "--in-flight",
    type=click.IntRange(1, 1_000_000),
    default=1,
    show_default=True,
    metavar="N",
    help="Operations at once, of all clients together.",
)
@click.option(
    "--clients",
    type=click.IntRange(1, 256),
    metavar="N",
    default=1,
    show_default=True,
    help="Client processes to share them.",
)
@click.option(
    "--value-bytes",
    type=click.IntRange(0),
    metavar="N",
    default=200,
    show_default=True,
    help="Size of each value.",
)
@click.option(
    "--keys",
    type=click.IntRange(1),
    metavar="N",
    default=10_000,
    show_default=True,
    help="How many keys to use.",
)
@click.option(
    "--duration",
    "duration_s",
    type=DurationType(),
    default="10s",
    show_default=True,
    help="What is measured.",
)
@click.option(
    "--warm-up", "warm_up_s", type=DurationType(), default="1s", show_default=True, help="What comes before."
)
@click.option(
    "--rate",
    type=click.FloatRange(0),
    metavar="N",
    default=0.0,
    help="Operations a second, of all clients together. [default: as fast as they are answered]",
)
@click.option("--serializable", is_flag=True, help="read: from the server's own state, which may be stale.")
@global_options()
@pass_settings
def bench(
    settings: Settings,
    kind: str,
    in_flight: int,
    clients: int,
    value_bytes: int,
    keys: int,
    duration_s: float,
    warm_up_s: float,
    rate: float,
    serializable: bool,
) -> None:
    """Measure writes or reads: operations a second, and how long each took."""
    if clients > in_flight:
        raise click.UsageError(f"--clients {clients} need at least as much --in-flight, not {in_flight}")
    if serializable and kind == "write":
        raise click.UsageError("--serializable is for `bench read`: a write always goes through the log")
    chosen: dict[str, Any] = {
        "in_flight": in_flight,
        "clients": clients,
        "keys": keys,
        "value_bytes": value_bytes,
        "rate": rate,
        "serializable": serializable,
    }
    jobs = plan(settings, kind, **chosen)
    result = asyncio.run(run_bench(jobs, warm_up_s=warm_up_s, duration_s=duration_s))
    chosen = {"kind": kind, **chosen, "duration_s": duration_s, "warm_up_s": warm_up_s}
    _print_result(settings.write_out, {**result, **chosen, "endpoints": list(settings.endpoints)})
    if not result["ops_per_s"] and result["errors"]:
        raise Failure(f"no operation succeeded; the first failed with {result['first_error']}")


def _print_result(write_out: str | None, result: dict[str, Any]) -> None:
    if write_out == "json":
        print_json(result)
        return
    if write_out == "fields":
        print_fields(result)
        return
    shown = [(name, _cell(name, value)) for name, value in result.items()]
    if write_out == "table":
        print_table(("figure", "value"), shown, right=("value",))
        return
    for name, value in shown:
        print_line(f"{name:14} {value}")


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name.endswith("_ms"):
        return f"{value:.3f}"
    if name == "ops_per_s":
        return f"{value:,.1f}"
    return ",".join(value) if isinstance(value, list) else str(value)


COMMANDS = {"bench": bench}
