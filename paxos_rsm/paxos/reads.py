"""Linearizable reads by read-index (Ongaro's thesis, section 6.4; rule 8).

The leader takes the index of a read when it arrives: its watermark, once an entry of its own ballot and all that
phase 1 obliged it to propose are decided. Then it asks, in a round that begins after that, whether anyone has
promised a higher ballot; a phase-2 quorum of the configuration that governs the next slot must say no, each echoing
ballot and round. No later leader can have decided anything before the read arrived, then: its phase-1 quorum would
have met that quorum. Clocks play no part.

All the reads that arrive while a round is under way share the next one, which begins when that is confirmed, and not
longer than a tick later, lest a long way to the others keep reads waiting; a lone read goes at once.

With leases on (leases.py), what confirms a round also serves the reads that come for a while after it began.

A follower asks once for all the reads of one turn. One that cannot reach the leader asks through a member that can
(one hop). The number under which it asks is drawn at random at every start and counts up from there: an answer to what
the process before the restart had asked is nobody's, and never mistaken for the answer to a later question.
"""

from collections.abc import Callable

from paxos_rsm.paxos.core import Core
from paxos_rsm.paxos.leases import Lease
from paxos_rsm.paxos.membership import Configuration
from paxos_rsm.paxos.messages import HeartbeatReply, ReadReply, ReadRequest
from paxos_rsm.paxos.quorum_reads import QuorumReads
from paxos_rsm.paxos.types import Ballot, NodeId, Slot

__all__ = ["NOBODY", "Reads", "Round"]

NOBODY: NodeId = 0
"""In place of the node that asks: no node has this number."""


class Round:
    """One confirmation under way: the index, who asked, who has confirmed, and of whom a quorum must."""

    __slots__ = ("acks", "askers", "begun_us", "configuration", "holders", "index", "sent_at")

    def __init__(
        self,
        index: Slot,
        configuration: Configuration | None,
        askers: list[tuple[NodeId, int]],
        me: NodeId,
        sent_at: int,
        begun_us: int,
    ) -> None:
        self.index = index
        self.configuration = configuration
        """What governs the slot after ``index``."""
        self.askers = askers
        self.acks = {me}
        self.sent_at = sent_at
        self.begun_us = begun_us
        """What the clock said before it was sent for the first time."""
        self.holders = {me}
        """Who has confirmed it, and promises to nobody else for a while."""


class _Asked:
    """A read handed on to the leader, or on the way to it: for whom, under which number of theirs, by which way."""

    __slots__ = ("asked_at", "asker", "read_id", "route")

    def __init__(self, asker: NodeId, read_id: int, route: NodeId, asked_at: int) -> None:
        self.asker = asker
        self.read_id = read_id
        self.route = route
        self.asked_at = asked_at


