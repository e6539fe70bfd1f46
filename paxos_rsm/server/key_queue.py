"""Queues made of keys: what locks and elections have in common, as in etcd's own recipes.

Whoever wants to be next puts the key ``NAME/<lease id in lower-case hexadecimal>``, held by that lease. The key with
the lowest create revision is first; everybody else waits for the one just before, and for that one only::

    name/1f2e  created at 12   <- holds the lock, is elected
    name/77aa  created at 15   waits for the deletion of name/1f2e
    name/03bc  created at 21   waits for the deletion of name/77aa

A key goes when its holder takes it back or when its lease ends; then one caller wakes, not all of them. Keys that come
later have higher create revisions, so once nobody stands before a place, nobody ever will. That is why the local state
is good enough to wait on. Whether the own key is still there is another matter: ask the log before you believe it.

Since names of keys and order are etcd's, its clients and ours stand in one queue.

**Who comes again.** A lease that stands in the queue already keeps its place: a caller whose answer was lost asks
again, here or elsewhere. It writes the key once more, and so *takes it over* from the call before.

**Who leaves.** A caller that is cancelled, runs into its deadline or meets an error while it waits has its key deleted
again, in the background, if it is still as this very call has written it. That may be much later, from a server that
was cut off: a key that was made anew, or taken over, is not its own any more, and may be the lock that somebody holds.
Where even that fails, the key goes with its lease.
"""

import asyncio
import logging
import secrets
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm.errors import PaxosRsmError
from paxos_rsm.machines.kv.types import (
    Compare,
    CompareTarget,
    DeleteRange,
    LeaseGrant,
    Put,
    Range,
    SortOrder,
    SortTarget,
    Txn,
)
from paxos_rsm.server.etcd_calls import STOPPED, status_of
from paxos_rsm.server.local_kv import LocalKv, first_created, prefix_end
from paxos_rsm.server.rpc import Context, StatusError
from paxos_rsm.server.watch_hub import Event, HubWatch, WatchHub

__all__ = ["KeyQueue", "Place", "PlaceLost", "Signal", "is_created_at"]

SESSION_TTL_S = 60
"""Of the lease that a caller without one is given, as in etcd. Nobody keeps it alive."""

LEAVE_RETRIES_S = (0.2, 1.0, 5.0)
"""Pauses before the deletion of a key is tried again."""
LEAVE_S = 1.0
"""A server that stops gives its callers so long to have their keys deleted."""
WATCH_AGAIN_S = 0.1
"""Pause after a watch that ended by itself."""

log = logging.getLogger(__name__)


