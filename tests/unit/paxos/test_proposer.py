from dataclasses import replace
from random import Random

import pytest

from paxos_rsm.errors import InvariantViolation
from paxos_rsm.paxos.messages import Accept, Accepted, CatchUp, CatchUpReply, Prepare, Promise
from paxos_rsm.paxos.node import Node
from paxos_rsm.paxos.proposer import Phase
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Batch, ConfigChange, Entry, Noop, Slot, split_frames
from tests.unit.paxos.harness import SETTINGS, Cluster, batch, members

# ---- phase 1 -----------------------------------------------------------------------------------------------------


def test_no_prepare_leaves_before_the_own_promise_is_durable_however_slow_the_disk() -> None:
    """Found by the fuzz: asking again did not wait, and a crash then made the ballot new a second time (rule 2)."""
    cluster = Cluster(3)
    cluster.calm()
    cluster.hold_writes = {1}
    cluster.node(1).election.stand_at = 0
    for _ in range(3 * SETTINGS.retransmit_ticks):
        cluster.tick(1)
    assert not cluster.take(Prepare)
    cluster.crash(1)
    cluster.restart(1)
    cluster.hold_writes = set()
    cluster.make_lead(1)
    assert set(cluster.oracle.ballots) == {cluster.node(1).proposer.ballot}


def behind(chunk_bytes_max: int = 1) -> Cluster:
    """Host 1 knows slot 1 only; 2 and 3 have decided slots 1..6. Each chunk carries one entry. Nobody leads."""
    cluster = Cluster(3, settings=replace(SETTINGS, chunk_bytes_max=chunk_bytes_max))
    cluster.make_lead(2)
    cluster.partition({1}, {2, 3})
    for frame in (b"2", b"3", b"4", b"5", b"6"):
        cluster.propose(2, frame)
        cluster.settle()
    cluster.node(2).proposer.give_up()
    cluster.calm()
    cluster.heal()
    for _ in range(2):
        cluster.tick()
        cluster.settle_but(CatchUp)
        cluster.take(CatchUp)
    assert [cluster.node(n).decided_through for n in (1, 2, 3)] == [1, 6, 6]
    return cluster


def test_a_chunk_counts_where_decisions_learned_meanwhile_bridge_the_gap_before_it() -> None:
    """The watermark overtakes what was asked of an acceptor: its next chunk starts above, and must still count."""
    cluster = behind()
    node = cluster.node(1)
    node.election.stand_at = 0
    cluster.tick(1)
    cluster.settle_but(Promise)
    first = cluster.take(Promise, sender=2)
    cluster.hand(*first[0])  # covers slot 2
    assert node.decided_through == 2
    cluster.take(Prepare)
    cluster.hand(3, 1, CatchUpReply(NO_BALLOT, tuple((s, cluster.oracle.chosen[s]) for s in (3, 4, 5)), 5))
    assert node.decided_through == 5
    cluster.cut = {(3, 1)}
    for _ in range(2 * SETTINGS.retransmit_ticks):
        cluster.tick()
        cluster.settle_but(CatchUp)
    assert cluster.leaders() == [1]


def test_each_chunk_is_pulled_once_however_often_it_arrives() -> None:
    """A chunk that comes twice must not be answered by two pulls: each would bring a chunk, and so on for ever."""
    cluster = behind()
    cluster.node(1).election.stand_at = 0
    cluster.tick(1)
    cluster.settle_but(Promise)
    [(sender, to, chunk)] = cluster.take(Promise, sender=2)
    for _ in range(5):
        cluster.hand(sender, to, chunk)
    assert len(cluster.take(Prepare, to=2)) == 1


def test_a_lost_chunk_is_asked_for_again() -> None:
    cluster = behind()
    cluster.node(1).election.stand_at = 0
    cluster.tick(1)
    cluster.settle_but(Promise)
    lost = cluster.take(Promise)
    assert len(lost) == 2
    for _ in range(SETTINGS.retransmit_ticks):
        assert not cluster.take(Prepare)
        cluster.tick(1)
    assert {m.first for _, _, m in cluster.take(Prepare)} == {2}


