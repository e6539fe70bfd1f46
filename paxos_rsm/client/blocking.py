"""Watches, leases, locks, elections and scans for threads: what a Client gives, each around the one of its AsyncClient.

None has behaviour of its own. What is asked for is asked on the loop in the background (background.py), and the caller
waits; what happens there by itself (a lease is kept alive, a watch resumes) needs nobody to wait for it.

A loss is told by a ``threading.Event``, which any thread may look at or wait for. There is no ``guard``: threads cannot
be cancelled. Whoever holds something looks at ``held``, ``leads`` or ``alive``, or calls ``check()``, between two steps
of its work, and hands the fencing token to whatever it works on.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self, TypeVar

from paxos_rsm.client.background import Background
from paxos_rsm.client.elections import AsyncElection
from paxos_rsm.client.leases import AsyncLease
from paxos_rsm.client.locks import AsyncLock
from paxos_rsm.client.scan import AsyncScan
from paxos_rsm.client.types import KeyValue, Leader, StrOrBytes, WatchEvent
from paxos_rsm.client.watch import AsyncWatch
from paxos_rsm.errors import ClientError

__all__ = ["Election", "Lease", "Lock", "Scan", "Watch", "async_lease"]

T = TypeVar("T")

BATCH_EVENTS_MAX = 1_000


class Scan:
    """The keys of a range, in order, to be iterated over once; see :meth:`AsyncClient.scan`."""

    def __init__(self, background: Background, scan: AsyncScan) -> None:
        self._background = background
        self._scan = scan

    @property
    def revision(self) -> int:
        """The store's revision that is read; 0 before the first page has come."""
        return self._scan.revision

    def next_page(self) -> tuple[KeyValue, ...]:
        """See :meth:`AsyncScan.next_page`."""
        return self._background.run(self._scan.next_page())

    def __iter__(self) -> Iterator[KeyValue]:
        while page := self.next_page():
            yield from page


class Watch:
    """The changes of a key or a range, in order, each once; see :class:`AsyncWatch`.

    ::

        with kv.watch(prefix="jobs/") as watch:
            for event in watch:
                print(event.kind, event.key, event.value)

    Another thread may end it with :meth:`close`. One thread at a time iterates over it.
    """

    def __init__(self, background: Background, watch: AsyncWatch) -> None:
        self._background = background
        self._watch = watch
        self._events: deque[WatchEvent] = deque()
        self._closed = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def resume_revision(self) -> int:
        """See :attr:`AsyncWatch.resume_revision`."""
        return self._events[0].revision if self._events else self._watch.resume_revision

    def start(self) -> None:
        """See :meth:`AsyncWatch.start`."""
        self._background.run(self._watch.start())

    def next(self, timeout_s: float | None = None) -> WatchEvent | None:
        """See :meth:`AsyncWatch.next`."""
        if not self._events and not self._closed:
            self._events.extend(self._background.run(self._watch.next_batch(BATCH_EVENTS_MAX, timeout_s)))
        try:
            return self._events.popleft()
        except IndexError:
            return None

    def next_batch(self, events_max: int = 1_000, timeout_s: float | None = None) -> list[WatchEvent]:
        """See :meth:`AsyncWatch.next_batch`."""
        first = self.next(timeout_s)
        if first is None:
            return []
        return [first, *(self._events.popleft() for _ in range(min(events_max - 1, len(self._events))))]

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> WatchEvent:
        event = self.next()
        if event is None:
            raise StopIteration
        return event

    def close(self) -> None:
        """See :meth:`AsyncWatch.close`."""
        self._closed = True
        self._events.clear()
        if not self._background.stopped:
            self._background.run(self._watch.close())


