"""What a user asks of the key-value store, as bytes of its state machine; and its answers, as results.

A change is a ``KvCommand`` that goes through the log; a read is one too, but asked as a query, and so
answered with one round of a quorum and no write. The store itself refuses what is wrong (an empty key, a
revision that is compacted): the client checks only what cannot be put into bytes.
"""

from typing import Literal, TypeAlias

from google.protobuf.message import DecodeError

from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm.client.failures import error_of
from paxos_rsm.client.reads import Answer
from paxos_rsm.client.types import GetResult, KeyValue, PutResult, RangeResult, StrOrBytes
from paxos_rsm.errors import ClientError, InvalidArgument

__all__ = [
    "ALL_KEYS",
    "SortBy",
    "compact_command",
    "delete_command",
    "deleted",
    "get_query",
    "get_result",
    "key_value",
    "open_result",
    "put_result",
    "range_bounds",
    "range_query",
    "range_request",
    "range_result",
    "to_bytes",
]

SortBy: TypeAlias = Literal["key", "version", "create_revision", "mod_revision", "value"]

ALL_KEYS = (b"\0", b"\0")
"""A ``range_end`` of one zero byte: everything from the key on."""

_SORT_TARGETS: dict[str, pb.RangeRequest.SortTarget.ValueType] = {
    "key": pb.RangeRequest.KEY,
    "version": pb.RangeRequest.VERSION,
    "create_revision": pb.RangeRequest.CREATE,
    "mod_revision": pb.RangeRequest.MOD,
    "value": pb.RangeRequest.VALUE,
}

_ResultField: TypeAlias = Literal["range", "put", "delete_range", "txn", "compact"]


# ---- to the store ----------------------------------------------------------------------------------------


def to_bytes(given: StrOrBytes, what: str = "a key") -> bytes:
    """``given`` as bytes; a str as UTF-8. Raises InvalidArgument for anything else."""
    if type(given) is bytes:
        return given
    if isinstance(given, str):
        try:
            return given.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgument(f"{what} is str or bytes, and this str has no UTF-8: {error}") from None
    if isinstance(given, bytes):
        return bytes(given)
    raise InvalidArgument(f"{what} is str or bytes, not {type(given).__name__}")


