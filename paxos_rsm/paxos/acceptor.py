"""The acceptor: promises and votes (Lamport, *Paxos Made Simple*, section 2.2).

``promised`` is one ballot for the whole log (rule 3): a promise binds every slot, and a vote in a higher ballot
raises it. What the acceptor says about either leaves only after its write is durable (rule 4); that it refuses
may be said at once.
"""

from paxos_rsm.errors import InvariantViolation
from paxos_rsm.paxos.core import Core
from paxos_rsm.paxos.leases import Holds
from paxos_rsm.paxos.log import entry_bytes
from paxos_rsm.paxos.messages import Accept, CatchUpReply, Nack, Prepare, Promise
from paxos_rsm.paxos.ready import WriteAccepted, WritePromise
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Batch, Entry, NodeId, Slot, are_frames

__all__ = ["SLOTS_AHEAD_MAX", "Acceptor"]

SLOTS_AHEAD_MAX = 1 << 20
"""No leader proposes so far above its own watermark: its window keeps it near, but for slots that are late."""


class Acceptor:
    """Always holds: ``promised`` never goes down, and is at least the ballot of every vote."""

    def __init__(self, core: Core, promised: Ballot, hold_owed_us: int = 0) -> None:
        self._core = core
        self.promised = promised
        self.holds = Holds(core, hold_owed_us)

    def promise(self, ballot: Ballot) -> None:
        """Raises the promise and writes it. Raises InvariantViolation where it would go down."""
        if ballot < self.promised:
            raise InvariantViolation(f"promise of {ballot} after one of {self.promised} (rule 3)")
        if ballot > self.promised:
            self.promised = ballot
            self._core.out.write(WritePromise(ballot))

    def prepare(self, sender: NodeId, message: Prepare) -> bool:
        """Phase 1b. False where it was refused, or is not answered now."""
        if message.ballot < self.promised:
            self.refuse(sender, message.ballot)
            return False
        self.holds.given_up(message.given_up)
        if message.ballot > self.promised and self.holds.bind(sender):
            return (
                False  # A leader serves reads on this server's word: whoever stands asks again (leases.py).
            )
        self.promise(message.ballot)
        self._core.out.send_after_writes(sender, self._chunk(message))
        return True

    def accept(self, sender: NodeId, message: Accept) -> bool:
        """Phase 2b. False where it was refused."""
        ballot = message.ballot
        if ballot < self.promised:
            self.refuse(sender, ballot)
            return False
        log = self._core.log
        if message.slot <= log.compacted_through:
            # It is decided, and nobody here can tell with what: a leader that cannot decide it without this server has
            # to take it from a snapshot.
            reply = CatchUpReply(self.promised, (), log.decided_through, log.compacted_through)
            self._core.out.send(sender, reply)
            return False
        if self._is_absurd(sender, message):
            return False
        state = log.get(message.slot)
        if state is not None and state.decided and state.ballot == NO_BALLOT:
            if state.entry != message.entry:
                # Learned as decided, so in a ballot that this server never heard of: the sender was deposed by it.
                return False
            self.promise(ballot)
        else:
            self.promised = ballot
            if state is None or state.ballot != ballot:
                log.accept(message.slot, ballot, message.entry)
                self._core.out.write(WriteAccepted(message.slot, ballot, message.entry))
        self._core.out.accepted(sender, ballot, message.slot)
        return True

    def _is_absurd(self, sender: NodeId, message: Accept) -> bool:
        """Whether this is no proposal but a bug at its sender, which must not become a vote on this disk.

        A new leader would have to fill every slot up to the highest vote; and a batch that is none would stop every
        server when it is applied. How far a follower is behind does not matter: the leader says how far it is itself.
        """
        if message.slot > max(message.decided_through, self._core.log.decided_through) + SLOTS_AHEAD_MAX:
            return True
        entry = message.entry
        return type(entry) is Batch and sender != self._core.me and not are_frames(entry.data)

    def refuse(self, sender: NodeId, ballot: Ballot) -> None:
        """Says which ballot stands in the way."""
        self._core.out.send(sender, Nack(ballot, self.promised))

    def _chunk(self, message: Prepare) -> Promise:
        """What this server holds from ``message.first`` on, as much as fits one Promise."""
        log = self._core.log
        first = message.first
        if first <= log.compacted_through:
            return Promise(message.ballot, first, log.compacted_through, (), (), log.compacted_through)
        accepted: list[tuple[Slot, Ballot, Entry]] = []
        decided: list[tuple[Slot, Entry]] = []
        last: Slot | None = None
        size = 0
        for slot in log.from_slot(first):
            state = log.get(slot)
            if state is None:
                continue
            if size >= self._core.settings.chunk_bytes_max:
                last = slot - 1
                break
            size += entry_bytes(state.entry)
            if state.decided:
                decided.append((slot, state.entry))
            else:
                accepted.append((slot, state.ballot, state.entry))
        lost = sorted(s for s in log.unreadable if s >= first and (last is None or s <= last))
        return Promise(message.ballot, first, last, tuple(accepted), tuple(decided), unreadable=tuple(lost))
