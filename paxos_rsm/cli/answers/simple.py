"""``-w simple``: lines that people read and shell scripts cut apart.

A key and its value are a line each, as the bytes they are; a value with line breaks in it has more than one. That is
etcd's command's way, blank lines included: a key without a value (``--keys-only``, a deletion) is followed by one.
"""

from collections.abc import Iterator

from google.protobuf.message import Message

from paxos_rsm._proto import cluster_pb2, lease_pb2, maintenance_pb2, watch_pb2
from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm.cli.answers import Style

__all__ = ["kv_lines", "lines", "member_cells"]


def lines(answer: Message, style: Style) -> Iterator[bytes]:
    """The lines of any response. Raises TypeError for one that this module does not know."""
    match answer:
        case pb.RangeResponse():
            yield from _range(answer, style)
        case pb.PutResponse():
            yield b"OK"
            if answer.HasField("prev_kv"):
                yield from kv_lines(answer.prev_kv, style)
        case pb.DeleteRangeResponse():
            yield b"%d" % answer.deleted
            for kv in answer.prev_kvs:
                yield from kv_lines(kv, style)
        case pb.TxnResponse():
            yield from _txn(answer, style)
        case watch_pb2.WatchResponse():
            yield from _watch(answer, style)
        case cluster_pb2.MemberListResponse():
            for member in answer.members:
                yield ", ".join(member_cells(member)).encode()
        case maintenance_pb2.AlarmResponse():
            for alarm in answer.alarms:
                name = maintenance_pb2.AlarmType.Name(alarm.alarm)
                yield f"memberID:{alarm.memberID} alarm:{name} ".encode()
        case _:
            yield from _lease(answer, style)


def kv_lines(kv: pb.KeyValue, style: Style) -> Iterator[bytes]:
    """A line for the key and a line for its value."""
    if not style.value_only:
        yield _in_hex(kv.key) if style.hex else kv.key
    yield _in_hex(kv.value) if style.hex else kv.value


def _in_hex(data: bytes) -> bytes:
    return b"".join(b"\\x%02x" % byte for byte in data)


def _range(answer: pb.RangeResponse, style: Style) -> Iterator[bytes]:
    if style.count_only:
        yield b"%d" % answer.count
    for kv in answer.kvs:
        yield from kv_lines(kv, style)


def _txn(answer: pb.TxnResponse, style: Style) -> Iterator[bytes]:
    yield b"SUCCESS" if answer.succeeded else b"FAILURE"
    for response in answer.responses:
        kind = response.WhichOneof("response")
        if kind:
            yield b""
            yield from lines(getattr(response, kind), style)


def _watch(answer: watch_pb2.WatchResponse, style: Style) -> Iterator[bytes]:
    if not answer.events and not answer.created and not answer.canceled:
        yield b"progress notify: %d" % answer.header.revision
    for event in answer.events:
        yield watch_pb2.Event.EventType.Name(event.type).encode()
        if event.HasField("prev_kv"):
            yield from kv_lines(event.prev_kv, style)
        yield from kv_lines(event.kv, style)


def _lease(answer: Message, style: Style) -> Iterator[bytes]:
    match answer:
        case pb.LeaseGrantResponse():
            yield b"lease %016x granted with TTL(%ds)" % (answer.ID, answer.TTL)
        case pb.LeaseKeepAliveResponse():
            yield b"lease %016x keepalived with TTL(%d)" % (answer.ID, answer.TTL)
        case lease_pb2.LeaseTimeToLiveResponse():
            if answer.TTL == -1 and answer.grantedTTL == 0:
                yield b"lease %016x already expired" % answer.ID
                return
            text = b"lease %016x granted with TTL(%ds), remaining(%ds)"
            text %= (answer.ID, answer.grantedTTL, answer.TTL)
            yield text + (b", attached keys([%s])" % b" ".join(answer.keys) if style.with_keys else b"")
        case lease_pb2.LeaseLeasesResponse():
            yield b"found %d leases" % len(answer.leases)
            for lease in answer.leases:
                yield b"%016x" % lease.ID
        case _:
            raise TypeError(f"{type(answer).__name__} has no simple form")


def member_cells(member: cluster_pb2.ClusterMember) -> list[str]:
    """Of one member: id, whether it was ever started, name, addresses, whether it is a learner."""
    return [
        f"{member.ID:x}",
        "started" if member.name else "unstarted",
        member.name,
        ",".join(member.peerURLs),
        ",".join(member.clientURLs),
        str(member.isLearner).lower(),
    ]
