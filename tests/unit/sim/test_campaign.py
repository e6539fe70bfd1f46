"""Sums over many seeds: the same whoever plays which, and an early end where much fails."""

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from paxos_rsm.errors import ConfigError
from paxos_rsm.sim import campaign as campaign_module
from paxos_rsm.sim.campaign import STRETCH_SEEDS, Campaign, play_campaign, play_stretch
from paxos_rsm.sim.failure import Failure
from paxos_rsm.sim.simulation import run_seed

Changes = Mapping[str, Any]


def sums(campaign: Campaign) -> tuple[object, ...]:
    """All but what depends on how fast the machine was."""
    return (
        campaign.seeds,
        campaign.events,
        campaign.timed_events,
        campaign.fired,
        campaign.branches,
        campaign.failures,
        campaign.healed_in_ticks,
    )


def test_a_stretch_is_its_seeds() -> None:
    changes = {"servers": 3}
    stretch = play_stretch(4, 7, 150, changes, 0)
    alone = [run_seed(seed, events=150, changes=changes) for seed in range(4, 8)]
    assert stretch.seeds == 4
    assert stretch.events == stretch.timed_events == sum(result.events for result in alone)
    assert stretch.fired == sum((result.fired for result in alone), Counter())
    assert stretch.healed_in_ticks == Counter(result.healed_in_ticks for result in alone)
    assert stretch.failures == []
    assert stretch.branches == {}
    assert stretch.processor_s > 0
    assert stretch.events_per_s == pytest.approx(stretch.events / stretch.processor_s)


def test_branches_are_counted_in_some_of_them() -> None:
    changes = {"servers": 1}
    stretch = play_stretch(3, 6, 60, changes, 5)
    alone = [run_seed(seed, events=60, changes=changes).events for seed in (3, 4, 6)]
    assert stretch.timed_events == sum(alone) < stretch.events
    assert stretch.branches == play_stretch(5, 5, 60, changes, 5).branches
    assert stretch.branches["paxos.node.Node.step"] > 0
    assert 0 in stretch.branches.values()
    assert any(name.startswith("branch: ") for name in stretch.unreached)


def test_sums_do_not_depend_on_who_plays_what(monkeypatch: pytest.MonkeyPatch) -> None:
    """In processes of their own, one or two of them."""
    monkeypatch.setattr(campaign_module, "STRETCH_SEEDS", 4)
    count = 14
    told: list[int] = []
    one, two = (
        play_campaign(
            10,
            count,
            40,
            jobs=jobs,
            changes={"servers": 2},
            counted_every=7,
            progress=lambda campaign: told.append(campaign.seeds),
        )
        for jobs in (1, 2)
    )
    assert sums(one) == sums(two)
    assert one.seeds == count
    assert told.count(count) == 2
    here = play_stretch(10, 10 + count - 1, 40, {"servers": 2}, 7)
    assert sums(one) == sums(here)


class Threads(ThreadPoolExecutor):
    """In place of processes, so that a test may take the place of what they do."""

    def __init__(self, jobs: int, mp_context: object) -> None:
        super().__init__(jobs)


@pytest.fixture
def stretches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What was played: nothing is, but every seed that 10 divides fails."""
    played: list[tuple[int, int]] = []

    def play(first: int, last: int, events: int, changes: Changes, counted_every: int) -> Campaign:
        played.append((first, last))
        failed = [(n, Failure("7", f"seed {n}", 1, 1)) for n in range(first, last + 1) if n % 10 == 0]
        return Campaign(seeds=last - first + 1, failures=failed)

    monkeypatch.setattr(campaign_module, "ProcessPoolExecutor", Threads)
    monkeypatch.setattr(campaign_module, "play_stretch", play)
    return played


@pytest.mark.parametrize("count", [1, STRETCH_SEEDS, STRETCH_SEEDS + 1, 3 * STRETCH_SEEDS - 1])
def test_every_seed_is_played_once(count: int, stretches: list[tuple[int, int]]) -> None:
    campaign = play_campaign(7, count, 100, jobs=2, failures_max=1000)
    played = sorted(seed for first, last in stretches for seed in range(first, last + 1))
    assert played == list(range(7, 7 + count))
    assert campaign.seeds == count


def test_failures_are_told_in_the_order_of_their_seeds(stretches: list[tuple[int, int]]) -> None:
    campaign = play_campaign(1, 400, 100, jobs=3, failures_max=1000)
    assert [seed for seed, _ in campaign.failures] == list(range(10, 401, 10))
    assert campaign.seeds == 400


@pytest.mark.parametrize("jobs", [1, 2])
def test_it_stops_where_enough_have_failed(jobs: int, stretches: list[tuple[int, int]]) -> None:
    campaign = play_campaign(1, 100_000, 100, jobs=jobs, failures_max=5)
    assert 5 <= len(campaign.failures) <= 5 + 2 * (2 * jobs)
    # What was under way is played to its end and counted.
    assert campaign.seeds == STRETCH_SEEDS * len(stretches)
    assert campaign.seeds < 100_000


def test_what_a_worker_refuses_is_raised_here() -> None:
    with pytest.raises(ConfigError, match="nothing called 'lost'"):
        play_campaign(1, 3, 100, jobs=1, changes={"lost": 1})


def test_an_empty_one_has_no_speed() -> None:
    assert Campaign().events_per_s == 0.0
    assert Campaign().unreached
