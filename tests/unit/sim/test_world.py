"""Worlds: drawn from chance alone, sound whatever was drawn, and changed by name."""

import math
import random
from collections.abc import Mapping
from typing import Any

import pytest

from paxos_rsm.errors import ConfigError
from paxos_rsm.paxos.quorum import QuorumSizes
from paxos_rsm.paxos.settings import Settings
from paxos_rsm.sim.stage import Stage
from paxos_rsm.sim.world import FAULTS, RANGES, TICK_UNITS, TICK_US, World

SEEDS = range(400)


def drawn(seed: int) -> World:
    stage = Stage(seed, False)
    return World.draw(stage.chance("world")).with_reads(stage.chance("reads"))


WORLDS = [drawn(seed) for seed in SEEDS]


def test_a_world_is_a_function_of_its_seed() -> None:
    random.seed(1)
    again = [drawn(seed) for seed in SEEDS]
    assert again == WORLDS
    assert len({repr(world) for world in WORLDS}) > 0.9 * len(WORLDS)


def test_whatever_is_drawn_is_sound() -> None:
    for world in WORLDS:
        world.settings.validate()
        sizes = (
            QuorumSizes.flexible(world.servers, world.phase2)
            if world.phase2
            else QuorumSizes.majority(world.servers)
        )
        sizes.validate()
        assert world.phase2_quorum == sizes.phase2
        assert world.losable == world.servers - max(sizes.phase1, sizes.phase2)
        assert len(world.tick_units) == world.servers
        assert min(world.tick_units) > TICK_UNITS // 2
        assert world.rates.keys() == FAULTS.keys()
        chances = [world.loss, world.duplicate, world.late, world.lazy, world.reads, world.moves]
        assert all(0 <= chance < 1 for chance in [*chances, world.calm, *world.rates.values()])


def test_each_size_each_fault_and_no_fault_at_all_are_drawn() -> None:
    assert {world.servers for world in WORLDS} == set(range(1, 8))
    assert any(world.phase2 for world in WORLDS)
    for fault in FAULTS:
        assert {bool(world.rates[fault]) for world in WORLDS} == {True, False}, fault
    fair = [world for world in WORLDS if not any(world.rates.values())]
    assert any(not (w.loss or w.duplicate or w.late) and set(w.tick_units) == {TICK_UNITS} for w in fair)


def test_each_way_of_reading_is_drawn_alone_with_the_others_and_not_at_all() -> None:
    ways = {(bool(world.hold_ticks), world.quorum_reads, world.reads_vary) for world in WORLDS}
    assert len(ways) == 8
    assert {bool(world.siege) for world in WORLDS if world.hold_ticks} == {True, False}
    assert not any(
        w.siege for w in WORLDS if not (w.hold_ticks or w.quorum_reads) or not any(w.rates.values())
    )


def test_ways_of_reading_leave_the_rest_of_a_world_as_it_was() -> None:
    for seed in range(40):
        world, before = WORLDS[seed], World.draw(Stage(seed, False).chance("world"))
        quiet = {
            "hold_ticks": 0,
            "drift_percent": 0,
            "quorum_reads": False,
            "reads_vary": False,
            "siege": 0.0,
        }
        assert world.but(quiet) == before
        assert before.settings_at_start(random.Random(1)) == before.settings