def prefix_end(prefix: bytes) -> bytes:
    """The first key behind all that start with ``prefix``; one zero byte where there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else b"\0"


def range_bounds(
    key: StrOrBytes | None, end: StrOrBytes | None, prefix: StrOrBytes | None
) -> tuple[bytes, bytes] | None:
    """``key`` and ``range_end`` of a request; None where nothing was given.

    Raises InvalidArgument where a prefix is given and anything else too, or an end without a key.
    """
    if prefix is not None:
        if key is not None or end is not None:
            raise InvalidArgument("give either a key, a key and an end, or a prefix")
        start = to_bytes(prefix, "a prefix")
        return (start, prefix_end(start)) if start else ALL_KEYS
    if key is None:
        if end is not None:
            raise InvalidArgument("an end without a key; for everything below it, start at the key b'\\0'")
        return None
    return to_bytes(key), b"" if end is None else to_bytes(end, "the end of a range")


def get_query(key: bytes, revision: int, serializable: bool) -> bytes:
    """Asks for one key."""
    try:
        request = pb.RangeRequest(key=key, revision=revision, serializable=serializable)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"revision={revision!r}: {error}") from None
    return pb.KvCommand(range=request).SerializeToString()


def range_request(
    bounds: tuple[bytes, bytes],
    *,
    limit: int = 0,
    revision: int = 0,
    sort_by: SortBy | None = None,
    descending: bool = False,
    keys_only: bool = False,
    count_only: bool = False,
    serializable: bool = False,
) -> pb.RangeRequest:
    """A request for a range of keys."""
    order = pb.RangeRequest.NONE
    target = pb.RangeRequest.KEY
    if sort_by is not None or descending:
        order = pb.RangeRequest.DESCEND if descending else pb.RangeRequest.ASCEND
        try:
            target = _SORT_TARGETS[sort_by or "key"]
        except KeyError:
            raise InvalidArgument(f"sort_by={sort_by!r} is not one of {', '.join(_SORT_TARGETS)}") from None
    try:
        return pb.RangeRequest(
            key=bounds[0],
            range_end=bounds[1],
            limit=limit,
            revision=revision,
            sort_order=order,
            sort_target=target,
            serializable=serializable,
            keys_only=keys_only,
            count_only=count_only,
        )
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"limit={limit!r}, revision={revision!r}: {error}") from None


def range_query(request: pb.RangeRequest) -> bytes:
    """Asks for a range of keys."""
    return pb.KvCommand(range=request).SerializeToString()


def delete_command(bounds: tuple[bytes, bytes]) -> bytes:
    """Deletes a range of keys."""
    request = pb.DeleteRangeRequest(key=bounds[0], range_end=bounds[1])
    return pb.KvCommand(delete_range=request).SerializeToString()


def compact_command(revision: int) -> bytes:
    """Forgets what is older than ``revision``."""
    try:
        request = pb.CompactionRequest(revision=revision)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"revision={revision!r}: {error}") from None
    return pb.KvCommand(compact=request).SerializeToString()


# ---- from the store --------------------------------------------------------------------------------------


def open_result(raw: bytes, wanted: _ResultField) -> pb.KvResult:
    """The result of a command, which is of the kind ``wanted``.

    Raises what the store answered where that is an error, and ClientError where it is no answer of the store.
    """
    try:
        result = pb.KvResult.FromString(raw)
    except DecodeError:
        result = pb.KvResult()
    if result.HasField(wanted):
        return result
    if result.HasField("error"):
        raise error_of(result.error.code, result.error.message)
    raise ClientError(
        f"the servers answered {len(raw)} bytes that are not the key-value store's answer to a {wanted}: "
        "they run another state machine, for which submit and query are made"
    )


def key_value(kv: pb.KeyValue) -> KeyValue:
    """One key of an answer."""
    return KeyValue(kv.key, kv.value, kv.version, kv.create_revision, kv.mod_revision, kv.lease)


def put_result(raw: bytes) -> PutResult:
    """The answer to a put."""
    return put_of(open_result(raw, "put").put)


def put_of(put: pb.PutResponse) -> PutResult:
    """The answer to a put, also within a transaction."""
    return PutResult(put.header.revision, key_value(put.prev_kv) if put.HasField("prev_kv") else None)


def get_result(key: bytes, answer: Answer) -> GetResult:
    """The answer to a query for one key."""
    return get_of(key, open_result(answer.result, "range").range, answer.applied_slot, answer.leader_age_ms)


def get_of(
    key: bytes, found: pb.RangeResponse, applied_slot: int = 0, leader_age_ms: int | None = None
) -> GetResult:
    """The answer for one key, also within a transaction."""
    revision = found.header.revision
    if not found.kvs:
        return GetResult(key, None, 0, 0, 0, revision, applied_slot, leader_age_ms)
    kv = found.kvs[0]
    return GetResult(
        key,
        kv.value,
        kv.version,
        kv.create_revision,
        kv.mod_revision,
        revision,
        applied_slot,
        leader_age_ms,
    )


def range_result(answer: Answer) -> RangeResult:
    """The answer to a query for a range."""
    return range_of(open_result(answer.result, "range").range, answer.applied_slot, answer.leader_age_ms)


def range_of(found: pb.RangeResponse, applied_slot: int = 0, leader_age_ms: int | None = None) -> RangeResult:
    """The answer for a range, also within a transaction."""
    kvs = tuple(map(key_value, found.kvs))
    return RangeResult(kvs, found.count, found.more, found.header.revision, applied_slot, leader_age_ms)


def deleted(raw: bytes) -> int:
    """The answer to a delete: how many keys there were."""
    return open_result(raw, "delete_range").delete_range.deleted
