"""Who the members are, and what every one of them says of itself.

The list of members is one server's answer, from the log. The status is that of each: all are asked at once, and one
that does not answer is listed with the reason.

The client knows endpoints, not members. Whoever answers names the members and their client URLs; those that
were not among the endpoints are asked in a second round. So one reachable endpoint is enough to see them all.
"""

import asyncio
from collections.abc import Iterable, Sequence

import grpc
from google.protobuf.message import DecodeError

from paxos_rsm._proto import admin_pb2 as pb
from paxos_rsm._proto import cluster_pb2
from paxos_rsm.client.calls import Calls
from paxos_rsm.client.endpoints import parse_endpoints
from paxos_rsm.client.stream import CHANNEL_OPTIONS
from paxos_rsm.client.types import Ballot, Member, MemberStatus
from paxos_rsm.errors import InvalidArgument

__all__ = ["MEMBER_LIST", "ask_members", "client_endpoints", "list_members", "member_of", "members_of"]

METHOD = "/paxos_rsm.v1.Admin/Status"
MEMBER_LIST = "/paxos_rsm.v1.Cluster/MemberList"


async def list_members(calls: Calls, timeout_s: float) -> list[Member]:
    """The members of the cluster, by name. Raises what :meth:`Calls.ask` raises."""
    request = cluster_pb2.MemberListRequest(linearizable=True)
    listed = await calls.ask(MEMBER_LIST, request, cluster_pb2.MemberListResponse, timeout_s)
    return members_of(listed.members)


def member_of(listed: cluster_pb2.ClusterMember) -> Member:
    """One member, as a server lists it."""
    return Member(listed.ID, listed.name, tuple(listed.peerURLs), tuple(listed.clientURLs), listed.isLearner)


def members_of(listed: Iterable[cluster_pb2.ClusterMember]) -> list[Member]:
    """The members that a server lists, by name."""
    return sorted(map(member_of, listed), key=lambda member: (member.name, member.id))


def client_endpoints(members: Iterable[Member]) -> list[str]:
    """Where these members serve clients, ``host:port``, as far as this version can speak to them."""
    return [endpoint for member in members for endpoint in _addresses(member.client_urls)]


async def ask_members(endpoints: Sequence[str], timeout_s: float) -> list[MemberStatus]:
    """One row for each member, by name; first those that answered. Raises nothing: what goes wrong is in ``error``."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    asked: dict[str, pb.StatusResponse | str] = {}
    await _ask(asked, endpoints, timeout_s)
    told = [answer for answer in asked.values() if isinstance(answer, pb.StatusResponse)]
    seen = {answer.member_id for answer in told}
    unseen = {
        member.member_id: member
        for answer in told
        for member in answer.members
        if member.member_id not in seen
    }
    urls = {member_id: _addresses(member.client_urls) for member_id, member in unseen.items()}
    new = {url for known in urls.values() for url in known} - asked.keys()
    if new:
        await _ask(asked, sorted(new), max(deadline - loop.time(), 0.1))
    return _rows(asked, {member_id: (unseen[member_id].name, urls[member_id]) for member_id in unseen})


def _addresses(urls: Iterable[str]) -> list[str]:
    found: list[str] = []
    for url in urls:
        try:
            found += parse_endpoints(url)
        except InvalidArgument:
            continue  # a member may advertise what this version cannot speak; it is listed without an answer
    return found


def _rows(
    asked: dict[str, pb.StatusResponse | str], unseen: dict[int, tuple[str, list[str]]]
) -> list[MemberStatus]:
    answered: dict[int, MemberStatus] = {}
    silent: list[MemberStatus] = []
    for endpoint, answer in asked.items():
        if isinstance(answer, pb.StatusResponse):
            answered.setdefault(answer.member_id, _row(endpoint, answer))
    named = {url: member_id for member_id, (_, urls) in unseen.items() for url in urls}
    left = {member_id: name for member_id, (name, _) in unseen.items() if member_id not in answered}
    for endpoint, answer in asked.items():
        if isinstance(answer, str):
            member_id = named.get(endpoint, 0)
            if member_id in answered:
                continue  # it answered at another of its addresses
            if member_id and member_id not in left:
                continue  # it is listed already, with the first of its addresses
            silent.append(MemberStatus(left.pop(member_id, ""), member_id, endpoint, error=answer))
    for member_id, name in left.items():
        error = "it advertises no client URL that this client can use"
        silent.append(MemberStatus(name, member_id, "", error=error))
    rows = sorted(answered.values(), key=lambda row: row.name)
    return rows + sorted(silent, key=lambda row: (not row.name, row.name, row.endpoint))


def _row(endpoint: str, answer: pb.StatusResponse) -> MemberStatus:
    return MemberStatus(
        name=answer.name,
        member_id=answer.member_id,
        endpoint=endpoint,
        role=answer.role,
        leader=answer.leader,
        ballot=Ballot(answer.ballot.round, answer.ballot.node),
        decided_slot=answer.decided_slot,
        applied_slot=answer.applied_slot,
        compacted_slot=answer.compacted_slot,
        revision=answer.revision,
        log_bytes=answer.log_bytes,
        memory_bytes=answer.memory_bytes,
        cluster_id=answer.cluster_id,
        version=answer.version,
        leader_age_ms=answer.leader_age_ms,
        sessions=answer.sessions,
        snapshot_slot=answer.snapshot_slot,
        learner=answer.learner,
    )


async def _ask(asked: dict[str, pb.StatusResponse | str], endpoints: Iterable[str], timeout_s: float) -> None:
    async def ask(endpoint: str) -> None:
        asked[endpoint] = await _ask_one(endpoint, timeout_s)

    async with asyncio.TaskGroup() as group:
        for endpoint in endpoints:
            asked.setdefault(endpoint, "")  # the order of the endpoints, not of the answers
            group.create_task(ask(endpoint))


async def _ask_one(endpoint: str, timeout_s: float) -> pb.StatusResponse | str:
    async with grpc.aio.insecure_channel(endpoint, options=CHANNEL_OPTIONS) as channel:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        try:
            data = await method(pb.StatusRequest().SerializeToString(), timeout=timeout_s)
            return pb.StatusResponse.FromString(data)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return f"no answer within {timeout_s:.1f} s"
            return f"{error.code().name}: {error.details()}"
        except DecodeError:
            return "it sent bytes that are no status: it is no paxos_rsm server"
