"""Workers for :class:`~tests.integration.load.Load`, each a client of its own that never gives up.

Every one of them does what would show a command that was lost, or executed twice:

- ``writer`` writes each key once: afterwards each has its value, at version 1;
- ``cas_counter`` counts by compare-and-swap: a swap that was retried and executed twice would have told its client
  that it failed, and the count would be ahead of the acknowledgements;
- ``adder`` sends an increment, which is not idempotent, to ``examples.counter:Counter``.

With one endpoint a worker is bound to that server and waits while it is down; with several it goes where there is one.
"""

import asyncio
import itertools
from collections.abc import Mapping, Sequence

from paxos_rsm import AsyncClient, Client
from paxos_rsm.testing.cluster import LocalCluster
from tests.integration.load import Load, Worker

__all__ = [
    "COUNTER",
    "DEADLINE_S",
    "adder",
    "at_each_server",
    "cas_counter",
    "check_count",
    "check_written",
    "client_at",
    "writer",
]

COUNTER = b"counter"

DEADLINE_S = 60.0
"""Longer than any outage that a test makes: no command may be given up."""


def client_at(*endpoints: str) -> Client:
    """A blocking client that waits out whatever a busy machine makes it wait for."""
    return Client(endpoints, timeout_s=DEADLINE_S)


def key_of(worker: str, number: int) -> bytes:
    """The ``number``-th key that a writer writes."""
    return b"%s/%06d" % (worker.encode(), number)


def value_of(worker: str, number: int) -> bytes:
    """Its value, that of no other key."""
    return b"%s wrote %d" % (worker.encode(), number)


def writer(name: str, endpoints: Sequence[str], in_flight: int = 8) -> Worker:
    """Writes ``NAME/000000``, ``NAME/000001``, ..., each once; notes the numbers."""

    async def work(load: Load) -> None:
        numbers = itertools.count()

        async def one(client: AsyncClient) -> None:
            while not load.stopping:
                number = next(numbers)
                await client.put(key_of(name, number), value_of(name, number))
                await load.note(name, number)

        async with AsyncClient(endpoints, timeout_s=DEADLINE_S) as client:
            await asyncio.gather(*(one(client) for _ in range(in_flight)))

    return work


def cas_counter(name: str, endpoints: Sequence[str]) -> Worker:
    """Raises ``counter`` by one again and again, by compare-and-swap; notes the count that each success made."""

    async def work(load: Load) -> None:
        async with AsyncClient(endpoints, timeout_s=DEADLINE_S) as client:
            while not load.stopping:
                held = (await client.get(COUNTER)).value
                following = int(held or b"0") + 1
                if await client.compare_and_swap(COUNTER, held, b"%d" % following):
                    await load.note(name, following)

    return work


def adder(name: str, endpoints: Sequence[str], in_flight: int = 4) -> Worker:
    """Adds one to a Counter again and again; notes the total that each was answered with."""

    async def work(load: Load) -> None:
        async def one(client: AsyncClient) -> None:
            while not load.stopping:
                await load.note(name, int(await client.submit(b"1")))

        async with AsyncClient(endpoints, timeout_s=DEADLINE_S) as client:
            await asyncio.gather(*(one(client) for _ in range(in_flight)))

    return work


def at_each_server(cluster: LocalCluster) -> Mapping[str, list[str]]:
    """For one client bound to each server, and one that goes where it likes: name to endpoints."""
    return {**{server.name: [server.endpoint] for server in cluster}, "any": cluster.endpoints}


async def check_written(endpoint: str, written: Mapping[str, Sequence[int]]) -> None:
    """Through one server: everything that the writers noted is there, and was executed once."""
    async with AsyncClient([endpoint], timeout_s=DEADLINE_S) as client:
        for worker, numbers in written.items():
            assert numbers, f"{worker} was never acknowledged a write: nothing was tested"
            found = {kv.key: kv for kv in await client.range(prefix=f"{worker}/")}
            for number in numbers:
                kv = found.get(key_of(worker, number))
                assert kv is not None, (
                    f"write {number} of {worker} was acknowledged and is lost at {endpoint}"
                )
                assert kv.value == value_of(worker, number)
                assert kv.version == 1, f"write {number} of {worker} was executed {kv.version} times"


def check_count(total: int, acknowledged: Sequence[int]) -> None:
    """Every acknowledged increment counts once, and there is no other: each made a total that no other made."""
    assert sorted(acknowledged) == list(range(1, total + 1))
