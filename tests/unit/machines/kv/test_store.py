"""etcd's rules of revisions and versions, one test each."""

import random
from collections.abc import Iterable
from typing import Any

import pytest

from paxos_rsm.errors import InvariantViolation
from paxos_rsm.machines.kv.leases import Leases
from paxos_rsm.machines.kv.records import Record
from paxos_rsm.machines.kv.store import MultiVersionStore
from paxos_rsm.machines.kv.types import (
    ALL_FROM,
    COMPACTED,
    FUTURE_REVISION,
    KEY_NOT_FOUND,
    LEASE_NOT_FOUND,
    Compact,
    CompactResult,
    DeleteRange,
    DeleteRangeResult,
    KeyValue,
    Put,
    PutResult,
    Range,
    RangeResult,
    SortOrder,
    SortTarget,
)


@pytest.fixture
def store() -> MultiVersionStore:
    return MultiVersionStore()


def found(store: MultiVersionStore, command: Range) -> RangeResult:
    result = store.range(command)
    if not isinstance(result, RangeResult):
        raise TypeError(result)
    return result


def values(store: MultiVersionStore, command: Range) -> dict[bytes, bytes]:
    return {kv.key: kv.value for kv in found(store, command).kvs}


def keys(store: MultiVersionStore, command: Range) -> list[bytes]:
    return [kv.key for kv in found(store, command).kvs]


def flat(batches: Iterable[list[Record]]) -> list[Record]:
    return [record for batch in batches for record in batch]


def fill(store: MultiVersionStore, *pairs: tuple[bytes, bytes]) -> None:
    for key, value in pairs:
        store.put(Put(key, value))


# ---- revisions and versions ------------------------------------------------------------------------------------


def test_an_empty_store_is_at_revision_1_and_the_first_write_makes_2(store: MultiVersionStore) -> None:
    assert found(store, Range(b"a")) == RangeResult(1, (), False, 0)
    assert store.put(Put(b"a", b"1")) == PutResult(2)
    assert store.revision == 2


def test_versions_count_from_the_creation(store: MultiVersionStore) -> None:
    fill(store, (b"a", b"1"), (b"b", b"2"), (b"a", b"3"))
    assert found(store, Range(b"a")).kvs == (KeyValue(b"a", 2, 4, 2, b"3"),)
    assert found(store, Range(b"b")).kvs == (KeyValue(b"b", 3, 3, 1, b"2"),)


def test_deleting_and_writing_again_starts_anew(store: MultiVersionStore) -> None:
    fill(store, (b"a", b"1"), (b"a", b"2"))
    assert store.delete_range(DeleteRange(b"a")) == DeleteRangeResult(4, 1)
    store.put(Put(b"a", b"3"))
    assert found(store, Range(b"a")).kvs == (KeyValue(b"a", 5, 5, 1, b"3"),)


def test_a_delete_that_removes_nothing_makes_no_revision(store: MultiVersionStore) -> None:
    store.put(Put(b"a"))
    assert store.delete_range(DeleteRange(b"b")) == DeleteRangeResult(2, 0)
    assert store.delete_range(DeleteRange(b"b", b"a", prev_kv=True)) == DeleteRangeResult(2, 0)
    assert store.revision == 2


def test_a_delete_of_many_keys_is_one_revision(store: MultiVersionStore) -> None:
    fill(store, (b"a", b"1"), (b"b", b"2"), (b"c", b"3"))
    assert store.delete_range(DeleteRange(b"a", b"c", prev_kv=True)) == DeleteRangeResult(
        5, 2, (KeyValue(b"a", 2, 2, 1, b"1"), KeyValue(b"b", 3, 3, 1, b"2"))
    )
    assert keys(store, Range(b"\0", ALL_FROM)) == [b"c"]
    assert len(store) == 1


