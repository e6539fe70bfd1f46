"""The Lease service over real gRPC: the log is one server's, the timers are what a test says."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from paxos_rsm._proto import kv_pb2 as kv
from paxos_rsm._proto import lease_pb2 as pb
from paxos_rsm.errors import UnknownOutcome
from paxos_rsm.machines.base import Timeout
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.types import LeaseRevoke, Put
from paxos_rsm.server import lease_service
from paxos_rsm.server.kv_service import KvService
from paxos_rsm.server.lease_service import IN_FLIGHT_MAX, SERVICES, LeaseService
from paxos_rsm.server.own_sessions import OwnSessions
from tests.unit.server.fakes import FakeReplica, etcd_calls, serving, until

Code = grpc.StatusCode

QUIET_S = 0.1
"""How long nothing more must be read where nothing should."""


class Stage:
    def __init__(self, replica: FakeReplica, own: OwnSessions, channel: grpc.aio.Channel) -> None:
        assert isinstance(replica.kv, KeyValueMachine)
        self.replica = replica
        self.own = own
        self.machine: KeyValueMachine = replica.kv
        self.channel = channel

    async def call(self, method: str, request: Any, service: str = SERVICES[1]) -> Any:
        kinds = {**vars(kv), **vars(pb)}
        rpc: Any = self.channel.unary_unary(f"/{service}/{method}")
        data = request if isinstance(request, bytes) else request.SerializeToString()
        return kinds[f"{method}Response"].FromString(await rpc(data))

    async def refused(self, method: str, request: Any) -> tuple[grpc.StatusCode, str | None]:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self.call(method, request)
        return raised.value.code(), raised.value.details()

    async def grant(self, ttl_s: int, lease: int = 0) -> int:
        granted = await self.call("LeaseGrant", kv.LeaseGrantRequest(TTL=ttl_s, ID=lease))
        return int(granted.ID)

    async def put(self, key: bytes, lease: int) -> None:
        rpc: Any = self.channel.unary_unary("/etcdserverpb.KV/Put")
        await rpc(kv.PutRequest(key=key, lease=lease).SerializeToString())

    def keep_alives(self, service: str = SERVICES[1]) -> Any:
        return self.channel.stream_stream(
            f"/{service}/LeaseKeepAlive",
            request_serializer=kv.LeaseKeepAliveRequest.SerializeToString,
            response_deserializer=kv.LeaseKeepAliveResponse.FromString,
        )()


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    replica = FakeReplica()
    calls, own = etcd_calls(replica, in_flight_max=1_000)
    assert isinstance(replica.kv, KeyValueMachine)
    handlers = [*LeaseService(replica, replica.kv, calls).handlers(), *KvService(calls).handlers()]
    async with serving(*handlers) as (_, channel):
        yield Stage(replica, own, channel)


@pytest.mark.parametrize("name", SERVICES)
async def test_a_life_under_both_names(stage: Stage, name: str) -> None:
    granted = await stage.call("LeaseGrant", kv.LeaseGrantRequest(TTL=60, ID=7), name)
    assert (granted.ID, granted.TTL, granted.error) == (7, 60, "")
    assert granted.header == kv.ResponseHeader(cluster_id=0xC1, member_id=0x31, revision=1, raft_term=7)
    await stage.put(b"b", 7)
    await stage.put(b"a", 7)
    stage.replica.remaining_ms[7] = 41_999
    left = await stage.call("LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=7, keys=True), name)
    assert (left.ID, left.TTL, left.grantedTTL, list(left.keys)) == (7, 41, 60, [b"a", b"b"])
    assert left.header.revision == 3
    assert not (await stage.call("LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=7), name)).keys
    call = stage.keep_alives(name)
    await call.write(kv.LeaseKeepAliveRequest(ID=7))
    kept = await call.read()
    assert (kept.ID, kept.TTL, kept.header.member_id) == (7, 60, 0x31)
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert [each.ID for each in (await stage.call("LeaseLeases", pb.LeaseLeasesRequest(), name)).leases] == [
        7
    ]
    revoked = await stage.call("LeaseRevoke", kv.LeaseRevokeRequest(ID=7), name)
    assert revoked.header.revision == 4
    assert len(stage.machine) == 0


async def test_an_id_is_drawn_where_none_is_given(stage: Stage) -> None:
    drawn = {await stage.grant(60) for _ in range(20)}
    assert len(drawn) == 20
    assert all(0 < lease < 2**63 for lease in drawn)


async def test_what_is_refused_is_refused_in_etcds_words(stage: Stage) -> None:
    await stage.grant(60, 7)
    exists = (Code.FAILED_PRECONDITION, "etcdserver: lease already exists")
    assert await stage.refused("LeaseGrant", kv.LeaseGrantRequest(TTL=60, ID=7)) == exists
    large = (Code.OUT_OF_RANGE, "etcdserver: too large lease TTL")
    assert await stage.refused("LeaseGrant", kv.LeaseGrantRequest(TTL=9_000_000_001)) == large
    gone = (Code.NOT_FOUND, "etcdserver: requested lease not found")
    assert await stage.refused("LeaseRevoke", kv.LeaseRevokeRequest(ID=8)) == gone
    for method in ("LeaseGrant", "LeaseRevoke", "LeaseTimeToLive", "LeaseLeases"):
        code, details = await stage.refused(method, b"\xff\xff")
        assert (code, "do not parse" in (details or "")) == (Code.INVALID_ARGUMENT, True)


async def test_of_a_lease_that_is_not_there_no_error_is_made(stage: Stage) -> None:
    left = await stage.call("LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=8, keys=True))
    assert (left.ID, left.TTL, left.grantedTTL) == (8, -1, 0)
    call = stage.keep_alives()
    await call.write(kv.LeaseKeepAliveRequest(ID=8))
    assert (await call.read()).TTL == 0


async def test_a_lease_that_nobody_watches_yet_has_all_its_time(stage: Stage) -> None:
    await stage.grant(60, 7)
    assert (await stage.call("LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=7))).TTL == 60


async def test_a_lease_runs_out_unless_it_was_kept_alive(stage: Stage) -> None:
    await stage.grant(60, 7)
    await stage.put(b"k", 7)
    call = stage.keep_alives()
    await call.write(kv.LeaseKeepAliveRequest(ID=7))
    assert (await call.read()).TTL == 60
    stage.replica.run_out(Timeout(7, 1))
    await call.write(kv.LeaseKeepAliveRequest(ID=7))
    assert (await call.read()).TTL == 60
    stage.replica.run_out(Timeout(7, 3))
    await until(lambda: not stage.machine.lease_ids())
    assert len(stage.machine) == 0
    await call.write(kv.LeaseKeepAliveRequest(ID=7))
    assert (await call.read()).TTL == 0


async def test_a_keep_alive_that_is_answered_late_says_whether_the_lease_is_there_still(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at a server that was cut off, which then hears of the keep-alive and of the end of the lease at once."""
    monkeypatch.setattr(lease_service, "LATE_SHARE", 0.0)
    await stage.grant(60, 7)
    call = stage.keep_alives()
    await call.write(kv.LeaseKeepAliveRequest(ID=7))
    assert (await call.read()).TTL == 60
    assert stage.replica.reads_asked == 1

    # The keep-alive's result is there before the lease ends, and its caller hears of both after that.
    def end() -> None:
        stage.machine.execute(LeaseRevoke(7))

    stage.replica.watch_applied(end)
    await call.write(kv.LeaseKeepAliveRequest(ID=7))
    assert (await call.read()).TTL == 0
    assert stage.replica.reads_asked == 2


