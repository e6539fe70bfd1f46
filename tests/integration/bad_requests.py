"""Requests that no client should send to the services that speak etcd's language, and what each is told.

Tables for ``test_bad_requests_etcd.py``: every row is refused, and changes nothing. They count on a store whose key
``k`` was written five times, which is compacted at 4, and which has one lease, LEASE.
"""

import base64
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import Message

from paxos_rsm._proto import cluster_pb2, election_pb2, kv_pb2, lock_pb2, maintenance_pb2, watch_pb2
from tests.integration.raw import Calls, code_of, details_of

__all__ = [
    "INT64_MAX",
    "INT64_MIN",
    "LEASE",
    "POSTED",
    "REFUSED",
    "UNKNOWN_FIELDS",
    "Code",
    "Posted",
    "Refused",
    "Watching",
    "nobody",
]

REQUEST_BYTES_MAX = 1_572_864

Code = grpc.StatusCode
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
LEASE = 0x77
UNKNOWN_FIELDS = b"\xf8\x3e\x01\xfa\x3e\x03abc\xfd\x3e\1\2\3\4"
"""1007 as a number, as bytes and as 32 bits."""

EMPTY_KEY = "etcdserver: key is not provided"
KEY_NOT_FOUND = "etcdserver: key not found"
LEASE_NOT_FOUND = "etcdserver: requested lease not found"
TOO_LARGE = "etcdserver: request is too large"
COMPACTED = "etcdserver: mvcc: required revision has been compacted"
BAD_URLS = "etcdserver: given member URLs are invalid"
ONE_URL = (
    "paxos_rsm: a member has one peer URL, and 2 were given; give the one that all others can reach, and "
    "--peer-dial-urls to a server that is to take another way"
)
NO_MEMBER = "etcdserver: member not found"
FUTURE = "etcdserver: mvcc: required revision is a future revision"


class Refused(NamedTuple):
    method: str
    request: Message
    code: Code
    words: str


def compare(**fields: Any) -> kv_pb2.TxnRequest:
    return kv_pb2.TxnRequest(compare=[kv_pb2.Compare(key=b"k", **fields)])


def inner(**operation: Any) -> kv_pb2.TxnRequest:
    return kv_pb2.TxnRequest(success=[kv_pb2.RequestOp(**operation)])


def nobody(**fields: Any) -> election_pb2.LeaderKey:
    return election_pb2.LeaderKey(name=b"e", key=b"e/1", rev=3, **fields)


LARGE = b"x" * REQUEST_BYTES_MAX
NO_SUCH_COMPARE = "paxos_rsm: a compare has a target or a result that is unknown"
NO_LEADER_FIELD = '"leader" field must be provided'

