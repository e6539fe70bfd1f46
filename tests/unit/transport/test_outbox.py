from hypothesis import given
from hypothesis import strategies as st

from paxos_rsm.paxos.messages import Accept, Message, Promise, ReadRequest, SnapshotChunk
from paxos_rsm.paxos.types import Ballot, Batch
from paxos_rsm.transport.frames import Assembler, decode_frame, pack
from paxos_rsm.transport.options import TransportOptions
from paxos_rsm.transport.outbox import OVERTAKEN_MAX, Outbox

OPTIONS = TransportOptions(
    frame_bytes_max=1_000,
    piece_bytes_max=400,
    message_bytes_max=20_000,
    queue_bytes_max=20_000,
    queue_messages_max=20,
    urgent_bytes_max=400,
    urgent_messages_max=10,
    background_bytes_max=1_000,
)


def accept(slot: int, size: int = 50) -> Accept:
    return Accept(Ballot(1, 1), slot, Batch(b"x" * size), 0)


def beat(number: int) -> ReadRequest:
    """Something small and urgent."""
    return ReadRequest(number)


def chunk(number: int, size: int = 350) -> SnapshotChunk:
    return SnapshotChunk(1, 1_000_000, number, b"s" * size)


def drain(outbox: Outbox) -> list[list[Message]]:
    """Every frame, as its receiver sees it."""
    assembler, frames = Assembler(OPTIONS.message_bytes_max), []
    while (frame := outbox.next_frame()) is not None:
        assert len(frame) <= OPTIONS.frame_bytes_max + OPTIONS.piece_bytes_max + 100
        frames.append(decode_frame(frame, assembler))
    assert not outbox
    assert (
        outbox.bulk_bytes
        == outbox.urgent_bytes
        == outbox.background_bytes
        == outbox.waiting_bytes
        == len(outbox)
        == 0
    )
    return frames


def test_an_empty_box_has_no_frame() -> None:
    outbox = Outbox(OPTIONS)
    assert not outbox
    assert outbox.next_frame() is None


def test_a_lone_message_is_a_frame_and_is_not_copied() -> None:
    outbox, packed = Outbox(OPTIONS), pack(beat(1))
    outbox.put(packed)
    assert outbox.next_frame() is packed.data


def test_what_waits_goes_in_one_frame_urgent_first() -> None:
    outbox = Outbox(OPTIONS)
    for message in (accept(1), beat(1), accept(2), beat(2)):
        assert outbox.put(pack(message))
    assert drain(outbox) == [[beat(1), beat(2), accept(1), accept(2)]]


def test_a_frame_is_bounded() -> None:
    outbox = Outbox(OPTIONS)
    sent = [accept(slot, 300) for slot in range(1, 8)]
    for message in sent:
        outbox.put(pack(message))
    frames = drain(outbox)
    assert [len(frame) for frame in frames] == [3, 3, 1]
    assert [message for frame in frames for message in frame] == sent


def test_urgent_messages_go_between_the_pieces_of_a_large_one() -> None:
    outbox, assembler, got = Outbox(OPTIONS), Assembler(20_000), []
    outbox.put(pack(accept(1, 2_000)))
    outbox.put(pack(accept(2)))
    for number in range(6):
        outbox.put(pack(beat(number)))
        frame = outbox.next_frame()
        assert frame is not None
        got.append(decode_frame(frame, assembler))
    assert got == [[beat(0)], [beat(1)], [beat(2)], [beat(3)], [beat(4)], [beat(5), accept(1, 2_000)]]
    assert drain(outbox) == [[accept(2)]]  # order within bulk is kept


def test_urgent_messages_cannot_shut_out_bulk() -> None:
    options = TransportOptions(frame_bytes_max=100, piece_bytes_max=90, urgent_bytes_max=4_000)
    outbox = Outbox(options)
    outbox.put(pack(accept(1)))
    for number in range(1, 100):
        outbox.put(pack(beat(number)))
    frame = outbox.next_frame()
    assert frame is not None
    got = decode_frame(frame, Assembler(1_000))
    assert len(got) < 99
    assert got[-1] == accept(1)


def test_a_large_urgent_message_is_bulk() -> None:
    promise = Promise(Ballot(1, 1), 1, None, ((1, Ballot(1, 1), Batch(b"x" * 2_000)),), ())
    outbox = Outbox(OPTIONS)
    outbox.put(pack(promise))
    outbox.put(pack(beat(1)))
    assert outbox.urgent_bytes < 50
    assert [message for frame in drain(outbox) for message in frame] == [beat(1), promise]


def test_of_urgent_messages_the_oldest_are_dropped() -> None:
    outbox = Outbox(OPTIONS)
    for number in range(1, 31):
        assert outbox.put(pack(beat(number)))
    assert outbox.dropped == 20
    assert drain(outbox) == [[beat(number) for number in range(21, 31)]]


def test_urgent_messages_are_bounded_in_bytes() -> None:
    promise = Promise(Ballot(1, 1), 1, None, (), (), unreadable=tuple(range(10**12, 10**12 + 20)))
    outbox = Outbox(OPTIONS)
    for _ in range(10):
        outbox.put(pack(promise))
    assert 0 < outbox.urgent_bytes <= OPTIONS.urgent_bytes_max
    assert outbox.dropped == 10 - len(outbox)


def test_of_bulk_messages_the_newest_are_refused() -> None:
    outbox = Outbox(OPTIONS)
    taken = [outbox.put(pack(accept(slot))) for slot in range(1, 31)]
    assert taken == [True] * 20 + [False] * 10
    assert outbox.dropped == 10
    assert [m.slot for frame in drain(outbox) for m in frame if isinstance(m, Accept)] == list(range(1, 21))


