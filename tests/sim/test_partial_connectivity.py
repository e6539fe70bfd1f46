"""The three cases of the OmniPaxos paper (Ng, Haridi, Carbone, EuroSys 2023, section 2), in the simulator.

The real replica, log and sessions, five servers, messages that take up to a quarter of an election time-out. A case is
resolved when a client bound to the server that is best connected has a command answered that it made after the links
went: within four election time-outs. (``tests/unit/paxos`` has the cases for the protocol alone, ``tests/integration``
for real servers.)
"""

from collections.abc import Callable
from itertools import combinations

import pytest

from paxos_rsm.sim.client import SimClient
from paxos_rsm.sim.simulation import Simulation
from paxos_rsm.sim.world import ELECTION_TICKS, TICK_UNITS
from tests.forms import of_form
from tests.unit.sim.helpers import quiet

RESOLVED_TICKS = 4 * ELECTION_TICKS
SEEDS = range(of_form(6, 12))


class Cluster:
    """A simulation in which only this test makes things go wrong."""

    def __init__(self, seed: int, leader: int) -> None:
        changes = quiet(5, delay_units=ELECTION_TICKS * TICK_UNITS // 8, clients=1)
        self.sim = Simulation(seed, changes=changes)
        self.servers = self.sim.servers
        for server in self.servers.values():
            server.boot()
        self.until(lambda: all(server.formed for server in self.servers.values()), 200)
        self.make_leader(leader)

    def until(self, holds: Callable[[], bool], ticks_max: int) -> int:
        """Ticks until it holds."""
        began = self.sim.stage.tick
        while not holds():
            assert self.sim.stage.tick - began <= ticks_max, "; ".join(
                server.describe() for server in self.servers.values()
            )
            self.sim.stage.next()
        return self.sim.stage.tick - began

    def run(self, ticks: int) -> None:
        end = self.sim.stage.tick + ticks
        while self.sim.stage.tick < end:
            self.sim.stage.next()

    def make_leader(self, number: int) -> None:
        for _ in range(20):
            if self.servers[number].leads:
                break
            self.servers[number].feed(self.servers[number].replica.node.campaign)
            self.run(2 * ELECTION_TICKS)
        self.until(lambda: all(s.replica.leader is not None for s in self.servers.values()), 200)
        assert self.servers[number].leads

    def client_at(self, number: int) -> SimClient:
        sim = self.sim
        client = SimClient(
            100 + number,
            sim.stage,
            sim.world,
            self.servers,
            sim.oracle,
            sim.executions,
            sim.workload,
            sim.history,
        )
        client.home = number
        client.start()
        return client

    def only(self, *links: tuple[int, int]) -> None:
        kept = {*links, *((b, a) for a, b in links)}
        self.sim.network.cut = {(a, b) for a in self.servers for b in self.servers if a != b} - kept

    def ticks_to_answer(self, client: SimClient) -> int:
        """Until a command made from now on has its result."""
        last = client.next_seq - 1
        return self.until(lambda: any(seq > last for seq in self._answered(client)), 10 * RESOLVED_TICKS)

    @staticmethod
    def _answered(client: SimClient) -> list[int]:
        return [seq for seq in range(1, client.next_seq) if seq not in client.in_flight]


@pytest.mark.parametrize("seed", SEEDS)
def test_quorum_loss(seed: int) -> None:
    """All reach only 1; the old leader lives on at the end of one link. 1 takes over."""
    cluster = Cluster(seed, leader=2)
    client = cluster.client_at(1)
    cluster.until(lambda: client.answered > 3, 200)
    cluster.only((1, 2), (1, 3), (1, 4), (1, 5))
    assert cluster.ticks_to_answer(client) <= RESOLVED_TICKS
    cluster.run(RESOLVED_TICKS)
    assert cluster.servers[1].leads


@pytest.mark.parametrize("seed", SEEDS)
def test_constrained_election(seed: int) -> None:
    """Only 1 has a quorum of links, but its log is behind; the leader is cut off. 1 wins, and catches up."""
    cluster = Cluster(seed, leader=2)
    ahead, client = cluster.client_at(3), cluster.client_at(1)
    cluster.until(lambda: client.answered > 0, 200)
    cluster.only(*combinations((2, 3, 4, 5), 2))
    known = ahead.answered
    cluster.until(lambda: ahead.answered > known + 5, 400)
    behind = cluster.servers[1].replica.node.decided_through
    assert behind < cluster.servers[2].replica.node.decided_through
    cluster.only((1, 3), (1, 4), (1, 5))
    assert cluster.ticks_to_answer(client) <= RESOLVED_TICKS
    assert cluster.servers[1].leads


@pytest.mark.parametrize("leader", [1, 2, 3])
@pytest.mark.parametrize("seed", SEEDS[: of_form(2, 6)])
def test_chained(seed: int, leader: int) -> None:
    """2 and 3 do not reach each other, all else does: leadership is not handed to and fro for ever."""
    cluster = Cluster(seed, leader)
    client = cluster.client_at(1)
    cluster.until(lambda: client.answered > 3, 200)
    others = combinations((1, 2, 3, 4, 5), 2)
    cluster.only(*(link for link in others if link != (2, 3)))
    assert cluster.ticks_to_answer(client) <= RESOLVED_TICKS
    ballots = set(cluster.sim.oracle.ballots)
    cluster.run(5 * RESOLVED_TICKS)
    assert set(cluster.sim.oracle.ballots) == ballots, "nobody prepares another ballot"
    assert cluster.servers[leader].leads
