"""What is noted about a user's machine and workload while the simulator plays."""

import re
import threading
from random import Random
from typing import Any

import pytest

from paxos_rsm.errors import ConfigError
from paxos_rsm.machines.base import BatchStateMachine, Position
from paxos_rsm.sim.failure import Broken
from paxos_rsm.sim.simulation import Simulation
from paxos_rsm.testing.contract import Breach, Command
from paxos_rsm.testing.simulated_machine import Subject, Workloads
from tests.unit.testing import broken_machines as broken

AT = Position(2, 0)


def subject(make: Any = broken.Right, workload: Any = broken.Names) -> Subject:
    return Subject(make, Workloads(workload).new())


def test_a_workload_comes_in_three_forms() -> None:
    for form in (broken.adds_and_takes, broken.Names, broken.Names()):
        command = Workloads(form).new().command(Random(1), 1, 1)
        assert command == broken.Names().command(Random(1), 1, 1)


def test_each_seed_has_a_workload_of_its_own() -> None:
    for form in (broken.Objects, broken.Objects()):
        workloads = Workloads(form)
        first = workloads.new()
        first.answered(b"add x anna", b"ok")
        assert first.added
        assert not workloads.new().added


def test_a_workload_that_cannot_be_copied_is_refused() -> None:
    class Holds(broken.Names):
        def __init__(self) -> None:
            self.lock = threading.Lock()

    with pytest.raises(ConfigError, match=r"cannot be copied .*: give its class"):
        Workloads(Holds()).new()
    assert Workloads(Holds).new().lock


@pytest.mark.parametrize("form", [7, object(), int])
def test_what_is_no_workload_is_refused(form: Any) -> None:
    with pytest.raises(ConfigError, match="is no workload"):
        Workloads(form)


def test_commands_and_queries_are_bytes() -> None:
    class Texts:
        def command(self, rnd: Random, client: int, number: int) -> Any:
            return "add"

        def query(self, rnd: Random) -> Any:
            return None

    texts = subject(workload=Texts)
    with pytest.raises(ConfigError, match="'add', which is str; commands are bytes"):
        texts.command(Random(1), 1, 1)
    with pytest.raises(ConfigError, match="None, which is NoneType; queries are bytes"):
        texts.query(Random(1))


def test_a_workload_that_raises_is_told_where() -> None:
    class Raises(broken.Names):
        def command(self, rnd: Random, client: int, number: int) -> bytes:
            return [b"add x anna"][number]

    subjected = subject(workload=Raises)
    subjected.draw(0)
    assert subjected.wrong is not None
    assert subjected.wrong.check == "the workload raised"
    assert re.search(
        r"command raised IndexError: .* \(test_simulated_machine\.py, line \d+\)", subjected.wrong.told
    )


def test_the_log_is_known_from_whoever_comes_first() -> None:
    subjected = subject()
    one, other = subjected.machine(), subjected.machine()
    one.apply(b"add x anna", AT)
    other.apply(b"add x anna", AT)
    other.apply(b"take x", Position(2, 1))
    one.apply(b"take x", Position(2, 1))
    assert subjected.commands == [Command(AT, b"add x anna"), Command(Position(2, 1), b"take x")]


def test_answers_are_judged_once_each_in_the_order_of_the_log() -> None:
    heard: list[tuple[bytes, bytes]] = []

    class Hears(broken.Names):
        def answered(self, command: bytes, result: bytes) -> None:
            heard.append((command, result))

        def queried(self, request: bytes, result: bytes) -> None:
            heard.append((request, result))

        def __deepcopy__(self, memo: object) -> "Hears":
            return self

    subjected = subject(workload=Hears())
    one, other = subjected.machine(), subjected.machine()
    one.apply(b"add x anna", AT)
    one.query(b"x")
    other.query(b"x")  # from a state that is not the newest: nothing can be said of it
    other.apply(b"add x anna", AT)
    other.query(b"x")
    assert heard == [(b"add x anna", b"ok"), (b"x", b"1"), (b"x", b"1")]


def test_an_objection_is_a_complaint() -> None:
    subjected = subject(workload=broken.Objects)
    machine = subjected.machine()
    with pytest.raises(Broken, match="the workload objects"):
        subjected.listen("answered", b"take x", b"anna", AT)
    assert subjected.wrong is not None
    assert subjected.wrong.check == "the workload objects"
    machine.query(b"x")


@pytest.mark.parametrize(
    ("make", "check"),
    [(broken.RaisesAtOnce, "apply raised"), (broken.ResultIsText, "a result is not bytes")],
)
def test_what_a_machine_does_wrong_is_noted(make: Any, check: str) -> None:
    subjected = subject(make)
    machine = subjected.machine()
    machine.restore([b"[('x', ['anna'])]"])
    with pytest.raises(Broken):
        machine.apply(b"take x", AT)
    assert isinstance(subjected.wrong, Breach)
    assert subjected.wrong.check == check


def test_a_query_may_raise_only_where_nobody_asked_for_it() -> None:
    silent = subject(broken.QueryRaises, broken.adds_and_takes)
    assert silent.query(Random(1)) == b""
    assert silent.machine().query(b"") == b""
    asked = subject(broken.QueryRaises)
    with pytest.raises(Broken, match="query raised"):
        asked.machine().query(b"x")


def test_machines_that_take_frames_still_do() -> None:
    subjected = subject(broken.RightInBatches)
    machine = subjected.machine()
    assert isinstance(machine, BatchStateMachine)
    results = machine.apply_batch([b"add x anna", b"take x"], AT)
    assert [machine.encode_result(each) for each in results] == [b"ok", b"anna"]
    assert [each.at.index for each in subjected.commands] == [0, 1]
    assert not isinstance(subject().machine(), BatchStateMachine)


def test_servers_are_named_in_the_trace() -> None:
    subjected = subject()
    simulation = subjected.simulation = Simulation(
        1, events=300, workload=subjected, traced=True, changes={"servers": 3}
    )
    result = simulation.run()
    assert result.failure is None
    applied = [line.split()[1] for line in result.trace if " applies " in line]
    assert set(applied) == {"n1", "n2", "n3"}
    assert set(subjected.names.values()) == {"n1", "n2", "n3"}
