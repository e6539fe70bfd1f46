from paxos_rsm.paxos.messages import Accept, Accepted
from tests.unit.paxos.harness import Cluster

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
