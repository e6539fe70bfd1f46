"""``-w json``: the response in JSON, as etcd's command has it.

Its members have the names and the order of the wire; what is zero or empty is left out; bytes are in base64. Scripts
written for etcd's command go on working. Base64 is hard on everybody else, so a key or a value that is text stands
beside it as such: ``"key": "Zm9v", "key_text": "foo"``. Leases, watches and the sections of a transaction come out of
etcd's command in shapes of their own, which are kept too.
"""

import base64
import json
from typing import Any

from google.protobuf.message import Message

from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm._proto import lease_pb2, watch_pb2

__all__ = ["as_json", "line"]

TEXT_BESIDE = frozenset({"key", "value"})
"""Members of bytes that are also shown as text."""


def line(answer: Message, **more: object) -> bytes:
    """One JSON document; ``more`` becomes further members."""
    return json.dumps({**as_json(answer), **more}, ensure_ascii=False, separators=(",", ":")).encode()


def as_json(answer: Message) -> dict[str, Any]:
    """What :func:`line` prints of a response."""
    header = plain(answer.header) if hasattr(answer, "header") else {}
    match answer:
        case pb.LeaseGrantResponse():
            return {**header, "ID": answer.ID, "TTL": answer.TTL, "Error": answer.error}
        case pb.LeaseKeepAliveResponse():
            return {**header, "ID": answer.ID, "TTL": answer.TTL}
        case lease_pb2.LeaseTimeToLiveResponse():
            keys = [_base64(key) for key in answer.keys] or None
            return {
                **header,
                "id": answer.ID,
                "ttl": answer.TTL,
                "granted-ttl": answer.grantedTTL,
                "keys": keys,
            }
        case lease_pb2.LeaseLeasesResponse():
            return {**header, "leases": [{"id": lease.ID} for lease in answer.leases]}
        case watch_pb2.WatchResponse():
            return {
                "Header": header,
                "Events": [plain(event) for event in answer.events],
                "CompactRevision": answer.compact_revision,
                "Canceled": answer.canceled,
                "Created": answer.created,
            }
        case _:
            return plain(answer)


def plain(message: Message) -> dict[str, Any]:
    """The members of any message, by the names of the wire."""
    shown: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            if value:
                shown[field.name] = [_member(each) for each in value]
        elif field.message_type is not None:
            if message.HasField(field.name):
                shown[field.name] = plain(value)
        elif value:
            shown[field.name] = _member(value)
            if field.name in TEXT_BESIDE and isinstance(value, bytes):
                shown.update(_text_beside(field.name, value))
    return shown


def _member(value: Any) -> Any:
    if isinstance(value, pb.ResponseOp):
        # Go names the choice twice: once as the member, and once as the type that stands in it.
        kind = value.WhichOneof("response")
        if kind is None:
            return {"Response": None}
        name = "".join(word.capitalize() for word in kind.split("_"))
        return {"Response": {name: plain(getattr(value, kind))}}
    if isinstance(value, Message):
        return plain(value)
    return _base64(value) if isinstance(value, bytes) else value


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _text_beside(name: str, data: bytes) -> dict[str, str]:
    try:
        return {f"{name}_text": data.decode("utf-8")}
    except UnicodeDecodeError:
        return {}
