"""Whatever sessions and state machines may get wrong is told; what they get right passes."""

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from paxos_rsm.codec.frames import FrameCodec, commands_frame, expire_frame, register_frame, timeouts_frame
from paxos_rsm.errors import MachineFailed
from paxos_rsm.machines.base import Position, Timeout, Timer
from paxos_rsm.machines.sessions import SessionMachine
from paxos_rsm.paxos.types import Batch, Entry, Noop, join_frames, split_frames
from paxos_rsm.sim.executions import Executions, Watched, watched
from paxos_rsm.sim.failure import Broken
from paxos_rsm.sim.workload import KvWorkload
from tests.unit.sim.helpers import broken

A, B = 1, 2
SESSION = 1 << 16
"""The session that the first frame of slot 1 registers."""


class Journal:
    """A machine that is not idempotent: it keeps every command, and answers how many there are."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []

    def apply(self, command: bytes, at: Position) -> bytes:
        self.commands.append(command)
        return b"%d" % len(self.commands)

    def query(self, request: bytes) -> bytes:
        return b"%d of %s" % (len(self.commands), request)

    def snapshot(self) -> Iterable[bytes]:
        return [b"\n".join(self.commands)]

    def restore(self, chunks: Iterable[bytes]) -> None:
        self.commands = b"".join(chunks).split(b"\n")

    def digest(self) -> bytes:
        return b"digest of %d" % len(self.commands)


class BatchJournal(Journal):
    """The same, a frame at a time; results are numbers."""

    def apply_batch(self, commands: Sequence[bytes], at: Position) -> list[Any]:
        return [int(self.apply(command, at)) for command in commands]

    def encode_result(self, result: Any) -> bytes:
        return b"%d" % result


class Told(KvWorkload):
    """Keeps what it is told was executed; refuses ``bad`` commands."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[bytes, Any]] = []

    def executed(self, command: bytes, result: Any) -> None:
        if command == b"bad":
            raise Broken("11", "that cannot be right")
        self.seen.append((command, result))


def log(*slots: Sequence[bytes]) -> list[Entry]:
    """Entries, from slot 1 on."""
    return [Batch(join_frames(frames)) for frames in slots]


def frame(first_seq: int, *commands: bytes, session: int = SESSION) -> bytes:
    return commands_frame(session, first_seq, 1, commands)


class Watching:
    """Executions, and servers whose real session machine goes through them."""

    def __init__(self) -> None:
        self.workload = Told()
        self.executions = Executions(self.workload)
        self.watched: dict[int, Watched] = {}
        self.machines: dict[int, SessionMachine] = {}

    def apply(self, host: int, slot: int, entry: Entry) -> None:
        """As a simulated server does."""
        if host not in self.watched:
            self.watched[host] = Watched(host, Journal(), self.executions)
            self.machines[host] = SessionMachine(self.watched[host], FrameCodec())
        self.executions.applies(slot, entry)
        self.watched[host].ran = 0
        frames = list(split_frames(entry.data)) if isinstance(entry, Batch) else []
        self.machines[host].apply_slot(slot, frames)
        self.executions.applied(host, slot, self.watched[host].ran)


@pytest.fixture
def executions() -> Executions:
    """Slot 1 has registered the session; slot 2 brings two runs: a, b as 1 and 2, and c as 3."""
    made = Executions(Told())
    for slot, entry in enumerate(log([register_frame(9, 1000)], [frame(1, b"a", b"b"), frame(3, b"c")]), 1):
        made.applies(slot, entry)
    return made


HARD = log(
    [register_frame(5, 1000), register_frame(6, 1000)],
    [frame(1, b"a", b"b"), frame(1, b"a", b"b", b"c")],  # again, and cut otherwise
    [frame(6, b"f"), frame(4, b"d", b"e"), frame(6, b"f")],  # a gap is not executed
    [b"\xff no frame", frame(1, b"x", session=SESSION + 1), frame(1, b"y", session=77), b""],
    [expire_frame(SESSION, 5), frame(7, b"g"), expire_frame(SESSION, 7), frame(8, b"h")],  # the first is void
    [frame(2, session=SESSION + 1), frame(1, b"x", b"z", session=SESSION + 1)],
)


