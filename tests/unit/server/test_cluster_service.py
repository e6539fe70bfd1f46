"""The Cluster service over real gRPC, under both its names."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from paxos_rsm._proto import cluster_pb2 as pb
from paxos_rsm.errors import MembershipRefused, Unavailable
from paxos_rsm.paxos.changes import Reason
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.quorum import QuorumSizes
from paxos_rsm.server.admin_service import ServerIdentity
from paxos_rsm.server.cluster_service import REFUSALS, SERVICES, ClusterService
from tests.unit.server.fakes import FakeReplica, etcd_calls, serving

IDENTITY = ServerIdentity(
    cluster_id=0xC1,
    name="n2",
    member_id=0x32,
    incarnation=2,
    boot_count=1,
    initial_members={"n1": "http://a:2380", "n2": "http://b:2380"},
    initial_member_ids={"n1": 0x39, "n2": 0x32},
    client_urls=("http://b:2379",),
)
FORMED = Configuration(
    0xC1,
    (
        Member(1, 0x39, "n1", "http://a:2380", ("http://a:2379", "http://a:4001")),
        Member(2, 0x32, "n2", "http://b:2380", ("http://b:2379",)),
    ),
    QuorumSizes.majority(2),
)


@asynccontextmanager
async def staged(leader: bool = True) -> AsyncIterator[tuple[FakeReplica, grpc.aio.Channel]]:
    replica = FakeReplica(leader=leader)
    calls, _ = etcd_calls(replica, request_timeout_ms=300)
    service = ClusterService(replica, IDENTITY, calls)
    async with serving(*service.handlers()) as (_, channel):
        yield replica, channel


async def members(channel: grpc.aio.Channel, service: str = SERVICES[0], **asked: Any) -> Any:
    rpc: Any = channel.unary_unary(f"/{service}/MemberList")
    return pb.MemberListResponse.FromString(await rpc(pb.MemberListRequest(**asked).SerializeToString()))


@pytest.mark.parametrize("service", SERVICES)
async def test_the_members_are_those_of_the_log_by_id(service: str) -> None:
    async with staged() as (replica, channel):
        replica.configuration = FORMED
        response = await members(channel, service)
    assert response.header.cluster_id == 0xC1
    assert response.header.raft_term == 7
    assert list(response.members) == [
        pb.ClusterMember(ID=0x32, name="n2", peerURLs=["http://b:2380"], clientURLs=["http://b:2379"]),
        pb.ClusterMember(
            ID=0x39, name="n1", peerURLs=["http://a:2380"], clientURLs=["http://a:2379", "http://a:4001"]
        ),
    ]


async def test_without_a_leader_the_list_is_there_unless_it_must_be_new() -> None:
    async with staged(leader=False) as (replica, channel):
        replica.configuration = FORMED
        assert len((await members(channel)).members) == 2
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await members(channel, linearizable=True)
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
    assert raised.value.details() == "etcdserver: no leader"


async def test_a_linearizable_list_asks_for_a_read_index() -> None:
    async with staged() as (replica, channel):
        replica.configuration = FORMED
        await members(channel)
        assert replica.reads_asked == 0
        await members(channel, linearizable=True)
        assert replica.reads_asked == 1


async def test_while_the_cluster_forms_the_members_are_those_of_the_configuration() -> None:
    async with staged(leader=False) as (_, channel):
        found = list((await members(channel)).members)
    assert [(each.name, list(each.clientURLs)) for each in found] == [("n2", ["http://b:2379"]), ("n1", [])]


# ---- changes -----------------------------------------------------------------------------------------------

CALLS: dict[str, tuple[Any, Any]] = {
    "MemberAdd": (pb.MemberAddRequest(peerURLs=["http://c:2380"]), pb.MemberAddResponse),
    "MemberRemove": (pb.MemberRemoveRequest(ID=0x39), pb.MemberRemoveResponse),
    "MemberUpdate": (pb.MemberUpdateRequest(ID=0x39, peerURLs=["http://d:2380"]), pb.MemberUpdateResponse),
    "MemberPromote": (pb.MemberPromoteRequest(ID=0x39), pb.MemberPromoteResponse),
}


async def change(
    channel: grpc.aio.Channel, method: str, asked: Any = None, service: str = SERVICES[1]
) -> Any:
    request, response = CALLS[method]
    rpc: Any = channel.unary_unary(f"/{service}/{method}")
    return response.FromString(await rpc((asked or request).SerializeToString()))


@asynccontextmanager
async def refused() -> AsyncIterator[list[tuple[grpc.StatusCode, str]]]:
    """How the call within it ends."""
    ended: list[tuple[grpc.StatusCode, str]] = []
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        yield ended
    ended.append((raised.value.code(), raised.value.details() or ""))


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("learner", [False, True])
async def test_who_is_added_is_a_learner_that_is_promoted_by_itself_or_not(
    service: str, learner: bool
) -> None:
    async with staged() as (replica, channel):
        replica.configuration = FORMED
        asked = pb.MemberAddRequest(peerURLs=["http://c:2380/"], isLearner=learner)
        response = await change(channel, "MemberAdd", asked, service)
        again = await change(channel, "MemberAdd", pb.MemberAddRequest(peerURLs=["http://d:2380"]))
        added = replica.configuration.by_member_id(response.member.ID)
        listed = await members(channel)
    assert added is not None
    assert (added.incarnation, added.name, added.peer_url) == (0, "", "http://c:2380")
    assert (added.learner, added.promote) == (True, not learner)
    assert response.member == pb.ClusterMember(ID=added.member_id, peerURLs=["http://c:2380"], isLearner=True)
    assert 0 < added.member_id < 1 << 63
    assert added.member_id != again.member.ID
    assert [each.ID for each in response.members] == sorted([0x32, 0x39, added.member_id])
    assert response.header.cluster_id == 0xC1
    assert [each.isLearner for each in listed.members if each.ID not in (0x32, 0x39)] == [True, True]


async def test_a_name_is_shown_once_the_member_has_come() -> None:
    async with staged() as (replica, channel):
        expected = Member(0, 5, "n5", "http://e:2380", learner=True)
        replica.configuration = Configuration(0xC1, (*FORMED.members, expected), FORMED.quorum)
        assert (await members(channel)).members[0] == pb.ClusterMember(
            ID=5, peerURLs=["http://e:2380"], isLearner=True
        )


async def test_removing_updating_and_promoting() -> None:
    async with staged() as (replica, channel):
        learner = Member(3, 0x40, "n3", "http://c:2380", learner=True)
        replica.configuration = Configuration(0xC1, (*FORMED.members, learner), FORMED.quorum)
        response = await change(channel, "MemberPromote", pb.MemberPromoteRequest(ID=0x40))
        assert not any(each.isLearner for each in response.members)
        response = await change(channel, "MemberUpdate")
        assert [list(each.peerURLs) for each in response.members if each.ID == 0x39] == [["http://d:2380"]]
        response = await change(channel, "MemberRemove")
        assert [each.ID for each in response.members] == [0x32, 0x40]
        assert replica.configuration.nodes == {2, 3}


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason])
async def test_refusals_are_in_etcds_words_where_it_has_any(reason: Reason) -> None:
    async with staged() as (replica, channel):
        replica.configuration = FORMED
        replica.change_error = MembershipRefused("a sentence of ours", reason)
        async with refused() as ended:
            await change(channel, "MemberRemove")
    known = REFUSALS.get(reason)
    assert ended == [known or (grpc.StatusCode.FAILED_PRECONDITION, "paxos_rsm: a sentence of ours")]


async def test_the_words_that_clients_compare() -> None:
    async with staged() as (replica, channel):
        replica.configuration = FORMED
        async with refused() as ended:
            await change(channel, "MemberRemove", pb.MemberRemoveRequest(ID=1))
        assert ended == [(grpc.StatusCode.NOT_FOUND, "etcdserver: member not found")]
        async with refused() as ended:
            await change(channel, "MemberAdd", pb.MemberAddRequest(peerURLs=["http://a:2380"]))
        assert ended == [(grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: Peer URLs already exists")]
        async with refused() as ended:
            await change(channel, "MemberPromote")
        assert ended == [
            (grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: can only promote a learner member")
        ]
        for _ in range(2):
            request = pb.MemberAddRequest(peerURLs=[f"http://e:{len(replica.changes)}"], isLearner=True)
            if len(replica.configuration.members) == 2:
                await change(channel, "MemberAdd", request)
        async with refused() as ended:
            await change(channel, "MemberAdd", request)
        assert ended == [
            (grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: too many learner members in cluster")
        ]


@pytest.mark.parametrize("urls", [[], [""], ["c:2380"], ["ftp://c:2380"], ["http://c"], ["http://c:2380/x"]])
@pytest.mark.parametrize("method", ["MemberAdd", "MemberUpdate"])
async def test_what_is_no_address_is_refused_before_the_log(method: str, urls: list[str]) -> None:
    async with staged() as (replica, channel):
        replica.configuration = FORMED
        asked = type(CALLS[method][0])(peerURLs=urls)
        async with refused() as ended:
            await change(channel, method, asked)
        assert ended == [(grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: given member URLs are invalid")]
        async with refused() as ended:
            await change(channel, method, type(asked)(peerURLs=["http://c:1", "http://d:1"]))
        assert ended[0][0] == grpc.StatusCode.INVALID_ARGUMENT
        assert "one peer URL" in ended[0][1]
        assert replica.changes == []


@pytest.mark.parametrize("method", CALLS)
async def test_a_change_waits_for_a_leader_and_no_longer_than_a_request_may(method: str) -> None:
    async with staged(leader=False) as (replica, channel):
        replica.configuration = FORMED
        async with refused() as ended:
            await change(channel, method)
        assert ended == [(grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")]
        assert replica.changes == []
        replica.set_leader(True)
        replica.change_hangs = True
        async with refused() as ended:
            await change(channel, method)
        assert ended == [(grpc.StatusCode.UNAVAILABLE, "etcdserver: request timed out")]
        replica.change_hangs = False
        replica.change_error = Unavailable("this server is stopping; use another one")
        async with refused() as ended:
            await change(channel, method)
        assert ended[0][0] == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("method", ["MemberList", *CALLS])
async def test_garbage_is_refused(method: str) -> None:
    async with staged() as (_, channel):
        rpc: Any = channel.unary_unary(f"/etcdserverpb.Cluster/{method}")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await rpc(b"\xff\xff")
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