class PlaceLost(StatusError):
    """The key is gone, although nobody who waits with it has taken it back: its lease has ended."""

    def __init__(self, words: str) -> None:
        super().__init__(grpc.StatusCode.UNKNOWN, words)


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a queue."""

    prefix: bytes
    key: bytes
    revision: int
    """The create revision of the key: the order in the queue, and the fencing token."""
    written: int
    """The revision at which this caller has written it: as long as it is the newest, nobody has taken it over."""
    lease: int
    is_first: bool
    header: pb.ResponseHeader


class Signal:
    """A WatchSink that only says that something has happened."""

    def __init__(self) -> None:
        self.come = asyncio.Event()
        self.has_ended = False

    def events(self, watch: HubWatch, revision: int, events: Sequence[Event]) -> None:
        """See WatchSink."""
        self.come.set()

    def ended(self, watch: HubWatch, compact_revision: int, resume_revision: int, reason: str) -> None:
        """See WatchSink."""
        self.has_ended = True
        self.come.set()


class KeyQueue:
    """All the queues that callers of this server stand in."""

    def __init__(self, kv: LocalKv, hub: WatchHub) -> None:
        self._kv = kv
        self._hub = hub
        self._stopping = False
        self._waiting: set[asyncio.Event] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._callers = 0
        """Those who wait, and what is done in the background for those who have left."""
        self._idle = asyncio.Event()
        self._idle.set()

    # ---- coming and going ------------------------------------------------------------------------------------

    async def enter(self, name: bytes, lease: int, value: bytes, context: Context) -> Place:
        """Takes the place of ``lease`` in the queue; takes over the one that it has already, where it stands there.

        Without a lease one is granted, of SESSION_TTL_S. Raises StatusError. A caller that is cancelled meanwhile, or
        that runs out of time, has not entered in the end.
        """
        is_granted_here = not lease
        if is_granted_here:
            lease = secrets.randbelow(2**63 - 1) + 1
        prefix = name + b"/"
        key = prefix + b"%x" % lease
        txn = Txn(
            (is_created_at(key, 0),),
            (Put(key, value, lease), first_created(prefix)),
            (Range(key), first_created(prefix), Put(key, value, ignore_lease=True)),
        )
        if is_granted_here:
            # Checked first: a call that is refused must not leave a lease behind.
            self._kv.encode(txn)
            await self._kv.execute(LeaseGrant(SESSION_TTL_S, lease), context)
        future = await self._kv.submit(txn, context)
        with self._counted():
            try:
                response: pb.TxnResponse = await self._kv.answer(future)
            except BaseException:
                self._spawn(self._undo(key, future))
                raise
        revision, is_first = _standing(response)
        return Place(prefix, key, revision, response.header.revision, lease, is_first, response.header)

    async def wait(self, place: Place, lost: str, context: Context) -> None:
        """Returns once nobody stands before ``place``. Raises StatusError; PlaceLost with these words if it is gone.

        Whoever does not wait to the end, for whatever reason, has left the queue.
        """
        with self._counted(), self._leaving_unless_done(place):
            while self.holds(place):
                before = self._before(place)
                if before is not None:
                    await self._until_deleted(before, place.key)
                    continue
                # The local state may be behind: whether the lease has ended meanwhile, the others know.
                await self._kv.read_index(context)
                if self.holds(place):
                    return
            raise PlaceLost(lost)

    def holds(self, place: Place) -> bool:
        """Whether the key is still the one that was put, as far as this server knows."""
        found = self._kv.get(place.key)
        return found is not None and found.create_revision == place.revision

    def leave(self, place: Place) -> None:
        """Gives the place up, in the background."""
        self._spawn(self._delete(place.key, place.written))

    def _before(self, place: Place) -> bytes | None:
        """The key just before, in the local state."""
        found = self._kv.look(
            Range(
                place.prefix,
                prefix_end(place.prefix),
                limit=1,
                sort_order=SortOrder.DESCEND,
                sort_target=SortTarget.CREATE,
                max_create_revision=place.revision - 1,
            )
        )
        return found[0].key if found else None

    async def _until_deleted(self, *keys: bytes) -> None:
        """Returns once one of these, which are there now, may have been deleted."""
        signal = Signal()
        watches = [self._hub.watch(signal, key, puts=False) for key in keys]
        try:
            await self.until(signal)
        finally:
            for watch in watches:
                watch.cancel()

    async def until(self, signal: Signal) -> None:
        """Returns once the signal has come. Raises StatusError where the server stops first."""
        self._waiting.add(signal.come)
        try:
            if not self._stopping:
                await signal.come.wait()
        finally:
            self._waiting.discard(signal.come)
        if self._stopping:
            raise status_of(STOPPED)
        if signal.has_ended:
            await asyncio.sleep(WATCH_AGAIN_S)

    # ---- in the background -----------------------------------------------------------------------------------

    @contextmanager
    def _leaving_unless_done(self, place: Place) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.leave(place)
            raise

    async def _undo(self, key: bytes, future: "asyncio.Future[Any]") -> None:
        """Its caller has left before it was known what became of the transaction that put ``key``."""
        try:
            await future
        except PaxosRsmError:
            return  # not executed, or nobody knows: then the key, if it is there, goes with its lease
        try:
            response: pb.TxnResponse = await self._kv.answer(future)
        except StatusError:
            return
        # One that was first before has been held, perhaps, since the call before: it is not for this one to give up.
        if response.succeeded or not _standing(response)[1]:
            await self._delete(key, response.header.revision)

    async def _delete(self, key: bytes, written: int) -> None:
        txn = Txn((Compare(key, CompareTarget.MOD, operand=written),), (DeleteRange(key),))
        for pause_s in (*LEAVE_RETRIES_S, None):
            try:
                await self._kv.answer(await self._kv.submit(txn))
                return
            except StatusError as error:
                if pause_s is None or self._stopping:
                    log.warning(
                        "a key stays until its lease ends", extra={"key": key, "error": error.details}
                    )
                    return
                await asyncio.sleep(pause_s)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._leaving.add(task)
        self._count(1)
        task.add_done_callback(self._left)

    def _left(self, task: "asyncio.Task[None]") -> None:
        self._leaving.discard(task)
        self._count(-1)

    # ---- the end ---------------------------------------------------------------------------------------------

    def _count(self, callers: int) -> None:
        self._callers += callers
        if self._callers:
            self._idle.clear()
        else:
            self._idle.set()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    async def drain(self, grace_s: float) -> None:
        """Tells everybody who waits that the server stops, and has their keys deleted. At most ``grace_s`` seconds.

        To be called while commands are still taken.
        """
        self._stopping = True
        for each in self._waiting:
            each.set()
        try:
            async with asyncio.timeout(min(grace_s, LEAVE_S)):
                await self._idle.wait()
        except TimeoutError:
            log.warning("stopping while callers leave their queues", extra={"callers": self._callers})
        for task in self._leaving:
            task.cancel()


def _standing(response: pb.TxnResponse) -> tuple[int, bool]:
    """The create revision of the key that has entered, and whether it is the first."""
    revision = response.header.revision
    if not response.succeeded:
        (own,) = response.responses[0].response_range.kvs
        revision = own.create_revision
    first = response.responses[1].response_range.kvs
    return revision, not first or first[0].create_revision == revision


def is_created_at(key: bytes, revision: int) -> Compare:
    """Whether a key is the one that was created at ``revision``; at 0: that there is none."""
    return Compare(key, CompareTarget.CREATE, operand=revision)
