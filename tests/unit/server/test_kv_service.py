"""The KV service over real gRPC, under both its names: results, headers, and errors in etcd's exact words."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm.errors import (
    LogIOError,
    PaxosRsmError,
    ResourceExhausted,
    SessionExpired,
    Unavailable,
    UnknownOutcome,
)
from paxos_rsm.server.etcd_calls import EtcdCalls
from paxos_rsm.server.kv_service import SERVICES, KvService
from paxos_rsm.server.own_sessions import OwnSessions
from paxos_rsm.server.rpc import length_delimited
from tests.unit.server.fakes import FRAME_BYTES_MAX, FakeReplica, etcd_calls, serving, until

CLUSTER, MEMBER = 0xC1, 0x31
REQUEST_BYTES_MAX = FRAME_BYTES_MAX - 1024

Code = grpc.StatusCode


class Client:
    """Calls by name, as bytes out and messages in: no stub stands between a test and the wire."""

    def __init__(self, channel: grpc.aio.Channel, service: str) -> None:
        self.channel = channel
        self.service = service

    async def call(self, method: str, request: Any, *, timeout: float | None = None) -> Any:
        response_type = getattr(pb, {"Compact": "Compaction"}.get(method, method) + "Response")
        data = request if isinstance(request, bytes) else request.SerializeToString()
        rpc: Any = self.channel.unary_unary(f"/{self.service}/{method}")
        return response_type.FromString(await rpc(data, timeout=timeout))

    async def put(self, key: bytes, value: bytes = b"", **more: Any) -> pb.PutResponse:
        response = await self.call("Put", pb.PutRequest(key=key, value=value, **more))
        assert isinstance(response, pb.PutResponse)
        return response

    async def refused(
        self, method: str, request: Any, *, timeout: float | None = None
    ) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self.call(method, request, timeout=timeout)
        return raised.value.code(), raised.value.details() or ""


class Stage:
    def __init__(
        self, replica: FakeReplica, own: OwnSessions, calls: EtcdCalls, channel: grpc.aio.Channel
    ) -> None:
        self.replica = replica
        self.own = own
        self.calls = calls
        self.channel = channel
        self.client = Client(channel, "etcdserverpb.KV")

    def waiting_for_a_leader(self) -> int:
        return len(self.calls._leadership._known._waiters)


@asynccontextmanager
async def staged(
    *, request_timeout_ms: int = 20_000, leaderless_ms: int = 100, in_flight_max: int = 100
) -> AsyncIterator[Stage]:
    replica = FakeReplica()
    calls, own = etcd_calls(
        replica,
        request_bytes_max=REQUEST_BYTES_MAX,
        request_timeout_ms=request_timeout_ms,
        leaderless_ms=leaderless_ms,
        in_flight_max=in_flight_max,
        cluster_id=CLUSTER,
        member_id=MEMBER,
    )
    async with serving(*KvService(calls).handlers()) as (_, channel):
        yield Stage(replica, own, calls, channel)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with staged() as each:
        yield each


# ---- results -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SERVICES)
async def test_every_method_under_both_names(stage: Stage, name: str) -> None:
    client = Client(stage.channel, name)
    put = await client.put(b"a", b"1")
    assert put.header == pb.ResponseHeader(cluster_id=CLUSTER, member_id=MEMBER, revision=2, raft_term=7)
    assert not put.HasField("prev_kv")
    again = await client.put(b"a", b"2", prev_kv=True)
    assert again.prev_kv.value == b"1"

    found = await client.call("Range", pb.RangeRequest(key=b"a"))
    assert found.header == pb.ResponseHeader(cluster_id=CLUSTER, member_id=MEMBER, revision=3, raft_term=7)
    assert [(kv.key, kv.value, kv.version) for kv in found.kvs] == [(b"a", b"2", 2)]

    compare = pb.Compare(key=b"a", target=pb.Compare.VALUE, result=pb.Compare.EQUAL, value=b"2")
    success = pb.RequestOp(request_put=pb.PutRequest(key=b"b", value=b"3"))
    txn = await client.call("Txn", pb.TxnRequest(compare=[compare], success=[success]))
    assert txn.succeeded
    assert txn.header.revision == txn.responses[0].response_put.header.revision == 4
    assert txn.header.member_id == MEMBER

    deleted = await client.call("DeleteRange", pb.DeleteRangeRequest(key=b"a", range_end=b"c", prev_kv=True))
    assert (deleted.deleted, len(deleted.prev_kvs), deleted.header.revision) == (2, 2, 5)

    compacted = await client.call("Compact", pb.CompactionRequest(revision=4, physical=True))
    assert (compacted.header.revision, compacted.header.cluster_id) == (5, CLUSTER)


async def test_reads_do_not_go_through_the_log(stage: Stage) -> None:
    await stage.client.put(b"a", b"1")
    slot = stage.replica.machine.applied_slot
    await stage.client.call("Range", pb.RangeRequest(key=b"a"))
    inner = pb.RequestOp(request_range=pb.RangeRequest(key=b"a"))
    txn = await stage.client.call("Txn", pb.TxnRequest(success=[inner]))
    assert txn.responses[0].response_range.kvs[0].value == b"1"
    assert stage.replica.machine.applied_slot == slot
    assert stage.replica.reads_asked == 2


async def test_a_serializable_read_asks_nobody(stage: Stage) -> None:
    await stage.client.put(b"a", b"1")
    stage.replica.set_leader(False)
    found = await stage.client.call("Range", pb.RangeRequest(key=b"a", serializable=True))
    assert found.kvs[0].value == b"1"
    inner = pb.RequestOp(request_range=pb.RangeRequest(key=b"a", serializable=True))
    await stage.client.call("Txn", pb.TxnRequest(success=[inner]))
    assert stage.replica.reads_asked == 0


async def test_calls_at_once_are_joined() -> None:
    async with staged(leaderless_ms=60_000) as stage:
        await joined(stage)


async def joined(stage: Stage) -> None:
    stage.replica.set_leader(False)
    calls = [asyncio.create_task(stage.client.put(b"k%d" % i, b"v")) for i in range(50)]
    await until(lambda: stage.waiting_for_a_leader() == 50)
    stage.replica.set_leader(True)
    await asyncio.gather(*calls)
    assert sum(count for _, _, count in stage.replica.submitted) == 50
    assert len(stage.replica.submitted) < 10


async def test_a_request_at_the_limit_is_taken(stage: Stage) -> None:
    request = pb.PutRequest(key=b"k", value=b"x" * REQUEST_BYTES_MAX)
    request.value = b"x" * (2 * REQUEST_BYTES_MAX - request.ByteSize())
    assert request.ByteSize() == REQUEST_BYTES_MAX
    await stage.client.call("Put", request)


# ---- errors, in etcd's words -------------------------------------------------------------------------------


def puts(*keys: bytes) -> list[pb.RequestOp]:
    return [pb.RequestOp(request_put=pb.PutRequest(key=key)) for key in keys]


EMPTY_KEY = "etcdserver: key is not provided"
TOO_LARGE = "etcdserver: request is too large"
TOO_MANY = "etcdserver: too many operations in txn request"
DUPLICATE = "etcdserver: duplicate key given in txn request"


@pytest.mark.parametrize(
    ("method", "request_", "details"),
    [
        ("Put", pb.PutRequest(), EMPTY_KEY),
        ("Range", pb.RangeRequest(), EMPTY_KEY),
        ("DeleteRange", pb.DeleteRangeRequest(), EMPTY_KEY),
        ("Txn", pb.TxnRequest(compare=[pb.Compare()]), EMPTY_KEY),
        ("Put", pb.PutRequest(key=b"k", value=b"x" * REQUEST_BYTES_MAX), TOO_LARGE),
        ("Put", pb.PutRequest(key=b"x" * REQUEST_BYTES_MAX), TOO_LARGE),
        ("Put", pb.PutRequest(key=b"k", value=b"x" * 3_000_000), TOO_LARGE),
        ("Put", pb.PutRequest(key=b"k", value=b"v", ignore_value=True), "etcdserver: value is provided"),
        ("Put", pb.PutRequest(key=b"k", lease=1, ignore_lease=True), "etcdserver: lease is provided"),
        ("Txn", pb.TxnRequest(success=puts(*(b"%d" % i for i in range(129)))), TOO_MANY),
        ("Txn", pb.TxnRequest(failure=puts(*(b"%d" % i for i in range(129)))), TOO_MANY),
        ("Txn", pb.TxnRequest(success=puts(b"a", b"a")), DUPLICATE),
        ("Txn", pb.TxnRequest(success=[pb.RequestOp()]), "etcdserver: key not found"),
        ("Range", pb.RangeRequest(key=b"k", sort_order=99), "etcdserver: invalid sort option"),  # type: ignore[arg-type]
    ],
)
async def test_what_is_malformed_is_refused_before_the_log(
    stage: Stage, method: str, request_: Any, details: str
) -> None:
    await until(lambda: stage.replica.machine.session_count == 8)
    slot = stage.replica.machine.applied_slot
    assert await stage.client.refused(method, request_) == (Code.INVALID_ARGUMENT, details)
    assert stage.replica.machine.applied_slot == slot


async def test_128_operations_are_taken(stage: Stage) -> None:
    txn = pb.TxnRequest(success=puts(*(b"%d" % i for i in range(128))))
    assert len((await stage.client.call("Txn", txn)).responses) == 128


COMPACTED = "etcdserver: mvcc: required revision has been compacted"
FUTURE = "etcdserver: mvcc: required revision is a future revision"


async def test_revisions_out_of_range(stage: Stage) -> None:
    client = stage.client
    for value in (b"1", b"2", b"3"):
        await client.put(b"a", value)
    await client.call("Compact", pb.CompactionRequest(revision=3))
    assert await client.refused("Range", pb.RangeRequest(key=b"a", revision=2)) == (
        Code.OUT_OF_RANGE,
        COMPACTED,
    )
    assert await client.refused("Range", pb.RangeRequest(key=b"a", revision=9)) == (Code.OUT_OF_RANGE, FUTURE)
    assert await client.refused("Compact", pb.CompactionRequest(revision=3)) == (Code.OUT_OF_RANGE, COMPACTED)
    assert await client.refused("Compact", pb.CompactionRequest(revision=9)) == (Code.OUT_OF_RANGE, FUTURE)
    assert (await client.call("Range", pb.RangeRequest(key=b"a", revision=3))).kvs[0].value == b"2"


async def test_a_missing_lease_is_not_found(stage: Stage) -> None:
    code, details = await stage.client.refused("Put", pb.PutRequest(key=b"k", lease=5))
    assert (code, details) == (Code.NOT_FOUND, "etcdserver: requested lease not found")


@pytest.mark.parametrize("method", ["Range", "Put", "DeleteRange", "Txn", "Compact"])
@pytest.mark.parametrize(
    "garbage", [b"\xff" * 40, b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x05ab", b"\x12" * 3], ids=repr
)
async def test_garbage_gets_a_clean_status(
    stage: Stage, method: str, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    code, details = await stage.client.refused(method, garbage)
    assert code == Code.INVALID_ARGUMENT
    assert "do not parse as a paxos_rsm.v1." in details
    assert not caplog.records
    await stage.client.put(b"a", b"1")


async def test_deep_nesting_gets_a_clean_status(stage: Stage) -> None:
    for depth in (40, 90, 500):
        txn = pb.TxnRequest().SerializeToString()
        for _ in range(depth):
            op = length_delimited(4, txn)  # RequestOp.request_txn
            txn = length_delimited(2, op)  # TxnRequest.success
        code, _ = await stage.client.refused("Txn", txn)
        assert code == Code.INVALID_ARGUMENT
    await stage.client.put(b"a", b"1")


async def test_no_leader_is_said_in_time_and_nothing_is_executed(stage: Stage) -> None:
    stage.replica.set_leader(False)
    no_leader = (Code.UNAVAILABLE, "etcdserver: no leader")
    assert await stage.client.refused("Put", pb.PutRequest(key=b"a")) == no_leader
    assert await stage.client.refused("Range", pb.RangeRequest(key=b"a")) == no_leader
    stage.replica.set_leader(True)
    assert (await stage.client.put(b"b")).header.revision == 2


async def test_a_deadline_shorter_than_an_election_gets_a_reason_too() -> None:
    async with staged(leaderless_ms=60_000) as stage:
        stage.replica.set_leader(False)
        refused = await stage.client.refused("Put", pb.PutRequest(key=b"a"), timeout=0.5)
        assert refused == (Code.UNAVAILABLE, "etcdserver: no leader")


async def test_an_election_is_waited_for() -> None:
    async with staged(leaderless_ms=60_000) as stage:
        stage.replica.set_leader(False)
        put = asyncio.create_task(stage.client.put(b"a", b"1"))
        read = asyncio.create_task(stage.client.call("Range", pb.RangeRequest(key=b"a")))
        await until(lambda: stage.waiting_for_a_leader() == 2)
        stage.replica.set_leader(True)
        assert (await put).header.revision == 2
        await read


async def test_a_time_out_of_the_server_is_etcds() -> None:
    async with staged(request_timeout_ms=100) as stage:
        await stage.client.put(b"a", b"1")
        stage.replica.hold()
        timed_out = (Code.UNAVAILABLE, "etcdserver: request timed out")
        assert await stage.client.refused("Put", pb.PutRequest(key=b"a", value=b"2")) == timed_out
        assert await stage.client.refused("Range", pb.RangeRequest(key=b"a")) == timed_out
        # It is not taken back: the number has been used.
        stage.replica.release()
        found = await stage.client.call("Range", pb.RangeRequest(key=b"a"))
        assert found.kvs[0].value == b"2"
        assert stage.own.in_flight == 0


async def test_a_deadline_of_the_client_takes_nothing_back(stage: Stage) -> None:
    await stage.client.put(b"a", b"1")
    stage.replica.hold()
    code, _ = await stage.client.refused("Put", pb.PutRequest(key=b"a", value=b"2"), timeout=0.1)
    assert code == Code.DEADLINE_EXCEEDED
    assert stage.own.in_flight == 1
    stage.replica.release()
    await stage.client.put(b"b", b"1")
    found = await stage.client.call("Range", pb.RangeRequest(key=b"a"))
    assert found.kvs[0].value == b"2"
    assert stage.own.in_flight == 0


async def test_a_reader_that_leaves_does_not_cancel_the_others(stage: Stage) -> None:
    # As in the real loop, where the readers of one turn share one future.
    shared: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    asked = 0

    def read() -> "asyncio.Future[int]":
        nonlocal asked
        asked += 1
        return shared

    stage.replica.read = read  # type: ignore[method-assign]
    stays = asyncio.create_task(stage.client.call("Range", pb.RangeRequest(key=b"a")))
    code, _ = await stage.client.refused("Range", pb.RangeRequest(key=b"a"), timeout=0.1)
    assert (code, asked) == (Code.DEADLINE_EXCEEDED, 2)
    shared.set_result(1)
    await stays


async def test_too_many_requests() -> None:
    async with staged(in_flight_max=2) as stage:
        stage.replica.hold()
        held = [asyncio.create_task(stage.client.put(b"a")) for _ in range(2)]
        await until(lambda: stage.own.in_flight == 2)
        too_many = (Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests")
        assert await stage.client.refused("Put", pb.PutRequest(key=b"a")) == too_many
        stage.replica.release()
        await asyncio.gather(*held)


@pytest.mark.parametrize(
    ("error", "code", "details"),
    [
        (ResourceExhausted("full"), Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests"),
        (Unavailable("lost"), Code.UNAVAILABLE, "etcdserver: request timed out"),
        (
            UnknownOutcome("lost"),
            Code.UNAVAILABLE,
            "etcdserver: request timed out, possibly due to previous leader failure",
        ),
        (
            SessionExpired("gone"),
            Code.UNAVAILABLE,
            "etcdserver: request timed out, possibly due to previous leader failure",
        ),
        (LogIOError("the disk"), Code.INTERNAL, "paxos_rsm: the disk"),
    ],
)
async def test_errors_of_the_replica(
    stage: Stage, error: PaxosRsmError, code: grpc.StatusCode, details: str
) -> None:
    await stage.client.put(b"a")
    stage.replica.refuse_with = error
    assert await stage.client.refused("Put", pb.PutRequest(key=b"a")) == (code, details)
    stage.replica.read_error = error
    assert await stage.client.refused("Range", pb.RangeRequest(key=b"a")) == (code, details)


async def test_an_expired_session_of_the_server_is_an_unknown_outcome(stage: Stage) -> None:
    await stage.client.put(b"a", b"1")
    stage.replica.hold()
    in_flight = asyncio.create_task(stage.client.refused("Put", pb.PutRequest(key=b"a")))
    await until(lambda: stage.own.in_flight == 1)
    for info in stage.replica.machine.sessions():
        stage.replica.expire(info.session)
    code, details = await in_flight
    assert code == Code.UNAVAILABLE
    assert details == "etcdserver: request timed out, possibly due to previous leader failure"


async def test_a_server_that_stops_says_so(stage: Stage) -> None:
    stage.calls.stopping = True
    stopped = (Code.UNAVAILABLE, "etcdserver: server stopped")
    assert await stage.client.refused("Put", pb.PutRequest(key=b"a")) == stopped
    assert await stage.client.refused("Range", pb.RangeRequest(key=b"a")) == stopped


async def test_a_bug_is_logged_and_hidden(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    def broken(request: bytes) -> bytes:
        raise RuntimeError("a secret")

    stage.replica.query = broken  # type: ignore[method-assign]
    code, details = await stage.client.refused("Range", pb.RangeRequest(key=b"a"))
    assert code == Code.INTERNAL
    assert "secret" not in details
    assert "secret" in caplog.text
