"""Histories of a whole store: against every permutation, and what revisions show that nothing else does."""

import copy
import dataclasses
import random
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paxos_rsm.checker import Operation, Verdict, check_revisions
from paxos_rsm.errors import HistoryError
from tests.unit.checker.brute import brute, copied, ordered
from tests.unit.checker.objects import RevisionStore, store_history


def made(seed: int, count: int) -> list[Operation]:
    rng = random.Random(seed)
    return store_history(
        rng,
        count=count,
        processes=rng.randrange(1, 6),
        unknown=rng.choice([0, 0.2, 0.5]),
        failed=0.1,
        whole=rng.random() < 0.4,
    )


def whole_store(history: list[Operation]) -> bool:
    """The verdict of trying every permutation, with the whole store as one state."""

    class Whole(RevisionStore):
        def step(self, state: Any, op: Operation) -> Any:
            return super().step(state, op.input)

    return brute(Whole(), [dataclasses.replace(op, key=0, input=op) for op in history])


def beside(rng: random.Random, history: list[Operation]) -> list[Operation]:
    """The history with one answer, or what is known of one outcome, a little beside the truth."""
    ops = copied(history)
    op = rng.choice(ops)
    if op.status != "ok":
        op.status = "fail" if op.status == "unknown" else "unknown"
        return ops
    op.output = output = copy.deepcopy(op.output)
    change = rng.choice([-1, 1])
    places = [output, *(output.get("responses") or ())]
    kvs = [
        kv for place in places for kv in (place.get("kv"), place.get("prev_kv"), *place.get("kvs", ())) if kv
    ]
    if kvs and rng.random() < 0.6:
        field = rng.choice(["value", "create_revision", "mod_revision", "version"])
        kv = rng.choice(kvs)
        kv[field] = rng.choice("xy") if field == "value" else kv[field] + change
    elif op.op == "delete" and rng.random() < 0.5:
        output["deleted"] = 1 - output["deleted"]
    else:
        output["revision"] += change
    return ops


@given(st.integers(0, 2**32), st.integers(0, 50))
@settings(max_examples=100, deadline=None)
def test_every_execution_is_linearizable(seed: int, count: int) -> None:
    history = made(seed, count)
    result = check_revisions(history, steps_max=200_000, clock=lambda: 0.0)
    assert result.ok, result.reason
    order = result.orders[None]
    placed = {id(op): number for number, op in enumerate(order)}
    assert {id(op) for op in history if op.status == "ok"} <= set(placed)
    assert not any(ordered(late, early) for number, early in enumerate(order) for late in order[number + 1 :])
    state: Any = RevisionStore().init()
    for op in order:
        state = RevisionStore().step(state, op)
        assert isinstance(state, tuple)


@given(st.integers(0, 2**32), st.integers(1, 6))
@settings(max_examples=300, deadline=None)
def test_the_verdict_is_that_of_trying_every_permutation(seed: int, count: int) -> None:
    history = beside(random.Random(seed), made(seed, count))
    result = check_revisions(history)
    assert result.verdict.value == ("linearizable" if whole_store(history) else "violation"), result.reason


def test_histories_beside_the_truth_are_of_both_kinds() -> None:
    verdicts = [check_revisions(beside(random.Random(seed), made(seed, 5))).ok for seed in range(200)]
    assert 20 < sum(verdicts) < 180


def put(key: str, value: str, revision: int, call: float, return_: float, **more: Any) -> Operation:
    return Operation(1, "put", key, value, {"revision": revision, **more}, call, return_)


def lost(key: str, value: str, call: float) -> Operation:
    return Operation(9, "put", key, value, None, call, None, "unknown")


def get(key: str, header: int, kv: Any, call: float, return_: float, **given: Any) -> Operation:
    return Operation(2, "get", key, given or None, {"revision": header, "kv": kv}, call, return_)


def kv(value: str, mod: int, version: int = 1) -> dict[str, Any]:
    return {"value": value, "mod_revision": mod, "version": version}


