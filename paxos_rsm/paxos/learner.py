"""The learner: who has accepted what, what is decided by it, and how a server that missed some comes to know it.

A leader learns by its own tally: a slot is decided once a phase-2 quorum of its configuration has accepted it in
the leader's ballot. Everybody else learns in one of two ways:

- from the leader's watermark. It *names slots, not values* (rule 6): a follower takes a slot at or below the
  watermark of ballot b as decided only where its own vote there is in b; every other it fetches;
- by catching up: it asks a peer for decided entries, one request at a time, the next when the last is answered. What
  is fetched is stored as decided, without a ballot. Where the peer's log starts later, its snapshot has to come first.

A cluster that was founded on a restored state has a log that does not say all: its first members have what comes
before slot 1, nobody else has. To all others they answer as if slot 1 were compacted.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from paxos_rsm.errors import InvariantViolation
from paxos_rsm.paxos.core import Core
from paxos_rsm.paxos.messages import Accepted, CatchUp, CatchUpReply
from paxos_rsm.paxos.ready import WriteCompacted, WriteDecided, WriteDecidedThrough
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, ConfigChange, Entry, NodeId, Slot

__all__ = ["Learner", "Tally"]


class Tally(Protocol):
    """A proposal in flight: who has accepted it, and whether they are enough."""

    acks: set[NodeId]
    decided: bool


class Learner:
    """See the module's docstring.

    Always holds: the watermark on disk is at most the one in memory, but while a slot below it cannot be read.
    """

    def __init__(self, core: Core, marked_through: Slot) -> None:
        self._core = core
        self._marked_through = marked_through
        self._watermark_ballot = NO_BALLOT
        self._watermark: Slot = 0
        self._asked_at: int | None = None
        self._asked_from: NodeId | None = None
        self._asked_first: Slot = 0

    # ---- the leader's tally ----------------------------------------------------------------------------------

    def tally(self, sender: NodeId, message: Accepted, in_flight: Mapping[Slot, Tally]) -> list[Slot]:
        """Counts a phase 2b of the leader's own ballot; gives the slots that it decided.

        They are decided in their order: which configuration governs a slot is known only when all below is decided
        (rule 10, see changes.py). What has its votes already waits for those.
        """
        counted = False
        for slot in message.slots:
            proposal = in_flight.get(slot)
            if proposal is None or proposal.decided:
                continue  # counted before, or named twice in this message
            proposal.acks.add(sender)
            configuration = self._core.configurations.governing(slot)
            if configuration is not None and configuration.is_phase2_quorum(proposal.acks):
                proposal.decided = counted = True
        return self._decide_in_order(in_flight) if counted else []

    def _decide_in_order(self, in_flight: Mapping[Slot, Tally]) -> list[Slot]:
        decided: list[Slot] = []
        log = self._core.log
        while (proposal := in_flight.get(log.decided_through + 1)) is not None and proposal.decided:
            decided.append(log.decided_through + 1)
            log.decide_vote(decided[-1])
            self.advance()
        return decided

    # ---- what others have decided ----------------------------------------------------------------------------

    def learn(self, slot: Slot, entry: Entry) -> None:
        """A decided entry, from a promise or by catching up."""
        if self._core.log.decide(slot, entry):
            self._core.out.write(WriteDecided(slot, entry))
            self.advance()

    def watermark(self, ballot: Ballot, through: Slot) -> bool:
        """The watermark of ``ballot``'s leader. True where it covers a slot that must be fetched (rule 6).

        Votes that come after the watermark are for :meth:`voted`.
        """
        log = self._core.log
        if ballot > self._watermark_ballot:
            self._watermark_ballot, self._watermark = ballot, 0
        if ballot == self._watermark_ballot and through > self._watermark:
            self._watermark = through
            for slot in [s for s in log.undecided if s <= through]:
                self._take(slot)
            self.advance()
        return log.decided_through < through

    def voted(self, slot: Slot, ballot: Ballot) -> None:
        """This server has voted in ``slot``: it may lie below a watermark of the same ballot that came before."""
        if ballot == self._watermark_ballot and slot <= self._watermark:
            self._take(slot)
            self.advance()

    def _take(self, slot: Slot) -> None:
        """Rule 6, its whole."""
        state = self._core.log.get(slot)
        if state is not None and not state.decided and state.ballot == self._watermark_ballot:
            self._core.log.decide_vote(slot)

    def advance(self) -> None:
        """Raises the contiguous watermark; a change of configuration takes effect as it passes."""
        log = self._core.log
        before = log.decided_through
        if not log.advance():
            return
        for slot in range(before + 1, log.decided_through + 1):
            entry = log.slots[slot].entry
            if type(entry) is ConfigChange:
                self._core.configurations.decided(slot, entry.configuration)

    def mark(self) -> None:
        """Writes the watermark, where it has moved. Nothing waits for it."""
        through = self._core.log.decided_through
        if through > self._marked_through:
            self._marked_through = through
            self._core.out.write(WriteDecidedThrough(through))

    # ---- catching up -----------------------------------------------------------------------------------------

    def ask(self, candidates: Iterable[tuple[NodeId, Slot]]) -> None:
        """Asks one of ``candidates`` (node, its watermark) for what is missing here; nothing while a request is out."""
        core = self._core
        if self._asked_at is not None:
            if core.now - self._asked_at < core.settings.retransmit_ticks:
                return
            self._asked_at = None
        first = core.log.decided_through + 1
        able = [(node, through) for node, through in candidates if through >= first]
        if not able:
            return
        # The one that did not answer last time is not the first choice now.
        node, through = next((c for c in able if c[0] != self._asked_from), able[0])
        self._asked_at, self._asked_from, self._asked_first = core.now, node, first
        core.out.send(node, CatchUp(first, through))

    def answer(self, sender: NodeId, message: CatchUp, promised: Ballot) -> None:
        """Sends decided entries, a chunk of them."""
        log = self._core.log
        if self._core.restored and message.first == 1 and self._lacks_the_beginning(sender):
            reply = CatchUpReply(promised, (), log.decided_through, max(1, log.compacted_through))
        else:
            entries = log.decided_from(message.first, message.last, self._core.settings.chunk_bytes_max)
            reply = CatchUpReply(promised, entries, log.decided_through, log.compacted_through)
        self._core.out.send(sender, reply)

    def _lacks_the_beginning(self, node: NodeId) -> bool:
        """Whether a node is none of the first members, where slot 1 is decided and still here."""
        genesis = self._core.log.get(1)
        return (
            genesis is not None
            and genesis.decided
            and type(genesis.entry) is ConfigChange
            and node not in genesis.entry.configuration.everybody
        )

    def caught(self, sender: NodeId, message: CatchUpReply) -> None:
        """Stores a chunk, and asks for the next where there is one.

        Only the answer to what was asked last leads to the next question: an answer that comes twice must not lead to
        two, each of which may be doubled again.
        """
        for slot, entry in message.entries:
            self.learn(slot, entry)
        self.compacted(sender, message.compacted_through)
        if sender != self._asked_from or (message.entries and message.entries[0][0] != self._asked_first):
            return
        self._asked_at = self._asked_from = None
        if message.entries:
            self.ask([(sender, message.decided_through)])

    def compacted(self, sender: NodeId, through: Slot) -> None:
        """A peer's log starts above ``through``: where that is beyond what is known here, a snapshot has to come."""
        if through > self._core.log.decided_through:
            self._core.out.fetch_snapshot(sender, self._core.log.decided_through + 1)

    def installed(self, slot: Slot) -> None:
        """A snapshot of ``slot`` is the state now, and the log on disk is to start above it."""
        self._core.out.write(WriteCompacted(slot))
        self._marked_through = max(self._marked_through, slot)
        self._asked_at = self._asked_from = None
        self.advance()

    def check(self) -> None:
        """Raises InvariantViolation where the type's invariants do not hold."""
        if self._marked_through > self._core.log.decided_through and not self._core.log.unreadable:
            raise InvariantViolation(
                f"the watermark on disk, {self._marked_through}, is above the one in memory, "
                f"{self._core.log.decided_through}"
            )
