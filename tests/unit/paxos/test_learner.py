from dataclasses import replace
from random import Random

import pytest

from paxos_rsm.errors import InvariantViolation
from paxos_rsm.paxos.messages import (
    Accept,
    Accepted,
    CatchUp,
    CatchUpReply,
    Decide,
    Heartbeat,
    Message,
    Nack,
)
from paxos_rsm.paxos.node import Node
from paxos_rsm.paxos.ready import WriteAccepted, WriteDecided, WriteDecidedThrough
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, ConfigChange, Entry, Noop, Slot
from tests.unit.paxos.harness import SETTINGS, Cluster, batch, members

GENESIS = ConfigChange(members(3))
FIRST = Ballot(1, 2)
SECOND = Ballot(2, 3)


def follower(
    votes: dict[Slot, tuple[Ballot | None, Entry]] | None = None,
    promised: Ballot = FIRST,
    chunk: int = 1 << 20,
) -> Node:
    """Server 1 of three, with slot 1 and ``votes`` on its disk."""
    settings = replace(SETTINGS, chunk_bytes_max=chunk)
    held = {1: (None, GENESIS), **(votes or {})}
    node = Node(1, settings, Random(0), promised=promised, votes=held, decided_through=1)
    node.ready()
    return node


def said(node: Node, sender: int, message: Message) -> list[tuple[int, Message]]:
    """What the node says at once to a message."""
    node.step(sender, message)
    return [(e.to, e.message) for e in node.ready().messages]


def beat(ballot: Ballot, through: Slot, leading: bool = True) -> Heartbeat:
    """A heartbeat of the ballot's node."""
    return Heartbeat(ballot, leading, True, through, 0, frozenset({1, 2, 3}), ballot)


# ---- the leader's tally ------------------------------------------------------------------------------------------


def test_a_slot_named_twice_in_one_accepted_is_decided_once() -> None:
    """Found by the fuzz: an Accept and its repetition, taken in one turn, are answered together; the leader died."""
    cluster = Cluster(3)
    cluster.make_lead(1)
    cluster.propose(1, b"a")
    [(_, _, accept)] = cluster.take(Accept, to=2)
    cluster.take(Accept)
    cluster.node(2).step(1, accept)
    cluster.node(2).step(1, accept)
    cluster.turn(2)
    [(_, _, accepted)] = cluster.take(Accepted)
    assert accepted.slots == (2, 2)
    cluster.hand(2, 1, accepted)
    assert cluster.node(1).decided_through == 2
    assert not cluster.node(1).proposer.in_flight


def test_the_same_member_counts_once_and_strangers_never() -> None:
    cluster = Cluster(5)
    cluster.make_lead(1)
    cluster.propose(1, b"a")
    cluster.wire.clear()
    ballot = cluster.node(1).proposer.ballot
    for sender in (2, 2, 2, 66, 77):
        cluster.node(1).step(sender, Accepted(ballot, (2,)))
    assert cluster.node(1).decided_through == 1
    cluster.node(1).step(3, Accepted(ballot, (2,)))
    assert cluster.node(1).decided_through == 2


def test_votes_of_another_ballot_do_not_count() -> None:
    cluster = Cluster(3)
    cluster.make_lead(1)
    cluster.propose(1, b"a")
    cluster.wire.clear()
    round_, node = cluster.node(1).proposer.ballot
    for ballot in (Ballot(round_ - 1, node), Ballot(round_ + 1, node), Ballot(round_, 2)):
        cluster.hand(2, 1, Accepted(ballot, (2,)))
    assert cluster.node(1).decided_through == 1


def test_the_leader_counts_its_own_vote_when_it_is_durable_and_decides_without_it_where_others_suffice() -> (
    None
):
    cluster = Cluster(3)
    cluster.make_lead(1)
    cluster.hold_writes = {1}
    cluster.propose(1, b"a")
    [(_, _, accept)] = cluster.take(Accept, to=2)
    cluster.hand(1, 2, accept)
    cluster.settle_but(Accept)
    assert cluster.node(1).decided_through == 1  # one other vote, and one that is not durable
    cluster.settle()
    assert cluster.node(1).decided_through == 2  # two others: a quorum without the leader's own


