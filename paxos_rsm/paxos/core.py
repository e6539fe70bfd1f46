"""What the parts of one node share: its name, its log, its outbox, the time in ticks, and chance.

The parts (acceptor, proposer, learner, election, reads) are objects of their own that write into one
:class:`Outbox`; nothing leaves the node but by the :class:`~paxos_rsm.paxos.ready.Ready` that the outbox becomes.
"""

from collections.abc import Iterable
from typing import Protocol

from paxos_rsm.paxos.log import SlotLog
from paxos_rsm.paxos.membership import Configuration, ConfigurationHistory
from paxos_rsm.paxos.messages import Accepted, Envelope, Message
from paxos_rsm.paxos.ready import ChangeAnswer, ReadGranted, Ready, Write
from paxos_rsm.paxos.settings import Settings
from paxos_rsm.paxos.types import Ballot, NodeId, Slot

__all__ = ["Core", "Outbox", "Randomness"]


class Randomness(Protocol):
    """Where chance comes from: ``random.Random`` with a seed, or a simulator."""

    def randint(self, a: int, b: int, /) -> int:
        """A whole number, ``a <= n <= b``."""
        ...


class Outbox:
    """A Ready in the making."""

    def __init__(self) -> None:
        self._ready = Ready()
        self._accepted: dict[tuple[NodeId, Ballot], list[Slot]] = {}

    @property
    def has_writes(self) -> bool:
        """Whether this turn has anything for the log."""
        return bool(self._ready.writes)

    def send(self, to: NodeId, message: Message) -> None:
        """May leave now."""
        self._ready.messages.append(Envelope(to, message))

    def send_all(self, to: Iterable[NodeId], message: Message) -> None:
        """May leave now, to each; the message is one object, so that it is encoded once."""
        self._ready.messages.extend([Envelope(node, message) for node in to])

    def send_after_writes(self, to: NodeId, message: Message) -> None:
        """Must not leave before everything written so far is durable (rule 4)."""
        self._ready.messages_after_writes.append(Envelope(to, message))

    def send_after_marks(self, to: NodeId, message: Message) -> None:
        """Must not leave before everything written so far is durable, what is marked decided included."""
        self.send_after_writes(to, message)
        self._ready.with_marks = True

    def accepted(self, to: NodeId, ballot: Ballot, slot: Slot) -> None:
        """An Accepted for after the writes; those of one ballot go together."""
        self._accepted.setdefault((to, ballot), []).append(slot)

    def write(self, write: Write) -> None:
        """For the log, in order."""
        self._ready.writes.append(write)

    def fetch_snapshot(self, node: NodeId, at_least: Slot) -> None:
        """This node is behind what ``node`` still has entries of."""
        self._ready.fetch_snapshot = node, at_least

    def answer_change(self, answer: ChangeAnswer) -> None:
        """What became of a change of the members that was asked for here."""
        self._ready.change_replies.append(answer)

    def grant(self, read_id: int, index: Slot | None) -> None:
        """A read of this server may be served at ``index``, or (None) must be asked again."""
        self._ready.reads.append(ReadGranted(read_id, index))

    def take(self, log: SlotLog) -> Ready:
        """All of it, with what the log releases; the outbox is empty again."""
        ready, self._ready = self._ready, Ready()
        if self._accepted:
            for (to, ballot), slots in self._accepted.items():
                ready.messages_after_writes.append(Envelope(to, Accepted(ballot, tuple(slots))))
            self._accepted.clear()
        if log.released_through < log.decided_through and not log.held:
            ready.decided.extend(log.release())
        return ready


class Core:
    """Shared by the parts of one node."""

    __slots__ = (
        "_others",
        "_others_of",
        "clock_us",
        "configurations",
        "log",
        "me",
        "now",
        "out",
        "random",
        "restored",
        "settings",
    )

    def __init__(self, me: NodeId, settings: Settings, random: Randomness) -> None:
        self.me = me
        self.settings = settings
        self.random = random
        self.log = SlotLog()
        self.out = Outbox()
        self.configurations = ConfigurationHistory()
        self.restored = False
        """The state before slot 1 is not an empty one, and whoever does not have it needs more than the log."""
        self.now = 0
        """Ticks since the node was made."""
        self.clock_us = 0
        """The driver's clock as it was last read: for leases only (leases.py)."""
        self._others: list[NodeId] = []
        self._others_of: Configuration | None = None

    @property
    def next_configuration(self) -> Configuration | None:
        """The configuration that governs the next slot to be decided; None while the cluster has not met."""
        # A change takes effect as the watermark passes it, so the newest one governs what comes after the watermark.
        return self.configurations.newest

    @property
    def others(self) -> list[NodeId]:
        """Every member that has joined, learners too, but this one; in a stable order. To be read only."""
        configuration = self.next_configuration
        if configuration is not self._others_of:
            self._others_of = configuration
            members = configuration.members if configuration is not None else ()
            self._others = [m.incarnation for m in members if m.incarnation not in (0, self.me)]
        return self._others
