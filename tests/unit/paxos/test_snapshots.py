"""A log that starts late, and a state that comes from a snapshot (rule 7)."""

import random

import pytest

from paxos_rsm.errors import InvariantViolation
from paxos_rsm.paxos.membership import Base
from paxos_rsm.paxos.messages import Accept, Accepted, CatchUpReply, Heartbeat, Promise
from paxos_rsm.paxos.node import Node
from paxos_rsm.paxos.ready import WriteCompacted
from paxos_rsm.paxos.types import Ballot, ConfigChange, Noop
from tests.unit.paxos.harness import SETTINGS, Cluster, batch, members

OLD = Ballot(3, 2)
BASE = Base(9, 1, members(3))


def beat(cluster: Cluster, number: int) -> Heartbeat:
    """What a follower says that hears everybody."""
    node = cluster.node(number)
    promised = node.acceptor.promised
    return Heartbeat(promised, False, True, node.decided_through, 0, frozenset(cluster.hosts), promised)


def grown(frames: int = 6) -> tuple[Cluster, int]:
    """A cluster whose host 3 has missed all but the beginning, and its leader, which has forgotten that."""
    cluster = Cluster(3)
    cluster.stand(1)
    leader = cluster.elect()
    assert leader == 1
    cluster.calm()
    cluster.crash(3)
    for number in range(frames):
        cluster.propose(1, b"%d" % number)
        cluster.settle()
        cluster.run(1)
    cluster.snapshot(1)
    return cluster, leader


def test_a_follower_behind_the_log_takes_the_snapshot_and_goes_on() -> None:
    cluster, leader = grown()
    assert not any(slot <= cluster.node(1).compacted_through for slot in cluster.node(1).log.slots)
    cluster.restart(3)
    cluster.calm(8)
    assert cluster.hosts[3].wants is not None
    assert cluster.hosts[3].wants[0] == leader
    assert cluster.fetch(3)
    cluster.calm(8)
    cluster.propose(1, b"after")
    cluster.settle()
    cluster.calm(2)
    assert cluster.hosts[3].applied == cluster.hosts[1].applied
    assert cluster.node(3).configuration == cluster.configuration


def test_a_crash_between_the_snapshot_and_the_log_is_taken_up_again() -> None:
    cluster, _ = grown()
    cluster.restart(3)
    cluster.calm(8)
    cluster.fetch(3, crash=True)
    assert cluster.hosts[3].disk.compacted_through == 0
    cluster.restart(3)
    assert cluster.node(3).decided_through == cluster.hosts[1].disk.snapshot[0].slot  # type: ignore[index]
    assert cluster.hosts[3].disk.compacted_through == cluster.node(3).decided_through
    cluster.calm(3)
    assert cluster.hosts[3].applied == cluster.hosts[1].applied


def test_votes_that_the_log_holds_below_a_newer_snapshot_are_forgotten() -> None:
    """They may be of a ballot that lost: that the snapshot is of a later slot decides nothing about them."""
    votes = {slot: (OLD, batch(b"lost")) for slot in (8, 9, 10)}
    node = Node(1, SETTINGS, random.Random(0), promised=OLD, votes=votes, decided_through=0, base=BASE)
    assert node.decided_through == node.compacted_through == 9
    assert set(node.log.slots) == node.log.undecided == {10}
    assert WriteCompacted(9) in node.ready().writes


def test_a_tail_of_the_log_below_the_snapshot_is_kept_and_not_applied_again() -> None:
    votes = {slot: (OLD, batch(b"%d" % slot)) for slot in range(6, 13)}
    node = Node(
        1,
        SETTINGS,
        random.Random(0),
        promised=OLD,
        votes=votes,
        decided_through=11,
        compacted_through=5,
        base=BASE,
    )
    assert [slot for slot, _ in node.ready().decided] == [10, 11]
    assert node.log.decided_from(6, 20, 1 << 20)[0][0] == 6
    assert node.configuration == BASE.configuration
    node.check()


def test_without_its_snapshot_a_server_releases_nothing_and_forms_nothing() -> None:
    cluster, _ = grown()
    cluster.crash(1)
    cluster.hosts[1].disk.snapshot = None
    cluster.restart(1)
    node = cluster.node(1)
    assert node.configuration is None
    assert node.role == "forming"
    assert not node.may_campaign
    assert cluster.hosts[1].applied == []
    assert not node.may_install(node.compacted_through - 1)


