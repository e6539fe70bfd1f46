"""What is encoded by hand is what the generated classes encode."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paxos_rsm._proto import kv_pb2
from paxos_rsm._proto import session_pb2 as pb
from paxos_rsm.client.wire import (
    COMMAND_OVERHEAD_BYTES,
    FRAME_HEAD_BYTES_MAX,
    put_command,
    read_message,
    submit_message,
    varint,
)

NUMBERS = st.integers(0, 2**64 - 1)
BLOBS = st.one_of(st.binary(max_size=300), st.integers(0, 70_000).map(bytes))


@pytest.mark.parametrize(
    ("number", "encoded"),
    [
        (0, b"\x00"),
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (2_047, b"\xff\x0f"),
        (2_048, b"\x80\x10"),
        (16_383, b"\xff\x7f"),
        (16_384, b"\x80\x80\x01"),
        (2**64 - 1, b"\xff" * 9 + b"\x01"),
    ],
)
def test_varint(number: int, encoded: bytes) -> None:
    assert varint(number) == encoded


@given(NUMBERS)
def test_varint_is_protobufs(number: int) -> None:
    assert b"\x08" + varint(number) == pb.Open(session=number).SerializeToString() or number == 0


@given(BLOBS, BLOBS, st.booleans())
def test_put_command(key: bytes, value: bytes, prev_kv: bool) -> None:
    put = kv_pb2.PutRequest(key=key, value=value, prev_kv=prev_kv)
    made = put_command(key, value, prev_kv)
    assert kv_pb2.KvCommand.FromString(made) == kv_pb2.KvCommand(put=put)
    if key:  # an empty one is written out here and left out there: both mean the same
        assert made == kv_pb2.KvCommand(put=put).SerializeToString()


@given(NUMBERS, NUMBERS, NUMBERS, st.lists(BLOBS, min_size=1, max_size=5))
def test_submit_message(session: int, first_seq: int, received_below: int, commands: list[bytes]) -> None:
    frame = pb.Frame(session=session, first_seq=first_seq, received_below=received_below, commands=commands)
    made = pb.ClientMessage.FromString(submit_message(session, first_seq, received_below, commands))
    assert pb.Frame.FromString(made.submit.frame) == frame
    most = FRAME_HEAD_BYTES_MAX + sum(len(command) + COMMAND_OVERHEAD_BYTES for command in commands)
    assert len(made.submit.frame) <= most


def test_submit_message_is_byte_for_byte_the_same() -> None:
    frame = pb.Frame(session=1 << 40, first_seq=300, received_below=7, commands=[b"", b"x" * 200, b"yy"])
    message = pb.ClientMessage(submit=pb.Submit(frame=frame.SerializeToString())).SerializeToString()
    assert submit_message(1 << 40, 300, 7, [b"", b"x" * 200, b"yy"]) == message


@given(NUMBERS, st.booleans(), NUMBERS, st.lists(BLOBS, max_size=5))
def test_read_message(read_id: int, serializable: bool, cluster_id: int, requests: list[bytes]) -> None:
    read = pb.Read(id=read_id, serializable=serializable, cluster_id=cluster_id, requests=requests)
    made = read_message(read_id, serializable, cluster_id, requests)
    assert pb.ClientMessage.FromString(made) == pb.ClientMessage(read=read)
