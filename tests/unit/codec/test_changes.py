import pytest
from hypothesis import given

from paxos_rsm._proto import paxos_pb2 as pb
from paxos_rsm.codec.changes import change_from_pb, change_to_pb
from paxos_rsm.codec.messages import MalformedMessage, decode_message
from paxos_rsm.errors import ConfigError
from paxos_rsm.paxos.changes import Change
from tests.unit.codec.strategies import changes


@given(changes)
def test_round_trip(change: Change) -> None:
    assert change_from_pb(pb.Change.FromString(change_to_pb(change).SerializeToString())) == change


@pytest.mark.parametrize(
    "change",
    [
        pb.Change(),
        pb.Change(join=pb.Member(member_id=1)),
        pb.Change(join=pb.Member(member_id=1, incarnation=2**63)),
    ],
)
def test_what_is_no_change_is_malformed(change: pb.Change) -> None:
    with pytest.raises(ConfigError):
        change_from_pb(change)
    message = pb.PeerMessage(change_request=pb.ChangeRequest(request_id=1, change=change))
    with pytest.raises(MalformedMessage, match="no change"):
        decode_message(message.SerializeToString())


def test_a_request_has_a_number() -> None:
    request = pb.ChangeRequest(change=pb.Change(remove=1))
    with pytest.raises(MalformedMessage, match="no id"):
        decode_message(pb.PeerMessage(change_request=request).SerializeToString())
