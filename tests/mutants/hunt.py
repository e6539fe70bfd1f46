"""One hunt: seeds of the simulator, one after another, with one planted bug, until a seed fails.

    python -m tests.mutants.hunt NAME FIRST LAST [--events N] [--seconds S] [--hashes] [--set NAME=VALUE]...

plays the seeds FIRST..LAST (``none`` for NAME plants nothing) and prints one JSON object: the seed that failed or null,
what failed, how many seeds were played and in how many seconds. It is a process of its own because a bug can only be
planted before the product is imported.

A seed also counts as failed where the simulator itself is brought down by the bug, or does not come to an end; with
``--hashes`` also where a second process, whose hashes are others (PYTHONHASHSEED), plays the same seed differently.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import FrameType, MappingProxyType

from tests.mutants.catalogue import MUTANTS
from tests.mutants.mutant import plant

__all__ = ["NOTHING", "Found", "main", "play"]

NOTHING = "none"
"""The name of the control: no bug is planted."""

SEED_SECONDS_MAX = 60
"""A seed that takes longer than this does not come to an end; a usual one takes a fraction of a second."""

OTHER_HASHES = "4711"


@dataclass(frozen=True)
class Found:
    """What a hunt came to."""

    seed: int | None
    failure: str
    seeds: int
    seconds: float


class _Endless(BaseException):
    """Out of everybody's reach: no handler in the product or the simulator takes it for an error of its own."""


def _ring(number: int, frame: FrameType | None) -> None:
    raise _Endless


def play_core(seed: int) -> str:
    """Plays one seed of the fuzz of the protocol's core: what failed, in one line, or nothing."""
    from tests.unit.paxos import fuzz

    signal.signal(signal.SIGALRM, _ring)
    signal.alarm(SEED_SECONDS_MAX)
    try:
        fuzz.play(seed)
    except _Endless:
        return f"the seed did not come to an end within {SEED_SECONDS_MAX} s"
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    finally:
        signal.alarm(0)
    return ""


def play(seed: int, events: int, world: Mapping[str, float] = MappingProxyType({})) -> tuple[str, str]:
    """Plays one seed: what failed, in one line, or nothing; and the hash of all that happened."""
    from paxos_rsm.sim import run_seed

    signal.signal(signal.SIGALRM, _ring)
    signal.alarm(SEED_SECONDS_MAX)
    try:
        result = run_seed(seed, events=events, changes=world)
    except _Endless:
        return f"the seed did not come to an end within {SEED_SECONDS_MAX} s", ""
    except Exception as error:
        return f"the simulator broke down: {type(error).__name__}: {error}".splitlines()[0], ""
    finally:
        signal.alarm(0)
    if result.failure is None:
        return "", result.trace_hash
    return result.failure.message.splitlines()[0], result.trace_hash


@contextmanager
def _twin(name: str, first: int, last: int, events: int) -> Iterator[Iterator[str]]:
    """A second process that plays the same seeds under other hashes: the hash of each trace, as it ends."""
    command = [sys.executable, "-m", "tests.mutants.hunt", name, str(first), str(last), "--traces"]
    environment = {**os.environ, "PYTHONHASHSEED": OTHER_HASHES}
    with subprocess.Popen(
        [*command, "--events", str(events)], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield (line.strip() for line in process.stdout or ())
        finally:
            process.kill()


def _seeds(first: int, last: int, seconds: float) -> Iterator[int]:
    end = time.monotonic() + seconds
    for seed in range(first, last + 1):
        if time.monotonic() >= end:
            return
        yield seed


def _hunt(given: argparse.Namespace) -> Found:
    started = time.monotonic()
    played = 0
    for seed in _seeds(given.first, given.last, given.seconds):
        failure = play_core(seed) if given.core else play(seed, given.events, dict(given.set))[0]
        played += 1
        if failure:
            return Found(seed, failure, played, time.monotonic() - started)
    return Found(None, "", played, time.monotonic() - started)


def _hunt_by_hashes(given: argparse.Namespace) -> Found:
    started = time.monotonic()
    played = 0
    with _twin(given.name, given.first, given.last, given.events) as others:
        for seed in _seeds(given.first, given.last, given.seconds):
            failure, trace = play(seed, given.events)
            played += 1
            if not failure and next(others, "") != trace:
                failure = "the same seed is played differently under another PYTHONHASHSEED"
            if failure:
                return Found(seed, failure, played, time.monotonic() - started)
    return Found(None, "", played, time.monotonic() - started)


def _setting(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    return name, json.loads(value)


def main(arguments: list[str]) -> int:
    """The command line. Gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants.hunt", description="Hunts one planted bug."
    )
    parser.add_argument("name")
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int)
    parser.add_argument("--events", type=int, default=3000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument(
        "--hashes", action="store_true", help="compare with a process whose hashes are others"
    )
    parser.add_argument("--core", action="store_true", help="play the fuzz of the core, not the simulator")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_setting,
        help="a field of all worlds, or the rate of a fault",
    )
    parser.add_argument("--traces", action="store_true", help="only print the hash of the trace of each seed")
    given = parser.parse_args(arguments)
    if given.name != NOTHING:
        plant(next(mutant for mutant in MUTANTS if mutant.name == given.name))
    if given.traces:
        for seed in range(given.first, given.last + 1):
            sys.stdout.write(play(seed, given.events)[1] + "\n")
            sys.stdout.flush()
        return 0
    found = _hunt_by_hashes(given) if given.hashes else _hunt(given)
    sys.stdout.write(json.dumps(asdict(found)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
