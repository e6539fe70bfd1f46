import dataclasses

import pytest

from paxos_rsm.client import types
from paxos_rsm.client.types import (
    Ballot,
    DeleteResult,
    GetResult,
    KeyValue,
    MemberStatus,
    PutResult,
    RangeResult,
    TimeToLive,
    WatchEvent,
)


def kv(key: bytes) -> KeyValue:
    return KeyValue(key, b"v", 1, 2, 2)


def test_a_missing_key_is_false_and_an_empty_value_is_not() -> None:
    assert not GetResult(b"k", None, 0, 0, 0, 5)
    assert GetResult(b"k", b"", 1, 2, 2, 5)


def test_a_range_is_iterated_indexed_and_counted() -> None:
    found = RangeResult((kv(b"a"), kv(b"b"), kv(b"c")), count=9, more=True, revision=4)
    assert [each.key for each in found] == [b"a", b"b", b"c"]
    assert len(found) == 3
    assert found[-1].key == b"c"
    assert [each.key for each in found[1:]] == [b"b", b"c"]
    assert found
    assert not RangeResult((), count=9, more=False, revision=4)


def test_results_cannot_be_changed_and_have_no_dict() -> None:
    found = [getattr(types, name) for name in types.__all__ if dataclasses.is_dataclass(getattr(types, name))]
    assert {Ballot, GetResult, KeyValue, MemberStatus, PutResult, RangeResult, WatchEvent} < set(found)
    assert len(found) == 11
    for each in found:
        assert each.__doc__
        assert hasattr(each, "__slots__")
    with pytest.raises(dataclasses.FrozenInstanceError):
        kv(b"a").key = b"b"  # type: ignore[misc]


def test_ballots_are_ordered_by_round_first() -> None:
    assert Ballot(1, 9) < Ballot(2, 1) < Ballot(2, 2)


def test_a_delete_is_the_number_of_keys_that_it_deleted() -> None:
    gone = DeleteResult(2, 7, (kv(b"a"), kv(b"b")))
    assert gone == 2
    assert (gone.deleted, gone.revision) == (2, 7)
    assert [each.key for each in gone.prev_kvs] == [b"a", b"b"]
    assert not DeleteResult(0)


def test_a_lease_that_is_not_there_is_false() -> None:
    assert TimeToLive(7, 0, 10)
    assert not TimeToLive(7, -1, 0)


def test_an_event_has_the_key_and_value_at_hand() -> None:
    event = WatchEvent("put", kv(b"a"), 2)
    assert (event.key, event.value, event.prev_kv) == (b"a", b"v", None)
