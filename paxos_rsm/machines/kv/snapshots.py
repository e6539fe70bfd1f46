"""The key-value store as a snapshot: the leases, the records at the last compaction, by key, then the log after it.

Equal states give equal bytes, whatever a server has still to tidy up. Records are packed in batches as the slices are
taken; where a batch holds none, an empty slice lets others have their turn (see ``slices.py``). So neither taking a
snapshot nor any slice of it takes more than some milliseconds, however large the store is; but for the leases, whose
numbers are copied and sorted each in one go: 1 and 30 ms for 100,000.

Version 3 has the quota, and where the running hash stands (``running.py``). Version 2, without them, is still read.
"""

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from paxos_rsm.machines.kv.leases import Leases
from paxos_rsm.machines.kv.records import PACKED, Record, packed
from paxos_rsm.machines.kv.store import MultiVersionStore
from paxos_rsm.machines.kv.view import BATCH_RECORDS, StoreView
from paxos_rsm.machines.slices import SliceReader

__all__ = ["Restored", "pieces", "read"]

# The snapshot: MAGIC, HEADER, a LEASE for each lease, the records at the compaction, END, those of the log, END. Sealed
# (see slices.py).
MAGIC = b"paxos_rsm key-value 3\n"
MAGIC_2 = b"paxos_rsm key-value 2\n"
HEADER = Struct(">qqQQ")  # revision, compacted revision, armings of leases so far, leases
MORE = Struct(
    ">QQI"
)  # not in version 2: quota_bytes; of the running hash, records not counted yet, and its checksum
LEASE = Struct(">qqQ")  # id, ttl_s, arming
REVISION_MAX = 1 << 62
"""Of a snapshot that is believed: no store gets there, and the revisions after it still fit 64 bits."""
END = bytes(PACKED.size)  # no record has mod revision 0


def pieces(
    view: StoreView, leases: dict[int, tuple[int, int, int]], armings: int, more: bytes
) -> Iterator[bytes]:
    """What a snapshot consists of; ``more`` are the bytes of MORE."""
    yield MAGIC + HEADER.pack(view.revision, view.compacted_revision, armings, len(leases)) + more
    # A pause before and after what takes long.
    yield b""
    ids = sorted(leases)
    yield b""
    for start in range(0, len(ids), BATCH_RECORDS):
        yield b"".join([LEASE.pack(*leases[each]) for each in ids[start : start + BATCH_RECORDS]])
    yield from map(packed, view.base())
    yield END
    yield from map(packed, view.log())
    yield END


class Restored(NamedTuple):
    """What a snapshot has given."""

    store: MultiVersionStore
    uncounted: int
    """Records at the end of the log that the running hash has not counted yet."""
    checksum: int
    """Of the running hash."""


def read(reader: SliceReader) -> Restored:
    """Reads a whole snapshot. Raises MachineFailed where it is damaged, or cannot be one."""
    magic = reader.read(len(MAGIC))
    if magic not in (MAGIC, MAGIC_2):
        raise reader.damaged("it is not one of this version of paxos_rsm")
    revision, compacted, armings, lease_count = HEADER.unpack(reader.read(HEADER.size))
    quota_bytes = uncounted = checksum = 0
    if magic == MAGIC:
        quota_bytes, uncounted, checksum = MORE.unpack(reader.read(MORE.size))
    if not (1 <= revision <= REVISION_MAX and -1 <= compacted <= revision):
        raise reader.damaged(f"revision {revision}, compacted at {compacted}, cannot be")
    try:
        leases = Leases.from_view(
            armings, (LEASE.unpack(reader.read(LEASE.size)) for _ in range(lease_count))
        )
        store = MultiVersionStore.from_view(revision, compacted, leases, _records(reader), _records(reader))
    except ValueError as error:
        raise reader.damaged(str(error)) from error
    if uncounted > store.change_count:
        raise reader.damaged(f"{uncounted} changes are to be counted, and it has {store.change_count}")
    store.set_quota(quota_bytes)
    reader.finish()
    return Restored(store, uncounted, checksum)


def _records(reader: SliceReader) -> Iterator[Record]:
    """The records up to END, which is read too."""
    unpack, head_bytes = PACKED.unpack_from, PACKED.size
    while True:
        # Those that lie whole in one chunk are taken out of it without a call each.
        data, at = reader.waiting()
        last = len(data) - head_bytes
        while at <= last:
            key_bytes, value_bytes, create, mod, version, lease = unpack(data, at)
            value_at = at + head_bytes + key_bytes
            end = value_at + value_bytes
            if end > len(data) or not mod:
                break
            # Two numbers that are equal in most records: one object of them.
            create = mod if create == mod else create
            yield data[at + head_bytes : value_at], create, mod, version, data[value_at:end], lease
            at = end
        reader.skip(at)
        head = reader.read(head_bytes)
        if head == END:
            return
        key_bytes, value_bytes, create, mod, version, lease = PACKED.unpack(head)
        yield reader.read(key_bytes), create, mod, version, reader.read(value_bytes), lease
