"""Other processes: what can be run there, what they say, and why they part."""

import sys
from collections.abc import Sequence
from functools import partial
from random import Random
from typing import Any

import pytest

from paxos_rsm.errors import ConfigError
from paxos_rsm.machines.base import Position
from paxos_rsm.testing.another_day import OFFSET_S
from paxos_rsm.testing.contract import Command
from paxos_rsm.testing.hash_seeds import (
    Job,
    Played,
    Process,
    Reference,
    command_from_json,
    fewest_at_once,
    find_cause,
    first_difference,
    run_processes,
)
from tests.unit.testing import broken_machines as broken


def job(
    machine: Any, commands: Sequence[bytes], workload: Any = broken.Names, whole: Sequence[int] = ()
) -> Job:
    played = Played(0, [Command(Position(2, n), data) for n, data in enumerate(commands)], ())
    return Job(Reference.of(machine, "machine"), Reference.of(workload, "workload"), 200, {}, [played], whole)


def test_what_another_process_can_import_is_found_again() -> None:
    for found in (broken.Right, broken.adds_and_takes):
        reference = Reference.of(found, "machine")
        assert reference.module == broken.__name__
        assert reference.load() is found


def test_a_module_without_a_name_is_found_by_its_file(tmp_path: Any) -> None:
    (tmp_path / "elsewhere_only.py").write_text("class Machine:\n    pass\n")
    reference = Reference("elsewhere_only", str(tmp_path / "elsewhere_only.py"), "Machine")
    try:
        assert reference.load().__name__ == "Machine"
    finally:
        sys.modules.pop("elsewhere_only", None)
    with pytest.raises(ModuleNotFoundError):
        Reference("nowhere_at_all", "", "Machine").load()


def test_what_it_cannot_import_is_refused_in_words() -> None:
    class Local(broken.Right):
        pass

    class Main(broken.Right):
        pass

    Main.__module__, Main.__qualname__ = "__main__", "Main"
    for found, why in (
        (Local, "inside of a function"),
        (lambda rnd: b"", "a lambda"),
        (Main, "__main__, the program that was started"),
        (broken.Names(), "an object that only exists here"),
        (partial(broken.Right), "an object that only exists here"),
    ):
        with pytest.raises(ConfigError, match=why) as refused:
            Reference.of(found, "workload")
        assert "hash_seeds=()" in str(refused.value)


def test_processes_answer_and_play() -> None:
    asked = job(broken.Right, [b"add x anna", b"take x", b"take x"], whole=[1])
    first, second = run_processes(asked, [Process(1), Process(2, OFFSET_S)])
    assert first == second
    assert [row[0] for row in first["answers"][0]] == ["b'ok'", "b'anna'", "b'error: unknown command'"]
    (whole,) = first["whole"]
    assert len(whole["trace_hash"]) == 32
    assert all(isinstance(command_from_json(row), Command) for row in whole["commands"])
    assert len(whole["drawn"]) == 200


def test_a_machine_that_raises_there_ends_its_answers() -> None:
    (found,) = run_processes(job(broken.RaisesAtOnce, [b"add x anna", b"take x", b"take x"]), [Process(1)])
    assert [row[1] for row in found["answers"][0]][1:] == ["raised"]
    assert found["answers"][0][1][0] == "KeyError: 'nobody'"


def test_a_date_that_was_imported_by_name_is_another_there() -> None:
    asked = job(broken.AsksTheDateByDatetime, [b"add x anna"])
    today, another = run_processes(asked, [Process(1), Process(1, OFFSET_S)])
    assert today["answers"] != another["answers"]


def test_a_process_that_cannot_begin_is_told_with_its_words() -> None:
    asked = job(broken.Right, [])
    asked.machine = Reference("nowhere_at_all", "", "Machine")
    with pytest.raises(ConfigError, match="No module named 'nowhere_at_all'"):
        run_processes(asked, [Process(1)])


def test_changes_that_cannot_travel_are_refused() -> None:
    asked = job(broken.Right, [])
    asked.changes = {"settings": Random(1)}
    with pytest.raises(ConfigError, match="cannot be handed to another process"):
        asked.text()


def cause(outcome: Any) -> str:
    """What is found where ``outcome`` is what a process comes to."""
    return find_cause(lambda processes: [outcome(each) for each in processes], 2**32 - 1).kind


def test_the_cause_is_found_by_changing_one_thing_at_a_time() -> None:
    assert cause(lambda process: process.hash_seed % 2) == "hash"
    assert cause(lambda process: process.clock_offset_s) == "clock"
    assert cause(lambda process: 1) == "neither"
    chance = iter(range(100))
    assert cause(lambda process: next(chance)) == "neither"
    assert cause(lambda process: (process.hash_seed % 2, process.clock_offset_s)) == "hash"


def test_two_processes_that_part_are_named() -> None:
    found = find_cause(lambda processes: [each.hash_seed for each in processes], 7)
    assert (found.one.hash_seed, found.other.hash_seed) == (7, 8)
    found = find_cause(lambda processes: [each.clock_offset_s for each in processes], 7)
    assert (found.one.clock_offset_s, found.other.clock_offset_s) == (0, OFFSET_S)


def test_the_first_difference_is_that_of_answers_or_digests() -> None:
    rows = [["shown", "a", "1"], ["shown", "b", "2"]]
    assert first_difference(rows, rows) is None
    assert first_difference(rows, [["otherwise", "a", "1"], ["shown", "b", "3"]]) == 1
    assert first_difference(rows, rows[:1]) == 1


def test_fewest_at_once_leaves_only_what_is_needed() -> None:
    commands = [Command(Position(n, 0), b"%d" % n) for n in range(150)]
    needed = {commands[3], commands[70], commands[149]}
    rounds = 0

    def breaks(cases: Sequence[Sequence[Command]]) -> list[bool]:
        nonlocal rounds
        rounds += 1
        return [needed <= set(each) for each in cases]

    assert set(fewest_at_once(commands, breaks)) == needed
    assert rounds <= 48
    assert fewest_at_once(commands[:1], lambda cases: [False] * len(cases)) == commands[:1]
