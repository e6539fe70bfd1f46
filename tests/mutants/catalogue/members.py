"""Who counts, and from when on: rules 9 and 10 where the members change."""

from tests.mutants.mutant import Edit, Mutant

__all__ = ["MEMBERS"]

CHANGES = "paxos_rsm.paxos.changes"
LEARNER = "paxos_rsm.paxos.learner"
MEMBERSHIP = "paxos_rsm.paxos.membership"
PROPOSER = "paxos_rsm.paxos.proposer"
RECONFIGURATION = "paxos_rsm.paxos.reconfiguration"

NODES = """
        object.__setattr__(self, "nodes", frozenset(m.incarnation for m in self.members if not m.learner))
"""

MEMBERS = (
    Mutant(
        name="old-configuration-one-slot-too-long",
        module=LEARNER,
        old="            configuration = self._core.configurations.governing(slot)",
        new="            configuration = self._core.configurations.governing(slot - (slot > 2))",
        rule="rule 10",
        why="the slot after a change is decided by the quorum that was before it",
    ),
    Mutant(
        name="removed-member-still-counts",
        module=MEMBERSHIP,
        old=NODES,
        new="""
        voters = frozenset(m.incarnation for m in self.members if not m.learner)
        object.__setattr__(self, "nodes", voters | frozenset(self.removed))
""",
        rule="rule 10",
        why="who was removed goes on voting, and leading, and is counted",
    ),
    Mutant(
        name="learner-counts",
        module=MEMBERSHIP,
        old=NODES,
        new="""
        object.__setattr__(self, "nodes", frozenset(m.incarnation for m in self.members if m.incarnation))
""",
        rule="rule 10",
        why="a learner that has joined is counted as a voter",
    ),
    Mutant(
        name="change-before-an-entry-of-its-own",
        module=PROPOSER,
        old="            self._recovered.append(ConfigChange(genesis) if genesis else Noop())",
        new="            self._recovered.extend([ConfigChange(genesis)] if genesis else [])",
        rule="rule 10",
        why="a new leader that has found nothing to recover changes the members before it has decided anything",
        core=True,
    ),
    Mutant(
        name="two-changes-at-once",
        module=PROPOSER,
        old="""
        if self._changed_in > core.log.decided_through:
            return True
        if self.in_flight and self._is_change_next():
            return True
""",
        new="""
        if self._changed_in == 1 > core.log.decided_through:
            return True
""",
        also=(Edit(PROPOSER, "            and self._changed_in <= decided_through\n", ""),),
        rule="rule 10",
        why="a change is proposed while the one before it is under way",
    ),
    Mutant(
        name="proposed-beyond-a-change",
        module=PROPOSER,
        old="        if self._changed_in > core.log.decided_through:",
        new="        if self._changed_in == 1 > core.log.decided_through:",
        rule="rule 10",
        why="entries beyond a change are proposed before it is decided",
        core=True,
    ),
    Mutant(
        name="joined-member-bound-again",
        module=CHANGES,
        old="""
    if member.incarnation:
        raise _refused(
            Reason.ALREADY_JOINED,
""",
        new="""
    if member.incarnation < 0:
        raise _refused(
            Reason.ALREADY_JOINED,
""",
        rule="rule 9",
        why="a second process that says it is a member takes the place of the one that joined",
        core=True,
    ),
    Mutant(
        name="retried-change-carried-out-again",
        module=CHANGES,
        old="""
    if request_id in configuration.changes:
        return configuration
""",
        new="",
        rule="rule 11",
        why="a change that was asked for again, after its answer was lost, is made twice",
        core=True,
    ),
    Mutant(
        name="slots-decided-out-of-order",
        module=LEARNER,
        old="""
                proposal.decided = counted = True
        return self._decide_in_order(in_flight) if counted else []
""",
        new="""
                proposal.decided = counted = True
                self._core.log.decide_vote(slot)
        self.advance()
        return [s for s in message.slots if s in in_flight and in_flight[s].decided] if counted else []
""",
        rule="rule 10",
        why="a slot beyond a hole is decided by the members that would govern it if the hole were no change",
    ),
    Mutant(
        name="new-quorum-has-not-promised",
        module=PROPOSER,
        old="            if not configuration.is_phase1_quorum(self._promised_by):",
        new="            if False:",
        rule="rule 10",
        why="a leader goes on beyond a change without the promises of a quorum of the new configuration",
        core=True,
    ),
    Mutant(
        name="removed-server-stops-at-once",
        module=RECONFIGURATION,
        old="        return configuration.is_phase2_quorum([n for n, p in peers if p.decided_through >= changed_in])",
        new="        return changed_in > 0 and len(peers) >= 0",
        rule="liveness",
        why="who was removed stops while its vote is needed by others that have not heard of it",
        core=True,
    ),
)
