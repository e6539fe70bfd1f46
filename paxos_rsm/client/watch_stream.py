"""The one stream that carries all watches of a client, to one server at a time.

::

    watches --add/remove--> outbox --writer--> Watch stream --+
       ^                                                      | server
       +------ their buffers <------------------- runner -----+

Its two tasks (stream.py) exist only while there is something to watch. A client without watches has neither.

**A server that is of no use is left within seconds.** One that says nothing is asked how far it has come (a progress
request, whose answer also moves the places of watches that see no events, so that a compaction does not overtake them);
without an answer it is left. See patience.py. And one that answers may be cut off from the others: it would never have
anything to tell. So the stream is opened with etcd's word for that, ``hasleader``: a server that has heard from no
leader for two seconds ends it.

**After a loss** every watch is created anew from its own place (subscription.py), at the next server. A server that
cancels a watch is asked again for the same reason: it has ended what it held for a reader that was too slow, and
whoever starts at the place that it names, which is the watch's own, has missed nothing. What cannot go on is a watch
whose place has been compacted (Compacted), and one that a server refuses from the start.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import grpc
from google.protobuf.message import DecodeError

from paxos_rsm._proto import watch_pb2 as pb
from paxos_rsm.client import forks
from paxos_rsm.client.endpoints import EndpointRing
from paxos_rsm.client.failures import COMPACTED, number_of
from paxos_rsm.client.patience import Lookout, Patience
from paxos_rsm.client.stream import WRONG_FOR_EVER, LostError, ServerStream
from paxos_rsm.client.subscription import Subscription
from paxos_rsm.errors import ClientError, Compacted, InvalidArgument, ResourceExhausted, Unavailable

__all__ = ["WatchSettings", "WatchStream"]

NO_WATCH = -1
"""In place of a watch's number: the answer speaks of all watches of the stream, or of one that was never made."""

CANCELLED_MAX = 5
"""A watch that is cancelled so often without a word in between will not do at any server."""

UNIMPLEMENTED = number_of(grpc.StatusCode.UNIMPLEMENTED)
REFUSED = (*WRONG_FOR_EVER, UNIMPLEMENTED)


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """When a server is left."""

    patience: Patience = field(
        default_factory=lambda: Patience(tick_s=0.25, probe_s=1.0, connect_s=1.0, silent_s=2.5, stuck_s=5.0)
    )
    linger_s: float = 5.0
    """How long a stream without watches is kept for the next one."""
    again_s: float = 0.05
    """After this pause a watch is created anew that a server has cancelled; doubled each time in a row."""
    rng: random.Random = field(default_factory=random.Random)


