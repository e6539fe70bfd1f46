"""States that are not made of the log alone, or no more: of a restored cluster, wrong ones, and those that are gone."""

from tests.mutants.mutant import Mutant

__all__ = ["STATES"]

COMPARISON = "paxos_rsm.replica.comparison"
DIRECTORY = "paxos_rsm.storage.directory"
LEARNER = "paxos_rsm.paxos.learner"
NODE = "paxos_rsm.paxos.node"
REPLICA = "paxos_rsm.replica.replica"
TRANSFER = "paxos_rsm.replica.transfer"

STATES = (
    Mutant(
        name="restored-joiner-given-the-log",
        module=LEARNER,
        old="        if self._core.restored and message.first == 1 and self._lacks_the_beginning(sender):",
        new="        if self._core.restored and message.first < 1 and self._lacks_the_beginning(sender):",
        rule="rule 7",
        why="who joins a cluster that was founded on a backup is given its log from slot 1, and not what lies before",
    ),
    Mutant(
        name="restored-state-put-in-once-only",
        module=DIRECTORY,
        old="        if not self.identity.restored_from or self.recovered.compacted_through:",
        new="        if not self.identity.restored_from or not self.recovered.is_empty:",
        rule="rule 7",
        why="a server that was founded on a backup and is started again goes on from its log alone",
    ),
    Mutant(
        name="state-gone-taken-for-an-empty-one",
        module=NODE,
        old="""
            log.start(compacted_through, compacted_through)
            log.held = True
""",
        new="""
            log.start(compacted_through, compacted_through)
""",
        rule="rule 7",
        why="where the log starts later than any snapshot, what is left of it is applied to nothing",
    ),
    Mutant(
        name="majority-blamed",
        module=COMPARISON,
        old="""
                if digest != mine:
                    return self._difference(Verdict.MINORITY, [n for n in said if said[n] == digest])
""",
        new="""
                if digest == mine and set(said.values()) != {mine}:
                    return self._difference(Verdict.MINORITY, [n for n in said if said[n] != mine])
""",
        rule="rule 7",
        why="of states that differ, those of the majority are taken for wrong and are rebuilt from the other",
    ),
    Mutant(
        name="wrong-state-goes-on",
        module=REPLICA,
        old="""
            self.node.hold(True)
            self.transfer.drop()
""",
        new="""
            self.transfer.drop()
""",
        rule="rule 7",
        why="a server that knows its state to be wrong goes on applying slots to it until it has another",
    ),
    Mutant(
        name="wrong-state-is-read",
        module=REPLICA,
        old="        if self._granted and not self.node.log.held:",
        new="        if self._granted:",
        rule="rule 8",
        why="a server that knows its state to be wrong, or to be missing, answers reads from it",
    ),
    Mutant(
        name="rebuilt-beside-its-old-snapshots",
        module=TRANSFER,
        old="        self._tasks.append(DropSnapshots())\n",
        new="",
        rule="rule 7",
        why="the snapshots of a state that was wrong are kept, for the next start or the next peer that needs one",
    ),
)
