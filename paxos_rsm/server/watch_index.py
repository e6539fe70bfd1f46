"""Who watches a key: from a key to the watches whose range holds it, without asking each of them.

Three kinds of ranges, each found in its own way::

    one key        a dictionary from the key                                          one look-up a written key
    a prefix       a dictionary from the prefix, for each length that is watched      one look-up a length
    any other      a list of ranges                                                   two comparisons a range

The whole key space is the prefix of no bytes. Watches of equal ranges are one *group*, which is found once whatever
its size: ten thousand watches on other keys cost a written key nothing, and a thousand on that key one look-up.

Ranges are etcd's: no end is the one key, an end of ``\\0`` is every key from there on. Keys are never empty.
"""

from collections.abc import Hashable, Iterator
from typing import Generic, TypeAlias, TypeVar

from paxos_rsm.machines.kv.types import ALL_FROM

__all__ = ["Group", "WatchIndex", "prefix_of"]

W = TypeVar("W", bound=Hashable)

Group: TypeAlias = dict[W, None]
"""Watches of one range, in the order in which they came."""

FIRST_KEY = b"\0"


def prefix_of(key: bytes, range_end: bytes) -> bytes | None:
    """The prefix whose keys are exactly those of the range; None where there is none. ``range_end`` is not empty."""
    if range_end == ALL_FROM:
        # From the smallest key on: everything. From 0xff...: whatever starts with it is all there is.
        if key == FIRST_KEY:
            return b""
        return key if key.strip(b"\xff") == b"" else None
    # The end of a prefix is its last byte raised by one, once those are gone that cannot be.
    stem = key.rstrip(b"\xff")
    if stem and range_end == stem[:-1] + bytes((stem[-1] + 1,)):
        return key
    return None


class WatchIndex(Generic[W]):
    """Watches by range. A watch is there once, under the range that it was added with."""

    __slots__ = ("_exact", "_prefixes", "_ranges", "_size")

    def __init__(self) -> None:
        self._exact: dict[bytes, Group[W]] = {}
        self._prefixes: dict[int, dict[bytes, Group[W]]] = {}
        self._ranges: dict[tuple[bytes, bytes], Group[W]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[W]:
        """Every watch. The index must not change meanwhile."""
        for group in self._exact.values():
            yield from group
        for by_prefix in self._prefixes.values():
            for group in by_prefix.values():
                yield from group
        for group in self._ranges.values():
            yield from group

    def add(self, watch: W, key: bytes, range_end: bytes) -> None:
        """Adds a watch that is not there yet."""
        self._size += 1
        if not range_end:
            group = self._exact.get(key)
            if group is None:
                group = self._exact[key] = {}
        elif (prefix := prefix_of(key, range_end)) is not None:
            group = self._prefixes.setdefault(len(prefix), {}).setdefault(prefix, {})
        else:
            group = self._ranges.setdefault((key, range_end), {})
        group[watch] = None

    def discard(self, watch: W, key: bytes, range_end: bytes) -> None:
        """Takes out a watch that was added with this range. Raises KeyError where it is not there."""
        if not range_end:
            group = self._exact[key]
            del group[watch]
            if not group:
                del self._exact[key]
        elif (prefix := prefix_of(key, range_end)) is not None:
            by_prefix = self._prefixes[len(prefix)]
            group = by_prefix[prefix]
            del group[watch]
            if not group:
                del by_prefix[prefix]
                if not by_prefix:
                    del self._prefixes[len(prefix)]
        else:
            group = self._ranges[key, range_end]
            del group[watch]
            if not group:
                del self._ranges[key, range_end]
        self._size -= 1

    def groups(self, key: bytes) -> list[Group[W]]:
        """The groups whose ranges hold ``key``. They change with the index: copy what is walked."""
        exact = self._exact.get(key)
        found = [] if exact is None else [exact]
        for length, by_prefix in self._prefixes.items():
            group = by_prefix.get(key[:length])
            if group is not None:
                found.append(group)
        for (start, end), group in self._ranges.items():
            if start <= key and (key < end or end == ALL_FROM):
                found.append(group)
        return found
