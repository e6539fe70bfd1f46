"""Snapshots of simulated servers: taken, fetched, installed, damaged, and interrupted at every step."""

from dataclasses import replace
from typing import Any

import pytest

from paxos_rsm.replica.replica import Effects
from paxos_rsm.sim.server import SNAPSHOTS, SimServer
from paxos_rsm.sim.simulation import Simulation
from paxos_rsm.storage.snapshots import SnapshotStore
from paxos_rsm.transport.handshake import PeerBook
from tests.unit.sim.helpers import (
    answered,
    broken,
    follower,
    formed,
    is_whole,
    play,
    quiet,
    the_leader,
    until,
)


def busy(**changes: Any) -> Simulation:
    """A cluster whose log is short, with a client that has been answered."""
    settings = replace(quiet()["replica"], snapshot_log_bytes=1500)
    simulation = formed(**{"replica": settings, **changes})
    (client,) = simulation.clients
    client.start()
    answered(simulation, client, 5)
    return simulation


def compacted(server: SimServer) -> int:
    return server.replica.node.compacted_through


def leave_behind(simulation: Simulation) -> SimServer:
    """A follower that is down, and needs what the others have forgotten."""
    server = follower(simulation)
    server.kill()
    simulation.network.went_down(server)
    known = server.decided_on_disk
    others = [other for other in simulation.servers.values() if other.up]
    until(
        simulation,
        lambda: all(compacted(other) > known for other in others),
        "the others have forgotten",
        4000,
    )
    return server


def wait_for_whole(simulation: Simulation) -> None:
    until(simulation, lambda: is_whole(simulation), "a whole cluster", 2000)
    answered(simulation, simulation.clients[0], 5)
    for server in simulation.servers.values():
        server.compare_digest()
        server.replica.node.check()


def boots(simulation: Simulation, server: SimServer) -> None:
    """Starts it, as often as it takes."""
    for _ in range(3):
        server.boot()
    assert server.up


class TestTaking:
    def test_the_log_starts_after_what_is_in_a_snapshot(self) -> None:
        simulation = busy()
        servers = simulation.servers.values()
        until(simulation, lambda: all(compacted(s) > 20 for s in servers), "all have compacted", 4000)
        for server in servers:
            newest = server.snapshots._store.newest()
            assert newest is not None
            assert newest.slot >= compacted(server)
            assert min(server.replica.node.log.slots) == compacted(server) + 1
        assert simulation.stage.fired["snapshot taken"] >= 3

    def test_slots_are_applied_while_it_is_written(self) -> None:
        simulation = busy(sync_units=500)
        server = the_leader(simulation)
        until(simulation, lambda: server.snapshots.taking)
        before, taken = server.replica.machine.applied_slot, simulation.stage.fired["snapshot taken"]
        until(simulation, lambda: not server.snapshots.taking)
        assert simulation.stage.fired["snapshot taken"] > taken
        assert server.replica.machine.applied_slot > before
        newest = server.snapshots._store.newest()
        assert newest is not None
        assert newest.slot <= before

    def test_a_start_goes_on_from_it(self) -> None:
        simulation = busy()
        server = follower(simulation)
        until(simulation, lambda: compacted(server) > 20, "it has compacted", 4000)
        server.kill()
        server.boot()
        assert server.up
        assert server.replica.machine.applied_slot >= compacted(server) > 20
        wait_for_whole(simulation)
        assert not simulation.stage.fired["state missing"]

    @pytest.mark.parametrize("operations", range(14))
    def test_the_power_goes_at_every_step(self, operations: int) -> None:
        simulation = busy()
        server = follower(simulation)
        until(simulation, lambda: server.snapshots.taking)
        server.arm(1 << 30, operations)
        until(simulation, lambda: not server.up, "the power goes", 2000)
        boots(simulation, server)
        wait_for_whole(simulation)

    def test_a_full_disk_is_no_reason_to_stop(self) -> None:
        simulation = busy()
        server = follower(simulation)
        until(simulation, lambda: server.snapshots.taking)
        server.files.capacity_bytes = 0
        until(simulation, lambda: not server.snapshots.taking)
        assert simulation.stage.fired["no space for a snapshot"] == 1
        assert server.up
        server.files.capacity_bytes = None
        until(simulation, lambda: compacted(server) > 0, "the next one is taken", 2000)

    def test_what_is_asked_for_twice_is_taken_once(self) -> None:
        simulation = busy(replica=replace(quiet()["replica"], snapshot_log_bytes=1 << 40))
        server = follower(simulation)
        server.feed(server.snapshots.take)
        server.feed(server.snapshots.take)
        until(simulation, lambda: not server.snapshots.busy)
        assert simulation.stage.fired["snapshot taken"] == 1


