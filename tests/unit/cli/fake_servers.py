"""Maintenance, Cluster and KV services in this process, for the commands that ask one server for itself."""

import contextlib
import hashlib
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc

from paxos_rsm._proto import admin_pb2, cluster_pb2, kv_pb2, maintenance_pb2

METHODS: dict[str, dict[str, Any]] = {
    "KV": {"Range": kv_pb2.RangeRequest},
    "Cluster": {
        "MemberList": cluster_pb2.MemberListRequest,
        "MemberAdd": cluster_pb2.MemberAddRequest,
        "MemberRemove": cluster_pb2.MemberRemoveRequest,
        "MemberUpdate": cluster_pb2.MemberUpdateRequest,
        "MemberPromote": cluster_pb2.MemberPromoteRequest,
    },
    "Admin": {"Status": admin_pb2.StatusRequest},
    "Maintenance": {
        "Status": maintenance_pb2.EndpointStatusRequest,
        "HashKV": maintenance_pb2.HashKVRequest,
        "Alarm": maintenance_pb2.AlarmRequest,
        "Defragment": maintenance_pb2.DefragmentRequest,
        "Snapshot": maintenance_pb2.SnapshotRequest,
        "MoveLeader": maintenance_pb2.MoveLeaderRequest,
    },
}


class Member:
    """One member of a cluster: ``number``, at ``endpoint``; member 1 leads."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.endpoint = ""
        self.members: list[Member] = [self]
        self.no_leader = False
        self.alarms = [maintenance_pb2.AlarmMember(memberID=255, alarm=maintenance_pb2.CORRUPT)]
        self.disarms = False
        self.blobs = [b"state", b" and more"]
        self.asked: list[Any] = []

    def _header(self) -> kv_pb2.ResponseHeader:
        return kv_pb2.ResponseHeader(cluster_id=9, member_id=self.number, revision=5, raft_term=3)

    def Range(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        if self.no_leader:
            context.abort(grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")
        return kv_pb2.RangeResponse(header=self._header())

    def _listed(self) -> list[cluster_pb2.ClusterMember]:
        return [
            cluster_pb2.ClusterMember(
                ID=each.number, name=f"n{each.number}", clientURLs=[f"http://{each.endpoint}"]
            )
            for each in self.members
        ]

    def MemberList(self, request: Any, context: Any) -> Any:
        return cluster_pb2.MemberListResponse(header=self._header(), members=self._listed())

    def MemberAdd(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        if not request.peerURLs[0].startswith("http"):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: given member URLs are invalid")
        added = cluster_pb2.ClusterMember(ID=0xABC, peerURLs=request.peerURLs, isLearner=True)
        other = cluster_pb2.ClusterMember(ID=0xABD, peerURLs=["http://yet-to-come:1"])
        first = cluster_pb2.ClusterMember(ID=1, name="n1", peerURLs=["http://a:2380"])
        return cluster_pb2.MemberAddResponse(
            header=self._header(), member=added, members=[first, added, other]
        )

    def MemberRemove(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        if request.ID not in [each.number for each in self.members]:
            context.abort(grpc.StatusCode.NOT_FOUND, "etcdserver: member not found")
        return cluster_pb2.MemberRemoveResponse(header=self._header(), members=self._listed()[:1])

    def MemberUpdate(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        return cluster_pb2.MemberUpdateResponse(header=self._header(), members=self._listed())

    def MemberPromote(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        return cluster_pb2.MemberPromoteResponse(header=self._header(), members=self._listed())

    def MoveLeader(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        return maintenance_pb2.MoveLeaderResponse(header=self._header())

    def Status(self, request: Any, context: Any) -> Any:
        if isinstance(request, admin_pb2.StatusRequest):
            members = [
                admin_pb2.MemberStatus(
                    member_id=each.number, name=f"n{each.number}", client_urls=[f"http://{each.endpoint}"]
                )
                for each in self.members
            ]
            role = "leader" if self.number == 1 else "follower"
            return admin_pb2.StatusResponse(
                member_id=self.number, name=f"n{self.number}", role=role, members=members
            )
        return maintenance_pb2.EndpointStatusResponse(
            header=self._header(),
            version="3.5.0",
            dbSize=20480,
            leader=1,
            raftIndex=12,
            raftTerm=3,
            raftAppliedIndex=11,
        )

    def HashKV(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        return maintenance_pb2.HashKVResponse(header=self._header(), hash=77, compact_revision=-1)

    def Alarm(self, request: Any, context: Any) -> Any:
        """As etcd answers: to disarm is for one alarm of one member, and the answer has what was disarmed."""
        self.asked.append(request)
        if request.action == maintenance_pb2.AlarmRequest.GET:
            answered = list(self.alarms)
        else:
            asked = maintenance_pb2.AlarmMember(memberID=request.memberID, alarm=request.alarm)
            answered = [asked] if asked in self.alarms and self.disarms else []
            self.alarms = [each for each in self.alarms if each not in answered]
        return maintenance_pb2.AlarmResponse(header=self._header(), alarms=answered)

    def Defragment(self, request: Any, context: Any) -> Any:
        if self.no_leader:
            context.abort(grpc.StatusCode.UNAVAILABLE, "etcdserver: server stopped")
        return maintenance_pb2.DefragmentResponse(header=self._header())

    def Snapshot(self, request: Any, context: Any) -> Iterator[Any]:
        if self.no_leader:
            context.abort(grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")
        digest = hashlib.sha256(b"".join(self.blobs)).digest()
        for blob in (*self.blobs, digest[:10], digest[10:]):
            yield maintenance_pb2.SnapshotResponse(header=self._header(), blob=blob)


def _handlers(member: Member) -> Iterator[grpc.GenericRpcHandler]:
    for service, methods in METHODS.items():
        handlers: dict[str, Any] = {}
        for name, request in methods.items():
            kind = (
                grpc.unary_stream_rpc_method_handler
                if name == "Snapshot"
                else grpc.unary_unary_rpc_method_handler
            )
            handlers[name] = kind(
                getattr(member, name), request.FromString, lambda answer: answer.SerializeToString()
            )
        yield grpc.method_handlers_generic_handler(f"paxos_rsm.v1.{service}", handlers)


@contextlib.contextmanager
def serving(*members: Member) -> Iterator[None]:
    """Gives each of them an endpoint, and serves it there; they know of each other."""
    servers = []
    for member in members:
        server = grpc.server(futures.ThreadPoolExecutor(2))
        server.add_generic_rpc_handlers(tuple(_handlers(member)))
        member.endpoint = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        member.members = list(members)
        server.start()
        servers.append(server)
    try:
        yield
    finally:
        for server in servers:
            server.stop(0).wait()
