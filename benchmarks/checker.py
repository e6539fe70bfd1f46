"""Measures the linearizability checker: processor time to check long histories that are linearizable.

    python benchmarks/checker.py                # a minute
    python benchmarks/checker.py --runs 5 --operations 20000

Each history is made by simulating an atomic object: processes that call, wait and return, and one moment for each
operation, somewhere in between, at which it takes effect. Every figure is the median of several runs, with the lowest
and the highest behind it, and holds the check alone, without making the history.
"""

import argparse
import heapq
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence

from paxos_rsm.checker import Operation, Result, check, check_revisions
from paxos_rsm.checker.models import KV, Register


def history(
    operations: int, keys: int, processes: int, unknown: float, revisions: bool, seed: int = 1
) -> list[Operation]:
    """A linearizable history: half reads; ``unknown`` is the share of writes whose outcome was never learned."""
    rng = random.Random(seed)
    free = [(0.0, process) for process in range(processes)]
    made: list[Operation] = []
    effects: list[tuple[float, int, Operation]] = []
    for number in range(operations):
        start, process = heapq.heappop(free)
        call = start + rng.random()
        return_ = call + 0.01 + 2 * rng.random()
        heapq.heappush(free, (return_, process))
        write = rng.random() < 0.5
        name = ("put" if write else "get") if revisions else ("write" if write else "read")
        op = Operation(
            process, name, rng.randrange(keys), f"v{number}" if write else None, None, call, return_
        )
        moment = call + (return_ - call) * rng.random()
        if write and rng.random() < unknown:
            op.status, op.return_ = "unknown", None
            moment = call + 20 * rng.random() if rng.random() < 0.5 else float("inf")
        made.append(op)
        if moment < float("inf"):
            effects.append((moment, number, op))
    effects.sort(key=lambda effect: effect[:2])
    (_answer_with_revisions if revisions else _answer)([op for _, _, op in effects])
    return made


def _answer(effects: Sequence[Operation]) -> None:
    values: dict[object, object] = {}
    for op in effects:
        if op.op == "write":
            values[op.key] = op.input
        else:
            op.output = values.get(op.key)


def _answer_with_revisions(effects: Sequence[Operation]) -> None:
    revision = 1
    kvs: dict[object, dict[str, object]] = {}
    versions: dict[object, int] = {}
    for op in effects:
        if op.op == "get":
            op.output = {"revision": revision, "kv": kvs.get(op.key)}
            continue
        revision += 1
        versions[op.key] = version = versions.get(op.key, 0) + 1
        create = kvs[op.key]["create_revision"] if op.key in kvs else revision
        kvs[op.key] = {
            "value": op.input,
            "create_revision": create,
            "mod_revision": revision,
            "version": version,
        }
        if op.status == "ok":
            op.output = {"revision": revision}


def measure(run: Callable[[], Result], runs: int) -> str:
    """Processor time: median and range. Stops the benchmark where the verdict is wrong."""
    times: list[float] = []
    for _ in range(runs):
        before = time.process_time()
        result = run()
        times.append(time.process_time() - before)
        if not result.ok:
            sys.exit(f"the verdict should be linearizable: {result.verdict.value}: {result.reason}")
    return f"{statistics.median(times):6.2f} s ({min(times):.2f}–{max(times):.2f})"


CASES = (
    # what, keys, processes, share unknown, revisions
    ("register, 1,000 keys, 10 processes", 1000, 10, 0.0, False),
    ("register, 1,000 keys, 10 processes, 2 % unknown", 1000, 10, 0.02, False),
    ("register, 10 keys, 10 processes", 10, 10, 0.0, False),
    ("register, 10 keys, 10 processes, 2 % unknown", 10, 10, 0.02, False),
    ("key-value, 1,000 keys, 10 processes, 2 % unknown", 1000, 10, 0.02, True),
    ("key-value, 10 keys, 10 processes, 2 % unknown", 10, 10, 0.02, True),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    print(
        f"{arguments.operations:,} operations, median of {arguments.runs} runs (lowest–highest), processor time"
    )
    for name, keys, processes, unknown, revisions in CASES:
        made = history(arguments.operations, keys, processes, unknown, revisions)
        model = KV if revisions else Register
        figure = measure(lambda made=made, model=model: check(made, model), arguments.runs)  # type: ignore[misc]
        print(f"{figure}   {name}")
        if revisions:
            figure = measure(lambda made=made: check_revisions(made), arguments.runs)  # type: ignore[misc]
            print(f"{figure}   the same, by replaying revisions")


if __name__ == "__main__":
    main()
