"""The standard services that tools expect of any gRPC server: health and reflection.

Health is SERVING while there is a leader, for the whole server (service "") and for each service alike. Anybody may
*watch* it; the servicer of grpcio-health-checking holds a lock while it writes to a watcher, so that one who does not
read would keep everybody else at an old status. Here each watcher has its own task and sees the newest status when
it is ready for it; the messages and the descriptors are those of that package.

Reflection lists the services that have descriptors, health and itself included. ``etcdserverpb.KV`` is not among
them: its messages are those of ``paxos_rsm.v1``, and a second set under etcd's names would clash with an etcd client in
the same process.
"""

import asyncio
from collections.abc import Iterable

import grpc
from grpc_health.v1 import health_pb2 as pb  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]

from paxos_rsm.errors import ResourceExhausted
from paxos_rsm.server.rpc import Context, StatusError, parse, service_handler, unary_handler, watch_handler

__all__ = ["SERVICE", "HealthService", "enable_reflection"]

SERVICE = "grpc.health.v1.Health"

WATCHERS_MAX = 1_000

SERVING: int = pb.HealthCheckResponse.SERVING
NOT_SERVING: int = pb.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN: int = pb.HealthCheckResponse.SERVICE_UNKNOWN


class HealthService:
    """Check and Watch."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = frozenset(["", *services])
        self._serving = False
        self._stopping = False
        self._changed = asyncio.Event()
        self._watchers = 0

    def handler(self) -> grpc.GenericRpcHandler:
        """What a gRPC server is given."""
        return service_handler(
            SERVICE, {"Check": unary_handler(self._check), "Watch": watch_handler(self._watch)}
        )

    def set_serving(self, serving: bool) -> None:
        """What every service says of itself from now on."""
        self._serving = serving
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def stop(self) -> None:
        """NOT_SERVING, for good; every Watch has said so when it ends."""
        self._stopping = True
        self.set_serving(False)

    def _status_of(self, service: str) -> int:
        if service not in self._services:
            return SERVICE_UNKNOWN
        return SERVING if self._serving and not self._stopping else NOT_SERVING

    async def _check(self, data: bytes, _context: Context) -> bytes:
        service = parse(pb.HealthCheckRequest, data).service
        status = self._status_of(service)
        if status == SERVICE_UNKNOWN:
            names = ", ".join(sorted(self._services - {""}))
            raise StatusError(grpc.StatusCode.NOT_FOUND, f"no service {service!r} here; there are: {names}")
        return _response(status)

    async def _watch(self, data: bytes, context: Context) -> None:
        service = parse(pb.HealthCheckRequest, data).service
        if self._watchers >= WATCHERS_MAX:
            raise ResourceExhausted(f"{self._watchers} callers watch this server's health already")
        self._watchers += 1
        try:
            last: int | None = None
            while True:
                # All of one moment: what happens during the write is the next round's.
                changed, stopping, status = self._changed, self._stopping, self._status_of(service)
                if status != last:
                    await context.write(_response(status))
                    last = status
                if stopping:
                    return
                await changed.wait()
        finally:
            self._watchers -= 1


def _response(status: int) -> bytes:
    return bytes(pb.HealthCheckResponse(status=status).SerializeToString())


def enable_reflection(server: grpc.aio.Server, services: Iterable[str]) -> None:
    """Serves the descriptors of ``services``, of the health service and of reflection itself."""
    reflection.enable_server_reflection((*services, SERVICE, reflection.SERVICE_NAME), server)
