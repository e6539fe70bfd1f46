"""A place in a queue that the store keeps: what a lock and an election have in common.

It is etcd's recipe, to the names of the keys, so that whoever uses etcd's own excludes us and is excluded::

    NAME/694d8f0c1a2b3c04   created at revision 17   holds it
    NAME/694d8f0c1a2b3c31   created at revision 21   waits for the deletion of the key above
    NAME/694d8f0c1a2b3c77   created at revision 22   waits for the deletion of the key above

- A key is made of the name and the number of a lease, in hexadecimal, so it goes when its owner dies. It is created in
  a transaction that creates it only where it is missing.
- Who comes first is decided by the revision at which the key was created, which is the *fencing token*: whoever comes
  later has a higher one. A resource that remembers the highest token it has seen, and refuses lower ones, is safe even
  from a holder that was paused and does not know yet that its lease has ended.
- Each waits for one key, the one right before its own: when a holder leaves, one waiter wakes up. It then looks again,
  for the key may have belonged to somebody who gave up.
- Whoever finds nobody before itself also sees, in the same read, that its own key still exists.

**A way out.** Whoever gives up (a deadline, a cancellation, an error) leaves no key behind: its lease is revoked, or
with a lease that serves others too, its key deleted. Where the client cannot wait for that, it is queued in the
session behind whatever was sent before, so that it takes effect after it.

A lease that is lost while its owner waits costs the place: with a lease of its own, it queues anew.
"""

import asyncio
import math
from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

from paxos_rsm.client.commands import to_bytes
from paxos_rsm.client.core import Core
from paxos_rsm.client.leases import AsyncLease
from paxos_rsm.client.namespace import Namespace
from paxos_rsm.client.txn import Compare, Op, txn_command
from paxos_rsm.client.types import GetResult, PutResult, RangeResult, StrOrBytes
from paxos_rsm.errors import (
    ClientError,
    Compacted,
    DeadlineExceeded,
    InvalidArgument,
    LeaseLost,
    ResourceExhausted,
    SessionExpired,
    Unavailable,
    UnknownOutcome,
)

if TYPE_CHECKING:
    from paxos_rsm.client.async_client import AsyncClient

__all__ = ["Place"]

T = TypeVar("T")

AGAIN = (Unavailable, DeadlineExceeded, ResourceExhausted, UnknownOutcome, SessionExpired)
"""What may go wrong with a queueing, or a granting, that is worth another try."""
AGAIN_S = 0.1
FAREWELL_S = 1.0
"""How long one who has run out of time waits for its key to be gone, which is on its way in any case."""


