"""Transactions: conditions on keys, and what is done where all of them hold, or else. One revision, all or nothing.

::

    result = await kv.txn(
        [Compare.value("owner", "==", "me"), Compare.version("job", ">", 0)],
        [Op.put("job", "done"), Op.delete("owner")],
        [Op.get("owner")],
    )
    if not result.succeeded:
        print(result.responses[0].value)

Or, the same in words::

    result = await (
        kv.txn()
        .when(Compare.value("owner", "==", "me"), Compare.version("job", ">", 0))
        .then(Op.put("job", "done"), Op.delete("owner"))
        .otherwise(Op.get("owner"))
        .commit()
    )

A transaction that only reads is asked as a query: it does not go through the log.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Literal, Self, TypeAlias, TypeVar

from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm.client.commands import (
    SortBy,
    delete_of,
    get_of,
    lease_id,
    open_result,
    prefix_end,
    put_of,
    range_bounds,
    range_of,
    range_request,
    to_bytes,
)
from paxos_rsm.client.namespace import ROOT, Namespace
from paxos_rsm.client.types import DeleteResult, GetResult, LeaseRef, PutResult, RangeResult, StrOrBytes
from paxos_rsm.errors import ClientError, InvalidArgument

__all__ = [
    "Compare",
    "Op",
    "Relation",
    "TxnBuilder",
    "TxnResponse",
    "TxnResult",
    "swap_command",
    "txn_command",
    "txn_result",
]

Relation: TypeAlias = Literal["==", "!=", ">", "<"]

TxnResponse: TypeAlias = "PutResult | GetResult | RangeResult | DeleteResult | TxnResult"
"""Of Op.put, Op.get, Op.range, Op.delete (an int: how many keys there were), Op.txn."""

R = TypeVar("R")

_RELATIONS: dict[str, pb.Compare.CompareResult.ValueType] = {
    "==": pb.Compare.EQUAL,
    "!=": pb.Compare.NOT_EQUAL,
    ">": pb.Compare.GREATER,
    "<": pb.Compare.LESS,
}


@dataclass(frozen=True, slots=True)
class Compare:
    """A condition on one key, or, with :meth:`up_to` or :meth:`for_prefix`, on every key of a range.

    A missing key has no value, and 0 for every number; where a range holds no key, the condition holds.
    """

    message: pb.Compare

    @staticmethod
    def value(key: StrOrBytes, relation: Relation, value: StrOrBytes) -> "Compare":
        """Its value. False for a missing key."""
        return _compare(key, relation, pb.Compare(target=pb.Compare.VALUE, value=to_bytes(value, "a value")))

    @staticmethod
    def version(key: StrOrBytes, relation: Relation, version: int) -> "Compare":
        """How often it was written since it was created."""
        return _compare(key, relation, pb.Compare(target=pb.Compare.VERSION, version=_number(version)))

    @staticmethod
    def create_revision(key: StrOrBytes, relation: Relation, revision: int) -> "Compare":
        """The store's revision when it was created."""
        return _compare(
            key, relation, pb.Compare(target=pb.Compare.CREATE, create_revision=_number(revision))
        )

    @staticmethod
    def mod_revision(key: StrOrBytes, relation: Relation, revision: int) -> "Compare":
        """The store's revision when it was last written."""
        return _compare(key, relation, pb.Compare(target=pb.Compare.MOD, mod_revision=_number(revision)))

    @staticmethod
    def lease(key: StrOrBytes, relation: Relation, lease: LeaseRef) -> "Compare":
        """The lease that it is bound to; 0 for none."""
        return _compare(key, relation, pb.Compare(target=pb.Compare.LEASE, lease=lease_id(lease)))

    def up_to(self, end: StrOrBytes) -> "Compare":
        """The same condition on every key from this one up to ``end``, that one left out; ``b"\\0"`` means no end."""
        return self._over(to_bytes(end, "the end of a range"))

    def for_prefix(self) -> "Compare":
        """The same condition on every key that begins with this one."""
        return self._over(prefix_end(self.message.key))

    def _over(self, end: bytes) -> "Compare":
        message = pb.Compare()
        message.CopyFrom(self.message)
        message.range_end = end
        return replace(self, message=message)

    @staticmethod
    def exists(key: StrOrBytes) -> "Compare":
        """It is there."""
        return Compare.create_revision(key, ">", 0)

    @staticmethod
    def missing(key: StrOrBytes) -> "Compare":
        """It is not there."""
        return Compare.create_revision(key, "==", 0)


