"""``simulate``: turns the simulator, and everything that a state machine owes the log, on a user's own machine.

::

    simulate(Counter, lambda rnd: b"%d" % rnd.randint(-9, 9), hash_seeds=())
    simulate(LockService, LockWorkload, seeds=200)

Each seed is a cluster that runs the machine under faults (``paxos_rsm.sim``): replicas must agree, command by command,
whatever crashes and comes back. Then the commands that its log executed are given to machines alone (``contract.py``),
which names precisely what is wrong and cuts the commands down to the few that show it. In the end the commands of all
seeds are executed in processes of their own, under other values of PYTHONHASHSEED and on other days
(``hash_seeds.py``).

What one of them finds is a :class:`SimulationFailed`: the seed, what broke, what to do about it, how to repeat it, and
the end of the trace.
"""

import math
import os
import platform
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import Any, Protocol

from paxos_rsm._version import __version__
from paxos_rsm.checker import Operation, Verdict, check
from paxos_rsm.errors import ConfigError, PaxosRsmError
from paxos_rsm.machines.base import Position, StateMachine
from paxos_rsm.server.machine_loading import check_machine
from paxos_rsm.sim.failure import Failure
from paxos_rsm.sim.simulation import Simulation
from paxos_rsm.sim.world import FAULTS, TICK_UNITS
from paxos_rsm.testing.another_day import OFFSET_S
from paxos_rsm.testing.contract import ADVICE, Breach, Case, Command, Contract, short
from paxos_rsm.testing.hash_seeds import (
    HASH_SEEDS,
    Answer,
    Job,
    Played,
    Process,
    Reference,
    Workers,
    command_from_json,
    fewest_at_once,
    find_cause,
    first_difference,
    run_processes,
)
from paxos_rsm.testing.simulated_machine import Subject, Workloads

__all__ = ["CommandWorkload", "SimulationFailed", "SimulationReport", "simulate"]

EVENTS = 1000
WHOLE_SEEDS = 2
"""Seeds that every process plays whole, so that the workload is compared too."""
TRACE_LINES = 12
TRACE_CHARS = 200
COMMANDS_SHOWN = 8
CHECK_STEPS = 2_000_000
HASH = (
    "depends on PYTHONHASHSEED",
    "something iterates a set of texts or bytes, or uses hash(): sort the set, or use a dict, which keeps the order in "
    "which its keys came",
)
CLOCK = "depends on the clock", ADVICE["depends on the clock"]
NEITHER = (
    "depends on the process",
    "neither the hash seed nor the date makes the difference: look for random numbers, id(), the process id, the "
    "environment, files",
)
UNEXPLAINED = ("not deterministic", "a restored machine is another")
"""Clauses of the contract for which other processes may have a better word."""
TRACE = "the end of the trace (its times are in ticks; what the servers said to each other is left out):"
ALONE = "what one machine does with the commands:"
ALONE_LINE = "a machine applies"
QUIET = (" hears n", " on disk", " written")
"""Lines of the trace that are left out of a message: the talk of the servers, and their disks."""


class CommandWorkload(Protocol):
    """What clients ask for. Only ``command`` is needed; a plain function ``(Random) -> bytes`` will do as well.

    It may also have:

    ``query(rnd) -> bytes``
        A query. Without it clients ask ``b""``, which the machine may refuse.
    ``answered(command, result)``
        Called once for every command, in the order of the log: the place to hold answers against what they should
        be. Whatever it raises fails the seed.
    ``queried(request, result)``
        Called for queries that were answered from the newest state.
    ``model`` and ``operation(request, result, is_query)``
        A model of ``paxos_rsm.checker``, and a request in its words: ``(op, key, input, output)``, or None to leave
        it out. ``result`` is None where the outcome was never learned. What clients saw, and when, is then checked to
        be linearizable.

    There is one workload for each seed: a class is made, an object is copied.
    """

    def command(self, rnd: Random, client: int, number: int) -> bytes:
        """The ``number``-th command of a client, drawn from ``rnd`` and nothing else."""
        ...


