"""The hunt for all planted bugs: `make mutants`.

    python -m tests.mutants [--only NAME]... [--limit SEEDS] [--seconds S] [--events N] [--workers N] [--report FILE]

Plays, for each bug of the catalogue, the simulator's seeds 1, 2, 3... until one fails, and says how many it took and
what failed. Then the control: the same seeds with nothing planted, as many as the bug took that was hardest to find,
must all be green; else the simulator finds bugs everywhere, and has shown nothing. Ends with 1 where a bug is
not found within the limit or the control fails.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tests.mutants.catalogue import MUTANTS
from tests.mutants.hunt import NOTHING, Found
from tests.mutants.mutant import Mutant

__all__ = ["Plan", "hunt", "main", "table"]

World: TypeAlias = tuple[tuple[str, float], ...]

ROOT = Path(__file__).resolve().parent.parent.parent
SEEDS_MAX = 10_000
EVENTS = 3_000
"""Of a seed. Several leaders in a row, each with something to decide, want room: in runs of 1,000 there is little."""
FAILURE_CHARS = 110


@dataclass(frozen=True)
class Plan:
    """How far a hunt goes: seeds, seconds, and events of each seed."""

    limit: int = SEEDS_MAX
    seconds: float = float("inf")
    events: int = EVENTS


def hunt(
    name: str,
    plan: Plan,
    first: int = 1,
    last: int = 0,
    hashes: bool = False,
    core: bool = False,
    world: World = (),
) -> Found:
    """Plays seeds with one bug planted, in a process of its own. Raises RuntimeError where that breaks down."""
    command = [sys.executable, "-m", "tests.mutants.hunt", name, str(first), str(last or plan.limit)]
    command += ["--events", str(plan.events), "--seconds", str(plan.seconds)]
    command += ["--hashes"] * hashes + ["--core"] * core
    command += [word for field, value in world for word in ("--set", f"{field}={json.dumps(value)}")]
    # The same hashes in every hunt, so that a seed that found a bug finds it again.
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    try:
        return Found(**json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        raise RuntimeError(
            f"the hunt for {name} ended with {done.returncode} and no verdict: {done.stderr[-2000:]}"
        ) from None


def hunt_all(mutants: Sequence[Mutant], plan: Plan, workers: int) -> Iterator[tuple[Mutant, Found]]:
    """The hunts, as they end. One that broke down has found nothing, and says why; the others go on."""
    with ThreadPoolExecutor(workers) as pool:
        running: dict[Future[Found], Mutant] = {
            pool.submit(hunt, m.name, plan, hashes=m.hash_seeds, core=m.core, world=m.world): m
            for m in mutants
        }
        for future in as_completed(running):
            try:
                yield running[future], future.result()
            except RuntimeError as error:
                yield running[future], Found(None, str(error), 0, 0.0)


def control(results: Sequence[tuple[Mutant, Found]], plan: Plan, workers: int) -> list[str]:
    """Plays, with nothing planted, as many seeds as any of the bugs took; what fails there, which must be nothing."""
    plan = Plan(plan.limit, events=plan.events)
    seeds = _hardest([(mutant, found) for mutant, found in results if not mutant.core and not mutant.world])
    size = max(1, -(-seeds // workers))
    hashed = _hardest([(mutant, found) for mutant, found in results if mutant.hash_seeds])
    with ThreadPoolExecutor(workers) as pool:
        parts = [
            pool.submit(hunt, NOTHING, plan, first, min(first + size - 1, seeds))
            for first in range(1, seeds + 1, size)
        ]
        if hashed:
            parts.append(pool.submit(hunt, NOTHING, plan, 1, hashed, hashes=True))
        if core := _hardest([(mutant, found) for mutant, found in results if mutant.core]):
            parts.append(pool.submit(hunt, NOTHING, plan, 1, core, core=True))
        for world in sorted({mutant.world for mutant, _ in results if mutant.world}):
            hardest = _hardest([(mutant, found) for mutant, found in results if mutant.world == world])
            parts += [pool.submit(hunt, NOTHING, plan, 1, hardest, world=world)] * bool(hardest)
        found = [part.result() for part in parts]
    return [f"seed {each.seed}: {each.failure}" for each in found if each.seed is not None]


def _hardest(results: Sequence[tuple[Mutant, Found]]) -> int:
    """How many seeds it took to find the bug that was found last; 0 where none was."""
    return max((found.seeds for _, found in results if found.seed is not None), default=0)


def _row(mutant: Mutant, found: Found, width: int) -> str:
    seeds = str(found.seeds) if found.seed is not None else f"> {found.seeds}"
    what = found.failure[:FAILURE_CHARS] if found.seed is not None else f"NOT FOUND {found.failure}"
    return f"{mutant.name:{width}}  {seeds:>7}  {found.seconds:7.1f}  {what}"


def table(results: Sequence[tuple[Mutant, Found]], note: str) -> str:
    """The results as a page of Markdown, in the order of the catalogue."""
    order = {mutant.name: at for at, mutant in enumerate(MUTANTS)}
    lines = [note, "", "| planted bug | breaks | seeds | seconds | found as |", "|---|---|--:|--:|---|"]
    for mutant, found in sorted(results, key=lambda result: order[result[0].name]):
        seeds = str(found.seeds) if found.seed is not None else f"**not in {found.seeds}**"
        what = found.failure[:FAILURE_CHARS].replace("|", "\\|")
        lines.append(f"| {mutant.name} | {mutant.rule} | {seeds} | {found.seconds:.1f} | {what} |")
    return "\n".join([*lines, ""])


def _arguments(arguments: list[str]) -> argparse.Namespace:
    names = [mutant.name for mutant in MUTANTS]
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants",
        description="Plants each bug of the catalogue and lets the simulator find it.",
    )
    parser.add_argument(
        "--only", action="append", choices=names, metavar="NAME", help="this bug (repeatable)"
    )
    parser.add_argument("--list", action="store_true", help="say which bugs there are, and what they are")
    parser.add_argument("--limit", type=int, default=SEEDS_MAX, help="seeds a bug (%(default)s)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="seconds a bug (no limit)")
    parser.add_argument("--events", type=int, default=EVENTS, help="events a seed (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes at once (%(default)s)")
    parser.add_argument("--report", type=Path, help="write the table into this file, as Markdown")
    return parser.parse_args(arguments)


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """The command line. Gives the exit status."""
    given = _arguments(arguments)
    mutants = [mutant for mutant in MUTANTS if not given.only or mutant.name in given.only]
    width = max(len(mutant.name) for mutant in mutants)
    if given.list:
        for mutant in mutants:
            _tell(f"{mutant.name:{width}}  {mutant.rule}: {mutant.why}")
        return 0
    plan = Plan(given.limit, given.seconds, given.events)
    started = time.monotonic()
    _tell(f"{'planted bug':{width}}  {'seeds':>7}  {'seconds':>7}  found as")
    results: list[tuple[Mutant, Found]] = []
    for mutant, found in hunt_all(mutants, plan, given.workers):
        results.append((mutant, found))
        _tell(_row(mutant, found, width))
    missed = [mutant.name for mutant, found in results if found.seed is None]
    hardest = _hardest(results)
    red = control(results, plan, given.workers)
    note = (
        f"{len(results) - len(missed)} of {len(results)} found, the hardest in {hardest} seeds of {plan.events} "
        f"events; without a bug, {'the same seeds are green' if not red else 'NOT GREEN: ' + '; '.join(red)}."
    )
    _tell(f"{note} {time.monotonic() - started:.0f} s.")
    if missed:
        _tell(f"not found: {', '.join(missed)}")
    if given.report is not None:
        given.report.write_text(table(results, note), encoding="utf-8")
    return 1 if missed or red else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
