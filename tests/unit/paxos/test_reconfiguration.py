"""Members that change while the cluster runs: who is asked, in which order, and who counts."""

from dataclasses import replace

from paxos_rsm.paxos.changes import (
    AddMember,
    Change,
    PromoteMember,
    Reason,
    RemoveMember,
    UpdateMember,
)
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.messages import (
    Accept,
    Accepted,
    CatchUpReply,
    ChangeReply,
    ChangeRequest,
    Decide,
    HandOver,
    Heartbeat,
    HeartbeatReply,
    Prepare,
    Promise,
)
from paxos_rsm.paxos.proposer import Phase
from paxos_rsm.paxos.types import Ballot, ConfigChange
from tests.unit.paxos.harness import SETTINGS, Cluster


def coming(number: int, promote: bool = True) -> Member:
    return Member(0, 100 + number, "", f"http://n{number}:2380", learner=True, promote=promote)


def ask(cluster: Cluster, number: int, request_id: int, change: Change) -> None:
    cluster.change(number, request_id, change)
    cluster.settle()


def configuration(cluster: Cluster, number: int) -> Configuration:
    found = cluster.node(number).configuration
    assert found is not None
    return found


def with_learner(cluster: Cluster, leader: int, number: int, promote: bool = False) -> None:
    """A server is added, started and met; it has caught up."""
    ask(cluster, leader, number, AddMember(coming(number, promote)))
    cluster.add(number)
    cluster.introduce(leader)
    cluster.settle()
    cluster.calm(6)


def led(count: int = 3, phase2: int = 0) -> Cluster:
    cluster = Cluster(count, phase2=phase2)
    cluster.make_lead(1)
    return cluster


# ---- in --------------------------------------------------------------------------------------------------------


def test_a_server_is_added_joins_catches_up_and_becomes_a_voter_by_itself() -> None:
    cluster = led()
    cluster.propose(1, b"before")
    cluster.settle()
    with_learner(cluster, 1, 4, promote=True)
    cluster.run(6)
    assert configuration(cluster, 4).nodes == {1, 2, 3, 4}
    assert cluster.hosts[4].applied == cluster.hosts[1].applied
    cluster.partition({1, 2}, {3, 4})
    leader = cluster.leaders()[0]
    before = cluster.oracle.applied_through
    cluster.propose(leader, b"two of four are no quorum")
    cluster.settle()
    assert cluster.oracle.applied_through == before


def test_a_learner_is_sent_everything_and_counts_in_no_quorum() -> None:
    cluster = led()
    with_learner(cluster, 1, 4)
    cluster.run(6)
    assert configuration(cluster, 1).nodes == {1, 2, 3}
    cluster.cut = {(1, 2), (2, 1), (1, 3), (3, 1)}
    before = cluster.oracle.applied_through
    cluster.propose(1, b"a")
    cluster.settle()
    assert cluster.node(1).proposer.acked[4] == cluster.node(1).proposer.next_slot - 1
    assert cluster.oracle.applied_through == before
    assert not cluster.node(4).may_campaign
    cluster.heal()
    cluster.settle()
    cluster.run(4)
    assert b"a" in cluster.hosts[4].frames()


def test_a_pending_member_is_sent_nothing() -> None:
    cluster = led()
    ask(cluster, 1, 1, AddMember(coming(4)))
    assert cluster.node(1)._core.others == [2, 3]
    cluster.run(2)
    assert all(to != 0 for _, to, _ in cluster.wire)


def test_a_server_that_joins_votes_beyond_nothing_before_it_knows_the_genesis_entry() -> None:
    cluster = led()
    ask(cluster, 1, 1, AddMember(coming(4, promote=False)))
    cluster.add(4)
    cluster.introduce(1)
    cluster.settle_but(CatchUpReply)
    cluster.propose(1, b"a")
    cluster.settle_but(CatchUpReply)
    assert not cluster.hosts[4].disk.votes
    cluster.settle()
    cluster.calm(4)
    assert cluster.hosts[4].frames() == [b"a"]


