"""One simulated server among others: what it survives, what it must refuse, and what it must say is broken."""

from collections.abc import Iterable

import pytest

from paxos_rsm.paxos.messages import Accept, Envelope, Message
from paxos_rsm.sim import server as server_module
from paxos_rsm.sim.network import Peer
from paxos_rsm.sim.server import DIRECTORY, SimServer
from paxos_rsm.sim.simulation import Simulation
from paxos_rsm.sim.world import TICK_UNITS
from paxos_rsm.storage.memory import CrashMode, MemoryFiles
from tests.unit.sim.helpers import (
    answered,
    broken,
    busy,
    calm,
    follower,
    formed,
    play,
    the_leader,
    until,
    wait_for_whole,
)


def only(monkeypatch: pytest.MonkeyPatch, mode: CrashMode) -> None:
    """Every loss of power is of this kind."""
    monkeypatch.setattr(server_module, "CRASH_MODES", (mode,))


def listen(simulation: Simulation, server: SimServer) -> list[Message]:
    """What a server says from now on, once for each it says it to."""
    sent: list[Message] = []
    send = simulation.network.send

    def heard(sender: Peer, envelopes: Iterable[Envelope]) -> None:
        envelopes = list(envelopes)
        if sender is server:
            sent.extend(envelope.message for envelope in envelopes)
        send(sender, envelopes)

    setattr(simulation.network, "send", heard)  # noqa: B010
    return sent


def start_again(simulation: Simulation, server: SimServer) -> None:
    """Starts a server, as often as it takes."""
    for _ in range(3):
        server.boot()
    assert server.up


