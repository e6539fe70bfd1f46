"""The way out to one peer: finds it, proves who we are, and writes what is to be said.

A link owns one task, which goes round for ever::

    connect -> our Hello -> their Hello or Refusal -> write frames until the stream ends -> pause -> ...

To connect is gRPC's work (``wait_for_ready``), with its back-off tamed by ``channel_options``; an attempt that does
not end in both Hellos within ``handshake_timeout_ms`` is given up with its channel, so that nothing that gRPC may
hold against an address outlives it. The pauses are random within bounds, so that servers that lost each other at
once do not all come back at once. A peer that returns is met within a second.

Frames are written one at a time; what is queued while a write waits for the peer's window goes into the next one. A
lone message goes at once: the write starts in the next turn of the event loop. gRPC tells the end of a call by a
callback, so the stream needs no task that reads: after the Hello the peer says nothing on it.

A peer that has moved is looked for under its new address from the next attempt on; the stream to the old one ends.

The incarnation at the other end is learned from its Hello. It is ``None`` until then, and whatever is sent
meanwhile is dropped, as is what waited when a stream ends: it was meant for that stream's incarnation alone.
"""

import asyncio
import logging
from collections.abc import Callable
from random import Random

import grpc
from grpc import aio

from paxos_rsm.codec.messages import MalformedMessage
from paxos_rsm.config import url_address
from paxos_rsm.paxos.types import NodeId
from paxos_rsm.transport.frames import Packed, decode_reply, encode_hello
from paxos_rsm.transport.handshake import Hello, Reason, Refusal
from paxos_rsm.transport.log import RepeatLog
from paxos_rsm.transport.options import TransportOptions, channel_options
from paxos_rsm.transport.outbox import Outbox

__all__ = ["STREAM_METHOD", "PeerLink"]

STREAM_METHOD = "/paxos_rsm.v1.Paxos/Stream"

SHORT_LIFE_S = 1.0
"""A stream that ends sooner counts as an attempt that failed: the peer may end every one of them."""

# What gRPC raises where a call has ended under our hands. A write may name INTERNAL for any of them.
STREAM_ERRORS = (grpc.RpcError, aio.BaseError, asyncio.InvalidStateError)

Call = aio.StreamStreamCall[bytes, bytes]


class _StreamEnded(Exception):
    """Says what a stream ended with."""


