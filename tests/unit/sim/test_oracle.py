"""Each rule of the oracle, broken alone; and beside it the legal case that is closest to it."""

from collections.abc import Sequence

import pytest

from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.messages import (
    Accept,
    Accepted,
    CatchUp,
    Decide,
    Envelope,
    Heartbeat,
    Message,
    Nack,
    Prepare,
    Promise,
)
from paxos_rsm.paxos.quorum import QuorumSizes
from paxos_rsm.paxos.ready import Write, WriteAccepted, WriteDecided, WriteDecidedThrough, WritePromise
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Batch, ConfigChange, Entry, Noop
from paxos_rsm.sim.oracle import DiskModel, Oracle
from paxos_rsm.storage.base import Recovered
from tests.unit.sim.helpers import broken

A, B, C = 1, 2, 3
NODES = (A, B, C)
GENESIS = ConfigChange(
    Configuration(
        7,
        tuple(Member(n, 100 + n, f"n{n}", f"http://n{n}:2380") for n in NODES),
        QuorumSizes.majority(3),
    )
)
X, Y = Batch(b"x"), Batch(b"y")
FIRST = Ballot(1, A)


def ballot(round_: int, node: int = A) -> Ballot:
    return Ballot(round_, node)


class Story:
    """Three servers, told by what they write and say. Unless ``formed`` is false, ballot 1 of A chose the genesis."""

    def __init__(self, *, formed: bool = True) -> None:
        self.oracle = Oracle()
        self.disks = {node: DiskModel(node) for node in NODES}
        if formed:
            self.promise(FIRST)
            self.says(A, Accept(FIRST, 1, GENESIS, 0))
            self.vote(1, FIRST, GENESIS)

    def writes(self, host: int, *writes: Write) -> None:
        """These become durable."""
        disk = self.disks[host]
        disk.unsynced += writes
        self.oracle.synced(disk)

    def promise(self, to: Ballot, hosts: Sequence[int] = NODES) -> None:
        for host in hosts:
            self.writes(host, WritePromise(to))

    def vote(self, slot: int, in_: Ballot, entry: Entry, hosts: Sequence[int] = NODES) -> None:
        for host in hosts:
            self.writes(host, WriteAccepted(slot, in_, entry))

    def says(self, host: int, *messages: Message, boot: int = 1) -> None:
        envelopes = [Envelope(to, each) for each in messages for to in NODES if to != host]
        self.oracle.says(host, boot, self.disks[host], envelopes)

    def chosen(self, slot: int, entry: Entry, in_: Ballot = FIRST) -> None:
        """The proposer of a ballot gets an entry chosen, with the vote of one other."""
        self.says(in_.node, Accept(in_, slot, entry, 0))
        self.vote(slot, in_, entry, [in_.node, in_.node % 3 + 1])


@pytest.fixture
def story() -> Story:
    return Story()


def test_the_genesis_needs_every_initial_member_and_later_slots_a_quorum() -> None:
    story = Story(formed=False)
    story.vote(1, FIRST, GENESIS, [A, B])
    assert (story.oracle.chosen, story.oracle.configuration) == ({}, None)
    story.vote(2, FIRST, X)  # no configuration governs it yet
    assert not story.oracle.chosen
    story.vote(1, FIRST, GENESIS, [C])
    assert story.oracle.chosen == {1: GENESIS, 2: X}
    assert story.oracle.configuration == GENESIS.configuration
    story.vote(3, FIRST, X, [A])
    assert 3 not in story.oracle.chosen
    story.vote(3, FIRST, X, [C])
    assert story.oracle.chosen[3] == X


def test_slots_are_judged_in_their_order() -> None:
    story = Story()
    story.vote(3, FIRST, X)
    assert story.oracle.chosen_through == 1  # slot 2 is a hole, and who governs slot 3 is not known
    assert 3 not in story.oracle.chosen
    story.vote(2, ballot(2), Y, [A, B])
    assert story.oracle.chosen_through == 3
    assert story.oracle.chosen[3] == X


def test_votes_of_two_ballots_do_not_add_up(story: Story) -> None:
    story.vote(2, FIRST, X, [A])
    story.vote(2, ballot(2), X, [B])
    assert 2 not in story.oracle.chosen


