"""What is decided, and what is applied: rules 1, 6 and 7, and that a server which missed some comes to know it."""

from tests.mutants.mutant import Edit, Mutant

__all__ = ["LEARNING"]

LEARNER = "paxos_rsm.paxos.learner"
LOG = "paxos_rsm.paxos.log"
NODE = "paxos_rsm.paxos.node"
PROPOSER = "paxos_rsm.paxos.proposer"
SESSIONS = "paxos_rsm.machines.sessions"

LEARNING = (
    Mutant(
        name="watermark-trusted-across-ballots",
        module=LEARNER,
        old="        if state is not None and not state.decided and state.ballot == self._watermark_ballot:",
        new="        if state is not None and not state.decided:",
        rule="rule 6",
        why="a follower takes its vote of an older ballot as decided, since a newer leader's watermark covers it",
    ),
    Mutant(
        name="deposed-leader-learns-and-announces",
        module=NODE,
        old="""
        if not self.proposer.leading:
            self.learner.caught(sender, message)
        elif
""",
        new="""
        if True:
            self.learner.caught(sender, message)
        elif
""",
        also=(
            Edit(NODE, "if self.election.leader() is None and not self.proposer.leading:", "if True:"),
            Edit(
                NODE,
                "if election.has_lost_links(configuration, True) or election.outranked(proposer.ballot):",
                "if election.has_lost_links(configuration, True):",
            ),
        ),
        rule="rule 6",
        why="a leader learns by catching up what a higher ballot decided in its slots, and its watermark repeats it",
    ),
    Mutant(
        name="watermark-ahead-of-decisions",
        module=PROPOSER,
        old="        through = self._core.log.decided_through",
        new="        through = self.next_slot - 1",
        rule="rule 6",
        why="the leader announces what it has proposed, not what has been decided",
    ),
    Mutant(
        name="hole-skipped",
        module=LOG,
        old="""
        while (state := slots.get(slot + 1)) is not None and state.decided:
            slot += 1
""",
        new="""
        from paxos_rsm.paxos.types import Noop

        while True:
            state, above = slots.get(slot + 1), slots.get(slot + 2)
            if state is None and above is not None and above.decided:
                self.put(slot + 1, SlotState(NO_BALLOT, Noop(), True))
            elif state is None or not state.decided:
                break
            slot += 1
""",
        rule="rule 7",
        why="a slot of which a server knows nothing, below one that it knows to be decided, is passed over",
    ),
    Mutant(
        name="undecided-vote-released",
        module=LOG,
        old="        while (state := slots.get(slot + 1)) is not None and state.decided:",
        new="        while (state := slots.get(slot + 1)) is not None and (state.decided or slot + 2 in slots):",
        also=(
            Edit(
                LOG,
                "        moved = slot != self.decided_through",
                "        for each in range(self.decided_through + 1, slot + 1):\n"
                "            self.decide_vote(each)\n"
                "        moved = slot != self.decided_through",
            ),
        ),
        rule="rule 7",
        why="a vote counts as decided because there is something above it",
    ),
    Mutant(
        name="slot-applied-twice",
        module=LOG,
        old="""
        while self.released_through < self.decided_through:
            self.released_through += 1
            yield self.released_through, self.slots[self.released_through].entry
""",
        new="""
        for slot in range(max(1, self.released_through), self.decided_through + 1):
            self.released_through = slot
            yield slot, self.slots[slot].entry
""",
        also=(
            Edit(
                SESSIONS,
                "        if slot != self._applied_slot + 1:",
                "        if slot > self._applied_slot + 1:",
            ),
        ),
        rule="rule 7",
        why="each time that slots are handed out to be applied, the last one of the time before comes again",
    ),
    Mutant(
        name="votes-recovered-as-decided",
        module=NODE,
        old="            decided = ballot is None or slot <= decided_through",
        new="            decided = True",
        rule="rule 1",
        why="after a restart a server takes its own votes for decisions",
    ),
    Mutant(
        name="catch-up-asked-once",
        module=LEARNER,
        old="""
            if core.now - self._asked_at < core.settings.retransmit_ticks:
                return
            self._asked_at = None
""",
        new="""
            return
""",
        rule="all converge once the faults are over",
        why="a server whose CatchUp, or the answer to it, was lost never asks again",
    ),
    Mutant(
        name="lost-accepts-stay-lost",
        module=NODE,
        old="        elif proposer.in_flight and core.now - proposer.decided_at > patience:",
        new="        elif False:",
        also=(Edit(NODE, "            proposer.retransmit()\n", "\n"),),
        rule="a write commits soon after the faults are over",
        why="a leader sends each Accept once, and waits for the answers for ever",
    ),
    Mutant(
        name="all-that-waits-in-one-message",
        module=NODE,
        old="        for part in _parts(frames, self._core.settings.entry_bytes_max):",
        new="        for part in [tuple(frames)]:",
        rule="what is sent fits a message",
        why="a follower hands on all that waits at once, in a message that no peer takes, however often it is sent",
    ),
)
