"""The Cluster service: who the members are, and how that changes, in etcd's words.

One servicer under two names, ``paxos_rsm.v1.Cluster`` and ``etcdserverpb.Cluster``. MemberList answers from what the
log has decided here, at once, without a leader too: that is how a client finds the other servers when its own is cut
off. Who asks ``linearizable`` gets a list as new as the question. While the cluster is still forming there are the
members of the configuration, of which only this one's client addresses are known.

A change goes to the leader from any server, and is answered when it has been decided and this server knows it: the
list in the answer has it. A member that is added is a learner first, whatever was asked for: it counts in no quorum
until it runs and has caught up. Then it becomes a voter by itself, unless it was to stay a learner (``isLearner``) and
wait for MemberPromote. So no change can take a quorum away from a cluster that has one, and none needs the others to
be "healthy" first.

What is refused is refused with etcd's codes and words: its clients compare them.
"""

import secrets
from collections.abc import Sequence

import grpc

from paxos_rsm._proto import cluster_pb2 as pb
from paxos_rsm.config import url_address
from paxos_rsm.errors import ConfigError, MembershipRefused
from paxos_rsm.paxos.changes import AddMember, Change, PromoteMember, Reason, RemoveMember, UpdateMember
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.replica.api import ReplicaHandle
from paxos_rsm.server.admin_service import ServerIdentity
from paxos_rsm.server.etcd_calls import EtcdCalls
from paxos_rsm.server.rpc import Context, StatusError, parse, service_handler, unary_handler

__all__ = ["SERVICES", "ClusterService"]

SERVICES = ("paxos_rsm.v1.Cluster", "etcdserverpb.Cluster")

ID_BITS = 63
"""Ids fit the signed integers of other languages."""

