"""Every fault does what it says, none does what no protocol survives, and healing undoes them all."""

from collections.abc import Callable
from typing import Any

import pytest

from paxos_rsm.sim.server import DIRECTORY, SimServer
from paxos_rsm.sim.simulation import Simulation
from paxos_rsm.sim.world import ELECTION_TICKS, FAULTS, TICK_UNITS
from paxos_rsm.storage.memory import MemoryFiles
from tests.forms import of_form
from tests.unit.sim.helpers import answered, calm, follower, formed, is_whole, play, quiet, the_leader, until

Links = set[tuple[int, int]]


def ready(name: str, servers: int = 5, seed: int = 1, **changes: Any) -> Simulation:
    """A cluster at work, with this fault at every tick from the next one on."""
    simulation = formed(servers, **(changes | {"seed": seed, name: 1.0}))
    simulation.clients[0].start()
    answered(simulation, simulation.clients[0], 3)
    return simulation


def struck(name: str, servers: int = 5, seed: int = 1, times: int = 1, **changes: Any) -> Simulation:
    """The same, right after the fault has come so many times."""
    simulation = ready(name, servers, seed, **changes)
    simulation.weather.begin()
    until(simulation, lambda: simulation.stage.fired[name] >= times, name)
    return simulation


def all_faults(rate: float) -> Simulation:
    """Nobody has been started yet, and each fault has this rate."""
    rates: dict[str, Any] = dict.fromkeys(FAULTS, rate)
    return calm(3, **rates)


def cut_of(simulation: Simulation) -> Links:
    return simulation.network.cut


def kept_of(simulation: Simulation) -> Links:
    """The links that stand, one direction each, both of which must stand."""
    numbers = list(simulation.servers)
    links = {(a, b) for a in numbers for b in numbers if a != b} - cut_of(simulation)
    assert {(b, a) for a, b in links} == links
    return {(a, b) for a, b in links if a < b}


def power_losses(simulation: Simulation) -> int:
    return sum(n for name, n in simulation.stage.fired.items() if name.startswith("power loss"))


def down(simulation: Simulation) -> list[SimServer]:
    return [server for server in simulation.servers.values() if not server.up]


SEEDS = pytest.mark.parametrize("seed", range(1, of_form(4, 6)))


class TestServers:
    @SEEDS
    def test_crash(self, seed: int) -> None:
        simulation = struck("crash", seed=seed)
        until(simulation, lambda: power_losses(simulation) > 0, "the power goes")
        assert down(simulation)

    def test_crashes_come_at_once_or_in_the_middle_of_something(self) -> None:
        simulation = ready("crash")
        (_, _, crash), *_ = simulation.weather._faults
        armed = set()
        for _ in range(40):
            for server in simulation.servers.values():
                server.boot()
                server.armed = None
            before = power_losses(simulation)
            assert crash()
            armed |= {server.armed for server in simulation.servers.values()} - {None}
            if power_losses(simulation) > before:
                armed.add(-1)
        assert -1 in armed
        assert 1 << 30 in armed  # by operations of the disk
        assert len(armed) > 4

    @SEEDS
    def test_kill(self, seed: int) -> None:
        """At once, or soon: with reads on their way."""
        simulation = struck("kill", seed=seed)
        until(simulation, lambda: len(down(simulation)) == 1)
        assert power_losses(simulation) == 0

    def test_blackout(self) -> None:
        simulation = struck("blackout")
        assert len(down(simulation)) == 5
        assert power_losses(simulation) == 5

    def test_pause(self) -> None:
        simulation = struck("pause")
        now = simulation.stage.now
        (paused,) = [server for server in simulation.servers.values() if server.paused_until > now]
        assert 0 < paused.paused_until - now <= 3 * ELECTION_TICKS * TICK_UNITS

    def test_usurp(self) -> None:
        """Somebody stands, though there is a leader that all hear."""
        simulation = ready("usurp")
        ballots = len(simulation.oracle.ballots)
        simulation.weather.begin()
        until(simulation, lambda: simulation.stage.fired["usurp"] == 1)
        until(simulation, lambda: len(simulation.oracle.ballots) > ballots, ticks=3)

    def test_who_is_down_is_started_again(self) -> None:
        simulation = struck("kill", restart_ticks=2)
        (server,) = down(simulation)
        simulation.weather._faults.clear()
        until(simulation, lambda: server.up, ticks=6)
        assert server.boot_count == 2
        server.lost = "its disk is gone"
        server.kill()
        play(simulation, 20)
        assert not server.up

    def test_the_leader_is_chosen_more_often_than_others(self) -> None:
        simulation = ready("kill")
        chosen = [simulation.weather._someone() for _ in range(300)]
        leader = the_leader(simulation)
        assert chosen.count(leader) > 300 * 0.4
        assert set(chosen) == set(simulation.servers.values())

    def test_nothing_happens_to_nobody(self) -> None:
        simulation = all_faults(1.0)
        servers = {"slow-disk", "sync-error", "full-disk", "crash", "kill", "pause", "usurp", "wipe"}
        needs_somebody = servers | {
            "isolate",
            "one-way",
            "coup",
            "constrained",
            "streams",
            "flip",
            "reconnect",
        }
        for name, _, make in simulation.weather._faults:
            if name in needs_somebody:
                assert not make(), name


