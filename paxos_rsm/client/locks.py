"""A lock that is held by a key of the store, with a number to fence off whoever held it before. See places.py."""

import asyncio
import logging
from collections.abc import Awaitable
from types import TracebackType
from typing import Self, TypeVar

from paxos_rsm.client.leases import AsyncLease
from paxos_rsm.client.places import Place
from paxos_rsm.errors import ClientError, InvalidArgument

__all__ = ["AsyncLock"]

T = TypeVar("T")

log = logging.getLogger(__name__)


class AsyncLock:
    """A lock of the cluster; see :meth:`AsyncClient.lock`.

    ::

        async with kv.lock("locks/printer") as lock:
            await lock.guard(print_it(fence=lock.fencing_token))

    One object is one contender, which can be used again after a release. Between the threads or tasks of one process
    it excludes as well as between machines, with an object for each.
    """

    def __init__(self, place: Place) -> None:
        self._place = place

    async def __aenter__(self) -> Self:
        await self.acquire()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._place.leave()
        except ClientError as failed:
            if error is None:
                raise
            log.warning("a lock was not released and ends with its lease: %s", failed)

    async def acquire(self, *, timeout_s: float | None = None) -> int:
        """Waits until it is held, for ever or so long, first come, first served; returns the fencing token.

        Raises DeadlineExceeded, LeaseLost where a lease that was given is lost, InvalidArgument where this object holds
        it already. After an error, or a cancellation, no key is left behind.
        """
        await self._place.enter(b"", timeout_s)
        return self._place.token

    async def try_acquire(self, *, timeout_s: float | None = None) -> bool:
        """Takes it where nobody holds it or waits for it; returns whether it did. ``timeout_s`` is for the servers."""
        return await self._place.enter(b"", timeout_s, patient=False)

    async def release(self, *, timeout_s: float | None = None) -> None:
        """Gives it to whoever waits. Raises InvalidArgument where it was not acquired.

        Raises Unavailable or UnknownOutcome where no server says that it is done: it is free after its lease, then.
        """
        if not self._place.key:
            raise InvalidArgument(f"the lock {self._place.name!r} was not acquired by this object")
        await self._place.leave(timeout_s)

    @property
    def held(self) -> bool:
        """Whether it is held, as far as this side's clock can tell."""
        return self._place.first

    @property
    def fencing_token(self) -> int:
        """The create revision of its key, higher for each holder that follows. Raises LeaseLost otherwise."""
        if not self._place.first:
            raise self._place.not_first()
        return self._place.token

    @property
    def key(self) -> bytes:
        """Its key, NAME/LEASE; empty where it neither holds nor waits. To be compared in a transaction that only a
        holder may do: ``Compare.create_revision(lock.key, "==", lock.fencing_token)``.
        """
        return self._place.key

    @property
    def lost(self) -> asyncio.Event:
        """Set when it is held no longer, other than by a release. Raises LeaseLost where it is not held."""
        return self._place.lost

    @property
    def lease(self) -> AsyncLease | None:
        """The lease that it is held by; None where it has none yet."""
        return self._place.lease

    async def guard(self, work: Awaitable[T]) -> T:
        """Awaits ``work`` while it is held; cancels it, and raises LeaseLost, when it is not any more."""
        return await self._place.hold(work)
