"""Commands and results of the key-value store, and the errors that it answers with.

Field by field these are etcd's v3 messages, without the parts that only a server can fill in. They are named tuples
and not dataclasses, because one is made for every command and a put may cost a few microseconds in all: a named tuple
is as immutable as a frozen dataclass, and made in a third of the time.

A *revision* counts the transactions that have changed the store; a *version* counts the writes of one key since it
was last created. Keys and values are bytes. A key range is ``[key, range_end)``; an empty ``range_end`` means the one
key, ``b"\\0"`` everything from ``key`` on.
"""

from enum import IntEnum
from typing import NamedTuple, TypeAlias, Union

__all__ = [
    "ALL_FROM",
    "BAD_COMMAND",
    "COMPACTED",
    "DUPLICATE_KEY",
    "EMPTY_KEY",
    "FUTURE_REVISION",
    "INVALID_COMPARE",
    "INVALID_SORT",
    "KEY_NOT_FOUND",
    "LEASE_EXISTS",
    "LEASE_NOT_FOUND",
    "LEASE_PROVIDED",
    "LEASE_TTL_TOO_LARGE",
    "LEASE_WITHOUT_ID",
    "NOT_A_QUERY",
    "NO_SPACE",
    "REQUEST_TOO_LARGE",
    "TOO_DEEP",
    "TOO_MANY_OPS",
    "VALUE_PROVIDED",
    "Command",
    "Compact",
    "CompactResult",
    "Compare",
    "CompareResult",
    "CompareTarget",
    "DeleteRange",
    "DeleteRangeResult",
    "KeyValue",
    "KvError",
    "LeaseGrant",
    "LeaseGrantResult",
    "LeaseKeepAlive",
    "LeaseKeepAliveResult",
    "LeaseResult",
    "LeaseRevoke",
    "LeaseRevokeResult",
    "Operation",
    "OperationResult",
    "Put",
    "PutResult",
    "Range",
    "RangeResult",
    "Result",
    "SetQuota",
    "SetQuotaResult",
    "SortOrder",
    "SortTarget",
    "Txn",
    "TxnResult",
]

ALL_FROM = b"\0"
"""As a range_end: no end."""


class SortOrder(IntEnum):
    """How a range is sorted. NONE with a target other than KEY means ASCEND, as in etcd."""

    NONE = 0
    ASCEND = 1
    DESCEND = 2


class SortTarget(IntEnum):
    """What a range is sorted by."""

    KEY = 0
    VERSION = 1
    CREATE = 2
    MOD = 3
    VALUE = 4


class CompareResult(IntEnum):
    """What the comparison of a key with the operand must give."""

    EQUAL = 0
    GREATER = 1
    LESS = 2
    NOT_EQUAL = 3


class CompareTarget(IntEnum):
    """What of a key is compared."""

    VERSION = 0
    CREATE = 1
    MOD = 2
    VALUE = 3
    LEASE = 4


class KeyValue(NamedTuple):
    """One version of one key."""

    key: bytes
    create_revision: int
    """The revision that created the key, most recently."""
    mod_revision: int
    """The revision that wrote this version."""
    version: int
    """1 for the write that created the key, and so on; 0 marks a deletion."""
    value: bytes
    lease: int = 0


# ---- commands ------------------------------------------------------------------------------------------------
#
# Fields with few values are plain integers: a number that this version does not know must reach `check`.


class Range(NamedTuple):
    """Reads a key, or the keys of a range."""

    key: bytes
    range_end: bytes = b""
    limit: int = 0
    """At most so many; 0 or less: all."""
    revision: int = 0
    """0 or less: the newest."""
    sort_order: int = SortOrder.NONE
    sort_target: int = SortTarget.KEY
    serializable: bool = False
    """The server may answer from its own state, which may be stale. Nothing to the store itself."""
    keys_only: bool = False
    count_only: bool = False
    min_mod_revision: int = 0
    max_mod_revision: int = 0
    min_create_revision: int = 0
    max_create_revision: int = 0


class Put(NamedTuple):
    """Writes a key."""

    key: bytes
    value: bytes = b""
    lease: int = 0
    prev_kv: bool = False
    """Answer with the version before."""
    ignore_value: bool = False
    """Keep the value; the key must exist."""
    ignore_lease: bool = False
    """Keep the lease; the key must exist."""


class DeleteRange(NamedTuple):
    """Deletes a key, or the keys of a range."""

    key: bytes
    range_end: bytes = b""
    prev_kv: bool = False
    """Answer with what was deleted."""


class Compare(NamedTuple):
    """A condition on a key, or on every key of a range."""

    key: bytes
    target: int = CompareTarget.VERSION
    result: int = CompareResult.EQUAL
    operand: int | bytes = 0
    """bytes where the target is VALUE, else an integer."""
    range_end: bytes = b""


class Txn(NamedTuple):
    """Executes ``success`` where every condition holds, else ``failure``, as one step."""

    compare: tuple[Compare, ...] = ()
    success: tuple["Operation", ...] = ()
    failure: tuple["Operation", ...] = ()


class Compact(NamedTuple):
    """Drops every version that no read at ``revision`` or later can see."""

    revision: int
    physical: bool = False
    """etcd's: wait until the space is free. It always is, here."""


class LeaseGrant(NamedTuple):
    """Makes a lease."""

    ttl_s: int
    id: int
    """Chosen by whoever asks: not 0."""