def test_a_vote_counts_from_the_moment_it_is_durable(story: Story) -> None:
    for host in (A, B):
        story.disks[host].unsynced.append(WriteAccepted(2, FIRST, X))
    story.oracle.synced(story.disks[A])
    assert 2 not in story.oracle.chosen
    story.oracle.synced(story.disks[B])
    assert story.oracle.chosen[2] == X


class TestRule1:
    """One value per slot."""

    def test_what_was_learned_as_decided_does_not_change_on_disk(self, story: Story) -> None:
        story.chosen(2, X)
        disk = story.disks[C]
        disk.write(WriteDecided(2, X))
        disk.write(WriteDecided(2, X))
        with broken("1", "slot 2 was decided on the disk of 3 and changes"):
            disk.write(WriteDecided(2, Y))

    def test_a_vote_below_the_mark_does_not_give_way(self, story: Story) -> None:
        disk = story.disks[C]
        disk.write(WriteAccepted(2, FIRST, X))
        disk.write(WriteAccepted(3, FIRST, X))
        disk.write(WriteDecidedThrough(2))
        disk.write(WriteDecided(3, Y))  # only a vote: something else was decided
        disk.write(WriteDecided(2, X))
        with broken("1", "slot 2 was decided"):
            disk.write(WriteDecided(2, Y))

    def test_nor_to_a_vote_in_a_higher_ballot(self, story: Story) -> None:
        disk = story.disks[C]
        for slot in (2, 3):
            disk.write(WriteAccepted(slot, FIRST, X))
        disk.write(WriteDecidedThrough(2))
        disk.write(WriteAccepted(3, ballot(2), Y))
        disk.write(WriteAccepted(2, ballot(2), X))
        with broken("1", "slot 2 on the disk of 3 was decided and changes"):
            disk.write(WriteAccepted(2, ballot(3), Y))

    def test_a_vote_for_what_is_known_decided_leaves_it(self, story: Story) -> None:
        disk = story.disks[C]
        disk.write(WriteDecided(2, X))
        disk.write(WriteAccepted(2, ballot(4), X))
        assert disk.votes[2] == (None, X)
        assert disk.promised == ballot(4)

    def test_nothing_is_taken_as_decided_before_a_quorum_has_it(self, story: Story) -> None:
        story.vote(2, FIRST, X, [A])
        with broken("1", "3 takes slot 2 as decided, and no quorum has it on disk"):
            story.writes(C, WriteDecided(2, X))

    def test_nor_is_anything_else(self, story: Story) -> None:
        story.chosen(2, X)
        story.chosen(3, X)
        story.writes(C, WriteDecided(2, X))
        with broken("1", "as decided in slot 3, not"):
            story.writes(C, WriteDecided(3, Y))

    def test_a_mark_takes_as_decided_what_the_disk_holds(self, story: Story) -> None:
        story.vote(2, FIRST, X, [A, C])
        story.vote(3, FIRST, X, [C])
        story.writes(C, WriteDecidedThrough(2))
        with broken("1", "3 takes slot 3 as decided"):
            story.writes(C, WriteDecidedThrough(3))

    def test_a_mark_on_another_value_than_was_chosen(self, story: Story) -> None:
        story.vote(2, FIRST, X, [A, B])
        story.disks[C].votes[2] = FIRST, Y  # written, it would break rule 2 first
        with broken("1", "in slot 2, not"):
            story.writes(C, WriteDecidedThrough(2))

    def test_only_what_is_chosen_is_applied(self, story: Story) -> None:
        story.vote(2, FIRST, X, [A])
        story.oracle.applies(C, 0, 1, GENESIS)
        with broken("1", "3 takes slot 2 as decided"):
            story.oracle.applies(C, 1, 2, X)
        story.vote(2, FIRST, X, [B])
        with broken("1", "in slot 2, not"):
            story.oracle.applies(C, 1, 2, Y)
        story.oracle.applies(C, 1, 2, X)
        assert story.oracle.applied_through == 2

    def test_a_promise_reports_as_decided_what_is_chosen(self, story: Story) -> None:
        story.chosen(2, X)
        story.promise(ballot(2, B))
        story.says(C, Promise(ballot(2, B), 2, None, (), ((2, X),)))
        with broken("1", "in slot 2, not"):
            story.says(C, Promise(ballot(2, B), 2, None, (), ((2, Y),)))