def test_of_two_processes_that_say_they_are_the_same_member_the_first_wins() -> None:
    cluster = led()
    ask(cluster, 1, 1, AddMember(coming(4)))
    node = cluster.node(1)
    first = node.joined(Member(44, 104, "n4", "http://n4:2380"))
    second = node.joined(Member(45, 104, "n4", "http://n4:2380"))
    cluster.turn(1)
    cluster.settle()
    assert configuration(cluster, 2).everybody == {1, 2, 3, 44}
    replies = cluster.hosts[1].change_replies
    assert replies[first] == ("", Reason.DONE)
    assert replies[second][1] == Reason.ALREADY_JOINED


def test_a_learner_is_promoted_by_hand_once_it_has_caught_up() -> None:
    cluster = led()
    ask(cluster, 1, 1, AddMember(coming(4, promote=False)))
    ask(cluster, 1, 2, PromoteMember(104))
    assert cluster.hosts[1].change_replies[2][1] == Reason.NOT_JOINED
    cluster.add(4)
    cluster.cut = {(4, 1)}
    cluster.introduce(1)
    cluster.settle()
    ask(cluster, 1, 3, PromoteMember(104))
    assert cluster.hosts[1].change_replies[3][1] == Reason.LEARNER_NOT_READY
    cluster.heal()
    cluster.calm(8)
    ask(cluster, 1, 4, PromoteMember(104))
    assert configuration(cluster, 1).nodes == {1, 2, 3, 4}


def test_one_server_becomes_two_and_one_again() -> None:
    cluster = Cluster(1)
    cluster.elect()
    with_learner(cluster, 1, 2, promote=True)
    cluster.run(20)
    assert configuration(cluster, 1).nodes == configuration(cluster, 2).nodes == {1, 2}
    leader = cluster.elect()
    ask(cluster, leader, 9, RemoveMember(101))
    cluster.run(30)
    assert cluster.hosts[1].stopped
    assert cluster.leaders() == [2]
    cluster.propose(2, b"alone")
    cluster.run(2)
    assert b"alone" in cluster.hosts[2].frames()


# ---- out -------------------------------------------------------------------------------------------------------


def test_a_follower_that_is_removed_learns_of_it_and_stops() -> None:
    cluster = led()
    ask(cluster, 1, 1, RemoveMember(103))
    cluster.calm(4)
    assert cluster.hosts[3].stopped
    assert configuration(cluster, 3).nodes == {1, 2}
    assert cluster.leaders() == [1]


def test_a_leader_that_is_removed_decides_that_tells_it_and_names_a_successor() -> None:
    cluster = led()
    cluster.change(1, 1, RemoveMember(101))
    cluster.settle_but(Decide, HandOver)
    assert configuration(cluster, 1).nodes == {2, 3}
    assert cluster.leaders() == []
    assert not cluster.node(1).may_campaign
    assert [to for _, to, _ in cluster.take(HandOver)] == [2]
    cluster.settle()
    cluster.run(40)
    assert cluster.hosts[1].stopped
    assert len(cluster.leaders()) == 1
    assert cluster.leaders()[0] in (2, 3)


def test_with_the_word_of_the_leader_that_goes_there_is_another_without_a_tick() -> None:
    cluster = led()
    cluster.change(1, 1, RemoveMember(101))
    cluster.settle()
    assert cluster.leaders() == [2]
    assert configuration(cluster, 3).nodes == {2, 3}


def test_a_change_is_decided_by_those_who_were_before_it() -> None:
    """The removed member's vote decides its own removal; and is worth nothing one slot on."""
    cluster = led()
    cluster.cut = {(1, 2), (2, 1)}
    cluster.change(1, 1, RemoveMember(103))
    cluster.settle()
    assert configuration(cluster, 1).nodes == {1, 2}
    before = cluster.oracle.applied_through
    cluster.propose(1, b"a")
    cluster.settle()
    node = cluster.node(1)
    node.step(3, Accepted(node.proposer.ballot, (before + 1,)))
    cluster.turn(1)
    assert cluster.oracle.applied_through == before


