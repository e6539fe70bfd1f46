"""A node as a whole: what it comes back with, whom it believes, and chance played against it."""

import random
from dataclasses import replace

import pytest

from paxos_rsm.codec.messages import decode_message, encode_message
from paxos_rsm.errors import InvariantViolation
from paxos_rsm.paxos.messages import Accept, Decide, Forward, Heartbeat, Nack, Prepare
from paxos_rsm.paxos.node import FORWARD_FRAMES_MAX, Node
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, ConfigChange, Entry, Noop
from tests.forms import of_form
from tests.unit.paxos.fuzz import play
from tests.unit.paxos.harness import SETTINGS, Cluster, batch, members

# ---- coming back -------------------------------------------------------------------------------------------------


def test_it_comes_back_with_what_the_disk_held_and_releases_what_is_decided() -> None:
    genesis = ConfigChange(members(3))
    votes: dict[int, tuple[Ballot | None, Entry]] = {
        1: (Ballot(1, 1), genesis),
        2: (None, batch(b"a")),
        4: (Ballot(2, 1), batch(b"b")),
    }
    node = Node(2, SETTINGS, random.Random(0), promised=Ballot(3, 1), votes=votes, decided_through=1)
    assert (node.acceptor.promised, node.decided_through) == (Ballot(3, 1), 2)
    assert node.configuration == genesis.configuration
    assert node.role == "follower"
    assert [slot for slot, _ in node.ready().decided] == [1, 2]
    node.check()


def test_a_log_with_a_hole_below_its_mark_is_refused() -> None:
    with pytest.raises(InvariantViolation, match="does not hold slot 2"):
        Node(1, SETTINGS, random.Random(0), votes={1: (None, Noop())}, decided_through=2)


def test_before_all_have_met_it_is_forming_and_asks_nobody() -> None:
    cluster = Cluster(3, met=False)
    cluster.run(5 * SETTINGS.election_ticks)
    assert {h.node.role for h in cluster.hosts.values()} == {"forming"}
    assert not cluster.wire


# ---- whom it believes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        Prepare(Ballot(9, 2), 1),
        Accept(Ballot(9, 2), 5, batch(b"x"), 4),
        Decide(Ballot(9, 2), 4),
        Heartbeat(Ballot(9, 2), True, True, 4, 1, frozenset({1, 2, 3}), NO_BALLOT),
    ],
    ids=lambda m: type(m).__name__,
)
def test_nobody_speaks_in_a_ballot_of_somebody_else(message: Prepare | Accept | Decide | Heartbeat) -> None:
    cluster = Cluster(3)
    cluster.make_lead(1)
    cluster.settle()
    node = cluster.node(2)
    before = node.acceptor.promised, node.decided_through, node.leader
    node.step(3, message)
    assert (node.acceptor.promised, node.decided_through, node.leader) == before


def test_a_leader_goes_when_too_few_are_left_that_would_follow_it() -> None:
    cluster = Cluster(3)
    cluster.make_lead(1)
    cluster.settle()
    node = cluster.node(1)
    higher = Ballot(node.proposer.ballot.round + 1, 3)
    node.step(2, Nack(node.proposer.ballot, higher))
    assert node.proposer.leading, "two of three are left"
    node.step(3, Nack(node.proposer.ballot, higher))
    assert node.role == "follower"


def test_a_refusal_of_an_older_ballot_is_nothing() -> None:
    cluster = Cluster(3)
    cluster.make_lead(1)
    cluster.settle()
    node = cluster.node(1)
    for sender in (2, 3):
        node.step(sender, Nack(Ballot(0, 1), Ballot(50, 3)))
    assert node.proposer.leading


def test_frames_find_the_leader_and_have_no_way_without_one() -> None:
    cluster = Cluster(3)
    assert not cluster.node(2).propose([b"a"])
    cluster.make_lead(1)
    cluster.run(2)
    assert cluster.node(2).propose([b"a"])
    cluster.turn(2)
    assert [(to, m.frames) for _, to, m in cluster.take(Forward)] == [(1, (b"a",))]


def test_what_waits_at_a_follower_goes_to_the_leader_in_parts_that_a_peer_takes() -> None:
    """No way for a long time, then a leader: all at once would be larger than any message, each time it is sent."""
    settings = replace(SETTINGS, entry_bytes_max=100)
    cluster = Cluster(3, settings=settings)
    cluster.make_lead(1)
    cluster.run(2)
    frames = [b"%02d" % n + bytes(20) for n in range(10)] + [b"L" + bytes(150), b"last"]
    assert cluster.node(2).propose(frames)
    cluster.turn(2)
    parts = [m.frames for _, _, m in cluster.take(Forward)]
    assert [frame for part in parts for frame in part] == frames
    assert [len(part) for part in parts] == [3, 3, 3, 1, 1, 1], "at most an entry each, or one frame"


def test_a_forward_never_names_more_frames_than_a_receiver_believes() -> None:
    cluster = Cluster(3, settings=replace(SETTINGS, entry_bytes_max=1 << 30))
    cluster.make_lead(1)
    cluster.run(2)
    assert cluster.node(2).propose([b""] * (2 * FORWARD_FRAMES_MAX + 1))
    cluster.turn(2)
    messages = [m for _, _, m in cluster.take(Forward)]
    assert [len(m.frames) for m in messages] == [FORWARD_FRAMES_MAX, FORWARD_FRAMES_MAX, 1]
    assert decode_message(encode_message(messages[0])) == messages[0]


def test_leader_and_followers_say_how_old_their_knowledge_is() -> None:
    cluster = Cluster(3)
    assert cluster.node(2).leader_age_ticks is None
    cluster.make_lead(1)
    cluster.run(2)
    cluster.partition({1}, {2}, {3})
    cluster.wire.clear()
    for _ in range(3):
        cluster.tick(1, 2)
        cluster.wire.clear()
    for number in (1, 2):
        age = cluster.node(number).leader_age_ticks
        assert age is not None
        assert age >= 3


# ---- chance ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(of_form(20, 60)))
def test_chance_finds_nothing(seed: int) -> None:
    """A slice of the fuzz; ``python -m tests.unit.paxos.fuzz FIRST LAST`` plays more."""
    play(seed)
