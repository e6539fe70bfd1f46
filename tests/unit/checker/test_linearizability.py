"""The histories that every checker must know, and the limits of a check."""

import random
from collections.abc import Hashable

import pytest

from paxos_rsm.checker import Model, Operation, Verdict, check, models
from paxos_rsm.checker.linearizability import partitioned
from paxos_rsm.checker.models import CasRegister, Counter, Lock, Register
from paxos_rsm.errors import HistoryError
from tests.unit.checker.brute import execution
from tests.unit.checker.objects import OBJECTS


def ok(process: int, op: str, given: object, output: object, call: float, return_: float) -> Operation:
    return Operation(process, op, "k", given, output, call, return_)


def unknown(process: int, op: str, given: object, call: float) -> Operation:
    return Operation(process, op, "k", given, None, call, None, "unknown")


def failed(process: int, op: str, given: object, call: float, return_: float) -> Operation:
    return Operation(process, op, "k", given, None, call, return_, "fail")


BAD: dict[str, tuple[type[Model], list[Operation], str]] = {
    # what, model, history, and the operation that fits nowhere as its words begin
    "stale read": (
        Register,
        [ok(1, "write", 1, None, 0, 1), ok(1, "write", 2, None, 2, 3), ok(2, "read", None, 1, 4, 5)],
        "read() → 1",
    ),
    "split brain": (
        Register,
        [
            ok(1, "write", "left", None, 0, 1),
            ok(2, "write", "right", None, 0, 1),
            ok(1, "read", None, "left", 2, 3),
            ok(2, "read", None, "right", 4, 5),
        ],
        "read() → 'right'",
    ),
    "lost update": (
        Counter,
        [ok(1, "add", 1, None, 0, 3), ok(2, "add", 1, None, 1, 4), ok(1, "get", None, 1, 5, 6)],
        "get() → 1",
    ),
    "two swaps of one value": (
        CasRegister,
        [ok(1, "write", 0, None, 0, 1), ok(1, "cas", (0, 1), True, 2, 5), ok(2, "cas", (0, 2), True, 3, 6)],
        "cas((0, 2)) → True",
    ),
    "a lock held twice": (
        Lock,
        [
            ok(1, "acquire", None, 7, 0, 1),
            ok(2, "acquire", None, 8, 2, 3),
            ok(1, "release", None, True, 4, 5),
        ],
        "acquire() → 8",
    ),
    "a fencing token that goes back": (
        Lock,
        [
            ok(1, "acquire", None, 7, 0, 1),
            ok(1, "release", None, True, 2, 3),
            ok(2, "acquire", None, 6, 4, 5),
        ],
        "acquire() → 6",
    ),
    "an add that counts twice": (
        Counter,
        [ok(1, "add", 1, None, 0, 1), ok(2, "get", None, 2, 2, 3)],
        "get() → 2",
    ),
    "an unknown add that counts twice": (
        Counter,
        [unknown(1, "add", 1, 0), ok(2, "get", None, 1, 2, 3), ok(2, "get", None, 2, 4, 5)],
        "get() → 2",
    ),
    "dirty read of a write that failed": (
        Register,
        [ok(1, "write", 1, None, 0, 1), failed(2, "write", 2, 2, 3), ok(1, "read", None, 2, 4, 5)],
        "read() → 2",
    ),
    "a read that goes back, between two clients": (
        Register,
        [
            ok(1, "write", 1, None, 0, 1),
            ok(1, "write", 2, None, 2, 9),
            ok(2, "read", None, 2, 3, 4),
            ok(3, "read", None, 1, 5, 6),
        ],
        "read() → 1",
    ),
    "a write of unknown outcome that comes and goes": (
        Register,
        [
            ok(1, "write", 1, None, 0, 1),
            unknown(2, "write", 2, 0.5),
            ok(3, "read", None, 2, 2, 3),
            ok(3, "read", None, 1, 4, 5),
        ],
        "read() → 1",
    ),
    "a value from the future": (
        Register,
        [ok(1, "read", None, 1, 0, 1), ok(1, "write", 1, None, 2, 3)],
        "read() → 1",
    ),
    "an unknown write seen before it was called": (
        Register,
        [ok(1, "read", None, 1, 0, 1), unknown(1, "write", 1, 2)],
        "read() → 1",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_known_bad_histories(name: str) -> None:
    model, history, words = BAD[name]
    result = check(history, model)
    assert result.verdict is Verdict.VIOLATION
    assert not result
    assert result.key == "k"
    (op,) = result.unplaced
    assert model().describe(op) == words
    assert words in result.reason
    assert result.states
    # Left out, the rest is linearizable: the blame is in the right place, and the history no nonsense.
    assert check([each for each in history if each is not op], model) or name == "a lock held twice"


def test_a_failure_is_found_in_any_key_and_any_order_of_lines() -> None:
    _, history, _ = BAD["stale read"]
    others = [Operation(1, "write", key, key, None, key, key + 0.5) for key in range(50)]
    result = check([*others, *reversed(history)], Register)
    assert result.verdict is Verdict.VIOLATION
    assert (result.key, result.partitions, result.operations) == ("k", 51, 53)
    assert [op.input for op in result.prefix] == [1, 2]


def test_equal_times_are_concurrent() -> None:
    history = [ok(1, "write", 1, None, 0, 5), ok(2, "read", None, None, 5, 6)]
    assert check(history, Register)
    history[1].call = 6
    assert not check(history, Register)


def test_an_unknown_outcome_may_come_late_and_a_return_of_it_means_nothing() -> None:
    late = Operation(1, "write", "k", 1, None, 0, 1, "unknown")
    assert check([late, ok(2, "read", None, None, 2, 3), ok(2, "read", None, 1, 4, 5)], Register)


def test_an_empty_history_and_one_of_failures() -> None:
    assert check([], Register)
    assert check([failed(1, "write", 1, 0, 1)], Register).operations == 0


def test_malformed_operations() -> None:
    with pytest.raises(HistoryError, match="before its call"):
        check([ok(1, "read", None, None, 3, 2)], Register)
    with pytest.raises(HistoryError, match="has no return"):
        check([Operation(1, "read", "k", None, None, 0, None)], Register)
    with pytest.raises(HistoryError, match=r"its key \['a'\] cannot be hashed"):
        check([Operation(1, "read", ["a"], None, None, 0, 1)], Register)
    assert list(partitioned([ok(1, "read", None, None, 0, 1)], Register())) == ["k"]


def hard(count: int = 26) -> list[Operation]:
    """Concurrent swaps in a chain, and a read that no order allows: every subset is a state of its own."""
    ops = [ok(process, "add", 1 << process, None, 0, 100 + process) for process in range(count)]
    return [*ops, ok(99, "get", None, -1, 0, 50)]


def test_time_that_runs_out_is_no_pass() -> None:
    times = iter([0.0] * 3 + [10.0] * 1000)
    result = check(hard(), Counter, timeout_s=5, clock=lambda: next(times))
    assert result.verdict is Verdict.UNKNOWN
    assert not result
    assert not result.ok
    assert result.undecided == ("k",)
    assert "5 s" in result.reason
    assert result.elapsed_s == 10


@pytest.mark.parametrize("steps_max", [1, 100, 50_000])
def test_steps_that_run_out_are_no_pass(steps_max: int) -> None:
    result = check(hard(), Counter, steps_max=steps_max, clock=lambda: 0.0)
    assert result.verdict is Verdict.UNKNOWN
    assert result.steps <= steps_max + 100
    assert f"{steps_max} steps" in result.reason


def test_memory_that_runs_out_is_no_pass() -> None:
    result = check(hard(), Counter, configurations_max=10_000, clock=lambda: 0.0)
    assert result.verdict is Verdict.UNKNOWN
    assert "10000 configurations" in result.reason


def test_a_hard_key_does_not_hide_the_violation_of_another() -> None:
    bad = [Operation(1, "get", "z", None, 5, 0, 1)]
    result = check([*hard(), *bad], Counter, steps_max=200_000, clock=lambda: 0.0)
    assert result.verdict is Verdict.VIOLATION
    assert result.key == "z"


def test_what_takes_many_slices_is_decided_in_the_end() -> None:
    result = check(hard(14), Counter, clock=lambda: 0.0)
    assert result.verdict is Verdict.VIOLATION
    assert result.steps > 40_000


def test_hundreds_of_unknown_writes() -> None:
    """As chaos leaves them: most never seen, some seen late; with a stale read at the end, and without."""
    rng = random.Random(5)
    atomic = OBJECTS["register"]

    def invent(rng: random.Random, number: int) -> tuple[str, object]:
        return rng.choice([("read", None), ("write", number)])

    history = execution(
        rng, invent, atomic.answer, lambda: None, count=6000, processes=8, keys=2, unknown=0.15
    )
    opened = [op for op in history if op.status == "unknown" and op.op == "write"]
    assert len(opened) > 200
    result = check(history, Register, steps_max=2_000_000, clock=lambda: 0.0)
    assert result.verdict is Verdict.LINEARIZABLE, result.reason
    reads = sorted(
        (op for op in history if op.op == "read" and op.status == "ok" and op.key == 0),
        key=lambda op: op.call,
    )
    reads[-1].output = reads[len(reads) // 2].output
    result = check(history, Register, steps_max=2_000_000, clock=lambda: 0.0)
    assert result.verdict is Verdict.VIOLATION, result.reason
    assert result.unplaced == (reads[-1],)


class Queue(Model):
    """A model as a user would write it: of two methods."""

    def init(self) -> Hashable:
        return ()

    def step(self, state: tuple[object, ...], op: Operation) -> Hashable:
        if op.op == "push":
            return (*state, op.input)
        if not state:
            return models.ILLEGAL if op.status == "ok" and op.output is not None else state
        return state[1:] if op.status != "ok" or op.output == state[0] else models.ILLEGAL


def test_a_model_of_ones_own() -> None:
    history = [
        ok(1, "push", "a", None, 0, 3),
        ok(2, "push", "b", None, 1, 4),
        unknown(3, "pop", None, 2),
        ok(1, "pop", None, "a", 5, 6),
    ]
    assert check(history, Queue)
    assert not check([*history, ok(1, "pop", None, "a", 7, 8)], Queue())
