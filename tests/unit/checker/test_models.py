"""Each model against its object, with the checker and the brute-force one side by side; and what it refuses to read."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paxos_rsm.checker import Model, Operation, check
from paxos_rsm.checker.model import ILLEGAL
from paxos_rsm.checker.models import MODELS, CasRegister, Counter, Lock, Register
from paxos_rsm.errors import HistoryError
from tests.unit.checker.brute import brute, execution, explains, spoilt
from tests.unit.checker.objects import OBJECTS, Atomic


def outputs(op: Operation) -> list[Any]:
    """Answers that an operation of any of the objects might have had."""
    answers: dict[str, list[Any]] = {
        "read": [None, 0, 1, 2],
        "write": [None],
        "cas": [True, False],
        "get": [-1, 0, 1, 2, 3],
        "add": [None, 0, 1, 2, 3],
        "acquire": [False, 11, 12, 13, True],
        "release": [True, False],
    }
    return answers[op.op]


def made(atomic: Atomic, seed: int, count: int) -> list[Operation]:
    rng = random.Random(seed)
    return execution(
        rng,
        atomic.invent,
        atomic.answer,
        lambda: atomic.start,
        count=count,
        processes=rng.randrange(1, 6),
        keys=rng.randrange(1, 3),
        unknown=rng.choice([0, 0.2, 0.5]),
        failed=0.1,
        whole=rng.random() < 0.4,
    )


@pytest.mark.parametrize("name", OBJECTS)
@given(seed=st.integers(0, 2**32), count=st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_every_execution_of_an_atomic_object_is_linearizable(name: str, seed: int, count: int) -> None:
    atomic = OBJECTS[name]
    history = made(atomic, seed, count)
    result = check(history, atomic.model)
    assert result.ok, result.reason
    for key, order in result.orders.items():
        assert explains(atomic.model(), order)
        known = {id(op) for op in history if op.key == key and op.status == "ok"}
        placed = [id(op) for op in order]
        assert known <= set(placed)
        assert len(set(placed)) == len(placed)
        assert all(op.status != "fail" for op in order)


@pytest.mark.parametrize("name", OBJECTS)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 6))
@settings(max_examples=150, deadline=None)
def test_the_verdict_is_that_of_trying_every_permutation(name: str, seed: int, count: int) -> None:
    atomic = OBJECTS[name]
    history = spoilt(random.Random(seed), made(atomic, seed, count), outputs)
    result = check(history, atomic.model)
    assert result.verdict.value == ("linearizable" if brute(atomic.model(), history) else "violation")
    for key, order in result.orders.items():
        assert explains(atomic.model(), order), key
    if result.unplaced:
        assert explains(atomic.model(), result.prefix)
        assert not explains(atomic.model(), [*result.prefix, *result.unplaced])


@pytest.mark.parametrize("name", OBJECTS)
def test_spoilt_histories_are_of_both_kinds(name: str) -> None:
    """The agreement above would be worth little on histories that are all of one kind."""
    atomic = OBJECTS[name]
    verdicts = [
        check(spoilt(random.Random(seed), made(atomic, seed, 5), outputs), atomic.model).ok
        for seed in range(200)
    ]
    assert 20 < sum(verdicts) < 180


def test_every_model_has_its_name() -> None:
    assert {name: model.name for name, model in MODELS.items()} == {name: name for name in MODELS}


@pytest.mark.parametrize(
    ("model", "op", "words"),
    [
        (Register, Operation(1, "get", "k", None, None, 0, 1), "'get' .* it knows read, write"),
        (CasRegister, Operation(1, "cas", "k", "a", True, 0, 1), "give the pair"),
        (CasRegister, Operation(1, "cas", "k", ("a", "b"), None, 0, 1), "say true where"),
        (Counter, Operation(1, "add", "k", "1", None, 0, 1), "its input is '1': give a whole number"),
        (Counter, Operation(1, "get", "k", None, True, 0, 1), "its output is True"),
        (Lock, Operation(1, "acquire", "k", None, None, 0, 1), "give the fencing token"),
    ],
)
def test_an_operation_that_the_model_does_not_know(model: type[Model], op: Operation, words: str) -> None:
    with pytest.raises(HistoryError, match=words):
        check([op], model)


def test_values_need_not_be_hashable() -> None:
    history = [
        Operation(1, "write", "k", {"a": [1, 2]}, None, 0, 1),
        Operation(1, "cas", "k", [{"a": (1, 2)}, [3]], True, 2, 3),
        Operation(1, "read", "k", None, [3], 4, 5),
        Operation(2, "write", "k", [4], None, 0, None, "unknown"),
    ]
    assert check(history, CasRegister)
    history[2].output = [4, 5]
    assert not check(history, CasRegister)


def test_a_register_may_begin_with_a_value() -> None:
    read = Operation(1, "read", "k", None, 7, 0, 1)
    assert check([read], Register(7))
    assert not check([read], Register)
    assert check([Operation(1, "get", "k", None, 7, 0, 1)], Counter(7))


def test_a_refused_swap_may_owe_its_answer_to_a_write_that_nobody_saw() -> None:
    history = [
        Operation(1, "write", "k", "a", None, 0, 1),
        Operation(2, "write", "k", "never seen", None, 0, None, "unknown"),
        Operation(1, "cas", "k", ("a", "b"), False, 2, 3),
    ]
    assert check(history, CasRegister)
    assert not check([history[0], history[2]], CasRegister)


def test_a_lock_without_tokens_and_one_that_expires() -> None:
    taken = [Operation(1, "acquire", "k", None, True, 0, 1), Operation(2, "acquire", "k", None, True, 2, 3)]
    assert not check(taken, Lock)
    assert check([*taken, Operation(1, "expire", "k", None, None, 1.5, None, "unknown")], Lock)
    assert check([*taken, Operation(9, "release", "k", 1, True, 1.5, 2.5)], Lock)
    assert Lock().describe_state((1, 7)) == "held by 1, last token 7"
    assert Lock().describe_state((None, None)) == "free"


def test_an_unknown_acquire_has_used_up_a_token() -> None:
    history = [
        Operation(1, "acquire", "k", None, 5, 0, 1),
        Operation(1, "release", "k", None, True, 2, 3),
        Operation(2, "acquire", "k", None, None, 4, None, "unknown"),
        Operation(2, "release", "k", None, True, 6, 7),
        Operation(3, "acquire", "k", None, 6, 8, 9),
    ]
    assert not check(history, Lock), "6 can only have been the token of the unknown one"
    history[-1].output = 7
    assert check(history, Lock)
    assert Lock().step((None, 6), history[-1]) == (3, 7)
    assert Lock().step((None, 7), history[-1]) is ILLEGAL
