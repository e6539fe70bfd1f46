"""Snapshots, and the log that starts after them: rules 3, 4, 5, 7 and 11 where slots are forgotten."""

from tests.mutants.mutant import Mutant

__all__ = ["SNAPSHOTS"]

ACCEPTOR = "paxos_rsm.paxos.acceptor"
CORE = "paxos_rsm.paxos.core"
HANDSHAKE = "paxos_rsm.transport.handshake"
KEEPER = "paxos_rsm.replica.snapshots"
LOG = "paxos_rsm.paxos.log"
MEMBERSHIP = "paxos_rsm.paxos.membership"
NODE = "paxos_rsm.paxos.node"
REPLICA = "paxos_rsm.replica.replica"
SEGMENTS = "paxos_rsm.storage.segments"
SESSIONS = "paxos_rsm.machines.sessions"
STORE = "paxos_rsm.storage.snapshots"

SNAPSHOTS = (
    Mutant(
        name="log-compacted-beyond-the-snapshot",
        module=REPLICA,
        old="        self._compact_to = self._compact_through(slot)",
        new="        self._compact_to = self.node.log.released_through",
        rule="rule 7",
        why="slots that were applied while the snapshot was being written are forgotten, and are not in it",
    ),
    Mutant(
        name="segment-dropped-with-slots-above",
        module=SEGMENTS,
        old="        while dropped < len(self._contents) - 1 and self._contents[dropped].newest_slot <= through:",
        new="        while dropped < len(self._contents) - 1:",
        rule="rule 7",
        why="a segment goes that holds slots above those that are in the snapshot",
    ),
    Mutant(
        name="snapshot-not-synced",
        module=STORE,
        old="            self._flush()\n            file.fdatasync()\n",
        new="            self._flush()\n",
        rule="rule 7",
        why="a snapshot gets its name, and the log is dropped for it, before it is durable",
    ),
    Mutant(
        name="snapshot-name-not-synced",
        module=STORE,
        old="""
        self._files.rename(temporary, path)
        self._files.sync_directory(self._directory)
""",
        new="""
        self._files.rename(temporary, path)
""",
        rule="rule 7",
        why="the log is dropped for a snapshot whose name is lost when the power fails",
    ),
    Mutant(
        name="newest-snapshot-pruned",
        module=STORE,
        old="""
            self._files.remove(self._infos[0].path)
            del self._infos[0]
""",
        new="""
            self._files.remove(self._infos[-1].path)
            del self._infos[-1]
""",
        rule="rule 7",
        why="of three snapshots the newest goes, and the log was dropped for it",
    ),
    Mutant(
        name="sessions-not-in-the-snapshot",
        module=SESSIONS,
        old="        view = SessionsView(self._views_made, list(self._sessions.items()))",
        new="        view = SessionsView(self._views_made, [])",
        rule="rule 11",
        why="a state that comes from a snapshot does not know what was executed: the table of sessions is missing",
    ),
    Mutant(
        name="snapshot-shows-later-slots",
        module=SESSIONS,
        old="            if view.number > session.seen and view.sessions:",
        new="            if view.number > session.seen + (1 << 40) and view.sessions:",
        rule="rule 7",
        why="what is applied while a snapshot is being written changes the sessions in it",
    ),
    Mutant(
        name="restored-state-one-slot-old",
        module=SESSIONS,
        old="""
        self._sessions = sessions
        self._applied_slot = applied_slot
""",
        new="""
        self._sessions = sessions
        self._applied_slot = max(self._applied_slot, applied_slot - 1)
""",
        rule="rule 7",
        why="a restored state applies the last slot that is in it once more",
    ),
    Mutant(
        name="install-lowers-the-promise",
        module=NODE,
        old="""
        self._core.configurations.install(base)
        self.learner.installed(base.slot)
        self.proposer
""",
        new="""
        self._core.configurations.install(base)
        self.acceptor.promised = NO_BALLOT
        self.learner.installed(base.slot)
        self.proposer
""",
        rule="rule 3",
        why="whoever takes a snapshot takes it for a new beginning, and promises anew",
    ),
    Mutant(
        name="install-drops-votes-above",
        module=LOG,
        old="        for below in [s for s in self.slots if s <= slot]:",
        new="        for below in [s for s in self.slots if s <= slot or s in self.undecided]:",
        rule="rule 7",
        why="votes above a snapshot that is installed are forgotten in memory, and left out of promises",
    ),
    Mutant(
        name="install-takes-no-configuration",
        module=MEMBERSHIP,
        old="        self._changes = [(base.changed_in, base.configuration), *later]",
        new="        self._changes = self._changes or [(base.changed_in, base.configuration)]",
        rule="rule 10",
        why="the configuration of a snapshot that is installed is left where the server knows an older one",
    ),
    Mutant(
        name="compacted-slots-covered",
        module=ACCEPTOR,
        old="        if first <= log.compacted_through:",
        new="        if first <= log.compacted_through < 0:",
        rule="rule 5",
        why="a promise says that nothing was accepted in slots that were forgotten",
    ),
    Mutant(
        name="forgotten-slot-voted-on-again",
        module=ACCEPTOR,
        old="        if message.slot <= log.compacted_through:",
        new="        if message.slot <= log.compacted_through < 0:",
        rule="rule 1",
        why="a slot that was decided and forgotten gets another vote, as if it were empty",
    ),
    Mutant(
        name="applied-while-the-state-is-replaced",
        module=CORE,
        old="        if log.released_through < log.decided_through and not log.held:",
        new="        if log.released_through < log.decided_through:",
        rule="rule 7",
        why="slots are applied to a state that is being replaced by a snapshot",
    ),
    Mutant(
        name="damaged-snapshot-believed",
        module=KEEPER,
        old="            for _ in slices:\n                pass\n",
        new="            del slices\n",
        rule="rule 7",
        why="a server starts from a snapshot that it has not read to the end, and that is damaged",
    ),
    Mutant(
        name="old-copy-not-noticed",
        module=HANDSHAKE,
        old="        if known is None or known.process == hello.process:",
        new="        if known is None or known.boot_count > 0:",
        rule="rule 9",
        why="a server that runs on an old copy of its directory is let in, and has forgotten what it voted since",
    ),
)
