"""Leases on reads: where they save a round, and everything that must not be served on one."""

from dataclasses import replace

import pytest

from paxos_rsm.errors import InvariantViolation
from paxos_rsm.paxos.changes import AddMember
from paxos_rsm.paxos.membership import Member
from paxos_rsm.paxos.messages import Accept, HandOver, Heartbeat, HeartbeatReply, Prepare, Promise
from paxos_rsm.paxos.types import Ballot
from tests.unit.paxos.harness import SETTINGS, Cluster
from tests.unit.paxos.oracle import Broken

LEASE_US = 1_000
HOLD_US = 1_100
ANOTHER = AddMember(Member(0, 109, "n9", "http://n9:2380", learner=True))
LEASED = replace(SETTINGS, read_lease_us=LEASE_US, read_lease_drift_percent=10)


def led(count: int = 3) -> Cluster:
    """A cluster that host 1 leads, without a lease yet. Time stands still unless it is moved."""
    cluster = Cluster(count, settings=LEASED)
    cluster.make_lead(1)
    return cluster


def leased(count: int = 3) -> Cluster:
    """Host 1 leads, and everybody holds for it since now."""
    cluster = led(count)
    cluster.read(1, 1)
    cluster.settle()
    assert serves_at_once(cluster, 1, 2)
    return cluster


def serves_at_once(cluster: Cluster, number: int, read_id: int) -> bool:
    """Whether a read at a host is granted with no word from anybody."""
    cluster.read(number, read_id)
    return cluster.hosts[number].reads.get(read_id) is not None


# ---- what it is for ------------------------------------------------------------------------------------------------


def test_while_it_lasts_reads_take_no_round_here_nor_by_way_of_a_follower() -> None:
    cluster = leased()
    cluster.propose(1, b"a")
    cluster.settle()
    assert serves_at_once(cluster, 1, 7)
    assert not cluster.wire
    assert cluster.hosts[1].reads[7] == 2
    cluster.read(3, 8)
    cluster.deliver()
    assert not cluster.take(Heartbeat)
    cluster.settle()
    assert cluster.hosts[3].reads == {8: 2}


def test_it_counts_from_when_the_round_began_not_from_its_confirmation() -> None:
    cluster = led()
    cluster.read(1, 1)
    cluster.time_us += 600
    cluster.settle()
    cluster.time_us += 399
    assert serves_at_once(cluster, 1, 2)
    cluster.lose(Heartbeat)
    cluster.time_us += 1
    assert not serves_at_once(cluster, 1, 3)


def test_a_round_that_is_sent_again_counts_from_the_first_time() -> None:
    cluster = led()
    cluster.read(1, 1)
    cluster.take(Heartbeat)
    cluster.time_us += 900
    cluster.run(SETTINGS.retransmit_ticks + 1)
    assert cluster.hosts[1].reads == {1: 1}
    cluster.time_us += 100
    assert not serves_at_once(cluster, 1, 2)


def test_reads_that_go_on_renew_it_before_it_ends_and_do_not_wait_for_that() -> None:
    cluster = leased()
    cluster.time_us += LEASE_US // 2 - 1
    assert serves_at_once(cluster, 1, 7)
    assert not cluster.wire
    cluster.time_us += 1
    assert serves_at_once(cluster, 1, 8)
    assert [message.hold_us for _, _, message in cluster.wire if isinstance(message, Heartbeat)] == [
        HOLD_US
    ] * 2
    cluster.settle()
    cluster.time_us += LEASE_US - 1
    assert serves_at_once(cluster, 1, 9)


def test_without_the_option_nobody_is_asked_to_hold() -> None:
    cluster = Cluster(3)
    cluster.make_lead(1)
    cluster.read(1, 1)
    assert {message.hold_us for _, _, message in cluster.take(Heartbeat)} == {0}


def test_it_takes_a_quorum_that_holds_one_that_confirms_is_not_enough() -> None:
    cluster = led()
    cluster.hosts[2].node._core.settings = cluster.hosts[3].node._core.settings = (
        SETTINGS  # their option is off
    )
    cluster.read(1, 1)
    cluster.settle()
    assert cluster.hosts[1].reads == {1: 1}
    assert not serves_at_once(cluster, 1, 2)


def test_nobody_holds_for_longer_than_it_would_wait_after_a_restart() -> None:
    cluster = led()
    ballot = cluster.node(1).proposer.ballot
    cluster.settle()
    for hold_us, held in ((HOLD_US, True), (HOLD_US + 1, False), (0, False)):
        beat = Heartbeat(ballot, True, True, 1, 9, frozenset([1, 2, 3]), ballot, hold_us)
        cluster.hand(1, 2, beat)
        [(_, _, reply)] = cluster.take(HeartbeatReply)
        assert reply.held is held


# ---- nobody else may lead meanwhile ----------------------------------------------------------------------------------


