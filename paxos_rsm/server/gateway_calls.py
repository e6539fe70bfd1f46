"""Between JSON and the methods of the services: what the HTTP gateway does that has nothing to do with HTTP.

*Translation* is protobuf's own JSON mapping, held to what etcd's gateway does: fields under their original names, those
with default values left out, unknown ones ignored. Two things are stricter than protobuf's, as in etcd: bytes must be
base64 indeed, so that who forgets to encode a key is told so instead of using another one; and so are the names of
enumerations.

*Calls.* A method takes a :class:`CallContext` in place of gRPC's: it has what the services use, and keeps where
responses go to its owner.
"""

import asyncio
import binascii
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from paxos_rsm._proto import (
    cluster_pb2,
    election_pb2,
    kv_pb2,
    lease_pb2,
    lock_pb2,
    maintenance_pb2,
    watch_pb2,
)
from paxos_rsm.server.rpc import StatusError

__all__ = [
    "HTTP_STATUS",
    "ROUTES",
    "Aborted",
    "CallContext",
    "Method",
    "find_methods",
    "from_json",
    "json_objects",
    "timeout_s",
    "to_json",
]

_KV, _WATCH, _LEASE = "paxos_rsm.v1.KV", "paxos_rsm.v1.Watch", "paxos_rsm.v1.Lease"
_CLUSTER, _MAINTENANCE = "paxos_rsm.v1.Cluster", "paxos_rsm.v1.Maintenance"
_LOCK, _ELECTION = "paxos_rsm.v1.Lock", "paxos_rsm.v1.Election"

ROUTES: dict[str, tuple[str, str]] = {
    "kv/range": (_KV, "Range"),
    "kv/put": (_KV, "Put"),
    "kv/deleterange": (_KV, "DeleteRange"),
    "kv/txn": (_KV, "Txn"),
    "kv/compaction": (_KV, "Compact"),
    "watch": (_WATCH, "Watch"),
    "lease/grant": (_LEASE, "LeaseGrant"),
    "lease/keepalive": (_LEASE, "LeaseKeepAlive"),
    "lease/revoke": (_LEASE, "LeaseRevoke"),
    "lease/timetolive": (_LEASE, "LeaseTimeToLive"),
    "lease/leases": (_LEASE, "LeaseLeases"),
    # Where etcd had these three first.
    "kv/lease/revoke": (_LEASE, "LeaseRevoke"),
    "kv/lease/timetolive": (_LEASE, "LeaseTimeToLive"),
    "kv/lease/leases": (_LEASE, "LeaseLeases"),
    "cluster/member/add": (_CLUSTER, "MemberAdd"),
    "cluster/member/remove": (_CLUSTER, "MemberRemove"),
    "cluster/member/update": (_CLUSTER, "MemberUpdate"),
    "cluster/member/promote": (_CLUSTER, "MemberPromote"),
    "cluster/member/list": (_CLUSTER, "MemberList"),
    "maintenance/alarm": (_MAINTENANCE, "Alarm"),
    "maintenance/status": (_MAINTENANCE, "Status"),
    "maintenance/defragment": (_MAINTENANCE, "Defragment"),
    "maintenance/hash": (_MAINTENANCE, "Hash"),
    "maintenance/hashkv": (_MAINTENANCE, "HashKV"),  # ours: etcd 3.4 has no path for it
    "maintenance/snapshot": (_MAINTENANCE, "Snapshot"),
    "maintenance/transfer-leadership": (_MAINTENANCE, "MoveLeader"),
    "lock/lock": (_LOCK, "Lock"),
    "lock/unlock": (_LOCK, "Unlock"),
    "election/campaign": (_ELECTION, "Campaign"),
    "election/proclaim": (_ELECTION, "Proclaim"),
    "election/leader": (_ELECTION, "Leader"),
    "election/observe": (_ELECTION, "Observe"),
    "election/resign": (_ELECTION, "Resign"),
}
"""Path below ``/v3/`` -> service and method."""

HTTP_STATUS: dict[grpc.StatusCode, int] = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 408,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 412,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
}
"""As etcd's gateway has it."""

