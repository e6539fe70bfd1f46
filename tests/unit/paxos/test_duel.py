"""Two proposers that duel: the open bug of the project's seed.

Every message is delayed by a random time of up to one election time-out, hence overtaken by later ones; nothing is
lost. There must be one leader, which has decided an entry and is followed by all, before an eleventh ballot is
prepared.
"""

from collections import Counter

import pytest

from tests.forms import of_form
from tests.unit.paxos.delays import DelayedCluster, T

BALLOTS_MAX = 10


def duel(seed: int, count: int, contenders: int) -> DelayedCluster:
    """The contenders stand at once, the others whenever they like; runs until there is a leader."""
    cluster = DelayedCluster(count, seed)
    cluster.introduce()
    for number, node in cluster.nodes.items():
        node.election.stand_at = 0 if number <= contenders else cluster.now + cluster.random.randint(1, T)
    cluster.tick()
    assert len(cluster.ballots) >= contenders
    cluster.until_led(40 * T)
    return cluster


@pytest.mark.parametrize(("count", "contenders", "seeds"), [(3, 2, 1_000), (5, 2, 300), (5, 3, 300)])
def test_a_duel_ends_within_ten_ballots(count: int, contenders: int, seeds: int) -> None:
    ballots = Counter(
        len(duel(seed, count, contenders).ballots) for seed in range(of_form(seeds // 4, seeds))
    )
    assert max(ballots) <= BALLOTS_MAX, f"ballots prepared: {sorted(ballots.items())}"


@pytest.mark.parametrize(("count", "contenders"), [(3, 3), (5, 5), (7, 4)])
def test_a_duel_of_many_ends_as_soon(count: int, contenders: int) -> None:
    """A ballot each is the least that it takes."""
    ballots = Counter(
        len(duel(seed, count, contenders).ballots) - contenders for seed in range(of_form(20, 60))
    )
    assert max(ballots) <= BALLOTS_MAX - 2, f"ballots above one each: {sorted(ballots.items())}"


@pytest.mark.parametrize("count", [3, 5])
def test_who_has_won_a_duel_stays(count: int) -> None:
    """Messages go on to come late and in disorder; nobody prepares again."""
    for seed in range(of_form(8, 20)):
        cluster = duel(seed, count, 2)
        led, ballots = list(cluster.led), set(cluster.ballots)
        for _ in range(20 * T):
            cluster.tick()
        assert (cluster.led, cluster.ballots) == (led, ballots)
