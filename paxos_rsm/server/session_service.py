"""The Session service: commands and reads of any state machine, pipelined, over one stream a client.

A stream is three tasks and a queue::

    client --> reader --> handle.submit(frame)            into the log, as bytes
                   |
                   +----> replica.read() --done--+        one read index a Read message
                                                 v
    client <-- writer <------------------- [ queue ] <--- sink.results(...)     out of this server's own apply

The reader opens each frame once, here at the first hop: what does not parse, or is not the client's own
session, is answered and never reaches the log. The writer takes all that waits whenever the write before it is
through: results that came meanwhile leave in one message. A read is *asked* when it arrives and *answered* by the
writer, just before it is written: so a client that reads slowly makes this server hold its requests, not their
results, and the answer is from a state that is still newer than the index.

Bounds. What waits for a client to read it is counted in bytes; above the limit its stream ends with
RESOURCE_EXHAUSTED, and so does the slowest of all streams where too much waits on them together. The session lives
on: the client comes back and asks again, exactly once.

Order. A frame that is refused leaves a gap that only the client can fill; so the frames after it are refused too,
until it has sent again from there.

Failover. A server that has been without a leader for three election time-outs, or that stops, ends the streams which
wait for something with UNAVAILABLE: their sessions go on at another server.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from paxos_rsm._proto import session_pb2 as pb
from paxos_rsm.errors import (
    InvalidArgument,
    PaxosRsmError,
    RefusedByCluster,
    ResourceExhausted,
    Unavailable,
)
from paxos_rsm.replica.api import ReplicaHandle, SessionHandle
from paxos_rsm.server.rpc import (
    BUG,
    Context,
    StatusError,
    ends_with,
    length_delimited,
    parse,
    service_handler,
    stream_handler,
)
from paxos_rsm.server.status_codes import failure_of, number_of

__all__ = ["SERVICE", "SessionLimits", "SessionService"]

SERVICE = "paxos_rsm.v1.Session"

MESSAGE_BYTES_MAX = 1024 * 1024
"""Results are joined into one message up to this size; one larger result still goes."""
TOTAL_SHARE = 16
"""All streams together may have as much waiting as this many of them may alone."""
QUERIES_PER_SLICE = 256
"""After so many queries in a row the loop gets a turn: heartbeats must not wait for a client's reads."""
SEQ_MAX = 2**63 - 1
SESSION_TIMEOUT_MS_MIN = 1_000
SESSION_TIMEOUT_MS_MAX = 86_400_000
GOODBYE_S = 0.2
"""How long the end of a stream waits for a client to read why."""

