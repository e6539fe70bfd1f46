"""How much longer a write takes by way of a follower than at the leader: the ratio of the two medians, in one run.

Three local servers, one client bound to each, one command at a time. The clients take turns, so that whatever else the
machine is doing falls on all of them alike::

    python benchmarks/follower_latency.py                    # 2,000 turns of 200-byte writes
    python benchmarks/follower_latency.py --turns 500 -w json

The goal is a ratio of at most 1.5 (`--limit` makes it a matter of the exit status, for whoever wants that): a follower
hands the frame to the leader and answers from its own apply, which is one hop each way more.
"""

import argparse
import asyncio
import json
import statistics
import sys
from time import perf_counter
from typing import Any

from paxos_rsm import AsyncClient
from paxos_rsm.testing.cluster import LocalCluster

WARM_UP_TURNS = 100
TIMEOUT_S = 30.0


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description="Latency through a follower, relative to that at the leader."
    )
    parser.add_argument("--turns", type=int, default=2_000, help="writes and reads of each client")
    parser.add_argument("--value-bytes", type=int, default=200)
    parser.add_argument("--limit", type=float, default=0.0, help="exit with 1 where a ratio is above it")
    parser.add_argument("-w", dest="output", choices=["simple", "json"], default="simple")
    return parser.parse_args()


async def measure(cluster: LocalCluster, turns: int, value: bytes) -> dict[str, dict[str, float]]:
    """Median latencies in ms, by kind (``write``, ``read``), then by server."""
    clients = {server.name: AsyncClient([server.endpoint], timeout_s=TIMEOUT_S) for server in cluster}
    took: dict[str, dict[str, list[float]]] = {
        kind: {name: [] for name in clients} for kind in ("write", "read")
    }
    try:
        for turn in range(-WARM_UP_TURNS, turns):
            for name, client in clients.items():
                began = perf_counter()
                await client.put(f"latency/{name}", value)
                written = perf_counter()
                await client.get(f"latency/{name}")
                if turn >= 0:
                    took["write"][name].append(written - began)
                    took["read"][name].append(perf_counter() - written)
    finally:
        for client in clients.values():
            await client.close()
    return {
        kind: {name: statistics.median(each) * 1000 for name, each in by_server.items()}
        for kind, by_server in took.items()
    }


def ratios(medians_ms: dict[str, dict[str, float]], leader: str) -> dict[str, Any]:
    """The slower follower over the leader, by kind, with what they were made of."""
    found: dict[str, Any] = {}
    for kind, by_server in medians_ms.items():
        followers = {name: median for name, median in by_server.items() if name != leader}
        found[kind] = {
            "leader_ms": round(by_server[leader], 3),
            "followers_ms": [round(median, 3) for median in followers.values()],
            "ratio": round(max(followers.values()) / by_server[leader], 2),
        }
    return found


def main() -> int:
    """Measures and prints; the exit status."""
    given = arguments()
    with LocalCluster(3) as cluster:
        leader = cluster.wait_for_leader(everyone=True)
        medians_ms = asyncio.run(measure(cluster, given.turns, b"v" * given.value_bytes))
        if cluster.leader() != leader:
            sys.exit("the leader has changed during the run: measure again")
    found = ratios(medians_ms, leader)
    if given.output == "json":
        print(json.dumps(found))
    else:
        for kind, each in found.items():
            followers = ", ".join(f"{median:.2f}" for median in each["followers_ms"])
            print(
                f"{kind}: median {each['leader_ms']:.2f} ms at the leader, {followers} ms at the followers: "
                f"ratio {each['ratio']:.2f}"
            )
    return int(bool(given.limit) and any(each["ratio"] > given.limit for each in found.values()))


if __name__ == "__main__":
    sys.exit(main())
