"""Branches are found in the source, counted as they run, and missed where they do not."""

import importlib
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from paxos_rsm.sim import coverage
from paxos_rsm.sim.coverage import EXEMPT, MODULES, REQUIRED, BranchCounter, unreached
from paxos_rsm.sim.simulation import run_seed
from paxos_rsm.sim.world import FAULTS

TOY = '''"""A module of a few branches."""

from typing import Protocol


class Shape(Protocol):
    def area(self) -> int:
        """Nobody runs this."""
        return 1


class Box:
    """A class."""

    def put(self, x):
        """A method."""
        if x < 0:
            raise ValueError("a defence")
        if x == 0:
            return "nothing"
        elif x == 1:
            return "one"
        else:
            for _ in range(x):
                if x > 5 and (
                    x > 6
                ):
                    x -= 1
            else:
                x += 1
        return x

    def ask(self, x):
        match x:
            case int():
                return "number"
            case str() | bytes():
                return (
                    "text"
                )
        try:
            len(x)
        except TypeError:
            x = None
        while x:
            x = x[1:]

        def inner():
            return x

        return inner()


def never():
    ...


def alone(): return 3
'''

NAMES = [
    "box.Box.put",
    "box.Box.put: if x == 0:",
    "box.Box.put: elif x == 1:",
    "box.Box.put: else of elif x == 1:",
    "box.Box.put: for _ in range(x):",
    "box.Box.put: if x > 5 and (",
    "box.Box.put: else of for _ in range(x):",
    "box.Box.ask",
    "box.Box.ask: case int():",
    "box.Box.ask: case str() | bytes():",
    "box.Box.ask: except TypeError:",
    "box.Box.ask: while x:",
    "box.Box.ask.inner",
    "box.alone",
]


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The toy module, as the only one whose branches count."""
    (tmp_path / "box.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "box", raising=False)
    monkeypatch.setattr(coverage, "MODULES", ("box",))
    return importlib.import_module("box")


@pytest.mark.usefixtures("box")
def test_every_suite_is_a_branch_but_for_defences() -> None:
    counter = BranchCounter()
    assert sorted(map(str, counter.branches)) == sorted(NAMES)
    assert counter.counts == Counter(dict.fromkeys(NAMES, 0))


def reached(box: ModuleType, *calls: tuple[str, object]) -> dict[str, int]:
    counter = BranchCounter()
    with counter:
        for method, argument in calls:
            getattr(box.Box(), method)(argument)
    return {name.removeprefix("box."): hits for name, hits in counter.counts.items() if hits}


def test_they_are_counted_as_they_run(box: ModuleType) -> None:
    assert reached(box) == {}
    assert reached(box, ("put", 0), ("put", 0)) == {"Box.put": 2, "Box.put: if x == 0:": 2}
    assert reached(box, ("put", 1)) == {"Box.put": 1, "Box.put: elif x == 1:": 1}
    two = reached(box, ("put", 2))
    assert two.keys() == {
        "Box.put",
        "Box.put: else of elif x == 1:",
        "Box.put: for _ in range(x):",
        "Box.put: else of for _ in range(x):",
    }
    assert reached(box, ("put", 7)).keys() - two.keys() == {"Box.put: if x > 5 and ("}
    assert reached(box, ("ask", 5)).keys() == {"Box.ask", "Box.ask: case int():"}
    assert reached(box, ("ask", "a")).keys() == {"Box.ask", "Box.ask: case str() | bytes():"}
    assert reached(box, ("ask", [1, 2])) == {"Box.ask": 1, "Box.ask: while x:": 2, "Box.ask.inner": 1}
    assert reached(box, ("ask", None)).keys() == {"Box.ask", "Box.ask: except TypeError:", "Box.ask.inner"}


def test_counts_add_up_and_only_while_they_are_asked_for(box: ModuleType) -> None:
    counter = BranchCounter()
    before = sys.gettrace()
    for _ in range(3):
        with counter:
            box.Box().put(0)
        box.Box().put(1)
        assert sys.gettrace() is before
    assert {name: hits for name, hits in counter.counts.items() if hits} == {
        "box.Box.put": 3,
        "box.Box.put: if x == 0:": 3,
    }


def test_an_error_within_ends_the_counting_too(box: ModuleType) -> None:
    before, counter = sys.gettrace(), BranchCounter()
    with pytest.raises(ValueError, match="a defence"), counter:
        box.Box().put(-1)
    assert sys.gettrace() is before
    assert counter.counts["box.Box.put"] == 1


ALL_FIRED = dict.fromkeys(REQUIRED, 1)


def test_what_was_never_reached_is_named_faults_first() -> None:
    assert unreached(ALL_FIRED, {}) == []
    assert unreached(ALL_FIRED, {"a": 1, "b": 0, "c": 2, "d": 0}) == ["branch: b", "branch: d"]
    without = {name: n for name, n in ALL_FIRED.items() if name not in ("crash", "late")} | {"late": 0}
    assert unreached(without, {"b": 0}) == ["fault: crash", "fault: late", "branch: b"]
    assert unreached({}, {}) == [f"fault: {name}" for name in REQUIRED]


def test_what_is_exempt_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage, "EXEMPT", {"b": "there is no way to it"})
    assert unreached(ALL_FIRED, {"a": 0, "b": 0}) == ["branch: a"]


class TestTheLists:
    def test_every_exemption_names_a_branch_and_says_why(self) -> None:
        """One that is stale would hide the next branch of that name."""
        names = {str(branch) for branch in BranchCounter().branches}
        assert [name for name in EXEMPT if name not in names] == []
        assert all(len(reason) > 10 for reason in EXEMPT.values())

    def test_no_two_branches_share_a_name(self) -> None:
        """Else one that is never reached hides behind the other."""
        shared = [name for name, n in Counter(map(str, BranchCounter().branches)).items() if n > 1]
        assert shared == []

    def test_every_module_has_branches(self) -> None:
        assert {branch.module for branch in BranchCounter().branches} == set(MODULES)
        assert len(set(MODULES)) == len(MODULES)

    def test_every_fault_is_required(self) -> None:
        assert set(FAULTS) < set(REQUIRED)
        assert len(set(REQUIRED)) == len(REQUIRED)


def test_a_run_is_the_same_when_it_is_counted() -> None:
    counter = BranchCounter()
    with counter:
        counted = run_seed(3, events=200, changes={"servers": 3})
    assert counted == run_seed(3, events=200, changes={"servers": 3})
    counts = counter.counts
    assert counts["paxos.node.Node.step"] > 100
    assert 50 < sum(1 for hits in counts.values() if hits) < len(counts)
