import pytest
from hypothesis import given
from hypothesis import strategies as st

from paxos_rsm._proto import session_pb2 as pb
from paxos_rsm.codec.frames import (
    FrameCodec,
    commands_frame,
    decode_frame,
    encode_frame,
    expire_frame,
    register_frame,
    timeouts_frame,
)
from paxos_rsm.machines.base import Timeout
from paxos_rsm.machines.frames import BadFrame, Expire, Frame, FrameDecoder, Register

U64 = st.integers(0, 2**64 - 1)
FRAMES = st.one_of(
    st.builds(Frame, U64, U64, U64, st.lists(st.binary())),
    st.builds(
        lambda nonce, ms: Frame(commands=[], register=Register(nonce, ms)), U64, st.integers(0, 2**32 - 1)
    ),
    st.builds(lambda session, seq: Frame(commands=[], expire=Expire(session, seq)), U64, U64),
    st.builds(
        lambda timeouts: Frame(commands=[], timeouts=tuple(timeouts)),
        st.lists(st.builds(Timeout, st.integers(-(2**63), 2**63 - 1), U64), min_size=1),
    ),
)


@given(FRAMES)
def test_what_is_encoded_decodes_to_the_same(frame: Frame) -> None:
    assert decode_frame(encode_frame(frame)) == frame


def test_the_frames_that_a_server_builds() -> None:
    assert decode_frame(commands_frame(9, 3, 2, (b"a", b""))) == Frame(9, 3, 2, [b"a", b""])
    assert decode_frame(register_frame(5, 60_000)) == Frame(commands=[], register=Register(5, 60_000))
    assert decode_frame(expire_frame(9, 0)) == Frame(commands=[], expire=Expire(9, 0))
    assert decode_frame(timeouts_frame([Timeout(-4, 7)])) == Frame(commands=[], timeouts=(Timeout(-4, 7),))


def test_a_frame_of_commands_is_built_one_way() -> None:
    assert commands_frame(1, 2, 3, [b"a"]) == encode_frame(Frame(1, 2, 3, [b"a"]))


def test_an_empty_register_is_one_and_no_register_is_none() -> None:
    assert decode_frame(pb.Frame(register=pb.Register()).SerializeToString()) == Frame(
        commands=[], register=Register(0, 0)
    )
    assert decode_frame(b"") == Frame(commands=[])


def test_a_frame_may_say_several_things_and_the_machine_is_told_all_of_them() -> None:
    message = pb.Frame(session=1, commands=[b"a"], register=pb.Register(nonce=2), expire=pb.Expire(session=3))
    assert decode_frame(message.SerializeToString()) == Frame(1, 0, 0, [b"a"], Register(2, 0), Expire(3, 0))


@given(st.binary())
def test_garbage_is_marked_and_never_raises(data: bytes) -> None:
    assert isinstance(decode_frame(data), Frame | BadFrame)


def test_a_frame_that_is_cut_off_is_bad() -> None:
    data = commands_frame(9, 3, 2, (b"abc",))
    assert decode_frame(data[:-1]) == BadFrame(f"{len(data) - 1} bytes are no frame")


def test_fields_of_a_later_version_are_passed_over() -> None:
    assert decode_frame(commands_frame(9, 3, 2, (b"a",)) + b"\xf8\x07\x01") == Frame(9, 3, 2, [b"a"])


def test_numbers_that_do_not_fit_are_not_encoded() -> None:
    with pytest.raises(ValueError):
        commands_frame(-1, 1, 1, [])
    with pytest.raises(ValueError):
        register_frame(1, 2**32)


def test_the_codec_is_what_a_session_machine_is_given() -> None:
    codec: FrameDecoder = FrameCodec()
    assert codec.decode(expire_frame(1, 2)) == Frame(commands=[], expire=Expire(1, 2))
