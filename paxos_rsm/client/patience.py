"""When a server is given up.

A stopped process keeps its connections, and a server may live and still be of no use. So, while it owes something:

- one that says nothing for ``probe_s`` is asked for a sign of life, and left after a silence of ``silent_s``;
- one that is connected anew is asked at once, and left after ``connect_s``: while a leader is being replaced, the
  servers to turn to may include the one that stopped;
- one that gives signs of life and nothing else is left after ``stuck_s``. A server that knows itself to be cut off
  from the others says so earlier; this is for what nobody foresaw.

Each limit doubles every time it is met, until a server gives what it owes: a slow cluster must not be made slower by
commands that come twice, and a distant one may need longer to connect.

A client whose own loop stood still has heard nothing either, and does not blame the server: that time does not
count.

Pure: times are seconds on the caller's clock.
"""

from dataclasses import dataclass

__all__ = ["Lookout", "Patience", "Verdict"]

DOUBLINGS_MAX = 4


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server that owes something may be silent."""

    tick_s: float = 0.1
    """Between two looks."""
    probe_s: float = 0.3
    connect_s: float = 0.5
    silent_s: float = 1.0
    stuck_s: float = 3.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a look led to."""

    probe: bool = False
    """Ask for a sign of life."""
    loss: str = ""
    """Why the server is to be left; empty where it is not."""


class Lookout:
    """What was heard last of the server of now, and what came of it."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._heard_at = 0.0
        self._progress_at = 0.0
        self._due = 0.0
        self._connected = False
        # How often each limit was met since a server last gave what it owed.
        self._unreached = 0
        self._silent = 0
        self._stuck = 0

    def connecting(self) -> None:
        """The next that is heard is the first of a new stream."""
        self._connected = False

    def start(self, now: float) -> float:
        """From now on something is owed; returns when to look."""
        self._heard_at = self._progress_at = now
        self._due = now + self._patience.tick_s
        return self._due

    def heard(self, now: float) -> None:
        """The server said something."""
        self._heard_at = now
        self._connected = True

    def progressed(self) -> None:
        """What it said last was something that it owed."""
        self._progress_at = self._heard_at
        self._unreached = self._silent = self._stuck = 0

    def opened(self) -> None:
        """It opened the session: a step, but no result yet."""
        self._progress_at = self._heard_at

    def look(self, now: float) -> Verdict:
        """What to do about the server, at a look that was due."""
        patience = self._patience
        late = max(now - self._due, 0.0)
        self._heard_at = min(self._heard_at + late, now)
        self._progress_at = min(self._progress_at + late, now)
        quiet_s, idle_s = now - self._heard_at, now - self._progress_at
        if not self._connected:
            if quiet_s < _doubled(patience.connect_s, self._unreached):
                return Verdict()
            self._unreached += 1
            return Verdict(loss=f"it could not be reached within {quiet_s:.1f} s")
        if quiet_s >= _doubled(patience.silent_s, self._silent):
            self._silent += 1
            return Verdict(loss=f"it has been silent for {quiet_s:.1f} s")
        if idle_s >= _doubled(patience.stuck_s, self._stuck):
            self._stuck += 1
            return Verdict(loss=f"it has given nothing that was asked of it for {idle_s:.1f} s")
        return Verdict(probe=quiet_s >= patience.probe_s)

    def next_look(self, now: float) -> float:
        """When to look again."""
        self._due = now + self._patience.tick_s
        return self._due


def _doubled(limit_s: float, times: int) -> float:
    return limit_s * 2.0 ** min(times, DOUBLINGS_MAX)
