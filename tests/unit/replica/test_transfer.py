"""Both ends of a snapshot on its way, with files that are bytes and links that a test drives."""

import random

import pytest

from paxos_rsm.paxos.messages import Envelope, FetchSnapshot, SnapshotChunk
from paxos_rsm.replica.transfer import (
    PART_BYTES,
    QUESTIONS_MAX,
    SNAPSHOT_BYTES_MAX,
    WINDOW_PARTS,
    FinishFetch,
    ReadPart,
    SnapshotTask,
    Transfer,
    WritePart,
)

PATIENCE = 10
A, B = 1, 2


class End:
    """One server's end, with the files that its driver keeps."""

    def __init__(self, rate: int = 1 << 30) -> None:
        self.transfer = Transfer(rate, PATIENCE)
        self.files: dict[int, bytes] = {}
        self.fetched: dict[int, bytearray] = {}
        self.finished: list[int] = []
        self.parts_read = 0

    def give(self, slot: int, data: bytes) -> None:
        self.files = {slot: data}
        self.transfer.newest = slot

    def step(self) -> list[Envelope]:
        """Does the tasks that there are; gives the messages."""
        messages: list[Envelope] = []
        while self.transfer.has_output:
            out, tasks = self.transfer.take()
            messages += out
            for task in tasks:
                self.do(task)
        return messages

    def do(self, task: SnapshotTask) -> None:
        if isinstance(task, ReadPart):
            data = self.files.get(task.slot, b"")
            self.parts_read += 1
            part = data[task.offset : task.offset + PART_BYTES]
            self.transfer.read(task.to, task.slot, len(data), task.offset, part)
        elif isinstance(task, WritePart):
            held = self.fetched.setdefault(task.slot, bytearray())
            assert len(held) == task.offset
            held += task.data
            self.transfer.written(task.slot, len(held))
        elif isinstance(task, FinishFetch):
            self.finished.append(task.slot)


class Pair:
    """A fetches from B."""

    def __init__(self, rate: int = 1 << 30) -> None:
        self.a, self.b = End(), End(rate)
        self.lose = 0.0
        self.random = random.Random(1)
        self.on_the_way = 0

    def run(self, ticks: int = 1) -> None:
        for _ in range(ticks):
            self.a.transfer.tick()
            self.b.transfer.tick()
            self.exchange()

    def exchange(self) -> None:
        while self.a.transfer.has_output or self.b.transfer.has_output:
            for sender, end, other in ((A, self.a, self.b), (B, self.b, self.a)):
                for envelope in end.step():
                    message = envelope.message
                    if self.random.random() < self.lose:
                        continue
                    if isinstance(message, FetchSnapshot):
                        other.transfer.asked(sender, message)
                    elif isinstance(message, SnapshotChunk):
                        other.transfer.chunk(sender, message)


def content(parts: float) -> bytes:
    return random.Random(7).randbytes(int(parts * PART_BYTES))


