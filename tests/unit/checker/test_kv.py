import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paxos_rsm.checker import Operation, Verdict, check
from paxos_rsm.checker.kv import KV
from paxos_rsm.errors import HistoryError
from tests.unit.checker.brute import brute, explains, spoilt
from tests.unit.checker.objects import store_history


def kv_history(seed: int, count: int) -> list[Operation]:
    """A history of single keys; some do not tell how often a key was written."""
    rng = random.Random(seed)
    history = store_history(
        rng,
        single=True,
        count=count,
        processes=rng.randrange(1, 6),
        unknown=rng.choice([0, 0.3, 0.5]),
        failed=0.1,
        whole=rng.random() < 0.4,
    )
    kept = rng.choice(
        [("value", "mod_revision"), ("value",), ("value", "create_revision", "mod_revision", "version")]
    )
    for op in history:
        for field in ("kv", "prev_kv"):
            if op.status == "ok" and op.output.get(field):
                op.output[field] = {name: op.output[field][name] for name in kept}
    return history


def other_outputs(op: Operation) -> list[Any]:
    """Answers a little beside the one that was given."""
    output = op.output
    found = [{**output, "revision": max(1, output["revision"] + change)} for change in (-1, 1)]
    if op.op == "delete":
        found.append({**output, "deleted": 1 - output["deleted"]})
    for field in ("kv", "prev_kv"):
        kv = output.get(field)
        if kv is not None:
            found.append({**output, field: None})
            for name in ("create_revision", "mod_revision", "version"):
                if name in kv:
                    found += [{**output, field: {**kv, name: kv[name] + change}} for change in (-1, 1)]
            found.append({**output, field: {**kv, "value": "x"}})
    return found


@given(st.integers(0, 2**32), st.integers(1, 40))
@settings(max_examples=80, deadline=None)
def test_every_execution_is_linearizable(seed: int, count: int) -> None:
    history = kv_history(seed, count)
    result = check(history, KV)
    assert result.ok, result.reason
    assert all(explains(KV(), order) for order in result.orders.values())