class SimulationFailed(PaxosRsmError):
    """A machine (or a workload) is broken, and this is how; the message says everything, the attributes its parts."""

    def __init__(self, message: str, *, seed: int | None, check: str, told: str, at: Position | None) -> None:
        super().__init__(message)
        self.seed = seed
        """The seed that showed it; None where no seed was needed."""
        self.check = check
        """What broke, in a few words that stay the same: ``not deterministic``, ``query changed the state``."""
        self.told = told
        """What was seen."""
        self.at = at
        """The command that showed it, by its place in the log."""
        self.commands: list[bytes] = []
        """The fewest commands found that show it; empty where it takes more than commands."""
        self.trace: list[str] = []
        """All that happened in the seed: who said what to whom, and who executed what."""


@dataclass
class SimulationReport:
    """What was done, where nothing was found."""

    machine: str
    seeds: int = 0
    events: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """``commands`` executed by the logs, ``queries``, ``snapshots restored``, ``bad inputs`` ... checked."""
    faults: Counter[str] = field(default_factory=Counter)
    """How often each kind of fault happened."""
    hash_seeds: tuple[int, ...] = ()
    trace_hashes: dict[int, str] = field(default_factory=dict)
    """By seed, of all that happened: equal on every machine."""

    def __str__(self) -> str:
        counted = ", ".join(f"{count:,} {name}" for name, count in sorted(self.counts.items()))
        faults = ", ".join(f"{name} {count:,}" for name, count in self.faults.most_common())
        hashes = ", ".join(map(str, self.hash_seeds)) or "none"
        return (
            f"{self.machine}: {self.seeds} seeds, {self.events:,} events; {counted}; PYTHONHASHSEED {hashes}; "
            f"faults: {faults or 'none'}"
        )


def simulate(
    machine: Callable[[], StateMachine],
    workload: Any,
    *,
    seeds: Iterable[int] | int = 50,
    events: int = EVENTS,
    changes: Mapping[str, Any] | None = None,
    hash_seeds: Sequence[int] = (0, 1, 2),
    trace: str | os.PathLike[str] | None = None,
) -> SimulationReport:
    """Looks for bugs in a state machine; see the module's docstring.

    :param machine: a class, or whatever else makes a new machine.
    :param workload: a function ``(Random) -> bytes``, or a :class:`CommandWorkload` or a class of such.
    :param seeds: which; a number n means 0 to n-1.
    :param events: of a cluster, for each seed: messages delivered, disks written, calls of clients.
    :param changes: what of the world is not to be drawn from the seed, as in ``paxos_rsm.sim``: ``{"servers": 5}``.
    :param hash_seeds: values of PYTHONHASHSEED to compare. Machine and workload must then be importable.
    :param trace: a file to write the whole trace of the seed that failed to.
    :raises SimulationFailed: for what is broken.
    :raises ConfigError: where this cannot be run as it was called.
    """
    __tracebackhide__ = True  # pytest: what failed is the machine, and not a line of this package
    try:
        return _Run(machine, workload, seeds, events, changes or {}, hash_seeds, trace).run()
    except SimulationFailed as failed:
        raise failed.with_traceback(None) from failed.__cause__


