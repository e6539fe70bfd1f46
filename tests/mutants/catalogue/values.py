"""Phase 1, the choice of values, and one entry a slot: rules 1, 2 and 5."""

from tests.mutants.mutant import Mutant

__all__ = ["VALUES"]

ACCEPTOR = "paxos_rsm.paxos.acceptor"
PROPOSER = "paxos_rsm.paxos.proposer"

VALUES = (
    Mutant(
        name="lowest-ballot-chosen",
        module=PROPOSER,
        old="            if best is None or ballot > best[0]:",
        new="            if best is None or ballot < best[0]:",
        rule="rule 5",
        why="of the votes reported in phase 1, the one of the lowest ballot is proposed again",
    ),
    Mutant(
        name="own-vote-preferred",
        module=PROPOSER,
        old="        if state is not None and (state.decided or best is None or state.ballot > best[0]):",
        new="        if state is not None:",
        rule="rule 5",
        why="a new leader prefers its own vote to one of a higher ballot",
    ),
    Mutant(
        name="chunk-taken-for-the-whole",
        module=PROPOSER,
        old="""
        if message.last is not None:
            ends.append(message.last + 1)
""",
        new="",
        rule="rule 5",
        why="slots that a promise has not covered yet count as free, and are filled with a no-op",
    ),
    Mutant(
        name="promise-says-it-covers-all",
        module=ACCEPTOR,
        old="""
                last = slot - 1
                break
""",
        new="""
                break
""",
        rule="rule 5",
        why="a promise that is cut to the size of a message claims to cover everything above it, too",
    ),
    Mutant(
        name="reported-slots-above-own-ignored",
        module=PROPOSER,
        old="        for slot in range(self.first, max(self._highest, core.log.max_slot) + 1):",
        new="        for slot in range(self.first, core.log.max_slot + 1):",
        rule="rule 5",
        why="new commands go into slots where others have voted, as long as the leader itself has nothing there",
    ),
    Mutant(
        name="votes-below-watermark-not-reported",
        module=ACCEPTOR,
        old="""
            state = log.get(slot)
            if state is None:
                continue
""",
        new="""
            state = log.get(slot)
            if state is None or slot <= log.decided_through:
                continue
""",
        rule="rule 5",
        why="a promise leaves out what its sender knows to be decided, as if that slot were free",
    ),
    Mutant(
        name="decided-report-ignored",
        module=PROPOSER,
        old="""
            self._highest = max(self._highest, slot)
            self._learner.learn(slot, entry)
""",
        new="""
            self._highest = max(self._highest, slot)
""",
        rule="rule 5",
        why="a candidate passes over what a promise reports as decided, and proposes a no-op there",
    ),
    Mutant(
        name="learned-decisions-not-reported",
        module=ACCEPTOR,
        old="""
            if state.decided:
                decided.append((slot, state.entry))
            else:
""",
        new="""
            if state.decided and state.ballot == NO_BALLOT:
                continue
            elif state.decided:
                decided.append((slot, state.entry))
            else:
""",
        rule="rule 5",
        why="a promise leaves out the decisions that its sender did not vote for itself",
    ),
    Mutant(
        name="recovered-entries-survive-the-ballot",
        module=PROPOSER,
        old="""
        self._recovered.clear()
        self._waiting.clear()
""",
        new="""
        self._waiting.clear()
""",
        world=(("coup", 0.1), ("loss", 0.2)),
        rule="rule 5",
        why="what an earlier ballot was obliged to propose is still in the queue of the next one, in the wrong slots",
    ),
    Mutant(
        name="retransmitted-accept-differs",
        module=PROPOSER,
        old="            owing, Accept(self.ballot, slot, proposal.entry, self._core.log.decided_through)",
        new="            owing, Accept(self.ballot, slot, Noop(), self._core.log.decided_through)",
        rule="rule 2",
        why="an Accept that is sent again carries another entry than the first time",
    ),
    Mutant(
        name="batch-rebuilt-for-each-member",
        module=PROPOSER,
        old="        core.out.send_all(core.others, accept)",
        new="""
        for count, node in enumerate(core.others):
            core.out.send(node, Accept(self.ballot, slot, entry if count < 2 else Noop(), accept.decided_through))
""",
        rule="rule 2",
        why="the third and further members are asked to accept another entry under the same ballot",
    ),
)