def test_who_holds_answers_no_other_candidate_until_it_is_over() -> None:
    cluster = led()
    cluster.read(1, 1)
    cluster.take(Heartbeat, to=3)  # 3 holds nothing
    cluster.settle()
    cluster.partition({1}, {2, 3})
    cluster.node(3).campaign()
    cluster.turn(3)
    for _ in range(3):
        cluster.run(SETTINGS.retransmit_ticks)
        assert cluster.leaders() == [1]
        assert serves_at_once(cluster, 1, 100 + cluster.time_us)
        cluster.time_us += 300
    cluster.time_us = HOLD_US - 1
    cluster.run(SETTINGS.retransmit_ticks)
    assert cluster.leaders() == [1]
    cluster.time_us = HOLD_US
    cluster.tick(2)
    cluster.run(SETTINGS.retransmit_ticks)
    assert 3 in cluster.leaders()
    assert not serves_at_once(cluster, 1, 2)


def test_who_holds_does_not_stand_itself() -> None:
    cluster = leased()
    cluster.node(2).campaign()
    cluster.turn(2)
    assert not cluster.wire
    assert cluster.node(2).role == "follower"
    cluster.time_us += HOLD_US
    cluster.turn(2)
    cluster.node(2).campaign()
    cluster.turn(2)
    assert cluster.take(Prepare)


def test_a_hold_counts_before_its_answer_leaves() -> None:
    """A Prepare that is taken in the same turn, after the round."""
    cluster = led()
    cluster.read(1, 1)
    [beat] = cluster.take(Heartbeat, to=2)
    cluster.node(2).step(1, beat[2])
    cluster.node(2).step(3, Prepare(Ballot(50, 3), 1))
    cluster.turn(2)
    assert not cluster.take(Promise)
    assert cluster.node(2).acceptor.promised.node == 1


def test_a_candidate_that_was_promised_before_the_round_is_not_forgotten() -> None:
    cluster = led()
    cluster.hand(3, 2, Prepare(Ballot(50, 3), 1))
    cluster.hand(3, 3, Prepare(Ballot(50, 3), 1))
    cluster.wire.clear()
    cluster.read(1, 1)
    cluster.settle()
    assert not serves_at_once(cluster, 1, 2)


def test_the_leader_itself_may_prepare_anew_and_begins_without_a_lease() -> None:
    cluster = leased()
    cluster.node(1).campaign()
    cluster.turn(1)
    cluster.settle()
    assert cluster.leaders() == [1]
    cluster.read(1, 7)
    assert cluster.hosts[1].reads.get(7) is None
    cluster.settle()
    assert cluster.hosts[1].reads[7] is not None


def test_a_leader_that_gives_up_has_no_lease_any_more() -> None:
    cluster = leased()
    cluster.node(1).resign()
    cluster.turn(1)
    assert not serves_at_once(cluster, 1, 7)


# ---- the clock ---------------------------------------------------------------------------------------------------


def replaced_behind_its_back(cluster: Cluster, time_us: int) -> None:
    """Host 1 sleeps; ``time_us`` later another leads and has decided something that 1 does not know of."""
    cluster.partition({1}, {2, 3})
    cluster.time_us += time_us
    cluster.tick(2, 3)
    cluster.settle()
    cluster.node(2).campaign()
    cluster.turn(2)
    cluster.settle()
    cluster.propose(2, b"new")
    cluster.settle()


def test_a_leader_that_was_paused_sees_by_the_clock_that_its_lease_is_over() -> None:
    """Its ticks stood still: they would say that no time has passed."""
    cluster = leased()
    replaced_behind_its_back(cluster, HOLD_US)
    assert cluster.leaders() == [1, 2]
    assert not serves_at_once(cluster, 1, 7)
    cluster.heal()
    cluster.settle()
    cluster.run(2)
    assert cluster.hosts[1].reads[7] is None
    assert cluster.leaders() == [2]


def test_a_pause_between_the_reading_of_the_clock_and_the_answer_does_no_harm() -> None:
    """The read had arrived when the clock was read: what was decided by then is what it must see."""
    cluster = leased()
    cluster.propose(1, b"a")
    cluster.settle()
    cluster.oracle.read_asked(7)
    cluster.node(1).read(7)
    ready = cluster.node(1).ready(cluster.clock_us(1))
    replaced_behind_its_back(cluster, 100 * HOLD_US)
    [grant] = ready.reads
    assert grant.index is not None
    cluster.oracle.read_granted(1, 7, grant.index)


def test_the_bound_on_drift_is_what_it_is_sound_for() -> None:
    """Clocks that differ by the bound: at the moment the holders are free, the leader's lease is over."""
    cluster = leased()
    for number in (2, 3):
        cluster.hosts[number].clock_rate = 1.1
    replaced_behind_its_back(cluster, LEASE_US)
    assert cluster.leaders() == [1, 2]
    assert not serves_at_once(cluster, 1, 7)


def test_a_clock_beyond_the_bound_breaks_it() -> None:
    cluster = leased()
    for number in (2, 3):
        cluster.hosts[number].clock_rate = 1.2
    replaced_behind_its_back(cluster, LEASE_US - 1)
    with pytest.raises(Broken, match="rule 8"):
        cluster.read(1, 7)


def test_a_driver_that_says_no_time_or_an_earlier_one_is_stopped() -> None:
    cluster = led()
    with pytest.raises(InvariantViolation, match="does not say what time it is"):
        cluster.node(1).ready()
    cluster.node(1).ready(5)
    with pytest.raises(InvariantViolation, match="went back"):
        cluster.node(1).ready(4)