REFUSED = [
    # KV, beyond what test_bad_requests.py has.
    Refused("KV/Range", kv_pb2.RangeRequest(range_end=b"z"), Code.INVALID_ARGUMENT, EMPTY_KEY),
    Refused(
        "KV/Range",
        kv_pb2.RangeRequest(key=b"k", sort_order=9),  # type: ignore[arg-type]
        Code.INVALID_ARGUMENT,
        "etcdserver: invalid sort option",
    ),
    Refused(
        "KV/Range",
        kv_pb2.RangeRequest(key=b"k", sort_target=-1),  # type: ignore[arg-type]
        Code.INVALID_ARGUMENT,
        "etcdserver: invalid sort option",
    ),
    Refused("KV/Range", kv_pb2.RangeRequest(key=b"k", revision=1), Code.OUT_OF_RANGE, COMPACTED),
    Refused("KV/Range", kv_pb2.RangeRequest(key=b"k", revision=INT64_MAX), Code.OUT_OF_RANGE, FUTURE),
    Refused("KV/Put", kv_pb2.PutRequest(key=b"k", lease=-1), Code.NOT_FOUND, LEASE_NOT_FOUND),
    Refused("KV/Put", kv_pb2.PutRequest(key=b"k", lease=INT64_MIN), Code.NOT_FOUND, LEASE_NOT_FOUND),
    Refused(
        "KV/Put",
        kv_pb2.PutRequest(key=b"k", value=b"v", ignore_value=True),
        Code.INVALID_ARGUMENT,
        "etcdserver: value is provided",
    ),
    Refused(
        "KV/Put",
        kv_pb2.PutRequest(key=b"k", lease=LEASE, ignore_lease=True),
        Code.INVALID_ARGUMENT,
        "etcdserver: lease is provided",
    ),
    Refused(
        "KV/Put", kv_pb2.PutRequest(key=b"none", ignore_value=True), Code.INVALID_ARGUMENT, KEY_NOT_FOUND
    ),
    Refused("KV/Put", kv_pb2.PutRequest(key=LARGE), Code.INVALID_ARGUMENT, TOO_LARGE),
    Refused("KV/Range", kv_pb2.RangeRequest(key=LARGE), Code.INVALID_ARGUMENT, TOO_LARGE),
    Refused("KV/Txn", compare(result=9), Code.INVALID_ARGUMENT, NO_SUCH_COMPARE),
    Refused("KV/Txn", compare(target=-1), Code.INVALID_ARGUMENT, NO_SUCH_COMPARE),
    Refused("KV/Txn", kv_pb2.TxnRequest(compare=[kv_pb2.Compare()]), Code.INVALID_ARGUMENT, EMPTY_KEY),
    Refused("KV/Txn", inner(), Code.INVALID_ARGUMENT, KEY_NOT_FOUND),
    Refused(
        "KV/Txn",
        inner(request_range=kv_pb2.RangeRequest(key=b"k", revision=1)),
        Code.OUT_OF_RANGE,
        COMPACTED,
    ),
    Refused("KV/Compact", kv_pb2.CompactionRequest(revision=-1), Code.OUT_OF_RANGE, COMPACTED),
    Refused("KV/Compact", kv_pb2.CompactionRequest(revision=4), Code.OUT_OF_RANGE, COMPACTED),
    Refused("KV/Compact", kv_pb2.CompactionRequest(revision=INT64_MAX), Code.OUT_OF_RANGE, FUTURE),
    # Leases.
    Refused(
        "Lease/LeaseGrant",
        kv_pb2.LeaseGrantRequest(TTL=LEASE, ID=LEASE),
        Code.FAILED_PRECONDITION,
        "etcdserver: lease already exists",
    ),
    Refused(
        "Lease/LeaseGrant",
        kv_pb2.LeaseGrantRequest(TTL=9_000_000_001),
        Code.OUT_OF_RANGE,
        "etcdserver: too large lease TTL",
    ),
    Refused(
        "Lease/LeaseGrant",
        kv_pb2.LeaseGrantRequest(TTL=INT64_MAX, ID=INT64_MIN),
        Code.OUT_OF_RANGE,
        "etcdserver: too large lease TTL",
    ),
    Refused("Lease/LeaseRevoke", kv_pb2.LeaseRevokeRequest(), Code.NOT_FOUND, LEASE_NOT_FOUND),
    Refused("Lease/LeaseRevoke", kv_pb2.LeaseRevokeRequest(ID=INT64_MIN), Code.NOT_FOUND, LEASE_NOT_FOUND),
    # Maintenance.
    Refused("Maintenance/HashKV", maintenance_pb2.HashKVRequest(revision=1), Code.OUT_OF_RANGE, COMPACTED),
    Refused(
        "Maintenance/HashKV", maintenance_pb2.HashKVRequest(revision=INT64_MAX), Code.OUT_OF_RANGE, FUTURE
    ),
    Refused(
        "Maintenance/Alarm",
        maintenance_pb2.AlarmRequest(action=maintenance_pb2.AlarmRequest.ACTIVATE),
        Code.UNIMPLEMENTED,
        "paxos_rsm: an alarm cannot be set by hand",
    ),
    # Members.
    Refused("Cluster/MemberAdd", cluster_pb2.MemberAddRequest(), Code.INVALID_ARGUMENT, BAD_URLS),
    Refused(
        "Cluster/MemberAdd",
        cluster_pb2.MemberAddRequest(peerURLs=["http://127.0.0.1:9", "http://127.0.0.1:8"]),
        Code.INVALID_ARGUMENT,
        ONE_URL,
    ),
    Refused(
        "Cluster/MemberAdd",
        cluster_pb2.MemberAddRequest(peerURLs=[f"http://{'h' * 100_000}:9"], isLearner=True),
        Code.INVALID_ARGUMENT,
        BAD_URLS,
    ),
    Refused(
        "Cluster/MemberUpdate",
        cluster_pb2.MemberUpdateRequest(ID=1, peerURLs=["nonsense"]),
        Code.INVALID_ARGUMENT,
        BAD_URLS,
    ),
    Refused(
        "Cluster/MemberUpdate",
        cluster_pb2.MemberUpdateRequest(ID=1, peerURLs=["http://127.0.0.1:9"]),
        Code.NOT_FOUND,
        NO_MEMBER,
    ),
    Refused("Cluster/MemberRemove", cluster_pb2.MemberRemoveRequest(), Code.NOT_FOUND, NO_MEMBER),
    Refused("Cluster/MemberRemove", cluster_pb2.MemberRemoveRequest(ID=2**64 - 1), Code.NOT_FOUND, NO_MEMBER),
    Refused("Cluster/MemberPromote", cluster_pb2.MemberPromoteRequest(), Code.NOT_FOUND, NO_MEMBER),
    # Locks and elections: etcd's own server there is a client of its store, and hands on words without a code.
    Refused("Lock/Lock", lock_pb2.LockRequest(name=b"l", lease=-1), Code.UNKNOWN, LEASE_NOT_FOUND),
    Refused("Lock/Lock", lock_pb2.LockRequest(name=LARGE, lease=LEASE), Code.UNKNOWN, TOO_LARGE),
    Refused("Lock/Unlock", lock_pb2.UnlockRequest(), Code.UNKNOWN, EMPTY_KEY),
    Refused(
        "Election/Campaign",
        election_pb2.CampaignRequest(name=b"e", lease=INT64_MAX),
        Code.UNKNOWN,
        LEASE_NOT_FOUND,
    ),
    Refused(
        "Election/Campaign",
        election_pb2.CampaignRequest(name=b"e", lease=LEASE, value=LARGE),
        Code.UNKNOWN,
        TOO_LARGE,
    ),
    Refused("Election/Proclaim", election_pb2.ProclaimRequest(), Code.UNKNOWN, NO_LEADER_FIELD),
    Refused(
        "Election/Proclaim",
        election_pb2.ProclaimRequest(leader=nobody(lease=LEASE)),
        Code.UNKNOWN,
        "election: not leader",
    ),
    Refused(
        "Election/Proclaim",
        election_pb2.ProclaimRequest(leader=election_pb2.LeaderKey()),
        Code.UNKNOWN,
        EMPTY_KEY,
    ),
    Refused("Election/Resign", election_pb2.ResignRequest(), Code.UNKNOWN, NO_LEADER_FIELD),
    Refused("Election/Leader", election_pb2.LeaderRequest(name=b"e"), Code.UNKNOWN, "election: no leader"),
    Refused("Election/Leader", election_pb2.LeaderRequest(), Code.UNKNOWN, "election: no leader"),
]