def test_a_put_answers_with_what_was_there_before_if_asked(store: MultiVersionStore) -> None:
    assert store.put(Put(b"a", b"1", prev_kv=True)) == PutResult(2, None)
    assert store.put(Put(b"a", b"2", prev_kv=True)) == PutResult(3, KeyValue(b"a", 2, 2, 1, b"1"))
    assert store.put(Put(b"a", b"3")) == PutResult(4, None)
    store.delete_range(DeleteRange(b"a"))
    assert store.put(Put(b"a", b"4", prev_kv=True)) == PutResult(6, None)


def test_a_put_may_keep_the_value(store: MultiVersionStore) -> None:
    assert store.put(Put(b"a", ignore_value=True)) == KEY_NOT_FOUND
    assert store.put(Put(b"a", b"1", ignore_lease=True)) == KEY_NOT_FOUND
    assert store.revision == 1
    store.put(Put(b"a", b"1"))
    store.put(Put(b"a", ignore_value=True))
    assert found(store, Range(b"a")).kvs == (KeyValue(b"a", 2, 3, 2, b"1"),)
    store.put(Put(b"a", b"2", ignore_lease=True))
    assert found(store, Range(b"a")).kvs == (KeyValue(b"a", 2, 4, 3, b"2"),)


def test_there_are_no_leases_yet(store: MultiVersionStore) -> None:
    assert store.put(Put(b"a", b"1", lease=9)) == LEASE_NOT_FOUND
    assert store.revision == 1


# ---- ranges ----------------------------------------------------------------------------------------------------


@pytest.fixture
def five(store: MultiVersionStore) -> MultiVersionStore:
    """a..e, with versions 1, 3, 1, 2, 1 and values that sort the other way round."""
    fill(store, (b"c", b"3"), (b"b", b"-"), (b"a", b"5"), (b"b", b"-"), (b"e", b"1"), (b"d", b"-"))
    fill(store, (b"d", b"2"), (b"b", b"4"))
    return store


@pytest.mark.parametrize(
    ("key", "range_end", "expected"),
    [
        (b"b", b"", b"b"),
        (b"bb", b"", b""),
        (b"b", b"d", b"bc"),
        (b"aa", b"d\0", b"bcd"),
        (b"c", ALL_FROM, b"cde"),
        (b"\0", ALL_FROM, b"abcde"),
        (b"d", b"b", b""),
        (b"b", b"b", b""),
        (b"f", ALL_FROM, b""),
    ],
)
def test_ranges(five: MultiVersionStore, key: bytes, range_end: bytes, expected: bytes) -> None:
    result = found(five, Range(key, range_end))
    assert b"".join(kv.key for kv in result.kvs) == expected
    assert result.count == len(expected)
    assert result.more is False
    counted = found(five, Range(key, range_end, count_only=True))
    assert counted == RangeResult(9, (), False, len(expected))
    # The same ranges over the past, when nothing was there; and counted at a revision.
    assert found(five, Range(key, range_end, revision=1)) == RangeResult(9, (), False, 0)
    assert found(five, Range(key, range_end, revision=9)) == result
    five.put(Put(b"z"))
    assert found(five, Range(key, range_end, revision=9, count_only=True)).count == len(expected)


def test_a_limit_says_that_there_is_more_and_counts_all(five: MultiVersionStore) -> None:
    everything = Range(b"\0", ALL_FROM)
    limited = found(five, everything._replace(limit=2))
    assert ([kv.key for kv in limited.kvs], limited.more, limited.count) == ([b"a", b"b"], True, 5)
    exact = found(five, everything._replace(limit=5))
    assert (len(exact.kvs), exact.more, exact.count) == (5, False, 5)
    above = found(five, everything._replace(limit=2**63 - 1))
    assert (len(above.kvs), above.more, above.count) == (5, False, 5)
    assert found(five, everything._replace(limit=-1)) == found(five, everything)
    old = found(five, everything._replace(limit=2, revision=4))
    assert ([kv.key for kv in old.kvs], old.more, old.count) == ([b"a", b"b"], True, 3)
    descending = found(five, everything._replace(limit=2, sort_order=SortOrder.DESCEND))
    assert ([kv.key for kv in descending.kvs], descending.more, descending.count) == ([b"e", b"d"], True, 5)


