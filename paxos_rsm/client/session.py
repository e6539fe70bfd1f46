"""The stream that carries a client's commands and queries.

::

    callers --submit/query--> [ Window, Reads ] --writer--> stream --+
       ^                                                             | server
       +-------- futures -------- [ Window, Reads ] <-- runner ------+

There are two tasks for a client (stream.py), whatever the number of calls: a lone command leaves in the next turn of
the loop, and under load a message holds all that came while the last one was written: what was queued in one turn of
the loop leaves together. There are three timers, none of them per call: an *alarm* at the earliest deadline, a look at
the server while something is awaited (patience.py), and one that ends a pause that the server asked for.

**Lazily.** Nothing is opened before the first call; a session is registered before the first command, so that
a client that only reads has none; a stream that is lost while nobody waits is not replaced before the next
call.

What a caller is told when its deadline passes: a query or a command that was never sent fails with
Unavailable where no server was of use, ResourceExhausted where they had too much to do, DeadlineExceeded
otherwise: it was not executed. A command that was sent fails with UnknownOutcome.
"""

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import grpc
from google.protobuf.message import DecodeError

from paxos_rsm._proto import session_pb2 as pb
from paxos_rsm.client import forks
from paxos_rsm.client.endpoints import EndpointRing
from paxos_rsm.client.failures import MAY_SUCCEED_LATER, code_name, error_of, number_of
from paxos_rsm.client.patience import Lookout, Patience
from paxos_rsm.client.reads import PROBE_ID, Answer, Query, Reads
from paxos_rsm.client.stream import WRONG_FOR_EVER, LostError, ServerStream
from paxos_rsm.client.window import Command, Window
from paxos_rsm.client.wire import read_message
from paxos_rsm.errors import (
    ClientError,
    DeadlineExceeded,
    InvalidArgument,
    ResourceExhausted,
    SessionExpired,
    Unavailable,
    UnknownOutcome,
)

__all__ = ["Session", "SessionSettings"]

FRAME_BYTES_MAX = 1024 * 1024
"""Where the server does not say what it takes."""

ALARM_STEP_S = 0.01
REFUSED_PAUSE_S = 0.01
REFUSED_PAUSE_S_MAX = 1.0

UNAVAILABLE = number_of(grpc.StatusCode.UNAVAILABLE)
FAILED_PRECONDITION = number_of(grpc.StatusCode.FAILED_PRECONDITION)
RESOURCE_EXHAUSTED = number_of(grpc.StatusCode.RESOURCE_EXHAUSTED)


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What a client may choose."""

    in_flight_max: int = 8_192
    """Commands sent and not answered; and as many queries. What is beyond waits here, unnumbered."""
    session_timeout_ms: int = 0
    """Silence after which the cluster may end the session; 0: the server's own choice."""
    cluster_id: int = 0
    """Work with this cluster only; 0: with the one that answers first."""
    patience: Patience = field(default_factory=Patience)
    close_s: float = 0.25
    """How long ``close`` waits for the server to take leave."""
    rng: random.Random = field(default_factory=random.Random)


