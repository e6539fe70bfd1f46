"""Linearizable reads: rule 8."""

from tests.mutants.mutant import Edit, Mutant

__all__ = ["READS"]

NODE = "paxos_rsm.paxos.node"
READ = "paxos_rsm.paxos.reads"
REPLICA = "paxos_rsm.replica.replica"

READS = (
    Mutant(
        name="read-without-quorum",
        module=READ,
        old="        done = [n for n, r in rounds if r.configuration and r.configuration.is_phase2_quorum(r.acks)]",
        new="        done = [n for n, _ in rounds]",
        rule="rule 8",
        why="a leader answers reads without asking whether it still leads",
    ),
    Mutant(
        name="read-before-entry-of-own-ballot",
        module=NODE,
        old="self.reads.begin_round(proposer.leading and core.log.decided_through >= proposer.recovery_end)",
        new="self.reads.begin_round(proposer.leading)",
        rule="rule 8",
        why="a new leader takes its watermark for a read index before it has decided what others may have decided",
    ),
    Mutant(
        name="reply-to-older-round-counts",
        module=READ,
        old="            if number <= message.round:\n                waiting",
        new="            if message.round:\n                waiting",
        also=(
            Edit(READ, "return message.ballot == ballot and 0 < message.round <= self.round", "return True"),
        ),
        rule="rule 8",
        why="a confirmation counts for rounds that began after it was given, and for ballots that came after it",
    ),
    Mutant(
        name="confirmed-after-higher-promise",
        module=NODE,
        old="""
        if message.ballot < self.acceptor.promised:
            self.acceptor.refuse(sender, message.ballot)
        else:
            self._overtaken(message.ballot)
            if message.round:
                held = self.acceptor.holds.give(message.ballot, message.hold_us)
                self._core.out.send(sender, m.HeartbeatReply(message.ballot, message.round, held))
""",
        new="""
        self._overtaken(message.ballot)
        if message.round:
            held = self.acceptor.holds.give(message.ballot, message.hold_us)
            self._core.out.send(sender, m.HeartbeatReply(message.ballot, message.round, held))
""",
        rule="rule 8",
        why="a member confirms a leader although it has promised to another one",
    ),
    Mutant(
        name="read-joins-a-round-under-way",
        module=READ,
        old="        self._arrived.append((asker, read_id))",
        new="""
        if self._rounds:
            self._rounds[max(self._rounds)].askers.append((asker, read_id))
        else:
            self._arrived.append((asker, read_id))
""",
        rule="rule 8",
        why="a read is given the index of a round that began before it arrived",
    ),
    Mutant(
        name="read-from-local-state",
        module=REPLICA,
        old="        self._new_reads.append(done)",
        new="        done(self.machine.applied_slot)",
        rule="rule 8",
        why="every server answers reads from its own state without a read index",
    ),
    Mutant(
        name="read-before-its-index-is-applied",
        module=REPLICA,
        old="            if index > at:",
        new="            if index > at + 1:",
        rule="rule 8",
        why="a read is served one slot before its index has been applied",
    ),
    Mutant(
        name="read-number-used-again-after-restart",
        module=READ,
        old="        self._next_id = core.random.randint(1, 1 << 62)",
        new="        self._next_id = 0 * core.random.randint(1, 1 << 62)",
        rule="rule 8",
        why="an answer to what the process before a restart asked is taken for that to a later question",
    ),
)