def test_a_slot_that_an_acceptor_cannot_read_is_not_covered_by_it() -> None:
    """Rule 5: the acceptor may have voted there; its promise is no word on that slot until it is decided."""
    cluster = Cluster(3)
    cluster.make_lead(2)
    cluster.node(2).proposer.give_up()
    cluster.stand(1)
    ballot = cluster.node(1).acceptor.promised
    cluster.wire.clear()
    cluster.hand(2, 1, Promise(ballot, 2, None, (), (), unreadable=(3,)))
    assert cluster.leaders() == []
    assert [m.first for _, _, m in cluster.take(Prepare, to=2)] == [3]
    cluster.hand(2, 1, Promise(ballot, 3, None, (), (), unreadable=(3,)))
    assert cluster.leaders() == []
    assert not cluster.take(Prepare)
    cluster.hand(3, 1, Promise(ballot, 2, None, (), ()))
    assert cluster.leaders() == [1]


def test_compacted_slots_are_not_covered_but_come_with_a_snapshot() -> None:
    cluster = Cluster(3)
    cluster.make_lead(2)
    cluster.node(2).proposer.give_up()
    cluster.stand(1)
    ballot = cluster.node(1).acceptor.promised
    cluster.wire.clear()
    cluster.hand(2, 1, Promise(ballot, 2, 5, (), (), compacted_through=5))
    assert cluster.leaders() == []
    assert cluster.hosts[1].wants == (2, 2)


# ---- the window --------------------------------------------------------------------------------------------------


def test_a_vote_above_a_vast_hole_stops_the_candidate_with_a_sentence() -> None:
    """Filling it with no-ops would never end; leading without doing so would not be safe."""
    cluster = Cluster(3)
    cluster.make_lead(2)
    cluster.node(2).proposer.give_up()
    cluster.stand(1)
    node = cluster.node(1)
    top = (1 << 63) - 1
    first = node.decided_through + 1
    vote = Promise(node.proposer.ballot, first, None, ((top, Ballot(1, 2), Noop()),), ())
    with pytest.raises(InvariantViolation, match=f"holds something in slot {top}"):
        node.step(3, vote)


def leading(**measures: int) -> Cluster:
    """Host 1 leads; nothing that it sends arrives, so that what it proposes stays in flight."""
    cluster = Cluster(3, settings=replace(SETTINGS, **measures))
    cluster.make_lead(1)
    cluster.settle()
    cluster.partition({1}, {2, 3})
    return cluster


def slots_in_flight(cluster: Cluster) -> list[int]:
    return [len(split(p.entry)) for p in cluster.node(1).proposer.in_flight.values()]


def split(entry: object) -> list[bytes]:
    assert isinstance(entry, Batch)
    return list(split_frames(entry.data))


def test_a_lone_frame_goes_at_once_and_small_ones_wait_for_it() -> None:
    cluster = leading(pipeline_bytes=100, window_slots=4)
    for frame in (b"a", b"b", b"c"):
        cluster.propose(1, frame)
    assert slots_in_flight(cluster) == [1]


def test_what_is_worth_an_entry_is_pipelined_up_to_the_window() -> None:
    cluster = leading(pipeline_bytes=100, window_slots=4)
    for _ in range(6):
        cluster.propose(1, b"x" * 100)
    assert slots_in_flight(cluster) == [1, 1, 1, 1]


def test_small_frames_wait_no_longer_than_a_tick_for_a_far_quorum() -> None:
    cluster = leading(pipeline_bytes=100, window_slots=4)
    for frame in (b"a", b"b", b"c"):
        cluster.propose(1, frame)
    cluster.tick(1)
    assert slots_in_flight(cluster) == [1, 2]


