"""What a million keys cost a cluster: memory, a snapshot, a start, a peer that catches up, and what clients notice.

    python benchmarks/large_cluster.py                                   # 1,000,000 keys of 100 bytes
    python benchmarks/large_cluster.py --value-bytes 400                 # a state of half a gigabyte

Three local servers and a client share the machine: times are those of a small one. ``noticed`` compares what a client
writes each second while a follower fetches and installs a snapshot with what it writes when all is quiet.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable

from paxos_rsm._proto import admin_pb2
from paxos_rsm.client import AsyncClient
from paxos_rsm.testing.cluster import LocalCluster

IN_FLIGHT = 512
QUIET_S = 8.0
COMPACT_EVERY = 100_000
"""Writes, after which old revisions go: what is measured is a state of one size."""
PATIENCE_S = 300.0


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="A cluster with many keys.")
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--value-bytes", type=int, default=100)
    parser.add_argument("-w", dest="output", choices=["simple", "json"], default="simple")
    return parser.parse_args()


class Writer:
    """Clients that write for as long as they may."""

    def __init__(self, client: AsyncClient, keys: int, value_bytes: int) -> None:
        self._client = client
        self._keys = keys
        self._value = bytes(value_bytes)
        self.count = 0
        self.revision = 0
        self.slowest_s = 0.0

    async def fill(self) -> None:
        """Every key once."""
        await self._run(lambda: self.count < self._keys)

    async def write_until(self, done: Callable[[], bool]) -> None:
        """More of the same, to the same keys."""
        await self._run(lambda: not done())

    async def _run(self, more: Callable[[], bool]) -> None:
        await asyncio.gather(*(self._write(more) for _ in range(IN_FLIGHT)))

    async def _write(self, more: Callable[[], bool]) -> None:
        while more():
            self.count += 1
            if self.count % COMPACT_EVERY == 0:
                await self._client.compact(self.revision)
            began = time.monotonic()
            result = await self._client.put(b"%016d" % (self.count % self._keys), self._value)
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            self.revision = max(self.revision, result.revision)


class Measure:
    """The phases, one after the other."""

    def __init__(self, cluster: LocalCluster, given: argparse.Namespace) -> None:
        self.cluster = cluster
        self.given = given
        self.found: dict[str, float] = {"keys": given.keys, "value_bytes": given.value_bytes}

    def note(self, **figures: float) -> None:
        """Keeps figures, rounded."""
        self.found |= {name: round(figure, 2) for name, figure in figures.items()}

    async def run(self) -> None:
        """All of it."""
        async with AsyncClient(self.cluster.endpoints) as client:
            writer = Writer(client, self.given.keys, self.given.value_bytes)
            began = time.monotonic()
            await writer.fill()
            self.note(fill_s=time.monotonic() - began)
            await self._same()
            leader = self.cluster.wait_for_leader(everyone=True)
            follower = next(name for name in self.cluster.names if name != leader)
            self.note(memory_mb=self._memory_mb())
            await self._start(follower)
            await self._catch_up(writer, leader, follower)
            self.note(memory_mb_after=self._memory_mb())

    def _memory_mb(self) -> float:
        return max(status.memory_bytes for status in self.cluster.statuses().values()) / 1e6

    async def _same(self) -> None:
        await asyncio.to_thread(
            self.cluster.wait_until,
            lambda: [s.applied_slot for s in self._statuses()] == 3 * [self._statuses()[0].applied_slot],
            "all servers at one slot",
            PATIENCE_S,
        )

    def _statuses(self) -> list[admin_pb2.StatusResponse]:
        return list(self.cluster.statuses().values())

    async def _start(self, name: str) -> None:
        """An orderly stop, and a start from snapshot and log, until it has applied all."""
        await asyncio.to_thread(self.cluster[name].terminate)
        began = time.monotonic()
        self.cluster[name].start()
        await self._same()
        self.note(start_s=time.monotonic() - began)

    async def _catch_up(self, writer: Writer, leader: str, follower: str) -> None:
        """The follower is away until the leader's log starts above it, and comes back under load."""
        await asyncio.to_thread(self.cluster[follower].kill)
        was_at = self.cluster[leader].status().applied_slot
        await writer.write_until(self._poll(lambda: self.cluster[leader].status().compacted_slot > was_at))
        quiet = await self._rates(writer, self._for(QUIET_S))
        began = time.monotonic()
        self.cluster[follower].start()
        noticed = await self._rates(writer, self._poll(lambda: self._is_close(leader, follower)))
        self.note(
            catch_up_s=time.monotonic() - began,
            quiet_writes_s=statistics.median(quiet),
            noticed_writes_s=statistics.median(noticed),
            noticed_share=statistics.median(noticed) / statistics.median(quiet),
            slowest_write_ms=writer.slowest_s * 1000,
        )

    def _is_close(self, leader: str, follower: str) -> bool:
        try:
            there = self.cluster[follower].status()
        except Exception:
            return False
        return there.applied_slot > self.cluster[leader].status().applied_slot - 100

    def _for(self, seconds: float) -> Callable[[], bool]:
        deadline = time.monotonic() + seconds
        return lambda: time.monotonic() > deadline

    def _poll(self, condition: Callable[[], bool]) -> Callable[[], bool]:
        """The condition, looked at twice a second on a thread: it asks servers."""
        held = [False]

        async def look() -> None:
            while not held[0]:
                held[0] = await asyncio.to_thread(condition)
                await asyncio.sleep(0.5)

        self._looking = asyncio.ensure_future(look())
        return lambda: held[0]

    async def _rates(self, writer: Writer, done: Callable[[], bool]) -> list[float]:
        """Writes of each second, until it is done."""
        rates: list[float] = []
        writer.slowest_s = 0.0

        async def count() -> None:
            before, at = writer.count, time.monotonic()
            while not done():
                await asyncio.sleep(1.0)
                rates.append((writer.count - before) / (time.monotonic() - at))
                before, at = writer.count, time.monotonic()

        await asyncio.gather(count(), writer.write_until(done))
        return rates


def main() -> None:
    """Measures and prints."""
    given = arguments()
    with LocalCluster(3) as cluster:
        cluster.start()
        cluster.wait_for_leader(everyone=True)
        measure = Measure(cluster, given)
        asyncio.run(measure.run())
    if given.output == "json":
        print(json.dumps(measure.found))
    else:
        print(", ".join(f"{name} {figure:g}" for name, figure in measure.found.items()))


if __name__ == "__main__":
    main()