class TestRule2:
    """A ballot is used by one proposer, once."""

    def test_a_disk_takes_one_entry_a_ballot_and_slot(self, story: Story) -> None:
        disk = story.disks[C]
        disk.write(WriteAccepted(2, FIRST, X))
        disk.write(WriteAccepted(2, FIRST, X))
        disk.write(WriteAccepted(3, FIRST, Y))
        with broken("2", "slot 2 on the disk of 3 gets a second entry in ballot"):
            disk.write(WriteAccepted(2, FIRST, Y))

    def test_a_ballot_is_that_of_its_node(self, story: Story) -> None:
        story.promise(ballot(2, B))
        for node, message in (
            (B, Prepare(ballot(2, B), 2)),
            (B, Accept(ballot(2, B), 2, X, 0)),
            (A, Heartbeat(FIRST, True, True, 0, 0, frozenset(), FIRST)),
            (A, Decide(FIRST, 1)),
        ):
            story.says(node, message)
            with broken("2", "3 uses ballot"):
                story.says(C, message)

    def test_a_follower_names_the_ballot_that_it_follows(self, story: Story) -> None:
        story.says(B, Heartbeat(FIRST, False, True, 1, 0, frozenset(), FIRST))

    def test_a_ballot_is_not_used_again_after_a_restart(self, story: Story) -> None:
        mine = ballot(2, B)
        story.promise(mine)
        story.says(B, Prepare(mine, 2), boot=4)
        story.says(B, Prepare(mine, 5), Accept(mine, 2, X, 0), boot=4)
        story.promise(ballot(3, B))
        story.says(B, Prepare(ballot(3, B), 2), boot=5)
        with broken("2", "again after a restart"):
            story.says(B, Prepare(mine, 2), boot=5)
        assert story.oracle.ballots == {FIRST: (A, 1), mine: (B, 4), ballot(3, B): (B, 5)}

    def test_one_entry_is_proposed_a_ballot_and_slot(self, story: Story) -> None:
        story.says(A, Accept(FIRST, 2, X, 0))
        story.says(A, Accept(FIRST, 2, Batch(b"x"), 0), Accept(FIRST, 3, Y, 0))  # sent again
        with broken("2", "two entries are proposed in slot 2 of ballot"):
            story.says(A, Accept(FIRST, 2, Y, 0))


class TestRule3:
    """What is promised and accepted never goes down."""

    def test_promises_rise(self, story: Story) -> None:
        disk = DiskModel(C)
        disk.write(WritePromise(ballot(2)))
        disk.write(WritePromise(ballot(2)))
        disk.write(WritePromise(ballot(2, B)))
        with broken("3", "the promise on the disk of 3 goes from"):
            disk.write(WritePromise(ballot(2)))

    def test_a_vote_raises_the_promise_and_none_is_below_it(self, story: Story) -> None:
        disk = DiskModel(C)
        disk.write(WriteAccepted(2, ballot(3), X))
        assert disk.promised == ballot(3)
        disk.write(WriteAccepted(5, ballot(3), X))
        with broken("3", "the promise on the disk of 3 goes from"):
            disk.write(WriteAccepted(4, ballot(2), X))

    def test_votes_rise(self, story: Story) -> None:
        disk = DiskModel(C)
        disk.write(WriteAccepted(2, ballot(3), X))
        disk.promised = NO_BALLOT  # as if a promise could be taken back: the vote still cannot
        with broken("3", "slot 2 on the disk of 3 goes from ballot"):
            disk.write(WriteAccepted(2, ballot(2), X))
        disk.write(WriteAccepted(2, ballot(4), Y))
        assert disk.votes[2] == (ballot(4), Y)

    def test_marks_rise(self, story: Story) -> None:
        disk = DiskModel(C)
        for slot in (1, 2, 3):
            disk.write(WriteAccepted(slot, FIRST, X))
        disk.write(WriteDecidedThrough(2))
        disk.write(WriteDecidedThrough(2))
        disk.write(WriteDecidedThrough(3))
        with broken("3", "the mark on the disk of 3 goes from 3 to 2"):
            disk.write(WriteDecidedThrough(2))