# ---- the watermark names slots, not values (rule 6) --------------------------------------------------------------


def test_a_follower_takes_from_a_watermark_only_what_it_voted_for_in_that_ballot() -> None:
    node = follower({2: (SECOND, batch(b"a")), 3: (FIRST, batch(b"b"))}, promised=SECOND)
    assert said(node, 3, Decide(SECOND, 3)) == [(3, CatchUp(3, 3))]
    assert node.decided_through == 2
    assert not node.log.slots[3].decided


def test_an_uncovered_slot_is_fetched() -> None:
    node = follower({3: (FIRST, batch(b"b"))})
    assert said(node, 2, Decide(FIRST, 3)) == [(2, CatchUp(2, 3))]
    assert node.decided_through == 1
    assert node.log.is_decided(3)


def test_a_vote_that_comes_after_the_watermark_of_its_ballot_is_decided() -> None:
    node = follower()
    said(node, 2, Decide(FIRST, 3))
    node.step(2, Accept(FIRST, 3, batch(b"b"), 1))
    assert node.log.is_decided(3)
    node.step(2, Accept(FIRST, 2, batch(b"a"), 1))
    assert node.decided_through == 3


def test_a_vote_that_comes_after_the_watermark_of_another_ballot_is_not() -> None:
    node = follower()
    said(node, 3, Decide(SECOND, 2))
    node.step(2, Accept(FIRST, 2, batch(b"a"), 1))
    assert not node.log.is_decided(2)


def test_a_vote_of_a_later_ballot_is_not_decided_by_the_watermark_of_an_earlier() -> None:
    node = follower({2: (SECOND, batch(b"a"))}, promised=SECOND)
    assert said(node, 2, Decide(FIRST, 2)) == [(2, CatchUp(2, 2))]
    assert node.decided_through == 1


def test_the_watermark_of_an_old_ballot_still_says_that_there_is_something_to_fetch() -> None:
    node = follower()
    said(node, 3, Decide(SECOND, 1))
    assert said(node, 2, Decide(FIRST, 4)) == [(2, CatchUp(2, 4))]


def test_a_heartbeat_is_a_word_on_values_only_from_a_leader() -> None:
    votes: dict[Slot, tuple[Ballot | None, Entry]] = {2: (FIRST, batch(b"a"))}
    node = follower(votes)
    node.step(3, beat(FIRST, 2, leading=False))
    node.step(3, beat(FIRST, 2, leading=True))  # of a ballot that is not its own
    assert node.decided_through == 1
    node.step(2, beat(FIRST, 2))
    assert node.decided_through == 2


def test_what_the_watermark_decides_is_marked_on_disk_behind_the_vote() -> None:
    node = follower()
    node.step(2, Accept(FIRST, 2, batch(b"a"), 1))
    node.step(2, Accept(FIRST, 3, batch(b"b"), 2))
    assert node.ready().writes == [
        WriteAccepted(2, FIRST, batch(b"a")),
        WriteAccepted(3, FIRST, batch(b"b")),
        WriteDecidedThrough(2),
    ]


# ---- a leader and the decisions of others ------------------------------------------------------------------------


