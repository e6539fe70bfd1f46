"""Leaders that are killed at a steady pace, while a test looks at what users see of it.

A test has two forms: a short one for every run, and a long one, which ``make test-long`` runs.
"""

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

from paxos_rsm import AsyncClient
from paxos_rsm.testing.cluster import LocalCluster

__all__ = ["LONG", "Ballots", "ballots_of", "client_from", "kill_leaders", "longest_gap_s", "writing"]

LONG = (
    pytest.mark.slow,
    pytest.mark.skipif(
        "PAXOS_RSM_LONG_TESTS" not in os.environ, reason="takes a minute; make test-long runs it"
    ),
    pytest.mark.timeout(900),
)

LEADER_TIMEOUT_S = 300.0
CLIENT_TIMEOUT_S = 300.0
SESSION_TIMEOUT_S = 3_600.0
"""Longer than any outage that is made here, on any machine: nothing is given up."""
SERVICE_S = 1.0
LOOK_S = 0.1


async def kill_leaders(
    cluster: LocalCluster, times: int, every_s: float, *, everyone: bool = False
) -> list[float]:
    """Kills the leader with SIGKILL every ``every_s``, and starts it again at once; gives when, by time.monotonic().

    Where there is no leader by then it waits for the next, and lets that one serve for a second. Only with ``everyone``
    does it wait until the one that was started follows: on a busy machine another is killed before that, and for a
    while there is no quorum.
    """
    killed: list[float] = []
    for _ in range(times):
        if killed:
            await asyncio.to_thread(cluster.wait_for_leader, LEADER_TIMEOUT_S, everyone=everyone)
            await asyncio.sleep(max(SERVICE_S, killed[-1] + every_s - time.monotonic()))
        leader = await asyncio.to_thread(cluster.wait_for_leader, LEADER_TIMEOUT_S, everyone=everyone)
        await asyncio.to_thread(cluster[leader].kill)
        killed.append(time.monotonic())
        await asyncio.to_thread(cluster[leader].start)
    await asyncio.to_thread(cluster.wait_for_leader, LEADER_TIMEOUT_S, everyone=True)
    return killed


@asynccontextmanager
async def client_from(cluster: LocalCluster, number: int) -> AsyncIterator[AsyncClient]:
    """A client that knows every server, and begins with another one for each ``number``."""
    first = cluster.endpoints[number % len(cluster)]
    client = AsyncClient([first], timeout_s=CLIENT_TIMEOUT_S, session_timeout_s=SESSION_TIMEOUT_S)
    async with client:
        found = await client.refresh_endpoints()  # it stays with the one that it has
        assert set(found) == set(cluster.endpoints)
        yield client


class Seen(NamedTuple):
    """A leader, and when it was first seen, by time.monotonic()."""

    at: float
    ballot: tuple[int, int]


class Ballots:
    """Which leaders there were, as the servers say when they are asked ten times a second."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    def changes(self, since: float, until: float) -> int:
        """How often leadership changed between two moments; one more where a moment is close to a change."""
        around = 10 * LOOK_S
        return sum(since - around <= each.at <= until + around for each in self.seen[1:])

    async def look(self, cluster: LocalCluster) -> None:
        """Looks until it is cancelled."""
        while True:
            for answer in (await asyncio.to_thread(cluster.statuses)).values():
                ballot = (answer.ballot.round, answer.ballot.node)
                if answer.role == "leader" and (not self.seen or ballot > self.seen[-1].ballot):
                    self.seen.append(Seen(time.monotonic(), ballot))
            await asyncio.sleep(LOOK_S)


@asynccontextmanager
async def ballots_of(cluster: LocalCluster) -> AsyncIterator[Ballots]:
    """Looks at who leads while the block runs."""
    ballots = Ballots()
    looking = asyncio.create_task(ballots.look(cluster))
    try:
        yield ballots
    finally:
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking


@asynccontextmanager
async def writing(client: AsyncClient, key: str, pause_s: float = 0.05) -> AsyncIterator[list[float]]:
    """Writes ``key`` again and again while the block runs; gives when each write was acknowledged."""
    acknowledged: list[float] = []

    async def write() -> None:
        for number in itertools.count():
            await client.put(key, str(number))
            acknowledged.append(time.monotonic())
            await asyncio.sleep(pause_s)

    task = asyncio.create_task(write())
    try:
        yield acknowledged
        assert not task.done(), f"the writer of {key} has ended: {task}"
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def longest_gap_s(times: list[float]) -> float:
    """The longest time between two of them."""
    return max((later - earlier for earlier, later in itertools.pairwise(times)), default=0.0)
