"""One watch: how far it has come, and what its consumer has not taken yet.

**Its place** is ``next_revision``: everything below has been put into the buffer, nothing from there on. It moves past
a revision when all of that revision's events are there (an answer may come in fragments), and past what a server says
to have looked through without finding anything. Wherever the watch is created anew, it is created from there, and
what a server sends twice lies below: so nothing is missed and nothing comes twice, whichever servers it has been at.

**Its buffer** has limits. Where the consumer is slow the watch *pauses*: it is cancelled at the server, which holds
nothing for it from then on, and created anew, from its place, when the consumer has taken half of what there was. One
slow consumer holds up no other watch of the client, and costs no memory anywhere.

Pure: who creates and cancels is watch_stream.py.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Literal

from paxos_rsm._proto import watch_pb2 as pb
from paxos_rsm.client.commands import key_value
from paxos_rsm.client.types import KeyValue, WatchEvent
from paxos_rsm.errors import ClientError

__all__ = ["BufferLimits", "Subscription"]


class BufferLimits:
    """How much of one watch may wait for its consumer. One answer of a server more than that always fits."""

    __slots__ = ("bytes_max", "events_max")

    def __init__(self, events_max: int = 4_096, bytes_max: int = 8 * 1024 * 1024) -> None:
        self.events_max = events_max
        self.bytes_max = bytes_max


class Subscription:
    """What is watched, from where, and what has come of it."""

    def __init__(
        self,
        key: bytes,
        range_end: bytes,
        *,
        start_revision: int = 0,
        filters: Iterable[pb.WatchCreateRequest.FilterType.ValueType] = (),
        prev_kv: bool = False,
        progress: bool = False,
        strip: int = 0,
        limits: BufferLimits | None = None,
    ) -> None:
        self.key = key
        self.range_end = range_end
        self.filters = tuple(filters)
        self.prev_kv = prev_kv
        self.progress = progress
        self.strip = strip
        self.limits = limits or BufferLimits()
        self.next_revision = start_revision
        """0: what comes after the creation, which has not been answered yet."""
        self.ended = False
        self.error: ClientError | None = None
        """Why no more will come, once the buffer is empty."""
        # Of the stream of now.
        self.watch_id = 0
        """0: it has not been asked for there."""
        self.live = False
        """The server has said that it was created."""
        self.paused = False
        self.cancelled_in_a_row = 0
        """By servers, without a word in between."""
        self._created = asyncio.Event()
        self._arrived = asyncio.Event()
        self._buffer: deque[WatchEvent] = deque()
        self._buffered_bytes = 0
        self._sizes: deque[int] = deque()
        self._fragments: list[pb.Event] = []

    def create_request(self, watch_id: int) -> bytes:
        """Asks for it, from its place on, under a number that is free on the stream."""
        self.watch_id, self.live = watch_id, False
        request = pb.WatchCreateRequest(
            key=self.key,
            range_end=self.range_end,
            start_revision=self.next_revision,
            progress_notify=self.progress,
            filters=self.filters,
            prev_kv=self.prev_kv,
            watch_id=watch_id,
            fragment=True,
        )
        return pb.WatchRequest(create_request=request).SerializeToString()

    # ---- from the server ---------------------------------------------------------------------------------

    def created(self, revision: int) -> None:
        """The server, at ``revision`` of the store, will tell of what comes from its place on."""
        self.live = True
        self.next_revision = self.next_revision or revision + 1
        self._created.set()

    def took(self, events: Iterable[pb.Event], more_to_come: bool) -> None:
        """Events have come; ``more_to_come``: of the last revision among them, others follow."""
        self.cancelled_in_a_row = 0
        self._fragments += events
        if more_to_come or not self._fragments:
            return
        whole, self._fragments = self._fragments, []
        first = self.next_revision
        for event in whole:
            if event.kv.mod_revision >= first:
                self._put(self._event(event), event.ByteSize())
        self.next_revision = max(first, whole[-1].kv.mod_revision + 1)
        self._arrived.set()

    def looked_through(self, revision: int) -> None:
        """There is nothing more up to ``revision`` than what has come."""
        self.cancelled_in_a_row = 0
        if revision < self.next_revision or self._fragments:
            return
        self.next_revision = revision + 1
        if self.progress:
            self._put(WatchEvent("progress", KeyValue(b"", b"", 0, 0, 0), revision), 0)
            self._arrived.set()

    def _event(self, event: pb.Event) -> WatchEvent:
        kv = key_value(event.kv, self.strip)
        previous = key_value(event.prev_kv, self.strip) if event.HasField("prev_kv") else None
        kind: Literal["put", "delete"] = "delete" if event.type == pb.Event.DELETE else "put"
        return WatchEvent(kind, kv, kv.mod_revision, previous)

    def _put(self, event: WatchEvent, size_bytes: int) -> None:
        self._buffer.append(event)
        self._sizes.append(size_bytes)
        self._buffered_bytes += size_bytes

    def lost(self) -> None:
        """The stream is gone, or the server has cancelled it: it has to be created anew."""
        self.watch_id, self.live = 0, False
        self._fragments.clear()

    @property
    def resume_revision(self) -> int:
        """Where another watch would begin with what the consumer has not taken yet; 0 where that is not known."""
        return self._buffer[0].revision if self._buffer else self.next_revision

    # ---- the consumer ------------------------------------------------------------------------------------

    def end(self, error: ClientError | None = None) -> None:
        """No more will come. What is buffered may still be taken, where there is an ``error`` that follows it."""
        if self.ended:
            return
        self.ended, self.error = True, error
        if error is None:
            self._buffer.clear()
            self._sizes.clear()
            self._buffered_bytes = 0
        self._created.set()
        self._arrived.set()

    async def until_created(self) -> None:
        """Returns once a server has created it. Raises why it cannot be."""
        await self._created.wait()
        if self.error is not None:
            raise self.error

    def pop(self) -> WatchEvent | None:
        """The next event, where there is one."""
        if not self._buffer:
            self._arrived.clear()
            return None
        self._buffered_bytes -= self._sizes.popleft()
        return self._buffer.popleft()

    async def arrival(self) -> None:
        """Returns once there may be something to take, or the end."""
        if not self._buffer and not self.ended:
            self._arrived.clear()
            await self._arrived.wait()

    @property
    def is_full(self) -> bool:
        """Its consumer is slow: nothing more may be asked for."""
        return len(self._buffer) >= self.limits.events_max or self._buffered_bytes >= self.limits.bytes_max

    @property
    def has_room(self) -> bool:
        """Half of the buffer is free: it may go on."""
        return (
            2 * len(self._buffer) <= self.limits.events_max
            and 2 * self._buffered_bytes <= self.limits.bytes_max
        )
