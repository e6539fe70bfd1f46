"""A range that reads itself page by page, as it stood at one point in time.

The first page tells the store's revision, and every other page is read at that one: what is written meanwhile is not
seen, and nothing is seen twice or missed. A page is chosen by the bytes that the page before it had, so that neither
side ever holds, or sends, a message whose size nobody foresaw: it begins small, grows as long as keys turn out to be
small, and shrinks where a server has no room for an answer. Keys whose sizes differ by orders of magnitude are the one
case that this cannot foresee; ``page`` is the limit for them.

:class:`Pages` is pure; :class:`AsyncScan` asks.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from paxos_rsm.client.commands import range_query, range_request, range_result
from paxos_rsm.client.namespace import Namespace
from paxos_rsm.client.reads import Answer
from paxos_rsm.client.types import KeyValue, RangeResult
from paxos_rsm.errors import InvalidArgument, ResourceExhausted

__all__ = ["AsyncScan", "Pages", "ScanOptions"]

PAGE_BYTES = 512 * 1024
"""What a page should have, in bytes of its answer: far below the 4 MiB that gRPC takes where nobody says more."""
FIRST_LIMIT = 16
GROWTH_MAX = 8


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """What a scan was asked for."""

    bounds: tuple[bytes, bytes]
    """Of the store, not of the view."""
    page: int = 1_000
    revision: int = 0
    descending: bool = False
    keys_only: bool = False
    serializable: bool = False


class Pages:
    """Which page comes next, and how many keys it should have."""

    def __init__(self, options: ScanOptions, page_bytes: int = PAGE_BYTES) -> None:
        if type(options.page) is not int or options.page < 1:
            raise InvalidArgument(f"page={options.page!r} is not a number of keys")
        self.options = options
        self.bounds = options.bounds
        self.revision = options.revision
        self.limit = min(options.page, FIRST_LIMIT)
        self.done = False
        self._page_bytes = page_bytes
        self._first = True

    def query(self) -> bytes:
        """Asks for the next page."""
        request = range_request(
            self.bounds,
            limit=self.limit,
            revision=self.revision,
            descending=self.options.descending,
            keys_only=self.options.keys_only,
            serializable=self.serializable,
        )
        return range_query(request)

    @property
    def serializable(self) -> bool:
        """Only the first page may be stale: the others are at its revision, which another server may not have yet."""
        return self.options.serializable and self._first

    def took(self, page: RangeResult, last_key: bytes, size_bytes: int) -> None:
        """A page has come, with ``last_key`` at its end, in an answer of so many bytes."""
        self._first = False
        self.revision = self.revision or page.revision
        if not page.more or not page.kvs:
            self.done = True
            return
        key, end = self.bounds
        self.bounds = (key, last_key) if self.options.descending else (last_key + b"\0", end)
        fits = self._page_bytes * len(page.kvs) // max(size_bytes, 1)
        self.limit = max(1, min(fits, self.limit * GROWTH_MAX, self.options.page))

    def shrink(self) -> bool:
        """There was no room for a page: asks for less from now on; False where it cannot be less."""
        if self.limit == 1:
            return False
        self.limit = max(1, self.limit // 4)
        return True


class AsyncScan:
    """The keys of a range, in order, to be iterated over once; see :meth:`AsyncClient.scan`."""

    def __init__(
        self, pages: Pages, namespace: Namespace, query: Callable[[bytes, bool], Awaitable[Answer]]
    ) -> None:
        self._pages = pages
        self._namespace = namespace
        self._query = query

    @property
    def revision(self) -> int:
        """The store's revision that is read; 0 before the first page has come."""
        return self._pages.revision

    async def next_page(self) -> tuple[KeyValue, ...]:
        """The next keys, some hundreds or so; none at the end.

        Raises Compacted where the revision has been compacted while the scan went on, which must then begin anew.
        """
        pages = self._pages
        while not pages.done:
            try:
                answer = await self._query(pages.query(), pages.serializable)
            except ResourceExhausted:
                if not pages.shrink():
                    raise
                continue
            page = range_result(answer, self._namespace.length)
            last_key = self._namespace.prefix + page.kvs[-1].key if page.kvs else b""
            pages.took(page, last_key, len(answer.result))
            if page.kvs:
                return page.kvs
        return ()

    async def __aiter__(self) -> AsyncIterator[KeyValue]:
        while page := await self.next_page():
            for kv in page:
                yield kv
