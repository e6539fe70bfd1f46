"""A whole run: a cluster, clients, the nemesis, and the verdict. ``paxos-rsm chaos`` is this with a terminal around it.

::

    cluster.start ─► clients start ─► nemesis carries out the plan ─► everything mended ─► clients finish
         ─► all servers at one state? ─► read every key ─► check the history ─► report

Bounded: history and events go to disk as they happen. What is kept grows by 8 bytes for each acknowledged write and by
a line for each fault.

However it ends (an error, Ctrl-C), no server, no proxy and no mounted disk is left behind: the cluster is closed by
whoever called, in :func:`run_chaos`. The servers' data goes with it; their logs stay in the output directory.
"""

import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from paxos_rsm._version import __version__
from paxos_rsm.errors import ClientError
from paxos_rsm.testing.chaos.attribution import attribute
from paxos_rsm.testing.chaos.gaps import Occurrence, calm_gap_ms, figures, longest_gap
from paxos_rsm.testing.chaos.nemesis import Nemesis
from paxos_rsm.testing.chaos.observer import Observer
from paxos_rsm.testing.chaos.outcome import Check, RunResult
from paxos_rsm.testing.chaos.plan import FIRST_AT_S, RECOVERY_S, Plan
from paxos_rsm.testing.chaos.recorder import Recorder
from paxos_rsm.testing.chaos.report import render
from paxos_rsm.testing.chaos.verdict import Evidence, Final, judge, read_everything
from paxos_rsm.testing.chaos.workload import Load, Rates
from paxos_rsm.testing.cluster import LocalCluster
from paxos_rsm.testing.disks import SmallDisk
from paxos_rsm.testing.errors import FaultUnavailable
from paxos_rsm.testing.shim import preload_library

__all__ = ["ChaosSettings", "Progress", "missing_needs", "new_cluster", "run_chaos"]

