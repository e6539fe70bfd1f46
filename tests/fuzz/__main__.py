"""``python -m tests.fuzz``: see the docstring of the package."""

import argparse
import math
import multiprocessing
import sys
import time
from pathlib import Path

from tests.fuzz.processes import fuzz
from tests.fuzz.runner import Failure, Report, check, shrunk
from tests.fuzz.targets import TARGETS


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _table(reports: dict[str, Report]) -> None:
    _say(f"{'target':<24}{'inputs':>10}{'accepted':>10}{'refused':>10}{'inputs/s':>10}{'slowest':>10}  by")
    for report in reports.values():
        accepted = report.outcomes["accepted"]
        refused = sum(report.outcomes.values()) - accepted
        by = ", ".join(f"{name} {n:,}" for name, n in report.outcomes.most_common() if name != "accepted")
        speed = report.inputs / report.seconds if report.seconds else 0
        _say(
            f"{report.target:<24}{report.inputs:>10,}{accepted:>10,}{refused:>10,}{speed:>10,.0f}"
            f"{report.slowest_ms:>7.0f} ms  {by}"
        )


def _tell(failure: Failure, folder: Path) -> None:
    failure = shrunk(TARGETS[failure.target], failure)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / failure.file_name
    path.write_bytes(failure.data)
    _say(f"\nFAILED {failure.target} at {failure.where}: {failure.error}")
    _say(
        f"  input ({len(failure.data)} bytes): {failure.data[:60].hex()}{'...' if len(failure.data) > 60 else ''}"
    )
    _say(f"  again: python -m tests.fuzz --target {failure.target} --input {path}")


def main() -> int:
    """Exit status 1 where an input was got wrong, 2 where the arguments are."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description="Feeds every decoder with bad input."
    )
    parser.add_argument("--inputs", type=int, default=1_000_000, help="over all targets together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--target", action="append", choices=sorted(TARGETS), help="only this one; may be repeated"
    )
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count(), help="processes")
    parser.add_argument("--save", type=Path, default=Path("fuzz-failures"), help="where failing inputs go")
    parser.add_argument("--input", type=Path, help="try the input in this file, with one --target")
    parser.add_argument("--engine", choices=("mutation", "atheris"), default="mutation")
    parser.add_argument(
        "--seconds", type=int, help="stop after so long; with atheris: 60 a target, unless said"
    )
    given = parser.parse_args()
    names: list[str] = given.target or list(TARGETS)
    if given.input is not None:
        if len(names) != 1:
            parser.error("--input goes with one --target")
        data = given.input.read_bytes()
        _say(check(TARGETS[names[0]], data, weigh=len(data) > 20_000))
        return 0
    if given.engine == "atheris":
        from tests.fuzz.guided import search

        return search(names, given.seed, given.seconds or 60, given.save)
    started = time.monotonic()
    reports = fuzz(names, given.inputs, given.seed, given.jobs, given.seconds or math.inf)
    _table(reports)
    total = sum(report.inputs for report in reports.values())
    _say(f"{total:,} inputs, {len(names)} targets, seed {given.seed}, {time.monotonic() - started:.0f} s")
    failures = [report.failure for report in reports.values() if report.failure is not None]
    for failure in failures:
        _tell(failure, given.save)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