class TestFetching:
    def test_whoever_needs_what_was_forgotten_takes_a_snapshot(self) -> None:
        simulation = busy()
        server = leave_behind(simulation)
        server.boot()
        wait_for_whole(simulation)
        assert simulation.stage.fired["snapshot installed"] >= 1
        assert simulation.stage.fired["part of a snapshot read"] > 1

    @pytest.mark.parametrize("operations", range(16))
    def test_the_power_goes_at_every_step(self, operations: int) -> None:
        simulation = busy()
        server = leave_behind(simulation)
        server.boot()
        until(simulation, lambda: server.replica.transfer.fetching, "it asks for one", 2000)
        server.arm(1 << 30, operations)
        until(simulation, lambda: not server.up, "the power goes", 2000)
        boots(simulation, server)
        wait_for_whole(simulation)

    @pytest.mark.parametrize("effects", range(8))
    def test_and_between_any_two_effects_of_installing(self, effects: int) -> None:
        simulation = busy(sync_units=100)
        server = leave_behind(simulation)
        server.boot()
        until(simulation, lambda: server.snapshots.installing, "it installs one", 2000)
        server.arm(effects)
        until(simulation, lambda: not server.up, "the power goes", 2000)
        boots(simulation, server)
        wait_for_whole(simulation)

    def test_what_was_fetched_is_not_fetched_again(self) -> None:
        simulation = busy(
            replica=replace(quiet()["replica"], snapshot_log_bytes=1500, snapshot_part_bytes=200)
        )
        server = leave_behind(simulation)
        server.boot()
        parts = [path for path in server.files.paths(SNAPSHOTS) if path.endswith(".part")]
        for _ in range(400):
            if parts and server.files.read(parts[0]).rstrip(b"\0")[400:]:
                break
            simulation.stage.next()
            parts = [path for path in server.files.paths(SNAPSHOTS) if path.endswith(".part")]
        server.kill()
        server.boot()
        assert simulation.stage.fired["fetch resumed"] == 1
        wait_for_whole(simulation)


class TestDamage:
    def test_a_damaged_one_is_fetched_from_another(self) -> None:
        simulation = busy()
        server = follower(simulation)
        until(simulation, lambda: compacted(server) > 20, "it has compacted", 4000)
        server.kill()
        for path in server.files.paths(SNAPSHOTS):
            server.files.flip(path, 8 * 90)
        server.rotten = True
        server.boot()
        assert server.up
        assert simulation.stage.fired["state missing"] == 1
        assert server.replica.node.log.held
        wait_for_whole(simulation)
        assert not server.rotten
        assert not server.replica.node.log.held

    def test_a_log_that_no_snapshot_reaches_is_told(self) -> None:
        simulation = busy()
        server = follower(simulation)
        until(simulation, lambda: compacted(server) > 20, "it has compacted", 4000)
        server.kill()
        for path in server.files.paths(SNAPSHOTS):
            server.files.remove(path)
        with broken("7", "and no snapshot reaches as far"):
            server.boot()

    def test_a_log_that_forgets_too_much_is_told(self) -> None:
        simulation = busy()
        server = follower(simulation)
        until(simulation, lambda: server.snapshots._store.newest() is not None, "a snapshot", 2000)
        newest = server.snapshots._store.newest()
        assert newest is not None
        server._expect_snapshot(newest.slot)
        with broken("7", "no snapshot that is durable holds them"):
            server._expect_snapshot(newest.slot + 1)

    def test_one_that_is_not_durable_does_not_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def adopt(store: SnapshotStore, temporary: str, size: int, meta: Any) -> Any:
            store._files.sync_directory = lambda path: None  # type: ignore[method-assign]
            try:
                return real(store, temporary, size, meta)
            finally:
                del store._files.sync_directory

        real = SnapshotStore.adopt
        simulation = busy(replica=replace(quiet()["replica"], snapshot_log_bytes=1 << 40))
        monkeypatch.setattr(SnapshotStore, "adopt", adopt)
        server = follower(simulation)
        server.feed(server.snapshots.take)
        with broken("7", "no snapshot that is durable holds them"):
            until(simulation, lambda: not server.snapshots.busy)
            server._expect_snapshot(1)

    def test_applying_to_a_state_that_is_replaced_is_told(self) -> None:
        simulation = busy(sync_units=3000)
        server = leave_behind(simulation)
        server.boot()
        until(simulation, lambda: server.snapshots.installing, "it installs one", 4000)
        with broken("7", "applies slots while its state is being replaced"):
            server._apply(Effects())


class TestOldCopies:
    def prepared(self) -> tuple[Simulation, SimServer, Any]:
        simulation = busy()
        server = follower(simulation)
        server.spoilt = True  # as far as the rules of the simulation go
        copy = server.copy()
        server.kill()
        server.boot()
        until(simulation, lambda: len(simulation.network.connected()) == 3, "all are connected")
        play(simulation, 20)
        return simulation, server, copy

    def test_one_is_refused(self) -> None:
        simulation, server, copy = self.prepared()
        leader = the_leader(simulation)
        server.put_back(copy)
        assert not server.lost
        simulation.network.introduce(server, leader)
        assert "old copy of its data directory" in server.lost

    def test_one_that_is_let_in_is_seen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        simulation, server, copy = self.prepared()
        monkeypatch.setattr(PeerBook, "rolled_back", lambda book, hello: None)
        server.spoilt = False
        simulation.weather._may_lose = lambda server: True  # type: ignore[method-assign]
        with broken("9", "runs on an old copy of its disk, and nobody minds"):
            simulation.weather._put_back(server, copy)
