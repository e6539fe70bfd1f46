"""Responses as a real server sent them, of which the tests hold what etcd's own command printed."""

from paxos_rsm._proto import cluster_pb2, lease_pb2, watch_pb2
from paxos_rsm._proto import kv_pb2 as pb

LEASE = 2324035562372581424


def header(revision: int = 14) -> pb.ResponseHeader:
    return pb.ResponseHeader(
        cluster_id=324952591200643719, member_id=3319814642761637952, revision=revision, raft_term=2
    )


A = pb.KeyValue(key=b"a", create_revision=6, mod_revision=13, version=3, value=b"2")
B = pb.KeyValue(key=b"b", create_revision=14, mod_revision=14, version=1, value=b'x"\n' + b"\xff\x01\xc3\xa9")

RANGE = pb.RangeResponse(header=header(), kvs=[A, B], count=2)
LIMITED = pb.RangeResponse(header=header(), kvs=[A], count=3, more=True)
KEYS = pb.RangeResponse(header=header(), kvs=[pb.KeyValue(key=b"a", mod_revision=13)], count=1)
NOTHING = pb.RangeResponse(header=header())
PUT = pb.PutResponse(header=header(13))
PUT_PREV = pb.PutResponse(header=header(13), prev_kv=A)
DELETED = pb.DeleteRangeResponse(header=header(15), deleted=1, prev_kvs=[A])
NOT_DELETED = pb.DeleteRangeResponse(header=header(15))

_INNER = pb.ResponseHeader(revision=16)
TXN = pb.TxnResponse(
    header=header(16),
    responses=[
        pb.ResponseOp(response_put=pb.PutResponse(header=_INNER)),
        pb.ResponseOp(response_range=pb.RangeResponse(header=_INNER, kvs=[A], count=1)),
        pb.ResponseOp(response_delete_range=pb.DeleteRangeResponse(header=_INNER, deleted=1, prev_kvs=[B])),
    ],
)

WATCHED = watch_pb2.WatchResponse(
    header=header(21),
    events=[
        watch_pb2.Event(kv=A),
        watch_pb2.Event(type=watch_pb2.Event.DELETE, kv=pb.KeyValue(key=b"a", mod_revision=21), prev_kv=A),
    ],
)
PROGRESS = watch_pb2.WatchResponse(header=header(42))

GRANTED = pb.LeaseGrantResponse(header=header(17), ID=LEASE, TTL=100)
REVOKED = pb.LeaseRevokeResponse(header=header(17))
KEPT_ALIVE = pb.LeaseKeepAliveResponse(header=header(18), ID=LEASE, TTL=100)
LEFT = lease_pb2.LeaseTimeToLiveResponse(header=header(18), ID=LEASE, TTL=99, grantedTTL=100, keys=[b"la"])
GONE = lease_pb2.LeaseTimeToLiveResponse(header=header(19), ID=LEASE, TTL=-1)
LEASES = lease_pb2.LeaseLeasesResponse(header=header(17), leases=[lease_pb2.LeaseStatus(ID=LEASE)])

MEMBERS = cluster_pb2.MemberListResponse(
    header=header(0),
    members=[
        cluster_pb2.ClusterMember(
            ID=3319814642761637952,
            name="e1",
            peerURLs=["http://127.0.0.1:23800"],
            clientURLs=["http://127.0.0.1:23790"],
        )
    ],
)
