"""``paxos-rsm demo``: a leader is killed, and nothing that was acknowledged is lost.

Three real server processes, on free ports, in a temporary directory. A thread of its own writes all the time, through
all three, each key once and each with a value of its own, and notes when which write was acknowledged. What is claimed
at the end is checked: the same applied slot and digest on all three, every acknowledged write read back through the
server that was dead, each key at version 1 (a write that was executed twice would have made it 2).
"""

import asyncio
import contextlib
import functools
import itertools
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from paxos_rsm.cli.cluster import EndedBySignal, signals_end_it
from paxos_rsm.cli.failures import Failure, describe
from paxos_rsm.cli.options import SectionCommand, global_options
from paxos_rsm.errors import ClientError, PaxosRsmError
from paxos_rsm.testing.cluster import LocalCluster, LocalClusterError

__all__ = ["COMMANDS", "Acknowledgements", "Writer", "demo", "longest_gap_s", "run_demo"]

EPILOG = """\
\b
Examples:
  paxos-rsm demo                                  ends by itself, in well under 30 seconds
"""

SERVERS = 3
WRITES_PER_S = 1500
IN_FLIGHT = 64
CLIENT_TIMEOUT_S = 10.0
STEP_TIMEOUT_S = 20.0
WRITES_BEFORE = 1500
"""Acknowledged before the leader is killed, and once more before it starts again."""
READ_AT_ONCE = 512


class Acknowledgements:
    """Which writes were acknowledged, and when. Written by one thread, read by another."""

    def __init__(self) -> None:
        self.times: list[float] = []
        """Of each, by time.monotonic(), in order."""
        self.numbers: list[int] = []
        self.unknown = 0
        """Writes that failed: they may or may not have been executed, and prove nothing."""
        self.first_error = ""

    def note(self, number: int) -> None:
        """The ``number``-th write has been acknowledged just now."""
        self.numbers.append(number)
        self.times.append(time.monotonic())

    def __len__(self) -> int:
        return len(self.times)


def longest_gap_s(times: Sequence[float], since: float) -> float | None:
    """The longest time between one acknowledgement and the next, of those that end after ``since``.

    None where nothing was acknowledged after it.
    """
    first = bisect_right(times, since)
    if first == len(times):
        return None
    start = times[first - 1] if first else since
    return max(later - earlier for earlier, later in itertools.pairwise([start, *times[first:]]))


def key_of(number: int) -> bytes:
    """The key of the ``number``-th write."""
    return b"demo/%08d" % number


def value_of(number: int) -> bytes:
    """The value of the ``number``-th write: no other has it."""
    return b"value of %d" % number


