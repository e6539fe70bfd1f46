"""All the services that speak etcd's language, as one part of a server.

::

    KV  Lease  Lock  Election --> EtcdCalls --> the server's own sessions --> log
    Watch      Lock  Election --> WatchHub  <-- what the local store has applied
    Cluster  Maintenance      --> what the server knows of itself

A server that runs another state machine has Cluster and Maintenance; the others answer with a sentence there, instead
of gRPC's "method not found".
"""

from collections.abc import Callable

import grpc

from paxos_rsm.config import Tuning
from paxos_rsm.machines.base import StateMachine
from paxos_rsm.machines.kv.autocompaction import AutoCompaction, CompactionMode, parse_retention
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.replica.api import ReplicaHandle
from paxos_rsm.server import (
    cluster_service,
    election_service,
    kv_service,
    lease_service,
    lock_service,
    maintenance_service,
    watch_service,
)
from paxos_rsm.server.admin_service import ServerIdentity
from paxos_rsm.server.cluster_service import ClusterService
from paxos_rsm.server.election_service import ElectionService
from paxos_rsm.server.etcd_calls import CallLimits, EtcdCalls
from paxos_rsm.server.headers import Headers
from paxos_rsm.server.housekeeping import Housekeeping
from paxos_rsm.server.key_queue import KeyQueue
from paxos_rsm.server.kv_service import KvService
from paxos_rsm.server.leadership import Leadership
from paxos_rsm.server.lease_service import LeaseService
from paxos_rsm.server.local_kv import LocalKv
from paxos_rsm.server.lock_service import LockService
from paxos_rsm.server.maintenance_service import MaintenanceService
from paxos_rsm.server.own_sessions import OwnSessions
from paxos_rsm.server.rpc import Context, StatusError, stream_handler
from paxos_rsm.server.watch_hub import WatchHub
from paxos_rsm.server.watch_service import WatchLimits, WatchService

__all__ = ["EtcdServices"]

ANY_MACHINE = (cluster_service.SERVICES, maintenance_service.SERVICES)
STORE_ONLY = (
    kv_service.SERVICES,
    watch_service.SERVICES,
    lease_service.SERVICES,
    lock_service.SERVICES,
    election_service.SERVICES,
)


class EtcdServices:
    """See the module's docstring."""

    def __init__(
        self,
        replica: ReplicaHandle,
        machine: StateMachine,
        identity: ServerIdentity,
        tuning: Tuning,
        *,
        leaderless_ms: int,
        least_level: Callable[[], int] = lambda: 0,
    ) -> None:
        """``least_level``: what all members of the configuration are known to understand (transport/handshake.py)."""
        store = machine if isinstance(machine, KeyValueMachine) else None
        self._own: OwnSessions | None = None
        self._watches: WatchService | None = None
        self._queue: KeyQueue | None = None
        self._housekeeping: Housekeeping | None = None
        if store is not None:
            self._own = OwnSessions(
                replica, frame_bytes_max=tuning.frame_bytes_max, in_flight_max=tuning.unary_in_flight_max
            )
        headers = Headers(
            replica,
            identity.cluster_id,
            identity.member_id,
            lambda: store.revision if store is not None else 0,
        )
        limits = CallLimits(tuning.request_bytes_max, tuning.request_timeout_ms, leaderless_ms)
        calls = self.calls = EtcdCalls(replica, self._own, Leadership(replica), headers, limits)
        self._handlers = [
            *ClusterService(replica, identity, calls).handlers(),
            *MaintenanceService(replica, machine, headers, calls.read_index).handlers(),
        ]
        if store is None or self._own is None:
            self._handlers.append(_NoStore(f"{type(machine).__module__}:{type(machine).__qualname__}"))
            return
        self._housekeeping = Housekeeping(
            replica,
            store,
            self._own,
            quota_bytes=tuning.quota_bytes,
            compaction=_auto_compaction(tuning),
            least_level=least_level,
        )
        hub = WatchHub(replica, store)
        store.watch_compaction(hub.compacting)
        self._watches = WatchService(replica, hub, headers, _watch_limits(tuning, leaderless_ms))
        kv = LocalKv(store, self._own, calls, tuning.request_bytes_max)
        queue = self._queue = KeyQueue(kv, hub)
        self._handlers += [
            *KvService(calls).handlers(),
            *LeaseService(replica, store, calls).handlers(),
            *self._watches.handlers(),
            *LockService(kv, queue).handlers(),
            *ElectionService(kv, queue, hub).handlers(),
        ]

    @property
    def names(self) -> list[str]:
        """The services that answer here, under all their names."""
        kinds = ANY_MACHINE if self._own is None else (*ANY_MACHINE, *STORE_ONLY)
        return [name for names in kinds for name in names]

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """What a gRPC server is given."""
        return self._handlers

    def start(self) -> None:
        """From here on the server does by itself what the store needs done."""
        if self._housekeeping is not None:
            self._housekeeping.start()

    # ---- the end -------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Takes nothing new."""
        self.calls.stopping = True
        if self._housekeeping is not None:
            self._housekeeping.stop()
        if self._watches is not None:
            self._watches.stop()

    async def drain(self, grace_s: float) -> None:
        """Gives what is in flight ``grace_s`` seconds to be answered."""
        if self._queue is not None:
            await self._queue.drain(grace_s)
        if self._own is not None:
            await self._own.drain(grace_s)

    def close(self) -> None:
        """Tells whoever still waits that there will be no answer."""
        if self._own is not None:
            self._own.close()


def _auto_compaction(tuning: Tuning) -> AutoCompaction | None:
    mode = CompactionMode(tuning.auto_compaction_mode)
    retention = parse_retention(mode, tuning.auto_compaction_retention)
    return AutoCompaction(mode, retention) if retention else None


def _watch_limits(tuning: Tuning, leaderless_ms: int) -> WatchLimits:
    return WatchLimits(
        stream_bytes_max=tuning.watch_stream_bytes_max,
        stall_ms=tuning.watch_stall_ms,
        fragment_bytes=tuning.watch_fragment_bytes,
        progress_notify_ms=tuning.watch_progress_notify_ms,
        leaderless_ms=leaderless_ms,
        watches_bytes_max=tuning.watches_bytes_max,
    )


class _NoStore(grpc.GenericRpcHandler):
    """The services of the store on a server that has none: a sentence instead of a riddle."""

    def __init__(self, machine_name: str) -> None:
        self._sentence = (
            f"this server runs the state machine {machine_name}, not the key-value store; send its commands "
            "with the paxos_rsm client's submit and query"
        )
        self._prefixes = tuple(f"/{name}/" for names in STORE_ONLY for name in names)

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        """Every method of theirs; as a stream, which any kind of call may be."""
        return stream_handler(self._refuse) if details.method.startswith(self._prefixes) else None

    async def _refuse(self, _requests: object, _context: Context) -> None:
        raise StatusError(grpc.StatusCode.UNIMPLEMENTED, self._sentence)
