"""A lease that keeps itself alive, and says when it cannot any more.

**What is known here.** The cluster gives a lease its full time again when a keep-alive is *applied*, which is after it
was sent. So on this side the lease is alive until its time has passed since the *sending* of the last keep-alive that
was acknowledged, by the monotonic clock; until then no server has ended it (clocks that run at rates of their own
aside). After that it may have ended: it counts as lost, at once and for good, whatever an answer says that comes later.
The time is also looked at with every question (``alive``), so that a process that was stopped does not believe, in the
moment it wakes, what its timers have not told it yet.

**When it is kept alive.** A third of its time after the last sending, less a random part: a thousand leases that were
granted together are not renewed together. A keep-alive is a command of the session: it follows the client from server
to server, and takes effect once. One that fails is sent again soon, as long as there is time.

There is no task for a lease: two timers, and a callback on the answer.
"""

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Protocol, Self, TypeVar

from paxos_rsm._proto import lease_pb2
from paxos_rsm.client.calls import Calls
from paxos_rsm.client.commands import (
    grant_command,
    grant_result,
    keep_alive_command,
    keep_alive_result,
    open_result,
    revoke_command,
)
from paxos_rsm.client.types import GrantResult, TimeToLive
from paxos_rsm.errors import ClientError, InvalidArgument, LeaseLost, Unavailable

__all__ = ["AsyncLease", "LeaseHome", "list_leases", "time_to_live"]

T = TypeVar("T")

TIME_TO_LIVE = "/paxos_rsm.v1.Lease/LeaseTimeToLive"
LEASES = "/paxos_rsm.v1.Lease/LeaseLeases"

KEEP_ALIVE_SHARE = 1 / 3
JITTER = 0.2
"""The share of that pause that is left to chance."""
AGAIN_SHARE = 0.05
"""Of its time: the pause before a keep-alive that failed is sent again."""
SOON_S = 0.02
ID_END = 2**63

log = logging.getLogger(__name__)


async def time_to_live(calls: Calls, lease: int, keys: bool, timeout_s: float) -> TimeToLive:
    """What a server knows of a lease. Raises what :meth:`Calls.ask` raises."""
    request = lease_pb2.LeaseTimeToLiveRequest(ID=lease, keys=keys)
    told = await calls.ask(TIME_TO_LIVE, request, lease_pb2.LeaseTimeToLiveResponse, timeout_s)
    return TimeToLive(told.ID, told.TTL, told.grantedTTL, tuple(told.keys))


async def list_leases(calls: Calls, timeout_s: float) -> list[int]:
    """The numbers of all leases, sorted. Raises what :meth:`Calls.ask` raises."""
    told = await calls.ask(LEASES, lease_pb2.LeaseLeasesRequest(), lease_pb2.LeaseLeasesResponse, timeout_s)
    return sorted(each.ID for each in told.leases)


class LeaseHome(Protocol):
    """What a lease needs of its client."""

    rng: random.Random
    calls: Calls
    leases: "set[AsyncLease]"
    """Those that keep themselves alive."""

    def submit(self, command: bytes, timeout_s: float) -> "asyncio.Future[bytes]":
        """Queues a command of the session."""

    def farewell(self, command: bytes) -> "asyncio.Future[bytes] | None":
        """Queues a command that nobody has to wait for: the client does not close before it is through, or too late."""


