from tests.unit.paxos.harness import SETTINGS, Cluster


def test_what_a_node_says_of_itself() -> None:
    cluster = Cluster(3)
    node = cluster.node(2)
    assert (node.me, node.role, node.configuration, node.decided_through) == (2, "forming", None, 0)
    assert node.may_campaign
    assert (node.leader, node.way, node.leader_age_ticks) == (None, None, None)
    cluster.make_lead(1)
    assert [h.node.role for h in cluster.hosts.values()] == ["leader", "follower", "follower"]
    ballot = cluster.node(1).proposer.ballot
    assert node.leader == (1, ballot)
    assert node.way == (1, ballot, 1)
    assert node.configuration == cluster.configuration
    assert node.log.get(1) is not None
    assert node.compacted_through == 0
    assert not node.removed
    assert node.leader_age_ticks in range(SETTINGS.election_ticks)


def test_a_candidate_says_so() -> None:
    cluster = Cluster(3)
    cluster.stand(3)
    assert cluster.node(3).proposer.ballot.node == 3
    assert cluster.node(3).role == "forming"
    cluster.settle()
    cluster.run(2)
    cluster.node(1).campaign()
    assert cluster.node(1).role == "candidate"
