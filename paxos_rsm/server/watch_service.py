"""The Watch service: many watches on one stream, in etcd's own words.

One servicer under two names, ``paxos_rsm.v1.Watch`` and ``etcdserverpb.Watch``. A stream is a reader, a writer and a
queue; its watches are fed by the hub (watch_hub.py) from this server's own applied state::

    client --> reader: create, cancel, progress --> hub
                                                     |  sink.events(...) within a turn of the replica
                                                     v
    client <-- writer <------------- [ created | events of watch 0 | events of watch 1 | canceled | ... ]

**Order.** ``created`` comes before the events of a watch, ``canceled`` after them; events in the order of revisions,
all of one revision in one response (or, where the client asked for it, in fragments). Events that come while the
writer is busy join the response of their watch that still waits. A response to a progress request goes out only when
all the watches of the stream have come to the present, and behind everything that they were given by then.

**Bounds.** What waits to be read is counted in bytes. A stream that has too much of it shuts its gate: the hub gives
its watches nothing more, and they take it up from the store's log once half of that has been read. So a reader may be
as slow as it likes, and costs one full buffer. The limit is lower for everybody while too much waits over all
streams. While a stream is full, its requests are not read either.

**The end of a slow reader.** A stream that has taken nothing for ``stall_ms`` while events wait loses the watches that
wait: ``canceled``, a reason, and in ``resume_revision`` the first revision that was not delivered. Where a watch needs
what has been compacted meanwhile it is ``canceled`` with ``compact_revision``, as in etcd.

**No leader.** Watches go on from what this server knows, unless the client has sent the metadata ``hasleader: true``:
then the stream ends with UNAVAILABLE "etcdserver: no leader", as in etcd.
"""

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from paxos_rsm._proto import watch_pb2 as pb
from paxos_rsm.errors import PaxosRsmError
from paxos_rsm.machines.kv.types import ALL_FROM
from paxos_rsm.replica.api import ReplicaHandle
from paxos_rsm.server.etcd_calls import NO_LEADER, STOPPED, status_of
from paxos_rsm.server.headers import Headers
from paxos_rsm.server.rpc import Context, StatusError, ends_with, parse, service_handler, stream_handler
from paxos_rsm.server.watch_hub import Event, Gate, HubWatch, WatchHub
from paxos_rsm.server.watch_responses import WatchResponses

__all__ = ["SERVICES", "WatchLimits", "WatchService"]

SERVICES = ("paxos_rsm.v1.Watch", "etcdserverpb.Watch")

MIB = 1024 * 1024

JOIN_BYTES_MAX = 256 * 1024
"""Revisions are joined into one response up to this size; one that is larger still goes."""
TOTAL_SHARE = 16
"""All streams together may have as much waiting as this many of them may alone ..."""
CROWDED_BYTES_MAX = 64 * 1024
"""... and above that, each only so much."""
RESPONSE_BYTES = 64
"""What a response costs beside its events, in the count of what waits."""
WATCH_BYTES = 1024
"""What a watch costs beside its key."""
PROGRESS_ID = -1
"""Of responses that speak of all the watches of a stream, and of watches that were not made."""
PROGRESS_JITTER = 0.1
"""A share of the interval: watches that came together must not all be written to together."""

# etcd's words.
EMPTY_RANGE = "mvcc: watcher range is empty"
DUPLICATE_ID = "mvcc: duplicate watch ID provided on the WatchStream"


@dataclass(frozen=True, slots=True)
class WatchLimits:
    """What the streams of a server are held to."""

    stream_bytes_max: int = 4 * MIB
    """Waiting on one stream for its client to read."""
    stall_ms: int = 30_000
    """A stream that takes nothing for so long loses the watches for which events wait."""
    fragment_bytes: int = 2 * MIB
    """Of a response, to a watch that takes fragments: below the 4 MiB that gRPC's clients take by default."""
    progress_notify_ms: int = 600_000
    """Between two words on progress to a watch that has asked for them."""
    leaderless_ms: int = 2_000
    """After so long without a leader, the streams that need one end."""
    watches_bytes_max: int = 256 * MIB
    """Keys of watches, over all streams: some 250,000 watches."""