def test_the_naive_rules_are_those_of_the_real_sessions() -> None:
    watching = Watching()
    for host in (A, B):
        for slot, entry in enumerate([*HARD, Noop()], 1):
            watching.apply(host, slot, entry)
    wanted = [b"a", b"b", b"c", b"d", b"e", b"f", b"x", b"g", b"z"]
    assert watching.workload.seen == [(command, b"%d" % n) for n, command in enumerate(wanted, 1)]
    watching.executions.expired(SESSION)
    for seq, (command, result) in enumerate(zip(b"abcdefg", range(1, 10), strict=False), 1):
        known = {7: b"8"}.get(seq, b"%d" % result)
        watching.executions.answered(SESSION, seq, bytes([command]), known)


@pytest.mark.parametrize("left_out", range(1, len(HARD) + 1))
def test_a_server_that_leaves_out_a_slot_is_told(left_out: int) -> None:
    """At once, or where its machine gives other results for what comes next."""
    watching = Watching()
    for slot, entry in enumerate(HARD, 1):
        watching.apply(A, slot, entry)

    def apply_the_rest() -> None:
        for slot, entry in enumerate(HARD, 1):
            watching.apply(B, slot, Noop() if slot == left_out else entry)

    with pytest.raises((Broken, MachineFailed)) as caught:
        apply_the_rest()
    # What is raised inside of a machine comes out as a failure of the machine.
    told = caught.value.__cause__ or caught.value
    assert isinstance(told, Broken)
    assert told.rule in ("7", "11")


class TestExecuting:
    def test_each_run_once_in_order_at_its_place(self, executions: Executions) -> None:
        for host in (A, B):
            executions.executes(host, Position(2, 0), 0, (b"a", b"b"), [1, 2])
            executions.executes(host, Position(2, 2), 1, [b"c"], [3])
            executions.applied(host, 2, 2)

    def test_twice_is_told(self, executions: Executions) -> None:
        executions.executes(A, Position(2, 0), 0, [b"a", b"b"], [1, 2])
        executions.executes(A, Position(2, 2), 1, [b"c"], [3])
        with broken("11", "1 executes [b'c'] at 2 in slot 2, not nothing more"):
            executions.executes(A, Position(2, 2), 2, [b"c"], [4])

    @pytest.mark.parametrize(
        ("index", "commands"),
        [
            (2, [b"a", b"b"]),  # elsewhere in the slot
            (0, [b"a"]),  # not all of it
            (0, [b"b", b"a"]),  # the other way round
            (0, [b"a", b"b", b"c"]),  # more
            (2, [b"c"]),  # what comes later
        ],
    )
    def test_anything_else_is_told(self, executions: Executions, index: int, commands: list[bytes]) -> None:
        with broken("11", "in slot 2, not [b'a', b'b'] at 0"):
            executions.executes(A, Position(2, index), 0, commands, [1] * len(commands))

    def test_other_results_than_elsewhere_are_told(self, executions: Executions) -> None:
        executions.executes(A, Position(2, 0), 0, [b"a", b"b"], [1, 2])
        with broken("7", "2 got [1, 3] in slot 2, others got [1, 2]"):
            executions.executes(B, Position(2, 0), 0, [b"a", b"b"], [1, 3])

    def test_results_are_kept_as_they_were(self, executions: Executions) -> None:
        """The machine hands out a list; whoever takes it may change it."""
        results = [1, 2]
        executions.executes(A, Position(2, 0), 0, [b"a", b"b"], results)
        results.clear()
        executions.executes(B, Position(2, 0), 0, [b"a", b"b"], [1, 2])
        with broken("7", "2 got [] in slot 2"):
            executions.executes(B, Position(2, 0), 0, [b"a", b"b"], [])

    @pytest.mark.parametrize("ran", [0, 1])
    def test_leaving_one_out_is_told(self, executions: Executions, ran: int) -> None:
        with broken("7", f"1 executed {ran} of 2 runs of commands in slot 2"):
            executions.applied(A, 2, ran)
        executions.applied(A, 1, 0)

    def test_the_workload_hears_of_each_command_once_and_may_object(self) -> None:
        told = Told()
        executions = Executions(told)
        for slot, entry in enumerate(log([register_frame(1, 1)], [frame(1, b"a", b"bad")]), 1):
            executions.applies(slot, entry)
        with broken("11", "that cannot be right"):
            executions.executes(A, Position(2, 0), 0, [b"a", b"bad"], [1, 2])
        assert told.seen == [(b"a", 1)]
        executions.executes(B, Position(2, 0), 0, [b"a", b"bad"], [1, 2])
        assert told.seen == [(b"a", 1)]


