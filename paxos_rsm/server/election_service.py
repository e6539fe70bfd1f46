"""The Election service: elections among clients, as in etcd. (Not the election of the servers' own leader.)

One servicer under two names, ``paxos_rsm.v1.Election`` and ``v3electionpb.Election``. An election is a queue of keys
(``key_queue.py``) whose first has been elected; the value of its key is what it has to say. Proclaim changes that value
and Resign deletes the key, both only while it is the key that Campaign made: its create revision is the fencing token.

Observe tells who is elected now, then every change: another one elected, or another value proclaimed. It follows the
changes of the log, not the newest state only; a reader too slow for that misses the oldest of them, never the last.

Errors have etcd's words, and its code: UNKNOWN.
"""

from collections import deque
from collections.abc import Sequence

import grpc

from paxos_rsm._proto import election_pb2 as pb
from paxos_rsm._proto import kv_pb2
from paxos_rsm.machines.kv.store import KEY, VERSION
from paxos_rsm.machines.kv.types import DeleteRange, KeyValue, Put, Range, Txn
from paxos_rsm.server.key_queue import KeyQueue, Signal, is_created_at
from paxos_rsm.server.local_kv import LocalKv, first_created, prefix_end
from paxos_rsm.server.rpc import Context, StatusError, parse, service_handler, unary_handler, watch_handler
from paxos_rsm.server.watch_hub import Event, HubWatch, WatchHub

__all__ = ["SERVICES", "ElectionService"]

SERVICES = ("paxos_rsm.v1.Election", "v3electionpb.Election")

SESSION_EXPIRED = "election: session is expired"

OBSERVED_MAX = 1_000
"""Changes that wait for a slow observer."""


class ElectionService:
    """Campaign, Proclaim, Leader, Observe and Resign."""

    def __init__(self, kv: LocalKv, queue: KeyQueue, hub: WatchHub) -> None:
        self._kv = kv
        self._queue = queue
        self._hub = hub

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """What a gRPC server is given: the one servicer, under both names."""
        methods = {
            "Campaign": unary_handler(self._campaign),
            "Proclaim": unary_handler(self._proclaim),
            "Leader": unary_handler(self._leader),
            "Observe": watch_handler(self._observe),
            "Resign": unary_handler(self._resign),
        }
        return [service_handler(service, methods) for service in SERVICES]

    async def _campaign(self, data: bytes, context: Context) -> bytes:
        request = parse(pb.CampaignRequest, data)
        place = await self._queue.enter(request.name, request.lease, request.value, context)
        if not place.is_first:
            await self._queue.wait(place, SESSION_EXPIRED, context)
        leader = pb.LeaderKey(name=request.name, key=place.key, rev=place.revision, lease=place.lease)
        return pb.CampaignResponse(header=place.header, leader=leader).SerializeToString()

    async def _put(self, key: bytes, revision: int, put: Put, context: Context) -> kv_pb2.ResponseHeader:
        response: kv_pb2.TxnResponse = await self._kv.execute(
            Txn((is_created_at(key, revision),), (put,)), context
        )
        if not response.succeeded:
            raise _unknown("election: not leader")
        return response.header

    async def _proclaim(self, data: bytes, context: Context) -> bytes:
        request = parse(pb.ProclaimRequest, data)
        if not request.HasField("leader"):
            raise _unknown('"leader" field must be provided')
        leader = request.leader
        # A caller that does not name its lease keeps it: a key without one would never go.
        put = Put(leader.key, request.value, leader.lease, ignore_lease=not leader.lease)
        header = await self._put(leader.key, leader.rev, put, context)
        return pb.ProclaimResponse(header=header).SerializeToString()

    async def _resign(self, data: bytes, context: Context) -> bytes:
        request = parse(pb.ResignRequest, data)
        if not request.HasField("leader"):
            raise _unknown('"leader" field must be provided')
        key = request.leader.key
        txn = Txn((is_created_at(key, request.leader.rev),), (DeleteRange(key),))
        response = await self._kv.execute(txn, context)
        return pb.ResignResponse(header=response.header).SerializeToString()

    async def _leader(self, data: bytes, context: Context) -> bytes:
        request = parse(pb.LeaderRequest, data)
        await self._kv.read_index(context)
        found = self._kv.look(first_created(request.name + b"/"))
        if not found:
            raise _unknown("election: no leader")
        return self._response(found[0], self._kv.revision)

    async def _observe(self, data: bytes, context: Context) -> None:
        request = parse(pb.LeaderRequest, data)
        await self._kv.read_index(context)
        while True:
            observer = _Observer(self._kv, request.name + b"/")
            watch = self._hub.watch(observer, observer.prefix, prefix_end(observer.prefix))
            try:
                while not observer.has_ended:
                    # First: what comes while something is written, an end included, must not be waited for.
                    observer.come.clear()
                    while observer.changes:
                        await context.write(self._response(*observer.changes.popleft()))
                    await self._queue.until(observer)
            finally:
                watch.cancel()

    def _response(self, leader: KeyValue, revision: int) -> bytes:
        kv = kv_pb2.KeyValue(**leader._asdict())
        return pb.LeaderResponse(header=self._kv.headers.make(revision), kv=kv).SerializeToString()


class _Observer(Signal):
    """Follows one election from the local state of the moment it is made."""

    def __init__(self, kv: LocalKv, prefix: bytes) -> None:
        super().__init__()
        self.prefix = prefix
        self.changes: deque[tuple[KeyValue, int]] = deque(maxlen=OBSERVED_MAX)
        """Who was elected or has said something, and the revision that it was of."""
        self._candidates = {each.key: each for each in kv.look(Range(prefix, prefix_end(prefix)))}
        self._leader: KeyValue | None = None
        self._look(kv.revision)

    def events(self, watch: HubWatch, revision: int, events: Sequence[Event]) -> None:
        """See WatchSink."""
        for event in events:
            record = event.record
            if record[VERSION]:
                self._candidates[record[KEY]] = KeyValue._make(record)
            else:
                self._candidates.pop(record[KEY], None)
        self._look(revision)

    def _look(self, revision: int) -> None:
        before = self._leader
        leader = self._candidates.get(before.key) if before is not None else None
        if before is None or leader is None or leader.create_revision != before.create_revision:
            # Only then: whoever comes later stands behind.
            leader = min(self._candidates.values(), key=_order, default=None)
        if leader is not None and leader != before:
            self.changes.append((leader, revision))
            self.come.set()
        self._leader = leader


def _order(candidate: KeyValue) -> tuple[int, bytes]:
    return candidate.create_revision, candidate.key


def _unknown(words: str) -> StatusError:
    return StatusError(grpc.StatusCode.UNKNOWN, words)