def test_a_server_is_started_with_what_its_world_says_or_where_that_varies_with_some_of_it() -> None:
    world = drawn(1).but(
        {"hold_ticks": 8, "drift_percent": 100, "quorum_reads": True, "reads_vary": False, "siege": 0.0}
    )
    settings = world.settings_at_start(random.Random(1))
    assert (settings.read_lease_us, settings.read_hold_us) == (4 * TICK_US, 8 * TICK_US)
    assert settings.quorum_reads
    rnd = random.Random(1)
    varied = [world.but({"reads_vary": True}).settings_at_start(rnd) for _ in range(50)]
    assert {(s.read_hold_us // TICK_US, s.quorum_reads) for s in varied} == {
        (hold, by_quorum) for hold in (0, 4, 8) for by_quorum in (0, 1)
    }
    for each in varied:
        each.validate()


@pytest.mark.parametrize(
    ("servers", "phase2", "losable"),
    [
        (1, 0, 0),
        (2, 0, 0),
        (3, 0, 1),
        (4, 0, 1),
        (5, 0, 2),
        (7, 0, 3),
        (5, 2, 1),
        (5, 4, 1),
        (3, 3, 0),
        (3, 1, 0),
    ],
)
def test_who_may_be_lost_leaves_quorums_of_both_phases(servers: int, phase2: int, losable: int) -> None:
    assert drawn(1).but({"servers": servers, "phase2": phase2}).losable == losable


def test_but_changes_what_it_names() -> None:
    world = drawn(7)
    other = world.but({"loss": 0.25, "crash": 0.125, "late": 0, "fifo": not world.fifo})
    assert (other.loss, other.late, other.fifo) == (0.25, 0, not world.fifo)
    assert other.rates == {**world.rates, "crash": 0.125}
    assert other.but({"loss": world.loss, "late": world.late, "fifo": world.fifo, **world.rates}) == world
    assert world.but({}) == world == drawn(7)
    assert world.but({"rates": {"kill": 0.5}, "crash": 0.25}).rates == {
        **world.rates,
        "kill": 0.5,
        "crash": 0.25,
    }


@pytest.mark.parametrize("servers", [1, 2, 3, 5, 7, 9])
def test_what_goes_with_the_number_of_servers_follows_it(servers: int) -> None:
    for world in WORLDS[:60]:
        other = world.but({"servers": servers})
        assert len(other.tick_units) == servers
        assert set(other.tick_units) <= set(world.tick_units)
        assert 0 <= other.phase2 <= servers
        assert other.losable >= 0
    given = drawn(1).but({"servers": 2, "tick_units": (900, 1100), "phase2": 2})
    assert (given.tick_units, given.phase2) == ((900, 1100), 2)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"crashs": 0.1}, "nothing called 'crashs'; it has servers, "),
        ({"": 1}, "nothing called ''"),
        ({"losable": 1}, "nothing called 'losable'"),
        ({"settings": 1}, "settings of the world of a simulation is of the type Settings, 1 is not"),
        ({"clients": 1.5}, "clients of the world of a simulation is of the type int, 1.5 is not"),
        ({"crash": "often"}, "crash of the world of a simulation is of the type float, 'often' is not"),
        ({"servers": 0}, "servers of the world of a simulation is 0; it must be from 1 to 9"),
        ({"servers": 10}, "servers .* is 10; it must be from 1 to 9"),
        ({"servers": True}, "servers of the world of a simulation is of the type int, True is not"),
        ({"loss": True}, "loss of the world of a simulation is of the type float, True is not"),
        ({"fifo": 1}, "fifo of the world of a simulation is of the type bool, 1 is not"),
        ({"crash": 1.5}, "crash of the world of a simulation is 1.5; it must be from 0 to 1"),
        ({"crash": -0.1}, "crash .* is -0.1; it must be from 0 to 1"),
        ({"crash": math.nan}, "crash .* is nan; it must be from 0 to 1"),
        ({"loss": 1.0}, r"loss .* is 1.0; it must be from 0 to 0\.6"),
        ({"duplicate": 10**400}, "duplicate .* it must be from 0 to 1"),
        ({"moves": 1}, r"moves .* is 1; it must be from 0 to 0\.9"),
        ({"calm": -1}, "calm .* is -1; it must be from 0 to 1"),
        ({"digest_slots": 0}, "digest_slots .* is 0; it must be from 1 "),
        ({"delay_units": 0}, "delay_units .* is 0; it must be from 1 "),
        ({"sync_units": -1}, "sync_units .* is -1; it must be from 0 "),
        ({"restart_ticks": 0}, "restart_ticks .* is 0; it must be from 1 "),
        ({"segment_bytes": 100}, "segment_bytes .* is 100; it must be from 16384 "),
        ({"clients": -1}, "clients .* is -1; it must be from 0 to 20"),
        ({"client_units": 0}, "client_units .* is 0; it must be from 1 "),
        ({"in_flight_max": 0}, "in_flight_max .* is 0; it must be from 1 "),
        ({"frame_commands_max": 0}, "frame_commands_max .* is 0; it must be from 1 "),
        ({"patience_ticks": 0}, "patience_ticks .* is 0; it must be from 1 "),
        ({"servers": 3, "tick_units": (1000,)}, "tick_units has 1 ticks for 3 servers"),
        ({"servers": 1, "tick_units": (0,)}, "tick_units .* is 0; it must be from 100 to 10000"),
        ({"servers": 1, "tick_units": ("long",)}, "tick_units .* is 'long'; it must be from 100 to 10000"),
        ({"rates": {"crashs": 0.1}}, "rates has the fault 'crashs'; there are crash, "),
        ({"rates": {"crash": 2}}, "crash .* is 2; it must be from 0 to 1"),
        ({"settings": Settings(window_slots=0)}, "window_slots is 0; it must be at least 1"),
        ({"servers": 3, "phase2": -1}, "a phase-2 quorum of -1 is not for 3 servers"),
        ({"servers": 3, "phase2": 4}, "a phase-2 quorum of 4 is not for 3 servers"),
    ],
)
def test_what_cannot_be_changed_is_refused(changes: Mapping[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        drawn(1).but(changes)


def test_a_refusal_names_every_fault() -> None:
    with pytest.raises(ConfigError) as caught:
        drawn(1).but({"nothing": 1})
    assert all(name in str(caught.value) for name in [*FAULTS, "loss", "digest_slots"])


def test_whatever_is_drawn_is_within_what_may_be_given() -> None:
    for world in WORLDS:
        given = {name: getattr(world, name) for name in world.__dataclass_fields__}
        assert world.but(given) == world
    assert RANGES.keys() >= FAULTS.keys()
