"""What a watch costs: how late an event comes, and what watches take from writes.

    python benchmarks/watch.py                              # a minute
    python benchmarks/watch.py --turns 2000 --seconds 5 --runs 5 -w json

*Latency*: three local servers, one write at a time at the leader, some time apart, and one watcher at a follower. What
counts is the time from the acknowledgement, as the writer sees it, to the event, as the watcher sees it; both are in
this process. It can be negative: an event does not wait for the writer to be told. The goal is a median of 5 ms.

*Writes*: `paxos-rsm bench write` against the leader while so many watches on other keys are open there. The numbers of
watches take turns, so that whatever else the machine is doing falls on all of them alike.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

import grpc

from paxos_rsm import AsyncClient
from paxos_rsm._proto import watch_pb2
from paxos_rsm.testing.cluster import LocalCluster

WARM_UP_TURNS = 20
TIMEOUT_S = 30.0
STREAMS = 10
WATCHES = (0, 1_000, 10_000)
KEY = b"latency/key"


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="How late events come, and what watches take from writes.")
    parser.add_argument("--turns", type=int, default=500, help="writes whose events are timed")
    parser.add_argument("--pause-ms", type=float, default=10.0, help="between two such writes")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each run of writes")
    parser.add_argument("--runs", type=int, default=3, help="with each number of watches")
    parser.add_argument("--in-flight", type=int, default=512, help="writes in flight")
    parser.add_argument(
        "--limit-ms", type=float, default=0.0, help="exit with 1 where the median is above it"
    )
    parser.add_argument("-w", dest="output", choices=["simple", "json"], default="simple")
    return parser.parse_args()


class Watches:
    """One watch stream."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._call: Any = channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=watch_pb2.WatchRequest.SerializeToString,
            response_deserializer=watch_pb2.WatchResponse.FromString,
        )(wait_for_ready=True)

    async def create(self, key: bytes) -> None:
        """Makes a watch."""
        create = watch_pb2.WatchCreateRequest(key=key)
        await self._call.write(watch_pb2.WatchRequest(create_request=create))
        response = await self.receive()
        if not response.created or response.canceled:
            raise SystemExit(f"a watch was refused: {response.cancel_reason}")

    async def receive(self) -> watch_pb2.WatchResponse:
        """The next response."""
        response = await asyncio.wait_for(self._call.read(), TIMEOUT_S)
        if not isinstance(response, watch_pb2.WatchResponse):
            raise SystemExit(f"the watch has ended: {await self._call.details()}")
        return response


async def latencies_ms(leader: str, follower: str, turns: int, pause_ms: float) -> dict[str, float]:
    """From the acknowledgement at one endpoint to the event at another, and from the call of put."""
    acknowledged: list[float] = []
    called: list[float] = []
    came: dict[int, float] = {}
    channel = grpc.aio.insecure_channel(follower)
    watches = Watches(channel)
    await watches.create(KEY)

    async def watch() -> None:
        while len(came) < turns + WARM_UP_TURNS:
            for event in (await watches.receive()).events:
                came[int(event.kv.value)] = perf_counter()

    watching = asyncio.create_task(watch())
    async with AsyncClient([leader], timeout_s=TIMEOUT_S) as client:
        for number in range(turns + WARM_UP_TURNS):
            called.append(perf_counter())
            await client.put(KEY, b"%d" % number)
            acknowledged.append(perf_counter())
            await asyncio.sleep(pause_ms / 1000)
    await watching
    await channel.close()
    timed = range(WARM_UP_TURNS, turns + WARM_UP_TURNS)
    after = sorted((came[number] - acknowledged[number]) * 1000 for number in timed)
    whole = sorted((came[number] - called[number]) * 1000 for number in timed)
    return {
        "after_acknowledgement_median_ms": round(statistics.median(after), 3),
        "after_acknowledgement_p99_ms": round(after[int(len(after) * 0.99)], 3),
        "after_call_median_ms": round(statistics.median(whole), 3),
        "after_call_p99_ms": round(whole[int(len(whole) * 0.99)], 3),
    }


@asynccontextmanager
async def watching(endpoint: str, count: int) -> AsyncIterator[None]:
    """Holds so many watches on keys that nobody writes."""
    channel = grpc.aio.insecure_channel(endpoint)
    streams = [Watches(channel) for _ in range(STREAMS)]

    async def make(first: int) -> None:
        for number in range(first, count, STREAMS):
            await streams[first].create(b"watched/%06d" % number)

    await asyncio.gather(*(make(first) for first in range(STREAMS)))
    try:
        yield
    finally:
        await channel.close()


async def writes_per_s(endpoint: str, in_flight: int, seconds: float) -> float:
    """One run of `paxos-rsm bench write`."""
    bench = [sys.executable, "-m", "paxos_rsm.cli", "bench", "write", "--in-flight", str(in_flight)]
    bench += ["--duration", str(seconds), "--endpoints", endpoint, "-w", "json"]
    done = await asyncio.to_thread(subprocess.run, bench, check=True, stdout=subprocess.PIPE, text=True)
    return float(json.loads(done.stdout)["ops_per_s"])


async def measure(cluster: LocalCluster, leader: str, given: argparse.Namespace) -> dict[str, Any]:
    """All there is to be told."""
    at_leader = cluster[leader].endpoint
    at_follower = next(each.endpoint for each in cluster if each.name != leader)
    found: dict[str, Any] = {
        "latency": await latencies_ms(at_leader, at_follower, given.turns, given.pause_ms)
    }
    rates: dict[int, list[float]] = {count: [] for count in WATCHES}
    for _ in range(given.runs):
        for count in WATCHES:
            async with watching(at_leader, count):
                rates[count].append(await writes_per_s(at_leader, given.in_flight, given.seconds))
    found["writes_per_s"] = {str(count): [round(each) for each in runs] for count, runs in rates.items()}
    return found


def main() -> int:
    """Measures and prints; the exit status."""
    given = arguments()
    with LocalCluster(3) as cluster:
        leader = cluster.wait_for_leader(everyone=True)
        found = asyncio.run(measure(cluster, leader, given))
        if cluster.leader() != leader:
            sys.exit("the leader has changed during the run: measure again")
    latency = found["latency"]
    if given.output == "json":
        print(json.dumps(found))
    else:
        for since in ("acknowledgement", "call"):
            median, p99 = latency[f"after_{since}_median_ms"], latency[f"after_{since}_p99_ms"]
            print(f"event at a follower, after the {since}: median {median:.2f} ms, p99 {p99:.2f} ms")
        for count, runs in found["writes_per_s"].items():
            print(
                f"writes/s with {int(count):,} watches on other keys: {statistics.median(runs):,.0f} "
                f"({min(runs):,}–{max(runs):,})"
            )
    return int(bool(given.limit_ms) and latency["after_acknowledgement_median_ms"] > given.limit_ms)


if __name__ == "__main__":
    sys.exit(main())
