"""Hashes of the state, made in slices, so that nobody waits long while a large one is hashed.

A hash is over a view that later commands do not change, and that costs nothing to take (``machines/kv/view.py``);
between slices of the hashing everything else has its turn.

**The hash of the key-value store at a revision** is over every version that is kept up to it: the versions at the last
compaction in the order of keys, and each change after it in the order of the log. Both follow from the log alone. So
servers agree wherever revision and compaction agree, also where one of them has gone further since. The numbers are
not those that etcd would give; nobody compares them across the two.
"""

import asyncio
import inspect
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import chain
from struct import Struct
from zlib import crc32

from paxos_rsm.machines.base import StateMachine
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.store import MOD, Record
from paxos_rsm.machines.kv.types import COMPACTED, FUTURE_REVISION, KvError

__all__ = ["hash_at", "hash_of", "revision_error", "snapshot_of"]

RECORD = Struct(">IIqqqq")
"""Of each record: bytes of the key and of the value, which follow; create and mod revision, version, lease."""

SLICE_BYTES = 32 * 1024
"""Half a millisecond of records, or one slice of a snapshot."""


def revision_error(machine: KeyValueMachine, revision: int) -> KvError | None:
    """What a hash at ``revision`` (0 or less: the newest) is refused with: etcd refuses the compacted one too."""
    if 0 < revision <= machine.compacted_revision:
        return COMPACTED
    if revision > machine.revision:
        return FUTURE_REVISION
    return None


async def hash_at(machine: KeyValueMachine, revision: int) -> int:
    """32 bits over all that is kept up to ``revision`` (0 or less: everything), as of the call."""
    with closing(machine.view()) as view:
        last = revision if revision > 0 else view.revision
        head = view.compacted_revision.to_bytes(8, "big", signed=True)
        return await hash_of(chain([head], _packed(view.base(), last), _packed(view.log(), last)))


def _packed(batches: Iterable[list[Record]], last: int) -> Iterator[bytes]:
    """Up to revision ``last``; an empty piece for each batch that gives nothing, which takes its time too."""
    for records in batches:
        kept = [record for record in records if record[MOD] <= last]
        if records and not kept:
            return
        yield b"".join(
            [
                RECORD.pack(len(key), len(value), create, mod, version, lease) + key + value
                for key, create, mod, version, value, lease in kept
            ]
        )


async def hash_of(pieces: Iterable[bytes]) -> int:
    """The CRC-32 of ``pieces`` end to end; others have their turn at each piece that is empty."""
    checksum = size = 0
    for piece in pieces:
        checksum = crc32(piece, checksum)
        size += len(piece)
        if not piece or size >= SLICE_BYTES:
            size = 0
            await asyncio.sleep(0)
    return checksum


def snapshot_of(machine: StateMachine) -> Iterable[bytes]:
    """The state as of this call, also of a machine whose ``snapshot`` is a generator and takes no view by itself."""
    pieces = machine.snapshot()
    return list(pieces) if inspect.isgeneratorfunction(machine.snapshot) else pieces
