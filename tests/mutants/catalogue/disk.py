"""The disk: what is written, what is read back, and whose it is. Rules 3, 4 and 9."""

from tests.mutants.mutant import Mutant

__all__ = ["DISK"]

BASE = "paxos_rsm.storage.base"
DIRECTORY = "paxos_rsm.storage.directory"
IDENTITY = "paxos_rsm.storage.identity"
RECOVERY = "paxos_rsm.storage.recovery"
SEGMENTS = "paxos_rsm.storage.segments"
HANDSHAKE = "paxos_rsm.transport.handshake"

DISK = (
    Mutant(
        name="sync-skipped-now-and-then",
        module=SEGMENTS,
        old="            self._open_file().fdatasync()\n            self._durable_through = last",
        new="""
            if last % 5:
                self._open_file().fdatasync()
            self._durable_through = last
""",
        rule="rule 4",
        why="every fifth sync or so is not done, and said to be",
    ),
    Mutant(
        name="last-record-not-replayed",
        module=RECOVERY,
        old="            self._recovered.apply(write)",
        new="""
            held, self._held = getattr(self, "_held", None), write
            if held is not None:
                self._recovered.apply(held)
""",
        rule="rule 9",
        why="recovery stops one record short",
    ),
    Mutant(
        name="replayed-vote-does-not-raise-promise",
        module=BASE,
        old="""
                self._raise_promise(ballot)
                held = self._check_entry(slot, entry)
""",
        new="""
                held = self._check_entry(slot, entry)
""",
        rule="rule 3",
        why="after a restart the promise is that of the last Prepare, though a vote in a higher ballot came after it",
    ),
    Mutant(
        name="replay-keeps-the-first-vote",
        module=BASE,
        old="                if slot > self.compacted_through and (held is None or held.ballot is not None):",
        new="                if slot > self.compacted_through and held is None:",
        rule="rule 3",
        why="of two votes in one slot, recovery keeps the older",
    ),
    Mutant(
        name="corruption-taken-for-a-torn-tail",
        module=RECOVERY,
        old="""
        number = self._next_number
        why = self._format.damage(data, at)
        if why is not None:
            raise damaged(path, at, number, why)
        for offset, record in self._format.later(data, at, number):
            if record.durable_through >= number:
""",
        new="""
        number = self._next_number
        for offset, record in self._format.later(data, at, number):
            if record.durable_through > 1 << 62:
""",
        rule="rule 9",
        why="the log ends in silence at a damaged record, and what was synced after it is forgotten",
    ),
    Mutant(
        name="wiped-disk-votes-again",
        module=DIRECTORY,
        old="            incarnation = draw_bits(63)",
        new="            incarnation = (member_id & (1 << 62) - 1) + 1",
        rule="rule 9",
        why="a directory that was wiped gets the incarnation that it had, and its votes count",
    ),
    Mutant(
        name="boot-count-not-raised",
        module=IDENTITY,
        old="            boot_count=self.boot_count + 1,",
        new="            boot_count=self.boot_count or 1,",
        rule="rule 9",
        why="a restarted server cannot be told from a copy of its directory, and its peers refuse it",
    ),
    Mutant(
        name="segment-name-not-synced",
        module=SEGMENTS,
        old="""
            self._files.rename(path + _TEMPORARY, path)
            self._files.sync_directory(self._directory)
""",
        new="""
            self._files.rename(path + _TEMPORARY, path)
""",
        rule="rule 4",
        why="a new segment, and every vote in it, is lost with its name when the power fails",
    ),
    Mutant(
        name="another-incarnation-not-noticed",
        module=HANDSHAKE,
        old="    if named is not None and named != theirs.member.incarnation:",
        new="    if named is not None and named == -1:",
        rule="rule 9",
        why="peers speak to a server whose directory was wiped as if it were the one that they knew",
    ),
)
