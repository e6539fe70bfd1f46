import pytest

from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm.cli.options import Settings
from paxos_rsm.cli.store import ask_store, execute, range_to_pb
from paxos_rsm.client import KeyValue, RangeResult
from paxos_rsm.errors import InvalidArgument
from tests.unit.cli.fake_client import FakeClient

READ = pb.RequestOp(request_range=pb.RangeRequest(key=b"k"))
WRITE = pb.RequestOp(request_put=pb.PutRequest(key=b"k"))


def within(op: pb.RequestOp) -> pb.RequestOp:
    return pb.RequestOp(request_txn=pb.TxnRequest(failure=[op]))


@pytest.mark.parametrize(
    ("command", "how"),
    [
        (pb.KvCommand(range=pb.RangeRequest(key=b"k")), "query"),
        (pb.KvCommand(put=pb.PutRequest(key=b"k")), "submit"),
        (pb.KvCommand(txn=pb.TxnRequest(success=[READ])), "query"),
        (pb.KvCommand(txn=pb.TxnRequest(success=[READ], failure=[WRITE])), "submit"),
        (pb.KvCommand(txn=pb.TxnRequest(success=[within(READ)])), "query"),
        (pb.KvCommand(txn=pb.TxnRequest(success=[within(WRITE)])), "submit"),
        (pb.KvCommand(txn=pb.TxnRequest(success=[within(within(WRITE))])), "submit"),
    ],
)
async def test_a_read_is_a_query_and_a_write_a_command(
    client: type[FakeClient], command: pb.KvCommand, how: str
) -> None:
    async with client(()) as connection:
        answer = await execute(connection, command)  # type: ignore[arg-type]
    assert answer.header.revision >= 1
    assert [what for what, _ in client.calls] == ["client", how, "close"]


async def test_what_the_store_refuses_is_raised_in_its_words(client: type[FakeClient]) -> None:
    command = pb.KvCommand(put=pb.PutRequest(key=b""))
    with pytest.raises(InvalidArgument, match="etcdserver: key is not provided"):
        await execute(client(()), command)  # type: ignore[arg-type]


@pytest.mark.parametrize(("write_out", "member"), [("json", 22), ("fields", 22), (None, 0), ("table", 0)])
def test_a_header_is_completed_where_it_is_shown(
    client: type[FakeClient], write_out: str | None, member: int
) -> None:
    answer = ask_store(Settings(write_out=write_out), pb.KvCommand(put=pb.PutRequest(key=b"k")))
    assert (answer.header.revision, answer.header.member_id) == (2, member)


def test_what_the_client_read_is_again_what_was_on_the_wire() -> None:
    found = RangeResult((KeyValue(b"k", b"v", 1, 2, 3, 4),), 9, True, 5)
    kv = pb.KeyValue(key=b"k", value=b"v", version=1, create_revision=2, mod_revision=3, lease=4)
    assert range_to_pb(found) == pb.RangeResponse(
        header=pb.ResponseHeader(revision=5), kvs=[kv], more=True, count=9
    )
