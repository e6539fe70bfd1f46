"""What the key-value store ought to answer, told a second time and as naively as can be.

A bug in the store that every server has alike leaves all of them equal: only something else that knows the rules of
revisions and transactions sees it. This is that something: a dictionary of the keys that exist, and nothing faster.
It keeps no history, so of a read at an older revision it knows nothing; only the sizes of what a store must keep, since
a quota may be set on them.
"""

from collections.abc import Iterable
from typing import NamedTuple

from paxos_rsm.machines.base import Timeout
from paxos_rsm.machines.kv.types import (
    ALL_FROM,
    COMPACTED,
    FUTURE_REVISION,
    LEASE_EXISTS,
    LEASE_NOT_FOUND,
    LEASE_TTL_TOO_LARGE,
    NO_SPACE,
    Command,
    Compact,
    CompactResult,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRange,
    DeleteRangeResult,
    KeyValue,
    KvError,
    LeaseGrant,
    LeaseGrantResult,
    LeaseKeepAlive,
    LeaseKeepAliveResult,
    LeaseRevoke,
    LeaseRevokeResult,
    Operation,
    OperationResult,
    Put,
    PutResult,
    Range,
    RangeResult,
    Result,
    SetQuota,
    SetQuotaResult,
    Txn,
    TxnResult,
)

__all__ = ["Ended", "KvReference", "NotModelled"]

TTL_MIN_S, TTL_MAX_S = 2, 9_000_000_000
RECORD_BYTES, LEASE_BYTES = 300, 600


class NotModelled(ValueError):
    """A command of a kind that the reference does not know; it has changed nothing that could be relied upon."""


class Ended(NamedTuple):
    """A lease that has ended, and the keys that went with it."""

    lease: int
    revision: int
    keys: list[bytes]


class _Refused(Exception):
    """What a transaction is refused with, from its middle."""


