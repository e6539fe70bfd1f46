"""Headers: whose they are, and which revision they name."""

from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm.server.headers import Headers
from tests.unit.server.fakes import FakeReplica


async def test_a_header_names_cluster_member_round_and_the_newest_revision() -> None:
    revision = 5
    headers = Headers(FakeReplica(), 0xC1, 0x31, lambda: revision)
    assert headers.make() == pb.ResponseHeader(cluster_id=0xC1, member_id=0x31, revision=5, raft_term=7)
    revision = 6
    assert headers.make().revision == 6


async def test_a_revision_that_is_given_is_the_one() -> None:
    headers = Headers(FakeReplica(), 0xC1, 0x31, lambda: 5)
    assert headers.make(3).revision == 3
    assert headers.make(0).revision == 0


async def test_filling_keeps_the_revision_of_the_result() -> None:
    headers = Headers(FakeReplica(), 0xC1, 0x31, lambda: 5)
    response = pb.PutResponse(header=pb.ResponseHeader(revision=3))
    headers.fill(response.header)
    assert response.header == pb.ResponseHeader(cluster_id=0xC1, member_id=0x31, revision=3, raft_term=7)
    headers.fill(response.header, 4)
    assert response.header.revision == 4
    empty = pb.ResponseHeader()
    headers.fill(empty)
    assert empty.revision == 5
