"""Whom a key concerns: every kind of range against the plain definition."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paxos_rsm.server.watch_index import WatchIndex, prefix_of

KEYS = st.binary(min_size=1, max_size=3).map(lambda key: bytes(b"\x00a\xfe\xff"[each % 4] for each in key))
ENDS = st.one_of(st.just(b""), st.just(b"\0"), KEYS)


def holds(key: bytes, start: bytes, end: bytes) -> bool:
    """etcd's definition of a range."""
    if not end:
        return key == start
    return start <= key and (end == b"\0" or key < end)


def found(index: WatchIndex[int], key: bytes) -> list[int]:
    return sorted(watch for group in index.groups(key) for watch in group)


@pytest.mark.parametrize(
    ("key", "range_end", "prefix"),
    [
        (b"a", b"b", b"a"),
        (b"a/", b"a0", b"a/"),
        (b"a\xff", b"b", b"a\xff"),
        (b"\xff", b"\0", b"\xff"),
        (b"\xff\xff", b"\0", b"\xff\xff"),
        (b"\0", b"\0", b""),
        (b"\0", b"\1", b"\0"),
        (b"a", b"\0", None),
        (b"a", b"c", None),
        (b"ab", b"b", None),
        (b"a\xff", b"a\xff\0", None),
        (b"b", b"a", None),
    ],
)
def test_a_prefix_is_known_by_its_end(key: bytes, range_end: bytes, prefix: bytes | None) -> None:
    assert prefix_of(key, range_end) == prefix


@given(ranges=st.lists(st.tuples(KEYS, ENDS), max_size=8), keys=st.lists(KEYS, min_size=1, max_size=8))
def test_a_key_finds_the_watches_whose_range_holds_it(
    ranges: list[tuple[bytes, bytes]], keys: list[bytes]
) -> None:
    index: WatchIndex[int] = WatchIndex()
    for number, (start, end) in enumerate(ranges):
        index.add(number, start, end)
    assert len(index) == len(ranges)
    assert sorted(index) == list(range(len(ranges)))
    for key in keys:
        assert found(index, key) == [n for n, (start, end) in enumerate(ranges) if holds(key, start, end)]
    # Taken out one by one, the others stay; in the end nothing is left behind.
    for number, (start, end) in enumerate(ranges):
        index.discard(number, start, end)
        for key in keys:
            left = [n for n, each in enumerate(ranges) if n > number and holds(key, *each)]
            assert found(index, key) == left
    assert not len(index)
    assert not index._exact
    assert not index._prefixes
    assert not index._ranges


def test_equal_ranges_are_one_group() -> None:
    index: WatchIndex[int] = WatchIndex()
    for number in range(100):
        index.add(number, b"k", b"")
        index.add(100 + number, b"k", b"l")
        index.add(200 + number, b"a", b"z")
    assert [len(group) for group in index.groups(b"k")] == [100, 100, 100]
    assert index.groups(b"zz") == []


def test_a_watch_that_is_not_there_is_told() -> None:
    index: WatchIndex[int] = WatchIndex()
    for range_end in (b"", b"b", b"c"):
        with pytest.raises(KeyError):
            index.discard(1, b"a", range_end)
