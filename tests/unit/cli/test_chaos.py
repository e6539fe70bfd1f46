"""The command around a run: what it is told, what it prints, and with which code it ends."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paxos_rsm.cli import chaos as module
from paxos_rsm.cli.chaos import rates_of, repeat_command
from paxos_rsm.cli.cluster import EndedBySignal
from paxos_rsm.testing.chaos import ChaosSettings, Check, Progress, RunResult
from paxos_rsm.testing.chaos.gaps import KindFigures
from paxos_rsm.testing.chaos.kinds import KINDS
from paxos_rsm.testing.chaos.workload import Rates
from paxos_rsm.testing.errors import LocalClusterError
from tests.unit.cli.helpers import run


class Runs:
    """Stands for run_chaos: notes what it was given, and does what it is told."""

    def __init__(self) -> None:
        self.settings: list[ChaosSettings] = []
        self.checks = [Check("linearizable, key by key", "ok", "10 operations on 2 keys")]
        self.error: BaseException | None = None
        self.skipped: dict[int, str] = {}
        self.figures: list[KindFigures] = []

    def __call__(self, settings: ChaosSettings, tell: Callable[[Progress], None]) -> RunResult:
        self.settings.append(settings)
        tell(Progress("breaking things", 1.0, 30.0, "leader-kill: killed n1", 10, 1, "n1", 1))
        if self.error is not None:
            raise self.error
        return RunResult(
            settings.plan,
            "0.1",
            settings.repeat,
            "today",
            30.0,
            checks=self.checks,
            skipped=self.skipped,
            figures=self.figures,
            missing=settings.missing,
            allow_missing=settings.allow_missing,
            statuses={"ok": 10},
            directory=str(settings.out),
        )


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    made = Runs()
    monkeypatch.setattr(module, "run_chaos", made)
    monkeypatch.setattr(module, "missing_needs", tuple)
    return made


def test_a_good_run(runs: Runs) -> None:
    result = run("chaos", "--seed", "7", "--minutes", "0.5", "--servers", "3")
    assert result.exit_code == 0, result.output
    assert "linearizable: 10 operations" in result.stdout
    assert "chaos-7/report.html" in result.stdout
    assert "paxos-rsm chaos --seed 7 --servers 3 --minutes 0.5" in result.stdout
    (settings,) = runs.settings
    assert (settings.plan.seed, settings.plan.servers, settings.plan.seconds) == (7, 3, 30)
    assert settings.out == Path("chaos-7")


@pytest.mark.parametrize(
    ("outcome", "code", "words"),
    [("violation", 1, "VIOLATION: the check"), ("unknown", 4, "unknown, which is no pass")],
)
def test_a_bad_run(runs: Runs, outcome: Any, code: int, words: str) -> None:
    runs.checks.append(Check("the check", outcome, "told", ("a detail [of it]",)))
    result = run("chaos", "--seed", "7")
    assert result.exit_code == code
    assert words in result.stdout
    assert "a detail [of it]" in result.stdout


def test_what_the_machine_lacks_is_said_aloud(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "missing_needs", lambda: ("disk",))
    runs.skipped = dict.fromkeys(range(100), "this machine lacks disk")
    result = run("chaos", "--seed", "7", "--only", "full-disk", "--times", "2")
    assert result.exit_code == 4
    assert "lacking on this machine: a small file system" in " ".join(result.stderr.split())
    assert "not shown: full-disk" in result.stdout
    assert (
        run("chaos", "--seed", "7", "--only", "full-disk", "--times", "2", "--allow-missing").exit_code == 0
    )


def test_json(runs: Runs) -> None:
    result = run("chaos", "--seed", "7", "--json")
    told = json.loads(result.stdout)
    assert (told["verdict"], told["seed"], told["exit_status"]) == ("ok", 7, 0)


def test_the_plan_alone(runs: Runs) -> None:
    result = run("chaos", "--seed", "7", "--plan")
    assert result.exit_code == 0
    assert "seed 7, 5 servers, 300 s" in result.stdout
    assert all(kind in result.stdout for kind in KINDS)
    assert result.stdout == run("chaos", "--seed", "7", "--plan").stdout
    told = json.loads(run("chaos", "--seed", "7", "--plan", "--json").stdout)
    assert {fault["fault"] for fault in told["faults"]} == set(KINDS)
    assert not runs.settings


def test_a_short_plan_says_what_it_leaves_out(runs: Runs) -> None:
    assert "too short for: " in run("chaos", "--seed", "7", "--plan", "--minutes", "0.5").stdout


def test_many_gaps_of_a_kind_are_told_as_a_distribution(runs: Runs) -> None:
    gaps_ms = (*range(100, 110), 390.0)
    runs.figures = [KindFigures("leader-kill", gaps_ms, gaps_ms, 1, 0.0)]
    told = " ".join(run("chaos", "--seed", "7").stdout.split())
    assert "leader-kill, 11 times: shortest 100, p10 101, p50 105, p90 109, p99 390, longest 390 ms" in told
    assert "100 to 150 ms 10 ████" in told
    assert "350 to 400 ms 1 ████" in told


def test_interrupted(runs: Runs) -> None:
    runs.error = EndedBySignal()
    result = run("chaos", "--seed", "7")
    assert result.exit_code == 5
    assert "interrupted" in result.stderr


def test_a_cluster_that_does_not_start(runs: Runs) -> None:
    runs.error = LocalClusterError("no leader within 60 s\n  n1| why")
    result = run("chaos", "--seed", "7", "--out", "somewhere")
    assert result.exit_code == 1
    assert "no leader within 60 s: why; the servers' logs are in somewhere" in result.stderr


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("--only", "meteor"), "there is no fault 'meteor'"),
        (("--only", "quorum-loss", "--servers", "3"), "needs 5 servers"),
        (("--servers", "4"), "'4' is not one of"),
        (("--minutes", "0.05"), "too short for a single fault"),
        (("--minutes", "0"), "0"),
        (("--times", "0"), "0"),
    ],
)
def test_bad_usage(runs: Runs, line: tuple[str, ...], words: str) -> None:
    result = run("chaos", *line)
    assert result.exit_code == 128
    assert words in result.stderr
    assert not runs.settings


def test_without_a_seed_one_is_drawn_and_told(runs: Runs) -> None:
    first, second = run("chaos"), run("chaos")
    seeds = [settings.plan.seed for settings in runs.settings]
    assert seeds[0] != seeds[1]
    assert f"--seed {seeds[0]}" in first.stdout
    assert f"--seed {seeds[1]}" in second.stdout


def test_the_command_that_repeats_it() -> None:
    assert repeat_command(7, 5, 5, (), None, None) == "paxos-rsm chaos --seed 7 --servers 5 --minutes 5"
    assert repeat_command(7, 5, 3, ("restart", "all-kill"), 50, 100) == (
        "paxos-rsm chaos --seed 7 --servers 3 --only restart --only all-kill --times 50 --rate 100"
    )


def test_another_rate_keeps_the_mix_and_the_probes() -> None:
    usual, double = Rates(), rates_of(620, 300)
    assert rates_of(None, 300) == usual
    assert double.keys == 2 * usual.keys
    assert double.keys + double.transactions + double.counter + double.once == 620
    assert double.probes == usual.probes


def test_a_long_run_has_as_much_work_as_one_of_a_quarter_of_an_hour() -> None:
    usual, hour = Rates(), rates_of(None, 3_600)
    assert hour.keys * 3_600 == usual.keys * 900
    assert hour.probes == 0.4 * usual.probes
    assert rates_of(310, 3_600).keys == usual.keys


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--minutes", "nan", "nan is not in the range 0<x<=1440"),
        ("--minutes", "inf", "inf is not in the range 0<x<=1440"),
        ("--minutes", "1e9", "1000000000.0 is not in the range 0<x<=1440"),
        ("--minutes", "-1", "-1.0 is not in the range 0<x<=1440"),
        ("--rate", "nan", "nan is not in the range 10<=x<=20000"),
        ("--times", "1000000000", "1000000000 is not in the range 1<=x<=10000"),
    ],
)
def test_what_would_never_end_is_refused(runs: Runs, option: str, value: str, words: str) -> None:
    result = run("chaos", "--seed", "7", option, value)
    assert result.exit_code == 128
    assert words in result.stderr
    assert not runs.settings
