"""A replica without a cluster, and servers and clients over real gRPC on free ports.

The sessions, the state machine and what a server keeps of frames in flight are the real ones. What is left out is
everything between: a turn of the event loop is a decided slot. `hold` stops the log, as a lost majority would.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc

from paxos_rsm._proto import session_pb2 as pb
from paxos_rsm.codec.frames import FrameCodec, commands_frame, timeouts_frame
from paxos_rsm.codec.kv import KvCodec, encode_command
from paxos_rsm.errors import PaxosRsmError, SessionExpired, Unavailable
from paxos_rsm.machines.base import StateMachine, Timeout
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.types import Put, Range
from paxos_rsm.machines.sessions import SessionMachine
from paxos_rsm.paxos.changes import Change, changed
from paxos_rsm.paxos.membership import Configuration
from paxos_rsm.paxos.types import Ballot
from paxos_rsm.replica.api import ReplicaStatus, SessionHandle, SessionSink
from paxos_rsm.replica.local_sessions import LocalSession, LocalSessions
from paxos_rsm.server.etcd_calls import CallLimits, EtcdCalls
from paxos_rsm.server.headers import Headers
from paxos_rsm.server.leadership import Leadership
from paxos_rsm.server.own_sessions import OwnSessions

FRAME_BYTES_MAX = 64 * 1024
PENDING_BYTES_MAX = 256 * 1024


class _Handle:
    """Counts, and asks for a turn as the real loop's handle does."""

    def __init__(self, replica: "FakeReplica", inner: LocalSession) -> None:
        self._replica = replica
        self.inner = inner

    @property
    def session(self) -> int:
        return self.inner.session

    def submit(self, frame: bytes, first_seq: int, count: int) -> None:
        if self._replica.refuse_with is not None:
            raise self._replica.refuse_with
        self.inner.submit(frame, first_seq, count)
        self._replica.submitted.append((self.inner.session, first_seq, count))
        self._replica.ask_turn()

    def close(self) -> None:
        self._replica.closed_sessions.append(self.inner.session)
        self.inner.close()

    def end(self) -> None:
        self._replica.closed_sessions.append(self.inner.session)
        self.inner.end()
        self._replica.ask_turn()


