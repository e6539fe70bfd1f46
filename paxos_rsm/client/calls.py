"""Calls that belong to no session and may be asked twice: asked at one server, and at the next where that is of no use.

Each makes a connection of its own: they are rare (a lease's time, the list of members), and a connection that is kept
would have to be watched. A server that does not answer is given up after a while that doubles each time round.
"""

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from paxos_rsm.client import forks
from paxos_rsm.client.endpoints import EndpointRing
from paxos_rsm.client.failures import MAY_SUCCEED_LATER, error_of, number_of
from paxos_rsm.client.stream import CHANNEL_OPTIONS
from paxos_rsm.errors import ClientError, Unavailable

__all__ = ["Calls"]

M = TypeVar("M", bound=Message)

ATTEMPT_S = 1.0
"""How long the first server may take, where another can be asked."""
DOUBLINGS_MAX = 6


class Calls:
    """Asks whichever server can be reached."""

    def __init__(self, endpoints: Sequence[str], rng: random.Random) -> None:
        self.ring = EndpointRing(endpoints, rng)
        self._open: set[grpc.aio.Channel] = set()
        self._closed = False

    async def ask(
        self,
        method: str,
        request: Message,
        answer_type: type[M],
        timeout_s: float,
        *,
        on_attempt: Callable[[], None] | None = None,
    ) -> M:
        """The answer to ``request``, which may be asked more than once: ``on_attempt`` is called each time.

        Raises Unavailable where no server answers in time, what the server says where it refuses, and ClientError where
        its answer is none.
        """
        answer = await self._ask(method, request.SerializeToString(), timeout_s, on_attempt)
        try:
            return answer_type.FromString(answer)
        except DecodeError:
            name = answer_type.DESCRIPTOR.name
            raise ClientError(f"a server sent {len(answer)} bytes that are no {name}") from None

    async def _ask(
        self, method: str, request: bytes, timeout_s: float, on_attempt: Callable[[], None] | None
    ) -> bytes:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        ring, attempts, last = self.ring, 0, "no server was asked"
        while True:
            forks.require_usable()
            if self._closed:
                raise Unavailable("this client is closed; make a new one")
            left_s = deadline - loop.time()
            if left_s <= 0:
                raise Unavailable(f"no server answered within {timeout_s:g} s; the last one tried: {last}")
            rounds = min(attempts // len(ring), DOUBLINGS_MAX)
            patience_s = left_s if len(ring) == 1 else min(ATTEMPT_S * 2.0**rounds, left_s)
            endpoint = ring.current
            attempts += 1
            if on_attempt is not None:
                on_attempt()
            try:
                answer = await self._ask_one(endpoint, method, request, patience_s)
            except grpc.aio.AioRpcError as error:
                code = number_of(error.code())
                if code not in MAY_SUCCEED_LATER:
                    raise self._said(code, error, endpoint, method) from None
                last = f"{endpoint}: {error.code().name}: {error.details()}"
                await asyncio.sleep(min(ring.failed(), max(deadline - loop.time(), 0)))
            else:
                ring.succeeded()
                return answer

    @staticmethod
    def _said(code: int, error: grpc.aio.AioRpcError, endpoint: str, method: str) -> ClientError:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return error_of(
                code, f"{endpoint} does not offer {method}: it runs another state machine or version"
            )
        return error_of(code, error.details() or "")

    async def _ask_one(self, endpoint: str, method: str, request: bytes, timeout_s: float) -> bytes:
        channel = grpc.aio.insecure_channel(endpoint, options=CHANNEL_OPTIONS)
        forks.opened(channel)
        self._open.add(channel)
        try:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
            return await call(request, timeout=timeout_s if timeout_s < math.inf else None)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._closed or (task is not None and task.cancelling()):
                raise
            raise Unavailable("the client was closed before an answer came") from None
        finally:
            self._open.discard(channel)
            await channel.close()
            forks.closed(channel)

    async def close(self) -> None:
        """Ends what is still asked; its callers are told."""
        self._closed = True
        for channel in list(self._open):
            await channel.close()
