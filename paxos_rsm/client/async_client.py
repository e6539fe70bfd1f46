"""What a user of asyncio calls.

Every method queues one command or query and awaits its result: no task, no timer and no message of its own.
Calls that are made together travel together, whether gathered, in tasks, or by many callers; they take effect
in the order in which they were made. See session.py for what happens below.

Which errors mean what (paxos_rsm/errors.py has the tree): InvalidArgument, Unavailable, ResourceExhausted and
DeadlineExceeded say that a change did *not* happen; UnknownOutcome and SessionExpired say that it may have. A
caller that is cancelled (``asyncio.timeout``, ``wait_for``) learns nothing: its command may be executed,
once.
"""

from collections.abc import Callable, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, Self, overload

from paxos_rsm._proto import cluster_pb2
from paxos_rsm.client import leases as lease_calls
from paxos_rsm.client import membership
from paxos_rsm.client.commands import (
    ALL_KEYS,
    SortBy,
    compact_command,
    delete_command,
    delete_result,
    get_query,
    get_result,
    keep_alive_command,
    keep_alive_result,
    lease_id,
    open_result,
    put_result,
    put_with_command,
    range_bounds,
    range_query,
    range_request,
    range_result,
    revoke_command,
    to_bytes,
)
from paxos_rsm.client.core import Core
from paxos_rsm.client.elections import AsyncElection
from paxos_rsm.client.leases import AsyncLease
from paxos_rsm.client.locks import AsyncLock
from paxos_rsm.client.members import ask_members, member_of, members_of
from paxos_rsm.client.membership import MemberRef
from paxos_rsm.client.namespace import ROOT, Namespace
from paxos_rsm.client.places import Place
from paxos_rsm.client.scan import AsyncScan, Pages, ScanOptions
from paxos_rsm.client.session import SessionSettings
from paxos_rsm.client.subscription import Subscription
from paxos_rsm.client.txn import Compare, Op, TxnBuilder, TxnResult, swap_command, txn_command, txn_result
from paxos_rsm.client.types import (
    DeleteResult,
    GetResult,
    GrantResult,
    LeaseRef,
    Member,
    MemberStatus,
    PutResult,
    RangeResult,
    StrOrBytes,
    TimeToLive,
)
from paxos_rsm.client.watch import AsyncWatch, Leave, filters_of
from paxos_rsm.client.wire import put_command
from paxos_rsm.errors import InvalidArgument

__all__ = ["AsyncClient"]

IN_FLIGHT_MAX = 32_768
"""Below what a server keeps for one session: see SESSION_RESULTS_MAX in paxos_rsm/machines/sessions.py."""


