from dataclasses import replace

from paxos_rsm.paxos.messages import CatchUp, CatchUpReply, Prepare, Promise
from paxos_rsm.paxos.types import NO_BALLOT, Batch, split_frames
from tests.unit.paxos.harness import SETTINGS, Cluster

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


def test_compacted_slots_are_not_covered_but_fetched() -> None:
    cluster = Cluster(3)
    cluster.make_lead(2)
    cluster.node(2).proposer.give_up()
    cluster.stand(1)
    ballot = cluster.node(1).acceptor.promised
    cluster.wire.clear()
    cluster.hand(2, 1, Promise(ballot, 2, 5, (), (), compacted_through=5))
    assert cluster.leaders() == []
    assert cluster.take(CatchUp) == [(1, 2, CatchUp(2, 5))]


# ---- the window --------------------------------------------------------------------------------------------------


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
