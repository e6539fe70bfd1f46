"""A user's machine and workload, as the simulator wants them; and what is noted about both while a seed is played.

Every machine that the simulated servers make is wrapped. So what it raises, or answers that is no bytes, is noted in
words before it stops a server; the commands of the log are known afterwards, with their places, for the checks that
need no cluster; and the trace tells which server executed what, in the user's own bytes.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any

from paxos_rsm.errors import ConfigError
from paxos_rsm.machines.base import (
    BatchStateMachine,
    Position,
    StateMachine,
    TimedStateMachine,
    Timeout,
    Timer,
)
from paxos_rsm.sim.failure import Broken
from paxos_rsm.sim.simulation import Simulation
from paxos_rsm.testing.contract import Breach, Command, breach, raised, short

__all__ = ["Subject", "Workloads"]

QUERIES_KEPT = 32
DRAWN = 200
"""Commands that are drawn for one machine alone."""
DRAWING_CLIENTS = 3


class Workloads:
    """A workload in any of its forms, and one for each seed: what it remembers of one must not reach the next.

    A function ``(Random) -> bytes`` gives commands. An object has ``command(rnd, client, number)``, and may have
    ``query(rnd)``, ``answered(command, result)`` and ``queried(request, result)``; a class of such objects is made
    without arguments for each seed, an object is copied.
    """

    def __init__(self, workload: Any) -> None:
        self._workload = workload
        has_command = callable(getattr(workload, "command", None))
        if not has_command and not callable(workload):
            raise ConfigError(
                f"{workload!r} is no workload: give a function that draws a command, (random.Random) -> bytes, or an "
                "object with command(rnd, client, number)"
            )
        if isinstance(workload, type) and not has_command:
            raise ConfigError(
                f"{workload.__qualname__} is no workload: it has no command(rnd, client, number)"
            )
        self.is_function = not has_command

    def new(self) -> Any:
        """For one seed."""
        if self.is_function:
            return _Function(self._workload)
        if isinstance(self._workload, type):
            return self._workload()
        try:
            return copy.deepcopy(self._workload)
        except Exception as error:
            raise ConfigError(
                f"the workload {self._workload!r} cannot be copied ({type(error).__name__}: {error}), and each seed "
                "needs one of its own: give its class"
            ) from error


class _Function:
    """A function as an object."""

    def __init__(self, function: Callable[[Random], bytes]) -> None:
        self._function = function

    def command(self, rnd: Random, client: int, number: int) -> bytes:
        return self._function(rnd)


class Subject:
    """What is under test in one seed: a :class:`~paxos_rsm.sim.workload.Workload` for the simulator.

    ``wrong`` is what a machine or a workload did wrong first; ``commands`` what the log has executed, in its order;
    ``lines`` of the trace are told where the simulation is traced.
    """

    def __init__(self, make: Callable[[], StateMachine], workload: Any) -> None:
        self._make = make
        self.workload = workload
        self.wrong: Breach | None = None
        self.commands: list[Command] = []
        self.queries: dict[bytes, None] = {}
        self.simulation: Simulation | None = None
        self._hosts: dict[int, tuple[int, int]] = {}
        self.names: dict[int, str] = {}
        """Servers by incarnation, for messages."""

    def draw(self, seed: int) -> None:
        """Has one machine execute commands without a cluster: more of them than a seed comes to.

        Ends early where the machine, or the workload, does something wrong: that is noted.
        """
        machine = self.machine()
        rnd = Random(f"{seed}/drawn")
        made: Counter[int] = Counter()
        slot, index = 1, 0
        for _ in range(DRAWN):
            slot, index = (slot, index + 1) if rnd.random() < 0.5 else (slot + 1, 0)
            client = rnd.randint(1, DRAWING_CLIENTS)
            made[client] += 1
            try:
                machine.apply(self.command(rnd, client, made[client]), Position(slot, index))
                if rnd.random() < 0.1:
                    machine.query(self.query(rnd))
            except ConfigError:
                raise
            except Exception:
                return

    # ---- what the simulator asks -----------------------------------------------------------------------------

    def machine(self) -> StateMachine:
        """A new machine, wrapped, for the server that is being started."""
        name = self._booting()
        inner = self._make()
        batch, timed = isinstance(inner, BatchStateMachine), isinstance(inner, TimedStateMachine)
        return _WATCHED[batch, timed](self, name, inner)

    def command(self, rnd: Random, client: int, number: int) -> bytes:
        """Drawn by the user's workload."""
        command = self._drawn("command", rnd, client, number)
        if type(command) is not bytes:
            raise ConfigError(
                f"the workload drew {short(command)}, which is {type(command).__name__}; commands are bytes"
            )
        return command

    def query(self, rnd: Random) -> bytes:
        """Drawn by the user's workload; b"" where it draws none."""
        if not self.has_queries:
            return b""
        request = self._drawn("query", rnd)
        if type(request) is not bytes:
            raise ConfigError(
                f"the workload drew {short(request)}, which is {type(request).__name__}; queries are bytes"
            )
        if len(self.queries) < QUERIES_KEPT:
            self.queries[request] = None
        return request

    def _drawn(self, method: str, *args: Any) -> object:
        try:
            return getattr(self.workload, method)(*args)
        except Exception as error:
            advice = "draw something in every state that the workload can be in"
            broken = Breach("the workload raised", f"{method} {raised(error)}", advice)
            raise self.complain(broken) from error

    def executed(self, command: bytes, result: Any) -> None:
        """Nothing to do: the machines have told, in the order of the log."""

    def queried(self, request: bytes, result: bytes) -> None:
        """As :meth:`executed`."""

    # ---- what the machines tell ------------------------------------------------------------------------------

    @property
    def has_queries(self) -> bool:
        """Whether the workload draws queries: the b"" that is asked otherwise may be refused."""
        return getattr(self.workload, "query", None) is not None

    def executes(self, command: Command) -> bool:
        """A machine is about to execute a command. Whether it is the first to come to it."""
        if self.commands and command.at <= self.commands[-1].at:
            return False
        self.commands.append(command)
        return True

    def complain(self, wrong: Breach) -> Broken:
        """Something is wrong; the first complaint counts."""
        if self.wrong is None:
            self.wrong = wrong
        return Broken("machine", str(wrong))

    @property
    def traced(self) -> bool:
        """Whether anybody is going to read the trace."""
        return self.simulation is not None and self.simulation.stage.trace is not None

    def tell(self, line: str) -> None:
        """Adds a line to the trace. Where making the line costs something, ask :attr:`traced` first."""
        if self.simulation is not None:
            self.simulation.stage.tell(line)

    def listen(self, method: str, given: bytes, result: bytes, at: Position) -> None:
        """Lets the workload judge an answer: ``answered`` or ``queried``."""
        judge = getattr(self.workload, method, None)
        if judge is None:
            return
        try:
            judge(given, result)
        except Exception as error:
            told = f"{method}({short(given)}, {short(result)}) raised {type(error).__name__}: {error}"
            advice = "the workload says that this answer is wrong, though every server gives it: either is mistaken"
            raise self.complain(Breach("the workload objects", told, advice, at)) from error

    def _booting(self) -> str:
        """The name of the server that makes a machine now: the one that has just counted a boot."""
        if self.simulation is None:
            return "n?"
        name = "n?"
        for number, server in self.simulation.servers.items():
            life = server.node, server.boot_count
            if self._hosts.get(number, (0, 0)) != life:
                self._hosts[number] = life
                name = self.names[server.node] = f"n{number}"
        return name