class TestRule4:
    """Nothing is said before it is durable; and nothing durable is lost."""

    WRITES: tuple[Write, ...] = (
        WritePromise(ballot(2)),
        WriteAccepted(2, ballot(2), X),
        WriteAccepted(3, ballot(2), Y),
        WriteDecidedThrough(1),
        WritePromise(ballot(3)),
    )

    @pytest.mark.parametrize("kept", range(len(WRITES) + 1))
    def test_of_what_was_not_synced_any_prefix_comes_back(self, story: Story, kept: int) -> None:
        disk, found = story.disks[C], Recovered()
        for write in (WritePromise(FIRST), WriteAccepted(1, FIRST, GENESIS), *self.WRITES[:kept]):
            found.apply(write)
        disk.unsynced += self.WRITES
        assert story.oracle.recovered(disk, found) == len(self.WRITES) - kept
        assert disk.unsynced == []
        assert disk.is_what(found)

    def test_what_comes_back_counts_as_voted(self, story: Story) -> None:
        story.vote(2, ballot(2), X, [A])
        story.disks[C].unsynced += self.WRITES[:2]
        found = Recovered()
        for write in (WriteAccepted(1, FIRST, GENESIS), *self.WRITES[:2]):
            found.apply(write)
        story.oracle.recovered(story.disks[C], found)
        assert story.oracle.chosen[2] == X

    @pytest.mark.parametrize(
        "held",
        [
            (),  # all is gone
            (WritePromise(FIRST),),  # a synced vote is gone
            (
                WriteAccepted(1, FIRST, GENESIS),
                WriteAccepted(2, ballot(2), X),
                WriteDecidedThrough(1),
            ),  # a hole
            (WriteAccepted(1, FIRST, GENESIS), WritePromise(ballot(9))),  # nobody wrote this
            (WriteAccepted(1, FIRST, GENESIS), WriteDecidedThrough(1)),  # order is turned round
        ],
    )
    def test_nothing_else_does(self, story: Story, held: tuple[Write, ...]) -> None:
        disk, found = story.disks[C], Recovered()
        for write in held:
            found.apply(write)
        disk.unsynced += self.WRITES
        with broken("4", "the log of 3 came back with promise"):
            story.oracle.recovered(disk, found)

    def test_a_candidate_promises_to_itself_first(self, story: Story) -> None:
        mine = ballot(2, B)
        story.disks[B].unsynced.append(WritePromise(mine))
        with broken("4", "2 prepares"):
            story.says(B, Prepare(mine, 2))
        story.oracle.synced(story.disks[B])
        story.says(B, Prepare(mine, 2))

    def test_a_promise_is_on_disk_when_it_is_told(self, story: Story) -> None:
        told = Promise(ballot(2, B), 2, None, (), ())
        with broken("4", "3 says that it promised"):
            story.says(C, told)
        story.promise(ballot(3, A), [C])  # a higher one has come since: the lower one was kept as well
        story.says(C, told)

    def test_a_reported_vote_was_cast(self, story: Story) -> None:
        story.vote(2, FIRST, X, [C])
        story.promise(ballot(2, B))
        story.says(C, Promise(ballot(2, B), 2, None, ((2, FIRST, X),), ()))
        for slot, in_ in ((3, FIRST), (2, ballot(2, B))):
            with broken("4", f"3 reports a vote in slot {slot} that was never on its disk"):
                story.says(C, Promise(ballot(2, B), 2, None, ((2, FIRST, X), (slot, in_, X)), ()))

    def test_a_vote_that_was_replaced_since_may_still_be_reported(self, story: Story) -> None:
        story.vote(2, FIRST, X, [C])
        story.chosen(2, Y, ballot(2, A))
        story.writes(C, WritePromise(ballot(3, B)), WriteDecided(2, Y))
        story.says(C, Promise(ballot(3, B), 2, None, ((2, FIRST, X),), ()))

    def test_a_vote_is_on_disk_when_it_is_told(self, story: Story) -> None:
        story.says(A, Accept(FIRST, 2, X, 0))
        story.disks[C].unsynced.append(WriteAccepted(2, FIRST, X))
        with broken("4", "3 says that it voted in slot 2, its disk does not"):
            story.says(C, Accepted(FIRST, (2,)))
        story.oracle.synced(story.disks[C])
        story.says(C, Accepted(FIRST, (1, 2)))
        with broken("4", "voted in slot 3"):
            story.says(C, Accepted(FIRST, (2, 3)))

    def test_a_voter_has_promised_the_ballot(self, story: Story) -> None:
        with broken("4", "its disk has promised"):
            story.says(C, Accepted(ballot(2, A), (1,)))

    def test_a_decided_slot_is_voted_for_without_being_written_again(self, story: Story) -> None:
        story.chosen(2, X)
        story.chosen(3, X)
        later = ballot(2, A)
        story.promise(later)
        story.writes(C, WriteDecided(2, X))
        story.writes(B, WriteDecidedThrough(2))
        story.says(A, Accept(later, 2, X, 0))
        story.says(C, Accepted(later, (2,)))  # learned as decided
        story.says(B, Accepted(later, (2,)))  # a vote of an earlier ballot, below the mark
        story.says(A, Accept(later, 3, X, 0))
        with broken("4", "2 says that it voted in slot 3"):
            story.says(B, Accepted(later, (3,)))  # a vote of an earlier ballot, above the mark

    def test_but_only_for_what_it_holds(self, story: Story) -> None:
        story.chosen(2, X)
        story.writes(C, WriteDecided(2, X), WritePromise(ballot(2, A)))
        story.oracle._proposed[2][ballot(2, A)] = Y  # were it said aloud, rule 5 would be broken first
        with broken("4", "3 says that it voted in slot 2"):
            story.says(C, Accepted(ballot(2, A), (2,)))