def _compare(key: StrOrBytes, relation: Relation, message: pb.Compare) -> Compare:
    message.key = to_bytes(key)
    try:
        message.result = _RELATIONS[relation]
    except (KeyError, TypeError):
        raise InvalidArgument(f"{relation!r} compares nothing; use one of {', '.join(_RELATIONS)}") from None
    return Compare(message)


def _number(given: int) -> int:
    if type(given) is int and -(2**63) <= given < 2**63:
        return given
    raise InvalidArgument(f"a version or revision is a whole number of 64 bits, not {given!r}")


@dataclass(frozen=True, slots=True)
class Op:
    """One operation of a transaction."""

    message: pb.RequestOp
    single: bool = False
    """The answer is about one key: a GetResult, not a RangeResult."""
    branches: tuple[tuple["Op", ...], tuple["Op", ...]] | None = None
    """Of a transaction: what it does, where its conditions hold and where not."""

    @staticmethod
    def put(
        key: StrOrBytes,
        value: StrOrBytes = b"",
        *,
        lease: LeaseRef = 0,
        prev_kv: bool = False,
        ignore_value: bool = False,
        ignore_lease: bool = False,
    ) -> "Op":
        """Writes a key, see :meth:`AsyncClient.put`; answers a PutResult."""
        request = pb.PutRequest(
            key=to_bytes(key),
            value=to_bytes(value, "a value"),
            lease=lease_id(lease),
            prev_kv=prev_kv,
            ignore_value=ignore_value,
            ignore_lease=ignore_lease,
        )
        return Op(pb.RequestOp(request_put=request))

    @staticmethod
    def get(key: StrOrBytes) -> "Op":
        """Reads a key, as it is at this point of the transaction; answers a GetResult."""
        return Op(pb.RequestOp(request_range=pb.RangeRequest(key=to_bytes(key))), single=True)

    @staticmethod
    def range(
        key: StrOrBytes | None = None,
        end: StrOrBytes | None = None,
        *,
        prefix: StrOrBytes | None = None,
        limit: int = 0,
        sort_by: SortBy | None = None,
        descending: bool = False,
        keys_only: bool = False,
        count_only: bool = False,
        min_mod_revision: int = 0,
        max_mod_revision: int = 0,
        min_create_revision: int = 0,
        max_create_revision: int = 0,
    ) -> "Op":
        """Reads a range, see :meth:`AsyncClient.range`; answers a RangeResult."""
        request = range_request(
            _required(range_bounds(key, end, prefix)),
            limit=limit,
            sort_by=sort_by,
            descending=descending,
            keys_only=keys_only,
            count_only=count_only,
            min_mod_revision=min_mod_revision,
            max_mod_revision=max_mod_revision,
            min_create_revision=min_create_revision,
            max_create_revision=max_create_revision,
        )
        return Op(pb.RequestOp(request_range=request))

    @staticmethod
    def delete(
        key: StrOrBytes | None = None,
        end: StrOrBytes | None = None,
        *,
        prefix: StrOrBytes | None = None,
        prev_kv: bool = False,
    ) -> "Op":
        """Deletes one key, or all of a range; answers a DeleteResult: how many there were."""
        start, range_end = _required(range_bounds(key, end, prefix))
        request = pb.DeleteRangeRequest(key=start, range_end=range_end, prev_kv=prev_kv)
        return Op(pb.RequestOp(request_delete_range=request))

    @staticmethod
    def txn(compares: "Sequence[Compare]", success: "Sequence[Op]", failure: "Sequence[Op]" = ()) -> "Op":
        """A transaction within the transaction; answers a TxnResult."""
        request = _txn_request(compares, success, failure)
        return Op(pb.RequestOp(request_txn=request), branches=(tuple(success), tuple(failure)))


def _required(bounds: tuple[bytes, bytes] | None) -> tuple[bytes, bytes]:
    if bounds is None:
        raise InvalidArgument("no key was given; for every key there is, give prefix=''")
    return bounds


@dataclass(frozen=True, slots=True)
class TxnResult:
    """What a transaction did. True where its conditions held."""

    succeeded: bool
    """Whether all conditions held, and the operations of ``success`` were done."""
    responses: tuple[TxnResponse, ...]
    """One for each operation of the branch that was taken, in order."""
    revision: int
    """Of the store, after the transaction."""

    def __bool__(self) -> bool:
        return self.succeeded


