"""A leadership that is handed over: to whom, when, and what becomes of what was in flight (succession.py)."""

from paxos_rsm.paxos.changes import AddMember
from paxos_rsm.paxos.membership import Member
from paxos_rsm.paxos.messages import Accept, Accepted, HandOver, Heartbeat, Prepare
from paxos_rsm.paxos.types import Ballot
from tests.unit.paxos.harness import SETTINGS, Cluster


def led(count: int = 3) -> Cluster:
    cluster = Cluster(count)
    cluster.make_lead(1)
    cluster.calm(2)
    return cluster


def test_a_voter_leads_without_a_tick() -> None:
    cluster = led()
    assert cluster.hand_over(1, 3) == 3
    cluster.settle()
    assert cluster.leaders() == [3]
    cluster.propose(3, b"a")
    cluster.settle()
    assert cluster.hosts[1].frames() == cluster.hosts[3].frames() == [b"a"]


def test_it_waits_until_the_heir_holds_what_is_in_flight_and_proposes_nothing_new() -> None:
    cluster = led()
    cluster.propose(1, b"a")
    cluster.hand_over(1, 3)
    cluster.propose(1, b"b")
    assert cluster.take(HandOver) == []
    assert len(cluster.node(1).proposer.in_flight) == 1
    late = cluster.take(Accept, to=3)
    cluster.settle()
    assert cluster.take(HandOver) == [], "2 is enough to decide, and it is 3 that is to lead"
    assert cluster.leaders() == [1]
    cluster.wire += late
    cluster.settle()
    assert cluster.leaders() == [3]
    assert cluster.hosts[3].frames() == [b"a"], "b waited at 1, and its owner asks again"


def test_without_a_wish_it_is_the_one_that_holds_most() -> None:
    cluster = led()
    cluster.cut = {(1, 2)}
    cluster.propose(1, b"a")
    cluster.settle()
    assert cluster.hand_over(1) == 3
    assert cluster.node(1).hand_over() == 3, "asked again, it goes on as it is"


def test_to_nobody_that_could_not_lead() -> None:
    cluster = led()
    assert cluster.hand_over(2) is None
    assert cluster.hand_over(1, 1) is None
    assert cluster.hand_over(1, 9) is None
    cluster.crash(3)
    cluster.calm(SETTINGS.election_ticks + 2)
    assert cluster.hand_over(1, 3) is None
    cluster.change(1, 1, AddMember(Member(0, 104, "", "http://n4:2380", promote=False)))
    cluster.add(4)
    cluster.settle()
    cluster.introduce(1)
    cluster.calm(4)
    assert 4 in cluster.node(1).election.links()
    assert cluster.hand_over(1, 4) is None
    assert not cluster.node(1).proposer.paused


def test_where_the_heir_does_not_come_to_lead_the_leader_goes_on() -> None:
    cluster = led()
    cluster.hand_over(1, 3)
    cluster.propose(1, b"a")
    cluster.take(HandOver)
    cluster.settle()
    assert not cluster.hosts[2].frames()
    cluster.calm(SETTINGS.election_ticks + 2)
    assert cluster.leaders() == [1]
    assert cluster.hosts[2].frames() == [b"a"]
    assert cluster.hand_over(1, 2) == 2


def test_the_word_of_a_leader_that_is_none_any_more_moves_nobody() -> None:
    cluster = led()
    old = cluster.node(1).proposer.ballot
    cluster.node(2).campaign()
    cluster.turn(2)
    cluster.settle()
    assert cluster.leaders() == [2]
    cluster.hand(1, 3, HandOver(old))
    cluster.hand(1, 3, HandOver(Ballot(99, 2)))
    assert cluster.take(Prepare) == []
    cluster.settle()
    assert cluster.leaders() == [2]


def test_the_heir_gives_way_to_whoever_has_led_since() -> None:
    cluster = led()
    cluster.hand_over(1, 3)
    told = cluster.take(HandOver)
    cluster.node(2).campaign()
    cluster.turn(2)
    cluster.settle()
    cluster.propose(2, b"a")
    cluster.settle()
    for sender, to, message in told:
        cluster.hand(sender, to, message)
    cluster.settle()
    assert cluster.leaders() == [2]


def test_what_was_in_flight_is_decided_by_the_heir() -> None:
    cluster = led()
    cluster.propose(1, b"a")
    cluster.hand_over(1, 3)
    for sender, to, message in cluster.take(Accept, to=3):
        cluster.hand(sender, to, message)
    for sender, to, accepted in cluster.take(Accepted, 3, 1):
        cluster.cut = {(1, 2), (2, 1)}
        cluster.hand(sender, to, accepted)
    cluster.settle_but(Heartbeat)
    cluster.heal()
    cluster.settle()
    cluster.run(2)
    assert cluster.leaders() == [3]
    assert all(host.frames() == [b"a"] for host in cluster.hosts.values())
