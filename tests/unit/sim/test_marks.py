"""What a simulated state has in it beside the state, and who judges whom."""

from collections.abc import Iterable, Iterator

import pytest

from paxos_rsm.codec.kv import encode_command
from paxos_rsm.machines.base import Position
from paxos_rsm.machines.kv.types import Put
from paxos_rsm.replica.comparison import Difference, Verdict
from paxos_rsm.sim.executions import Executions, Watched
from paxos_rsm.sim.marks import Flaws, Marks
from paxos_rsm.sim.workload import KvWorkload
from tests.unit.sim.helpers import broken

VOTERS = frozenset({1, 2, 3})


class TestMarks:
    @pytest.mark.parametrize("cut", [1, 3, 8, 100])
    def test_they_go_into_a_snapshot_and_come_out_however_it_is_cut(self, cut: int) -> None:
        marks = Marks(7)
        marks.flaw = 5
        data = b"".join(marks.before([b"state", b"", b"!"]))
        marks.flaw = 0
        other = Marks()
        rest = other.out_of(data[at : at + cut] for at in range(0, len(data), cut))
        assert b"".join(rest) == b"state!"
        assert (other.beginning, other.flaw) == (7, 5)

    def test_a_machine_gets_back_the_slices_that_it_gave(self) -> None:
        given = [b"one", b"", b"two"]
        assert list(Marks().out_of(Marks(1).before(given))) == given

    def test_what_a_snapshot_holds_on_to_is_let_go(self) -> None:
        class Slices(list[bytes]):
            closed = 0

            def close(self) -> None:
                self.closed += 1

        slices = Slices([b"a"])
        marked = Marks().before(slices)
        next(marked)
        marked.close()
        assert slices.closed
        Marks().before([b"a"]).close()

    def machine(self, marks: Marks | None) -> Watched:
        workload = KvWorkload()
        return Watched(1, workload.machine(), Executions(workload), marks)

    def test_a_state_with_a_flaw_has_another_running_digest_and_no_other_answers(self) -> None:
        plain, right, wrong = self.machine(None), self.machine(Marks()), self.machine(Marks())
        assert wrong.marks is not None
        wrong.marks.flaw = 3
        for machine in (plain, right, wrong):
            machine._machine.apply(encode_command(Put(b"k", b"v")), Position(1, 0))
        assert wrong.digest() == right.digest() != plain.digest()
        assert len({machine.running_digest() for machine in (right, wrong)}) == 2

    def test_whoever_takes_its_snapshot_has_the_flaw_too(self) -> None:
        wrong, other = self.machine(Marks(7)), self.machine(Marks())
        assert wrong.marks is not None
        assert other.marks is not None
        wrong.marks.flaw = 3
        other.restore(wrong.snapshot())
        assert (other.marks.beginning, other.marks.flaw) == (7, 3)
        assert other.digest() == wrong.digest()


def found(verdict: Verdict, *others: int) -> Difference:
    return Difference(verdict, others, 16, 8)


class TestJudging:
    def test_nobody_may_find_a_difference_where_there_is_none(self) -> None:
        flaws = Flaws()
        flaws.judged(1, found(Verdict.EQUAL), VOTERS)
        for verdict in (Verdict.MINORITY, Verdict.MAJORITY, Verdict.UNDECIDED):
            with broken("7", "finds states that differ, and none ever did"):
                flaws.judged(1, found(verdict, 2), VOTERS)

    def test_whose_state_is_right_may_not_take_it_for_wrong(self) -> None:
        flaws = Flaws()
        flaws.note(2, 5)
        flaws.judged(2, found(Verdict.MINORITY, 1, 3), VOTERS)
        with broken("7", "takes its state for wrong, and it is right"):
            flaws.judged(1, found(Verdict.MINORITY, 2), VOTERS)

    def test_nor_that_of_others_which_was_never_wrong(self) -> None:
        flaws = Flaws()
        flaws.note(2, 5)
        flaws.note(2, 0)
        flaws.judged(1, found(Verdict.MAJORITY, 2), VOTERS)
        flaws.judged(1, found(Verdict.UNDECIDED, 2), VOTERS)
        with broken("7", "takes states for wrong that are right"):
            flaws.judged(1, found(Verdict.MAJORITY, 2, 3), VOTERS)

    def test_a_flaw_that_half_of_them_have_had_may_win(self) -> None:
        flaws = Flaws()
        flaws.note(2, 5)
        flaws.note(1, 6)
        assert not flaws.have_spread(VOTERS)
        flaws.note(3, 5)
        assert flaws.have_spread(VOTERS)
        flaws.judged(1, found(Verdict.MINORITY, 2, 3), VOTERS)


def test_a_snapshot_that_is_a_generator_is_of_the_moment_it_was_asked_for() -> None:
    class Counting:
        count = 0

        def apply(self, command: bytes, at: Position) -> bytes:
            self.count += 1
            return b""

        def query(self, request: bytes) -> bytes:
            return b""

        def snapshot(self) -> Iterator[bytes]:
            yield b"%d" % self.count

        def restore(self, chunks: Iterable[bytes]) -> None:
            self.count = int(b"".join(chunks))

        def digest(self) -> bytes:
            return b"%d" % self.count

    machine = Counting()
    view = Watched(1, machine, Executions(KvWorkload())).snapshot()
    machine.apply(b"", Position(1, 0))
    assert list(view) == [b"0"]
