"""The slot log as one server knows it.

A slot is empty, or holds this server's own vote (an entry accepted in a ballot), or is decided. Slots fill in any
order; *decided_through* is the watermark up to which all are decided, *released_through* the one up to which
decided entries have been handed out to be applied, *compacted_through* the one up to which they are gone.

Always holds:

- ``compacted_through <= released_through <= decided_through``;
- a decided entry never changes (rule 1), and the ballot of a vote never goes down (rule 3);
- the slot after ``decided_through`` is not decided;
- ``undecided`` are the slots that hold a vote and are not decided; they are few, however long the log is.
"""

from collections.abc import Iterable, Iterator

from paxos_rsm.errors import InvariantViolation
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Batch, Entry, Slot

__all__ = ["SlotLog", "SlotState", "entry_bytes"]


def entry_bytes(entry: Entry) -> int:
    """About how many bytes an entry takes in a message."""
    return len(entry.data) + 64 if type(entry) is Batch else 512


class SlotState:
    """What one slot holds. ``ballot`` is that of this server's vote, ``NO_BALLOT`` where it learned a decision.

    Where a decided slot has a ballot, it was decided in that one or a lower: a higher one that proposes another entry
    there breaks rule 1. Where it has none, nobody here knows in which ballot it was decided.
    """

    __slots__ = ("ballot", "decided", "entry")

    def __init__(self, ballot: Ballot, entry: Entry, decided: bool) -> None:
        self.ballot = ballot
        self.entry = entry
        self.decided = decided


