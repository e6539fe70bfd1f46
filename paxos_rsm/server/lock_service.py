"""The Lock service: locks that are waited for on the server's side of the wire, as in etcd.

One servicer under two names, ``paxos_rsm.v1.Lock`` and ``v3lockpb.Lock``. A lock is a queue of keys (``key_queue.py``):
Lock answers with the caller's key once it is the first, and it is held as long as that key exists. Its create revision
is the fencing token. Unlock deletes the key, and nothing else: whoever has the key may.

The same lease that locks again has the same place, so a caller may ask again after a lost answer. Where the lease ends
while its caller waits, the answer is etcd's "mutex: session is expired".
"""

import grpc

from paxos_rsm._proto import lock_pb2 as pb
from paxos_rsm.machines.kv.types import DeleteRange
from paxos_rsm.server.key_queue import KeyQueue
from paxos_rsm.server.local_kv import LocalKv
from paxos_rsm.server.rpc import Context, parse, service_handler, unary_handler

__all__ = ["SERVICES", "LockService"]

SERVICES = ("paxos_rsm.v1.Lock", "v3lockpb.Lock")

SESSION_EXPIRED = "mutex: session is expired"


class LockService:
    """Lock and Unlock."""

    def __init__(self, kv: LocalKv, queue: KeyQueue) -> None:
        self._kv = kv
        self._queue = queue

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """What a gRPC server is given: the one servicer, under both names."""
        methods = {"Lock": unary_handler(self._lock), "Unlock": unary_handler(self._unlock)}
        return [service_handler(service, methods) for service in SERVICES]

    async def _lock(self, data: bytes, context: Context) -> bytes:
        request = parse(pb.LockRequest, data)
        place = await self._queue.enter(request.name, request.lease, b"", context)
        header = place.header
        if not place.is_first:
            await self._queue.wait(place, SESSION_EXPIRED, context)
            header = self._kv.headers.make()
        return pb.LockResponse(header=header, key=place.key).SerializeToString()

    async def _unlock(self, data: bytes, context: Context) -> bytes:
        request = parse(pb.UnlockRequest, data)
        response = await self._kv.execute(DeleteRange(request.key), context)
        return pb.UnlockResponse(header=response.header).SerializeToString()