class TestDisks:
    def test_slow(self) -> None:
        simulation = struck("slow-disk")
        (slow,) = [server for server in simulation.servers.values() if server.sync_units != 10]
        assert slow.sync_units in (1, 500, 3000, 20_000)

    def test_a_sync_that_fails(self) -> None:
        simulation = struck("sync-error")
        until(simulation, lambda: simulation.stage.fired["stopped by its disk"] > 0)
        assert down(simulation)

    def test_full_for_a_while(self) -> None:
        simulation = struck("full-disk")
        (full,) = [s for s in simulation.servers.values() if s.files.capacity_bytes is not None]
        assert full.files.capacity_bytes == full.files.used_bytes
        simulation.weather._faults.clear()
        until(simulation, lambda: full.files.capacity_bytes is None, ticks=6 * ELECTION_TICKS + 1)

    @SEEDS
    def test_a_bit_turns_over(self, seed: int) -> None:
        simulation = ready("flip", seed=seed, restart_ticks=40)
        simulation.weather.begin()
        play(simulation, 3)
        assert simulation.stage.fired["flip"] == 0  # of a server that runs none does
        server = follower(simulation)
        server.kill()
        paths = server.files.paths(DIRECTORY)
        before = {path: server.files.read(path) for path in paths}
        until(simulation, lambda: simulation.stage.fired["flip"] == 1)
        differ = [
            (path, at, old ^ new)
            for path in paths
            for at, (old, new) in enumerate(zip(before[path], server.files.read(path), strict=True))
            if old != new
        ]
        assert len(differ) == 1
        assert differ[0][2].bit_count() == 1
        assert "LOCK" not in differ[0][0]
        assert server.spoilt

    def test_wiped(self) -> None:
        simulation = struck("wipe")
        (server,) = [server for server in simulation.servers.values() if server.spoilt]
        assert not server.up
        assert server.files.paths(DIRECTORY) == []


class TestWhatNoProtocolSurvives:
    @pytest.mark.parametrize(
        ("servers", "phase2", "losable"), [(1, 0, 0), (2, 0, 0), (3, 0, 1), (5, 0, 2), (5, 4, 1), (4, 1, 0)]
    )
    def test_no_more_disks_are_spoilt_than_can_be_lost(self, servers: int, phase2: int, losable: int) -> None:
        for seed in (1, 2):
            rates = {"wipe": 0.2, "flip": 0.2, "kill": 0.2, "phase2": phase2}
            simulation = Simulation(seed, events=400 * servers, changes=quiet(servers) | rates)
            assert simulation.world.losable == losable
            result = simulation.run()
            assert result.failure is None
            assert len([s for s in simulation.servers.values() if s.spoilt]) == losable
            assert bool(result.fired["wipe"] + result.fired["flip"]) == bool(losable)

    def test_nor_the_last_that_knows_who_they_are(self) -> None:
        simulation = calm(3, wipe=1.0)
        for server in simulation.servers.values():
            server.boot()
        ((_, _, wipe),) = simulation.weather._faults
        assert not wipe()
        simulation.clients[0].start()  # what is decided reaches the disk with what comes next
        until(simulation, lambda: all(s.knows_genesis for s in simulation.servers.values()))
        assert wipe()
        assert not any(wipe() for _ in range(20) if not down(simulation)[0].spoilt)


