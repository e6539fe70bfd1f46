import pytest
from google.protobuf.message import Message

from paxos_rsm._proto import admin_pb2, maintenance_pb2
from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm.cli.answers import Style
from paxos_rsm.cli.answers.simple import lines
from tests.unit.cli.answers import samples


def printed(answer: Message, style: Style | None = None) -> bytes:
    return b"".join(line + b"\n" for line in lines(answer, style or Style()))


@pytest.mark.parametrize(
    ("answer", "output"),
    [
        (samples.RANGE, b'a\n2\nb\nx"\n\xff\x01\xc3\xa9\n'),
        (samples.KEYS, b"a\n\n"),
        (samples.NOTHING, b""),
        (samples.PUT, b"OK\n"),
        (samples.PUT_PREV, b"OK\na\n2\n"),
        (samples.DELETED, b"1\na\n2\n"),
        (samples.NOT_DELETED, b"0\n"),
        (samples.TXN, b'FAILURE\n\nOK\n\na\n2\n\n1\nb\nx"\n\xff\x01\xc3\xa9\n'),
        (pb.TxnResponse(succeeded=True), b"SUCCESS\n"),
        (samples.WATCHED, b"PUT\na\n2\nDELETE\na\n2\na\n\n"),
        (samples.PROGRESS, b"progress notify: 42\n"),
        (samples.GRANTED, b"lease 2040a207dc97c830 granted with TTL(100s)\n"),
        (samples.KEPT_ALIVE, b"lease 2040a207dc97c830 keepalived with TTL(100)\n"),
        (samples.LEFT, b"lease 2040a207dc97c830 granted with TTL(100s), remaining(99s)\n"),
        (samples.GONE, b"lease 2040a207dc97c830 already expired\n"),
        (samples.LEASES, b"found 1 leases\n2040a207dc97c830\n"),
        (
            samples.MEMBERS,
            b"2e1259d415f2a040, started, e1, http://127.0.0.1:23800, http://127.0.0.1:23790, false\n",
        ),
        (maintenance_pb2.AlarmResponse(), b""),
        (
            maintenance_pb2.AlarmResponse(
                alarms=[maintenance_pb2.AlarmMember(memberID=7, alarm=maintenance_pb2.NOSPACE)]
            ),
            b"memberID:7 alarm:NOSPACE \n",
        ),
    ],
)
def test_prints_what_etcds_command_prints(answer: Message, output: bytes) -> None:
    assert printed(answer) == output


def test_styles() -> None:
    assert printed(samples.RANGE, Style(value_only=True)) == b'2\nx"\n\xff\x01\xc3\xa9\n'
    assert printed(samples.LIMITED, Style(hex=True)) == b"\\x61\n\\x32\n"
    assert printed(pb.RangeResponse(count=3), Style(count_only=True)) == b"3\n"
    assert printed(samples.LEFT, Style(with_keys=True)).endswith(b", remaining(99s), attached keys([la])\n")


def test_what_it_does_not_know_is_an_error() -> None:
    with pytest.raises(TypeError, match="StatusResponse"):
        printed(admin_pb2.StatusResponse())
