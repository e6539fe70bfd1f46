"""Transactions: conditions on keys, and what is done where all of them hold, or else. One revision, all or nothing.

::

    result = await kv.txn(
        [Compare.value("owner", "==", "me"), Compare.version("job", ">", 0)],
        [Op.put("job", "done"), Op.delete("owner")],
        [Op.get("owner")],
    )
    if not result.succeeded:
        print(result.responses[0].value)

A transaction that only reads is asked as a query: it does not go through the log.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm.client.commands import (
    SortBy,
    get_of,
    open_result,
    put_of,
    range_bounds,
    range_of,
    range_request,
    to_bytes,
)
from paxos_rsm.client.types import GetResult, PutResult, RangeResult, StrOrBytes
from paxos_rsm.errors import ClientError, InvalidArgument

__all__ = [
    "Compare",
    "Op",
    "Relation",
    "TxnResponse",
    "TxnResult",
    "swap_command",
    "txn_command",
    "txn_result",
]

Relation: TypeAlias = Literal["==", "!=", ">", "<"]

TxnResponse: TypeAlias = PutResult | GetResult | RangeResult | int
"""Of Op.put, Op.get, Op.range, Op.delete (how many keys there were)."""

_RELATIONS: dict[str, pb.Compare.CompareResult.ValueType] = {
    "==": pb.Compare.EQUAL,
    "!=": pb.Compare.NOT_EQUAL,
    ">": pb.Compare.GREATER,
    "<": pb.Compare.LESS,
}


@dataclass(frozen=True, slots=True)
class Compare:
    """A condition on one key. A missing key has no value, and 0 for every number."""

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

    @staticmethod
    def put(key: StrOrBytes, value: StrOrBytes, *, prev_kv: bool = False) -> "Op":
        """Writes a key; answers a PutResult."""
        request = pb.PutRequest(key=to_bytes(key), value=to_bytes(value, "a value"), prev_kv=prev_kv)
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
    ) -> "Op":
        """Reads a range, see :meth:`AsyncClient.range`; answers a RangeResult."""
        request = range_request(
            _required(range_bounds(key, end, prefix)),
            limit=limit,
            sort_by=sort_by,
            descending=descending,
            keys_only=keys_only,
            count_only=count_only,
        )
        return Op(pb.RequestOp(request_range=request))

    @staticmethod
    def delete(
        key: StrOrBytes | None = None, end: StrOrBytes | None = None, *, prefix: StrOrBytes | None = None
    ) -> "Op":
        """Deletes one key, or all of a range; answers how many there were."""
        start, range_end = _required(range_bounds(key, end, prefix))
        return Op(pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=start, range_end=range_end)))


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


def txn_command(
    compares: Sequence[Compare], success: Sequence[Op], failure: Sequence[Op]
) -> tuple[bytes, bool]:
    """A transaction as bytes of the state machine, and whether it only reads."""
    for given, kind in ((compares, Compare), (success, Op), (failure, Op)):
        for each in given:
            if not isinstance(each, kind):
                raise InvalidArgument(
                    f"a transaction takes conditions (Compare), then two lists of operations (Op), not {each!r}"
                )
    txn = pb.TxnRequest(
        compare=[each.message for each in compares],
        success=[each.message for each in success],
        failure=[each.message for each in failure],
    )
    reads_only = all(each.message.HasField("request_range") for each in (*success, *failure))
    return pb.KvCommand(txn=txn).SerializeToString(), reads_only


def swap_command(key: StrOrBytes, expected: StrOrBytes | None, new: StrOrBytes) -> bytes:
    """Writes a key where it has the value ``expected``, or, with None, where it is missing."""
    condition = Compare.missing(key) if expected is None else Compare.value(key, "==", expected)
    return txn_command([condition], [Op.put(key, new)], [])[0]


def txn_result(raw: bytes, success: Sequence[Op], failure: Sequence[Op]) -> TxnResult:
    """The answer to a transaction."""
    txn = open_result(raw, "txn").txn
    branch = success if txn.succeeded else failure
    if len(branch) != len(txn.responses):
        raise ClientError(
            f"the servers answered {len(txn.responses)} operations of a transaction with {len(branch)}: "
            "the versions of client and servers do not fit together"
        )
    answered = zip(branch, txn.responses, strict=True)
    responses = tuple(_response(op, response) for op, response in answered)
    return TxnResult(txn.succeeded, responses, txn.header.revision)


def _response(op: Op, response: pb.ResponseOp) -> TxnResponse:
    match response.WhichOneof("response"):
        case "response_put":
            return put_of(response.response_put)
        case "response_delete_range":
            return response.response_delete_range.deleted
        case "response_range" if op.single:
            return get_of(op.message.request_range.key, response.response_range)
        case "response_range":
            return range_of(response.response_range)
        case other:
            raise ClientError(f"a transaction was answered with {other}, which this version does not know")