class TestLinks:
    @SEEDS
    def test_isolate(self, seed: int) -> None:
        simulation = struck("isolate", seed=seed)
        cut = cut_of(simulation)
        (alone,) = [n for n in simulation.servers if all(n in link for link in cut)]
        others = [n for n in simulation.servers if n != alone]
        assert cut == {(alone, n) for n in others} | {(n, alone) for n in others}

    def test_one_way(self) -> None:
        ways = set()
        for seed in range(1, 9):
            cut = cut_of(struck("one-way", seed=seed))
            if len(cut) > 1:
                senders, receivers = {a for a, _ in cut}, {b for _, b in cut}
                assert (len(senders) == 1) != (len(receivers) == 1)
                ways.add(len(senders) == 1)
            assert not {(b, a) for a, b in cut} & cut
        assert ways == {True, False}  # it cannot send, or it cannot hear

    @SEEDS
    def test_partition(self, seed: int) -> None:
        simulation = struck("partition", seed=seed)
        cut = cut_of(simulation)
        one = {1} | {n for n in simulation.servers if n != 1 and (1, n) not in cut}
        other = set(simulation.servers) - one
        assert other
        assert cut == {(a, b) for a in one for b in other} | {(b, a) for a in one for b in other}

    def test_ragged(self) -> None:
        cuts = [cut_of(struck("ragged", seed=seed)) for seed in range(1, 6)]
        assert all(0 < len(cut) < 20 for cut in cuts)
        assert any((a, b) in cut and (b, a) not in cut for cut in cuts for a, b in cut)

    @SEEDS
    def test_quorum_loss(self, seed: int) -> None:
        simulation = struck("quorum-loss", seed=seed)
        kept = kept_of(simulation)
        (hub,) = [n for n in simulation.servers if all(n in link for link in kept)]
        assert len(kept) == 4
        assert not simulation.servers[hub].leads

    @SEEDS
    def test_chain(self, seed: int) -> None:
        kept = kept_of(struck("chain", seed=seed))
        degrees = sorted(sum(n in link for link in kept) for n in range(1, 6))
        assert degrees == [1, 1, 2, 2, 2]
        reached = {1}
        for _ in range(5):
            reached |= {n for link in kept if reached & set(link) for n in link}
        assert reached == {1, 2, 3, 4, 5}

    @SEEDS
    def test_constrained(self, seed: int) -> None:
        simulation = ready("constrained", seed=seed)
        leader, behind, (client,) = the_leader(simulation), follower(simulation), simulation.clients
        client.home = leader.number
        client._move()
        behind.paused_until = simulation.stage.now + 5 * TICK_UNITS
        answered(simulation, client, 5)
        simulation.weather.begin()
        until(simulation, lambda: simulation.stage.fired["constrained"] == 1)
        assert behind.paused_until > simulation.stage.now
        others = set(simulation.servers) - {leader.number, behind.number}
        assert kept_of(simulation) == {(min(n, behind.number), max(n, behind.number)) for n in others}

    def test_coup(self) -> None:
        one_way = 0
        for seed in range(1, 7):
            simulation = ready("coup", seed=seed)
            leader, ballots = the_leader(simulation), len(simulation.oracle.ballots)
            simulation.weather.begin()
            until(simulation, lambda s=simulation: s.stage.fired["coup"] == 1)  # type: ignore[misc]
            cut = cut_of(simulation)
            assert cut
            assert all(leader.number in link for link in cut)
            one_way += any((b, a) not in cut for a, b in cut)
            until(simulation, lambda s=simulation, n=ballots: len(s.oracle.ballots) > n, ticks=3)  # type: ignore[misc]
        assert one_way > 0

    def test_streams(self) -> None:
        simulation = struck("streams")
        assert len(simulation.network.connected()) == 9
        simulation.weather._faults.clear()
        until(simulation, lambda: len(simulation.network.connected()) == 10)

    def test_reconnect(self) -> None:
        simulation = ready("reconnect")
        simulation.weather.begin()
        play(simulation, 3)
        assert simulation.stage.fired["reconnect"] == 0  # nothing was cut
        cut_of(simulation).add((1, 2))
        until(simulation, lambda: simulation.stage.fired["reconnect"] == 1)
        assert cut_of(simulation) == set()

    @pytest.mark.parametrize("name", ["isolate", "one-way", "partition", "ragged", "quorum-loss", "chain"])
    def test_a_single_server_has_none(self, name: str) -> None:
        simulation = ready(name, 1)
        simulation.weather.begin()
        play(simulation, 10)
        assert simulation.stage.fired[name] == 0
        assert cut_of(simulation) == set()


