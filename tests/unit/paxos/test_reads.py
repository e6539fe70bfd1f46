from paxos_rsm.paxos.messages import (
    Accept,
    Accepted,
    CatchUp,
    Decide,
    Heartbeat,
    HeartbeatReply,
    ReadReply,
    ReadRequest,
)
from paxos_rsm.paxos.types import Ballot
from tests.unit.paxos.harness import SETTINGS, Cluster


def led(count: int = 3) -> Cluster:
    """A cluster that host 1 leads."""
    cluster = Cluster(count)
    cluster.make_lead(1)
    return cluster


# ---- at a follower -----------------------------------------------------------------------------------------------


def test_an_answer_to_the_process_before_the_restart_grants_nothing() -> None:
    """Found by the fuzz: numbers began at 1 again, so the old answer passed for the one to a later question."""
    cluster = led()
    cluster.read(2, 7)
    cluster.settle_but(HeartbeatReply, ReadReply)
    old = cluster.take(ReadReply)
    while not old:
        cluster.deliver()
        old = cluster.take(ReadReply)
    cluster.crash(2)
    cluster.propose(1, b"a")
    cluster.settle()
    cluster.restart(2)
    cluster.run(2)
    cluster.read(2, 8)
    cluster.hand(*old[0])
    assert 8 not in cluster.hosts[2].reads
    cluster.settle()
    assert cluster.hosts[2].reads[8] == 2


def test_a_read_on_its_way_to_a_leader_that_is_gone_must_be_asked_again() -> None:
    cluster = led()
    cluster.read(2, 7)
    cluster.take(ReadRequest)
    cluster.node(2).peer_down(1)
    cluster.tick(2)
    assert cluster.hosts[2].reads == {7: None}


def test_a_read_that_is_not_answered_for_an_election_time_out_must_be_asked_again() -> None:
    cluster = led()
    cluster.read(2, 7)
    cluster.take(ReadRequest)
    cluster.run(SETTINGS.election_ticks - 1)
    assert cluster.hosts[2].reads == {}
    cluster.run(1)
    assert cluster.hosts[2].reads == {7: None}


def test_a_late_answer_to_a_read_that_was_given_up_is_ignored() -> None:
    cluster = led()
    cluster.read(2, 7)
    [(_, _, request)] = cluster.take(ReadRequest)
    cluster.run(SETTINGS.election_ticks)
    cluster.hand(1, 2, ReadReply(request.read_id, 1))
    assert cluster.hosts[2].reads == {7: None}


def test_a_follower_asks_once_and_is_told_the_leaders_index() -> None:
    cluster = led()
    cluster.propose(1, b"a")
    cluster.settle()
    cluster.read(3, 7)
    assert len(cluster.take(ReadRequest)) == 1
    cluster.read(3, 8)
    cluster.settle()
    assert cluster.hosts[3].reads == {8: 2}


def test_without_a_way_to_the_leader_a_read_must_be_asked_again() -> None:
    cluster = Cluster(3)
    cluster.read(2, 7)
    assert cluster.hosts[2].reads == {7: None}


# ---- at the leader (rule 8) --------------------------------------------------------------------------------------


def reply(cluster: Cluster, round_: int, ballot: Ballot | None = None) -> HeartbeatReply:
    """What a follower says to round ``round_`` of the ballot that host 1 leads."""
    return HeartbeatReply(ballot or cluster.node(1).proposer.ballot, round_)


def test_an_index_is_granted_on_the_word_of_a_quorum_only() -> None:
    cluster = led(5)
    cluster.read(1, 7)
    for sender in (2, 2, 66, 77):
        cluster.hand(sender, 1, reply(cluster, 1))
    assert cluster.hosts[1].reads == {}
    cluster.hand(4, 1, reply(cluster, 1))
    assert cluster.hosts[1].reads == {7: 1}


def test_only_replies_to_a_round_sent_after_the_read_count() -> None:
    cluster = led()
    cluster.read(1, 7)
    cluster.hand(2, 1, reply(cluster, 1))
    cluster.wire.clear()
    cluster.read(1, 8)
    cluster.hand(3, 1, reply(cluster, 1))  # late, to the round before
    assert cluster.hosts[1].reads == {7: 1}
    cluster.hand(3, 1, reply(cluster, 2))
    assert cluster.hosts[1].reads == {7: 1, 8: 1}


def test_a_reply_to_a_later_round_counts_for_the_earlier_ones() -> None:
    cluster = led()
    for read_id in (7, 8, 9):
        cluster.read(1, read_id)
        cluster.tick(1)
    assert cluster.node(1).reads.round == 3
    cluster.wire.clear()
    cluster.hand(2, 1, reply(cluster, 3))
    assert cluster.hosts[1].reads == {7: 1, 8: 1, 9: 1}


def test_replies_of_another_ballot_or_to_a_round_never_begun_count_for_nothing() -> None:
    """Rounds are numbered anew after a restart: only the ballot tells a reply to an old one from a reply to a new."""
    cluster = led()
    cluster.read(1, 7)
    cluster.wire.clear()
    mine = cluster.node(1).proposer.ballot
    for ballot in (Ballot(mine.round - 1, 1), Ballot(mine.round + 1, 1), Ballot(mine.round, 2)):
        cluster.hand(2, 1, reply(cluster, 1, ballot))
    for number in (0, 2):
        cluster.hand(2, 1, reply(cluster, number))
    assert cluster.hosts[1].reads == {}


