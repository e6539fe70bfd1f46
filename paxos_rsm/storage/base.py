"""What the floors above know of the disk: what a log is, and what it remembered.

A log takes the writes of the protocol in order and gives them back, after any crash, as the state they amount to:
:class:`Recovered`. The state is built by replaying the writes (:meth:`Recovered.apply`), which checks as it goes that
nothing went down which never may (rule 3) and nothing changed which never may (rule 1); so a log that a bug has written
stops the server instead of teaching it something false.

A log may be *compacted* through a slot: what it held up to there is decided, is in a snapshot, and is forgotten.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from paxos_rsm.errors import InvariantViolation
from paxos_rsm.paxos.ready import (
    Write,
    WriteAccepted,
    WriteCompacted,
    WriteDecided,
    WriteDecidedThrough,
    WritePromise,
)
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Entry, Slot

__all__ = ["DrawBits", "LogStorage", "LogWriter", "Recovered", "RecoveredSlot"]

DrawBits = Callable[[int], int]
"""An injected source of randomness: so many random bits, as an integer. In a server, ``secrets.randbits``."""


class RecoveredSlot(NamedTuple):
    """What the log holds in one slot. ``ballot`` is that of the vote; None where the entry was learned as decided."""

    ballot: Ballot | None
    entry: Entry


@dataclass(slots=True)
class Recovered:
    """What a log remembered.

    Every slot up to ``compacted_through`` is decided, in a snapshot, and not in ``slots``; every one from there up to
    ``decided_through`` is decided with the entry that ``slots`` holds.

    In the ``unreadable`` slots something was accepted or decided that cannot be read any more, in no ballot above
    ``promised``; ``slots`` does not hold them, be they decided or not. Nobody may say that nothing was accepted there.
    """

    promised: Ballot = NO_BALLOT
    slots: dict[Slot, RecoveredSlot] = field(default_factory=dict)
    decided_through: Slot = 0
    compacted_through: Slot = 0
    unreadable: set[Slot] = field(default_factory=set)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever promised, accepted or learned: the log of a server that never took part."""
        return self.promised == NO_BALLOT and not (self.slots or self.unreadable or self.decided_through)

    def apply(self, write: Write) -> None:
        """Replays one write. Raises InvariantViolation where it breaks rule 1 or 3."""
        match write:
            case WriteAccepted(slot, ballot, entry):
                self._raise_promise(ballot)
                held = self._check_entry(slot, entry)
                if slot > self.compacted_through and (held is None or held.ballot is not None):
                    self.slots[slot] = RecoveredSlot(ballot, entry)
                    self.unreadable.discard(slot)
            case WritePromise(ballot):
                self._raise_promise(ballot)
            case WriteDecided(slot, entry):
                self._check_entry(slot, entry)
                if slot > self.compacted_through:
                    self.slots[slot] = RecoveredSlot(None, entry)
                    self.unreadable.discard(slot)
            case WriteCompacted(slot):
                self._forget(slot)
            case WriteDecidedThrough(slot):
                for below in range(self.decided_through + 1, slot + 1):
                    if below not in self.slots and below not in self.unreadable:
                        raise InvariantViolation(
                            f"the log says that every slot up to {slot} is decided, and holds nothing in slot {below}"
                        )
                self.decided_through = max(self.decided_through, slot)

    def _forget(self, through: Slot) -> None:
        """Nothing up to ``through`` is held any more: a snapshot has it."""
        if through > self.compacted_through:
            self.compacted_through = through
            self.decided_through = max(self.decided_through, through)
            for slot in [slot for slot in self.slots if slot <= through]:
                del self.slots[slot]
            self.unreadable = {slot for slot in self.unreadable if slot > through}

    def lose(self, slot: Slot, ballot: Ballot | None) -> None:
        """Replays a write whose entry cannot be read any more: a vote in ``ballot``, or (None) a decided entry.

        What was known to be decided before is so still. Raises InvariantViolation as :meth:`apply` does.
        """
        if ballot is not None:
            self._raise_promise(ballot)
        if slot <= self.compacted_through:
            return
        held = self.slots.get(slot)
        if held is None or (held.ballot is not None and slot > self.decided_through):
            self.slots.pop(slot, None)
            self.unreadable.add(slot)

    def _raise_promise(self, ballot: Ballot) -> None:
        if ballot < self.promised:
            raise InvariantViolation(
                f"the log goes down from a promise of ballot {self.promised} to ballot {ballot} (rule 3)"
            )
        self.promised = ballot

    def _check_entry(self, slot: Slot, entry: Entry) -> RecoveredSlot | None:
        """What the slot holds so far; ``entry`` may replace a vote, and must be what was decided."""
        held = self.slots.get(slot)
        if held is None:
            return None
        if held.entry != entry and (held.ballot is None or slot <= self.decided_through):
            raise InvariantViolation(
                f"the log holds two entries for slot {slot}, the first of them decided (rule 1)"
            )
        return held


class LogStorage(Protocol):
    """A log on disk, as its one writer sees it. Synchronous; not to be shared between threads.

    A ``WriteCompacted`` among the writes is no record: every write before it is durable, and what it names is
    forgotten for good, once :meth:`append` has returned. A snapshot of that slot or a later one must be durable before.

    Any error is final: it is raised again by every further call but :meth:`close`.
    """

    wait_for_space: Callable[[], bool]
    """Called in :meth:`append` where the disk is full: it waits a while, and says whether to try again."""

    def append(self, writes: Sequence[Write]) -> None:
        """Hands the writes to the system, in order, in one piece. Nothing is durable yet.

        Raises LogIOError, DiskFull; InvariantViolation where a promise would go down.
        """
        ...

    def sync(self) -> None:
        """Returns once everything appended is durable. Raises LogIOError, DiskFull."""
        ...

    def close(self) -> None:
        """Syncs, and gives the files back; after an error it only does the latter. Closing twice is allowed."""
        ...

    @property
    def bytes_on_disk(self) -> int:
        """The bytes that the log's segments have in use, without what is allocated ahead."""
        ...


class LogWriter(Protocol):
    """A log as the event loop sees it: nothing waits for the disk, word comes when a batch is durable."""

    def submit(self, batch_number: int, writes: Sequence[Write], sync: bool = True) -> None:
        """Queues a batch, after every earlier one. Batch numbers rise. Never blocks."""
        ...

    def close(self) -> None:
        """Writes what is queued, then closes the log. Blocks until that is done."""
        ...
