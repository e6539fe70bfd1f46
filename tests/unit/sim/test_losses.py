"""What servers may lose, and what comes of it where they do: restored clusters, wrong states, members that change."""

from dataclasses import replace
from typing import Any

import pytest

from paxos_rsm.paxos.changes import AddMember, RemoveMember
from paxos_rsm.sim.simulation import Simulation
from tests.forms import of_form
from tests.unit.sim.helpers import broken, busy, follower, formed, is_whole, play, quiet, until

SEEDS = pytest.mark.parametrize("seed", range(1, of_form(3, 40)))
MEMBERS: dict[str, Any] = {
    "change": 0.04,
    "flip": 0.1,
    "wipe": 0.02,
    "rot": 0.1,
    "old-copy": 0.03,
    "diverge": 0.0,
}


def run(seed: int, events: int = 1500, **changes: Any) -> Simulation:
    simulation = Simulation(seed, events=events, changes=changes)
    result = simulation.run()
    assert result.failure is None, result.failure
    return simulation


class TestRestored:
    def test_the_first_members_begin_with_the_state_and_others_get_it(self) -> None:
        simulation = busy(restored=True, change=0.001)
        leader = next(server for server in simulation.servers.values() if server.leads)
        assert {s._watched.marks.beginning for s in simulation.servers.values() if s.up} == {7}  # type: ignore[union-attr]
        added = simulation.servers[4]
        member = replace(added.introduction, member_id=204, promote=True)
        leader.feed(leader.replica.changes.ask, 5, AddMember(member), lambda outcome: None)
        play(simulation, 5)
        configuration = leader.configuration
        assert configuration is not None
        simulation.weather.start_added(configuration)
        until(simulation, lambda: added.up and added.replica.machine.applied_slot > 0, "it has a state")
        assert simulation.stage.fired["snapshot installed"]
        assert added._watched.marks is not None
        assert added._watched.marks.beginning == 7
        added.compare_digest()

    def test_a_state_that_began_elsewhere_is_seen(self) -> None:
        simulation = busy(restored=True)
        server = follower(simulation)
        assert server._watched.marks is not None
        server._watched.marks.beginning = 0
        until(simulation, lambda: is_whole(simulation))
        for other in simulation.servers.values():
            if other is not server:
                other.compare_digest()
        with broken("7", "has another state than others"):
            server.compare_digest()

    @SEEDS
    def test_worlds(self, seed: int) -> None:
        run(seed, restored=True, change=0.04 if seed % 2 else 0.0)


class TestWrongStates:
    def diverged(self) -> Simulation:
        settings = replace(quiet()["replica"], compare_ticks=4)
        simulation = busy(diverge=0.001, replica=settings)
        assert simulation.weather._diverge()
        return simulation

    def test_one_is_found_and_rebuilt(self) -> None:
        simulation = self.diverged()
        fired = simulation.stage.fired
        (server,) = [server for server in simulation.servers.values() if server.suspect]
        until(simulation, lambda: server.wrong, "it finds out")
        assert server.snapshots.installing
        with broken("8", "its state is wrong, or not there"):
            server.serves(1)
        until(simulation, lambda: fired["rebuilt"] == 1, "it is rebuilt")
        assert not simulation._is_wrong(server)
        assert not server.wrong
        until(simulation, lambda: fired["states found equal"] > 0, "all are equal again")

    def test_one_that_dies_while_it_is_rebuilt_is_rebuilt(self) -> None:
        simulation = self.diverged()
        (server,) = [server for server in simulation.servers.values() if server.suspect]
        until(simulation, lambda: server.wrong and not server.snapshots.slots, "its snapshots are put aside")
        server.crash()
        server.boot()
        until(simulation, lambda: not simulation._is_wrong(server) and server.up, "it has a state again")
        until(simulation, lambda: is_whole(simulation))

    def test_not_two_at_a_time_nor_where_others_have_lost_something(self) -> None:
        simulation = self.diverged()
        assert not simulation.weather._diverge()
        assert not any(simulation.weather._may_lose(server) for server in simulation.servers.values())
        assert not formed(2, diverge=0.001).weather._diverge()
        assert not formed(3).weather._diverge(), "states have no marks there"

    def test_old_snapshots_of_one_that_was_rebuilt_are_seen(self) -> None:
        simulation = busy(diverge=0.001)
        server = follower(simulation)
        with broken("7", "keeps snapshots of before"):
            server._expect_rebuilt()

    @SEEDS
    def test_worlds(self, seed: int) -> None:
        run(seed, servers=3 + seed % 3, change=0.0, diverge=0.05)


class TestChangingMembers:
    def test_of_three_one_may_be_lost_and_then_nobody(self) -> None:
        simulation = busy(change=0.001)
        one, two = simulation.servers[1], simulation.servers[2]
        until(simulation, lambda: all(simulation.servers[n].knows_genesis for n in (1, 2, 3)))
        weather = simulation.weather
        assert weather._may_lose(one)
        one.spoilt = True
        assert weather._may_lose(one)
        assert not weather._may_lose(two)
        assert not weather.stranded()
        configuration = two.configuration
        assert configuration is not None
        assert not weather._can_be_made(configuration, RemoveMember(two.member_id))
        assert weather._can_be_made(configuration, RemoveMember(one.member_id))
        assert weather._can_be_made(configuration, AddMember(simulation.servers[4].introduction))
        two.spoilt = True
        assert weather.stranded()

    def test_of_two_nobody(self) -> None:
        simulation = busy(servers=2, change=0.001)
        until(simulation, lambda: all(simulation.servers[n].knows_genesis for n in (1, 2)))
        assert not any(simulation.weather._may_lose(simulation.servers[n]) for n in (1, 2))

    def test_the_state_must_stand_somewhere(self) -> None:
        simulation = busy(change=0.001, rot=0.001)
        servers = [simulation.servers[n] for n in (1, 2, 3)]
        until(simulation, lambda: all(server.knows_genesis for server in servers))
        assert simulation.weather._state_lives_without(servers[0])
        servers[1].rotten = servers[2].rotten = True
        assert not simulation.weather._state_lives_without(servers[0])
        configuration = servers[0].configuration
        assert configuration is not None
        assert not simulation.weather._can_be_made(configuration, RemoveMember(servers[0].member_id))

    @SEEDS
    def test_worlds(self, seed: int) -> None:
        run(seed, **MEMBERS)


def test_an_older_version_is_sent_no_digests_and_is_upgraded_when_all_heals() -> None:
    simulation = run(2, 2500, servers=3, old_server=2, change=0.001)
    assert simulation.stage.fired["kept from an older version"]
    assert not simulation.servers[2].is_old