class TestRule5:
    """Value choice."""

    def test_a_higher_ballot_proposes_what_is_chosen(self, story: Story) -> None:
        story.chosen(2, X)
        story.says(B, Accept(ballot(2, B), 2, X, 0))
        with broken("5", "is chosen"):
            story.says(B, Accept(ballot(3, B), 2, Y, 0))

    def test_a_lower_one_may_still_say_what_it_said(self, story: Story) -> None:
        story.chosen(2, X, ballot(2, B))
        story.says(A, Accept(FIRST, 2, Y, 0))
        assert story.oracle.chosen[2] == X

    def test_nothing_is_chosen_below_another_proposal(self, story: Story) -> None:
        story.says(C, Accept(ballot(3, C), 2, Y, 0))
        story.says(C, Accept(ballot(3, C), 3, X, 0))
        story.vote(3, FIRST, X, [A, B])
        with broken("5", "proposed Batch(data=b'y') in slot 2"):
            story.vote(2, FIRST, X, [A, B])

    def test_and_long_entries_are_told_short(self, story: Story) -> None:
        story.chosen(2, Batch(b"x" * 500))
        with pytest.raises(Exception, match=r"Batch\(data=b'x{30,80}\.\.\. is chosen"):
            story.says(B, Accept(ballot(2, B), 2, Noop(), 0))

    @pytest.mark.parametrize(
        "told",
        [
            Promise(ballot(2, B), 2, None, ((2, FIRST, X), (3, FIRST, Y)), ()),
            Promise(ballot(2, B), 3, None, ((3, FIRST, Y),), ()),  # from slot 3 on
            Promise(ballot(2, B), 2, 2, ((2, FIRST, X),), ()),  # up to slot 2
            Promise(ballot(2, B), 2, None, ((3, FIRST, Y),), (), compacted_through=2),
            Promise(ballot(2, B), 2, None, ((2, FIRST, X),), (), unreadable=(3,)),
            Promise(ballot(2, B), 2, None, ((3, FIRST, Y),), ((2, X),)),  # decided rather than accepted
        ],
    )
    def test_a_promise_tells_the_votes_that_it_covers(self, story: Story, told: Promise) -> None:
        story.vote(2, FIRST, X, [A, C])
        story.vote(3, FIRST, Y, [C])
        story.promise(ballot(2, B))
        story.says(C, told)

    @pytest.mark.parametrize(
        ("told", "slot"),
        [
            (Promise(ballot(2, B), 2, None, ((2, FIRST, X),), ()), 3),
            (Promise(ballot(2, B), 2, 3, ((3, FIRST, Y),), ()), 2),
            (Promise(ballot(2, B), 3, 3, (), ()), 3),
            (Promise(ballot(2, B), 2, None, (), (), compacted_through=2), 3),
            (Promise(ballot(2, B), 2, None, ((3, FIRST, Y),), (), unreadable=(3,)), 2),
        ],
    )
    def test_leaving_one_out_is_told(self, story: Story, told: Promise, slot: int) -> None:
        story.vote(2, FIRST, X, [A, C])
        story.vote(3, FIRST, Y, [C])
        story.promise(ballot(2, B))
        with broken("5", f"3 covers slot {slot} in its promise and leaves out its vote there"):
            story.says(C, told)

    def test_what_came_after_the_promise_need_not_be_in_it(self, story: Story) -> None:
        story.chosen(2, X)
        story.chosen(3, Y)
        story.promise(ballot(2, B))
        story.vote(2, ballot(2, B), X, [C])
        story.writes(C, WriteDecided(3, Y))
        story.says(C, Promise(ballot(2, B), 2, None, (), ()))