class Place:
    """Somebody's place in the queue of ``name``. Nothing is sent before :meth:`enter`."""

    def __init__(
        self,
        client: "AsyncClient",
        core: Core,
        namespace: Namespace,
        name: StrOrBytes,
        ttl_s: int,
        lease: AsyncLease | None,
    ) -> None:
        self.name = to_bytes(name, "a name")
        if not self.name:
            raise InvalidArgument("a lock or an election has a name; this one is empty")
        self.key = b""
        """Its key; empty while it has none."""
        self.token = 0
        """The create revision of its key; 0 while it has none, or does not know it."""
        self.value = b""
        self.lease: AsyncLease | None = lease
        self._client = client
        self._core = core
        self._namespace = namespace
        self._ttl_s = ttl_s
        self._shared = lease
        self._entering = False

    @property
    def first(self) -> bool:
        """Whether it has come to the front, and its lease is alive."""
        return bool(self.token) and not self._entering and self.lease is not None and self.lease.alive

    # ---- coming ------------------------------------------------------------------------------------------

    async def enter(self, value: bytes, timeout_s: float | None, patient: bool = True) -> bool:
        """Queues, and returns at the front. Not ``patient``: returns False where somebody is before it.

        Raises DeadlineExceeded where that takes too long, LeaseLost where a lease that was given is lost meanwhile. It
        has left the queue then.
        """
        if self._entering or self.key:
            raise InvalidArgument(
                f"{self.name!r} is held or waited for by this object already; leave it first"
            )
        self._entering = True
        self.value = value
        try:
            async with asyncio.timeout(timeout_s):
                came_first = await self._enter(patient)
            if came_first:
                return True
            await self.leave()
            return False
        except TimeoutError:
            await self._give_up(wait=True)
            raise DeadlineExceeded(
                f"{self.name!r} is still held by somebody else, or no server answers, after {timeout_s:g} s"
            ) from None
        except BaseException:
            await self._give_up(wait=False)
            raise
        finally:
            self._entering = False

    async def _enter(self, patient: bool) -> bool:
        while True:
            lease = await self._have_lease()
            try:
                return await lease.guard(self._queue(lease, patient))
            except (LeaseLost, *AGAIN):
                if self._shared is not None or self._core.closed:
                    raise
                await self._give_up(wait=False)
                await asyncio.sleep(AGAIN_S)

    async def _have_lease(self) -> AsyncLease:
        if self._shared is not None:
            self._shared.check()
            lease = self._shared
        else:
            lease = await self._new_lease()
        if self.name in lease.names:
            raise InvalidArgument(
                f"lease {lease.id:x} holds or waits for {self.name!r} already; contenders need leases of their own"
            )
        lease.names.add(self.name)
        self.lease = lease
        self.key = b"%s/%x" % (self.name, lease.id)
        return lease

    async def _new_lease(self) -> AsyncLease:
        """A lease that was granted within its own time: a later one would be lost before it is known."""
        while True:
            lease = self._client.lease(self._ttl_s)
            try:
                return await lease.grant(timeout_s=float(self._ttl_s))
            except AGAIN:
                if self._core.closed:
                    raise
            await asyncio.sleep(AGAIN_S)

    async def _queue(self, lease: AsyncLease, patient: bool) -> bool:
        kv = self._client
        made = await kv.txn(
            [Compare.missing(self.key)],
            [Op.put(self.key, self.value, lease=lease)],
            [Op.get(self.key), Op.put(self.key, self.value, lease=lease)],
            timeout_s=math.inf,
        )
        answer = made.responses[0]
        if isinstance(answer, GetResult):
            self.token = answer.create_revision
        elif isinstance(answer, PutResult):
            self.token = made.revision
        while True:
            before = await self._before_me()
            if before is None:
                lease.check()
                return True
            if not patient:
                return False
            await self._until_gone(*before)

    async def _before_me(self) -> tuple[bytes, int] | None:
        """The key right before this one, and the revision of this knowledge; None at the front."""
        seen = await self._client.txn(
            [],
            [
                Op.get(self.key),
                Op.range(
                    prefix=self.name + b"/",
                    limit=1,
                    sort_by="create_revision",
                    descending=True,
                    max_create_revision=self.token - 1,
                    keys_only=True,
                ),
            ],
            timeout_s=math.inf,
        )
        mine, before = seen.responses
        if not isinstance(mine, GetResult) or not isinstance(before, RangeResult):
            raise ClientError("the servers answered a read with something else")
        if mine.create_revision != self.token:
            raise LeaseLost(f"the key {self.key!r} is gone: its lease has ended, or somebody deleted it")
        return (before[0].key, seen.revision) if before else None

    async def _until_gone(self, key: bytes, revision: int) -> None:
        """Waits for the deletion of one key, which existed at ``revision``."""
        try:
            async with self._client.watch(
                key, start_revision=revision + 1, leave_out="put", timeout_s=math.inf
            ) as watch:
                await watch.next()
        except Compacted:
            pass  # look again

    # ---- leaving -----------------------------------------------------------------------------------------

    async def leave(self, timeout_s: float | None = None) -> None:
        """Leaves the queue. Raises Unavailable or UnknownOutcome where no server says that it is done.

        A key of a lease that serves others is deleted all the same as soon as that can be done, also where this is
        cancelled: it would stay as long as they keep the lease alive.
        """
        lease, key, token = self._forget()
        if lease is None:
            return
        if self._shared is None:
            await lease.revoke(timeout_s=timeout_s)
        elif lease.alive and key:
            try:
                await self._client.txn([self._mine(key, token)], [Op.delete(key)], timeout_s=timeout_s)
            except BaseException:
                self._core.farewell(self._deletion(key, token))
                raise

    async def _give_up(self, wait: bool) -> None:
        """Leaves the queue: what is to be done for it is queued in the session, and waited for a little, or not."""
        lease, key, token = self._forget()
        if lease is None:
            return
        if self._shared is None:
            done = lease.abandon()
        else:
            done = self._core.farewell(self._deletion(key, token))
        if wait and done is not None:
            await asyncio.wait([done], timeout=FAREWELL_S)

    def _forget(self) -> tuple[AsyncLease | None, bytes, int]:
        """Is in no queue any more, as far as this side is concerned."""
        lease, key, token = self.lease, self.key, self.token
        self.key, self.token, self.lease = b"", 0, self._shared
        if not key:
            return None, b"", 0
        if lease is not None:
            lease.names.discard(self.name)
        return lease, key, token

    def _deletion(self, key: bytes, token: int) -> bytes:
        return txn_command([self._mine(key, token)], [Op.delete(key)], [], self._namespace)[0]

    @staticmethod
    def _mine(key: bytes, token: int) -> Compare:
        return Compare.create_revision(key, "==", token) if token else Compare.exists(key)

    async def hold(self, work: Awaitable[T]) -> T:
        """Awaits ``work`` while the place is held; cancels it, and raises LeaseLost, when it is not any more."""
        if self.lease is None or not self.first:
            raise self.not_first()
        return await self.lease.guard(work)

    def not_first(self) -> LeaseLost:
        """The error that says why it is not at the front."""
        if self.token and not self._entering and self.lease is not None:
            return self.lease.loss()
        return LeaseLost(f"{self.name!r} is not held")

    @property
    def lost(self) -> asyncio.Event:
        """Set when what was held is lost. Raises LeaseLost where nothing is held."""
        if self.lease is None:
            raise self.not_first()
        return self.lease.lost
