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
