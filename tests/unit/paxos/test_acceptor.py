from dataclasses import replace
from random import Random

import pytest

from paxos_rsm.errors import InvariantViolation
from paxos_rsm.paxos.acceptor import SLOTS_AHEAD_MAX
from paxos_rsm.paxos.membership import Base
from paxos_rsm.paxos.messages import (
    Accept,
    Accepted,
    CatchUp,
    CatchUpReply,
    Decide,
    Heartbeat,
    Nack,
    Prepare,
    Promise,
)
from paxos_rsm.paxos.node import Node
from paxos_rsm.paxos.proposer import Phase
from paxos_rsm.paxos.ready import WriteAccepted, WriteCompacted, WriteDecided, WritePromise
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Batch, ConfigChange, Entry, Noop, Slot
from tests.unit.paxos.harness import SETTINGS, Cluster, batch, members

GENESIS = ConfigChange(members(3))


def acceptor(
    promised: Ballot = NO_BALLOT,
    votes: dict[Slot, tuple[Ballot | None, Entry]] | None = None,
    decided_through: Slot = 0,
    chunk_bytes_max: int = 1 << 20,
) -> Node:
    """Server 1 of three, with what its disk held: slot 1, and ``votes``."""
    settings = replace(SETTINGS, chunk_bytes_max=chunk_bytes_max)
    held = {1: (None, GENESIS), **(votes or {})}
    node = Node(
        1, settings, Random(0), promised=promised, votes=held, decided_through=max(1, decided_through)
    )
    node.ready()
    return node


# ---- promises ----------------------------------------------------------------------------------------------------


def test_a_promise_is_said_after_it_is_written() -> None:
    node = acceptor()
    node.step(2, Prepare(Ballot(5, 2), 1))
    ready = node.ready()
    assert ready.writes == [WritePromise(Ballot(5, 2))]
    assert ready.messages == []
    assert [(e.to, e.message) for e in ready.messages_after_writes] == [
        (2, Promise(Ballot(5, 2), 1, None, (), ((1, GENESIS),)))
    ]


def test_a_lower_ballot_is_refused_at_once_and_told_why() -> None:
    node = acceptor(promised=Ballot(5, 2))
    for message in (Prepare(Ballot(4, 3), 1), Accept(Ballot(4, 3), 1, Noop(), 0)):
        node.step(3, message)
        ready = node.ready()
        assert not ready.writes
        assert not ready.messages_after_writes
        assert [(e.to, e.message) for e in ready.messages] == [(3, Nack(Ballot(4, 3), Ballot(5, 2)))]


def test_the_same_ballot_may_ask_again_and_writes_nothing() -> None:
    node = acceptor(promised=Ballot(5, 2))
    node.step(2, Prepare(Ballot(5, 2), 1))
    ready = node.ready()
    assert not ready.writes
    assert len(ready.messages_after_writes) == 1


def test_a_ballot_is_taken_only_from_the_node_that_it_names() -> None:
    """Rule 2: streams are bound to incarnations, so a Prepare or Accept of another's ballot is nobody's."""
    node = acceptor()
    node.step(3, Prepare(Ballot(5, 2), 1))
    node.step(3, Accept(Ballot(5, 2), 1, Noop(), 0))
    assert not node.ready()
    assert node.acceptor.promised == NO_BALLOT


def test_the_promise_never_goes_down() -> None:
    node = acceptor(promised=Ballot(5, 2))
    with pytest.raises(InvariantViolation, match="rule 3"):
        node.acceptor.promise(Ballot(4, 9))


def test_a_promise_reports_votes_and_decisions_from_the_first_slot_wanted_on() -> None:
    """Entries below the sender's own watermark, too: the candidate may know less (rule 5)."""
    ballot = Ballot(3, 2)
    votes: dict[Slot, tuple[Ballot | None, Entry]] = {s: (ballot, batch(b"%d" % s)) for s in (2, 3, 5)}
    votes[6] = None, Noop()
    node = acceptor(ballot, votes, decided_through=2)
    node.step(3, Prepare(Ballot(4, 3), 2))
    [envelope] = node.ready().messages_after_writes
    assert envelope.message == Promise(
        Ballot(4, 3),
        2,
        None,
        ((3, ballot, batch(b"3")), (5, ballot, batch(b"5"))),
        ((2, batch(b"2")), (6, Noop())),
    )


def test_a_long_promise_comes_in_chunks_that_together_cover_everything() -> None:
    ballot = Ballot(3, 2)
    votes: dict[Slot, tuple[Ballot | None, Entry]] = {s: (ballot, batch(b"x")) for s in (2, 3, 7, 8)}
    node = acceptor(ballot, votes, chunk_bytes_max=1)
    covered: list[tuple[Slot, Slot | None, list[Slot]]] = []
    first: Slot | None = 2
    while first is not None:
        node.step(3, Prepare(Ballot(4, 3), first))
        [envelope] = node.ready().messages_after_writes
        chunk = envelope.message
        assert isinstance(chunk, Promise)
        covered.append((chunk.first, chunk.last, [s for s, _, _ in chunk.accepted]))
        first = None if chunk.last is None else chunk.last + 1
    assert covered == [(2, 2, [2]), (3, 6, [3]), (7, 7, [7]), (8, None, [8])]


