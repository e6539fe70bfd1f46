"""Keys, and every version of them since the last compaction.

**Records.** Each write and each deletion is one record, a tuple with the fields of KeyValue; a deletion is one with
version 0. It stands in up to three places, never copied:

- ``_newest``: key -> record, of the keys that exist. A read of the newest version is one look-up.
- ``_older``: key -> its records before that, oldest first; for a key that is deleted, the deletion comes last.
- ``_log``: every record since the last compaction, in the order of revisions, and within one in the order of the
  transaction's operations. Compaction walks it; a watch can be served from it.

**Order.** Two sorted lists of keys: ``_live``, those that exist, and ``_dead``, those that were deleted and still have
versions. So a range over the present never meets a deleted key, and counts in O(log n).

**Invariants.** ``_live`` holds the keys of ``_newest``. ``_older[key]`` is never empty; its mod revisions never go
down, and two are equal only where one transaction has written a key twice. A lease holds the keys whose newest
record names it, and those only. Of each key at most one record, and no
deletion, is at or below ``compacted_revision``; the log is what is above it. So the two together are the whole state.

**Compaction** at C walks the log up to C: only keys that were written since the last compaction can have a version to
drop. Work is proportional to the part of the log that is dropped, not to the keys in the store.

Records are exact tuples, not KeyValues: the garbage collector stops looking at a tuple of bytes and integers,
but never at one of a subclass, and a store has millions of them. Results have KeyValues.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from heapq import merge
from itertools import islice
from operator import itemgetter
from typing import Any, Final, TypeAlias

from sortedcontainers import SortedList

from paxos_rsm.errors import InvariantViolation
from paxos_rsm.machines.kv.leases import Leases
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
    KvError,
    Put,
    PutResult,
    Range,
    RangeResult,
    SortOrder,
    SortTarget,
)

__all__ = ["CREATE", "KEY", "LEASE", "MOD", "VALUE", "VERSION", "MultiVersionStore", "Record"]

Record: TypeAlias = tuple[bytes, int, int, int, bytes, int]
"""(key, create_revision, mod_revision, version, value, lease), as in KeyValue."""

KEY: Final = 0
CREATE: Final = 1
MOD: Final = 2
VERSION: Final = 3
VALUE: Final = 4
LEASE: Final = 5

_mod_of: Callable[[Record], int] = itemgetter(MOD)

# What a range is sorted by, for each SortTarget.
_SORT_KEYS: dict[int, Callable[[KeyValue], Any]] = {
    SortTarget.KEY: itemgetter(KEY),
    SortTarget.VERSION: itemgetter(VERSION),
    SortTarget.CREATE: itemgetter(CREATE),
    SortTarget.MOD: itemgetter(MOD),
    SortTarget.VALUE: itemgetter(VALUE),
}

# The tail of a Range that asks for nothing special: from keys_only on, and from min_mod_revision on.
_PLAIN = Range(b"")[7:]
_UNFILTERED = Range(b"")[9:]

# Plain integers: to look up a member of an enumeration costs more than to compare it.
_BY_KEY = int(SortTarget.KEY)
_DESCEND = int(SortOrder.DESCEND)

# A named tuple's own constructor checks its arguments, which costs more than the rest of a put.
_new: Callable[..., object] = tuple.__new__


class MultiVersionStore:
    """The store. Commands are taken as checked (see check.py); errors that depend on the state are returned.

    The operations of one transaction are given the revision that they write; without it, each is its own transaction.
    """

    __slots__ = ("_dead", "_live", "_log", "_newest", "_older", "compacted_revision", "leases", "revision")

    def __init__(self) -> None:
        self.revision = 1
        """Of the newest transaction that has changed anything; an empty store has 1."""
        self.compacted_revision = -1
        """Reads below it are refused; -1 before the first compaction, as in etcd."""
        self.leases = Leases()
        self._newest: dict[bytes, Record] = {}
        self._older: dict[bytes, list[Record]] = {}
        self._log: list[Record] = []
        self._live = SortedList()
        self._dead = SortedList()

    def __len__(self) -> int:
        return len(self._newest)

    # ---- writing -----------------------------------------------------------------------------------------

    def put(self, command: Put, revision: int = 0) -> PutResult | KvError:
        """Writes a key."""
        key, value, lease, wants_prev, ignore_value, ignore_lease = command
        old = self._newest.get(key)
        if lease or ignore_value or ignore_lease:
            error = self.put_error(command)
            if error is not None:
                return error
            if old is not None:
                value = old[VALUE] if ignore_value else value
                lease = old[LEASE] if ignore_lease else lease
        if not revision:
            revision = self.revision + 1
        self.revision = revision
        if old is None:
            record = (key, revision, revision, 1, value, lease)
            self._live.add(key)
            if key in self._older:
                self._dead.remove(key)
        else:
            record = (key, old[CREATE], revision, old[VERSION] + 1, value, lease)
            older = self._older.get(key)
            if older is None:
                self._older[key] = [old]
            else:
                older.append(old)
            if old[LEASE]:
                self.leases.detach(old[LEASE], key)
        if lease:
            self.leases.attach(lease, key)
        self._newest[key] = record
        self._log.append(record)
        prev_kv = KeyValue._make(old) if wants_prev and old is not None else None
        return _new(PutResult, (revision, prev_kv))  # type: ignore[return-value]

    def put_error(self, command: Put, *, in_txn: bool = False) -> KvError | None:
        """What :meth:`put` would refuse the command with now. Which of two reasons etcd gives depends on ``in_txn``."""
        no_lease = LEASE_NOT_FOUND if command.lease and command.lease not in self.leases else None
        keeps = command.ignore_value or command.ignore_lease
        no_key = KEY_NOT_FOUND if keeps and command.key not in self._newest else None
        return no_key or no_lease if in_txn else no_lease or no_key

    def delete_range(self, command: DeleteRange, revision: int = 0) -> DeleteRangeResult:
        """Deletes what the range holds; nothing there is no change, and makes no revision."""
        keys = list(self._keys(command.key, command.range_end))
        if not keys:
            return DeleteRangeResult(self.revision, 0)
        prev_kvs: tuple[KeyValue, ...] = ()
        if command.prev_kv:
            prev_kvs = tuple(KeyValue._make(self._newest[key]) for key in keys)
        revision = revision or self.revision + 1
        for key in keys:
            self._delete(key, revision)
        return DeleteRangeResult(revision, len(keys), prev_kvs)

    def _delete(self, key: bytes, revision: int) -> None:
        lease = self._newest[key][LEASE]
        if lease:
            self.leases.detach(lease, key)
        self._remove(key, revision)

    def _remove(self, key: bytes, revision: int) -> None:
        """All of a deletion but for leases."""
        self.revision = revision
        deletion: Record = (key, 0, revision, 0, b"", 0)
        old = self._newest.pop(key)
        self._older.setdefault(key, []).extend((old, deletion))
        self._log.append(deletion)
        self._live.remove(key)
        self._dead.add(key)

    def revoke(self, lease: int) -> bool:
        """Ends a lease and deletes its keys, in one revision if it has any; False where there is no such lease."""
        found = self.leases.get(lease)
        if found is None:
            return False
        revision = self.revision + 1
        for key in found.keys:
            self._delete(key, revision)
        self.leases.drop(lease)
        return True

    # ---- reading -----------------------------------------------------------------------------------------

    def get(self, key: bytes) -> Record | None:
        """The newest version of a key."""
        return self._newest.get(key)

    def scan(self, key: bytes, range_end: bytes) -> Iterator[Record]:
        """The newest versions in a range, by key. The store must not change meanwhile."""
        return map(self._newest.__getitem__, self._keys(key, range_end))

    def revision_error(self, revision: int) -> KvError | None:
        """What a read at that revision is refused with now; 0 or less is the newest."""
        if revision <= 0:
            return None
        if revision > self.revision:
            return FUTURE_REVISION
        if revision < self.compacted_revision:
            return COMPACTED
        return None

    def range(self, command: Range) -> RangeResult | KvError:
        """Reads a range, at the newest or an older revision."""
        at = command.revision
        if at > 0:
            error = self.revision_error(at)
            if error is not None:
                return error
        limit = command.limit
        is_page = limit > 0 and not command.count_only and _is_by_key(command) and command[9:] == _UNFILTERED
        if 0 < at < self.revision:
            if is_page:
                return self._page(command, self._scan_at(command.key, command.range_end, at), at)
            return self._select(command, list(self._scan_at(command.key, command.range_end, at)))
        if not command.range_end and not command.count_only:
            record = self._newest.get(command.key)
            if record is None:
                return RangeResult(self.revision, (), False, 0)
            if command[7:] == _PLAIN:
                return RangeResult(self.revision, (KeyValue._make(record),), False, 1)
            return self._select(command, [record])
        if command.count_only:
            return RangeResult(self.revision, (), False, self._count(command.key, command.range_end))
        if is_page:
            return self._page(command, self.scan(command.key, command.range_end), self.revision)
        return self._select(command, list(self.scan(command.key, command.range_end)))

    def _page(self, command: Range, records: Iterator[Record], at: int) -> RangeResult:
        """The common form of paging: what lies beyond the limit is counted, not read."""
        limit = command.limit
        found = list(islice(records, limit))
        count = len(found) if len(found) < limit else self._count_at(command.key, command.range_end, at)
        kvs = tuple(map(KeyValue._make, found))
        if command.keys_only:
            kvs = tuple(kv._replace(value=b"") for kv in kvs)
        return RangeResult(self.revision, kvs, count > limit, count)

    def _select(self, command: Range, found: list[Record]) -> RangeResult:
        """Filters, sorts and cuts what a range has found."""
        count = len(found)
        if command.count_only:
            return RangeResult(self.revision, (), False, count)
        kvs = list(map(KeyValue._make, found))
        if command[9:] != _UNFILTERED:
            kvs = _filtered(command, kvs)
        if not _is_by_key(command):
            if not command.sort_order and command.limit > 0 and command[9:] == _UNFILTERED:
                # etcd's rule: where no order is asked for, the first keys are sorted, and not the first taken of all.
                del kvs[command.limit + 1 :]
            # Ties stay in the order of keys, also where the order is reversed.
            kvs.sort(key=_SORT_KEYS[command.sort_target], reverse=command.sort_order == _DESCEND)
        more = 0 < command.limit < len(kvs)
        if more:
            del kvs[command.limit :]
        if command.keys_only:
            kvs = [kv._replace(value=b"") for kv in kvs]
        return RangeResult(self.revision, tuple(kvs), more, count)

    def _keys(self, key: bytes, range_end: bytes, keys: SortedList | None = None) -> Iterator[bytes]:
        """The keys of a range, among those that exist or those given."""
        if not range_end:
            return iter((key,) if (key in self._newest if keys is None else key in keys) else ())
        if range_end != ALL_FROM and key >= range_end:
            return iter(())
        end = None if range_end == ALL_FROM else range_end
        found: Iterator[bytes] = (self._live if keys is None else keys).irange(key, end, (True, False))
        return found

    def _count(self, key: bytes, range_end: bytes) -> int:
        if not range_end:
            return int(key in self._newest)
        end = len(self._live) if range_end == ALL_FROM else self._live.bisect_left(range_end)
        return max(0, int(end - self._live.bisect_left(key)))

    def _count_at(self, key: bytes, range_end: bytes, revision: int) -> int:
        """How many keys a range had at a revision. Costs what has changed since, not what there is."""
        count = self._count(key, range_end)
        if revision >= self.revision:
            return count
        start = bisect_right(self._log, revision, key=_mod_of)
        changed = {record[KEY] for record in islice(self._log, start, None)}
        for each in changed:
            inside = (
                each == key if not range_end else each >= key and (range_end == ALL_FROM or each < range_end)
            )
            if inside:
                count += (self._version_at(each, revision) is not None) - (each in self._newest)
        return count

    def _scan_at(self, key: bytes, range_end: bytes, revision: int) -> Iterator[Record]:
        """The versions in a range at an older revision, by key. The store must not change meanwhile."""
        for each in merge(self._keys(key, range_end), self._keys(key, range_end, self._dead)):
            record = self._version_at(each, revision)
            if record is not None:
                yield record

    def _version_at(self, key: bytes, revision: int) -> Record | None:
        record = self._newest.get(key)
        if record is not None and record[MOD] <= revision:
            return record
        older = self._older.get(key, ())
        at = bisect_right(older, revision, key=_mod_of)
        if at and older[at - 1][VERSION]:
            return older[at - 1]
        return None

    def changes(self, first_revision: int, records_max: int) -> list[Record]:
        """What was written and deleted from ``first_revision`` on, in order: whole revisions, one at least if any.

        About ``records_max`` records at most; a revision that has more comes whole. Raises ValueError where some of
        them are compacted.
        """
        if first_revision <= self.compacted_revision:
            raise ValueError(
                f"revision {first_revision} is compacted: {self.compacted_revision} is the last that is"
            )
        log = self._log
        start = bisect_left(log, first_revision, key=_mod_of)
        end = start + records_max
        if end < len(log):
            # Up to the last revision that ends within, or where none does, all of the first.
            cut = bisect_left(log, log[end][MOD], lo=start, key=_mod_of)
            end = cut if cut > start else bisect_right(log, log[start][MOD], lo=start, key=_mod_of)
        return log[start:end]

    def previous(self, record: Record) -> Record | None:
        """What was there before the transaction that wrote ``record``; None where that created it, or it is compacted.

        It is etcd's rule, and shows only where one transaction has written a key several times.
        """
        if record[VERSION] == 1:
            return None
        older = self._older.get(record[KEY], ())
        at = bisect_left(older, record[MOD], key=_mod_of)
        return older[at - 1] if at and older[at - 1][VERSION] else None

    # ---- compaction --------------------------------------------------------------------------------------

    def compact(self, command: Compact) -> CompactResult | KvError:
        """Drops every version that a read at ``command.revision`` or later cannot see."""
        revision = command.revision
        if revision <= self.compacted_revision:
            return COMPACTED
        if revision > self.revision:
            return FUTURE_REVISION
        self.compacted_revision = revision
        end = bisect_right(self._log, revision, key=_mod_of)
        # Each key once. The order does not matter here, but that of a set would differ between servers.
        touched = dict.fromkeys([record[KEY] for record in self._log[:end]])
        del self._log[:end]
        for key in touched:
            self._drop_versions(key, revision)
        return CompactResult(self.revision)

    def _drop_versions(self, key: bytes, revision: int) -> None:
        older = self._older.get(key)
        if older is None:
            return
        newest = self._newest.get(key)
        if newest is not None and newest[MOD] <= revision:
            del self._older[key]
            return
        seen = bisect_right(older, revision, key=_mod_of)
        if seen and older[seen - 1][VERSION]:
            seen -= 1
        del older[:seen]
        if not older:
            del self._older[key]
            if newest is None:
                self._dead.remove(key)

    # ---- the whole state ---------------------------------------------------------------------------------

    def view(self) -> tuple[int, int, Iterator[Record], list[Record]]:
        """(revision, compacted revision, records at or below it by key, the log), as of this call.

        Later changes do not show in it. The call copies references only: one for each key (the records and, in
        order, the keys), each key with older versions, and each record of the log.
        """
        compacted = self.compacted_revision
        superseded = [records[0] for records in self._older.values() if records[0][MOD] <= compacted]
        return (
            self.revision,
            compacted,
            _base(compacted, list(self._live), self._newest.copy(), superseded),
            self._log.copy(),
        )

    def require_invariants(self) -> None:
        """Raises InvariantViolation where one of those at the head of the module does not hold. Slow: for tests."""
        compacted = self.compacted_revision
        newest, older = self._newest, self._older
        log = [record for records in older.values() for record in records] + list(newest.values())
        log = [record for record in log if record[MOD] > compacted]
        dead = [key for key, records in older.items() if key not in newest]
        held = {
            "live keys are those that exist": list(self._live) == sorted(newest),
            "dead keys are those with versions that do not exist": list(self._dead) == sorted(dead),
            "the log is what is above the compaction": sorted(self._log) == sorted(log),
            "the log is in the order of revisions": self._log == sorted(self._log, key=_mod_of),
            "no revision is ahead of the store": all(record[MOD] <= self.revision for record in self._log),
            "every change is in the log": not self._log or self._log[-1][MOD] == self.revision,
        }
        for key, records in older.items():
            versions = [*records, newest[key]] if key in newest else records
            settled = [record for record in versions if record[MOD] <= compacted]
            held[f"{key!r} has older versions"] = bool(records)
            held[f"{key!r} is in the order of revisions"] = versions == sorted(versions, key=_mod_of)
            held[f"{key!r} ends as it should"] = (key in newest) == bool(versions[-1][VERSION])
            held[f"{key!r} is compacted"] = len(settled) <= 1 and all(record[VERSION] for record in settled)
        attached = [(record[LEASE], key) for key, record in newest.items() if record[LEASE]]
        held["a lease holds the keys that name it"] = sorted(attached) == [
            (lease, key) for lease in self.leases.ids() for key in self._keys_of(lease)
        ]
        broken = [rule for rule, holds in held.items() if not holds]
        if broken:
            raise InvariantViolation(f"the key-value store broke its invariants: {'; '.join(broken)}")

    def _keys_of(self, lease: int) -> list[bytes]:
        found = self.leases.get(lease)
        return found.keys if found is not None else []

    @classmethod
    def from_view(
        cls,
        revision: int,
        compacted_revision: int,
        leases: Leases,
        base: Iterator[Record],
        log: Iterator[Record],
    ) -> "MultiVersionStore":
        """The store that :meth:`view` was taken of. Raises ValueError where the records cannot be one.

        ``leases`` are those of the view, which do not hold their keys yet.
        """
        store = cls()
        store.compacted_revision = compacted_revision
        for record in base:
            key, create, mod, version, _, _ = record
            if not (version >= 1 < create <= mod <= compacted_revision and key) or key in store._newest:
                raise ValueError(f"key {_shown(key)} has a record that cannot stand below the compaction")
            store._newest[key] = record
        store._live.update(store._newest)
        # Every revision after the first, or after the compaction, has changed something: none is left out.
        last = start = max(compacted_revision, 1)
        for record in log:
            if not max(last, start + 1) <= record[MOD] <= last + 1:
                raise ValueError(f"the log's revisions are out of order at key {_shown(record[KEY])}")
            last = record[MOD]
            store._replay(record)
        if last != revision:
            raise ValueError(f"the log ends with revision {last}, and the store is at {revision}")
        store.revision = revision
        for record in store._newest.values():
            if record[LEASE]:
                if record[LEASE] not in leases:
                    raise ValueError(
                        f"key {_shown(record[KEY])} is held by lease {record[LEASE]}, which is not there"
                    )
                leases.attach(record[LEASE], record[KEY])
        store.leases = leases
        return store

    def _replay(self, record: Record) -> None:
        key = record[KEY]
        old = self._newest.get(key)
        if not record[VERSION]:
            if old is None or record != (key, 0, record[MOD], 0, b"", 0):
                raise ValueError(f"key {_shown(key)} is deleted without having been there")
            # Leases are as they were in the end: who held the key before is not known to them.
            self._remove(key, record[MOD])
            return
        version, create = (1, record[MOD]) if old is None else (old[VERSION] + 1, old[CREATE])
        if record[VERSION] != version or record[CREATE] != create or not key:
            raise ValueError(f"key {_shown(key)} lacks a version")
        if old is not None:
            self._older.setdefault(key, []).append(old)
        else:
            self._live.add(key)
            if key in self._older:
                self._dead.remove(key)
        self._newest[key] = record
        self._log.append(record)


def _shown(key: bytes) -> str:
    """A key in an error: not all of a megabyte."""
    return repr(key[:64]) + ("..." if len(key) > 64 else "")


def _is_by_key(command: Range) -> bool:
    """Whether the order asked for is the one in which keys are found."""
    return command.sort_target == _BY_KEY and command.sort_order != _DESCEND


def _filtered(command: Range, kvs: list[KeyValue]) -> list[KeyValue]:
    """Those that pass the filters on revisions; each is off where it is 0."""
    min_mod, max_mod = command.min_mod_revision, command.max_mod_revision
    min_create, max_create = command.min_create_revision, command.max_create_revision
    return [
        kv
        for kv in kvs
        if (not min_mod or kv.mod_revision >= min_mod)
        and (not max_mod or kv.mod_revision <= max_mod)
        and (not min_create or kv.create_revision >= min_create)
        and (not max_create or kv.create_revision <= max_create)
    ]


def _base(
    compacted: int, keys: list[bytes], newest: dict[bytes, Record], superseded: list[Record]
) -> Iterator[Record]:
    """First the keys that still have the version they had then, then the others."""
    for key in keys if compacted > 0 else ():
        record = newest[key]
        if record[MOD] <= compacted:
            yield record
    yield from sorted(superseded)
