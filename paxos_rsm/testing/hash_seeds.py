"""The same commands in other processes, under other values of PYTHONHASHSEED and on other days.

Servers do not share what a process draws when it starts: above all the seed of ``hash()`` for texts and bytes, hence
the order in which a set of them is iterated. Within one process every machine has the same, so nothing that runs there
can see a machine that depends on it. Each process here imports the machine by its name, executes the commands of every
seed, and says what was answered and what digest was left; it is started with a PYTHONHASHSEED of its own, and with
clocks of its own (``another_day.py``). It also plays the first seeds whole: the hash of everything that happened must
be the same, or else the workload draws differently.

Where two processes part, some more find out why: it is the hash seed, the clock, or neither (:func:`find_cause`).

Nothing is pickled: names, commands and answers travel as JSON, a line each way.
"""

import base64
import contextlib
import importlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from typing import IO, Any, Self

from paxos_rsm.errors import ConfigError
from paxos_rsm.machines.base import Position
from paxos_rsm.testing.another_day import OFFSET_S, another_day
from paxos_rsm.testing.contract import Command, short

__all__ = [
    "Answer",
    "Job",
    "Played",
    "Process",
    "Reference",
    "Workers",
    "command_from_json",
    "find_cause",
    "run_processes",
]

ERROR_LINES = 12
HASH_SEEDS = 2**32
ROUNDS_MAX = 24
HASH_SEEDS_TRIED = 4
"""To find the cause: two elements of a set come in the same order under every other seed."""


@dataclass(frozen=True)
class Reference:
    """How another process finds an object: the module, the file it came from, and the name in it."""

    module: str
    file: str
    qualname: str

    @classmethod
    def of(cls, found: Any, what: str) -> "Reference":
        """Raises ConfigError where a process that starts anew could not find it."""
        module = getattr(found, "__module__", None)
        qualname = getattr(found, "__qualname__", None)
        why = ""
        if not isinstance(module, str) or not isinstance(qualname, str):
            why = f"it is {short(found)}, an object that only exists here"
        elif module == "__main__":
            why = f"{qualname} is defined in __main__, the program that was started"
        elif "<" in qualname:
            why = f"{qualname} is defined inside of a function, or is a lambda"
        elif cls._find(sys.modules.get(module), qualname) is not found:
            why = f"{module}:{qualname} is something else"
        if why:
            raise ConfigError(
                f"the {what} cannot be run under another PYTHONHASHSEED: {why}. Replicas that iterate sets in "
                "different orders would go unnoticed. Move it to a module, as a class or a function, where a "
                "new process can import it; or say hash_seeds=() to go without"
            )
        return cls(str(module), getattr(sys.modules[str(module)], "__file__", None) or "", str(qualname))

    @staticmethod
    def _find(module: Any, qualname: str) -> Any:
        found = module
        for name in qualname.split("."):
            found = getattr(found, name, None)
        return found

    def load(self) -> Any:
        """The object, imported; by its file where its module has no name that can be imported."""
        try:
            module = importlib.import_module(self.module)
        except ModuleNotFoundError:
            spec = importlib.util.spec_from_file_location(self.module, self.file) if self.file else None
            if spec is None or spec.loader is None:
                raise
            module = importlib.util.module_from_spec(spec)
            sys.modules[self.module] = module
            spec.loader.exec_module(module)
        return self._find(module, self.qualname)


@dataclass(frozen=True)
class Answer:
    """What a command was answered, in words and as a hash, and the digest after it."""

    shown: str
    hash: str
    digest: str

    @property
    def row(self) -> list[str]:
        """As another process tells it."""
        return [self.shown, self.hash, self.digest]

    @classmethod
    def of(cls, result: bytes, digest: bytes) -> "Answer":
        """Of an answer as it came."""
        return cls(short(result), blake2b(result, digest_size=16).hexdigest(), digest.hex())


@dataclass(frozen=True)
class Played:
    """Commands in the order of a log, what they were answered here, and the seed that they come from."""

    seed: int
    commands: Sequence[Command]
    answers: Sequence[Answer]
    trace_hash: str = ""
    """Of all that happened when the seed was simulated; empty where these commands come from no simulation."""


