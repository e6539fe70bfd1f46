"""A slice of `make sim` in every test run: seeds as they are drawn, each of which must be green."""

import pytest

from paxos_rsm.sim import run_seed
from tests.forms import of_form

EVENTS = 5000
SEEDS = of_form(16, 48)
STRETCH = 4
FIRST = 1


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, STRETCH))
def test_a_stretch_of_seeds_is_green(first: int) -> None:
    told = []
    for seed in range(first, first + STRETCH):
        failure = run_seed(seed, events=EVENTS).failure
        if failure is not None:
            again = f"paxos-rsm sim --seed {seed} --events {EVENTS} --minimize --trace"
            told.append(f"seed {seed}: {failure}\n  repeat it with: {again}")
    assert not told, "\n" + "\n".join(told)
