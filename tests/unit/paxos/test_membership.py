from dataclasses import replace
from random import Random

import pytest

from paxos_rsm.errors import ConfigError
from paxos_rsm.paxos.membership import Configuration, ConfigurationHistory, Member
from paxos_rsm.paxos.messages import Accept, Accepted, CatchUp, Decide, Heartbeat, Prepare, Promise
from paxos_rsm.paxos.node import Node
from paxos_rsm.paxos.quorum import QuorumSizes
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, ConfigChange
from tests.unit.paxos.harness import SETTINGS, Cluster, members

THREE = members(3)


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ("incarnation", "share one incarnation"),
        ("member_id", "share one member id"),
        ("name", "share one name"),
    ],
)
def test_members_share_nothing_that_names_them(field: str, says: str) -> None:
    first, second = THREE.members[:2]
    twin = replace(second, **{field: getattr(first, field)})
    with pytest.raises(ConfigError, match=says):
        replace(THREE, members=(first, twin, THREE.members[2])).validate()


def test_a_configuration_has_members_and_quorums_for_as_many() -> None:
    with pytest.raises(ConfigError, match="at least one member"):
        Configuration(7, (), QuorumSizes.majority(0)).validate()
    with pytest.raises(ConfigError, match="for 5 members that vote, there are 3"):
        replace(THREE, quorum=QuorumSizes.majority(5)).validate()
    with pytest.raises(ConfigError, match="can miss"):
        replace(THREE, quorum=QuorumSizes(3, 1, 2)).validate()
    THREE.validate()


def test_learners_count_in_no_quorum_and_may_have_no_incarnation_yet() -> None:
    learner = Member(4, 104, "n4", "http://n4", learner=True)
    pending = Member(0, 105, "", "http://n5", learner=True, promote=True)
    grown = replace(THREE, members=(*THREE.members, learner, pending))
    grown.validate()
    assert grown.nodes == THREE.nodes
    assert grown.everybody == {1, 2, 3, 4}
    assert not grown.is_phase1_quorum([1, 4])
    assert grown.by_member_id(105) is pending
    with pytest.raises(ConfigError, match="votes whose incarnation is not known"):
        replace(grown, members=(*THREE.members[:2], replace(pending, learner=False))).validate()
    with pytest.raises(ConfigError, match="members again: \\[2\\]"):
        replace(THREE, removed=(2,)).validate()


def test_only_members_count_towards_a_quorum() -> None:
    assert THREE.is_phase1_quorum([1, 3])
    assert not THREE.is_phase1_quorum([1, 4, 5])
    assert not THREE.is_phase2_quorum([1, 1, 1])
    flexible = members(5, phase2=2)
    assert flexible.is_phase2_quorum([4, 5])
    assert not flexible.is_phase1_quorum([1, 2, 3])
    assert flexible.is_phase1_quorum([1, 2, 3, 4])


def test_a_member_is_found_by_its_incarnation_only() -> None:
    found = THREE.by_incarnation(2)
    assert found is not None
    assert found.name == "n2"
    assert THREE.by_incarnation(102) is None


def test_a_change_governs_from_the_next_slot_on() -> None:
    history = ConfigurationHistory()
    assert history.governing(1) is None
    assert history.current is None
    history.decided(1, THREE)
    five = members(5)
    history.decided(9, five)
    assert history.governing(2) is THREE
    assert history.governing(9) is THREE
    assert history.governing(10) is five
    assert history.current is five


def test_slot_1_is_governed_by_every_initial_member() -> None:
    history = ConfigurationHistory()
    history.meet(THREE)
    founders = history.governing(1)
    assert founders is not None
    assert founders.members == THREE.members
    assert founders.quorum == QuorumSizes.unanimous(3)
    assert history.forming is THREE


# ---- the genesis entry, in a cluster (rule 9) --------------------------------------------------------------------


def test_genesis_needs_every_member_not_a_quorum() -> None:
    """A majority that has met everybody does not form the cluster while one is away; then it does."""
    cluster = Cluster(3)
    cluster.partition({1, 2}, {3})
    cluster.run(100)
    assert not cluster.oracle.chosen
    assert not cluster.oracle.ballots
    cluster.heal()
    leader = cluster.elect()
    assert cluster.oracle.chosen[1] == ConfigChange(cluster.configuration)
    cluster.run(4)
    assert [h.node.configuration for h in cluster.hosts.values()] == [cluster.configuration] * 3
    cluster.partition({leader, leader % 3 + 1}, {(leader + 1) % 3 + 1})
    cluster.propose(leader, b"a")
    cluster.settle()
    assert cluster.oracle.applied_through == 2  # from slot 2 on, a majority is enough


def test_genesis_names_the_quorums_of_later_slots() -> None:
    cluster = Cluster(5, phase2=2)
    leader = cluster.elect()
    configuration = cluster.node(leader).configuration
    assert configuration is not None
    assert configuration.quorum == QuorumSizes(5, 4, 2)


