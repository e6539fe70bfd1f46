"""Everything that is seen of a run, on disk as it happens: what clients did, what was done to the servers, who led.

Two files of JSON lines, with one clock: milliseconds since the run began, monotonic.

``history.jsonl``
    One line for each operation that has ended, in the order of their ends: ``{"process": 3, "op": "put", "key":
    "k0001/07", "input": "41", "output": null, "call": 12.5, "return": 13.25, "status": "ok"}``. ``status`` is ``ok``;
    ``fail`` where it is known not to have taken effect; ``unknown``, with a ``return`` of null, where nobody knows.
    A process does one thing at a time, and one whose operation has an unknown outcome does nothing any more.
``events.jsonl``
    Faults, changes of a server's role, changes of the leader: ``{"t": 3012.5, "event": "fault-begin", ...}``.

In memory stay only figures that do not grow with the number of operations, but for the times at which writes were
acknowledged, 8 bytes each: from them the gaps are read off.
"""

import json
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

__all__ = ["Latencies", "Recorder", "Second"]

EVENTS_KEPT_MAX = 100_000
BUCKETS_PER_DOUBLING = 8
"""Of the histogram of latencies: each is 9 % wide."""


class Latencies:
    """Counts of durations in buckets that grow by 9 %: percentiles with that error, in constant space."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.count = 0
        self.max_ms = 0.0

    def note(self, duration_ms: float) -> None:
        """Counts one."""
        self.count += 1
        self.max_ms = max(self.max_ms, duration_ms)
        self._counts[_bucket(duration_ms)] += 1

    def percentile_ms(self, percent: float) -> float | None:
        """The upper edge of the bucket in which the nearest rank lies; None where nothing was counted."""
        rank = max(1, -(-self.count * percent // 100))
        passed = 0
        for bucket, count in sorted(self._counts.items()):
            passed += count
            if passed >= rank:
                return min(_edge_ms(bucket), self.max_ms)
        return None


def _bucket(duration_ms: float) -> int:
    """0 is up to 10 µs."""
    # Not math.log2: counting doublings and then eighths keeps the edges the same on every platform.
    bucket, edge = 0, 0.01
    while duration_ms > edge * 2:
        bucket, edge = bucket + BUCKETS_PER_DOUBLING, edge * 2
    while duration_ms > _edge_ms(bucket):
        bucket += 1
    return bucket


def _edge_ms(bucket: int) -> float:
    return float(0.01 * 2 ** (bucket / BUCKETS_PER_DOUBLING))


class Second:
    """What was acknowledged in one second of the run."""

    __slots__ = ("latencies", "reads", "writes")

    def __init__(self) -> None:
        self.writes = 0
        self.reads = 0
        self.latencies = Latencies()


class Recorder:
    """Writes history and events, and keeps the figures. For one thread: that of the clients' event loop."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.history_path = directory / "history.jsonl"
        self.events_path = directory / "events.jsonl"
        self._history: IO[str] = self.history_path.open("w", encoding="utf-8")
        self._events: IO[str] = self.events_path.open("w", encoding="utf-8")
        self._started = time.monotonic()
        self.acknowledged_ms = array("d")
        """When each write was acknowledged, in order."""
        self.seconds: list[tuple[int, int, float | None, float | None]] = []
        """Of each second that is over: writes, reads, median and 99th percentile of the latency in ms."""
        self._second = Second()
        self.latencies: dict[str, Latencies] = {}
        """By operation, of those that succeeded."""
        self.statuses: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        """By the name of the exception."""
        self.events: list[dict[str, Any]] = []

    def now_ms(self) -> float:
        """Of the run's clock."""
        return round((time.monotonic() - self._started) * 1e3, 3)

    def operation(
        self,
        process: int,
        op: str,
        key: str,
        given: Any,
        output: Any,
        call_ms: float,
        *,
        status: str = "ok",
        write: bool = False,
    ) -> float:
        """An operation has ended just now; gives when."""
        now = self.now_ms()
        ok = status == "ok"
        line = {
            "process": process,
            "op": op,
            "key": key,
            "input": given,
            "output": output if ok else None,
            "call": call_ms,
            "return": None if status == "unknown" else now,
            "status": status,
        }
        self._history.write(json.dumps(line, separators=(",", ":")) + "\n")
        self.statuses[status] += 1
        if ok:
            self._count(op, now, now - call_ms, write)
        return now

    def _count(self, op: str, now_ms: float, duration_ms: float, write: bool) -> None:
        self._close_seconds(now_ms)
        if write:
            self.acknowledged_ms.append(now_ms)
            self._second.writes += 1
        else:
            self._second.reads += 1
        self._second.latencies.note(duration_ms)
        self.latencies.setdefault(op, Latencies()).note(duration_ms)

    def _close_seconds(self, now_ms: float) -> None:
        while now_ms >= (len(self.seconds) + 1) * 1e3:
            second, self._second = self._second, Second()
            latencies = second.latencies
            self.seconds.append(
                (second.writes, second.reads, latencies.percentile_ms(50), latencies.percentile_ms(99))
            )

    def event(self, event: str, *, at_ms: float | None = None, **details: Any) -> float:
        """Something has happened, just now or at ``at_ms``; gives when."""
        at = self.now_ms() if at_ms is None else at_ms
        entry = {"t": at, "event": event, **details}
        self._events.write(json.dumps(entry, separators=(",", ":")) + "\n")
        self._events.flush()
        if len(self.events) < EVENTS_KEPT_MAX:
            self.events.append(entry)
        return at

    def of(self, event: str) -> Iterator[dict[str, Any]]:
        """The events of one sort, in order."""
        return (entry for entry in self.events if entry["event"] == event)

    def flush(self) -> None:
        """Has everything on disk, as far as the kernel goes."""
        self._history.flush()

    def close(self) -> None:
        """Ends the files. May be called twice."""
        if not self._history.closed:
            self._close_seconds(self.now_ms())
        self._history.close()
        self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