def test_a_removed_server_stops_only_when_a_quorum_of_the_others_knows() -> None:
    """1..4 remove 4, decided by 1, 2 and 4; 1 dies with the knowledge. Without 4 there would be no quorum of four."""
    cluster = led(4)
    cluster.cut = {(a, b) for a in (1, 2, 3, 4) for b in (1, 2, 3, 4) if 3 in (a, b)}
    cluster.change(1, 1, RemoveMember(104))
    cluster.settle_but(Decide)
    told = cluster.take(Decide, to=4)
    cluster.take(Decide)
    for sender, to, message in told:
        cluster.hand(sender, to, message)
    assert configuration(cluster, 4).removed == (4,)
    cluster.crash(1)
    cluster.heal()
    assert [n for n, host in cluster.hosts.items() if host.stopped] == []
    assert configuration(cluster, 2).removed == ()
    cluster.run(60)
    assert configuration(cluster, 3).removed == (4,)
    assert [n for n, host in cluster.hosts.items() if host.stopped] == [4]
    assert len(cluster.leaders()) == 1


def test_a_server_that_was_removed_while_it_was_away_disturbs_nobody_and_is_told() -> None:
    cluster = led()
    cluster.crash(3)
    ask(cluster, 1, 1, RemoveMember(103))
    cluster.restart(3)
    cluster.node(3).campaign()
    cluster.turn(3)
    ballot = cluster.node(1).proposer.ballot
    cluster.settle()
    assert cluster.node(1).proposer.leading
    assert cluster.node(1).proposer.ballot == ballot
    assert cluster.node(2).acceptor.promised == ballot
    cluster.calm(8)
    assert cluster.hosts[3].stopped


def test_a_ballot_is_not_refused_by_an_acceptor_whose_own_configuration_is_older() -> None:
    """4 votes since a change that 3 has not heard of: 3 promises to it all the same."""
    cluster = led()
    with_learner(cluster, 1, 4)
    cluster.partition({1, 2, 4}, {3})
    ask(cluster, 1, 9, PromoteMember(104))
    cluster.calm(2)
    assert configuration(cluster, 4).nodes == {1, 2, 3, 4}
    assert configuration(cluster, 3).nodes == {1, 2, 3}
    cluster.heal()
    cluster.node(4).campaign()
    cluster.turn(4)
    cluster.settle_but(Prepare)
    for sender, to, message in cluster.take(Prepare, 4, 3):
        cluster.hand(sender, to, message)
    assert cluster.node(3).acceptor.promised.node == 4


# ---- one at a time (rule 10) -----------------------------------------------------------------------------------


def test_a_change_waits_for_all_before_it_and_all_after_it_wait_for_the_change() -> None:
    cluster = led()
    cluster.propose(1, b"a")
    first = cluster.node(1).proposer.next_slot - 1
    cluster.change(1, 1, UpdateMember(103, "http://elsewhere:2380"))
    cluster.change(1, 2, UpdateMember(102, "http://nowhere:2380"))
    cluster.propose(1, b"b")
    assert set(cluster.node(1).proposer.in_flight) == {first}
    for sender, to, message in cluster.take(Accept, to=2):
        cluster.hand(sender, to, message)
    cluster.settle_but(Accept)
    assert set(cluster.node(1).proposer.in_flight) == {first + 1}
    assert {m.slot for _, _, m in cluster.take(Accept, to=2)} == {first + 1}
    cluster.run(6)
    changes = [(slot, c.changes) for slot, c in cluster.oracle.changes[1:]]
    assert changes == [(first + 1, (1,)), (first + 2, (1, 2))]
    assert cluster.hosts[3].frames() == [b"a", b"b"]


def test_a_new_leader_decides_an_entry_of_its_own_ballot_before_it_changes_anything() -> None:
    cluster = Cluster(3)
    cluster.stand(1)
    cluster.settle_but(Accept)
    cluster.change(1, 1, UpdateMember(103, "http://elsewhere:2380"))
    assert cluster.leaders() == [1]
    assert set(cluster.node(1).proposer.in_flight) == {1}
    cluster.settle()
    assert cluster.oracle.changes[1][0] == 2