# Fields of ServerMessage, for messages that are put together from parts that are encoded already.
RESULTS_FIELD = 2
READ_RESULTS_FIELD = 3

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What a stream is held to."""

    frame_bytes_max: int
    results_bytes_max: int
    """Waiting on one stream for its client to read."""
    leaderless_ms: int
    """After so long without a leader, streams that wait for something are sent elsewhere."""


@dataclass(slots=True)
class _Results:
    """Results on their way out, of consecutive commands."""

    first_seq: int
    results: list[bytes]
    size_bytes: int


@dataclass(slots=True)
class _Read:
    """A Read message that may be answered now."""

    message: pb.Read
    size_bytes: int
    error: PaxosRsmError | None = None


@dataclass(slots=True)
class _Message:
    """A message that is ready."""

    data: bytes
    size_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.size_bytes = len(self.data)


class SessionService:
    """Takes session streams and knows which session is on which of them."""

    def __init__(
        self, replica: ReplicaHandle, *, cluster_id: int, member_id: int, limits: SessionLimits
    ) -> None:
        self.replica = replica
        self.cluster_id = cluster_id
        self.member_id = member_id
        self.limits = limits
        self.stopping = False
        self.has_leader = False
        self.queued_bytes = 0
        self._streams: set[_Stream] = set()
        self._by_session: dict[int, _Stream] = {}
        self._leaderless: asyncio.TimerHandle | None = None
        replica.watch_leader(self._leader_changed)

    def handler(self) -> grpc.GenericRpcHandler:
        """What a gRPC server is given."""
        return service_handler(SERVICE, {"Stream": stream_handler(self._stream)})

    async def drain(self, grace_s: float) -> None:
        """Takes no more commands, gives those in flight ``grace_s`` to be answered, then ends every stream."""
        self.stopping = True
        streams = list(self._streams)
        for stream in streams:
            stream.drain()
        if streams:
            await asyncio.wait([stream.finished for stream in streams], timeout=grace_s)
        for stream in streams:
            stream.end(Unavailable("this server is stopping; the session goes on at another one"))
        if streams:
            await asyncio.wait([stream.finished for stream in streams], timeout=1.0)

    @property
    def stream_count(self) -> int:
        """Streams that are open."""
        return len(self._streams)

    async def _stream(self, _requests: object, context: Context) -> None:
        stream = _Stream(self, context)
        self._streams.add(stream)
        try:
            error = await stream.run()
        finally:
            self._streams.discard(stream)
            if self._by_session.get(stream.session) is stream:
                del self._by_session[stream.session]
        if error is not None:
            # Last, and with everything given back: while a client does not read, gRPC keeps its status waiting.
            raise error

    def own(self, stream: "_Stream") -> None:
        """Gives the session of ``stream`` to it: the newest stream wins."""
        older = self._by_session.get(stream.session)
        self._by_session[stream.session] = stream
        if older is not None and older is not stream:
            older.detach()  # at once: the newer stream attaches in this very turn
            reason = f"session {stream.session} has been opened on a newer stream"
            older.end(StatusError(grpc.StatusCode.ABORTED, reason))

    # ---- the leader --------------------------------------------------------------------------------------

    def end_slowest(self) -> None:
        """Too much waits, over all streams: whoever has let most of it pile up is the one that does not read."""
        max(self._streams, key=lambda each: each.queued_bytes).end_slow()

    def _leader_changed(self, has_leader: bool) -> None:
        self.has_leader = has_leader
        if self._leaderless is not None:
            self._leaderless.cancel()
            self._leaderless = None
        if not has_leader:
            loop = asyncio.get_running_loop()
            self._leaderless = loop.call_later(self.limits.leaderless_ms / 1000, self._send_elsewhere)

    def _send_elsewhere(self) -> None:
        for stream in list(self._streams):
            if stream.waits:
                stream.end(self.no_leader())

    def no_leader(self) -> Unavailable:
        """What a stream is told that would wait here in vain."""
        return Unavailable(
            f"no leader for {self.limits.leaderless_ms} ms: this server may be cut off from the majority; "
            "try another one, the session goes on there"
        )


class _Stream:
    """One client's stream; the sink of its session."""

    def __init__(self, service: SessionService, context: Context) -> None:
        loop = asyncio.get_running_loop()
        self.session = 0
        self.finished: asyncio.Future[None] = loop.create_future()
        self._service = service
        self._replica = service.replica
        self._limits = service.limits
        self._context = context
        self._handle: SessionHandle | None = None
        self._ends_session = False
        self._opened = False
        self._open_timer: asyncio.TimerHandle | None = None
        # What ends the stream: None for an end in order.
        self._ended: asyncio.Future[PaxosRsmError | StatusError | None] = loop.create_future()
        self._draining = False
        self._closing = False  # nothing more will be queued
        self._next_seq = 0  # of the commands that were handed on; 0 before the first frame
        self._answered_below = 0  # every command handed on below it has its result; 0 before the first frame
        self._refused_seq = 0  # where the client has to send again from; 0: nowhere
        self._reads_waiting = 0
        self._queue: deque[_Results | _Read | _Message] = deque()
        self.queued_bytes = 0
        self._wake = asyncio.Event()

    # ---- life --------------------------------------------------------------------------------------------

    async def run(self) -> PaxosRsmError | StatusError | None:
        """Serves the stream until either side ends it; returns why, None for an end in order."""
        writer = asyncio.create_task(self._write())
        reader = asyncio.create_task(self._read())
        for task in (writer, reader):
            ends_with(task, "a session stream", self.end)
        try:
            error = await self._ended
            reader.cancel()
            self.detach()
            if error is not None and not isinstance(error, ResourceExhausted):
                # A client that reads gets what is there for it, and why. One that does not is not waited for.
                self._put(_Message(pb.ServerMessage(failure=_failure_of(error)).SerializeToString()))
                self._closing = True
                await asyncio.wait([writer], timeout=GOODBYE_S)
            return error
        finally:
            # Also when the client has gone: gRPC cancels this coroutine then.
            reader.cancel()
            writer.cancel()
            if self._open_timer is not None:
                self._open_timer.cancel()
            self.detach()
            self._queue.clear()  # the status of this call may have to wait for its client: nothing else does
            self._account(-self.queued_bytes)
            if not self.finished.done():
                self.finished.set_result(None)

    def end(self, error: PaxosRsmError | StatusError | None) -> None:
        """Ends the stream, once; the first reason counts."""
        if not self._ended.done():
            self._ended.set_result(error)

    def detach(self) -> None:
        """Gives the session back to the replica; what was sent may still be executed."""
        handle, self._handle = self._handle, None
        if handle is not None and self._ends_session:
            handle.end()
        elif handle is not None:
            handle.close()

    def drain(self) -> None:
        """Ends the stream as soon as it waits for nothing, and everything has been written."""
        self._draining = True
        self._wake.set()

    @property
    def waits(self) -> bool:
        """Whether the client is owed something that only a leader can give."""
        opening = self._handle is not None and not self._opened
        return opening or self._answered_below < self._next_seq or self._reads_waiting > 0

    # ---- from the client ---------------------------------------------------------------------------------

    async def _read(self) -> None:
        context = self._context
        while True:
            data: Any = await context.read()
            if data is grpc.aio.EOF:
                break
            message = parse(pb.ClientMessage, data)
            match message.WhichOneof("message"):
                case "submit":
                    self._submit(message.submit.frame)
                case "read":
                    self._ask(message.read)
                case "open":
                    self._open(message.open)
                case "close":
                    self._ends_session = True
                    break
                case _:
                    raise InvalidArgument("a message on the stream is neither Open, Submit, Read nor Close")
        self.drain()

    def _open(self, message: pb.Open) -> None:
        if self._handle is not None:
            raise InvalidArgument("a stream is opened once; use a new stream for another session")
        self._check_cluster(message.cluster_id)
        if self._service.stopping:
            raise Unavailable("this server is stopping; use another one")
        if message.session:
            self.session = message.session
            self._service.own(self)
        loop = asyncio.get_running_loop()
        self._open_timer = loop.call_later(self._limits.leaderless_ms / 1000, self._open_late)
        timeout_ms = message.session_timeout_ms
        if timeout_ms and not SESSION_TIMEOUT_MS_MIN <= timeout_ms <= SESSION_TIMEOUT_MS_MAX:
            raise InvalidArgument(
                f"a session time-out of {timeout_ms} ms is not within {SESSION_TIMEOUT_MS_MIN}.."
                f"{SESSION_TIMEOUT_MS_MAX}; leave it out to take the server's"
            )
        self._handle = self._replica.attach(self, message.session, timeout_ms)

    def _check_cluster(self, cluster_id: int) -> None:
        if cluster_id not in (0, self._service.cluster_id):
            raise RefusedByCluster(
                f"the client speaks to cluster {cluster_id:x}, this is a server of cluster "
                f"{self._service.cluster_id:x}; look at the client's endpoints"
            )

    def _open_late(self) -> None:
        """A session is registered through the log; without a leader that takes for ever."""
        if not self._opened and not self._service.has_leader:
            self.end(self._service.no_leader())

    def _submit(self, frame: bytes) -> None:
        """Hands one frame on, or says why not. Raises InvalidArgument where it is not even a frame."""
        message = parse(pb.Frame, frame)
        first_seq = message.first_seq
        try:
            count = self._checked(message, len(frame))
            handle = self._handle
            if handle is None:
                raise InvalidArgument("a frame came before Open; a stream that submits is opened first")
            if self._draining:
                raise Unavailable("this server is stopping; send the frame to another one")
            if self._refused_seq and first_seq > self._refused_seq:
                raise ResourceExhausted(
                    f"an earlier frame was refused; send again from sequence number {self._refused_seq}"
                )
            handle.submit(frame, first_seq, count)
        except PaxosRsmError as error:
            if not first_seq:
                raise  # a Failure without a sequence number would speak of the whole stream, so let it
            self._refused_seq = min(self._refused_seq or first_seq, first_seq)
            failure = failure_of(error, first_seq)
            failure.not_executed = True  # whatever refused it: this frame has not been handed on
            self._put(_Message(pb.ServerMessage(failure=failure).SerializeToString()))
        else:
            self._refused_seq = 0
            self._next_seq = max(self._next_seq, first_seq + count)
            # A frame that has been answered whole is answered again, but nobody waits for that: results that come for
            # it end where they end, and what followed them need not come again.
            if first_seq + count > self._answered_below:
                self._answered_below = min(self._answered_below or first_seq, first_seq)
            # What the client says it has received is answered, and will not be again.
            self._answered_below = max(self._answered_below, message.received_below)

    def _checked(self, frame: pb.Frame, size_bytes: int) -> int:
        """How many commands a frame has. Raises InvalidArgument where it must not stand in the log."""
        count = len(frame.commands)
        if size_bytes > self._limits.frame_bytes_max:
            raise InvalidArgument(
                f"a frame of {size_bytes} bytes is larger than {self._limits.frame_bytes_max}; cut it"
            )
        if frame.HasField("register") or frame.HasField("expire"):
            raise InvalidArgument("a client's frame holds commands only; sessions are opened with Open")
        if frame.session != self.session or not frame.session:
            raise InvalidArgument(
                f"the frame is of session {frame.session}, and session {self.session} is open on this stream"
            )
        if not 1 <= frame.first_seq <= SEQ_MAX - count:
            raise InvalidArgument(f"sequence numbers are within 1..{SEQ_MAX}, not {frame.first_seq}")
        if not count:
            raise InvalidArgument("the frame has no command")
        if frame.received_below > frame.first_seq + count:
            raise InvalidArgument(
                f"the frame says that results below {frame.received_below} were received, which is beyond it"
            )
        return count

    # ---- reads -------------------------------------------------------------------------------------------

    def _ask(self, message: pb.Read) -> None:
        size = message.ByteSize()
        try:
            self._check_cluster(message.cluster_id)
        except RefusedByCluster as error:
            self._put(_Message(self._read_failed(message.id, error)))
            return
        if self.queued_bytes + size > self._limits.results_bytes_max:
            full = ResourceExhausted(
                "too many reads wait on this stream for their client; read their results"
            )
            self._put(_Message(self._read_failed(message.id, full)))
            return
        read = _Read(message, size)
        if message.serializable or not message.requests:
            self._put(read)
            return
        self._reads_waiting += 1
        self._count(size)
        self._replica.read().add_done_callback(lambda granted: self._read_granted(read, granted))

    def _read_granted(self, read: _Read, granted: "asyncio.Future[int]") -> None:
        if self.finished.done():
            return
        self._reads_waiting -= 1
        self._account(-read.size_bytes)
        if granted.cancelled():
            read.error = Unavailable("this server is stopping; read at another one")
        else:
            error = granted.exception()
            if isinstance(error, PaxosRsmError):
                read.error = error
            elif error is not None:
                log.error("a read failed for a reason that nobody foresaw", exc_info=error)
                read.error = PaxosRsmError(BUG)
        self._put(read)

    async def _answer(self, read: _Read) -> bytes:
        """A ServerMessage with the results of a Read, from the state as it is now."""
        if read.error is not None:
            return self._read_failed(read.message.id, read.error)
        status = self._replica.status()
        results: list[bytes] = []
        query = self._replica.query
        try:
            for index, request in enumerate(read.message.requests, 1):
                results.append(query(request))
                if index % QUERIES_PER_SLICE == 0:
                    await asyncio.sleep(0)
        except PaxosRsmError as error:
            return self._read_failed(read.message.id, error)
        except Exception as error:
            # A query changes nothing: a machine that raises there fails its caller only.
            log.warning("the state machine raised out of query", exc_info=error)
            told = PaxosRsmError(f"the state machine raised out of query: {type(error).__name__}: {error}")
            return self._read_failed(read.message.id, told)
        answer = pb.ReadResults(
            id=read.message.id,
            results=results,
            applied_slot=status.applied_slot,
            leader_age_ms=min(status.leader_age_ms, 2**32 - 1),
            cluster_id=self._service.cluster_id,
        )
        return length_delimited(READ_RESULTS_FIELD, answer.SerializeToString())

    def _read_failed(self, read_id: int, error: PaxosRsmError) -> bytes:
        cluster_id = self._service.cluster_id
        answer = pb.ReadResults(id=read_id, failure=failure_of(error), cluster_id=cluster_id)
        return length_delimited(READ_RESULTS_FIELD, answer.SerializeToString())

    # ---- the sink of the session ---------------------------------------------------------------------------

    def opened(self, session: int, next_seq: int) -> None:
        """See SessionSink."""
        self.session = session
        self._opened = True
        self._service.own(self)
        opened = pb.Opened(
            session=session,
            next_seq=next_seq,
            cluster_id=self._service.cluster_id,
            member_id=self._service.member_id,
            frame_bytes_max=self._limits.frame_bytes_max,
        )
        self._put(_Message(pb.ServerMessage(opened=opened).SerializeToString()))

    def results(self, first_seq: int, results: Sequence[Any]) -> None:
        """See SessionSink."""
        encode = self._replica.encode_result
        # None: the client has said that it has this one; it needs no answer, only the place in the row.
        encoded = [b"" if result is None else encode(result) for result in results]
        size = sum(map(len, encoded)) + 4 * len(encoded)
        if first_seq <= self._answered_below:
            # Results of what follows a frame may come before its own, by a copy that another server has handed on.
            self._answered_below = max(self._answered_below, first_seq + len(encoded))
        last = self._queue[-1] if self._queue else None
        if (
            isinstance(last, _Results)
            and last.first_seq + len(last.results) == first_seq
            and last.size_bytes + size <= MESSAGE_BYTES_MAX
        ):
            last.results += encoded
            last.size_bytes += size
            self._count(size)
        else:
            self._put(_Results(first_seq, encoded, size))

    def failed(self, first_seq: int, error: PaxosRsmError) -> None:
        """See SessionSink."""
        if not first_seq:
            self.end(error)
            return
        # What came after that frame cannot be executed before it: the client sends again from there.
        self._refused_seq = min(self._refused_seq or first_seq, first_seq)
        self._next_seq = min(self._next_seq, first_seq)
        self._answered_below = min(self._answered_below, self._next_seq)
        self._put(_Message(pb.ServerMessage(failure=failure_of(error, first_seq)).SerializeToString()))

    # ---- to the client -----------------------------------------------------------------------------------

    def _put(self, item: _Results | _Read | _Message) -> None:
        self._queue.append(item)
        self._count(item.size_bytes)

    def _count(self, size_bytes: int) -> None:
        self._account(size_bytes)
        self._wake.set()
        if self.queued_bytes > self._limits.results_bytes_max:
            self.end_slow()
        elif self._service.queued_bytes > TOTAL_SHARE * self._limits.results_bytes_max:
            self._service.end_slowest()

    def _account(self, size_bytes: int) -> None:
        self.queued_bytes += size_bytes
        self._service.queued_bytes += size_bytes

    def end_slow(self) -> None:
        """Ends a stream whose client does not read."""
        self.end(
            ResourceExhausted(
                f"{self.queued_bytes} bytes wait for a client that does not read them; open the session "
                "again and read its results"
            )
        )

    async def _write(self) -> None:
        """Writes what waits, in order, until the stream has ended and nothing waits any more."""
        queue, context = self._queue, self._context
        while True:
            while queue:
                item = queue.popleft()
                if isinstance(item, _Results):
                    results = pb.Results(first_seq=item.first_seq, results=item.results)
                    data = length_delimited(RESULTS_FIELD, results.SerializeToString())
                elif isinstance(item, _Message):
                    data = item.data
                else:
                    data = await self._answer(item)
                await context.write(data)
                self._account(-item.size_bytes)
            if self._closing:
                return
            if self._draining and not self.waits:
                stopping = self._service.stopping
                self.end(Unavailable("this server is stopping; use another one") if stopping else None)
            self._wake.clear()
            await self._wake.wait()


def _failure_of(error: PaxosRsmError | StatusError) -> pb.Failure:
    if isinstance(error, StatusError):
        return pb.Failure(code=number_of(error.code), message=error.details)
    return failure_of(error)
