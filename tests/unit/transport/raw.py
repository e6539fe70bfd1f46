"""Peers that do not keep to the rules: a caller and a server of bare bytes, and a wire that can go dead."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import grpc
from grpc import aio

from paxos_rsm.transport.peer_link import STREAM_METHOD

Call = aio.StreamStreamCall[bytes, bytes]
Context = aio.ServicerContext[bytes, bytes]


@asynccontextmanager
async def calling(port: int) -> AsyncIterator[Call]:
    """A stream to the peer port on which anything can be written."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        method: aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(STREAM_METHOD)
        call = method()
        try:
            yield call
        finally:
            call.cancel()


@asynccontextmanager
async def serving(port: int, converse: Callable[[Context], Awaitable[None]]) -> AsyncIterator[None]:
    """A server at a peer's address that answers streams as it likes."""

    handlers: set[asyncio.Task[None]] = set()

    async def stream(_requests: object, context: Context) -> None:
        task = asyncio.current_task()
        if task is not None:
            handlers.add(task)
            task.add_done_callback(handlers.discard)
        await converse(context)

    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(stream)
    service = grpc.method_handlers_generic_handler("paxos_rsm.v1.Paxos", {"Stream": handler})
    server = aio.server(handlers=[service], options=[("grpc.so_reuseport", 0)])
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield
    finally:
        while handlers:  # gRPC complains of those that it finds at work when it stops
            task = handlers.pop()
            task.cancel()
            await asyncio.wait([task])
        await server.stop(None)


class Wire:
    """Hands TCP connections on to ``to_port``, until it is told to swallow every byte, as a dead host does."""

    def __init__(self, port: int, to_port: int) -> None:
        self.port = port
        self._to_port = to_port
        self._dead = False
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    def die(self) -> None:
        """From now on nothing passes, and nobody is told."""
        self._dead = True

    def revive(self) -> None:
        """New connections work; those that went through the death do not, as after a restart of the host."""
        self._dead = False

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self.connections += 1
        writers = [writer]
        with suppress(OSError, asyncio.CancelledError):
            if self._dead:
                await asyncio.Event().wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
            writers.append(far_writer)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, far_writer))
                pumps.create_task(self._pump(far_reader, writer))
        for each in writers:
            each.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                if self._dead:
                    await asyncio.Event().wait()
                writer.write(data)
                await writer.drain()
        writer.close()