BAD: dict[str, tuple[list[Operation], str]] = {
    "one revision for two writes": ([put("a", "1", 2, 0, 9), put("b", "2", 2, 0, 9)], "both made revision 2"),
    "time goes on and revisions go back": (
        [put("a", "1", 3, 0, 1), put("b", "2", 2, 2, 3)],
        "made revision 2, after put of 'a'",
    ),
    "a read of another key from before": (
        [put("a", "1", 2, 0, 1), put("a", "2", 3, 2, 3), get("b", 2, None, 4, 5)],
        "was answered from revision 2, after",
    ),
    "a put that took effect twice": (
        [put("a", "1", 3, 0, 1), get("a", 3, kv("1", 3, 2), 2, 3)],
        "a write took effect twice",
    ),
    "a failed write that took effect": (
        [
            Operation(1, "put", "a", "1", None, 0, 1, "fail"),
            get("a", 2, kv("1", 2), 2, 3),
        ],
        "or one that failed did",
    ),
    "a stale value under a fresh header": (
        [put("a", "1", 2, 0, 1), put("a", "2", 3, 2, 3), get("a", 3, kv("1", 2), 4, 5)],
        "after put of 'a' by process 1, called at 2 had written the key at revision 3",
    ),
    "another value at a revision than was put": (
        [put("a", "1", 2, 0, 1), get("a", 2, kv("2", 2), 2, 3)],
        "shows '2' of revision 2, which put of 'a'",
    ),
    "an unknown write before it was called": (
        [put("a", "1", 3, 0, 1), lost("b", "2", 2)],
        "can have made revision 2",
    ),
    "an unknown write in two gaps": (
        [lost("b", "2", 0), put("a", "1", 4, 0, 1)],
        "more than 1 of them",
    ),
    "a transaction on the wrong branch": (
        [
            put("a", "1", 2, 0, 1),
            Operation(
                1,
                "txn",
                None,
                {
                    "compare": [{"key": "a", "target": "value", "value": "1"}],
                    "success": [],
                    "failure": [{"op": "put", "key": "a", "input": "2"}],
                },
                {"revision": 3, "succeeded": False, "responses": [{}]},
                2,
                3,
            ),
        ],
        "succeeded: False and not True",
    ),
    "half of a transaction": (
        [
            Operation(
                1,
                "txn",
                None,
                {"success": [{"op": "put", "key": key, "input": "1"} for key in "ab"]},
                {"revision": 2, "succeeded": True},
                0,
                1,
            ),
            Operation(
                2,
                "range",
                "a",
                {"range_end": "c"},
                {"revision": 2, "kvs": [{"key": "a", "value": "1"}]},
                2,
                3,
            ),
        ],
        "the keys",
    ),
    "an unknown transaction that was half seen": (
        [
            Operation(
                1,
                "txn",
                None,
                {"success": [{"op": "put", "key": key, "input": "1"} for key in "ab"]},
                None,
                0,
                None,
                "unknown",
            ),
            get("a", 2, kv("1", 2), 2, 3),
            get("b", 2, None, 4, 5),
        ],
        "tells kv: nothing and not '1'",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_known_bad_histories(name: str) -> None:
    history, words = BAD[name]
    result = check_revisions(history)
    assert result.verdict is Verdict.VIOLATION
    assert words in result.reason
    assert result.unplaced
    assert not result.orders


def test_unknown_writes_fill_gaps() -> None:
    history = [
        put("a", "1", 2, 0, 1),
        lost("a", "2", 0.5),
        lost("b", "3", 0.5),
        put("a", "4", 5, 2, 3, prev_kv=kv("2", 3, 2)),
        get("a", 5, kv("4", 5, 3), 4, 5),
    ]
    result = check_revisions(history)
    assert result.ok
    assert [op.input for op in result.orders[None]] == ["1", "2", "3", "4", None]


def test_a_wrong_choice_is_taken_back() -> None:
    """Nothing shows who made 2 and 3 but that c, read late, was never deleted by the transaction."""
    moves = {
        "success": [{"op": "put", "key": "a", "input": "x"}, {"op": "put", "key": "b", "input": "x"}],
        "compare": [{"key": "a", "target": "value", "value": "1"}],
        "failure": [{"op": "put", "key": "c", "input": "x"}],
    }
    history = [
        Operation(1, "txn", None, moves, None, 0, None, "unknown"),
        lost("a", "1", 0),
        put("d", "1", 4, 0, 1),
        Operation(2, "range", "a", {"range_end": "z", "limit": 9}, {"revision": 4, "count": 3}, 2, 3),
    ]
    assert check_revisions(history).ok
    history[-1].output["count"] = 4
    assert check_revisions(history).verdict is Verdict.VIOLATION


def test_old_revisions_and_serializable_reads() -> None:
    history = [
        put("a", "1", 2, 0, 1),
        put("a", "2", 3, 2, 3),
        get("a", 3, kv("1", 2), 4, 5, revision=2),
        get("a", 2, kv("1", 2), 6, 7, serializable=True),
    ]
    assert check_revisions(history).ok
    history[2].output["kv"] = kv("2", 3, 2)
    assert not check_revisions(history).ok
    history[2:] = [get("a", 2, kv("2", 2), 6, 7, serializable=True)]
    assert not check_revisions(history).ok


def test_an_incomplete_history_is_unknown_where_others_may_have_written() -> None:
    history = [put("a", "1", 7, 0, 1)]
    assert check_revisions(history).verdict is Verdict.VIOLATION
    result = check_revisions(history, complete=False)
    assert result.verdict is Verdict.UNKNOWN
    assert not result
    assert check_revisions(history, initial_revision=6).ok
    assert "give the initial revision" in check_revisions(history, initial_revision=8).reason


def test_limits_make_it_unknown() -> None:
    history = [put("a", str(revision), revision, revision, revision + 0.5) for revision in range(2, 3000)]
    assert check_revisions(history).ok
    result = check_revisions(history, steps_max=100)
    assert (result.verdict, result.ok) == (Verdict.UNKNOWN, False)
    times = iter([0.0, *[100.0] * 100])
    result = check_revisions(history, timeout_s=60, clock=lambda: next(times))
    assert result.verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("op", "words"),
    [
        (Operation(1, "read", "a", None, None, 0, 1), "no operation of a store with revisions"),
        (Operation(1, "put", "a", "1", None, 0, 1), "malformed"),
        (Operation(1, "put", "a", "1", {}, 0, 1), "no 'revision'"),
        (Operation(1, "put", "a", "1", {"revision": "2"}, 0, 1), "no whole number"),
        (Operation(1, "delete", "a", None, {"revision": 2}, 0, 1), "no 'deleted'"),
        (Operation(1, "txn", None, {}, {"revision": 2}, 0, 1), "no 'succeeded'"),
        (Operation(1, "put", "a", "1", {"revision": 2}, 1, 0), "before its call"),
    ],
)
def test_malformed_operations(op: Operation, words: str) -> None:
    with pytest.raises(HistoryError, match=words):
        check_revisions([op])


def test_hundreds_of_unknown_writes_that_nobody_saw() -> None:
    """Only versions, and keys that were not there yet, tell who filled the gaps."""
    rng = random.Random(3)
    history: list[Operation] = []
    kvs: dict[str, tuple[str, int, int, int]] = {}
    revision = 1
    for number in range(6000):
        key, call = f"k{rng.randrange(300)}", number * 2.0
        if rng.random() < 0.5:
            found = kvs.get(key)
            shown = found and dict(
                zip(("value", "create_revision", "mod_revision", "version"), found, strict=True)
            )
            history.append(get(key, revision, shown, call, call + 1))
            continue
        unsure = rng.random() < 0.1
        if not unsure or rng.random() < 0.5:
            revision += 1
            old = kvs.get(key)
            kvs[key] = (f"v{number}", old[1] if old else revision, revision, old[3] + 1 if old else 1)
        history.append(
            lost(key, f"v{number}", call) if unsure else put(key, f"v{number}", revision, call, call + 1)
        )
    result = check_revisions(history, steps_max=300_000, clock=time.monotonic)
    assert result.ok, result.reason
    assert len([op for op in result.orders[None] if op.status == "unknown"]) > 100
