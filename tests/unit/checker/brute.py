"""A checker that is too simple to be wrong, and random executions, good and spoilt.

`brute` tries every permutation of the operations that returned, with every subset of those of unknown outcome, and
knows none of what makes the search fast.
"""

import dataclasses
import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

from paxos_rsm.checker import Model, Operation
from paxos_rsm.checker.models import ILLEGAL

Invent = Callable[[random.Random, int], tuple[str, Any]]
"""What a client calls: operation and input, of a generator and the number of the call."""
Answer = Callable[[Any, Operation], tuple[Any, Any]]
"""What an atomic object answers: next state and output, of a state and an operation without output."""


def ordered(first: Operation, second: Operation) -> bool:
    """Whether `first` returned before `second` was called."""
    return first.status == "ok" and first.return_ is not None and first.return_ < second.call


def explains(model: Model, order: Sequence[Operation]) -> bool:
    """Whether this order respects time, and the model allows every answer in it."""
    for early, late in itertools.combinations(order, 2):
        if ordered(late, early):
            return False
    state: Any = model.init()
    for op in order:
        state = model.step(state, op)
        if state is ILLEGAL:
            return False
    return True


def brute(model: Model, history: Sequence[Operation]) -> bool:
    """Whether any order of any choice of the unknown operations explains the history, key by key."""
    for key in {op.key for op in history}:
        ops = [op for op in history if op.key == key]
        known = [op for op in ops if op.status == "ok"]
        unknown = [op for op in ops if op.status == "unknown"]
        subsets = itertools.chain.from_iterable(
            itertools.combinations(unknown, size) for size in range(len(unknown) + 1)
        )
        if not any(
            explains(model, order)
            for subset in subsets
            for order in itertools.permutations([*known, *subset])
        ):
            return False
    return True


def execution(
    rng: random.Random,
    invent: Invent,
    answer: Answer,
    start: Callable[[], Any],
    *,
    count: int,
    processes: int = 3,
    keys: int = 1,
    unknown: float = 0.0,
    failed: float = 0.0,
    whole: bool = False,
) -> list[Operation]:
    """A legal history: an atomic object, each operation taking effect at one random moment while it is pending.

    One of unknown outcome takes effect at some moment after its call, or never; a failed one never does. With
    `whole`, times are whole numbers, and many are equal.
    """

    def moment(start_time: float, length: float) -> float:
        return start_time + (rng.randrange(int(length) + 1) if whole else rng.random() * length)

    free: list[float] = [0] * processes
    ops: list[Operation] = []
    effects: list[tuple[float, int, Operation]] = []
    for number in range(count):
        process = min(range(processes), key=free.__getitem__)
        name, given = invent(rng, number)
        call = moment(free[process] + (1 if whole else 0.001), 2)
        return_ = moment(call, 4)
        op = Operation(process, name, rng.randrange(keys), given, None, call, return_, "ok")
        free[process] = return_
        draw = rng.random()
        if draw < unknown:
            op.status, op.return_ = "unknown", None
            if rng.random() < 0.6:
                effects.append((moment(call, 12), number, op))
        elif draw < unknown + failed:
            op.status = "fail"
        else:
            effects.append((moment(call, return_ - call), number, op))
        ops.append(op)
    states: dict[Any, Any] = {}
    for _, _, op in sorted(effects, key=lambda effect: effect[:2]):
        states[op.key], output = answer(states[op.key] if op.key in states else start(), op)
        if op.status == "ok":
            op.output = output
    rng.shuffle(ops)
    return ops


def copied(history: Sequence[Operation]) -> list[Operation]:
    """Operations of their own."""
    return [dataclasses.replace(op) for op in history]


def spoilt(
    rng: random.Random, history: Sequence[Operation], outputs: Callable[[Operation], Sequence[Any]]
) -> list[Operation]:
    """The history with other answers here and there: stale, from the future, of another client, or of nobody.

    `outputs` gives answers that an operation might have had. An unknown outcome may become a failure, so that what it
    did was done by nobody, and a failure an unknown outcome.
    """
    ops = copied(history)
    for op in ops:
        if op.status == "ok" and rng.random() < 0.35:
            op.output = rng.choice(outputs(op))
        elif op.status != "ok" and rng.random() < 0.3:
            op.status = "fail" if op.status == "unknown" else "unknown"
    return ops