def test_bulk_is_bounded_in_bytes() -> None:
    outbox = Outbox(OPTIONS)
    taken = [outbox.put(pack(accept(slot, 6_000))) for slot in range(1, 6)]
    assert taken == [True, True, True, False, False]
    outbox.put(pack(beat(1)))
    assert outbox.put(pack(accept(9, 100)))


def test_one_message_always_fits() -> None:
    outbox = Outbox(OPTIONS)
    assert outbox.put(pack(accept(1, 50_000)))
    assert not outbox.put(pack(accept(2)))


def test_a_message_in_pieces_counts_until_the_last_has_gone() -> None:
    outbox = Outbox(OPTIONS)
    outbox.put(pack(accept(1, 2_000)))
    size = outbox.bulk_bytes
    for _ in range(5):
        outbox.next_frame()
        assert outbox.bulk_bytes == size
    outbox.next_frame()
    assert outbox.bulk_bytes == 0


def test_a_chunk_of_a_snapshot_goes_alone_and_after_all_else() -> None:
    outbox = Outbox(OPTIONS)
    for message in (chunk(1), chunk(2), accept(1, 900), beat(1), accept(2)):
        assert outbox.put(pack(message))
    frames = drain(outbox)
    assert frames[-2:] == [[chunk(1)], [chunk(2)]]
    assert [message for frame in frames[:-2] for message in frame] == [beat(1), accept(1, 900), accept(2)]


def test_what_comes_while_a_snapshot_is_sent_waits_for_one_chunk_at_most() -> None:
    """Heartbeats, small Accepts and those that go in pieces: each is out before the next chunk is."""
    outbox, assembler = Outbox(OPTIONS), Assembler(20_000)
    outbox.put(pack(chunk(0)))
    sent: list[Message] = [beat(1), accept(1), accept(2, 2_000), beat(2)]
    for number, message in enumerate(sent, 1):
        outbox.put(pack(chunk(number)))
        frame = outbox.next_frame()
        assert frame is not None
        assert decode_frame(frame, assembler) == [chunk(number - 1)]  # under way when the message comes
        outbox.put(pack(message))
        got: list[Message] = []
        while not got:
            frame = outbox.next_frame()
            assert frame is not None
            got = decode_frame(frame, assembler)
        assert got == [message]
    assert drain(outbox) == [[chunk(4)]]


def test_a_chunk_is_not_overtaken_for_ever() -> None:
    outbox, assembler, got = Outbox(OPTIONS), Assembler(20_000), []
    outbox.put(pack(chunk(1)))
    outbox.put(pack(chunk(2)))
    for number in range(3 * OVERTAKEN_MAX):
        outbox.put(pack(accept(number + 1, 900)))
        outbox.put(pack(beat(number)))
        frame = outbox.next_frame()
        assert frame is not None
        got.append(decode_frame(frame, assembler))
    assert got[OVERTAKEN_MAX] == [chunk(1)]
    assert got[2 * OVERTAKEN_MAX + 1] == [chunk(2)]
    assert sum(isinstance(m, SnapshotChunk) for frame in got for m in frame) == 2


def test_a_chunk_may_go_between_the_pieces_of_a_large_message() -> None:
    outbox = Outbox(OPTIONS)
    outbox.put(pack(accept(1, 15_000)))
    outbox.put(pack(chunk(1)))
    frames = drain(outbox)
    assert [frame for frame in frames if frame] == [[chunk(1)], [accept(1, 15_000)]]


def test_of_chunks_the_newest_are_refused() -> None:
    outbox = Outbox(OPTIONS)
    assert [outbox.put(pack(chunk(number))) for number in range(4)] == [True, True, False, False]
    assert outbox.dropped == 2
    assert len(outbox) == 2
    assert outbox.put(pack(accept(1)))
    assert [m for frame in drain(outbox) for m in frame] == [accept(1), chunk(0), chunk(1)]
    assert outbox.put(pack(chunk(9, 5_000)))  # one always fits


def test_clear_forgets_the_chunks() -> None:
    outbox = Outbox(OPTIONS)
    outbox.put(pack(chunk(1)))
    outbox.clear()
    assert not outbox
    assert outbox.waiting_bytes == 0
    assert outbox.next_frame() is None


def test_clear_forgets_a_message_half_sent() -> None:
    outbox = Outbox(OPTIONS)
    outbox.put(pack(accept(1, 2_000)))
    outbox.next_frame()
    outbox.put(pack(beat(1)))
    outbox.clear()
    assert not outbox
    outbox.put(pack(accept(2, 2_000)))
    assert [message for frame in drain(outbox) for message in frame] == [accept(2, 2_000)]


@given(
    st.lists(
        st.one_of(
            st.builds(beat, st.integers(0, 99)),
            st.builds(accept, st.integers(1, 99), st.integers(0, 1_500)),
            st.builds(chunk, st.integers(0, 99), st.integers(1, 350)),
        )
    )
)
def test_nothing_is_lost_doubled_or_reordered_within_a_lane(sent: list[Message]) -> None:
    outbox = Outbox(TransportOptions(frame_bytes_max=1_000, piece_bytes_max=400))
    for message in sent:
        assert outbox.put(pack(message))
    got = [message for frame in drain(outbox) for message in frame]
    for kind in (Accept, ReadRequest, SnapshotChunk):
        assert [m for m in got if isinstance(m, kind)] == [m for m in sent if isinstance(m, kind)]
