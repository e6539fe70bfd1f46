"""The oracle: sees every disk and every message, and says when one of the rules of the protocol is broken.

Nothing that it knows is known to any server. An entry is *chosen* once a phase-2 quorum of those that govern its slot
has it on disk, in one ballot (slot 1: every initial member); the oracle sees that the moment it happens, before any
server can know. From then on nobody may propose, report, apply or name anything else in that slot. It keeps its own
picture of every disk from the writes that went there, apart from what the log's own recovery makes of it.

Slots are judged in their order, for which configuration governs a slot is known once all below it are chosen. A quorum
that has gathered for a leader which took another one to govern, because it had proposed something else where a change
was chosen, is void: that leader cannot have counted it (paxos/changes.py).

The rules are those of docs/PROTOCOL.md; what state machines and sessions make of the log is for
:mod:`paxos_rsm.sim.executions`. Every check costs the same however long the log is.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

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
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, ConfigChange, Entry, NodeId, Slot
from paxos_rsm.sim.failure import Broken
from paxos_rsm.sim.marks import Flaws
from paxos_rsm.storage.base import Recovered

__all__ = ["DiskModel", "Oracle"]


class DiskModel:
    """What one incarnation has on disk, as far as the writes that went there tell.

    ``unsynced`` are the writes handed to the log since its last sync, in order: after a loss of power any prefix of
    them may have survived, and nothing else.
    """

    __slots__ = ("compacted_through", "decided_through", "host", "promised", "unsynced", "votes")

    def __init__(self, host: NodeId) -> None:
        self.host = host
        self.promised = NO_BALLOT
        self.votes: dict[Slot, tuple[Ballot | None, Entry]] = {}
        """A vote without a ballot was learned as decided."""
        self.decided_through: Slot = 0
        self.compacted_through: Slot = 0
        """What lies up to there is in a snapshot, and forgotten."""
        self.unsynced: list[Write] = []

    def clone(self) -> "DiskModel":
        """The same disk once more."""
        other = DiskModel(self.host)
        other.promised, other.votes = self.promised, dict(self.votes)
        other.decided_through, other.compacted_through = self.decided_through, self.compacted_through
        other.unsynced = list(self.unsynced)
        return other

    def write(self, write: Write) -> None:
        """Makes one write durable. Raises Broken where anything goes down (rule 3) or a decision changes (rule 1)."""
        kind = type(write)
        if kind is WriteAccepted:
            self._accept(write)  # type: ignore[arg-type]
        elif kind is WritePromise:
            self._promise(write.ballot)  # type: ignore[union-attr]
        elif kind is WriteDecided:
            slot, entry = write.slot, write.entry  # type: ignore[union-attr]
            self._expect_kept(slot)
            held = self.votes.get(slot)
            if held is not None and held[1] != entry and (held[0] is None or slot <= self.decided_through):
                raise Broken("1", f"slot {slot} was decided on the disk of {self.host:x} and changes")
            self.votes[slot] = None, entry
        elif kind is WriteDecidedThrough:
            self._mark(write.slot)  # type: ignore[union-attr]
        elif kind is WriteCompacted:
            self._forget(write.slot)  # type: ignore[union-attr]

    def _expect_kept(self, slot: Slot) -> None:
        if slot <= self.compacted_through:
            raise Broken(
                "7",
                f"the disk of {self.host:x} gets an entry for slot {slot}, and has forgotten all up to "
                f"{self.compacted_through}",
            )

    def _forget(self, through: Slot) -> None:
        if through < self.compacted_through:
            raise Broken(
                "7",
                f"the log of {self.host:x} starts above {self.compacted_through}, and then above {through}",
            )
        self.compacted_through = through
        self.decided_through = max(self.decided_through, through)
        self.votes = {slot: vote for slot, vote in self.votes.items() if slot > through}

    def _promise(self, ballot: Ballot) -> None:
        if ballot < self.promised:
            raise Broken(
                "3", f"the promise on the disk of {self.host:x} goes from {self.promised} to {ballot}"
            )
        self.promised = ballot

    def _accept(self, write: WriteAccepted) -> None:
        self._promise(write.ballot)
        self._expect_kept(write.slot)
        held = self.votes.get(write.slot)
        if held is not None:
            ballot, entry = held
            if ballot is None:
                return
            where = f"slot {write.slot} on the disk of {self.host:x}"
            if write.ballot < ballot:
                raise Broken("3", f"{where} goes from ballot {ballot} to {write.ballot}")
            if entry != write.entry and write.ballot == ballot:
                raise Broken("2", f"{where} gets a second entry in ballot {ballot}")
            if entry != write.entry and write.slot <= self.decided_through:
                raise Broken("1", f"{where} was decided and changes")
        self.votes[write.slot] = write.ballot, write.entry

    def _mark(self, through: Slot) -> None:
        if through < self.decided_through:
            raise Broken(
                "3", f"the mark on the disk of {self.host:x} goes from {self.decided_through} to {through}"
            )
        missing = [slot for slot in range(self.decided_through + 1, through + 1) if slot not in self.votes]
        if missing:
            raise Broken(
                "7", f"the disk of {self.host:x} marks {through} and does not hold slot {missing[0]}"
            )
        self.decided_through = through

    def is_what(self, recovered: Recovered) -> bool:
        """Whether the log's own recovery found just this; what it cannot read any more, it must say."""
        return (
            self.promised == recovered.promised
            and self.decided_through == recovered.decided_through
            and self.compacted_through == recovered.compacted_through
            and (
                self.votes == recovered.slots
                if not recovered.unreadable
                else self._are_left(self.votes, recovered)
            )
        )

    def _are_left(self, votes: Mapping[Slot, tuple[Ballot | None, Entry]], recovered: Recovered) -> bool:
        """Whether all but the unreadable slots are there. What was known to be decided may be told by an older vote."""
        left = {slot: vote for slot, vote in votes.items() if slot not in recovered.unreadable}
        return left.keys() == recovered.slots.keys() and all(
            vote == recovered.slots[slot]
            or (slot <= self.decided_through and vote[1] == recovered.slots[slot].entry)
            for slot, vote in left.items()
        )

    def is_brought_up_to(self, recovered: Recovered) -> bool:
        """Whether a start found just this and a snapshot beyond it, through which it has compacted the log."""
        through = recovered.compacted_through
        return (
            self.promised == recovered.promised
            and self.decided_through < through == recovered.decided_through
            and self._are_left({s: v for s, v in self.votes.items() if s > through}, recovered)
        )


