"""What the log makes of sessions and state machines: each command once, in order, with one result everywhere.

The rules of sessions are told here a second time, as naively as can be (:class:`_Sessions`), and every chosen slot is
run through that once. What a server hands to its state machine must be just what comes out: no command twice, none
left out, none out of order (rules 7 and 11); and so must the time-outs of its timers. Results must be the same on every
server, and the same that a client was given. Digests of the whole state are compared slot by slot where the world says
so.
"""

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from paxos_rsm.codec.frames import decode_frame
from paxos_rsm.machines.base import (
    BatchStateMachine,
    CheckedStateMachine,
    Position,
    StateMachine,
    TimedStateMachine,
    Timeout,
    Timer,
)
from paxos_rsm.machines.frames import BadFrame
from paxos_rsm.paxos.types import Batch, Entry, NodeId, Slot, split_frames
from paxos_rsm.sim.failure import Broken
from paxos_rsm.sim.marks import Marks
from paxos_rsm.sim.workload import Workload

__all__ = ["Executions", "Watched", "watched"]


class _Run(NamedTuple):
    """Commands that one frame brings to execution, or time-outs."""

    session: int
    first_seq: int
    position: int
    """Of the first of them, in its slot."""
    commands: list[bytes]
    timeouts: tuple[Timeout, ...] = ()


class _Sessions:
    """Next sequence numbers, by session: all that decides what is executed."""

    def __init__(self) -> None:
        self.next_seq: dict[int, int] = {}
        self.ended: set[int] = set()

    def runs(self, slot: Slot, entry: Entry) -> list[_Run]:
        """What this slot brings to execution."""
        runs: list[_Run] = []
        index = 0
        frames = split_frames(entry.data) if type(entry) is Batch else ()
        for at, data in enumerate(frames):
            frame = decode_frame(data)
            if isinstance(frame, BadFrame):
                continue
            if frame.register is not None:
                self.next_seq[slot << 16 | at] = 1
            elif frame.expire is not None:
                if self.next_seq.get(frame.expire.session) == frame.expire.last_seq + 1:
                    del self.next_seq[frame.expire.session]
                    self.ended.add(frame.expire.session)
            elif frame.timeouts:
                runs.append(_Run(0, 0, index, [], tuple(frame.timeouts)))
            else:
                expected = self.next_seq.get(frame.session)
                count = len(frame.commands)
                if expected is not None and frame.first_seq <= expected < frame.first_seq + count:
                    known = expected - frame.first_seq
                    runs.append(_Run(frame.session, expected, index + known, list(frame.commands[known:])))
                    self.next_seq[frame.session] = frame.first_seq + count
                index += count
        return runs