def test_members_that_meet_under_another_incarnation_start_phase_1_anew() -> None:
    """A member is wiped before the genesis entry is decided: what was asked of the old one does not count."""
    cluster = Cluster(3)
    cluster.stand(1)
    cluster.settle_but(Accept)
    assert cluster.leaders() == [1]
    node = cluster.node(1)
    again = Member(33, 103, "n3", "http://n3:2380")
    node.meet(replace(THREE, members=(*THREE.members[:2], again)))
    assert cluster.leaders() == []
    for sender in (1, 2, 3):
        node.step(sender, Accepted(node.proposer.ballot, (1,)))
    assert node.configuration is None
    node.check()


def test_nobody_is_met_anew_once_the_genesis_entry_is_decided() -> None:
    cluster = Cluster(3)
    leader = cluster.node(cluster.elect())
    leader.meet(members(5))
    assert leader.configuration == THREE
    assert leader.proposer.leading


def test_nobody_votes_beyond_a_genesis_entry_that_it_does_not_know_to_be_decided() -> None:
    """Otherwise slot 2 could be decided while only a minority knows that slot 1 is, and be lost with that minority."""
    cluster = Cluster(5)
    cluster.stand(1)
    cluster.lose(Decide, Heartbeat)  # all have voted in slot 1; only its leader knows that it is decided
    cluster.hand(1, 2, Decide(cluster.node(1).proposer.ballot, 1))
    cluster.crash(1)
    assert [h.node.decided_through for h in cluster.hosts.values()] == [1, 1, 0, 0, 0]
    cluster.calm(2 * SETTINGS.election_ticks, CatchUp)
    cluster.stand(2, CatchUp)
    cluster.lose(CatchUp)
    cluster.run(4, CatchUp)
    assert cluster.leaders() == [2]
    assert cluster.node(2).proposer.in_flight.keys() == {2}
    assert not any(2 in h.disk.votes for n, h in cluster.hosts.items() if n > 2)
    cluster.run(8)  # CatchUp gets through: they learn slot 1, and vote in slot 2 when it is sent again
    assert [cluster.node(n).decided_through for n in (2, 3, 4, 5)] == [2] * 4


def test_a_server_restarted_alone_in_a_formed_cluster_is_brought_up_before_it_meets_anybody() -> None:
    cluster = Cluster(3)
    cluster.make_lead(1)
    cluster.crash(3)
    cluster.hosts[3].disk.votes.clear()
    cluster.hosts[3].disk.decided_through = 0
    cluster.restart(3, meet=False)
    cluster.run(2)
    assert cluster.node(3).configuration == cluster.configuration


def test_a_leader_prepares_again_when_a_recovered_change_names_members_that_did_not_promise() -> None:
    """Two of three servers are wiped behind the back of the third, which alone holds a vote in slot 1.

    It meets the new ones, recovers the old genesis entry with their votes, and must not go on in a ballot that the
    members named there have not promised: they may hold votes in slot 2.
    """
    ballot = Ballot(1, 2)
    node = Node(1, SETTINGS, Random(0), promised=ballot, votes={1: (ballot, ConfigChange(THREE))})
    wiped = (Member(22, 102, "n2", "http://n2:2380"), Member(33, 103, "n3", "http://n3:2380"))
    node.meet(replace(THREE, members=(THREE.members[0], *wiped)))
    node.election.stand_at = 0
    for peer in (22, 33):
        node.step(peer, Heartbeat(NO_BALLOT, False, False, 0, 0, frozenset({1, 22, 33}), NO_BALLOT))
    node.tick()
    first = node.proposer.ballot
    for sender in (1, 22, 33):
        node.step(sender, Promise(first, 1, None, (), ()))
    assert {e.to for e in node.ready().messages if isinstance(e.message, Accept)} == {22, 33}
    for sender in (1, 22, 33):
        node.step(sender, Accepted(first, (1,)))
    node.propose([b"a"])
    ready = node.ready()
    assert node.configuration == THREE
    assert not [e for e in ready.messages if isinstance(e.message, Accept)]
    prepares = [(e.to, e.message) for e in ready.messages_after_writes if isinstance(e.message, Prepare)]
    assert prepares == [(2, Prepare(node.proposer.ballot, 2)), (3, Prepare(node.proposer.ballot, 2))]
    assert node.proposer.ballot > first


def test_the_newest_configuration_is_that_of_the_next_slot() -> None:
    history = ConfigurationHistory()
    seen = [history.newest]
    history.meet(THREE)
    seen.append(history.newest)
    assert seen == [None, history.governing(1)]
    history.decided(1, THREE)
    assert history.newest == history.governing(2) == THREE
    history.meet(replace(THREE, cluster_id=9))
    assert history.newest == THREE, "what has been decided is no more changed by who meets"
