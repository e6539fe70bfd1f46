"""Every planted bug still fits the code that it is planted in, and a few of them are found in no time."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.__main__ import main
from tests.mutants.catalogue import MUTANTS
from tests.mutants.mutant import DoesNotApply, Edit, Mutant, mutated, source_of

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_applies_and_compiles(mutant: Mutant) -> None:
    for module in mutant.modules:
        before = source_of(module)
        after = mutated(mutant, module, before)
        assert after != before
        compile(after, module, "exec", dont_inherit=True)


def test_names_and_reasons_are_given_once() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len({mutant.why for mutant in MUTANTS}) == len(MUTANTS)
    assert all(mutant.rule for mutant in MUTANTS)
    assert len(MUTANTS) >= 32


@pytest.mark.parametrize("old", ["nothing like this", "x = 1"])
def test_what_does_not_fit_is_refused(old: str) -> None:
    mutant = Mutant("m", "a.b", old, "x = 2", "rule 1", "why")
    with pytest.raises(DoesNotApply, match="must once"):
        mutated(mutant, "a.b", "x = 1\nx = 1\n")


def test_edits_go_to_their_modules_only() -> None:
    mutant = Mutant(
        "m", "a", "\nx = 1\n", "\nx = 2\n", "rule 1", "why", also=(Edit("b", "y", "z"), Edit("a", "3", "4"))
    )
    assert mutant.modules == ("a", "b")
    assert mutated(mutant, "a", "x = 1; y; 3") == "x = 2; y; 4"
    assert mutated(mutant, "b", "x = 1; y; 3") == "x = 1; z; 3"
    assert mutated(mutant, "c", "x = 1; y; 3") == "x = 1; y; 3"


def test_a_planted_bug_is_what_a_fresh_process_imports_and_the_file_stays() -> None:
    program = """
from tests.mutants.mutant import DoesNotApply, Mutant, plant
text = "(members, members // 2 + 1, members // 2 + 1)"
mutant = Mutant("m", "paxos_rsm.paxos.quorum", text, "(members, 1, 1)", "rule 10", "why")
plant(mutant)
from paxos_rsm.paxos.quorum import QuorumSizes
print(QuorumSizes.majority(5))
try:
    plant(mutant)
except DoesNotApply as error:
    print(error)
"""
    for _ in range(2):  # were the bug cached with the module, the second process would not find the text
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
        )
        told = done.stdout.splitlines()
        assert told[0] == "QuorumSizes(members=5, phase1=1, phase2=1)"
        assert "imported already" in told[1]
    from paxos_rsm.paxos.quorum import QuorumSizes

    assert QuorumSizes.majority(5).phase1 == 3


def test_a_few_are_found_in_no_time(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A slice of `make mutants`: one of the protocol, one of the disk, one of the sessions, and the control."""
    report = tmp_path / "report.md"
    names = ["phase-2-majority-minus-one", "vote-not-synced", "result-of-another-command"]
    only = [word for name in names for word in ("--only", name)]
    assert main([*only, "--limit", "200", "--report", str(report)]) == 0, capfd.readouterr().out
    told = capfd.readouterr().out
    assert "3 of 3 found" in told
    assert "the same seeds are green" in told
    lines = report.read_text(encoding="utf-8").splitlines()
    assert sum(line.startswith("| ") and line.split(" | ")[0][2:] in names for line in lines) == 3


def test_what_is_not_found_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "deposed-leader-learns-and-announces", "--limit", "1", "--events", "10"]) == 1
    assert "not found: deposed-leader-learns-and-announces" in capfd.readouterr().out
