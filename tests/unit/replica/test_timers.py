"""When a timer has run out, as a server counts it."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from paxos_rsm.codec.frames import decode_frame
from paxos_rsm.machines.base import Timeout, Timer
from paxos_rsm.paxos.types import Ballot
from paxos_rsm.replica.timers import LOOKS_MAX, REPEAT_MS, SPARE_TICKS, TIMEOUTS_MAX, Timers

TICK_MS = 100
MINE = Ballot(1, 1)
NEXT = Ballot(2, 1)


class Machine:
    """Timers that are armed and disarmed by the test."""

    def __init__(self) -> None:
        self.armed: dict[int, int] = {}
        self._taken: list[Timer] = []
        self._armings = 0

    def arm(self, timer: int, duration_ms: int) -> None:
        self._armings += 1
        self.armed[timer] = self._armings
        self._taken.append(Timer(timer, self._armings, duration_ms))

    def disarm(self, timer: int) -> None:
        del self.armed[timer]

    def take_timers(self) -> Sequence[Timer]:
        taken, self._taken = self._taken, []
        return taken

    def is_armed(self, timer: int) -> bool:
        return timer in self.armed


def run_out(
    timers: Timers, machine: Machine, ticks: int, ballot: Ballot | None = MINE, leading: bool = True
) -> list[tuple[int, Timeout]]:
    """(tick, time-out) of all that is proposed within some ticks, the next being the first."""
    found = []
    for tick in range(1, ticks + 1):
        for data in timers.tick(ballot, leading, machine):
            frame = decode_frame(data)
            found += [(tick, each) for each in frame.timeouts]  # type: ignore[union-attr]
    return found


def test_a_timer_runs_out_after_its_whole_time_and_soon() -> None:
    timers, machine = Timers(TICK_MS), Machine()
    machine.arm(7, 950)
    ((tick, timeout),) = run_out(timers, machine, 13)
    # Armed just before the first tick, it has run for 950 ms ten ticks later at the earliest, and one more where the
    # second tick came together with the first, which was late.
    assert (tick, timeout) == (13, Timeout(7, 1))


def test_it_is_said_again_until_it_is_gone() -> None:
    timers, machine = Timers(TICK_MS), Machine()
    machine.arm(7, 200)
    said = run_out(timers, machine, 30)
    assert [timeout for _, timeout in said] == [Timeout(7, 1)] * 3
    assert said[1][0] - said[0][0] == REPEAT_MS // TICK_MS
    machine.disarm(7)
    assert run_out(timers, machine, 30) == []
    assert timers.remaining_ms(7, 1) is None


def test_arming_it_again_gives_it_its_whole_time_again() -> None:
    timers, machine = Timers(TICK_MS), Machine()
    machine.arm(7, 1_000)
    for _ in range(20):
        assert run_out(timers, machine, 9) == []
        machine.arm(7, 1_000)
    ((_, timeout),) = run_out(timers, machine, 14)
    assert timeout == Timeout(7, 21)


def test_a_follower_says_nothing_and_a_new_leader_gives_the_whole_time_again() -> None:
    timers, machine = Timers(TICK_MS), Machine()
    machine.arm(7, 1_000)
    assert run_out(timers, machine, 50, leading=False) == []
    assert run_out(timers, machine, 11, ballot=NEXT) == []
    assert [timeout for _, timeout in run_out(timers, machine, 9, ballot=NEXT)] == [Timeout(7, 1)]


def test_a_leader_that_was_without_leadership_for_a_while_gives_the_whole_time_again() -> None:
    timers, machine = Timers(TICK_MS), Machine()
    machine.arm(7, 1_000)
    assert run_out(timers, machine, 8) == []
    assert run_out(timers, machine, 1, ballot=None, leading=False) == []
    assert run_out(timers, machine, 11) == []
    assert run_out(timers, machine, 11) != []


def test_one_that_is_back_with_less_time_is_not_late() -> None:
    timers, machine = Timers(TICK_MS), Machine()
    machine.arm(7, 60_000)
    assert run_out(timers, machine, 5) == []
    machine.disarm(7)
    machine.arm(7, 200)
    assert [timeout for _, timeout in run_out(timers, machine, 5)] == [Timeout(7, 2)]
    machine.disarm(7)
    machine.arm(7, 60_000)
    assert run_out(timers, machine, 590) == []
    assert run_out(timers, machine, 20) != []


def test_what_is_left() -> None:
    timers, machine = Timers(TICK_MS), Machine()
    machine.arm(7, 1_000)
    assert timers.remaining_ms(7, 1) is None
    run_out(timers, machine, 1)
    assert timers.remaining_ms(7, 1) == 1_200
    run_out(timers, machine, 5)
    assert timers.remaining_ms(7, 1) == 700
    run_out(timers, machine, 50, leading=False)
    assert timers.remaining_ms(7, 1) == 0
    machine.arm(7, 1_000)
    assert timers.remaining_ms(7, 2) is None
    run_out(timers, machine, 1)
    assert timers.remaining_ms(7, 2) == 1_200


def test_many_at_once_are_spread_over_ticks() -> None:
    timers, machine = Timers(TICK_MS), Machine()
    for timer in range(2 * TIMEOUTS_MAX + 1):
        machine.arm(timer, 100)
    ticks = [tick for tick, _ in run_out(timers, machine, 6)]
    assert [ticks.count(tick) for tick in sorted(set(ticks))] == [TIMEOUTS_MAX, TIMEOUTS_MAX, 1]


def test_many_that_were_armed_again_are_looked_at_over_ticks_and_none_is_forgotten() -> None:
    timers, machine = Timers(TICK_MS), Machine()
    for timer in range(2 * LOOKS_MAX):
        machine.arm(timer, 1_000)
    assert run_out(timers, machine, 10) == []
    for timer in range(2 * LOOKS_MAX):
        machine.arm(timer, 1_000)
    said = run_out(timers, machine, 30)
    assert {timeout.timer for _, timeout in said} == set(range(2 * LOOKS_MAX))
    assert min(tick for tick, _ in said) >= 12


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("arm"), st.integers(0, 3), st.integers(0, 30)),
        st.tuples(st.just("disarm"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("tick"), st.just(0), st.integers(1, 30)),
        st.tuples(st.just("leader"), st.integers(0, 2), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_never_early_and_never_forgotten(steps: list[tuple[str, int, int]]) -> None:
    """Against one that looks at every timer in every tick."""
    timers, machine = Timers(TICK_MS), Machine()
    since: dict[int, tuple[int, int]] = {}
    said: dict[int, int] = {}
    now = base = 0
    ballot = followed = MINE
    for step, which, number in [*steps, ("tick", 0, 45)]:
        if step == "arm":
            machine.arm(which, number * TICK_MS)
            since[which] = now + 1, number
            said.pop(which, None)
        elif step == "disarm" and machine.is_armed(which):
            machine.disarm(which)
            del since[which]
        elif step == "leader":
            ballot = Ballot(which + 1, 1)
        elif step == "tick":
            for _ in range(number):
                now += 1
                if ballot != followed:  # one that comes and goes between two ticks is not seen
                    followed, base = ballot, now
                # One that was said already is looked at again after its pause, also under another leader.
                due = {
                    timer
                    for timer, (start, ticks) in since.items()
                    if max(max(start, base) + ticks + SPARE_TICKS, said.get(timer, 0)) == now
                }
                for _, timeout in run_out(timers, machine, 1, ballot):
                    start, ticks = since[timeout.timer]
                    assert now - max(start, base) > ticks + 1
                    assert timeout.armed == machine.armed[timeout.timer]
                    due.discard(timeout.timer)
                    said[timeout.timer] = now + REPEAT_MS // TICK_MS
                assert not due
