"""What a user of asyncio calls.

Every method queues one command or query and awaits its result: no task, no timer and no message of its own.
Calls that are made together travel together, whether gathered, in tasks, or by many callers; they take effect
in the order in which they were made. See session.py for what happens below.

Which errors mean what (paxos_rsm/errors.py has the tree): InvalidArgument, Unavailable, ResourceExhausted and
DeadlineExceeded say that a change did *not* happen; UnknownOutcome and SessionExpired say that it may have. A
caller that is cancelled (``asyncio.timeout``, ``wait_for``) learns nothing: its command may be executed,
once.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from paxos_rsm.client.commands import (
    ALL_KEYS,
    SortBy,
    compact_command,
    delete_command,
    deleted,
    get_query,
    get_result,
    open_result,
    put_result,
    range_bounds,
    range_query,
    range_request,
    range_result,
    to_bytes,
)
from paxos_rsm.client.endpoints import parse_endpoints
from paxos_rsm.client.members import ask_members
from paxos_rsm.client.session import Session, SessionSettings
from paxos_rsm.client.txn import Compare, Op, TxnResult, swap_command, txn_command, txn_result
from paxos_rsm.client.types import GetResult, MemberStatus, PutResult, RangeResult, StrOrBytes
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
    ) -> None:
        self.endpoints = tuple(parse_endpoints(endpoints))
        self.timeout_s = _checked_timeout(timeout_s)
        if not 1 <= in_flight_max <= IN_FLIGHT_MAX:
            raise InvalidArgument(f"in_flight_max={in_flight_max!r} is not within 1..{IN_FLIGHT_MAX}")
        if not 0 <= cluster_id < 2**64:
            raise InvalidArgument(f"cluster_id={cluster_id!r} is not a cluster's id")
        if session_timeout_s is not None and not 0.001 <= session_timeout_s < 2**32 / 1000:
            raise InvalidArgument(f"session_timeout_s={session_timeout_s!r} is not a time in seconds")
        settings = SessionSettings(
            in_flight_max=in_flight_max,
            session_timeout_ms=round((session_timeout_s or 0) * 1000),
            cluster_id=cluster_id,
        )
        self._session = Session(self.endpoints, settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the session and the connection. Calls that are still awaited fail. May be called twice."""
        await self._session.close()

    # ---- keys --------------------------------------------------------------------------------------------

    async def put(
        self, key: StrOrBytes, value: StrOrBytes, *, prev_kv: bool = False, timeout_s: float | None = None
    ) -> PutResult:
        """Writes a key. With ``prev_kv`` the result has what stood there before."""
        command = put_command(to_bytes(key), to_bytes(value, "a value"), prev_kv)
        return put_result(await self._session.submit(command, self._timeout(timeout_s)))

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
        compacted or to come.
        """
        wanted = to_bytes(key)
        query = get_query(wanted, revision, serializable)
        return get_result(wanted, await self._session.query(query, serializable, self._timeout(timeout_s)))

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
        timeout_s: float | None = None,
    ) -> RangeResult:
        """Reads the keys from ``key`` up to ``end``, that one left out; or those that start with ``prefix``; or all.

        A ``key`` alone is a range of one; an ``end`` of ``b"\\0"`` means no end. They come in the order of
        their keys, or in that of ``sort_by``. See :meth:`get` for the rest.
        """
        request = range_request(
            range_bounds(key, end, prefix) or ALL_KEYS,
            limit=limit,
            revision=revision,
            sort_by=sort_by,
            descending=descending,
            keys_only=keys_only,
            count_only=count_only,
            serializable=serializable,
        )
        timeout = self._timeout(timeout_s)
        return range_result(await self._session.query(range_query(request), serializable, timeout))

    async def delete(
        self,
        key: StrOrBytes | None = None,
        end: StrOrBytes | None = None,
        *,
        prefix: StrOrBytes | None = None,
        timeout_s: float | None = None,
    ) -> int:
        """Deletes a key, or all from ``key`` up to ``end``, or all that start with ``prefix``; returns how many."""
        bounds = range_bounds(key, end, prefix)
        if bounds is None:
            raise InvalidArgument("no key was given; to delete every key there is, give prefix=''")
        return deleted(await self._session.submit(delete_command(bounds), self._timeout(timeout_s)))

    async def compare_and_swap(
        self,
        key: StrOrBytes,
        expected: StrOrBytes | None,
        new: StrOrBytes,
        *,
        timeout_s: float | None = None,
    ) -> bool:
        """Writes ``new`` where the value is ``expected`` (None: where the key is missing); returns whether it did."""
        command = swap_command(key, expected, new)
        raw = await self._session.submit(command, self._timeout(timeout_s))
        return open_result(raw, "txn").txn.succeeded

    async def txn(
        self,
        compares: Sequence[Compare],
        success: Sequence[Op],
        failure: Sequence[Op] = (),
        *,
        timeout_s: float | None = None,
    ) -> TxnResult:
        """Does ``success`` where all ``compares`` hold, ``failure`` where not: at one point in time, all or nothing."""
        command, reads_only = txn_command(compares, success, failure)
        timeout = self._timeout(timeout_s)
        if reads_only:
            raw = (await self._session.query(command, False, timeout)).result
        else:
            raw = await self._session.submit(command, timeout)
        return txn_result(raw, success, failure)

    async def compact(self, revision: int, *, timeout_s: float | None = None) -> None:
        """Forgets what was overwritten or deleted before ``revision``: it cannot be read any more after this.

        Raises OutOfRange where that is done already, or ``revision`` is still to come.
        """
        command = compact_command(revision)
        open_result(await self._session.submit(command, self._timeout(timeout_s)), "compact")

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