class PeerLink:
    """One peer, by its member id and address. Always holds: ``node`` is set only while a stream is open to it."""

    def __init__(
        self,
        member_id: int,
        url: str,
        options: TransportOptions,
        *,
        own_hello: Callable[[], Hello],
        check: Callable[[Hello], Refusal | None],
        on_up: Callable[["PeerLink", Hello], None],
        on_down: Callable[["PeerLink", NodeId], None],
        on_refused: Callable[[Refusal], None],
        on_failed: Callable[[Exception], None],
        log: RepeatLog,
        random: Random,
    ) -> None:
        """``url`` is ``http://host:port``; raises ConfigError where it is not. The callbacks must not block.

        ``check`` judges the peer's Hello; ``on_refused`` is told when the peer has judged ours; ``on_failed`` gets
        an exception out of a callback, after which the link is dead.
        """
        self.member_id = member_id
        self.url = url
        self.node: NodeId | None = None
        self.outbox = Outbox(options)
        self._target = url_address(url)
        self._options = options
        self._own_hello = own_hello
        self._check = check
        self._on_up = on_up
        self._on_down = on_down
        self._on_refused = on_refused
        self._on_failed = on_failed
        self._log = log
        self._random = random
        self._channel: aio.Channel | None = None
        self._call: Call | None = None
        self._idle: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._moved = False
        self.refusal: Refusal | None = None
        """What the peer said last, if it will not work with us."""

    def start(self) -> None:
        """Begins to look for the peer. Needs a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"peer-link {self.url}")

    def send(self, packed: Packed) -> None:
        """Queues a message for the incarnation at the other end; drops it where there is none. Never blocks."""
        if self.node is not None and self.outbox.put(packed):
            self._wake()

    def move(self, url: str) -> None:
        """Where the peer is to be found now. Raises ConfigError for a URL that is none; then nothing has changed."""
        target = url_address(url)
        self.url = url
        if target == self._target:
            return
        self._target = target
        self._moved = True
        self.disconnect()

    def disconnect(self) -> None:
        """Ends the stream; the next one begins with a new handshake."""
        if self._call is not None:
            self._call.cancel()

    async def close(self) -> None:
        """Ends the stream and the search."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self._drop_channel()

    # ---- the task --------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        try:
            while True:
                began = loop.time()
                connected = await self._attempt()
                lived = connected and loop.time() - began >= SHORT_LIFE_S
                failures = 0 if lived else failures + 1
                await asyncio.sleep(self._pause_s(failures))
        except Exception as error:
            self._on_failed(error)

    def _pause_s(self, failures: int) -> float:
        longest = min(self._options.backoff_max_ms, self._options.backoff_min_ms << min(failures, 8))
        return self._random.uniform(longest / 2, longest) / 1000

    async def _attempt(self) -> bool:
        """One stream, from the connection to its end. Whether the handshake succeeded."""
        if self._moved:
            self._moved = False
            await self._drop_channel()
        if self._channel is None:
            self._channel = aio.insecure_channel(self._target, options=channel_options(self._options))
        method: aio.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(STREAM_METHOD)
        call = self._call = method(wait_for_ready=True)
        connected = False
        try:
            theirs = await self._shake_hands(call)
            if theirs is not None:
                connected = True
                await self._speak(call, theirs)
        except TimeoutError:
            self._say(logging.DEBUG, f"no answer from the peer at {self.url}; trying on")
            await self._drop_channel()
        except (*STREAM_ERRORS, _StreamEnded, MalformedMessage) as error:
            self._say(logging.INFO, f"the stream to the peer at {self.url} has ended: {_reason(error)}")
        except asyncio.CancelledError:
            # gRPC raises this, too, for a call that `disconnect` has cancelled.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
        finally:
            self._call = None
            call.cancel()
        return connected

    async def _shake_hands(self, call: Call) -> Hello | None:
        """Both Hellos; None where one end refused the other. Raises what a broken stream raises; TimeoutError."""
        async with asyncio.timeout(self._options.handshake_timeout_ms / 1000):
            # The Hello is made once there is somebody to hear it, not when the wait began.
            await call.wait_for_connection()
            await call.write(encode_hello(self._own_hello()))
            data = await call.read()
        if not isinstance(data, bytes):
            raise _StreamEnded("there was no answer to our Hello")
        reply = decode_reply(data)
        if isinstance(reply, Refusal):
            self._say(logging.ERROR, f"refused by the peer at {self.url}: {reply.message}")
            if reply != self.refusal:
                self.refusal = reply
                self._on_refused(reply)
            return None
        refusal = self._check_address(reply) or self._check(reply)
        if refusal is not None:
            self._say(logging.ERROR, f"not talking to the server at {self.url}: {refusal.message}")
            return None
        self.refusal = None
        return reply

    def _check_address(self, theirs: Hello) -> Refusal | None:
        if theirs.member.member_id == self.member_id:
            return None
        return Refusal(
            Reason.NOT_A_MEMBER,
            f"it is member {theirs.member.name!r} (id {theirs.member.member_id:x}), where member id "
            f"{self.member_id:x} should be: check the addresses in --initial-cluster",
            False,
        )

    async def _speak(self, call: Call, theirs: Hello) -> None:
        """Writes frames until the stream ends, and raises what it ended with."""
        node = theirs.member.incarnation
        self.outbox.clear()
        self.node = node
        self._say(logging.INFO, f"connected to member {theirs.member.name!r} at {self.url}")
        try:
            self._on_up(self, theirs)
            call.add_done_callback(self._wake)
            await self._write_frames(call)
        finally:
            self.node = None
            self.outbox.clear()
            self._on_down(self, node)
        raise _StreamEnded(f"{(await call.code()).name} {await call.details()}".strip())

    async def _write_frames(self, call: Call) -> None:
        loop = asyncio.get_running_loop()
        while not call.done():
            frame = self.outbox.next_frame()
            if frame is not None:
                await call.write(frame)
                continue
            self._idle = loop.create_future()
            try:
                await self._idle
            finally:
                self._idle = None

    def _wake(self, _call: Call | None = None) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def _drop_channel(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    def _say(self, level: int, text: str) -> None:
        self._log.say(level, f"link {self.url}", text)


def _reason(error: Exception) -> str:
    if isinstance(error, aio.AioRpcError):
        return f"{error.code().name} {error.details() or ''}".strip()
    return str(error)