def test_a_snapshot_that_was_lost_comes_back_from_another() -> None:
    cluster, _ = grown()
    cluster.restart(3)
    cluster.crash(1)
    cluster.hosts[1].disk.snapshot = None
    cluster.restart(1)
    cluster.elect()
    cluster.run(12)
    assert cluster.fetch(1)
    cluster.run(12)
    assert cluster.hosts[1].applied == cluster.hosts[2].applied


def test_what_others_still_have_covers_a_slot_that_one_has_compacted() -> None:
    cluster = Cluster(3)
    cluster.stand(1)
    cluster.elect()
    cluster.calm()
    cluster.crash(3)
    cluster.propose(1, b"a")
    cluster.settle()
    cluster.calm(2)
    cluster.snapshot(2)
    cluster.restart(3)
    cluster.node(1).proposer.give_up()
    cluster.wire.clear()
    cluster.stand(3)
    ballot = cluster.node(3).acceptor.promised
    first = cluster.node(3).decided_through + 1
    cluster.wire.clear()
    through = cluster.node(2).compacted_through
    cluster.hand(2, 3, Promise(ballot, first, through, (), (), through))
    assert cluster.leaders() == []
    decided = tuple((slot, cluster.node(1).log.slots[slot].entry) for slot in range(first, through + 1))
    cluster.hand(1, 3, Promise(ballot, first, None, (), decided))
    assert cluster.leaders() == [3]


def test_a_leader_installs_nothing() -> None:
    cluster = Cluster(3)
    leader = cluster.elect()
    assert not cluster.node(leader).may_install(1 << 20)
    with pytest.raises(InvariantViolation, match="at a leader"):
        cluster.node(leader).install(BASE)


def test_slots_are_never_taken_back() -> None:
    cluster, _ = grown()
    node = cluster.node(2)
    assert not node.may_install(node.decided_through)
    with pytest.raises(InvariantViolation, match="only slots up to"):
        node.compact(node.decided_through + 1)
    with pytest.raises(InvariantViolation, match="rule 7"):
        node.log.install(1)


def test_a_snapshot_before_the_genesis_entry_makes_no_sense() -> None:
    with pytest.raises(InvariantViolation, match="before the genesis entry"):
        Node(1, SETTINGS, random.Random(0)).base(0)


def test_a_base_says_what_governed_at_its_slot_and_not_what_governs_now() -> None:
    votes = {slot: (None, Noop()) for slot in range(2, 6)}
    changed = ConfigChange(members(1))
    node = Node(
        1,
        SETTINGS,
        random.Random(0),
        votes={1: (None, ConfigChange(members(3))), **votes, 6: (None, changed)},
        decided_through=6,
    )
    assert node.base(5) == Base(5, 1, members(3))
    assert node.base(6) == Base(6, 6, members(1))


def test_a_reply_from_a_log_that_starts_later_names_whom_to_ask_for_a_snapshot() -> None:
    cluster = Cluster(3)
    cluster.elect()
    cluster.calm()
    node = cluster.node(3)
    cluster.hand(2, 3, CatchUpReply(OLD, (), 90, compacted_through=80))
    assert cluster.hosts[3].wants == (2, node.decided_through + 1)


def test_a_leader_that_cannot_decide_what_another_has_compacted_gives_up_and_takes_its_snapshot() -> None:
    """What is decided beyond the hole in the meantime is no progress. Found by chance: seed 10625 of the fuzz."""
    cluster = Cluster(3)
    leader = cluster.elect()
    cluster.calm()
    cluster.hold_writes = {1, 2, 3}
    cluster.propose(leader, b"a")
    cluster.wire.clear()
    node = cluster.node(leader)
    slot = node.proposer.next_slot - 1
    other = 1 + leader % 3
    patience = SETTINGS.election_ticks
    for _ in range(3 * patience):
        cluster.tick(leader)
        for peer in set(cluster.hosts) - {leader}:
            cluster.hand(peer, leader, beat(cluster, peer))
        cluster.hand(other, leader, CatchUpReply(node.acceptor.promised, (), slot + 2, slot + 2))
        if not node.proposer.leading:
            break
    assert not node.proposer.leading
    assert cluster.hosts[leader].wants == (other, slot)


def test_a_compacted_slot_is_not_voted_on_again() -> None:
    cluster, _ = grown()
    cluster.node(1).proposer.give_up()
    ballot = Ballot(50, 2)
    cluster.wire.clear()
    cluster.hand(2, 1, Accept(ballot, 2, batch(b"other"), 1))
    through = cluster.node(1).compacted_through
    assert cluster.take(CatchUpReply, sender=1) == [
        (1, 2, CatchUpReply(cluster.node(1).acceptor.promised, (), through, through))
    ]
    assert not cluster.take(Accepted)
