"""The proposer: phase 1, the choice of values, and pipelined phase 2.

Phase 1 runs over every slot at once. The candidate pulls each acceptor's promise in chunks until one covers
everything above, and learns what is reported decided as it comes. It succeeds when a phase-1 quorum of the
configuration that governs the next undecided slot covers all from there on (rule 5): then every slot up to the
highest one seen is proposed again, with the value of the highest ballot reported or, where there is none, a no-op;
commands that wait come after.

Phase 2 keeps a window of undecided slots. What waits when the window has room goes into one entry, so that batches
grow with the load and a lone command never waits for company (see :meth:`Proposer._has_room`). An entry that changes
the configuration goes alone: after everything before it is decided, and with nothing beyond it until it is decided
itself (rule 10; changes.py has the argument).

Always holds: a proposer proposes in a ballot only after phase 1 of that ballot, and one entry a slot; once it has
given the ballot up it never proposes in it again (rule 2).
"""

import enum
from collections import deque
from collections.abc import Sequence

from paxos_rsm.errors import InvariantViolation
from paxos_rsm.paxos.acceptor import Acceptor
from paxos_rsm.paxos.core import Core
from paxos_rsm.paxos.learner import Learner
from paxos_rsm.paxos.membership import Configuration
from paxos_rsm.paxos.messages import Accept, Decide, Prepare, Promise
from paxos_rsm.paxos.types import (
    NO_BALLOT,
    Ballot,
    Batch,
    ConfigChange,
    Entry,
    NodeId,
    Noop,
    Slot,
    join_frames,
)

__all__ = ["HOLES_MAX", "Phase", "Proposal", "Proposer"]

HOLES_MAX = 1 << 21
"""Slots that a new leader fills with no-ops, at most: more than any window leaves between what a quorum holds."""


class Phase(enum.Enum):
    """What the proposer is doing."""

    IDLE = "idle"
    PREPARING = "preparing"
    LEADING = "leading"


class Proposal:
    """One undecided slot of the leader."""

    __slots__ = ("acks", "decided", "entry", "patience", "sent_at")

    def __init__(self, entry: Entry, sent_at: int, patience: int) -> None:
        self.entry = entry
        self.acks: set[NodeId] = set()
        self.decided = False
        self.sent_at = sent_at
        self.patience = patience
        """Ticks until it is sent again."""


