import asyncio
import math
from collections.abc import Iterator

import pytest

from paxos_rsm._proto import session_pb2 as pb
from paxos_rsm.client.reads import Answer, Query, Reads
from paxos_rsm.errors import ClientError, DeadlineExceeded, InvalidArgument, Unavailable


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Only to make futures: nothing runs on it."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


class Driver:
    """Reads, and what a caller and a server do to them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, in_flight_max: int = 1_000) -> None:
        self.loop = loop
        self.reads = Reads(in_flight_max=in_flight_max)

    def add(
        self, *names: str, serializable: bool = False, deadline: float = math.inf
    ) -> "list[asyncio.Future[Answer]]":
        futures = []
        for name in names:
            future: asyncio.Future[Answer] = self.loop.create_future()
            self.reads.add(Query(name.encode(), deadline, future), serializable)
            futures.append(future)
        return futures

    def ask(self) -> pb.Read | None:
        message = self.reads.next_message(cluster_id=9)
        return None if message is None else pb.ClientMessage.FromString(message).read

    def asked(self) -> list[tuple[int, str]]:
        """Everything that may be asked now: the id of each message and its queries."""
        messages = []
        while (read := self.ask()) is not None:
            messages.append((read.id, b" ".join(read.requests).decode()))
        return messages

    def answer(self, read_id: int, *results: str) -> bool:
        return self.reads.answered(read_id, [result.encode() for result in results], 11, 12)


@pytest.fixture
def driver(loop: asyncio.AbstractEventLoop) -> Driver:
    return Driver(loop)


def too_late() -> ClientError:
    return DeadlineExceeded("too late")


def test_what_waits_is_asked_in_one_message(driver: Driver) -> None:
    futures = driver.add("a", "b", "c")
    read = driver.ask()
    assert read is not None
    assert (read.id, list(read.requests), read.serializable, read.cluster_id) == (
        1,
        [b"a", b"b", b"c"],
        False,
        9,
    )
    assert driver.ask() is None
    assert driver.answer(1, "A", "B", "C")
    assert [future.result() for future in futures] == [Answer(b, 11, 12) for b in (b"A", b"B", b"C")]
    assert not driver.reads.has_callers


def test_stale_reads_travel_apart_and_in_turns(driver: Driver) -> None:
    driver.add("a")
    driver.add("s", serializable=True)
    driver.add("b")
    reads = [driver.ask(), driver.ask()]
    assert {(read.serializable, b" ".join(read.requests)) for read in reads if read is not None} == {
        (True, b"s"),
        (False, b"a b"),
    }
    order = []
    for _ in range(4):
        driver.add(*["x"] * 300)
        driver.add(*["y"] * 300, serializable=True)
        read = driver.ask()
        assert read is not None
        order.append(read.serializable)
    assert sorted(order) == [False, False, True, True]


def test_messages_are_cut_by_count_and_by_bytes(driver: Driver) -> None:
    driver.add(*["x"] * 600)
    assert [len(names.split()) for _, names in driver.asked()] == [256, 256, 88]
    driver.add(*["x" * 600_000] * 3)
    assert [len(names.split()) for _, names in driver.asked()] == [1, 1, 1]


def test_no_more_than_the_limit_is_asked_at_once(loop: asyncio.AbstractEventLoop) -> None:
    driver = Driver(loop, in_flight_max=3)
    driver.add("a", "b", "c", "d", "e")
    assert driver.asked() == [(1, "a b c")]
    driver.answer(1, "", "", "")
    assert driver.asked() == [(2, "d e")]


def test_a_query_that_is_too_large_fails_alone(driver: Driver) -> None:
    driver.reads.request_bytes_max = 10
    (_, large, _) = driver.add("a", "x" * 11, "y" * 10)
    assert driver.asked() == [(1, "a " + "y" * 10)]
    assert isinstance(large.exception(), InvalidArgument)


def test_after_a_loss_everything_is_asked_again_in_order_and_first(driver: Driver) -> None:
    (_, gone, _) = driver.add("a", "b", "c")
    driver.asked()
    driver.add("d")
    driver.asked()
    driver.add("e")
    gone.cancel()
    driver.reads.stream_lost()
    assert driver.asked() == [(3, "a c d e")]
    assert not driver.answer(1, "A", "B", "C"), "an answer to the old question comes too late"
    assert driver.answer(3, "A", "C", "D", "E")


def test_what_is_refused_for_now_is_asked_again(driver: Driver) -> None:
    driver.add("a", "b")
    driver.asked()
    driver.add("c")
    driver.reads.ask_again(1)
    driver.reads.ask_again(1)
    assert driver.asked() == [(2, "a b c")]


def test_a_query_that_cannot_be_answered_does_not_take_others_with_it(driver: Driver) -> None:
    (first, bad, last) = driver.add("a", "bad", "c")
    driver.asked()
    driver.add("d")
    driver.reads.failed(1, ClientError("no"))
    assert driver.asked() == [(2, "a"), (3, "bad"), (4, "c"), (5, "d")]
    driver.answer(2, "A")
    driver.reads.failed(3, ClientError("no"))
    driver.answer(4, "C")
    assert str(bad.exception()) == "no"
    assert (first.result().result, last.result().result) == (b"A", b"C")
    driver.reads.failed(3, ClientError("no"))


def test_an_answer_of_another_length_is_not_taken(driver: Driver) -> None:
    driver.add("a", "b")
    driver.asked()
    assert not driver.answer(1, "A")
    assert not driver.answer(7, "A", "B")
    assert driver.answer(1, "A", "B")


def test_deadlines_and_cancellation(driver: Driver) -> None:
    (early,) = driver.add("a", deadline=1.0)
    driver.asked()
    (queued,) = driver.add("b", deadline=2.0)
    (late,) = driver.add("c", deadline=3.0)
    (gone,) = driver.add("d", deadline=2.0)
    gone.cancel()
    assert driver.reads.expire(2.0, too_late) == 3.0
    assert isinstance(early.exception(), DeadlineExceeded)
    assert isinstance(queued.exception(), DeadlineExceeded)
    assert driver.asked() == [(2, "c")]
    assert driver.answer(1, "A")
    assert driver.answer(2, "C")
    assert late.result().result == b"C"
    assert driver.reads.expire(2.0, too_late) == math.inf


def test_everything_fails_at_the_end(driver: Driver) -> None:
    (asked,) = driver.add("a")
    driver.asked()
    (queued,) = driver.add("b", serializable=True)
    driver.reads.fail_all(lambda: Unavailable("closed"))
    assert isinstance(asked.exception(), Unavailable)
    assert isinstance(queued.exception(), Unavailable)
    assert driver.ask() is None


def test_callers_that_went_away_do_not_pile_up(loop: asyncio.AbstractEventLoop) -> None:
    driver = Driver(loop, in_flight_max=0)
    for _ in range(50):
        for future in driver.add(*"x" * 1_000):
            future.cancel()
    assert len(list(driver.reads._all())) < 3_000
    assert not driver.reads.has_callers
