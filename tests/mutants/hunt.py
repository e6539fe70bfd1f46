"""One hunt: seeds of the simulator, one after another, with one planted bug, until a seed fails.

    python -m tests.mutants.hunt NAME FIRST LAST [--events N] [--seconds S]

plays the seeds FIRST..LAST (``none`` for NAME plants nothing) and prints one JSON object: the seed that failed or null,
what failed, how many seeds were played and in how many seconds. It is a process of its own because a bug can only be
planted before the product is imported.

A seed also counts as failed where the simulator itself is brought down by the bug, or does not come to an end.
"""

import argparse
import json
import signal
import sys
import time
from dataclasses import asdict, dataclass
from types import FrameType

from tests.mutants.catalogue import MUTANTS
from tests.mutants.mutant import plant

__all__ = ["NOTHING", "Found", "main", "play"]

NOTHING = "none"
"""The name of the control: no bug is planted."""

SEED_SECONDS_MAX = 60
"""A seed that takes longer than this does not come to an end; a usual one takes a fraction of a second."""


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


def play(seed: int, events: int) -> str | None:
    """Plays one seed; what failed, in one line, or None."""
    from paxos_rsm.sim import run_seed

    signal.signal(signal.SIGALRM, _ring)
    signal.alarm(SEED_SECONDS_MAX)
    try:
        failure = run_seed(seed, events=events).failure
    except _Endless:
        return f"the seed did not come to an end within {SEED_SECONDS_MAX} s"
    except Exception as error:
        return f"the simulator broke down: {type(error).__name__}: {error}".splitlines()[0]
    finally:
        signal.alarm(0)
    return None if failure is None else f"{failure.rule}: {failure.message}".splitlines()[0]


def _hunt(first: int, last: int, events: int, seconds: float) -> Found:
    started = time.monotonic()
    seed = first
    while seed <= last and time.monotonic() - started < seconds:
        failure = play(seed, events)
        if failure is not None:
            return Found(seed, failure, seed - first + 1, time.monotonic() - started)
        seed += 1
    return Found(None, "", seed - first, time.monotonic() - started)


def main(arguments: list[str]) -> int:
    """The command line. Gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants.hunt", description="Hunts one planted bug."
    )
    parser.add_argument("name")
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int)
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    given = parser.parse_args(arguments)
    if given.name != NOTHING:
        plant(next(mutant for mutant in MUTANTS if mutant.name == given.name))
    found = _hunt(given.first, given.last, given.events, given.seconds)
    sys.stdout.write(json.dumps(asdict(found)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
