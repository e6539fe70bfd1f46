"""Servers of a cluster that exists in memory only, in the test's own event loop, and misbehave when told to.

A :class:`FakeCluster` is what the log and the sessions are in truth: a state machine, the real one, and a table of
sessions that executes each sequence number once. Every :class:`FakeServer` of it speaks session.proto on
a port of its own. The cluster notes what a correct client never does: a gap, or two commands under one number.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc

from paxos_rsm._proto import admin_pb2
from paxos_rsm._proto import session_pb2 as pb
from paxos_rsm.codec.kv import KvCodec
from paxos_rsm.machines.base import Position
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.types import LeaseRevoke
from tests.unit.client.fake_watch import FakeLeases, FakeMembers, FakeWatch

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.value[0]
RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT.value[0]
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION.value[0]


class FakeStore:
    """The real store. A command or query that begins with ``raw:`` is another machine's: it is kept as it is."""

    def __init__(self) -> None:
        self.machine = KeyValueMachine(KvCodec())
        self.raw: list[bytes] = []
        self.applied: list[Callable[[], None]] = []

    @property
    def revision(self) -> int:
        return self.machine.revision

    def apply(self, command: bytes) -> bytes:
        if command.startswith(b"raw:"):
            self.raw.append(command)
            return b"%d %s" % (len(self.raw), command)
        result = self.machine.apply(command, Position(1, 0))
        self.notify()
        return result

    def notify(self) -> None:
        for call in self.applied:
            call()

    def end_lease(self, lease: int) -> None:
        """As when its time has passed."""
        self.machine.execute(LeaseRevoke(lease))
        self.notify()

    def query(self, request: bytes) -> bytes:
        if request.startswith(b"raw:"):
            return b"%d" % len(self.raw)
        if request.startswith(b"bad:"):
            raise ValueError("a query that this machine cannot bear")
        return self.machine.query(request)


class FakeCluster:
    """What all servers of a cluster agree on."""

    def __init__(self, cluster_id: int = 7) -> None:
        self.cluster_id = cluster_id
        self.store = FakeStore()
        self.slot = 0
        self.sessions: dict[int, dict[int, tuple[bytes, bytes]]] = {}
        self.session_timeouts_ms: list[int] = []
        self.executed: list[bytes] = []
        self.offences: list[str] = []
        self.applied = asyncio.Event()

    def register(self, timeout_ms: int) -> int:
        self.slot += 1
        session = self.slot << 16
        self.sessions[session] = {}
        self.session_timeouts_ms.append(timeout_ms)
        return session

    def next_seq(self, session: int) -> int:
        return len(self.sessions[session]) + 1

    def expire(self) -> None:
        """Forgets every session."""
        self.sessions.clear()

    def execute(self, frame: pb.Frame) -> list[bytes]:
        """The results of a frame's commands, each executed now or before."""
        self.slot += 1
        table = self.sessions[frame.session]
        if frame.first_seq > len(table) + 1:
            self.offences.append(f"a gap: {frame.first_seq} where {len(table) + 1} was due")
            return []
        results = []
        for seq, command in enumerate(frame.commands, frame.first_seq):
            if seq not in table:
                table[seq] = command, self.store.apply(command)
                self.executed.append(command)
            known, result = table[seq]
            if known != command:
                self.offences.append(f"two commands under number {seq}: {known!r} and {command!r}")
            results.append(b"" if seq < frame.received_below else result)
        self.applied.set()
        return results