class SlotLog:
    """See the module's docstring."""

    def __init__(self) -> None:
        self.slots: dict[Slot, SlotState] = {}
        self.undecided: set[Slot] = set()
        self.max_slot: Slot = 0
        self.decided_through: Slot = 0
        self.released_through: Slot = 0
        self.compacted_through: Slot = 0
        self.unreadable: set[Slot] = set()
        """Slots in which something was accepted or decided that the disk does not give back: they look empty, and
        nobody may say that they are, before something is accepted there anew or they are learned as decided (rule 5).
        """
        self.held = False
        """Nothing is released: the state that comes before it is not there (yet)."""

    def get(self, slot: Slot) -> SlotState | None:
        """What the slot holds; None where it is empty."""
        return self.slots.get(slot)

    def is_decided(self, slot: Slot) -> bool:
        """Whether this server knows the slot to be decided."""
        if slot <= self.decided_through:
            return True
        state = self.slots.get(slot)
        return state is not None and state.decided

    def put(self, slot: Slot, state: SlotState) -> None:
        """Fills an empty slot."""
        self.slots[slot] = state
        self.unreadable.discard(slot)
        self.max_slot = max(self.max_slot, slot)
        if not state.decided:
            self.undecided.add(slot)

    def accept(self, slot: Slot, ballot: Ballot, entry: Entry) -> None:
        """Records this server's vote. Raises InvariantViolation where it breaks rule 1 or 3."""
        state = self.slots.get(slot)
        if state is None:
            self.put(slot, SlotState(ballot, entry, False))
            return
        if ballot < state.ballot:
            raise InvariantViolation(
                f"slot {slot}: vote in ballot {ballot} after one in {state.ballot} (rule 3)"
            )
        if state.decided and state.entry != entry:
            raise InvariantViolation(
                f"slot {slot}: asked in ballot {ballot} to accept other than the decided entry (rule 1)"
            )
        if ballot == state.ballot and state.entry != entry:
            raise InvariantViolation(f"slot {slot}: two entries proposed in one ballot {ballot} (rule 2)")
        state.ballot = ballot
        state.entry = entry

    def decide_vote(self, slot: Slot) -> None:
        """The entry that this server voted for in ``slot`` is decided."""
        self.slots[slot].decided = True
        self.undecided.discard(slot)

    def decide(self, slot: Slot, entry: Entry) -> bool:
        """Stores a decision learned from others, without a ballot. False where it was known already.

        Raises InvariantViolation where another entry was decided (rule 1).
        """
        if slot <= self.compacted_through:
            return False
        state = self.slots.get(slot)
        if state is None:
            self.put(slot, SlotState(NO_BALLOT, entry, True))
            return True
        if state.decided:
            if state.entry != entry:
                raise InvariantViolation(f"slot {slot}: two entries decided (rule 1)")
            return False
        state.ballot = NO_BALLOT
        state.entry = entry
        state.decided = True
        self.undecided.discard(slot)
        return True

    def advance(self) -> bool:
        """Raises the watermark over what is decided without a hole. True where it moved."""
        slot = self.decided_through
        slots = self.slots
        while (state := slots.get(slot + 1)) is not None and state.decided:
            slot += 1
        moved = slot != self.decided_through
        self.decided_through = slot
        return moved

    def start(self, slot: Slot, compacted_through: Slot) -> None:
        """The state is that of ``slot``, the log starts above ``compacted_through``: at a start, when it was filled."""
        self.decided_through = self.released_through = slot
        self.compacted_through = compacted_through
        self.max_slot = max(self.max_slot, slot)

    def compact(self, through: Slot) -> None:
        """Forgets what a snapshot holds. Raises InvariantViolation for slots that have not been released."""
        if through > self.released_through:
            raise InvariantViolation(
                f"slot {through} is to be forgotten, and only slots up to {self.released_through} were released"
            )
        for slot in range(self.compacted_through + 1, through + 1):
            del self.slots[slot]
        self.compacted_through = max(self.compacted_through, through)

    def install(self, slot: Slot) -> None:
        """A snapshot of ``slot`` is the state now: what lies up to there is decided, applied and forgotten (rule 7).

        What lies above stays as it is. Raises InvariantViolation where that would take a slot back.
        """
        if slot < self.released_through:
            raise InvariantViolation(
                f"a snapshot of slot {slot} is to be installed over the state of slot {self.released_through} (rule 7)"
            )
        for below in [s for s in self.slots if s <= slot]:
            del self.slots[below]
            self.undecided.discard(below)
        self.unreadable = {lost for lost in self.unreadable if lost > slot}
        self.max_slot = max(self.max_slot, slot)
        self.decided_through = max(self.decided_through, slot)
        self.released_through = self.compacted_through = max(self.compacted_through, slot)
        self.held = False

    def lose(self, slots: Iterable[Slot]) -> None:
        """At a start: what was in these slots cannot be read."""
        self.unreadable.update(slots)
        self.max_slot = max(self.max_slot, *self.unreadable, 0)

    def from_slot(self, first: Slot) -> Iterable[Slot]:
        """The slots from ``first`` on that may hold something, in order.

        In time proportional to what the log holds, wherever the highest slot is.
        """
        if self.max_slot - first <= 2 * len(self.slots):
            return range(first, self.max_slot + 1)
        return sorted([slot for slot in self.slots if slot >= first])

    def release(self) -> Iterator[tuple[Slot, Entry]]:
        """Hands out, once, the entries that may be applied, in order (rule 7)."""
        while self.released_through < self.decided_through:
            self.released_through += 1
            yield self.released_through, self.slots[self.released_through].entry

    def decided_from(self, first: Slot, last: Slot, bytes_max: int) -> tuple[tuple[Slot, Entry], ...]:
        """Decided entries from ``first`` on without a hole, up to ``last`` or ``bytes_max`` (one always goes)."""
        entries: list[tuple[Slot, Entry]] = []
        size = 0
        for slot in range(first, min(last, self.decided_through) + 1):
            state = self.slots.get(slot)
            if state is None:
                break
            size += entry_bytes(state.entry)
            if entries and size > bytes_max:
                break
            entries.append((slot, state.entry))
        return tuple(entries)

    def check(self) -> None:
        """Raises InvariantViolation where the type's invariants do not hold. Costs time in proportion to the log."""
        if (
            not self.compacted_through
            <= self.released_through
            <= self.decided_through
            <= max(self.max_slot, 0)
        ):
            raise InvariantViolation(
                f"watermarks out of order: compacted {self.compacted_through}, released {self.released_through}, "
                f"decided {self.decided_through}, highest {self.max_slot}"
            )
        for slot in range(self.compacted_through + 1, self.decided_through + 1):
            state = self.slots.get(slot)
            if state is None or not state.decided:
                raise InvariantViolation(
                    f"slot {slot} is below the watermark {self.decided_through} and not decided"
                )
        if both := self.unreadable.intersection(self.slots):
            raise InvariantViolation(f"slots are held and cannot be read: {sorted(both)}")
        above = self.slots.get(self.decided_through + 1)
        if above is not None and above.decided:
            raise InvariantViolation(
                f"slot {self.decided_through + 1} is decided and the watermark stopped below it"
            )
        undecided = {slot for slot, state in self.slots.items() if not state.decided}
        if undecided != self.undecided:
            raise InvariantViolation(
                f"the undecided votes are in {sorted(undecided)}, the log counts {sorted(self.undecided)}"
            )