def test_a_deposed_leader_does_not_name_a_slot_that_it_lost() -> None:
    """The trap: it fetches what a higher ballot decided, and its next watermark makes its own voter believe in it."""
    cluster = Cluster(5)
    cluster.make_lead(1)
    cluster.propose(1, b"x")
    accepts = cluster.take(Accept)
    cluster.hand(1, 5, next(m for _, to, m in accepts if to == 5))  # 5 votes for x in slot 2 of ballot 1
    cluster.partition({1, 5}, {2, 3, 4})
    for _ in range(2 * SETTINGS.election_ticks):  # 1 is paused: it does not notice
        for number in (2, 3, 4):
            cluster.node(number).election.stand_at = 1 << 40 if number != 2 else 0
        cluster.tick(2, 3, 4)
        cluster.settle()
    assert cluster.leaders() == [1, 2]
    cluster.propose(2, b"y")
    cluster.settle()
    assert cluster.oracle.chosen[2] != cluster.node(1).log.slots[2].entry
    answer = CatchUpReply(cluster.node(3).acceptor.promised, ((2, cluster.oracle.chosen[2]),), 2)
    cluster.hand(3, 1, answer)
    assert cluster.leaders() == [1, 2]
    cluster.tick(1)
    cluster.settle()  # its heartbeat reaches 5, which voted for x in slot 2
    assert cluster.node(1).decided_through == 1
    assert cluster.node(5).decided_through == 1


def test_a_leader_takes_no_decision_from_others() -> None:
    cluster = Cluster(3)
    cluster.make_lead(1)
    cluster.propose(1, b"x")
    cluster.wire.clear()
    ballot = cluster.node(1).proposer.ballot
    cluster.node(1).step(2, CatchUpReply(ballot, ((2, batch(b"y")), (3, Noop())), 3))
    assert cluster.node(1).decided_through == 1
    assert 3 not in cluster.node(1).log.slots
    assert cluster.leaders() == [1]


def test_what_peers_have_promised_meanwhile_deposes_a_leader() -> None:
    cluster = Cluster(3)
    cluster.make_lead(1)
    higher = Ballot(99, 2)
    cluster.node(1).step(2, CatchUpReply(higher, (), 1))
    assert cluster.leaders() == [1]
    cluster.node(1).step(3, CatchUpReply(higher, (), 1))
    assert cluster.leaders() == []


def test_the_watermark_of_a_higher_ballot_deposes_a_leader_before_anything_is_learned() -> None:
    cluster = Cluster(3)
    cluster.make_lead(1)
    cluster.node(1).step(2, Decide(Ballot(99, 2), 7))
    assert cluster.leaders() == []


def test_the_watermark_of_a_lower_ballot_tells_a_leader_nothing() -> None:
    cluster = Cluster(3)
    cluster.make_lead(1)
    assert said(cluster.node(1), 2, Decide(NO_BALLOT._replace(node=2), 7)) == []
    assert cluster.leaders() == [1]


# ---- catching up -------------------------------------------------------------------------------------------------


def test_what_is_fetched_is_stored_as_decided_without_a_ballot() -> None:
    node = follower({2: (FIRST, batch(b"old"))})
    node.step(2, Decide(SECOND._replace(node=2), 2))
    node.ready()
    node.step(2, CatchUpReply(SECOND, ((2, batch(b"new")),), 2))
    ready = node.ready()
    assert ready.writes == [WriteDecided(2, batch(b"new")), WriteDecidedThrough(2)]
    assert ready.decided == [(2, batch(b"new"))]
    assert node.log.slots[2].ballot == NO_BALLOT


def test_what_is_fetched_must_not_differ_from_what_is_decided() -> None:
    node = follower({2: (None, batch(b"a"))})
    with pytest.raises(InvariantViolation, match="rule 1"):
        node.step(2, CatchUpReply(FIRST, ((2, batch(b"b")),), 2))


def test_one_request_at_a_time_and_the_next_as_soon_as_it_is_answered() -> None:
    node = follower()
    assert said(node, 2, Decide(FIRST, 5)) == [(2, CatchUp(2, 5))]
    assert said(node, 2, Decide(FIRST, 6)) == []
    assert said(node, 2, CatchUpReply(FIRST, ((2, Noop()), (3, Noop())), 6)) == [(2, CatchUp(4, 6))]
    assert said(node, 2, CatchUpReply(FIRST, ((4, Noop()), (5, Noop()), (6, Noop())), 6)) == []
    assert node.decided_through == 6


