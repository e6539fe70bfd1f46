"""A session service with its replica and clients, for the tests that tell what it does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from paxos_rsm._proto import kv_pb2
from paxos_rsm.server.session_service import SessionLimits, SessionService
from tests.unit.server.fakes import FRAME_BYTES_MAX, FakeReplica, SessionClient, serving

__all__ = ["CLUSTER", "EXHAUSTED", "INVALID", "MEMBER", "Stage", "revision_of", "staged"]

CLUSTER, MEMBER = 0xC1, 0x31
INVALID = grpc.StatusCode.INVALID_ARGUMENT.value[0]
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]


class Stage:
    """One service, its replica, and as many clients as a test wants."""

    def __init__(self, replica: FakeReplica, service: SessionService, channel: grpc.aio.Channel) -> None:
        self.replica = replica
        self.service = service
        self.channel = channel

    def client(self) -> SessionClient:
        return SessionClient(self.channel)

    async def opened(self) -> SessionClient:
        client = self.client()
        await client.open()
        return client


@asynccontextmanager
async def staged(
    *, results_bytes_max: int = 1 << 20, leaderless_ms: int = 100, replica: FakeReplica | None = None
) -> AsyncIterator[Stage]:
    replica = replica or FakeReplica()
    service = SessionService(
        replica,
        cluster_id=CLUSTER,
        member_id=MEMBER,
        limits=SessionLimits(FRAME_BYTES_MAX, results_bytes_max, leaderless_ms),
    )
    async with serving(service.handler()) as (_, channel):
        yield Stage(replica, service, channel)


def revision_of(result: bytes) -> int:
    return kv_pb2.KvResult.FromString(result).put.header.revision
