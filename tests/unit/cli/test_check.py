import json
from pathlib import Path

import pytest

from paxos_rsm.checker import Operation, write_history
from paxos_rsm.checker.models import MODELS
from paxos_rsm.cli.check import EXIT_UNDECIDED, load_model
from tests.unit.cli.helpers import run

WRITE = Operation(1, "write", 7, "a", None, 0, 1)
STALE = Operation(2, "read", 7, None, None, 2, 3)


@pytest.fixture
def good(tmp_path: Path) -> str:
    path = tmp_path / "good.jsonl"
    write_history([WRITE, Operation(2, "read", 7, None, "a", 2, 3)], path)
    return str(path)


@pytest.fixture
def bad(tmp_path: Path) -> str:
    path = tmp_path / "bad.jsonl"
    write_history([WRITE, STALE], path)
    return str(path)


def test_a_linearizable_history_is_0(good: str) -> None:
    result = run("check", "history", good, "--model", "register")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("linearizable: ")
    assert "2 operations, 1 keys" in result.stdout


def test_a_violation_is_1_and_shown(bad: str, tmp_path: Path) -> None:
    page, drawing = tmp_path / "bad.html", tmp_path / "bad.svg"
    result = run("check", "history", bad, "--model", "register", "--html", str(page), "--svg", str(drawing))
    assert result.exit_code == 1
    assert not result.stderr
    assert "violation: key 7: read() → None by process 2" in result.stdout
    assert "✗" in result.stdout
    assert f"drawn to {page}" in result.stdout
    assert "bad.jsonl" in page.read_text(encoding="utf-8")
    assert drawing.read_text(encoding="utf-8").startswith("<svg")


def test_an_undecided_check_is_4(tmp_path: Path) -> None:
    path = tmp_path / "hard.jsonl"
    adds = [Operation(each, "add", "k", 1 << each, None, 0, 100 + each) for each in range(22)]
    write_history([*adds, Operation(99, "get", "k", None, -1, 0, 50)], path)
    result = run("check", "history", str(path), "--model", "counter", "--timeout", "10ms")
    assert (result.exit_code, EXIT_UNDECIDED) == (4, 4)
    assert result.stdout.startswith("unknown: ")


def test_json(bad: str) -> None:
    result = run("check", "history", bad, "--model", "register", "-w", "json")
    assert result.exit_code == 1
    shown = json.loads(result.stdout)
    assert (shown["verdict"], shown["key"], shown["operations"]) == ("violation", "7", 2)
    assert [op["op"] for op in shown["unplaced"]] == ["read"]
    assert [op["op"] for op in shown["prefix"]] == ["write"]


def test_standard_input(bad: str) -> None:
    result = run("check", "history", "-", "--model", "register", stdin=Path(bad).read_bytes())
    assert result.exit_code == 1


def test_revisions_complete_and_not(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    write_history([Operation(1, "put", "a", "1", {"revision": 5}, 0, 1)], path)
    assert run("check", "history", str(path), "--model", "revisions").exit_code == 1
    assert run("check", "history", str(path), "--model", "revisions", "--incomplete").exit_code == 4


def test_a_key_to_draw(good: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    line = ["check", "history", good, "--model", "register", "--html", str(page), "--key"]
    assert run(*line, "7").exit_code == 0
    result = run(*line, "8")
    assert result.exit_code == 128
    assert "no operation is on the key '8'" in result.stderr


@pytest.mark.parametrize(
    ("content", "model", "words"),
    [
        ("{}\n", "register", "line 1: has no 'process'"),
        ("nonsense\n", "register", "line 1: not JSON"),
        (None, "register", "does not exist"),
        ("", "reg", "'reg' is no model: there are register"),
        ("", "nowhere.to.be:Found", "ModuleNotFoundError"),
        ("", "paxos_rsm.checker:Operation", "TypeError"),
        ("", "builtins:dict", "has no init()"),
        (
            '{"process": 1, "op": "pop", "call": 1, "return": 2, "status": "ok"}\n',
            "kv",
            "no operation of the model kv",
        ),
        (
            '{"process": 1, "op": "pop", "call": 1, "return": 2, "status": "ok"}\n',
            "revisions",
            "no operation of a store",
        ),
    ],
)
def test_what_cannot_be_used_is_one_line_and_128(
    tmp_path: Path, content: str | None, model: str, words: str
) -> None:
    path = tmp_path / "h.jsonl"
    if content is not None:
        path.write_text(content)
    result = run("check", "history", str(path), "--model", model)
    assert result.exit_code == 128
    assert words in result.stderr
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert not result.stdout


def test_incomplete_goes_with_revisions(good: str) -> None:
    assert run("check", "history", good, "--model", "register", "--incomplete").exit_code == 128


def test_models_by_name() -> None:
    for name, model in MODELS.items():
        assert isinstance(load_model(name), model)
    assert isinstance(load_model("paxos_rsm.checker.models:Lock"), MODELS["lock"])


def test_the_help_of_the_subcommand_teaches_by_examples() -> None:
    result = run("check", "history", "--help")
    assert "paxos-rsm check history run.jsonl --model register" in result.stdout
    assert "Exit codes: 0 linearizable; 1 a violation; 4" in result.stdout


def test_without_a_model_it_is_a_store_with_revisions(tmp_path: Path, good: str) -> None:
    path = tmp_path / "chaos.jsonl"
    write_history([Operation(1, "put", "a", "1", {"revision": 2}, 0, 1)], path)
    result = run("check", "history", str(path))
    assert result.exit_code == 0, result.output
    assert "replayed revision by revision" in result.stdout
    refused = run("check", "history", good)
    assert refused.exit_code == 128
    assert "no operation of a store with revisions" in refused.stderr
    assert "(no --model was given, so that of revisions was taken)" in refused.stderr


@pytest.mark.parametrize("model", ["revisions", "register"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "the history is empty"),
        ("\n\n", "the history is empty"),
        (
            '{"process": 1, "op": "put", "key": 1, "call": 1, "return": 2, "status": "fail"}\n',
            "every operation of the history failed",
        ),
    ],
)
def test_a_history_of_nothing_shows_nothing(tmp_path: Path, content: str, reason: str, model: str) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text(content)
    result = run("check", "history", str(path), "--model", model)
    assert result.exit_code == EXIT_UNDECIDED
    assert result.stdout.startswith(f"unknown: {reason}: nothing was shown")


@pytest.mark.parametrize("which", ["call", "return"])
def test_a_time_beyond_every_float_is_bad_input(tmp_path: Path, which: str) -> None:
    path = tmp_path / "h.jsonl"
    times = {"call": "1", "return": "2", which: "1" + 400 * "0"}
    path.write_text(
        f'{{"process": 1, "op": "read", "call": {times["call"]}, "return": {times["return"]}, "status": "ok"}}\n'
    )
    result = run("check", "history", str(path), "--model", "register")
    assert result.exit_code == 128
    assert f"line 1: the {which} is 1000" in result.stderr
    assert "give the time as a finite number" in result.stderr
    assert len(result.stderr) < 300


@pytest.mark.parametrize("option", ["--svg", "--html"])
def test_where_it_cannot_be_drawn_is_said_before_the_check(tmp_path: Path, option: str) -> None:
    path = tmp_path / "not-even-read.jsonl"
    path.write_text("nonsense")
    result = run("check", "history", str(path), option, str(tmp_path / "nowhere" / "drawing"))
    assert result.exit_code == 128
    assert f"there is no directory '{tmp_path / 'nowhere'}' to write 'drawing' to" in result.stderr
