"""How one configuration becomes the next, and when it does not (changes.py)."""

from dataclasses import replace
from itertools import product

import pytest

from paxos_rsm.errors import MembershipRefused
from paxos_rsm.paxos.changes import (
    CHANGES_KEPT,
    MEMBERS_MAX,
    AddMember,
    Change,
    JoinMember,
    PromoteMember,
    Reason,
    RemoveMember,
    UpdateMember,
    changed,
    check_reach,
    resized,
)
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.quorum import QuorumSizes
from tests.unit.paxos.harness import members

THREE = members(3)


def coming(number: int, promote: bool = True) -> Member:
    return Member(0, 100 + number, "", f"http://n{number}:2380", learner=True, promote=promote)


def after(configuration: Configuration, *changes: Change) -> Configuration:
    for number, change in enumerate(changes, len(configuration.changes) + 1):
        configuration = changed(configuration, change, number)
    return configuration


def refusal(configuration: Configuration, change: Change, request_id: int = 99) -> tuple[Reason, str]:
    with pytest.raises(MembershipRefused) as caught:
        changed(configuration, change, request_id)
    return Reason(caught.value.reason), str(caught.value)


# ---- the way in and out --------------------------------------------------------------------------------------


def test_the_way_of_a_server_into_the_cluster_and_out_of_it() -> None:
    added = after(THREE, AddMember(coming(4)))
    assert added.members[-1] == coming(4)
    assert (added.nodes, added.everybody, added.quorum) == (THREE.nodes, THREE.nodes, THREE.quorum)
    joined = after(added, JoinMember(104, 44, "n4", ("http://c4",)))
    assert joined.members[-1] == replace(coming(4), incarnation=44, name="n4", client_urls=("http://c4",))
    assert (joined.nodes, joined.everybody) == (THREE.nodes, frozenset({1, 2, 3, 44}))
    four = after(joined, PromoteMember(104))
    assert (four.nodes, four.quorum) == (frozenset({1, 2, 3, 44}), QuorumSizes.majority(4))
    assert four.members[-1] == replace(joined.members[-1], learner=False, promote=False)
    moved = after(four, UpdateMember(104, "http://elsewhere", ("http://c5",)))
    assert (moved.members[-1].peer_url, moved.members[-1].client_urls) == ("http://elsewhere", ("http://c5",))
    gone = after(moved, RemoveMember(101))
    assert (gone.nodes, gone.quorum) == (frozenset({2, 3, 44}), QuorumSizes.majority(3))
    assert gone.removed == (1,)
    assert gone.changes == (1, 2, 3, 4, 5)
    gone.validate()


def test_what_a_new_member_says_of_itself_makes_it_no_voter() -> None:
    bold = replace(coming(4), incarnation=44, learner=False)
    assert after(THREE, AddMember(bold)).members[-1] == coming(4)


def test_a_member_that_never_joined_leaves_nothing_behind() -> None:
    assert after(THREE, AddMember(coming(4)), RemoveMember(104)).removed == ()


def test_a_request_is_carried_out_once() -> None:
    added = changed(THREE, AddMember(coming(4)), 7)
    assert changed(added, AddMember(coming(4)), 7) is added
    assert changed(added, RemoveMember(101), 7) is added, "the number says what was asked, not the change"
    assert refusal(added, AddMember(coming(4)), 8)[0] is Reason.MEMBER_ID_EXISTS


def test_what_is_so_already_is_done_without_a_slot() -> None:
    joined = after(THREE, AddMember(coming(4)), JoinMember(104, 44))
    assert changed(joined, JoinMember(104, 44), 9) is joined
    assert changed(joined, UpdateMember(104, "http://n4:2380"), 9) is joined
    assert changed(joined, UpdateMember(104), 9) is joined


