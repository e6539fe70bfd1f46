"""What is seen goes to disk as it happens, and only figures stay in memory."""

import json
from pathlib import Path

import pytest

from paxos_rsm.checker import read_history
from paxos_rsm.testing.chaos import recorder as module
from paxos_rsm.testing.chaos.recorder import Latencies, Recorder


class Clock:
    """Stands for time.monotonic, in seconds."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def test_operations_are_lines_that_the_checker_reads(tmp_path: Path, clock: Clock) -> None:
    with Recorder(tmp_path) as recorder:
        clock.now += 0.020
        call_ms = recorder.now_ms()
        clock.now += 0.005
        recorder.operation(1, "put", "a", "v1", {"revision": 2}, call_ms, write=True)
        recorder.operation(2, "get", "a", None, {"value": "v1"}, call_ms)
        recorder.operation(3, "put", "b", "v2", "left out", call_ms, status="unknown", write=True)
        recorder.operation(4, "put", "c", "v3", None, call_ms, status="fail", write=True)
    first, second, third, fourth = read_history(recorder.history_path)
    assert (first.process, first.op, first.key, first.input, first.output) == (
        1,
        "put",
        "a",
        "v1",
        {"revision": 2},
    )
    assert (first.call, first.return_, first.status) == (20.0, 25.0, "ok")
    assert second.output == {"value": "v1"}
    assert (third.status, third.return_, third.output) == ("unknown", None, None)
    assert (fourth.status, fourth.return_) == ("fail", 25.0)
    assert dict(recorder.statuses) == {"ok": 2, "unknown": 1, "fail": 1}
    # Only what was acknowledged is counted, and only writes make the times from which gaps are read.
    assert list(recorder.acknowledged_ms) == [25.0]
    assert {op: found.count for op, found in recorder.latencies.items()} == {"put": 1, "get": 1}


def test_seconds_are_closed_as_they_pass(tmp_path: Path, clock: Clock) -> None:
    with Recorder(tmp_path) as recorder:
        recorder.operation(1, "put", "a", "v", None, 0.0, write=True)
        clock.now += 0.5
        recorder.operation(1, "get", "a", None, None, 490.0)
        clock.now += 2.0  # a whole second without anything
        recorder.operation(1, "put", "a", "v", None, 2_400.0, write=True)
    assert [second[:2] for second in recorder.seconds] == [(1, 1), (0, 0)]
    assert recorder.seconds[1][2:] == (None, None)
    median_ms = recorder.seconds[0][2]
    assert median_ms is not None
    assert median_ms < 1


def test_events_are_on_disk_at_once(tmp_path: Path, clock: Clock) -> None:
    recorder = Recorder(tmp_path)
    clock.now += 1
    assert recorder.event("leader", server="n1") == 1_000.0
    assert recorder.event("fault-begin", at_ms=900.0, number=0) == 900.0
    lines = [json.loads(line) for line in recorder.events_path.read_text().splitlines()]
    assert lines == [
        {"t": 1_000.0, "event": "leader", "server": "n1"},
        {"t": 900.0, "event": "fault-begin", "number": 0},
    ]
    assert [event["server"] for event in recorder.of("leader")] == ["n1"]
    recorder.close()
    recorder.close()


def test_events_in_memory_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVENTS_KEPT_MAX", 2)
    with Recorder(tmp_path) as recorder:
        for number in range(5):
            recorder.event("role", number=number)
    assert len(recorder.events) == 2
    assert len(recorder.events_path.read_text().splitlines()) == 5


def test_percentiles_are_right_to_a_tenth() -> None:
    latencies = Latencies()
    assert latencies.percentile_ms(50) is None
    for number in range(1, 1_001):
        latencies.note(number / 10)
    for percent, right in ((50, 50.0), (90, 90.0), (99, 99.0)):
        told = latencies.percentile_ms(percent)
        assert told is not None
        assert right <= told <= right * 1.1
    assert latencies.percentile_ms(100) == latencies.max_ms == 100.0
    latencies.note(0.0)
    assert latencies.count == 1_001
