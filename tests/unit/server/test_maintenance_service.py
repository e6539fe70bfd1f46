"""The Maintenance service over real gRPC, under both its names."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from paxos_rsm._proto import maintenance_pb2 as pb
from paxos_rsm.codec.kv import KvCodec
from paxos_rsm.machines.base import Position, SimpleMachine
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.types import Compact, DeleteRange, Put, SetQuota
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.quorum import QuorumSizes
from paxos_rsm.server.headers import Headers
from paxos_rsm.server.maintenance_service import (
    BLOB_BYTES,
    DISK_FULL,
    ETCD_VERSION,
    SERVICES,
    MaintenanceService,
)
from paxos_rsm.storage.backup_format import BackupHead, check_backup, read_slices
from paxos_rsm.storage.memory import MemoryFiles
from tests.unit.server.fakes import FakeReplica, etcd_calls, serving

Code = grpc.StatusCode


class Stage:
    def __init__(self, replica: FakeReplica, machine: KeyValueMachine, channel: grpc.aio.Channel) -> None:
        self.replica = replica
        self.machine = machine
        self.channel = channel

    async def call(self, method: str, request: Any = b"", service: str = SERVICES[1]) -> Any:
        names = {"Status": "EndpointStatus"}
        data = request if isinstance(request, bytes) else request.SerializeToString()
        rpc: Any = self.channel.unary_unary(f"/{service}/{method}")
        return getattr(pb, names.get(method, method) + "Response").FromString(await rpc(data))

    async def refused(self, method: str, request: Any = b"") -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self.call(method, request)
        return raised.value.code(), raised.value.details() or ""

    async def snapshot(self, service: str = SERVICES[1]) -> list[pb.SnapshotResponse]:
        rpc: Any = self.channel.unary_stream(f"/{service}/Snapshot")
        return [pb.SnapshotResponse.FromString(data) async for data in rpc(b"")]


@asynccontextmanager
async def staged(leader: bool = True) -> AsyncIterator[Stage]:
    replica = FakeReplica(leader=leader)
    machine = replica.kv
    assert isinstance(machine, KeyValueMachine)
    calls, _ = etcd_calls(replica)
    service = MaintenanceService(replica, machine, calls.headers, calls.read_index)
    async with serving(*service.handlers()) as (_, channel):
        yield Stage(replica, machine, channel)


@pytest.mark.parametrize("service", SERVICES)
async def test_status_tells_the_log_and_the_leader_by_its_member_id(service: str) -> None:
    async with staged() as stage:
        members = (Member(1, 0x39, "n1", "http://a:2380"), Member(2, 0x31, "n2", "http://b:2380"))
        stage.replica.configuration = Configuration(0xC1, members, QuorumSizes.majority(2))
        status = await stage.call("Status", service=service)
    assert status.header.member_id == 0x31
    assert status.version == ETCD_VERSION
    assert status.leader == 0x39
    assert (status.dbSize, status.dbSizeInUse, status.dbSizeQuota) == (12_345, 0, 0)
    assert status.raftTerm == 7
    assert status.raftIndex == status.raftAppliedIndex == stage.replica.machine.applied_slot
    assert not status.errors
    assert not status.isLearner


async def test_status_without_a_leader_says_so() -> None:
    async with staged(leader=False) as stage:
        status = await stage.call("Status")
    assert status.leader == 0
    assert list(status.errors) == ["etcdserver: no leader"]


async def test_without_a_reason_there_is_no_alarm_and_none_can_be_set() -> None:
    async with staged() as stage:
        assert not (await stage.call("Alarm")).alarms
        request = pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, alarm=pb.NOSPACE)
        code, words = await stage.refused("Alarm", request)
        assert code == Code.UNIMPLEMENTED
        assert "each says what is so" in words


async def test_a_full_state_is_an_alarm_that_ends_when_there_is_room() -> None:
    async with staged() as stage:
        stage.machine.execute(Put(b"k", b"v"))
        stage.machine.execute(SetQuota(stage.machine.state_bytes))
        before = stage.replica.reads_asked
        (alarm,) = (await stage.call("Alarm")).alarms
        assert (alarm.memberID, alarm.alarm) == (0x31, pb.NOSPACE)
        assert stage.replica.reads_asked > before, "what it says is as new as the question"
        assert len((await stage.call("Alarm", pb.AlarmRequest(alarm=pb.NOSPACE))).alarms) == 1
        assert not (await stage.call("Alarm", pb.AlarmRequest(alarm=pb.CORRUPT))).alarms
        status = await stage.call("Status")
        assert list(status.errors) == ["memberID:49 alarm:NOSPACE "]
        assert status.dbSizeInUse == status.dbSizeQuota == stage.machine.state_bytes > 0
        disarm = pb.AlarmRequest(action=pb.AlarmRequest.DEACTIVATE, alarm=pb.NOSPACE)
        assert not (await stage.call("Alarm", disarm)).alarms
        assert (await stage.call("Alarm")).alarms, "there is no room yet"
        stage.machine.execute(DeleteRange(b"k"))
        stage.machine.execute(Compact(stage.machine.revision))
        assert not (await stage.call("Alarm")).alarms
        assert not (await stage.call("Status")).errors


async def test_a_member_whose_state_differs_is_an_alarm() -> None:
    async with staged() as stage:
        members = (Member(1, 0x39, "n1", "http://a:2380"), Member(2, 0x32, "n2", "http://b:2380"))
        stage.replica.configuration = Configuration(0xC1, members, QuorumSizes.majority(2))
        stage.replica.divergent = frozenset({2, 77})
        (alarm,) = (await stage.call("Alarm")).alarms
        assert (alarm.memberID, alarm.alarm) == (0x32, pb.CORRUPT)
        assert list((await stage.call("Status")).errors) == ["memberID:50 alarm:CORRUPT "]


async def test_a_full_disk_is_among_its_members_errors() -> None:
    async with staged() as stage:
        stage.replica.disk_full = True
        assert list((await stage.call("Status")).errors) == [DISK_FULL]
        assert not (await stage.call("Alarm")).alarms, (
            "other members take puts, and so does this one for them"
        )


async def test_defragment_has_nothing_to_do() -> None:
    async with staged() as stage:
        before = stage.machine.digest()
        assert (await stage.call("Defragment")).header.cluster_id == 0xC1
        assert stage.machine.digest() == before


async def test_status_tells_who_has_no_vote() -> None:
    async with staged() as stage:
        assert not (await stage.call("Status")).isLearner
        for learner in (True, False):
            me = Member(2, 0x31, "n2", "http://b:2380", learner=learner)
            members = (Member(1, 0x39, "n1", "http://a:2380"), me)
            stage.replica.configuration = Configuration(0xC1, members, QuorumSizes.majority(2 - learner))
            assert (await stage.call("Status")).isLearner is learner


THREE = Configuration(
    0xC1,
    (
        Member(1, 0x39, "n1", "http://a:2380"),
        Member(2, 0x32, "n2", "http://b:2380"),
        Member(3, 0x33, "n3", "http://c:2380", learner=True),
        Member(0, 0x34, "", "http://d:2380", learner=True),
    ),
    QuorumSizes.majority(2),
)


async def test_leadership_is_moved_by_the_leader_to_another_voter() -> None:
    async with staged() as stage:
        stage.replica.configuration, stage.replica.heir = THREE, 2
        response = await stage.call("MoveLeader", pb.MoveLeaderRequest(targetID=0x32))
        assert response.header.cluster_id == 0xC1
        assert stage.replica.handed_over == [2]
        await stage.call("MoveLeader", pb.MoveLeaderRequest(targetID=0x39))  # it leads already
        assert stage.replica.handed_over == [2]


@pytest.mark.parametrize("target", [0, 0x33, 0x34, 0x35, (1 << 64) - 1])
async def test_nobody_but_a_voter_is_given_the_leadership(target: int) -> None:
    async with staged() as stage:
        stage.replica.configuration, stage.replica.heir = THREE, 3
        ended = await stage.refused("MoveLeader", pb.MoveLeaderRequest(targetID=target))
        assert ended == (Code.FAILED_PRECONDITION, "etcdserver: bad leader transferee")
        assert stage.replica.handed_over == []


async def test_who_does_not_lead_hands_nothing_over() -> None:
    async with staged() as stage:
        ended = await stage.refused("MoveLeader", pb.MoveLeaderRequest(targetID=0x39))
        assert ended == (Code.FAILED_PRECONDITION, "etcdserver: not leader")
        stage.replica.configuration, stage.replica.role = THREE, "follower"
        ended = await stage.refused("MoveLeader", pb.MoveLeaderRequest(targetID=0x39))
        assert ended == (Code.FAILED_PRECONDITION, "etcdserver: not leader")
        assert stage.replica.handed_over == []


async def test_a_leadership_that_nobody_took_is_said() -> None:
    async with staged() as stage:
        stage.replica.configuration = THREE
        ended = await stage.refused("MoveLeader", pb.MoveLeaderRequest(targetID=0x32))
        assert ended == (
            Code.UNAVAILABLE,
            "etcdserver: request timed out, leader transfer took too long",
        )


async def test_hashes_follow_the_state() -> None:
    async with staged() as stage:
        empty = await stage.call("Hash")
        stage.machine.execute(Put(b"a", b"1"))
        one, kv_one = await stage.call("Hash"), await stage.call("HashKV")
        stage.machine.execute(Put(b"a", b"2"))
        kv_two, kv_again = (
            await stage.call("HashKV"),
            await stage.call("HashKV", pb.HashKVRequest(revision=2)),
        )
        assert empty.hash != one.hash
        assert one.header.revision == kv_one.header.revision == 2
        assert kv_one.compact_revision == -1
        assert kv_again.hash == kv_one.hash != kv_two.hash
        assert kv_again.header.revision == 3


async def test_a_hash_at_a_revision_that_is_not_there_is_refused_in_etcds_words() -> None:
    async with staged() as stage:
        for value in (b"1", b"2"):
            stage.machine.execute(Put(b"a", value))
        stage.machine.execute(Compact(2))
        assert (await stage.call("HashKV", pb.HashKVRequest(revision=3))).compact_revision == 2
        answers = [await stage.refused("HashKV", pb.HashKVRequest(revision=each)) for each in (2, 4)]
    assert answers == [
        (Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted"),
        (Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision"),
    ]


def backup_in(data: bytes) -> tuple[BackupHead, list[bytes]]:
    """The head and the slices of a whole backup."""
    files = MemoryFiles()
    file = files.create("/backup", 0)
    file.pwrite(data, 0)
    backup = check_backup(file, "/backup")
    return backup.head, list(read_slices(file, backup))


@pytest.mark.parametrize("service", SERVICES)
async def test_a_snapshot_restores_and_ends_with_its_hash(service: str) -> None:
    async with staged() as stage:
        for number in range(2_000):
            stage.machine.execute(Put(b"key%d" % number, b"v" * 100))
        blobs = await stage.snapshot(service)
        expected = stage.machine.digest()
    assert all(len(each.blob) <= BLOB_BYTES for each in blobs)
    assert len(blobs) > 3
    whole, last = b"".join(each.blob for each in blobs[:-1]), blobs[-1]
    assert last.blob == hashlib.sha256(whole).digest()
    # etcd's tools take a file for whole only where this holds.
    assert (len(whole) + len(last.blob)) % 512 == 32
    left = len(whole)
    for each in blobs[:-1]:
        left -= len(each.blob)
        assert each.remaining_bytes == left
    assert last.remaining_bytes == left == 0
    head, slices = backup_in(whole + last.blob)
    assert (head.revision, head.keys) == (blobs[0].header.revision, 2_000) == (2_001, 2_000)
    assert (head.cluster_id, head.version) == (0xC1, 2)
    restored = KeyValueMachine(KvCodec())
    restored.restore(slices)
    assert restored.digest() == expected


async def test_what_is_written_while_a_snapshot_is_read_is_not_in_it() -> None:
    async with staged() as stage:
        for number in range(4_000):
            stage.machine.execute(Put(b"key%d" % number, b"v" * 1_000))
        expected = stage.machine.digest()
        rpc: Any = stage.channel.unary_stream("/etcdserverpb.Maintenance/Snapshot")
        call = rpc(b"")
        whole = pb.SnapshotResponse.FromString(await call.read()).blob
        stage.machine.execute(Put(b"key1", b"changed"))
        while (data := await call.read()) is not grpc.aio.EOF:
            whole += pb.SnapshotResponse.FromString(data).blob
    restored = KeyValueMachine(KvCodec())
    restored.restore(backup_in(whole)[1])
    assert restored.digest() == expected


async def test_a_snapshot_needs_a_leader_and_there_are_only_some_at_once() -> None:
    async with staged() as stage:
        stage.replica.hold()
        reading = [asyncio.create_task(stage.snapshot()) for _ in range(5)]
        done, _ = await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
        error = done.pop().exception()
        assert isinstance(error, grpc.aio.AioRpcError)
        assert error.code() == Code.RESOURCE_EXHAUSTED
        stage.replica.release()
        ended = await asyncio.gather(*reading, return_exceptions=True)
        assert [type(each) for each in ended].count(list) == 4
        stage.replica.set_leader(False)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stage.snapshot()
        assert (raised.value.code(), raised.value.details()) == (Code.UNAVAILABLE, "etcdserver: no leader")


class Counter(SimpleMachine):
    def __init__(self) -> None:
        self.total = 0

    def apply(self, command: bytes, at: Position) -> bytes:
        return b""

    def query(self, request: bytes) -> bytes:
        return b""

    def dump(self) -> bytes:
        return b"%d" % self.total

    def load(self, state: bytes) -> None:
        self.total = int(state)


async def test_another_state_machine_has_everything_but_revisions() -> None:
    machine = Counter()
    replica = FakeReplica(machine)

    async def read_index(_context: object) -> None:
        await replica.read()

    service = MaintenanceService(replica, machine, Headers(replica, 0xC1, 0x31, lambda: 0), read_index)
    async with serving(*service.handlers()) as (_, channel):
        stage = Stage(replica, KeyValueMachine(KvCodec()), channel)
        before = (await stage.call("Hash")).hash
        machine.total = 1
        assert (await stage.call("Hash")).hash != before
        code, words = await stage.refused("HashKV")
        assert code == Code.UNIMPLEMENTED
        assert "Counter" in words
        whole = b"".join(each.blob for each in await stage.snapshot())
        head, slices = backup_in(whole)
        assert (slices, head.keys, head.machine) == ([b"1"], None, f"{__name__}:Counter")
        await stage.call("Status")


@pytest.mark.parametrize("method", ["Status", "Alarm", "Defragment", "Hash", "HashKV", "MoveLeader"])
async def test_garbage_is_refused(method: str) -> None:
    async with staged() as stage:
        assert (await stage.refused(method, b"\xff\xff"))[0] == Code.INVALID_ARGUMENT