class KvReference:
    """A store of its own; :meth:`execute` must be given every command of the log, in order, once."""

    def __init__(self) -> None:
        self.revision = 1
        self._compacted = -1
        self._keys: dict[bytes, KeyValue] = {}
        self.leases: dict[int, tuple[int, int]] = {}
        """By id: the time in seconds, and the number of its last arming."""
        self.ended: list[Ended] = []
        """Every lease that has ended, in the order in which they did."""
        self._armings = 0
        self._quota = 0
        # Of each key, (revision, bytes, whether it was there then) of every write and deletion that is kept.
        self._sizes: dict[bytes, list[tuple[int, int, bool]]] = {}

    def execute(self, command: Command) -> Result:
        """Executes a well-formed command. Raises NotModelled for filters, sorting, and reads of the past."""
        if isinstance(command, Compact):
            return self._compact(command)
        if isinstance(command, SetQuota):
            self._quota = command.quota_bytes
            return SetQuotaResult(self.revision, self._state_bytes())
        if self._quota and self._grows(command) and self._state_bytes() >= self._quota:
            return NO_SPACE
        if isinstance(command, LeaseGrant | LeaseRevoke | LeaseKeepAlive):
            return self._of_leases(command)
        keys, revision = dict(self._keys), self.revision
        try:
            result = self._run(command, keys, revision + 1)
            self._measure(keys)
            return result
        except _Refused as refused:
            self._keys, self.revision = keys, revision
            refusal: KvError = refused.args[0]
            return refusal

    def time_out(self, timeouts: Iterable[Timeout]) -> None:
        """Timers have run out; those that were armed again since have not."""
        for lease, armed in timeouts:
            if self.leases.get(lease, (0, 0))[1] == armed:
                self._end(lease)

    def _of_leases(self, command: LeaseGrant | LeaseRevoke | LeaseKeepAlive) -> Result:
        lease = command.id
        if isinstance(command, LeaseGrant):
            if command.ttl_s > TTL_MAX_S:
                return LEASE_TTL_TOO_LARGE
            if lease in self.leases:
                return LEASE_EXISTS
            ttl_s = max(TTL_MIN_S, command.ttl_s)
            self._arm(lease, ttl_s)
            return LeaseGrantResult(self.revision, lease, ttl_s)
        if isinstance(command, LeaseKeepAlive):
            ttl_s = self.leases.get(lease, (0, 0))[0]
            if ttl_s:
                self._arm(lease, ttl_s)
            return LeaseKeepAliveResult(self.revision, lease, ttl_s)
        if lease not in self.leases:
            return LEASE_NOT_FOUND
        self._end(lease)
        return LeaseRevokeResult(self.revision)

    def _arm(self, lease: int, ttl_s: int) -> None:
        self._armings += 1
        self.leases[lease] = ttl_s, self._armings

    def _end(self, lease: int) -> None:
        del self.leases[lease]
        before = dict(self._keys)
        gone = sorted(key for key, kv in self._keys.items() if kv.lease == lease)
        for key in gone:
            del self._keys[key]
        self.revision += bool(gone)
        self._measure(before)
        self.ended.append(Ended(lease, self.revision, gone))

    def _compact(self, command: Compact) -> CompactResult | KvError:
        if command.revision <= self._compacted:
            return COMPACTED
        if command.revision > self.revision:
            return FUTURE_REVISION
        self._compacted = command.revision
        for key, sizes in list(self._sizes.items()):
            settled = [each for each in sizes if each[0] <= command.revision][-1:]
            kept = [each for each in settled if each[2]] + [s for s in sizes if s[0] > command.revision]
            self._sizes[key] = kept
        return CompactResult(self.revision)

    def _measure(self, before: dict[bytes, KeyValue]) -> None:
        """Notes what a command has made of the keys that were there ``before``.

        A key that it writes twice is noted once: plain commands do not, and of others nothing is known here.
        """
        for key in before.keys() | self._keys.keys():
            kv = self._keys.get(key)
            if kv is not before.get(key):
                size = RECORD_BYTES + len(key) + (len(kv.value) if kv is not None else 0)
                self._sizes.setdefault(key, []).append((self.revision, size, kv is not None))

    def _state_bytes(self) -> int:
        kept = sum(size for sizes in self._sizes.values() for _, size, _ in sizes)
        return kept + LEASE_BYTES * len(self.leases)

    def _grows(self, operation: Operation | LeaseGrant | LeaseRevoke | LeaseKeepAlive) -> bool:
        if isinstance(operation, Txn):
            return any(map(self._grows, operation.success + operation.failure))
        return isinstance(operation, Put | LeaseGrant)

    def _run(self, operation: Operation, before: dict[bytes, KeyValue], revision: int) -> OperationResult:
        """One operation, and those within it; conditions are asked of the state ``before`` the whole command."""
        if isinstance(operation, Put):
            return self._put(operation, revision)
        if isinstance(operation, DeleteRange):
            gone = self._within(self._keys, operation.key, operation.range_end)
            for kv in gone:
                del self._keys[kv.key]
                self.revision = revision
            return DeleteRangeResult(self.revision, len(gone), tuple(gone) if operation.prev_kv else ())
        if isinstance(operation, Range):
            if operation != Range(operation.key, operation.range_end):
                raise NotModelled(f"{operation} asks for more than the keys of a range as they are")
            found = self._within(self._keys, operation.key, operation.range_end)
            return RangeResult(self.revision, tuple(found), False, len(found))
        if not isinstance(operation, Txn):
            raise NotModelled(f"{operation!r} is no operation")
        succeeded = all(self._holds(before, compare) for compare in operation.compare)
        branch = operation.success if succeeded else operation.failure
        responses = tuple([self._run(each, before, revision) for each in branch])
        return TxnResult(self.revision, succeeded, responses)

    def _put(self, put: Put, revision: int) -> PutResult:
        if put.ignore_value or put.ignore_lease:
            raise NotModelled(f"{put} is no plain put")
        if put.lease and put.lease not in self.leases:
            raise _Refused(LEASE_NOT_FOUND)
        old = self._keys.get(put.key)
        create, version = (revision, 1) if old is None else (old.create_revision, old.version + 1)
        self._keys[put.key] = KeyValue(put.key, create, revision, version, put.value, put.lease)
        self.revision = revision
        return PutResult(revision, old if put.prev_kv else None)

    @staticmethod
    def _within(keys: dict[bytes, KeyValue], first: bytes, range_end: bytes) -> list[KeyValue]:
        if not range_end:
            return [keys[first]] if first in keys else []
        return [
            keys[key] for key in sorted(keys) if key >= first and (range_end == ALL_FROM or key < range_end)
        ]

    def _holds(self, before: dict[bytes, KeyValue], compare: Compare) -> bool:
        """Where there is no key, its numbers are 0, and its value is nothing that could be compared."""
        found = self._within(before, compare.key, compare.range_end)
        if not found and compare.target == CompareTarget.VALUE:
            return False
        for kv in found or [KeyValue(compare.key, 0, 0, 0, b"")]:
            parts: dict[CompareTarget, int | bytes] = {
                CompareTarget.VERSION: kv.version,
                CompareTarget.CREATE: kv.create_revision,
                CompareTarget.MOD: kv.mod_revision,
                CompareTarget.VALUE: kv.value,
                CompareTarget.LEASE: kv.lease,
            }
            have = parts[CompareTarget(compare.target)]
            want = compare.operand
            if not {
                CompareResult.EQUAL: have == want,
                CompareResult.NOT_EQUAL: have != want,
                CompareResult.GREATER: have > want,  # type: ignore[operator]
                CompareResult.LESS: have < want,  # type: ignore[operator]
            }[CompareResult(compare.result)]:
                return False
        return True
