"""The blocking twin of AsyncClient, for threads.

It has no behaviour of its own: each method hands its arguments to the method of the same name of an
AsyncClient that runs on an event loop in a background thread, and waits for what comes of it.
tests/unit/client/test_client.py holds the two against each other, name by name and parameter by parameter, so
that they cannot drift.

The thread starts with the first call and ends with ``close``; at the latest when the client is collected or the
interpreter exits. Any number of threads may use one client: what they call at the same time travels together.
"""

import asyncio
import os
import threading
import weakref
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from paxos_rsm.client.async_client import AsyncClient
from paxos_rsm.client.commands import SortBy
from paxos_rsm.client.txn import Compare, Op, TxnResult
from paxos_rsm.client.types import GetResult, MemberStatus, PutResult, RangeResult, StrOrBytes
from paxos_rsm.errors import ClientError, Unavailable

__all__ = ["Client"]

T = TypeVar("T")


class Client:
    """A client of one cluster, for threads; see AsyncClient, which has the same methods and parameters.

    ::

        with Client("127.0.0.1:2379,127.0.0.1:2381") as kv:
            kv.put("greeting", "hello")
            print(kv.get("greeting").value)
    """

    def __init__(
        self,
        endpoints: Sequence[str] | str,
        *,
        timeout_s: float = 5.0,
        session_timeout_s: float | None = None,
        in_flight_max: int = 8_192,
        cluster_id: int = 0,
    ) -> None:
        self._async = AsyncClient(
            endpoints,
            timeout_s=timeout_s,
            session_timeout_s=session_timeout_s,
            in_flight_max=in_flight_max,
            cluster_id=cluster_id,
        )
        self._background = _Background(self._async)
        self._finalizer = weakref.finalize(self, self._background.stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where the servers are, ``host:port``."""
        return self._async.endpoints

    @property
    def timeout_s(self) -> float:
        """How long a call may take, where it does not say so itself."""
        return self._async.timeout_s

    def close(self) -> None:
        """Ends the session, the connection and the thread. Calls of other threads fail. May be called twice."""
        self._finalizer()

    def put(
        self, key: StrOrBytes, value: StrOrBytes, *, prev_kv: bool = False, timeout_s: float | None = None
    ) -> PutResult:
        """See :meth:`AsyncClient.put`."""
        return self._run(self._async.put(key, value, prev_kv=prev_kv, timeout_s=timeout_s))

    def get(
        self,
        key: StrOrBytes,
        *,
        revision: int = 0,
        serializable: bool = False,
        timeout_s: float | None = None,
    ) -> GetResult:
        """See :meth:`AsyncClient.get`."""
        return self._run(
            self._async.get(key, revision=revision, serializable=serializable, timeout_s=timeout_s)
        )

    def range(
        self,
        key: StrOrBytes | None = None,
        end: StrOrBytes | None = None,
        *,
        prefix: StrOrBytes | None = None,
        limit: int = 0,
        revision: int = 0,
        sort_by: SortBy | None = None,
        descending: bool = False,
        keys_only: bool = False,
        count_only: bool = False,
        serializable: bool = False,
        timeout_s: float | None = None,
    ) -> RangeResult:
        """See :meth:`AsyncClient.range`."""
        return self._run(
            self._async.range(
                key,
                end,
                prefix=prefix,
                limit=limit,
                revision=revision,
                sort_by=sort_by,
                descending=descending,
                keys_only=keys_only,
                count_only=count_only,
                serializable=serializable,
                timeout_s=timeout_s,
            )
        )

    def delete(
        self,
        key: StrOrBytes | None = None,
        end: StrOrBytes | None = None,
        *,
        prefix: StrOrBytes | None = None,
        timeout_s: float | None = None,
    ) -> int:
        """See :meth:`AsyncClient.delete`."""
        return self._run(self._async.delete(key, end, prefix=prefix, timeout_s=timeout_s))

    def compare_and_swap(
        self,
        key: StrOrBytes,
        expected: StrOrBytes | None,
        new: StrOrBytes,
        *,
        timeout_s: float | None = None,
    ) -> bool:
        """See :meth:`AsyncClient.compare_and_swap`."""
        return self._run(self._async.compare_and_swap(key, expected, new, timeout_s=timeout_s))

    def txn(
        self,
        compares: Sequence[Compare],
        success: Sequence[Op],
        failure: Sequence[Op] = (),
        *,
        timeout_s: float | None = None,
    ) -> TxnResult:
        """See :meth:`AsyncClient.txn`."""
        return self._run(self._async.txn(compares, success, failure, timeout_s=timeout_s))

    def compact(self, revision: int, *, timeout_s: float | None = None) -> None:
        """See :meth:`AsyncClient.compact`."""
        return self._run(self._async.compact(revision, timeout_s=timeout_s))

    def submit(self, command: bytes, *, timeout_s: float | None = None) -> bytes:
        """See :meth:`AsyncClient.submit`."""
        return self._run(self._async.submit(command, timeout_s=timeout_s))

    def query(self, request: bytes, *, serializable: bool = False, timeout_s: float | None = None) -> bytes:
        """See :meth:`AsyncClient.query`."""
        return self._run(self._async.query(request, serializable=serializable, timeout_s=timeout_s))

    def status(self, *, timeout_s: float | None = None) -> list[MemberStatus]:
        """See :meth:`AsyncClient.status`."""
        return self._run(self._async.status(timeout_s=timeout_s))

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        return self._background.run(call)


class _Background:
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
        """Closes the client and ends the thread. Called once, by ``close``, the collector or the interpreter's exit."""
        with self._lock:
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
