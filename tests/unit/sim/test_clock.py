"""The clocks of simulated servers: never back, within the bound, and nobody's reading changes them."""

from itertools import pairwise

import pytest

from paxos_rsm.sim.clock import SimClock
from paxos_rsm.sim.stage import Stage
from paxos_rsm.sim.world import TICK_UNITS, TICK_US

TICKS = 300


def read(drift_percent: int, step_units: int, seed: int = 1, number: int = 1) -> list[int]:
    """What a clock says at the end of each step."""
    stage = Stage(seed, False)
    clock = SimClock(stage, number, drift_percent)
    told = []
    for _ in range(TICKS * TICK_UNITS // step_units):
        stage.now += step_units
        told.append(clock.read_us())
    return told


def test_one_that_may_not_drift_tells_the_true_time() -> None:
    assert read(0, TICK_UNITS) == [tick * TICK_US for tick in range(1, TICKS + 1)]


@pytest.mark.parametrize("drift_percent", [10, 100])
def test_it_runs_as_fast_as_it_may_at_most_and_never_slower_than_time(drift_percent: int) -> None:
    most = TICK_US * (100 + drift_percent) // 100
    passed = [after - before for before, after in pairwise(read(drift_percent, TICK_UNITS))]
    assert min(passed) == TICK_US
    assert max(passed) == most
    assert len(set(passed)) > 5


def test_who_reads_it_and_how_often_changes_nothing() -> None:
    often, seldom = read(100, 50), read(100, TICK_UNITS)
    assert often[TICK_UNITS // 50 - 1 :: TICK_UNITS // 50] == seldom
    assert read(100, TICK_UNITS) == seldom
    assert read(100, TICK_UNITS, seed=2) != seldom
    assert read(100, TICK_UNITS, number=2) != seldom


def test_another_process_finds_it_anywhere_and_as_fast_as_it_was() -> None:
    stage = Stage(1, False)
    clock, other = SimClock(stage, 1, 0), SimClock(stage, 1, 0)
    other.restart()
    before = other.read_us()
    assert before > 0
    stage.now += TICK_UNITS
    assert other.read_us() - before == clock.read_us() == TICK_US
    other.restart()
    assert other.read_us() != before + TICK_US