BAD_URLS = (grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: given member URLs are invalid")
NOT_STARTED = (
    grpc.StatusCode.FAILED_PRECONDITION,
    "etcdserver: re-configuration failed due to not enough started members",
)
NOT_READY = (
    grpc.StatusCode.FAILED_PRECONDITION,
    "etcdserver: can only promote a learner member which is in sync with leader",
)
REFUSALS: dict[Reason, tuple[grpc.StatusCode, str]] = {
    Reason.MEMBER_NOT_FOUND: (grpc.StatusCode.NOT_FOUND, "etcdserver: member not found"),
    Reason.MEMBER_ID_EXISTS: (
        grpc.StatusCode.FAILED_PRECONDITION,
        "etcdserver: member ID already exist",
    ),
    Reason.PEER_URL_EXISTS: (
        grpc.StatusCode.FAILED_PRECONDITION,
        "etcdserver: Peer URLs already exists",
    ),
    Reason.NOT_A_LEARNER: (
        grpc.StatusCode.FAILED_PRECONDITION,
        "etcdserver: can only promote a learner member",
    ),
    Reason.LEARNER_NOT_READY: NOT_READY,
    Reason.NOT_JOINED: NOT_READY,
    Reason.TOO_MANY_LEARNERS: (
        grpc.StatusCode.FAILED_PRECONDITION,
        "etcdserver: too many learner members in cluster",
    ),
    Reason.NOT_ENOUGH_STARTED: NOT_STARTED,
    Reason.LAST_VOTER: NOT_STARTED,
    Reason.INVALID: BAD_URLS,
}
"""What etcd has no words for is FAILED_PRECONDITION, with a sentence of ours."""


class ClusterService:
    """MemberList, MemberAdd, MemberRemove, MemberUpdate, MemberPromote."""

    def __init__(self, replica: ReplicaHandle, identity: ServerIdentity, calls: EtcdCalls) -> None:
        self._replica = replica
        self._identity = identity
        self._calls = calls

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """What a gRPC server is given: the one servicer, under both names."""
        methods = {
            "MemberList": unary_handler(self._member_list),
            "MemberAdd": unary_handler(self._member_add),
            "MemberRemove": unary_handler(self._member_remove),
            "MemberUpdate": unary_handler(self._member_update),
            "MemberPromote": unary_handler(self._member_promote),
        }
        return [service_handler(service, methods) for service in SERVICES]

    async def _member_list(self, data: bytes, context: Context) -> bytes:
        if parse(pb.MemberListRequest, data).linearizable:
            await self._calls.read_index(context)
        header = self._calls.headers.make()
        return pb.MemberListResponse(header=header, members=self._members()).SerializeToString()

    def _members(self) -> list[pb.ClusterMember]:
        configuration = self._replica.status().configuration
        if configuration is not None:
            return _listed(configuration)
        identity = self._identity
        return [
            pb.ClusterMember(
                ID=identity.initial_member_ids[name],
                name=name,
                peerURLs=[url],
                clientURLs=identity.client_urls if name == identity.name else (),
            )
            for name, url in sorted(
                identity.initial_members.items(), key=lambda each: identity.initial_member_ids[each[0]]
            )
        ]

    # ---- changes -------------------------------------------------------------------------------------------

    async def _member_add(self, data: bytes, context: Context) -> bytes:
        request = parse(pb.MemberAddRequest, data)
        member_id = secrets.randbits(ID_BITS) or 1
        peer_url = _the_url(request.peerURLs)
        member = Member(0, member_id, "", peer_url, learner=True, promote=not request.isLearner)
        configuration = await self._change(AddMember(member), context)
        # Somebody may have removed it again by now.
        added = configuration.by_member_id(member_id) or member
        response = pb.MemberAddResponse(
            header=self._calls.headers.make(), member=_as_pb(added), members=_listed(configuration)
        )
        return response.SerializeToString()

    async def _member_remove(self, data: bytes, context: Context) -> bytes:
        change = RemoveMember(parse(pb.MemberRemoveRequest, data).ID)
        members = _listed(await self._change(change, context))
        return pb.MemberRemoveResponse(header=self._calls.headers.make(), members=members).SerializeToString()

    async def _member_update(self, data: bytes, context: Context) -> bytes:
        request = parse(pb.MemberUpdateRequest, data)
        change = UpdateMember(request.ID, _the_url(request.peerURLs))
        members = _listed(await self._change(change, context))
        return pb.MemberUpdateResponse(header=self._calls.headers.make(), members=members).SerializeToString()

    async def _member_promote(self, data: bytes, context: Context) -> bytes:
        change = PromoteMember(parse(pb.MemberPromoteRequest, data).ID)
        members = _listed(await self._change(change, context))
        return pb.MemberPromoteResponse(
            header=self._calls.headers.make(), members=members
        ).SerializeToString()

    async def _change(self, change: Change, context: Context) -> Configuration:
        """The configuration that has the change. Raises StatusError, in etcd's words."""
        self._calls.refuse(None)
        await self._calls.need_leader(context)
        async with self._calls.in_etcds_words():
            try:
                return await self._replica.change(change)
            except MembershipRefused as refusal:
                raise _refusal(refusal) from refusal


def _the_url(urls: Sequence[str]) -> str:
    """The one peer URL of a member. Raises StatusError."""
    if len(urls) > 1:
        raise StatusError(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"paxos_rsm: a member has one peer URL, and {len(urls)} were given; give the one that all others can "
            "reach, and --peer-dial-urls to a server that is to take another way",
        )
    try:
        url_address(urls[0] if urls else "")
    except ConfigError:
        raise StatusError(*BAD_URLS) from None
    return urls[0].rstrip("/")


def _refusal(refused: MembershipRefused) -> StatusError:
    known = REFUSALS.get(Reason(refused.reason))
    if known is not None:
        return StatusError(*known)
    return StatusError(grpc.StatusCode.FAILED_PRECONDITION, f"paxos_rsm: {refused}")


def _listed(configuration: Configuration) -> list[pb.ClusterMember]:
    return [_as_pb(member) for member in sorted(configuration.members, key=lambda each: each.member_id)]


def _as_pb(member: Member) -> pb.ClusterMember:
    return pb.ClusterMember(
        ID=member.member_id,
        name=member.name if member.incarnation else "",
        peerURLs=[member.peer_url],
        clientURLs=member.client_urls,
        isLearner=member.learner,
    )