class Posted(NamedTuple):
    path: str
    body: bytes
    status: int
    words: str
    """The error contains them."""
    headers: dict[str, str] = {}  # noqa: RUF012 (never changed)


K = base64.b64encode(b"k").decode()
DEEP = b'{"success":[{"request_txn":' * 200 + b"{}" + b"}]}" * 200

POSTED = [
    Posted("kv/range", b"{", 400, "not JSON"),
    Posted("kv/range", b"\xff\xfe", 400, "not JSON"),
    Posted("kv/range", b"[]", 400, "not a JSON object"),
    Posted("kv/range", b"[" * 50_000, 400, "nested too deep"),
    Posted("kv/range", b"{}", 400, EMPTY_KEY),
    Posted("kv/range", b'{"key":"not base64!"}', 400, "key is not base64"),
    Posted("kv/range", b'{"key":5}', 400, "not a RangeRequest"),
    Posted("kv/range", b'{"key":"aw==","sort_order":"SIDEWAYS"}', 400, "sort_order has no value 'SIDEWAYS'"),
    Posted("kv/range", b'{"key":"aw==","sort_order":9}', 400, "invalid sort option"),
    Posted("kv/range", b'{"key":"aw==","revision":"99999999999999999999"}', 400, "not a RangeRequest"),
    Posted("kv/range", b'{"key":"aw==","revision":"9223372036854775807"}', 400, FUTURE),
    Posted("kv/range", b'{"key":"aw==","limit":1e400}', 400, "not a RangeRequest"),
    Posted("kv/range", b'{"key":"aw==","limit":NaN}', 400, "not a RangeRequest"),
    Posted("kv/range", b'{"key":"aw==","limit":' + b"9" * 5_000 + b"}", 400, "not JSON"),
    Posted("kv/put", b'{"key":"aw==","lease":-1}', 404, LEASE_NOT_FOUND),
    Posted("kv/put", b'{"key":"' + b"AAAA" * 600_000 + b'"}', 400, TOO_LARGE),
    Posted("kv/put", b'{"key":"' + b"AAAA" * 1_000_000 + b'"}', 413, TOO_LARGE),
    Posted("kv/txn", b'{"success":[{}]}', 400, KEY_NOT_FOUND),
    Posted("kv/txn", DEEP, 400, "not a TxnRequest"),
    Posted("lease/grant", b'{"TTL":"9000000001"}', 400, "too large lease TTL"),
    Posted("lease/revoke", b'{"ID":"-9223372036854775808"}', 404, LEASE_NOT_FOUND),
    Posted("lease/keepalive", b'{"ID":1} {"ID":', 200, "not JSON"),
    Posted("maintenance/alarm", b'{"action":"ACTIVATE"}', 501, "cannot be set by hand"),
    Posted("maintenance/hashkv", b'{"revision":1}', 400, COMPACTED),
    Posted("lock/unlock", b"{}", 500, EMPTY_KEY),
    Posted("election/proclaim", b"{}", 500, NO_LEADER_FIELD),
    Posted("watch", b'"create_request"', 400, "not a JSON object"),
    Posted("watch", b'{"create_request":{"key":"?"}}', 400, "key is not base64"),
    Posted("watch", b"x" * 300_000, 400, "longer than"),
    Posted("nothing", b"{}", 404, "Not Found"),
    Posted("kv/put", b'{"key":"aw=="}', 400, "invalid Grpc-Timeout", {"Grpc-Timeout": "soon"}),
    Posted("kv/range", b"{}", 400, EMPTY_KEY, {"Content-Encoding": "gzip"}),
    Posted("kv/put", b'{"key":"aw=="}', 403, "--cors", {"Origin": "http://127.0.0.1"}),
    Posted("kv/put", b'{"key":"aw=="}', 403, "--cors", {"Origin": "null", "Host": "evil.example"}),
]


