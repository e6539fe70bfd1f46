"""``paxos-rsm sim``: campaigns, one seed, what is changed, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from paxos_rsm._version import __version__
from paxos_rsm.cli import sim as sim_module
from paxos_rsm.cli.failures import EXIT_BAD_USAGE, EXIT_ERROR
from paxos_rsm.sim.campaign import Campaign
from paxos_rsm.sim.failure import Broken, Failure
from paxos_rsm.sim.minimize import read_pin
from paxos_rsm.sim.simulation import run_seed
from paxos_rsm.sim.workload import KvWorkload
from tests.unit.cli.helpers import run, spawn


class TestOneSeed:
    def test_it_prints_what_a_run_is_known_by(self) -> None:
        result = run("sim", "--seed", "3", "--events", "200")
        assert result.exit_code == 0, result.stderr
        known = run_seed(3, events=200)
        assert f"{known.events:,} events, trace hash {known.trace_hash}" in result.stdout
        assert f"paxos-rsm {__version__}, sim --seed 3 --events 200\n" in result.stdout
        assert result.stdout.endswith("green\n")
        assert result.stderr == ""

    def test_the_trace_says_who_said_what(self) -> None:
        result = run("sim", "--seed", "3", "--events", "200", "--trace", "--set", "servers=3")
        assert result.exit_code == 0, result.stderr
        lines = result.stdout.splitlines()
        assert any(" n1 starts, boot 1" in line for line in lines)
        assert any(" hears n" in line for line in lines)
        assert any("the weather clears up" in line for line in lines)
        assert max(map(len, lines)) <= sim_module.TRACE_LINE_MAX
        assert lines[-1] == "green"

    def test_what_is_set_takes_the_place_of_what_is_drawn(self) -> None:
        changes: dict[str, Any] = {"servers": 5, "loss": 0.25, "fifo": True, "crash": 0.1}
        told = [f"--set={name}={str(value).lower()}" for name, value in changes.items()]
        result = run("sim", "--seed", "3", "--events", "200", *told)
        assert result.exit_code == 0, result.stderr
        assert run_seed(3, events=200, changes=changes).trace_hash in result.stdout
        assert run_seed(3, events=200).trace_hash not in result.stdout
        assert "--set servers=5 --set loss=0.25 --set fifo=true --set crash=0.1\n" in result.stdout

    def test_a_green_one_is_not_kept_and_that_is_said(self, tmp_path: Path) -> None:
        words = ["--seed", "3", "--events", "200", "--pin", "--pin-dir", str(tmp_path / "pins")]
        assert run("sim", *words).stdout.endswith("green: nothing was kept, for --pin keeps runs that fail\n")
        assert not (tmp_path / "pins").exists()

    def test_a_green_one_cannot_be_made_smaller(self, tmp_path: Path) -> None:
        kept = tmp_path / "pinned"
        words = ["--minimize", "--pin", "--pin-dir", str(kept)]
        result = run("sim", "--seed", "3", "--events", "200", *words)
        assert result.exit_code == 0, result.stderr
        told = "seed 3 is green with 200 events: there is nothing to make smaller"
        assert result.stdout == f"{told}, and nothing was kept\n"
        alone = run("sim", "--seed", "3", "--events", "200", "--minimize")
        assert alone.stdout == f"{told}\n"
        assert not kept.exists()


@pytest.fixture
def bug(monkeypatch: pytest.MonkeyPatch) -> None:
    """In every run, the tenth command is executed wrongly."""
    executed = KvWorkload.executed

    def broken_at_ten(workload: KvWorkload, command: bytes, result: object) -> None:
        executed(workload, command, result)
        count = workload.__dict__["count"] = workload.__dict__.get("count", 0) + 1
        if count == 10:
            raise Broken("11", "a planted bug")

    monkeypatch.setattr(KvWorkload, "executed", broken_at_ten)


@pytest.mark.usefixtures("bug")
class TestFailing:
    def test_it_is_told_in_a_line_and_by_the_exit_code(self) -> None:
        result = run("sim", "--seed", "3", "--events", "1000")
        assert result.exit_code == EXIT_ERROR
        assert result.stderr.startswith("Error: seed 3: rule 11: a planted bug (after event ")
        assert "Traceback" not in result.output

    def test_it_is_made_smaller_and_kept(self, tmp_path: Path) -> None:
        words = ["--minimize", "--pin", "--pin-dir", str(tmp_path)]
        result = run("sim", "--seed", "3", "--events", "1000", *words)
        assert result.exit_code == EXIT_ERROR
        assert "a planted bug" in result.stderr
        assert "still fails with" in result.stderr
        pinned = read_pin(tmp_path / "seed_3_11.json")
        assert f"kept as {tmp_path / 'seed_3_11.json'}" in result.stdout
        assert f"--seed 3 --events {pinned.events} --set " in result.stdout
        assert pinned.events < 1000
        failure = pinned.run().failure
        assert failure is not None
        assert failure.rule == "11"

    def test_the_command_that_is_printed_repeats_it(self) -> None:
        small = run("sim", "--seed", "3", "--events", "1000", "--minimize")
        (line,) = [line for line in small.stdout.splitlines() if "sim --seed" in line]
        again = run(*line.partition(", ")[2].split())
        assert again.exit_code == EXIT_ERROR
        assert [line for line in again.stdout.splitlines() if "trace hash" in line] == [
            line for line in small.stdout.splitlines() if "trace hash" in line
        ]


class TestCampaign:
    def test_a_small_one(self) -> None:
        result = run("sim", "--seeds", "3", "--events", "200", "--jobs", "1")
        assert result.exit_code == 0, result.stderr
        assert "what happened" in result.stdout
        assert "3 seeds, " in result.stdout
        assert result.stdout.endswith("every seed is green\n")
        assert "never came" not in result.stdout

    def test_as_json(self) -> None:
        words = ["--seeds", "2", "--first", "7", "--events", "200", "--jobs", "1", "--set", "servers=3"]
        result = run("sim", *words, "-w", "json")
        assert result.exit_code == 0, result.stderr
        told = json.loads(result.stdout)
        alone = [run_seed(seed, events=200, changes={"servers": 3}) for seed in (7, 8)]
        assert (told["version"], told["seeds"], told["failures"]) == (__version__, 2, [])
        assert told["events"] == sum(each.events for each in alone)
        assert told["fired"] == dict(sorted((alone[0].fired + alone[1].fired).items()))
        assert told["unreached"]

    def test_in_a_process_of_its_own(self) -> None:
        done = spawn("sim", "--seeds", "2", "--events", "100", "--jobs", "2")
        assert done.returncode == 0, done.stderr
        assert b"every seed is green" in done.stdout
        assert b"Traceback" not in done.stderr

    def test_what_never_came_fails_one_that_is_to_reach_everything(self) -> None:
        result = run("sim", "--seeds", "1", "--events", "100", "--jobs", "1", "--coverage")
        assert result.exit_code == EXIT_ERROR
        assert "never came: fault: " in result.stdout
        assert "never came: branch: " in result.stdout
        assert "faults or branches never came in 1 seeds" in result.stderr

    def test_failures_are_told_with_the_command_that_looks_at_one(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        failed = [(4, Failure("7", "rule 7: a hole", 12, 3)), (9, Failure("8", "rule 8: stale", 2, 1))]
        campaign = Campaign(seeds=20, events=100, failures=failed)
        monkeypatch.setattr(sim_module, "play_campaign", lambda *args, **kwargs: campaign)
        result = run("sim", "--seeds", "20", "--events", "100")
        assert result.exit_code == EXIT_ERROR
        assert "seed 4: rule 7: a hole (after event 12, tick 3)\n" in result.stdout
        assert "seed 9: rule 8: stale" in result.stdout
        assert "every seed is green" not in result.stdout
        assert result.stderr.startswith(
            "Error: 2 of 20 seeds failed; look at one with `paxos-rsm sim --events 100 --seed 4 --minimize --trace`"
        )

    def test_a_large_one_is_to_reach_everything_unless_told_otherwise(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sim_module, "play_campaign", lambda *args, **kwargs: Campaign(seeds=2000))
        assert run("sim", "--seeds", "2000").exit_code == EXIT_ERROR
        assert run("sim", "--seeds", "1999").exit_code == 0
        assert run("sim", "--seeds", "2000", "--no-coverage").exit_code == 0


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--trace"], "--trace, --minimize and --pin are for one run: give its --seed"),
        (["--minimize"], "give its --seed"),
        (["--pin"], "give its --seed"),
        (["--seeds", "0"], "0 is not in the range"),
        (["--seed", "-1"], "-1 is not in the range"),
        (["--jobs", "0"], "0 is not in the range"),
        (["--events", "many"], "'many' is not a valid whole number"),
        (["--seed", "abc"], "'abc' is not a valid whole number"),
        (
            ["--seed", "1", "--set", "crash=1.5"],
            "crash of the world of a simulation is 1.5; it must be from 0 to 1",
        ),
        (
            ["--seed", "1", "--set", "servers=true"],
            "servers of the world of a simulation is of the type int, True",
        ),
        (["--seed", "1", "--set", "loss"], "'loss' is not name=value with a number, true or false"),
        (["--seed", "1", "--set", "loss=much"], "'loss=much' is not name=value"),
        (["--seed", "1", "--set", "lost=0.1"], "nothing called 'lost'; it has servers, "),
        (["--seed", "1", "--minimize", "--set", "=1"], "nothing called ''"),
        (["--seed", "1", "--set", "settings=1"], "settings of the world of a simulation is of the type"),
        (["--seeds", "1", "--jobs", "1", "--set", "lost=0.1"], "nothing called 'lost'"),
        (["--nothing"], "no such option"),
        (["a", "b"], "unexpected extra argument"),
    ],
)
def test_usage_that_is_refused(args: list[str], says: str) -> None:
    result = run("sim", *args)
    assert result.exit_code == EXIT_BAD_USAGE
    assert result.stderr.startswith("Error: ")
    assert says.lower() in result.stderr.lower()
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_help_shows_examples() -> None:
    result = run("sim", "--help")
    assert result.exit_code == 0
    assert "paxos-rsm sim --seed 4711 --minimize --pin" in result.stdout
