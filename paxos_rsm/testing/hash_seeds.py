"""The same commands in other processes, under other values of PYTHONHASHSEED and on other days.

Servers do not share what a process draws when it starts: above all the seed of ``hash()`` for texts and bytes, hence
the order in which a set of them is iterated. Within one process every machine has the same, so nothing that runs there
can see a machine that depends on it. Each process here imports the machine by its name, executes the commands of every
seed, and says what was answered and what digest was left; it is started with a PYTHONHASHSEED of its own, and with
clocks of its own (``another_day.py``). It also plays the first seeds whole: the hash of everything that happened must
be the same, or else the workload draws differently.

Where two processes part, some more find out why: it is the hash seed, the clock, or neither (:func:`find_cause`).

Nothing is pickled: names, commands and answers travel as JSON, by files.
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
from typing import IO, Any

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
    "command_from_json",
    "find_cause",
    "run_processes",
]

ERROR_LINES = 12
HASH_SEEDS = 2**32
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

    def text(self, process: Process) -> str:
        """For the standard input of a process. Raises ConfigError for changes that JSON cannot hold."""
        document = {
            "clock_offset_s": process.clock_offset_s,
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
    """What each process says, as :func:`_work` gives it; as many at once as there are processors.

    Raises ConfigError for one that could not even begin, with the end of what it wrote.
    """
    found: list[dict[str, Any]] = []
    at_once = max(1, len(os.sched_getaffinity(0)))
    for start in range(0, len(processes), at_once):
        with contextlib.ExitStack() as stack:
            running = [_Running(stack, job, each) for each in processes[start : start + at_once]]
            found += [each.result() for each in running]
    return found


class _Running:
    def __init__(self, stack: contextlib.ExitStack, job: Job, process: Process) -> None:
        def file() -> IO[str]:
            return stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace"))

        given, self._told, self._errors = file(), file(), file()
        given.write(job.text(process))
        given.seek(0)
        self._job = job
        paths = [os.path.abspath(each) for each in sys.path]
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import main; main()"],
            stdin=given,
            stdout=self._told,
            stderr=self._errors,
            env={
                **os.environ,
                "PYTHONHASHSEED": str(process.hash_seed),
                "PYTHONPATH": os.pathsep.join(paths),
            },
        )
        stack.callback(self._end)

    def _end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def result(self) -> dict[str, Any]:
        self._process.wait()
        self._told.seek(0)
        told = self._told.read()
        if self._process.returncode or not told:
            self._errors.seek(0)
            lines = self._errors.read().splitlines()[-ERROR_LINES:]
            job = self._job
            raise ConfigError(
                f"a new process could not run {job.machine.module}:{job.machine.qualname} with "
                f"{job.workload.module}:{job.workload.qualname} (exit code {self._process.returncode}); make both "
                "importable there, or say hash_seeds=() to go without:\n"
                + "\n".join(f"  {line}" for line in lines)
            )
        found: dict[str, Any] = json.loads(told)
        return found


def find_cause(run: Callable[[Sequence[Process]], Sequence[Any]], hash_seed: int) -> str:
    """Why processes part: ``hash``, ``clock`` or ``neither``. ``run`` gives what each of some processes came to."""
    base = Process(hash_seed)
    others = [Process((hash_seed + n) % HASH_SEEDS) for n in range(1, 1 + HASH_SEEDS_TRIED)]
    first, again, moved, *hashed = run([base, base, Process(hash_seed, OFFSET_S), *others])
    if first != again:
        return "neither"
    if any(each != first for each in hashed):
        return "hash"
    return "clock" if moved != first else "neither"


# ---- the process that is asked -----------------------------------------------------------------------------


def main() -> None:
    """Does the job on standard input, and writes what it found to standard output, which nobody else gets to use."""
    with os.fdopen(os.dup(1), "w") as told:
        os.dup2(2, 1)
        job = json.load(sys.stdin)
        sys.stdin = io.StringIO()
        moved: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if job["clock_offset_s"]:
            moved = another_day(job["clock_offset_s"], whole=True)
        with moved:
            found = _work(job)
        json.dump(found, told)


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
            answer = Answer.of(machine.apply(command.data, command.at), machine.digest())
        except Exception as error:
            found.append([f"{type(error).__name__}: {error}", "raised", ""])
            break
        found.append([answer.shown, answer.hash, answer.digest])
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
    return {
        "trace_hash": result.trace_hash,
        "commands": [command_to_json(each) for each in subject.commands],
    }
