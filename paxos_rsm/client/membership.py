"""Changing who the members are, and who of them leads.

A change is asked of any server, and of the next where that does not answer in time. So it may be carried out by an
attempt whose answer was lost, and a later one be refused because it is so already. That refusal is no error then: the
members are asked for, and are the answer.

Only the leader hands its place over, so it is looked for first, by what each server says of itself.
"""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import grpc
from google.protobuf.message import DecodeError

from paxos_rsm._proto import cluster_pb2 as pb
from paxos_rsm._proto import maintenance_pb2
from paxos_rsm.client.calls import Calls
from paxos_rsm.client.failures import error_of, number_of
from paxos_rsm.client.members import MEMBER_LIST, ask_members
from paxos_rsm.client.stream import CHANNEL_OPTIONS
from paxos_rsm.client.types import MemberStatus
from paxos_rsm.errors import ClientError, InvalidArgument, Unavailable

__all__ = ["MemberRef", "Moved", "add", "find", "move_leader", "promote", "remove", "update"]

SERVICE = "/paxos_rsm.v1.Cluster/"
MOVE_LEADER = "/paxos_rsm.v1.Maintenance/MoveLeader"

NOT_LEADER = "etcdserver: not leader"
DONE_ALREADY = {
    "MemberAdd": "etcdserver: Peer URLs already exists",
    "MemberRemove": "etcdserver: member not found",
    "MemberPromote": "etcdserver: can only promote a learner member",
}
"""By method: what is said where a change that is asked for is there already."""

PAUSE_S = 0.05

MemberRef = str | int
"""A member by its name, or by its id."""

R = TypeVar(
    "R", pb.MemberAddResponse, pb.MemberRemoveResponse, pb.MemberUpdateResponse, pb.MemberPromoteResponse
)


class Moved(NamedTuple):
    """Who led, and who leads now."""

    before: int
    """A member id."""
    after: int
    answer: maintenance_pb2.MoveLeaderResponse


# ---- members -----------------------------------------------------------------------------------------------


async def add(calls: Calls, peer_url: str, learner: bool, timeout_s: float) -> pb.MemberAddResponse:
    """Adds a member that has yet to come. Raises InvalidArgument where that is refused, and Unavailable."""
    request = pb.MemberAddRequest(peerURLs=[peer_url], isLearner=learner)
    answer = await _change(calls, "MemberAdd", request, pb.MemberAddResponse, timeout_s)
    if not answer.HasField("member"):
        added = [each for each in answer.members if list(each.peerURLs) == [peer_url.rstrip("/")]]
        if not added:
            raise InvalidArgument(DONE_ALREADY["MemberAdd"])
        answer.member.CopyFrom(added[0])
    return answer


async def remove(calls: Calls, member_id: int, timeout_s: float) -> pb.MemberRemoveResponse:
    """Removes a member. Raises InvalidArgument where that is refused, and Unavailable."""
    request = pb.MemberRemoveRequest(ID=member_id)
    return await _change(calls, "MemberRemove", request, pb.MemberRemoveResponse, timeout_s)


async def update(calls: Calls, member_id: int, peer_url: str, timeout_s: float) -> pb.MemberUpdateResponse:
    """Gives a member another peer URL. Raises InvalidArgument where that is refused, and Unavailable."""
    request = pb.MemberUpdateRequest(ID=member_id, peerURLs=[peer_url])
    return await _change(calls, "MemberUpdate", request, pb.MemberUpdateResponse, timeout_s)


async def promote(calls: Calls, member_id: int, timeout_s: float) -> pb.MemberPromoteResponse:
    """Makes a learner a voter. Raises InvalidArgument where that is refused, and Unavailable."""
    request = pb.MemberPromoteRequest(ID=member_id)
    return await _change(calls, "MemberPromote", request, pb.MemberPromoteResponse, timeout_s)