class Writer:
    """Writes at an even pace in a thread of its own, from ``start`` to ``finish``."""

    def __init__(self, endpoints: Sequence[str]) -> None:
        self.acknowledged = Acknowledgements()
        self._endpoints = list(endpoints)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._failure: BaseException | None = None
        self._cancel: Callable[[], object] | None = None

    def start(self) -> None:
        """Begins to write."""
        self._thread.start()

    def finish(self) -> Acknowledgements:
        """Ends writing, waits for the answers that are under way, and gives what was acknowledged."""
        self._ended.set()
        self._thread.join(CLIENT_TIMEOUT_S + STEP_TIMEOUT_S)
        if self._failure is not None:
            raise Failure(f"the writer failed: {describe(self._failure)}") from self._failure
        return self.acknowledged

    def abandon(self) -> None:
        """Ends writing at once, answers or not. Nothing to do where it has ended."""
        self._ended.set()
        if self._cancel is not None:
            with contextlib.suppress(RuntimeError):  # the loop may be closed by now
                self._cancel()
        if self._thread.is_alive():
            self._thread.join(STEP_TIMEOUT_S)

    def wait_for(self, count: int) -> None:
        """Waits until ``count`` more writes have been acknowledged. Raises Failure where they are not."""
        wanted = len(self.acknowledged) + count
        deadline = time.monotonic() + STEP_TIMEOUT_S
        while len(self.acknowledged) < wanted:
            if self._failure is not None:
                raise Failure(f"the writer failed: {describe(self._failure)}") from self._failure
            if time.monotonic() > deadline:
                error = self.acknowledged.first_error or "none failed"
                raise Failure(f"too few writes were acknowledged within {STEP_TIMEOUT_S:g} s ({error})")
            time.sleep(0.02)

    def _run(self) -> None:
        try:
            asyncio.run(self._write())
        except BaseException as error:  # told to whoever waits
            self._failure = error

    async def _write(self) -> None:
        from paxos_rsm.client import AsyncClient

        own = asyncio.current_task()
        if own is not None:
            self._cancel = functools.partial(asyncio.get_running_loop().call_soon_threadsafe, own.cancel)
        started = time.monotonic()
        numbers = itertools.count()

        async def slot(client: Any) -> None:
            while not self._ended.is_set():
                number = next(numbers)
                await asyncio.sleep(max(0.0, started + number / WRITES_PER_S - time.monotonic()))
                try:
                    await client.put(key_of(number), value_of(number))
                except ClientError as error:
                    self.acknowledged.unknown += 1
                    self.acknowledged.first_error = self.acknowledged.first_error or describe(error)
                else:
                    self.acknowledged.note(number)

        async with AsyncClient(self._endpoints, timeout_s=CLIENT_TIMEOUT_S) as client:
            await asyncio.gather(*(slot(client) for _ in range(IN_FLIGHT)))


class Story:
    """Tells what happens, step by step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._steps = itertools.count(1)
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._started

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Opens a step; shows that it goes on where that is to be seen."""
        self._console.print(f"\n[bold cyan]{next(self._steps)}[/] [bold]{escape(title)}[/]")
        with self._console.status("[dim]...[/]"):
            yield

    def tell(self, text: str) -> None:
        """One line of the step."""
        self._console.print(f"  {text}", highlight=False)

    def end(self, text: str) -> None:
        """The last line."""
        self._console.print(f"\n[bold green]{escape(text)}[/]", highlight=False)


def run_demo(story: Story, cluster: LocalCluster) -> None:
    """The whole story. Raises Failure, or LocalClusterError, where something is not as it is claimed to be."""
    with story.step("three servers start, each a process with a directory of its own"):
        cluster.start(timeout_s=STEP_TIMEOUT_S)
        leader = cluster.wait_for_leader(STEP_TIMEOUT_S)
        for server in cluster:
            told = " [green]leads[/]" if server.name == leader else ""
            story.tell(f"{server.name}  {server.endpoint}  process {server.pid}{told}")
    followers = [name for name in cluster.names if name != leader]
    with story.step("any server takes writes, any server gives reads, and no read is stale"):
        asyncio.run(_write_and_read(story, cluster, *followers))
    writer = Writer(cluster.endpoints)
    try:
        with story.step("writing all the time, through all three"):
            writer.start()
            writer.wait_for(WRITES_BEFORE)
            story.tell(f"{len(writer.acknowledged):,} writes acknowledged")
        with story.step(f"kill -9 {cluster[leader].pid}: {leader}, the leader, is gone"):
            _kill_leader(story, cluster, leader, writer)
        with story.step(f"{leader} starts again, with what is on its disk"):
            cluster[leader].start()
            cluster.wait_until(
                lambda: cluster.leader(everyone=True), "leader that all follow", STEP_TIMEOUT_S
            )
            writer.wait_for(WRITES_BEFORE)
            acknowledged = writer.finish()
            story.tell(f"{len(acknowledged):,} writes acknowledged in all, {acknowledged.unknown} unanswered")
    finally:
        writer.abandon()
    with story.step("all three hold the same state"):
        slot, digest = cluster.wait_until(lambda: _same_state(cluster), "equal states", STEP_TIMEOUT_S)
        for name in cluster.names:
            story.tell(f"{name}  applied slot {slot}  digest {digest}")
    with story.step(f"every acknowledged write is read back, through {leader}"):
        asyncio.run(_read_back(cluster[leader].endpoint, acknowledged.numbers))
        story.tell(f"{len(acknowledged):,} of {len(acknowledged):,} are there, each executed once")


