"""A failing seed, made smaller: fewer events before the healing, and without what has nothing to do with it.

The smaller run fails by the same rule as the whole one; the message may differ. Every kind of fault and disturbance is
taken away in turn, and stays away where the failure does not need it; then the run is cut as short as it will go. What
is found is *a* small run, not the smallest.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from paxos_rsm._version import __version__
from paxos_rsm.sim.failure import Failure, Result
from paxos_rsm.sim.simulation import HEALING_EVENTS, Simulation, run_seed
from paxos_rsm.sim.world import FAULTS

__all__ = ["Pinned", "minimize", "pin", "read_pin"]

QUIET: Mapping[str, Any] = {
    "encoded": False,
    "lazy": 0.0,
    "loss": 0.0,
    "duplicate": 0.0,
    "late": 0.0,
    "moves": 0.0,
    "sleeps": 0.0,
    "ends": 0.0,
    "reads": 0.0,
    "fifo": True,
    "streams_carry": False,
    "clients": 1,
    "calm": 0.0,
    "restored": False,
    "hold_ticks": 0,
    "quorum_reads": False,
    "reads_vary": False,
    "siege": 0.0,
}
"""What each part of a world is where it disturbs nothing."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """A run, as it is kept: of which seed, how long, in what changed world."""

    seed: int
    events: int
    changes: Mapping[str, Any]

    def run(self, *, traced: bool = False) -> Result:
        """Plays it."""
        return run_seed(self.seed, events=self.events, changes=self.changes, traced=traced)


def minimize(
    whole: Pinned, *, runs_max: int = 300, progress: Callable[[int, Pinned], None] = lambda runs, best: None
) -> Pinned | None:
    """A small run that fails by the rule by which ``whole`` does; None where that does not fail."""
    failure = whole.run().failure
    if failure is None:
        return None
    rule, best, runs = failure.rule, whole, 1

    def fails(candidate: Pinned) -> bool:
        nonlocal best, runs
        if runs >= runs_max:
            return False
        runs += 1
        found = candidate.run().failure
        if found is None or found.rule != rule:
            return False
        best = candidate
        progress(runs, best)
        return True

    if failure.event + HEALING_EVENTS < whole.events:
        fails(replace(whole, events=failure.event + HEALING_EVENTS))
    for change in _removals(whole):
        fails(replace(best, changes={**best.changes, **change}))
    step = best.events // 2
    while step:
        if not (best.events > step and fails(replace(best, events=best.events - step))):
            step //= 2
    return best


def _removals(whole: Pinned) -> list[dict[str, Any]]:
    """Each thing that the world of a run could do without."""
    world = Simulation(whole.seed, changes=whole.changes).world
    quiet = [{name: value} for name, value in QUIET.items() if getattr(world, name) != value]
    return [{name: 0.0} for name in FAULTS if world.rates.get(name)] + quiet


def pin(directory: Path, pinned: Pinned, failure: Failure) -> Path:
    """Keeps a run as a file that tests/sim/test_pinned.py plays ever after. Returns its path."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"seed_{pinned.seed}_{failure.rule}.json"
    content = {
        "seed": pinned.seed,
        "events": pinned.events,
        "changes": dict(pinned.changes),
        "version": __version__,
        "failed_with": str(failure),
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def read_pin(path: Path) -> Pinned:
    """A run that was kept."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return Pinned(content["seed"], content["events"], content["changes"])
