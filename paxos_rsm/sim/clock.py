"""The clock that leases on reads go by, at one simulated server: what ``CLOCK_BOOTTIME`` is in a process.

It goes on while the server is paused, and never back within a process; the next process may find it anywhere, for its
machine may have been switched off. How fast it runs changes now and then, and stays within what the servers are told:
true time or faster, by the drift at most, so that of two clocks neither is ever faster than the other by more.

It depends on the seed and the time alone: who reads it, and how often, changes nothing.
"""

from paxos_rsm.sim.stage import Stage
from paxos_rsm.sim.world import ELECTION_TICKS, TICK_UNITS, UNIT_US

__all__ = ["SimClock"]

SPELL_TICKS = (ELECTION_TICKS // 2, 2 * ELECTION_TICKS, 10 * ELECTION_TICKS)
"""Its speed lasts for up to one of these."""


class SimClock:
    """See the module's docstring."""

    def __init__(self, stage: Stage, number: int, drift_percent: int) -> None:
        self._stage = stage
        self._random = stage.chance(f"clock {number}")
        self._drift_percent = drift_percent
        self._begins_at = 0
        self._hundredths = 0
        """Of units, since it was made."""
        self._at = 0
        self._percent = 100
        self._until = 0

    def restart(self) -> None:
        """Another process reads it from here on."""
        self._begins_at = self._random.getrandbits(40)

    def read_us(self) -> int:
        """What it says now, in microseconds."""
        now = self._stage.now
        while self._until <= now:
            self._pass(self._until)
            between = self._random.randint(0, self._drift_percent)
            self._percent = 100 + self._random.choice(
                (0, 0, self._drift_percent, self._drift_percent, between)
            )
            self._until += self._random.randint(1, self._random.choice(SPELL_TICKS) * TICK_UNITS)
        self._pass(now)
        return self._begins_at + self._hundredths * UNIT_US // 100

    def _pass(self, at: int) -> None:
        self._hundredths += (at - self._at) * self._percent
        self._at = at
