"""The clock, the order of equal times, chance by purpose, and the record of it all."""

from collections.abc import Callable

import pytest

from paxos_rsm.sim.stage import Stage
from paxos_rsm.sim.world import TICK_UNITS


def stage(seed: int = 1, *, traced: bool = False) -> Stage:
    return Stage(seed, traced)


def test_what_is_due_sooner_comes_first_and_equals_in_the_order_they_were_planned() -> None:
    at, seen = stage(), list[tuple[int, str]]()

    def see(what: str) -> None:
        seen.append((at.now, what))

    for delay, what in [(5, "a"), (3, "b"), (5, "c"), (0, "d"), (5, "e"), (3, "f")]:
        at.schedule(delay, see, what)
    for _ in range(6):
        at.next()
    assert seen == [(0, "d"), (3, "b"), (3, "f"), (5, "a"), (5, "c"), (5, "e")]


def test_what_is_planned_for_now_comes_after_all_that_is_due_already() -> None:
    at, seen = stage(), list[str]()

    def first() -> None:
        seen.append("first")
        at.schedule(0, seen.append, "planned meanwhile")

    at.schedule(4, first)
    at.schedule(4, seen.append, "second")
    at.schedule(5, seen.append, "later")
    for _ in range(4):
        at.next()
    assert seen == ["first", "second", "planned meanwhile", "later"]
    assert at.now == 5


def test_actions_are_never_compared() -> None:
    at, seen = stage(), list[int]()
    actions: list[Callable[[], None]] = [lambda n=n: seen.append(n) for n in range(3)]  # type: ignore[misc]
    for action in actions:
        at.schedule(1, action)
    for _ in actions:
        at.next()
    assert seen == [0, 1, 2]


def test_chance_is_a_function_of_seed_and_purpose() -> None:
    def number(seed: int, purpose: str) -> int:
        return stage(seed).chance(purpose).getrandbits(60)

    assert number(1, "network") == number(1, "network")
    drawn = [number(s, p) for s in range(5) for p in ("network", "weather", "client 1", "client 11")]
    assert len(set(drawn)) == 20
    assert number(1, "1") != number(11, "")  # a seed and a purpose do not run into each other


def test_streams_do_not_depend_on_each_other() -> None:
    alone = stage().chance("network")
    wanted = [alone.random() for _ in range(5)]
    beside = stage()
    other, network = beside.chance("weather"), beside.chance("network")
    seen = []
    for _ in range(5):
        other.random()
        other.getrandbits(64)
        seen.append(network.random())
    assert seen == wanted


def test_the_clock_counts_in_ticks_too() -> None:
    at = stage()
    at.schedule(3 * TICK_UNITS - 1, lambda: None)
    at.schedule(3 * TICK_UNITS, lambda: None)
    at.next()
    assert at.tick == 2
    at.next()
    assert at.tick == 3


def record(*events: tuple[int, int, int, int, int], mixed: bytes = b"") -> str:
    """The hash of events: after how many units, kind, server, and two numbers."""
    at = stage()
    for after, kind, server, a, b in events:
        at.schedule(after, at.event, kind, server, a, b)
        at.next()
    if mixed:
        at.mix(mixed)
    assert at.events == len(events)
    return at.trace_hash


def test_everything_of_an_event_is_in_the_hash() -> None:
    one = (5, 1, 2, 3, 4)
    assert record(one) == record(one)
    others = [record(), record(one, one), record(one, mixed=b"x"), record(one, mixed=b"y")]
    for place in range(5):
        changed = tuple(number + (at == place) for at, number in enumerate(one))
        others.append(record(changed))  # type: ignore[arg-type]
    assert len({record(one), *others}) == 10


def test_the_hash_takes_incarnations_which_may_be_large() -> None:
    assert record((1, 1, 1, (1 << 63) - 1, 0)) != record((1, 1, 1, 1, 0))


def test_neither_the_trace_nor_the_count_of_faults_is_in_the_hash() -> None:
    told, silent = stage(traced=True), stage()
    for at in (told, silent):
        at.schedule(1500, at.event, 1, 1)
        at.next()
        at.tell("n1 starts")
        at.fire("crash")
    assert told.trace == ["    1.500 n1 starts"]
    assert silent.trace is None
    assert told.trace_hash == silent.trace_hash
    assert told.fired == {"crash": 1}


def test_nothing_left_to_do_is_told() -> None:
    with pytest.raises(IndexError):
        stage().next()
