"""A watch as its user has it: an iterator that goes on by itself, whatever becomes of servers.

The work is done elsewhere: subscription.py knows its place, watch_stream.py carries it. Here is what a consumer calls.
"""

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Literal, Self, TypeAlias

from paxos_rsm._proto import watch_pb2 as pb
from paxos_rsm.client.subscription import Subscription
from paxos_rsm.client.types import WatchEvent
from paxos_rsm.client.watch_stream import WatchStream
from paxos_rsm.errors import DeadlineExceeded, InvalidArgument, Unavailable

__all__ = ["AsyncWatch", "Leave", "filters_of"]

Leave: TypeAlias = Literal["put", "delete"]
"""A kind of events that a watch leaves out."""

_FILTERS: dict[str, pb.WatchCreateRequest.FilterType.ValueType] = {
    "put": pb.WatchCreateRequest.NOPUT,
    "delete": pb.WatchCreateRequest.NODELETE,
}


def filters_of(leave_out: Leave | Iterable[Leave]) -> list[pb.WatchCreateRequest.FilterType.ValueType]:
    """What to leave out, as the wire has it. Raises InvalidArgument for what is no kind of event."""
    kinds = [leave_out] if isinstance(leave_out, str) else list(leave_out)
    try:
        return [_FILTERS[kind] for kind in kinds]
    except (KeyError, TypeError):
        raise InvalidArgument(f"leave_out={leave_out!r}: a watch can leave out 'put' or 'delete'") from None


class AsyncWatch:
    """The changes of a key or a range, in order, each once; see :meth:`AsyncClient.watch`.

    ::

        async with kv.watch(prefix="jobs/") as watch:
            async for event in watch:
                print(event.kind, event.key, event.value, event.revision)

    Once entered it is in place: whatever is written from then on will come. It ends by :meth:`close`, or with an error
    where it cannot go on: Compacted, where what comes next has been compacted before a server could be asked for it;
    Unavailable, where the client is closed. Servers that die are nothing that its user sees, except as time.
    """

    def __init__(self, stream: WatchStream, subscription: Subscription, timeout_s: float) -> None:
        self._stream = stream
        self._subscription = subscription
        self._timeout_s = timeout_s
        self._started = False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def resume_revision(self) -> int:
        """Where another watch would begin with what has not been taken from this one; 0 while that is not known.

        To be kept by whoever goes on in another process. In the middle of a revision it names that one, whose events
        then come again.
        """
        return self._subscription.resume_revision

    async def start(self) -> None:
        """Has it created at a server. Raises Unavailable where that takes too long, and what a server refuses it with.

        Called by ``async with``, or by the first :meth:`next`.
        """
        if self._started:
            return
        self._started = True
        subscription, stream = self._subscription, self._stream
        stream.add(subscription)
        try:
            async with asyncio.timeout(self._timeout_s):
                await subscription.until_created()
        except TimeoutError:
            await self.close()
            raise Unavailable(
                f"the watch was not created within {self._timeout_s:g} s: {stream.trouble or 'no answer yet'}"
            ) from None
        except BaseException:
            await self.close()
            raise

    async def next(self, timeout_s: float | None = None) -> WatchEvent | None:
        """The next event; None once the watch is closed. Raises DeadlineExceeded where none comes in time."""
        events = await self.next_batch(1, timeout_s)
        return events[0] if events else None

    async def next_batch(self, events_max: int = 1_000, timeout_s: float | None = None) -> list[WatchEvent]:
        """Waits for an event, and gives it with those that have come already; none once the watch is closed."""
        await self.start()
        try:
            async with asyncio.timeout(timeout_s):
                return await self._take(events_max)
        except TimeoutError:
            raise DeadlineExceeded(f"nothing happened to what is watched within {timeout_s:g} s") from None

    async def _take(self, events_max: int) -> list[WatchEvent]:
        subscription = self._subscription
        while True:
            events: list[WatchEvent] = []
            while len(events) < events_max and (event := subscription.pop()) is not None:
                events.append(event)
            if subscription.paused and subscription.has_room:
                self._stream.go_on(subscription)
            if events:
                return events
            if subscription.error is not None:
                raise subscription.error
            if subscription.ended:
                return []
            await subscription.arrival()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchEvent:
        event = await self.next()
        if event is None:
            raise StopAsyncIteration
        return event

    async def close(self) -> None:
        """Ends it; whoever iterates over it is done. May be called twice."""
        self._started = True
        self._stream.remove(self._subscription)
        self._subscription.end()
