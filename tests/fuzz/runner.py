"""Makes the inputs of one target, judges them, and counts.

Work is cut into chunks. A chunk has its own generator, seeded by seed, target and number, so what is tried does not
depend on how many processes try it. One input in sixteen is real and must come back as it was, one is noise; the
rest are real ones, mutated.

What a decoder may cost is watched too: now and then the memory it takes (the interpreter's, as tracemalloc sees it)
is held against the length of the input; and for the whole process the system's limit is set, so that a decoder which
believes a length of gigabytes fails.
"""

import hashlib
import signal
import time
import traceback
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from types import FrameType
from typing import Any

from paxos_rsm.paxos.types import join_frames, split_frames
from tests.fuzz.mutate import blown, edit_fields, mutated
from tests.fuzz.target import Broken, Target, judge, judge_real

__all__ = [
    "CHUNK",
    "Failure",
    "Report",
    "TooSlow",
    "check",
    "inputs_of",
    "mutant",
    "run_chunk",
    "shrunk",
    "time_limit",
]

CHUNK = 2_000
POOL = 24
MEMORY_EVERY = 256
BLOW_EVERY = 1_500
MEMORY_BYTES_FREE = 2 << 20
MEMORY_BYTES_PER_BYTE = 250
"""A decoder may take so much for each byte of input: an object and a place in a list for each field of two bytes."""
INPUT_S_MAX = 20


class TooSlow(BaseException):
    """An input takes beyond all measure. No Exception: no decoder may take it for an error of its own."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An input that a target got wrong."""

    target: str
    data: bytes
    error: str
    where: str

    @property
    def file_name(self) -> str:
        """A name for the input that the same one has again."""
        return f"{self.target}-{hashlib.sha256(self.data).hexdigest()[:12]}.bin"


@dataclass(slots=True)
class Report:
    """What was found in some inputs of one target."""

    target: str
    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    slowest_ms: float = 0.0
    failure: Failure | None = None

    def add(self, other: "Report") -> None:
        """Counts another one in."""
        self.inputs += other.inputs
        self.outcomes += other.outcomes
        self.seconds += other.seconds
        self.slowest_ms = max(self.slowest_ms, other.slowest_ms)
        self.failure = self.failure or other.failure


# ---- inputs --------------------------------------------------------------------------------------------------


def mutant(rng: Random, target: Target, data: bytes, other: bytes) -> bytes:
    """A real input, changed."""
    if target.is_joined and rng.random() < 0.75:
        data = _mutated_part(rng, data, other)
    elif target.proto_from is not None and rng.random() < 0.6:
        at = target.proto_from
        data = data[:at] + edit_fields(rng, data[at:], other[at:])
    else:
        data = mutated(rng, data, other, is_proto=target.is_proto)
    if target.mend is not None and rng.random() < 0.6:
        data = target.mend(data)
    return data


def _mutated_part(rng: Random, data: bytes, other: bytes) -> bytes:
    parts, others = list(split_frames(data)), list(split_frames(other))
    if not parts:
        return join_frames(others[:1])
    at = rng.randrange(len(parts))
    match rng.randrange(8):
        case 0:
            del parts[at]
        case 1:
            parts.insert(at, rng.choice(parts + others))
        case 2:
            parts.insert(rng.randint(0, len(parts)), parts.pop(at))
        case _:
            parts[at] = mutated(rng, parts[at], rng.choice(others or parts), is_proto=True)
    return join_frames(parts)


def inputs_of(target: Target, rng: Random, count: int) -> Iterator[tuple[bytes, Any]]:
    """Inputs, each with ``(value,)`` where it is a real one and this is what it must decode to."""
    pool = [target.make(rng)[1] for _ in range(POOL)]
    for at in range(count):
        kind = at % 16
        if kind == 0:
            value, data = target.make(rng)
            pool[rng.randrange(POOL)] = data
            yield data, None if value is None else (value,)
        elif kind == 1:
            yield rng.randbytes(rng.choice((0, 1, 4, 10, 60, 300))), None
        elif target.blows_up and at % BLOW_EVERY == BLOW_EVERY - 1:
            data = blown(rng, rng.choice(pool))
            yield data if target.mend is None else target.mend(data), None
        else:
            yield mutant(rng, target, rng.choice(pool), rng.choice(pool)), None


# ---- judgement -----------------------------------------------------------------------------------------------


def check(target: Target, data: bytes, expected: Any = None, *, weigh: bool = False) -> str:
    """What became of an input. Raises what is a bug; ``weigh``: Broken also where it takes too much memory."""
    if not weigh:
        return judge(target, data) if expected is None else judge_real(target, expected[0], data)
    tracemalloc.start()
    try:
        outcome = judge(target, data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    most = MEMORY_BYTES_FREE + MEMORY_BYTES_PER_BYTE * len(data)
    if peak > most:
        raise Broken(f"{len(data)} bytes of input took {peak} bytes of memory, above {most}")
    return outcome


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TooSlow in what runs within. Main thread only, and not under pytest-timeout, whose signal it takes."""

    def alarmed(_number: int, _frame: FrameType | None) -> None:
        raise TooSlow(f"one input takes more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, alarmed)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_chunk(target: Target, seed: int, chunk: int, count: int, *, limit_time: bool = False) -> Report:
    """Tries ``count`` inputs, or until one fails."""
    report = Report(target.name)
    rng = Random(f"{seed} {target.name} {chunk}")
    started = time.perf_counter()
    for at, (data, expected) in enumerate(inputs_of(target, rng, count)):
        report.inputs += 1
        weigh = at % MEMORY_EVERY == MEMORY_EVERY - 1 or len(data) > 20_000
        if weigh:
            expected = None
        before = time.perf_counter()
        if limit_time:
            signal.setitimer(signal.ITIMER_REAL, INPUT_S_MAX)
        try:
            report.outcomes[check(target, data, expected, weigh=weigh)] += 1
        except (Exception, TooSlow) as error:
            report.failure = failure_of(target, data, error)
            break
        report.slowest_ms = max(report.slowest_ms, 1000 * (time.perf_counter() - before))
    report.seconds = time.perf_counter() - started
    return report


def failure_of(target: Target, data: bytes, error: BaseException) -> Failure:
    """An error with the place where it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    where = next((f for f in reversed(frames) if "/paxos_rsm/" in f.filename), frames[-1])
    place = f"{where.filename.rpartition('/')[2]}:{where.lineno} {where.name}"
    return Failure(target.name, data, f"{type(error).__name__}: {str(error)[:500]}", place)


def shrunk(target: Target, failure: Failure, tries: int = 2_000) -> Failure:
    """A shorter input that fails alike: parts are left out, larger ones first."""
    best = failure
    size = max(1, len(best.data) // 2)
    while size and tries > 0:
        at = 0
        while at < len(best.data) and tries > 0:
            tries -= 1
            data = best.data[:at] + best.data[at + size :]
            if target.mend is not None:
                data = target.mend(data)
            shorter = _failing(target, data) if len(data) < len(best.data) else None
            if shorter is not None and shorter.where == best.where:
                best = shorter
            else:
                at += size
        size //= 2
    return best


def _failing(target: Target, data: bytes) -> Failure | None:
    try:
        check(target, data, weigh=len(data) > 20_000)
    except Exception as error:
        return failure_of(target, data, error)
    return None
