"""Reads that ask the acceptors: what they may be served from, and when they go by the leader after all."""

from dataclasses import replace

from paxos_rsm.paxos.changes import AddMember
from paxos_rsm.paxos.membership import Member
from paxos_rsm.paxos.messages import Accept, Accepted, Decide, Heartbeat, ReadReply, ReadRequest
from paxos_rsm.paxos.types import Ballot
from tests.unit.paxos.harness import SETTINGS, Cluster, batch

ASKED = replace(SETTINGS, quorum_reads=1)


def led(count: int = 3, phase2: int = 0) -> Cluster:
    """A cluster that host 1 leads."""
    cluster = Cluster(count, settings=ASKED, phase2=phase2)
    cluster.make_lead(1)
    return cluster


def test_a_follower_asks_the_acceptors_and_waits_for_a_phase_1_quorum() -> None:
    cluster = led(5, phase2=2)
    cluster.propose(1, b"a")
    cluster.settle()
    cluster.read(3, 7)
    requests = cluster.take(ReadRequest)
    assert [(to, message.accepted) for _, to, message in requests] == [
        (1, True),
        (2, True),
        (4, True),
        (5, True),
    ]
    for request in requests[1:3]:
        cluster.hand(*request)
    cluster.settle()
    assert cluster.hosts[3].reads == {}  # with itself three of the four
    cluster.hand(*requests[3])
    cluster.settle()
    assert cluster.hosts[3].reads == {7: 2}


def test_the_leader_asks_in_its_own_way() -> None:
    cluster = led()
    cluster.read(1, 7)
    assert not cluster.take(ReadRequest)
    assert any(message.round for _, _, message in cluster.take(Heartbeat))


def test_it_needs_no_leader() -> None:
    cluster = led()
    cluster.propose(1, b"a")
    cluster.settle()
    cluster.crash(1)
    cluster.read(3, 7)
    cluster.settle()
    assert cluster.hosts[3].reads == {7: 2}


def test_it_waits_for_what_is_accepted_and_not_known_to_be_decided() -> None:
    """The leader may have acknowledged it already."""
    cluster = led()
    cluster.propose(1, b"a")
    cluster.settle_but(Decide, Heartbeat)
    assert cluster.oracle.applied_through == 2
    cluster.read(3, 7)
    cluster.settle_but(Decide, Heartbeat)
    assert cluster.hosts[3].reads == {}
    cluster.settle()
    assert cluster.hosts[3].reads == {7: 2}


def test_one_that_missed_an_accept_hears_of_it_from_who_did_not() -> None:
    cluster = led()
    cluster.propose(1, b"a")
    cluster.take(Accept, to=3)
    cluster.settle_but(Decide, Heartbeat)
    cluster.take(Decide)
    cluster.take(Heartbeat)
    cluster.cut = {(1, 3), (3, 1)}
    cluster.read(3, 7)
    cluster.settle()
    assert cluster.hosts[3].reads == {}
    cluster.heal()
    cluster.run(1)
    assert cluster.hosts[3].reads == {7: 2}


def test_a_vote_of_which_nothing_came_gives_the_read_back_and_the_leader_is_asked() -> None:
    cluster = led()
    cluster.propose(1, b"a")
    cluster.take(Accept)
    lost = Accept(cluster.node(1).proposer.ballot, 9, batch(b"lost"), 1)
    cluster.oracle._proposed[lost.ballot, 9] = lost.entry
    cluster.node(2).step(1, lost)
    cluster.turn(2)
    cluster.take(Accepted)
    cluster.read(3, 7)
    cluster.hand(*cluster.take(ReadRequest, to=2)[0])
    cluster.settle_but(Accepted)
    for _ in range(ASKED.retransmit_ticks):
        assert cluster.hosts[3].reads == {}
        cluster.tick(3)
    assert cluster.hosts[3].reads == {7: None}
    cluster.read(3, 8)
    assert [(to, message.accepted) for _, to, message in cluster.take(ReadRequest)] == [(1, False)]
    for _ in range(ASKED.election_ticks):
        cluster.tick(3)
    cluster.read(3, 9)
    assert all(message.accepted for _, _, message in cluster.take(ReadRequest))


def test_who_asked_the_members_of_yesterday_asks_again() -> None:
    cluster = led()
    cluster.read(3, 7)
    requests = cluster.take(ReadRequest)
    cluster.change(1, 5, AddMember(Member(0, 109, "n9", "http://n9:2380", learner=True)))
    cluster.settle()
    assert cluster.node(3).decided_through == 2
    for request in requests:
        cluster.hand(*request)
    cluster.settle()
    assert cluster.hosts[3].reads == {7: None}


def test_only_answers_to_this_question_from_voters_that_say_something_count() -> None:
    cluster = led()
    cluster.read(3, 7)
    [(_, _, first), _] = cluster.take(ReadRequest)
    cluster.read(3, 8)
    [(_, _, second), _] = cluster.take(ReadRequest)
    assert first.read_id != second.read_id
    cluster.hand(2, 3, ReadReply(first.read_id, 1))
    assert cluster.hosts[3].reads == {7: 1}
    cluster.hand(2, 3, ReadReply(first.read_id, 1))
    cluster.hand(2, 3, ReadReply(second.read_id, 0))
    cluster.hand(77, 3, ReadReply(second.read_id, 1))
    assert cluster.hosts[3].reads == {7: 1}
    cluster.hand(1, 3, ReadReply(second.read_id, 1))
    assert cluster.hosts[3].reads == {7: 1, 8: 1}


def test_what_is_compacted_or_cannot_be_read_counts() -> None:
    cluster = led()
    cluster.propose(1, b"a")
    cluster.settle()
    cluster.snapshot(2)
    cluster.crash(2)
    cluster.restart(2)
    cluster.hand(3, 2, ReadRequest(5, 0, accepted=True))
    assert [message for _, _, message in cluster.take(ReadReply)] == [ReadReply(5, 2)]
    cluster.node(2).log.lose([9])
    cluster.hand(3, 2, ReadRequest(6, 0, accepted=True))
    assert [message for _, _, message in cluster.take(ReadReply)] == [ReadReply(6, 9)]


def test_nobody_asks_before_the_genesis_entry() -> None:
    cluster = Cluster(3, settings=ASKED)
    cluster.read(2, 7)
    assert cluster.hosts[2].reads == {7: None}
    assert not cluster.take(ReadRequest)
    assert cluster.node(2).acceptor.promised == Ballot(0, 0)
