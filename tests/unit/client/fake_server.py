"""Servers of a cluster that exists in memory only, in the test's own event loop, and misbehave when told to.

A :class:`FakeCluster` is what the log and the state machine are in truth: a key-value store with revisions and a
table of sessions that executes each sequence number once. Every :class:`FakeServer` of it speaks session.proto on
a port of its own. The cluster notes what a correct client never does: a gap, or two commands under one number.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc

from paxos_rsm._proto import admin_pb2, kv_pb2
from paxos_rsm._proto import session_pb2 as pb

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.value[0]
RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT.value[0]
OUT_OF_RANGE = grpc.StatusCode.OUT_OF_RANGE.value[0]
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION.value[0]


class FakeStore:
    """Enough of etcd's revision rules for what a client can see. A command that is no KvCommand is kept in ``raw``."""

    def __init__(self) -> None:
        self.revision = 1
        self.compacted = 0
        self.kvs: dict[bytes, kv_pb2.KeyValue] = {}
        self.raw: list[bytes] = []

    def apply(self, command: bytes) -> bytes:
        if command.startswith(b"raw:"):
            self.raw.append(command)
            return b"%d %s" % (len(self.raw), command)
        return self._kv(kv_pb2.KvCommand.FromString(command)).SerializeToString()

    def query(self, request: bytes) -> bytes:
        if request.startswith(b"raw:"):
            return b"%d" % len(self.raw)
        if request.startswith(b"bad:"):
            raise ValueError("a query that this machine cannot bear")
        return self._kv(kv_pb2.KvCommand.FromString(request)).SerializeToString()

    def _header(self) -> kv_pb2.ResponseHeader:
        return kv_pb2.ResponseHeader(revision=self.revision, cluster_id=7, member_id=1, raft_term=2)

    def _kv(self, command: kv_pb2.KvCommand) -> kv_pb2.KvResult:
        before = self.revision
        match command.WhichOneof("request"):
            case "put" if not command.put.key:
                return self._error(INVALID_ARGUMENT, "etcdserver: key is not provided")
            case "put":
                return kv_pb2.KvResult(put=self._put(command.put, before + 1))
            case "range" if command.range.revision > self.revision:
                return self._error(OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision")
            case "range":
                return kv_pb2.KvResult(range=self._range(command.range))
            case "delete_range":
                return kv_pb2.KvResult(delete_range=self._delete(command.delete_range, before + 1))
            case "txn":
                return kv_pb2.KvResult(txn=self._txn(command.txn, before + 1))
            case "compact" if command.compact.revision <= self.compacted:
                return self._error(OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")
            case "compact":
                self.compacted = command.compact.revision
                return kv_pb2.KvResult(compact=kv_pb2.CompactionResponse(header=self._header()))
        return self._error(INVALID_ARGUMENT, "not a command")

    @staticmethod
    def _error(code: int, message: str) -> kv_pb2.KvResult:
        return kv_pb2.KvResult(error=kv_pb2.KvError(code=code, message=message))

    def _put(self, put: kv_pb2.PutRequest, revision: int) -> kv_pb2.PutResponse:
        old = self.kvs.get(put.key)
        self.revision = revision
        self.kvs[put.key] = kv_pb2.KeyValue(
            key=put.key,
            value=put.value,
            version=old.version + 1 if old else 1,
            create_revision=old.create_revision if old else revision,
            mod_revision=revision,
        )
        return kv_pb2.PutResponse(header=self._header(), prev_kv=old if old and put.prev_kv else None)

    def _keys(self, key: bytes, end: bytes) -> list[bytes]:
        if not end:
            return [key] if key in self.kvs else []
        return sorted(each for each in self.kvs if key <= each and (end == b"\0" or each < end))

    def _range(self, request: kv_pb2.RangeRequest) -> kv_pb2.RangeResponse:
        keys = self._keys(request.key, request.range_end)
        shown = [self.kvs[key] for key in keys]
        if request.sort_order == kv_pb2.RangeRequest.DESCEND:
            shown.reverse()
        if request.limit:
            shown = shown[: request.limit]
        more = len(shown) < len(keys)
        if request.keys_only:
            shown = [kv_pb2.KeyValue(key=kv.key, mod_revision=kv.mod_revision) for kv in shown]
        kvs = [] if request.count_only else shown
        return kv_pb2.RangeResponse(header=self._header(), kvs=kvs, count=len(keys), more=more)

    def _delete(self, request: kv_pb2.DeleteRangeRequest, revision: int) -> kv_pb2.DeleteRangeResponse:
        keys = self._keys(request.key, request.range_end)
        if keys:
            self.revision = revision
        for key in keys:
            del self.kvs[key]
        return kv_pb2.DeleteRangeResponse(header=self._header(), deleted=len(keys))

    def _txn(self, txn: kv_pb2.TxnRequest, revision: int) -> kv_pb2.TxnResponse:
        succeeded = all(self._holds(compare) for compare in txn.compare)
        responses = []
        for op in txn.success if succeeded else txn.failure:
            match op.WhichOneof("request"):
                case "request_put":
                    response = kv_pb2.ResponseOp(response_put=self._put(op.request_put, revision))
                case "request_range":
                    response = kv_pb2.ResponseOp(response_range=self._range(op.request_range))
                case _:
                    deleted = self._delete(op.request_delete_range, revision)
                    response = kv_pb2.ResponseOp(response_delete_range=deleted)
            responses.append(response)
        return kv_pb2.TxnResponse(header=self._header(), succeeded=succeeded, responses=responses)

    def _holds(self, compare: kv_pb2.Compare) -> bool:
        kv = self.kvs.get(compare.key, kv_pb2.KeyValue())
        target = compare.WhichOneof("target_union")
        if target == "value" and compare.key not in self.kvs:
            return False
        have: Any = getattr(kv, str(target))
        want: Any = getattr(compare, str(target))
        return bool((have == want, have > want, have < want, have != want)[compare.result])


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
        self._server: grpc.aio.Server | None = None
        self._ends: set[asyncio.Future[tuple[grpc.StatusCode, str]]] = set()

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)])
        session: dict[str, Any] = {"Stream": grpc.stream_stream_rpc_method_handler(self._stream)}
        admin: dict[str, Any] = {"Status": grpc.unary_unary_rpc_method_handler(self._status)}
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler("paxos_rsm.v1.Session", session),
                grpc.method_handlers_generic_handler("paxos_rsm.v1.Admin", admin),
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