class AsyncClient:
    """A client of one cluster, for one event loop.

    ::

        async with AsyncClient(["127.0.0.1:2379", "127.0.0.1:2381"]) as kv:
            await kv.put("greeting", "hello")
            print((await kv.get("greeting")).value)

    It connects at the first call, to any of ``endpoints`` (``host:port`` or ``http://host:port``, a list or
    one str with commas), and goes on at another when that one fails. Each command takes effect at most once,
    however often it has to be sent.

    :param timeout_s: how long a call may take, where it does not say so itself.
    :param session_timeout_s: how long the cluster remembers this client without a word from it; None: its own
    choice.
    :param in_flight_max: commands that may be sent and unanswered; what is called beyond that waits here.
    :param cluster_id: refuse to work with any other cluster; 0: stay with the one that answers first.
    :param refresh_endpoints_s: learn the members' addresses with the first connection, and with a new one when that
    was so long ago; None: only when :meth:`refresh_endpoints` is called.
    :raises InvalidArgument: where one of these makes no sense.
    """

    def __init__(
        self,
        endpoints: Sequence[str] | str,
        *,
        timeout_s: float = 5.0,
        session_timeout_s: float | None = None,
        in_flight_max: int = 8_192,
        cluster_id: int = 0,
        refresh_endpoints_s: float | None = None,
    ) -> None:
        self.timeout_s = _checked_timeout(timeout_s)
        if not 1 <= in_flight_max <= IN_FLIGHT_MAX:
            raise InvalidArgument(f"in_flight_max={in_flight_max!r} is not within 1..{IN_FLIGHT_MAX}")
        if not 0 <= cluster_id < 2**64:
            raise InvalidArgument(f"cluster_id={cluster_id!r} is not a cluster's id")
        if session_timeout_s is not None and not 0.001 <= session_timeout_s < 2**32 / 1000:
            raise InvalidArgument(f"session_timeout_s={session_timeout_s!r} is not a time in seconds")
        if refresh_endpoints_s is not None and not refresh_endpoints_s >= 0:
            raise InvalidArgument(f"refresh_endpoints_s={refresh_endpoints_s!r} is not a time in seconds")
        settings = SessionSettings(
            in_flight_max=in_flight_max,
            session_timeout_ms=round((session_timeout_s or 0) * 1000),
            cluster_id=cluster_id,
        )
        self._use(Core(endpoints, settings, refresh_endpoints_s=refresh_endpoints_s), ROOT, root=True)

    def _use(self, core: Core, namespace: Namespace, root: bool) -> None:
        self._core = core
        self._session = core.session
        self._namespace = namespace
        self._strip = namespace.length
        self._key: Callable[[StrOrBytes], bytes] = to_bytes if namespace is ROOT else namespace.key
        self._root = root

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where the servers are, ``host:port``."""
        return self._core.endpoints

    async def close(self) -> None:
        """Ends the session, the watches and the connections; leases end by themselves. May be called twice.

        Calls that are still awaited fail. Of a :meth:`namespace` it does nothing: who made the client closes it.
        """
        if self._root:
            await self._core.close()

    def namespace(self, prefix: StrOrBytes) -> "AsyncClient":
        """The same client within a prefix: every key, range, transaction, watch, lock and election is below it.

        Keys come back without the prefix. Sessions, connections and leases are those of this client.
        """
        view = type(self).__new__(type(self))
        view.timeout_s = self.timeout_s
        view._use(self._core, self._namespace.within(prefix), root=False)
        return view

    # ---- keys --------------------------------------------------------------------------------------------

    async def put(
        self,
        key: StrOrBytes,
        value: StrOrBytes = b"",
        *,
        lease: LeaseRef = 0,
        prev_kv: bool = False,
        ignore_value: bool = False,
        ignore_lease: bool = False,
        timeout_s: float | None = None,
    ) -> PutResult:
        """Writes a key. With ``prev_kv`` the result has what stood there before.

        ``lease``: the key is deleted when that lease ends; without one it is freed of a lease that it had.
        ``ignore_value`` keeps the value that it has, ``ignore_lease`` the lease. Raises InvalidArgument where there is
        no such lease, or nothing to keep.
        """
        if lease or ignore_value or ignore_lease:
            number, value = lease_id(lease), to_bytes(value, "a value")
            command = put_with_command(self._key(key), value, prev_kv, number, ignore_value, ignore_lease)
        else:
            command = put_command(self._key(key), to_bytes(value, "a value"), prev_kv)
        return put_result(await self._session.submit(command, self._timeout(timeout_s)), self._strip)

    async def get(
        self,
        key: StrOrBytes,
        *,
        revision: int = 0,
        serializable: bool = False,
        timeout_s: float | None = None,
    ) -> GetResult:
        """Reads a key, as of now or of an older ``revision``. Where it is missing, the result's value is None.

        Linearizable; with ``serializable`` it is answered at once by whichever server is connected, from a
        state that may be stale, by how much the result says. Raises OutOfRange for a revision that is
        compacted or to come (the first is Compacted).
        """
        query = get_query(self._key(key), revision, serializable)
        answer = await self._session.query(query, serializable, self._timeout(timeout_s))
        return get_result(to_bytes(key), answer)

    async def range(
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
        min_mod_revision: int = 0,
        max_mod_revision: int = 0,
        min_create_revision: int = 0,
        max_create_revision: int = 0,
        timeout_s: float | None = None,
    ) -> RangeResult:
        """Reads the keys from ``key`` up to ``end``, that one left out; or those that start with ``prefix``; or all.

        A ``key`` alone is a range of one; an ``end`` of ``b"\\0"`` means no end. They come in the order of
        their keys, or in that of ``sort_by``. The ``min_`` and ``max_`` revisions leave out keys that lie outside; 0 is
        no limit. See :meth:`get` for the rest, and :meth:`scan` for ranges of unknown size.
        """
        request = range_request(
            self._namespace.bounds(range_bounds(key, end, prefix) or ALL_KEYS),
            limit=limit,
            revision=revision,
            sort_by=sort_by,
            descending=descending,
            keys_only=keys_only,
            count_only=count_only,
            serializable=serializable,
            min_mod_revision=min_mod_revision,
            max_mod_revision=max_mod_revision,
            min_create_revision=min_create_revision,
            max_create_revision=max_create_revision,
        )
        timeout = self._timeout(timeout_s)
        answer = await self._session.query(range_query(request), serializable, timeout)
        return range_result(answer, self._strip)

    def scan(
        self,
        key: StrOrBytes | None = None,
        end: StrOrBytes | None = None,
        *,
        prefix: StrOrBytes | None = None,
        page: int = 1_000,
        revision: int = 0,
        descending: bool = False,
        keys_only: bool = False,
        serializable: bool = False,
        timeout_s: float | None = None,
    ) -> AsyncScan:
        """Iterates over a range of any size, in the order of keys, as it stands now (or at ``revision``).

        ::

            async for kv in client.scan(prefix="jobs/"):
                print(kv.key, kv.value)

        It reads ``page`` keys at a time at most, fewer where they are large, all at the one revision. ``timeout_s`` is
        for a page. ``serializable``: begins with what the connected server has. Raises Compacted where the revision is
        compacted while it goes on.
        """
        bounds = self._namespace.bounds(range_bounds(key, end, prefix) or ALL_KEYS)
        pages = Pages(ScanOptions(bounds, page, revision, descending, keys_only, serializable))
        timeout = self._timeout(timeout_s)
        session = self._session
        return AsyncScan(
            pages, self._namespace, lambda query, serializable: session.query(query, serializable, timeout)
        )

    async def delete(
        self,
        key: StrOrBytes | None = None,
        end: StrOrBytes | None = None,
        *,
        prefix: StrOrBytes | None = None,
        prev_kv: bool = False,
        timeout_s: float | None = None,
    ) -> DeleteResult:
        """Deletes a key, or all from ``key`` up to ``end``, or all that start with ``prefix``; returns how many.

        The result is an int. With ``prev_kv`` its ``prev_kvs`` are the keys as they stood before.
        """
        bounds = range_bounds(key, end, prefix)
        if bounds is None:
            raise InvalidArgument("no key was given; to delete every key there is, give prefix=''")
        command = delete_command(self._namespace.bounds(bounds), prev_kv)
        return delete_result(await self._session.submit(command, self._timeout(timeout_s)), self._strip)

    async def compare_and_swap(
        self,
        key: StrOrBytes,
        expected: StrOrBytes | None,
        new: StrOrBytes,
        *,
        timeout_s: float | None = None,
    ) -> bool:
        """Writes ``new`` where the value is ``expected`` (None: where the key is missing); returns whether it did."""
        command = swap_command(key, expected, new, self._namespace)
        raw = await self._session.submit(command, self._timeout(timeout_s))
        return open_result(raw, "txn").txn.succeeded

    @overload
    def txn(self) -> TxnBuilder[Coroutine[Any, Any, TxnResult]]: ...

    @overload
    def txn(
        self,
        compares: Sequence[Compare],
        success: Sequence[Op],
        failure: Sequence[Op] = (),
        *,
        timeout_s: float | None = None,
    ) -> Coroutine[Any, Any, TxnResult]: ...

    def txn(
        self,
        compares: Sequence[Compare] | None = None,
        success: Sequence[Op] = (),
        failure: Sequence[Op] = (),
        *,
        timeout_s: float | None = None,
    ) -> Coroutine[Any, Any, TxnResult] | TxnBuilder[Coroutine[Any, Any, TxnResult]]:
        """Does ``success`` where all ``compares`` hold, ``failure`` where not: at one point in time, all or nothing.

        Without arguments it returns a builder: ``await kv.txn().when(...).then(...).otherwise(...).commit()``.
        """
        if compares is None:
            return TxnBuilder(self._txn)
        return self._txn(compares, success, failure, timeout_s)

    async def _txn(
        self,
        compares: Sequence[Compare],
        success: Sequence[Op],
        failure: Sequence[Op],
        timeout_s: float | None,
    ) -> TxnResult:
        command, reads_only = txn_command(compares, success, failure, self._namespace)
        timeout = self._timeout(timeout_s)
        if reads_only:
            raw = (await self._session.query(command, False, timeout)).result
        else:
            raw = await self._session.submit(command, timeout)
        return txn_result(raw, success, failure, self._strip)

    async def compact(self, revision: int, *, timeout_s: float | None = None) -> None:
        """Forgets what was overwritten or deleted before ``revision``: it cannot be read any more after this.

        Raises Compacted where that is done already, OutOfRange where ``revision`` is still to come.
        """
        command = compact_command(revision)
        open_result(await self._session.submit(command, self._timeout(timeout_s)), "compact")

    # ---- watches -----------------------------------------------------------------------------------------

    def watch(
        self,
        key: StrOrBytes | None = None,
        end: StrOrBytes | None = None,
        *,
        prefix: StrOrBytes | None = None,
        start_revision: int = 0,
        prev_kv: bool = False,
        progress: bool = False,
        leave_out: Leave | Iterable[Leave] = (),
        timeout_s: float | None = None,
    ) -> AsyncWatch:
        """Tells every change of a key, of a range, or of all keys: in order, each once, whatever becomes of servers.

        ::

            async with kv.watch(prefix="jobs/") as watch:
                async for event in watch:
                    print(event.kind, event.key, event.value)

        ``start_revision``: begin with the changes of that revision of the past; 0: with what comes. ``prev_kv``: also
        what stood there before. ``progress``: also an event of kind ``"progress"`` now and then while nothing changes.
        ``leave_out``: ``"put"`` or ``"delete"``. ``timeout_s`` is for the time until a server has created it.
        """
        if type(start_revision) is not int or not 0 <= start_revision < 2**63:
            raise InvalidArgument(f"start_revision={start_revision!r} is not a revision")
        start, range_end = self._namespace.bounds(range_bounds(key, end, prefix) or ALL_KEYS)
        subscription = Subscription(
            start,
            range_end,
            start_revision=start_revision,
            filters=filters_of(leave_out),
            prev_kv=prev_kv,
            progress=progress,
            strip=self._strip,
        )
        return AsyncWatch(self._core.watches, subscription, self._timeout(timeout_s))

    # ---- leases ------------------------------------------------------------------------------------------

    def lease(self, ttl_s: int, *, id: int = 0, timeout_s: float | None = None) -> AsyncLease:
        """A lease that is granted by ``async with`` (or ``grant()``), keeps itself alive, and is revoked at the end.

        ``ttl_s``: whole seconds that it lives without a keep-alive; the cluster may make more of it. ``id``: its
        number, 0 to have one drawn. ``timeout_s`` is for granting and revoking.
        """
        return AsyncLease(self._core, ttl_s, id, self._timeout(timeout_s))

    async def grant(self, ttl_s: int, *, id: int = 0, timeout_s: float | None = None) -> GrantResult:
        """Grants a lease that lives ``ttl_s`` seconds from each :meth:`keep_alive_once`; nobody else keeps it alive.

        Raises InvalidArgument where the number ``id`` is taken, OutOfRange where the time is too long.
        """
        return await lease_calls.grant(self._core, ttl_s, lease_id(id), self._timeout(timeout_s))

    async def revoke(self, lease: LeaseRef, *, timeout_s: float | None = None) -> None:
        """Ends a lease and deletes its keys. Raises InvalidArgument where there is no such lease."""
        command = revoke_command(lease_id(lease))
        open_result(await self._session.submit(command, self._timeout(timeout_s)), "lease_revoke")

    async def keep_alive_once(self, lease: LeaseRef, *, timeout_s: float | None = None) -> int:
        """Gives a lease its full time again; returns that, in seconds, or 0 where there is no such lease (any more)."""
        command = keep_alive_command(lease_id(lease))
        return keep_alive_result(await self._session.submit(command, self._timeout(timeout_s)))

    async def time_to_live(
        self, lease: LeaseRef, *, keys: bool = False, timeout_s: float | None = None
    ) -> TimeToLive:
        """What is left of a lease, in seconds, and with ``keys`` what is bound to it. False where there is none."""
        told = await lease_calls.time_to_live(
            self._core.calls, lease_id(lease), keys, self._timeout(timeout_s)
        )
        return TimeToLive(told.id, told.ttl_s, told.granted_ttl_s, self._namespace.strip(told.keys))

    async def leases(self, *, timeout_s: float | None = None) -> list[int]:
        """The numbers of all leases, sorted."""
        return await lease_calls.list_leases(self._core.calls, self._timeout(timeout_s))

    # ---- locks and elections -----------------------------------------------------------------------------

    def lock(self, name: StrOrBytes, *, ttl_s: int = 10, lease: AsyncLease | None = None) -> AsyncLock:
        """A lock that one contender holds at a time, anywhere in the cluster, with a fencing token.

        ::

            async with kv.lock("locks/printer") as lock:
                ...                              # lock.fencing_token, lock.lost, lock.guard(work)

        ``ttl_s``: seconds after which a holder that died, or cannot reach the cluster, has lost it. ``lease``: use this
        one instead of one of its own. The keys are etcd's: NAME/LEASE, so etcd's own lock command excludes it.
        """
        return AsyncLock(Place(self, self._core, self._namespace, name, ttl_s, lease))

    def election(
        self, name: StrOrBytes, *, ttl_s: int = 10, lease: AsyncLease | None = None
    ) -> AsyncElection:
        """An election: candidates campaign, one leads, everybody can see who. See :meth:`lock` for the rest."""
        return AsyncElection(self, Place(self, self._core, self._namespace, name, ttl_s, lease))

    # ---- any state machine -------------------------------------------------------------------------------

    async def submit(self, command: bytes, *, timeout_s: float | None = None) -> bytes:
        """Has the servers' state machine ``apply`` a command, exactly once; returns its result."""
        return await self._session.submit(_checked_bytes(command), self._timeout(timeout_s))

    async def query(
        self, request: bytes, *, serializable: bool = False, timeout_s: float | None = None
    ) -> bytes:
        """Asks the servers' state machine, which changes nothing; see :meth:`get` for ``serializable``."""
        asked = self._session.query(_checked_bytes(request), serializable, self._timeout(timeout_s))
        return (await asked).result

    # ---- the cluster -------------------------------------------------------------------------------------

    async def members(self, *, timeout_s: float | None = None) -> list[Member]:
        """The members of the cluster, by name, as one server that has a quorum knows them."""
        return await self._core.members(self._timeout(timeout_s))

    async def member_add(
        self, peer_url: str, *, learner: bool = False, timeout_s: float | None = None
    ) -> Member:
        """Adds a member that other servers reach under ``peer_url``; start its server with ``existing`` then.

        It receives the log first, without a vote; once it has caught up it becomes a voter by itself, or with
        ``learner`` waits for :meth:`member_promote`. Raises InvalidArgument where that is refused.
        """
        answer = await membership.add(self._core.calls, peer_url, learner, self._timeout(timeout_s))
        self._core.use_members(members_of(answer.members))
        return member_of(answer.member)

    async def member_remove(self, member: MemberRef, *, timeout_s: float | None = None) -> list[Member]:
        """Removes a member, by its id or name, for good; its server stops. Returns those that are left, by name."""
        timeout = self._timeout(timeout_s)
        member_id = await membership.find(self._core.calls, member, timeout)
        return self._changed((await membership.remove(self._core.calls, member_id, timeout)).members)

    async def member_update(
        self, member: MemberRef, peer_url: str, *, timeout_s: float | None = None
    ) -> list[Member]:
        """Says under which URL the others reach a member from now on. Returns all members, by name."""
        timeout = self._timeout(timeout_s)
        member_id = await membership.find(self._core.calls, member, timeout)
        answer = await membership.update(self._core.calls, member_id, peer_url, timeout)
        return self._changed(answer.members)

    async def member_promote(self, member: MemberRef, *, timeout_s: float | None = None) -> list[Member]:
        """Gives a learner a vote. Raises InvalidArgument where it has not caught up. Returns all members, by name."""
        timeout = self._timeout(timeout_s)
        member_id = await membership.find(self._core.calls, member, timeout)
        return self._changed((await membership.promote(self._core.calls, member_id, timeout)).members)

    def _changed(self, listed: Iterable[cluster_pb2.ClusterMember]) -> list[Member]:
        members = members_of(listed)
        self._core.use_members(members)
        return members

    async def move_leader(self, to: MemberRef | None = None, *, timeout_s: float | None = None) -> int:
        """Has the leader hand over to another voter, by its id or name, or to the one that is closest behind it.

        Returns the id of who leads then. Raises InvalidArgument where that one cannot lead, Unavailable where nobody
        leads or it has not taken over.
        """
        return (await membership.move_leader(self.endpoints, to, self._timeout(timeout_s))).after

    async def refresh_endpoints(self, *, timeout_s: float | None = None) -> tuple[str, ...]:
        """Asks for the members and goes by their addresses from now on; returns them.

        The endpoints that this client was given stay among them: those that members advertise may not be within reach.
        """
        return await self._core.refresh_endpoints(self._timeout(timeout_s))

    async def status(self, *, timeout_s: float | None = None) -> list[MemberStatus]:
        """What every member of the cluster says of itself; one that does not answer is there with its ``error``."""
        return await ask_members(self.endpoints, self._timeout(timeout_s))

    def _timeout(self, timeout_s: float | None) -> float:
        return self.timeout_s if timeout_s is None else _checked_timeout(timeout_s)


def _checked_timeout(timeout_s: float) -> float:
    """Infinity is a time-out too: none."""
    try:
        if timeout_s > 0:  # not so for what is not a number
            return timeout_s
    except TypeError:
        pass
    raise InvalidArgument(f"timeout_s={timeout_s!r} is not a time in seconds; for no limit give math.inf")


def _checked_bytes(given: bytes) -> bytes:
    if not isinstance(given, bytes):
        raise InvalidArgument(f"a command or a query is bytes, not {type(given).__name__}")
    return given
