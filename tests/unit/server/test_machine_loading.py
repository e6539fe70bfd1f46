"""A machine named on the command line: found, made, checked, or refused with a sentence."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paxos_rsm.errors import ConfigError
from paxos_rsm.server.machine_loading import check_machine, load_machine

GOOD = """
from paxos_rsm.machines.base import Position, SimpleMachine

class Counter(SimpleMachine):
    def __init__(self): self.total = 0
    def apply(self, command: bytes, at: Position) -> bytes: return b"ok"
    def query(self, request: bytes) -> bytes: return b""
    def dump(self) -> bytes: return b""
    def load(self, state: bytes) -> None: pass

class Wants(Counter):
    def __init__(self, something): pass

class Raises(Counter):
    def __init__(self): raise OSError("no such file")

class Async(Counter):
    async def apply(self, command, at): return b""

class Half:
    def apply(self, command, at): return b""

counter = Counter()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with modules in it, as a user has them."""
    (tmp_path / "my_machine.py").write_text(GOOD)
    (tmp_path / "my_broken.py").write_text("1 / 0\n")
    (tmp_path / "my_needy.py").write_text("import not_installed_at_all\n")
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "inner.py").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["my_machine:Counter", "my_package.inner:Counter"])
def test_a_machine_is_found_in_the_working_directory(here: Path, name: str) -> None:
    machine = load_machine(name)
    assert type(machine).__name__ == "Counter"
    assert load_machine(name) is not machine


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such:Counter", ["no module 'no_such'", "working directory", "PYTHONPATH"]),
        ("my_package.no_such:Counter", ["no module 'my_package.no_such'"]),
        ("my_machine:Count", ["my_machine has no 'Count'", "there are Async, Counter, Half, Raises, Wants"]),
        ("my_machine:counter", ["counter is a Counter, not a class"]),
        ("my_machine:Wants", ["Wants() raised TypeError", "without arguments"]),
        ("my_machine:Raises", ["Raises() raised OSError: no such file"]),
        ("my_machine:Half", ["Half has no query, snapshot, restore, digest", "SimpleMachine"]),
        ("my_machine:Async", ["async def"]),
        ("my_broken:Counter", ["importing my_broken raised ZeroDivisionError: division by zero"]),
        ("my_needy:Counter", ["my_needy needs 'not_installed_at_all'"]),
    ],
)
def test_what_is_wrong_is_said(here: Path, name: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        load_machine(name)
    for word in [f"--machine {name}", *words]:
        assert word in str(raised.value)


def test_a_machine_that_is_given_is_checked_too() -> None:
    with pytest.raises(ConfigError, match="the machine is no state machine: int has no apply, query"):
        check_machine(3, "the machine")
    wrong: Any = object
    with pytest.raises(ConfigError, match="no state machine"):
        check_machine(wrong, "the machine")