def test_the_index_is_that_of_the_reads_arrival_not_of_its_confirmation() -> None:
    cluster = led()
    cluster.read(1, 7)
    confirmed = [each for each in cluster.take(Heartbeat) if each[2].round]
    cluster.propose(1, b"a")
    cluster.settle()
    assert cluster.node(1).decided_through == 2
    for sender, to, beat in confirmed:
        cluster.hand(sender, to, beat)
    cluster.settle()
    assert cluster.hosts[1].reads == {7: 1}


def test_what_comes_during_a_round_shares_the_next_which_begins_after_it() -> None:
    """Rule 8: the reply to the round before, though it comes after those reads, counts for none of them."""
    cluster = led()
    cluster.read(1, 7)
    for read_id in (8, 9):
        cluster.read(1, read_id)
    assert cluster.node(1).reads.round == 1
    cluster.hand(2, 1, reply(cluster, 1))
    assert cluster.hosts[1].reads == {7: 1}
    assert cluster.node(1).reads.round == 2
    cluster.wire.clear()
    cluster.hand(3, 1, reply(cluster, 1))
    assert cluster.hosts[1].reads == {7: 1}
    cluster.hand(3, 1, reply(cluster, 2))
    assert cluster.hosts[1].reads == {7: 1, 8: 1, 9: 1}


def test_what_comes_during_a_round_waits_a_tick_for_it_at_most() -> None:
    cluster = led()
    cluster.read(1, 7)
    cluster.read(1, 8)
    cluster.tick(1)
    assert cluster.node(1).reads.round == 2
    cluster.wire.clear()
    cluster.hand(2, 1, reply(cluster, 2))
    assert cluster.hosts[1].reads == {7: 1, 8: 1}


def test_reads_of_one_turn_share_a_round_and_rounds_under_way_are_few() -> None:
    cluster = led()
    node = cluster.node(1)
    for read_id in range(10, 15):
        cluster.oracle.read_asked(read_id)
        node.read(read_id)
    cluster.turn(1)
    assert node.reads.round == 1
    for read_id in range(20, 26):
        cluster.read(1, read_id)
        cluster.tick(1)
    assert node.reads.round == SETTINGS.read_rounds_max
    cluster.settle()
    assert len(cluster.hosts[1].reads) == 11
    assert node.reads.round == SETTINGS.read_rounds_max + 1


def test_a_leader_serves_nothing_before_it_has_decided_what_phase_1_obliged_it_to() -> None:
    cluster = led()
    cluster.propose(1, b"a")
    [accept, _] = cluster.take(Accept)
    cluster.hand(*accept)  # 2 has voted; with 1 it is a quorum
    cluster.lose(Decide, Heartbeat)
    assert cluster.oracle.applied_through == 2
    cluster.crash(1)
    cluster.calm(2 * SETTINGS.election_ticks, CatchUp)
    cluster.stand(3, CatchUp)
    cluster.settle_but(Accepted)
    assert cluster.leaders() == [3]
    assert cluster.node(3).decided_through == 1
    cluster.read(3, 7)
    cluster.settle_but(Accepted)
    assert cluster.hosts[3].reads == {}
    cluster.settle()
    index = cluster.hosts[3].reads[7]
    assert index is not None
    assert index >= 2


def test_a_paused_leader_serves_no_read_after_it_was_replaced() -> None:
    cluster = led()
    cluster.partition({1}, {2, 3})
    for _ in range(4 * SETTINGS.election_ticks):  # 1 does not run
        cluster.tick(2, 3)
        cluster.settle()
    assert len(cluster.leaders()) == 2
    new = next(n for n in cluster.leaders() if n != 1)
    cluster.propose(new, b"a")
    cluster.settle()
    cluster.heal()
    cluster.read(1, 7)
    cluster.settle()
    assert cluster.hosts[1].reads == {7: None}
    assert cluster.leaders() == [new]


def test_what_is_not_confirmed_is_asked_again_in_time() -> None:
    cluster = led()
    cluster.read(1, 7)
    cluster.take(Heartbeat)
    cluster.run(SETTINGS.retransmit_ticks + 1)
    assert cluster.hosts[1].reads == {7: 1}


def test_a_leader_that_steps_down_sends_its_readers_away() -> None:
    cluster = led()
    cluster.read(1, 7)
    cluster.read(2, 8)
    [request] = cluster.take(ReadRequest)
    cluster.hand(*request)
    cluster.take(Heartbeat)
    cluster.hand(3, 1, Decide(Ballot(99, 3), 1))
    cluster.settle()
    assert cluster.hosts[1].reads == {7: None}
    assert cluster.hosts[2].reads == {8: None}


def test_a_cluster_of_one_answers_at_once() -> None:
    cluster = Cluster(1)
    cluster.elect()
    cluster.read(1, 7)
    assert cluster.hosts[1].reads == {7: 1}


# ---- through a member in between ---------------------------------------------------------------------------------


def test_a_read_reaches_the_leader_over_one_hop() -> None:
    cluster = led()
    cluster.cut = {(1, 3), (3, 1)}
    cluster.calm(SETTINGS.election_ticks + 2)
    cluster.read(3, 7)
    cluster.settle()
    assert cluster.hosts[3].reads == {7: 1}


def test_a_read_goes_over_one_hop_at_most() -> None:
    cluster = led()
    cluster.hand(2, 3, ReadRequest(5, hops=1))
    assert [(to, m) for _, to, m in cluster.take(ReadReply)] == [(2, ReadReply(5, 0))]
    assert not cluster.take(ReadRequest)


def test_a_read_is_not_handed_back_to_who_sent_it() -> None:
    cluster = led()
    cluster.hand(1, 3, ReadRequest(5))  # from the leader, which has just lost its place
    assert [(to, m) for _, to, m in cluster.take(ReadReply)] == [(1, ReadReply(5, 0))]