class _Run:
    """One call of :func:`simulate`."""

    def __init__(
        self,
        machine: Callable[[], StateMachine],
        workload: Any,
        seeds: Iterable[int] | int,
        events: int,
        changes: Mapping[str, Any],
        hash_seeds: Sequence[int],
        trace: str | os.PathLike[str] | None,
    ) -> None:
        self.make = machine
        self.workload = workload
        self.seeds = _seeds(seeds)
        if not _is_number(events, 1):
            raise ConfigError(f"events is {events!r}; give how many each seed is to have, at least 1")
        self.events = events
        if not isinstance(changes, Mapping):
            raise ConfigError(f"changes is {changes!r}; give names and values, as in {{'servers': 5}}")
        self.changes = changes
        self.hash_seeds = _hash_seeds(hash_seeds)
        self.trace = _trace_path(trace)
        self.name = _name(machine)
        self.report = SimulationReport(self.name, hash_seeds=self.hash_seeds)
        self.workloads = Workloads(workload)
        if self.hash_seeds:
            self.references = Reference.of(machine, "machine"), Reference.of(workload, "workload")

    def run(self) -> SimulationReport:
        try:
            check_machine(self._first(), self.name)
            self.contract = Contract(self.make, counts=self.report.counts)
        except Breach as broken:
            raise self._failed(None, broken) from broken.__cause__
        played = [each for seed in self.seeds for each in (self._play(seed), self._draw(seed))]
        try:
            self.contract.check_digests()
        except Breach as broken:
            raise self._failed(None, broken) from None
        if self.hash_seeds:
            self._compare(played)
        return self.report

    def _first(self) -> StateMachine:
        try:
            return self.make()
        except Exception as error:
            raise ConfigError(
                f"{self.name}() raised {type(error).__name__}: {error}; a machine is made without arguments"
            ) from error

    # ---- one seed --------------------------------------------------------------------------------------------

    def _simulate(self, seed: int, traced: bool = False) -> tuple[Subject, Simulation, Failure | None, str]:
        subject = Subject(self.make, self.workloads.new())
        model = getattr(subject.workload, "model", None)
        simulation = subject.simulation = Simulation(
            seed,
            events=self.events,
            changes=self.changes,
            workload=subject,
            traced=traced,
            history=model is not None,
        )
        result = simulation.run()
        if not traced:
            self.report.seeds += 1
            self.report.events += result.events
            self.report.faults.update({name: n for name, n in result.fired.items() if name in FAULTS})
        return subject, simulation, result.failure, result.trace_hash

    def _play(self, seed: int) -> Played:
        """A seed, simulated; and the commands that it executed, checked alone."""
        subject, simulation, failure, trace_hash = self._simulate(seed)
        self.report.trace_hashes[seed] = trace_hash
        self.report.counts["commands"] += len(subject.commands)
        answers = self._examine(seed, subject)
        if failure is not None:
            raise self._failed(seed, self._in_words(failure, subject), trace=self._trace(seed))
        self._check_history(seed, subject, simulation)
        return Played(seed, subject.commands, answers, trace_hash)

    def _draw(self, seed: int) -> Played:
        """More commands than a cluster comes to: drawn for one machine, and checked alone."""
        subject = Subject(self.make, self.workloads.new())
        subject.draw(seed)
        return Played(seed, subject.commands, self._examine(seed, subject, drawn=True))

    def _examine(self, seed: int, subject: Subject, *, drawn: bool = False) -> list[Answer]:
        case = Case(subject.commands, list(subject.queries))
        try:
            results, digests = self.contract.check(case, seed)
        except Breach as broken:
            trace = [] if drawn else self._trace(seed)
            fewer, broken = self.contract.fewest(case, seed, broken)
            commands = list(fewer.commands)
            if self.hash_seeds and broken.check in UNEXPLAINED:
                broken, commands, trace = self._better_word(seed, fewer, case, broken, trace)
            trace = trace or self._alone(Case(commands))
            raise self._failed(seed, broken, commands, trace) from broken.__cause__
        if subject.wrong is not None:
            trace = self._alone(case) if drawn else self._trace(seed)
            raise self._failed(seed, subject.wrong, trace=trace) from subject.wrong.__cause__
        return [Answer.of(result, digest) for result, digest in zip(results, digests, strict=True)]

    def _better_word(
        self, seed: int, fewer: Case, case: Case, broken: Breach, trace: list[str]
    ) -> tuple[Breach, list[Command], list[str]]:
        """What broke, by what other processes make of it; the commands that show it; and their trace, if it has one."""
        # A few commands may be answered alike under all the hash seeds that are tried; hundreds seldom are.
        more = Subject(self.make, self.workloads.new())
        more.draw(seed)
        for tried, of_tried in ((fewer.commands, trace), (case.commands, trace), (more.commands, [])):
            found = self._explained(tried, self.hash_seeds[0])
            if found is not None:
                return *found, of_tried
        return broken, list(fewer.commands), trace

    def _in_words(self, failure: Failure, subject: Subject) -> Breach:
        """What the simulation found and the machine alone did not show."""
        told = str(failure)
        for node, name in subject.names.items():
            told = told.replace(f"{node:x}", name)
        shared = self.contract.shared()
        if shared:
            told += f"; meanwhile, {' and '.join(shared)} changed, which the replicas of this process share"
        if failure.rule in ("7", "11"):
            advice = (
                "replicas executed the same commands and do not agree: look for a clock, random numbers, id(), and "
                "state that several machines share"
            )
        else:
            advice = (
                "look at the machine and the workload; where it comes from neither, it is a bug in paxos_rsm: please "
                "report it"
            )
        return Breach("the simulation failed", told, advice)

    def _check_history(self, seed: int, subject: Subject, simulation: Simulation) -> None:
        model = getattr(subject.workload, "model", None)
        if model is None:
            return
        history: list[Operation] = []
        encode: Callable[[Any], bytes] = getattr(self.make(), "encode_result", bytes)
        for asked in simulation.history or ():
            known = asked.returned_at is not None
            result = (
                (encode(asked.result) if type(asked.result) is not bytes else asked.result) if known else None
            )
            described = subject.workload.operation(asked.request, result, asked.is_read)
            if described is not None:
                op, key, given, output = described
                history.append(
                    Operation(
                        asked.client,
                        op,
                        key,
                        given,
                        output,
                        asked.called_at / TICK_UNITS,
                        asked.returned_at / TICK_UNITS if asked.returned_at is not None else None,
                        "ok" if known else "unknown",
                    )
                )
        found = check(history, model, steps_max=CHECK_STEPS, clock=lambda: 0.0)
        self.report.counts["operations found linearizable"] += found.operations
        if found.verdict is not Verdict.LINEARIZABLE:
            advice = "the replicas agree with one another, and not with the model: one of the two is mistaken"
            if found.verdict is Verdict.UNKNOWN:
                advice = (
                    "have less overlap (changes={'in_flight_max': 1}), play fewer events, or give the operations keys "
                    "that can be checked apart"
                )
            broken = Breach(f"{found.verdict.value} (the model)", found.reason, advice)
            raise self._failed(seed, broken, trace=self._trace(seed))

    # ---- other processes -------------------------------------------------------------------------------------

    def _job(self, played: Sequence[Played], whole: Sequence[int]) -> Job:
        machine, workload = self.references
        return Job(machine, workload, self.events, self.changes, played, whole)

    def _compare(self, played: Sequence[Played]) -> None:
        processes = [Process(each, OFFSET_S * nth) for nth, each in enumerate(self.hash_seeds)]
        simulated = [each for each in played if each.trace_hash][:WHOLE_SEEDS]
        drawn = [each for each in played if not each.trace_hash][:WHOLE_SEEDS]
        job = self._job(played, [each.seed for each in simulated])
        for process, found in zip(processes, run_processes(job, processes), strict=True):
            for each, rows in zip(played, found["answers"], strict=True):
                where = first_difference([answer.row for answer in each.answers], rows)
                if where is not None:
                    raise self._other_process(each, process, where, rows)
            for each, alone, whole in zip(simulated, drawn, found["whole"], strict=True):
                self._compare_commands(alone, process, whole["drawn"])
                if whole["trace_hash"] != each.trace_hash:
                    self._compare_commands(each, process, whole["commands"], differs=True)

    def _other_process(
        self, played: Played, process: Process, where: int, rows: Sequence[Sequence[str]]
    ) -> SimulationFailed:
        commands = list(played.commands[: where + 1])
        broken = Breach(
            NEITHER[0],
            f"{_difference(commands, [each.row for each in played.answers], rows, where)} in another process",
            NEITHER[1],
            commands[-1].at,
        )
        broken, commands = self._explained(commands, process.hash_seed) or (broken, commands)
        trace = self._trace(played.seed) if played.trace_hash else self._alone(Case(commands))
        return self._failed(played.seed, broken, commands, trace)

    def _explained(self, commands: Sequence[Command], hash_seed: int) -> tuple[Breach, list[Command]] | None:
        """Whether the hash seed or the clock makes processes part over these commands; and the fewest that show it."""

        def job(cases: Sequence[Sequence[Command]]) -> Job:
            return self._job([Played(0, case, ()) for case in cases], ())

        cause = find_cause(lambda processes: run_processes(job([commands]), processes), hash_seed)
        if cause.kind == "neither":
            return None
        with Workers([cause.one, cause.other]) as workers:

            def answers(cases: Sequence[Sequence[Command]]) -> list[tuple[Any, Any]]:
                one, other = workers.run(job(cases))
                return list(zip(one["answers"], other["answers"], strict=True))

            few = fewest_at_once(
                commands, lambda cases: [first_difference(*each) is not None for each in answers(cases)]
            )
            ((one, other),) = answers([few])
        where = first_difference(one, other) or 0
        told = _difference(few, one, other, where)
        if cause.kind == "hash":
            told += f", with PYTHONHASHSEED={cause.one.hash_seed} and PYTHONHASHSEED={cause.other.hash_seed}"
        else:
            told += ", on this day and on another"
        clause, advice = HASH if cause.kind == "hash" else CLOCK
        return Breach(clause, told, advice, few[where].at), few

    def _compare_commands(
        self, played: Played, process: Process, rows: Sequence[list[Any]], *, differs: bool = False
    ) -> None:
        """Raises where a workload drew other commands there (or ``differs``: where something else did)."""
        told = "what happened in the same seed was not the same" if differs else ""
        ours = [each.data for each in played.commands]
        for command, other in zip_longest(ours, [command_from_json(row).data for row in rows]):
            if command != other:
                told = f"the same seed came to the command {short(command)} here, and to {short(other)}"
                break
        if told:
            told += f" in a process with PYTHONHASHSEED={process.hash_seed}, so that it could not be repeated"
            advice = "draw from the generator that is given, and from nothing else: sort a set before choosing from it"
            broken = Breach("the workload is not deterministic", told, advice)
            raise self._failed(played.seed, broken)

    # ---- what is said ----------------------------------------------------------------------------------------

    def _failed(
        self,
        seed: int | None,
        broken: Breach,
        commands: Sequence[Command] = (),
        trace: Sequence[str] = (),
    ) -> SimulationFailed:
        not_kept = ""
        if self.trace is not None and trace:
            try:
                self.trace.write_text("\n".join(trace) + "\n", encoding="utf-8")
            except OSError as error:  # what was found is worth more than its trace
                not_kept = f"the trace could not be written to {self.trace}: {error.strerror or error}"
        where = f" (slot {broken.at.slot}, index {broken.at.index})" if broken.at is not None else ""
        lines = [
            f"{self.name} fails{f' with seed {seed}' if seed is not None else ''}: {broken.check}",
            "",
            f"what broke:  {broken.told}{where}",
            f"what to do:  {broken.advice}",
        ]
        if commands:
            shown = [short(each.data) for each in commands[-COMMANDS_SHOWN:]]
            left = len(commands) - len(shown)
            lines.append(f"shown by:    {f'{left} commands, and ' if left else ''}{', '.join(shown)}")
        if seed is not None:
            lines.append(f"repeat it:   {self._call(seed)}")
        lines.append(f"with:        paxos_rsm {__version__}, Python {platform.python_version()}")
        if not_kept:
            lines.append(f"but:         {not_kept}")
        if trace:
            lines += ["", ALONE if trace[0].startswith(ALONE_LINE) else TRACE]
            lines += [f"  {line[:TRACE_CHARS]}" for line in _end_of(trace, broken.at)]
        failed = SimulationFailed(
            "\n".join(lines), seed=seed, check=broken.check, told=broken.told, at=broken.at
        )
        failed.commands = [each.data for each in commands]
        failed.trace = list(trace)
        return failed

    def _trace(self, seed: int) -> list[str]:
        _, simulation, failure, _ = self._simulate(seed, traced=True)
        told = list(simulation.stage.trace or ())
        return [*told, f"the seed fails: {failure}"] if failure is not None else told

    def _alone(self, case: Case) -> list[str]:
        """What one machine does with the commands, as far as it comes."""
        machine = self.make()
        told: list[str] = []
        for command in case.commands:
            try:
                outcome = short(machine.apply(command.data, command.at))
            except Exception as error:
                outcome = f"{type(error).__name__}: {error}"
            told.append(
                f"a machine applies {command.at.slot}.{command.at.index}: {short(command.data)} → {outcome}"
            )
        return told

    def _call(self, seed: int) -> str:
        """How to come back here, with the whole trace."""
        parts = [self.name.rpartition(":")[2], _name(self.workload).rpartition(":")[2], f"seeds=[{seed}]"]
        if self.events != EVENTS:
            parts.append(f"events={self.events}")
        if self.changes:
            parts.append(f"changes={dict(self.changes)!r}")
        if self.hash_seeds != (0, 1, 2):
            parts.append(f"hash_seeds={self.hash_seeds!r}")
        return f'simulate({", ".join(parts)}, trace="seed{seed}.txt")'