class TestRule6:
    """A watermark names slots, not values."""

    def test_every_way_of_naming_one_is_checked(self) -> None:
        for message in (
            Accept(FIRST, 5, X, 3),
            Decide(FIRST, 3),
            Heartbeat(FIRST, True, True, 3, 0, frozenset(), FIRST),
        ):
            story = Story()
            story.chosen(2, X)
            with broken("6", "names slot 3, which is not chosen"):
                story.says(A, message)
            story.chosen(3, X)
            story.says(A, message)

    def test_a_ballot_does_not_name_what_it_lost(self, story: Story) -> None:
        """Learned from another: the slot is decided, and not with what this leader proposed there."""
        story.says(A, Accept(FIRST, 2, X, 1))
        story.chosen(2, Y, ballot(2, B))
        with broken("6", "names slot 2, which it lost"):
            story.says(A, Decide(FIRST, 2))
        story.says(B, Decide(ballot(2, B), 2))

    def test_a_ballot_may_name_what_it_never_proposed(self, story: Story) -> None:
        story.chosen(2, X)
        story.promise(ballot(2, B))
        story.says(B, Heartbeat(ballot(2, B), True, True, 2, 0, frozenset(), ballot(2, B)))

    def test_a_watermark_may_be_said_again_and_lower(self, story: Story) -> None:
        story.chosen(2, X)
        story.says(A, Decide(FIRST, 2), Decide(FIRST, 1), Decide(FIRST, 2))

    def test_a_follower_knows_no_more_than_is_chosen(self, story: Story) -> None:
        story.chosen(2, X)
        story.says(C, Heartbeat(FIRST, False, True, 2, 0, frozenset(), FIRST))
        with broken("6", "3 names 3 decided; 2 are chosen"):
            story.says(C, Heartbeat(FIRST, False, True, 3, 0, frozenset(), FIRST))


class TestRule7:
    """Apply in slot order, each slot once."""

    def test_no_hole_and_nothing_twice(self, story: Story) -> None:
        for slot in (2, 3, 4):
            story.chosen(slot, X)
        story.oracle.applies(C, 0, 1, GENESIS)
        story.oracle.applies(C, 1, 2, X)
        for slot in (1, 2, 4):
            with broken("7", f"3 was told to apply slot {slot} after 2"):
                story.oracle.applies(C, 2, slot, X)
        story.oracle.applies(A, 0, 1, GENESIS)
        assert story.oracle.applied_through == 2

    def test_a_mark_leaves_no_hole_below_it(self, story: Story) -> None:
        for slot in (2, 4):
            story.vote(slot, FIRST, X)
        story.writes(C, WriteDecidedThrough(2))
        with broken("7", "the disk of 3 marks 4 and does not hold slot 3"):
            story.writes(C, WriteDecidedThrough(4))


def test_rule_8_reads_see_what_was_applied_before_they_were_asked(story: Story) -> None:
    story.oracle.reads(C, 5, 5)
    story.oracle.reads(C, 5, 6)
    with broken("8", "3 serves a read at slot 4, and 5 had been applied when it was asked"):
        story.oracle.reads(C, 5, 4)


def test_rule_9_nothing_is_proposed_before_the_genesis_is_chosen() -> None:
    story = Story(formed=False)
    story.promise(FIRST)
    story.says(A, Accept(FIRST, 1, GENESIS, 0))
    story.vote(1, FIRST, GENESIS, [A, B])
    with broken("9", "slot 2 is proposed before the genesis entry is chosen"):
        story.says(A, Accept(FIRST, 2, X, 0))
    story.vote(1, FIRST, GENESIS, [C])
    story.says(A, Accept(FIRST, 2, X, 0))


def test_messages_that_claim_nothing_pass(story: Story) -> None:
    story.says(C, CatchUp(1, 5), Nack(ballot(8, B), ballot(9, B)))
    assert story.oracle.ballots == {FIRST: (A, 1)}


def test_one_message_to_several_is_checked_and_so_is_the_next(story: Story) -> None:
    with broken("2", "3 uses ballot"):
        story.says(C, CatchUp(1, 5), CatchUp(1, 5), Decide(FIRST, 0))
