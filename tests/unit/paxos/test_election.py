from collections.abc import Iterable

import pytest

from paxos_rsm.paxos.core import Core
from paxos_rsm.paxos.election import Election
from paxos_rsm.paxos.messages import Accept, Accepted, Heartbeat, Nack, Prepare, Promise
from paxos_rsm.paxos.types import NO_BALLOT, Ballot
from tests.unit.paxos.harness import SETTINGS, Cluster, members

T = SETTINGS.election_ticks


class Always:
    """Draws the largest number, or the smallest."""

    def __init__(self, largest: bool = True) -> None:
        self.largest = largest

    def randint(self, a: int, b: int, /) -> int:
        return b if self.largest else a


def election(count: int = 3, phase2: int = 0) -> Election:
    """That of member 1."""
    core = Core(1, SETTINGS, Always())
    core.configurations.decided(1, members(count, phase2))
    core.log.decided_through = 1
    return Election(core)


def beat(
    ballot: Ballot = NO_BALLOT,
    leading: bool = False,
    alive: bool = False,
    reach: Iterable[int] = (1, 2, 3),
    through: int = 1,
) -> Heartbeat:
    """A heartbeat."""
    return Heartbeat(ballot, leading, alive, through, 0, frozenset(reach), NO_BALLOT)


# ---- who is there ------------------------------------------------------------------------------------------------


def test_who_is_silent_for_an_election_time_out_is_absent() -> None:
    mine = election()
    mine.heartbeat(2, beat())
    mine._core.now += T
    assert mine.reach() == {1, 2}
    mine._core.now += 1
    assert mine.reach() == {1}


def test_a_link_is_a_member_that_i_hear_and_that_hears_me() -> None:
    mine = election()
    mine.heartbeat(2, beat(reach=[2, 3]))
    mine.heartbeat(3, beat(reach=[1, 3]))
    mine.heartbeat(9, beat(reach=[1, 9]))
    assert mine.reach() == {1, 2, 3}
    assert mine.links() == {1, 3}


def test_nothing_that_a_peer_said_before_its_streams_broke_counts_afterwards() -> None:
    """It may have restarted: any message makes it heard again, and must not bring old opinions back."""
    mine = election()
    mine.heartbeat(2, beat(Ballot(5, 2), leading=True, alive=True))
    mine.lost(2)
    mine.heard(2)
    assert mine.links() == {1}
    assert mine.leader() is None
    assert mine.peers[2].decided_through == 0


# ---- who leads ---------------------------------------------------------------------------------------------------


def test_the_leader_is_the_highest_ballot_among_those_that_lead_and_hear_a_quorum() -> None:
    mine = election(5)
    mine.heartbeat(2, beat(Ballot(5, 2), leading=True, reach=[1, 2, 3]))
    mine.heartbeat(3, beat(Ballot(6, 3), leading=True, reach=[1, 3, 4]))
    mine.heartbeat(4, beat(Ballot(7, 4), leading=True, reach=[1, 4]))  # without a quorum of reach
    mine.heartbeat(5, beat(Ballot(9, 3), leading=False))  # hearsay
    assert mine.leader() == (3, Ballot(6, 3))


def test_an_accept_makes_its_sender_the_leader_whatever_it_said_before() -> None:
    mine = election()
    mine.heartbeat(2, beat())
    mine.heard_leader(2, Ballot(5, 2))
    assert mine.leader() == (2, Ballot(5, 2))


def test_frames_go_to_the_leader_or_to_a_member_that_follows_one() -> None:
    mine = election(5)
    assert mine.route() is None
    mine.heartbeat(4, beat(Ballot(5, 3), alive=True))
    mine.heartbeat(5, beat(Ballot(4, 2), alive=True))
    assert mine.route() == 4
    mine.heartbeat(3, beat(Ballot(5, 3), leading=True, alive=True))
    assert mine.route() == 3


def test_frames_do_not_go_to_a_member_that_follows_me_or_nobody() -> None:
    """A server that has just stepped down would get its own frames back; who supports a candidate knows no leader."""
    mine = election()
    mine.heartbeat(2, beat(Ballot(5, 1), alive=True))
    mine.heartbeat(3, beat(NO_BALLOT, alive=True))
    assert mine.route() is None