# Every message of ROUTES is in one of these, and in the pool once they are imported.
PROTOS = (cluster_pb2, election_pb2, kv_pb2, lease_pb2, lock_pb2, maintenance_pb2, watch_pb2)

DECODER = json.JSONDecoder()
SPACE = re.compile(r"[ \t\r\n]*")
"""As JSON has it (RFC 8259, section 2): less than what Python takes for white space."""

THREAD_BYTES = 64 * 1024
"""JSON of more than that is made and read in a thread: it may take longer than the loop should stand still."""

TIMEOUT_UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
TIMEOUT_DIGITS_MAX = 8


# ---- methods -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Method:
    """One method, as the gRPC server has it."""

    request_type: type[Message]
    response_type: type[Message]
    behaviour: Callable[[Any, Any], Awaitable[Any]]
    takes_stream: bool
    """Requests come by the context's ``read``."""
    gives_stream: bool
    """Responses go by the context's ``write``."""


@dataclass(frozen=True, slots=True)
class _CallDetails(grpc.HandlerCallDetails):
    method: str
    invocation_metadata: tuple[tuple[str, str], ...] = ()


def find_methods(handlers: Iterable[grpc.GenericRpcHandler]) -> dict[str, Method]:
    """The methods that ``handlers`` have, by their paths below ``/v3/``."""
    handlers = list(handlers)
    found: dict[str, Method] = {}
    for path, (service, name) in ROUTES.items():
        descriptor = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
        for each in handlers:
            handler: Any = each.service(_CallDetails(f"/{service}/{name}"))
            if handler is not None:
                kind = f"{_word(handler.request_streaming)}_{_word(handler.response_streaming)}"
                found[path] = Method(
                    message_factory.GetMessageClass(descriptor.input_type),
                    message_factory.GetMessageClass(descriptor.output_type),
                    getattr(handler, kind),
                    handler.request_streaming,
                    handler.response_streaming,
                )
                break
    return found


def _word(streaming: bool) -> str:
    return "stream" if streaming else "unary"


