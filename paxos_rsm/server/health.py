"""The standard services that tools expect of any gRPC server: health and reflection.

Health is SERVING while there is a leader and the state is here, for the whole server (service "") and for each service
alike: a server whose state has yet to come, or is being replaced by that of another, answers nobody, and nobody should
be sent to it. Nor to one that has started and is behind: it is SERVING from the first linearizable read on that works
there, so that whoever restarts servers one after the other may wait for it. ``readiness`` says the same, and
``liveness`` is SERVING until the server stops: these are the names that Kubernetes gives its probes, and a server that
waits for its state or for a leader is not helped by being killed.

Anybody may *watch* it; the servicer of grpcio-health-checking holds a lock while it writes to a watcher, so that one
who does not read would keep everybody else at an old status. Here each watcher has its own task and sees the newest
status when it is ready for it; the messages and the descriptors are those of that package.

Reflection lists the services that have descriptors, health and itself included. ``etcdserverpb.KV`` is not among
them: its messages are those of ``paxos_rsm.v1``, and a second set under etcd's names would clash with an etcd client in
the same process.
"""

import asyncio
from collections.abc import Callable, Iterable

import grpc
from grpc_health.v1 import health_pb2 as pb  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]

from paxos_rsm.errors import PaxosRsmError, ResourceExhausted
from paxos_rsm.server.rpc import Context, StatusError, parse, service_handler, unary_handler, watch_handler

__all__ = ["SERVICE", "HealthService", "enable_reflection"]

SERVICE = "grpc.health.v1.Health"

LIVENESS = "liveness"
READINESS = "readiness"

WATCHERS_MAX = 1_000

RETRY_S = 0.1

SERVING: int = pb.HealthCheckResponse.SERVING
NOT_SERVING: int = pb.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN: int = pb.HealthCheckResponse.SERVICE_UNKNOWN


class HealthService:
    """Check and Watch."""

    def __init__(self, services: Iterable[str], *, is_behind: bool = False) -> None:
        """``is_behind``: until :meth:`catch_up` finds that it is not."""
        self._services = frozenset(["", READINESS, LIVENESS, *services])
        self._serving = False
        self._state_is_here = True
        self._is_behind = is_behind
        self._stopping = False
        self._changed = asyncio.Event()
        self._watchers = 0

    def handler(self) -> grpc.GenericRpcHandler:
        """What a gRPC server is given."""
        return service_handler(
            SERVICE, {"Check": unary_handler(self._check), "Watch": watch_handler(self._watch)}
        )

    def set_serving(self, serving: bool) -> None:
        """Whether there is a leader: without one no service serves."""
        self._serving = serving
        self._tell()

    def set_installing(self, installing: bool) -> None:
        """Whether the state is missing, or being replaced: meanwhile no service serves."""
        self._state_is_here = not installing
        self._tell()

    async def catch_up(self, read: "Callable[[], asyncio.Future[int]]") -> None:
        """Returns once a linearizable read has worked: from then on it is not behind. ``read``: the replica's."""
        while self._is_behind:
            changed = self._changed
            if not (self._serving and self._state_is_here):
                await changed.wait()
                continue
            try:
                # Others wait for the same read.
                await asyncio.shield(read())
            except PaxosRsmError:
                await asyncio.sleep(RETRY_S)
            else:
                self._is_behind = False
                self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def stop(self) -> None:
        """NOT_SERVING, for good; every Watch has said so when it ends."""
        self._stopping = True
        self.set_serving(False)

    def _status_of(self, service: str) -> int:
        if service not in self._services:
            return SERVICE_UNKNOWN
        if self._stopping:
            return NOT_SERVING
        is_ready = self._serving and self._state_is_here and not self._is_behind
        return SERVING if is_ready or service == LIVENESS else NOT_SERVING

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
