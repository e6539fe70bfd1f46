"""What lies on a stream: frames of whole messages, and messages too large for one, in pieces.

A frame on the wire is a serialized ``PeerFrame``, and its messages are its field 2, repeated: each is a tag, a length
and the message's own bytes. So a frame is nothing but packed messages laid side by side, and :func:`pack` makes
those bytes once for a message, whoever and however many it goes to. No protobuf object of a frame is built to send
one; that bytes laid side by side are a message is a promise of protobuf's encoding.

A message above ``piece_bytes_max`` is cut (:class:`Cutter`) and each piece goes in a frame of its own, behind
whatever is urgent then. An :class:`Assembler` puts the pieces of one stream together again: they come in order, one
message at a time, and no more than ``message_bytes_max`` is ever kept.
"""

from enum import IntEnum
from typing import NamedTuple

from google.protobuf.message import DecodeError

from paxos_rsm._proto import paxos_pb2 as pb
from paxos_rsm.codec.messages import (
    MalformedMessage,
    decode_message,
    encode_message,
    length_prefix,
    message_from_pb,
)
from paxos_rsm.paxos.messages import Accept, CatchUpReply, Forward, Message, SnapshotChunk
from paxos_rsm.transport.handshake import (
    Hello,
    Refusal,
    hello_from_pb,
    hello_to_pb,
    refusal_from_pb,
    refusal_to_pb,
)

__all__ = [
    "Assembler",
    "Cutter",
    "Lane",
    "Packed",
    "decode_frame",
    "decode_hello",
    "decode_reply",
    "encode_hello",
    "encode_hello_reply",
    "encode_refusal_reply",
    "pack",
]


class Lane(IntEnum):
    """How soon a message goes, beside others for the same peer (``outbox``)."""

    URGENT = 0
    """It is small, and somebody waits for it."""
    BULK = 1
    """It carries entries or client frames."""
    BACKGROUND = 2
    """It carries what nobody misses while there is anything else to be said: pieces of a snapshot."""


LANES: dict[type, Lane] = {
    Accept: Lane.BULK,
    CatchUpReply: Lane.BULK,
    Forward: Lane.BULK,
    SnapshotChunk: Lane.BACKGROUND,
}
"""All else is urgent."""


class Packed(NamedTuple):
    """One message, ready for any number of frames."""

    data: bytes
    """Tag, length and the serialized PeerMessage."""
    body_at: int
    """Where in ``data`` the serialized PeerMessage starts."""
    lane: Lane


def pack(message: Message) -> Packed:
    """The bytes of a message as a part of a frame."""
    body = encode_message(message)
    prefix = length_prefix(pb.PeerFrame.MESSAGES_FIELD_NUMBER, len(body))
    return Packed(prefix + body, len(prefix), LANES.get(type(message), Lane.URGENT))


class Cutter:
    """One message in frames of one piece each, made as they are asked for."""

    def __init__(self, packed: Packed, piece_id: int, piece_bytes_max: int) -> None:
        self._body = memoryview(packed.data)[packed.body_at :]
        self._id = piece_id
        self._bytes_max = piece_bytes_max
        self._count = -(-len(self._body) // piece_bytes_max)
        self._index = 0

    @property
    def done(self) -> bool:
        """Whether the last piece has been made."""
        return self._index == self._count

    def next_frame(self) -> bytes:
        """The next piece."""
        start = self._index * self._bytes_max
        data = self._body[start : start + self._bytes_max]
        head = pb.Piece(id=self._id, index=self._index, count=self._count).SerializeToString()
        head += length_prefix(pb.Piece.DATA_FIELD_NUMBER, len(data))
        prefix = length_prefix(pb.PeerFrame.PIECE_FIELD_NUMBER, len(head) + len(data))
        self._index += 1
        return b"".join((prefix, head, data))


class Assembler:
    """Puts the pieces of one stream together. Always holds: at most one message is unfinished."""

    def __init__(self, message_bytes_max: int) -> None:
        self._bytes_max = message_bytes_max
        self._id = 0
        self._count = 0
        self._size = 0
        self._parts: list[bytes] = []

    def add(self, piece: pb.Piece) -> bytes | None:
        """The serialized message, once its last piece is there. Raises MalformedMessage for what does not fit."""
        data = piece.data
        if not self._parts:
            # An absurd count is not believed: no message has more pieces than bytes.
            if piece.index != 0 or not 0 < piece.count <= self._bytes_max:
                raise MalformedMessage(
                    f"a message begins with piece {piece.index} of {piece.count}; pieces count from 0"
                )
            self._id, self._count, self._size = piece.id, piece.count, 0
        if piece.id != self._id or piece.count != self._count or piece.index != len(self._parts) or not data:
            raise MalformedMessage(
                f"piece {piece.index} of {piece.count} of message {piece.id} came where piece "
                f"{len(self._parts)} of {self._count} of message {self._id} was due"
            )
        self._size += len(data)
        if self._size > self._bytes_max:
            raise MalformedMessage(
                f"a message in {self._count} pieces is larger than {self._bytes_max} bytes, the most that is taken"
            )
        self._parts.append(data)
        if len(self._parts) < self._count:
            return None
        whole = b"".join(self._parts)
        self._parts.clear()
        return whole


def _parse_frame(data: bytes) -> pb.PeerFrame:
    try:
        return pb.PeerFrame.FromString(data)
    except DecodeError:
        raise MalformedMessage(f"{len(data)} bytes are not a PeerFrame") from None


def decode_frame(data: bytes, assembler: Assembler) -> list[Message]:
    """The messages that a frame completes, in the order they were sent.

    Raises MalformedMessage; UnknownEntry for an entry of a later version.
    """
    frame = _parse_frame(data)
    messages = [message_from_pb(message) for message in frame.messages]
    if frame.HasField("piece"):
        whole = assembler.add(frame.piece)
        if whole is not None:
            messages.append(decode_message(whole))
    if frame.HasField("hello"):
        raise MalformedMessage("a second Hello came in a stream")
    return messages


def encode_hello(hello: Hello) -> bytes:
    """The first frame of a stream."""
    return pb.PeerFrame(hello=hello_to_pb(hello)).SerializeToString()


def decode_hello(data: bytes) -> Hello:
    """The Hello in the first frame of a stream. Raises MalformedMessage where it is anything else."""
    frame = _parse_frame(data)
    if not frame.HasField("hello") or frame.messages or frame.HasField("piece"):
        raise MalformedMessage("a stream does not begin with a Hello, alone in its frame")
    return hello_from_pb(frame.hello)


def encode_hello_reply(hello: Hello) -> bytes:
    """The answer to a Hello that is accepted."""
    return pb.PeerReply(hello=hello_to_pb(hello)).SerializeToString()


def encode_refusal_reply(refusal: Refusal) -> bytes:
    """The answer to a Hello that is not accepted."""
    return pb.PeerReply(refusal=refusal_to_pb(refusal)).SerializeToString()


def decode_reply(data: bytes) -> Hello | Refusal:
    """The answer to a Hello. Raises MalformedMessage where it is neither."""
    try:
        reply = pb.PeerReply.FromString(data)
    except DecodeError:
        raise MalformedMessage(f"{len(data)} bytes are not a PeerReply") from None
    if reply.HasField("refusal"):
        return refusal_from_pb(reply.refusal)
    if reply.HasField("hello"):
        return hello_from_pb(reply.hello)
    raise MalformedMessage("the answer to a Hello is neither a Hello nor a Refusal")
