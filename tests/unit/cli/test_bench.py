import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paxos_rsm.cli import bench
from paxos_rsm.cli.bench import plan
from paxos_rsm.cli.load import Job
from paxos_rsm.cli.options import Settings
from tests.unit.cli.helpers import ROOT, command, own_environment, run

FAKE_LOAD = (sys.executable, str(Path(__file__).with_name("fake_load.py")))


@pytest.fixture(autouse=True)
def loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Client processes that only tell what they would have counted."""
    monkeypatch.setattr(bench, "LOAD_COMMAND", FAKE_LOAD)


def jobs(**options: object) -> list[Job]:
    given = {
        "in_flight": 10,
        "clients": 3,
        "keys": 100,
        "value_bytes": 200,
        "rate": 30.0,
        "serializable": False,
    }
    return plan(Settings(), str(options.pop("kind", "write")), **{**given, **options})  # type: ignore[arg-type]


def test_operations_in_flight_and_rate_are_shared_evenly() -> None:
    planned = jobs()
    assert [job.in_flight for job in planned] == [4, 3, 3]
    assert [job.rate for job in planned] == [10, 10, 10]
    assert [job.first_key for job in planned] == [0, 33, 66]
    assert len({job.prefix for job in planned}) == 1
    assert jobs()[0].prefix != planned[0].prefix


def test_readers_fill_every_key_once() -> None:
    assert [job.fill for job in jobs()] == [(), (), ()]
    numbers = [n for job in jobs(kind="read") for n in range(job.fill[0], job.keys, job.fill[1])]
    assert sorted(numbers) == list(range(100))


def test_a_job_fits_on_a_command_line() -> None:
    assert len(jobs(keys=10_000_000, kind="read")[0].to_json()) < 1000


def test_result_as_json() -> None:
    result = run("bench", "write", "--in-flight", "4", "--clients", "2", "--duration", "2s", "-w", "json")
    assert result.exit_code == 0, result.stderr
    shown = json.loads(result.stdout)
    figures = {
        "ops_per_s": 200.0,
        "p50_ms": 50.0,
        "p90_ms": 90.0,
        "p99_ms": 99.0,
        "max_ms": 100.0,
        "errors": 0,
    }
    assert {name: shown[name] for name in figures} == figures
    chosen = {
        "kind": "write",
        "in_flight": 4,
        "clients": 2,
        "value_bytes": 200,
        "duration_s": 2.0,
        "warm_up_s": 1.0,
    }
    assert {name: shown[name] for name in chosen} == chosen


def test_result_for_a_person() -> None:
    lines = run("bench", "read", "--serializable").stdout.splitlines()
    assert lines[0].split() == ["ops_per_s", "100.0"]
    assert ["p50_ms", "50.000"] in [line.split() for line in lines]
    assert "p99_ms" in run("bench", "read", "-w", "table").stdout


def test_options_from_the_environment() -> None:
    shown = json.loads(run("bench", "write", "-w", "json", env={"PAXOS_RSM_BENCH_IN_FLIGHT": "9"}).stdout)
    assert shown["in_flight"] == 9


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--clients", "2"], "--clients 2 need at least as much --in-flight, not 1"),
        (["--serializable"], "--serializable is for `bench read`"),
        (["--in-flight", "0"], "--in-flight"),
        (["--duration", "soon"], "--duration"),
    ],
)
def test_what_makes_no_sense_is_bad_usage(line: list[str], words: str) -> None:
    result = run("bench", "write", *line)
    assert result.exit_code == 128
    assert words in result.stderr


@pytest.mark.parametrize(
    ("endpoint", "code", "words"),
    [
        ("fails:1", 2, "no server could be reached"),
        ("dies:1", 1, "a client process ended without a result"),
        ("refuses:1", 1, "no operation succeeded; the first failed with Unavailable: no leader"),
    ],
)
def test_what_goes_wrong(endpoint: str, code: int, words: str) -> None:
    result = run("bench", "write", "--endpoints", endpoint)
    assert result.exit_code == code
    assert words in result.stderr


def test_interrupted_it_leaves_no_process_behind(tmp_path: Path) -> None:
    """The load processes would wait for ever; they note their numbers so that they can be looked for."""
    pids = tmp_path / "pids"
    script = tmp_path / "load.py"
    script.write_text(
        f"import os\nopen({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n')\n" + Path(FAKE_LOAD[1]).read_text()
    )
    code = f"from paxos_rsm.cli import bench\nbench.LOAD_COMMAND = ({sys.executable!r}, {str(script)!r})"
    line = command(
        "bench", "write", "--in-flight", "2", "--clients", "2", "--endpoints", "hangs:1", code=code
    )
    with subprocess.Popen(line, stderr=subprocess.PIPE, cwd=ROOT, env=own_environment()) as process:
        deadline = time.monotonic() + 60
        while not pids.exists() or len(pids.read_text().splitlines()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 5
        assert process.stderr is not None
        assert process.stderr.read().strip() == b"Error: interrupted"
    for pid in pids.read_text().split():
        while True:
            try:
                os.kill(int(pid), 0)
            except ProcessLookupError:
                break
            assert time.monotonic() < deadline
            time.sleep(0.02)
