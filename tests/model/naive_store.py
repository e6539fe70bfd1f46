"""etcd's rules for keys, transactions, compaction and leases, told a second time and as naively as can be.

Each key has the list of every version that it ever had; nothing is ever dropped, indexed or cached, and every question
is answered by looking at all of it. A command is tried on a copy, and the copy is thrown away where it is refused. Of
the product only the vocabulary is shared (``machines/kv/types.py``: the shapes of commands and results); what is
refused, in which order and in which words, stands here once more.

That it is etcd's rules and not ours twice is shown in tests/etcd: the same model runs there beside a real etcd.
"""

import copy
from typing import Any

from paxos_rsm.machines.kv import types as t

__all__ = ["Event", "NaiveStore", "Refused"]

Event = tuple[bytes, int, int, int, bytes, int]
"""(key, create revision, mod revision, version, value, lease); version 0 is a deletion."""

INVALID_ARGUMENT, NOT_FOUND, RESOURCE_EXHAUSTED, FAILED_PRECONDITION, OUT_OF_RANGE = 3, 5, 8, 9, 11

LEASE_TTL_MIN_S = 2
LEASE_TTL_MAX_S = 9_000_000_000

RECORD_BYTES, LEASE_BYTES = 300, 600


class Refused(Exception):
    """The command is answered with this error, and has changed nothing."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.error = t.KvError(code, words)


def bad(words: str) -> Refused:
    """INVALID_ARGUMENT in etcd's words."""
    return Refused(INVALID_ARGUMENT, f"etcdserver: {words}")