async def _change(
    calls: Calls,
    method: str,
    request: pb.MemberAddRequest | pb.MemberRemoveRequest | pb.MemberUpdateRequest | pb.MemberPromoteRequest,
    answer_type: type[R],
    timeout_s: float,
) -> R:
    attempts: list[None] = []
    try:
        return await calls.ask(
            SERVICE + method, request, answer_type, timeout_s, on_attempt=lambda: attempts.append(None)
        )
    except InvalidArgument as refusal:
        if len(attempts) == 1 or str(refusal) != DONE_ALREADY.get(method):
            raise
    listed = await _listed(calls, timeout_s)
    return answer_type(header=listed.header, members=listed.members)


async def _listed(calls: Calls, timeout_s: float) -> pb.MemberListResponse:
    request = pb.MemberListRequest(linearizable=True)
    return await calls.ask(MEMBER_LIST, request, pb.MemberListResponse, timeout_s)


async def find(calls: Calls, member: MemberRef, timeout_s: float) -> int:
    """The id of a member that is named. Raises InvalidArgument where none is called so."""
    if isinstance(member, int):
        return member
    members = (await _listed(calls, timeout_s)).members
    for each in members:
        if member and each.name == member:
            return each.ID
    named = ", ".join(each.name or f"{each.ID:x}" for each in members)
    raise InvalidArgument(f"there is no member {member!r}; there are {named}")


# ---- leadership --------------------------------------------------------------------------------------------


async def move_leader(endpoints: Sequence[str], to: MemberRef | None, timeout_s: float) -> Moved:
    """Has the leader hand over to ``to``, or to the voter that is closest behind it.

    Raises InvalidArgument where ``to`` cannot lead, Unavailable where nobody leads or the other does not take over.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        left_s = max(deadline - loop.time(), 0.1)
        rows = await ask_members(endpoints, left_s)
        leader = max((row for row in rows if row.role == "leader"), key=lambda row: row.ballot, default=None)
        if leader is not None:
            heir = _heir(rows, leader, to)
            try:
                return Moved(leader.member_id, heir, await _ask_leader(leader.endpoint, heir, left_s))
            except InvalidArgument as refusal:
                if str(refusal) != NOT_LEADER:
                    raise
        if loop.time() + PAUSE_S >= deadline:
            raise Unavailable(f"no server said within {timeout_s:g} s that it leads")
        await asyncio.sleep(PAUSE_S)


def _heir(rows: Sequence[MemberStatus], leader: MemberStatus, to: MemberRef | None) -> int:
    if to is None:
        able = [row for row in rows if not row.error and not row.learner and row is not leader]
        if not able:
            raise InvalidArgument(f"there is no other voter that answers: {leader.name} goes on leading")
        return max(able, key=lambda row: row.decided_slot).member_id
    if isinstance(to, int):
        return to
    for row in rows:
        if to and row.name == to:
            return row.member_id
    raise InvalidArgument(f"there is no member {to!r}; there are {', '.join(row.name for row in rows)}")


async def _ask_leader(endpoint: str, heir: int, timeout_s: float) -> maintenance_pb2.MoveLeaderResponse:
    request = maintenance_pb2.MoveLeaderRequest(targetID=heir)
    async with grpc.aio.insecure_channel(endpoint, options=CHANNEL_OPTIONS) as channel:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(MOVE_LEADER)
        try:
            data = await method(request.SerializeToString(), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _error(error, endpoint, timeout_s) from None
    try:
        return maintenance_pb2.MoveLeaderResponse.FromString(data)
    except DecodeError:
        raise Unavailable(
            f"{endpoint} answered with {len(data)} bytes that are no MoveLeaderResponse"
        ) from None


def _error(error: grpc.aio.AioRpcError, endpoint: str, timeout_s: float) -> ClientError:
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unavailable(f"{endpoint}: no answer within {timeout_s:.3g} s")
    return error_of(number_of(error.code()), error.details() or "")