class Watching:
    """One stream, by hand."""

    def __init__(self, calls: Calls) -> None:
        self._more = threading.Semaphore(0)
        self._said: list[bytes | None] = []
        method: Any = calls.channel.stream_stream("/etcdserverpb.Watch/Watch")
        self.call: Any = method(self._requests())

    def _requests(self) -> Iterator[bytes]:
        while True:
            self._more.acquire()
            said = self._said.pop(0)
            if said is None:
                return
            yield said

    def say(self, data: bytes | None) -> None:
        """Sends bytes; None ends this side."""
        self._said.append(data)
        self._more.release()

    def create(self, **fields: Any) -> None:
        """Asks for a watch."""
        create = watch_pb2.WatchCreateRequest(**fields)
        self.say(watch_pb2.WatchRequest(create_request=create).SerializeToString() + UNKNOWN_FIELDS)

    def cancel(self, number: int) -> None:
        """Asks for the end of one."""
        cancel = watch_pb2.WatchCancelRequest(watch_id=number)
        self.say(watch_pb2.WatchRequest(cancel_request=cancel).SerializeToString())

    def hear(self) -> watch_pb2.WatchResponse:
        """The next response."""
        return watch_pb2.WatchResponse.FromString(next(self.call))

    def ended(self) -> tuple[Code, str]:
        """Reads to the end; how that is."""
        try:
            for _ in self.call:
                pass
        except grpc.RpcError as error:
            return code_of(error), details_of(error)
        return Code.OK, ""
