"""The way in: what the peers' streams bring, and the one call that needs no stream (``describe``).

One handler a stream. It reads the Hello and answers with ours or with a refusal, then reads frames for as long
as the stream lives and hands each frame's messages over in one call. It never waits for anything but the
next frame: a server that is slow to take its messages lets gRPC's windows fill, and so slows the senders.

What is malformed ends the stream that brought it, with INVALID_ARGUMENT and one line in the log; the peer may come
again with a new one. There is one stream an incarnation: a new one ends the one before it, which is the remains of a
connection or process that is gone (a living one reconnects only once its old stream has ended).

Bytes go in and out as they are: the handler is registered without serializers, so that frames are decoded here,
where the error is ours to handle.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

import grpc
from grpc import aio

from paxos_rsm.codec.messages import MalformedMessage
from paxos_rsm.paxos.messages import Message
from paxos_rsm.paxos.types import NodeId
from paxos_rsm.transport.frames import (
    Assembler,
    decode_frame,
    decode_hello,
    encode_hello_reply,
    encode_refusal_reply,
)
from paxos_rsm.transport.handshake import Hello, Refusal
from paxos_rsm.transport.log import RepeatLog
from paxos_rsm.transport.options import TransportOptions

__all__ = ["PeerService"]

Context = aio.ServicerContext[bytes, bytes]


@dataclass(slots=True, eq=False)
class _Incoming:
    """One accepted stream."""

    node: NodeId
    context: Context
    ended: bool = False


class PeerService:
    """The servicer of ``paxos_rsm.v1.Paxos``. Always holds: at most one stream an incarnation is listened to."""

    def __init__(
        self,
        options: TransportOptions,
        *,
        own_hello: Callable[[], Hello],
        describe: Callable[[], bytes],
        check: Callable[[Hello], Refusal | None],
        on_messages: Callable[[NodeId, list[Message]], None],
        on_up: Callable[[Hello], None],
        on_down: Callable[[NodeId], None],
        on_failed: Callable[[Exception], None],
        log: RepeatLog,
    ) -> None:
        """The callbacks must not block.

        ``describe`` makes the answer to Describe; ``check`` judges a peer's Hello; ``on_failed`` gets what must stop
        this server: UnknownEntry, or an exception out of a callback.
        """
        self._options = options
        self._own_hello = own_hello
        self._describe = describe
        self._check = check
        self._on_messages = on_messages
        self._on_up = on_up
        self._on_down = on_down
        self._on_failed = on_failed
        self._log = log
        self._streams: dict[NodeId, _Incoming] = {}
        self._handlers: set[asyncio.Task[None]] = set()
        self._aborts: set[asyncio.Task[None]] = set()
        self._closing = False

    def generic_handler(self) -> grpc.GenericRpcHandler:
        """What a gRPC server is given."""
        stream: grpc.RpcMethodHandler[bytes, bytes]
        stream = grpc.stream_stream_rpc_method_handler(self._stream)
        unary: grpc.RpcMethodHandler[bytes, bytes]
        unary = grpc.unary_unary_rpc_method_handler(self._describe_to)
        return grpc.method_handlers_generic_handler(
            "paxos_rsm.v1.Paxos", {"Stream": stream, "Describe": unary}
        )

    def disconnect(self, node: NodeId) -> None:
        """Ends the stream of an incarnation, if there is one."""
        incoming = self._streams.get(node)
        if incoming is not None:
            self._end(incoming, "this incarnation is not a member any more")

    async def close(self) -> None:
        """Ends every stream and waits until the last handler has returned."""
        self._closing = True
        tasks = [*self._handlers, *self._aborts]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _describe_to(self, _request: bytes, _context: Context) -> bytes:
        """Who the members are. The request says nothing, whatever is in it."""
        return self._describe()

    # ---- one stream ------------------------------------------------------------------------------------------

    async def _stream(self, _requests: object, context: Context) -> None:
        task = asyncio.current_task()
        if task is None or self._closing:
            return
        self._handlers.add(task)
        try:
            await self._converse(context)
        except MalformedMessage as error:
            host = _host(context)
            self._log.say(logging.WARNING, f"from {host}", f"ended a stream from {host}: {error}")
            await self._reject(context, str(error))
        except aio.InternalError:
            raise _gone() from None  # a write failed: the caller has left
        finally:
            self._handlers.discard(task)

    async def _converse(self, context: Context) -> None:
        theirs = await self._shake_hands(context)
        if theirs is None:
            return
        incoming = _Incoming(theirs.member.incarnation, context)
        before = self._streams.get(incoming.node)
        self._streams[incoming.node] = incoming
        if before is not None:
            self._end(before, "a newer stream of the same server has taken its place")
        try:
            await context.write(encode_hello_reply(self._own_hello()))
            self._guarded(lambda: self._on_up(theirs))
            await self._listen(incoming)
        finally:
            if self._streams.get(incoming.node) is incoming:
                del self._streams[incoming.node]
                self._guarded(lambda: self._on_down(incoming.node))

    async def _shake_hands(self, context: Context) -> Hello | None:
        """Their Hello, judged; None where it was refused. Raises MalformedMessage."""
        try:
            async with asyncio.timeout(self._options.handshake_timeout_ms / 1000):
                data = await _read(context)
        except TimeoutError:
            raise MalformedMessage("no Hello came in time") from None
        if data is None:
            return None  # the caller has gone without a word
        theirs = decode_hello(data)
        refusal = self._check(theirs)
        if refusal is None:
            return theirs
        subject = f"refusal of {theirs.member.member_id}"
        self._log.say(logging.WARNING, subject, f"refused a stream from {_host(context)}: {refusal.message}")
        await context.write(encode_refusal_reply(refusal))
        return None

    async def _listen(self, incoming: _Incoming) -> None:
        """Reads frames until the stream ends. Raises MalformedMessage."""
        assembler = Assembler(self._options.message_bytes_max)
        while True:
            data = await _read(incoming.context)
            if data is None or incoming.ended:
                return
            try:
                messages = decode_frame(data, assembler)
                if messages:
                    self._on_messages(incoming.node, messages)
            except MalformedMessage:
                raise
            except Exception as error:  # UnknownEntry, or the owner of the callback has failed
                self._on_failed(error)
                return

    async def _reject(self, context: Context, why: str) -> None:
        try:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, why)
        except aio.InternalError:
            raise _gone() from None

    def _guarded(self, callback: Callable[[], None]) -> None:
        if self._closing:
            return
        try:
            callback()
        except Exception as error:
            self._on_failed(error)

    def _end(self, incoming: _Incoming, why: str) -> None:
        """Ends a stream from outside its handler, which then sees its read fail."""
        incoming.ended = True
        task = asyncio.get_running_loop().create_task(_abort(incoming.context, why))
        self._aborts.add(task)
        task.add_done_callback(self._aborts.discard)


async def _read(context: Context) -> bytes | None:
    """The next frame; None at the end of the stream."""
    data: object = await context.read()
    return data if isinstance(data, bytes) else None


async def _abort(context: Context, why: str) -> None:
    try:
        await context.abort(grpc.StatusCode.ABORTED, why)
    except aio.BaseError:
        pass  # AbortError is how it returns; anything else says that the stream has ended already


def _gone() -> asyncio.CancelledError:
    """What gRPC raises in a handler whose caller has left. Any other exception it would log as a failure of ours."""
    return asyncio.CancelledError("the caller has left")


def _host(context: Context) -> str:
    """Where the peer is, without the port, which differs at every attempt."""
    return context.peer().rpartition(":")[0]
