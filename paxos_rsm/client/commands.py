"""What a user asks of the key-value store, as bytes of its state machine; and its answers, as results.

A change is a ``KvCommand`` that goes through the log; a read is one too, but asked as a query, and so
answered with one round of a quorum and no write. The store itself refuses what is wrong (an empty key, a
revision that is compacted): the client checks only what cannot be put into bytes.
"""

from collections.abc import Iterable
from typing import Literal, TypeAlias

from google.protobuf.message import DecodeError

from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm.client.failures import error_of
from paxos_rsm.client.reads import Answer
from paxos_rsm.client.types import (
    DeleteResult,
    GetResult,
    GrantResult,
    KeyValue,
    LeaseRef,
    PutResult,
    RangeResult,
    StrOrBytes,
)
from paxos_rsm.errors import ClientError, InvalidArgument

__all__ = [
    "ALL_KEYS",
    "SortBy",
    "compact_command",
    "delete_command",
    "delete_of",
    "delete_result",
    "get_of",
    "get_query",
    "get_result",
    "grant_command",
    "grant_result",
    "keep_alive_command",
    "keep_alive_result",
    "key_value",
    "lease_id",
    "open_result",
    "prefix_end",
    "put_of",
    "put_result",
    "put_with_command",
    "range_bounds",
    "range_of",
    "range_query",
    "range_request",
    "range_result",
    "revoke_command",
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

_ResultField: TypeAlias = Literal[
    "range", "put", "delete_range", "txn", "compact", "lease_grant", "lease_revoke", "lease_keep_alive"
]


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
    min_mod_revision: int = 0,
    max_mod_revision: int = 0,
    min_create_revision: int = 0,
    max_create_revision: int = 0,
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
            min_mod_revision=min_mod_revision,
            max_mod_revision=max_mod_revision,
            min_create_revision=min_create_revision,
            max_create_revision=max_create_revision,
        )
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"limit={limit!r}, revision={revision!r}, or another number: {error}") from None


def range_query(request: pb.RangeRequest) -> bytes:
    """Asks for a range of keys."""
    return pb.KvCommand(range=request).SerializeToString()


def put_with_command(
    key: bytes, value: bytes, prev_kv: bool, lease: int, ignore_value: bool, ignore_lease: bool
) -> bytes:
    """Writes a key, with a lease or a flag. One with neither is wire.py's ``put_command``, which is faster."""
    request = pb.PutRequest(
        key=key,
        value=value,
        prev_kv=prev_kv,
        lease=lease,
        ignore_value=ignore_value,
        ignore_lease=ignore_lease,
    )
    return pb.KvCommand(put=request).SerializeToString()


def delete_command(bounds: tuple[bytes, bytes], prev_kv: bool = False) -> bytes:
    """Deletes a range of keys."""
    request = pb.DeleteRangeRequest(key=bounds[0], range_end=bounds[1], prev_kv=prev_kv)
    return pb.KvCommand(delete_range=request).SerializeToString()


def compact_command(revision: int) -> bytes:
    """Forgets what is older than ``revision``."""
    try:
        request = pb.CompactionRequest(revision=revision)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"revision={revision!r}: {error}") from None
    return pb.KvCommand(compact=request).SerializeToString()


def lease_id(lease: LeaseRef) -> int:
    """The number of a lease. Raises InvalidArgument for what is none."""
    number = lease if isinstance(lease, int) else getattr(lease, "id", None)
    if type(number) is int and 0 <= number < 2**63:
        return number
    raise InvalidArgument(f"a lease is a Lease or its number of at most 63 bits, not {lease!r}")


def grant_command(number: int, ttl_s: int) -> bytes:
    """Grants a lease under a number that the client has chosen."""
    if type(ttl_s) is not int or not 0 < ttl_s < 2**63:
        raise InvalidArgument(f"ttl_s={ttl_s!r} is not a whole number of seconds")
    return pb.KvCommand(lease_grant=pb.LeaseGrantRequest(ID=number, TTL=ttl_s)).SerializeToString()


def revoke_command(number: int) -> bytes:
    """Ends a lease, and deletes its keys."""
    return pb.KvCommand(lease_revoke=pb.LeaseRevokeRequest(ID=number)).SerializeToString()


def keep_alive_command(number: int) -> bytes:
    """Gives a lease its full time again."""
    return pb.KvCommand(lease_keep_alive=pb.LeaseKeepAliveRequest(ID=number)).SerializeToString()


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


def key_value(kv: pb.KeyValue, strip: int = 0) -> KeyValue:
    """One key of an answer, without the first ``strip`` bytes of its name."""
    key = kv.key[strip:] if strip else kv.key
    return KeyValue(key, kv.value, kv.version, kv.create_revision, kv.mod_revision, kv.lease)


def _key_values(kvs: Iterable[pb.KeyValue], strip: int) -> tuple[KeyValue, ...]:
    return tuple(key_value(kv, strip) for kv in kvs) if strip else tuple(map(key_value, kvs))


def put_result(raw: bytes, strip: int = 0) -> PutResult:
    """The answer to a put."""
    return put_of(open_result(raw, "put").put, strip)


def put_of(put: pb.PutResponse, strip: int = 0) -> PutResult:
    """The answer to a put, also within a transaction."""
    return PutResult(put.header.revision, key_value(put.prev_kv, strip) if put.HasField("prev_kv") else None)


def get_result(key: bytes, answer: Answer) -> GetResult:
    """The answer to a query for one key."""
    return get_of(key, open_result(answer.result, "range").range, answer.applied_slot, answer.leader_age_ms)


def get_of(
    key: bytes, found: pb.RangeResponse, applied_slot: int = 0, leader_age_ms: int | None = None
) -> GetResult:
    """The answer for one key, also within a transaction; ``key`` is the caller's name of it."""
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
        kv.lease,
    )


def range_result(answer: Answer, strip: int = 0) -> RangeResult:
    """The answer to a query for a range."""
    found = open_result(answer.result, "range").range
    return range_of(found, strip, answer.applied_slot, answer.leader_age_ms)


def range_of(
    found: pb.RangeResponse, strip: int = 0, applied_slot: int = 0, leader_age_ms: int | None = None
) -> RangeResult:
    """The answer for a range, also within a transaction."""
    kvs = _key_values(found.kvs, strip)
    return RangeResult(kvs, found.count, found.more, found.header.revision, applied_slot, leader_age_ms)


def delete_result(raw: bytes, strip: int = 0) -> DeleteResult:
    """The answer to a delete."""
    return delete_of(open_result(raw, "delete_range").delete_range, strip)


def delete_of(gone: pb.DeleteRangeResponse, strip: int = 0) -> DeleteResult:
    """The answer to a delete, also within a transaction."""
    return DeleteResult(gone.deleted, gone.header.revision, _key_values(gone.prev_kvs, strip))


def grant_result(raw: bytes) -> GrantResult:
    """The answer to a grant."""
    granted = open_result(raw, "lease_grant").lease_grant
    return GrantResult(granted.ID, granted.TTL)


def keep_alive_result(raw: bytes) -> int:
    """The answer to a keep-alive: the lease's seconds from now; 0 where there is no such lease."""
    return open_result(raw, "lease_keep_alive").lease_keep_alive.TTL
