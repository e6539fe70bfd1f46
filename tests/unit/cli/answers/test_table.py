import click
import pytest
from click.testing import CliRunner
from google.protobuf.message import Message

from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm._proto import maintenance_pb2
from paxos_rsm.cli.answers import Style
from paxos_rsm.cli.answers.table import print_answer
from tests.unit.cli.answers import samples


def printed(answer: Message, style: Style | None = None) -> str:
    @click.command()
    def command() -> None:
        print_answer(answer, style or Style())

    return CliRunner().invoke(command, catch_exceptions=False).stdout


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (samples.RANGE, ["key", "create revision", "│ a ", r'x"\n\xff\x01é']),
        (samples.PUT_PREV, ["OK\n", "│ a "]),
        (samples.DELETED, ["1\n", "│ a "]),
        (samples.TXN, ["FAILURE\n", "OK\n", "│ a ", "│ b "]),
        (samples.WATCHED, ["event", "│ PUT ", "│ DELETE ", "before"]),
        (samples.MEMBERS, ["peer addrs", "2e1259d415f2a040", "started"]),
        (samples.LEASES, ["2040a207dc97c830"]),
        (samples.GRANTED, ["2040a207dc97c830", "100"]),
        (
            maintenance_pb2.AlarmResponse(
                alarms=[maintenance_pb2.AlarmMember(memberID=255, alarm=maintenance_pb2.NOSPACE)]
            ),
            ["│ ff ", "NOSPACE"],
        ),
        (samples.PROGRESS, ["progress notify: 42\n"]),
    ],
)
def test_rows(answer: Message, words: list[str]) -> None:
    output = printed(answer)
    for word in words:
        assert word in output


def test_columns_are_those_that_were_asked_for() -> None:
    assert "value" not in printed(samples.KEYS, Style(with_value=False))
    assert "lease" not in printed(samples.RANGE)
    assert "│ ff " in printed(pb.RangeResponse(kvs=[pb.KeyValue(key=b"k", lease=255)]))
    assert "la" not in printed(samples.LEFT)
    assert "la" in printed(samples.LEFT, Style(with_keys=True))
    assert printed(pb.RangeResponse(count=3), Style(count_only=True)) == "3\n"
    assert printed(samples.PUT) == "OK\n"
