"""One stream to one server at a time, whatever it carries: what connects, reads, writes, and goes on elsewhere.

::

    next_message --writer--> stream --+
                                      | server
    take <------------------ runner --+

Two tasks, for as long as the stream is wanted: the *runner* connects, reads, and after a loss connects somewhere
else; the *writer* of the stream takes the next message whenever the one before it is through, and sleeps where there is
none until it is woken. What is said and heard is the affair of the two kinds there are, commands and queries
(session.py) and watches (watch_stream.py), and so is when a server is of no more use: ``_take`` raises LostError, and
whoever finds out elsewhere calls ``_drop``.

At the end of a stream nothing more is taken to be written; then the writer is waited for; and only then is it said
that the stream is lost: not before is it certain what was written.
"""

import abc
import asyncio
import logging
from collections.abc import Sequence
from typing import ClassVar, TypeAlias

import grpc

from paxos_rsm.client import forks
from paxos_rsm.client.endpoints import EndpointRing
from paxos_rsm.client.failures import number_of

__all__ = ["CHANNEL_OPTIONS", "WRONG_FOR_EVER", "LostError", "ServerStream"]

CHANNEL_OPTIONS: Sequence[tuple[str, int]] = (
    # Each attempt starts afresh: another client's failure to connect, in the same process, is none of ours.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    # A range may be larger than gRPC's 4 MB; its size is the caller's choice.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)

OPERATIONS_END_S = 0.1
"""A call that is cancelled ends its reads and writes by itself, at once, if it was connected. They are waited for
rather than abandoned: gRPC delivers the end of each to the loop that began it, and complains, in whichever loop of
the process is next, where that one has been closed meanwhile."""

WRONG_FOR_EVER = (
    number_of(grpc.StatusCode.FAILED_PRECONDITION),
    number_of(grpc.StatusCode.INVALID_ARGUMENT),
)
"""A stream that ends with one of these would end so again: another cluster, or settings that it does not take."""

Call: TypeAlias = "grpc.aio.StreamStreamCall[bytes, bytes]"

log = logging.getLogger(__name__)


class LostError(Exception):
    """The stream is of no more use; the text says why."""


class ServerStream(abc.ABC):
    """A stream that is kept going, at whichever server can be reached. Belongs to one event loop."""

    METHOD: ClassVar[str]
    METADATA: ClassVar[tuple[tuple[str, str], ...]] = ()
    TASKS: ClassVar[str]
    """What the two tasks are called."""

    def __init__(self, ring: EndpointRing) -> None:
        self.ring = ring
        self._runner: asyncio.Task[None] | None = None
        self._closed = False
        self._closing = asyncio.Event()
        self._last_loss = ""
        # Of the stream of now.
        self._call: Call | None = None
        self._waker: asyncio.Future[None] | None = None
        self._loss = ""

    @property
    def trouble(self) -> str:
        """Why no server is of use right now; empty where one is, or none has been tried."""
        return self._last_loss if self.ring.failures else ""

    # ---- what it carries -----------------------------------------------------------------------------------

    @property
    @abc.abstractmethod
    def _is_wanted(self) -> bool:
        """Whether there is anything that a server is needed for."""

    @property
    def _is_missed(self) -> bool:
        """Whether a stream that is lost now speaks against its server, so that the next one is tried after a pause."""
        return not self._closed

    @abc.abstractmethod
    def _begin(self) -> None:
        """A stream is there to be written to. Whether anybody is at its other end is not known yet."""

    @abc.abstractmethod
    def _next_message(self) -> bytes | None:
        """What to write next; None where there is nothing, or nothing that may be written now."""

    def _last_message(self) -> bytes | None:
        """What to take leave with, where there is nothing else to write and no more will come."""
        return None

    @abc.abstractmethod
    def _take(self, data: bytes) -> None:
        """Takes one message in. Raises LostError where the stream is of no more use."""

    @abc.abstractmethod
    def _stream_lost(self) -> None:
        """What was sent and not answered is to be sent again, on another stream."""

    @abc.abstractmethod
    def _refused_by(self, endpoint: str, code: int, details: str) -> None:
        """The server has ended the stream with this status."""

    # ---- from outside the runner ---------------------------------------------------------------------------

    def _wake(self) -> None:
        """There is something to write: wakes the writer, or begins to connect where nobody does."""
        waker, self._waker = self._waker, None
        if waker is not None:
            if not waker.done():
                waker.set_result(None)
        elif self._runner is None:
            self._runner = asyncio.get_running_loop().create_task(self._run(), name=self.TASKS)

    def _drop(self, reason: str) -> None:
        """Gives the stream up."""
        if self._call is not None and not self._loss:
            self._loss = reason
            self._call.cancel()

    async def _end(self, runner: "asyncio.Task[None]") -> None:
        """Ends the stream and the runner."""
        self._closing.set()
        self._drop("the client was closed")
        await asyncio.wait([runner], timeout=10 * OPERATIONS_END_S)
        runner.cancel()
        await asyncio.wait([runner])

    # ---- the runner ----------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """One stream after the other, as long as it is wanted."""
        try:
            while self._is_wanted and not self._closed:
                endpoint = self.ring.current
                try:
                    await self._serve(endpoint)
                    reason = "the server ended the stream"
                except LostError as lost:
                    reason = str(lost)
                except grpc.aio.AioRpcError as error:
                    details = error.details() or ""
                    reason = f"{error.code().name}: {details}"
                    self._refused_by(endpoint, number_of(error.code()), details)
                except Exception as error:
                    log.exception("the client met a bug while it worked with %s", endpoint)
                    reason = f"{type(error).__name__}: {error}"
                if self._is_missed:
                    self._last_loss = f"{endpoint}: {reason}"
                    pause_s = self.ring.failed()
                    log.info("left %s (%s): %s; next is %s", endpoint, self.METHOD, reason, self.ring.current)
                    await self._pause(pause_s)
        finally:
            self._runner = None

    async def _pause(self, pause_s: float) -> None:
        try:
            async with asyncio.timeout(pause_s):
                await self._closing.wait()
        except TimeoutError:
            pass

    async def _serve(self, endpoint: str) -> None:
        """Works with one server until the stream is lost."""
        loop = asyncio.get_running_loop()
        channel = grpc.aio.insecure_channel(endpoint, options=CHANNEL_OPTIONS)
        forks.opened(channel)
        call: Call = channel.stream_stream(self.METHOD)(metadata=self.METADATA)
        self._call, self._loss = call, ""
        self._begin()
        writer = loop.create_task(self._write(call), name=f"{self.TASKS} writer")
        try:
            while True:
                data = await call.read()
                if not isinstance(data, bytes):
                    return  # the end
                self._take(data)
        except asyncio.CancelledError:
            # Either this task is cancelled, or the call was, by _drop.
            task = asyncio.current_task()
            if not self._loss or (task is not None and task.cancelling()):
                raise
            raise LostError(self._loss) from None
        finally:
            self._call = None  # from here on the writer takes nothing more
            call.cancel()
            if self._waker is None:
                await asyncio.wait([writer], timeout=OPERATIONS_END_S)
            writer.cancel()
            await asyncio.wait([writer])
            self._waker = None
            self._stream_lost()
            await channel.close()
            forks.closed(channel)

    async def _write(self, call: Call) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._call is call:
                message = self._next_message()
                if message is not None:
                    await call.write(message)
                elif (last := self._last_message()) is not None:
                    await call.write(last)
                    await call.done_writing()
                    return
                else:
                    self._waker = waker = loop.create_future()
                    await waker
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
            pass  # the stream is gone, which the runner is told too
        except Exception as error:
            log.exception("the client met a bug while it wrote")
            self._drop(f"{type(error).__name__}: {error}")
