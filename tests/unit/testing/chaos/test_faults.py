"""Each fault does what it says, to whom it says, and leaves nothing behind."""

import itertools
import random
from typing import Any, cast

import pytest

from paxos_rsm.testing.chaos.faults import FAULTS, Fault, FaultImpossible, make_fault
from paxos_rsm.testing.chaos.kinds import KINDS
from paxos_rsm.testing.chaos.plan import PlannedFault, draw_plan
from paxos_rsm.testing.cluster import LocalCluster
from tests.unit.testing.chaos.fakes import FakeCluster

SEEDS = range(20)


def made(
    kind: str, cluster: FakeCluster, *, leader: str | None = "n2", role: str = "", pick: int = 1
) -> Fault:
    planned = PlannedFault(0, KINDS[kind], role or KINDS[kind].roles[0], 0, 1, pick)
    return make_fault(planned, cast(LocalCluster, cluster), leader)


def healed(cluster: FakeCluster) -> list[str]:
    return [each for each in cluster.done if each.startswith("links.heal")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [3, 5, 7])
def test_every_kind_ends_with_all_servers_there(kind: str, size: int) -> None:
    if size < KINDS[kind].servers_min:
        return
    for pick, role in itertools.product(SEEDS, KINDS[kind].roles):
        cluster = FakeCluster(size)
        fault = made(kind, cluster, role=role, pick=pick)
        assert cluster.done == []  # making it does nothing
        assert fault.begin()
        fault.step(0.1)
        fault.step(2.0)
        fault.end()
        assert all(server.running for server in cluster)
        assert len(cluster.done) >= 2
        assert fault.problems == []
        if role == "leader":
            assert fault.victims[0] == "n2"
        elif role == "follower":
            assert fault.victims[0] != "n2"


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_pick_is_the_same_fault(kind: str) -> None:
    def done(pick: int) -> list[str]:
        cluster = FakeCluster()
        fault = made(kind, cluster, pick=pick)
        fault.begin()
        fault.end()
        return cluster.done

    assert done(5) == done(5)


def test_without_a_leader_nobody_is_leader_or_follower() -> None:
    for kind in ("leader-kill", "follower-pause", "chained"):
        cluster = FakeCluster()
        with pytest.raises(FaultImpossible, match="no leader"):
            made(kind, cluster, leader=None)
        assert cluster.done == []
    made("all-kill", FakeCluster(), leader=None)
    made("one-way-cuts", FakeCluster(), leader=None)


@pytest.mark.parametrize("size", [3, 5, 7])
def test_a_quorum_is_left_where_it_is_to_be(size: int) -> None:
    minority = (size - 1) // 2
    for kind, pick in itertools.product(("minority-kill", "leader-cut-off", "partition"), SEEDS):
        fault = made(kind, FakeCluster(size), pick=pick)
        assert len(set(fault.victims)) == len(fault.victims) == minority
        assert ("n2" in fault.victims) == (kind != "partition")


def test_kill_and_start() -> None:
    cluster = FakeCluster(3)
    fault = made("all-kill", cluster)
    fault.begin()
    assert cluster.done == ["kill n1", "kill n2", "kill n3"]
    cluster["n2"].start()  # another fault may have started it already
    fault.end()
    assert cluster.done[3:] == ["start n2", "start n1", "start n3"]


def test_a_paused_server_that_was_killed_meanwhile_is_left_alone() -> None:
    cluster = FakeCluster()
    fault = made("leader-pause", cluster)
    fault.begin()
    cluster["n2"].kill()
    fault.end()
    assert cluster.done == ["stop n2", "kill n2"]


def test_half_cuts_and_their_mending() -> None:
    cluster = FakeCluster(3)
    fault = made("leader-deaf", cluster)
    fault.begin()
    assert cluster.done == ["links.deafen(n2)"]
    fault.end()
    assert [each.split(", held")[0] for each in healed(cluster)] == ["links.heal(n1, n2", "links.heal(n3, n2"]

    cluster = FakeCluster(3)
    fault = made("leader-mute", cluster)
    fault.begin()
    fault.end()
    assert cluster.done[0] == "links.mute(n2)"
    assert [each.split(", held")[0] for each in healed(cluster)] == ["links.heal(n2, n1", "links.heal(n2, n3"]


def test_what_was_held_back_is_delivered_or_lost_by_draw() -> None:
    drawn = set()
    for pick in SEEDS:
        cluster = FakeCluster(3)
        fault = made("leader-deaf", cluster, pick=pick)
        fault.end()
        drawn |= {each.rpartition("=")[2] for each in healed(cluster)}
    assert drawn == {"resume)", "drop)"}


def test_a_constrained_election_comes_after_the_hub_has_fallen_behind() -> None:
    cluster = FakeCluster()
    fault = made("constrained-election", cluster)
    hub = fault.victims[0]
    fault.begin()
    fault.step(0.5)
    assert cluster.done == [f"links.isolate({hub})"]
    fault.step(1.0)
    fault.step(1.1)
    assert cluster.done[1:] == [f"links.constrained({hub}, n2)"]
    fault.end()
    assert len(healed(cluster)) == 20


def test_a_chain_has_the_leader_at_one_end() -> None:
    cluster = FakeCluster()
    made("chained", cluster).begin()
    (done,) = cluster.done
    chain = done.removeprefix("links.chained(").removesuffix(")").split(", ")
    assert chain[0] == "n2"
    assert sorted(chain) == cluster.names


def test_a_restart_that_does_not_end_in_order_is_a_problem() -> None:
    cluster = FakeCluster()
    fault = made("restart", cluster)
    cluster["n2"].ends_by_sigterm_with = 1
    fault.begin()
    fault.end()
    assert fault.problems == ["n2 was asked to end, and ended with exit code 1"]
    assert cluster["n2"].running


def test_a_server_that_goes_on_after_a_failed_sync_is_a_problem() -> None:
    cluster = FakeCluster()
    fault = made("sync-error", cluster, role="leader")
    fault.begin()
    assert cluster.done == ["n2.faults.sync_errors(1)"]
    cluster["n2"].faults.syncs_failed = 1
    fault.end()
    assert fault.problems == ["n2 still runs after a sync of its log has failed"]


def test_a_server_that_stops_at_a_failed_sync_is_none() -> None:
    cluster = FakeCluster()
    fault = made("sync-error", cluster, role="leader")
    fault.begin()
    cluster["n2"].faults.syncs_failed = 1
    cluster["n2"].running = False
    fault.end()
    assert fault.problems == []
    assert cluster["n2"].running


def test_a_disk_is_filled_while_a_server_runs_and_when_it_starts() -> None:
    first = set()
    for pick in SEEDS:
        cluster = FakeCluster()
        made("full-disk", cluster, role="leader", pick=pick).begin()
        first.add(tuple(cluster.done))
    assert first == {
        ("fill n2",),
        ("fill n2", "n2.faults.no_space(True)"),
        ("fill n2", "kill n2", "start n2"),
    }


def test_names_are_those_of_the_catalogue() -> None:
    plan = draw_plan(1)
    for fault in plan.faults:
        cluster = cast(LocalCluster, FakeCluster())
        assert isinstance(make_fault(fault, cluster, "n1"), FAULTS[fault.kind.name])
    with pytest.raises(TypeError):
        cast(Any, Fault)(FakeCluster(), "n1", "leader", random.Random(1))
