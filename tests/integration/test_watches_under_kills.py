"""Watchers at every server while leaders are killed: each sees every event of every revision once, in order.

What a watcher should have seen is cut out of the store's own history, which a fresh client is told at the end, from
revision 1. The history itself is compared with what the writers were acknowledged, and with reads of past revisions.
"""

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest

from paxos_rsm import AsyncClient, Op, PutResult, WatchEvent
from paxos_rsm.client.watch import AsyncWatch, Leave
from paxos_rsm.testing.cluster import LocalCluster
from tests.integration.kills import LONG, client_from, kill_leaders, longest_gap_s

KEYS = 20
WRITERS = 3
WRITE_PAUSE_S = 0.04
KILL_EVERY_S = 3.0
SAMPLES = 10
"""Past revisions that are read at the end."""
CAUGHT_UP_TIMEOUT_S = 120.0
POLL_S = 0.05


class Happened(NamedTuple):
    """One event, as writers, history and watchers alike tell of it."""

    revision: int
    kind: str
    key: bytes
    value: bytes
    previous: bytes | None = None
    """What stood there before; None where that was not asked for, or was nothing."""


class Shape(NamedTuple):
    """What a watcher looks at: keys from ``first`` up to ``end``, all but some kind of events, from when on."""

    first: int = 0
    end: int = KEYS
    leave_out: Leave | None = None
    previous: bool = False
    from_the_beginning: bool = True

    def expects(self, prefix: str, event: Happened) -> bool:
        """Whether this event is one for it."""
        number = int(event.key.removeprefix(prefix.encode()))
        return self.first <= number < self.end and event.kind != self.leave_out


SHAPES = (
    Shape(),
    Shape(7, 8),
    Shape(5, 15, previous=True, from_the_beginning=False),
    Shape(leave_out="delete", from_the_beginning=False),
    Shape(leave_out="put", previous=True),
)


@dataclass
class Watcher:
    """One watch, and what has come of it."""

    shape: Shape
    watch: AsyncWatch
    start_revision: int = 0
    seen: list[Happened] = field(default_factory=list)
    seen_at: list[float] = field(default_factory=list)

    async def look(self) -> None:
        """Takes what comes, until it is cancelled."""
        async for event in self.watch:
            self.seen.append(happened(event, self.shape.previous))
            self.seen_at.append(time.monotonic())


def happened(event: WatchEvent, previous: bool = False) -> Happened:
    """What an event tells."""
    before = event.prev_kv.value if previous and event.prev_kv is not None else None
    return Happened(event.revision, event.kind, event.key, event.value, before)


def key_of(prefix: str, number: int) -> str:
    return f"{prefix}{number:02}"


class Writer:
    """Writes values that nobody writes twice, deletes, and does several things at once; notes what it was told."""

    def __init__(self, number: int, prefix: str) -> None:
        self.stopping = False
        self.acknowledged: list[Happened] = []
        self._random = random.Random(number)
        self._prefix = prefix
        self._values = (b"%d wrote %d" % (number, count) for count in itertools.count())

    async def work(self, client: AsyncClient) -> None:
        while not self.stopping:
            share = self._random.random()
            one, two, three = (key_of(self._prefix, each) for each in self._random.sample(range(KEYS), 3))
            if share < 0.7:
                await self._put(client, one)
            elif share < 0.85:
                await self._delete(client, one)
            else:
                await self._several(client, one, two, three)
            await asyncio.sleep(WRITE_PAUSE_S)

    async def _put(self, client: AsyncClient, key: str) -> None:
        value = next(self._values)
        revision = (await client.put(key, value)).revision
        self.acknowledged.append(Happened(revision, "put", key.encode(), value))

    async def _delete(self, client: AsyncClient, key: str) -> None:
        deleted = await client.delete(key)
        if deleted:
            self.acknowledged.append(Happened(deleted.revision, "delete", key.encode(), b""))

    async def _several(self, client: AsyncClient, one: str, gone: str, two: str) -> None:
        values = next(self._values), next(self._values)
        done = await client.txn([], [Op.put(one, values[0]), Op.delete(gone), Op.put(two, values[1])])
        first, deleted, last = done.responses
        assert isinstance(first, PutResult)
        assert isinstance(last, PutResult)
        self.acknowledged.append(Happened(done.revision, "put", one.encode(), values[0]))
        if deleted:
            self.acknowledged.append(Happened(done.revision, "delete", gone.encode(), b""))
        self.acknowledged.append(Happened(done.revision, "put", two.encode(), values[1]))


async def close_the_book(client: AsyncClient, prefix: str) -> list[Happened]:
    """Writes every key a last time, then deletes all: every watcher has something to see at the end."""
    keys = [key_of(prefix, number) for number in range(KEYS)]
    put = await client.txn([], [Op.put(key, b"the end") for key in keys])
    deleted = await client.delete(prefix=prefix)
    assert deleted == KEYS
    return [
        *(Happened(put.revision, "put", key.encode(), b"the end") for key in keys),
        *(Happened(deleted.revision, "delete", key.encode(), b"") for key in keys),
    ]


async def history_of(client: AsyncClient, prefix: str, last_revision: int) -> list[Happened]:
    """Everything that the store knows to have happened below ``prefix``, with what stood there before."""
    events: list[Happened] = []
    async with client.watch(prefix=prefix, start_revision=1, prev_kv=True) as watch:
        while watch.resume_revision <= last_revision:
            events += [happened(each, previous=True) for each in await watch.next_batch()]
    return events


