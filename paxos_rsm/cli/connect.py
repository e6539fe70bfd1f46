"""A client for the length of one command, once somebody is there to talk to.

The client tries its endpoints for as long as a command may take, and at the end cannot tell a server that is not
there from one that knows no leader. For a script the two are not the same (exit code 2 and 1). So the endpoints are
dialled first, for ``--dial-timeout`` at most: one plain connection, closed at once.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from paxos_rsm.cli.failures import BadConnection
from paxos_rsm.cli.options import Settings

if TYPE_CHECKING:
    from paxos_rsm.client import AsyncClient

__all__ = ["connected", "dial", "run"]

T = TypeVar("T")

REDIAL_PAUSE_S = 0.1


@contextlib.asynccontextmanager
async def connected(settings: Settings) -> "AsyncIterator[AsyncClient]":
    """A client of the servers in ``settings``. Raises BadConnection where nobody is there."""
    await dial(settings.endpoints, settings.dial_timeout_s)
    # Here, so that what needs no client (help, completion) does not pay for loading gRPC.
    from paxos_rsm.client import AsyncClient

    async with AsyncClient(settings.endpoints, timeout_s=settings.command_timeout_s) as client:
        yield client


async def dial(endpoints: Sequence[str], timeout_s: float) -> None:
    """Returns as soon as one endpoint can be connected to. Raises BadConnection after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while True:
        attempts = [asyncio.create_task(_attempt(endpoint, deadline)) for endpoint in endpoints]
        reasons = []
        for attempt in asyncio.as_completed(attempts):
            reason = await attempt
            if reason is None:
                for other in attempts:
                    other.cancel()
                return
            reasons.append(reason)
        if time.monotonic() + REDIAL_PAUSE_S >= deadline:
            raise BadConnection(
                f"no server could be reached ({'; '.join(sorted(reasons))}); is one running there? see --endpoints"
            )
        await asyncio.sleep(REDIAL_PAUSE_S)  # it may be starting


async def _attempt(endpoint: str, deadline: float) -> str | None:
    """Why ``endpoint`` cannot be connected to; None where it can."""
    host, _, port = endpoint.rpartition(":")
    try:
        async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except TimeoutError:
        return f"{endpoint}: no connection in time"
    except ConnectionRefusedError:
        return f"{endpoint}: connection refused"
    except OSError as error:
        return f"{endpoint}: {(error.strerror or str(error)).lower()}"
    writer.close()
    return None


def run(settings: Settings, work: "Callable[[AsyncClient], Awaitable[T]]") -> T:
    """Does ``work`` with a client, and gives its result."""

    async def whole() -> T:
        async with connected(settings) as client:
            return await work(client)

    return asyncio.run(whole())