def _is_number(value: Any, least: int, most: float = math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _seeds(given: Any) -> list[int]:
    """The seeds to play. Raises ConfigError for what is neither a number of them nor seeds."""
    if _is_number(given, -sys.maxsize):
        found = list(range(given))
    elif isinstance(given, Iterable) and not isinstance(given, str | bytes):
        found = list(given)
    else:
        raise ConfigError(
            f"seeds is {given!r}; give a number of seeds, as in seeds=200, or seeds, as in seeds=[7]"
        )
    for seed in found:
        if not _is_number(seed, 0):
            raise ConfigError(f"the seed {seed!r} is none: a seed is a whole number from 0 on")
    if not found:
        raise ConfigError("there is no seed to play: give a number of seeds, or seeds")
    return found


def _hash_seeds(given: Any) -> tuple[int, ...]:
    """Values of PYTHONHASHSEED. Raises ConfigError for what Python would not take."""
    if not isinstance(given, Iterable) or isinstance(given, str | bytes):
        raise ConfigError(f"hash_seeds is {given!r}; give values of PYTHONHASHSEED, as in (0, 1, 2), or ()")
    found = tuple(given)
    for each in found:
        if not _is_number(each, 0, HASH_SEEDS - 1):
            raise ConfigError(
                f"hash_seeds has {each!r}; PYTHONHASHSEED is a whole number from 0 to {HASH_SEEDS - 1}"
            )
    return found


def _trace_path(given: Any) -> Path | None:
    """Where the trace is to go. Raises ConfigError where nothing can be written there: now, and not late."""
    if given is None:
        return None
    if not isinstance(given, str | os.PathLike):
        raise ConfigError(f"trace is {given!r}; give the path of a file")
    path = Path(given)
    if not path.parent.is_dir():
        raise ConfigError(
            f"the trace cannot be written to {path}: there is no directory {path.parent}; make it first"
        )
    if path.is_dir():
        raise ConfigError(f"the trace cannot be written to {path}: that is a directory; name a file in it")
    return path


def _name(found: Any) -> str:
    """``module:Class``, as it is called on the command line; of an object, that of its class."""
    named = found if hasattr(found, "__qualname__") else type(found)
    return f"{named.__module__}:{named.__qualname__}"


def _difference(
    commands: Sequence[Command], one: Sequence[Sequence[str]], other: Sequence[Sequence[str]], where: int
) -> str:
    """In which words two processes part over a command."""
    here, there = one[where], other[where]
    told = f"{short(commands[where].data)} was answered {here[0]}"
    if here[1] != there[1]:
        return f"{told} and {there[0]}"
    return f"{told} and left the digests {here[2]} and {there[2]}"


def _end_of(trace: Sequence[str], at: Position | None) -> list[str]:
    """The last lines that a user of machines wants to read: up to the command that showed it, where that is known."""
    telling = [line for line in trace if not any(quiet in line for quiet in QUIET)]
    if at is not None:
        mark = f" applies {at.slot}.{at.index}: "
        found = [number for number, line in enumerate(telling) if mark in line]
        if found:
            telling = telling[: found[0] + 1]
    return telling[-TRACE_LINES:]
