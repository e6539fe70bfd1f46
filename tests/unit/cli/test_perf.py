import json
import sys

import pytest

from paxos_rsm.cli import bench
from paxos_rsm.cli.bench import run_bench
from paxos_rsm.cli.load import Job
from paxos_rsm.cli.perf import LOADS, judge
from tests.unit.cli.helpers import ROOT, run

GOOD = {"ops_per_s": 150.0, "max_ms": 87.5, "stddev_ms": 11.0, "errors": 0, "first_error": None}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ops_per_s": 134.0}, "Throughput too low: 134 writes/s of 150"),
        ({"max_ms": 501.0}, "Slowest request took too long: 0.501000s"),
        ({"stddev_ms": 101.0}, "Stddev too high: 0.101000s"),
        ({"errors": 2, "first_error": "Unavailable: x"}, "2 requests failed; the first with Unavailable: x"),
        ({"max_ms": None}, "Slowest request took too long"),
        ({"stddev_ms": None}, "Stddev too high"),
    ],
)
def test_each_criterion_can_fail(changed: dict[str, object], words: str) -> None:
    failed = [text for met, text in judge(GOOD | changed, LOADS["s"]) if not met]
    assert len(failed) == 1
    assert failed[0].startswith(words)


def test_says_what_etcds_command_says() -> None:
    assert judge(GOOD, LOADS["s"]) == [
        (True, "Throughput is 150 writes/s"),
        (True, "Slowest request took 0.087500s"),
        (True, "Stddev is 0.011000s"),
    ]


@pytest.fixture(autouse=True)
def _fake_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load processes that tell of 100 operations a second, the n-th of which took n ms."""
    fake = ROOT / "tests" / "unit" / "cli" / "fake_load.py"
    monkeypatch.setattr(bench, "LOAD_COMMAND", (sys.executable, str(fake)))


def test_a_load_that_is_not_borne_exits_1() -> None:
    result = run("check", "perf", "--duration", "1s")
    assert result.exit_code == 1
    assert result.stdout == (
        "FAIL: Throughput too low: 100 writes/s of 150\nPASS: Slowest request took 0.100000s\n"
        "PASS: Stddev is 0.028866s\np50 50.0 ms, p90 90.0 ms, p99 99.0 ms\nFAIL\n"
    )


def test_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    async def noted(jobs: list[Job], **window: float) -> dict[str, object]:
        seen.extend(jobs)
        return await run_bench(jobs, **window)

    monkeypatch.setattr(bench, "run_bench", noted)
    shown = json.loads(run("check", "perf", "--load", "m", "--duration", "10s", "-w", "json").stdout)
    assert (shown["load"], shown["ops_per_s"], shown["pass"]) == ("m", 100.0, False)
    assert [check["pass"] for check in shown["checks"]] == [False, True, True]
    assert (seen[0].rate, seen[0].in_flight, seen[0].value_bytes) == (1000, 200, 1024)
    assert len(seen[0].key(7)) == 256
    assert seen[0].key(7).startswith(b"/paxos-rsm-check-perf/")