class Aborted(grpc.aio.AbortError):
    """A call has ended with this status; what gRPC's own context raises, so that the services let it pass."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class CallContext:
    """What a method sees of its caller, in place of gRPC's context."""

    def __init__(
        self,
        *,
        timeout_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
        read: Callable[[], Awaitable[Any]] | None = None,
        write: Callable[[bytes], Awaitable[None]] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._ends_at = None if timeout_s is None else self._loop.time() + timeout_s
        self._metadata = tuple((name.lower(), value) for name, value in (metadata or {}).items())
        self._read = read
        self._write = write

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None where it has none."""
        return None if self._ends_at is None else max(0.0, self._ends_at - self._loop.time())

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """The metadata of the call."""
        return self._metadata

    async def read(self) -> Any:
        """The next request of a stream; ``grpc.aio.EOF`` after the last."""
        return grpc.aio.EOF if self._read is None else await self._read()

    async def write(self, message: bytes) -> None:
        """Sends a response of a stream."""
        if self._write is None:
            raise Aborted(grpc.StatusCode.INTERNAL, "a method that answers once has written to a stream")
        await self._write(message)

    async def abort(self, code: grpc.StatusCode, details: str = "") -> None:
        """Ends the call. Raises Aborted."""
        raise Aborted(code, details)


def timeout_s(header: str) -> float:
    """Seconds of a ``Grpc-Timeout`` header, such as ``5S`` or ``100m``. Raises StatusError."""
    digits, unit = header[:-1], header[-1:]
    if unit not in TIMEOUT_UNITS_S or not (digits.isascii() and digits.isdigit()):
        raise _invalid(f"invalid Grpc-Timeout {header[:40]!r}: a number and one of H, M, S, m, u, n")
    if len(digits) > TIMEOUT_DIGITS_MAX:
        raise _invalid(f"invalid Grpc-Timeout: more than {TIMEOUT_DIGITS_MAX} digits")
    return int(digits) * TIMEOUT_UNITS_S[unit]


# ---- translation -------------------------------------------------------------------------------------------


async def to_json(message_type: type[Message], data: bytes) -> Any:
    """A serialized message as what JSON is made of."""
    if len(data) > THREAD_BYTES:
        return await asyncio.to_thread(_to_json, message_type, data)
    return _to_json(message_type, data)


def _to_json(message_type: type[Message], data: bytes) -> Any:
    return json_format.MessageToDict(message_type.FromString(data), preserving_proto_field_name=True)


async def from_json(message_type: type[Message], body: bytes) -> bytes:
    """A serialized message of JSON text; an empty one is an empty message. Raises StatusError (INVALID_ARGUMENT)."""
    if len(body) > THREAD_BYTES:
        return await asyncio.to_thread(_from_json, message_type, body)
    return _from_json(message_type, body)


def _from_json(message_type: type[Message], body: bytes) -> bytes:
    if not body.strip():
        return b""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _invalid(f"the request is not JSON: {_cause(error)}") from None
    return message_of(message_type, value)


def message_of(message_type: type[Message], value: Any) -> bytes:
    """A serialized message of what JSON is made of. Raises StatusError (INVALID_ARGUMENT)."""
    if not isinstance(value, dict):
        raise _invalid(f"the request is not a JSON object but {type(value).__name__}")
    try:
        _require_exact(value, message_type.DESCRIPTOR)
        message = message_type()
        json_format.ParseDict(value, message, ignore_unknown_fields=True)
        return message.SerializeToString()
    except (json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        name = message_type.DESCRIPTOR.name
        raise _invalid(f"the request is not a {name}: {_cause(error)}") from None


def _require_exact(value: Mapping[str, Any], descriptor: Any) -> None:
    """Raises ValueError where bytes are no base64, or an enumeration has no such name: protobuf would guess."""
    for name, inner in value.items():
        field = descriptor.fields_by_name.get(name) or descriptor.fields_by_camelcase_name.get(name)
        if field is None:
            continue
        for each in inner if isinstance(inner, list) else (inner,):
            if isinstance(each, dict):
                if field.message_type is not None:
                    _require_exact(each, field.message_type)
            elif isinstance(each, str):
                if field.type == FieldDescriptor.TYPE_BYTES:
                    _require_base64(name, each)
                elif field.enum_type is not None and each not in field.enum_type.values_by_name:
                    raise ValueError(f"{name} has no value {each[:40]!r}")


def _require_base64(name: str, value: str) -> None:
    try:
        binascii.a2b_base64(value, strict_mode=True)
    except ValueError as error:
        raise ValueError(f"{name} is not base64 ({error}): {value[:40]!r}") from None


async def json_objects(
    message_type: type[Message], chunks: AsyncIterator[bytes], bytes_max: int
) -> AsyncIterator[bytes]:
    """Serialized messages of a body with one JSON object after the other. Raises StatusError (INVALID_ARGUMENT).

    Objects may be cut over chunks anywhere; one may be ``bytes_max`` long.
    """
    waiting = b""
    async for chunk in chunks:
        waiting = (waiting + chunk).lstrip(b" \t\r\n")
        # An object can only have become whole where there is a brace that closes one.
        if b"}" in chunk:
            values, waiting = _whole_values(waiting)
            for value in values:
                yield message_of(message_type, value)
        if len(waiting) > bytes_max:
            raise _invalid(f"the request is not JSON, or an object of it is longer than {bytes_max} bytes")
    if waiting:
        yield _from_json(message_type, waiting)


def _whole_values(data: bytes) -> tuple[list[Any], bytes]:
    """What can be read of ``data``, and the rest, which is cut or no JSON at all: what follows will tell."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        text = data[: error.start].decode()
    values: list[Any] = []
    at = 0
    try:
        while at < len(text):
            value, at = DECODER.raw_decode(text, at)
            values.append(value)
            space = SPACE.match(text, at)
            at = space.end() if space else at
    except RecursionError:
        if not values:  # What stands before it is done first, however the body is cut.
            raise _invalid("the request is not JSON: it is nested too deep") from None
    except ValueError:
        pass
    return values, data[len(text[:at].encode()) :]


def _cause(error: Exception) -> str:
    text = " ".join(str(error).split())
    return "it is nested too deep" if isinstance(error, RecursionError) else text[:200]


def _invalid(words: str) -> StatusError:
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, words)