@given(st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_the_verdict_is_that_of_trying_every_permutation(seed: int) -> None:
    history = spoilt(random.Random(seed), kv_history(seed, 6), other_outputs)
    result = check(history, KV)
    assert result.verdict is not Verdict.UNKNOWN
    assert result.ok == brute(KV(), history)


def test_spoilt_histories_are_of_both_kinds() -> None:
    verdicts = [
        check(spoilt(random.Random(seed), kv_history(seed, 6), other_outputs), KV).ok for seed in range(200)
    ]
    assert 20 < sum(verdicts) < 180


def put(value: str, revision: int, call: float, return_: float, **more: Any) -> Operation:
    return Operation(1, "put", "k", value, {"revision": revision, **more}, call, return_)


def get(call: float, return_: float, kv: Any, revision: int | None = None) -> Operation:
    output = {"kv": kv} if revision is None else {"kv": kv, "revision": revision}
    return Operation(2, "get", "k", None, output, call, return_)


def shown(value: str, mod: int, version: int, create: int) -> dict[str, Any]:
    return {"value": value, "mod_revision": mod, "version": version, "create_revision": create}


@pytest.mark.parametrize(
    ("what", "history"),
    [
        ("an older revision after a newer", [put("a", 3, 0, 1), put("b", 2, 2, 3)]),
        ("one revision twice", [put("a", 2, 0, 5), put("b", 2, 1, 6)]),
        ("a header from before the write", [put("a", 5, 0, 1), get(2, 3, shown("a", 5, 1, 5), revision=4)]),
        ("a version that skips one", [put("a", 2, 0, 1), put("b", 4, 2, 3), get(4, 5, shown("b", 4, 3, 2))]),
        (
            "a creation that is not the first write",
            [put("a", 2, 0, 1), put("b", 4, 2, 3), get(4, 5, shown("b", 4, 2, 3))],
        ),
        ("another revision than was acknowledged", [put("a", 2, 0, 1), get(2, 3, shown("a", 3, 1, 3))]),
        ("gone for nobody's doing", [put("a", 2, 0, 1), get(2, 3, None)]),
        ("a previous value that was none", [put("a", 2, 0, 1, prev_kv=shown("b", 1, 1, 1))]),
        (
            "a delete that found nothing",
            [put("a", 2, 0, 1), Operation(1, "delete", "k", None, {"revision": 2, "deleted": 0}, 2, 3)],
        ),
    ],
)
def test_what_revisions_rule_out(what: str, history: list[Operation]) -> None:
    assert check(history, KV).verdict is Verdict.VIOLATION, what


def test_other_keys_may_have_used_up_revisions() -> None:
    history = [put("a", 2, 0, 1), put("b", 90, 2, 3), get(4, 5, shown("b", 90, 2, 2), revision=200)]
    assert check(history, KV)


def test_a_read_tells_the_revision_of_an_unknown_put() -> None:
    lost = Operation(3, "put", "k", "lost", None, 0.5, None, "unknown")
    seen = get(4, 5, shown("lost", 7, 2, 2))
    assert check([put("a", 2, 0, 1), lost, seen, put("b", 9, 6, 7)], KV)
    assert not check([put("a", 2, 0, 1), lost, seen, put("b", 6, 6, 7)], KV), "6 is before what was read"
    assert not check([put("a", 8, 0, 1), lost, get(4, 5, shown("lost", 7, 2, 2))], KV)


@pytest.mark.parametrize("told", [(), ("version",)])
def test_hundreds_of_unknown_puts_and_a_stale_read(told: tuple[str, ...]) -> None:
    history: list[Operation] = []
    for number in range(400):
        call = number * 10.0
        history.append(Operation(3, "put", "k", f"lost {number}", None, call, None, "unknown"))
        history.append(put(f"v{number}", 10 + 3 * number, call + 1, call + 2))
        found = {"value": f"v{number}", **dict.fromkeys(told, number + 1)}
        history.append(Operation(2, "get", "k", None, {"kv": found}, call + 3, call + 4))
    assert check(history, KV, steps_max=200_000, clock=lambda: 0.0).ok
    history[-1].output = {"kv": {"value": "v7", "mod_revision": 31}}
    result = check(history, KV, steps_max=200_000, clock=lambda: 0.0)
    assert result.verdict is Verdict.VIOLATION
    assert result.unplaced == (history[-1],)


@pytest.mark.parametrize(
    ("op", "words"),
    [
        (Operation(1, "put", "k", "a", None, 0, 1), "give an object with revision"),
        (Operation(1, "put", "k", "a", {"revision": "2"}, 0, 1), "give an object with revision"),
        (Operation(1, "get", "k", None, {"revision": 2}, 0, 1), "give an object with kv"),
        (Operation(1, "get", "k", None, {"kv": "a"}, 0, 1), "give an object with kv"),
        (
            Operation(1, "get", "k", {"revision": 3}, {"kv": None}, 0, 1),
            "check reads of older ones with revisions",
        ),
        (Operation(1, "delete", "k", None, {"revision": 2}, 0, 1), "revision and deleted"),
        (Operation(1, "txn", "k", None, {}, 0, 1), "'txn' .* is no operation of the model kv"),
    ],
)
def test_malformed_operations(op: Operation, words: str) -> None:
    with pytest.raises(HistoryError, match=words):
        check([op], KV)


def test_a_state_in_words() -> None:
    model = KV()
    state = model.init()
    assert model.describe_state(state) == "absent"
    state = model.step(state, put("a", 4, 0, 1))
    assert model.describe_state(state) == "'a' (revision 4, version 1)"
    state = model.step(state, Operation(1, "put", "k", "b", None, 0, None, "unknown"))
    assert model.describe_state(state) == "'b' (revision 5 or later, version 2)"
    state = model.step(state, Operation(1, "delete", "k", None, {"revision": 8, "deleted": 1}, 0, 1))
    assert model.describe_state(state) == "absent since revision 8"