def test_a_request_that_is_asked_again_is_carried_out_once_also_by_another_leader() -> None:
    cluster = led()
    change = AddMember(coming(4))
    ask(cluster, 1, 5, change)
    cluster.change(1, 5, change)
    cluster.turn(1)
    assert cluster.hosts[1].change_replies[5] == ("", Reason.DONE)
    cluster.crash(1)
    cluster.elect()
    leader = cluster.leaders()[0]
    ask(cluster, leader, 5, change)
    ask(cluster, 5 - leader, 5, change)
    assert cluster.hosts[5 - leader].change_replies[5] == ("", Reason.DONE)
    assert len(cluster.oracle.changes) == 2


def test_a_change_that_a_dead_leader_proposed_is_decided_by_the_next_or_never() -> None:
    cluster = led()
    cluster.change(1, 5, AddMember(coming(4)))
    for sender, to, message in cluster.take(Accept, to=2):
        cluster.hand(sender, to, message)
    cluster.wire.clear()
    cluster.crash(1)
    cluster.elect()
    cluster.run(2)
    leader = cluster.leaders()[0]
    assert len(cluster.oracle.changes) == 2
    ask(cluster, leader, 5, AddMember(coming(4)))
    assert len(cluster.oracle.changes) == 2


def test_a_live_voter_is_not_removed_where_the_rest_would_be_no_quorum() -> None:
    cluster = led()
    cluster.crash(3)
    cluster.calm(SETTINGS.election_ticks + 2)
    ask(cluster, 1, 1, RemoveMember(102))
    sentence, reason = cluster.hosts[1].change_replies[1]
    assert reason == Reason.NOT_ENOUGH_STARTED
    assert "1 can be reached" in sentence
    ask(cluster, 1, 2, RemoveMember(103))
    assert configuration(cluster, 1).nodes == {1, 2}


def test_slots_are_decided_in_their_order() -> None:
    """Were slot 2 a change that another leader decides, slot 3 would have other voters: it is not decided before."""
    cluster = led()
    node = cluster.node(1)
    cluster.propose(1, b"a")
    cluster.propose(1, b"b")
    ballot, first = node.proposer.ballot, node.proposer.next_slot - 2
    node.step(2, Accepted(ballot, (first + 1,)))
    assert not node.log.is_decided(first + 1)
    assert set(node.proposer.in_flight) == {first, first + 1}
    node.step(2, Accepted(ballot, (first,)))
    assert node.decided_through == first + 1
    assert not node.proposer.in_flight


def test_a_candidate_that_learns_of_a_change_prepares_anew() -> None:
    """Its promises may be older than the decision; see the counter-example in changes.py."""
    cluster = led()
    with_learner(cluster, 1, 4)
    cluster.partition({1, 2, 4}, {3})
    ask(cluster, 1, 9, PromoteMember(104))
    changed_in = cluster.oracle.changes[-1][0]
    cluster.heal()
    cluster.node(3).campaign()
    cluster.turn(3)
    ballot = cluster.node(3).proposer.ballot
    cluster.take(Prepare)
    entry = cluster.oracle.chosen[changed_in]
    first = cluster.node(3).decided_through + 1
    decided = tuple((slot, cluster.oracle.chosen[slot]) for slot in range(first, changed_in + 1))
    assert isinstance(entry, ConfigChange)
    for sender in (1, 2):
        cluster.node(3).step(sender, Promise(ballot, first, None, (), decided))
    assert cluster.node(3).proposer.phase is Phase.PREPARING
    cluster.turn(3)
    assert cluster.node(3).proposer.ballot > ballot
    assert {to for _, to, _ in cluster.take(Prepare, 3)} == {1, 2, 4}


def test_a_candidate_that_learns_that_it_was_removed_gives_up() -> None:
    cluster = led()
    cluster.partition({1, 2}, {3})
    ask(cluster, 1, 9, RemoveMember(103))
    cluster.node(3).campaign()
    cluster.turn(3)
    entries = tuple(sorted(cluster.oracle.chosen.items()))
    cluster.hand(1, 3, CatchUpReply(Ballot(1, 1), entries, entries[-1][0]))
    assert cluster.node(3).proposer.phase is Phase.IDLE
    assert not cluster.node(3).may_campaign


# ---- over a hop ------------------------------------------------------------------------------------------------


