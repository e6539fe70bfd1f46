"""Hypothesis strategies for what travels and rests: ballots, entries, configurations, messages."""

from hypothesis import strategies as st

from paxos_rsm.paxos.changes import AddMember, JoinMember, PromoteMember, RemoveMember, UpdateMember
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.messages import (
    Accept,
    Accepted,
    CatchUp,
    CatchUpReply,
    ChangeReply,
    ChangeRequest,
    Decide,
    FetchSnapshot,
    Forward,
    HandOver,
    Heartbeat,
    HeartbeatReply,
    Message,
    Nack,
    Prepare,
    Promise,
    ReadReply,
    ReadRequest,
    SnapshotChunk,
    StateDigest,
)
from paxos_rsm.paxos.quorum import QuorumSizes
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Batch, ConfigChange, Noop

NUMBER_MAX = 2**63 - 1

slots = st.integers(1, NUMBER_MAX)
watermarks = st.integers(0, NUMBER_MAX)
counters = st.integers(0, 2**64 - 1)
hops = st.integers(0, 2**32 - 1)
nodes = st.integers(1, NUMBER_MAX)
ballots = st.builds(Ballot, st.integers(1, NUMBER_MAX), nodes)
promises = st.just(NO_BALLOT) | ballots

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@st.composite
def configurations(draw: st.DrawFn) -> Configuration:
    names = draw(st.lists(texts, min_size=1, max_size=5, unique=True))
    count = len(names)
    ids = draw(
        st.lists(nodes.filter(lambda n: n < NUMBER_MAX), min_size=2 * count, max_size=2 * count, unique=True)
    )
    urls = st.lists(texts, max_size=2).map(tuple)
    members = tuple(
        Member(ids[i], ids[count + i], name, draw(texts), draw(urls)) for i, name in enumerate(names)
    )
    phase2 = draw(st.integers(1, count))
    phase1 = draw(st.integers(count + 1 - phase2, count))
    learners = tuple(
        Member(
            draw(st.sampled_from([0, NUMBER_MAX])),
            NUMBER_MAX,
            "",
            draw(texts),
            (),
            True,
            draw(st.booleans()),
        )
        for _ in range(draw(st.integers(0, 1)))
    )
    removed = tuple(n for n in draw(st.lists(nodes, max_size=3)) if n not in ids and n != NUMBER_MAX)
    asked = tuple(draw(st.lists(counters, max_size=3)))
    sizes = QuorumSizes(count, phase1, phase2)
    return Configuration(draw(counters), (*members, *learners), sizes, removed, asked)


url_lists = st.lists(texts, max_size=2).map(tuple)
new_members = st.builds(
    Member, st.just(0), counters, texts, texts, url_lists, learner=st.booleans(), promote=st.booleans()
)
changes = st.one_of(
    st.builds(AddMember, new_members),
    st.builds(JoinMember, counters, nodes, texts, url_lists, texts),
    st.builds(RemoveMember, counters),
    st.builds(UpdateMember, counters, texts, url_lists),
    st.builds(PromoteMember, counters),
)

entries = (
    st.builds(Noop) | st.builds(Batch, st.binary(max_size=300)) | st.builds(ConfigChange, configurations())
)
votes = st.lists(st.tuples(slots, ballots, entries), max_size=3).map(tuple)
decisions = st.lists(st.tuples(slots, entries), max_size=3).map(tuple)
slot_lists = st.lists(slots, max_size=5).map(tuple)


@st.composite
def snapshot_chunks(draw: st.DrawFn) -> SnapshotChunk:
    data = draw(st.binary(max_size=300))
    if not data:
        return SnapshotChunk(draw(watermarks), draw(watermarks), draw(watermarks), b"")
    size = draw(st.integers(len(data), NUMBER_MAX))
    return SnapshotChunk(draw(slots), size, draw(st.integers(0, size - len(data))), data)


messages_by_type: dict[type, st.SearchStrategy[Message]] = {
    Prepare: st.builds(Prepare, ballots, slots, promises),
    Promise: st.builds(
        Promise, ballots, slots, st.none() | watermarks, votes, decisions, watermarks, slot_lists
    ),
    Accept: st.builds(Accept, ballots, slots, entries, watermarks),
    Accepted: st.builds(Accepted, ballots, slot_lists),
    Nack: st.builds(Nack, ballots, ballots),
    Decide: st.builds(Decide, ballots, watermarks),
    Heartbeat: st.builds(
        Heartbeat,
        promises,
        st.booleans(),
        st.booleans(),
        watermarks,
        counters,
        st.frozensets(counters, max_size=5),
        promises,
        counters,
    ),
    HeartbeatReply: st.builds(HeartbeatReply, promises, counters, st.booleans()),
    CatchUp: st.builds(CatchUp, slots, watermarks),
    CatchUpReply: st.builds(CatchUpReply, promises, decisions, watermarks, watermarks),
    Forward: st.builds(Forward, st.lists(st.binary(max_size=50), max_size=4).map(tuple), hops),
    ReadRequest: st.builds(ReadRequest, counters, hops, st.booleans()),
    ReadReply: st.builds(ReadReply, counters, watermarks),
    ChangeRequest: st.builds(ChangeRequest, st.integers(1, 2**64 - 1), changes, hops),
    ChangeReply: st.builds(ChangeReply, counters, texts, hops),
    HandOver: st.builds(HandOver, ballots),
    FetchSnapshot: st.builds(FetchSnapshot, watermarks, watermarks),
    SnapshotChunk: snapshot_chunks(),
    StateDigest: st.dictionaries(slots, st.binary(min_size=16, max_size=16), min_size=1, max_size=5).map(
        lambda digests: StateDigest(tuple(sorted(digests.items())))
    ),
}
messages = st.one_of(*messages_by_type.values())
