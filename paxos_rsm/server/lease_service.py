"""The Lease service, as etcd has it: keys that go when their holder has been silent for too long.

Granting, revoking and keeping alive are commands of the log. So a keep-alive is answered only after a round of the
leader that began after it came, and never after the end of the lease was decided: the two have an order
(``machines/kv/leases.py``, docs/adr/0009). A server that was cut off hears late of what was decided, and its client
counts from the answer: one that comes late is given only after another round, which says whether the lease is there
still. What is left of a lease is what this server's own watch says
(``replica/timers.py``): the leader's is the one that counts, and the others' differ from it by the time that a message
takes.

Keep-alives of one stream are sent on as they come and answered in their order; a stream that asks faster than the log
can answer is not read for a while. One servicer under two names.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from paxos_rsm._proto import kv_pb2, lease_pb2
from paxos_rsm.codec.kv import command_from_request
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.replica.api import ReplicaHandle
from paxos_rsm.server.etcd_calls import EtcdCalls
from paxos_rsm.server.rpc import Context, parse, service_handler, stream_handler, unary_handler

__all__ = ["SERVICES", "LeaseService"]

SERVICES = ("paxos_rsm.v1.Lease", "etcdserverpb.Lease")

IN_FLIGHT_MAX = 256
"""Keep-alives of one stream that are on their way through the log."""

LATE_SHARE = 0.5
"""Of its time: what was asked so long ago may have ended since, as far as this server knows."""


class LeaseService:
    """LeaseGrant, LeaseRevoke, LeaseKeepAlive, LeaseTimeToLive and LeaseLeases."""

    def __init__(self, replica: ReplicaHandle, machine: KeyValueMachine, calls: EtcdCalls) -> None:
        self._replica = replica
        self._machine = machine
        self._calls = calls

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """What a gRPC server is given: the one servicer, under both names."""
        methods = {name: unary_handler(behaviour) for name, behaviour in self.methods().items()}
        methods["LeaseKeepAlive"] = stream_handler(self._keep_alive_stream)
        return [service_handler(service, methods) for service in SERVICES]

    def methods(self) -> dict[str, Callable[[bytes, Context], Awaitable[bytes]]]:
        """Each unary method by its name: bytes in, bytes out."""
        return {
            "LeaseGrant": self.grant,
            "LeaseRevoke": self.revoke,
            "LeaseTimeToLive": self.time_to_live,
            "LeaseLeases": self.leases,
        }

    async def grant(self, data: bytes, context: Context) -> bytes:
        """LeaseGrant. Without an id, one is drawn here: the log must hold what every server executes alike."""
        request = parse(kv_pb2.LeaseGrantRequest, data)
        if not request.ID:
            while not request.ID or self._machine.lease(request.ID) is not None:
                request.ID = secrets.randbits(63)
        return await self._submit(request, context)

    async def revoke(self, data: bytes, context: Context) -> bytes:
        """LeaseRevoke."""
        return await self._submit(parse(kv_pb2.LeaseRevokeRequest, data), context)

    async def keep_alive(self, data: bytes, context: Context) -> bytes:
        """One keep-alive, as on the stream."""
        request = parse(kv_pb2.LeaseKeepAliveRequest, data)
        loop = asyncio.get_running_loop()
        come_at = loop.time()
        response = await self._answer(request, context)
        if response.TTL and loop.time() - come_at >= LATE_SHARE * response.TTL:
            await self._calls.read_index(context)
            if self._machine.lease(request.ID) is None:
                response.TTL = 0
                self._calls.headers.fill(response.header)
        answer: bytes = response.SerializeToString()
        return answer

    async def time_to_live(self, data: bytes, context: Context) -> bytes:
        """LeaseTimeToLive: seconds that are left, -1 where there is no such lease."""
        request = parse(lease_pb2.LeaseTimeToLiveRequest, data)
        await self._calls.read_index(context)
        lease = self._machine.lease(request.ID)
        response = lease_pb2.LeaseTimeToLiveResponse(header=self._calls.headers.make(), ID=request.ID, TTL=-1)
        if lease is not None:
            # A lease that has just been granted is not watched yet: all of its time is left.
            left_ms = self._replica.timer_remaining_ms(lease.id, lease.armed)
            response.TTL = lease.ttl_s if left_ms is None else min(left_ms // 1000, lease.ttl_s)
            response.grantedTTL = lease.ttl_s
            if request.keys:
                response.keys.extend(lease.keys)
        return response.SerializeToString()

    async def leases(self, data: bytes, context: Context) -> bytes:
        """LeaseLeases: the ids of all leases, in order."""
        parse(lease_pb2.LeaseLeasesRequest, data)
        await self._calls.read_index(context)
        response = lease_pb2.LeaseLeasesResponse(header=self._calls.headers.make())
        for lease in self._machine.lease_ids():
            response.leases.add(ID=lease)
        return response.SerializeToString()

    async def _submit(self, request: Any, context: Context) -> bytes:
        data: bytes = (await self._answer(request, context)).SerializeToString()
        return data

    async def _answer(self, request: Any, context: Context) -> Any:
        self._calls.refuse(None, request.ByteSize())
        return self._calls.response(await self._calls.submit(command_from_request(request), context))

    # ---- the stream ----------------------------------------------------------------------------------------

    async def _keep_alive_stream(self, _requests: object, context: Context) -> None:
        waiting: deque[asyncio.Task[bytes]] = deque()
        come = asyncio.Event()
        room = asyncio.Semaphore(IN_FLIGHT_MAX)

        async def read() -> None:
            while True:
                await room.acquire()
                data: Any = await context.read()
                if data is grpc.aio.EOF:
                    return
                waiting.append(asyncio.ensure_future(self.keep_alive(data, context)))
                come.set()

        reader = asyncio.ensure_future(read())
        reader.add_done_callback(lambda _: come.set())
        try:
            while True:
                while waiting:
                    await context.write(await waiting[0])
                    waiting.popleft()
                    room.release()
                if reader.done():
                    reader.result()
                    return
                come.clear()
                if not waiting:
                    await come.wait()
        finally:
            reader.cancel()
            for task in waiting:
                task.cancel()
            await asyncio.gather(reader, *waiting, return_exceptions=True)