class _Watched:
    """One server's machine."""

    def __init__(self, subject: Subject, name: str, machine: StateMachine) -> None:
        self._subject = subject
        self._name = name
        self._machine = machine
        self._at = Position(0, 0)

    def apply(self, command: bytes, at: Position) -> bytes:
        first = self._subject.executes(Command(at, command))
        try:
            result = self._machine.apply(command, at)
        except Exception as error:
            told = f"apply raised {type(error).__name__}: {error} on the command {short(command)}"
            raise self._subject.complain(breach("apply raised", told, at)) from error
        self._check_bytes("apply", command, result, at)
        self._done(Command(at, command), result, first)
        return result

    def _done(self, command: Command, result: bytes, first: bool) -> None:
        self._at = command.at
        subject = self._subject
        if subject.traced:
            place = f"{command.at.slot}.{command.at.index}"
            subject.tell(f"{self._name} applies {place}: {short(command.data)} → {short(result)}")
        if first:
            subject.listen("answered", command.data, result, command.at)

    def _check_bytes(self, what: str, given: object, result: object, at: Position) -> None:
        if type(result) is not bytes:
            told = f"{what} answered {short(result)}, which is {type(result).__name__}, to {short(given)}"
            raise self._subject.complain(breach("a result is not bytes", told, at))

    def query(self, request: bytes) -> bytes:
        subject = self._subject
        try:
            result = self._machine.query(request)
        except Exception as error:
            if not subject.has_queries:
                return b""
            told = f"query raised {type(error).__name__}: {error} on the request {short(request)}"
            raise subject.complain(breach("query raised", told, self._at)) from error
        self._check_bytes("query", request, result, self._at)
        if subject.traced:
            subject.tell(f"{self._name} is asked {short(request)} → {short(result)}")
        if subject.commands and self._at == subject.commands[-1].at:
            subject.listen("queried", request, result, self._at)
        return result

    def snapshot(self) -> Iterable[bytes]:
        return self._machine.snapshot()

    def restore(self, chunks: Iterable[bytes]) -> None:
        self._machine.restore(chunks)

    def digest(self) -> bytes:
        return self._machine.digest()


