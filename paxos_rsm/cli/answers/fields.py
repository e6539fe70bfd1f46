"""``-w fields``: every field on a line of its own, ``"Name" : value``.

For scripts without a JSON parser: ``sed -n 's/"Revision" : //p'``. Names are those of etcd's command, keys and
values are strings in Go's double quotes (see go_strings), and a record of several lines ends where the next begins.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.message import Message

from paxos_rsm._proto import cluster_pb2, lease_pb2, maintenance_pb2, watch_pb2
from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm.cli.go_strings import quote

__all__ = ["header_lines", "lines", "mapping_lines", "status_lines"]


def lines(answer: Message, **more: object) -> Iterator[bytes]:
    """The lines of any response, then those of ``more``. Raises TypeError for one that this module does not know."""
    yield from header_lines(answer)
    match answer:
        case pb.RangeResponse():
            for kv in answer.kvs:
                yield from _kv("", kv)
            yield _line("More", answer.more)
            yield _line("Count", answer.count)
        case pb.PutResponse():
            if answer.HasField("prev_kv"):
                yield from _kv("Prev", answer.prev_kv)
        case pb.DeleteRangeResponse():
            yield _line("Deleted", answer.deleted)
            for kv in answer.prev_kvs:
                yield from _kv("Prev", kv)
        case pb.TxnResponse():
            yield _line("Succeeded", answer.succeeded)
            for response in answer.responses:
                kind = response.WhichOneof("response")
                if kind:
                    yield from lines(getattr(response, kind))
        case watch_pb2.WatchResponse():
            for event in answer.events:
                yield b'"Type" : ' + watch_pb2.Event.EventType.Name(event.type).encode()
                if event.HasField("prev_kv"):
                    yield from _kv("Prev", event.prev_kv)
                yield from _kv("", event.kv)
        case _:
            yield from _others(answer)
    yield from mapping_lines(more)


def _others(answer: Message) -> Iterator[bytes]:
    match answer:
        case pb.LeaseGrantResponse() | pb.LeaseKeepAliveResponse():
            yield _line("ID", answer.ID)
            yield _line("TTL", answer.TTL)
        case lease_pb2.LeaseTimeToLiveResponse():
            yield _line("ID", answer.ID)
            yield _line("TTL", answer.TTL)
            yield _line("GrantedTTL", answer.grantedTTL)
            for key in answer.keys:
                yield _line("Key", key)
        case lease_pb2.LeaseLeasesResponse():
            for lease in answer.leases:
                yield _line("ID", lease.ID)
        case (
            cluster_pb2.MemberListResponse()
            | cluster_pb2.MemberRemoveResponse()
            | cluster_pb2.MemberUpdateResponse()
            | cluster_pb2.MemberPromoteResponse()
        ):
            for member in answer.members:
                yield from _member(member)
        case cluster_pb2.MemberAddResponse():
            yield from _member(answer.member)
        case maintenance_pb2.AlarmResponse():
            for alarm in answer.alarms:
                yield _line("MemberID", alarm.memberID)
                yield b'"AlarmType" : ' + maintenance_pb2.AlarmType.Name(alarm.alarm).encode()
        case (
            pb.LeaseRevokeResponse()
            | pb.CompactionResponse()
            | maintenance_pb2.DefragmentResponse()
            | maintenance_pb2.MoveLeaderResponse()
        ):
            pass  # it has a header, and no more
        case _:
            raise TypeError(f"{type(answer).__name__} has no form as fields")


def header_lines(answer: Message) -> Iterator[bytes]:
    """Who answered, and at which revision."""
    header: pb.ResponseHeader = answer.header  # type: ignore[attr-defined]
    yield _line("ClusterID", header.cluster_id)
    yield _line("MemberID", header.member_id)
    yield _line("Revision", header.revision)
    yield _line("RaftTerm", header.raft_term)


def mapping_lines(mapping: Mapping[str, Any]) -> Iterator[bytes]:
    """What has no response behind it: ``succeeded`` becomes ``"Succeeded"``, ``p50_ms`` ``"P50Ms"``."""
    for name, value in mapping.items():
        words = name.replace("-", "_").split("_")
        yield _line("".join(word[:1].upper() + word[1:] for word in words), value)


def status_lines(status: maintenance_pb2.EndpointStatusResponse, endpoint: str) -> Iterator[bytes]:
    """What one endpoint says of itself."""
    yield from header_lines(status)
    yield _line("Version", status.version)
    yield _line("DBSize", status.dbSize)
    yield _line("Leader", status.leader)
    yield _line("IsLearner", status.isLearner)
    yield _line("RaftIndex", status.raftIndex)
    yield _line("RaftTerm", status.raftTerm)
    yield _line("RaftAppliedIndex", status.raftAppliedIndex)
    yield f'"Errors" : [{" ".join(status.errors)}]'.encode()
    yield _line("Endpoint", endpoint)
    yield b""


def _line(name: str, value: Any) -> bytes:
    if isinstance(value, bool):
        shown = str(value).lower()
    elif isinstance(value, bytes):
        shown = quote(value)
    elif isinstance(value, str):
        shown = quote(value.encode("utf-8", "surrogateescape"))
    elif isinstance(value, list | tuple):
        shown = f"[{' '.join(map(str, value))}]"
    else:
        shown = "" if value is None else str(value)
    return f'"{name}" : {shown}'.encode()


def _kv(prefix: str, kv: pb.KeyValue) -> Iterator[bytes]:
    yield _line(f"{prefix}Key", kv.key)
    yield _line(f"{prefix}CreateRevision", kv.create_revision)
    yield _line(f"{prefix}ModRevision", kv.mod_revision)
    yield _line(f"{prefix}Version", kv.version)
    yield _line(f"{prefix}Value", kv.value)
    yield _line(f"{prefix}Lease", kv.lease)


def _member(member: cluster_pb2.ClusterMember) -> Iterator[bytes]:
    yield _line("ID", member.ID)
    yield _line("Name", member.name)
    for url in member.peerURLs:
        yield _line("PeerURL", url)
    for url in member.clientURLs:
        yield _line("ClientURL", url)
    yield _line("IsLearner", member.isLearner)
    yield b""