def test_what_is_late_is_sent_again_less_and_less_often_and_to_those_that_owe_it() -> None:
    cluster = leading(election_ticks=100)
    cluster.propose(1, b"a", b"b")
    cluster.take(Accept)
    sent = []
    for tick in range(1, 6 * SETTINGS.retransmit_ticks):
        cluster.tick(1)
        if again := cluster.take(Accept):
            assert {to for _, to, _ in again} == {2, 3}
            sent.append(tick)
    assert sent == [3, 9, 15]


def test_a_peer_whose_streams_are_back_gets_what_it_owes_at_once() -> None:
    cluster = leading()
    cluster.propose(1, b"a", b"b")
    cluster.take(Accept)
    cluster.node(1).peer_up(3)
    cluster.turn(1)
    assert [(to, m.slot) for _, to, m in cluster.take(Accept)] == [(3, 2)]


def test_frames_are_refused_when_too_many_bytes_wait() -> None:
    cluster = leading(waiting_bytes_max=10, window_slots=1)
    node = cluster.node(1)
    cluster.propose(1, b"first")  # in flight, not waiting
    assert node.propose([b"x" * 20, b"y"]) == 1  # one always fits
    assert node.propose([b"y"]) == 0


def test_of_frames_that_do_not_all_fit_the_first_are_taken() -> None:
    """What is refused is offered again; were it the whole each time, what waits would never get shorter."""
    cluster = leading(waiting_bytes_max=10, window_slots=1)
    node = cluster.node(1)
    cluster.propose(1, b"first")
    assert node.propose([b"aaaa", b"bbbb", b"cccc", b"d"]) == 2
    assert node.propose([b"cccc", b"d"]) == 0
    assert node.propose([b"d", b"cccc"]) == 1
    cluster.heal()
    cluster.run(5)
    assert cluster.hosts[1].frames() == [b"first", b"aaaa", b"bbbb", b"d"]


def test_an_entry_holds_every_frame_that_waited_up_to_its_size() -> None:
    cluster = leading(entry_bytes_max=60, window_slots=8)
    cluster.propose(1, *(b"%02d" % i * 10 for i in range(5)), b"z" * 100)
    assert slots_in_flight(cluster) == [2, 2, 1, 1]


def test_nothing_is_proposed_beyond_a_change_of_configuration_until_it_is_decided() -> None:
    """The genesis entry is one: frames wait for it (rules 9 and 10)."""
    cluster = Cluster(3)
    cluster.stand(1)
    cluster.settle_but(Accepted)
    cluster.propose(1, b"a")
    assert list(cluster.node(1).proposer.in_flight) == [1]
    cluster.settle()
    assert cluster.hosts[1].frames() == [b"a"]


# ---- the choice of values (rule 5) -------------------------------------------------------------------------------

OLD, OLDER = Ballot(9, 3), Ballot(8, 2)


def candidate(own: dict[Slot, tuple[Ballot | None, Entry]]) -> tuple[Node, Ballot]:
    """Server 1 of three holds slot 1 and ``own``, and has just stood; its own promise is durable."""
    held: dict[Slot, tuple[Ballot | None, Entry]] = {1: (None, ConfigChange(members(3))), **own}
    node = Node(1, SETTINGS, Random(0), promised=OLD, votes=held, decided_through=1)
    node.campaign()
    ready = node.ready()
    for envelope in ready.messages_after_writes:
        if envelope.to == 1:
            node.step(1, envelope.message)
    return node, node.proposer.ballot


def proposed(node: Node) -> dict[Slot, Entry]:
    return {e.message.slot: e.message.entry for e in node.ready().messages if isinstance(e.message, Accept)}


def test_the_value_of_the_highest_ballot_reported_is_proposed_and_a_noop_where_none_was() -> None:
    node, ballot = candidate({2: (OLDER, batch(b"mine")), 4: (OLD, batch(b"newer"))})
    accepted = ((2, OLD, batch(b"theirs")), (4, OLDER, batch(b"old")), (5, OLDER, batch(b"5")))
    node.step(2, Promise(ballot, 2, None, accepted, ()))
    assert proposed(node) == {2: batch(b"theirs"), 3: Noop(), 4: batch(b"newer"), 5: batch(b"5")}
    assert node.proposer.recovery_end == 5