def test_only_the_last_requests_are_remembered() -> None:
    configuration = THREE
    for number in range(1, CHANGES_KEPT + 2):
        configuration = changed(configuration, UpdateMember(101, f"http://at{number}"), number)
    assert configuration.changes == tuple(range(2, CHANGES_KEPT + 2))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (AddMember(replace(coming(4), member_id=103)), Reason.MEMBER_ID_EXISTS),
        (AddMember(replace(coming(4), peer_url="http://n3:2380")), Reason.PEER_URL_EXISTS),
        (AddMember(replace(coming(4), name="n3")), Reason.NAME_EXISTS),
        (AddMember(replace(coming(4), peer_url="")), Reason.INVALID),
        (AddMember(replace(coming(4), member_id=0)), Reason.INVALID),
        (AddMember(replace(coming(4), name="n" * 2_000)), Reason.INVALID),
        (JoinMember(199, 44), Reason.MEMBER_NOT_FOUND),
        (JoinMember(103, 44), Reason.ALREADY_JOINED),
        (RemoveMember(199), Reason.MEMBER_NOT_FOUND),
        (UpdateMember(199, "http://x"), Reason.MEMBER_NOT_FOUND),
        (UpdateMember(103, "http://n1:2380"), Reason.PEER_URL_EXISTS),
        (PromoteMember(199), Reason.MEMBER_NOT_FOUND),
        (PromoteMember(103), Reason.NOT_A_LEARNER),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_reason(change: Change, reason: Reason) -> None:
    found, sentence = refusal(THREE, change)
    assert found is reason
    assert len(sentence) > 15


def test_who_is_to_join_is_bound_once_and_by_one_that_was_no_member_before() -> None:
    added = after(THREE, AddMember(coming(4)), RemoveMember(103))
    assert refusal(added, JoinMember(104, 3))[0] is Reason.WAS_REMOVED
    assert refusal(added, JoinMember(104, 1))[0] is Reason.INVALID
    assert refusal(added, JoinMember(104, 44, name="n1"))[0] is Reason.NAME_EXISTS
    assert refusal(added, PromoteMember(104))[0] is Reason.NOT_JOINED
    joined = after(added, JoinMember(104, 44))
    found, sentence = refusal(joined, JoinMember(104, 45))
    assert found is Reason.ALREADY_JOINED
    assert "add a new member" in sentence


def test_learners_and_members_have_a_limit() -> None:
    one = after(THREE, AddMember(coming(4, promote=False)))
    assert refusal(one, AddMember(coming(5, promote=False)))[0] is Reason.TOO_MANY_LEARNERS
    many = after(one, *(AddMember(coming(n)) for n in range(5, MEMBERS_MAX + 1)))
    assert len(many.members) == MEMBERS_MAX
    assert refusal(many, AddMember(coming(99)))[0] is Reason.TOO_MANY_MEMBERS


def test_the_last_voter_stays() -> None:
    alone = after(members(1), AddMember(coming(4)), JoinMember(104, 44))
    assert refusal(alone, RemoveMember(101))[0] is Reason.LAST_VOTER
    assert after(alone, RemoveMember(104)).removed == (44,)


# ---- quorums ---------------------------------------------------------------------------------------------------


def test_a_majority_stays_one_and_a_small_phase_2_keeps_its_size() -> None:
    assert resized(QuorumSizes.majority(3), 4) == QuorumSizes.majority(4)
    assert resized(QuorumSizes.flexible(5, 2), 6) == QuorumSizes(6, 5, 2)
    assert resized(QuorumSizes.flexible(5, 5), 4) == QuorumSizes(4, 1, 4)
    assert resized(QuorumSizes.majority(1), 2) == QuorumSizes.majority(2)


def test_of_two_configurations_that_differ_by_a_voter_the_larger_quorums_meet() -> None:
    """What changes.py relies on: who decides under the new one in an older ballot would have to miss the old one's."""
    for voters, more in product(range(1, 10), (-1, 1)):
        for phase1, phase2 in product(range(1, voters + 1), repeat=2):
            if phase1 + phase2 <= voters or voters + more < 1:
                continue
            sizes = resized(QuorumSizes(voters, phase1, phase2), voters + more)
            sizes.validate()
            old, new = max(phase1, phase2), max(sizes.phase1, sizes.phase2)
            assert old - (more < 0) + new > sizes.members


def test_a_live_voter_is_not_removed_where_the_rest_would_be_no_quorum() -> None:
    five = members(5)
    four = changed(five, RemoveMember(103), 1)
    check_reach(five, four, {1, 2, 3, 4})
    check_reach(five, four, {1, 2, 4})  # 3 is down: it is no loss
    with pytest.raises(MembershipRefused, match="2 can be reached, and it takes 3") as caught:
        check_reach(five, four, {1, 2, 3})
    assert caught.value.reason is not None
    assert Reason(caught.value.reason) is Reason.NOT_ENOUGH_STARTED
    flexible = members(5, phase2=2)
    with pytest.raises(MembershipRefused):
        check_reach(flexible, changed(flexible, RemoveMember(103), 1), {1, 2, 3})