def test_who_does_not_answer_is_not_asked_first_again() -> None:
    cluster = Cluster(3)
    cluster.make_lead(1)
    cluster.partition({1, 2}, {3})
    cluster.propose(1, b"a")
    cluster.settle()
    cluster.run(2)
    cluster.heal()
    cluster.cut = {(1, 3), (3, 1)}
    asked: list[int] = []
    for _ in range(3 * SETTINGS.retransmit_ticks):
        cluster.calm(1, CatchUp)
    assert cluster.node(3).decided_through == 1
    cluster.node(3).election.heard(1)
    for _ in range(3 * SETTINGS.retransmit_ticks):
        cluster.node(3).learner.ask([(1, 2), (2, 2)])
        cluster.turn(3)
        asked += [to for _, to, _ in cluster.take(CatchUp, sender=3)]
        cluster.tick(3)
        cluster.lose(CatchUp)
    assert {1, 2} <= set(asked)


def test_catch_up_is_answered_in_chunks_of_decided_entries_only() -> None:
    votes: dict[Slot, tuple[Ballot | None, Entry]] = {s: (None, batch(b"x")) for s in (2, 3, 4)}
    votes[5] = FIRST, batch(b"undecided")
    node = follower(votes, chunk=150)
    answer = said(node, 2, CatchUp(2, 9))
    assert answer == [(2, CatchUpReply(FIRST, ((2, batch(b"x")), (3, batch(b"x"))), 4))]
    assert said(node, 2, CatchUp(5, 9)) == [(2, CatchUpReply(FIRST, (), 4))]
    assert said(node, 2, CatchUp(0, 9)) == [(2, CatchUpReply(FIRST, (), 4))]


def test_a_server_without_a_leader_learns_from_any_peer() -> None:
    cluster = Cluster(3)
    cluster.make_lead(1)
    cluster.partition({1, 2}, {3})
    cluster.propose(1, b"a")
    cluster.settle()
    cluster.run(2)
    cluster.only((1, 2), (2, 3))
    cluster.calm(SETTINGS.election_ticks)
    assert cluster.leaders() == [1]
    assert cluster.node(3).decided_through == 2


def test_a_follower_that_missed_ten_thousand_slots_catches_up() -> None:
    behind = follower(chunk=1 << 16)
    ahead = follower({slot: (None, Noop()) for slot in range(2, 10_002)}, chunk=1 << 16)
    [(_, question)] = said(behind, 2, Decide(FIRST, 10_001))
    requests = 1
    while True:
        [(_, answer)] = said(ahead, 1, question)
        assert isinstance(answer, CatchUpReply)
        assert 0 < len(answer.entries) <= 200
        more = said(behind, 2, answer)
        if not more:
            break
        question = more[0][1]
        requests += 1
    assert behind.decided_through == 10_001
    assert requests == 79


def test_the_mark_on_disk_is_never_above_what_is_known() -> None:
    node = follower()
    node.log.decided_through = 0
    with pytest.raises(InvariantViolation, match="watermark on disk"):
        node.learner.check()


def test_a_refusal_names_the_ballot_in_the_way() -> None:
    node = follower(promised=SECOND)
    assert (2, Nack(FIRST, SECOND)) in said(node, 2, beat(FIRST, 1))


def test_an_answer_that_comes_twice_leads_to_one_question() -> None:
    """Found by the fuzz: each copy of an answer led to a question of its own, and copies became an avalanche."""
    node = follower()
    said(node, 2, Decide(FIRST, 9))
    answer = CatchUpReply(FIRST, ((2, Noop()), (3, Noop())), 9)
    assert said(node, 2, answer) == [(2, CatchUp(4, 9))]
    for _ in range(5):
        assert said(node, 2, answer) == []
    assert said(node, 2, CatchUpReply(FIRST, ((4, Noop()),), 9)) == [(2, CatchUp(5, 9))]
