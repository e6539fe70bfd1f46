"""An election: candidates queue, the first leads, and everybody can see who it is. See places.py."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from paxos_rsm.client.commands import to_bytes
from paxos_rsm.client.leases import AsyncLease
from paxos_rsm.client.places import Place
from paxos_rsm.client.txn import Compare, Op
from paxos_rsm.client.types import Leader, StrOrBytes
from paxos_rsm.errors import ClientError, Compacted, LeaseLost

if TYPE_CHECKING:
    from paxos_rsm.client.async_client import AsyncClient

__all__ = ["AsyncElection"]

T = TypeVar("T")

log = logging.getLogger(__name__)


class AsyncElection:
    """An election of the cluster; see :meth:`AsyncClient.election`.

    ::

        async with kv.election("elections/worker") as election:
            await election.campaign("host-7")
            await election.guard(lead(fence=election.fencing_token))

    One object is one candidate. Leaving resigns, where it leads or waits.
    """

    def __init__(self, client: "AsyncClient", place: Place) -> None:
        self._client = client
        self._place = place

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._place.leave()
        except ClientError as failed:
            if error is None:
                raise
            log.warning("a leader has not resigned, which ends with its lease: %s", failed)

    # ---- candidates --------------------------------------------------------------------------------------

    async def campaign(self, value: StrOrBytes, *, timeout_s: float | None = None) -> int:
        """Waits until it leads, for ever or so long; returns the fencing token. ``value`` is what others see.

        Raises DeadlineExceeded, LeaseLost where a lease that was given is lost, InvalidArgument where this object is a
        candidate already. After an error, or a cancellation, no key is left behind.
        """
        await self._place.enter(to_bytes(value, "a value"), timeout_s)
        return self._place.token

    async def resign(self, *, timeout_s: float | None = None) -> None:
        """Leads no more; the next candidate does. Does nothing where it is no candidate."""
        await self._place.leave(timeout_s)

    async def proclaim(self, value: StrOrBytes, *, timeout_s: float | None = None) -> None:
        """Changes what others see of the leader. Raises LeaseLost where it does not lead (any more)."""
        place = self._place
        if not place.first or place.lease is None:
            raise place.not_first()
        new = to_bytes(value, "a value")
        done = await self._client.txn(
            [Compare.create_revision(place.key, "==", place.token)],
            [Op.put(place.key, new, lease=place.lease)],
            timeout_s=timeout_s,
        )
        if not done:
            raise LeaseLost(f"the key {place.key!r} is gone: its lease has ended, or somebody deleted it")
        place.value = new

    @property
    def leads(self) -> bool:
        """Whether it leads, as far as this side's clock can tell."""
        return self._place.first

    @property
    def fencing_token(self) -> int:
        """The create revision of its key, higher for each leader that follows. Raises LeaseLost otherwise."""
        if not self._place.first:
            raise self._place.not_first()
        return self._place.token

    @property
    def key(self) -> bytes:
        """Its key, ELECTION/LEASE; empty where it is no candidate."""
        return self._place.key

    @property
    def lost(self) -> asyncio.Event:
        """Set when it leads no longer, other than by resigning. Raises LeaseLost where it does not lead."""
        return self._place.lost

    @property
    def lease(self) -> AsyncLease | None:
        """The lease that it leads by; None where it has none yet."""
        return self._place.lease

    async def guard(self, work: Awaitable[T]) -> T:
        """Awaits ``work`` while it leads; cancels it, and raises LeaseLost, when it does not any more."""
        return await self._place.hold(work)

    # ---- everybody ---------------------------------------------------------------------------------------

    async def leader(self, *, timeout_s: float | None = None) -> Leader | None:
        """Who leads; None where nobody does."""
        found = await self._client.range(
            prefix=self._place.name + b"/", limit=1, sort_by="create_revision", timeout_s=timeout_s
        )
        if not found:
            return None
        first = found[0]
        return Leader(first.key, first.value, first.create_revision, found.revision)

    async def observe(self) -> AsyncGenerator[Leader, None]:
        """Who leads, and whoever leads after that, and what each of them proclaims; without an end.

        One that leads only for a moment may be left out. Raises Unavailable where no server answers for the client's
        time-out.
        """
        while True:
            leader = await self.leader()
            if leader is None:
                await self._until_candidate()
                continue
            yield leader
            try:
                async with self._client.watch(leader.key, start_revision=leader.revision + 1) as watch:
                    async for event in watch:
                        if event.kind == "delete":
                            break
                        yield Leader(leader.key, event.value, leader.fencing_token, event.revision)
            except Compacted:
                continue  # look again

    async def _until_candidate(self) -> None:
        async with self._client.watch(prefix=self._place.name + b"/", leave_out="delete") as watch:
            if await self.leader() is None:
                await watch.next()