# ---- votes -------------------------------------------------------------------------------------------------------


def test_a_vote_raises_the_promise_and_is_said_after_it_is_written() -> None:
    node = acceptor(promised=Ballot(2, 3))
    node.step(2, Accept(Ballot(5, 2), 9, Noop(), 0))
    ready = node.ready()
    assert node.acceptor.promised == Ballot(5, 2)
    assert ready.writes == [WriteAccepted(9, Ballot(5, 2), Noop())]
    assert [(e.to, e.message) for e in ready.messages_after_writes] == [(2, Accepted(Ballot(5, 2), (9,)))]
    node.step(3, Prepare(Ballot(4, 3), 1))
    assert [type(e.message) for e in node.ready().messages] == [Nack]


def test_an_accept_that_comes_twice_is_written_once_and_answered_again() -> None:
    node = acceptor()
    accept = Accept(Ballot(5, 2), 2, Noop(), 1)
    node.step(2, accept)
    assert len(node.ready().writes) == 1
    node.step(2, accept)
    ready = node.ready()
    assert not ready.writes
    assert len(ready.messages_after_writes) == 1


def test_votes_of_one_turn_are_answered_together() -> None:
    node = acceptor()
    for slot in (2, 3, 4):
        node.step(2, Accept(Ballot(5, 2), slot, Noop(), 0))
    assert [e.message for e in node.ready().messages_after_writes] == [Accepted(Ballot(5, 2), (2, 3, 4))]


def test_one_ballot_never_has_two_entries_in_a_slot() -> None:
    node = acceptor(votes={2: (Ballot(5, 2), batch(b"x"))}, promised=Ballot(5, 2))
    with pytest.raises(InvariantViolation, match="rule 2"):
        node.log.accept(2, Ballot(5, 2), batch(b"y"))


def test_a_stale_accept_in_a_slot_fetched_as_decided_is_no_breach() -> None:
    """A deposed leader's Accept comes late, to a server that has promised nothing since and fetched the decision.

    The server took it for a broken rule 1 and stopped.
    """
    cluster = Cluster(5)
    cluster.make_lead(1)
    cluster.propose(1, b"x")
    [stale] = cluster.take(Accept, to=3)
    cluster.take(Accept)
    cluster.crash(1)
    cluster.partition({3}, {2, 4, 5})
    cluster.calm(2 * SETTINGS.election_ticks)
    cluster.make_lead(2)
    cluster.propose(2, b"y")
    cluster.settle()
    cluster.heal()
    while cluster.node(3).decided_through < cluster.node(2).decided_through:
        cluster.tick(2, 3, 4, 5)
        cluster.settle_but(Accept)
        cluster.take(Accept)
    assert cluster.node(3).acceptor.promised == stale[2].ballot
    assert cluster.oracle.chosen[2] != stale[2].entry
    cluster.wire.clear()
    cluster.hand(stale[0], stale[1], stale[2])
    assert not cluster.take(Accepted)


def test_a_fetched_decision_is_voted_for_without_being_written_again() -> None:
    """A new leader that does not know it proposes the same entry: the promise is all that must become durable."""
    node = acceptor(votes={2: (None, Noop())}, decided_through=2)
    node.step(2, Accept(Ballot(5, 2), 2, Noop(), 1))
    ready = node.ready()
    assert ready.writes == [WritePromise(Ballot(5, 2))]
    assert [e.message for e in ready.messages_after_writes] == [Accepted(Ballot(5, 2), (2,))]
    node.check()


def test_another_entry_in_a_higher_ballot_than_the_one_that_decided_is_a_breach() -> None:
    node = acceptor(votes={2: (Ballot(5, 2), batch(b"x"))}, promised=Ballot(5, 2))
    node.step(2, Heartbeat(Ballot(5, 2), True, True, 2, 0, frozenset({1, 2}), Ballot(5, 2)))
    assert node.decided_through == 2
    with pytest.raises(InvariantViolation, match="rule 1"):
        node.step(3, Accept(Ballot(6, 3), 2, batch(b"y"), 0))


# ---- what no leader says -----------------------------------------------------------------------------------------


def voted(node: Node, message: Accept) -> list[Slot]:
    node.step(message.ballot.node, message)
    return [write.slot for write in node.ready().writes if isinstance(write, WriteAccepted)]


def test_a_slot_far_above_all_that_is_decided_is_no_proposal() -> None:
    """The next leader would have to fill every slot up to it: a vote there can never be taken back."""
    node = acceptor()
    assert voted(node, Accept(Ballot(5, 2), (1 << 63) - 1, Noop(), 0)) == []
    assert voted(node, Accept(Ballot(5, 2), 2 + SLOTS_AHEAD_MAX, Noop(), 0)) == []
    assert voted(node, Accept(Ballot(5, 2), 1 + SLOTS_AHEAD_MAX, Noop(), 0)) == [1 + SLOTS_AHEAD_MAX]