@pytest.mark.parametrize("order", [(2, 3), (3, 2)])
def test_of_two_reports_that_of_the_higher_ballot_wins_whichever_comes_first(order: tuple[int, int]) -> None:
    held: dict[Slot, tuple[Ballot | None, Entry]] = {1: (None, ConfigChange(members(5)))}
    node = Node(1, SETTINGS, Random(0), promised=OLD, votes=held, decided_through=1)
    node.campaign()
    node.ready()
    ballot = node.proposer.ballot
    node.step(1, Promise(ballot, 2, None, (), ()))
    for sender in order:
        report = (2, OLD, batch(b"newer")) if sender == 2 else (2, OLDER, batch(b"older"))
        node.step(sender, Promise(ballot, 2, None, (report,), ()))
    assert proposed(node) == {2: batch(b"newer")}


def test_a_decided_report_overrides_every_ballot_and_needs_no_proposal() -> None:
    node, ballot = candidate({3: (OLD, batch(b"mine"))})
    node.step(2, Promise(ballot, 2, None, (), ((3, batch(b"decided")),)))
    assert proposed(node) == {2: Noop()}
    assert node.log.slots[3].entry == batch(b"decided")
    assert node.proposer.next_slot == 4


def test_where_nothing_is_reported_the_leader_begins_with_an_entry_of_its_own_ballot() -> None:
    """Rule 8: reads wait for an entry of the leader's own ballot."""
    node, ballot = candidate({})
    node.step(2, Promise(ballot, 2, None, (), ()))
    assert proposed(node) == {2: Noop()}


def test_new_commands_go_above_every_slot_seen() -> None:
    node, ballot = candidate({})
    node.step(2, Promise(ballot, 2, None, ((4, OLD, batch(b"4")),), ()))
    node.propose([b"new"])
    assert proposed(node) == {2: Noop(), 3: Noop(), 4: batch(b"4"), 5: batch(b"new")}


def test_a_minority_of_promises_does_not_lead() -> None:
    node, ballot = candidate({})
    node.step(9, Promise(ballot, 2, None, (), ()))  # no member
    node.step(2, Promise(Ballot(ballot.round, 3), 2, None, (), ()))  # of another ballot
    node.step(2, Promise(ballot, 3, None, (), ()))  # slot 2 is not covered
    node.step(2, Promise(ballot, 2, 2, (), ()))  # nor is what lies above it
    assert not node.proposer.leading
    node.step(2, Promise(ballot, 3, None, (), ()))
    assert node.proposer.leading


def test_the_own_promise_counts_when_it_is_durable() -> None:
    cluster = Cluster(3)
    cluster.make_lead(2)
    cluster.node(2).proposer.give_up()
    cluster.hold_writes = {1}
    cluster.stand(1)
    cluster.settle()
    assert cluster.node(1).role == "candidate"
    assert not cluster.take(Prepare)
    cluster.hold_writes = set()
    cluster.sync(1)
    cluster.settle()
    assert cluster.leaders() == [1]


def test_a_ballot_is_never_prepared_twice() -> None:
    node, ballot = candidate({})
    with pytest.raises(InvariantViolation, match="rule 2"):
        node.proposer.prepare(ballot)


def test_check_finds_what_a_proposer_must_not_be() -> None:
    node, ballot = candidate({})
    node.step(2, Promise(ballot, 2, None, (), ()))
    node.ready()
    node.check()
    node.proposer.next_slot = 2
    with pytest.raises(InvariantViolation, match="next slot"):
        node.check()
    node.proposer.phase = Phase.IDLE
    with pytest.raises(InvariantViolation, match="without leading"):
        node.check()
