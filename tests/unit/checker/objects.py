"""Atomic objects, for `brute.execution`: what clients call and what they are answered. Apart from the models."""

import random
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from paxos_rsm.checker import Model, Operation
from paxos_rsm.checker.models import ILLEGAL, CasRegister, Counter, Lock, Register
from tests.unit.checker.brute import Answer, Invent, execution


@dataclass(frozen=True)
class Atomic:
    """One kind of object."""

    model: type[Model]
    invent: Invent
    answer: Answer
    start: Any = None


def invent_register(rng: random.Random, number: int) -> tuple[str, Any]:
    return rng.choice([("read", None), ("write", rng.randrange(3)), ("write", 100 + number)])


def invent_cas(rng: random.Random, number: int) -> tuple[str, Any]:
    old = rng.choice([None, 0, 1, 2])
    new = rng.choice([0, 1, 2, 100 + number])
    return rng.choice([("read", None), ("write", new), ("cas", (old, new)), ("cas", (old, new))])


def answer_register(state: Any, op: Operation) -> tuple[Any, Any]:
    if op.op == "read":
        return state, state
    if op.op == "write":
        return op.input, None
    swapped = state == op.input[0]
    return (op.input[1] if swapped else state), swapped


def invent_counter(rng: random.Random, number: int) -> tuple[str, Any]:
    return rng.choice([("get", None), ("add", None), ("add", 2), ("add", -1)])


def answer_counter(state: Any, op: Operation) -> tuple[Any, Any]:
    if op.op == "get":
        return state, state
    after = state + (1 if op.input is None else op.input)
    return after, after if op.call % 2 < 1 else None


def invent_lock(rng: random.Random, number: int) -> tuple[str, Any]:
    return rng.choice(["acquire", "release"]), rng.choice(["ann", "bob"])


def answer_lock(state: Any, op: Operation) -> tuple[Any, Any]:
    holder, token = state
    if op.op == "acquire":
        return ((op.input, token + 1), token + 1) if holder is None else (state, False)
    return ((None, token), True) if holder == op.input else (state, False)


OBJECTS = {
    "register": Atomic(Register, invent_register, answer_register),
    "cas": Atomic(CasRegister, invent_cas, answer_register),
    "counter": Atomic(Counter, invent_counter, answer_counter, 0),
    "lock": Atomic(Lock, invent_lock, answer_lock, (None, 10)),
}


# ---- a store with revisions: the state is (revision, {key: (value, create, mod, version)} as sorted pairs) ----------


def kv_document(key: Any, kv: Any) -> Any:
    if kv is None:
        return None
    return {"key": key, **dict(zip(("value", "create_revision", "mod_revision", "version"), kv, strict=True))}


class RevisionStore(Model):
    """For `brute` alone: the whole store in one state, which assigns the revisions."""

    def init(self) -> Hashable:
        return (1, ())

    def step(self, state: Any, op: Operation) -> Any:
        after, output = answer_store(state, op)
        if op.status == "ok" and any(op.output.get(name, each) != each for name, each in output.items()):
            return ILLEGAL
        return after


def answer_store(state: Any, op: Operation) -> tuple[Any, Any]:
    """Straight from etcd's description, and not by way of the checker's own naive store."""
    revision, pairs = state
    kvs = dict(pairs)
    output = _serve(kvs, op.op, op.key, op.input, revision + 1)
    if tuple(sorted(kvs.items())) != pairs:
        revision += 1
    return (revision, tuple(sorted(kvs.items()))), {"revision": revision, **output}


def _serve(kvs: dict[Any, Any], name: str, key: Any, given: Any, revision: int) -> dict[str, Any]:
    old = kvs.get(key)
    if name == "put":
        kvs[key] = (given, old[1] if old else revision, revision, old[3] + 1 if old else 1)
        return {"prev_kv": kv_document(key, old)}
    if name == "get":
        return {"kv": kv_document(key, old)}
    if name == "delete":
        return {"deleted": 0 if kvs.pop(key, None) is None else 1}
    if name == "range":
        inside = sorted(
            each
            for each in kvs
            if key <= each and (given["range_end"] in ("\0", "") or each < given["range_end"])
        )
        return {"kvs": [kv_document(each, kvs[each]) for each in inside], "count": len(inside)}
    if name == "delete_range":
        inside = [each for each in kvs if key <= each < given["range_end"]]
        for each in inside:
            del kvs[each]
        return {"deleted": len(inside)}
    compare = given["compare"][0]
    kv = kvs.get(compare["key"])
    place = {"value": 0, "create": 1, "mod": 2, "version": 3}[compare["target"]]
    actual = kv[place] if kv else (None if place == 0 else 0)
    succeeded = actual is not None and actual == compare["value"]
    requests = given["success" if succeeded else "failure"]
    responses = [_serve(kvs, each["op"], each["key"], each.get("input"), revision) for each in requests]
    return {"succeeded": succeeded, "responses": responses}


def invent_single(rng: random.Random, number: int) -> tuple[str, Any]:
    """What is about one key only."""
    value = rng.choice(["x", "y", f"v{number}"])
    return rng.choice([("put", value)] * 4 + [("get", None)] * 3 + [("delete", None)])


def invent_store(rng: random.Random, number: int) -> tuple[str, Any]:
    """The keys are drawn by `store_history`, since a transaction has several."""
    if rng.random() < 0.6:
        return invent_single(rng, number)
    value = rng.choice(["x", "y", f"v{number}"])
    target = rng.choice(["value", "version", "create", "mod"])
    one, other = rng.sample("ab", 2)
    compare = {
        "key": one,
        "target": target,
        "value": rng.choice(["x", "y"]) if target == "value" else rng.randrange(3),
    }
    requests = [{"op": "put", "key": one, "input": value}, {"op": "get", "key": other}]
    if rng.random() < 0.3:
        requests = [{"op": "delete", "key": one}]
    txn = {
        "compare": [compare],
        "success": requests,
        "failure": rng.choice([[], [{"op": "put", "key": other, "input": value}]]),
    }
    kinds = [("txn", txn), ("txn", txn), ("range", {"range_end": rng.choice(["b", "\0"])})]
    return rng.choice([*kinds, ("delete_range", {"range_end": "c"})])


def store_history(rng: random.Random, single: bool = False, **settings: Any) -> list[Operation]:
    """A legal history of the store on the keys a and b."""

    def invent(rng: random.Random, number: int) -> tuple[str, Any]:
        name, given = (invent_single if single else invent_store)(rng, number)
        return f"{name} {rng.choice('ab')}", given

    def answer(state: Any, op: Operation) -> tuple[Any, Any]:
        return answer_store(state, named_apart(op))

    return [named_apart(op) for op in execution(rng, invent, answer, lambda: (1, ()), **settings)]


def named_apart(op: Operation) -> Operation:
    name, _, key = op.op.partition(" ")
    found = None if name == "txn" else key
    return Operation(op.process, name, found, op.input, op.output, op.call, op.return_, op.status)