class NaiveStore:
    """Commands in, results out; ``events`` is every change ever, in order."""

    def __init__(self) -> None:
        self.revision = 1
        self.compacted = -1
        self.versions: dict[bytes, list[t.KeyValue]] = {}
        self.events: list[Event] = []
        self.leases: dict[int, int] = {}
        """The seconds that each was granted."""
        self.quota = 0

    # ---- what there is -----------------------------------------------------------------------------------

    def at(self, key: bytes, revision: int) -> t.KeyValue | None:
        """The version of a key that a read at ``revision`` sees."""
        seen = [kv for kv in self.versions.get(key, ()) if kv.mod_revision <= revision]
        return seen[-1] if seen and seen[-1].version else None

    def within(self, key: bytes, range_end: bytes, revision: int) -> list[t.KeyValue]:
        """What a range holds at ``revision``, by key."""
        found = [self.at(each, revision) for each in sorted(self.versions) if in_range(each, key, range_end)]
        return [kv for kv in found if kv is not None]

    def keys_of(self, lease: int) -> list[bytes]:
        """The keys that a lease holds, in order: their newest version names it."""
        return [kv.key for kv in self.within(b"\0", b"\0", self.revision) if kv.lease == lease]

    def replaced(self, event: Event) -> t.KeyValue | None:
        """The version that was there before the transaction of ``event``; none for what it has created."""
        return None if event[3] == 1 else self.at(event[0], event[2] - 1)

    def state_bytes(self) -> int:
        """What every version counts for that a read of a revision from the compaction on can see, and deletions."""
        total = LEASE_BYTES * len(self.leases)
        for key, versions in self.versions.items():
            kept = [kv for kv in versions if kv.mod_revision > self.compacted]
            seen = self.at(key, self.compacted)
            kept += [seen] if seen is not None else []
            total += sum(len(kv.key) + len(kv.value) + RECORD_BYTES for kv in kept)
        return total

    def _room_for(self, command: t.Command) -> None:
        """etcd's: what could write a key, or makes a lease, is refused where the space is used up."""
        grows = isinstance(command, t.LeaseGrant) or any(
            isinstance(each, t.Put) for each in everything(command)
        )
        if grows and 0 < self.quota <= self.state_bytes():
            raise Refused(RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")

    def readable(self) -> range:
        """The revisions that may be read."""
        return range(max(1, self.compacted), self.revision + 1)

    # ---- commands ----------------------------------------------------------------------------------------

    def execute(self, command: t.Command) -> t.Result:
        """Executes one command, wholly or not at all."""
        tried = copy.copy(self)
        tried.versions = {key: list(kvs) for key, kvs in self.versions.items()}
        tried.events, tried.leases = list(self.events), dict(self.leases)
        try:
            result = tried._command(command)
        except Refused as refused:
            return refused.error
        self.__dict__.update(tried.__dict__)
        return result

    def _command(self, command: t.Command) -> t.Result:
        if isinstance(command, t.Compact):
            return self._compact(command.revision)
        if isinstance(command, t.SetQuota):
            self.quota = command.quota_bytes
            return t.SetQuotaResult(self.revision, self.state_bytes())
        if isinstance(command, t.LeaseGrant):
            self._room_for(command)
            return self._grant(command)
        if isinstance(command, t.LeaseKeepAlive):
            return t.LeaseKeepAliveResult(self.revision, command.id, self.leases.get(command.id, 0))
        if isinstance(command, t.LeaseRevoke):
            self._lease_exists(command.id)
            self.end(command.id)
            return t.LeaseRevokeResult(self.revision)
        well_formed(command)
        if isinstance(command, t.Txn):
            no_key_is_written_twice(command)
            self._room_for(command)
            plan = self._plan(command)
            self._refuse_planned(plan)
            return self._run_planned(plan, self.revision + 1)
        if isinstance(command, t.Put):
            self._room_for(command)
            self._lease_exists(command.lease)
            self._old_version_exists(command)
        result: t.Result = self._run(command, self.revision + 1)
        return result

    def _compact(self, revision: int) -> t.CompactResult:
        if revision <= self.compacted:
            raise Refused(OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")
        if revision > self.revision:
            raise Refused(OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision")
        self.compacted = revision
        return t.CompactResult(self.revision)

    def _grant(self, command: t.LeaseGrant) -> t.LeaseGrantResult:
        if command.ttl_s > LEASE_TTL_MAX_S:
            raise Refused(OUT_OF_RANGE, "etcdserver: too large lease TTL")
        if command.id in self.leases:
            raise Refused(FAILED_PRECONDITION, "etcdserver: lease already exists")
        self.leases[command.id] = ttl_s = max(command.ttl_s, LEASE_TTL_MIN_S)
        return t.LeaseGrantResult(self.revision, command.id, ttl_s)

    def end(self, lease: int) -> None:
        """A lease is revoked, or has run out: its keys go in one revision, in their order."""
        revision = self.revision + 1
        for key in self.keys_of(lease):
            self._delete(key, revision)
        del self.leases[lease]

    # ---- one operation -----------------------------------------------------------------------------------

    def _run(self, operation: Any, revision: int) -> Any:
        if isinstance(operation, t.Put):
            return self._put(operation, revision)
        if isinstance(operation, t.DeleteRange):
            gone = self.within(operation.key, operation.range_end, self.revision)
            for kv in gone:
                self._delete(kv.key, revision)
            return t.DeleteRangeResult(self.revision, len(gone), tuple(gone) if operation.prev_kv else ())
        return self._range(operation)

    def _put(self, put: t.Put, revision: int) -> t.PutResult:
        old = self.at(put.key, revision)
        value = old.value if put.ignore_value and old else put.value
        lease = old.lease if put.ignore_lease and old else put.lease
        create, version = (old.create_revision, old.version + 1) if old else (revision, 1)
        self._write(t.KeyValue(put.key, create, revision, version, value, lease))
        return t.PutResult(revision, old if put.prev_kv else None)

    def _delete(self, key: bytes, revision: int) -> None:
        self._write(t.KeyValue(key, 0, revision, 0, b"", 0))

    def _write(self, kv: t.KeyValue) -> None:
        self.revision = kv.mod_revision
        self.versions.setdefault(kv.key, []).append(kv)
        self.events.append((kv.key, kv.create_revision, kv.mod_revision, kv.version, kv.value, kv.lease))

    def _lease_exists(self, lease: int) -> None:
        if lease and lease not in self.leases:
            raise Refused(NOT_FOUND, "etcdserver: requested lease not found")

    def _old_version_exists(self, put: t.Put) -> None:
        if (put.ignore_value or put.ignore_lease) and self.at(put.key, self.revision) is None:
            raise bad("key not found")

    def _revision_is_readable(self, revision: int) -> None:
        if revision > self.revision:
            raise Refused(OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision")
        if revision < self.compacted:
            raise Refused(OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")

    def _range(self, r: t.Range) -> t.RangeResult:
        if r.revision > 0:
            self._revision_is_readable(r.revision)
        kvs = self.within(r.key, r.range_end, r.revision if r.revision > 0 else self.revision)
        count = len(kvs)
        if r.count_only:
            return t.RangeResult(self.revision, (), False, count)
        kvs = [
            kv
            for kv in kvs
            if kv.mod_revision >= r.min_mod_revision
            and (not r.max_mod_revision or kv.mod_revision <= r.max_mod_revision)
            and kv.create_revision >= r.min_create_revision
            and (not r.max_create_revision or kv.create_revision <= r.max_create_revision)
        ]
        if not r.sort_order and r.limit > 0 and not any(r[9:]):
            # etcd takes the first keys, and one more, before it sorts by what was asked for without an order.
            kvs = kvs[: r.limit + 1]
        field = ("key", "version", "create_revision", "mod_revision", "value")[r.sort_target]
        kvs.sort(key=lambda kv: getattr(kv, field), reverse=r.sort_order == 2)
        more = 0 < r.limit < len(kvs)
        kvs = kvs[: r.limit] if more else kvs
        if r.keys_only:
            kvs = [kv._replace(value=b"") for kv in kvs]
        return t.RangeResult(self.revision, tuple(kvs), more, count)

    # ---- transactions ------------------------------------------------------------------------------------

    def _holds(self, c: t.Compare) -> bool:
        kvs = self.within(c.key, c.range_end, self.revision)
        if not kvs:
            # Numbers of what is not there are zero; a value that is not there is like no value.
            if c.target == 3:
                return False
            kvs = [t.KeyValue(c.key, 0, 0, 0, b"", 0)]
        field = ("version", "create_revision", "mod_revision", "value", "lease")[c.target]
        return all(relation(c.result, getattr(kv, field), c.operand) for kv in kvs)

    def _plan(self, txn: t.Txn) -> tuple[bool, list[Any]]:
        """Every condition is asked of the state before the whole transaction, also those of nested ones."""
        holds = all(self._holds(each) for each in txn.compare)
        branch = txn.success if holds else txn.failure
        return holds, [self._plan(each) if isinstance(each, t.Txn) else each for each in branch]

    def _refuse_planned(self, plan: tuple[bool, list[Any]]) -> None:
        """First what is wrong with puts, then what is wrong with ranges, each in order."""
        leaves = list(flat(plan))
        endless: list[bytes] = []
        for each in leaves:
            if isinstance(each, t.DeleteRange) and each.range_end == b"\0":
                endless.append(each.key)
            if isinstance(each, t.Put):
                if (each.ignore_value or each.ignore_lease) and any(each.key >= first for first in endless):
                    raise bad("key not found")  # ours: a real etcd ends here
                self._old_version_exists(each)
                self._lease_exists(each.lease)
        for each in leaves:
            if isinstance(each, t.Range) and each.revision:
                # In a transaction, though not outside, a negative revision is one like any other.
                self._revision_is_readable(each.revision)

    def _run_planned(self, plan: tuple[bool, list[Any]], revision: int) -> t.TxnResult:
        succeeded, steps = plan
        responses = [
            self._run_planned(each, revision) if type(each) is tuple else self._run(each, revision)
            for each in steps
        ]
        return t.TxnResult(self.revision, succeeded, tuple(responses))


# ---- what needs no state -------------------------------------------------------------------------------------


def in_range(key: bytes, first: bytes, range_end: bytes) -> bool:
    """Whether a range holds a key."""
    if not range_end:
        return key == first
    return first <= key and (range_end == b"\0" or key < range_end)


def relation(result: int, mine: Any, theirs: Any) -> bool:
    """``mine`` against the operand: equal, greater, less, not equal."""
    return bool([mine == theirs, mine > theirs, mine < theirs, mine != theirs][result])


def everything(operation: Any) -> list[Any]:
    """An operation and all that are in it, of both branches."""
    if not isinstance(operation, t.Txn):
        return [operation]
    return [each for op in operation.success + operation.failure for each in everything(op)]


def flat(plan: tuple[bool, list[Any]]) -> list[Any]:
    """The operations of a plan, in the order in which they run."""
    leaves: list[Any] = []
    for each in plan[1]:
        leaves += flat(each) if type(each) is tuple else [each]
    return leaves


def well_formed(operation: Any, ops_max: int = 128) -> None:
    """Raises Refused for the first thing that is wrong with a request, whatever the state."""
    if operation is None:
        raise bad("key not found")
    if isinstance(operation, t.Txn):
        ops = max(len(operation.compare), len(operation.success), len(operation.failure))
        if ops > ops_max:
            raise bad("too many operations in txn request")
        if not all(compare.key for compare in operation.compare):
            raise bad("key is not provided")
        for each in operation.success + operation.failure:
            well_formed(each, ops_max - ops)
        return
    if not operation.key:
        raise bad("key is not provided")
    if isinstance(operation, t.Put):
        if operation.ignore_value and operation.value:
            raise bad("value is provided")
        if operation.ignore_lease and operation.lease:
            raise bad("lease is provided")
    if isinstance(operation, t.Range) and not (
        0 <= operation.sort_order <= 2 and 0 <= operation.sort_target <= 4
    ):
        raise bad("invalid sort option")


def no_key_is_written_twice(txn: t.Txn) -> None:
    """Raises Refused where a branch of a transaction puts a key that it puts or deletes elsewhere."""
    written(txn.success)
    written(txn.failure)


def written(branch: tuple[Any, ...]) -> tuple[set[bytes], list[tuple[bytes, bytes]]]:
    """The keys that a branch puts, and the ranges that it deletes.

    As in etcd a deletion without an end is overlooked, and so is one in a nested transaction that stands after another
    which puts the key.
    """
    puts: set[bytes] = set()
    gone = [(each.key, each.range_end) for each in branch if isinstance(each, t.DeleteRange)]

    def put(key: bytes, allowed: set[bytes] = frozenset()) -> None:  # type: ignore[assignment]
        if (key in puts and key not in allowed) or any(
            end != b"\0" and in_range(key, *r) for r in gone for end in r[1:]
        ):
            raise bad("duplicate key given in txn request")
        puts.add(key)

    for each in branch:
        if isinstance(each, t.Txn):
            then_puts, then_gone = written(each.success)
            else_puts, else_gone = written(each.failure)
            for key in then_puts:
                put(key)
            for key in else_puts:
                put(key, allowed=then_puts)
            gone += then_gone + else_gone
    for each in branch:
        if isinstance(each, t.Put):
            put(each.key)
    return puts, gone
