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
    find_cause,
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
        asked.text(Process(1))


def cause(outcome: Any) -> str:
    """What is found where ``outcome`` is what a process comes to."""
    return find_cause(lambda processes: [outcome(each) for each in processes], 2**32 - 1)


def test_the_cause_is_found_by_changing_one_thing_at_a_time() -> None:
    assert cause(lambda process: process.hash_seed % 2) == "hash"
    assert cause(lambda process: process.clock_offset_s) == "clock"
    assert cause(lambda process: 1) == "neither"
    chance = iter(range(100))
    assert cause(lambda process: next(chance)) == "neither"
    assert cause(lambda process: (process.hash_seed % 2, process.clock_offset_s)) == "hash"