def test_a_leader_is_outranked_by_what_a_member_follows() -> None:
    mine = election()
    mine.heartbeat(2, beat(Ballot(5, 3), alive=True))
    assert mine.outranked(Ballot(4, 1))
    assert not mine.outranked(Ballot(5, 3))
    mine._core.now += T + 1
    assert not mine.outranked(Ballot(4, 1))


# ---- when to stand -----------------------------------------------------------------------------------------------


def test_who_has_no_quorum_of_links_does_notcampaign() -> None:
    mine, configuration = election(5), members(5)
    mine._core.now = T
    mine.heartbeat(2, beat(reach=[1, 2]))
    mine.heartbeat(3, beat(reach=[3]))
    assert not mine.should_stand(configuration)
    mine.heartbeat(3, beat(reach=[1, 3]))
    assert mine.should_stand(configuration)


def test_a_candidate_asks_before_it_disturbs() -> None:
    """The pre-vote: a quorum of its links must miss a leader, too."""
    mine, configuration = election(5), members(5)
    mine._core.now = T
    for peer in (2, 3, 4, 5):
        mine.heartbeat(peer, beat(alive=peer > 2))
    assert not mine.should_stand(configuration)
    mine.heartbeat(3, beat())
    assert mine.should_stand(configuration)


def test_who_is_no_member_does_notcampaign() -> None:
    mine = election()
    mine._core.now = T
    for peer in (2, 3):
        mine.heartbeat(peer, beat())
    others = [m for m in members(4).members if m.incarnation != 1]
    configuration = members(3)
    assert mine.should_stand(configuration)
    assert not mine.should_stand(type(configuration)(7, tuple(others), configuration.quorum))


def test_waits_grow_with_failed_attempts_up_to_a_bound_and_are_forgotten_under_a_leader() -> None:
    mine = election()
    waits = []
    for _ in range(6):
        mine.give_way()
        waits.append(mine.stand_at)
        mine.next_ballot(NO_BALLOT)
    assert waits == [T + 1, 2 * T + 1, 4 * T + 1, 4 * T + 1, 4 * T + 1, 4 * T + 1]
    mine.content()
    mine._core.now += T
    mine.content()
    assert mine.attempts == 0


def test_who_gives_way_is_not_called_back_by_the_leader_that_it_was() -> None:
    """The wait of a leader that stalled must outlast the first tick on which it misses itself."""
    mine = election()
    mine.content()
    mine.attempts = 1
    mine.give_way()
    mine.missing()
    assert mine.stand_at == 2 * T + 1


def test_a_lost_leader_starts_one_random_wait() -> None:
    mine = election()
    mine.content()
    mine._core.now = 100
    mine.missing()
    assert mine.stand_at == 100 + T
    mine._core.now = 105
    mine.missing()
    assert mine.stand_at == 100 + T


def test_a_promise_gives_the_candidate_time() -> None:
    mine = election()
    mine._core.now = 100
    mine.support()
    assert mine.supports
    assert mine.stand_at == 100 + 2 * T
    mine._core.now += T
    assert not mine.supports


def test_who_supports_a_candidate_does_not_stand_though_its_leader_goes_missing_meanwhile() -> None:
    mine, configuration = election(), members(3)
    mine._core.random = Always(largest=False)
    mine.content()
    mine._core.now = 100
    mine.support()
    mine.missing()
    mine._core.now = 102
    for peer in (2, 3):
        mine.heartbeat(peer, beat())
    assert mine.stand_at < mine._core.now
    assert not mine.should_stand(configuration)
    mine._core.now = 100 + T
    assert mine.should_stand(configuration)


def test_a_ballot_is_above_every_one_heard_of() -> None:
    mine = election()
    mine.heartbeat(2, beat(Ballot(7, 2)))
    mine.note_round(Ballot(9, 3))
    assert mine.next_ballot(Ballot(4, 2)) == Ballot(10, 1)
    assert mine.next_ballot(Ballot(12, 2)) == Ballot(13, 1)


# ---- in a cluster ------------------------------------------------------------------------------------------------