@dataclass(frozen=True)
class Process:
    """Under what a process runs."""

    hash_seed: int
    clock_offset_s: int = 0


@dataclass
class Job:
    """What every process is to do: execute the commands of ``played``, and simulate the seeds in ``whole`` anew."""

    machine: Reference
    workload: Reference
    events: int
    changes: Mapping[str, Any]
    played: Sequence[Played]
    whole: Sequence[int] = ()

    def text(self) -> str:
        """For the standard input of a process. Raises ConfigError for changes that JSON cannot hold."""
        document = {
            "machine": vars(self.machine),
            "workload": vars(self.workload),
            "events": self.events,
            "changes": dict(self.changes),
            "whole": list(self.whole),
            "played": [[command_to_json(command) for command in each.commands] for each in self.played],
        }
        try:
            return json.dumps(document)
        except TypeError as error:
            raise ConfigError(
                f"the changes of the world cannot be handed to another process ({error}): give numbers, texts and "
                "lists, or say hash_seeds=()"
            ) from None


def command_to_json(command: Command) -> list[Any]:
    return [command.at.slot, command.at.index, base64.b64encode(command.data).decode("ascii")]


def command_from_json(row: list[Any]) -> Command:
    return Command(Position(row[0], row[1]), base64.b64decode(row[2]))


# ---- the process that asks ---------------------------------------------------------------------------------


def run_processes(job: Job, processes: Sequence[Process]) -> list[dict[str, Any]]:
    """What processes say, each a new one; as many at once as there are processors. Raises as :class:`Workers` does."""
    found: list[dict[str, Any]] = []
    at_once = max(1, len(os.sched_getaffinity(0)))
    for start in range(0, len(processes), at_once):
        with Workers(processes[start : start + at_once]) as workers:
            found += workers.run(job)
    return found


class Workers:
    """Processes that do one job after the other, all of them the same."""

    def __init__(self, processes: Sequence[Process]) -> None:
        self._processes = processes
        self._stack = contextlib.ExitStack()
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        self._workers = [_Worker(self._stack, each) for each in self._processes]
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def run(self, job: Job) -> list[dict[str, Any]]:
        """What each says, as :func:`_work` gives it.

        Raises ConfigError for one that could not do it, with the end of what it wrote.
        """
        text = job.text()
        for worker in self._workers:
            worker.give(text)
        return [worker.take(job) for worker in self._workers]


def _file(stack: contextlib.ExitStack) -> IO[str]:
    return stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace"))


class _Worker:
    def __init__(self, stack: contextlib.ExitStack, process: Process) -> None:
        self._errors = _file(stack)
        paths = [os.path.abspath(each) for each in sys.path]
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import main; main({process.clock_offset_s})"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
            env={
                **os.environ,
                "PYTHONHASHSEED": str(process.hash_seed),
                "PYTHONPATH": os.pathsep.join(paths),
            },
        )
        stack.callback(self._end)

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def give(self, text: str) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it has ended: its words follow
                self._process.stdin.write(f"{text}\n")
                self._process.stdin.flush()

    def take(self, job: Job) -> dict[str, Any]:
        told = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not told:
            code = self._process.wait()
            self._errors.seek(0)
            lines = self._errors.read().splitlines()[-ERROR_LINES:]
            raise ConfigError(
                f"a new process could not run {job.machine.module}:{job.machine.qualname} with "
                f"{job.workload.module}:{job.workload.qualname} (exit code {code}); make both importable there, or "
                "say hash_seeds=() to go without:\n" + "\n".join(f"  {line}" for line in lines)
            )
        found: dict[str, Any] = json.loads(told)
        return found


@dataclass(frozen=True)
class Cause:
    """Why processes part: ``hash``, ``clock`` or ``neither``; and two that do."""

    kind: str
    one: Process
    other: Process


def find_cause(run: Callable[[Sequence[Process]], Sequence[Any]], hash_seed: int) -> Cause:
    """Changes one thing at a time. ``run`` gives what each of some processes comes to."""
    base, moved = Process(hash_seed), Process(hash_seed, OFFSET_S)
    others = [Process((hash_seed + n) % HASH_SEEDS) for n in range(1, 1 + HASH_SEEDS_TRIED)]
    first, again, on_another_day, *hashed = run([base, base, moved, *others])
    if first == again:
        for other, outcome in zip(others, hashed, strict=True):
            if outcome != first:
                return Cause("hash", base, other)
        if on_another_day != first:
            return Cause("clock", base, moved)
    return Cause("neither", base, base)