async def _write_and_read(story: Story, cluster: LocalCluster, one: str, other: str) -> None:
    from paxos_rsm.client import AsyncClient

    async with AsyncClient([cluster[one].endpoint], timeout_s=CLIENT_TIMEOUT_S) as client:
        await client.put("greeting", "hello")
        story.tell(f"put greeting hello   through {one}, a follower   OK")
    async with AsyncClient([cluster[other].endpoint], timeout_s=CLIENT_TIMEOUT_S) as client:
        found = (await client.get("greeting")).value
    if found != b"hello":
        raise Failure(f"{other} read {found!r}, not what was written through {one} before")
    story.tell(f"get greeting         through {other}, another       hello")


def _kill_leader(story: Story, cluster: LocalCluster, leader: str, writer: Writer) -> None:
    killed_at = time.monotonic()
    cluster[leader].kill()
    following = cluster.wait_for_leader(STEP_TIMEOUT_S)
    writer.wait_for(WRITES_BEFORE)
    gap_s = longest_gap_s(writer.acknowledged.times, killed_at)
    if gap_s is None:
        raise Failure("nothing was acknowledged after the leader was killed")
    story.tell(
        f"{following} leads; the longest time without an acknowledged write was [bold]{gap_s * 1e3:.0f} ms[/]"
    )
    story.tell(f"{len(writer.acknowledged):,} writes acknowledged")


def _same_state(cluster: LocalCluster) -> tuple[int, str] | None:
    """Applied slot and digest, where all servers have the same."""
    answers = cluster.statuses(digest=True).values()
    held = {(answer.applied_slot, answer.digest.hex()) for answer in answers}
    return held.pop() if len(answers) == len(cluster) and len(held) == 1 else None


async def _read_back(endpoint: str, numbers: Sequence[int]) -> None:
    """Raises Failure where an acknowledged write is lost, is not what was written, or was executed twice."""
    from paxos_rsm.client import AsyncClient

    async with AsyncClient([endpoint], timeout_s=CLIENT_TIMEOUT_S) as client:
        for at in range(0, len(numbers), READ_AT_ONCE):
            part = numbers[at : at + READ_AT_ONCE]
            answers = await asyncio.gather(*(client.get(key_of(number)) for number in part))
            for number, answer in zip(part, answers, strict=True):
                if answer.value != value_of(number):
                    held = "is not there" if answer.value is None else f"holds {answer.value!r}"
                    raise Failure(f"acknowledged write {number} was lost: its key {held}")
                if answer.version != 1:
                    raise Failure(f"write {number} was executed {answer.version} times")


@click.command("demo", cls=SectionCommand, epilog=EPILOG)
@global_options(connects=False)
def demo() -> None:
    """Watch three servers survive the death of their leader.

    Starts them, writes and reads, kills the leader with SIGKILL while writing, starts it again, and checks that all
    three hold the same state and that no acknowledged write was lost.
    """
    story = Story(Console(highlight=False))
    cluster = LocalCluster(SERVERS)
    try:
        with signals_end_it():
            run_demo(story, cluster)
    except EndedBySignal:
        raise click.Abort from None
    except PaxosRsmError as error:
        cluster.keep_directory()
        reason = error.headline if isinstance(error, LocalClusterError) else describe(error)
        raise Failure(f"{reason}; the servers' logs are in {cluster.directory}") from error
    except Failure as error:
        cluster.keep_directory()
        raise Failure(f"{error.message}; the servers' logs are in {cluster.directory}") from error
    finally:
        cluster.close()
    story.end(f"nothing was lost; done in {story.seconds:.1f} s")


COMMANDS = {"demo": demo}
