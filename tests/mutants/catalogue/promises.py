"""Promises, votes, ballots and quorums: rules 2, 3, 4, 9 and 10."""

from tests.mutants.mutant import Edit, Mutant

__all__ = ["PROMISES"]

ACCEPTOR = "paxos_rsm.paxos.acceptor"
CORE = "paxos_rsm.paxos.core"
FORMING = "paxos_rsm.replica.forming"
MEMBERSHIP = "paxos_rsm.paxos.membership"
NODE = "paxos_rsm.paxos.node"
PROPOSER = "paxos_rsm.paxos.proposer"
REPLICA = "paxos_rsm.replica.replica"

PROMISES = (
    Mutant(
        name="promise-not-persisted",
        module=ACCEPTOR,
        old="""
            self.promised = ballot
            self._core.out.write(WritePromise(ballot))
""",
        new="""
            self.promised = ballot
""",
        rule="rules 3 and 4",
        why="a promise is kept in memory only; after a restart the acceptor votes in ballots that it had sworn off",
    ),
    Mutant(
        name="own-ballot-not-persisted",
        module=NODE,
        old="        self.acceptor.promise(ballot)",
        new="        self.acceptor.promised = ballot",
        rule="rule 2",
        why="a candidate does not write its own ballot down; after a restart it may use the same one again",
    ),
    Mutant(
        name="prepare-before-own-promise-durable",
        module=PROPOSER,
        old="            core.out.send_after_writes(node, Prepare(ballot, first, self.given_up))",
        new="            core.out.send(node, Prepare(ballot, first, self.given_up))",
        rule="rule 2",
        why="Prepare leaves before the candidate's own promise is durable",
    ),
    Mutant(
        name="prepare-repeated-before-own-promise-durable",
        module=PROPOSER,
        old="""
        if core.me not in self._next:
            return
""",
        new="",
        rule="rule 2",
        why="on a slow disk Prepare is sent again, in truth for the first time, before the own promise is durable",
    ),
    Mutant(
        name="promise-said-before-durable",
        module=ACCEPTOR,
        old="        self._core.out.send_after_writes(sender, self._chunk(message))",
        new="        self._core.out.send(sender, self._chunk(message))",
        rule="rule 4",
        why="Promise leaves at once, while the promise is on its way to the disk",
    ),
    Mutant(
        name="accept-does-not-raise-promise",
        module=ACCEPTOR,
        old="""
            self.promised = ballot
            if state is None
""",
        new="""
            if state is None
""",
        rule="rule 3",
        why="a vote in a higher ballot leaves the promise where it was, so that a lower ballot may follow",
    ),
    Mutant(
        name="accept-of-lower-ballot-taken",
        module=ACCEPTOR,
        old="""
        if ballot < self.promised:
            self.refuse(sender, ballot)
            return False
        log = self._core.log
""",
        new="""
        log = self._core.log
""",
        rule="rule 3",
        why="an acceptor votes below its promise",
    ),
    Mutant(
        name="reply-before-the-write",
        module=REPLICA,
        old="self._held.append((self._must_be_durable, self._now, ready.messages_after_writes))",
        new="self._held.append((0, self._now, ready.messages_after_writes))",
        also=(
            Edit(REPLICA, "            if self._must_be_durable <= self._durable:", "            if True:"),
        ),
        rule="rule 4",
        why="what must wait for the disk is said at once",
    ),
    Mutant(
        name="reply-one-batch-early",
        module=REPLICA,
        old="            self._held.append((self._must_be_durable, self._now, ready.messages_after_writes))",
        new="            self._held.append((self._must_be_durable - 1, self._now, ready.messages_after_writes))",
        rule="rule 4",
        why="off by one: a reply waits for the batch before its own",
    ),
    Mutant(
        name="leader-counts-its-vote-before-durable",
        module=REPLICA,
        old="""
        if ready.messages_after_writes:
            self._held
""",
        new="""
        for own in [e for e in ready.messages_after_writes if e.to == node.me]:
            ready.messages_after_writes.remove(own)
            node.step(node.me, own.message)
            self._again = True
        if ready.messages_after_writes:
            self._held
""",
        rule="rule 4",
        why="a server counts its own Promise and Accepted before they are on its disk",
    ),
    Mutant(
        name="vote-not-synced",
        module=REPLICA,
        old="any(type(w) not in _UNSYNCED for w in ready.writes)",
        new="any(hasattr(w, 'ballot') and not hasattr(w, 'slot') for w in ready.writes)",
        rule="rule 4",
        why="only promises are synced; a vote is acknowledged from the system's cache",
    ),
    Mutant(
        name="phase-1-majority-minus-one",
        module=MEMBERSHIP,
        old="        return len(self.nodes.intersection(nodes)) >= self.quorum.phase1",
        new="        return len(self.nodes.intersection(nodes)) >= max(1, self.quorum.phase1 - 1)",
        rule="rule 10",
        why="one promise too few makes a leader",
    ),
    Mutant(
        name="phase-2-majority-minus-one",
        module=MEMBERSHIP,
        old="        return len(self.nodes.intersection(nodes)) >= self.quorum.phase2",
        new="        return len(self.nodes.intersection(nodes)) >= max(1, self.quorum.phase2 - 1)",
        rule="rule 10",
        why="one vote too few decides",
    ),
    Mutant(
        name="genesis-by-majority",
        module=MEMBERSHIP,
        old="        self._founders = replace(forming, quorum=QuorumSizes.unanimous(len(forming.members)))",
        new="        self._founders = forming",
        rule="rule 9",
        why="slot 1 is decided by a majority of the founders instead of by all of them",
    ),
    Mutant(
        name="formed-before-all-have-met",
        module=FORMING,
        old="        if self._wanted != self.met.keys():",
        new="        if 2 * len(self.met) <= len(self._wanted):",
        rule="rule 9",
        why="a majority of the founders forms a cluster of its own before it has met the others",
    ),
    Mutant(
        name="older-votes-counted-for-the-new-ballot",
        module=PROPOSER,
        old="            best = self._best.get(slot)\n            if best is None",
        new="""
            self.__dict__.setdefault("_had", {}).setdefault((slot, entry), set()).add(sender)
            best = self._best.get(slot)
            if best is None
""",
        also=(
            Edit(
                PROPOSER,
                "        self.in_flight[slot] = Proposal(entry, core.now, core.settings.retransmit_ticks)",
                """
        self.in_flight[slot] = Proposal(entry, core.now, core.settings.retransmit_ticks)
        self.in_flight[slot].acks |= self.__dict__.get("_had", {}).get((slot, entry), set())
""",
            ),
        ),
        rule="rule 5",
        why="who reports in phase 1 a vote of an older ballot for an entry counts as having voted in the new one",
    ),
    Mutant(
        name="promise-of-older-ballot-counted",
        module=PROPOSER,
        old="        if self.phase is not Phase.PREPARING or message.ballot != self.ballot:",
        new="        if self.phase is not Phase.PREPARING:",
        rule="rule 5",
        why="a Promise that comes late, of an earlier ballot, counts for the present one",
    ),
)
