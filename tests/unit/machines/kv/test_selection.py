"""What is made of what a range has found; what etcd says to each is in test_store.py and in tests/model."""

import pytest

from paxos_rsm.machines.kv.records import Record
from paxos_rsm.machines.kv.selection import is_in_order, selected
from paxos_rsm.machines.kv.types import KeyValue, Range, SortOrder, SortTarget

FOUND: list[Record] = [(b"a", 2, 5, 3, b"z", 0), (b"b", 3, 3, 1, b"y", 0), (b"c", 4, 4, 1, b"x", 0)]


@pytest.mark.parametrize(
    ("command", "keys", "more"),
    [
        (Range(b"a", b"d"), [b"a", b"b", b"c"], False),
        (Range(b"a", b"d", limit=2), [b"a", b"b"], True),
        (Range(b"a", b"d", limit=3), [b"a", b"b", b"c"], False),
        (Range(b"a", b"d", sort_order=SortOrder.DESCEND), [b"c", b"b", b"a"], False),
        (Range(b"a", b"d", sort_target=SortTarget.VALUE), [b"c", b"b", b"a"], False),
        (
            Range(b"a", b"d", sort_target=SortTarget.VERSION, sort_order=SortOrder.ASCEND, limit=1),
            [b"b"],
            True,
        ),
        (Range(b"a", b"d", min_mod_revision=4), [b"a", b"c"], False),
        (Range(b"a", b"d", max_create_revision=2), [b"a"], False),
        (Range(b"a", b"d", count_only=True), [], False),
    ],
)
def test_filters_order_and_limit(command: Range, keys: list[bytes], more: bool) -> None:
    result = selected(command, 9, FOUND)
    assert [kv.key for kv in result.kvs] == keys
    assert (result.revision, result.more, result.count) == (9, more, 3)


def test_values_are_left_out_where_only_keys_are_asked_for() -> None:
    assert selected(Range(b"a", keys_only=True), 9, FOUND[:1]).kvs == (KeyValue(b"a", 2, 5, 3, b""),)


def test_what_need_not_be_sorted_or_filtered() -> None:
    assert is_in_order(Range(b"a", sort_target=SortTarget.KEY, sort_order=SortOrder.ASCEND, limit=4))
    assert not is_in_order(Range(b"a", sort_order=SortOrder.DESCEND))
    assert not is_in_order(Range(b"a", sort_target=SortTarget.MOD))
    assert not is_in_order(Range(b"a", max_mod_revision=1))
