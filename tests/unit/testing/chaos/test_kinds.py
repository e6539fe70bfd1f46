"""The catalogue: every kind can be done, and has the goals that the project has set itself."""

import pytest

from paxos_rsm.testing.chaos.faults import FAULTS
from paxos_rsm.testing.chaos.kinds import KINDS, NEEDS, kinds_for


def test_every_kind_has_its_fault_and_every_fault_its_kind() -> None:
    assert set(KINDS) == set(FAULTS)
    assert all(name == kind.name for name, kind in KINDS.items())


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_kind_makes_sense(kind: object) -> None:
    found = KINDS[kind.name]  # type: ignore[attr-defined]
    assert 0 < found.duration_s[0] <= found.duration_s[1] <= 10
    assert set(found.needs) <= set(NEEDS)
    assert found.roles
    assert set(found.roles) <= {"leader", "follower", "random", "all"}
    assert found.does


def test_the_goals_are_those_that_were_set() -> None:
    kill = KINDS["leader-kill"].goal
    assert kill is not None
    assert (kill.median_ms, kill.p99_ms, kill.max_ms) == (400, 1_000, 2_000)
    for name in ("leader-pause", "leader-deaf", "leader-mute"):
        goal = KINDS[name].goal
        assert goal is not None
        assert goal.max_ms == 2_000
    follower = KINDS["follower-kill"].goal
    assert follower is not None
    assert follower.max_ms == 200


def test_three_servers_are_not_shown_what_takes_five() -> None:
    left_out = set(KINDS) - {kind.name for kind in kinds_for(3)}
    assert left_out == {"quorum-loss", "constrained-election"}
    assert len(kinds_for(5)) == len(KINDS)
