"""What the key-value store ought to answer, told a second time and as naively as can be.

A bug in the store that every server has alike leaves all of them equal: only something else that knows the rules of
revisions and transactions sees it. This is that something: a dictionary of the keys that exist, and nothing faster.
It keeps no history, so of a read at an older revision it knows nothing.
"""

from paxos_rsm.machines.kv.types import (
    ALL_FROM,
    COMPACTED,
    FUTURE_REVISION,
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
    Operation,
    OperationResult,
    Put,
    PutResult,
    Range,
    RangeResult,
    Result,
    Txn,
    TxnResult,
)

__all__ = ["KvReference", "NotModelled"]


class NotModelled(ValueError):
    """A command of a kind that the reference does not know; it has changed nothing that could be relied upon."""


class KvReference:
    """A store of its own; :meth:`execute` must be given every command of the log, in order, once."""

    def __init__(self) -> None:
        self.revision = 1
        self._compacted = -1
        self._keys: dict[bytes, KeyValue] = {}

    def execute(self, command: Command) -> Result:
        """Executes a well-formed command. Raises NotModelled for leases, filters, sorting, and reads of the past."""
        if isinstance(command, Compact):
            return self._compact(command)
        return self._run(command, dict(self._keys), self.revision + 1)

    def _compact(self, command: Compact) -> CompactResult | KvError:
        if command.revision <= self._compacted:
            return COMPACTED
        if command.revision > self.revision:
            return FUTURE_REVISION
        self._compacted = command.revision
        return CompactResult(self.revision)

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
        if put.lease or put.ignore_value or put.ignore_lease:
            raise NotModelled(f"{put} is no plain put")
        old = self._keys.get(put.key)
        if old is None:
            self._keys[put.key] = KeyValue(put.key, revision, revision, 1, put.value)
        else:
            self._keys[put.key] = KeyValue(put.key, old.create_revision, revision, old.version + 1, put.value)
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