def first_difference(one: Sequence[Sequence[str]], other: Sequence[Sequence[str]]) -> int | None:
    """The first command that two processes answered otherwise, or after which their digests differ."""
    for number in range(max(len(one), len(other))):
        if number >= min(len(one), len(other)) or one[number][1:] != other[number][1:]:
            return number
    return None


def fewest_at_once(
    commands: Sequence[Command], breaks: Callable[[Sequence[Sequence[Command]]], Sequence[bool]]
) -> list[Command]:
    """As :func:`~paxos_rsm.testing.contract.fewest`, where it costs the same to try one as to try many."""
    kept = list(commands)
    size = max(1, len(kept) // 2)
    for _ in range(ROUNDS_MAX):
        pieces = [kept[start : start + size] for start in range(0, len(kept), size)]
        broken = breaks([_joined(pieces, [nth]) for nth in range(len(pieces))])
        unneeded = [nth for nth, is_broken in enumerate(broken) if is_broken]
        # What can be left out by itself can often not be left out together: as much of it as can.
        trials = [
            _joined(pieces, unneeded[start : start + length])
            for length in range(len(unneeded), 0, -1)
            for start in range(0, len(unneeded), length)
        ]
        shorter = [each for each, is_broken in zip(trials, breaks(trials), strict=True) if is_broken]
        if shorter:
            kept = min(shorter, key=len)
        elif size == 1:
            break
        else:
            size = max(1, size // 2)
    return kept


def _joined(pieces: Sequence[Sequence[Command]], without: Sequence[int]) -> list[Command]:
    return list(chain(*[piece for nth, piece in enumerate(pieces) if nth not in without]))


# ---- the process that is asked -----------------------------------------------------------------------------


def main(clock_offset_s: int) -> None:
    """Does the jobs on standard input, a line each, and writes what it found to standard output, a line each.

    Nobody else gets to use those two here.
    """
    with os.fdopen(os.dup(0), encoding="utf-8") as jobs, os.fdopen(os.dup(1), "w", encoding="utf-8") as told:
        os.dup2(2, 1)
        sys.stdin = io.StringIO()
        moved: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if clock_offset_s:
            moved = another_day(clock_offset_s, whole=True)
        with moved:
            for job in jobs:
                told.write(json.dumps(_work(json.loads(job))) + "\n")
                told.flush()


def _work(job: dict[str, Any]) -> dict[str, Any]:
    """What all the commands were answered (an error may end them), and what came of the seeds that were simulated."""
    make = Reference(**job["machine"]).load()
    workload = Reference(**job["workload"]).load()
    return {
        "answers": [_answers(make, list(map(command_from_json, rows))) for rows in job["played"]],
        "whole": [_play(make, workload, seed, job["events"], job["changes"]) for seed in job["whole"]],
    }


def _answers(make: Callable[[], Any], commands: Sequence[Command]) -> list[list[str]]:
    machine = make()
    found: list[list[str]] = []
    for command in commands:
        try:
            found.append(Answer.of(machine.apply(command.data, command.at), machine.digest()).row)
        except Exception as error:
            found.append([f"{type(error).__name__}: {error}", "raised", ""])
            break
    return found


def _play(
    make: Callable[[], Any], workload: Any, seed: int, events: int, changes: Mapping[str, Any]
) -> dict[str, Any]:
    # Only here: most processes simulate nothing, and start in a quarter of the time without it.
    from paxos_rsm.sim.simulation import Simulation
    from paxos_rsm.testing.simulated_machine import Subject, Workloads

    subject = Subject(make, Workloads(workload).new())
    simulation = subject.simulation = Simulation(seed, events=events, changes=changes, workload=subject)
    result = simulation.run()
    drawing = Subject(make, Workloads(workload).new())
    drawing.draw(seed)
    return {
        "trace_hash": result.trace_hash,
        "commands": [command_to_json(each) for each in subject.commands],
        "drawn": [command_to_json(each) for each in drawing.commands],
    }
