import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paxos_rsm.checker.store import KeyValue, Store, comparable, differs, made_revision, requests_of
from tests.unit.checker.objects import store_history


def filled() -> Store:
    store = Store()
    for revision, (key, value) in enumerate([("a", "1"), ("b", "2"), ("c", "3"), ("a", "4")], 2):
        store.apply("put", key, value, revision)
    return store


@given(st.integers(0, 2**32))
def test_it_answers_as_the_object_that_was_written_apart(seed: int) -> None:
    """One process, so that the order of the history is the order of the effects."""
    history = sorted(store_history(random.Random(seed), count=25, processes=1), key=lambda op: op.call)
    store, revision = Store(), 1
    for op in history:
        made = made_revision(op.op, op.input, op.output)
        revision += made
        mark = store.mark()
        assert differs(op.output, store.apply(op.op, op.key, op.input, revision)) == ""
        assert (store.mark() != mark) == made
        assert op.output["revision"] == revision


def test_the_way_back() -> None:
    store = filled()
    before, mark = dict(store.kvs), store.mark()
    store.apply("put", "a", "x", 9)
    store.apply("put", "new", "x", 10)
    store.apply("delete_range", "a", {"range_end": "\0"}, 11)
    store.apply("put", "a", "y", 12)
    assert set(store.kvs) == {b"a"}
    store.undo(mark)
    assert store.kvs == before


def test_ranges() -> None:
    store = filled()

    def keys(start: str, **given: Any) -> tuple[list[Any], int, bool]:
        found = store.apply("range", start, given, 5)
        return [key for key, _ in found["kvs"]], found["count"], found["more"]

    assert keys("a", range_end="c") == ([b"a", b"b"], 2, False)
    assert keys("b", range_end="\0") == ([b"b", b"c"], 2, False)
    assert keys("a", range_end="\0", limit=1) == ([b"a"], 3, True)
    assert keys("d", range_end="e") == ([], 0, False)


@pytest.mark.parametrize(
    ("compare", "holds"),
    [
        ({"key": "a", "target": "value", "value": "4"}, True),
        ({"key": "a", "target": "value", "result": "!=", "value": "4"}, False),
        ({"key": "a", "target": "value", "result": ">", "value": "3"}, True),
        ({"key": "none", "target": "value", "value": ""}, False),
        ({"key": "none", "target": "value", "result": "!=", "value": "4"}, False),
        ({"key": "none", "target": "version", "value": 0}, True),
        ({"key": "a", "target": "version", "value": 2}, True),
        ({"key": "a", "target": "create", "result": "<", "value": 3}, True),
        ({"key": "a", "target": "mod", "value": 5}, True),
    ],
)
def test_comparisons(compare: dict[str, Any], holds: bool) -> None:
    store = filled()
    txn = {"compare": [compare], "success": [{"op": "put", "key": "t", "input": "yes"}], "failure": []}
    assert store.apply("txn", None, txn, 6)["succeeded"] is holds
    assert (b"t" in store.kvs) is holds


def test_a_transaction_sees_its_own_writes_at_one_revision() -> None:
    requests = [{"op": "get", "key": "a"}, {"op": "put", "key": "a", "input": "5"}, {"op": "get", "key": "a"}]
    answered = filled().apply("txn", None, {"success": requests}, 6)
    first, _, last = answered["responses"]
    assert first["kv"] == KeyValue(b"4", 2, 5, 2)
    assert last["kv"] == KeyValue(b"5", 2, 6, 3)


def test_who_makes_a_revision() -> None:
    assert made_revision("put", "v", {})
    assert not made_revision("get", None, {})
    assert not made_revision("range", {}, {})
    assert made_revision("delete", None, {"deleted": 1})
    assert not made_revision("delete_range", {}, {"deleted": 0})
    txn = {"success": [{"op": "delete", "key": "a"}], "failure": [{"op": "put", "key": "a", "input": "x"}]}
    assert made_revision("txn", txn, {"succeeded": False})
    assert not made_revision("txn", txn, {"succeeded": True, "responses": [{"deleted": 0}]})
    assert made_revision("txn", txn, {"succeeded": True, "responses": [{"deleted": 1}]})
    assert list(requests_of("txn", txn)) == [("delete", "a", None), ("put", "a", "x")]


def test_what_differs_is_said() -> None:
    replayed = filled().apply("get", "a", None, 5)
    assert differs({"kv": {"value": "4", "mod_revision": 5}}, replayed) == ""
    assert differs({"kv": {"value": b"4"}}, replayed) == "", "bytes and text are one"
    assert differs({"revision": 5}, replayed) == "", "what is not told is not checked"
    assert "'3' of revision 5 and not '4' of revision 5 (version 2)" in differs(
        {"kv": {"value": "3", "mod_revision": 5}}, replayed
    )
    assert "nothing and not" in differs({"kv": None}, replayed)
    ranged = filled().apply("range", "a", {"range_end": "c"}, 5)
    assert "the keys" in differs({"kvs": [{"key": "a", "value": "4"}]}, ranged)
    assert "b'b'" in differs({"kvs": [{"key": "a", "value": "4"}, {"key": "b", "value": "9"}]}, ranged)
    assert "count: 3 and not 2" in differs({"count": 3}, ranged)
    txn = filled().apply("txn", None, {"success": [{"op": "get", "key": "a"}]}, 6)
    assert "responses: 0 responses" in differs({"responses": []}, txn)
    assert "responses: kv" in differs({"responses": [{"kv": None}]}, txn)


def test_text_and_bytes_are_compared_alike() -> None:
    assert comparable("ä") == comparable("ä".encode())
    assert comparable([1, "a"]) == (1, "a")


def test_an_operation_that_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="lease"):
        Store().apply("lease", "a", None, 2)