async def check_past(client: AsyncClient, prefix: str, history: Sequence[Happened]) -> None:
    """The history is what reads of past revisions show."""
    revisions = sorted({event.revision for event in history})
    sampled = set(random.Random(0).sample(revisions, min(SAMPLES, len(revisions))))
    state: dict[bytes, bytes] = {}
    for revision, events in itertools.groupby(history, key=lambda event: event.revision):
        for event in events:
            assert event.previous == state.get(event.key), f"what stood there before is wrong: {event}"
            if event.kind == "put":
                state[event.key] = event.value
            else:
                del state[event.key]
        if revision in sampled:
            found = await client.range(prefix=prefix, revision=revision)
            assert {kv.key: kv.value for kv in found} == state, f"at revision {revision}"


def check_seen(watcher: Watcher, prefix: str, history: Sequence[Happened]) -> None:
    """It saw what the store's history has for it, from its start: each event once, in order, nothing else."""
    shape = watcher.shape
    expected = [
        event if shape.previous else event._replace(previous=None)
        for event in history
        if event.revision >= watcher.start_revision and shape.expects(prefix, event)
    ]
    wrong = next(
        (n for n, (seen, due) in enumerate(zip(watcher.seen, expected, strict=False)) if seen != due),
        min(len(watcher.seen), len(expected)),
    )
    assert watcher.seen == expected, (
        f"{shape} from revision {watcher.start_revision}: {len(watcher.seen)} events seen, {len(expected)} expected; "
        f"the first that differs is number {wrong}:\nseen     {watcher.seen[wrong : wrong + 3]}\n"
        f"expected {expected[wrong : wrong + 3]}"
    )


class Watchers:
    """Several watches for each of several clients, which begin at different servers."""

    def __init__(
        self, cluster: LocalCluster, prefix: str, first_revision: int, stack: AsyncExitStack
    ) -> None:
        self.all: list[Watcher] = []
        self._cluster = cluster
        self._prefix = prefix
        self._first_revision = first_revision
        self._stack = stack
        self._tasks: list[asyncio.Task[None]] = []

    async def join(self, number: int, count: int) -> None:
        """A client with ``count`` watches."""
        client = await self._stack.enter_async_context(client_from(self._cluster, number))
        for place in range(count):
            shape = SHAPES[(number + place) % len(SHAPES)]
            watch = client.watch(
                key_of(self._prefix, shape.first),
                key_of(self._prefix, shape.end),
                start_revision=self._first_revision if shape.from_the_beginning else 0,
                prev_kv=shape.previous,
                leave_out=shape.leave_out or (),
            )
            await self._stack.enter_async_context(watch)
            watcher = Watcher(shape, watch, self._first_revision)
            if not shape.from_the_beginning:
                watcher.start_revision = watch.resume_revision
            self.all.append(watcher)
            self._tasks.append(asyncio.create_task(watcher.look()))

    async def caught_up(self, last_revision: int) -> None:
        """Returns when each has taken everything up to there, as the servers say, and nothing is under way."""
        async with asyncio.timeout(CAUGHT_UP_TIMEOUT_S):
            for watcher, task in zip(self.all, self._tasks, strict=True):
                while watcher.watch.resume_revision <= last_revision:
                    assert not task.done(), f"a watch has ended: {task}"
                    await asyncio.sleep(POLL_S)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.mark.parametrize(
    ("clients", "each", "kills"),
    [pytest.param(4, 3, 2, id="short"), pytest.param(10, 5, 20, id="long", marks=LONG)],
)
async def test_each_watcher_sees_every_event_once_and_in_order(
    cluster: LocalCluster, clients: int, each: int, kills: int, tell: Callable[[str], None]
) -> None:
    prefix = f"{clients} clients/"
    async with AsyncExitStack() as stack:
        writers = [Writer(number, prefix) for number in range(WRITERS)]
        places = [await stack.enter_async_context(client_from(cluster, n)) for n in range(WRITERS)]
        first_revision = (await places[0].get("now")).revision + 1
        watchers = Watchers(cluster, prefix, first_revision, stack)
        for number in range(clients // 2):
            await watchers.join(number, each)
        work = [asyncio.create_task(w.work(client)) for w, client in zip(writers, places, strict=True)]
        killing = asyncio.create_task(kill_leaders(cluster, kills, KILL_EVERY_S))
        for number in range(clients // 2, clients):  # these come while leaders are killed
            await watchers.join(number, each)
        killed = await killing
        for writer in writers:
            writer.stopping = True
        await asyncio.gather(*work)
        acknowledged = [each for writer in writers for each in writer.acknowledged]
        acknowledged += await close_the_book(places[0], prefix)
        last_revision = acknowledged[-1].revision
        await watchers.caught_up(last_revision)
        fresh = await stack.enter_async_context(client_from(cluster, 0))
        history = await history_of(fresh, prefix, last_revision)
        await watchers.stop()

        # Sorting keeps the order of what one transaction did.
        acknowledged.sort(key=lambda event: event.revision)
        assert [event._replace(previous=None) for event in history] == acknowledged
        await check_past(fresh, prefix, history)
        for watcher in watchers.all:
            check_seen(watcher, prefix, history)
    silences = [longest_gap_s(w.seen_at) for w in watchers.all if w.shape == Shape()]
    tell(
        f"{len(watchers.all)} watchers, {len(killed)} leaders killed in {killed[-1] - killed[0] + KILL_EVERY_S:.0f} s, "
        f"{len(history)} events: each was seen once and in order by whom it was for "
        f"({sum(len(w.seen) for w in watchers.all)} in all); longest silence {max(silences):.1f} s"
    )
