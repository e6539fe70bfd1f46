"""One version of one key, as the store keeps it.

Records are exact tuples, not KeyValues: the garbage collector stops looking at a tuple of bytes and integers,
but never at one of a subclass, and a store has millions of them. Results have KeyValues.
"""

from collections.abc import Callable, Iterable
from operator import itemgetter
from struct import Struct
from typing import Final, TypeAlias

__all__ = [
    "CREATE",
    "KEY",
    "LEASE",
    "LEASE_BYTES",
    "MOD",
    "PACKED",
    "RECORD_BYTES",
    "VALUE",
    "VERSION",
    "Record",
    "bytes_of",
    "mod_of",
    "packed",
]

Record: TypeAlias = tuple[bytes, int, int, int, bytes, int]
"""(key, create_revision, mod_revision, version, value, lease), as in KeyValue; a deletion is one with version 0."""

KEY: Final = 0
CREATE: Final = 1
MOD: Final = 2
VERSION: Final = 3
VALUE: Final = 4
LEASE: Final = 5

mod_of: Callable[[Record], int] = itemgetter(MOD)

RECORD_BYTES: Final = 300
"""What a record is taken to cost beside the bytes of its key and value (benchmarks/large_state.py measures it).

A constant of the replicated state, as the quota is compared with it: servers that disagree on it would diverge.
"""
LEASE_BYTES: Final = 600
"""What a lease is taken to cost; likewise."""


PACKED = Struct(">IIqqqq")
"""Bytes of the key and the value, which follow; create and mod revision, version, lease."""


def packed(records: Iterable[Record]) -> bytes:
    """The bytes of records, end to end."""
    pack = PACKED.pack
    parts: list[bytes] = []
    for key, create, mod, version, value, lease in records:
        parts += (pack(len(key), len(value), create, mod, version, lease), key, value)
    return b"".join(parts)


def bytes_of(record: Record) -> int:
    """What a record counts for in the size of the state."""
    return len(record[KEY]) + len(record[VALUE]) + RECORD_BYTES