@pytest.mark.parametrize(
    ("target", "ascending", "descending"),
    [
        (SortTarget.KEY, b"abcde", b"edcba"),
        (SortTarget.VERSION, b"acedb", b"bdace"),  # ties by key, both ways
        (SortTarget.CREATE, b"cbaed", b"deabc"),
        (SortTarget.MOD, b"caedb", b"bdeac"),
        (SortTarget.VALUE, b"edcba", b"abcde"),
    ],
)
def test_sorts(five: MultiVersionStore, target: SortTarget, ascending: bytes, descending: bytes) -> None:
    command = Range(b"\0", ALL_FROM, sort_target=target)
    for order, expected in [
        (SortOrder.ASCEND, ascending),
        (SortOrder.DESCEND, descending),
        (SortOrder.NONE, ascending),  # as in etcd: ascending, where a target is named
    ]:
        assert b"".join(keys(five, command._replace(sort_order=order))) == expected
        # Sorted first, cut after; but without an order, etcd sorts what it has found first: one more than the limit.
        cut = command._replace(sort_order=order, limit=2, keys_only=True)
        sorted_ = expected if order else bytes(each for each in expected if each in b"abc")
        assert b"".join(keys(five, cut)) == sorted_[:2]
        assert (found(five, cut).count, found(five, cut).more) == (5, True)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"min_mod_revision": 6}, b"bde"),
        ({"max_mod_revision": 6}, b"ace"),
        ({"min_mod_revision": 6, "max_mod_revision": 8}, b"de"),
        ({"min_create_revision": 4}, b"ade"),
        ({"max_create_revision": 4}, b"abc"),
        ({"min_create_revision": 5, "max_mod_revision": 6}, b"e"),
    ],
)
def test_filters_on_revisions(five: MultiVersionStore, filters: dict[str, Any], expected: bytes) -> None:
    command = Range(b"\0", ALL_FROM)._replace(**filters)
    result = found(five, command)
    assert b"".join(kv.key for kv in result.kvs) == expected
    assert (result.more, result.count) == (False, 5)  # the count is of the range, not of what passed
    limited = found(five, command._replace(limit=1))
    assert b"".join(kv.key for kv in limited.kvs) == expected[:1]
    assert limited.more is (len(expected) > 1)


def test_a_filter_on_one_key(five: MultiVersionStore) -> None:
    assert found(five, Range(b"c", max_mod_revision=1)) == RangeResult(9, (), False, 1)


def test_keys_only_leaves_the_values_out(five: MultiVersionStore) -> None:
    assert found(five, Range(b"b", keys_only=True)).kvs == (KeyValue(b"b", 3, 9, 3, b""),)
    several = found(five, Range(b"b", b"d", keys_only=True, limit=1))
    assert (several.kvs, several.more) == ((KeyValue(b"b", 3, 9, 3, b""),), True)
    assert set(values(five, Range(b"\0", ALL_FROM, keys_only=True)).values()) == {b""}


# ---- the past --------------------------------------------------------------------------------------------------


def test_a_read_at_an_older_revision_sees_that_revision(store: MultiVersionStore) -> None:
    fill(store, (b"a", b"1"), (b"a", b"2"), (b"b", b"3"))
    store.delete_range(DeleteRange(b"a"))
    fill(store, (b"a", b"4"))
    seen = [values(store, Range(b"\0", ALL_FROM, revision=revision)) for revision in range(1, 7)]
    assert seen == [
        {},
        {b"a": b"1"},
        {b"a": b"2"},
        {b"a": b"2", b"b": b"3"},
        {b"b": b"3"},
        {b"a": b"4", b"b": b"3"},
    ]
    assert found(store, Range(b"a", revision=3)).kvs == (KeyValue(b"a", 2, 3, 2, b"2"),)
    assert found(store, Range(b"a", revision=3)).revision == 6  # the header has that of the store
    assert found(store, Range(b"a", revision=5)) == RangeResult(6, (), False, 0)
    for newest in (0, -1, 6):
        assert values(store, Range(b"a", revision=newest)) == {b"a": b"4"}


