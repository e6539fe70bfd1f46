"""The queries of one client: queued, asked, asked again, answered.

All that callers queued while the stream was busy goes into one Read message, for which the server takes one
read index. A query changes nothing, so it needs no number of its own: after a loss it is simply asked again,
until the deadline of its caller. Queries that may be answered from stale state travel apart from the
linearizable ones, which wait for a quorum.

A query that makes the state machine fail takes its whole message down. The message is then asked again query
by query: the others in it, which may belong to other callers, get their answers.

Pure, like window.py.
"""

import math
from asyncio import Future
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

from paxos_rsm.client.wire import read_message
from paxos_rsm.errors import ClientError, InvalidArgument

__all__ = ["PROBE_ID", "Answer", "Query", "Reads"]

PROBE_ID = 0
"""Of Read messages that ask nothing: their answer shows that the server is alive."""

MESSAGE_QUERIES_MAX = 256
MESSAGE_BYTES_MAX = 1024 * 1024
SWEEP_MIN = 1024


class Answer(NamedTuple):
    """What a query was answered, and from which state."""

    result: bytes
    applied_slot: int
    leader_age_ms: int


class Query:
    """A query and who waits for its answer."""

    __slots__ = ("alone", "data", "deadline", "future")

    def __init__(self, data: bytes, deadline: float, future: "Future[Answer]") -> None:
        self.data = data
        self.deadline = deadline
        self.future = future
        self.alone = False


class _Asked(NamedTuple):
    serializable: bool
    queries: list[Query]


_Queue: TypeAlias = deque[Query]


class Reads:
    """What is queued and what is asked. ``asked`` is in the order of its ids."""

    def __init__(self, *, in_flight_max: int) -> None:
        self.request_bytes_max = 1_572_864
        self.asked: dict[int, _Asked] = {}
        self._in_flight_max = in_flight_max
        self._in_flight = 0
        self._next_id = PROBE_ID + 1
        self._linearizable: _Queue = deque()
        self._serializable: _Queue = deque()
        self._serializable_next = False
        self._sweep_at = SWEEP_MIN

    def add(self, query: Query, serializable: bool) -> None:
        """Queues a query behind all others of its kind."""
        queue = self._serializable if serializable else self._linearizable
        queue.append(query)
        if len(queue) > self._sweep_at:
            self._sweep()
            self._sweep_at = 2 * len(queue) + SWEEP_MIN

    @property
    def has_callers(self) -> bool:
        """Whether somebody still waits. Looks at every query: not for the hot path."""
        return not all(query.future.done() for query in self._all())

    def _all(self) -> Iterable[Query]:
        for asked in self.asked.values():
            yield from asked.queries
        yield from self._linearizable
        yield from self._serializable

    # ---- to the server -----------------------------------------------------------------------------------

    def next_message(self, cluster_id: int) -> bytes | None:
        """The next Read, as a serialized ClientMessage; None where there is nothing to ask now."""
        for _ in range(2):
            # In turns, so that neither kind holds up the other.
            serializable = self._serializable_next = not self._serializable_next
            queries = self._take(self._serializable if serializable else self._linearizable)
            if queries:
                read_id, self._next_id = self._next_id, self._next_id + 1
                self.asked[read_id] = _Asked(serializable, queries)
                self._in_flight += len(queries)
                return read_message(read_id, serializable, cluster_id, [query.data for query in queries])
        return None

    def _take(self, queue: _Queue) -> list[Query]:
        """The queries of the next message. One too large for any message fails with InvalidArgument."""
        queries: list[Query] = []
        count_max = min(MESSAGE_QUERIES_MAX, self._in_flight_max - self._in_flight)
        room = MESSAGE_BYTES_MAX
        while queue and len(queries) < count_max:
            query = queue[0]
            size = len(query.data)
            if query.future.done():
                queue.popleft()
            elif size > self.request_bytes_max:
                queue.popleft()
                query.future.set_exception(
                    InvalidArgument(
                        f"a query of {size} bytes was not sent: the server takes at most {self.request_bytes_max} bytes"
                    )
                )
            elif queries and (size > room or query.alone):
                break
            else:
                queue.popleft()
                queries.append(query)
                room -= size
                if query.alone:
                    break
        return queries

    # ---- from the server ---------------------------------------------------------------------------------

    def answered(self, read_id: int, results: Sequence[bytes], applied_slot: int, leader_age_ms: int) -> bool:
        """Hands out the results of one message; False where they do not match what was asked."""
        asked = self.asked.get(read_id)
        if asked is None or len(asked.queries) != len(results):
            return False
        self._forget(read_id)
        for query, result in zip(asked.queries, results, strict=True):
            if not query.future.done():
                query.future.set_result(Answer(result, applied_slot, leader_age_ms))
        return True

    def failed(self, read_id: int, error: ClientError) -> None:
        """One message failed for good: its caller is told, or each of its queries is asked again alone."""
        asked = self.asked.get(read_id)
        if asked is None:
            return
        self._forget(read_id)
        if len(asked.queries) > 1:
            for query in asked.queries:
                query.alone = True
            self._queue_again(asked)
        elif not asked.queries[0].future.done():
            asked.queries[0].future.set_exception(error)

    def ask_again(self, read_id: int) -> None:
        """One message was refused for now: its queries are queued again, in front."""
        asked = self.asked.get(read_id)
        if asked is not None:
            self._forget(read_id)
            self._queue_again(asked)

    def stream_lost(self) -> None:
        """The stream is gone: everything asked is queued again, in front, in the old order."""
        for read_id in sorted(self.asked, reverse=True):
            self.ask_again(read_id)

    def _forget(self, read_id: int) -> None:
        self._in_flight -= len(self.asked.pop(read_id).queries)

    def _queue_again(self, asked: _Asked) -> None:
        queue = self._serializable if asked.serializable else self._linearizable
        queue.extendleft(query for query in reversed(asked.queries) if not query.future.done())

    # ---- ends --------------------------------------------------------------------------------------------

    def expire(self, now: float, make_error: Callable[[], ClientError]) -> float:
        """Fails the queries whose deadline has passed; returns the earliest deadline of the rest, or infinity."""
        earliest = math.inf
        for query in self._all():
            if query.future.done():
                continue
            if query.deadline <= now:
                query.future.set_exception(make_error())
            else:
                earliest = min(earliest, query.deadline)
        self._sweep()
        return earliest

    def fail_all(self, make_error: Callable[[], ClientError]) -> None:
        """Fails every query."""
        for query in self._all():
            if not query.future.done():
                query.future.set_exception(make_error())
        self._sweep()

    def _sweep(self) -> None:
        """Takes out of the queues what nobody waits for: callers that went away must not pile up."""
        for queue in (self._linearizable, self._serializable):
            waiting = [query for query in queue if not query.future.done()]
            queue.clear()
            queue.extend(waiting)