class FakeReplica:
    """Implements ReplicaHandle."""

    def __init__(
        self,
        machine: StateMachine | None = None,
        *,
        frame_bytes_max: int = FRAME_BYTES_MAX,
        leader: bool = True,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.kv = machine or KeyValueMachine(KvCodec())
        self.machine = SessionMachine(self.kv, FrameCodec())
        self.local = LocalSessions(frame_bytes_max, PENDING_BYTES_MAX, 60_000, 25)
        self.failed: asyncio.Future[None] = self._loop.create_future()
        self.has_leader = leader
        self.holding = False
        self.leader_age_ms = 0
        self.configuration: Configuration | None = None
        self.role = "leader"
        self.leader = 1
        self.refuse_with: PaxosRsmError | None = None
        self.read_error: Exception | None = None
        self.submitted: list[tuple[int, int, int]] = []
        self.closed_sessions: list[int] = []
        self.reads_asked = 0
        self.stopped = False
        self._reads: list[asyncio.Future[int]] = []
        self._watchers: list[Callable[[bool], None]] = []
        self._applied_watchers: list[Callable[[], None]] = []
        self.install_watchers: list[Callable[[bool], None]] = []
        self.changes: list[Change] = []
        self.snapshot_error: PaxosRsmError | None = None
        self.change_error: PaxosRsmError | None = None
        self.change_hangs = False
        self.handed_over: list[int | None] = []
        self.heir: int | None = None
        self.divergent: frozenset[int] = frozenset()
        self.disk_full = False
        self.remaining_ms: dict[int, int] = {}
        """By timer: what ``timer_remaining_ms`` says."""
        self._frames: list[bytes] = []
        self._turn_due = False
        self._nonce = 0

    # ---- what tests do to it ----

    def set_leader(self, has_leader: bool) -> None:
        self.has_leader = has_leader
        for watcher in self._watchers:
            watcher(has_leader)
        self.ask_turn()

    def hold(self) -> None:
        self.holding = True

    def release(self) -> None:
        self.holding = False
        self.ask_turn()

    def expire(self, session: int) -> None:
        """The cluster forgets a session, and the server hears of it."""
        local = next(each for each in list(self.local._by_number.values()) if each.session == session)
        del self.machine._sessions[session]
        self.local.fail(local, SessionExpired(f"session {session} has expired"))

    def run_out(self, *timeouts: Timeout) -> None:
        """The leader proposes that timers have run out."""
        self._frames.append(timeouts_frame(timeouts))
        self.ask_turn()

    def ask_turn(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_due = False
        if self.holding or not self.has_leader:
            return
        frames, self.local.outgoing, self._frames = self._frames + self.local.outgoing, [], []
        if frames:
            for outcome in self.machine.apply_slot(self.machine.applied_slot + 1, frames):
                self.local.applied(outcome)
            for applied in self._applied_watchers:
                applied()
        reads, self._reads = self._reads, []
        for read in reads:
            if read.done():
                continue
            if self.read_error is not None:
                read.set_exception(self.read_error)
            else:
                read.set_result(self.machine.applied_slot)
        if self.local.outgoing:
            self.ask_turn()

    # ---- ReplicaHandle ----

    def attach(self, sink: SessionSink, session: int = 0, timeout_ms: int = 0) -> SessionHandle:
        if session == 0:
            self._nonce += 1
            handle = _Handle(self, self.local.register(sink, self._nonce, timeout_ms))
            self.ask_turn()
            return handle
        handle = _Handle(self, self.local.resume(sink, session))

        def known(granted: "asyncio.Future[int]") -> None:
            info = self.machine.session(session)
            if handle.inner.closed or granted.cancelled():
                return
            if info is None:
                self.local.fail(handle.inner, SessionExpired(f"session {session} has expired"))
            else:
                sink.opened(session, info.last_seq + 1)

        self.read().add_done_callback(known)
        return handle

    def read(self) -> "asyncio.Future[int]":
        self.reads_asked += 1
        future: asyncio.Future[int] = self._loop.create_future()
        self._reads.append(future)
        self.ask_turn()
        return future

    def query(self, request: bytes) -> bytes:
        return self.machine.query(request)

    def encode_result(self, result: Any) -> bytes:
        return self.machine.encode_result(result)

    @property
    def ballot(self) -> Ballot:
        return self.status().ballot

    def status(self) -> ReplicaStatus:
        applied = self.machine.applied_slot
        return ReplicaStatus(
            role=self.role,
            leader=self.leader if self.has_leader else 0,
            ballot=Ballot(7, 1),
            promised=Ballot(7, 1),
            decided_slot=applied,
            applied_slot=applied,
            compacted_slot=0,
            snapshot_slot=0,
            leader_age_ms=self.leader_age_ms,
            log_bytes=12_345,
            sessions=self.machine.session_count,
            configuration=self.configuration,
            reachable=frozenset({1, 2}),
            divergent=self.divergent,
            disk_full=self.disk_full,
        )

    def timer_remaining_ms(self, timer: int, armed: int) -> int | None:
        return self.remaining_ms.get(timer)

    def watch_applied(self, applied: Callable[[], None]) -> None:
        self._applied_watchers.append(applied)

    async def change(self, change: Change) -> Configuration:
        self.changes.append(change)
        if self.change_hangs:
            await asyncio.Event().wait()
        if self.change_error is not None:
            raise self.change_error
        if self.configuration is None:
            raise Unavailable("there is no configuration yet")
        self.configuration = changed(self.configuration, change, len(self.changes))
        return self.configuration

    async def hand_over(self, to: int | None = None) -> int | None:
        self.handed_over.append(to)
        return self.heir if to is None else to if to == self.heir else None

    async def take_snapshot(self) -> tuple[int, int]:
        if self.snapshot_error is not None:
            raise self.snapshot_error
        return self.machine.applied_slot, 1_000

    def watch_install(self, installing: Callable[[bool], None]) -> None:
        self.install_watchers.append(installing)

    def watch_leader(self, changed: Callable[[bool], None]) -> None:
        self._watchers.append(changed)
        changed(self.has_leader)

    async def stop(self) -> None:
        self.stopped = True
        self.local.stopping = True
        for read in self._reads:
            if not read.done():
                read.set_exception(Unavailable("stopped"))


def etcd_calls(
    replica: FakeReplica,
    *,
    request_bytes_max: int = FRAME_BYTES_MAX - 1024,
    request_timeout_ms: int = 20_000,
    leaderless_ms: int = 100,
    in_flight_max: int = 100,
    cluster_id: int = 0xC1,
    member_id: int = 0x31,
) -> tuple[EtcdCalls, OwnSessions]:
    """What the services in etcd's words share, on a replica that runs the key-value store."""
    machine = replica.kv
    assert isinstance(machine, KeyValueMachine)
    own = OwnSessions(replica, frame_bytes_max=FRAME_BYTES_MAX, in_flight_max=in_flight_max)
    headers = Headers(replica, cluster_id, member_id, lambda: machine.revision)
    limits = CallLimits(request_bytes_max, request_timeout_ms, leaderless_ms)
    return EtcdCalls(replica, own, Leadership(replica), headers, limits), own


@asynccontextmanager
async def serving(
    *handlers: grpc.GenericRpcHandler,
) -> AsyncIterator[tuple[grpc.aio.Server, grpc.aio.Channel]]:
    """A gRPC server of these handlers on a free port, and a channel to it."""
    server = grpc.aio.server(handlers=handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = grpc.aio.insecure_channel(
        f"127.0.0.1:{port}", options=[("grpc.max_receive_message_length", -1)]
    )
    try:
        yield server, channel
    finally:
        await channel.close()
        await server.stop(None)


class SessionClient:
    """The client's end of one session stream, message by message."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.call: Any = channel.stream_stream(
            "/paxos_rsm.v1.Session/Stream",
            request_serializer=_bytes_of,
            response_deserializer=pb.ServerMessage.FromString,
        )()
        self.session = 0

    async def send(self, message: pb.ClientMessage | bytes) -> None:
        await self.call.write(message)

    async def receive(self) -> pb.ServerMessage:
        """The next message; fails where the stream has ended."""
        message = await self.call.read()
        if message is grpc.aio.EOF:
            raise EOFError(f"{await self.call.code()}: {await self.call.details()}")
        assert isinstance(message, pb.ServerMessage)
        return message

    async def ended(self) -> tuple[grpc.StatusCode, str]:
        """How the stream ended, once everything on it has been read."""
        try:
            while await self.call.read() is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError:
            pass
        return await self.call.code(), await self.call.details()

    async def open(self, session: int = 0, cluster_id: int = 0) -> pb.Opened:
        await self.send(pb.ClientMessage(open=pb.Open(session=session, cluster_id=cluster_id)))
        message = await self.receive()
        assert message.HasField("opened"), message
        self.session = message.opened.session
        return message.opened

    async def submit(
        self,
        first_seq: int,
        commands: Sequence[bytes],
        *,
        received_below: int = 0,
        session: int | None = None,
    ) -> None:
        number = self.session if session is None else session
        frame = commands_frame(number, first_seq, received_below, commands)
        await self.send(pb.ClientMessage(submit=pb.Submit(frame=frame)))

    async def results(self, count: int, first_seq: int | None = None) -> list[bytes]:
        """``count`` results, in however many messages they come; they must be consecutive."""
        results: list[bytes] = []
        while len(results) < count:
            message = await self.receive()
            assert message.HasField("results"), message
            expected = message.results.first_seq if first_seq is None else first_seq
            assert message.results.first_seq == expected
            first_seq = expected + len(message.results.results)
            results += message.results.results
        assert len(results) == count
        return results

    async def read(self, read_id: int, *requests: bytes, serializable: bool = False) -> pb.ReadResults:
        read = pb.Read(id=read_id, serializable=serializable, requests=requests)
        await self.send(pb.ClientMessage(read=read))
        message = await self.receive()
        assert message.HasField("read_results"), message
        return message.read_results


def _bytes_of(message: pb.ClientMessage | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


def put(key: bytes, value: bytes) -> bytes:
    """A command."""
    return encode_command(Put(key, value))


def get(key: bytes) -> bytes:
    """A request for query."""
    return encode_command(Range(key))


async def until(condition: Callable[[], bool]) -> None:
    """Waits for something that no awaitable announces."""
    while not condition():  # noqa: ASYNC110 (there is nothing else to wait for)
        await asyncio.sleep(0.002)
