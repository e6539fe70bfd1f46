"""What is refused whatever the state: malformed commands.

:func:`check` is asked twice. A server asks it before a unary request goes into the log; the state machine asks it again
for every command that comes out, since frames are not opened in between. So both give the same answer, in the
words and in the order of etcd's own checks.

Two writes of one key in a transaction are refused, also where one is in a transaction within it; but the two
branches of a transaction exclude each other, and may write the same keys. Of two nested transactions side by side, the
later one may delete what the earlier one puts; that, and that a delete with no end (``range_end`` of one zero byte)
is not seen here, is etcd's rule as it stands: what it accepts, we do.
"""

from bisect import bisect_left, bisect_right

from paxos_rsm.machines.kv.types import (
    DUPLICATE_KEY,
    EMPTY_KEY,
    INVALID_COMPARE,
    INVALID_SORT,
    KEY_NOT_FOUND,
    LEASE_PROVIDED,
    LEASE_WITHOUT_ID,
    TOO_DEEP,
    TOO_MANY_OPS,
    VALUE_PROVIDED,
    Command,
    Compact,
    CompareResult,
    CompareTarget,
    DeleteRange,
    KvError,
    LeaseGrant,
    LeaseKeepAlive,
    LeaseRevoke,
    Operation,
    Put,
    Range,
    SetQuota,
    SortOrder,
    SortTarget,
    Txn,
)

__all__ = ["TXN_DEPTH_MAX", "TXN_OPS_MAX", "check", "is_read_only", "needs_room"]

TXN_OPS_MAX = 128
"""Conditions, or operations of one branch; a nested transaction may have what the one around it has left over."""

TXN_DEPTH_MAX = 32
"""Transactions within each other. Protobuf itself gives up at some depth, which must not be ours to find."""

_SORT_ORDERS = len(SortOrder)
_SORT_TARGETS = len(SortTarget)
_COMPARE_RESULTS = len(CompareResult)
_COMPARE_TARGETS = len(CompareTarget)


def check(command: Command) -> KvError | None:
    """The error that the command is refused with, or None: it may still meet one that depends on the state."""
    if isinstance(command, LeaseGrant):
        return None if command.id else LEASE_WITHOUT_ID
    if isinstance(command, Compact | LeaseRevoke | LeaseKeepAlive | SetQuota):
        return None
    if isinstance(command, Txn):
        return _check_txn(command)
    return _check_operation(command, 0, 1)


def is_read_only(command: Command | Operation) -> bool:
    """Whether the command can change nothing: it may be asked as a query."""
    if isinstance(command, Txn):
        return all(map(is_read_only, command.success)) and all(map(is_read_only, command.failure))
    return isinstance(command, Range)


def needs_room(command: Command | Operation) -> bool:
    """Whether the command may make the state grow: it is refused where that is over its quota.

    As in etcd a transaction counts for what either of its branches may put, whichever will be taken.
    """
    if isinstance(command, Txn):
        return any(map(needs_room, command.success)) or any(map(needs_room, command.failure))
    return isinstance(command, Put | LeaseGrant)


def _check_txn(txn: Txn) -> KvError | None:
    error = _check_shape(txn, TXN_OPS_MAX, 1)
    if error is not None:
        return error
    for branch in (txn.success, txn.failure):
        if _writes(branch) is None:
            return DUPLICATE_KEY
    return None


def _check_shape(txn: Txn, ops_max: int, depth: int) -> KvError | None:
    if depth > TXN_DEPTH_MAX:
        return TOO_DEEP
    ops = max(len(txn.compare), len(txn.success), len(txn.failure))
    if ops > ops_max:
        return TOO_MANY_OPS
    for compare in txn.compare:
        if not compare.key:
            return EMPTY_KEY
        if not 0 <= compare.target < _COMPARE_TARGETS or not 0 <= compare.result < _COMPARE_RESULTS:
            return INVALID_COMPARE
    for branch in (txn.success, txn.failure):
        for operation in branch:
            error = _check_operation(operation, ops_max - ops, depth)
            if error is not None:
                return error
    return None


def _check_operation(operation: Operation, ops_max: int, depth: int) -> KvError | None:
    if isinstance(operation, Txn):
        return _check_shape(operation, ops_max, depth + 1)
    if operation is None:
        # The word is etcd's, for an operation that is not there.
        return KEY_NOT_FOUND
    if not operation.key:
        return EMPTY_KEY
    if isinstance(operation, Put):
        if operation.ignore_value and operation.value:
            return VALUE_PROVIDED
        if operation.ignore_lease and operation.lease:
            return LEASE_PROVIDED
    elif isinstance(operation, Range) and not (
        0 <= operation.sort_order < _SORT_ORDERS and 0 <= operation.sort_target < _SORT_TARGETS
    ):
        return INVALID_SORT
    return None


class _Intervals:
    """Half-open key ranges, joined where they touch."""

    __slots__ = ("_ends", "_starts")

    def __init__(self) -> None:
        self._starts: list[bytes] = []
        self._ends: list[bytes] = []

    def add(self, start: bytes, end: bytes) -> None:
        if start >= end:
            return
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def add_all(self, other: "_Intervals") -> None:
        for start, end in zip(other._starts, other._ends, strict=True):
            self.add(start, end)

    def __contains__(self, key: bytes) -> bool:
        at = bisect_right(self._starts, key)
        return at > 0 and key < self._ends[at - 1]


def _writes(branch: tuple[Operation, ...]) -> tuple[set[bytes], _Intervals] | None:
    """What a branch puts and what it deletes; None where it writes a key twice."""
    puts: set[bytes] = set()
    deletes = _Intervals()
    for operation in branch:
        if isinstance(operation, DeleteRange):
            deletes.add(operation.key, operation.range_end or operation.key + b"\0")
    for operation in branch:
        if isinstance(operation, Txn) and not _add_nested(operation, puts, deletes):
            return None
    for operation in branch:
        if isinstance(operation, Put):
            if operation.key in puts or operation.key in deletes:
                return None
            puts.add(operation.key)
    return puts, deletes


def _add_nested(txn: Txn, puts: set[bytes], deletes: _Intervals) -> bool:
    """Adds what the two branches of a nested transaction write; False where it was written already."""
    success, failure = _writes(txn.success), _writes(txn.failure)
    if success is None or failure is None:
        return False
    either = success[0] | failure[0]
    if not puts.isdisjoint(either) or any(key in deletes for key in either):
        return False
    puts |= either
    deletes.add_all(success[1])
    deletes.add_all(failure[1])
    return True
