"""The slot log: what a slot may become, and how the watermarks move."""

import pytest

from paxos_rsm.errors import InvariantViolation
from paxos_rsm.paxos.log import SlotLog, entry_bytes
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Batch, Noop

A, B = Batch(b"a"), Batch(b"b")
LOW, HIGH = Ballot(1, 1), Ballot(2, 1)


def released(log: SlotLog) -> list[int]:
    return [slot for slot, _ in log.release()]


def test_slots_fill_in_any_order_and_are_released_in_theirs_once() -> None:
    log = SlotLog()
    for slot in (3, 1):
        assert log.decide(slot, A)
        log.advance()
        log.check()
    assert (log.decided_through, log.max_slot) == (1, 3)
    assert released(log) == [1]
    assert log.decide(2, B)
    assert log.advance()
    assert log.decided_through == 3
    assert list(log.release()) == [(2, B), (3, A)]
    assert released(log) == []
    log.check()


def test_a_vote_moves_to_a_higher_ballot_and_never_back() -> None:
    log = SlotLog()
    log.accept(1, LOW, A)
    log.accept(1, HIGH, B)
    state = log.get(1)
    assert state is not None
    assert (state.ballot, state.entry, state.decided) == (HIGH, B, False)
    with pytest.raises(InvariantViolation, match="rule 3"):
        log.accept(1, LOW, B)


def test_one_ballot_has_one_entry_a_slot() -> None:
    log = SlotLog()
    log.accept(1, LOW, A)
    with pytest.raises(InvariantViolation, match="rule 2"):
        log.accept(1, LOW, B)


def test_a_decided_entry_never_changes() -> None:
    log = SlotLog()
    log.accept(1, LOW, A)
    log.decide_vote(1)
    assert not log.decide(1, A), "known already"
    with pytest.raises(InvariantViolation, match="rule 1"):
        log.decide(1, B)
    with pytest.raises(InvariantViolation, match="rule 1"):
        log.accept(1, HIGH, B)
    log.accept(1, HIGH, A)


def test_what_is_learned_as_decided_replaces_a_vote_and_has_no_ballot() -> None:
    log = SlotLog()
    log.accept(1, HIGH, A)
    assert log.decide(1, B)
    state = log.get(1)
    assert state is not None
    assert (state.ballot, state.entry, state.decided) == (NO_BALLOT, B, True)


def test_catching_up_takes_a_run_without_a_hole_and_at_least_one_entry() -> None:
    log = SlotLog()
    for slot in (1, 2, 3, 5):
        log.decide(slot, Batch(b"x" * 100))
    log.advance()
    size = entry_bytes(Batch(b"x" * 100))
    assert [s for s, _ in log.decided_from(1, 9, 10 * size)] == [1, 2, 3]
    assert [s for s, _ in log.decided_from(2, 2, 10 * size)] == [2]
    assert [s for s, _ in log.decided_from(1, 9, 2 * size)] == [1, 2]
    assert [s for s, _ in log.decided_from(1, 9, 1)] == [1]
    assert log.decided_from(4, 9, 10 * size) == ()


def test_compacted_slots_are_nothing_to_learn() -> None:
    log = SlotLog()
    log.compacted_through = 4
    assert not log.decide(4, A)
    assert log.decide(5, A)


def test_the_check_finds_what_must_not_be() -> None:
    log = SlotLog()
    log.decide(1, A)
    with pytest.raises(InvariantViolation, match="watermark stopped"):
        log.check()
    log.advance()
    log.check()
    log.slots[1].decided = False
    with pytest.raises(InvariantViolation, match="not decided"):
        log.check()
    log.slots[1].decided = True
    log.released_through = 2
    with pytest.raises(InvariantViolation, match="out of order"):
        log.check()


def test_is_decided_looks_above_the_watermark_too() -> None:
    log = SlotLog()
    log.decide(1, Noop())
    log.decide(3, A)
    log.accept(4, LOW, A)
    log.advance()
    assert [log.is_decided(s) for s in (1, 2, 3, 4)] == [True, False, True, False]
