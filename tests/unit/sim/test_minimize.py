"""A planted failure is made smaller, fails by the same rule, and can be kept."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from paxos_rsm._version import __version__
from paxos_rsm.errors import ConfigError
from paxos_rsm.sim import minimize as minimize_module
from paxos_rsm.sim.failure import Broken, Failure, Result
from paxos_rsm.sim.minimize import QUIET, Pinned, minimize, pin, read_pin
from paxos_rsm.sim.simulation import HEALING_EVENTS, Simulation, run_seed
from paxos_rsm.sim.workload import KvWorkload
from paxos_rsm.sim.world import FAULTS, World

COMMANDS = 25


@pytest.fixture
def bug(monkeypatch: pytest.MonkeyPatch) -> None:
    """The 25th command that is executed is executed wrongly, in every run."""
    executed = KvWorkload.executed

    def broken(workload: KvWorkload, command: bytes, result: object) -> None:
        executed(workload, command, result)
        count = workload.__dict__["count"] = workload.__dict__.get("count", 0) + 1
        if count == COMMANDS:
            raise Broken("11", f"command {COMMANDS} is a planted bug")

    monkeypatch.setattr(KvWorkload, "executed", broken)


@pytest.mark.usefixtures("bug")
class TestAPlantedBug:
    WHOLE = Pinned(9, 3000, {"servers": 3, "crash": 0.02})

    def test_a_smaller_run_fails_by_the_same_rule(self) -> None:
        told: list[tuple[int, Pinned]] = []
        small = minimize(self.WHOLE, runs_max=120, progress=lambda runs, best: told.append((runs, best)))
        assert small is not None
        failure = small.run().failure
        assert failure is not None
        assert failure.rule == "11"
        assert "planted bug" in failure.message
        assert small.seed == 9
        assert small.events < 1500
        assert small.changes["servers"] == 3
        assert told[-1][1] == small
        assert [runs for runs, _ in told] == sorted({runs for runs, _ in told})
        # What the failure does not need is taken away.
        world = Simulation(9, changes=small.changes).world
        before = Simulation(9, changes=self.WHOLE.changes).world
        disturbances = ("loss", "duplicate", "late", "moves", "sleeps", "ends", "lazy")

        def disturbed(by: World) -> int:
            return sum(map(bool, [*by.rates.values(), *(getattr(by, name) for name in disturbances)]))

        assert disturbed(world) <= disturbed(before) // 2

    @pytest.mark.parametrize("runs_max", [1, 2, 5])
    def test_no_more_runs_are_made_than_allowed(self, runs_max: int, monkeypatch: pytest.MonkeyPatch) -> None:
        runs = 0

        def counted(*args: Any, **kwargs: Any) -> Result:
            nonlocal runs
            runs += 1
            return run_seed(*args, **kwargs)

        monkeypatch.setattr(minimize_module, "run_seed", counted)
        small = minimize(self.WHOLE, runs_max=runs_max)
        assert runs == runs_max
        assert small is not None
        assert small.run().failure is not None
        if runs_max == 1:
            assert small == self.WHOLE


class Failing:
    """Takes the place of ``run_seed``: fails where a condition on the run holds, by some rule."""

    def __init__(self, rule_of: Any) -> None:
        self.rule_of = rule_of
        self.runs: list[Pinned] = []

    def __call__(self, seed: int, *, events: int, changes: Mapping[str, Any], traced: bool = False) -> Result:
        self.runs.append(Pinned(seed, events, dict(changes)))
        rule = self.rule_of(events, changes)
        failure = Failure(rule, f"rule {rule}: planted", min(events, 640), 3) if rule else None
        return Result(seed, events, "", failure)


def made_smaller(
    monkeypatch: pytest.MonkeyPatch, rule_of: Any, changes: Mapping[str, Any]
) -> tuple[Pinned, Failing]:
    failing = Failing(rule_of)
    monkeypatch.setattr(minimize_module, "run_seed", failing)
    small = minimize(Pinned(1, 5000, changes))
    assert small is not None
    return small, failing


EVERYTHING = {"crash": 0.1, "wipe": 0.1, "partition": 0.1, "loss": 0.1, "clients": 4, "fifo": False}


def test_what_it_needs_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def rule_of(events: int, changes: Mapping[str, Any]) -> str:
        needed = changes.get("wipe", 1) and changes.get("loss", 1) and events >= 77
        return "9" if needed else ""

    small, _ = made_smaller(monkeypatch, rule_of, EVERYTHING)
    assert small.events == 77
    assert small.changes.items() >= {"wipe": 0.1, "loss": 0.1, "crash": 0.0, "partition": 0.0}.items()
    assert small.changes.items() >= {"clients": 1, "fifo": True}.items()


def test_another_failure_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def rule_of(events: int, changes: Mapping[str, Any]) -> str:
        return "7" if events >= 300 and changes.get("crash", 1) else "liveness"

    small, failing = made_smaller(monkeypatch, rule_of, EVERYTHING)
    assert small.events == 300
    assert small.changes["crash"] == 0.1
    assert any(run.events < 300 for run in failing.runs)


def test_the_failures_own_event_is_tried_first(monkeypatch: pytest.MonkeyPatch) -> None:
    small, failing = made_smaller(monkeypatch, lambda events, changes: "7", {})
    assert [run.events for run in failing.runs[:2]] == [5000, 640 + HEALING_EVENTS]
    assert small.events == 1


def test_each_thing_is_taken_away_once_and_only_where_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = {**QUIET, **dict.fromkeys(FAULTS, 0.0)}
    _, failing = made_smaller(monkeypatch, lambda events, changes: "7" if events == 5000 else "", quiet)
    assert all(run.changes == quiet for run in failing.runs)
    _, failing = made_smaller(
        monkeypatch, lambda events, changes: "7" if events == 5000 else "", quiet | {"kill": 0.1, "lazy": 0.4}
    )
    assert [run.changes for run in failing.runs[2:4]] == [quiet | {"lazy": 0.4}, quiet]
    assert all(run.changes == quiet for run in failing.runs[4:])


def test_a_green_run_is_not_made_smaller() -> None:
    assert minimize(Pinned(3, 200, {})) is None


def test_what_is_kept_is_read_back(tmp_path: Path) -> None:
    pinned = Pinned(4711, 321, {"crash": 0.0, "servers": 5, "fifo": True})
    path = pin(tmp_path / "new" / "pinned", pinned, Failure("7", "rule 7: a hole", 12, 3))
    assert path == tmp_path / "new" / "pinned" / "seed_4711_7.json"
    assert read_pin(path) == pinned
    content = json.loads(path.read_text())
    assert content["version"] == __version__
    assert content["failed_with"] == "rule 7: a hole (after event 12, tick 3)"
    assert path.read_text().endswith("}\n")


def test_a_run_that_is_kept_is_played_as_it_was() -> None:
    changes = {"servers": 3, "loss": 0.25}
    played, known = Pinned(3, 200, changes).run(), run_seed(3, events=200, changes=changes)
    assert played == known
    assert Pinned(3, 200, changes).run(traced=True).trace
    with pytest.raises(ConfigError):
        Pinned(3, 200, {"lost": 1}).run()


def test_everything_that_is_taken_away_is_there() -> None:
    fields = Simulation(1).world.__dataclass_fields__
    assert set(QUIET) <= set(fields)
    assert Simulation(1, changes=QUIET).world.clients == 1
