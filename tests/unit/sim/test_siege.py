"""Sieges: a leader loses its place while others may hold for it; who reads all the same on its lease is found out."""

import pytest

from paxos_rsm.paxos.leases import Holds, Lease
from paxos_rsm.sim.failure import Broken
from paxos_rsm.sim.simulation import Simulation
from paxos_rsm.sim.world import ELECTION_TICKS, TICK_UNITS
from tests.unit.sim.helpers import busy, pass_units, the_leader, wait_for_whole

TICKS = 40


def besieged(**changes: object) -> Simulation:
    """A cluster that works, and then is besieged once."""
    simulation = busy(**changes)
    simulation.world = simulation.siege._world = simulation.world.but({"siege": 1.0})
    simulation.siege.begin()
    pass_units(simulation.stage, 2 * TICK_UNITS)
    simulation.siege._world = simulation.world.but({"siege": 0.0})
    assert simulation.stage.fired["siege"] == 1
    return simulation


@pytest.mark.parametrize("changes", [{"hold_ticks": 4}, {"quorum_reads": True}, {}])
def test_another_leads_in_the_end_and_all_is_well(changes: dict[str, object]) -> None:
    simulation = besieged(**changes)
    before = {server.replica.node.acceptor.promised for server in simulation.servers.values()}
    assert simulation.network.cut
    pass_units(simulation.stage, TICKS * TICK_UNITS)
    assert not simulation.network.cut
    wait_for_whole(simulation)
    assert the_leader(simulation).replica.node.proposer.ballot > max(before)


def test_there_is_none_where_none_is_asked_for_nor_once_all_heals() -> None:
    for is_over in (False, True):
        simulation = busy(siege=float(is_over))
        simulation.weather.over = is_over
        simulation.siege.begin()
        pass_units(simulation.stage, TICKS * TICK_UNITS)
        assert not simulation.stage.fired["siege"]


@pytest.mark.parametrize(
    ("kind", "name", "wrong"),
    [
        (Holds, "bind", lambda holds, candidate: False),
        (Lease, "is_valid_at", lambda lease, clock_us: True),
    ],
)
def test_a_leader_beside_one_that_may_read_on_a_lease_is_told(
    kind: type, name: str, wrong: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    for seed in range(1, 9):
        simulation = busy(seed=seed, hold_ticks=ELECTION_TICKS, siege=0.3)
        with monkeypatch.context() as planted:
            planted.setattr(kind, name, wrong)
            simulation.siege.begin()
            try:
                pass_units(simulation.stage, TICKS * TICK_UNITS)
            except Broken as broken:
                told.append((broken.rule, "reads on a lease of" in str(broken)))
    assert ("8", True) in told