class TestDigests:
    def test_equal_slot_equal_state(self, executions: Executions) -> None:
        executions.digest(A, 2, b"one")
        executions.digest(B, 2, b"one")
        executions.digest(B, 3, b"other")
        with broken("7", "1 has another state than others after slot 3"):
            executions.digest(A, 3, b"one")


class TestAnswers:
    @pytest.fixture(autouse=True)
    def _executed(self, executions: Executions) -> None:
        executions.executes(A, Position(2, 0), 0, [b"a", b"b"], [b"1", b"2"])

    def test_a_client_gets_the_result_of_its_command(self, executions: Executions) -> None:
        executions.answered(SESSION, 1, b"a", b"1")
        executions.answered(SESSION, 2, b"b", b"2")
        executions.answered(SESSION, 2, b"b", b"2")

    def test_an_answer_to_what_was_never_executed_is_told(self, executions: Executions) -> None:
        with broken("11", "command 3 of session 10000 was answered and never executed"):
            executions.answered(SESSION, 3, b"c", b"3")
        with broken("11", "command 1 of session 1 was answered and never executed"):
            executions.answered(1, 1, b"a", b"1")

    def test_an_answer_to_another_command_is_told(self, executions: Executions) -> None:
        with broken("11", "b'a' was executed as command 1 of session 10000, not b'b'"):
            executions.answered(SESSION, 1, b"b", b"1")

    def test_another_answer_is_told(self, executions: Executions) -> None:
        with broken("11", "command 1 of session 10000 was answered b'2', not b'1'"):
            executions.answered(SESSION, 1, b"a", b"2")


class TestExpiry:
    def test_a_session_has_ended_when_the_log_says_so(self, executions: Executions) -> None:
        too_early = "session 10000 has ended, and the log has not ended it"
        with broken("11", too_early):
            executions.expired(SESSION)
        (void,) = log([expire_frame(SESSION, 2)])  # three have been executed
        executions.applies(3, void)
        with broken("11", too_early):
            executions.expired(SESSION)
        (ends,) = log([expire_frame(SESSION, 3)])
        executions.applies(4, ends)
        executions.expired(SESSION)

    def test_one_that_never_was_has_not_ended(self, executions: Executions) -> None:
        with broken("11", "session 2 has ended"):
            executions.expired(2)

    def test_nothing_of_it_is_executed_after_that(self, executions: Executions) -> None:
        executions.applies(3, log([expire_frame(SESSION, 3), frame(4, b"d")])[0])
        executions.applied(A, 3, 0)


def test_slots_are_worked_out_once(executions: Executions) -> None:
    (entry,) = log([frame(4, b"d")])
    once = executions.applies(3, entry)
    assert executions.applies(3, entry) is once
    assert [(run.session, run.first_seq, run.position, run.commands) for run in once] == [
        (SESSION, 4, 0, [b"d"])
    ]