@pytest.mark.parametrize("parts", [0.1, 1, 3.5, 11])
def test_a_snapshot_comes_whole(parts: float) -> None:
    pair = Pair()
    pair.b.give(90, content(parts))
    pair.a.transfer.want(B, 50)
    pair.run(100)
    assert pair.a.finished == [90]
    assert bytes(pair.a.fetched[90]) == content(parts)
    assert pair.b.parts_read == -(-len(content(parts)) // PART_BYTES)


def test_what_is_lost_is_asked_for_again() -> None:
    pair = Pair()
    pair.lose = 0.2
    pair.b.give(90, content(9))
    pair.a.transfer.want(B, 50)
    pair.run(60 * PATIENCE)
    assert pair.a.finished == [90]
    assert bytes(pair.a.fetched[90]) == content(9)


def test_it_goes_on_where_it_was_cut_off() -> None:
    pair = Pair(rate=PART_BYTES)
    pair.b.give(90, content(9))
    pair.a.transfer.want(B, 50)
    pair.run(4)
    come = len(pair.a.fetched[90])
    assert 0 < come < 9 * PART_BYTES
    pair.a.transfer.lost(B)
    pair.b.transfer.lost(A)
    assert not pair.a.transfer.fetching
    pair.a.transfer.want(B, 50)
    pair.run(40)
    assert pair.a.finished == [90]
    assert pair.b.parts_read <= 9 + WINDOW_PARTS


def test_after_a_restart_only_the_rest_is_fetched() -> None:
    pair = Pair()
    pair.b.give(90, content(9))
    pair.a.fetched[90] = bytearray(content(9)[: 5 * PART_BYTES])
    pair.a.transfer.resume(90, 9 * PART_BYTES, 5 * PART_BYTES)
    pair.a.transfer.want(B, 50)
    pair.run(5)
    assert pair.a.finished == [90]
    assert pair.b.parts_read == 4
    assert bytes(pair.a.fetched[90]) == content(9)


def test_what_was_fetched_to_the_end_before_a_restart_is_checked_at_once() -> None:
    transfer = Transfer(1, PATIENCE)
    transfer.resume(90, 700, 700)
    transfer.want(B, 50)
    assert transfer.take() == ([], [FinishFetch(90, 700)])


def test_a_part_of_a_snapshot_that_would_not_do_is_not_resumed() -> None:
    transfer = Transfer(1, PATIENCE)
    transfer.resume(90, 700, 300)
    transfer.want(B, 91)
    assert transfer.take()[0] == [Envelope(B, FetchSnapshot(91, 0))]


def test_a_snapshot_that_is_gone_is_begun_anew_with_what_there_is() -> None:
    pair = Pair(rate=PART_BYTES)
    pair.b.give(90, content(9))
    pair.a.transfer.want(B, 50)
    pair.run(4)
    pair.b.give(120, content(2))
    pair.run(40)
    assert pair.a.finished == [120]
    assert bytes(pair.a.fetched[120]) == content(2)


def test_what_was_cut_off_is_begun_anew_where_the_next_peer_has_another_file_of_that_slot() -> None:
    """Equal states need not be equal bytes: one peer may have restored what another has written (simulator)."""
    pair = Pair()
    pair.b.give(90, content(11))
    pair.a.transfer.resume(90, 9 * PART_BYTES, 5 * PART_BYTES)
    pair.a.transfer.want(B, 50)
    pair.run(5)
    assert pair.a.finished == [90]
    assert bytes(pair.a.fetched[90]) == content(11)


def test_a_newer_one_is_asked_for_until_there_is_one() -> None:
    pair = Pair()
    pair.b.give(40, content(1))
    pair.a.transfer.want(B, 50)
    pair.run(2)
    assert pair.b.transfer.wanted_from == 50
    assert pair.a.finished == []
    pair.b.give(60, content(1))
    pair.run(2 * PATIENCE)
    assert pair.a.finished == [60]


def test_one_who_asks_for_what_cannot_be_does_not_keep_the_others_from_theirs() -> None:
    transfer = Transfer(1, PATIENCE)
    transfer.asked(A, FetchSnapshot(1 << 60, 0))
    transfer.asked(B, FetchSnapshot(50, 0))
    assert transfer.wanted_from == 50


def test_a_size_that_no_snapshot_has_is_not_believed() -> None:
    transfer = Transfer(1, PATIENCE)
    transfer.want(B, 50)
    transfer.take()
    transfer.chunk(B, SnapshotChunk(60, SNAPSHOT_BYTES_MAX + 1, 0, b"x"))
    assert transfer.take() == ([], [])
    transfer.chunk(B, SnapshotChunk(60, SNAPSHOT_BYTES_MAX, 0, b"x"))
    assert transfer.take()[1] == [WritePart(60, SNAPSHOT_BYTES_MAX, 0, b"x")]


def test_a_peer_that_does_not_answer_is_left() -> None:
    transfer = Transfer(1, PATIENCE)
    transfer.want(B, 50)
    transfer.want(A, 50)
    ticks = 0
    while transfer.fetching:
        transfer.tick()
        ticks += 1
    assert ticks == 3 * PATIENCE, "it is asked twice, and no more: another may have one"
    assert [envelope.to for envelope in transfer.take()[0]] == [B, B]
    transfer.want(A, 50)
    assert transfer.take()[0] == [Envelope(A, FetchSnapshot(50, 0))]


def test_a_peer_that_has_begun_to_send_is_waited_for_longer() -> None:
    transfer = Transfer(1, PATIENCE)
    transfer.want(B, 50)
    transfer.chunk(B, SnapshotChunk(90, 10, 0, b"x"))
    ticks = 0
    while transfer.fetching:
        transfer.tick()
        ticks += 1
    assert ticks == 31 * PATIENCE


def test_only_the_peer_that_was_asked_is_heard_and_only_in_order() -> None:
    transfer = Transfer(1, PATIENCE)
    transfer.want(B, 50)
    transfer.chunk(A, SnapshotChunk(90, 10, 0, b"x"))
    transfer.chunk(B, SnapshotChunk(49, 10, 0, b"x"))
    transfer.chunk(B, SnapshotChunk(90, 10, 5, b"x"))
    assert transfer.take()[1] == []
    transfer.chunk(B, SnapshotChunk(90, 10, 0, b"12345"))
    transfer.chunk(B, SnapshotChunk(90, 10, 0, b"12345"))
    assert transfer.take()[1] == [WritePart(90, 10, 0, b"12345")]


def test_no_more_is_asked_for_than_can_be_written() -> None:
    transfer = Transfer(1, PATIENCE)
    size = 100 * PART_BYTES
    transfer.want(B, 50)
    transfer.chunk(B, SnapshotChunk(90, size, 0, bytes(PART_BYTES)))
    transfer.take()
    transfer.written(90, PART_BYTES)
    assert len(transfer.take()[0]) == WINDOW_PARTS
    transfer.chunk(B, SnapshotChunk(90, size, PART_BYTES, bytes(PART_BYTES)))
    assert transfer.take()[0] == []
    transfer.written(90, 2 * PART_BYTES)
    assert len(transfer.take()[0]) == 1


def test_no_more_is_sent_than_the_rate_allows_and_peers_take_turns() -> None:
    transfer = Transfer(PART_BYTES // 4, PATIENCE)
    transfer.newest = 90
    for number in range(2 * QUESTIONS_MAX):
        for peer in (A, B):
            transfer.asked(peer, FetchSnapshot(90, (number + 1) * PART_BYTES))
    read: list[SnapshotTask] = []
    for _ in range(64):
        transfer.tick()
        read += transfer.take()[1]
    assert 14 <= len(read) <= 17
    assert {task.to for task in read[:2] if isinstance(task, ReadPart)} == {A, B}
    for _ in range(20 * PATIENCE):
        transfer.tick()
        read += transfer.take()[1]
    assert len(read) == 2 * QUESTIONS_MAX


def test_the_log_is_kept_for_a_peer_that_was_sent_a_snapshot_of_late() -> None:
    transfer = Transfer(PART_BYTES, PATIENCE)
    assert (transfer.keep_above(), transfer.sending) == (None, False)
    transfer.newest = 90
    transfer.asked(A, FetchSnapshot(1, 0))
    transfer.tick()
    assert (transfer.keep_above(), transfer.sending) == (90, True)
    for _ in range(3 * PATIENCE):
        transfer.tick()
    assert (transfer.keep_above(), transfer.sending) == (90, False)
    for _ in range(20 * PATIENCE):
        transfer.tick()
    assert transfer.keep_above() is None
