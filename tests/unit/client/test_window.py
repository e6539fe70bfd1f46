"""Exactly once, seen from the client: what is numbered, sent, sent again, taken back, given up."""

import asyncio
import math
import random
from collections.abc import Iterator

import pytest

from paxos_rsm._proto import session_pb2 as pb
from paxos_rsm.client.window import Command, Window
from paxos_rsm.errors import (
    ClientError,
    DeadlineExceeded,
    InvalidArgument,
    SessionExpired,
    UnknownOutcome,
)

SESSION = 5 << 16


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Only to make futures: nothing runs on it."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


class Driver:
    """A window, and what a caller and a server do to it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, is_open: bool = True, **limits: int) -> None:
        self.loop = loop
        self.window = Window(**({"in_flight_max": 1_000} | limits))
        if is_open:
            self.open()

    def open(self, next_seq: int = 1, frame_bytes_max: int = 10_000) -> None:
        self.window.opened(self.window.session or SESSION, next_seq, frame_bytes_max)

    def add(self, *names: str, deadline: float = math.inf) -> "list[asyncio.Future[bytes]]":
        futures = []
        for name in names:
            future: asyncio.Future[bytes] = self.loop.create_future()
            self.window.add(Command(name.encode(), deadline, future))
            futures.append(future)
        return futures

    def send(self) -> pb.Frame | None:
        message = self.window.next_message()
        if message is None:
            return None
        return pb.Frame.FromString(pb.ClientMessage.FromString(message).submit.frame)

    def sent(self) -> list[tuple[int, str]]:
        """Everything that may be sent now: the first number of each frame and its commands."""
        frames = []
        while (frame := self.send()) is not None:
            frames.append((frame.first_seq, b" ".join(frame.commands).decode()))
        return frames

    def lose(self, next_seq: int = 1) -> None:
        self.window.stream_lost()
        self.open(next_seq)

    def answer(self, first_seq: int, *results: str) -> bool:
        return self.window.results(first_seq, [result.encode() for result in results])


@pytest.fixture
def driver(loop: asyncio.AbstractEventLoop) -> Driver:
    return Driver(loop)


def never_sent() -> ClientError:
    return DeadlineExceeded("never sent")


def expired() -> ClientError:
    return SessionExpired("gone")


# ---- numbers and frames ----------------------------------------------------------------------------------


def test_nothing_is_sent_before_the_session_is_open(loop: asyncio.AbstractEventLoop) -> None:
    driver = Driver(loop, is_open=False)
    driver.add("a")
    assert driver.send() is None
    assert driver.window.next_seq == 1
    driver.open()
    assert driver.sent() == [(1, "a")]


def test_numbers_are_dense_from_1_and_what_waits_goes_in_one_frame(driver: Driver) -> None:
    driver.add("a", "b", "c")
    frame = driver.send()
    assert frame is not None
    assert (frame.session, frame.first_seq, frame.received_below) == (SESSION, 1, 1)
    assert list(frame.commands) == [b"a", b"b", b"c"]
    assert driver.send() is None
    driver.add("d")
    assert driver.sent() == [(4, "d")]


def test_frames_are_cut_by_count(loop: asyncio.AbstractEventLoop) -> None:
    driver = Driver(loop, frame_commands_max=2)
    driver.add("a", "b", "c", "d", "e")
    assert driver.sent() == [(1, "a b"), (3, "c d"), (5, "e")]


def test_frames_are_cut_by_bytes_and_never_larger_than_the_limit(loop: asyncio.AbstractEventLoop) -> None:
    driver = Driver(loop, is_open=False)
    driver.open(frame_bytes_max=200)
    driver.add(*("x" * size for size in (100, 60, 100, 161, 1)))
    sizes = []
    while (frame := driver.send()) is not None:
        assert frame.ByteSize() <= 200
        sizes.append([len(command) for command in frame.commands])
    assert sizes == [[100], [60], [100], [161], [1]]


def test_a_command_that_fits_no_frame_is_refused_and_takes_no_number(driver: Driver) -> None:
    largest = 10_000 - 33 - 6
    (before, large, fits, after) = driver.add("a", "x" * (largest + 1), "y" * largest, "b")
    frames = driver.sent()
    assert [first_seq for first_seq, _ in frames] == [1, 2, 3]
    assert isinstance(large.exception(), InvalidArgument)
    assert str(largest) in str(large.exception())
    assert not any(each.done() for each in (before, fits, after))


def test_no_more_than_the_window_is_in_flight(loop: asyncio.AbstractEventLoop) -> None:
    driver = Driver(loop, in_flight_max=3)
    futures = driver.add("a", "b", "c", "d", "e")
    assert driver.sent() == [(1, "a b c")]
    driver.answer(1, "A")
    assert driver.sent() == [(4, "d")]
    # The lowest without a result counts, not how many: what a server keeps is bounded by that.
    driver.answer(3, "C")
    driver.answer(4, "D")
    assert driver.sent() == []
    driver.answer(2, "B")
    assert driver.sent() == [(5, "e")]
    assert [future.result() for future in futures[:4]] == [b"A", b"B", b"C", b"D"]


def test_no_more_bytes_than_the_limit_are_in_flight_but_one_command_always_is(
    loop: asyncio.AbstractEventLoop,
) -> None:
    driver = Driver(loop, in_flight_bytes_max=10)
    driver.add("x" * 20, "y" * 6, "z" * 4, "w")
    assert driver.sent() == [(1, "x" * 20)]
    driver.answer(1, "")
    assert driver.sent() == [(2, "y" * 6 + " " + "z" * 4)]
    driver.answer(2, "")
    assert driver.sent() == [(4, "w")]


def test_frames_say_what_was_received(driver: Driver) -> None:
    driver.add("a", "b", "c")
    driver.sent()
    driver.answer(1, "A", "B")
    driver.add("d")
    frame = driver.send()
    assert frame is not None
    assert frame.received_below == 3
    driver.answer(4, "D")
    driver.add("e")
    frame = driver.send()
    assert frame is not None
    assert frame.received_below == 3, "3 has no result yet, although 4 has"


# ---- results ---------------------------------------------------------------------------------------------


def test_results_are_matched_by_number_however_they_are_cut(driver: Driver) -> None:
    futures = driver.add("a", "b", "c", "d")
    driver.sent()
    assert driver.answer(3, "C", "D")
    assert driver.answer(1, "A")
    assert driver.answer(1, "other", "B", "other")
    assert [future.result() for future in futures] == [b"A", b"B", b"C", b"D"]
    assert not driver.answer(1, "x", "y"), "nothing new"
    assert not driver.answer(7, "x"), "never sent"
    assert driver.window.received_below == 5
    assert not driver.window.awaits_results


def test_a_result_that_nobody_waits_for_is_dropped(driver: Driver) -> None:
    (gone, there) = driver.add("a", "b")
    driver.sent()
    gone.cancel()
    driver.answer(1, "A", "B")
    assert there.result() == b"B"
    assert driver.window.in_flight == {}


# ---- loss ------------------------------------------------------------------------------------------------


def test_after_a_loss_what_has_no_result_is_sent_again_under_its_number(driver: Driver) -> None:
    futures = driver.add("a", "b", "c", "d")
    driver.sent()
    driver.answer(1, "A")
    driver.answer(3, "C")
    driver.lose()
    driver.add("e")
    assert driver.sent() == [(2, "b"), (4, "d"), (5, "e")]
    driver.lose()
    assert driver.sent() == [(2, "b"), (4, "d e")], "numbered by now: it may go along"
    driver.answer(2, "B")
    driver.answer(4, "D")
    assert [future.result() for future in futures] == [b"A", b"B", b"C", b"D"]


def test_again_is_cut_into_frames_too(loop: asyncio.AbstractEventLoop) -> None:
    driver = Driver(loop, frame_commands_max=2)
    driver.add("a", "b", "c")
    assert driver.sent() == [(1, "a b"), (3, "c")]
    driver.lose()
    driver.add("d")
    assert driver.sent() == [(1, "a b"), (3, "c"), (4, "d")]
    driver.lose()
    driver.window.frame_bytes_max = 33 + 7
    assert driver.sent() == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]


def test_before_it_is_open_again_nothing_is_numbered(driver: Driver) -> None:
    driver.add("a")
    driver.window.stream_lost()
    assert driver.window.next_seq == 1
    assert len(driver.window.pending) == 1


def test_a_cancelled_command_in_flight_is_sent_again_all_the_same(driver: Driver) -> None:
    (gone, _) = driver.add("a", "b")
    driver.sent()
    gone.cancel()
    driver.lose()
    assert driver.sent() == [(1, "a b")], "a gap would hold up b for ever"


def test_a_cancelled_command_that_was_never_sent_is_gone(driver: Driver) -> None:
    (gone, _) = driver.add("a", "b")
    gone.cancel()
    assert driver.sent() == [(1, "b")]


def test_a_server_that_knows_more_than_was_sent_ends_the_session(driver: Driver) -> None:
    driver.add("a", "b")
    driver.sent()
    driver.lose(next_seq=3)
    with pytest.raises(UnknownOutcome, match="somebody else"):
        driver.lose(next_seq=4)


def test_a_server_that_opens_another_session_is_not_believed(driver: Driver) -> None:
    driver.window.stream_lost()
    with pytest.raises(UnknownOutcome, match=f"{SESSION + 1}"):
        driver.window.opened(SESSION + 1, 1, 1_000)


# ---- deadlines -------------------------------------------------------------------------------------------


def test_a_deadline_takes_out_what_was_never_sent(driver: Driver) -> None:
    (early,) = driver.add("a", deadline=1.0)
    (late,) = driver.add("b", deadline=3.0)
    assert driver.window.expire(2.0, never_sent) == 3.0
    assert isinstance(early.exception(), DeadlineExceeded)
    assert not late.done()
    assert driver.sent() == [(1, "b")]


def test_a_deadline_leaves_what_was_sent_in_flight_with_an_unknown_outcome(driver: Driver) -> None:
    (early,) = driver.add("a", deadline=1.0)
    (late,) = driver.add("b", deadline=3.0)
    driver.sent()
    assert driver.window.expire(1.0, never_sent, ". Last loss: x") == 3.0
    assert isinstance(early.exception(), UnknownOutcome)
    assert "Last loss: x" in str(early.exception())
    driver.lose()
    assert driver.sent() == [(1, "a b")]
    driver.answer(1, "A", "B")
    assert late.result() == b"B"
    assert driver.window.expire(9.0, never_sent) == math.inf


def test_callers_that_went_away_do_not_pile_up(driver: Driver) -> None:
    for _ in range(50):
        for future in driver.add(*"x" * 1_000):
            future.cancel()
    assert len(driver.window.pending) < 3_000
    assert not driver.window.has_callers


# ---- refusals --------------------------------------------------------------------------------------------


def test_refused_commands_are_pending_again_in_their_order(loop: asyncio.AbstractEventLoop) -> None:
    driver = Driver(loop, frame_commands_max=2)
    driver.add("a", "b", "c", "d", "e", "f")
    assert driver.sent() == [(1, "a b"), (3, "c d"), (5, "e f")]
    driver.add("g")
    assert driver.window.refused(3, None)
    assert driver.window.next_seq == 7, "5 and 6 may still be taken"
    assert driver.window.refused(5, None)
    assert driver.window.next_seq == 3
    assert [command.data for command in driver.window.pending] == [b"c", b"d", b"e", b"f", b"g"]
    driver.answer(1, "A", "B")
    assert driver.sent() == [(3, "c d"), (5, "e f"), (7, "g")]


def test_refused_commands_leave_their_room_in_the_window(loop: asyncio.AbstractEventLoop) -> None:
    driver = Driver(loop, in_flight_bytes_max=10)
    driver.add("xxxx", "yyyy")
    assert driver.sent() == [(1, "xxxx yyyy")]
    driver.window.refused(1, None)
    assert driver.sent() == [(1, "xxxx yyyy")]


def test_refused_commands_may_be_taken_out_by_their_deadline(driver: Driver) -> None:
    (early,) = driver.add("a", deadline=1.0)
    driver.add("b")
    driver.sent()
    driver.window.refused(1, None)
    driver.window.expire(2.0, never_sent)
    assert isinstance(early.exception(), DeadlineExceeded)
    assert driver.sent() == [(1, "b")], "the number is used by the next one"


def test_what_was_sent_on_an_earlier_stream_keeps_its_number_when_it_is_refused(driver: Driver) -> None:
    (early,) = driver.add("a", deadline=1.0)
    driver.sent()
    driver.lose()
    driver.add("b")
    assert driver.sent() == [(1, "a"), (2, "b")]
    driver.window.refused(1, None)
    driver.window.refused(2, None)
    assert driver.window.next_seq == 2, "b was refused wherever it was; a was not"
    driver.window.expire(2.0, never_sent)
    assert isinstance(early.exception(), UnknownOutcome)
    assert driver.sent() == [(1, "a"), (2, "b")]


def test_a_refusal_that_came_late_does_no_harm(loop: asyncio.AbstractEventLoop) -> None:
    driver = Driver(loop, frame_commands_max=1)
    futures = driver.add("a", "b")
    assert driver.sent() == [(1, "a"), (2, "b")]
    driver.window.refused(1, None)
    assert driver.sent() == [(1, "a"), (2, "b")], "sent again before 2 was refused as well"
    driver.window.refused(2, None)
    assert driver.sent() == [(2, "b")]
    driver.answer(1, "A")
    driver.answer(2, "B")
    driver.answer(2, "B")
    assert [future.result() for future in futures] == [b"A", b"B"]
    assert not driver.window.awaits_results


def test_a_refusal_of_what_was_answered_meanwhile_is_ignored(driver: Driver) -> None:
    driver.add("a")
    driver.sent()
    driver.answer(1, "A")
    assert driver.window.refused(1, None)
    assert driver.window.refused(1, InvalidArgument("no"))
    assert driver.sent() == []


def test_what_is_refused_for_ever_fails_and_the_rest_goes_on(loop: asyncio.AbstractEventLoop) -> None:
    driver = Driver(loop, frame_commands_max=2)
    futures = driver.add("a", "b", "c", "d", "e")
    driver.sent()
    assert driver.window.refused(3, InvalidArgument("no"))
    assert driver.window.refused(5, None)
    assert [type(future.exception()) for future in futures[2:4]] == [InvalidArgument, InvalidArgument]
    assert futures[2].exception() is not futures[3].exception()
    driver.answer(1, "A", "B")
    assert driver.sent() == [(3, "e")]


def test_what_is_refused_for_ever_and_may_be_in_the_log_ends_the_session(driver: Driver) -> None:
    driver.add("a")
    driver.sent()
    driver.lose()
    driver.sent()
    assert not driver.window.refused(1, InvalidArgument("no"))


def test_a_server_that_refuses_what_it_has_executed_is_not_believed(loop: asyncio.AbstractEventLoop) -> None:
    driver = Driver(loop, frame_commands_max=2)
    driver.add("a", "b")
    driver.sent()
    driver.answer(2, "B")
    driver.window.refused(1, None)
    assert driver.window.next_seq == 3
    assert driver.sent() == [(1, "a")]


def test_a_loss_takes_back_what_was_refused_but_not_what_may_be_under_way(
    loop: asyncio.AbstractEventLoop,
) -> None:
    driver = Driver(loop, frame_commands_max=1)
    driver.add("a", "b", "c")
    driver.sent()
    driver.window.refused(2, None)
    driver.window.stream_lost()
    assert driver.window.next_seq == 4, "nothing is known of 3, so 2 must be there before it"
    driver.open()
    driver.sent()
    driver.window.refused(1, None)
    driver.window.refused(2, None)
    driver.window.refused(3, None)
    assert driver.window.next_seq == 4, (
        "each was sent on the stream before, and not all of them were refused there"
    )


# ---- expiry ----------------------------------------------------------------------------------------------


def test_an_expired_session_fails_what_is_in_flight_and_keeps_what_is_pending(
    loop: asyncio.AbstractEventLoop,
) -> None:
    driver = Driver(loop, in_flight_max=2)
    (first, second, third) = driver.add("a", "b", "c")
    driver.sent()
    driver.window.session_lost(expired)
    assert isinstance(first.exception(), SessionExpired)
    assert isinstance(second.exception(), SessionExpired)
    assert not third.done()
    assert driver.send() is None
    driver.window.stream_lost()
    driver.window.opened(SESSION + 9, 1, 10_000)
    frame = driver.send()
    assert frame is not None
    assert (frame.session, frame.first_seq, list(frame.commands)) == (SESSION + 9, 1, [b"c"])


def test_closing_fails_what_is_pending(driver: Driver) -> None:
    (sent,) = driver.add("a")
    driver.sent()
    (pending,) = driver.add("b")
    driver.window.fail_pending(never_sent)
    assert isinstance(pending.exception(), DeadlineExceeded)
    assert not sent.done()
    assert driver.window.has_callers
    assert driver.window.has_commands


# ---- everything at once ----------------------------------------------------------------------------------


class Log:
    """What the cluster executes, in truth; a server may hold frames back and hand them on much later."""

    def __init__(self) -> None:
        self.executed: list[bytes] = []
        self.offences: list[str] = []

    def apply(self, frame: pb.Frame) -> tuple[int, list[bytes]] | None:
        if frame.first_seq > len(self.executed) + 1:
            return None
        for seq, command in enumerate(frame.commands, frame.first_seq):
            if seq > len(self.executed):
                self.executed.append(command)
            elif self.executed[seq - 1] != command:
                self.offences.append(f"{seq}: {self.executed[seq - 1]!r} and {command!r}")
        return frame.first_seq, [b"=" + command for command in frame.commands]


class Chaos:
    """Losses, refusals, late frames of dead streams, cancellations and deadlines, at random."""

    STEPS = ("add", "add", "send", "send", "serve", "serve", "lose", "refuse", "cancel", "late", "time")

    def __init__(self, loop: asyncio.AbstractEventLoop, rng: random.Random) -> None:
        self.rng = rng
        self.log = Log()
        self.driver = Driver(
            loop, in_flight_max=rng.choice([2, 8, 100]), frame_commands_max=rng.choice([1, 3, 10])
        )
        self.futures: dict[bytes, asyncio.Future[bytes]] = {}
        self.under_way: list[pb.Frame] = []  # on the stream of now
        self.late: list[pb.Frame] = []  # of streams that are gone; they may be executed any time

    def step(self, now: int) -> None:
        rng, driver = self.rng, self.driver
        match rng.choice(self.STEPS):
            case "add" if len(self.futures) < 200:
                for n in range(rng.randint(1, 4)):
                    name, deadline = f"{now}.{n}", now + rng.choice([5, 50, 1_000])
                    self.futures[name.encode()] = driver.add(name, deadline=deadline)[0]
            case "send":
                frame = driver.send()
                if frame is not None:
                    self.under_way.append(frame)
            case "serve" if self.under_way:
                self.serve(self.under_way.pop(0))
            case "lose" if rng.random() < 0.3:
                self.late += self.under_way
                self.under_way.clear()
                driver.lose(next_seq=len(self.log.executed) + 1)
            case "refuse" if self.under_way:
                at = rng.randrange(len(self.under_way))
                refused = self.under_way[at:]
                del self.under_way[at:]
                for frame in refused:
                    driver.window.refused(frame.first_seq, None)
            case "cancel" if self.futures:
                rng.choice(list(self.futures.values())).cancel()
            case "late" if self.late:
                self.log.apply(self.late.pop(rng.randrange(len(self.late))))
            case "time":
                driver.window.expire(now, never_sent)

    def serve(self, frame: pb.Frame) -> None:
        done = self.log.apply(frame)
        if done is not None:
            self.driver.window.results(*done)

    def settle(self) -> None:
        """All is well from now on: everything is sent, again where it has to be, and answered."""
        for frame in self.under_way:
            self.serve(frame)
        self.driver.lose(next_seq=len(self.log.executed) + 1)
        while (last := self.driver.send()) is not None:
            self.serve(last)


@pytest.mark.parametrize("seed", range(100))
def test_whatever_happens_each_command_is_executed_once_in_order(
    loop: asyncio.AbstractEventLoop, seed: int
) -> None:
    chaos = Chaos(loop, random.Random(seed))
    for now in range(400):
        chaos.step(now)
    chaos.settle()
    log, futures = chaos.log, chaos.futures
    assert log.offences == []
    assert len(set(log.executed)) == len(log.executed), "executed twice, under two numbers"
    places = {name: place for place, name in enumerate(futures)}
    assert sorted(log.executed, key=places.__getitem__) == log.executed
    assert not chaos.driver.window.has_commands
    for name, future in futures.items():
        assert future.done()
        if future.cancelled():
            continue
        error = future.exception()
        if error is None:
            assert future.result() == b"=" + name
            assert name in log.executed
        elif isinstance(error, DeadlineExceeded):
            assert name not in log.executed, "it was said not to have been executed"
        else:
            assert isinstance(error, UnknownOutcome)
    assert log.executed
