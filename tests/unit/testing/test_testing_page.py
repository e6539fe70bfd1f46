"""docs/TESTING.md says what is so: its test fails with its output, its fix passes, its code is that of the examples."""

import ast
import importlib
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from examples import locks, wrong_locks
from examples.lock_workload import LockWorkload
from paxos_rsm.machines.base import Position
from paxos_rsm.testing import SimulationFailed, simulate
from paxos_rsm.testing.contract import ADVICE

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "TESTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?:<!-- (\w+) -->\n)?```(\w+)\n(.*?)```", PAGE, re.DOTALL)
FIXED = ("what to do", "repeat it")


def block(name: str) -> str:
    (found,) = [text for marked, _, text in BLOCKS if marked == name]
    return str(found)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The test on the page, as a module that other processes can import."""
    (tmp_path / "test_of_the_page.py").write_text(block("test"))
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("test_of_the_page")


def shape(message: str) -> list[str]:
    """What a message says in every run: its parts, without the commands of that one."""
    told = [line.removeprefix("E").strip() for line in message.splitlines()]
    parts = [line for line in told if re.match(r"(what broke|what to do|shown by|repeat it|with):", line)]
    return [line if line.startswith(FIXED) else line.partition(":")[0] for line in parts]


def test_the_bug_is_found_as_the_page_says(page: Any) -> None:
    with pytest.raises(SimulationFailed) as failed:
        page.test_locks()
    first, *_ = str(failed.value).splitlines()
    assert re.sub(r"seed \d+", "seed 0", f"SimulationFailed: {first}\n") in block("output")
    seed = re.compile(r"\[\d+\], trace=\"seed\d+")
    assert [seed.sub("", line) for line in shape(str(failed.value))] == [
        seed.sub("", line) for line in shape(block("output"))
    ]
    assert failed.value.commands[-1].startswith(b"release door ")
    # Few are enough: one who has the lock, two who wait, and how the lock came to the one who releases it.
    assert 4 <= len(failed.value.commands) <= 30


def test_the_fixed_one_passes(page: Any) -> None:
    report = simulate(locks.Locks, page.draw, seeds=3, hash_seeds=(0, 1))
    assert str(report).startswith("examples.locks:Locks: 3 seeds")


def test_the_workload_of_the_page_passes_and_sees_wrong_answers() -> None:
    report = simulate(locks.Locks, LockWorkload, seeds=3, hash_seeds=())
    assert report.counts["queries"] > 0
    workload = LockWorkload()
    workload.answered(b"acquire door anna", b"yours")
    with pytest.raises(AssertionError, match="the door is held by anna, not by bert"):
        workload.answered(b"acquire door bert", b"yours")
    with pytest.raises(AssertionError, match="the door is held by anna, not by bert"):
        workload.queried(b"door", b"bert")


def test_the_code_on_the_page_is_that_of_the_examples() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "examples").glob("*lock*.py")]
    found = [
        text for _, kind, text in BLOCKS if kind == "python" and any(text in source for source in sources)
    ]
    assert [text.split("\n", 1)[0].strip() for text in found] == [
        "def acquire(self, lock: str, owner: str) -> bytes:",
        "self.holders[lock] = self.waiting[lock].pop(0)",
        "class LockWorkload:",
    ]


def test_the_small_test_on_the_page_holds() -> None:
    (text,) = [text for _, _, text in BLOCKS if "test_the_one_who_waited_longest" in text]
    names: dict[str, Any] = {"Locks": locks.Locks, "Position": Position}
    exec(compile(text, "TESTING.md", "exec"), names)
    test = names["test_the_one_who_waited_longest_is_next"]
    assert isinstance(test, FunctionType)
    test()


def test_the_test_inside_one_process_runs_without_any_settings(tmp_path: Path) -> None:
    imports = "import pytest\n\nfrom examples.locks import Locks\n\n\n"
    (tmp_path / "test_inside.py").write_text(imports + block("inside"))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_every_clause_is_on_the_page() -> None:
    for clause in ADVICE:
        assert f"`{clause}`" in PAGE


def test_the_code_on_the_page_parses() -> None:
    for _, kind, text in BLOCKS:
        if kind == "python":
            ast.parse(textwrap.dedent(text))


def test_the_two_differ_in_who_is_next_alone() -> None:
    commands = [b"acquire door anna", b"acquire door bert", b"release door anna", b"release door bert", b"x"]
    right, wrong = locks.Locks(), wrong_locks.Locks()
    for index, command in enumerate(commands):
        assert right.apply(command, Position(1, index)) == wrong.apply(command, Position(1, index))
    assert right.query(b"door") == wrong.query(b"door") == b""