class TestSpells:
    def test_nothing_goes_wrong_before_it_may(self) -> None:
        simulation = ready("kill", forms_first=True)
        simulation.weather.begin()
        play(simulation, 20)
        assert simulation.stage.fired["kill"] == 0
        simulation.weather.held_back = False
        play(simulation, 3)
        assert simulation.stage.fired["kill"] > 0

    def test_in_calm_weather_no_fault_begins(self) -> None:
        simulation = ready("pause", calm=1.0)
        simulation.weather._is_calm = True
        simulation.weather.begin()
        play(simulation, 50)
        assert simulation.stage.fired["pause"] == 0

    def test_spells_come_and_go(self) -> None:
        simulation = ready("slow-disk", calm=0.5)
        simulation.weather.begin()
        seen, fired = set(), []
        for _ in range(300):
            play(simulation, 1)
            seen.add(simulation.weather._is_calm)
            fired.append(simulation.stage.fired["slow-disk"])
        assert seen == {True, False}
        assert 0 < fired[-1] < 299


def _spoil(simulation: Simulation) -> None:
    one, two, three, four, five = simulation.servers.values()
    simulation.network.cut |= {(1, 2), (2, 1), (3, 4)}
    one.paused_until = simulation.stage.now + 1000 * TICK_UNITS
    two.sync_units = 20_000
    two.arm(3)
    three.fail_next_sync()
    three.files.capacity_bytes = three.files.used_bytes
    four.files.power_off_after(2)
    five.kill()


def test_healing_undoes_everything() -> None:
    simulation = ready("kill")
    _spoil(simulation)
    simulation.weather.begin()
    simulation.weather.heal()
    assert simulation.weather.over
    assert cut_of(simulation) == set()
    for server in simulation.servers.values():
        assert server.up
        assert (server.paused_until, server.sync_units, server.armed) == (0, 1, None)
        assert server.files.capacity_bytes is None
    simulation.clients[0].start()
    until(simulation, lambda: is_whole(simulation))
    answered(simulation, simulation.clients[0], 30)
    play(simulation, 60)
    until(simulation, lambda: is_whole(simulation))
    assert simulation.stage.fired["kill"] == simulation.stage.fired["stopped by its disk"] == 0
    assert power_losses(simulation) == 0


def test_but_for_disks_that_are_lost() -> None:
    simulation = ready("kill")
    server = follower(simulation)
    server.kill()
    server.spoilt, server.files = True, MemoryFiles()
    simulation.weather.heal()
    until(simulation, lambda: bool(server.lost), "the others refuse it")
    simulation.weather.heal()
    assert not server.up


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_comes_and_a_cluster_survives_it(name: str) -> None:
    """Each alone and often, on five servers, to the end."""
    rates = {name: 0.2 if name == "blackout" else 0.3}
    rates |= {
        "flip": {"kill": 0.2},
        "reconnect": {"partition": 0.2},
        "interrupt": {"snapshot": 0.3},
        "rot": {"kill": 0.2, "snapshot": 0.3},
    }.get(name, {})
    slow = {"forms_first": True, "client_units": 1000, "in_flight_max": 1}  # ticks, not commands
    for seed in range(1, 6):
        result = Simulation(seed, events=1500, changes=quiet(5) | slow | rates).run()
        assert result.failure is None
        if result.fired[name]:
            return
    pytest.fail(f"in five runs, {name} never came")


def test_makers_are_those_of_the_worlds_faults() -> None:
    simulation = all_faults(0.5)
    made: list[tuple[str, float, Callable[[], bool]]] = simulation.weather._faults
    assert [name for name, _, _ in made] == list(FAULTS)
    assert calm(3).weather._faults == []
