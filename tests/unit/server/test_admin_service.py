"""Status: everything that a server knows of itself, with and without a leader, formed and forming."""

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import pytest

from paxos_rsm import _version
from paxos_rsm._proto import admin_pb2 as pb
from paxos_rsm._proto import admin_pb2_grpc
from paxos_rsm.codec.kv import KvCodec
from paxos_rsm.errors import DiskFull, Unavailable
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.types import Put
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.quorum import QuorumSizes
from paxos_rsm.server.admin_service import AdminService, ServerIdentity, resident_bytes
from tests.unit.server.fakes import FakeReplica, serving

IDENTITY = ServerIdentity(
    cluster_id=0xC1,
    name="n1",
    member_id=0x31,
    incarnation=1,
    boot_count=4,
    initial_members={"n2": "http://b:2380", "n1": "http://a:2380"},
    initial_member_ids={"n2": 0x32, "n1": 0x31},
    client_urls=("http://a:2379",),
)
CONFIGURATION = Configuration(
    0xC1,
    (
        Member(1, 0x31, "n1", "http://a:2380", ("http://a:2379",)),
        Member(2, 0x32, "n2", "http://b:2380", ("http://b:2379",)),
        Member(3, 0x33, "n3", "http://c:2380"),
    ),
    QuorumSizes.majority(3),
)


class Stage:
    def __init__(self, replica: FakeReplica, store: KeyValueMachine, channel: grpc.aio.Channel) -> None:
        self.replica = replica
        self.store = store
        self.channel = channel
        self.digests = 0

    def digest(self) -> bytes:
        self.digests += 1
        return b"digest"

    async def status(self, *, digest: bool = False) -> pb.StatusResponse:
        stub: Any = admin_pb2_grpc.AdminStub(self.channel)
        response = await stub.Status(pb.StatusRequest(digest=digest))
        assert isinstance(response, pb.StatusResponse)
        return response


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    store = KeyValueMachine(KvCodec())
    replica = FakeReplica(store)
    made: list[Stage] = []
    service = AdminService(
        replica, IDENTITY, revision=lambda: store.revision, digest=lambda: made[0].digest()
    )
    async with serving(service.handler()) as (_, channel):
        made.append(Stage(replica, store, channel))
        yield made[0]


async def test_everything_is_said(stage: Stage) -> None:
    stage.replica.configuration = CONFIGURATION
    stage.replica.machine.apply_slot(1, [])
    stage.store.execute(Put(b"a", b"1"))
    status = await stage.status()
    assert (status.cluster_id, status.name, status.member_id) == (0xC1, "n1", 0x31)
    assert (status.incarnation, status.boot_count, status.version) == (1, 4, _version.__version__)
    assert (status.role, status.leader) == ("leader", "n1")
    assert (status.ballot.round, status.ballot.node) == (7, 1)
    assert (status.decided_slot, status.applied_slot, status.compacted_slot) == (1, 1, 0)
    assert (status.revision, status.log_bytes, status.leader_age_ms, status.sessions) == (2, 12_345, 0, 0)
    assert status.memory_bytes > 1_000_000
    assert [(m.name, m.member_id, m.peer_url, m.connected) for m in status.members] == [
        ("n1", 0x31, "http://a:2380", True),
        ("n2", 0x32, "http://b:2380", True),
        ("n3", 0x33, "http://c:2380", False),
    ]
    assert list(status.members[1].client_urls) == ["http://b:2379"]
    assert status.digest == b""


async def test_without_a_leader_it_answers_all_the_same(stage: Stage) -> None:
    stage.replica.configuration = CONFIGURATION
    stage.replica.set_leader(False)
    stage.replica.leader_age_ms = 9_000
    status = await stage.status()
    assert (status.leader, status.leader_age_ms) == ("", 9_000)


async def test_one_that_joins_names_nobody_by_an_id_that_it_does_not_know() -> None:
    joins = replace(IDENTITY, initial_member_ids={"n1": 0x31, "n2": 0})
    service = AdminService(FakeReplica(), joins, revision=lambda: 1, digest=lambda: b"")
    async with serving(service.handler()) as (_, channel):
        stub: Any = admin_pb2_grpc.AdminStub(channel)
        response = await stub.Status(pb.StatusRequest())
    assert [each.name for each in response.members] == ["n1"]


async def test_while_forming_it_names_whom_it_waits_for(stage: Stage) -> None:
    stage.replica.role = "forming"
    status = await stage.status()
    assert (status.role, status.leader) == ("forming", "")
    assert [(m.name, m.member_id, m.connected) for m in status.members] == [
        ("n1", 0x31, True),
        ("n2", 0x32, False),
    ]
    assert list(status.members[0].client_urls) == ["http://a:2379"]


async def test_a_digest_is_made_when_asked_for_and_once_a_state(stage: Stage) -> None:
    await stage.status()
    assert stage.digests == 0
    assert [(await stage.status(digest=True)).digest for _ in range(3)] == [b"digest"] * 3
    assert stage.digests == 1
    stage.replica.machine.apply_slot(1, [])
    await stage.status(digest=True)
    assert stage.digests == 2


async def test_garbage_gets_a_clean_status(stage: Stage) -> None:
    method: Any = stage.channel.unary_unary("/paxos_rsm.v1.Admin/Status")
    call = method(b"\xff\xff")
    assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_memory_is_told_where_the_system_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = resident_bytes()

    def missing(*_: Any) -> Any:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", missing)
    assert 0 < measured < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert resident_bytes() > measured // 2


async def test_who_votes_and_who_has_yet_to_come_is_said(stage: Stage) -> None:
    assert not (await stage.status()).learner  # of those that found a cluster each will vote
    learner = Member(1, 0x31, "n1", "http://a:2380", learner=True)
    pending = Member(0, 0x34, "", "http://d:2380", learner=True)
    members = (learner, *CONFIGURATION.members[1:], pending)
    stage.replica.configuration = Configuration(0xC1, members, QuorumSizes.majority(2))
    status = await stage.status()
    assert status.learner
    assert [(each.learner, each.joined) for each in status.members] == [
        (True, True),
        (False, True),
        (False, True),
        (True, False),
    ]
    stage.replica.configuration = Configuration(0xC1, CONFIGURATION.members[1:], QuorumSizes.majority(2))
    assert (await stage.status()).learner  # nobody counts it
    stage.replica.configuration = CONFIGURATION
    assert not (await stage.status()).learner


async def test_a_snapshot_is_taken_on_demand_and_its_refusal_is_said(stage: Stage) -> None:
    stub: Any = admin_pb2_grpc.AdminStub(stage.channel)
    taken = await stub.TakeSnapshot(pb.TakeSnapshotRequest())
    assert (taken.slot, taken.bytes) == (stage.replica.machine.applied_slot, 1_000)
    for error, code in (
        (Unavailable("later"), grpc.StatusCode.UNAVAILABLE),
        (DiskFull("no space"), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ):
        stage.replica.snapshot_error = error
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.TakeSnapshot(pb.TakeSnapshotRequest())
        assert refused.value.code() is code
        assert refused.value.details() == str(error)