# ---- restart -----------------------------------------------------------------------------------------------------


def test_an_acceptor_that_was_restarted_waits_for_what_it_may_have_given() -> None:
    cluster = led()
    cluster.read(1, 1)
    cluster.take(Heartbeat, to=3)
    cluster.settle()
    cluster.partition({1}, {2, 3})
    cluster.time_us += 100
    cluster.crash(2)
    cluster.restart(2)
    for candidate in (2, 3):
        cluster.node(candidate).campaign()
        cluster.turn(candidate)
    cluster.run(SETTINGS.retransmit_ticks)
    assert cluster.leaders() == [1]
    assert serves_at_once(cluster, 1, 7)
    cluster.time_us += HOLD_US - 1
    cluster.run(SETTINGS.retransmit_ticks)
    assert cluster.leaders() == [1]
    cluster.time_us += 1
    cluster.tick(2)
    cluster.run(SETTINGS.retransmit_ticks)
    assert 3 in cluster.leaders()


def test_one_that_has_not_read_its_clock_yet_promises_nothing() -> None:
    cluster = leased()
    cluster.crash(2)
    cluster.hosts[2].restart()
    cluster.node(2).step(3, Prepare(Ballot(50, 3), 1))
    cluster.turn(2)
    assert not cluster.take(Promise)


# ---- hand-over ---------------------------------------------------------------------------------------------------


def test_a_hand_over_gives_the_lease_up_and_the_heir_need_not_wait() -> None:
    cluster = leased()
    assert cluster.hand_over(1, 2) == 2
    assert not serves_at_once(cluster, 1, 7)
    cluster.settle()
    assert cluster.leaders() == [2]
    cluster.read(2, 8)
    cluster.settle()
    assert serves_at_once(cluster, 2, 9)


def test_after_a_hand_over_in_vain_there_is_no_lease_in_that_ballot() -> None:
    """The heir may yet stand, and tell those who hold that they are free."""
    cluster = leased()
    cluster.hand_over(1, 2)
    [handed] = cluster.take(HandOver)
    cluster.run(SETTINGS.election_ticks + 2)
    assert cluster.leaders() == [1]
    cluster.read(1, 7)
    assert {message.hold_us for _, _, message in cluster.take(Heartbeat) if message.round} <= {0}
    cluster.run(SETTINGS.retransmit_ticks)
    assert cluster.hosts[1].reads[7] is not None
    assert not serves_at_once(cluster, 1, 8)
    cluster.hand(*handed)
    cluster.settle()
    assert cluster.leaders() == [2]


def test_a_round_that_began_before_the_hand_over_gives_none() -> None:
    cluster = led()
    cluster.read(1, 1)
    cluster.hand_over(1, 2)
    cluster.take(HandOver)
    cluster.settle()
    assert cluster.hosts[1].reads[1] is not None
    assert not serves_at_once(cluster, 1, 7)


def test_who_holds_for_another_ballot_is_not_freed() -> None:
    cluster = leased()
    ballot = cluster.node(1).proposer.ballot
    for given_up in (Ballot(ballot.round - 1, 1), Ballot(ballot.round, 3)):
        cluster.hand(3, 2, Prepare(Ballot(50, 3), 1, given_up))
        assert not cluster.take(Promise)
    cluster.hand(3, 2, Prepare(Ballot(50, 3), 1, ballot))
    assert cluster.take(Promise)


# ---- members -----------------------------------------------------------------------------------------------------


def test_a_change_of_the_members_ends_it_until_a_new_round() -> None:
    cluster = leased()
    cluster.change(1, 5, ANOTHER)
    assert serves_at_once(cluster, 1, 7)  # proposed is not decided
    cluster.settle()
    assert not serves_at_once(cluster, 1, 8)
    cluster.settle()
    assert serves_at_once(cluster, 1, 9)


def test_a_round_of_the_members_before_gives_none() -> None:
    cluster = led()
    cluster.read(1, 1)
    beats = cluster.take(Heartbeat)
    cluster.change(1, 5, ANOTHER)
    cluster.lose(HeartbeatReply)
    for beat in beats:
        cluster.hand(*beat)
    cluster.settle_but(Heartbeat)
    assert not serves_at_once(cluster, 1, 7)


def test_there_is_none_before_the_genesis_entry() -> None:
    cluster = Cluster(3, settings=LEASED)
    cluster.stand(1)
    cluster.settle_but(Accept)
    assert cluster.leaders() == [1]
    assert not serves_at_once(cluster, 1, 7)


def test_a_new_leader_serves_nothing_before_it_has_decided_what_it_took_over() -> None:
    cluster = leased()
    cluster.time_us += HOLD_US
    cluster.tick()
    cluster.settle()
    cluster.node(2).campaign()
    cluster.turn(2)
    cluster.settle_but(Accept)
    assert cluster.leaders() == [2]
    cluster.read(2, 7)
    cluster.settle_but(Accept)
    assert 7 not in cluster.hosts[2].reads
