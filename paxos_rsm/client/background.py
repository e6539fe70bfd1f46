"""The thread behind a Client: an event loop on which its AsyncClient lives, and calls handed over to it.

Whoever calls waits in its own thread, never on the loop: so a consumer of a watch, or whatever runs while a lock is
held, may call the client as it likes. The one thread that may not is the loop's own, and it is told so.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from paxos_rsm.client.async_client import AsyncClient
from paxos_rsm.errors import ClientError, Unavailable

__all__ = ["Background"]

T = TypeVar("T")


class Background:
    """A thread with an event loop, on which one AsyncClient lives.

    It knows nothing of its Client, so that the Client can be collected.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """Whether the client is closed."""
        return self._stopped

    def look(self, question: Callable[[], T]) -> T:
        """What ``question`` gives when it is asked on the loop, where everything is at rest; or what it raises."""

        async def ask() -> T:
            return question()

        return self.run(ask())

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """The result of ``call``, or what it raises."""
        try:
            loop = self._running_loop()
            waiting = asyncio.run_coroutine_threadsafe(call, loop)
        except BaseException:
            call.close()  # it was never started, and says so loudly when it is collected
            raise
        try:
            return waiting.result()
        except BaseException:
            # Ctrl-C, for one: nobody waits for it any more.
            waiting.cancel()
            raise

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._pid != os.getpid():
            raise ClientError(
                f"this Client was made in process {self._pid}, and its thread and connection did not come along into "
                "this fork of it; make a Client after the fork"
            )
        if threading.current_thread() is self._thread:
            raise ClientError("a Client blocks its caller, so it cannot be used on its own event loop")
        with self._lock:
            if self._stopped:
                raise Unavailable("not executed: this client is closed; make a new one")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._work, args=(self._loop,), name="paxos_rsm client", daemon=True
                )
                self._thread.start()
            return self._loop

    @staticmethod
    def _work(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    def stop(self) -> None:
        """Closes the client and ends the thread. Called by ``close``, the collector or the interpreter's exit."""
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
            loop, thread = self._loop, self._thread
        if loop is None or thread is None or self._pid != os.getpid():
            return
        try:
            asyncio.run_coroutine_threadsafe(self._wind_up(loop), loop)
        except RuntimeError:
            return  # the loop is closed already
        if thread is not threading.current_thread():
            thread.join()

    async def _wind_up(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            await self._client.close()
            # What other threads still wait for fails first, and each of these tasks has to say so.
            others = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
            if others:
                await asyncio.wait(others, timeout=1.0)
        finally:
            loop.stop()
