"""A cluster that was founded on a restored state: its log does not say all, and nobody is to believe that it does."""

import random

from paxos_rsm.paxos.changes import AddMember
from paxos_rsm.paxos.membership import Member
from paxos_rsm.paxos.messages import CatchUp, CatchUpReply, Heartbeat
from paxos_rsm.paxos.node import Node
from paxos_rsm.paxos.types import NO_BALLOT
from tests.unit.paxos.harness import SETTINGS, Cluster


def restored(*, crashed: int = 0) -> Cluster:
    """Three that began with a restored state, and have decided something; one of them perhaps without having heard."""
    cluster = Cluster(3)
    for host in cluster.hosts.values():
        host.node._core.restored = True
    cluster.make_lead(1)
    if crashed:
        cluster.crash(crashed)
    cluster.propose(1, b"a")
    cluster.settle()
    cluster.calm()
    return cluster


def asked(cluster: Cluster, sender: int) -> CatchUpReply:
    """What a member answers to one that asks for everything."""
    cluster.hand(sender, 1, CatchUp(1, 9))
    [(_, _, reply)] = cluster.take(CatchUpReply, 1, sender)
    return reply


def test_a_first_member_gets_the_log_from_slot_1() -> None:
    reply = asked(restored(), 2)
    assert [slot for slot, _ in reply.entries][:2] == [1, 2]
    assert reply.compacted_through == 0


def test_anybody_else_is_told_that_a_snapshot_has_to_come_first() -> None:
    cluster = restored()
    reply = asked(cluster, 4)
    assert (reply.entries, reply.compacted_through) == ((), 1)
    assert reply.decided_through == cluster.node(1).decided_through
    cluster.snapshot(1)
    assert asked(cluster, 4).compacted_through == cluster.node(1).compacted_through > 1


def test_a_server_that_joins_takes_a_snapshot_though_the_log_reaches_back_to_slot_1() -> None:
    cluster = restored()
    cluster.change(1, 7, AddMember(Member(0, 104, "n4", "http://n4:2380", learner=True, promote=True)))
    cluster.settle()
    cluster.add(4)
    cluster.introduce(1)
    cluster.settle()
    cluster.calm(6)
    assert not cluster.hosts[4].applied
    assert cluster.hosts[4].wants is not None
    assert cluster.fetch(4)
    cluster.calm(6)
    cluster.propose(1, b"after")
    cluster.settle()
    cluster.calm()
    assert cluster.hosts[4].applied == cluster.hosts[1].applied
    configuration = cluster.node(1).configuration
    assert configuration is not None
    assert 4 in configuration.nodes


def test_a_first_member_that_has_lost_the_restored_state_applies_nothing_before_a_snapshot() -> None:
    cluster = restored(crashed=3)
    host = cluster.hosts[3]
    host.restart()
    disk = host.disk
    host.node = Node(
        3,
        SETTINGS,
        random.Random(0),
        promised=disk.promised,
        votes=dict(disk.votes),
        decided_through=disk.decided_through,
        restored=True,
        missing=True,
    )
    cluster.calm(8)
    assert not host.applied
    assert host.node.decided_through
    assert host.wants is not None
    assert host.wants[1] == 1
    assert cluster.fetch(3)
    cluster.calm(8)
    assert host.applied == cluster.hosts[1].applied


def test_whoever_lacks_its_state_asks_nobody_who_has_decided_nothing() -> None:
    node = Node(3, SETTINGS, random.Random(0), restored=True, missing=True)
    node.meet(Cluster(3).configuration)
    for decided_through, asks in ((0, False), (1, True)):
        node.step(1, Heartbeat(NO_BALLOT, False, False, decided_through, 0, frozenset({1, 2, 3}), NO_BALLOT))
        wanted = None
        for _ in range(3 * SETTINGS.heartbeat_ticks):
            node.tick()
            wanted = node.ready().fetch_snapshot or wanted
        assert wanted == ((1, 1) if asks else None)


def test_whoever_lacks_its_state_asks_one_after_the_other() -> None:
    """One of them may lack its state, too, and ask this one: neither would ever be answered."""
    node = Node(3, SETTINGS, random.Random(0), restored=True, missing=True)
    node.meet(Cluster(3).configuration)
    asked = set()
    for _ in range(40):
        for sender in (1, 2):
            node.step(sender, Heartbeat(NO_BALLOT, False, False, 5, 0, frozenset({1, 2, 3}), NO_BALLOT))
        node.tick()
        if (wanted := node.ready().fetch_snapshot) is not None:
            asked.add(wanted)
    assert asked == {(1, 1), (2, 1)}