class Session(ServerStream):
    """Carries commands and queries to whichever server can be reached. Belongs to one event loop."""

    METHOD = "/paxos_rsm.v1.Session/Stream"
    TASKS = "paxos_rsm client"

    def __init__(self, endpoints: Sequence[str], settings: SessionSettings) -> None:
        super().__init__(EndpointRing(endpoints, settings.rng))
        self._settings = settings
        self._rng = settings.rng
        self._window = Window(in_flight_max=settings.in_flight_max)
        self._reads = Reads(in_flight_max=settings.in_flight_max)
        self._cluster_id = settings.cluster_id
        self._loop: asyncio.AbstractEventLoop | None = None
        # Of the stream of now.
        self._open_sent = False
        self._opened = False
        self._heard = False
        self._probe_due = False
        self._frame_next = False
        # Pauses that the server asked for.
        self._frames_held = False
        self._reads_held = False
        self._leave = ""
        self._holds: list[asyncio.TimerHandle] = []
        self._refusals = 0
        self._refusal = ""
        self._lookout = Lookout(settings.patience)
        self._next_look: asyncio.TimerHandle | None = None
        self._when_connected: Callable[[], None] = lambda: None
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf

    @property
    def cluster_id(self) -> int:
        """Of the cluster that this client works with; 0 while it is not known."""
        return self._cluster_id

    def of_another_cluster(self, cluster_id: int) -> str:
        """Why a server of ``cluster_id`` is of no use; empty where it is: the client stays with that cluster then."""
        if cluster_id and self._cluster_id and cluster_id != self._cluster_id:
            return f"it is of cluster {cluster_id:x}, and this client works with cluster {self._cluster_id:x}"
        self._cluster_id = cluster_id or self._cluster_id
        return ""

    def when_connected(self, call: Callable[[], None]) -> None:
        """Has ``call`` called when a server has spoken for the first time on a new stream."""
        self._when_connected = call

    def use_endpoints(self, endpoints: Sequence[str]) -> None:
        """From now on these are the servers; a stream that works goes on."""
        self.ring.replace(endpoints)

    # ---- what callers do ---------------------------------------------------------------------------------

    def submit(self, data: bytes, timeout_s: float) -> "asyncio.Future[bytes]":
        """Queues a command; the future has its result, or the error that its caller is to see."""
        loop = self._running_loop()
        future: asyncio.Future[bytes] = loop.create_future()
        deadline = loop.time() + timeout_s
        self._window.add(Command(data, deadline, future))
        if deadline < self._alarm_at:
            self._set_alarm(deadline)
        self._wake()
        return future

    def query(self, data: bytes, serializable: bool, timeout_s: float) -> "asyncio.Future[Answer]":
        """Queues a query; see :meth:`submit`."""
        loop = self._running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        deadline = loop.time() + timeout_s
        self._reads.add(Query(data, deadline, future), serializable)
        if deadline < self._alarm_at:
            self._set_alarm(deadline)
        self._wake()
        return future

    async def close(self) -> None:
        """Ends the session. Commands in flight fail with UnknownOutcome, everything else with Unavailable."""
        self._closed = True
        self._fail_all()
        runner = self._runner
        if runner is None:
            return
        if self._heard:
            self._wake()  # the writer takes leave when it has nothing else to say, and the server ends the stream
            await asyncio.wait([runner], timeout=self._settings.close_s)
        await self._end(runner)

    def _fail_all(self) -> None:
        def never_sent() -> Unavailable:
            return Unavailable("not executed: the client was closed before it was sent or answered")

        self._window.fail_pending(never_sent)
        self._reads.fail_all(never_sent)
        self._window.session_lost(
            lambda: UnknownOutcome(
                "the client was closed after the command was sent and before its result came: it may or may not have "
                "been executed. Await what you submit before you close the client"
            )
        )
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm, self._alarm_at = None, math.inf

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._loop is not None:
                raise ClientError(
                    "this client belongs to another event loop, the one of its first call; make one client a loop"
                )
            forks.require_usable()
            self._loop = loop
        if self._closed:
            raise Unavailable("not executed: this client is closed; make a new one")
        return loop

    # ---- deadlines ---------------------------------------------------------------------------------------

    def _set_alarm(self, at: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        if self._loop is not None:
            self._alarm_at = at
            self._alarm = self._loop.call_at(at, self._ring_alarm)

    def _ring_alarm(self) -> None:
        """Deadlines have passed, or had when the alarm was set: what was answered since needs none any more."""
        now = asyncio.get_running_loop().time()
        self._alarm, self._alarm_at = None, math.inf
        situation = f". Last loss: {self.trouble}" if self.trouble else ""
        earliest = min(
            self._window.expire(now, self._too_late, situation), self._reads.expire(now, self._too_late)
        )
        if earliest < math.inf:
            # In steps: a thousand deadlines a millisecond apart are looked at some ten times, not a thousand.
            self._set_alarm(max(earliest, now + ALARM_STEP_S))

    def _too_late(self) -> ClientError:
        """Why something that was never sent, or a query, has not been answered in time."""
        if self._refusal:
            return ResourceExhausted(
                f"not executed: the servers had too much to do until the deadline: {self._refusal}; retry later"
            )
        if self.trouble:
            return Unavailable(
                f"not executed: no server was of use before the deadline; the last one tried: {self.trouble}"
            )
        heard = "has not answered in time" if self._heard else "could not be reached in time"
        return DeadlineExceeded(f"not executed: {self.ring.current} {heard}; retry, or give it more time")

    # ---- the stream --------------------------------------------------------------------------------------

    @property
    def _is_wanted(self) -> bool:
        return self._window.has_callers or self._reads.has_callers

    def _begin(self) -> None:
        self._open_sent = self._opened = self._heard = False
        self._probe_due = True  # first of all: is there anybody?
        self._lookout.connecting()

    def _refused_by(self, endpoint: str, code: int, details: str) -> None:
        pass  # this service says what is wrong in messages; whatever ended the stream may be over at the next try

    def _stream_lost(self) -> None:
        self._probe_due = False
        self._heard = False
        self._window.stream_lost()
        self._reads.stream_lost()
        for hold in self._holds:
            hold.cancel()
        self._holds.clear()
        self._frames_held = self._reads_held = False
        self._leave = ""
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None

    def _next_message(self) -> bytes | None:
        message = self._next_of_any()
        if message is not None and self._next_look is None:
            # Something is owed from now on, and nothing was before.
            loop = asyncio.get_running_loop()
            self._next_look = loop.call_at(self._lookout.start(loop.time()), self._look)
        return message

    def _last_message(self) -> bytes | None:
        return pb.ClientMessage(close=pb.Close()).SerializeToString() if self._closed else None

    def _next_of_any(self) -> bytes | None:
        if self._probe_due:
            self._probe_due = False
            return read_message(PROBE_ID, True, self._cluster_id, [])
        window = self._window
        if not self._open_sent and window.has_commands:
            self._open_sent = True
            opening = pb.Open(
                session=window.session,
                cluster_id=self._cluster_id,
                session_timeout_ms=0 if window.session else self._settings.session_timeout_ms,
            )
            return pb.ClientMessage(open=opening).SerializeToString()
        # In turns, so that neither holds up the other.
        self._frame_next = not self._frame_next
        if self._frame_next:
            return self._next_frame() or self._next_read()
        return self._next_read() or self._next_frame()

    def _next_frame(self) -> bytes | None:
        return None if self._frames_held or not self._opened else self._window.next_message()

    def _next_read(self) -> bytes | None:
        return None if self._reads_held else self._reads.next_message(self._cluster_id)

    # ---- the lookout -------------------------------------------------------------------------------------

    @property
    def _awaits(self) -> bool:
        """Whether the server owes something."""
        opening = self._open_sent and not self._opened
        return opening or self._window.awaits_results or bool(self._reads.asked)

    def _look(self) -> None:
        self._next_look = None
        if not self._awaits:
            return
        loop = asyncio.get_running_loop()
        verdict = self._lookout.look(loop.time())
        if verdict.loss:
            self._drop(verdict.loss)
            return
        if verdict.probe:
            self._probe_due = True
            self._wake()
        self._next_look = loop.call_at(self._lookout.next_look(loop.time()), self._look)

    def _progressed(self) -> None:
        """The server gave something that was asked for."""
        self._lookout.progressed()
        self._refusals = 0
        self._refusal = ""
        self.ring.succeeded()

    # ---- from the server ---------------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        if not self._heard:
            self._heard = True
            self._when_connected()
        self._lookout.heard(asyncio.get_running_loop().time())
        try:
            message = pb.ServerMessage.FromString(data)
        except DecodeError:
            raise LostError(
                f"it sent {len(data)} bytes that are no message: it is no paxos_rsm server"
            ) from None
        match message.WhichOneof("message"):
            case "results":
                results = message.results
                if self._window.results(results.first_seq, results.results):
                    self._progressed()
                if self._window.pending:
                    self._wake()  # there may be room in the window now
            case "read_results":
                self._take_read_results(message.read_results)
            case "opened":
                self._take_opened(message.opened)
            case "failure":
                self._take_failure(message.failure)
            case _:
                raise LostError("it sent a message of a kind that this version does not know")

    def _take_opened(self, opened: pb.Opened) -> None:
        self._check_cluster(opened.cluster_id)
        try:
            frame_bytes_max = opened.frame_bytes_max or FRAME_BYTES_MAX
            self._window.opened(opened.session, opened.next_seq, frame_bytes_max)
        except UnknownOutcome as error:
            said = str(error)
            self._window.session_lost(lambda: UnknownOutcome(said))
            raise LostError(said) from None
        self._reads.request_bytes_max = frame_bytes_max
        self._opened = True
        self._lookout.opened()
        self._wake()

    def _take_read_results(self, answer: pb.ReadResults) -> None:
        if answer.id == PROBE_ID:
            return
        if answer.HasField("failure"):
            self._take_read_failure(answer.id, answer.failure)
            return
        self._check_cluster(answer.cluster_id)
        if (
            not self._reads.answered(answer.id, answer.results, answer.applied_slot, answer.leader_age_ms)
            and answer.id in self._reads.asked
        ):
            raise LostError(f"it answered {len(answer.results)} queries where another number was asked")
        self._progressed()
        self._wake()

    def _take_read_failure(self, read_id: int, failure: pb.Failure) -> None:
        if failure.code == FAILED_PRECONDITION:
            # It is of another cluster. (INVALID_ARGUMENT speaks of the query alone.)
            self._reads.ask_again(read_id)
            self._refuse_endpoint(failure.message)
        elif failure.code == UNAVAILABLE:
            self._reads.ask_again(read_id)
            raise LostError(f"UNAVAILABLE: {failure.message}")
        elif failure.code in MAY_SUCCEED_LATER:
            self._reads.ask_again(read_id)
            self._reads_held = True
            self._hold(failure, self._release_reads)
        else:
            self._reads.failed(read_id, error_of(failure.code, failure.message))
            self._wake()

    def _take_failure(self, failure: pb.Failure) -> None:
        said = f"{code_name(failure.code)}: {failure.message}"
        if failure.session_expired:
            session = self._window.session
            self._window.session_lost(
                lambda: SessionExpired(
                    f"session {session} has expired, and what was in flight in it may or may not have been executed: "
                    "only reading the state can tell. It was not sent again; the next command opens a new session "
                    f"({failure.message})"
                )
            )
            raise LostError(said)
        if not failure.first_seq:
            if failure.code in WRONG_FOR_EVER:
                self._refuse_endpoint(failure.message)
            raise LostError(said)
        if not failure.not_executed:
            # Nobody knows; whoever has it in the log will answer it when it is sent again.
            raise LostError(said)
        later = failure.code in MAY_SUCCEED_LATER
        error = None if later else error_of(failure.code, f"not executed: {failure.message}")
        if not self._window.refused(failure.first_seq, error):
            self._window.session_lost(
                lambda: UnknownOutcome(
                    "a command that was sent before may or may not have been executed, and is refused now: "
                    f"{failure.message}. Only reading the state can tell"
                )
            )
            raise LostError(said)
        if failure.code == UNAVAILABLE:
            self._leave = said
        if not self._frames_held:
            self._frames_held = True
            self._hold(failure, self._release_frames)

    def _check_cluster(self, cluster_id: int) -> None:
        reason = self.of_another_cluster(cluster_id)
        if reason:
            self._refuse_endpoint(reason)

    def _refuse_endpoint(self, reason: str) -> None:
        """This server will never do; once that is so of all of them, there is nothing to wait for."""
        said = self.ring.refused(reason)
        if said is not None:
            self._window.fail_pending(
                lambda: InvalidArgument(f"not executed: no server accepts this client: {said}")
            )
            self._reads.fail_all(lambda: InvalidArgument(f"no server accepts this client: {said}"))
        raise LostError(reason)

    # ---- pauses that the server asked for ------------------------------------------------------------------

    def _hold(self, failure: pb.Failure, release: Callable[[], None]) -> None:
        """Comes back to ``release`` after a pause that doubles while nothing gets through."""
        if failure.code == RESOURCE_EXHAUSTED:
            self._refusal = failure.message
        pause_s = min(REFUSED_PAUSE_S * 2.0 ** min(self._refusals, 16), REFUSED_PAUSE_S_MAX)
        self._refusals += 1
        loop = asyncio.get_running_loop()
        self._holds = [hold for hold in self._holds if hold.when() > loop.time()]
        self._holds.append(loop.call_later(pause_s * self._rng.uniform(0.5, 1.0), release))

    def _release_frames(self) -> None:
        self._frames_held = False
        if self._leave:
            self._drop(self._leave)
        else:
            self._wake()

    def _release_reads(self) -> None:
        self._reads_held = False
        self._wake()
