"""Frames as bytes: what a server's state machine opens, and what a server builds for the sessions it holds itself.

A client builds its own frames (it knows only the protobuf messages); nobody in between opens them. Decoding costs one
protobuf parse and one list a frame, whatever the number of commands in it.
"""

from collections.abc import Iterable, Sequence

from google.protobuf.message import DecodeError

from paxos_rsm._proto import session_pb2 as pb
from paxos_rsm.machines.base import Timeout
from paxos_rsm.machines.frames import BadFrame, Expire, Frame, Register

__all__ = [
    "FrameCodec",
    "commands_frame",
    "decode_frame",
    "encode_frame",
    "expire_frame",
    "register_frame",
    "timeouts_frame",
]


def decode_frame(data: bytes) -> Frame | BadFrame:
    """The frame in ``data``, or BadFrame: a FrameDecoder, which never raises.

    Fields that this version does not know are passed over, as protobuf does everywhere.
    """
    try:
        message = pb.Frame.FromString(data)
    except DecodeError:
        return BadFrame(f"{len(data)} bytes are no frame")
    register = expire = None
    if message.HasField("register"):
        register = Register(message.register.nonce, message.register.timeout_ms)
    if message.HasField("expire"):
        expire = Expire(message.expire.session, message.expire.last_seq)
    return Frame(
        message.session,
        message.first_seq,
        message.received_below,
        list(message.commands),
        register,
        expire,
        tuple([Timeout(each.timer, each.armed) for each in message.timeouts]),
    )


def encode_frame(frame: Frame) -> bytes:
    """The bytes of a frame. Raises ValueError for a number that is negative or too large for its field."""
    if frame.register is not None:
        register = pb.Register(nonce=frame.register.nonce, timeout_ms=frame.register.timeout_ms)
        return pb.Frame(session=frame.session, register=register).SerializeToString()
    if frame.expire is not None:
        expire = pb.Expire(session=frame.expire.session, last_seq=frame.expire.last_seq)
        return pb.Frame(session=frame.session, expire=expire).SerializeToString()
    if frame.timeouts:
        timeouts = [pb.Timeout(timer=each.timer, armed=each.armed) for each in frame.timeouts]
        return pb.Frame(session=frame.session, timeouts=timeouts).SerializeToString()
    return commands_frame(frame.session, frame.first_seq, frame.received_below, frame.commands)


def commands_frame(session: int, first_seq: int, received_below: int, commands: Iterable[bytes]) -> bytes:
    """The bytes of a frame of commands; none of them: only the word on what has been received."""
    message = pb.Frame(session=session, first_seq=first_seq, received_below=received_below, commands=commands)
    return message.SerializeToString()


def register_frame(nonce: int, timeout_ms: int) -> bytes:
    """The bytes of a frame that registers a session."""
    return encode_frame(Frame(register=Register(nonce, timeout_ms)))


def expire_frame(session: int, last_seq: int) -> bytes:
    """The bytes of a frame that ends a session, unless it has moved past ``last_seq``."""
    return encode_frame(Frame(expire=Expire(session, last_seq)))


def timeouts_frame(timeouts: Sequence[Timeout]) -> bytes:
    """The bytes of a frame that says which timers of the machine have run out; at least one."""
    return encode_frame(Frame(timeouts=timeouts))


class FrameCodec:
    """The FrameDecoder that a SessionMachine is given."""

    @staticmethod
    def decode(data: bytes) -> Frame | BadFrame:
        """:func:`decode_frame`."""
        return decode_frame(data)