class Proposer:
    """See the module's docstring."""

    def __init__(self, core: Core, acceptor: Acceptor, learner: Learner) -> None:
        self._core = core
        self._acceptor = acceptor
        self._learner = learner
        self.phase = Phase.IDLE
        self.ballot = NO_BALLOT
        self.given_up = NO_BALLOT
        """The ballot whose leader has handed over to this node, and has no lease in it any more (leases.py)."""
        self.refused_by: set[NodeId] = set()
        self.refused_at = 0
        # phase 1
        self._next: dict[NodeId, Slot | None] = {}
        self._best: dict[Slot, tuple[Ballot, Entry]] = {}
        self._asked_at: dict[NodeId, int] = {}
        self.advanced_at = 0
        """When phase 1 was last known to go on: an acceptor had covered more of the log than before."""
        self._highest: Slot = 0
        # phase 2
        self.first: Slot = 0
        """The first slot of this leadership: what lies below was decided before it (rule 6)."""
        self.next_slot: Slot = 0
        self.recovery_end: Slot = 0
        """The last slot that phase 1 obliged this leader to propose; reads wait until it is decided (rule 8)."""
        self.in_flight: dict[Slot, Proposal] = {}
        self.decided_at = 0
        self._recovered: deque[Entry] = deque()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._announced: Slot = 0
        self._proposed_at = 0
        self._changed_in: Slot = 0
        """The last slot of this leadership that changes the configuration: nothing goes beyond it undecided."""
        self._governed: Configuration | None = None
        self._promised_by: frozenset[NodeId] = frozenset()
        """Who promised this ballot: a phase-1 quorum of ``_governed``, and of every one that governs a slot of it."""
        self.outgrown = False
        """A change is decided whose quorum has not promised this ballot, or not since it was: prepare again."""
        self._asked_under: Configuration | None = None
        """What governed the next slot when phase 1 began."""
        self._change: ConfigChange | None = None
        self.paused = False
        """Opens no slot for anything new: the leadership is being handed over."""
        self.acked: dict[NodeId, Slot] = {}
        """The highest slot that each node has accepted in this ballot."""

    @property
    def leading(self) -> bool:
        """Whether phase 1 has succeeded and the ballot has not been given up."""
        return self.phase is Phase.LEADING

    # ---- phase 1 ---------------------------------------------------------------------------------------------

    def prepare(self, ballot: Ballot) -> None:
        """Starts phase 1. The caller has written the promise of ``ballot`` just before (rule 2)."""
        if ballot <= self.ballot:
            raise InvariantViolation(f"ballot {ballot} would be used after {self.ballot} (rule 2)")
        self.give_up()
        core = self._core
        self.phase = Phase.PREPARING
        self.ballot = ballot
        self.advanced_at = core.now
        first = core.log.decided_through + 1
        self._next = {}
        self._asked_at = dict.fromkeys(core.others, core.now)
        self._best = {}
        self._highest = core.log.max_slot
        self._asked_under = core.next_configuration
        for node in core.others:
            core.out.send_after_writes(node, Prepare(ballot, first, self.given_up))
        # The node's own promise counts when it is durable, like anyone's; its votes are read from its own log.
        core.out.send_after_writes(core.me, Promise(ballot, first, None, (), ()))

    def promised(self, sender: NodeId, message: Promise) -> None:
        """One chunk of phase 1b: keeps what it reports, and asks for the next or starts to lead."""
        if self.phase is not Phase.PREPARING or message.ballot != self.ballot:
            return
        core = self._core
        if self._next.get(sender, 0) is None:
            return
        for slot, entry in message.decided:
            self._highest = max(self._highest, slot)
            self._learner.learn(slot, entry)
        for slot, ballot, entry in message.accepted:
            self._highest = max(self._highest, slot)
            best = self._best.get(slot)
            if best is None or ballot > best[0]:
                self._best[slot] = ballot, entry
        # What is decided needs no cover: the watermark may have overtaken what this acceptor was asked for.
        wanted = max(self._next.get(sender) or 0, core.log.decided_through + 1)
        if message.compacted_through >= message.first:
            # Not covered (rule 5). What others can tell of it counts as well; else a snapshot has to come.
            self._learner.compacted(sender, message.compacted_through)
        elif message.first <= wanted:
            self._cover(sender, wanted, message)
        self._conclude()

    def _cover(self, sender: NodeId, wanted: Slot, message: Promise) -> None:
        """Notes how far ``sender`` has covered the log, and pulls the next chunk.

        A chunk that covers nothing new is one that was asked for twice: pulling for it, too, would never end.
        """
        ends = [slot for slot in message.unreadable if slot >= wanted]
        if message.last is not None:
            ends.append(message.last + 1)
        if not ends:
            self._next[sender] = None
            self.advanced_at = self._core.now
        elif min(ends) > (self._next.get(sender) or 0):
            self._next[sender] = max(min(ends), wanted)
            self.advanced_at = self._core.now
            self._ask(sender)

    def _ask(self, node: NodeId) -> None:
        """Asks for what ``node`` has not covered yet."""
        core = self._core
        self._asked_at[node] = core.now
        first = max(self._next.get(node) or 0, core.log.decided_through + 1)
        core.out.send(node, Prepare(self.ballot, first, self.given_up))

    def covered(self) -> None:
        """A snapshot has taken the watermark further: what is decided needs no cover, so others may cover all now.

        As in :meth:`retry_prepare`, not before the node's own promise is durable.
        """
        if self.phase is Phase.PREPARING and self._core.me in self._next:
            for node in self._core.others:
                if self._next.get(node, 0) is not None:
                    self._ask(node)

    def _conclude(self) -> None:
        """Leads, once a quorum covers every slot that is not known to be decided."""
        core = self._core
        configuration = core.next_configuration
        if self.has_missed_a_change():
            self.outgrown = True
            return
        covering = [node for node, following in self._next.items() if following is None]
        if configuration is None or not configuration.is_phase1_quorum(covering):
            return
        if core.me not in covering:
            return
        highest = max(self._highest, core.log.max_slot)
        reported = len(self._best) + len(core.log.slots)
        if highest - core.log.decided_through > reported + HOLES_MAX:
            raise InvariantViolation(
                f"a quorum holds something in slot {highest}, and next to nothing from {core.log.decided_through + 1} "
                "on: no leader has ever proposed so far ahead. This is a bug in paxos_rsm, or something else speaks to "
                "its peer port"
            )
        self.phase = Phase.LEADING
        self._governed = configuration
        self._promised_by = frozenset(covering)
        self.first = self.next_slot = core.log.decided_through + 1
        self.in_flight = {}
        # The first decision may take twice as long: phase 1 has just shown that a quorum does answer.
        self.decided_at = core.now + core.settings.election_ticks
        self._announced = 0
        for slot in range(self.first, max(self._highest, core.log.max_slot) + 1):
            self._recovered.append(self._choose(slot))
        if not self._recovered:
            genesis = core.configurations.forming if self.first == 1 else None
            self._recovered.append(ConfigChange(genesis) if genesis else Noop())
        self.recovery_end = self.first + len(self._recovered) - 1
        self._best = {}
        self._next = {}

    def has_missed_a_change(self) -> bool:
        """Whether a change was learned during phase 1: promises may be older than its decision (changes.py)."""
        return self.phase is Phase.PREPARING and self._core.next_configuration != self._asked_under

    def _choose(self, slot: Slot) -> Entry:
        """Rule 5: the decided entry, else the value of the highest ballot reported, else nothing."""
        state = self._core.log.get(slot)
        best = self._best.get(slot)
        if state is not None and (state.decided or best is None or state.ballot > best[0]):
            return state.entry
        if best is not None:
            return best[1]
        if slot == 1 and self._core.configurations.forming is not None:
            return ConfigChange(self._core.configurations.forming)
        return Noop()

    def retry_prepare(self) -> None:
        """Asks again those that have not covered everything yet (on a tick).

        Not before the node's own promise has come back durable: a Prepare that left earlier would let a restart use
        its ballot again (rule 2).
        """
        core = self._core
        if core.me not in self._next:
            return
        for node in core.others:
            waited = core.now - self._asked_at.get(node, core.now)
            if self._next.get(node, 0) is not None and waited >= core.settings.retransmit_ticks:
                self._ask(node)

    # ---- phase 2 ---------------------------------------------------------------------------------------------

    def offer(self, frames: Sequence[bytes]) -> int:
        """Takes frames to propose, from the first on, and says how many: not all, where too many bytes wait already."""
        room = self._core.settings.waiting_bytes_max - self._waiting_bytes
        size = sum(map(len, frames))
        taken = len(frames)
        if size > room:
            taken = size = 0
            alone = not self._waiting  # one always goes
            while taken < len(frames) and (size + len(frames[taken]) <= room or (alone and not taken)):
                size += len(frames[taken])
                taken += 1
        self._waiting.extend(frames[:taken])
        self._waiting_bytes += size
        return taken

    def may_change(self) -> bool:
        """Whether the members may be changed now: an entry of this ballot is decided, and no change is under way."""
        decided_through = self._core.log.decided_through
        return (
            self.leading
            and not self.paused
            and self._change is None
            and self._changed_in <= decided_through
            and self.recovery_end <= decided_through
        )

    def change(self, entry: ConfigChange) -> None:
        """Takes a change to propose, once everything before it is decided. To be called where :meth:`may_change`."""
        self._change = entry

    def pump(self) -> None:
        """Proposes what waits, as far as the window goes. Called once a turn, so that a turn fills one entry."""
        if self.phase is not Phase.LEADING:
            return
        while self._has_room() and not self._next_is_barred():
            if self._core.log.is_decided(self.next_slot):
                self._pass_decided()
            elif self._recovered:
                self._propose(self._recovered.popleft())
            elif self.paused:
                return
            elif self._change is not None:
                self._propose(self._change)
                self._change = None
            elif self._waiting:
                self._propose(Batch(self._take_batch()))
            else:
                return

    def _has_room(self) -> bool:
        """Whether another slot may be opened now.

        Every entry costs every server a write and some messages, so what is small waits for the entry in flight, and
        goes along with all that comes meanwhile; but not longer than a tick, lest a long way to the others keep the
        window shut. A lone command finds nothing in flight and goes at once.
        """
        settings = self._core.settings
        if not self.in_flight:
            return True
        if len(self.in_flight) >= settings.window_slots:
            return False
        if self._recovered or self._waiting_bytes >= settings.pipeline_bytes:
            return True
        return self._core.now > self._proposed_at

    def _pass_decided(self) -> None:
        """A slot that was learned in phase 1, beyond a hole: it needs no proposal, only its place."""
        if self._recovered and type(self._recovered.popleft()) is ConfigChange:
            self._changed_in = self.next_slot
        self.next_slot += 1

    def _next_is_barred(self) -> bool:
        """A change of configuration waits for all before it, and all after it waits for the change (rule 10)."""
        core = self._core
        if self._changed_in > core.log.decided_through:
            return True
        if self.in_flight and self._is_change_next():
            return True
        configuration = core.configurations.governing(self.next_slot)
        if configuration is not None and configuration is not self._governed:
            if core.me not in configuration.nodes:
                return True  # It was removed, and goes.
            if not configuration.is_phase1_quorum(self._promised_by):
                self.outgrown = True
                return True
            self._governed = configuration
        return False

    def _is_change_next(self) -> bool:
        if self._recovered:
            return type(self._recovered[0]) is ConfigChange
        return self._change is not None

    def _take_batch(self) -> bytes:
        """The frames that go into one entry: all that wait, up to the size of an entry."""
        frames: list[bytes] = []
        size = 0
        while self._waiting and (
            not frames or size + len(self._waiting[0]) < self._core.settings.entry_bytes_max
        ):
            frame = self._waiting.popleft()
            frames.append(frame)
            size += len(frame) + 4
            self._waiting_bytes -= len(frame)
        return join_frames(frames)

    def _propose(self, entry: Entry) -> None:
        core = self._core
        slot = self.next_slot
        self.next_slot += 1
        self.in_flight[slot] = Proposal(entry, core.now, core.settings.retransmit_ticks)
        if type(entry) is ConfigChange:
            self._changed_in = slot
        self._proposed_at = core.now
        if len(self.in_flight) == 1:
            self.decided_at = max(self.decided_at, core.now)
        self._announced = core.log.decided_through
        accept = Accept(self.ballot, slot, entry, core.log.decided_through)
        core.out.send_all(core.others, accept)
        self._acceptor.accept(core.me, accept)

    def retransmit(self) -> None:
        """Sends again what has waited long for an answer, to those that owe it (on a tick).

        The second time it waits longer: what is late because disks or links are busy must not make them busier.
        """
        core = self._core
        for slot, proposal in self.in_flight.items():
            if core.now - proposal.sent_at >= proposal.patience:
                proposal.sent_at = core.now
                proposal.patience = 2 * core.settings.retransmit_ticks
                self._send_again(slot, proposal, core.others)

    def resend_to(self, node: NodeId) -> None:
        """A member is back: what it has not accepted goes out again at once."""
        if node not in self._core.others:
            return
        for slot, proposal in self.in_flight.items():
            self._send_again(slot, proposal, [node])

    def _send_again(self, slot: Slot, proposal: Proposal, nodes: Sequence[NodeId]) -> None:
        owing = [n for n in nodes if n not in proposal.acks]
        self._core.out.send_all(
            owing, Accept(self.ballot, slot, proposal.entry, self._core.log.decided_through)
        )

    def announce(self) -> None:
        """Tells the watermark at once where no Accept of this turn carried it."""
        through = self._core.log.decided_through
        if self.phase is Phase.LEADING and through > self._announced and through >= self.first:
            self._announced = through
            self._core.out.send_all(self._core.others, Decide(self.ballot, through))

    # ---- giving up -------------------------------------------------------------------------------------------

    def refused(self, sender: NodeId, promised: Ballot) -> None:
        """A member has promised a higher ballot."""
        if promised <= self.ballot:
            return
        if not self.refused_by:
            self.refused_at = self._core.now
        self.refused_by.add(sender)

    def give_up(self) -> None:
        """Proposes no more in this ballot. Frames that wait are dropped: their owners send them again."""
        self.phase = Phase.IDLE
        self.in_flight = {}
        self.outgrown = self.paused = False
        self._changed_in = 0
        self._change = None
        self.acked = {}
        self.refused_by = set()
        self._next = {}
        self._best = {}
        self._recovered.clear()
        self._waiting.clear()
        self._waiting_bytes = 0

    def check(self) -> None:
        """Raises InvariantViolation where the type's invariants do not hold."""
        if self.phase is not Phase.LEADING and self.in_flight:
            raise InvariantViolation(f"{len(self.in_flight)} proposals in flight without leading")
        for slot in range(min(self.in_flight, default=0), self.next_slot if self.in_flight else 0):
            state = self._core.log.get(slot)
            if state is not None and state.decided and state.ballot == self.ballot:
                raise InvariantViolation(f"slot {slot} is decided before one below it (rule 10)")
        if any(slot >= self.next_slot for slot in self.in_flight):
            raise InvariantViolation(f"a proposal at or above the next slot {self.next_slot}")
