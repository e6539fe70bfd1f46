"""How long writes stand still when the leader is killed: the gap in acknowledgements, over many kills.

Three local servers and a client that writes at an even pace through all of them; the leader is killed with SIGKILL, and
started again once service has resumed and settled::

    python benchmarks/failover.py                  # 30 kills
    python benchmarks/failover.py --kills 200 -w json

The gap of a kill is the longest time between two acknowledged writes of which the second came after it: what a user
would call the outage.
"""

import argparse
import json
import statistics
import sys
import time

from paxos_rsm.cli.demo import Writer, longest_gap_s
from paxos_rsm.testing.cluster import LocalCluster

RESUMED = 200
"""Acknowledged writes after which service counts as resumed: more than can have been in flight."""
SETTLE_S = 1.0
"""Between two kills, with all servers there."""


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description="The gap in acknowledged writes that the death of a leader makes."
    )
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("-w", dest="output", choices=["simple", "json"], default="simple")
    return parser.parse_args()


def measure(cluster: LocalCluster, kills: int) -> list[float]:
    """The gap of each kill, in ms."""
    writer = Writer(cluster.endpoints)
    gaps_ms = []
    writer.start()
    try:
        for _ in range(kills):
            leader = cluster.wait_for_leader(everyone=True)
            writer.wait_for(RESUMED)
            killed_at = time.monotonic()
            cluster[leader].kill()
            writer.wait_for(RESUMED)
            gap_s = longest_gap_s(writer.acknowledged.times, killed_at)
            if gap_s is None:
                sys.exit("nothing was acknowledged after a kill")
            gaps_ms.append(gap_s * 1000)
            cluster.start()
            time.sleep(SETTLE_S)
    finally:
        writer.finish()
    return gaps_ms


def main() -> None:
    """Measures and prints."""
    given = arguments()
    with LocalCluster(3) as cluster:
        gaps_ms = sorted(measure(cluster, given.kills))
    found = {
        "kills": len(gaps_ms),
        "median_ms": round(statistics.median(gaps_ms)),
        "p90_ms": round(gaps_ms[len(gaps_ms) * 9 // 10]),
        "p99_ms": round(gaps_ms[len(gaps_ms) * 99 // 100]),
        "max_ms": round(gaps_ms[-1]),
    }
    if given.output == "json":
        print(json.dumps(found))
    else:
        print(
            "kill to next acknowledged write: " + ", ".join(f"{name} {each}" for name, each in found.items())
        )


if __name__ == "__main__":
    main()