def test_pages_of_the_past_are_what_was_there_and_count_all_of_it(store: MultiVersionStore) -> None:
    rnd = random.Random(5)
    for _ in range(300):
        key = b"k%02d" % rnd.randrange(40)
        if rnd.random() < 0.3:
            store.delete_range(DeleteRange(key, rnd.choice([b"", key + b"5"])))
        else:
            fill(store, (key, b"v"))
    store.compact(Compact(60))
    for _ in range(300):
        at = rnd.randint(60, store.revision)
        bounds = rnd.choice([(b"k", b"l"), (b"k1", b"k3"), (b"k07", b""), (b"k2", ALL_FROM)])
        whole = found(store, Range(*bounds, revision=at))
        limit = rnd.randint(1, 20)
        page = found(store, Range(*bounds, limit=limit, revision=at))
        assert page == RangeResult(store.revision, whole.kvs[:limit], len(whole.kvs) > limit, whole.count)


def test_deleted_keys_are_seen_in_the_past_in_the_order_of_keys(store: MultiVersionStore) -> None:
    fill(store, (b"b", b"1"), (b"a", b"2"), (b"c", b"3"))
    store.delete_range(DeleteRange(b"b"))
    assert keys(store, Range(b"a", b"d", revision=4)) == [b"a", b"b", b"c"]
    assert keys(store, Range(b"b", revision=4)) == [b"b"]
    assert keys(store, Range(b"a", b"d")) == [b"a", b"c"]


def test_a_revision_in_the_future(store: MultiVersionStore) -> None:
    assert store.range(Range(b"a", revision=2)) == FUTURE_REVISION
    assert store.range(Range(b"a", b"b", revision=2, count_only=True)) == FUTURE_REVISION


# ---- compaction ------------------------------------------------------------------------------------------------


def test_a_read_at_the_compacted_revision_works_and_below_it_is_refused(store: MultiVersionStore) -> None:
    fill(store, (b"a", b"1"), (b"a", b"2"), (b"a", b"3"))
    assert store.compact(Compact(3)) == CompactResult(4)
    assert store.compacted_revision == 3
    assert values(store, Range(b"a", revision=3)) == {b"a": b"2"}
    assert store.range(Range(b"a", revision=2)) == COMPACTED
    assert values(store, Range(b"a", revision=-1)) == {b"a": b"3"}


def test_compacting_at_the_same_revision_again_is_the_error(store: MultiVersionStore) -> None:
    fill(store, (b"a", b"1"), (b"a", b"2"))
    store.compact(Compact(2))
    assert store.compact(Compact(2)) == COMPACTED
    assert store.compact(Compact(1)) == COMPACTED
    assert store.compact(Compact(4)) == FUTURE_REVISION
    assert store.compact(Compact(3)) == CompactResult(3)


def test_an_empty_store_can_be_compacted_once(store: MultiVersionStore) -> None:
    assert store.compact(Compact(-1)) == COMPACTED
    assert store.compact(Compact(0)) == CompactResult(1)
    assert store.compact(Compact(0)) == COMPACTED
    assert store.compact(Compact(1)) == CompactResult(1)
    assert found(store, Range(b"a", revision=1)).count == 0


def test_what_compaction_keeps(store: MultiVersionStore) -> None:
    fill(store, (b"old", b"1"), (b"gone", b"1"), (b"back", b"1"))
    store.delete_range(DeleteRange(b"gone"))
    store.delete_range(DeleteRange(b"back"))
    fill(store, (b"back", b"2"), (b"later", b"1"))
    store.delete_range(DeleteRange(b"later"))
    before = [values(store, Range(b"\0", ALL_FROM, revision=revision)) for revision in range(6, 10)]
    store.compact(Compact(6))
    store.require_invariants()
    assert [values(store, Range(b"\0", ALL_FROM, revision=revision)) for revision in range(6, 10)] == before
    view = store.view()
    assert (view.revision, view.compacted_revision) == (9, 6)
    assert flat(view.base()) == [(b"old", 2, 2, 1, b"1", 0)]
    assert flat(view.log()) == [
        (b"back", 7, 7, 1, b"2", 0),
        (b"later", 8, 8, 1, b"1", 0),
        (b"later", 0, 9, 0, b"", 0),
    ]
    store.compact(Compact(9))
    store.require_invariants()
    assert [record[0] for record in flat(store.view().base())] == [b"back", b"old"]
    assert flat(store.view().log()) == []


