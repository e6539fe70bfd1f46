"""How many are enough, and that no two quorums of different phases can miss each other."""

from itertools import combinations

import pytest

from paxos_rsm.errors import ConfigError
from paxos_rsm.paxos.quorum import QuorumSizes


@pytest.mark.parametrize(("members", "size"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (7, 4)])
def test_a_majority_is_more_than_half(members: int, size: int) -> None:
    sizes = QuorumSizes.majority(members)
    assert (sizes.phase1, sizes.phase2) == (size, size)
    sizes.validate()


def every_pair_meets(sizes: QuorumSizes) -> bool:
    people = range(sizes.members)
    return all(
        set(first) & set(second)
        for first in combinations(people, sizes.phase1)
        for second in combinations(people, sizes.phase2)
    )


@pytest.mark.parametrize("members", range(1, 7))
def test_what_is_allowed_is_what_intersects(members: int) -> None:
    for phase1 in range(1, members + 1):
        for phase2 in range(1, members + 1):
            sizes = QuorumSizes(members, phase1, phase2)
            try:
                sizes.validate()
            except ConfigError:
                assert not every_pair_meets(sizes)
            else:
                assert every_pair_meets(sizes)


@pytest.mark.parametrize(("members", "phase2"), [(3, 1), (3, 2), (4, 2), (5, 2), (5, 4), (5, 5)])
def test_flexible_sizes_take_the_smallest_first_phase_that_is_safe(members: int, phase2: int) -> None:
    sizes = QuorumSizes.flexible(members, phase2)
    sizes.validate()
    with pytest.raises(ConfigError):
        QuorumSizes(members, sizes.phase1 - 1, phase2).validate()


def test_genesis_needs_everybody() -> None:
    assert QuorumSizes.unanimous(3) == QuorumSizes(3, 3, 3)


@pytest.mark.parametrize("sizes", [QuorumSizes(3, 0, 3), QuorumSizes(3, 4, 1), QuorumSizes(3, 3, 4)])
def test_sizes_that_could_never_be_reached_are_refused(sizes: QuorumSizes) -> None:
    with pytest.raises(ConfigError, match=r"1\.\.3"):
        sizes.validate()