def test_who_is_far_behind_votes_for_what_the_leader_proposes() -> None:
    node = acceptor()
    far = 1 << 40
    assert voted(node, Accept(Ballot(5, 2), far, Noop(), far - 1)) == [far]


def test_a_batch_that_is_none_gets_no_vote() -> None:
    """Voted for and decided, it would stop every server at the same slot, after each start again."""
    node = acceptor()
    for data in (b"\0\0\0\x09cut", b"\0\0", b"frames"):
        assert voted(node, Accept(Ballot(5, 2), 2, Batch(data), 1)) == []
    assert voted(node, Accept(Ballot(5, 2), 2, batch(b"a", b"", b"bc"), 1)) == [2]


def test_a_log_that_holds_such_a_vote_from_before_still_promises() -> None:
    """The time that takes depends on what there is, not on how high the highest slot is."""
    top = (1 << 63) - 1
    votes: dict[Slot, tuple[Ballot | None, Entry]] = {
        2: (Ballot(4, 2), Noop()),
        5: (Ballot(4, 2), Noop()),
        top: (Ballot(4, 2), Noop()),
    }
    node = acceptor(Ballot(4, 2), votes, chunk_bytes_max=1)
    chunks = []
    first: Slot | None = 2
    while first is not None:
        node.step(3, Prepare(Ballot(5, 3), first))
        (envelope,) = node.ready().messages_after_writes
        promise = envelope.message
        assert isinstance(promise, Promise)
        chunks.append(([slot for slot, _, _ in promise.accepted], promise.last))
        first = promise.last + 1 if promise.last else None
    assert chunks == [([2], 4), ([5], top - 1), ([top], None)]


def test_a_slot_that_cannot_be_read_is_not_free_until_it_is_voted_on_anew() -> None:
    """Rule 5: something was accepted there, and this server cannot say what."""
    genesis = {1: (None, ConfigChange(members(3)))}
    node = Node(
        1, SETTINGS, Random(0), promised=Ballot(3, 2), votes=genesis, decided_through=1, unreadable=[3]
    )
    node.step(2, Prepare(Ballot(4, 2), 2))
    (promise,) = [e.message for e in node.ready().messages_after_writes if isinstance(e.message, Promise)]
    assert (promise.last, promise.accepted, promise.unreadable) == (None, (), (3,))
    node.campaign()
    assert node.proposer.phase is Phase.IDLE
    node.step(2, Accept(Ballot(4, 2), 3, batch(b"x"), 1))
    node.step(2, Prepare(Ballot(5, 2), 2))
    messages = [e.message for e in node.ready().messages_after_writes]
    assert Accepted(Ballot(4, 2), (3,)) in messages
    assert [m.unreadable for m in messages if isinstance(m, Promise)] == [()]
    node.check()


def test_a_decided_slot_that_cannot_be_read_is_fetched_and_applied_in_its_turn() -> None:
    votes = {slot: (None, Noop()) for slot in (2, 4, 5)} | {1: (None, ConfigChange(members(3)))}
    node = Node(1, SETTINGS, Random(0), votes=votes, decided_through=5, unreadable=[3])
    assert [slot for slot, _ in node.ready().decided] == [1, 2]
    assert node.decided_through == 2
    node.step(2, Decide(Ballot(4, 2), 5))
    assert [e.message for e in node.ready().messages if isinstance(e.message, CatchUp)] == [CatchUp(3, 5)]
    node.step(2, CatchUpReply(Ballot(4, 2), ((3, batch(b"x")),), 5))
    ready = node.ready()
    assert WriteDecided(3, batch(b"x")) in ready.writes
    assert [slot for slot, _ in ready.decided] == [3, 4, 5]
    node.check()


def test_what_cannot_be_read_below_a_snapshot_is_no_loss() -> None:
    """The log goes on after the snapshot: it is compacted, promises and stands like any other."""
    configuration = members(3)
    votes = {slot: (None, batch(b"%d" % slot)) for slot in (3, 4, 6, 7, 8, 9)} | {
        11: (Ballot(3, 2), batch(b"x"))
    }
    node = Node(
        1,
        SETTINGS,
        Random(0),
        promised=Ballot(3, 2),
        votes=votes,
        decided_through=9,
        compacted_through=2,
        unreadable=[5, 10],
        base=Base(7, 1, configuration),
    )
    node.check()
    ready = node.ready()
    assert [slot for slot, _ in ready.decided] == [8, 9]
    assert WriteCompacted(7) in ready.writes
    assert (node.log.unreadable, node.compacted_through, node.configuration) == ({10}, 7, configuration)
    node.compact(9)
    node.step(2, Prepare(Ballot(4, 2), 10))
    (promise,) = [e.message for e in node.ready().messages_after_writes if isinstance(e.message, Promise)]
    assert (promise.accepted, promise.unreadable) == (((11, Ballot(3, 2), batch(b"x")),), (10,))
    node.check()
