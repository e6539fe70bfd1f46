"""Leases on reads: an option, off by default, that trades a quorum's word for a bound on how clocks differ.

Without it every read costs a round (reads.py). With it the round also asks those who confirm it to promise no higher
ballot for a while: until *lease* has passed since the round **began**, the leader serves reads on that, at its
watermark, with no round at all. The argument, for a leader L of ballot b and a configuration K:

1. L serves on the lease at a moment t only where a phase-2 quorum Q of K has confirmed a round that began at most
   *lease* before t on L's clock, K governs the next slot, and L has not stepped down nor handed over since.
2. Each of Q had promised nothing above b when the round came, and from then on promises to nobody but L for
   *hold* = lease x (1 + drift) on its own clock, its own candidacy included.
3. A leader of a higher ballot decides nothing new before a phase-1 quorum P of K has promised it (rule 5; where the
   members change: rule 10, and L, which decides a change of its own first, drops the lease as it does). P and Q have a
   member in common. It did not promise before it confirmed (2), so it promises only after its hold: later than t, if
   during L's *lease* no member's clock runs more than (1 + drift) times as fast as L's.
4. So whatever was acknowledged before t was decided by L or before it, and is below L's watermark at t: a read that had
   arrived by then may be served from there, whenever it is (rule 8).

**Which clock.** Not ticks: they stand still in a process that is paused, and a leader that wakes up would take its
lease for fresh. The driver hands in a reading of a clock that goes on whatever becomes of the process, each time it
asks for a Ready and *after* everything that this Ready answers had come in: that is the t above. A pause before the
reading is seen by it. One after it does no harm: the reads that are served had arrived, and their index is that of t.
Every doubt goes to the safe side: a round counts from the reading before it was sent, a hold from the first reading
after it was given, and whether a hold is over is judged by the last one.

**Restart.** An acceptor does not write down what it holds. Its process writes down once how long a hold it may ever
give (the identity file); the next one promises nothing for that long, to anybody.

**Hand-over.** HandOver says that the leader serves no read on a lease in that ballot any more, and it does not: the
heir repeats it in its Prepare, and whoever holds for that ballot is free.

What breaks it is a clock beyond the bound: a virtual machine that its host stops without the clock of the guest
noticing, above all. Then reads may be stale until L hears of the other leader; nothing else is touched.
"""

from paxos_rsm.errors import InvariantViolation
from paxos_rsm.paxos.core import Core
from paxos_rsm.paxos.membership import Configuration
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, NodeId

__all__ = ["Holds", "Lease"]


class Lease:
    """The leader's side: until when it may serve reads without asking.

    Always holds: it ends with the leadership, with the configuration that gave it, and for good, in this ballot, with a
    hand-over.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._until = 0
        self._begun = 0
        self._configuration: Configuration | None = None
        self._given_up = False

    @property
    def asked_us(self) -> int:
        """How long those who confirm a round are asked to hold; 0: not at all."""
        return 0 if self._given_up else self._core.settings.read_hold_us

    @property
    def is_valid(self) -> bool:
        """Whether reads that have arrived may be served at the watermark, as of the last reading of the clock."""
        return self.is_valid_at(self._core.clock_us)

    def is_valid_at(self, clock_us: int) -> bool:
        """The same, were the clock to say so: wherever it is, nobody leads in a higher ballot."""
        return (
            self._configuration is not None
            and self._configuration is self._core.configurations.current
            and clock_us < self._until
        )

    @property
    def is_old(self) -> bool:
        """Whether half of it is over: reads that go on should not have to wait for the next."""
        return 2 * (self._core.clock_us - self._begun) >= self._core.settings.read_lease_us

    def confirmed(self, begun: int, configuration: Configuration) -> None:
        """A phase-2 quorum of ``configuration`` holds, by a round that began at ``begun`` of this node's clock."""
        if self._given_up or not self._core.settings.read_lease_us:
            return
        if configuration is not self._configuration or begun > self._begun:
            self._configuration, self._begun = configuration, begun
            self._until = begun + self._core.settings.read_lease_us

    def give_up(self) -> None:
        """The leadership is handed over: no lease in this ballot any more."""
        self._given_up = True
        self._configuration = None

    def step_down(self) -> None:
        """This node leads no more in this ballot. A later one begins without a lease."""
        self._given_up = False
        self._configuration = None


class Holds:
    """The acceptor's side: to whom it has promised to promise nobody else.

    ``owed_us`` is how long a hold may be that an earlier process of this member has given.
    """

    def __init__(self, core: Core, owed_us: int) -> None:
        self._core = core
        self._owed_us = owed_us
        self._free_at: int | None = None if owed_us else 0
        """When what an earlier process gave is over; None before the clock was read for the first time."""
        self._holds: dict[NodeId, tuple[Ballot, int]] = {}
        """By leader: the highest ballot, and until when."""
        self._new: list[tuple[Ballot, int]] = []
        """Given since the clock was read: they count from the next reading on."""

    def read_clock(self, clock_us: int | None) -> None:
        """The driver's clock, read after all that was stepped. Raises InvariantViolation where leases need it."""
        core = self._core
        if clock_us is None:
            if self._owed_us or core.settings.read_lease_us:
                raise InvariantViolation(
                    "leases on reads are on, and the driver does not say what time it is"
                )
            return
        if clock_us < core.clock_us:
            raise InvariantViolation(f"the clock went back from {core.clock_us} to {clock_us} microseconds")
        core.clock_us = clock_us
        if self._free_at is None:
            self._free_at = clock_us + self._owed_us
        for ballot, hold_us in self._new:
            before, until = self._holds.get(ballot.node, (NO_BALLOT, 0))
            self._holds[ballot.node] = max(ballot, before), max(until, clock_us + hold_us)
        self._new.clear()

    def give(self, ballot: Ballot, hold_us: int) -> bool:
        """Holds for the leader of ``ballot``, where that is asked and not for longer than this server gives."""
        if not 0 < hold_us <= self._core.settings.read_hold_us:
            return False
        self._new.append((ballot, hold_us))
        return True

    def given_up(self, ballot: Ballot) -> None:
        """The leader of ``ballot`` has said that it serves no read on a lease in it, or in a lower one, any more."""
        self._new = [new for new in self._new if new[0].node != ballot.node or new[0] > ballot]
        held = self._holds.get(ballot.node)
        if held is not None and held[0] <= ballot:
            del self._holds[ballot.node]

    def bind(self, candidate: NodeId) -> bool:
        """Whether nothing may be promised to ``candidate`` now.

        Holds for ``candidate`` itself do not: to prepare again it has given up what it led.
        """
        if self._free_at is None or self._core.clock_us < self._free_at:
            return True
        if any(ballot.node != candidate for ballot, _ in self._new):
            return True
        clock_us = self._core.clock_us
        return any(node != candidate and clock_us < until for node, (_, until) in self._holds.items())