class WatchStream(ServerStream):
    """Carries watches to whichever server can be reached. Belongs to one event loop.

    ``of_another_cluster`` says why a server with that cluster id is of no use, or nothing.
    """

    METHOD = "/paxos_rsm.v1.Watch/Watch"
    METADATA = (("hasleader", "true"),)
    """etcd's own word for: end the stream where you have no leader."""
    TASKS = "paxos_rsm client watches"

    def __init__(
        self, endpoints: Sequence[str], settings: WatchSettings, of_another_cluster: Callable[[int], str]
    ) -> None:
        super().__init__(EndpointRing(endpoints, settings.rng))
        self._settings = settings
        self._of_another_cluster = of_another_cluster
        self._watches: dict[Subscription, None] = {}
        # Of the stream of now.
        self._outbox: deque[bytes] = deque()
        self._by_id: dict[int, Subscription] = {}
        self._uncreated: deque[int] = deque()
        self._next_id = 1
        self._probe_sent = False
        self._lookout = Lookout(settings.patience)
        self._timers: set[asyncio.TimerHandle] = set()
        self._next_look: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None

    # ---- what watches do ---------------------------------------------------------------------------------

    def add(self, watch: Subscription) -> None:
        """Begins to watch. Raises Unavailable where the client is closed, ClientError after a fork."""
        if self._closed:
            raise Unavailable("this client is closed; make a new one")
        forks.require_usable()
        self._watches[watch] = None
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
            self._start_looking()
        if self._runner is None:
            self._wake()
        elif self._call is not None:
            self._create(watch)

    def remove(self, watch: Subscription) -> None:
        """Watches no more."""
        if self._watches.pop(watch, self) is None:
            self._cancel(watch)
            if not self._watches and self._call is not None:
                self._stop_looking()
                loop = asyncio.get_running_loop()
                self._linger = loop.call_later(
                    self._settings.linger_s, self._drop, "there is nothing to watch"
                )

    def go_on(self, watch: Subscription) -> None:
        """The consumer has made room in a watch that was paused."""
        if watch.paused and watch in self._watches:
            watch.paused = False
            self._create(watch)

    async def close(self) -> None:
        """Ends every watch."""
        self._closed = True
        for watch in list(self._watches):
            watch.end(Unavailable("the client was closed"))
        self._watches.clear()
        if self._runner is not None:
            await self._end(self._runner)

    def _create(self, watch: Subscription) -> None:
        if self._call is not None and not watch.watch_id and not watch.paused and not watch.ended:
            watch_id, self._next_id = self._next_id, self._next_id + 1
            self._by_id[watch_id] = watch
            self._uncreated.append(watch_id)
            self._send(watch.create_request(watch_id))

    def _cancel(self, watch: Subscription) -> None:
        if watch.watch_id:
            self._by_id.pop(watch.watch_id, None)
            request = pb.WatchCancelRequest(watch_id=watch.watch_id)
            self._send(pb.WatchRequest(cancel_request=request).SerializeToString())
            watch.lost()

    def _send(self, message: bytes) -> None:
        if self._call is not None:
            self._outbox.append(message)
            self._wake()

    def _fail(self, watch: Subscription, error: ClientError) -> None:
        self._watches.pop(watch, None)
        watch.end(error)

    # ---- the stream --------------------------------------------------------------------------------------

    @property
    def _is_wanted(self) -> bool:
        return bool(self._watches)

    @property
    def _is_missed(self) -> bool:
        return bool(self._watches) and not self._closed

    def _begin(self) -> None:
        self._lookout.connecting()
        self._start_looking()
        for watch in self._watches:
            self._create(watch)

    def _next_message(self) -> bytes | None:
        return self._outbox.popleft() if self._outbox else None

    def _refused_by(self, endpoint: str, code: int, details: str) -> None:
        if code in REFUSED:
            self._refused(endpoint, code, details)

    def _refused(self, endpoint: str, code: int, details: str) -> None:
        """This server will never do; once that is so of all of them, no watch has anything to wait for."""
        reason = f"it offers no {self.METHOD}: {details}" if code == UNIMPLEMENTED else details
        said = self.ring.refused(reason)
        if said is not None:
            for watch in list(self._watches):
                self._fail(watch, InvalidArgument(f"no server serves watches to this client: {said}"))

    def _stream_lost(self) -> None:
        self._outbox.clear()
        self._by_id.clear()
        self._uncreated.clear()
        self._stop_looking()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        for watch in self._watches:
            watch.lost()

    # ---- is the server of use? ---------------------------------------------------------------------------

    def _start_looking(self) -> None:
        loop = asyncio.get_running_loop()
        self._stop_looking()
        self._probe_sent = False
        if self._call is not None:
            self._next_look = loop.call_at(self._lookout.start(loop.time()), self._look)

    def _stop_looking(self) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        verdict = self._lookout.look(loop.time())
        if verdict.loss:
            self._drop(verdict.loss)
            return
        if verdict.probe and not self._probe_sent:
            self._probe_sent = True
            progress = pb.WatchRequest(progress_request=pb.WatchProgressRequest())
            self._send(progress.SerializeToString())
        self._next_look = loop.call_at(self._lookout.next_look(loop.time()), self._look)

    # ---- from the server ---------------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        self._lookout.heard(asyncio.get_running_loop().time())
        try:
            answer = pb.WatchResponse.FromString(data)
        except DecodeError:
            raise LostError(
                f"it sent {len(data)} bytes that are no answer to a watch: it is no paxos_rsm server"
            ) from None
        reason = self._of_another_cluster(answer.header.cluster_id)
        if reason:
            self._refused(self.ring.current, 0, reason)
            raise LostError(reason)
        self._probe_sent = False
        self._lookout.progressed()
        self.ring.succeeded()
        if answer.created:
            self._take_created(answer)
        elif answer.canceled:
            watch = self._by_id.pop(answer.watch_id, None)
            if watch is not None:
                self._take_cancelled(watch, answer)
        elif answer.events or answer.fragment:
            watch = self._by_id.get(answer.watch_id)
            if watch is not None:
                watch.took(answer.events, answer.fragment)
                if watch.is_full:
                    self._cancel(watch)
                    watch.paused = True
        elif answer.watch_id == NO_WATCH:
            for watch in self._by_id.values():
                if watch.live:
                    watch.looked_through(answer.header.revision)
        elif answer.watch_id in self._by_id:
            self._by_id[answer.watch_id].looked_through(answer.header.revision)

    def _take_created(self, answer: pb.WatchResponse) -> None:
        """Where it has no number it could not be made: they are answered in the order in which they were asked for."""
        watch_id = answer.watch_id
        if watch_id == NO_WATCH and self._uncreated:
            watch_id = self._uncreated[0]
        if watch_id in self._uncreated:
            self._uncreated.remove(watch_id)
        watch = self._by_id.get(watch_id)
        if watch is None:
            return  # nobody wants it any more, and it was cancelled
        if answer.canceled:
            del self._by_id[watch_id]
            self._take_cancelled(watch, answer, refused=True)
        else:
            watch.created(answer.header.revision)

    def _take_cancelled(self, watch: Subscription, answer: pb.WatchResponse, refused: bool = False) -> None:
        """The server has ended a watch, which nobody here asked for."""
        was_live = watch.live
        watch.lost()
        reason = answer.cancel_reason or "the server cancelled the watch without a reason"
        if answer.compact_revision > 0 or reason == COMPACTED:
            self._fail(
                watch,
                Compacted(
                    f"what the watch had not seen yet, from revision {watch.next_revision} on, has been compacted; "
                    f"read the present state, and watch from there. Oldest revision left: {answer.compact_revision}",
                    answer.compact_revision,
                ),
            )
            return
        watch.cancelled_in_a_row += 1
        if refused or not was_live or watch.cancelled_in_a_row > CANCELLED_MAX:
            full = "too many watches" in reason
            self._fail(watch, ResourceExhausted(reason) if full else InvalidArgument(reason))
            return
        pause_s = self._settings.again_s * 2.0 ** (watch.cancelled_in_a_row - 1)
        self._after(pause_s, watch)

    def _after(self, pause_s: float, watch: Subscription) -> None:
        def again() -> None:
            self._timers.discard(timer)
            if watch in self._watches:
                self._create(watch)

        timer = asyncio.get_running_loop().call_later(pause_s, again)
        self._timers.add(timer)