def test_a_leader_refused_by_one_member_prepares_again_above_it() -> None:
    """3 has promised a ballot of 2, which never came to lead: it must not be shut out for ever."""
    cluster = Cluster(3)
    cluster.make_lead(1)
    old = cluster.node(1).proposer.ballot
    cluster.hand(2, 3, Prepare(Ballot(old.round + 5, 2), 2))
    cluster.take(Promise)
    cluster.run(2)
    assert cluster.node(1).proposer.refused_by == {3}
    assert cluster.leaders() == [1]
    cluster.run(T + 2)
    assert cluster.leaders() == [1]
    assert cluster.node(1).proposer.ballot.round == old.round + 6
    cluster.propose(1, b"a")
    cluster.settle()
    assert 2 in cluster.hosts[3].disk.votes


def test_a_leader_refused_by_a_quorum_steps_down_at_once() -> None:
    cluster = Cluster(3)
    cluster.make_lead(1)
    ballot = cluster.node(1).proposer.ballot
    cluster.node(1).step(2, Nack(ballot, Ballot(99, 2)))
    cluster.node(1).step(3, Nack(Ballot(0, 1), Ballot(99, 2)))  # of another ballot
    assert cluster.leaders() == [1]
    cluster.node(1).step(3, Nack(ballot, Ballot(99, 2)))
    assert cluster.leaders() == []


def test_what_was_in_flight_when_a_leader_prepares_again_is_recovered_from_its_own_votes() -> None:
    cluster = Cluster(3)
    cluster.make_lead(1)
    cluster.hold_writes = {1}
    cluster.propose(1, b"a")
    cluster.propose(1, b"b")
    cluster.take(Accept)
    cluster.node(1).campaign()
    cluster.turn(1)
    assert cluster.leaders() == []
    cluster.hold_writes = set()
    cluster.sync(1)
    cluster.settle()
    assert cluster.leaders() == [1]
    assert cluster.hosts[1].frames() == [b"a", b"b"]


def test_a_stalled_leader_steps_down_and_lets_others_go_first() -> None:
    """Its own disk has stopped, and no Accepted gets through: nothing is decided for an election time-out."""
    cluster = Cluster(3)
    cluster.make_lead(1)
    cluster.hold_writes = {1}
    cluster.run(T)  # the first decision of a leadership may take twice as long
    cluster.propose(1, b"a")
    for _ in range(T):
        assert cluster.leaders() == [1]
        cluster.run(1, Accepted)
    cluster.run(1, Accepted)
    assert cluster.leaders() == []
    assert cluster.node(1).election.stand_at > cluster.node(1)._core.now + T // 2


def test_a_leader_that_lost_its_links_steps_down() -> None:
    cluster = Cluster(5)
    cluster.make_lead(1)
    cluster.only((1, 2))
    cluster.calm(2 * T + 2)
    assert cluster.leaders() == []


def test_a_candidate_that_gets_no_further_gives_up() -> None:
    """Its links look well, but no Promise comes: it must not hold up the others, which support it."""
    cluster = Cluster(3)
    cluster.make_lead(2)
    cluster.node(2).proposer.give_up()
    cluster.stand(1)
    cluster.lose(Promise)
    for _ in range(2 * T):
        assert cluster.node(1).role == "candidate"
        cluster.calm(1, Promise)
    cluster.calm(1, Promise)
    assert cluster.node(1).role == "follower"


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7])
def test_every_size_finds_a_leader(count: int) -> None:
    cluster = Cluster(count)
    leader = cluster.elect()
    cluster.propose(leader, b"a")
    cluster.run(2)
    assert all(host.frames() == [b"a"] for host in cluster.hosts.values())


def test_a_killed_leader_is_missed_without_waiting_for_the_time_out() -> None:
    cluster = Cluster(3)
    cluster.make_lead(1)
    cluster.crash(1)
    for number in (2, 3):
        cluster.node(number).peer_down(1)
        cluster.node(number).election.stand_at = 0
    ticks = 0
    while not cluster.leaders():
        cluster.run(1)
        ticks += 1
    assert ticks <= T + 2  # the random wait, and phase 1
