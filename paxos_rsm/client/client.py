"""The blocking twin of AsyncClient, for threads.

It has no behaviour of its own: each method hands its arguments to the method of the same name of an
AsyncClient that runs on an event loop in a background thread, and waits for what comes of it.
tests/unit/client/test_client.py holds the two against each other, name by name and parameter by parameter, so
that they cannot drift.

The thread starts with the first call and ends with ``close``; at the latest when the client is collected or the
interpreter exits. Any number of threads may use one client: what they call at the same time travels together.
"""

import weakref
from collections.abc import Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from paxos_rsm.client.async_client import AsyncClient
from paxos_rsm.client.background import Background
from paxos_rsm.client.blocking import Election, Lease, Lock, Scan, Watch, async_lease
from paxos_rsm.client.commands import SortBy
from paxos_rsm.client.membership import MemberRef
from paxos_rsm.client.txn import Compare, Op, TxnBuilder, TxnResult
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
from paxos_rsm.client.watch import Leave

__all__ = ["Client"]

T = TypeVar("T")


class Client:
    """A client of one cluster, for threads; see AsyncClient, which has the same methods and parameters.

    ::

        with Client("127.0.0.1:2379,127.0.0.1:2381") as kv:
            kv.put("greeting", "hello")
            print(kv.get("greeting").value)
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
        self._async = AsyncClient(
            endpoints,
            timeout_s=timeout_s,
            session_timeout_s=session_timeout_s,
            in_flight_max=in_flight_max,
            cluster_id=cluster_id,
            refresh_endpoints_s=refresh_endpoints_s,
        )
        self._background = Background(self._async)
        self._finalizer = weakref.finalize(self, self._background.stop)
        self._root: Client | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where the servers are, ``host:port``."""
        return self._async.endpoints

    @property
    def timeout_s(self) -> float:
        """How long a call may take, where it does not say so itself."""
        return self._async.timeout_s

    def close(self) -> None:
        """Ends the session, the watches, the connections and the thread; leases end by themselves. May be called twice.

        Calls of other threads fail. Of a :meth:`namespace` it does nothing: who made the client closes it.
        """
        if self._root is None:
            self._finalizer()

    def namespace(self, prefix: StrOrBytes) -> "Client":
        """See :meth:`AsyncClient.namespace`."""
        view = type(self).__new__(type(self))
        view._async = self._async.namespace(prefix)
        view._background = self._background
        view._root = self  # as long as the view is used, the client is not collected
        return view

    def put(
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
        """See :meth:`AsyncClient.put`."""
        return self._run(
            self._async.put(
                key,
                value,
                lease=lease,
                prev_kv=prev_kv,
                ignore_value=ignore_value,
                ignore_lease=ignore_lease,
                timeout_s=timeout_s,
            )
        )

    def get(
        self,
        key: StrOrBytes,
        *,
        revision: int = 0,
        serializable: bool = False,
        timeout_s: float | None = None,
    ) -> GetResult:
        """See :meth:`AsyncClient.get`."""
        return self._run(
            self._async.get(key, revision=revision, serializable=serializable, timeout_s=timeout_s)
        )

    def range(
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
        """See :meth:`AsyncClient.range`."""
        return self._run(
            self._async.range(
                key,
                end,
                prefix=prefix,
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
                timeout_s=timeout_s,
            )
        )

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
    ) -> Scan:
        """See :meth:`AsyncClient.scan`."""
        scan = self._async.scan(
            key,
            end,
            prefix=prefix,
            page=page,
            revision=revision,
            descending=descending,
            keys_only=keys_only,
            serializable=serializable,
            timeout_s=timeout_s,
        )
        return Scan(self._background, scan)

    def delete(
        self,
        key: StrOrBytes | None = None,
        end: StrOrBytes | None = None,
        *,
        prefix: StrOrBytes | None = None,
        prev_kv: bool = False,
        timeout_s: float | None = None,
    ) -> DeleteResult:
        """See :meth:`AsyncClient.delete`."""
        return self._run(self._async.delete(key, end, prefix=prefix, prev_kv=prev_kv, timeout_s=timeout_s))

    def compare_and_swap(
        self,
        key: StrOrBytes,
        expected: StrOrBytes | None,
        new: StrOrBytes,
        *,
        timeout_s: float | None = None,
    ) -> bool:
        """See :meth:`AsyncClient.compare_and_swap`."""
        return self._run(self._async.compare_and_swap(key, expected, new, timeout_s=timeout_s))

    @overload
    def txn(self) -> TxnBuilder[TxnResult]: ...

    @overload
    def txn(
        self,
        compares: Sequence[Compare],
        success: Sequence[Op],
        failure: Sequence[Op] = (),
        *,
        timeout_s: float | None = None,
    ) -> TxnResult: ...

    def txn(
        self,
        compares: Sequence[Compare] | None = None,
        success: Sequence[Op] = (),
        failure: Sequence[Op] = (),
        *,
        timeout_s: float | None = None,
    ) -> TxnResult | TxnBuilder[TxnResult]:
        """See :meth:`AsyncClient.txn`."""
        if compares is None:
            return TxnBuilder(self._txn)
        return self._txn(compares, success, failure, timeout_s)

    def _txn(
        self,
        compares: Sequence[Compare],
        success: Sequence[Op],
        failure: Sequence[Op],
        timeout_s: float | None,
    ) -> TxnResult:
        return self._run(self._async.txn(compares, success, failure, timeout_s=timeout_s))

    def compact(self, revision: int, *, timeout_s: float | None = None) -> None:
        """See :meth:`AsyncClient.compact`."""
        return self._run(self._async.compact(revision, timeout_s=timeout_s))

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
    ) -> Watch:
        """See :meth:`AsyncClient.watch`."""
        watch = self._async.watch(
            key,
            end,
            prefix=prefix,
            start_revision=start_revision,
            prev_kv=prev_kv,
            progress=progress,
            leave_out=leave_out,
            timeout_s=timeout_s,
        )
        return Watch(self._background, watch)

    def lease(self, ttl_s: int, *, id: int = 0, timeout_s: float | None = None) -> Lease:
        """See :meth:`AsyncClient.lease`."""
        return Lease(self._background, self._async.lease(ttl_s, id=id, timeout_s=timeout_s))

    def grant(self, ttl_s: int, *, id: int = 0, timeout_s: float | None = None) -> GrantResult:
        """See :meth:`AsyncClient.grant`."""
        return self._run(self._async.grant(ttl_s, id=id, timeout_s=timeout_s))

    def revoke(self, lease: LeaseRef, *, timeout_s: float | None = None) -> None:
        """See :meth:`AsyncClient.revoke`."""
        return self._run(self._async.revoke(lease, timeout_s=timeout_s))

    def keep_alive_once(self, lease: LeaseRef, *, timeout_s: float | None = None) -> int:
        """See :meth:`AsyncClient.keep_alive_once`."""
        return self._run(self._async.keep_alive_once(lease, timeout_s=timeout_s))

    def time_to_live(
        self, lease: LeaseRef, *, keys: bool = False, timeout_s: float | None = None
    ) -> TimeToLive:
        """See :meth:`AsyncClient.time_to_live`."""
        return self._run(self._async.time_to_live(lease, keys=keys, timeout_s=timeout_s))

    def leases(self, *, timeout_s: float | None = None) -> list[int]:
        """See :meth:`AsyncClient.leases`."""
        return self._run(self._async.leases(timeout_s=timeout_s))

    def lock(self, name: StrOrBytes, *, ttl_s: int = 10, lease: Lease | None = None) -> Lock:
        """See :meth:`AsyncClient.lock`."""
        lock = self._async.lock(name, ttl_s=ttl_s, lease=async_lease(lease))
        return Lock(self._background, lock, lease)

    def election(self, name: StrOrBytes, *, ttl_s: int = 10, lease: Lease | None = None) -> Election:
        """See :meth:`AsyncClient.election`."""
        election = self._async.election(name, ttl_s=ttl_s, lease=async_lease(lease))
        return Election(self._background, election, lease)

    def submit(self, command: bytes, *, timeout_s: float | None = None) -> bytes:
        """See :meth:`AsyncClient.submit`."""
        return self._run(self._async.submit(command, timeout_s=timeout_s))

    def query(self, request: bytes, *, serializable: bool = False, timeout_s: float | None = None) -> bytes:
        """See :meth:`AsyncClient.query`."""
        return self._run(self._async.query(request, serializable=serializable, timeout_s=timeout_s))

    def members(self, *, timeout_s: float | None = None) -> list[Member]:
        """See :meth:`AsyncClient.members`."""
        return self._run(self._async.members(timeout_s=timeout_s))

    def member_add(self, peer_url: str, *, learner: bool = False, timeout_s: float | None = None) -> Member:
        """See :meth:`AsyncClient.member_add`."""
        return self._run(self._async.member_add(peer_url, learner=learner, timeout_s=timeout_s))

    def member_remove(self, member: MemberRef, *, timeout_s: float | None = None) -> list[Member]:
        """See :meth:`AsyncClient.member_remove`."""
        return self._run(self._async.member_remove(member, timeout_s=timeout_s))

    def member_update(
        self, member: MemberRef, peer_url: str, *, timeout_s: float | None = None
    ) -> list[Member]:
        """See :meth:`AsyncClient.member_update`."""
        return self._run(self._async.member_update(member, peer_url, timeout_s=timeout_s))

    def member_promote(self, member: MemberRef, *, timeout_s: float | None = None) -> list[Member]:
        """See :meth:`AsyncClient.member_promote`."""
        return self._run(self._async.member_promote(member, timeout_s=timeout_s))

    def move_leader(self, to: MemberRef | None = None, *, timeout_s: float | None = None) -> int:
        """See :meth:`AsyncClient.move_leader`."""
        return self._run(self._async.move_leader(to, timeout_s=timeout_s))

    def refresh_endpoints(self, *, timeout_s: float | None = None) -> tuple[str, ...]:
        """See :meth:`AsyncClient.refresh_endpoints`."""
        return self._run(self._async.refresh_endpoints(timeout_s=timeout_s))

    def status(self, *, timeout_s: float | None = None) -> list[MemberStatus]:
        """See :meth:`AsyncClient.status`."""
        return self._run(self._async.status(timeout_s=timeout_s))

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        return self._background.run(call)
