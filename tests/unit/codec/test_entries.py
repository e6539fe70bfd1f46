from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paxos_rsm._proto import paxos_pb2 as pb
from paxos_rsm.codec.entries import (
    ballot_from_pb,
    ballot_to_pb,
    configuration_from_pb,
    configuration_to_pb,
    entry_from_kind,
    entry_from_pb,
    entry_to_kind,
    entry_to_pb,
    member_from_pb,
    member_to_pb,
)
from paxos_rsm.errors import ConfigError, UnknownEntry
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.quorum import QuorumSizes
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Batch, ConfigChange, Entry, Noop
from tests.unit.codec.strategies import configurations, entries, promises

MEMBERS = tuple(Member(100 + i, i, f"n{i}", f"http://127.0.0.1:{2380 + i}") for i in (1, 2, 3))


@given(promises)
def test_ballot_round_trip(ballot: Ballot) -> None:
    assert ballot_from_pb(pb.Ballot.FromString(ballot_to_pb(ballot).SerializeToString())) == ballot


def test_an_absent_ballot_is_no_ballot() -> None:
    assert ballot_from_pb(pb.SlotEntry(slot=1).ballot) == NO_BALLOT


@given(configurations())
def test_configuration_round_trip(configuration: Configuration) -> None:
    data = configuration_to_pb(configuration).SerializeToString()
    assert configuration_from_pb(pb.Configuration.FromString(data)) == configuration


def test_member_round_trip() -> None:
    member = Member(2**63 - 1, 1, "n1", "http://n1:2380", ("http://n1:2379", "http://other:2379"))
    assert member_from_pb(member_to_pb(member)) == member


@given(entries)
def test_entry_round_trip(entry: Entry) -> None:
    assert entry_from_pb(pb.Entry.FromString(entry_to_pb(entry).SerializeToString())) == entry
    assert entry_from_kind(*entry_to_kind(entry)) == entry


@given(configurations())
def test_equal_entries_have_equal_bytes(configuration: Configuration) -> None:
    """Rule 1 is checked by comparing entries across servers; their bytes must not depend on who wrote them."""
    copy = configuration_from_pb(configuration_to_pb(configuration))
    assert entry_to_kind(ConfigChange(copy)) == entry_to_kind(ConfigChange(configuration))


@given(st.binary(max_size=100))
def test_the_data_of_a_batch_is_passed_through(data: bytes) -> None:
    kind, passed = entry_to_kind(Batch(data))
    assert passed is data
    assert entry_from_kind(kind, data) == Batch(data)


def test_a_batch_without_frames_is_not_a_noop() -> None:
    assert entry_from_pb(entry_to_pb(Batch(b""))) != Noop()


@pytest.mark.parametrize("kind", [0, 5, 1000, -1])
def test_an_unknown_kind_stops_the_server(kind: int) -> None:
    with pytest.raises(UnknownEntry, match=f"kind {kind} .*not skipped"):
        entry_from_kind(kind, b"anything")


@pytest.mark.parametrize(
    ("configuration", "said"),
    [
        (Configuration(1, (), QuorumSizes(0, 0, 0)), "at least one member"),
        (Configuration(1, (MEMBERS[0], MEMBERS[0]), QuorumSizes(2, 2, 1)), "share one incarnation"),
        (Configuration(1, MEMBERS, QuorumSizes(3, 1, 1)), "quorum"),
    ],
)
def test_a_configuration_that_breaks_its_invariant_is_refused(
    configuration: Configuration, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        configuration_from_pb(configuration_to_pb(configuration))


def test_bytes_that_are_no_configuration_are_refused_by_our_own_error() -> None:
    """Found by fuzzing: protobuf's DecodeError came out."""
    with pytest.raises(ConfigError, match="3 bytes are no Configuration"):
        entry_from_kind(int(pb.ENTRY_KIND_CONFIG), b"\xff\xff\xff")


def test_a_configuration_of_very_many_members_is_refused_before_they_are_read() -> None:
    """Found by fuzzing: two bytes make a member, and the error named each one."""
    with pytest.raises(ConfigError, match="50000 members; the most are 1024"):
        configuration_from_pb(pb.Configuration(members=[pb.Member()] * 50_000))


def test_an_error_does_not_repeat_a_name_without_an_end() -> None:
    members = [pb.Member(incarnation=at, member_id=at, name="n" * 100_000) for at in (1, 2)]
    with pytest.raises(ConfigError, match="share one name") as caught:
        configuration_from_pb(pb.Configuration(members=members, phase1_quorum=2, phase2_quorum=1))
    assert len(str(caught.value)) <= 500


def test_a_later_configuration_is_of_a_kind_that_an_older_version_does_not_count() -> None:
    first = Configuration(7, (Member(1, 101, "n1", "http://n1"),), QuorumSizes.majority(1))
    learner = Member(0, 102, "", "http://n2", learner=True, promote=True)
    for later in (
        replace(first, members=(*first.members, learner)),
        replace(first, removed=(9,)),
        replace(first, changes=(1 << 63,)),
    ):
        kind, data = entry_to_kind(ConfigChange(later))
        assert kind == pb.ENTRY_KIND_CHANGED_CONFIG
        assert entry_from_kind(kind, data) == ConfigChange(later)
    assert entry_to_kind(ConfigChange(first))[0] == pb.ENTRY_KIND_CONFIG