class WatchService:
    """Takes watch streams."""

    def __init__(
        self, replica: ReplicaHandle, hub: WatchHub, headers: Headers, limits: WatchLimits | None = None
    ) -> None:
        self.hub = hub
        self.limits = limits or WatchLimits()
        self.responses = WatchResponses(headers)
        self.queued_bytes = 0
        self.watches_bytes = 0
        self._stopping = False
        self._has_leader = False
        self._leaderless: asyncio.TimerHandle | None = None
        self._streams: set[_Stream] = set()
        replica.watch_leader(self._leader_changed)

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """What a gRPC server is given: the one servicer, under both names."""
        methods = {"Watch": stream_handler(self._watch)}
        return [service_handler(service, methods) for service in SERVICES]

    @property
    def stream_count(self) -> int:
        """Streams that are open."""
        return len(self._streams)

    def stop(self) -> None:
        """Ends every stream, and takes no more: their watches go on at other servers."""
        self._stopping = True
        if self._leaderless is not None:
            self._leaderless.cancel()
        for stream in list(self._streams):
            stream.end(status_of(STOPPED))

    async def _watch(self, _requests: object, context: Context) -> None:
        needs_leader = _needs_leader(context)
        if self._stopping:
            raise status_of(STOPPED)
        if needs_leader and not self._has_leader:
            raise status_of(NO_LEADER)
        stream = _Stream(self, context, needs_leader)
        self._streams.add(stream)
        try:
            error = await stream.run()
        finally:
            self._streams.discard(stream)
        if error is not None:
            # Last, and with everything given back: while a client does not read, gRPC keeps its status waiting.
            raise error

    def _leader_changed(self, has_leader: bool) -> None:
        self._has_leader = has_leader
        self.responses.forget_header()
        if self._leaderless is not None:
            self._leaderless.cancel()
            self._leaderless = None
        if not has_leader:
            loop = asyncio.get_running_loop()
            self._leaderless = loop.call_later(self.limits.leaderless_ms / 1000, self._send_elsewhere)

    def _send_elsewhere(self) -> None:
        for stream in list(self._streams):
            if stream.needs_leader:
                stream.end(status_of(NO_LEADER))


class _Watch:
    """One watch of a stream; the sink of the hub's."""

    __slots__ = ("bytes", "fragment", "hub_watch", "idle", "number", "pending", "progress", "stream")

    hub_watch: HubWatch

    def __init__(self, stream: "_Stream", number: int, request: pb.WatchCreateRequest) -> None:
        self.stream = stream
        self.number = number
        self.progress = request.progress_notify
        self.fragment = request.fragment
        self.bytes = WATCH_BYTES + len(request.key) + len(request.range_end)
        self.pending: _Pending | None = None
        """Its response that waits, and can take more events."""
        self.idle = True
        """Whether it was given no events since the last word on progress."""

    def events(self, watch: HubWatch, revision: int, events: Sequence[Event]) -> None:
        """See WatchSink."""
        self.idle = False
        self.stream.put_events(self, revision, events)

    def ended(self, watch: HubWatch, compact_revision: int, resume_revision: int, reason: str) -> None:
        """See WatchSink."""
        self.stream.watch_ended(self, compact_revision, resume_revision, reason)

    def caught_up(self, watch: HubWatch) -> None:
        """It was behind, and has come to the present."""
        if self.pending is not None:
            # As in etcd, what a watch is given of the past says how far it has come by that.
            self.pending.revision = watch.next_revision - 1
        self.stream.progressed()


class _Pending:
    """The events of a response that waits to be written."""

    __slots__ = ("parts", "revision", "size_bytes", "watch")

    def __init__(self, watch: _Watch) -> None:
        self.watch = watch
        self.revision = 0
        self.parts: list[bytes] = []
        self.size_bytes = RESPONSE_BYTES