async def test_a_keep_alive_that_is_answered_at_once_costs_no_further_round(stage: Stage) -> None:
    await stage.grant(60, 7)
    call = stage.keep_alives()
    await call.write(kv.LeaseKeepAliveRequest(ID=7))
    assert (await call.read()).TTL == 60
    assert stage.replica.reads_asked == 0


async def test_keep_alives_are_answered_in_order_however_many_there_are(stage: Stage) -> None:
    leases = [await stage.grant(60, lease) for lease in range(1, 6)]
    call = stage.keep_alives()
    asked = leases * (2 * IN_FLIGHT_MAX // len(leases))

    async def write() -> None:
        for lease in asked:
            await call.write(kv.LeaseKeepAliveRequest(ID=lease))
        await call.done_writing()

    writing = asyncio.create_task(write())
    answered = [each.ID async for each in call]
    await writing
    assert answered == asked


async def test_a_stream_that_asks_faster_than_the_log_answers_is_not_read_on(stage: Stage) -> None:
    await stage.grant(60, 7)
    stage.replica.hold()
    before = stage.machine._store.leases.armings
    call = stage.keep_alives()
    for _ in range(IN_FLIGHT_MAX + 50):
        await call.write(kv.LeaseKeepAliveRequest(ID=7))
    await until(lambda: stage.own.in_flight == IN_FLIGHT_MAX)
    await asyncio.sleep(QUIET_S)
    assert stage.own.in_flight == IN_FLIGHT_MAX
    stage.replica.release()
    await call.done_writing()
    assert len([each async for each in call]) == IN_FLIGHT_MAX + 50
    assert stage.machine._store.leases.armings == before + IN_FLIGHT_MAX + 50


async def test_a_failure_ends_the_stream_with_its_reason(stage: Stage) -> None:
    await stage.grant(60, 7)
    stage.replica.refuse_with = UnknownOutcome("the leader is gone")
    call = stage.keep_alives()
    await call.write(kv.LeaseKeepAliveRequest(ID=7))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call.read()
    assert raised.value.code() == Code.UNAVAILABLE
    assert "possibly due to previous leader failure" in (raised.value.details() or "")


async def test_garbage_on_the_stream_is_refused(stage: Stage) -> None:
    call: Any = stage.channel.stream_stream("/etcdserverpb.Lease/LeaseKeepAlive")()
    await call.write(b"\xff\xff")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call.read()
    assert raised.value.code() == Code.INVALID_ARGUMENT


async def test_a_client_that_leaves_leaves_nothing_behind(stage: Stage) -> None:
    await stage.grant(60, 7)
    tasks = len(asyncio.all_tasks())
    stage.replica.hold()
    call = stage.keep_alives()
    for _ in range(5):
        await call.write(kv.LeaseKeepAliveRequest(ID=7))
    await until(lambda: len(asyncio.all_tasks()) > tasks)
    call.cancel()
    stage.replica.release()
    await until(lambda: len(asyncio.all_tasks()) <= tasks)


async def test_a_lease_and_its_key_are_of_one_store(stage: Stage) -> None:
    await stage.grant(60, 7)
    await stage.put(b"k", 7)
    lease = stage.machine.lease(7)
    assert lease is not None
    assert lease.keys == [b"k"]
    stage.machine.execute(Put(b"k"))
    assert lease.keys == []