class Reads:
    """Read confirmations, at the leader and on the way to it.

    Always holds: an index is granted only on replies to a round numbered after its reads had arrived.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self.round = 0
        """Numbers rounds; grows over all ballots of this process."""
        self._begun_at = 0
        """The tick at which the last round began."""
        self._arrived: list[tuple[NodeId, int]] = []
        self._rounds: dict[int, Round] = {}
        self._asked: dict[int, _Asked] = {}
        self._confirming: dict[int, Callable[[bool], None]] = {}
        self._next_id = core.random.randint(1, 1 << 62)
        self.lease = Lease(core)
        self.quorum = QuorumReads(core)

    @property
    def waiting(self) -> bool:
        """Whether a round is under way."""
        return bool(self._rounds)

    # ---- at any server ---------------------------------------------------------------------------------------

    def arrive(self, asker: NodeId, read_id: int) -> None:
        """A read for this leader, from itself or from a follower."""
        self._arrived.append((asker, read_id))

    def confirm(self, told: Callable[[bool], None]) -> None:
        """Whether what this leader knows now is the newest there is, as for a read: ``told`` is called once with it."""
        self._next_id += 1
        self._confirming[self._next_id] = told
        self._arrived.append((NOBODY, self._next_id))

    def ask(self, route: NodeId, asker: NodeId, read_id: int, hops: int) -> None:
        """Hands a read on to the leader, or to a member that reaches it."""
        self._next_id += 1
        self._asked[self._next_id] = _Asked(asker, read_id, route, self._core.now)
        self._core.out.send(route, ReadRequest(self._next_id, hops))

    def ask_quorum(self, read_id: int) -> None:
        """Asks the acceptors, under a number that no other question of this process has."""
        self._next_id += 1
        self.quorum.ask(self._next_id, read_id)

    def answered(self, sender: NodeId, message: ReadReply) -> None:
        """The leader's word for a read that was handed on, or an acceptor's."""
        if self.quorum.answered(sender, message):
            return
        asked = self._asked.pop(message.read_id, None)
        if asked is not None:
            self._grant(asked.asker, asked.read_id, message.index)

    def _grant(self, asker: NodeId, read_id: int, index: Slot) -> None:
        if asker == NOBODY:
            self._confirming.pop(read_id)(index > 0)
        elif asker == self._core.me:
            self._core.out.grant(read_id, index or None)
        else:
            self._core.out.send(asker, ReadReply(read_id, index))

    def forget_asked(self, route: NodeId | None) -> None:
        """What was asked by another way than ``route``, or too long ago, must be asked again (on a tick)."""
        self.quorum.tick()
        if not self._asked:
            return
        latest = self._core.now - self._core.settings.election_ticks
        gone = [n for n, a in self._asked.items() if a.route != route or a.asked_at <= latest]
        for number in gone:
            asked = self._asked.pop(number)
            self._grant(asked.asker, asked.read_id, 0)

    # ---- at the leader ---------------------------------------------------------------------------------------

    def begin_round(self, ready: bool) -> bool:
        """Starts a round for what has arrived, with the watermark of now as its index. True where one began.

        The clock was read after all that has arrived: on a lease it is served here, at that watermark.
        """
        self.quorum.turn()
        self._renew()
        if not ready or not self._arrived:
            return False
        core = self._core
        if self.lease.is_valid:
            arrived, self._arrived = self._arrived, []
            for asker, read_id in arrived:
                self._grant(asker, read_id, core.log.decided_through)
            if self._rounds or not self.lease.is_old:
                return False
        elif not self._has_room():
            return False
        self.round += 1
        self._begun_at = core.now
        self._rounds[self.round] = Round(
            core.log.decided_through,
            core.next_configuration,
            self._arrived,
            core.me,
            core.now,
            core.clock_us,
        )
        self._arrived = []
        self._conclude()
        return bool(self._rounds)

    def _renew(self) -> None:
        """The members have changed: those that would have to confirm may be gone. A later index needs the new ones."""
        configuration = self._core.next_configuration
        for number in [n for n, r in self._rounds.items() if r.configuration is not configuration]:
            self._arrived += self._rounds.pop(number).askers

    def _has_room(self) -> bool:
        """Whether another round may begin now: every one costs every member a message and its answer."""
        if not self._rounds:
            return True
        core = self._core
        return len(self._rounds) < core.settings.read_rounds_max and core.now > self._begun_at

    def repeat(self) -> bool:
        """Whether a round has waited so long that a new number must be sent for it (on a tick)."""
        core = self._core
        late = [n for n, r in self._rounds.items() if core.now - r.sent_at >= core.settings.retransmit_ticks]
        for number in late:
            self._rounds[number].sent_at = core.now
        return bool(late)

    def confirmed(self, sender: NodeId, message: HeartbeatReply) -> None:
        """A member had promised nothing higher: counts for that round and every earlier one."""
        for number, waiting in self._rounds.items():
            if number <= message.round:
                waiting.acks.add(sender)
                if message.held:
                    waiting.holders.add(sender)
        self._conclude()

    def _conclude(self) -> None:
        rounds = self._rounds.items()
        done = [n for n, r in rounds if r.configuration and r.configuration.is_phase2_quorum(r.acks)]
        for number in done:
            waiting = self._rounds.pop(number)
            if waiting.configuration and waiting.configuration.is_phase2_quorum(waiting.holders):
                self.lease.confirmed(waiting.begun_us, waiting.configuration)
            for asker, read_id in waiting.askers:
                self._grant(asker, read_id, waiting.index)

    def step_down(self) -> None:
        """This node leads no more: every read it held must be asked again."""
        self.lease.step_down()
        askers = [asker for r in self._rounds.values() for asker in r.askers] + self._arrived
        self._rounds = {}
        self._arrived = []
        for asker, read_id in askers:
            self._grant(asker, read_id, 0)

    def expects(self, ballot: Ballot, message: HeartbeatReply) -> bool:
        """Whether a reply is for this leadership and a round that was begun."""
        return message.ballot == ballot and 0 < message.round <= self.round