class Lease:
    """A lease that keeps itself alive; see :class:`AsyncLease`.

    ::

        with kv.lease(10) as lease:
            kv.put("workers/1", "here", lease=lease)
    """

    def __init__(self, background: Background, lease: AsyncLease) -> None:
        self._background = background
        self._lease = lease
        self.lost = threading.Event()
        """Set when it has ended or may have, for whatever reason other than that it was revoked here."""
        lease.when_lost(self.lost.set)

    def __enter__(self) -> Self:
        self._background.run(self._lease.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._background.run(self._lease.__aexit__(kind, error, traceback))

    @property
    def id(self) -> int:
        """See :attr:`AsyncLease.id`."""
        return self._lease.id

    @property
    def ttl_s(self) -> int:
        """See :attr:`AsyncLease.ttl_s`."""
        return self._lease.ttl_s

    @property
    def alive(self) -> bool:
        """See :attr:`AsyncLease.alive`."""
        return not self._background.stopped and self._background.look(lambda: self._lease.alive)

    def check(self) -> None:
        """See :meth:`AsyncLease.check`."""
        if not self.alive:
            raise self._lease.loss()

    def grant(self, *, timeout_s: float | None = None) -> Self:
        """See :meth:`AsyncLease.grant`."""
        self._background.run(self._lease.grant(timeout_s=timeout_s))
        return self

    def revoke(self, *, timeout_s: float | None = None) -> None:
        """See :meth:`AsyncLease.revoke`."""
        self._background.run(self._lease.revoke(timeout_s=timeout_s))

    def remaining(self, *, timeout_s: float | None = None) -> int:
        """See :meth:`AsyncLease.remaining`."""
        return self._background.run(self._lease.remaining(timeout_s=timeout_s))


def async_lease(lease: Lease | None) -> AsyncLease | None:
    """The lease of the AsyncClient behind a Client's."""
    return None if lease is None else lease._lease


class _Contender:
    """What a lock and an election have in common for threads."""

    def __init__(
        self, background: Background, contender: AsyncLock | AsyncElection, lease: Lease | None
    ) -> None:
        self._background = background
        self._contender = contender
        self._shared = lease
        self._held_by: Lease | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._background.run(self._contender.__aexit__(kind, error, traceback))

    def _look(self, question: Callable[[], T]) -> T:
        return self._background.look(question)

    @property
    def fencing_token(self) -> int:
        """See :attr:`AsyncLock.fencing_token`."""
        return self._look(lambda: self._contender.fencing_token)

    @property
    def key(self) -> bytes:
        """See :attr:`AsyncLock.key`."""
        return self._contender.key

    @property
    def lease(self) -> Lease | None:
        """See :attr:`AsyncLock.lease`."""
        if self._shared is not None:
            return self._shared

        def current() -> Lease | None:
            lease = self._contender.lease
            if lease is None:
                return None
            if self._held_by is None or self._held_by._lease is not lease:
                self._held_by = Lease(self._background, lease)
            return self._held_by

        return self._look(current)

    @property
    def lost(self) -> threading.Event:
        """See :attr:`AsyncLock.lost`."""
        self._look(lambda: self._contender.lost)  # raises where nothing is held
        lease = self.lease
        if lease is None:
            raise ClientError("it was released meanwhile, by another thread")
        return lease.lost

    def check(self) -> None:
        """Raises LeaseLost where it is not held (any more)."""
        self.fencing_token  # noqa: B018


class Lock(_Contender):
    """A lock of the cluster; see :class:`AsyncLock`.

    ::

        with kv.lock("locks/printer") as lock:
            print_it(fence=lock.fencing_token)
    """

    _contender: AsyncLock

    def __init__(self, background: Background, lock: AsyncLock, lease: Lease | None) -> None:
        super().__init__(background, lock, lease)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def acquire(self, *, timeout_s: float | None = None) -> int:
        """See :meth:`AsyncLock.acquire`."""
        return self._background.run(self._contender.acquire(timeout_s=timeout_s))

    def try_acquire(self, *, timeout_s: float | None = None) -> bool:
        """See :meth:`AsyncLock.try_acquire`."""
        return self._background.run(self._contender.try_acquire(timeout_s=timeout_s))

    def release(self, *, timeout_s: float | None = None) -> None:
        """See :meth:`AsyncLock.release`."""
        self._background.run(self._contender.release(timeout_s=timeout_s))

    @property
    def held(self) -> bool:
        """See :attr:`AsyncLock.held`."""
        return not self._background.stopped and self._look(lambda: self._contender.held)


class Election(_Contender):
    """An election of the cluster; see :class:`AsyncElection`.

    ::

        with kv.election("elections/worker") as election:
            election.campaign("host-7")
            while election.leads:
                lead_a_little(fence=election.fencing_token)
    """

    _contender: AsyncElection

    def __init__(self, background: Background, election: AsyncElection, lease: Lease | None) -> None:
        super().__init__(background, election, lease)

    def __enter__(self) -> Self:
        return self

    def campaign(self, value: StrOrBytes, *, timeout_s: float | None = None) -> int:
        """See :meth:`AsyncElection.campaign`."""
        return self._background.run(self._contender.campaign(value, timeout_s=timeout_s))

    def resign(self, *, timeout_s: float | None = None) -> None:
        """See :meth:`AsyncElection.resign`."""
        self._background.run(self._contender.resign(timeout_s=timeout_s))

    def proclaim(self, value: StrOrBytes, *, timeout_s: float | None = None) -> None:
        """See :meth:`AsyncElection.proclaim`."""
        self._background.run(self._contender.proclaim(value, timeout_s=timeout_s))

    @property
    def leads(self) -> bool:
        """See :attr:`AsyncElection.leads`."""
        return not self._background.stopped and self._look(lambda: self._contender.leads)

    def leader(self, *, timeout_s: float | None = None) -> Leader | None:
        """See :meth:`AsyncElection.leader`."""
        return self._background.run(self._contender.leader(timeout_s=timeout_s))

    def observe(self) -> Iterator[Leader]:
        """See :meth:`AsyncElection.observe`."""
        observed = self._contender.observe()

        async def following() -> Leader:
            return await anext(observed)

        async def end() -> None:
            await observed.aclose()

        try:
            while True:
                yield self._background.run(following())
        finally:
            if not self._background.stopped:
                self._background.run(end())