class _Stream:
    """One client's stream."""

    def __init__(self, service: WatchService, context: Context, needs_leader: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self.needs_leader = needs_leader
        self._service = service
        self._hub = service.hub
        self._limits = service.limits
        self._responses = service.responses
        self._context = context
        self._gate = Gate()
        self._watches: dict[int, _Watch] = {}
        self._next_id = 0
        self._queue: deque[bytes | _Pending] = deque()
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._half_closed = False
        self._progress_due = False
        self._progress_timer: asyncio.TimerHandle | None = None
        self._taken_at = 0.0  # when the client last took something, or the stream became full
        self._stall_timer: asyncio.TimerHandle | None = None
        # What ends the stream: None for an end in order.
        self._ended: asyncio.Future[PaxosRsmError | StatusError | None] = self._loop.create_future()

    # ---- life --------------------------------------------------------------------------------------------

    async def run(self) -> PaxosRsmError | StatusError | None:
        """Serves the stream until either side ends it; returns why, None for an end in order."""
        tasks = (asyncio.create_task(self._write()), asyncio.create_task(self._read()))
        for task in tasks:
            ends_with(task, "a watch stream", self.end)
        try:
            return await self._ended
        finally:
            # Also when the client has gone: gRPC cancels this coroutine then.
            for task in tasks:
                task.cancel()
            for timer in (self._progress_timer, self._stall_timer):
                if timer is not None:
                    timer.cancel()
            for watch in list(self._watches.values()):
                self._forget(watch)
                watch.hub_watch.cancel()
            self._queue.clear()
            self._account(-self._queued_bytes)

    def end(self, error: PaxosRsmError | StatusError | None) -> None:
        """Ends the stream, once; the first reason counts."""
        if not self._ended.done():
            self._ended.set_result(error)

    # ---- from the client ---------------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            data: Any = await self._context.read()
            if data is grpc.aio.EOF:
                break
            message = parse(pb.WatchRequest, data)
            match message.WhichOneof("request_union"):
                case "create_request":
                    self._create(message.create_request)
                case "cancel_request":
                    self._cancel(message.cancel_request.watch_id)
                case "progress_request":
                    self._progress_due = True
                    self._wake.set()
            while self._queued_bytes > self._limits.stream_bytes_max:
                # Every request may be answered: one who does not read the answers is not listened to.
                self._room.clear()
                await self._room.wait()
        # As in etcd, the watches of a client that has nothing more to say go on.
        self._half_closed = True
        self._wake.set()

    def _create(self, request: pb.WatchCreateRequest) -> None:
        # As in etcd: no key is the first of all keys; and so a range to its end is everything.
        key, range_end = request.key or b"\0", request.range_end
        refusal = ""
        if range_end not in (b"", ALL_FROM) and key >= range_end:
            refusal = EMPTY_RANGE
        elif request.watch_id in self._watches and request.watch_id:
            refusal = DUPLICATE_ID
        elif self._service.watches_bytes > self._limits.watches_bytes_max:
            refusal = "paxos_rsm: too many watches at this server; cancel some, or watch at another one"
        if refusal:
            self._put(
                self._responses.without_events(
                    PROGRESS_ID, created=True, canceled=True, cancel_reason=refusal
                )
            )
            return
        number = request.watch_id
        if not number:
            while self._next_id in self._watches:
                self._next_id += 1
            number = self._next_id
            self._next_id += 1
        watch = self._watches[number] = _Watch(self, number, request)
        self._service.watches_bytes += watch.bytes
        filters = request.filters
        watch.hub_watch = self._hub.watch(
            watch,
            key,
            range_end,
            request.start_revision,
            pb.WatchCreateRequest.FilterType.NOPUT not in filters,
            pb.WatchCreateRequest.FilterType.NODELETE not in filters,
            request.prev_kv,
            gate=self._gate,
            caught_up=watch.caught_up,
        )
        self._put(self._responses.without_events(number, created=True))
        if watch.progress and self._progress_timer is None:
            self._arm_progress()

    def _cancel(self, number: int) -> None:
        watch = self._watches.get(number)
        if watch is None:
            return  # as in etcd
        self._forget(watch)
        watch.hub_watch.cancel()
        self._put(self._responses.without_events(number, canceled=True))

    def _forget(self, watch: _Watch) -> None:
        watch.pending = None
        del self._watches[watch.number]
        self._service.watches_bytes -= watch.bytes
        self.progressed()

    # ---- progress ----------------------------------------------------------------------------------------

    def progressed(self) -> None:
        """Something may have been the last that a progress request waits for; or the last watch has gone."""
        if self._progress_due or self._half_closed:
            self._wake.set()

    def _tell_progress(self) -> None:
        """Answers a progress request once all the watches are at the present; several such at once."""
        if self._progress_due and all(each.hub_watch.is_caught_up for each in self._watches.values()):
            self._progress_due = False
            self._put(self._responses.without_events(PROGRESS_ID, revision=self._hub.seen_revision))

    def _arm_progress(self) -> None:
        interval_s = self._limits.progress_notify_ms / 1000
        delay_s = interval_s * (1 + PROGRESS_JITTER * random.random())
        self._progress_timer = self._loop.call_later(delay_s, self._notify_progress)

    def _notify_progress(self) -> None:
        """A word to each watch that has asked for it and had none lately, where it is at the present."""
        self._progress_timer = None
        revision = self._hub.seen_revision
        asked = [watch for watch in self._watches.values() if watch.progress]
        for watch in asked:
            if watch.idle and watch.pending is None and watch.hub_watch.is_caught_up and not self._gate.full:
                self._put(self._responses.without_events(watch.number, revision=revision))
            watch.idle = True
        if asked:
            self._arm_progress()

    # ---- from the hub ------------------------------------------------------------------------------------

    def put_events(self, watch: _Watch, revision: int, events: Sequence[Event]) -> None:
        """Queues one revision for a watch."""
        parts, size = self._responses.events(revision, events)
        pending = watch.pending
        if pending is None or pending.size_bytes + size > JOIN_BYTES_MAX:
            pending = watch.pending = _Pending(watch)
            self._queue.append(pending)
            self._wake.set()
            self._account(RESPONSE_BYTES)
        pending.revision = revision
        pending.parts += parts
        pending.size_bytes += size
        self._account(size)

    def watch_ended(self, watch: _Watch, compact_revision: int, resume_revision: int, reason: str) -> None:
        """Tells the client, behind what the watch was given; a compaction is told by its revision alone, as in etcd."""
        self._forget(watch)
        self._put(
            self._responses.without_events(
                watch.number,
                canceled=True,
                compact_revision=compact_revision,
                resume_revision=resume_revision,
                cancel_reason="" if compact_revision else reason,
            )
        )

    # ---- to the client -----------------------------------------------------------------------------------

    def _put(self, response: bytes) -> None:
        self._queue.append(response)
        self._wake.set()
        self._account(RESPONSE_BYTES + len(response))

    def _account(self, size_bytes: int) -> None:
        self._queued_bytes += size_bytes
        self._service.queued_bytes += size_bytes
        if size_bytes > 0 and not self._gate.full and self._queued_bytes > self._bytes_max():
            self._gate.full = True
            self._taken_at = self._loop.time()
            if self._stall_timer is None:
                self._arm_stall(self._limits.stall_ms / 1000)

    def _bytes_max(self) -> int:
        limit = self._limits.stream_bytes_max
        crowded = self._service.queued_bytes > TOTAL_SHARE * limit
        return min(limit, CROWDED_BYTES_MAX) if crowded else limit

    async def _write(self) -> None:
        """Writes what waits, in order."""
        queue, context = self._queue, self._context
        while True:
            while queue:
                item = queue.popleft()
                if isinstance(item, _Pending):
                    watch = item.watch
                    if watch.pending is item:
                        watch.pending = None
                    fragment_bytes = self._limits.fragment_bytes if watch.fragment else 0
                    for response in self._responses.with_events(
                        watch.number, item.revision, item.parts, fragment_bytes
                    ):
                        await context.write(response)
                        self._taken_at = self._loop.time()
                    size = item.size_bytes
                else:
                    await context.write(item)
                    self._taken_at = self._loop.time()
                    size = RESPONSE_BYTES + len(item)
                self._taken(size)
            self._wake.clear()
            self._tell_progress()
            if queue:
                continue
            if self._half_closed and not self._watches and not self._progress_due:
                self.end(None)
            await self._wake.wait()

    def _taken(self, size_bytes: int) -> None:
        """The client has read something: perhaps there is room again."""
        self._account(-size_bytes)
        if self._queued_bytes <= self._bytes_max() // 2:
            self._room.set()
            if self._gate.full:
                self._hub.open(self._gate)

    # ---- a client that does not read -----------------------------------------------------------------------

    def _arm_stall(self, delay_s: float) -> None:
        self._stall_timer = self._loop.call_later(delay_s, self._look_at_stall)

    def _look_at_stall(self) -> None:
        """Ends the watches that wait at the gate of a stream that takes nothing."""
        self._stall_timer = None
        if not self._gate.full:
            return
        stall_s = self._limits.stall_ms / 1000
        silent_s = self._loop.time() - self._taken_at
        if silent_s < stall_s:
            self._arm_stall(stall_s - silent_s)
            return
        for watch in list(self._gate.waiting):
            self._hub.end(
                watch,
                f"paxos_rsm: the client has read nothing for {silent_s:.0f} s while events wait; read faster, and "
                "watch again from resume_revision",
            )
        self._arm_stall(stall_s)


def _needs_leader(context: Context) -> bool:
    """Whether the client wants no watch of a server that has lost its leader: etcd's WithRequireLeader."""
    metadata: Any = context.invocation_metadata()
    return any(name == "hasleader" and value == "true" for name, value in metadata or ())