class _Change(NamedTuple):
    """A configuration that was chosen, in ``slot``: who counts from the next slot on, and how many decide."""

    slot: Slot
    configuration: Configuration
    voters: frozenset[NodeId]
    phase2: int


class _Votes(NamedTuple):
    """Whose disks have held a vote of one ballot in one slot."""

    entry: Entry
    voters: set[NodeId]


class Oracle:
    """See the module's docstring."""

    def __init__(self) -> None:
        self.flaws = Flaws()
        self.changes: list[_Change] = []
        """The configurations that were chosen, the genesis entry's first."""
        self._requests: set[int] = set()
        self.chosen: dict[Slot, Entry] = {}
        self.chosen_through: Slot = 0
        self.applied_through: Slot = 0
        """The highest slot that any server has ever applied: what a client may have seen."""
        self.ballots: dict[Ballot, tuple[NodeId, int]] = {}
        """Who has used a ballot: incarnation and boot."""
        self._chosen_in: dict[Slot, Ballot] = {}
        self._proposed: dict[Slot, dict[Ballot, Entry]] = defaultdict(dict)
        self._votes: defaultdict[Slot, dict[Ballot, _Votes]] = defaultdict(dict)
        self._named: defaultdict[Ballot, Slot] = defaultdict(int)
        """The highest watermark that each ballot has named."""
        self._checks: dict[type, Callable[[NodeId, int, DiskModel, Any], None]] = {
            Prepare: self._prepares,
            Promise: self._promises,
            Accept: self._proposes,
            Accepted: self._accepts,
            Decide: self._leads,
            Heartbeat: self._beats,
        }

    # ---- disks -----------------------------------------------------------------------------------------------

    def synced(self, disk: DiskModel, count: int | None = None) -> None:
        """Everything that was written to a disk is durable, or the first ``count`` of what was not."""
        count = len(disk.unsynced) if count is None else count
        writes, disk.unsynced = disk.unsynced[:count], disk.unsynced[count:]
        for write in writes:
            self._durable(disk, write)

    def recovered(self, disk: DiskModel, found: Recovered) -> int:
        """A log was read back: it must hold all that was synced, and of what was not a prefix.

        Returns how many unsynced writes were lost.
        """
        writes, disk.unsynced = disk.unsynced, []
        for at in range(len(writes) + 1):
            if disk.is_what(found):
                return len(writes) - at
            if disk.is_brought_up_to(found):
                self._durable(disk, WriteCompacted(found.compacted_through))
                return len(writes) - at
            if at < len(writes):
                self._durable(disk, writes[at])
        raise Broken(
            "4",
            f"the log of {disk.host:x} came back with promise {found.promised}, {len(found.slots)} slots, decided "
            f"through {found.decided_through}: not what was synced and some of what was written after it (which, all "
            f"together, is {disk.promised}, {len(disk.votes)}, {disk.decided_through})",
        )

    def _durable(self, disk: DiskModel, write: Write) -> None:
        marked = disk.decided_through
        disk.write(write)
        kind = type(write)
        if kind is WriteAccepted:
            self._votes_for(disk.host, write)  # type: ignore[arg-type]
        elif kind is WriteDecided:
            self._expect_chosen(disk.host, write.slot, write.entry)  # type: ignore[union-attr]
        elif kind is WriteDecidedThrough:
            for slot in range(marked + 1, write.slot + 1):  # type: ignore[union-attr]
                self._expect_chosen(disk.host, slot, disk.votes[slot][1])
        elif kind is WriteCompacted and write.slot > self.chosen_through:  # type: ignore[union-attr]
            raise Broken(
                "7",
                f"{disk.host:x} forgets slots up to {write.slot}, and {self.chosen_through} are chosen",  # type: ignore[union-attr]
            )

    @property
    def configuration(self) -> Configuration | None:
        """The newest that was chosen; None before the genesis entry is."""
        return self.changes[-1].configuration if self.changes else None

    def counting(self, decided_through: Slot) -> list[Configuration]:
        """The configurations that count where slots up to there are known to be decided, and no more.

        Those that govern what was chosen beyond, and those that were proposed since and may yet be chosen.
        """
        governing = self.governing(decided_through + 1)
        changes = [change.configuration for change in self.changes if change.slot > decided_through]
        proposed = [
            entry.configuration
            for slot, entries in self._proposed.items()
            if slot > self.chosen_through
            for entry in entries.values()
            if type(entry) is ConfigChange
        ]
        return [*([governing.configuration] if governing is not None else []), *changes, *proposed]

    def _votes_for(self, host: NodeId, write: WriteAccepted) -> None:
        """A vote is durable: perhaps it makes its entry chosen, and others above it."""
        slot, ballot = write.slot, write.ballot
        votes = self._votes[slot].get(ballot)
        if votes is None:
            votes = self._votes[slot][ballot] = _Votes(write.entry, set())
        elif votes.entry is not write.entry and votes.entry != write.entry:
            raise Broken("2", f"two entries are voted for in slot {slot} of ballot {ballot}")
        votes.voters.add(host)
        if slot <= self.chosen_through:
            chosen = self.chosen[slot]
            if chosen is not write.entry and chosen != write.entry and self._is_quorum(slot, ballot):
                raise Broken("1", f"slot {slot} is chosen twice: {_said(chosen)} and {_said(write.entry)}")
            return
        if slot > self.chosen_through + 1 or not self._is_quorum(slot, ballot):
            return
        self._choose(slot, ballot, write.entry)
        while (slot := self.chosen_through + 1) in self._votes:
            quorums = [b for b in sorted(self._votes[slot]) if self._is_quorum(slot, b)]
            if not quorums:
                return
            self._choose(slot, quorums[0], self._votes[slot][quorums[0]].entry)
            for other in quorums[1:]:
                if self._votes[slot][other].entry != self.chosen[slot]:
                    raise Broken("1", f"slot {slot} is chosen twice, by {quorums[0]} and {other}")

    def _is_quorum(self, slot: Slot, ballot: Ballot) -> bool:
        entry, voters = self._votes[slot][ballot]
        if slot == 1:
            return type(entry) is ConfigChange and voters >= {
                member.incarnation for member in entry.configuration.members
            }
        governing = self.governing(slot)
        if governing is None or len(voters & governing.voters) < governing.phase2:
            return False
        return all(
            self._proposed[change.slot].get(ballot, self.chosen[change.slot]) == self.chosen[change.slot]
            for change in self.changes[1:]
            if change.slot < slot
        )

    def governing(self, slot: Slot) -> _Change | None:
        """What governs a slot below which all are chosen."""
        return next((change for change in reversed(self.changes) if change.slot < slot), None)

    def _choose(self, slot: Slot, ballot: Ballot, entry: Entry) -> None:
        self.chosen[slot] = entry
        self._chosen_in[slot] = ballot
        self.chosen_through = slot
        if type(entry) is ConfigChange:
            self._changes_to(slot, entry.configuration)
        for other, proposed in self._proposed[slot].items():
            if other > ballot and proposed != entry:
                raise Broken(
                    "5", f"{other} proposed {_said(proposed)} in slot {slot}, {ballot} chose {_said(entry)}"
                )

    def _changes_to(self, slot: Slot, after: Configuration) -> None:
        """A change changes one voter at most, and makes nobody another, nor a member again (rules 9 and 10)."""
        voters = frozenset(m.incarnation for m in after.members if not m.learner)
        sizes = after.quorum
        if sizes.phase1 + sizes.phase2 <= len(voters) or max(sizes.phase1, sizes.phase2) > len(voters):
            raise Broken("10", f"slot {slot} makes {sizes} the quorums of {len(voters)} voters")
        if self.changes:
            before = self.changes[-1]
            if len(before.voters ^ voters) > 1:
                raise Broken("10", f"slot {slot} changes {len(before.voters ^ voters)} voters in one change")
            were = {m.member_id: m.incarnation for m in before.configuration.members if m.incarnation}
            now = {m.member_id: m.incarnation for m in after.members if m.incarnation}
            if any(now.get(member_id, node) != node for member_id, node in were.items()):
                raise Broken("9", f"slot {slot} makes another process of a member: {were} becomes {now}")
            gone = set(were.values()) - set(now.values())
            if gone | set(before.configuration.removed) != set(after.removed):
                raise Broken("9", f"slot {slot} removes {gone}, and says that {after.removed} are removed")
            if set(now.values()) & set(after.removed):
                raise Broken("9", f"slot {slot} makes members of some that were removed")
            if after.changes[-1] in self._requests:
                raise Broken("11", f"slot {slot} carries out the request {after.changes[-1]:x} again")
            self._requests.add(after.changes[-1])
        self.changes.append(_Change(slot, after, voters, sizes.phase2))

    def _expect_chosen(self, host: NodeId, slot: Slot, entry: Entry) -> None:
        chosen = self.chosen.get(slot)
        if chosen is None:
            raise Broken("1", f"{host:x} takes slot {slot} as decided, and no quorum has it on disk")
        if chosen is not entry and chosen != entry:
            raise Broken("1", f"{host:x} takes {_said(entry)} as decided in slot {slot}, not {_said(chosen)}")

    # ---- applying and reading --------------------------------------------------------------------------------

    def applies(self, host: NodeId, before: Slot, slot: Slot, entry: Entry) -> None:
        """A server is about to apply ``slot`` after ``before``."""
        if slot != before + 1:
            raise Broken("7", f"{host:x} was told to apply slot {slot} after {before}")
        self._expect_chosen(host, slot, entry)
        if slot > self.applied_through:
            self.applied_through = slot

    def stands_for(self, host: NodeId, base: Base, applied: Slot) -> None:
        """The state of a server is that of ``base``: it goes into a snapshot, or has come from one."""
        if base.slot != applied or base.slot > self.applied_through:
            raise Broken(
                "7",
                f"{host:x} has applied {applied} (anybody: {self.applied_through}); its snapshot: {base.slot}",
            )
        governing = self.governing(base.slot + 1)
        if governing is None or (base.changed_in, base.configuration) != governing[:2]:
            raise Broken(
                "10", f"the snapshot of slot {base.slot} at {host:x} names a configuration of its own"
            )

    def reads(self, host: NodeId, asked_at: Slot, applied: Slot) -> None:
        """A read is served at ``applied``; ``asked_at`` is what had been applied anywhere when it was asked."""
        if applied < asked_at:
            raise Broken(
                "8",
                f"{host:x} serves a read at slot {applied}, and {asked_at} had been applied when it was asked",
            )

    # ---- messages --------------------------------------------------------------------------------------------

    def says(self, host: NodeId, boot: int, disk: DiskModel, envelopes: Iterable[Envelope]) -> None:
        """Messages leave: what they claim must be on disk (rule 4), and their ballots the sender's own (rule 2)."""
        last: Message | None = None
        checks = self._checks
        for envelope in envelopes:
            message = envelope.message
            if message is last:
                continue  # the same to several peers
            last = message
            check = checks.get(type(message))
            if check is not None:
                check(host, boot, disk, message)

    def _owns(self, host: NodeId, boot: int, ballot: Ballot) -> None:
        if ballot.node != host:
            raise Broken("2", f"{host:x} uses ballot {ballot} of another")
        if self.ballots.setdefault(ballot, (host, boot)) != (host, boot):
            raise Broken("2", f"{host:x} uses ballot {ballot} again after a restart")

    def _prepares(self, host: NodeId, boot: int, disk: DiskModel, message: Prepare) -> None:
        self._owns(host, boot, message.ballot)
        if disk.promised < message.ballot:
            raise Broken("4", f"{host:x} prepares {message.ballot} with {disk.promised} promised on its disk")

    def _has_voted(self, host: NodeId, slot: Slot, ballot: Ballot) -> bool:
        votes = self._votes[slot].get(ballot)
        return votes is not None and host in votes.voters

    def _promises(self, host: NodeId, boot: int, disk: DiskModel, message: Promise) -> None:
        if disk.promised < message.ballot:
            raise Broken("4", f"{host:x} says that it promised {message.ballot}, its disk {disk.promised}")
        for slot, ballot, _ in message.accepted:
            # The vote may have been replaced since, by what the same turn learned to be decided.
            if not self._has_voted(host, slot, ballot):
                raise Broken("4", f"{host:x} reports a vote in slot {slot} that was never on its disk")
        for slot, entry in message.decided:
            self._expect_chosen(host, slot, entry)
        told = {slot for slot, _, _ in message.accepted}.union(slot for slot, _ in message.decided)
        for slot in range(max(message.first, message.compacted_through + 1), disk.compacted_through + 1):
            # What was forgotten since, while the promise waited for the disk, has been told.
            if (
                slot in told
                or slot in message.unreadable
                or (message.last is not None and slot > message.last)
            ):
                continue
            if any(b < message.ballot and host in votes.voters for b, votes in self._votes[slot].items()):
                raise Broken(
                    "5", f"{host:x} covers slot {slot} in its promise, and has forgotten its vote there"
                )
        for slot, (voted_in, _) in disk.votes.items():
            # Votes in this ballot and decisions may have come after the promise, while that waited for the disk.
            if slot < message.first or slot in told or voted_in is None or voted_in >= message.ballot:
                continue
            covered = slot > message.compacted_through and (message.last is None or slot <= message.last)
            if covered and slot not in message.unreadable:
                raise Broken("5", f"{host:x} covers slot {slot} in its promise and leaves out its vote there")

    def _accepts(self, host: NodeId, boot: int, disk: DiskModel, message: Accepted) -> None:
        if disk.promised < message.ballot:
            raise Broken("4", f"{host:x} voted in {message.ballot}, its disk has promised {disk.promised}")
        for slot in message.slots:
            if self._has_voted(host, slot, message.ballot):
                continue
            # A slot known on disk to be decided is voted for without being written again.
            ballot: Ballot | None
            ballot, entry = disk.votes.get(slot, (NO_BALLOT, None))
            if slot <= disk.compacted_through:
                ballot, entry = None, self.chosen[slot]
            proposed = self._proposed[slot].get(message.ballot, entry)
            if entry != proposed or not (ballot is None or slot <= disk.decided_through):
                raise Broken("4", f"{host:x} says that it voted in slot {slot}, its disk does not")

    def _proposes(self, host: NodeId, boot: int, disk: DiskModel, message: Accept) -> None:
        ballot, slot, entry = message.ballot, message.slot, message.entry
        self._owns(host, boot, ballot)
        earlier = self._proposed[slot].setdefault(ballot, entry)
        if earlier is not entry and earlier != entry:
            raise Broken("2", f"two entries are proposed in slot {slot} of ballot {ballot}")
        if slot > 1 and 1 not in self.chosen:
            raise Broken("9", f"slot {slot} is proposed before the genesis entry is chosen")
        chosen = self.chosen.get(slot)
        if chosen is not None and chosen is not entry and ballot > self._chosen_in[slot] and entry != chosen:
            raise Broken("5", f"{ballot} proposes {_said(entry)} in slot {slot}, {_said(chosen)} is chosen")
        self._watermark(ballot, message.decided_through)

    def _leads(self, host: NodeId, boot: int, disk: DiskModel, message: Decide) -> None:
        self._owns(host, boot, message.ballot)
        self._watermark(message.ballot, message.decided_through)

    def _beats(self, host: NodeId, boot: int, disk: DiskModel, message: Heartbeat) -> None:
        if message.leading:
            self._owns(host, boot, message.ballot)
            self._watermark(message.ballot, message.decided_through)
        elif message.decided_through > self.chosen_through:
            raise Broken(
                "6", f"{host:x} names {message.decided_through} decided; {self.chosen_through} are chosen"
            )

    def _watermark(self, ballot: Ballot, through: Slot) -> None:
        """Rule 6: every slot is decided, and those that the ballot proposed with what it proposed."""
        named = self._named[ballot]
        if through <= named:
            return
        for slot in range(named + 1, through + 1):
            chosen = self.chosen.get(slot)
            if chosen is None:
                raise Broken(
                    "6", f"the watermark {through} of {ballot} names slot {slot}, which is not chosen"
                )
            if self._proposed[slot].get(ballot, chosen) != chosen:
                raise Broken("6", f"the watermark {through} of {ballot} names slot {slot}, which it lost")
        self._named[ballot] = through


def _said(entry: Entry) -> str:
    """An entry, short enough for a sentence."""
    text = repr(entry)
    return text if len(text) <= 80 else f"{text[:77]}..."