class TestBoots:
    def test_each_start_is_counted_under_one_incarnation(self) -> None:
        simulation = calm(1)
        (server,) = simulation.servers.values()
        server.boot()
        node, life = server.node, server.life
        assert (server.up, server.boot_count) == (True, 1)
        server.boot()  # it runs already
        assert (server.life, server.boot_count) == (life, 1)
        server.kill()
        assert (server.up, server.boot_count) == (False, 1)
        server.boot()
        assert (server.up, server.boot_count, server.node) == (True, 2, node)
        assert server.life > life

    def test_it_goes_on_with_what_it_had(self) -> None:
        simulation = busy()
        server = follower(simulation)
        node = server.replica.node
        promised, decided = node.acceptor.promised, node.decided_through
        server.kill()
        assert "is down" in server.describe()
        server.boot()
        assert server.replica.node is not node
        assert server.replica.node.acceptor.promised == promised
        assert 1 <= server.replica.node.decided_through <= decided
        assert server.knows_genesis
        assert "follows" in server.describe()
        wait_for_whole(simulation)

    def test_what_was_planned_for_an_earlier_life_does_not_happen(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        simulation = formed()
        server = follower(simulation)
        for _ in range(5):
            server.kill()
            server.boot()
        began, ticks = simulation.stage.now, 0
        tick = server.replica.tick

        def counted() -> None:
            nonlocal ticks
            ticks += 1
            tick()

        monkeypatch.setattr(server.replica, "tick", counted)
        until(simulation, lambda: simulation.stage.now - began >= 20 * TICK_UNITS)
        assert 19 <= ticks <= 21

    def test_clocks_run_as_the_world_says(self) -> None:
        simulation = formed(tick_units=(500, 1000, 2000))
        counts = [server.replica._now for server in simulation.servers.values()]
        play(simulation, 100)
        passed = [s.replica._now - n for s, n in zip(simulation.servers.values(), counts, strict=True)]
        assert [round(n, -1) for n in passed] == [200, 100, 50]

    def test_the_cluster_forms_once_all_have_met(self) -> None:
        simulation = calm(3)
        one, two, three = simulation.servers.values()
        one.boot()
        two.boot()
        play(simulation, 50)
        assert not simulation.oracle.chosen
        assert not one.knows_genesis
        three.boot()
        until(simulation, lambda: all(s.formed for s in (one, two, three)))
        assert simulation.oracle.configuration is not None
        assert simulation.oracle.configuration.nodes == {one.node, two.node, three.node}


class TestLossOfPower:
    @pytest.mark.parametrize("mode", server_module.CRASH_MODES, ids=lambda mode: mode.value)
    def test_nothing_that_was_said_is_lost(self, mode: CrashMode, monkeypatch: pytest.MonkeyPatch) -> None:
        only(monkeypatch, mode)
        simulation = busy(sync_units=2000)
        for number in (1, 2, 3, 1, 2, 3):
            server = simulation.servers[number]
            until(simulation, lambda s=server: s.files.unsynced_bytes(newest_segment(s)) > 0)  # type: ignore[misc]
            server.crash()
            assert not server.up
            server.boot()
            wait_for_whole(simulation)
        lost = simulation.stage.fired["unsynced writes lost"]
        assert simulation.stage.fired[f"power loss: {mode.value}"] == 6
        if mode is CrashMode.DROP:
            assert lost == 6
        if mode is CrashMode.KEEP:
            assert lost == 0

    def test_a_kill_leaves_the_page_cache(self) -> None:
        simulation = busy(sync_units=2000)
        server = the_leader(simulation)
        until(simulation, lambda: server.files.unsynced_bytes(newest_segment(server)) > 0)
        held = server.files.read(newest_segment(server))
        server.kill()
        assert server.files.read(newest_segment(server)) == held
        server.boot()
        assert simulation.stage.fired["unsynced writes lost"] == 0
        wait_for_whole(simulation)

    @pytest.mark.parametrize("effects", range(10))
    @pytest.mark.parametrize("leads", [True, False])
    def test_between_any_two_effects(self, effects: int, leads: bool) -> None:
        simulation = busy()
        server = the_leader(simulation) if leads else follower(simulation)
        server.arm(effects)
        until(simulation, lambda: not server.up, "the power goes")
        assert sum(n for name, n in simulation.stage.fired.items() if name.startswith("power loss")) == 1
        assert server.armed is None
        server.boot()
        wait_for_whole(simulation)

    def test_in_the_middle_of_a_broadcast(self) -> None:
        """An armed leader may have said something to one and not to the other."""
        halves = 0
        for effects in range(12):
            simulation = busy()
            leader = the_leader(simulation)
            sent = listen(simulation, leader)
            leader.arm(effects)
            until(simulation, lambda leader=leader: not leader.up)  # type: ignore[misc]
            halves += bool(sent) and isinstance(sent[-1], Accept) and sent.count(sent[-1]) == 1
        assert halves > 0

    @pytest.mark.parametrize("operations", range(6))
    def test_between_two_operations_of_the_disk(self, operations: int) -> None:
        simulation = busy()
        server = the_leader(simulation)
        server.arm(1 << 30, operations)
        until(simulation, lambda: not server.up, "the power goes")
        start_again(simulation, server)
        wait_for_whole(simulation)

    @pytest.mark.parametrize("operations", range(0, 14, 2))
    def test_in_the_middle_of_the_very_first_start(self, operations: int) -> None:
        simulation = calm()
        one, *others = simulation.servers.values()
        one.files.power_off_after(operations)
        for server in (one, *others):
            server.boot()
        start_again(simulation, one)
        until(simulation, lambda: all(s.formed for s in simulation.servers.values()))
        assert not one.lost


def newest_segment(server: SimServer) -> str:
    return max(path for path in server.files.paths(f"{DIRECTORY}/log") if not path.endswith(".new"))


class TestDisks:
    def test_a_sync_that_fails_stops_it_at_once(self) -> None:
        simulation = busy()
        server = the_leader(simulation)
        server.fail_next_sync()
        until(simulation, lambda: not server.up, "it stops")
        assert simulation.stage.fired["stopped by its disk"] == 1
        assert not server.lost
        server.boot()
        wait_for_whole(simulation)

    def test_a_full_disk_stops_it_until_there_is_room(self) -> None:
        simulation = busy(segment_bytes=16 << 10)
        server = follower(simulation)
        server.files.capacity_bytes = server.files.used_bytes
        until(
            simulation, lambda: not server.up, "the segment is full, and there is no room for another", 5000
        )
        server.boot()
        assert not server.up
        assert not server.lost
        assert simulation.stage.fired["cannot start now"] == 1
        server.files.capacity_bytes = None
        server.boot()
        wait_for_whole(simulation)

    def test_a_slow_disk_delays_what_needs_it(self) -> None:
        formed_at = []
        for units in (1, 2500):
            simulation = calm(1)
            (server,) = simulation.servers.values()
            server.sync_units = units
            server.boot()
            until(simulation, lambda s=server: s.formed)  # type: ignore[misc]
            formed_at.append(simulation.stage.now)
        quick, slow = formed_at
        assert slow > quick + TICK_UNITS

    def test_damage_is_found_and_ends_it(self) -> None:
        simulation = busy()
        server = follower(simulation)
        server.kill()
        server.spoilt = True
        server.files.flip(f"{DIRECTORY}/identity", 77)
        server.boot()
        assert not server.up
        assert "identity" in server.lost
        assert server.lost in server.describe()
        assert simulation.stage.fired["damage found"] == 1
        server.files.flip(f"{DIRECTORY}/identity", 77)
        server.boot()  # lost is for good
        assert not server.up

    def test_a_sound_directory_that_does_not_open_is_told(self) -> None:
        simulation = busy()
        server = follower(simulation)
        server.kill()
        server.files.flip(f"{DIRECTORY}/identity", 77)
        with broken("liveness", f"n{server.number} does not start on a sound directory"):
            server.boot()

    def test_a_log_that_forgot_what_was_synced_is_told(self) -> None:
        simulation = busy()
        server = follower(simulation)
        older = server.files.clone()
        answered(simulation, simulation.clients[0], 10)
        server.kill()
        server.files = older
        with broken("4", "came back with promise"):
            server.boot()

    def test_a_wiped_one_is_refused_by_those_who_know(self) -> None:
        simulation = busy()
        server = follower(simulation)
        node = server.node
        server.kill()
        server.spoilt = True
        server.files = MemoryFiles()
        server.boot()
        assert (server.up, server.node != node) == (True, True)
        until(simulation, lambda: not server.up, "it is refused")
        assert "wiped or replaced" in server.lost
        server.boot()
        assert not server.up
        answered(simulation, simulation.clients[0], 5)

    def test_being_refused_on_its_own_directory_is_told(self) -> None:
        simulation = busy()
        server = follower(simulation)
        server.kill()
        server.files = MemoryFiles()
        server.boot()
        with broken("9", f"n{server.number}, on its own directory, is refused"):
            play(simulation, 50)

    def test_a_cluster_formed_with_another_incarnation_is_told(self) -> None:
        simulation = busy()
        server = follower(simulation)
        server._configuration = None
        server.node += 1
        with broken("9", "was formed with another incarnation of it"):
            server._look_at_configuration()


class TestWhatOthersSee:
    def test_its_hello_is_what_it_is(self) -> None:
        simulation = formed()
        server = follower(simulation)
        hello = server.hello()
        assert (hello.member.incarnation, hello.boot_count, hello.formed) == (server.node, 1, True)
        assert hello.promised == server.replica.durable_promise
        assert hello.process
        server.kill()
        server.boot()
        again = server.hello()
        assert (again.boot_count, again.member) == (2, hello.member)
        assert again.process != hello.process
