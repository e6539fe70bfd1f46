"""Leases on reads and reads by a quorum: the two ways of reading that are options (rule 8)."""

from tests.mutants.mutant import Edit, Mutant

__all__ = ["READ_WAYS"]

ACCEPTOR = "paxos_rsm.paxos.acceptor"
IDENTITY = "paxos_rsm.storage.identity"
LEASED = "paxos_rsm.paxos.leases"
NODE = "paxos_rsm.paxos.node"
QUORUM_READS = "paxos_rsm.paxos.quorum_reads"
READ = "paxos_rsm.paxos.reads"
SETTINGS = "paxos_rsm.paxos.settings"

BESIEGED = (("drift_percent", 100), ("hold_ticks", 8), ("siege", 0.3))
"""Reads are leased, by clocks that drift far, and every third tick somebody tries to lead within a lease."""
HANDED_OVER = (*BESIEGED, ("coup", 0.1), ("hand-over", 0.1))

READ_WAYS = (
    Mutant(
        name="lease-from-its-confirmation",
        module=READ,
        old="                self.lease.confirmed(waiting.begun_us, waiting.configuration)",
        new="                self.lease.confirmed(self._core.clock_us, waiting.configuration)",
        rule="rule 8",
        why="a lease counts from when the word of a quorum came, not from before it was asked",
    ),
    Mutant(
        name="lease-without-those-who-hold",
        module=READ,
        old="waiting.configuration.is_phase2_quorum(waiting.holders):",
        new="waiting.configuration.is_phase2_quorum(waiting.acks):",
        rule="rule 8",
        why="a confirmation makes a lease, whether or not those who gave it hold",
    ),
    Mutant(
        name="drift-ignored",
        module=SETTINGS,
        old="        return -(-self.read_lease_us * (100 + self.read_lease_drift_percent) // 100)",
        new="        return self.read_lease_us",
        world=BESIEGED,
        rule="rule 8",
        why="those who confirm hold for as long as the lease, by clocks that may run faster",
    ),
    Mutant(
        name="lease-by-ticks",
        module=LEASED,
        old="            and clock_us < self._until",
        new="            and self._core.now < self._until_tick",
        also=(
            Edit(LEASED, "        self._until = 0", "        self._until = self._until_tick = 0"),
            Edit(
                LEASED,
                "            self._until = begun + self._core.settings.read_lease_us",
                """
            left_us = begun + self._core.settings.read_lease_us - self._core.clock_us
            self._until_tick = self._core.now + left_us // 250_000
            self._until = begun + self._core.settings.read_lease_us
""",
            ),
        ),
        world=BESIEGED,
        rule="rule 8",
        why="a lease lasts for so many ticks, which stand still while the leader is paused",
    ),
    Mutant(
        name="promise-inside-a-lease",
        module=ACCEPTOR,
        old="        if message.ballot > self.promised and self.holds.bind(sender):",
        new="        if message.ballot > self.promised and self.holds.bind(sender) and False:",
        rule="rule 8",
        why="an acceptor promises to another while it holds for a leader",
    ),
    Mutant(
        name="who-holds-stands",
        module=NODE,
        old="        if self._core.log.held or self._core.log.unreadable or self.acceptor.holds.bind(self.me):",
        new="        if self._core.log.held or self._core.log.unreadable:",
        rule="rule 8",
        why="a member that holds for a leader stands, and promises that to itself",
    ),
    Mutant(
        name="hold-forgotten-by-a-restart",
        module=IDENTITY,
        old="            hold_us=max(hold_us, self.hold_us),",
        new="            hold_us=0,",
        rule="rule 8",
        why="an acceptor that was restarted promises at once, whatever the process before it held",
    ),
    Mutant(
        name="lease-after-a-hand-over",
        module=LEASED,
        old='''
        """The leadership is handed over: no lease in this ballot any more."""
        self._given_up = True
        self._configuration = None
''',
        new='''
        """The leadership is handed over: no lease in this ballot any more."""
''',
        world=HANDED_OVER,
        rule="rule 8",
        why="a leader that has handed over serves reads on its lease, though those who held for it are free",
    ),
    Mutant(
        name="quorum-read-of-what-is-decided",
        module=QUORUM_READS,
        old="        self._core.out.send(sender, ReadReply(message.read_id, self._core.log.max_slot))",
        new="        self._core.out.send(sender, ReadReply(message.read_id, self._core.log.decided_through))",
        rule="rule 8",
        why="acceptors name what they know to be decided, not what they have accepted",
    ),
    Mutant(
        name="quorum-read-that-does-not-wait",
        module=QUORUM_READS,
        old="            if question.highest > through or not",
        new="            if not",
        also=(
            Edit(
                QUORUM_READS,
                "question.highest if is_same else None",
                "min(question.highest, through) if is_same else None",
            ),
        ),
        rule="rule 8",
        why="a read by a quorum is served from what is decided here, below the highest slot that was named",
    ),
    Mutant(
        name="quorum-read-of-any-quorum",
        module=QUORUM_READS,
        old="not question.configuration.is_phase1_quorum(question.answered):",
        new="not question.configuration.is_phase2_quorum(question.answered):",
        rule="rule 10",
        why="the answers come from a phase-2 quorum, which another one may not meet",
    ),
    Mutant(
        name="quorum-read-counts-learners",
        module=QUORUM_READS,
        old="        others = sorted(configuration.nodes - {core.me})",
        new="        others = sorted(configuration.everybody - {core.me})",
        also=(
            Edit(
                QUORUM_READS,
                "not question.configuration.is_phase1_quorum(question.answered):",
                "len(question.answered) < question.configuration.quorum.phase1:",
            ),
        ),
        rule="rule 10",
        why="the word of learners, who accept and do not count, makes a quorum",
        core=True,
    ),
    Mutant(
        name="quorum-read-without-itself",
        module=QUORUM_READS,
        old="        self.highest = highest",
        new="        self.highest = 0 * highest",
        rule="rule 8",
        why="a server that counts itself for the quorum does not say what it has accepted itself",
    ),
)
