import pytest
from hypothesis import given
from hypothesis import strategies as st

from paxos_rsm._proto import paxos_pb2 as pb
from paxos_rsm.codec.messages import MalformedMessage, message_from_pb
from paxos_rsm.errors import UnknownEntry
from paxos_rsm.paxos.messages import (
    Accept,
    Accepted,
    CatchUpReply,
    FetchSnapshot,
    Forward,
    Message,
    ReadRequest,
    SnapshotChunk,
)
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Batch
from paxos_rsm.transport.frames import (
    Assembler,
    Cutter,
    Lane,
    Packed,
    decode_frame,
    decode_hello,
    decode_reply,
    encode_hello,
    encode_hello_reply,
    encode_refusal_reply,
    pack,
)
from paxos_rsm.transport.handshake import Reason, Refusal, hello_to_pb
from tests.unit.codec.strategies import messages
from tests.unit.transport.helpers import hello_of

LARGE = Accept(Ballot(1, 1), 1, Batch(bytes(range(256)) * 40), 0)
BYTES_MAX = 1 << 20


def pieces_of(packed: Packed, piece_bytes_max: int, piece_id: int = 1) -> list[bytes]:
    cutter, frames = Cutter(packed, piece_id, piece_bytes_max), []
    while not cutter.done:
        frames.append(cutter.next_frame())
    return frames


@given(st.lists(messages, max_size=6))
def test_packed_messages_side_by_side_are_a_frame(sent: list[Message]) -> None:
    frame = b"".join(pack(message).data for message in sent)
    assert decode_frame(frame, Assembler(BYTES_MAX)) == sent
    parsed = pb.PeerFrame.FromString(frame)
    assert [message_from_pb(message) for message in parsed.messages] == sent
    parsed.DiscardUnknownFields()
    assert len(parsed.SerializeToString()) <= len(frame)


@given(messages, st.integers(1, 64))
def test_pieces_make_the_message_again(message: Message, piece_bytes_max: int) -> None:
    packed, assembler = pack(message), Assembler(BYTES_MAX)
    frames = pieces_of(packed, piece_bytes_max)
    got = [decode_frame(frame, assembler) for frame in frames]
    assert got == [[] for _ in frames[:-1]] + [[message]]
    assert len(frames) == -(-(len(packed.data) - packed.body_at) // piece_bytes_max)


def test_messages_pass_between_pieces_and_split_messages_follow_each_other() -> None:
    assembler, got = Assembler(BYTES_MAX), []
    between = pack(ReadRequest(7)).data
    for piece_id in (1, 2):
        for frame in pieces_of(pack(LARGE), 1_000, piece_id):
            got += decode_frame(between + frame, assembler)
    requests = [message for message in got if isinstance(message, ReadRequest)]
    assert len(requests) == 22
    assert [i for i, message in enumerate(got) if message == LARGE] == [11, 23]


def test_what_carries_entries_or_frames_is_not_urgent() -> None:
    bulk = (LARGE, Forward((b"x",)), CatchUpReply(NO_BALLOT, (), 1))
    assert all(pack(message).lane is Lane.BULK for message in bulk)
    assert pack(Accepted(Ballot(1, 1), (1,))).lane is Lane.URGENT
    assert pack(FetchSnapshot(0, 0)).lane is Lane.URGENT
    assert pack(SnapshotChunk(1, 9, 0, b"x")).lane is Lane.BACKGROUND


# ---- what does not fit -----------------------------------------------------------------------------------


def piece(index: int, count: int, data: bytes = b"x", piece_id: int = 1) -> pb.Piece:
    return pb.Piece(id=piece_id, index=index, count=count, data=data)


@pytest.mark.parametrize(
    "pieces",
    [
        [piece(1, 3)],
        [piece(0, 0)],
        [piece(0, 2, b"")],
        [piece(0, 2**32 - 1)],
        [piece(0, 3), piece(2, 3)],
        [piece(0, 3), piece(0, 3)],
        [piece(0, 3), piece(1, 4)],
        [piece(0, 3), piece(1, 3, piece_id=2)],
        [piece(0, 3), piece(1, 3, b"")],
        [piece(0, 1, b"x" * 101)],
        [piece(0, 2, b"x" * 60), piece(1, 2, b"x" * 41)],
    ],
    ids=range(11),
)
def test_pieces_that_do_not_fit_are_malformed(pieces: list[pb.Piece]) -> None:
    assembler = Assembler(message_bytes_max=100)
    for each in pieces[:-1]:
        assert assembler.add(each) is None
    with pytest.raises(MalformedMessage):
        assembler.add(pieces[-1])


def test_the_largest_message_is_taken() -> None:
    assert Assembler(100).add(piece(0, 1, b"x" * 100)) == b"x" * 100


@pytest.mark.parametrize(
    "frame",
    [
        b"\xff\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
        pb.PeerFrame(messages=[pb.PeerMessage()]).SerializeToString(),
        pb.PeerFrame(piece=piece(0, 1, b"\xff\xff")).SerializeToString(),
        encode_hello(hello_of(1)),
    ],
)
def test_a_frame_of_anything_else_is_malformed(frame: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode_frame(frame, Assembler(BYTES_MAX))


@given(st.binary(max_size=100))
def test_garbage_is_malformed_and_nothing_else(data: bytes) -> None:
    for decode in (lambda: decode_frame(data, Assembler(100)), lambda: decode_hello(data)):
        try:
            decode()
        except (MalformedMessage, UnknownEntry):
            pass
    try:
        decode_reply(data)
    except MalformedMessage:
        pass


# ---- the handshake ---------------------------------------------------------------------------------------


def test_hello_frames() -> None:
    hello, refusal = hello_of(2), Refusal(Reason.NOT_A_MEMBER, "go away", True)
    assert decode_hello(encode_hello(hello)) == hello
    assert decode_reply(encode_hello_reply(hello)) == hello
    assert decode_reply(encode_refusal_reply(refusal)) == refusal


@pytest.mark.parametrize(
    "frame",
    [
        pb.PeerFrame(),
        pb.PeerFrame(messages=[pb.PeerMessage()]),
        pb.PeerFrame(hello=hello_to_pb(hello_of(1)), messages=[pb.PeerMessage()]),
        pb.PeerFrame(hello=hello_to_pb(hello_of(1)), piece=piece(0, 1)),
        pb.PeerFrame(hello=pb.Hello()),
    ],
    ids=["empty", "message", "hello and message", "hello and piece", "empty hello"],
)
def test_a_stream_begins_with_a_hello_alone(frame: pb.PeerFrame) -> None:
    with pytest.raises(MalformedMessage):
        decode_hello(frame.SerializeToString())


def test_an_empty_answer_is_malformed() -> None:
    with pytest.raises(MalformedMessage, match="neither"):
        decode_reply(b"")
