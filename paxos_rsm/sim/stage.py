"""What everything in a simulation shares: the clock, what is going to happen, chance, and the record of it all.

Time is a whole number of units and moves only from one thing that happens to the next. Chance comes from streams, one
for each purpose, all of them drawn from the one seed: so that a run without one kind of fault is still like the run
with it in all else, which is what makes a failing seed smaller.
"""

import hashlib
from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from struct import Struct
from typing import Any

from paxos_rsm.sim.world import TICK_UNITS

__all__ = ["Stage"]

_RECORD = Struct("<qHHqq").pack


class Stage:
    """See the module's docstring. ``trace`` is None where nobody is going to read it."""

    def __init__(self, seed: int, traced: bool) -> None:
        self.seed = seed
        self.now = 0
        self.events = 0
        self.fired: Counter[str] = Counter()
        self.trace: list[str] | None = [] if traced else None
        self._queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._scheduled = 0
        self._hash = hashlib.blake2b(digest_size=16)

    def chance(self, purpose: str) -> Random:
        """A stream of chance for one purpose."""
        return Random(f"{self.seed}/{purpose}")

    def schedule(self, delay: int, action: Callable[..., None], *args: Any) -> None:
        """``action`` happens ``delay`` units from now, after all that is due then already."""
        self._scheduled += 1
        heappush(self._queue, (self.now + delay, self._scheduled, action, args))

    def next(self) -> None:
        """The next thing happens."""
        self.now, _, action, args = heappop(self._queue)
        action(*args)

    def event(self, kind: int, server: int, a: int = 0, b: int = 0) -> None:
        """Records that something has changed a server."""
        self.events += 1
        self._hash.update(_RECORD(self.now, kind, server, a & 0x7FFF_FFFF_FFFF_FFFF, b))

    def mix(self, data: bytes) -> None:
        """Makes ``data`` part of the record."""
        self._hash.update(data)

    def fire(self, fault: str) -> None:
        """A fault happens."""
        self.fired[fault] += 1

    def tell(self, line: str) -> None:
        """Adds a line to the trace. Where making the line costs something, ask ``trace`` first."""
        if self.trace is not None:
            self.trace.append(f"{self.now / TICK_UNITS:9.3f} {line}")

    @property
    def tick(self) -> int:
        """The time in whole ticks."""
        return self.now // TICK_UNITS

    @property
    def trace_hash(self) -> str:
        """Of all that was recorded so far."""
        return self._hash.hexdigest()
