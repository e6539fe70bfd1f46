"""What the tests of the simulator share: worlds in which nothing goes wrong by itself, driven by hand."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest

from paxos_rsm.paxos.settings import Settings
from paxos_rsm.replica.replica import ReplicaSettings
from paxos_rsm.sim.client import SimClient
from paxos_rsm.sim.failure import Broken
from paxos_rsm.sim.server import SimServer
from paxos_rsm.sim.simulation import Simulation
from paxos_rsm.sim.stage import Stage
from paxos_rsm.sim.workload import Workload
from paxos_rsm.sim.world import ELECTION_TICKS, FAULTS, TICK_UNITS, World


@contextmanager
def broken(rule: str, says: str) -> Iterator[None]:
    """What is within must break just this rule."""
    with pytest.raises(Broken, match=re.escape(says)) as caught:
        yield
    assert caught.value.rule == rule


def quiet(servers: int = 3, **changes: Any) -> dict[str, Any]:
    """What makes of any drawn world one without chance and faults, but for ``changes``."""
    calm: dict[str, Any] = {
        "servers": servers,
        "phase2": 0,
        "settings": Settings(
            heartbeat_ticks=1, election_ticks=ELECTION_TICKS, retransmit_ticks=3, window_slots=4
        ),
        "replica": ReplicaSettings(
            tick_ms=250, resend_ticks=10, session_timeout_ms=60_000, snapshot_part_bytes=600
        ),
        "segment_bytes": 16 << 10,
        "tick_units": (TICK_UNITS,) * servers,
        "delay_units": 20,
        "fifo": True,
        "loss": 0.0,
        "duplicate": 0.0,
        "late": 0.0,
        "streams_carry": False,
        "encoded": False,
        "sync_units": 10,
        "lazy": 0.0,
        "restart_ticks": 2,
        "clients": 1,
        "client_units": 150,
        "in_flight_max": 4,
        "frame_commands_max": 3,
        "reads": 0.3,
        "moves": 0.0,
        "sleeps": 0.0,
        "ends": 0.0,
        "patience_ticks": 12,
        "forms_first": False,
        "calm": 0.0,
        "digest_slots": 8,
        "hold_ticks": 0,
        "drift_percent": 0,
        "quorum_reads": False,
        "reads_vary": False,
        "siege": 0.0,
    }
    return calm | dict.fromkeys(FAULTS, 0.0) | changes


def calm(
    servers: int = 3, *, seed: int = 1, workload: Workload | None = None, traced: bool = False, **changes: Any
) -> Simulation:
    """A simulation in which nobody has been started yet."""
    return Simulation(seed, changes=quiet(servers, **changes), workload=workload, traced=traced, history=True)


def until(simulation: Simulation, holds: Callable[[], bool], what: str = "", ticks: int = 400) -> None:
    """Plays until something holds, which must come within so many ticks."""
    stage = simulation.stage
    end = stage.now + ticks * TICK_UNITS
    while not holds():
        assert stage.now <= end, f"in {ticks} ticks this did not come: {what or 'what was waited for'}"
        stage.next()


def play(simulation: Simulation, ticks: int) -> None:
    """Plays for so many ticks."""
    pass_units(simulation.stage, ticks * TICK_UNITS)


def leader_of(simulation: Simulation) -> SimServer | None:
    """The one server that leads, where every server that runs agrees on it."""
    up = [server for server in simulation.servers.values() if server.up]
    leaders = [server for server in up if server.leads]
    if len(leaders) != 1 or any(server.replica.leader is None for server in up):
        return None
    (leader,) = leaders
    told = {server.replica.leader for server in up}
    return leader if len(told) == 1 and {each[0] for each in told if each} == {leader.node} else None


def formed(servers: int = 3, **changes: Any) -> Simulation:
    """A cluster that has formed and has a leader."""
    simulation = calm(servers, **changes)
    first = [server for server in simulation.servers.values() if server.wanted]
    for server in first:
        server.boot()
    until(simulation, lambda: all(server.formed for server in first), "everybody has formed")
    until(simulation, lambda: leader_of(simulation) is not None, "a leader")
    return simulation


def the_leader(simulation: Simulation) -> SimServer:
    """Who leads; there must be somebody."""
    leader = leader_of(simulation)
    assert leader is not None
    return leader


def follower(simulation: Simulation) -> SimServer:
    """Somebody that runs and does not lead."""
    return next(server for server in simulation.servers.values() if server.up and not server.leads)


def answered(simulation: Simulation, client: SimClient, more: int) -> None:
    """Plays until a client has so many more results."""
    wanted = client.answered + more
    until(simulation, lambda: client.answered >= wanted, f"{more} more results")


def is_whole(simulation: Simulation) -> bool:
    """Whether all run, have one leader, and have applied the same."""
    servers = simulation.servers.values()
    return (
        all(server.up for server in servers)
        and leader_of(simulation) is not None
        and len({server.replica.machine.applied_slot for server in servers}) == 1
    )


def world(servers: int = 3, **changes: Any) -> World:
    """A world without chance and faults, but for ``changes``."""
    return World.draw(Random(1)).but(quiet(servers, **changes))


def pass_units(stage: Stage, units: int) -> None:
    """Lets so much time pass, and everything happen that falls into it."""
    end = stage.now + units
    stage.schedule(units, lambda: None)
    while stage.now < end:
        stage.next()


def busy(**changes: object) -> Simulation:
    """A cluster with a leader and a client that has been answered."""
    simulation = formed(**changes)  # type: ignore[arg-type]
    (client,) = simulation.clients
    client.start()
    answered(simulation, client, 5)
    return simulation


def wait_for_whole(simulation: Simulation) -> None:
    """All are well, and the client goes on being answered."""
    until(simulation, lambda: is_whole(simulation), "a whole cluster")
    answered(simulation, simulation.clients[0], 5)
    for server in simulation.servers.values():
        server.compare_digest()
        server.replica.node.check()
