"""Many seeds, on every core: what broke, how much was played, and what was never reached.

Each worker process plays a stretch of seeds and reports sums; seeds share nothing, so how they are dealt out changes
no result. In one seed of ``COUNTED_EVERY`` branches are counted (see :mod:`paxos_rsm.sim.coverage`).
"""

import gc
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from paxos_rsm.sim.coverage import BranchCounter, unreached
from paxos_rsm.sim.failure import Failure
from paxos_rsm.sim.simulation import run_seed

__all__ = ["COUNTED_EVERY", "Campaign", "play_campaign", "play_stretch"]

COUNTED_EVERY = 15
STRETCH_SEEDS = 20


@dataclass(slots=True)
class Campaign:
    """What came of a range of seeds."""

    seeds: int = 0
    events: int = 0
    processor_s: float = 0.0
    """Of the seeds in which no branches were counted, over all cores."""
    timed_events: int = 0
    """The events of those seeds."""
    healed_in_ticks: Counter[int] = field(default_factory=Counter)
    """How many seeds were whole again so many ticks after the faults had ended."""
    fired: Counter[str] = field(default_factory=Counter)
    branches: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, Failure]] = field(default_factory=list)

    def add(self, other: "Campaign") -> None:
        """Takes the sums of another range."""
        self.seeds += other.seeds
        self.events += other.events
        self.processor_s += other.processor_s
        self.timed_events += other.timed_events
        self.healed_in_ticks.update(other.healed_in_ticks)
        self.fired.update(other.fired)
        self.branches.update(other.branches)
        self.failures += other.failures

    @property
    def events_per_s(self) -> float:
        """Events a second and core."""
        return self.timed_events / self.processor_s if self.processor_s else 0.0

    @property
    def unreached(self) -> list[str]:
        """Faults and branches that never came; see :func:`paxos_rsm.sim.coverage.unreached`."""
        return unreached(self.fired, self.branches)


def play_stretch(
    first: int, last: int, events: int, changes: Mapping[str, Any], counted_every: int = COUNTED_EVERY
) -> Campaign:
    """Plays the seeds ``first`` to ``last``, both included, in this process."""
    campaign = Campaign()
    counter = BranchCounter() if counted_every else None
    # A seed makes few cycles, and looking for them costs a tenth of the time.
    gc.collect()
    gc.disable()
    for seed in range(first, last + 1):
        if counter is not None and seed % counted_every == 0:
            with counter:
                result = run_seed(seed, events=events, changes=changes)
        else:
            began = time.process_time()
            result = run_seed(seed, events=events, changes=changes)
            campaign.processor_s += time.process_time() - began
            campaign.timed_events += result.events
        campaign.seeds += 1
        campaign.events += result.events
        campaign.fired += result.fired
        if result.healed_in_ticks:
            campaign.healed_in_ticks[result.healed_in_ticks] += 1
        if result.failure is not None:
            campaign.failures.append((seed, result.failure))
    gc.enable()
    if counter is not None:
        campaign.branches.update(counter.counts)
    return campaign


def play_campaign(
    first: int,
    count: int,
    events: int,
    *,
    jobs: int,
    changes: Mapping[str, Any] | None = None,
    failures_max: int = 10,
    counted_every: int = COUNTED_EVERY,
    progress: Callable[[Campaign], None] = lambda campaign: None,
) -> Campaign:
    """Plays ``count`` seeds from ``first`` on, in ``jobs`` processes; stops early after ``failures_max`` failures."""
    total = Campaign()
    last = first + count - 1
    stretches = iter(
        [(at, min(at + STRETCH_SEEDS - 1, last)) for at in range(first, last + 1, STRETCH_SEEDS)]
    )
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        running: set[Future[Campaign]] = set()
        while True:
            while len(running) < 2 * jobs and len(total.failures) < failures_max:
                stretch = next(stretches, None)
                if stretch is None:
                    break
                running.add(pool.submit(play_stretch, *stretch, events, dict(changes or {}), counted_every))
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                total.add(future.result())
            progress(total)
    total.failures.sort(key=lambda failure: failure[0])
    return total
