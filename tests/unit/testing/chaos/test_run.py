"""What a run does around its parts; the whole of it, on real servers, is tests/integration/test_chaos.py."""

import tempfile
from pathlib import Path
from typing import Any, NoReturn

import pytest

from paxos_rsm.testing.chaos import run as module
from paxos_rsm.testing.chaos.gaps import Gap
from paxos_rsm.testing.chaos.observer import Observer
from paxos_rsm.testing.chaos.plan import draw_plan
from paxos_rsm.testing.chaos.recorder import Recorder
from paxos_rsm.testing.chaos.run import ChaosSettings, measured, missing_needs, new_cluster, run_chaos
from paxos_rsm.testing.disks import SmallDisk
from paxos_rsm.testing.errors import FaultUnavailable, LocalClusterError
from tests.unit.testing.chaos.samples import occurrences


def refuse(*_: object) -> NoReturn:
    raise FaultUnavailable("not here")


def test_what_is_missing_is_tried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SmallDisk, "mount", refuse)
    monkeypatch.setattr(module, "preload_library", refuse)
    assert missing_needs() == ("disk", "shim")
    monkeypatch.setattr(SmallDisk, "mount", lambda disk: None)
    monkeypatch.setattr(module, "preload_library", lambda: Path("x"))
    assert missing_needs() == ()


def settings(out: Path, **other: Any) -> ChaosSettings:
    return ChaosSettings(draw_plan(1, servers=3, minutes=0.5), out, "paxos-rsm chaos", **other)


def test_a_cluster_has_what_the_machine_can_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {}

    def cluster(size: int, **given: Any) -> str:
        made.update(given, size=size)
        return "the cluster"

    monkeypatch.setattr(module, "LocalCluster", cluster)
    new_cluster(settings(tmp_path), tmp_path)
    assert made["size"] == 3
    assert (made["proxied"], made["shim"]) == (True, True)
    assert made["disk_bytes"] > 30 * module.DISK_BYTES_PER_S
    new_cluster(settings(tmp_path, missing=("disk", "shim")), tmp_path)
    assert (made["proxied"], made["shim"], made["disk_bytes"]) == (True, False, None)


class Failing:
    """A cluster that does not start."""

    def __init__(self, directory: Path, error: BaseException) -> None:
        self.closed = False
        self._directory, self._error = directory, error

    def start(self, timeout_s: float) -> None:
        (self._directory / "n1.log").write_text("why it did not start")
        raise self._error

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    "error", [LocalClusterError("no leader"), KeyboardInterrupt()], ids=["error", "ctrl-c"]
)
def test_whatever_happens_nothing_is_left_behind_but_the_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made: list[Failing] = []

    def cluster(_: ChaosSettings, directory: Path) -> Failing:
        made.append(Failing(directory, error))
        return made[0]

    monkeypatch.setattr(module, "new_cluster", cluster)
    with pytest.raises(type(error)):
        run_chaos(settings(tmp_path / "out"))
    assert made[0].closed
    assert (tmp_path / "out" / "n1.log").read_text() == "why it did not start"
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


def test_what_each_fault_cost(tmp_path: Path) -> None:
    found = occurrences(2)  # at 10 to 12 s and at 20 to 22 s
    with Recorder(tmp_path) as recorder:
        recorder.acknowledged_ms.extend(range(0, 10_000, 10))
        recorder.acknowledged_ms.extend(range(10_400, 14_000, 10))
        recorder.acknowledged_ms.extend(range(14_900, 30_000, 10))
        observer = Observer({}, recorder)
        observer.leader_changes = [10_300.0, 21_000.0, 29_000.0]
        observer.stalls = [(14_500.0, 44.0)]
        first, second = measured(list(reversed(found)), recorder, observer, 26_000.0)
    assert first.gap == Gap(13_990.0, 14_900.0)
    assert first.held_gap_ms == 410.0
    assert (first.leader_changes, first.stall_ms, first.window_end_ms) == (1, 44.0, 17_000.0)
    assert second.gap is not None
    assert second.gap.ms == 10.0
    assert second.leader_changes == 1
    assert second.window_end_ms == 26_000.0  # the end of the run


def test_a_window_ends_where_the_next_fault_begins(tmp_path: Path) -> None:
    first, second = occurrences(2)
    second.begin_ms, second.end_ms = 14_000.0, 15_000.0
    with Recorder(tmp_path) as recorder:
        (early, _) = measured([first, second], recorder, Observer({}, recorder), 60_000.0)
    assert early.window_end_ms == 14_000.0