class FakeServer:
    """One server. Its attributes say how it misbehaves; it forgets nothing of what it was sent."""

    def __init__(self, cluster: FakeCluster, name: str = "n1", member_id: int = 1) -> None:
        self.cluster = cluster
        self.name = name
        self.member_id = member_id
        self.members: list[admin_pb2.MemberStatus] = []
        self.port = 0
        self.frame_bytes_max = 1_573_888
        # What it was sent.
        self.streams = 0
        self.opens: list[pb.Open] = []
        self.frames: list[pb.Frame] = []
        self.reads: list[pb.Read] = []
        self.probes = 0
        self.closes = 0
        self.came = asyncio.Event()
        # How it misbehaves.
        self.working = asyncio.Event()
        self.working.set()  # cleared: it takes messages and works on none, but for signs of life
        self.silent = False  # says nothing at all, as a stopped process
        self.lose_results = 0  # so many frames are executed, and the stream ends in place of their results
        self.drop_results = 0  # so many frames are executed, and their results are left out
        self.refusals: deque[tuple[int, str]] = deque()  # of the next frames, before the log
        self.read_failures: deque[tuple[int, str]] = deque()
        self.open_failure: pb.Failure | None = None
        self.garbage: bytes | None = None  # in place of the next result
        self.edit_opened: Callable[[pb.Opened], None] = lambda opened: None
        machine = cluster.store.machine
        self.watch = FakeWatch(machine, cluster.cluster_id)
        self.leases = FakeLeases(machine)
        self.member_list = FakeMembers()
        cluster.store.applied.append(self.watch.notify)
        self._server: grpc.aio.Server | None = None
        self._ends: set[asyncio.Future[tuple[grpc.StatusCode, str]]] = set()

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)])
        session: dict[str, Any] = {"Stream": grpc.stream_stream_rpc_method_handler(self._stream)}
        admin: dict[str, Any] = {"Status": grpc.unary_unary_rpc_method_handler(self._status)}
        unary = grpc.unary_unary_rpc_method_handler
        watch: dict[str, Any] = {"Watch": grpc.stream_stream_rpc_method_handler(self.watch.watch)}
        lease: dict[str, Any] = {
            "LeaseTimeToLive": unary(self.leases.time_to_live),
            "LeaseLeases": unary(self.leases.leases),
        }
        members: dict[str, Any] = {"MemberList": unary(self.member_list.member_list)}
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler("paxos_rsm.v1.Session", session),
                grpc.method_handlers_generic_handler("paxos_rsm.v1.Admin", admin),
                grpc.method_handlers_generic_handler("paxos_rsm.v1.Watch", watch),
                grpc.method_handlers_generic_handler("paxos_rsm.v1.Lease", lease),
                grpc.method_handlers_generic_handler("paxos_rsm.v1.Cluster", members),
            )
        )
        self.port = server.add_insecure_port(f"127.0.0.1:{self.port}")
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """Dies at once; ``start`` comes back on the same port."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(None)

    def end_streams(self, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE, details: str = "gone") -> None:
        """Ends every stream of now."""
        for end in self._ends:
            if not end.done():
                end.set_result((code, details))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for something that this server was sent."""
        while not condition():
            self.came.clear()
            await asyncio.wait_for(self.came.wait(), 20)

    async def _status(self, request: bytes, context: Any) -> bytes:
        return admin_pb2.StatusResponse(
            cluster_id=self.cluster.cluster_id,
            name=self.name,
            member_id=self.member_id,
            role="follower",
            leader="n1",
            applied_slot=self.cluster.slot,
            revision=self.cluster.store.revision,
            members=self.members,
        ).SerializeToString()

    async def _stream(self, requests: Any, context: Any) -> None:
        self.streams += 1
        end: asyncio.Future[tuple[grpc.StatusCode, str]] = asyncio.get_running_loop().create_future()
        self._ends.add(end)
        stream = _FakeStream(self, context, end)
        tasks = [asyncio.create_task(stream.read()), asyncio.create_task(stream.work())]
        try:
            code, details = await end
            if code is not grpc.StatusCode.OK:
                await context.abort(code, details)
        finally:
            self._ends.discard(end)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


