"""Responses put together by hand are what protobuf would have made."""

from types import SimpleNamespace
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from paxos_rsm._proto import watch_pb2 as pb
from paxos_rsm.machines.kv.store import Record
from paxos_rsm.replica.api import ReplicaHandle
from paxos_rsm.server.headers import Headers
from paxos_rsm.server.watch_hub import Event
from paxos_rsm.server.watch_responses import WatchResponses

REVISIONS = st.integers(0, 2**63 - 1)
RECORDS = st.tuples(
    st.binary(min_size=1), REVISIONS, REVISIONS, REVISIONS, st.binary(max_size=300), REVISIONS
)
EVENTS = st.builds(Event, RECORDS, st.none() | RECORDS)


class Term:
    """A replica that knows its ballot, and counts how often it is asked."""

    def __init__(self) -> None:
        self.round = 7
        self.asked = 0

    @property
    def ballot(self) -> SimpleNamespace:
        self.asked += 1
        return SimpleNamespace(round=self.round)


def made(term: Term | None = None) -> WatchResponses:
    return WatchResponses(Headers(cast(ReplicaHandle, term or Term()), 11, 22, lambda: 99))


def key_value(record: Record) -> dict[str, bytes | int]:
    names = ("key", "create_revision", "mod_revision", "version", "value", "lease")
    return dict(zip(names, record, strict=True))


@given(
    events=st.lists(EVENTS, min_size=1, max_size=4),
    revision=REVISIONS,
    number=st.integers(-(2**63), 2**63 - 1),
)
def test_events_are_encoded_as_protobuf_does(events: list[Event], revision: int, number: int) -> None:
    responses = made()
    parts, size = responses.events(revision, events)
    assert size == sum(map(len, parts))
    (response,) = responses.with_events(number, revision, parts)
    wanted = pb.WatchResponse(watch_id=number)
    wanted.header.cluster_id, wanted.header.member_id = 11, 22
    wanted.header.revision, wanted.header.raft_term = revision, 7
    for event in events:
        added = wanted.events.add(type="DELETE" if event.is_deletion else "PUT")
        for name, value in key_value(event.record).items():
            setattr(added.kv, name, value)
        added.kv.SetInParent()
        if event.previous is not None:
            for name, value in key_value(event.previous).items():
                setattr(added.prev_kv, name, value)
    assert pb.WatchResponse.FromString(response) == wanted
    assert response == wanted.SerializeToString()


def event(value: bytes) -> Event:
    return Event((b"k", 2, 3, 2, value, 0), None)


def test_one_tuple_of_events_is_encoded_once() -> None:
    responses = made()
    events = (event(b"1"), event(b"2"))
    parts, _ = responses.events(3, events)
    assert responses.events(3, events)[0] is parts
    assert responses.events(3, (event(b"1"), event(b"2")))[0] == parts
    assert responses.events(4, (event(b"3"),))[0] != parts
    assert len(responses._encoded) == 1, "only the newest revision is kept"


def test_a_header_is_made_once_a_revision_and_anew_for_another_leader() -> None:
    term = Term()
    responses = made(term)
    parts, _ = responses.events(3, (event(b"1"),))
    for number in range(10):
        list(responses.with_events(number, 3, parts))
    assert term.asked == 1
    term.round = 8
    responses.forget_header()
    (response,) = responses.with_events(1, 3, parts)
    assert pb.WatchResponse.FromString(response).header.raft_term == 8


@given(
    sizes=st.lists(st.integers(0, 200), min_size=1, max_size=20),
    fragment_bytes=st.integers(1, 1_000),
)
def test_fragments_are_whole_events_in_order_and_as_large_as_they_may(
    sizes: list[int], fragment_bytes: int
) -> None:
    responses = made()
    events = [event(b"%d" % number * size) for number, size in enumerate(sizes)]
    parts, _ = responses.events(3, events)
    encoded = list(responses.with_events(5, 3, parts, fragment_bytes))
    found = [pb.WatchResponse.FromString(each) for each in encoded]
    assert [each.kv.value for one in found for each in one.events] == [each.record[4] for each in events]
    assert [one.fragment for one in found] == [True] * (len(found) - 1) + [False]
    assert {(one.watch_id, one.header.revision) for one in found} == {(5, 3)}
    at = 0
    for response, one in zip(encoded, found, strict=True):
        assert len(response) <= fragment_bytes or len(one.events) == 1
        at += len(one.events)
        if one.fragment:
            assert len(response) + len(parts[at]) >= fragment_bytes, "the next event would have fitted"


def test_without_a_limit_nothing_is_cut() -> None:
    responses = made()
    parts, _ = responses.events(3, [event(b"x" * 1_000_000) for _ in range(5)])
    (response,) = responses.with_events(0, 3, parts)
    assert len(pb.WatchResponse.FromString(response).events) == 5


def test_what_is_said_of_a_watch_has_the_newest_revision_unless_told() -> None:
    responses = made()
    created = pb.WatchResponse.FromString(responses.without_events(4, created=True))
    assert (created.header.revision, created.watch_id, created.created) == (99, 4, True)
    canceled = pb.WatchResponse.FromString(
        responses.without_events(-1, revision=5, canceled=True, resume_revision=6, cancel_reason="slow")
    )
    assert (canceled.header.revision, canceled.watch_id, canceled.canceled) == (5, -1, True)
    assert (canceled.resume_revision, canceled.compact_revision, canceled.cancel_reason) == (6, 0, "slow")
