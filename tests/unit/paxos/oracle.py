"""What must hold in every world, whatever the schedule: the rules of docs/PROTOCOL.md as a spectator would check them.

The oracle sees what no server sees: every disk, every message that leaves, every entry applied. It shares no code with
the protocol, and keeps its own count of durable votes: an entry is *chosen* once a phase-2 quorum of the members that
govern its slot has held votes of one ballot for it on disk (slot 1: every member). Each method raises
:class:`Broken` with the rule that was broken.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from paxos_rsm.paxos.membership import Base, Configuration
from paxos_rsm.paxos.messages import Accept, Accepted, Decide, Envelope, Heartbeat, Message, Prepare, Promise
from paxos_rsm.paxos.ready import (
    Write,
    WriteAccepted,
    WriteCompacted,
    WriteDecided,
    WriteDecidedThrough,
    WritePromise,
)
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, ConfigChange, Entry, Slot


class Broken(AssertionError):
    """A rule does not hold."""


@dataclass
class Disk:
    """What one node has on disk, as recovery would find it. A vote without a ballot was learned as decided."""

    promised: Ballot = NO_BALLOT
    votes: dict[Slot, tuple[Ballot | None, Entry]] = field(default_factory=dict)
    decided_through: Slot = 0
    compacted_through: Slot = 0
    snapshot: tuple[Base, tuple[tuple[Slot, Entry], ...]] | None = None
    """The newest durable snapshot: its base, and all that had been applied by then."""

    def write(self, write: Write) -> None:
        """Makes one write durable. Raises Broken where anything goes down (rule 3) or a decision changes (rule 1)."""
        if isinstance(write, WritePromise):
            self._promise(write.ballot)
        elif isinstance(write, WriteAccepted):
            self._promise(write.ballot)
            held = self.votes.get(write.slot)
            if held is None or (held[0] is not None and self._may_replace(write.slot, held, write)):
                self.votes[write.slot] = write.ballot, write.entry
        elif isinstance(write, WriteDecided):
            held = self.votes.get(write.slot)
            if held is not None and held[1] != write.entry and (held[0] is None or self._marked(write.slot)):
                raise Broken(f"rule 1: slot {write.slot} was decided on disk and changes")
            self.votes[write.slot] = None, write.entry
        elif isinstance(write, WriteDecidedThrough):
            if write.slot < self.decided_through:
                raise Broken(f"the mark goes down from {self.decided_through} to {write.slot}")
            missing = [s for s in range(self.decided_through + 1, write.slot + 1) if s not in self.votes]
            if missing:
                raise Broken(f"a mark at {write.slot} over slots that the disk does not hold: {missing}")
            self.decided_through = write.slot
        elif isinstance(write, WriteCompacted):
            if self.snapshot is None or self.snapshot[0].slot < write.slot:
                raise Broken(f"slots up to {write.slot} are forgotten, and no durable snapshot holds them")
            self.compacted_through = max(self.compacted_through, write.slot)
            self.decided_through = max(self.decided_through, write.slot)
            self.votes = {slot: vote for slot, vote in self.votes.items() if slot > write.slot}

    def _marked(self, slot: Slot) -> bool:
        return slot <= self.decided_through

    def _promise(self, ballot: Ballot) -> None:
        if ballot < self.promised:
            raise Broken(f"rule 3: promise on disk goes from {self.promised} to {ballot}")
        self.promised = ballot

    def _may_replace(self, slot: Slot, held: tuple[Ballot | None, Entry], write: WriteAccepted) -> bool:
        ballot, entry = held
        if ballot is not None and write.ballot < ballot:
            raise Broken(f"rule 3: slot {slot} on disk goes from ballot {ballot} to {write.ballot}")
        if write.ballot == ballot and entry != write.entry:
            raise Broken(f"rule 2: two entries in slot {slot} of ballot {ballot}")
        if self._marked(slot) and entry != write.entry:
            raise Broken(f"rule 1: slot {slot} was decided on disk and changes")
        return True


class Oracle:
    """See the module's docstring.

    Slots are judged in their order: which configuration governs a slot is known once all below it are chosen (rule 10).
    A quorum that gathered for a leader which took another one to govern, because it had proposed something else where
    a change was chosen, is void: that leader cannot have counted it.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        """The founders."""
        self.chosen: dict[Slot, Entry] = {}
        self.changes: list[tuple[Slot, Configuration]] = []
        """The configurations that were chosen, each with its slot."""
        self._requests: set[int] = set()
        self._chosen_in: dict[Slot, Ballot] = {}
        self._decided_by: set[Ballot] = set()
        """Ballots in which an entry was chosen."""
        self.applied_through: Slot = 0
        """The highest slot that any server has ever applied: what a client may have seen."""
        self.ballots: dict[Ballot, tuple[int, int]] = {}
        """Who prepared a ballot: host and boot."""
        self._proposed: dict[tuple[Ballot, Slot], Entry] = {}
        self._last_change: dict[Ballot, Slot] = {}
        """The highest slot in which a ballot has proposed a change."""
        self._votes: defaultdict[Slot, defaultdict[Ballot, set[int]]]
        self._votes = defaultdict(lambda: defaultdict(set))
        self._promisers: defaultdict[Ballot, set[int]] = defaultdict(set)
        self._reads: dict[int, Slot] = {}
        self._named: dict[Ballot, Slot] = {}
        """The highest watermark that each ballot has named."""

    # ---- disks -----------------------------------------------------------------------------------------------

    def wrote(self, host: int, disk: Disk, write: Write) -> None:
        """A write has become durable."""
        marked = disk.decided_through
        disk.write(write)
        if isinstance(write, WriteAccepted):
            self._votes[write.slot][write.ballot].add(host)
            if self._proposed.setdefault((write.ballot, write.slot), write.entry) != write.entry:
                raise Broken(f"rule 2: two entries voted for in slot {write.slot} of ballot {write.ballot}")
            self._judge(write.slot, write.ballot)
        elif isinstance(write, WriteDecided):
            self._expect_chosen(host, write.slot, write.entry)
        elif isinstance(write, WriteDecidedThrough):
            for slot in range(marked + 1, write.slot + 1):
                self._expect_chosen(host, slot, disk.votes[slot][1])

    def governing(self, slot: Slot) -> Configuration:
        """The configuration that governs ``slot``, below which all are chosen."""
        for changed_in, configuration in reversed(self.changes):
            if changed_in < slot:
                return configuration
        return self.configuration

    def _judge(self, slot: Slot, ballot: Ballot) -> None:
        """Whether this vote makes its entry chosen, and others above it."""
        if slot > 1 and slot - 1 not in self.chosen:
            if 1 not in self.chosen and len(self._votes[slot][ballot]) >= self.configuration.quorum.phase2:
                raise Broken(f"rule 9: slot {slot} is chosen before the genesis entry")
            return
        if not self._is_quorum(slot, ballot):
            return
        self._choose(slot, ballot, self._proposed[ballot, slot])
        while slot + 1 not in self.chosen:
            slot += 1
            quorums = [b for b in sorted(self._votes[slot]) if self._is_quorum(slot, b)]
            if not quorums:
                return
            for other in quorums:
                self._choose(slot, other, self._proposed[other, slot])

    def _is_quorum(self, slot: Slot, ballot: Ballot) -> bool:
        voters = self._votes[slot][ballot]
        if slot == 1:
            return voters >= {m.incarnation for m in self.configuration.members}
        configuration = self.governing(slot)
        members = {m.incarnation for m in configuration.members if not m.learner}
        if len(voters & members) < configuration.quorum.phase2:
            return False
        return self._is_right(slot, ballot)

    def _is_right(self, slot: Slot, ballot: Ballot) -> bool:
        """Whether the leader of ``ballot`` takes that configuration to govern ``slot`` which does."""
        changes = [s for s, _ in self.changes if s < slot]
        return all(self._proposed.get((ballot, s), self.chosen[s]) == self.chosen[s] for s in changes)

    def _choose(self, slot: Slot, ballot: Ballot, entry: Entry) -> None:
        self._decided_by.add(ballot)
        if slot in self.chosen:
            if self.chosen[slot] != entry:
                raise Broken(f"rule 1: slot {slot} is chosen twice: {self.chosen[slot]} and {entry}")
            return
        if isinstance(entry, ConfigChange):
            if self.changes:
                self._succeeds(self.changes[-1][1], entry.configuration)
            self.changes.append((slot, entry.configuration))
        self.chosen[slot] = entry
        self._chosen_in[slot] = ballot
        for (other, at), proposed in self._proposed.items():
            if at == slot and other > ballot and proposed != entry:
                raise Broken(
                    f"rule 5: {other} proposed {proposed} in slot {slot}, and {ballot} chose {entry}"
                )

    def _succeeds(self, before: Configuration, after: Configuration) -> None:
        """A change changes one voter at most, and takes nobody's name for another (rules 9 and 10)."""
        voters = [{m.incarnation for m in c.members if not m.learner} for c in (before, after)]
        if len(voters[0] ^ voters[1]) > 1:
            raise Broken(f"rule 10: from {voters[0]} to {voters[1]} in one change")
        sizes = after.quorum
        if sizes.phase1 + sizes.phase2 <= len(voters[1]) or max(sizes.phase1, sizes.phase2) > len(voters[1]):
            raise Broken(f"rule 10: quorums {sizes} among {voters[1]}")
        were = {m.member_id: m.incarnation for m in before.members if m.incarnation}
        now = {m.member_id: m.incarnation for m in after.members if m.incarnation}
        if any(now.get(member_id, node) != node for member_id, node in were.items()):
            raise Broken(f"rule 9: a member is another process: {were} becomes {now}")
        gone = set(were.values()) - set(now.values())
        if not gone | set(before.removed) == set(after.removed) or set(now.values()) & set(after.removed):
            raise Broken(f"rule 9: {gone} were removed, and {after.removed} are said to be")
        if after.changes[:-1] != (before.changes + after.changes[-1:])[-len(after.changes) : -1]:
            raise Broken(
                f"rule 10: {after.changes} was not made of {before.changes}, which is the one before"
            )
        if after.changes[-1] in self._requests:
            raise Broken(f"rule 11: the request {after.changes[-1]} is carried out again")
        self._requests.add(after.changes[-1])

    def _expect_chosen(self, host: int, slot: Slot, entry: Entry) -> None:
        if slot not in self.chosen:
            raise Broken(f"host {host} takes slot {slot} as decided, and no quorum has it on disk")
        if self.chosen[slot] != entry:
            raise Broken(
                f"rule 1: host {host} takes {entry} as decided in slot {slot}, not {self.chosen[slot]}"
            )

    # ---- applying and reading --------------------------------------------------------------------------------

    def applied(self, host: int, before: Slot, slot: Slot, entry: Entry) -> None:
        """A host is told to apply ``slot`` after ``before``."""
        if slot != before + 1:
            raise Broken(f"rule 7: host {host} was told to apply {slot} after {before}")
        self._expect_chosen(host, slot, entry)
        self.applied_through = max(self.applied_through, slot)

    def read_asked(self, read_id: int) -> None:
        """A client asks for a linearizable read now."""
        self._reads[read_id] = self.applied_through

    def read_granted(self, host: int, read_id: int, index: Slot) -> None:
        """The read may be served from a state at ``index`` (rule 8)."""
        if index < self._reads[read_id]:
            raise Broken(
                f"rule 8: host {host} may serve read {read_id} at {index}; when it was asked, {self._reads[read_id]} "
                "had been applied somewhere"
            )

    # ---- messages --------------------------------------------------------------------------------------------

    def says(self, host: int, boot: int, disk: Disk, envelopes: Iterable[Envelope]) -> None:
        """Messages leave a host: what they claim must be on its disk (rule 4), and its ballots its own (rule 2)."""
        for envelope in envelopes:
            message = envelope.message
            if isinstance(message, Prepare):
                self._prepares(host, boot, disk, message)
            elif isinstance(message, Promise):
                self._promises(host, disk, message)
            elif isinstance(message, Accepted):
                self._accepts(host, disk, message)
            elif isinstance(message, Accept):
                self._proposes(host, boot, message)
                self._watermark(message.ballot, message.decided_through)
            elif isinstance(message, Decide) or (isinstance(message, Heartbeat) and message.leading):
                self._owns(host, boot, message.ballot)
                self._watermark(message.ballot, message.decided_through)

    def arrives(self, sender: int, message: Message) -> None:
        """A message comes to a host, perhaps one that was made by hand and that nobody has said."""
        if isinstance(message, Promise):
            self._promisers[message.ballot].add(sender)

    def _owns(self, host: int, boot: int, ballot: Ballot) -> None:
        if ballot.node != host:
            raise Broken(f"rule 2: host {host} uses ballot {ballot} of another")
        if self.ballots.setdefault(ballot, (host, boot)) != (host, boot):
            raise Broken(f"rule 2: host {host} uses ballot {ballot} again after a restart")

    def _prepares(self, host: int, boot: int, disk: Disk, message: Prepare) -> None:
        self._owns(host, boot, message.ballot)
        if disk.promised < message.ballot:
            raise Broken(
                f"rule 4: host {host} prepares {message.ballot} with {disk.promised} promised on disk"
            )

    def _promises(self, host: int, disk: Disk, message: Promise) -> None:
        if disk.promised < message.ballot:
            raise Broken(f"rule 4: host {host} says it promised {message.ballot}, its disk {disk.promised}")
        self._promisers[message.ballot].add(host)
        for slot, ballot, _ in message.accepted:
            # The vote may have been replaced since, by what the same turn learned to be decided.
            if host not in self._votes[slot][ballot]:
                raise Broken(f"rule 4: host {host} reports a vote in slot {slot} that was never on its disk")
        for slot, entry in message.decided:
            self._expect_chosen(host, slot, entry)

    def _accepts(self, host: int, disk: Disk, message: Accepted) -> None:
        if disk.promised < message.ballot:
            raise Broken(f"rule 4: host {host} voted in {message.ballot}, its disk promised {disk.promised}")
        for slot in message.slots:
            if host in self._votes[slot][message.ballot]:
                continue
            # A slot known on disk to be decided is voted for without being written again.
            ballot, entry = disk.votes.get(slot, (NO_BALLOT, None))
            proposed = self._proposed.get((message.ballot, slot), entry)
            if entry != proposed or not (ballot is None or slot <= disk.decided_through):
                raise Broken(f"rule 4: host {host} says it voted in slot {slot}, its disk does not")
            self._votes[slot][message.ballot].add(host)
            self._judge(slot, message.ballot)

    def _proposes(self, host: int, boot: int, message: Accept) -> None:
        ballot, slot = message.ballot, message.slot
        self._owns(host, boot, ballot)
        self._keeps_order(ballot, slot, message.entry)
        if self._proposed.setdefault((ballot, slot), message.entry) != message.entry:
            raise Broken(f"rule 2: two entries proposed in slot {slot} of ballot {ballot}")
        if slot > 1 and 1 not in self.chosen:
            raise Broken(f"rule 9: slot {slot} is proposed before the genesis entry is chosen")
        if slot in self.chosen and ballot > self._chosen_in[slot] and message.entry != self.chosen[slot]:
            raise Broken(
                f"rule 5: {ballot} proposes {message.entry} in slot {slot}, {self.chosen[slot]} is chosen"
            )

    def _keeps_order(self, ballot: Ballot, slot: Slot, entry: Entry) -> None:
        """Rule 10: a change goes alone, and a new one after an entry of its own ballot."""
        last = self._last_change.get(ballot, 0)
        if last < slot and last > 0 and last not in self.chosen:
            raise Broken(
                f"rule 10: {ballot} proposes slot {slot} beyond a change in {last} that is not chosen"
            )
        if slot > 1 and slot - 1 in self.chosen and self._is_right(slot, ballot):
            governs = self.governing(slot)
            members = {m.incarnation for m in governs.members if not m.learner}
            if len(self._promisers[ballot] & members) < governs.quorum.phase1:
                raise Broken(f"rule 10: {ballot} proposes slot {slot} without a quorum of {members}")
        if slot == 1 or not isinstance(entry, ConfigChange):
            return
        self._last_change[ballot] = max(last, slot)
        if slot - 1 not in self.chosen:
            raise Broken(f"rule 10: {ballot} proposes a change in slot {slot}, {slot - 1} is not chosen")
        is_new = all(at != slot or b >= ballot or e != entry for (b, at), e in self._proposed.items())
        if is_new and ballot not in self._decided_by:
            raise Broken(f"rule 10: {ballot} proposes a change in slot {slot} and has decided nothing")

    def _watermark(self, ballot: Ballot, through: Slot) -> None:
        """Rule 6: every slot is decided, and those that the ballot proposed with what it proposed."""
        for slot in range(self._named.get(ballot, 0) + 1, through + 1):
            if slot not in self.chosen:
                raise Broken(
                    f"rule 6: the watermark {through} of {ballot} names slot {slot}, which is not chosen"
                )
            if self._proposed.get((ballot, slot), self.chosen[slot]) != self.chosen[slot]:
                raise Broken(f"rule 6: the watermark {through} of {ballot} names slot {slot}, which it lost")
        self._named[ballot] = max(self._named.get(ballot, 0), through)