class Executions:
    """See the module's docstring."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._timed_out: Callable[[Sequence[Timeout]], None] | None = getattr(workload, "timed_out", None)
        self._machine: StateMachine | None = None
        """Knows how results are encoded; nothing is executed on it."""
        self._sessions = _Sessions()
        self._runs: list[list[_Run]] = [[]]
        self._results: list[list[list[Any]]] = [[]]
        """What the runs of each slot gave, on the server that was first to execute them."""
        self._answers: dict[tuple[int, int], tuple[bytes, Any]] = {}
        self._digests: dict[Slot, bytes] = {}

    def applies(self, slot: Slot, entry: Entry) -> list[_Run]:
        """A server is about to apply ``slot``: what it has to execute."""
        if slot == len(self._runs):
            self._runs.append(self._sessions.runs(slot, entry))
            self._results.append([])
        return self._runs[slot]

    def executes(
        self, host: NodeId, at: Position, nth: int, commands: Sequence[bytes], results: list[Any]
    ) -> None:
        """A server has executed the ``nth`` run of a slot."""
        slot = at.slot
        runs = self._runs[slot]
        if nth >= len(runs) or runs[nth].position != at.index or runs[nth].commands != list(commands):
            expected = (
                "nothing more" if nth >= len(runs) else f"{runs[nth].commands!r} at {runs[nth].position}"
            )
            raise Broken(
                "11", f"{host:x} executes {list(commands)!r} at {at.index} in slot {slot}, not {expected}"
            )
        known = self._results[slot]
        if nth < len(known):
            if known[nth] != results:
                raise Broken("7", f"{host:x} got {results!r} in slot {slot}, others got {known[nth]!r}")
            return
        known.append(list(results))
        run = runs[nth]
        for offset, result in enumerate(results):
            self._answers[run.session, run.first_seq + offset] = run.commands[offset], result
            self._workload.executed(run.commands[offset], result)

    def times_out(self, host: NodeId, at: Position, nth: int, timeouts: Sequence[Timeout]) -> None:
        """A server has executed the ``nth`` run of a slot, which is time-outs."""
        runs = self._runs[at.slot]
        if nth >= len(runs) or runs[nth].timeouts != tuple(timeouts) or runs[nth].position != at.index:
            raise Broken(
                "11", f"{host:x} executes {list(timeouts)!r} in slot {at.slot}, which holds {runs!r}"
            )
        known = self._results[at.slot]
        if nth == len(known):
            known.append([])
            if self._timed_out is not None:
                self._timed_out(timeouts)

    def applied(self, host: NodeId, slot: Slot, ran: int) -> None:
        """A server is done with ``slot``, in which it executed ``ran`` runs."""
        if ran != len(self._runs[slot]):
            raise Broken(
                "7", f"{host:x} executed {ran} of {len(self._runs[slot])} runs of commands in slot {slot}"
            )

    def digest(self, host: NodeId, slot: Slot, digest: bytes) -> None:
        """The state of a server after ``slot``: equal applied slot, equal state."""
        if self._digests.setdefault(slot, digest) != digest:
            raise Broken("7", f"{host:x} has another state than others after slot {slot}")

    def expired(self, session: int) -> None:
        """A client was told that its session has ended."""
        if session not in self._sessions.ended:
            raise Broken(
                "11", f"a client was told that session {session:x} has ended, and the log has not ended it"
            )

    def outcome(self, session: int, seq: int) -> tuple[bytes, Any] | None:
        """A command and its result; None where it was never executed."""
        return self._answers.get((session, seq))

    def answered(self, session: int, seq: int, command: bytes, result: Any) -> Any:
        """A client was given a result: it is that of its command, executed once. Gives it as the machine gave it.

        What has been in a snapshot comes as its bytes.
        """
        known = self._answers.get((session, seq))
        if known is None:
            raise Broken("11", f"command {seq} of session {session:x} was answered and never executed")
        if known[0] != command:
            raise Broken(
                "11", f"{known[0]!r} was executed as command {seq} of session {session:x}, not {command!r}"
            )
        if known[1] != result and not (type(result) is bytes and self._encoded(known[1]) == result):
            raise Broken(
                "11", f"command {seq} of session {session:x} was answered {result!r}, not {known[1]!r}"
            )
        return known[1]

    def _encoded(self, result: Any) -> bytes:
        if self._machine is None:
            self._machine = self._workload.machine()
        if isinstance(self._machine, BatchStateMachine) and type(result) is not bytes:
            return self._machine.encode_result(result)
        return bytes(result)


class Watched:
    """A state machine whose every execution is checked; the rest goes through."""

    def __init__(
        self, host: NodeId, machine: StateMachine, executions: Executions, marks: Marks | None = None
    ) -> None:
        self._host = host
        self._machine = machine
        self._executions = executions
        self._batch = machine if isinstance(machine, BatchStateMachine) else None
        self.marks = marks
        """None where this world needs none."""
        if isinstance(machine, CheckedStateMachine):
            self._digest_of_machine = machine.running_digest
            self.running_digest = machine.running_digest if marks is None else self._marked_digest
        self.ran = 0
        """Runs of commands in the slot that is being applied."""

    def apply(self, command: bytes, at: Position) -> bytes:
        return self.encode_result(self.apply_batch((command,), at)[0])

    def apply_batch(self, commands: Sequence[bytes], at: Position) -> list[Any]:
        if self._batch is not None:
            results = self._batch.apply_batch(commands, at)
        else:
            apply = self._machine.apply
            results = [apply(c, Position(at.slot, at.index + i)) for i, c in enumerate(commands)]
        self._executions.executes(self._host, at, self.ran, commands, results)
        self.ran += 1
        return results

    def encode_result(self, result: Any) -> bytes:
        if self._batch is not None and type(result) is not bytes:
            return self._batch.encode_result(result)
        return bytes(result)

    def query(self, request: bytes) -> bytes:
        return self._machine.query(request)

    def snapshot(self) -> Iterable[bytes]:
        slices = self._machine.snapshot()
        if inspect.isgeneratorfunction(self._machine.snapshot):
            slices = list(slices)  # as SessionMachine does, which cannot see it through this
        return slices if self.marks is None else self.marks.before(slices)

    def restore(self, chunks: Iterable[bytes]) -> None:
        self._machine.restore(chunks if self.marks is None else self.marks.out_of(chunks))

    def digest(self) -> bytes:
        """Without a flaw: what clients are told is right, whoever tells it."""
        digest = self._machine.digest()
        return digest if self.marks is None else digest + bytes([self.marks.beginning])

    def _marked_digest(self) -> bytes:
        digest = self._digest_of_machine()
        return digest if self.marks is None else digest + self.marks.packed()


class _WatchedTimed(Watched):
    """One that has timers."""

    _machine: TimedStateMachine

    def take_timers(self) -> Sequence[Timer]:
        return self._machine.take_timers()

    def is_armed(self, timer: int) -> bool:
        return self._machine.is_armed(timer)

    def time_out(self, timeouts: Sequence[Timeout], at: Position) -> None:
        self._machine.time_out(timeouts, at)
        self._executions.times_out(self._host, at, self.ran, timeouts)
        self.ran += 1


def watched(
    host: NodeId, machine: StateMachine, executions: Executions, marks: Marks | None = None
) -> Watched:
    """A machine whose every execution is checked, with timers where it has any."""
    kind = _WatchedTimed if isinstance(machine, TimedStateMachine) else Watched
    return kind(host, machine, executions, marks)
