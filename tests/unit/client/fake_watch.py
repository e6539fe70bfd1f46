"""The services beside the session, of the fake servers: watches, leases' times, and the members.

A :class:`FakeWatch` tells every stream of its server what the store's log has, as the real server does: ``created``
first, all of a revision at once, progress only when everybody is at the present. It misbehaves when told to.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from paxos_rsm._proto import cluster_pb2, kv_pb2, lease_pb2
from paxos_rsm._proto import watch_pb2 as pb
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.store import CREATE, KEY, LEASE, MOD, VALUE, VERSION, Record

NOPUT, NODELETE = 0, 1


def key_value(record: Record) -> kv_pb2.KeyValue:
    return kv_pb2.KeyValue(
        key=record[KEY],
        create_revision=record[CREATE],
        mod_revision=record[MOD],
        version=record[VERSION],
        value=record[VALUE],
        lease=record[LEASE],
    )


class _Watched:
    def __init__(self, request: pb.WatchCreateRequest, first: int) -> None:
        self.request = request
        self.next = first

    def sees(self, record: Record) -> bool:
        key, end = self.request.key, self.request.range_end
        inside = record[KEY] == key if not end else key <= record[KEY] and (end == b"\0" or record[KEY] < end)
        return inside and (NOPUT if record[VERSION] else NODELETE) not in self.request.filters


class FakeWatch:
    """The watch streams of one server. Its attributes say how it misbehaves."""

    def __init__(self, machine: KeyValueMachine, cluster_id: int) -> None:
        self.machine = machine
        self.cluster_id = cluster_id
        self.streams = 0
        self.metadata: list[tuple[str, str]] = []
        self.creates: list[pb.WatchCreateRequest] = []
        self.cancels: list[int] = []
        self.progress_requests = 0
        self.changed = asyncio.Event()
        self.came = asyncio.Event()
        # How it misbehaves.
        self.silent = False
        self.known_revision = 0  # it knows nothing newer; 0: it knows everything
        self.fragment_events = 0  # so many events an answer; 0: whole revisions
        self.repeat_below = 0  # tells once more what lies below the start, from there on
        self.refuse = ""  # every creation, with this reason
        self.lose_after = 0  # the stream ends when so many answers with events are out
        self._open: set[_Stream] = set()

    @property
    def revision(self) -> int:
        return min(self.machine.revision, self.known_revision or self.machine.revision)

    def notify(self) -> None:
        """Something has changed, or is to be told now."""
        for stream in self._open:
            stream.wake.set()
        self.came.set()

    def cancel_all(self, reason: str) -> None:
        """As a server does with a slow reader."""
        for stream in self._open:
            stream.cancel_all(reason)

    def end_streams(self, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE, details: str = "gone") -> None:
        for stream in self._open:
            if not stream.end.done():
                stream.end.set_result((code, details))

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.came.clear()
            await asyncio.wait_for(self.came.wait(), 20)

    async def watch(self, _requests: Any, context: Any) -> None:
        self.streams += 1
        self.metadata = [(key, value) for key, value in context.invocation_metadata()]
        stream = _Stream(self, context)
        self._open.add(stream)
        tasks = [asyncio.create_task(stream.read()), asyncio.create_task(stream.work())]
        for task in tasks:
            task.add_done_callback(stream.failed)
        try:
            code, details = await stream.end
            if code is not grpc.StatusCode.OK:
                await context.abort(code, details)
        finally:
            self._open.discard(stream)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


class _Stream:
    def __init__(self, service: FakeWatch, context: Any) -> None:
        self.service = service
        self.context = context
        self.wake = asyncio.Event()
        self.watches: dict[int, _Watched] = {}
        self.out: list[pb.WatchResponse] = []
        self.progress_due = False
        self.event_answers = 0
        self.end: asyncio.Future[tuple[grpc.StatusCode, str]] = asyncio.get_running_loop().create_future()

    def failed(self, task: "asyncio.Task[None]") -> None:
        """A bug of the fake's must not look like one of the client's."""
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, grpc.aio.BaseError | asyncio.InvalidStateError):
            asyncio.get_running_loop().call_exception_handler({"exception": error})

    def say(self, **fields: Any) -> None:
        header = {"cluster_id": self.service.cluster_id, "revision": self.service.revision}
        answer = pb.WatchResponse(**fields)
        answer.header.cluster_id = header["cluster_id"]
        answer.header.revision = header["revision"]
        self.out.append(answer)

    async def read(self) -> None:
        service = self.service
        while (data := await self.context.read()) is not grpc.aio.EOF:
            message = pb.WatchRequest.FromString(data)
            match message.WhichOneof("request_union"):
                case "create_request":
                    self.create(message.create_request)
                case "cancel_request":
                    number = message.cancel_request.watch_id
                    service.cancels.append(number)
                    if self.watches.pop(number, None) is not None:
                        self.say(watch_id=number, canceled=True)
                case "progress_request":
                    service.progress_requests += 1
                    self.progress_due = True
            self.wake.set()
            service.came.set()

    def create(self, request: pb.WatchCreateRequest) -> None:
        service = self.service
        service.creates.append(request)
        if service.refuse:
            self.say(watch_id=-1, created=True, canceled=True, cancel_reason=service.refuse)
            return
        first = request.start_revision or service.revision + 1
        self.say(watch_id=request.watch_id, created=True)
        compacted = service.machine.compacted_revision
        if first < compacted:
            self.say(watch_id=request.watch_id, canceled=True, compact_revision=compacted)
            return
        if service.repeat_below and first > service.repeat_below:
            first = service.repeat_below
        self.watches[request.watch_id] = _Watched(request, first)

    def cancel_all(self, reason: str) -> None:
        for number, watch in self.watches.items():
            self.say(watch_id=number, canceled=True, cancel_reason=reason, resume_revision=watch.next)
        self.watches.clear()
        self.wake.set()

    def collect(self) -> None:
        """Queues what the watches have not been told."""
        service = self.service
        for number, watch in self.watches.items():
            if watch.next > service.revision:
                continue
            records = [r for r in service.machine.changes(watch.next, 1 << 30) if r[MOD] <= service.revision]
            watch.next = service.revision + 1
            by_revision: dict[int, list[Record]] = {}
            for record in records:
                if watch.sees(record):
                    by_revision.setdefault(record[MOD], []).append(record)
            for found in by_revision.values():
                self.say_events(number, [self.event(watch, record) for record in found])
        if self.progress_due:
            self.progress_due = False
            self.say(watch_id=-1)

    def say_events(self, number: int, events: list[pb.Event]) -> None:
        size = self.service.fragment_events or len(events)
        for at in range(0, len(events), size):
            self.say(watch_id=number, events=events[at : at + size], fragment=at + size < len(events))

    def event(self, watch: _Watched, record: Record) -> pb.Event:
        deleted = not record[VERSION]
        previous = self.service.machine.previous(record) if watch.request.prev_kv else None
        event = pb.Event(type=pb.Event.DELETE if deleted else pb.Event.PUT, kv=key_value(record))
        if previous is not None:
            event.prev_kv.CopyFrom(key_value(previous))
        return event

    async def work(self) -> None:
        service = self.service
        while True:
            await self.wake.wait()
            self.wake.clear()
            if service.silent:
                continue
            self.collect()
            out, self.out = self.out, []
            for answer in out:
                if service.lose_after and self.event_answers >= service.lose_after:
                    service.lose_after = 0
                    self.end.set_result((grpc.StatusCode.UNAVAILABLE, "the stream broke in the middle"))
                    return
                self.event_answers += bool(answer.events)
                await self.context.write(answer.SerializeToString())


class FakeLeases:
    """What is asked about leases beside the session."""

    def __init__(self, machine: KeyValueMachine) -> None:
        self.machine = machine
        self.left_s = 7

    async def time_to_live(self, data: bytes, context: Any) -> bytes:
        request = lease_pb2.LeaseTimeToLiveRequest.FromString(data)
        lease = self.machine.lease(request.ID)
        if lease is None:
            return lease_pb2.LeaseTimeToLiveResponse(ID=request.ID, TTL=-1).SerializeToString()
        keys = list(lease.keys) if request.keys else []
        return lease_pb2.LeaseTimeToLiveResponse(
            ID=request.ID, TTL=self.left_s, grantedTTL=lease.ttl_s, keys=keys
        ).SerializeToString()

    async def leases(self, data: bytes, context: Any) -> bytes:
        listed = [lease_pb2.LeaseStatus(ID=each) for each in self.machine.lease_ids()]
        return lease_pb2.LeaseLeasesResponse(leases=listed).SerializeToString()


class FakeMembers:
    """The members, as one server tells of them."""

    def __init__(self) -> None:
        self.members: list[cluster_pb2.ClusterMember] = []
        self.asked = 0

    async def member_list(self, data: bytes, context: Any) -> bytes:
        self.asked += 1
        return cluster_pb2.MemberListResponse(members=self.members).SerializeToString()
