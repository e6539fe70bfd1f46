"""Nothing is formed before every initial member has met."""

from paxos_rsm.paxos.membership import Member
from paxos_rsm.replica.forming import InitialCluster


def member(number: int, incarnation: int = 0) -> Member:
    return Member(incarnation or 1000 + number, number, f"n{number}", f"http://n{number}:2380")


def test_it_is_complete_when_the_last_one_has_met() -> None:
    initial = InitialCluster(7, [1, 2, 3], member(1))
    assert initial.complete() is None
    assert initial.meet(member(3)) is None
    formed = initial.meet(member(2))
    assert formed is not None
    assert [m.member_id for m in formed.members] == [1, 2, 3]
    assert (formed.cluster_id, formed.quorum.phase1, formed.quorum.phase2) == (7, 2, 2)


def test_a_stranger_counts_for_nobody() -> None:
    initial = InitialCluster(7, [1, 2], member(1))
    assert initial.meet(member(9)) is None
    assert set(initial.met) == {1}


def test_a_member_that_comes_with_a_new_directory_replaces_what_it_was() -> None:
    initial = InitialCluster(7, [1, 2], member(1))
    initial.meet(member(2, 55))
    formed = initial.meet(member(2, 66))
    assert formed is not None
    assert formed.nodes == {1001, 66}


def test_a_flexible_quorum_is_what_was_asked_for() -> None:
    initial = InitialCluster(7, [1], member(1), phase2_quorum=1)
    formed = initial.complete()
    assert formed is not None
    assert (formed.quorum.phase1, formed.quorum.phase2) == (1, 1)


def test_a_server_that_joins_forms_nothing() -> None:
    initial = InitialCluster.of_joiner(7, member(1))
    assert initial.complete() is None
    assert initial.meet(member(2)) is None
    assert initial.meet(member(1)) is None
