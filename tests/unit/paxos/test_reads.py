from paxos_rsm.paxos.messages import HeartbeatReply, ReadReply, ReadRequest
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