def test_compacting_at_the_newest_revision_leaves_one_version_of_each_key(store: MultiVersionStore) -> None:
    fill(store, (b"a", b"1"), (b"b", b"1"), (b"b", b"2"), (b"a", b"2"))
    store.compact(Compact(5))
    store.require_invariants()
    assert flat(store.view().base()) == [(b"a", 2, 5, 2, b"2", 0), (b"b", 3, 4, 2, b"2", 0)]


def test_a_key_that_was_compacted_away_can_come_back(store: MultiVersionStore) -> None:
    fill(store, (b"a", b"1"))
    store.delete_range(DeleteRange(b"a"))
    store.compact(Compact(3))
    store.put(Put(b"a", b"2"))
    store.require_invariants()
    assert found(store, Range(b"a")).kvs == (KeyValue(b"a", 4, 4, 1, b"2"),)
    assert keys(store, Range(b"a", revision=3)) == []


# ---- the whole state -------------------------------------------------------------------------------------------


def test_a_view_is_of_the_moment_and_makes_the_same_store(five: MultiVersionStore) -> None:
    five.compact(Compact(5))
    five.delete_range(DeleteRange(b"c"))
    view = five.view()
    expected = [values(five, Range(b"\0", ALL_FROM, revision=at)) for at in range(5, 11)]
    five.delete_range(DeleteRange(b"\0", ALL_FROM))
    five.put(Put(b"new"))
    five.compact(Compact(five.revision))
    copy = MultiVersionStore.from_view(
        view.revision, view.compacted_revision, Leases(), flat(view.base()), flat(view.log())
    )
    copy.require_invariants()
    assert [values(copy, Range(b"\0", ALL_FROM, revision=at)) for at in range(5, 11)] == expected
    assert (copy.revision, copy.compacted_revision) == (10, 5)
    assert copy.range(Range(b"a", revision=4)) == COMPACTED


A1 = (b"a", 2, 2, 1, b"", 0)
A2 = (b"a", 2, 3, 2, b"", 0)


@pytest.mark.parametrize(
    ("base", "log"),
    [
        ([(b"a", 0, 2, 0, b"", 0)], []),
        ([(b"a", 2, 3, 2, b"", 0)], []),
        ([A1, A1], []),
        ([A1], [A1]),
        ([A1], [(b"a", 2, 3, 3, b"", 0)]),
        ([A1], [A2, (b"a", 2, 5, 3, b"", 0)]),
        ([A1], [(b"a", 2, 4, 2, b"", 0), (b"b", 3, 3, 1, b"", 0)]),
        ([], [(b"a", 0, 3, 0, b"", 0)]),
    ],
    ids=[
        "a deletion below the compaction",
        "a base above it",
        "twice the same",
        "a log below it",
        "a version is missing",
        "ahead of the store",
        "out of order",
        "deleted without having been",
    ],
)
def test_records_that_cannot_be_a_store_are_refused(base: list[object], log: list[object]) -> None:
    with pytest.raises(ValueError):
        MultiVersionStore.from_view(4, 2, Leases(), iter(base), iter(log))  # type: ignore[arg-type]


def test_broken_invariants_are_found(five: MultiVersionStore) -> None:
    five.require_invariants()
    five._live.remove(b"c")
    with pytest.raises(InvariantViolation, match="live keys are those that exist"):
        five.require_invariants()
    five._live.add(b"c")
    five._log.records.pop()
    with pytest.raises(InvariantViolation, match="the log is what is above the compaction"):
        five.require_invariants()
