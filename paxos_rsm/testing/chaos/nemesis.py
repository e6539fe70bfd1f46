"""Carries out the plan: strikes when it is time, mends, and watches over servers that end without having been asked to.

The plan's faults come in groups, a fault and its companions. A group begins when its time has come *and* somebody leads
*and* every server runs; so a run may fall behind its plan, and says by how much, but never strikes a cluster that has
not recovered. One that does not recover within :data:`RECOVERED_S` is itself a finding: nothing is broken any more, and
it must go on.

Everything that is done to the cluster is done by one thread of its own, in turn: the event loop with the clients never
waits for a process to end.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from paxos_rsm.testing.chaos.faults import Fault, FaultImpossible, make_fault
from paxos_rsm.testing.chaos.gaps import Occurrence
from paxos_rsm.testing.chaos.kinds import NEEDS
from paxos_rsm.testing.chaos.observer import DOWN, Observer
from paxos_rsm.testing.chaos.plan import RECOVERY_S, Plan, PlannedFault
from paxos_rsm.testing.chaos.recorder import Recorder
from paxos_rsm.testing.cluster import LocalCluster
from paxos_rsm.testing.errors import FaultUnavailable, LocalClusterError

__all__ = ["RECOVERED_S", "Nemesis"]

RECOVERED_S = 60.0
RECOVERED_SHARE = 0.05
"""More than that, as a share of how long the run has been: a server that starts reads its whole log."""
STEP_S = 0.05
LOOK_S = 0.1

T = TypeVar("T")


class Nemesis:
    """One plan against one cluster. ``missing`` are the needs (see kinds.py) that this machine cannot meet."""

    def __init__(
        self,
        plan: Plan,
        cluster: LocalCluster,
        observer: Observer,
        recorder: Recorder,
        hands: ThreadPoolExecutor,
        missing: Sequence[str] = (),
    ) -> None:
        self.plan = plan
        self.occurrences: list[Occurrence] = []
        self.problems: list[str] = []
        """What must never happen, each as a sentence: a server that ends by itself, a cluster that does not recover."""
        self.skipped: dict[int, str] = {}
        """Planned faults that were not done, and why."""
        self.doing = ""
        """What goes on just now, for a progress bar."""
        self.behind_s = 0.0
        self._cluster = cluster
        self._observer = observer
        self._recorder = recorder
        self._hands = hands
        self._missing = set(missing)
        self._active: dict[int, Fault] = {}
        self._excused: set[int] = set()
        """Processes that may end: a fault has seen to it."""

    async def run(self) -> None:
        """Until the plan is through. Whatever was begun is ended, also where this is cancelled."""
        try:
            for group in _groups(self.plan.faults):
                await self._wait_until(group[0].start_s + self.behind_s)
                late_s = await self._until_recovered()
                self.behind_s += late_s
                shift_s = self.behind_s
                async with asyncio.TaskGroup() as tasks:
                    for planned in group:
                        tasks.create_task(self._strike(planned, shift_s))
            await self._wait_until(self.plan.seconds + self.behind_s)
            self.doing = ""
            await self._until_recovered()
        finally:
            await self.mend()

    async def mend(self) -> None:
        """Ends every fault that still lasts."""
        for number, fault in list(self._active.items()):
            self._active.pop(number, None)
            with contextlib.suppress(LocalClusterError, RuntimeError):
                await self._do(fault.end)

    # ---- one fault -----------------------------------------------------------------------------------------

    async def _strike(self, planned: PlannedFault, shift_s: float) -> None:
        await self._wait_until(planned.start_s + shift_s)
        kind = planned.kind
        lacking = self._missing.intersection(kind.needs)
        if lacking:
            self._skip(
                planned, f"lacking on this machine: {', '.join(NEEDS[need] for need in sorted(lacking))}"
            )
            return
        try:
            fault = make_fault(planned, self._cluster, self._observer.leader)
            self._active[planned.number] = fault
            self._excuse(fault)
            begin_ms = self._recorder.now_ms()
            what = await self._do(fault.begin)
        except (FaultImpossible, LocalClusterError) as error:
            failed = self._active.pop(planned.number, None)
            if failed is not None and not isinstance(error, FaultImpossible | FaultUnavailable):
                with contextlib.suppress(LocalClusterError):
                    await self._do(failed.end)  # some of it may have been done
            self._skip(planned, error.headline if isinstance(error, LocalClusterError) else str(error))
            return
        self._recorder.event(
            "fault-begin",
            at_ms=begin_ms,
            number=planned.number,
            kind=kind.name,
            victims=list(fault.victims),
            what=what,
        )
        self.doing = f"{kind.name}: {what}"
        await self._hold(fault, begin_ms + planned.duration_s * 1e3, begin_ms)
        end_ms = self._recorder.now_ms()
        await self._end(planned, fault)
        self._recorder.event("fault-end", at_ms=end_ms, number=planned.number, kind=kind.name)
        self.occurrences.append(
            Occurrence(
                planned.number,
                kind.name,
                begin_ms,
                end_ms,
                fault.victims,
                what,
                combined=self.plan.combined(planned.number),
            )
        )
        self.doing = f"after {kind.name}"

    async def _hold(self, fault: Fault, until_ms: float, begin_ms: float) -> None:
        while (left_ms := until_ms - self._recorder.now_ms()) > 0:
            await asyncio.sleep(min(STEP_S, left_ms / 1e3))
            with contextlib.suppress(LocalClusterError):
                await self._do(fault.step, (self._recorder.now_ms() - begin_ms) / 1e3)
            self._note_ended()

    async def _end(self, planned: PlannedFault, fault: Fault) -> None:
        self._excuse(fault)
        try:
            await self._do(fault.end)
        except LocalClusterError as error:
            self._problem(f"{planned.kind.name} could not be mended: {error.headline}")
        finally:
            self._active.pop(planned.number, None)
        for what in fault.problems:
            self._problem(what)

    def _skip(self, planned: PlannedFault, why: str) -> None:
        self.skipped[planned.number] = why
        self._recorder.event("fault-skipped", number=planned.number, kind=planned.kind.name, why=why)

    # ---- watching over it ----------------------------------------------------------------------------------

    async def _wait_until(self, at_s: float) -> None:
        while (left_s := at_s - self._recorder.now_ms() / 1e3) > 0:
            await asyncio.sleep(min(LOOK_S, left_s))
            self._note_ended()

    async def _until_recovered(self) -> float:
        """Waits for a leader and for all servers to answer; gives how long, in seconds, that took."""
        began_ms = self._recorder.now_ms()
        while True:
            self._note_ended()
            waited_s = (self._recorder.now_ms() - began_ms) / 1e3
            down = [name for name, role in self._observer.roles.items() if role == DOWN]
            if self._observer.leader is not None and not down:
                return waited_s if waited_s >= LOOK_S else 0.0
            if waited_s >= RECOVERED_S + RECOVERED_SHARE * began_ms / 1e3:
                state = (
                    "no server leads"
                    if self._observer.leader is None
                    else f"{', '.join(down)} does not answer"
                )
                self._problem(f"{waited_s + RECOVERY_S:.0f} s after everything was mended, {state}")
                return waited_s
            await asyncio.sleep(LOOK_S)
            for server in self._cluster:
                if not server.running:
                    with contextlib.suppress(LocalClusterError):
                        await self._do(server.start)

    def _excuse(self, fault: Fault) -> None:
        if fault.ends_servers:
            self._excused.update(pid for name in fault.victims if (pid := self._cluster[name].pid))

    def _note_ended(self) -> None:
        """A server that has ended, and that no fault may have ended, is a finding."""
        for fault in self._active.values():
            self._excuse(fault)
        for server in self._cluster:
            if not server.running and server.pid is not None and server.pid not in self._excused:
                self._excused.add(server.pid)  # told once
                last = "".join(f": {line}" for line in server.log().splitlines()[-1:])
                self._problem(f"{server.name} {server.describe_end()}, and nobody had asked it to{last}")

    def _problem(self, what: str) -> None:
        self.problems.append(what)
        self._recorder.event("problem", what=what)

    async def _do(self, action: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._hands, action, *arguments)


def _groups(faults: Sequence[PlannedFault]) -> list[list[PlannedFault]]:
    """Each fault with its companions."""
    found = itertools.groupby(
        faults, key=lambda fault: fault.number if fault.companion_of is None else fault.companion_of
    )
    return [list(group) for _, group in found]
