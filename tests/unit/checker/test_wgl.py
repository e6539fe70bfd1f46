"""The search itself: stopping and going on, sparing, remembering. Its verdicts are in test_models.py."""

import random

import pytest

from paxos_rsm.checker import Model, Operation
from paxos_rsm.checker.models import Counter, Register
from paxos_rsm.checker.partition import Partition, sort_by_call
from paxos_rsm.checker.wgl import Search
from tests.unit.checker.brute import execution, explains
from tests.unit.checker.objects import OBJECTS


def search(model: Model, ops: list[Operation]) -> Search:
    sort_by_call(ops)
    return Search(Partition(model, ops))


def made(name: str, seed: int, count: int = 80) -> list[Operation]:
    atomic = OBJECTS[name]
    rng = random.Random(seed)
    return execution(
        rng, atomic.invent, atomic.answer, lambda: atomic.start, count=count, processes=5, unknown=0.1
    )


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("seed", range(5))
def test_it_can_be_stopped_anywhere_and_comes_to_the_same(name: str, seed: int) -> None:
    ops = made(name, seed)
    straight = search(OBJECTS[name].model(), ops)
    assert straight.run(10**9) is True
    halting = search(OBJECTS[name].model(), ops)
    stops = 0
    while halting.run(halting.steps + 3) is None:
        stops += 1
    assert stops > 5
    assert halting.order() == straight.order()
    assert abs(halting.steps - straight.steps) <= stops


def test_a_straight_history_takes_a_step_an_operation() -> None:
    ops = [Operation(1, "write", "k", number, None, number, number + 0.5) for number in range(1000)]
    found = search(Register(), ops)
    assert found.run(10**9)
    assert found.steps == 1000
    assert found.configurations == 0, "without a choice there is nothing to remember"


def test_what_was_met_is_not_searched_again() -> None:
    """Twenty concurrent adds have 20! orders and 2^20 subsets, but only so many sums."""
    ops = [Operation(each, "add", "k", 1, None, 0, 100 + each) for each in range(12)]
    ops.append(Operation(99, "get", "k", None, -1, 0, 50))
    found = search(Counter(), ops)
    assert found.run(10**9) is False
    assert found.configurations <= 2**12
    assert found.unplaced() is ops[-1]
    assert sorted(found.stuck_states()) == list(range(13))  # type: ignore[type-var]


def test_unknown_operations_that_do_the_same_are_tried_once() -> None:
    ops = [Operation(each, "add", "k", 1, None, 0, None, "unknown") for each in range(300)]
    ops += [Operation(999, "get", "k", None, number, number, number + 0.5) for number in range(0, 300, 3)]
    ops.append(Operation(999, "get", "k", None, 301, 1000, 1001))
    found = search(Counter(), ops)
    assert found.run(200_000) is False
    assert found.unplaced() is not None
    assert found.unplaced().output == 301


def test_unknown_operations_are_spared() -> None:
    ops = [
        Operation(1, "write", "k", "a", None, 0, None, "unknown"),
        Operation(2, "write", "k", "b", None, 1, 2),
        Operation(2, "read", "k", None, "b", 3, 4),
    ]
    found = search(Register(), ops)
    assert found.run(100)
    assert [op.input for op in found.order()] == ["b", None]


def test_the_blame_is_at_the_latest_return_that_anybody_reached() -> None:
    ops = made("register", 1)
    reads = sorted((op for op in ops if op.op == "read" and op.status == "ok"), key=lambda op: op.call)
    reads[-1].output = "nobody wrote this"
    found = search(Register(), ops)
    assert found.run(10**9) is False
    assert found.unplaced() is reads[-1]
    prefix = found.prefix()
    assert explains(Register(), prefix)
    before = [op for op in ops if op.status == "ok" and op.return_ < reads[-1].return_]  # type: ignore[operator]
    assert {id(op) for op in before} <= {id(op) for op in prefix}