@pytest.mark.parametrize("machine", [Journal, BatchJournal])
def test_all_of_a_machine_goes_through(machine: type[Journal], executions: Executions) -> None:
    inner = machine()
    machine_of_a = Watched(A, inner, executions)
    is_batch = machine is BatchJournal
    results = machine_of_a.apply_batch([b"a", b"b"], Position(2, 0))
    assert results == ([1, 2] if is_batch else [b"1", b"2"])
    assert machine_of_a.apply(b"c", Position(2, 2)) == b"3"
    assert machine_of_a.ran == 2
    executions.applied(A, 2, machine_of_a.ran)
    assert [machine_of_a.encode_result(result) for result in results] == [b"1", b"2"]
    assert machine_of_a.encode_result(b"as it is") == b"as it is"
    assert machine_of_a.query(b"?") == b"3 of ?"
    assert machine_of_a.digest() == b"digest of 3"
    assert list(machine_of_a.snapshot()) == [b"a\nb\nc"]
    machine_of_a.restore([b"x\n", b"y"])
    assert inner.commands == [b"x", b"y"]
    with broken("11", "not nothing more"):
        machine_of_a.apply_batch([b"c"], Position(2, 2))


def test_each_command_of_a_frame_has_its_own_position(executions: Executions) -> None:
    seen: list[Position] = []

    class Placed(Journal):
        def apply(self, command: bytes, at: Position) -> bytes:
            seen.append(at)
            return super().apply(command, at)

    Watched(A, Placed(), executions).apply_batch([b"a", b"b"], Position(2, 0))
    assert seen == [Position(2, 0), Position(2, 1)]


class TimedJournal(Journal):
    """Keeps the time-outs too."""

    def take_timers(self) -> Sequence[Timer]:
        return [Timer(1, 2, 3)]

    def is_armed(self, timer: int) -> bool:
        return timer == 1

    def time_out(self, timeouts: Sequence[Timeout], at: Position) -> None:
        self.commands += [b"%d ran out" % each.timer for each in timeouts]


class TestTimers:
    @pytest.fixture
    def told(self) -> list[Sequence[Timeout]]:
        return []

    @pytest.fixture
    def executions(self, told: list[Sequence[Timeout]]) -> Executions:
        class Told(KvWorkload):
            def timed_out(self, timeouts: Sequence[Timeout]) -> None:
                told.append(timeouts)

        made = Executions(Told())
        made.applies(1, Batch(join_frames([register_frame(1, 1000), timeouts_frame([Timeout(1, 2)])])))
        return made

    def test_all_of_a_machine_with_timers_goes_through_and_the_workload_is_told_once(
        self, executions: Executions, told: list[Sequence[Timeout]]
    ) -> None:
        for host in (A, B):
            inner = TimedJournal()
            machine: Any = watched(host, inner, executions)
            assert (machine.take_timers(), machine.is_armed(1)) == ([Timer(1, 2, 3)], True)
            machine.time_out((Timeout(1, 2),), Position(1, 0))
            assert (inner.commands, machine.ran) == ([b"1 ran out"], 1)
            executions.applied(host, 1, machine.ran)
        assert told == [(Timeout(1, 2),)]

    def test_a_machine_without_timers_stays_without(self, executions: Executions) -> None:
        assert not hasattr(watched(A, Journal(), executions), "take_timers")

    @pytest.mark.parametrize(
        ("timeouts", "index"),
        [([Timeout(1, 3)], 0), ([], 0), ([Timeout(1, 2), Timeout(1, 2)], 0), ([Timeout(1, 2)], 1)],
    )
    def test_time_outs_that_the_log_does_not_hold_there_are_told(
        self, executions: Executions, timeouts: list[Timeout], index: int
    ) -> None:
        machine: Any = watched(A, TimedJournal(), executions)
        with broken("11", "in slot 1, which holds"):
            machine.time_out(timeouts, Position(1, index))

    def test_a_time_out_that_is_left_out_is_told(self, executions: Executions) -> None:
        with broken("7", "executed 0 of 1 runs"):
            executions.applied(A, 1, 0)
