"""What all views of one client share: the session, the stream of watches, the leases, and the end of it all.

A view (an AsyncClient, or one of its namespaces) translates keys; everything that has a connection, a timer or a task
is here, once, and is closed here, in the order in which it leans on each other: leases stop, what was said in parting
gets through, watches end, and the session takes leave.
"""

import asyncio
import logging
import random
from collections.abc import Iterable, Sequence

from paxos_rsm.client.calls import Calls
from paxos_rsm.client.endpoints import parse_endpoints
from paxos_rsm.client.leases import AsyncLease
from paxos_rsm.client.members import client_endpoints, list_members
from paxos_rsm.client.session import Session, SessionSettings
from paxos_rsm.client.types import Member
from paxos_rsm.client.watch_stream import WatchSettings, WatchStream
from paxos_rsm.errors import ClientError

__all__ = ["Core"]

FAREWELL_S = 30.0
"""How long a command of parting is worth sending: longer than most leases."""
CLOSE_S = 1.0
"""How long the end waits for such commands."""
REFRESH_TIMEOUT_S = 5.0

log = logging.getLogger(__name__)


class Core:
    """The client of one cluster, for one event loop."""

    def __init__(
        self,
        endpoints: Sequence[str] | str,
        settings: SessionSettings,
        watch_settings: WatchSettings | None = None,
        refresh_endpoints_s: float | None = None,
    ) -> None:
        self.given = tuple(parse_endpoints(endpoints))
        self.endpoints = self.given
        self.rng = random.Random()
        self.session = Session(self.endpoints, settings)
        self.calls = Calls(self.endpoints, self.rng)
        self.watches = WatchStream(
            self.endpoints, watch_settings or WatchSettings(), self.session.of_another_cluster
        )
        self.leases: set[AsyncLease] = set()
        self.closed = False
        self._farewells: set[asyncio.Future[bytes]] = set()
        self._refresh_s = refresh_endpoints_s
        self._refreshed_at = float("-inf")
        self._refresher: asyncio.Task[None] | None = None
        if refresh_endpoints_s is not None:
            self.session.when_connected(self._connected)

    def submit(self, command: bytes, timeout_s: float) -> "asyncio.Future[bytes]":
        """Queues a command of the session."""
        return self.session.submit(command, timeout_s)

    def farewell(self, command: bytes) -> "asyncio.Future[bytes] | None":
        """Queues a command that nobody has to wait for; None where the client is closed."""
        try:
            done = self.session.submit(command, FAREWELL_S)
        except ClientError:
            return None
        self._farewells.add(done)
        done.add_done_callback(self._said)
        return done

    def _said(self, done: "asyncio.Future[bytes]") -> None:
        self._farewells.discard(done)
        if not done.cancelled() and done.exception() is not None:
            log.info("what was to be undone was not, and ends with its lease: %s", done.exception())

    # ---- where the servers are ---------------------------------------------------------------------------

    async def members(self, timeout_s: float) -> list[Member]:
        """The members of the cluster, by name."""
        return await list_members(self.calls, timeout_s)

    async def refresh_endpoints(self, timeout_s: float) -> tuple[str, ...]:
        """Learns the members' addresses. Those that were given stay: they may be the only ones that can be reached."""
        return self.use_members(await self.members(timeout_s))

    def use_members(self, members: Iterable[Member]) -> tuple[str, ...]:
        """Goes by the addresses of these members, and by those that were given."""
        found = client_endpoints(members)
        self.endpoints = tuple(dict.fromkeys((*found, *self.given)))
        self.session.use_endpoints(self.endpoints)
        self.calls.ring.replace(self.endpoints)
        self.watches.ring.replace(self.endpoints)
        return self.endpoints

    def _connected(self) -> None:
        """A server has answered: a time to ask, where the last one is long ago."""
        loop = asyncio.get_running_loop()
        if self._refresher is None and not self.closed and self._refresh_s is not None:
            if loop.time() < self._refreshed_at + self._refresh_s:
                return
            self._refreshed_at = loop.time()
            self._refresher = loop.create_task(self._refresh(), name="paxos_rsm client endpoints")

    async def _refresh(self) -> None:
        try:
            await self.refresh_endpoints(REFRESH_TIMEOUT_S)
        except ClientError as error:
            log.info("the members' addresses are not known, and those given are used: %s", error)
        finally:
            self._refresher = None

    # ---- the end -----------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Ends everything. May be called twice."""
        self.closed = True
        for lease in list(self.leases):
            lease.closed()
        if self._farewells:
            await asyncio.wait(set(self._farewells), timeout=CLOSE_S)
        refresher = self._refresher
        if refresher is not None:
            refresher.cancel()
            await asyncio.wait([refresher])
        await self.calls.close()
        await self.watches.close()
        await self.session.close()