def test_a_follower_hands_a_request_on_and_gets_the_refusal() -> None:
    cluster = led()
    cluster.change(2, 7, RemoveMember(199))
    assert [(a, b, m) for a, b, m in cluster.take(ChangeRequest)] == [
        (2, 1, ChangeRequest(7, RemoveMember(199)))
    ]
    cluster.hand(2, 1, ChangeRequest(7, RemoveMember(199)))
    cluster.settle()
    assert cluster.hosts[2].change_replies[7] == ("there is no member c7", Reason.MEMBER_NOT_FOUND)


def test_a_request_goes_over_one_hop_and_its_refusal_comes_back_the_same_way() -> None:
    cluster = led()
    cluster.only((1, 2), (2, 3))
    cluster.calm(SETTINGS.election_ticks + 2)
    ask(cluster, 3, 7, RemoveMember(199))
    assert cluster.hosts[3].change_replies[7][1] == Reason.MEMBER_NOT_FOUND
    cluster.hand(3, 2, ChangeRequest(8, RemoveMember(199), hops=1))
    assert [m.reason for _, _, m in cluster.take(ChangeReply)] == [Reason.UNAVAILABLE]


def test_without_a_leader_a_request_is_to_be_asked_again() -> None:
    cluster = Cluster(3)
    cluster.change(1, 7, RemoveMember(102))
    assert cluster.hosts[1].change_replies[7][1] == Reason.UNAVAILABLE


def test_a_leader_that_steps_down_says_so_to_those_that_wait() -> None:
    cluster = led()
    cluster.propose(1, b"a")
    cluster.change(1, 7, RemoveMember(103))
    cluster.hand(2, 1, ChangeRequest(8, RemoveMember(103)))
    cluster.node(1).resign()
    cluster.turn(1)
    assert cluster.hosts[1].change_replies[7][1] == Reason.UNAVAILABLE
    assert [m.request_id for _, _, m in cluster.take(ChangeReply)] == [8]


def test_a_leader_that_was_replaced_says_nothing_of_changes_out_of_what_it_knows() -> None:
    """It would say that a member is not there which was added, and that an address stands which was changed."""
    cluster = led(3)
    cluster.partition({1}, {2, 3})
    cluster.node(2).campaign()
    cluster.turn(2)
    cluster.settle()
    cluster.change(2, 7, UpdateMember(103, peer_url="http://elsewhere:2380"))
    cluster.change(2, 8, AddMember(Member(0, 104, "n4", "http://n4:2380")))
    cluster.settle()
    assert cluster.leaders() == [1, 2]
    assert cluster.node(2).configuration != cluster.node(1).configuration
    cluster.change(1, 9, UpdateMember(103, peer_url="http://n3:2380"))
    cluster.change(1, 10, RemoveMember(104))
    cluster.settle()
    assert cluster.leaders() == [1, 2]
    assert cluster.hosts[1].change_replies == {}
    cluster.heal()
    cluster.run(3)
    assert cluster.leaders() == [2]
    assert {n: reason for n, (_, reason) in cluster.hosts[1].change_replies.items()} == {
        9: Reason.UNAVAILABLE,
        10: Reason.UNAVAILABLE,
    }


# ---- reads -----------------------------------------------------------------------------------------------------


def test_a_read_that_waits_when_the_members_change_is_confirmed_by_those_that_there_are_now() -> None:
    cluster = led()
    cluster.read(1, 5)
    cluster.take(HeartbeatReply)
    cluster.settle_but(HeartbeatReply, Heartbeat)
    old = cluster.take(HeartbeatReply) or [
        (2, 1, HeartbeatReply(cluster.node(1).proposer.ballot, cluster.node(1).reads.round))
    ]
    cluster.take(Heartbeat)
    cluster.change(1, 7, RemoveMember(103))
    cluster.settle_but(Heartbeat, HeartbeatReply)
    cluster.hand(3, 1, replace(old[0][2]))
    assert 5 not in cluster.hosts[1].reads, "3 confirms nothing any more"
    cluster.settle()
    assert cluster.hosts[1].reads[5] == cluster.node(1).decided_through
