import pytest
from google.protobuf.message import Message

from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm._proto import maintenance_pb2
from paxos_rsm.cli.answers.fields import lines, mapping_lines, status_lines
from tests.unit.cli.answers import samples


def printed(answer: Message, **more: object) -> str:
    return b"".join(line + b"\n" for line in lines(answer, **more)).decode()


def header(revision: int, rest: str = "") -> str:
    """The four lines that every answer begins with."""
    ids = '"ClusterID" : 324952591200643719\n"MemberID" : 3319814642761637952\n'
    return f'{ids}"Revision" : {revision}\n"RaftTerm" : 2\n{rest}'


def kv(prefix: str, key: str, create: int, mod: int, version: int, value: str) -> str:
    return (
        f'"{prefix}Key" : "{key}"\n"{prefix}CreateRevision" : {create}\n"{prefix}ModRevision" : {mod}\n'
        f'"{prefix}Version" : {version}\n"{prefix}Value" : "{value}"\n"{prefix}Lease" : 0\n'
    )


A = ("a", 6, 13, 3, "2")
B = ("b", 14, 14, 1, r"x\"\n\xff\x01é")
INNER = '"ClusterID" : 0\n"MemberID" : 0\n"Revision" : 16\n"RaftTerm" : 0\n'


@pytest.mark.parametrize(
    ("answer", "output"),
    [
        (samples.RANGE, header(14, kv("", *A) + kv("", *B) + '"More" : false\n"Count" : 2\n')),
        (samples.PUT, header(13)),
        (samples.PUT_PREV, header(13, kv("Prev", *A))),
        (samples.DELETED, header(15, '"Deleted" : 1\n' + kv("Prev", *A))),
        (
            samples.TXN,
            header(16, '"Succeeded" : false\n')
            + f'{INNER}{INNER}{kv("", *A)}"More" : false\n"Count" : 1\n{INNER}"Deleted" : 1\n{kv("Prev", *B)}',
        ),
        (
            samples.WATCHED,
            header(21, '"Type" : PUT\n' + kv("", *A) + '"Type" : DELETE\n' + kv("Prev", *A))
            + kv("", "a", 0, 21, 0, ""),
        ),
        (samples.GRANTED, header(17, '"ID" : 2324035562372581424\n"TTL" : 100\n')),
        (samples.REVOKED, header(17)),
        (
            samples.LEFT,
            header(18, '"ID" : 2324035562372581424\n"TTL" : 99\n"GrantedTTL" : 100\n"Key" : "la"\n'),
        ),
        (samples.LEASES, header(17, '"ID" : 2324035562372581424\n')),
        (
            samples.MEMBERS,
            header(0, '"ID" : 3319814642761637952\n"Name" : "e1"\n"PeerURL" : "http://127.0.0.1:23800"\n')
            + '"ClientURL" : "http://127.0.0.1:23790"\n"IsLearner" : false\n\n',
        ),
        (
            maintenance_pb2.AlarmResponse(
                header=samples.header(3),
                alarms=[maintenance_pb2.AlarmMember(memberID=7, alarm=maintenance_pb2.CORRUPT)],
            ),
            header(3, '"MemberID" : 7\n"AlarmType" : CORRUPT\n'),
        ),
    ],
)
def test_prints_what_etcds_command_prints(answer: Message, output: str) -> None:
    assert printed(answer) == output


def test_status_of_an_endpoint() -> None:
    status = maintenance_pb2.EndpointStatusResponse(
        header=samples.header(29),
        version="3.4.23",
        dbSize=24576,
        leader=3319814642761637952,
        raftIndex=49,
        raftTerm=2,
        raftAppliedIndex=49,
    )
    assert b"\n".join(status_lines(status, "127.0.0.1:23790")).decode() == header(
        29,
        '"Version" : "3.4.23"\n"DBSize" : 24576\n"Leader" : 3319814642761637952\n"IsLearner" : false\n'
        '"RaftIndex" : 49\n"RaftTerm" : 2\n"RaftAppliedIndex" : 49\n"Errors" : []\n'
        '"Endpoint" : "127.0.0.1:23790"\n',
    )


def test_what_has_no_response_behind_it() -> None:
    shown = {"p50_ms": 1.5, "ok": True, "name": b"\xff", "endpoints": ["a", "b"], "nothing": None}
    assert list(mapping_lines(shown)) == [
        b'"P50Ms" : 1.5',
        b'"Ok" : true',
        b'"Name" : "\\xff"',
        b'"Endpoints" : [a b]',
        b'"Nothing" : ',
    ]
    assert printed(pb.CompactionResponse(), applied_slot=7).endswith('"AppliedSlot" : 7\n')


def test_what_it_does_not_know_is_an_error() -> None:
    with pytest.raises(TypeError, match="SnapshotResponse"):
        printed(maintenance_pb2.SnapshotResponse())
