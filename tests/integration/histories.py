"""Clients at work while a test changes the cluster under them; what they saw is checked when it is over.

The clients, the history and the checks are those of ``paxos-rsm chaos``: linearizable key by key and revision by
revision, nothing acknowledged lost, nothing executed twice, the same state on all servers.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from paxos_rsm.testing.chaos.attribution import attribute
from paxos_rsm.testing.chaos.gaps import longest_gap
from paxos_rsm.testing.chaos.recorder import Recorder
from paxos_rsm.testing.chaos.verdict import Evidence, judge, read_everything
from paxos_rsm.testing.chaos.workload import Load, Rates
from paxos_rsm.testing.cluster import LocalCluster

__all__ = ["Clients", "checked_history"]

RATES = Rates(keys=60.0, transactions=10.0, counter=5.0, once=10.0, probes=40.0)
AGREED_S = 60.0
CHECK_S = 120.0
WORK_S = 60.0


class Clients:
    """What a test sees of them while they work."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def now_ms(self) -> float:
        """Since they began."""
        return self._recorder.now_ms()

    async def work(self, writes: int = 20) -> None:
        """Returns once so many more writes have been acknowledged."""
        times = self._recorder.acknowledged_ms
        wanted, deadline = len(times) + writes, time.monotonic() + WORK_S
        while len(times) < wanted:
            assert time.monotonic() < deadline, f"{wanted - len(times)} writes are missing after {WORK_S:g} s"
            await asyncio.sleep(0.02)

    def longest_gap_ms(self, since_ms: float = 0.0) -> float:
        """The longest time between two acknowledged writes."""
        return float(longest_gap(self._recorder.acknowledged_ms, since_ms, self.now_ms()).ms)


@contextlib.asynccontextmanager
async def checked_history(
    cluster: LocalCluster, directory: Path, endpoints: Sequence[str]
) -> AsyncIterator[Clients]:
    """Clients that go to any of ``endpoints``, those of servers that are yet to come among them.

    At the end of the block all servers of the cluster must run and be members; then everything is checked.
    """
    with Recorder(directory) as recorder:
        load = Load({"any": ",".join(endpoints)}, recorder, rates=RATES)
        load.start()
        try:
            yield Clients(recorder)
            await load.finish()
            states = await _agreement(cluster)
            final = await read_everything({server.name: server.endpoint for server in cluster}, recorder)
            await attribute(cluster.endpoints, load.revisions, final.revision, recorder)
        finally:
            await load.close()
        recorder.flush()
        evidence = Evidence(
            recorder.history_path, states, final, load.once_acknowledged, client_failure=load.failure
        )
        checks = await asyncio.to_thread(judge, evidence, timeout_s=CHECK_S)
    failed = [each for each in checks if each.outcome != "ok"]
    assert not failed, "\n".join(f"{each.name}: {each.told} {each.details}" for each in failed)
    assert load.once_acknowledged, "nothing was written: nothing was tested"


async def _agreement(cluster: LocalCluster) -> dict[str, tuple[int, str] | None]:
    deadline = time.monotonic() + AGREED_S
    while True:
        told = await asyncio.to_thread(cluster.statuses, digest=True)
        states = {
            name: (told[name].applied_slot, told[name].digest.hex()) if name in told else None
            for name in cluster.names
        }
        if len(set(states.values())) == 1 and None not in states.values():
            return states
        if time.monotonic() > deadline:
            return states
        await asyncio.sleep(0.1)