class LeaseRevoke(NamedTuple):
    """Ends a lease and deletes its keys, all in one revision."""

    id: int


class LeaseKeepAlive(NamedTuple):
    """Gives a lease its whole time again."""

    id: int


class SetQuota(NamedTuple):
    """Sets what the whole state may grow to; the log says so, since every server must refuse the same puts."""

    quota_bytes: int
    """0: there is no limit."""


Operation: TypeAlias = Union[Range, Put, DeleteRange, Txn, None]  # noqa: UP007 (it names itself: Txn)
"""What a transaction is made of. None stands for an operation that is empty or unknown to this version."""

Command: TypeAlias = (
    Range | Put | DeleteRange | Txn | Compact | LeaseGrant | LeaseRevoke | LeaseKeepAlive | SetQuota
)


# ---- results -------------------------------------------------------------------------------------------------
#
# `revision` is that of the store after the command; in a transaction, after the operations so far.


class RangeResult(NamedTuple):
    """What a Range found."""

    revision: int
    kvs: tuple[KeyValue, ...]
    more: bool
    """``limit`` has left something out."""
    count: int  # type: ignore[assignment] # etcd's word, which is also a method of every tuple
    """Keys in the range, whatever the limit and the filters on revisions."""


class PutResult(NamedTuple):
    """A key was written."""

    revision: int
    prev_kv: KeyValue | None = None


class DeleteRangeResult(NamedTuple):
    """Keys were deleted, or there were none."""

    revision: int
    deleted: int
    prev_kvs: tuple[KeyValue, ...] = ()


class TxnResult(NamedTuple):
    """One result for each operation of the branch that was taken."""

    revision: int
    succeeded: bool
    responses: tuple["OperationResult", ...]


class CompactResult(NamedTuple):
    """The store was compacted."""

    revision: int


class LeaseGrantResult(NamedTuple):
    """A lease was made."""

    revision: int
    id: int
    ttl_s: int
    """What was granted: at least LEASE_TTL_MIN_S."""


class LeaseRevokeResult(NamedTuple):
    """A lease was ended."""

    revision: int


class LeaseKeepAliveResult(NamedTuple):
    """A lease has its whole time again; or there is none, which is no error."""

    revision: int
    id: int
    ttl_s: int
    """0: there is no such lease (any more)."""


class SetQuotaResult(NamedTuple):
    """The quota was set."""

    revision: int
    state_bytes: int
    """What the state has come to."""


class KvError(NamedTuple):
    """The command was refused and has changed nothing."""

    code: int
    """A gRPC status code."""
    message: str
    """etcd's words where it has any: its clients compare them."""


OperationResult: TypeAlias = RangeResult | PutResult | DeleteRangeResult | TxnResult
LeaseResult: TypeAlias = LeaseGrantResult | LeaseRevokeResult | LeaseKeepAliveResult
Result: TypeAlias = OperationResult | CompactResult | LeaseResult | SetQuotaResult | KvError


# ---- errors --------------------------------------------------------------------------------------------------

INVALID_ARGUMENT = 3
NOT_FOUND = 5
RESOURCE_EXHAUSTED = 8
FAILED_PRECONDITION = 9
OUT_OF_RANGE = 11

EMPTY_KEY = KvError(INVALID_ARGUMENT, "etcdserver: key is not provided")
KEY_NOT_FOUND = KvError(INVALID_ARGUMENT, "etcdserver: key not found")
VALUE_PROVIDED = KvError(INVALID_ARGUMENT, "etcdserver: value is provided")
LEASE_PROVIDED = KvError(INVALID_ARGUMENT, "etcdserver: lease is provided")
TOO_MANY_OPS = KvError(INVALID_ARGUMENT, "etcdserver: too many operations in txn request")
DUPLICATE_KEY = KvError(INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request")
INVALID_SORT = KvError(INVALID_ARGUMENT, "etcdserver: invalid sort option")
REQUEST_TOO_LARGE = KvError(INVALID_ARGUMENT, "etcdserver: request is too large")
COMPACTED = KvError(OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")
FUTURE_REVISION = KvError(OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision")
NO_SPACE = KvError(RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")
LEASE_NOT_FOUND = KvError(NOT_FOUND, "etcdserver: requested lease not found")
LEASE_EXISTS = KvError(FAILED_PRECONDITION, "etcdserver: lease already exists")
LEASE_TTL_TOO_LARGE = KvError(OUT_OF_RANGE, "etcdserver: too large lease TTL")

# Where etcd has no words of its own.
LEASE_WITHOUT_ID = KvError(
    INVALID_ARGUMENT,
    "paxos_rsm: a lease that is granted by a command needs an ID other than 0: draw one of 63 bits",
)
BAD_COMMAND = KvError(
    INVALID_ARGUMENT, "paxos_rsm: the bytes are no command of the key-value store that this version knows"
)
NOT_A_QUERY = KvError(
    INVALID_ARGUMENT, "paxos_rsm: only a range, or a transaction of ranges, may be asked as a query"
)
INVALID_COMPARE = KvError(INVALID_ARGUMENT, "paxos_rsm: a compare has a target or a result that is unknown")
TOO_DEEP = KvError(INVALID_ARGUMENT, "paxos_rsm: transactions are nested more than 32 deep")