class _FakeStream:
    def __init__(
        self, server: FakeServer, context: Any, end: "asyncio.Future[tuple[grpc.StatusCode, str]]"
    ) -> None:
        self.server = server
        self.cluster = server.cluster
        self.context = context
        self.end = end
        self.session = 0
        self.next_seq = 0
        self.writing = asyncio.Lock()
        self.inbox: asyncio.Queue[pb.ClientMessage] = asyncio.Queue()

    async def read(self) -> None:
        """Notes what comes, and queues it."""
        server = self.server
        while (data := await self.context.read()) is not grpc.aio.EOF:
            message = pb.ClientMessage.FromString(data)
            match message.WhichOneof("message"):
                case "open":
                    server.opens.append(message.open)
                case "submit":
                    server.frames.append(pb.Frame.FromString(message.submit.frame))
                case "read" if not message.read.requests:
                    server.probes += 1
                    if not server.silent:
                        await self.say(read_results=pb.ReadResults(id=message.read.id))
                case "read":
                    server.reads.append(message.read)
                case "close":
                    server.closes += 1
                    self.finish(grpc.StatusCode.OK, "")
            server.came.set()
            self.inbox.put_nowait(message)

    async def work(self) -> None:
        """Works on what came, in order."""
        while True:
            message = await self.inbox.get()
            await self.server.working.wait()
            match message.WhichOneof("message"):
                case "open":
                    await self.open(message.open)
                case "submit":
                    await self.submit(pb.Frame.FromString(message.submit.frame))
                case "read" if message.read.requests:
                    await self.answer(message.read)

    async def say(self, **message: Any) -> None:
        if self.server.silent:
            return
        async with self.writing:  # signs of life come from another task than the rest
            await self.context.write(pb.ServerMessage(**message).SerializeToString())

    def finish(self, code: grpc.StatusCode, details: str) -> None:
        if not self.end.done():
            self.end.set_result((code, details))

    async def fail(self, **failure: Any) -> None:
        """Ends the stream with a Failure and a status, as the real server does."""
        told = pb.Failure(**failure)
        await self.say(failure=told)
        code = next(code for code in grpc.StatusCode if code.value[0] == told.code)
        self.finish(code, told.message)

    async def open(self, message: pb.Open) -> None:
        server, cluster = self.server, self.cluster
        if server.open_failure is not None:
            await self.say(failure=server.open_failure)
            self.finish(grpc.StatusCode.UNAVAILABLE, server.open_failure.message)
            return
        if message.cluster_id not in (0, cluster.cluster_id):
            await self.fail(code=FAILED_PRECONDITION, message=f"this is cluster {cluster.cluster_id}")
            return
        if message.session and message.session not in cluster.sessions:
            await self.fail(code=FAILED_PRECONDITION, message="unknown session", session_expired=True)
            return
        self.session = message.session or cluster.register(message.session_timeout_ms)
        opened = pb.Opened(
            session=self.session,
            next_seq=cluster.next_seq(self.session),
            cluster_id=cluster.cluster_id,
            member_id=server.member_id,
            frame_bytes_max=server.frame_bytes_max,
        )
        server.edit_opened(opened)
        await self.say(opened=opened)

    async def submit(self, frame: pb.Frame) -> None:
        server = self.server
        if frame.session not in self.cluster.sessions:
            await self.fail(code=FAILED_PRECONDITION, message="the session ended", session_expired=True)
            return
        refusal: tuple[int, str] | None = None
        if self.next_seq and frame.first_seq > self.next_seq:
            refusal = RESOURCE_EXHAUSTED, f"an earlier frame was refused; send again from {self.next_seq}"
        elif server.refusals:
            refusal = server.refusals.popleft()
        if refusal is not None:
            self.next_seq = self.next_seq or frame.first_seq
            failure = pb.Failure(
                code=refusal[0], message=refusal[1], first_seq=frame.first_seq, not_executed=True
            )
            await self.say(failure=failure)
            return
        self.next_seq = max(self.next_seq, frame.first_seq + len(frame.commands))
        results = self.cluster.execute(frame)
        if server.lose_results:
            server.lose_results -= 1
            self.finish(grpc.StatusCode.UNAVAILABLE, "the stream broke before the results were out")
        elif server.drop_results:
            server.drop_results -= 1
        elif server.garbage is not None:
            garbage, server.garbage = server.garbage, None
            async with self.writing:
                await self.context.write(garbage)
        else:
            await self.say(results=pb.Results(first_seq=frame.first_seq, results=results))

    async def answer(self, read: pb.Read) -> None:
        server, cluster = self.server, self.cluster
        failure: pb.Failure | None = None
        results: list[bytes] = []
        if read.cluster_id not in (0, cluster.cluster_id):
            failure = pb.Failure(code=FAILED_PRECONDITION, message=f"this is cluster {cluster.cluster_id}")
        elif server.read_failures:
            code, message = server.read_failures.popleft()
            failure = pb.Failure(code=code, message=message)
        else:
            try:
                results = [cluster.store.query(request) for request in read.requests]
            except ValueError as error:
                failure = pb.Failure(code=grpc.StatusCode.UNKNOWN.value[0], message=str(error))
        answer = pb.ReadResults(
            id=read.id,
            results=[] if failure else results,
            failure=failure,
            applied_slot=cluster.slot,
            leader_age_ms=3,
            cluster_id=cluster.cluster_id,
        )
        await self.say(read_results=answer)
