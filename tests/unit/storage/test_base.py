"""What a sequence of writes amounts to, and which sequences no log may hold."""

import pytest

from paxos_rsm.errors import InvariantViolation
from paxos_rsm.paxos.ready import Write, WriteAccepted, WriteDecided, WriteDecidedThrough, WritePromise
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Batch, Noop
from paxos_rsm.storage.base import Recovered, RecoveredSlot
from tests.unit.storage.helpers import replayed

LOW, HIGH = Ballot(1, 9), Ballot(2, 3)
A, B = Batch(b"a"), Batch(b"b")


def test_nothing_written_is_empty() -> None:
    recovered = Recovered()
    assert recovered.is_empty
    assert recovered.promised == NO_BALLOT


@pytest.mark.parametrize(
    "write", [WritePromise(LOW), WriteAccepted(1, LOW, A), WriteDecided(1, A), WriteDecided(5, Noop())]
)
def test_whatever_was_written_is_not_empty(write: Write) -> None:
    assert not replayed([write]).is_empty


def test_a_vote_raises_the_promise() -> None:
    recovered = replayed([WritePromise(LOW), WriteAccepted(4, HIGH, A)])
    assert recovered.promised == HIGH
    assert recovered.slots == {4: RecoveredSlot(HIGH, A)}


def test_a_higher_vote_replaces_a_lower_one() -> None:
    assert replayed([WriteAccepted(4, LOW, A), WriteAccepted(4, HIGH, B)]).slots[4] == RecoveredSlot(HIGH, B)


def test_a_decided_entry_overrides_a_vote() -> None:
    recovered = replayed([WriteAccepted(4, LOW, A), WriteDecided(4, B)])
    assert recovered.slots[4] == RecoveredSlot(None, B)
    assert recovered.promised == LOW


def test_a_vote_for_the_decided_entry_leaves_it_decided() -> None:
    recovered = replayed([WriteDecided(4, B), WriteAccepted(4, HIGH, B)])
    assert recovered.slots[4] == RecoveredSlot(None, B)
    assert recovered.promised == HIGH


def test_the_watermark_rises_over_what_is_held() -> None:
    writes: list[Write] = [WriteAccepted(2, LOW, B), WriteDecided(1, A), WriteDecidedThrough(2)]
    assert replayed(writes).decided_through == 2
    assert replayed([*writes, WriteDecidedThrough(1)]).decided_through == 2


def test_a_vote_again_for_a_slot_below_the_watermark_keeps_its_entry() -> None:
    recovered = replayed([WriteAccepted(1, LOW, A), WriteDecidedThrough(1), WriteAccepted(1, HIGH, A)])
    assert recovered.slots[1] == RecoveredSlot(HIGH, A)


@pytest.mark.parametrize(
    ("writes", "says"),
    [
        ([WritePromise(HIGH), WritePromise(LOW)], "rule 3"),
        ([WritePromise(HIGH), WriteAccepted(1, LOW, A)], "rule 3"),
        ([WriteAccepted(1, HIGH, A), WriteAccepted(1, LOW, A)], "rule 3"),
        ([WriteAccepted(1, HIGH, A), WriteAccepted(2, LOW, A)], "rule 3"),
        ([WriteDecided(1, A), WriteDecided(1, B)], "rule 1"),
        ([WriteDecided(1, A), WriteAccepted(1, HIGH, B)], "rule 1"),
        ([WriteAccepted(1, LOW, A), WriteDecidedThrough(1), WriteAccepted(1, HIGH, B)], "rule 1"),
        ([WriteAccepted(1, LOW, A), WriteDecidedThrough(1), WriteDecided(1, B)], "rule 1"),
        ([WriteDecided(1, A), WriteDecided(3, A), WriteDecidedThrough(3)], "slot 2"),
    ],
)
def test_what_may_never_be_is_refused(writes: list[Write], says: str) -> None:
    replayed(writes[:-1])
    with pytest.raises(InvariantViolation, match=says):
        replayed(writes)


def test_the_same_promise_twice_is_no_step_down() -> None:
    assert replayed([WritePromise(HIGH), WritePromise(HIGH)]).promised == HIGH
