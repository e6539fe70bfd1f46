"""The Cluster service over real gRPC, under both its names."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from paxos_rsm._proto import cluster_pb2 as pb
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.quorum import QuorumSizes
from paxos_rsm.server.admin_service import ServerIdentity
from paxos_rsm.server.cluster_service import CHANGES, SERVICES, ClusterService
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
    calls, _ = etcd_calls(replica)
    service = ClusterService(replica, IDENTITY, calls.headers, calls.read_index)
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


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("method", CHANGES)
async def test_changes_are_answered_with_a_sentence(service: str, method: str) -> None:
    async with staged() as (_, channel):
        rpc: Any = channel.unary_unary(f"/{service}/{method}")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await rpc(b"")
    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "this version cannot" in (raised.value.details() or "")


async def test_garbage_is_refused() -> None:
    async with staged() as (_, channel):
        rpc: Any = channel.unary_unary("/etcdserverpb.Cluster/MemberList")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await rpc(b"\xff\xff")
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
