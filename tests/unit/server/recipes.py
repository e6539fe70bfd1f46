"""The services of locks and elections over real gRPC, on a replica without a cluster."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from paxos_rsm._proto import election_pb2, lock_pb2
from paxos_rsm.machines.base import Position, Timeout
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.types import KeyValue, LeaseGrant, Range, RangeResult
from paxos_rsm.server.election_service import ElectionService
from paxos_rsm.server.etcd_calls import EtcdCalls
from paxos_rsm.server.key_queue import KeyQueue
from paxos_rsm.server.local_kv import LocalKv
from paxos_rsm.server.lock_service import LockService
from paxos_rsm.server.own_sessions import OwnSessions
from paxos_rsm.server.watch_hub import WatchHub
from tests.unit.server.fakes import FRAME_BYTES_MAX, FakeReplica, etcd_calls, serving, until

__all__ = ["Stage", "staged", "until"]

HERE = Position(1, 0)


class Stage:
    """A server's services, and a caller."""

    def __init__(self, replica: FakeReplica, calls: EtcdCalls, own: OwnSessions) -> None:
        machine = replica.kv
        assert isinstance(machine, KeyValueMachine)
        self.replica = replica
        self.calls = calls
        self.own = own
        self.machine = machine
        self.hub = WatchHub(replica, machine)
        self.kv = LocalKv(machine, own, calls, FRAME_BYTES_MAX - 1024)
        self.queue = KeyQueue(self.kv, self.hub)
        self.locks = LockService(self.kv, self.queue)
        self.elections = ElectionService(self.kv, self.queue, self.hub)
        self.channel: grpc.aio.Channel
        self.lock_name = "v3lockpb.Lock"
        self.election_name = "v3electionpb.Election"

    def lease(self, number: int) -> int:
        """A lease that nobody keeps alive, and no clock ends."""
        self.machine.execute(LeaseGrant(60, number))
        return number

    def run_out(self, number: int) -> None:
        """The log says that a lease has ended."""
        lease = self.machine.lease(number)
        assert lease is not None
        self.replica.run_out(Timeout(number, lease.armed))

    def keys(self, prefix: bytes) -> list[KeyValue]:
        result = self.machine.execute_query(Range(prefix, prefix + b"\xff"))
        assert isinstance(result, RangeResult)
        return list(result.kvs)

    def waiting(self) -> int:
        """Callers that stand in a queue, not first."""
        return len(self.queue._waiting)

    def call(self, path: str, data: bytes, **more: Any) -> Any:
        rpc: Any = self.channel.unary_unary(path)
        return rpc(data, **more)

    def lock(self, name: bytes, lease: int = 0, **more: Any) -> Any:
        data = lock_pb2.LockRequest(name=name, lease=lease).SerializeToString()
        return self.call(f"/{self.lock_name}/Lock", data, **more)

    async def unlock(self, key: bytes) -> lock_pb2.UnlockResponse:
        data = lock_pb2.UnlockRequest(key=key).SerializeToString()
        return lock_pb2.UnlockResponse.FromString(await self.call(f"/{self.lock_name}/Unlock", data))

    def campaign(self, name: bytes, lease: int, value: bytes, **more: Any) -> Any:
        data = election_pb2.CampaignRequest(name=name, lease=lease, value=value).SerializeToString()
        return self.call(f"/{self.election_name}/Campaign", data, **more)

    def proclaim(self, leader: election_pb2.LeaderKey | None, value: bytes) -> Any:
        data = election_pb2.ProclaimRequest(leader=leader, value=value).SerializeToString()
        return self.call(f"/{self.election_name}/Proclaim", data)

    def resign(self, leader: election_pb2.LeaderKey | None) -> Any:
        data = election_pb2.ResignRequest(leader=leader).SerializeToString()
        return self.call(f"/{self.election_name}/Resign", data)

    def leader(self, name: bytes) -> Any:
        data = election_pb2.LeaderRequest(name=name).SerializeToString()
        return self.call(f"/{self.election_name}/Leader", data)

    def observe(self, name: bytes) -> Any:
        data = election_pb2.LeaderRequest(name=name).SerializeToString()
        rpc: Any = self.channel.unary_stream(f"/{self.election_name}/Observe")
        return rpc(data)


@asynccontextmanager
async def staged(*, leader: bool = True, request_timeout_ms: int = 20_000) -> AsyncIterator[Stage]:
    replica = FakeReplica(leader=leader)
    calls, own = etcd_calls(replica, request_timeout_ms=request_timeout_ms)
    stage = Stage(replica, calls, own)
    async with serving(*stage.locks.handlers(), *stage.elections.handlers()) as (_, channel):
        stage.channel = channel
        try:
            yield stage
        finally:
            await stage.queue.drain(5.0)
            own.close()