class _WatchedBatch(_Watched):
    """One that takes whole frames."""

    _machine: BatchStateMachine

    def apply_batch(self, commands: Sequence[bytes], at: Position) -> list[Any]:
        subject = self._subject
        given = [Command(Position(at.slot, at.index + nth), data) for nth, data in enumerate(commands)]
        first = [subject.executes(each) for each in given]
        try:
            results = self._machine.apply_batch(commands, at)
        except Exception as error:
            told = f"apply_batch raised {type(error).__name__}: {error} on one of the commands {short(list(commands))}"
            raise subject.complain(breach("apply raised", told, at)) from error
        if len(results) == len(given):
            for command, result, is_first in zip(given, results, first, strict=True):
                self._done(command, self.encode_result(result), is_first)
        return results

    def encode_result(self, result: Any) -> bytes:
        encoded = result if type(result) is bytes else self._machine.encode_result(result)
        self._check_bytes("encode_result", result, encoded, self._at)
        return bytes(encoded)


class _Timed(_Watched):
    """One that has timers."""

    _machine: TimedStateMachine

    def take_timers(self) -> Sequence[Timer]:
        return self._machine.take_timers()

    def is_armed(self, timer: int) -> bool:
        return self._machine.is_armed(timer)

    def time_out(self, timeouts: Sequence[Timeout], at: Position) -> None:
        try:
            self._machine.time_out(timeouts, at)
        except Exception as error:
            told = f"time_out raised {type(error).__name__}: {error} on {short(list(timeouts))}"
            raise self._subject.complain(breach("apply raised", told, at)) from error
        if self._subject.traced:
            ran_out = ", ".join(str(each.timer) for each in timeouts)
            self._subject.tell(f"{self._name} applies {at.slot}.{at.index}: timers run out: {ran_out}")


class _WatchedTimed(_Timed, _Watched):
    pass


class _WatchedTimedBatch(_Timed, _WatchedBatch):  # type: ignore[misc] # the machine is both
    pass


_WATCHED: dict[tuple[bool, bool], type[_Watched]] = {
    (False, False): _Watched,
    (True, False): _WatchedBatch,
    (False, True): _WatchedTimed,
    (True, True): _WatchedTimedBatch,
}
