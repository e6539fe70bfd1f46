"""The plan is carried out, what was begun is ended, and what must not happen is told."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from paxos_rsm.testing.chaos import nemesis as module
from paxos_rsm.testing.chaos.kinds import KINDS, NEEDS
from paxos_rsm.testing.chaos.nemesis import Nemesis
from paxos_rsm.testing.chaos.observer import DOWN, Observer
from paxos_rsm.testing.chaos.plan import Plan, PlannedFault
from paxos_rsm.testing.chaos.recorder import Recorder
from paxos_rsm.testing.cluster import LocalCluster
from paxos_rsm.testing.errors import LocalClusterError
from tests.unit.testing.chaos.fakes import FakeCluster, until


@dataclass
class Watched:
    """Stands for the observer."""

    leader: str | None = "n2"
    roles: dict[str, str] = field(
        default_factory=lambda: {"n1": "follower", "n2": "leader", "n3": "follower"}
    )


@dataclass
class Scene:
    """A nemesis and what it acts on."""

    directory: Path
    hands: ThreadPoolExecutor
    cluster: FakeCluster = field(default_factory=lambda: FakeCluster(3))
    watched: Watched = field(default_factory=Watched)

    def nemesis(
        self, *faults: tuple[str, str, float, float, int | None], missing: tuple[str, ...] = ()
    ) -> Nemesis:
        """``faults``: kind, role, start, duration, companion of."""
        planned = tuple(
            PlannedFault(number, KINDS[kind], role, start_s, duration_s, 7, companion)
            for number, (kind, role, start_s, duration_s, companion) in enumerate(faults)
        )
        plan = Plan(1, 3, max(each.end_s for each in planned) + 0.1, planned)
        self.recorder = Recorder(self.directory)
        return Nemesis(
            plan,
            cast(LocalCluster, self.cluster),
            cast(Observer, self.watched),
            self.recorder,
            self.hands,
            missing=missing,
        )


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    hands = ThreadPoolExecutor(1)
    yield Scene(tmp_path, hands)
    hands.shutdown()


async def test_faults_strike_and_are_mended(scene: Scene) -> None:
    nemesis = scene.nemesis(("leader-kill", "leader", 0.1, 0.2, None), ("restart", "leader", 0.5, 0.1, None))
    await nemesis.run()
    assert scene.cluster.done == ["kill n2", "start n2", "ask to end n2", "terminate n2", "start n2"]
    first, second = nemesis.occurrences
    assert (first.kind, first.victims, first.what) == ("leader-kill", ("n2",), "killed n2, the leader")
    assert first.begin_ms >= 100
    assert first.end_ms - first.begin_ms >= 200
    assert second.begin_ms >= 500
    assert nemesis.problems == []
    told = [event["event"] for event in scene.recorder.events]
    assert told == ["fault-begin", "fault-end"] * 2


async def test_companions_strike_in_the_time_of_the_first(scene: Scene) -> None:
    nemesis = scene.nemesis(
        ("leader-pause", "leader", 0.1, 0.4, None), ("leader-kill", "leader", 0.2, 0.1, 0)
    )
    await nemesis.run()
    assert scene.cluster.done == ["stop n2", "kill n2", "start n2", "cont n2"]
    assert all(each.combined for each in nemesis.occurrences)


async def test_what_the_machine_lacks_and_what_cannot_be_is_skipped(scene: Scene) -> None:
    nemesis = scene.nemesis(
        ("full-disk", "leader", 0.0, 0.1, None),
        ("quorum-loss", "follower", 0.0, 0.1, None),
        missing=("disk", "shim"),
    )
    original = scene.cluster.links.quorum_loss

    def refuse(hub: str) -> None:
        original(hub)
        raise LocalClusterError("the proxy is gone")

    scene.cluster.links.quorum_loss = refuse
    await nemesis.run()
    assert nemesis.skipped == {0: f"lacking on this machine: {NEEDS['disk']}", 1: "the proxy is gone"}
    assert nemesis.occurrences == []
    assert scene.cluster.done[0].startswith("links.quorum_loss")
    assert all(each.startswith("links.heal") for each in scene.cluster.done[1:])
    assert len(scene.cluster.done) > 1  # what may have been done was mended


async def test_a_server_that_ends_by_itself_is_told_once_and_started(scene: Scene) -> None:
    nemesis = scene.nemesis(("leader-pause", "leader", 0.0, 1.0, None))
    running = asyncio.create_task(nemesis.run())
    await until(lambda: "stop n2" in scene.cluster.done)
    scene.cluster["n3"].running, scene.cluster["n3"].returncode = False, 1
    scene.watched.roles["n3"] = DOWN
    await until(lambda: "start n3" in scene.cluster.done)
    scene.watched.roles["n3"] = "follower"
    await running
    assert nemesis.problems == ["n3 ended with exit code 1, and nobody had asked it to: last line"]


async def test_a_victim_of_a_kill_is_not_told(scene: Scene) -> None:
    nemesis = scene.nemesis(("all-kill", "all", 0.0, 0.3, None))
    await nemesis.run()
    assert nemesis.problems == []


async def test_a_cluster_that_does_not_recover_is_a_problem(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECOVERED_S", 0.3)
    scene.watched.leader = None
    nemesis = scene.nemesis(("all-kill", "all", 0.0, 0.1, None))
    await nemesis.run()
    assert len(nemesis.problems) == 2  # before the fault, and after it
    assert all("no server leads" in each for each in nemesis.problems)


async def test_waiting_for_recovery_shifts_what_follows(scene: Scene) -> None:
    scene.watched.roles["n1"] = DOWN
    nemesis = scene.nemesis(
        ("follower-pause", "follower", 0.0, 0.1, None), ("leader-pause", "leader", 0.2, 0.1, None)
    )
    running = asyncio.create_task(nemesis.run())
    await asyncio.sleep(0.5)
    assert nemesis.occurrences == []
    scene.watched.roles["n1"] = "follower"
    await running
    assert nemesis.behind_s >= 0.4
    first, second = nemesis.occurrences
    assert second.begin_ms - first.begin_ms >= 200


async def test_what_was_begun_is_ended_when_it_is_cancelled(scene: Scene) -> None:
    nemesis = scene.nemesis(("leader-pause", "leader", 0.0, 60.0, None))
    running = asyncio.create_task(nemesis.run())
    await until(lambda: "stop n2" in scene.cluster.done)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert scene.cluster.done == ["stop n2", "cont n2"]
