"""When a timer of the state machine has run out: watched by every server, said by the leader, decided by the log.

The machine knows no clock (see ``machines/base.py``): it arms timers, and this is where their time passes, counted in
ticks. A timer has run out when its whole duration has passed since the later of two moments: that at which this server
applied its arming, and that at which it began to follow the present leader (or to be it). So a new leader gives every
timer its full time again, without walking over them.

Only the leader proposes anything: a frame that names timers and their armings. The machine ignores one that has been
armed again before that frame in the log. A proposal may be lost: it is repeated as long as the timer is there.

**Cost.** Each timer has one place in the heap that counts, at the latest when it may have run out. Arming it again
changes one entry of a dictionary; only when its old place comes up is it pushed to where it belongs by then. So 100,000
leases that are renewed all the time cost one step of the heap a lease and duration; and followers keep the same books,
which makes taking over free.
"""

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Protocol

from paxos_rsm.codec.frames import timeouts_frame
from paxos_rsm.machines.base import Timeout, Timer
from paxos_rsm.paxos.types import Ballot

__all__ = ["TimerSource", "Timers"]

TIMEOUTS_MAX = 1_000
LOOKS_MAX = 4_000
"""Timers that run out, and that are looked at, in one tick: the rest waits for the next, and nothing waits for it."""
SPARE_TICKS = 2
"""The tick during which a timer was armed does not count; nor does one that only makes up for a late one (loop.py)."""
REPEAT_MS = 1_000
"""A proposal that has not been applied after so long is made again."""


class TimerSource(Protocol):
    """Where the timers are: ``SessionMachine``."""

    def take_timers(self) -> Sequence[Timer]:
        """Those armed since the last call."""
        ...

    def is_armed(self, timer: int) -> bool:
        """Whether there is such a timer, and it runs."""
        ...


class _Watched:
    __slots__ = ("armed", "look_at", "since", "ticks")

    def __init__(self) -> None:
        self.armed = self.since = self.ticks = 0
        self.look_at = 0
        """Its place in the heap; any other entry for it is void. 0: it has none."""


class Timers:
    """The watch over all timers of one server."""

    def __init__(self, tick_ms: int) -> None:
        self._tick_ms = tick_ms
        self._repeat_ticks = max(1, REPEAT_MS // tick_ms)
        self._watched: dict[int, _Watched] = {}
        self._heap: list[tuple[int, int]] = []
        """(tick, timer): when to look at it."""
        self._now = 0
        self._ballot: Ballot | None = None
        self._base = 0

    def tick(self, ballot: Ballot | None, leading: bool, source: TimerSource) -> list[bytes]:
        """Time goes on by one tick, under the leader of ``ballot``. Gives the frame to propose, if there is one."""
        self._now += 1
        if ballot != self._ballot:
            self._ballot = ballot
            self._base = self._now
        for timer in source.take_timers():
            self._arm(timer)
        run_out: list[Timeout] = []
        heap, now = self._heap, self._now
        for _ in range(LOOKS_MAX):
            if not heap or heap[0][0] > now or len(run_out) == TIMEOUTS_MAX:
                break
            look_at, number = heappop(heap)
            watched = self._watched.get(number)
            if watched is None or watched.look_at != look_at:
                continue
            if not source.is_armed(number):
                del self._watched[number]
                continue
            due = self._due(watched)
            if due <= now:
                if leading:
                    run_out.append(Timeout(number, watched.armed))
                due = now + self._repeat_ticks
            watched.look_at = due
            heappush(heap, (due, number))
        return [timeouts_frame(run_out)] if run_out else []

    def remaining_ms(self, timer: int, armed: int) -> int | None:
        """What is left of a timer as this server has it, 0 where it has run out; None where it has just been armed.

        The leader goes by its own watch; another server's may differ by how long a message takes.
        """
        watched = self._watched.get(timer)
        if watched is None or watched.armed != armed:
            return None
        return max(0, self._due(watched) - self._now) * self._tick_ms

    def _due(self, watched: _Watched) -> int:
        return max(watched.since, self._base) + watched.ticks + SPARE_TICKS

    def _arm(self, timer: Timer) -> None:
        watched = self._watched.setdefault(timer.timer, _Watched())
        watched.armed, watched.since = timer.armed, self._now
        watched.ticks = -(-timer.duration_ms // self._tick_ms)
        due = self._due(watched)
        # Sooner than it was to be looked at: it was gone, and is back with less time.
        if not watched.look_at or due < watched.look_at:
            watched.look_at = due
            heappush(self._heap, (due, timer.timer))
