"""The Cluster service: who the members are, in etcd's words.

One servicer under two names, ``paxos_rsm.v1.Cluster`` and ``etcdserverpb.Cluster``. MemberList answers from what the
log has decided here, at once, without a leader too: that is how a client finds the other servers when its own is cut
off. Who asks ``linearizable`` gets a list as new as the question. While the cluster is still forming there are the
members of the configuration, of which only this one's client addresses are known.

Members cannot be changed in this version; the methods that would are answered with a sentence.
"""

from collections.abc import Awaitable, Callable

import grpc

from paxos_rsm._proto import cluster_pb2 as pb
from paxos_rsm.replica.api import ReplicaHandle
from paxos_rsm.server.admin_service import ServerIdentity
from paxos_rsm.server.headers import Headers
from paxos_rsm.server.rpc import Context, StatusError, parse, service_handler, unary_handler

__all__ = ["SERVICES", "ClusterService"]

SERVICES = ("paxos_rsm.v1.Cluster", "etcdserverpb.Cluster")

CHANGES = {
    "MemberAdd": "add a member to a cluster that runs",
    "MemberRemove": "remove a member",
    "MemberUpdate": "change a member's addresses",
    "MemberPromote": "promote a member (there are no learners)",
}


class ClusterService:
    """MemberList, and what this version has not."""

    def __init__(
        self,
        replica: ReplicaHandle,
        identity: ServerIdentity,
        headers: Headers,
        read_index: Callable[[Context], Awaitable[None]],
    ) -> None:
        """``read_index`` returns once the local state is as new as its call; it raises where that cannot be."""
        self._replica = replica
        self._identity = identity
        self._headers = headers
        self._read_index = read_index

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """What a gRPC server is given: the one servicer, under both names."""
        methods = {"MemberList": unary_handler(self._member_list)}
        methods |= {name: unary_handler(_refusal(what)) for name, what in CHANGES.items()}
        return [service_handler(service, methods) for service in SERVICES]

    async def _member_list(self, data: bytes, context: Context) -> bytes:
        if parse(pb.MemberListRequest, data).linearizable:
            await self._read_index(context)
        members = sorted(self._members(), key=lambda member: member.ID)
        return pb.MemberListResponse(header=self._headers.make(), members=members).SerializeToString()

    def _members(self) -> list[pb.ClusterMember]:
        configuration = self._replica.status().configuration
        if configuration is not None:
            return [
                pb.ClusterMember(
                    ID=member.member_id,
                    name=member.name,
                    peerURLs=[member.peer_url],
                    clientURLs=member.client_urls,
                )
                for member in configuration.members
            ]
        identity = self._identity
        return [
            pb.ClusterMember(
                ID=identity.initial_member_ids[name],
                name=name,
                peerURLs=[url],
                clientURLs=identity.client_urls if name == identity.name else (),
            )
            for name, url in identity.initial_members.items()
        ]


def _refusal(what: str) -> Callable[[bytes, Context], Awaitable[bytes]]:
    async def refuse(_request: bytes, _context: Context) -> bytes:
        raise StatusError(
            grpc.StatusCode.UNIMPLEMENTED,
            f"paxos_rsm: this version cannot {what} yet; the members are those of --initial-cluster, and a member "
            "that comes back with its data directory is the same one",
        )

    return refuse