class AsyncLease:
    """A lease of this client; see :meth:`AsyncClient.lease`.

    ::

        async with kv.lease(10) as lease:
            await kv.put("workers/1", "here", lease=lease)
            await lease.guard(work())        # cancelled, with LeaseLost, where the lease is lost

    Entering grants it, leaving revokes it, which deletes its keys. In between it keeps itself alive.
    """

    def __init__(self, home: LeaseHome, ttl_s: int, lease_id: int, timeout_s: float) -> None:
        if type(lease_id) is not int or not 0 <= lease_id < ID_END:
            raise InvalidArgument(f"id={lease_id!r} is not the number of a lease; give 0 to have one chosen")
        grant_command(1, ttl_s)  # to refuse what makes no sense now, and not when it is entered
        self.id = lease_id
        """Its number in the cluster; 0 before it is granted, where none was asked for."""
        self.ttl_s = ttl_s
        """Its time, in seconds; once granted, what the cluster made of it."""
        self.lost = asyncio.Event()
        """Set when it has ended or may have, for whatever reason other than that it was revoked here."""
        self.names: set[bytes] = set()
        """What is held by it: a lock or an election can be entered once."""
        self._told: list[Callable[[], None]] = []
        self._home = home
        self._timeout_s = timeout_s
        self._why = ""
        self._granted = False
        self._over = False
        self._deadline = -math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._asked: asyncio.Future[bytes] | None = None

    async def __aenter__(self) -> Self:
        await self.grant()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.revoke()
        except ClientError as failed:
            if error is None:
                raise
            log.warning("lease %x was not revoked and ends by itself: %s", self.id, failed)

    # ---- its life ----------------------------------------------------------------------------------------

    async def grant(self, *, timeout_s: float | None = None) -> Self:
        """Has it granted, and begins to keep it alive. Called by ``async with``.

        Raises InvalidArgument where its number is taken or its time too long. Where it raises UnknownOutcome, or is
        cancelled, the lease is revoked as soon as that can be done; but not one whose number was given: that may be
        somebody else's, and one that was granted after all ends in its time.
        """
        if self._granted or self._over:
            raise InvalidArgument(f"lease {self.id:x} was granted before; make a new one")
        self._granted = True
        is_own = not self.id
        self.id = self.id or self._home.rng.randrange(1, ID_END)
        loop = asyncio.get_running_loop()
        sent_at = loop.time()
        command = grant_command(self.id, self.ttl_s)
        try:
            raw = await self._home.submit(command, self._timeout_s if timeout_s is None else timeout_s)
        except BaseException as error:
            self._over = True
            if is_own and not isinstance(error, InvalidArgument | Unavailable):
                self._home.farewell(revoke_command(self.id))
            raise
        try:
            self.ttl_s = grant_result(raw).ttl_s
        except ClientError:
            self._over = True
            raise
        self._home.leases.add(self)
        self._renewed(sent_at)
        return self

    async def revoke(self, *, timeout_s: float | None = None) -> None:
        """Ends it, and deletes its keys. Does nothing where it has ended already. Called at the end of ``async with``.

        Raises Unavailable or UnknownOutcome where no server says that it is done: it ends by itself then, in its time.
        """
        if not self._granted or self._over:
            return
        self.forget()
        wait_s = self._timeout_s if timeout_s is None else timeout_s
        raw = await self._home.submit(revoke_command(self.id), wait_s)
        try:
            open_result(raw, "lease_revoke")
        except InvalidArgument:
            pass  # it had ended

    def forget(self) -> None:
        """Keeps it alive no longer, and does not revoke it either."""
        self._over = True
        self._stop()

    def abandon(self) -> "asyncio.Future[bytes] | None":
        """Has it revoked; returns what can be waited for, or None where there is nothing to revoke."""
        if not self._granted or self._over:
            return None
        self.forget()
        return self._home.farewell(revoke_command(self.id))

    # ---- is it alive? ------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether no server can have ended it, as far as this side's monotonic clock can tell."""
        if self._over or not self._granted or self.lost.is_set():
            return False
        if asyncio.get_running_loop().time() < self._deadline:
            return True
        self._lose(self._silence())
        return False

    def when_lost(self, call: Callable[[], None]) -> None:
        """Has ``call`` called, on the event loop, when it is lost; at once where it is."""
        self._told.append(call)
        if self.lost.is_set():
            call()

    def check(self) -> None:
        """Raises LeaseLost where it is not alive, with the reason."""
        if not self.alive:
            raise self.loss()

    def loss(self) -> LeaseLost:
        """The error that says why it is not alive."""
        if self._why:
            return LeaseLost(f"lease {self.id:x} is lost: {self._why}. Its keys are gone, or soon will be")
        return LeaseLost(
            f"lease {self.id:x} is not alive: it was {'revoked' if self._over else 'never granted'}"
        )

    async def remaining(self, *, timeout_s: float | None = None) -> int:
        """Seconds that are left of it, as a server says; 0 where there is no such lease any more."""
        wait_s = self._timeout_s if timeout_s is None else timeout_s
        told = await time_to_live(self._home.calls, self.id, False, wait_s)
        if not told and self._granted and not self._over:
            self._lose("the servers do not know it any more")
        return max(told.ttl_s, 0)

    async def guard(self, work: Awaitable[T]) -> T:
        """Awaits ``work``, and cancels it when the lease is lost; raises LeaseLost then."""
        task = asyncio.ensure_future(work)
        lost = asyncio.ensure_future(self.lost.wait())
        try:
            if self.alive:
                await asyncio.wait([task, lost], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return await task
            raise self.loss()
        finally:
            lost.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
                if not task.cancelled() and task.exception() is not None:
                    log.warning("work for a lease that was lost failed as well", exc_info=task.exception())

    # ---- keeping it alive --------------------------------------------------------------------------------

    def _renewed(self, sent_at: float) -> None:
        """What was sent at that time is acknowledged: the lease has its full time from then on."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now >= sent_at + self.ttl_s:
            self._lose(f"the answer took longer than its {self.ttl_s} s")
            return
        self._deadline = sent_at + self.ttl_s
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = loop.call_at(self._deadline, self._too_late)
        pause_s = self.ttl_s * KEEP_ALIVE_SHARE * (1 - JITTER * self._home.rng.random())
        self._again_at(max(sent_at + pause_s, now + SOON_S))

    def _again_at(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(at, self._keep_alive)

    def _keep_alive(self) -> None:
        if not self.alive:
            return
        sent_at = asyncio.get_running_loop().time()
        try:
            asked = self._home.submit(keep_alive_command(self.id), max(self._deadline - sent_at, SOON_S))
        except ClientError as error:
            self._lose(str(error))
            return
        self._asked = asked
        asked.add_done_callback(lambda done: self._answered(done, sent_at))

    def _answered(self, done: "asyncio.Future[bytes]", sent_at: float) -> None:
        failed = None if done.cancelled() else done.exception()  # looked at, or asyncio complains
        if done is not self._asked or done.cancelled():
            return
        self._asked = None
        if not self.alive:
            return
        loop = asyncio.get_running_loop()
        try:
            if failed is not None:
                raise failed
            ttl_s = keep_alive_result(done.result())
        except ClientError as error:
            log.info("lease %x was not kept alive, which is tried again: %s", self.id, error)
            self._again_at(loop.time() + max(self.ttl_s * AGAIN_SHARE, SOON_S))
            return
        if ttl_s <= 0:
            self._lose("it had ended when its keep-alive came: it was revoked, or its time had passed")
        else:
            self.ttl_s = ttl_s
            self._renewed(sent_at)

    def _too_late(self) -> None:
        if not self._over:
            self._lose(self._silence())

    def _silence(self) -> str:
        return f"no keep-alive of it was acknowledged within its {self.ttl_s} s"

    def _lose(self, why: str) -> None:
        if not self._over and not self.lost.is_set():
            self._why = why
            self.lost.set()
            self._stop()
            for call in self._told:
                call()

    def closed(self) -> None:
        """The client was closed, and nobody keeps it alive any more."""
        self._lose("the client was closed")
        self._over = True

    def _stop(self) -> None:
        self._home.leases.discard(self)
        for timer in (self._timer, self._alarm):
            if timer is not None:
                timer.cancel()
        self._timer = self._alarm = None
        asked, self._asked = self._asked, None
        if asked is not None and not asked.done():
            asked.cancel()


async def grant(home: LeaseHome, ttl_s: int, lease_id: int, timeout_s: float) -> GrantResult:
    """Grants a lease that nobody keeps alive. Raises what the store refuses it with."""
    number = lease_id or home.rng.randrange(1, ID_END)
    return grant_result(await home.submit(grant_command(number, ttl_s), timeout_s))