class TxnBuilder(Generic[R]):
    """A transaction that is put together step by step. Each step may come several times; nothing is sent before commit.

    ``R`` is what :meth:`commit` gives: of an AsyncClient something to await, of a Client the TxnResult itself.
    """

    def __init__(self, run: Callable[[list[Compare], list[Op], list[Op], float | None], R]) -> None:
        self._run = run
        self._compares: list[Compare] = []
        self._success: list[Op] = []
        self._failure: list[Op] = []

    def when(self, *compares: Compare) -> Self:
        """Adds conditions; without any, the transaction succeeds."""
        self._compares += compares
        return self

    def then(self, *ops: Op) -> Self:
        """Adds what is done where all conditions hold."""
        self._success += ops
        return self

    def otherwise(self, *ops: Op) -> Self:
        """Adds what is done where one of them does not."""
        self._failure += ops
        return self

    def commit(self, *, timeout_s: float | None = None) -> R:
        """Does it: at one point in time, all or nothing. See :meth:`AsyncClient.txn` for the errors."""
        return self._run(list(self._compares), list(self._success), list(self._failure), timeout_s)


def _txn_request(compares: Sequence[Compare], success: Sequence[Op], failure: Sequence[Op]) -> pb.TxnRequest:
    for given, kind in ((compares, Compare), (success, Op), (failure, Op)):
        for each in given:
            if not isinstance(each, kind):
                raise InvalidArgument(
                    f"a transaction takes conditions (Compare), then two lists of operations (Op), not {each!r}"
                )
    return pb.TxnRequest(
        compare=[each.message for each in compares],
        success=[each.message for each in success],
        failure=[each.message for each in failure],
    )


def _reads_only(op: Op) -> bool:
    if op.branches is not None:
        return all(map(_reads_only, (*op.branches[0], *op.branches[1])))
    return op.message.HasField("request_range")


def txn_command(
    compares: Sequence[Compare], success: Sequence[Op], failure: Sequence[Op], namespace: Namespace = ROOT
) -> tuple[bytes, bool]:
    """A transaction as bytes of the state machine, and whether it only reads."""
    txn = namespace.txn(_txn_request(compares, success, failure))
    reads_only = all(map(_reads_only, (*success, *failure)))
    return pb.KvCommand(txn=txn).SerializeToString(), reads_only


def swap_command(
    key: StrOrBytes, expected: StrOrBytes | None, new: StrOrBytes, namespace: Namespace = ROOT
) -> bytes:
    """Writes a key where it has the value ``expected``, or, with None, where it is missing."""
    condition = Compare.missing(key) if expected is None else Compare.value(key, "==", expected)
    return txn_command([condition], [Op.put(key, new)], [], namespace)[0]


def txn_result(raw: bytes, success: Sequence[Op], failure: Sequence[Op], strip: int = 0) -> TxnResult:
    """The answer to a transaction."""
    return _txn_of(open_result(raw, "txn").txn, success, failure, strip)


def _txn_of(txn: pb.TxnResponse, success: Sequence[Op], failure: Sequence[Op], strip: int) -> TxnResult:
    branch = success if txn.succeeded else failure
    if len(branch) != len(txn.responses):
        raise ClientError(
            f"the servers answered {len(txn.responses)} operations of a transaction with {len(branch)}: "
            "the versions of client and servers do not fit together"
        )
    answered = zip(branch, txn.responses, strict=True)
    responses = tuple(_response(op, response, strip) for op, response in answered)
    return TxnResult(txn.succeeded, responses, txn.header.revision)


def _response(op: Op, response: pb.ResponseOp, strip: int) -> TxnResponse:
    match response.WhichOneof("response"):
        case "response_put":
            return put_of(response.response_put, strip)
        case "response_delete_range":
            return delete_of(response.response_delete_range, strip)
        case "response_range" if op.single:
            return get_of(op.message.request_range.key, response.response_range)
        case "response_range":
            return range_of(response.response_range, strip)
        case "response_txn" if op.branches is not None:
            return _txn_of(response.response_txn, *op.branches, strip)
        case other:
            raise ClientError(f"a transaction was answered with {other}, which this version does not know")
