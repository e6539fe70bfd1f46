"""``check``: is there one order of all operations, each between its call and its return, that explains every answer?

A history is linearizable if and only if each key's part of it is (Herlihy and Wing, 1990), so each is checked alone.
A key whose operations do not overlap has only one order, which is stepped through. Every other gets a search
(``wgl.py``), first with few steps, so that one hard key does not keep the others waiting; those that were not decided
take turns, with ever more steps, until the time is up.

The first key without an order ends the check: a violation. A key that was not decided makes the verdict unknown,
whatever the others said.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from paxos_rsm.checker.history import Operation, validate
from paxos_rsm.checker.model import ILLEGAL, Model
from paxos_rsm.checker.partition import Partition, sort_by_call
from paxos_rsm.checker.result import Result, Verdict
from paxos_rsm.checker.wgl import Search
from paxos_rsm.errors import HistoryError

__all__ = ["check", "partitioned"]

SLICE_STEPS = 20_000
"""Steps of a search between two looks at the clock: some tens of milliseconds."""
STATES_SHOWN_MAX = 5
CONFIGURATIONS_MAX = 2_000_000
"""Remembered configurations of all searches together: some 600 MB."""


def partitioned(history: Iterable[Operation], model: Model) -> dict[Hashable, list[Operation]]:
    """The operations that count, by key. Raises HistoryError for one that is malformed or unknown to the model."""
    found: defaultdict[Hashable, list[Operation]] = defaultdict(list)
    key_of, validate_for = model.key_of, model.validate
    for op in history:
        call, return_ = op.call, op.return_
        # Most are plain, and pass with three comparisons; validate says what is wrong with the rest.
        if op.status != "ok" or return_ is None or not call <= return_:
            validate(op)
            if op.status == "fail":
                continue
        validate_for(op)
        try:
            found[key_of(op)].append(op)
        except TypeError:
            raise HistoryError(
                f"{op.op} by process {op.process}, called at {op.call}: its key {op.key!r} cannot be hashed: use"
                " text, bytes, a number or a tuple of them"
            ) from None
    return found


def check(
    history: Iterable[Operation],
    model: Model | type[Model],
    *,
    timeout_s: float = 60.0,
    steps_max: int | None = None,
    configurations_max: int = CONFIGURATIONS_MAX,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """Checks a history against a model (an instance, or a class that needs no arguments).

    ``clock`` tells seconds, and is asked about every 20,000 steps; where time must not matter, as in a simulation,
    give ``steps_max`` and a clock that stands still. A limit that is reached makes the verdict unknown, never a pass.

    Raises HistoryError for an operation that is malformed or that the model does not know.
    """
    model = model() if isinstance(model, type) else model
    return _Check(model, timeout_s, steps_max, configurations_max, clock).run(partitioned(history, model))


class _Check:
    """One call of :func:`check`."""

    def __init__(
        self,
        model: Model,
        timeout_s: float,
        steps_max: int | None,
        configurations_max: int,
        clock: Callable[[], float],
    ) -> None:
        self.model = model
        self.clock = clock
        self.started_s = clock()
        self.deadline_s = self.started_s + timeout_s
        self.timeout_s = timeout_s
        self.steps_max = steps_max
        self.configurations_max = configurations_max
        self.steps = 0
        self.orders: dict[Hashable, tuple[Operation, ...]] = {}
        self.reached = ""
        """The limit that was reached, in words."""

    def run(self, keys: dict[Hashable, list[Operation]]) -> Result:
        self.partitions = len(keys)
        self.operations = sum(map(len, keys.values()))
        searches: dict[Hashable, Search] = {}
        for key, ops in keys.items():
            if sort_by_call(ops):
                failed = self._step_through(key, ops)
            else:
                search = Search(Partition(self.model, ops))
                failed = self._go_on(key, search, 2_000 + 20 * len(ops))
                if key not in self.orders and failed is None:
                    searches[key] = search
            if failed is not None:
                return failed
            if self.reached or (self.steps > SLICE_STEPS and self._over(searches)):
                break
        budget = 4 * SLICE_STEPS
        while searches and not self._over(searches):
            for key in list(searches):
                search = searches[key]
                failed = self._go_on(key, search, search.steps + budget, searches)
                if failed is not None:
                    return failed
                if key in self.orders:
                    del searches[key]
                if self._over(searches):
                    break
            budget *= 2
        undecided = tuple(key for key in keys if key not in self.orders)
        if undecided:
            return self._result(
                Verdict.UNKNOWN,
                f"not decided for {len(undecided)} of {len(keys)} keys within {self.reached}: nothing was shown",
                key=undecided[0],
                undecided=undecided,
            )
        return self._result(Verdict.LINEARIZABLE, "there is an order that explains every answer")

    def _over(self, searches: dict[Hashable, Search]) -> bool:
        """Whether a limit was reached."""
        if self.steps_max is not None and self.steps >= self.steps_max:
            self.reached = f"{self.steps_max} steps"
        elif self.clock() >= self.deadline_s:
            self.reached = f"{self.timeout_s:g} s"
        elif sum(search.configurations for search in searches.values()) > self.configurations_max:
            self.reached = f"{self.configurations_max} configurations"
        return bool(self.reached)

    def _go_on(
        self, key: Hashable, search: Search, steps_max: int, searches: dict[Hashable, Search] | None = None
    ) -> Result | None:
        """Searches up to ``steps_max`` steps of this search; the Result where it ended in a violation."""
        found: bool | None = None
        while found is None and search.steps < steps_max:
            before = search.steps
            share = SLICE_STEPS if self.steps_max is None else min(SLICE_STEPS, self.steps_max - self.steps)
            found = search.run(min(steps_max, before + max(share, 0)))
            self.steps += search.steps - before
            if found is None and self._over(searches if searches is not None else {key: search}):
                break
        if found:
            self.orders[key] = search.order()
        elif found is False:
            return self._violation(key, search.unplaced(), search.prefix(), search.stuck_states())
        return None

    def _step_through(self, key: Hashable, ops: list[Operation]) -> Result | None:
        """Checks operations that do not overlap; the Result where that is a violation."""
        step = self.model.step
        state = self.model.init()
        self.steps += len(ops)
        prepared: Any = self.model.prepare(ops)
        for number, op in enumerate(prepared):
            after = step(state, op)
            if after is ILLEGAL:
                return self._violation(key, ops[number], tuple(ops[:number]), [state])
            state = after
        self.orders[key] = tuple(ops)
        return None

    def _violation(
        self, key: Hashable, op: Operation, prefix: tuple[Operation, ...], states: list[Hashable]
    ) -> Result:
        described = [self.model.describe_state(state) for state in states]
        shown = described[:STATES_SHOWN_MAX]
        more = f" or {len(described) - len(shown)} others" if len(described) > len(shown) else ""
        where = "" if key is None else f"key {key!r}: "
        return self._result(
            Verdict.VIOLATION,
            f"{where}{self.model.describe(op)} by process {op.process}, called at {op.call:g} and returned at"
            f" {op.return_:g}, fits nowhere: the state can only have been {' or '.join(shown)}{more}",
            key=key,
            prefix=prefix,
            unplaced=(op,),
            states=tuple(shown),
        )

    def _result(self, verdict: Verdict, reason: str, **more: Any) -> Result:
        return Result(
            verdict=verdict,
            reason=reason,
            operations=self.operations,
            partitions=self.partitions,
            steps=self.steps,
            elapsed_s=self.clock() - self.started_s,
            orders=self.orders,
            **more,
        )
