"""Keys, and every version of them since the last compaction.

**Records.** Each write and each deletion is one record (``records.py``). It stands in up to three places, never copied:

- ``_newest``: key -> record, of the keys that exist. A read of the newest version is one look-up.
- ``_older``: key -> its records before that, oldest first; for a key that is deleted, the deletion comes last.
- ``_log``: every record since the last compaction, in the order of revisions, and within one in the order of the
  transaction's operations (``changes.py``). Compaction walks it; a watch can be served from it.

**Order.** Two sorted lists of keys: ``_live``, those that exist, and ``_dead``, those that were deleted and still have
versions. So a range over the present never meets a deleted key, and counts in O(log n).

**Compaction** at C is done at once as far as anybody can see: reads below C are refused, and the size of the state is
what it will be. What it frees is dropped behind its back, a piece at a time (:meth:`MultiVersionStore.tidy`): from the
front of the log, each record drops the version that it has replaced, and itself where it is a deletion. Work is
proportional to the part of the log that is dropped, not to the keys in the store. How far this has come is no
part of the state: no answer depends on it. It halts before what an open view still shows (``view.py``).

**Invariants.** ``_live`` holds the keys of ``_newest``. ``_older[key]`` is never empty; its mod revisions never go
down, and two are equal only where one transaction has written a key twice. A lease holds the keys whose newest
record names it, and those only. The log holds every change above ``compacted_revision``, and perhaps some below it; of
each key at most one record, and no deletion, is not in it.

**Size.** ``state_bytes`` counts every version that is kept: those in the log above the compaction, and of each key the
one at it. It follows from the log of commands alone. At ``quota_bytes`` there is no *room* for another put.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from itertools import islice
from weakref import WeakSet

from sortedcontainers import SortedList

from paxos_rsm.errors import InvariantViolation
from paxos_rsm.machines.kv.changes import ChangeLog
from paxos_rsm.machines.kv.leases import Lease, Leases
from paxos_rsm.machines.kv.records import (
    CREATE,
    KEY,
    LEASE,
    LEASE_BYTES,
    MOD,
    RECORD_BYTES,
    VALUE,
    VERSION,
    Record,
    bytes_of,
    mod_of,
)
from paxos_rsm.machines.kv.selection import is_in_order, selected
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
)
from paxos_rsm.machines.kv.view import StoreView

__all__ = ["CREATE", "KEY", "LEASE", "MOD", "VALUE", "VERSION", "MultiVersionStore", "Record"]

# The tail of a Range that asks for nothing special, from keys_only on.
_PLAIN = Range(b"")[7:]

# A named tuple's own constructor checks its arguments, which costs more than the rest of a put.
_new: Callable[..., object] = tuple.__new__

_UNLIMITED = 1 << 62
"""Of bytes, where there is no quota."""

TIDY_RECORDS = 8192
"""Of the log, which a compaction drops at once: some milliseconds. The rest waits for ``tidy``."""


class _Records(dict[bytes, Record]):
    """A dictionary that the garbage collector never stops looking at.

    It does stop at a plain one, when all values are such that it need not look at them, and begins again with the next
    that is written: with the youngest, so that soon after each full collection comes a short one that takes as long.
    """

    __slots__ = ()


class MultiVersionStore:
    """The store. Commands are taken as checked (see check.py); errors that depend on the state are returned.

    The operations of one transaction are given the revision that they write; without it, each is its own transaction.
    """

    __slots__ = (
        "_dead",
        "_live",
        "_log",
        "_newest",
        "_older",
        "_tidy_to",
        "_views",
        "compacted_revision",
        "leases",
        "quota_bytes",
        "revision",
        "room",
    )

    def __init__(self) -> None:
        self.revision = 1
        """Of the newest transaction that has changed anything; an empty store has 1."""
        self.compacted_revision = -1
        """Reads below it are refused; -1 before the first compaction, as in etcd."""
        self.leases = Leases()
        self._newest: dict[bytes, Record] = _Records()
        self._older: dict[bytes, list[Record]] = {}
        self._log = ChangeLog()
        self._live = SortedList()
        self._dead = SortedList()
        self.quota_bytes = 0
        """What the state may grow to; 0: there is no limit."""
        self.room = _UNLIMITED
        """Bytes up to the quota, where none are left puts are refused: so it is below 0 by one command at most."""
        # The position in the log up to which it is compacted.
        self._tidy_to = 0
        self._views: WeakSet[StoreView] = WeakSet()

    def __len__(self) -> int:
        return len(self._newest)

    @property
    def log(self) -> ChangeLog:
        """To be read only."""
        return self._log

    @property
    def change_count(self) -> int:
        """Changes since the last compaction."""
        return self._log.end - self._log.after(self.compacted_revision)

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
        log = self._log
        if old is None:
            record = (key, revision, revision, 1, value, lease)
            self._live.add(key)
            if key in self._older:
                self._dead.remove(key)
            log.freed.append(0)
        else:
            record = (key, old[CREATE], revision, old[VERSION] + 1, value, lease)
            older = self._older.get(key)
            if older is None:
                self._older[key] = [old]
            else:
                older.append(old)
            log.freed.append(len(key) + len(old[VALUE]) + RECORD_BYTES)
            if old[LEASE]:
                self.leases.detach(old[LEASE], key)
        if lease:
            self.leases.attach(lease, key)
        self._newest[key] = record
        self.room -= len(key) + len(value) + RECORD_BYTES
        log.records.append(record)
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
        log = self._log
        self.room -= bytes_of(deletion)
        log.records.append(deletion)
        log.freed.append(bytes_of(old) + bytes_of(deletion))
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
        self.room += LEASE_BYTES
        return True

    def grant(self, lease: int, ttl_s: int) -> Lease | KvError:
        """Makes a lease."""
        granted = self.leases.grant(lease, ttl_s)
        if isinstance(granted, Lease):
            self.room -= LEASE_BYTES
        return granted

    # ---- size --------------------------------------------------------------------------------------------

    @property
    def state_bytes(self) -> int:
        """What the state is taken to cost: keys, values, and a constant for each version and each lease."""
        return (self.quota_bytes or _UNLIMITED) - self.room

    def set_quota(self, quota_bytes: int) -> None:
        """Sets what the state may grow to; 0: no limit."""
        self.room += (quota_bytes or _UNLIMITED) - (self.quota_bytes or _UNLIMITED)
        self.quota_bytes = quota_bytes

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
        is_page = limit > 0 and not command.count_only and is_in_order(command)
        if 0 < at < self.revision:
            if is_page:
                return self._page(command, self._scan_at(command.key, command.range_end, at), at)
            return selected(command, self.revision, list(self._scan_at(command.key, command.range_end, at)))
        if not command.range_end and not command.count_only:
            record = self._newest.get(command.key)
            if record is None:
                return RangeResult(self.revision, (), False, 0)
            if command[7:] == _PLAIN:
                return RangeResult(self.revision, (KeyValue._make(record),), False, 1)
            return selected(command, self.revision, [record])
        if command.count_only:
            return RangeResult(self.revision, (), False, self._count(command.key, command.range_end))
        if is_page:
            return self._page(command, self.scan(command.key, command.range_end), self.revision)
        return selected(command, self.revision, list(self.scan(command.key, command.range_end)))

    def _page(self, command: Range, records: Iterator[Record], at: int) -> RangeResult:
        """The common form of paging: what lies beyond the limit is counted, not read."""
        limit = command.limit
        found = list(islice(records, limit))
        count = len(found) if len(found) < limit else self._count_at(command.key, command.range_end, at)
        kvs = tuple(map(KeyValue._make, found))
        if command.keys_only:
            kvs = tuple(kv._replace(value=b"") for kv in kvs)
        return RangeResult(self.revision, kvs, count > limit, count)

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
        log = self._log
        changed = {record[KEY] for record in log.between(log.after(revision), log.end)}
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
        at = bisect_right(older, revision, key=mod_of)
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
        return self._log.page(first_revision, records_max)

    def previous(self, record: Record) -> Record | None:
        """What was there before the transaction that wrote ``record``; None where that created it, or it is compacted.

        It is etcd's rule, and shows only where one transaction has written a key several times.
        """
        if record[VERSION] == 1:
            return None
        older = self._older.get(record[KEY], ())
        at = bisect_left(older, record[MOD], key=mod_of)
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
        end = self._log.after(revision)
        self.room += self._log.freed_between(self._tidy_to, end)
        self._tidy_to = end
        self.tidy(TIDY_RECORDS)
        return CompactResult(self.revision)

    @property
    def is_untidy(self) -> bool:
        """Whether a compaction has left something to be dropped."""
        return self._log.first < self._tidy_to

    def tidy(self, records_max: int) -> bool:
        """Drops what compactions have freed: about ``records_max`` records of the log and what they have replaced.

        Gives whether anything was done. Nothing that anybody can ask for depends on it.
        """
        end = min((view.first for view in self._views if not view.is_closed), default=self._tidy_to)
        gone = self._log.drop(max(0, min(records_max, min(end, self._tidy_to) - self._log.first)))
        # How many of the oldest records of each key have been replaced: one by each record that did not create it, and
        # a deletion goes too. The order does not matter here, but that of a set would differ between servers.
        replaced: dict[bytes, int] = {}
        for record in gone:
            version = record[VERSION]
            if version != 1:
                key = record[KEY]
                replaced[key] = replaced.get(key, 0) + (1 if version else 2)
        for key, count in replaced.items():
            older = self._older[key]
            del older[:count]
            if not older:
                del self._older[key]
                if key not in self._newest:
                    self._dead.remove(key)
        return bool(gone)

    # ---- the whole state ---------------------------------------------------------------------------------

    def view(self) -> StoreView:
        """The records as of this call. Later changes do not show in it, and nothing is copied."""
        view = StoreView(
            self.revision, self.compacted_revision, self._log, (self._live, self._dead), self._version_at
        )
        self._views.add(view)
        return view

    def require_invariants(self) -> None:
        """Raises InvariantViolation where one of those at the head of the module does not hold. Slow: for tests."""
        compacted = self.compacted_revision
        newest, older = self._newest, self._older
        log = self._log.between(self._log.first, self._log.end)
        every = Counter([record for records in older.values() for record in records] + list(newest.values()))
        base = every - Counter(log)
        dead = [key for key, records in older.items() if key not in newest]
        kept = [record for record in log if record[MOD] > compacted]
        kept += [
            record
            for key in {record[KEY] for record in every}
            if (record := self._version_at(key, compacted))
        ]
        held = {
            "live keys are those that exist": list(self._live) == sorted(newest),
            "dead keys are those with versions that do not exist": list(self._dead) == sorted(dead),
            "what is in the log is kept": not Counter(log) - every,
            "the log is what is above the compaction": all(record[MOD] <= compacted for record in base),
            "one version of a key is below the log": len({r[KEY] for r in base}) == base.total(),
            "no deletion is below the log": all(record[VERSION] for record in base),
            "the log is in the order of revisions": log == sorted(log, key=mod_of),
            "no revision is ahead of the store": all(record[MOD] <= self.revision for record in log),
            "every change is in the log": not log or log[-1][MOD] == self.revision,
            "the size is that of what is kept": self.state_bytes
            == sum(map(bytes_of, kept)) + LEASE_BYTES * len(self.leases),
        }
        for key, records in older.items():
            versions = [*records, newest[key]] if key in newest else records
            held[f"{key!r} has older versions"] = bool(records)
            held[f"{key!r} is in the order of revisions"] = versions == sorted(versions, key=mod_of)
            held[f"{key!r} ends as it should"] = (key in newest) == bool(versions[-1][VERSION])
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
        base: Iterable[Record],
        log: Iterable[Record],
    ) -> "MultiVersionStore":
        """The store whose records these are. Raises ValueError where they cannot be one.

        ``leases`` are those of the moment of the view, which do not hold their keys yet.
        """
        store = cls()
        store.compacted_revision = compacted_revision
        newest, older = store._newest, store._older
        for record in base:
            key, create, mod, version, _, _ = record
            if not (version >= 1 < create <= mod <= compacted_revision and key) or key in newest:
                raise ValueError(f"key {_shown(key)} has a record that cannot stand below the compaction")
            newest[key] = record
        base_bytes = sum(map(bytes_of, newest.values()))
        log_bytes = store._replay(log, revision)
        store.room = _UNLIMITED - base_bytes - log_bytes - LEASE_BYTES * len(leases)
        store.revision = revision
        # All at once: one by one it would take longer than the rest.
        store._live.update(newest)
        store._dead.update([key for key in older if key not in newest])
        for record in newest.values():
            if record[LEASE]:
                if record[LEASE] not in leases:
                    raise ValueError(
                        f"key {_shown(record[KEY])} is held by lease {record[LEASE]}, which is not there"
                    )
                leases.attach(record[LEASE], record[KEY])
        store.leases = leases
        return store

    def _replay(self, records: Iterable[Record], revision: int) -> int:
        """The log of a store that holds its base, up to ``revision``: gives what it counts for. Leases are left out."""
        newest, older = self._newest, self._older
        append, append_freed = self._log.records.append, self._log.freed.append
        log_bytes = 0
        # Every revision after the first, or after the compaction, has changed something: none is left out.
        last = start = max(self.compacted_revision, 1)
        for record in records:
            key, create, mod, version, value, _ = record
            if not max(last, start + 1) <= mod <= last + 1:
                raise ValueError(f"the log's revisions are out of order at key {_shown(key)}")
            last = mod
            log_bytes += len(key) + len(value) + RECORD_BYTES
            old = newest.get(key)
            if not version:
                if old is None or record != (key, 0, mod, 0, b"", 0):
                    raise ValueError(f"key {_shown(key)} is deleted without having been there")
                older.setdefault(key, []).extend((old, record))
                del newest[key]
                append_freed(bytes_of(old) + bytes_of(record))
            else:
                expected = (1, mod) if old is None else (old[VERSION] + 1, old[CREATE])
                if (version, create) != expected or not key:
                    raise ValueError(f"key {_shown(key)} lacks a version")
                if old is not None:
                    older.setdefault(key, []).append(old)
                append_freed(bytes_of(old) if old is not None else 0)
                newest[key] = record
            append(record)
        if last != revision:
            raise ValueError(f"the log ends with revision {last}, and the store is at {revision}")
        return log_bytes


def _shown(key: bytes) -> str:
    """A key in an error: not all of a megabyte."""
    return repr(key[:64]) + ("..." if len(key) > 64 else "")
