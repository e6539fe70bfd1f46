import pytest

from paxos_rsm.checker import Model, Operation
from paxos_rsm.checker.model import ANY, ILLEGAL, hashable, short
from paxos_rsm.errors import HistoryError


def test_a_model_says_what_it_lacks() -> None:
    with pytest.raises(NotImplementedError, match="return the first state"):
        Model().init()
    with pytest.raises(NotImplementedError, match="return the next state, or ILLEGAL"):
        Model().step(None, Operation(1, "read"))


def test_without_hints_everything_may_matter() -> None:
    model, op = Model(), Operation(1, "read", "k", [1])
    assert model.needs(op) is ANY
    assert model.sets(op) is ANY
    assert model.possible(None, op)
    assert model.prepare([op]) == [op]
    assert model.key_of(op) == "k"
    assert model.identity(op) != model.identity(Operation(2, "read", "k", [1]))
    model.validate(op)


def test_an_operation_in_words() -> None:
    class Named(Model):
        name = "named"
        operations = frozenset({"get", "put"})
        reads = frozenset({"get"})

    model = Named()
    assert model.describe(Operation(1, "put", "k", "a")) == "put('a')"
    assert model.describe(Operation(1, "get", "k")) == "get() → None"
    assert model.describe(Operation(1, "put", "k", 1, None, 0, None, "unknown")) == "put(1) → ?"
    assert model.describe(Operation(1, "put", "k", 1, None, 0, 1, "fail")) == "put(1) failed"
    assert model.describe_state(ILLEGAL) == "ILLEGAL"
    assert len(short("x" * 1000)) == 60
    with pytest.raises(
        HistoryError, match=r"'pop' \(process 1, called at 0.0\) .* model named: it knows get, put"
    ):
        model.validate(Operation(1, "pop"))


def test_values_are_made_hashable_once() -> None:
    plain = Operation(1, "write", "k", "a")
    assert hashable(plain) is plain
    made = hashable(Operation(1, "write", "k", {"a": [1]}))
    assert hash(made.input) == hash(made.input)
