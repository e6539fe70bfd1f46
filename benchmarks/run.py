"""Measures a local three-server cluster: throughput, latency and processor time of writes and reads.

    make bench                                  # this, failover.py and follower_latency.py: a few minutes
    python benchmarks/run.py --runs 5 --seconds 5

Every figure is the median of several runs, with the lowest and the highest behind it: machines are shared and noisy.
The client and all three servers share this machine, and the log is synced to its disk. The load is
`paxos-rsm bench`, a process of its own, against the leader unless said otherwise.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from paxos_rsm.testing import LocalCluster

LOADS = (
    ("write, one at a time", "write", 1, ()),
    ("write, 64 in flight", "write", 64, ()),
    ("write, 512 in flight", "write", 512, ()),
    ("write, 4,096 in flight", "write", 4096, ()),
    ("write of 1 kB, 512 in flight", "write", 512, ("--value-bytes", "1000")),
    ("read, linearizable, one at a time", "read", 1, ()),
    ("read, linearizable, 512 in flight", "read", 512, ()),
    ("read, serializable, 512 in flight", "read", 512, ("--serializable",)),
)


def load(kind: str, in_flight: int, endpoints: str, seconds: float, more: Sequence[str]) -> dict[str, float]:
    """One run of `paxos-rsm bench`: its JSON."""
    command = [sys.executable, "-m", "paxos_rsm.cli", "bench", kind, "--in-flight", str(in_flight)]
    command += ["--duration", str(seconds), "--endpoints", endpoints, "-w", "json", *more]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def cpu_s(cluster: LocalCluster) -> float:
    """Processor time that the servers have used so far, in seconds."""
    ticks = 0
    for server in cluster.running:
        with open(f"/proc/{server.pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def spread(values: Sequence[float], form: str = ",.0f") -> str:
    """The median, and the range where there is one."""
    middle = format(statistics.median(values), form)
    if len(values) == 1:
        return middle
    return f"{middle} ({format(min(values), form)}–{format(max(values), form)})"


def measure_loads(runs: int, seconds: float, console: Console) -> None:
    """The table of loads. Each run has a fresh cluster, so that none inherits another's log."""
    table = Table("200-byte values, three servers", "operations/s", "p50 ms", "p99 ms", "servers' CPU µs/op")
    for title, kind, in_flight, more in LOADS:
        rates, middles, tails, costs = [], [], [], []
        for _ in range(runs):
            with LocalCluster(3) as cluster:
                leader = cluster[cluster.wait_for_leader(everyone=True)].endpoint
                before = cpu_s(cluster)
                result = load(kind, in_flight, leader, seconds, more)
                # The bench warms up for a second or so before it counts.
                operations = result["ops_per_s"] * (seconds + result.get("warm_up_s", 0))
                costs.append((cpu_s(cluster) - before) / max(1.0, operations) * 1e6)
            rates.append(result["ops_per_s"])
            middles.append(result["p50_ms"])
            tails.append(result["p99_ms"])
            if result["errors"]:
                console.print(f"[red]{title}: {result['errors']:.0f} errors[/red]")
        table.add_row(
            title, spread(rates), spread(middles, ".2f"), spread(tails, ".1f"), spread(costs, ".0f")
        )
        console.print(f"{title}: {spread(rates)}/s")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    console = Console()
    measure_loads(arguments.runs, arguments.seconds, console)


if __name__ == "__main__":
    main()
