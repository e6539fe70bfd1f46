"""``-w table``: columns, for the eye.

etcd's command has tables for members and endpoints only, and these have its columns (endpoint.py makes those of
endpoints); the rest are ours. Keys and values are shown as text with what cannot be printed escaped, and cut where
they are long: no script should read this.
"""

from collections.abc import Iterable

from google.protobuf.message import Message

from paxos_rsm._proto import cluster_pb2, lease_pb2, maintenance_pb2, watch_pb2
from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm.cli.answers import Style, simple, write_lines
from paxos_rsm.cli.output import print_table, text_of

__all__ = ["kv_table", "print_answer"]

MEMBER_COLUMNS = ("id", "status", "name", "peer addrs", "client addrs", "is learner")
REVISIONS = ("create revision", "mod revision", "version")


def print_answer(answer: Message, style: Style) -> None:
    """A table; a few words where a response has no rows."""
    match answer:
        case pb.RangeResponse() if not style.count_only:
            kv_table(answer.kvs, style)
        case pb.PutResponse() if answer.HasField("prev_kv"):
            write_lines([b"OK"])
            kv_table([answer.prev_kv], style)
        case pb.DeleteRangeResponse() if answer.prev_kvs:
            write_lines([b"%d" % answer.deleted])
            kv_table(answer.prev_kvs, style)
        case pb.TxnResponse():
            write_lines([b"SUCCESS" if answer.succeeded else b"FAILURE"])
            for response in answer.responses:
                kind = response.WhichOneof("response")
                if kind:
                    print_answer(getattr(response, kind), style)
        case watch_pb2.WatchResponse() if answer.events:
            _events(answer.events)
        case (
            cluster_pb2.MemberListResponse()
            | cluster_pb2.MemberAddResponse()
            | cluster_pb2.MemberRemoveResponse()
            | cluster_pb2.MemberUpdateResponse()
            | cluster_pb2.MemberPromoteResponse()
        ):
            print_table(MEMBER_COLUMNS, [simple.member_cells(member) for member in answer.members])
        case maintenance_pb2.AlarmResponse():
            rows = [(f"{a.memberID:x}", maintenance_pb2.AlarmType.Name(a.alarm)) for a in answer.alarms]
            print_table(("member id", "alarm"), rows)
        case lease_pb2.LeaseLeasesResponse():
            print_table(("lease",), [(f"{lease.ID:016x}",) for lease in answer.leases])
        case lease_pb2.LeaseTimeToLiveResponse():
            keys = ", ".join(map(text_of, answer.keys))
            row = (f"{answer.ID:016x}", str(answer.grantedTTL), str(answer.TTL), keys)
            columns = ("lease", "granted (s)", "remaining (s)", "keys")
            shown = len(columns) if style.with_keys else len(columns) - 1
            print_table(columns[:shown], [row[:shown]], right=columns[1:3])
        case pb.LeaseGrantResponse() | pb.LeaseKeepAliveResponse():
            print_table(("lease", "ttl (s)"), [(f"{answer.ID:016x}", str(answer.TTL))], right=("ttl (s)",))
        case _:
            write_lines(simple.lines(answer, style))


def kv_table(kvs: Iterable[pb.KeyValue], style: Style) -> None:
    """A row for each key; a column for the lease where one of them has one."""
    kvs = list(kvs)
    with_lease = any(kv.lease for kv in kvs)
    columns = ["key", *["value"] * style.with_value, *REVISIONS, *["lease"] * with_lease]
    rows = [
        [
            text_of(kv.key),
            *([text_of(kv.value)] if style.with_value else []),
            *map(str, (kv.create_revision, kv.mod_revision, kv.version)),
            *([f"{kv.lease:x}" if kv.lease else ""] if with_lease else []),
        ]
        for kv in kvs
    ]
    print_table(columns, rows, right=REVISIONS)


def _events(events: Iterable[watch_pb2.Event]) -> None:
    rows = []
    events = list(events)
    with_previous = any(event.HasField("prev_kv") for event in events)
    for event in events:
        kind = watch_pb2.Event.EventType.Name(event.type)
        before = [text_of(event.prev_kv.value)] if with_previous else []
        kv = event.kv
        rows.append(
            [kind, text_of(kv.key), text_of(kv.value), *before, str(kv.mod_revision), str(kv.version)]
        )
    columns = ("event", "key", "value", *["before"] * with_previous, "mod revision", "version")
    print_table(columns, rows, right=("mod revision", "version"))