START_S = 60.0
AGREED_S = 60.0
POLL_S = 0.2
DISK_BYTES = 256 << 20
DISK_BYTES_PER_S = 400_000
"""Room for what the clients write, several times over: only a fault may fill a disk."""
SEGMENT_BYTES = 64 << 10
"""What a log takes from its disk at a time: little, so that a full disk is felt within seconds, while clients write."""
PROGRESS_S = 0.2


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is."""

    phase: str
    done_s: float
    total_s: float
    doing: str = ""
    acknowledged: int = 0
    unknown: int = 0
    leader: str | None = None
    problems: int = 0


@dataclass(frozen=True, slots=True)
class ChaosSettings:
    """How to run a plan."""

    plan: Plan
    out: Path
    repeat: str
    """The command that draws the same plan."""
    rates: Rates = field(default_factory=Rates)
    allow_missing: bool = False
    check_timeout_s: float = 300.0
    missing: tuple[str, ...] = ()
    """What this machine lacks: see :func:`missing_needs`."""


def missing_needs() -> tuple[str, ...]:
    """What faults need and this machine cannot give (see kinds.py): tried out, not guessed."""
    found = []
    with tempfile.TemporaryDirectory(prefix="paxos-rsm-") as directory:
        disk = SmallDisk(Path(directory) / "disk", 1 << 20)
        try:
            disk.mount()
        except FaultUnavailable:
            found.append("disk")
        finally:
            disk.unmount()
    try:
        preload_library()
    except FaultUnavailable:
        found.append("shim")
    return tuple(found)


def new_cluster(settings: ChaosSettings, directory: Path) -> LocalCluster:
    """The cluster that a plan needs, as far as this machine can give it; not started."""
    missing = settings.missing
    disk_bytes = DISK_BYTES + round(settings.plan.seconds * DISK_BYTES_PER_S)
    return LocalCluster(
        settings.plan.servers,
        directory=directory,
        proxied="links" not in missing,
        shim="shim" not in missing,
        disk_bytes=None if "disk" in missing else disk_bytes,
        options={"log-segment-bytes": SEGMENT_BYTES},
    )


def run_chaos(settings: ChaosSettings, tell: Callable[[Progress], None] = lambda _: None) -> RunResult:
    """Runs the plan and judges it; writes report.html, result.json and the servers' logs beside the history.

    Raises LocalClusterError where the cluster does not even start. On any exception, KeyboardInterrupt included,
    everything that was started has been ended when it comes out.
    """
    settings.out.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="paxos-rsm-chaos-"))
    hands = ThreadPoolExecutor(1, thread_name_prefix="nemesis")
    cluster: LocalCluster | None = None
    try:
        tell(Progress("starting the servers", 0, 0))
        cluster = new_cluster(settings, scratch)
        cluster.start(timeout_s=START_S)
        with Recorder(settings.out) as recorder:
            run = _Run(settings, cluster, recorder, hands, tell)
            evidence = asyncio.run(run.run())
    finally:
        hands.shutdown(wait=True, cancel_futures=True)
        if cluster is not None:
            cluster.close()
        for log in scratch.glob("*.log"):
            shutil.copy(log, settings.out / log.name)
        shutil.rmtree(scratch, ignore_errors=True)
    # The servers are gone by now: the checker has the processor to itself.
    tell(Progress("checking the history", 0, 0))
    result = run.result(judge(evidence, timeout_s=settings.check_timeout_s))
    result.directory = str(settings.out)
    (settings.out / "report.html").write_text(render(result), encoding="utf-8")
    (settings.out / "result.json").write_text(json.dumps(result.to_json(), indent=1) + "\n", encoding="utf-8")
    return result


class _Run:
    """The part that lives in an event loop."""

    def __init__(
        self,
        settings: ChaosSettings,
        cluster: LocalCluster,
        recorder: Recorder,
        hands: ThreadPoolExecutor,
        tell: Callable[[Progress], None],
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._recorder = recorder
        self._tell = tell
        self._phase = "breaking things"
        self._over_ms = 0.0
        self._began = time.strftime("%Y-%m-%d %H:%M:%S")
        endpoints = {server.name: server.endpoint for server in cluster}
        self._endpoints = endpoints
        self._observer = Observer({server.name: server.direct_endpoint for server in cluster}, recorder)
        self._load = Load(endpoints, recorder, seed=settings.plan.seed, rates=settings.rates)
        self._nemesis = Nemesis(
            settings.plan, cluster, self._observer, recorder, hands, missing=settings.missing
        )

    async def run(self) -> Evidence:
        """Everything up to the verdict: what that is made of."""
        reporter = asyncio.create_task(self._report_progress())
        try:
            self._observer.start()
            self._load.start()
            await self._nemesis.run()
            self._over_ms = self._recorder.now_ms()
            self._phase = "waiting for the last answers"
            failure = await self._finish_load()
            self._phase = "waiting for all servers to agree"
            states = await self._agreement()
            self._phase = "reading what there is"
            return await self._gather(failure, states)
        finally:
            await self._nemesis.mend()
            await self._load.close()
            await self._observer.close()
            reporter.cancel()
            await asyncio.gather(reporter, return_exceptions=True)

    async def _finish_load(self) -> BaseException | None:
        try:
            await self._load.finish()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            return error
        return None

    async def _agreement(self) -> dict[str, tuple[int, str] | None]:
        """Applied slot and digest of every server, once all are the same or time is up."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + AGREED_S
        while True:
            states = await self._observer.states()
            if len(set(states.values())) == 1 and None not in states.values():
                return states
            told = [state for state in states.values() if state is not None]
            # At one slot with different states: that never mends itself.
            diverged = len(set(told)) > len({slot for slot, _ in told})
            if diverged or loop.time() > deadline:
                return states
            await asyncio.sleep(POLL_S)

    async def _gather(
        self, failure: BaseException | None, states: dict[str, tuple[int, str] | None]
    ) -> Evidence:
        found: Final | None = None
        try:
            found = await read_everything(self._endpoints, self._recorder)
            endpoints = list(self._endpoints.values())
            await attribute(endpoints, self._load.revisions, found.revision, self._recorder)
        except ClientError as error:
            # Nothing is broken any more: a store that does not answer now has failed.
            self._nemesis.problems.append(f"after everything was mended, a read failed: {error}")
        self._recorder.flush()
        return Evidence(
            history=self._recorder.history_path,
            states=states,
            final=found,
            once_acknowledged=self._load.once_acknowledged,
            problems=list(self._nemesis.problems),
            client_failure=failure,
        )

    async def _report_progress(self) -> None:
        while True:
            statuses = self._recorder.statuses
            self._tell(
                Progress(
                    self._phase,
                    self._recorder.now_ms() / 1e3,
                    self._settings.plan.seconds + self._nemesis.behind_s,
                    self._nemesis.doing,
                    statuses["ok"],
                    statuses["unknown"],
                    self._observer.leader,
                    len(self._nemesis.problems),
                )
            )
            await asyncio.sleep(PROGRESS_S)

    def result(self, checks: Sequence[Check]) -> RunResult:
        """The whole of it, with these checks."""
        recorder, nemesis, observer, over_ms = self._recorder, self._nemesis, self._observer, self._over_ms
        occurrences = measured(nemesis.occurrences, recorder, observer, over_ms)
        windows = [(each.begin_ms, each.window_end_ms) for each in occurrences]
        latencies = {
            op: {
                "count": found.count,
                **{f"p{percent}_ms": found.percentile_ms(percent) for percent in (50, 90, 99)},
                "max_ms": found.max_ms,
            }
            for op, found in sorted(recorder.latencies.items())
        }
        return RunResult(
            plan=self._settings.plan,
            version=__version__,
            repeat=self._settings.repeat,
            began=self._began,
            ran_s=over_ms / 1e3,
            checks=list(checks),
            occurrences=occurrences,
            skipped=dict(nemesis.skipped),
            missing=self._settings.missing,
            allow_missing=self._settings.allow_missing,
            figures=figures(occurrences),
            calm_gap_ms=calm_gap_ms(recorder.acknowledged_ms, [(0, FIRST_AT_S * 500), *windows], over_ms),
            behind_s=nemesis.behind_s,
            leader_changes=len(observer.leader_changes),
            seconds=[second for index, second in enumerate(recorder.seconds) if index * 1e3 < over_ms],
            latencies=latencies,
            statuses=dict(recorder.statuses),
            errors=dict(recorder.errors),
            events=recorder.events,
        )


def measured(
    occurrences: Sequence[Occurrence], recorder: Recorder, observer: Observer, over_ms: float
) -> list[Occurrence]:
    """The same, in order, each with its window and what it cost."""
    ordered = sorted(occurrences, key=lambda each: each.begin_ms)
    times_ms = recorder.acknowledged_ms
    found = []
    for index, each in enumerate(ordered):
        later = [other.begin_ms for other in ordered[index + 1 :] if other.begin_ms > each.end_ms]
        until_ms = min([each.end_ms + RECOVERY_S * 1e3, over_ms, *later])
        gap = longest_gap(times_ms, each.begin_ms, until_ms, over_ms)
        held = longest_gap(times_ms, each.begin_ms, min(each.end_ms, until_ms), over_ms)
        found.append(
            replace(
                each,
                window_end_ms=until_ms,
                gap=gap,
                held_gap_ms=held.ms,
                leader_changes=observer.changes_within(each.begin_ms, until_ms),
                stall_ms=observer.longest_stall_ms(each.begin_ms, until_ms),
            )
        )
    return found
