"""The leader dies by SIGKILL under load, again and again: nothing acknowledged is lost, nothing is executed twice.

Clients are at all three servers: one bound to each, whose commands wait where its server is dead, and one that goes on
elsewhere. None of them may see an error: their deadline is longer than any outage.
"""

import asyncio
import statistics
import time
from collections.abc import Callable

from paxos_rsm.testing.cluster import LocalCluster
from tests.integration.clients import (
    adder,
    at_each_server,
    cas_counter,
    check_count,
    check_written,
    client_at,
    writer,
)
from tests.integration.conftest import NewCluster
from tests.integration.load import PAUSE_S, Load
from tests.integration.waiting import eventually, same_state

ROUNDS = 2
SETTLED = 100
"""Acknowledgements after which service counts as resumed: more than there were commands in flight at the kill."""


def kill_leaders(cluster: LocalCluster, load: Load, workers: list[str], rounds: int = ROUNDS) -> list[float]:
    """Kills the leader and starts it again, ``rounds`` times; gives the outage that each kill made, in seconds."""
    gaps = []
    for _ in range(rounds):
        leader = cluster.wait_for_leader(everyone=True)
        load.wait_for(1, *workers)  # every client works: the kill finds commands under way everywhere
        load.pause_s = 0
        load.wait_for(SETTLED)
        killed_at = time.monotonic()
        cluster[leader].kill()
        load.wait_for(SETTLED)
        load.pause_s = PAUSE_S
        gaps.append(load.longest_gap_s(killed_at))
        cluster[leader].start()
        cluster.wait_until(lambda: cluster.leader(everyone=True), "leader that all follow")
    load.wait_for(1, *workers)
    return gaps


def told_gaps(what: str, gaps: list[float]) -> str:
    """A line for the output of the test."""
    each = ", ".join(f"{gap * 1000:.0f}" for gap in gaps)
    return f"kill to next acknowledged {what}: {each} ms, median {statistics.median(gaps) * 1000:.0f} ms"


def test_acknowledged_writes_outlive_their_leaders(
    cluster: LocalCluster, tell: Callable[[str], None]
) -> None:
    places = at_each_server(cluster)
    writers = {f"writer-{name}": writer(f"writer-{name}", at) for name, at in places.items()}
    counters = {f"counter-{name}": cas_counter(f"counter-{name}", at) for name, at in places.items()}
    with Load(*writers.values(), *counters.values()) as load:
        gaps = kill_leaders(cluster, load, [*writers, *counters])
    tell(told_gaps("write", gaps))
    eventually(lambda: same_state(cluster), "equal states")
    for server in cluster:
        asyncio.run(check_written(server.endpoint, {name: load.of(name) for name in writers}))
        with client_at(server.endpoint) as client:
            total = int(client.get("counter").value or b"0")
        check_count(total, [count for name in counters for count in load.of(name)])


def test_a_machine_of_ones_own_counts_each_command_once(
    new_cluster: NewCluster, tell: Callable[[str], None]
) -> None:
    cluster = new_cluster(machine="examples.counter:Counter")
    cluster.start()
    places = at_each_server(cluster)
    workers = {name: adder(name, at) for name, at in places.items()}
    with Load(*workers.values()) as load:
        gaps = kill_leaders(cluster, load, list(workers))
    tell(told_gaps("command", gaps))
    acknowledged = [total for name in workers for total in load.of(name)]
    for server in cluster:
        with client_at(server.endpoint) as client:
            check_count(int(client.query(b"")), acknowledged)
    eventually(lambda: same_state(cluster), "equal states")
