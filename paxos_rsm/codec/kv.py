"""Commands and results of the key-value store as protobuf, in both directions.

Two users. The state machine decodes commands (KvCommand) and encodes results (KvResult): the hot path. The unary KV
service turns etcd's requests into commands to check them (:func:`request_from_pb`), wraps them for the log
(:func:`command_from_request`), and turns results into etcd's responses (:func:`result_to_pb`), of which it fills in
the parts of the header that only a server knows.

**The hot path.** A plain put and a plain get of one key are taken apart by hand: nearly all commands are one of these,
written by an encoder that puts each field down once, in order. What does not look exactly so goes to protobuf, and so
does what is damaged; both ways give the same command (a test compares them over arbitrary bytes).

**Unknown.** A command, or an operation of a transaction, of a kind that this version does not know is answered with an
error; a compare or a sort of an unknown kind keeps its number, which `check` refuses.
"""

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from google.protobuf.message import DecodeError

from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm.machines.kv.check import TXN_OPS_MAX
from paxos_rsm.machines.kv.types import (
    BAD_COMMAND,
    Command,
    Compact,
    CompactResult,
    Compare,
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

__all__ = [
    "KvCodec",
    "Request",
    "Response",
    "command_from_request",
    "decode_command",
    "encode_command",
    "encode_result",
    "request_from_pb",
    "response_from_bytes",
    "result_to_pb",
]

Request: TypeAlias = (
    pb.RangeRequest
    | pb.PutRequest
    | pb.DeleteRangeRequest
    | pb.TxnRequest
    | pb.CompactionRequest
    | pb.LeaseGrantRequest
    | pb.LeaseRevokeRequest
    | pb.LeaseKeepAliveRequest
    | pb.SetQuotaRequest
)
Response: TypeAlias = (
    pb.RangeResponse
    | pb.PutResponse
    | pb.DeleteRangeResponse
    | pb.TxnResponse
    | pb.CompactionResponse
    | pb.LeaseGrantResponse
    | pb.LeaseRevokeResponse
    | pb.LeaseKeepAliveResponse
    | pb.SetQuotaResponse
)

# Tags, as protobuf writes them: field number << 3 | 2 (length-delimited). In KvCommand: range = 1, put = 2; in
# RangeRequest and PutRequest: key = 1; in PutRequest: value = 2.
RANGE_TAG = KEY_TAG = 0x0A
PUT_TAG = VALUE_TAG = 0x12

_new: Callable[..., Any] = tuple.__new__


# ---- commands ------------------------------------------------------------------------------------------------


def decode_command(data: bytes) -> Command | KvError:
    """The command in a serialized KvCommand, or BAD_COMMAND. Never raises."""
    size = len(data)
    if size > 4:
        tag = data[0]
        if tag == PUT_TAG:
            put = _plain_put(data, size)
            if put is not None:
                return put
        # Both lengths are of one byte: the outer one is below 0x80.
        elif tag == RANGE_TAG and data[1] == size - 2 < 0x80 and data[2] == KEY_TAG and data[3] == size - 4:
            return Range(data[4:])
    try:
        message = pb.KvCommand.FromString(data)
    except DecodeError:
        return BAD_COMMAND
    kind = message.WhichOneof("request")
    if kind is None:
        return BAD_COMMAND
    command: Command = _DECODERS[kind](getattr(message, kind))
    return command


def _plain_put(data: bytes, size: int) -> Put | None:
    """The put, where ``data`` is PUT_TAG, a length, KEY_TAG, key, VALUE_TAG, value, and nothing else.

    Lengths of one or two bytes are understood: below 0x80, or seven bits in the first and seven in the second.
    """
    length, at = data[1], 2
    if length >= 0x80:
        high = data[2]
        if high >= 0x80:
            return None
        length, at = length & 0x7F | high << 7, 3
    key_bytes = data[at + 1]
    value_at = at + 2 + key_bytes
    if at + length != size or data[at] != KEY_TAG or key_bytes >= 0x80 or value_at + 2 >= size:
        return None
    length = data[value_at + 1]
    start = value_at + 2
    if length >= 0x80:
        high = data[start]
        if high >= 0x80:
            return None
        length, start = length & 0x7F | high << 7, start + 1
    if start + length != size or data[value_at] != VALUE_TAG:
        return None
    put: Put = _new(Put, (data[at + 2 : value_at], data[start:], 0, False, False, False))
    return put


def _put(m: pb.PutRequest) -> Put:
    return Put(m.key, m.value, m.lease, m.prev_kv, m.ignore_value, m.ignore_lease)


def _range(m: pb.RangeRequest) -> Range:
    return Range(
        m.key,
        m.range_end,
        m.limit,
        m.revision,
        m.sort_order,
        m.sort_target,
        m.serializable,
        m.keys_only,
        m.count_only,
        m.min_mod_revision,
        m.max_mod_revision,
        m.min_create_revision,
        m.max_create_revision,
    )


def _delete_range(m: pb.DeleteRangeRequest) -> DeleteRange:
    return DeleteRange(m.key, m.range_end, m.prev_kv)


def _txn(m: pb.TxnRequest) -> Txn:
    # One more than `check` lets pass: what is beyond would be refused unread, and two bytes make an operation.
    most = TXN_OPS_MAX + 1
    return Txn(
        tuple([_compare(each) for each in m.compare[:most]]),
        tuple([_operation(each) for each in m.success[:most]]),
        tuple([_operation(each) for each in m.failure[:most]]),
    )


def _operation(m: pb.RequestOp) -> Operation:
    kind = m.WhichOneof("request")
    if kind is None:
        return None
    operation: Operation = _DECODERS[kind](getattr(m, kind))
    return operation


def _compact(m: pb.CompactionRequest) -> Compact:
    return Compact(m.revision, m.physical)


def _lease_grant(m: pb.LeaseGrantRequest) -> LeaseGrant:
    return LeaseGrant(m.TTL, m.ID)


def _lease_revoke(m: pb.LeaseRevokeRequest) -> LeaseRevoke:
    return LeaseRevoke(m.ID)


def _lease_keep_alive(m: pb.LeaseKeepAliveRequest) -> LeaseKeepAlive:
    return LeaseKeepAlive(m.ID)


def _set_quota(m: pb.SetQuotaRequest) -> SetQuota:
    return SetQuota(m.quota_bytes)


# The field of each CompareTarget's operand, by its number.
_OPERAND_FIELDS = ("version", "create_revision", "mod_revision", "value", "lease")


def _compare(m: pb.Compare) -> Compare:
    target: int = m.target
    # An operand of another target than the one compared counts as absent, hence zero: as in etcd.
    operand = getattr(m, _OPERAND_FIELDS[target]) if 0 <= target < len(_OPERAND_FIELDS) else 0
    return Compare(m.key, target, m.result, operand, m.range_end)


# By the names of KvCommand's and RequestOp's oneofs.
_DECODERS: dict[str, Callable[[Any], Any]] = {
    "put": _put,
    "range": _range,
    "delete_range": _delete_range,
    "txn": _txn,
    "compact": _compact,
    "lease_grant": _lease_grant,
    "lease_revoke": _lease_revoke,
    "lease_keep_alive": _lease_keep_alive,
    "set_quota": _set_quota,
    "request_put": _put,
    "request_range": _range,
    "request_delete_range": _delete_range,
    "request_txn": _txn,
}

_REQUEST_DECODERS: dict[type, Callable[[Any], Any]] = {
    pb.PutRequest: _put,
    pb.RangeRequest: _range,
    pb.DeleteRangeRequest: _delete_range,
    pb.TxnRequest: _txn,
    pb.CompactionRequest: _compact,
    pb.LeaseGrantRequest: _lease_grant,
    pb.LeaseRevokeRequest: _lease_revoke,
    pb.LeaseKeepAliveRequest: _lease_keep_alive,
    pb.SetQuotaRequest: _set_quota,
}


def request_from_pb(message: Request) -> Command:
    """The command of one of etcd's request messages."""
    command: Command = _REQUEST_DECODERS[type(message)](message)
    return command


# The field of each request in KvCommand, and so its tag.
_COMMAND_TAGS: dict[type, bytes] = {
    message: bytes((pb.KvCommand.DESCRIPTOR.fields_by_name[name].number << 3 | 2,))
    for name, message in (
        ("range", pb.RangeRequest),
        ("put", pb.PutRequest),
        ("delete_range", pb.DeleteRangeRequest),
        ("txn", pb.TxnRequest),
        ("compact", pb.CompactionRequest),
        ("lease_grant", pb.LeaseGrantRequest),
        ("lease_revoke", pb.LeaseRevokeRequest),
        ("lease_keep_alive", pb.LeaseKeepAliveRequest),
        ("set_quota", pb.SetQuotaRequest),
    )
}


def command_from_request(message: Request) -> bytes:
    """The bytes of a KvCommand around one of etcd's request messages: what a frame holds."""
    # Not by way of a KvCommand, into which the message would be copied first.
    data = message.SerializeToString()
    length = bytearray()
    size = len(data)
    while size >= 0x80:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return b"".join((_COMMAND_TAGS[type(message)], length, data))


def encode_command(command: Command) -> bytes:
    """The bytes of a KvCommand. Raises ValueError for a number that is too large for its field."""
    return command_from_request(_request(command))


def _request(command: Command) -> Request:
    if isinstance(command, Put):
        return pb.PutRequest(**command._asdict())
    if isinstance(command, Range):
        return pb.RangeRequest(**command._asdict())
    if isinstance(command, DeleteRange):
        return pb.DeleteRangeRequest(**command._asdict())
    if isinstance(command, Txn):
        return pb.TxnRequest(
            compare=map(_compare_to_pb, command.compare),
            success=map(_operation_to_pb, command.success),
            failure=map(_operation_to_pb, command.failure),
        )
    if isinstance(command, LeaseGrant):
        return pb.LeaseGrantRequest(TTL=command.ttl_s, ID=command.id)
    if isinstance(command, LeaseRevoke):
        return pb.LeaseRevokeRequest(ID=command.id)
    if isinstance(command, LeaseKeepAlive):
        return pb.LeaseKeepAliveRequest(ID=command.id)
    if isinstance(command, SetQuota):
        return pb.SetQuotaRequest(quota_bytes=command.quota_bytes)
    return pb.CompactionRequest(revision=command.revision, physical=command.physical)


def _compare_to_pb(compare: Compare) -> pb.Compare:
    operand: dict[str, Any] = {_OPERAND_FIELDS[compare.target]: compare.operand}
    return pb.Compare(
        key=compare.key,
        target=pb.Compare.CompareTarget.ValueType(compare.target),
        result=pb.Compare.CompareResult.ValueType(compare.result),
        range_end=compare.range_end,
        **operand,
    )


def _operation_to_pb(operation: Operation) -> pb.RequestOp:
    if operation is None:
        return pb.RequestOp()
    request = _request(operation)
    if isinstance(request, pb.PutRequest):
        return pb.RequestOp(request_put=request)
    if isinstance(request, pb.RangeRequest):
        return pb.RequestOp(request_range=request)
    if isinstance(request, pb.DeleteRangeRequest):
        return pb.RequestOp(request_delete_range=request)
    if isinstance(request, pb.TxnRequest):
        return pb.RequestOp(request_txn=request)
    raise ValueError("a compaction cannot stand in a transaction")


# ---- results -------------------------------------------------------------------------------------------------


def encode_result(result: Result) -> bytes:
    """The bytes of a KvResult."""
    message = pb.KvResult()
    if isinstance(result, PutResult):
        _fill_put(message.put, result)
    elif isinstance(result, RangeResult):
        _fill_range(message.range, result)
    elif isinstance(result, DeleteRangeResult):
        _fill_delete_range(message.delete_range, result)
    elif isinstance(result, TxnResult):
        _fill_txn(message.txn, result)
    elif isinstance(result, CompactResult):
        message.compact.header.revision = result.revision
    elif isinstance(result, LeaseKeepAliveResult):
        _fill_lease(message.lease_keep_alive, result)
    elif isinstance(result, LeaseGrantResult):
        _fill_lease(message.lease_grant, result)
    elif isinstance(result, LeaseRevokeResult):
        message.lease_revoke.header.revision = result.revision
    elif isinstance(result, SetQuotaResult):
        _fill_quota(message.set_quota, result)
    else:
        message.error.code, message.error.message = result
    return message.SerializeToString()


def result_to_pb(result: Result | bytes) -> Response | KvError:
    """etcd's response message of a result, with the revision in its header; an error as it is.

    Bytes are taken for a serialized KvResult: that is what a result has become that was kept through a snapshot.
    """
    if isinstance(result, bytes):
        return response_from_bytes(result)
    if isinstance(result, PutResult):
        return _fill_put(pb.PutResponse(), result)
    if isinstance(result, RangeResult):
        return _fill_range(pb.RangeResponse(), result)
    if isinstance(result, DeleteRangeResult):
        return _fill_delete_range(pb.DeleteRangeResponse(), result)
    if isinstance(result, TxnResult):
        return _fill_txn(pb.TxnResponse(), result)
    if isinstance(result, CompactResult):
        return pb.CompactionResponse(header=pb.ResponseHeader(revision=result.revision))
    if isinstance(result, LeaseKeepAliveResult):
        return _fill_lease(pb.LeaseKeepAliveResponse(), result)
    if isinstance(result, LeaseGrantResult):
        return _fill_lease(pb.LeaseGrantResponse(), result)
    if isinstance(result, LeaseRevokeResult):
        return pb.LeaseRevokeResponse(header=pb.ResponseHeader(revision=result.revision))
    if isinstance(result, SetQuotaResult):
        return _fill_quota(pb.SetQuotaResponse(), result)
    return result


def response_from_bytes(data: bytes) -> Response | KvError:
    """etcd's response message in a serialized KvResult, or the error in it. Raises ValueError for anything else."""
    try:
        message = pb.KvResult.FromString(data)
    except DecodeError as error:
        raise ValueError(f"{len(data)} bytes are no KvResult: {error}") from error
    kind = message.WhichOneof("response")
    if kind is None:
        raise ValueError("a KvResult holds no response that this version knows")
    if kind == "error":
        return KvError(message.error.code, message.error.message)
    response: Response = getattr(message, kind)
    return response


def _fill_kv(message: pb.KeyValue, kv: KeyValue) -> None:
    # One by one and with nothing said of a lease that is not there: this is the inner loop of a range.
    message.key, message.create_revision, message.mod_revision, message.version, message.value, lease = kv
    if lease:
        message.lease = lease


def _fill_put(message: pb.PutResponse, result: PutResult) -> pb.PutResponse:
    message.header.revision = result.revision
    if result.prev_kv is not None:
        _fill_kv(message.prev_kv, result.prev_kv)
    return message


def _fill_range(message: pb.RangeResponse, result: RangeResult) -> pb.RangeResponse:
    message.header.revision = result.revision
    add = message.kvs.add
    for kv in result.kvs:
        _fill_kv(add(), kv)
    message.count = result.count
    if result.more:
        message.more = True
    return message


def _fill_delete_range(message: pb.DeleteRangeResponse, result: DeleteRangeResult) -> pb.DeleteRangeResponse:
    message.header.revision = result.revision
    message.deleted = result.deleted
    for kv in result.prev_kvs:
        _fill_kv(message.prev_kvs.add(), kv)
    return message


LeaseMessage = TypeVar("LeaseMessage", pb.LeaseGrantResponse, pb.LeaseKeepAliveResponse)


def _fill_lease(message: LeaseMessage, result: LeaseGrantResult | LeaseKeepAliveResult) -> LeaseMessage:
    message.header.revision, message.ID, message.TTL = result
    return message


def _fill_quota(message: pb.SetQuotaResponse, result: SetQuotaResult) -> pb.SetQuotaResponse:
    message.header.revision, message.state_bytes = result
    return message


def _fill_txn(message: pb.TxnResponse, result: TxnResult) -> pb.TxnResponse:
    message.header.revision = result.revision
    message.succeeded = result.succeeded
    for response in result.responses:
        _fill_operation(message.responses.add(), response)
    return message


def _fill_operation(message: pb.ResponseOp, result: OperationResult) -> None:
    if isinstance(result, PutResult):
        _fill_put(message.response_put, result)
    elif isinstance(result, RangeResult):
        _fill_range(message.response_range, result)
    elif isinstance(result, DeleteRangeResult):
        _fill_delete_range(message.response_delete_range, result)
    else:
        inner = _fill_txn(message.response_txn, result)
        # etcd's: a header is there, and says nothing.
        inner.header.Clear()
        inner.header.SetInParent()


class KvCodec:
    """The CommandCodec that a KeyValueMachine is given."""

    # The functions themselves, without a call in between: `decode` runs once a command.
    decode = staticmethod(decode_command)
    encode_result = staticmethod(encode_result)
