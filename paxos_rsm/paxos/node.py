"""One server's protocol, as a whole.

A :class:`Node` is a deterministic machine: messages (:meth:`Node.step`), ticks, frames and reads go in; after each
turn its driver takes one :class:`~paxos_rsm.paxos.ready.Ready` and does what that says, in the order that it says.
The node never waits, knows no clock, and draws chance only from what it was given; two nodes that are given the
same inputs say the same things.

The parts: :mod:`~paxos_rsm.paxos.acceptor` promises and votes, :mod:`~paxos_rsm.paxos.proposer` runs both phases,
:mod:`~paxos_rsm.paxos.learner` knows what is decided, :mod:`~paxos_rsm.paxos.election` who should lead,
:mod:`~paxos_rsm.paxos.reads` when a read may be served, :mod:`~paxos_rsm.paxos.reconfiguration` how the members change,
and :mod:`~paxos_rsm.paxos.succession` hands the leadership over. This module is where they meet: which message concerns
whom, and what a higher ballot does to a proposer.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from paxos_rsm.errors import InvariantViolation
from paxos_rsm.paxos import messages as m
from paxos_rsm.paxos.acceptor import Acceptor
from paxos_rsm.paxos.changes import Change
from paxos_rsm.paxos.core import Core, Randomness
from paxos_rsm.paxos.election import Election
from paxos_rsm.paxos.learner import Learner
from paxos_rsm.paxos.log import SlotState
from paxos_rsm.paxos.membership import Base, Configuration, Member
from paxos_rsm.paxos.proposer import Phase, Proposer
from paxos_rsm.paxos.reads import Reads
from paxos_rsm.paxos.ready import Ready, WriteCompacted
from paxos_rsm.paxos.reconfiguration import Reconfiguration
from paxos_rsm.paxos.settings import Settings
from paxos_rsm.paxos.succession import Succession
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Entry, NodeId, Slot
from paxos_rsm.paxos.views import NodeView

__all__ = ["FORWARD_FRAMES_MAX", "Node"]

FORWARD_FRAMES_MAX = 1 << 16
"""In one Forward: below what a receiver takes for a message that makes sense."""


class Node(NodeView):
    """See the module's docstring.

    ``promised``, ``votes``, ``decided_through`` and ``compacted_through`` are what the log on disk held: a vote without
    a ballot (None) is a decision that was learned from others. ``base`` is what the state machine starts from; where
    the log was compacted and there is none that reaches as far, nothing is released before :meth:`install`.

    In the ``unreadable`` slots something was accepted or decided that the disk does not give back. ``restored``: the
    first members began with a state that was restored, not with an empty one. ``missing``: that state is not here (any
    more), so nothing is released before :meth:`install` either, wherever the log starts. ``hold_owed_us``: how long an
    earlier process of this member may have promised to promise nobody else (leases.py).
    """

    def __init__(
        self,
        me: NodeId,
        settings: Settings,
        random: Randomness,
        *,
        promised: Ballot = NO_BALLOT,
        votes: Mapping[Slot, tuple[Ballot | None, Entry]] | None = None,
        decided_through: Slot = 0,
        compacted_through: Slot = 0,
        unreadable: Collection[Slot] = (),
        base: Base | None = None,
        restored: bool = False,
        missing: bool = False,
        hold_owed_us: int = 0,
    ) -> None:
        settings.validate()
        self._core = core = Core(me, settings, random)
        core.restored = restored
        for slot, (ballot, entry) in (votes or {}).items():
            decided = ballot is None or slot <= decided_through
            core.log.put(slot, SlotState(NO_BALLOT if decided else ballot or NO_BALLOT, entry, decided))
        core.log.lose(unreadable)
        self.acceptor = Acceptor(core, promised, hold_owed_us)
        self.learner = Learner(core, decided_through)
        self._start_from(base, decided_through, compacted_through, missing)
        self.learner.advance()
        if core.log.decided_through < decided_through and not core.log.unreadable:
            raise InvariantViolation(
                f"the log says that slots up to {decided_through} are decided, but does not hold slot "
                f"{core.log.decided_through + 1}"
            )
        self.proposer = Proposer(core, self.acceptor, self.learner)
        self.election = Election(core)
        self.election.note_round(promised)
        self.reads = Reads(core)
        self.reconfiguration = Reconfiguration(core, self.proposer, self.election, self.reads)
        self.succession = Succession(core, self.proposer, self.election, self.reads.lease)
        self._told_alive = False
        self._behind: tuple[NodeId, Slot] = me, 0
        """A member that has compacted slots which this one, leading, proposes: and up to where."""
        self._handlers: dict[type, Callable[[NodeId, Any], None]] = {
            m.Prepare: self._prepare,
            m.Promise: self._promise,
            m.Accept: self._accept,
            m.Accepted: self._accepted,
            m.Nack: self._nack,
            m.Decide: self._decide,
            m.Heartbeat: self._heartbeat,
            m.HeartbeatReply: self._heartbeat_reply,
            m.CatchUp: self._catch_up,
            m.CatchUpReply: self._catch_up_reply,
            m.Forward: self._forward,
            m.ReadRequest: self._read_request,
            m.ReadReply: self.reads.answered,
            m.ChangeRequest: self.reconfiguration.requested,
            m.ChangeReply: self.reconfiguration.replied,
            m.HandOver: self._hand_over,
        }

    def _start_from(
        self, base: Base | None, decided_through: Slot, compacted_through: Slot, missing: bool
    ) -> None:
        log = self._core.log
        if base is not None and base.slot >= compacted_through:
            if base.slot > decided_through or any(slot <= base.slot for slot in log.unreadable):
                # It was taken, or fetched, just before a crash: what the log holds of these slots may be other votes.
                # Or the log has a hole there that nobody needs to fill: it goes on after the snapshot.
                log.install(base.slot)
                self.learner.installed(base.slot)
            else:
                log.start(base.slot, compacted_through)
            self._core.configurations.install(base)
        elif compacted_through:
            log.start(compacted_through, compacted_through)
            log.held = True
        else:
            log.held = missing

    # ---- what happens to it ----------------------------------------------------------------------------------

    def meet(self, forming: Configuration) -> None:
        """All initial members have met: slot 1 may be proposed to them (rule 9)."""
        forming.validate()
        configurations = self._core.configurations
        if self.configuration is not None or configurations.forming == forming:
            return
        if self.decided_through:
            return  # Its state is on the way: it is a member of a cluster that has formed.
        if self.proposer.phase is not Phase.IDLE:
            # What was asked of the members as they were must be asked anew of those that there are now.
            self._step_down()
        configurations.meet(forming)
        self.election.wait()

    def step(self, sender: NodeId, message: m.Message) -> None:
        """A message from a peer, or the node's own vote come back durable."""
        if sender != self.me:
            self.election.heard(sender)
        self._handlers[type(message)](sender, message)

    def peer_up(self, node: NodeId) -> None:
        """Streams to a peer stand again: what it owes goes out at once."""
        if self.proposer.leading:
            self.proposer.resend_to(node)

    def peer_down(self, node: NodeId) -> None:
        """Streams to a peer have broken: it counts as absent until it is heard again."""
        self.election.lost(node)

    def propose(self, frames: Sequence[bytes]) -> int:
        """Sends frames on their way into the log, from the first on, and says how many; it promises nothing.

        Not all where this node leads and has too many waiting already, none where there is no way now. Whoever owns
        the frames sends them again until it sees them applied.
        """
        if self.proposer.leading:
            return self.proposer.offer(frames)
        route = self.election.route()
        if route is None:
            return 0
        for part in _parts(frames, self._core.settings.entry_bytes_max):
            self._core.out.send(route, m.Forward(part))
        return len(frames)

    def read(self, read_id: int) -> None:
        """Asks for a read index; the answer is a ``ReadGranted`` in some later Ready."""
        route = self.election.route()
        if self.proposer.leading:
            self.reads.arrive(self.me, read_id)
        elif self.reads.quorum.are_on:
            self.reads.ask_quorum(read_id)
        elif route is None:
            self._core.out.grant(read_id, None)
        else:
            self.reads.ask(route, self.me, read_id, 0)

    def ready(self, clock_us: int | None = None) -> Ready:
        """What this turn asks the driver to do, all that came having been stepped *before* its clock was read."""
        proposer, core = self.proposer, self._core
        self.acceptor.holds.read_clock(clock_us)
        self.reconfiguration.turn()
        proposer.pump()
        if proposer.outgrown or proposer.has_missed_a_change():
            proposer.announce()
            self._prepare_anew()
        if self.reads.begin_round(proposer.leading and core.log.decided_through >= proposer.recovery_end):
            core.out.send_all(core.others, self._beat())
        proposer.announce()
        self.succession.turn()
        if proposer.leading and not self.may_campaign:
            self.succession.leave()
            self._step_down()
        if core.out.has_writes:
            self.learner.mark()
        return core.out.take(core.log)

    # ---- members and leadership ------------------------------------------------------------------------------

    def change(self, request_id: int, change: Change) -> None:
        """Asks for a change of the members, here or at the leader; asked again under one number it is done once.

        It is done when a decided configuration has ``request_id`` among its ``changes``. A refusal comes in
        ``Ready.change_replies``. Where neither comes within a few election time-outs, ask again under the same number.
        """
        self.reconfiguration.ask(request_id, change)

    def joined(self, member: Member) -> int:
        """A process was met that says it is ``member``, which was added and has yet to join: the first one is bound.

        May be said again and again, at any server, until the configuration says so. The number of the request.
        """
        return self.reconfiguration.joined(member)

    def hand_over(self, to: NodeId | None = None) -> NodeId | None:
        """Hands the leadership over to ``to``, or to whoever is closest: to whom. None where that cannot be.

        Until that one leads, nothing new is proposed; after one election time-out in vain this node goes on.
        """
        return self.succession.begin(to)

    # ---- snapshots -------------------------------------------------------------------------------------------

    def base(self, slot: Slot) -> Base:
        """What a snapshot of ``slot``, which has been released, says of the log."""
        change = self._core.configurations.changed_by(slot)
        if change is None:
            raise InvariantViolation(f"a snapshot of slot {slot} is asked for, before the genesis entry")
        return Base(slot, *change)

    def compact(self, through: Slot) -> None:
        """A durable snapshot holds every slot up to ``through``, or more: the log forgets them."""
        if through > self._core.log.compacted_through:
            self._core.log.compact(through)
            self._core.out.write(WriteCompacted(through))

    def hold(self, held: bool) -> None:
        """Whether to release nothing, while a snapshot is put in the place of the state (:meth:`install` ends it).

        Such a node votes, but does not stand: it would lead in the middle of it.
        """
        if held and self.proposer.phase is not Phase.IDLE:
            self._step_down()
        self._core.log.held = held

    def may_install(self, slot: Slot) -> bool:
        """Whether a snapshot of ``slot`` would take this node further, and it does not lead (rule 6)."""
        log = self._core.log
        return not self.proposer.leading and (slot > log.released_through - log.held)

    def install(self, base: Base) -> None:
        """The state is that of a snapshot now, which is durable: what lies below is decided, applied and forgotten.

        Promise and votes above stay as they are (rule 7). Raises InvariantViolation unless :meth:`may_install`.
        """
        if not self.may_install(base.slot):
            raise InvariantViolation(
                f"a snapshot of slot {base.slot} is installed at a {self.role} that has released slot "
                f"{self._core.log.released_through}"
            )
        self._core.log.install(base.slot)
        self._core.configurations.install(base)
        self.learner.installed(base.slot)
        self.proposer.covered()

    # ---- time ------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Time goes on by one tick."""
        core = self._core
        core.now += 1
        configuration = core.next_configuration
        if configuration is not None:
            if self.proposer.leading:
                self._tick_leading(configuration)
            elif self.proposer.phase is Phase.PREPARING:
                self._tick_preparing(configuration)
            else:
                self._tick_idle(configuration)
        self.reconfiguration.forget()
        self.reads.forget_asked(None if self.proposer.leading else self.election.route())
        alive = self._alive()
        if self.election.heartbeat_due() or alive != self._told_alive:
            self._told_alive = alive
            core.out.send_all(core.others, self._beat())
            self.learner.mark()
            self._look_for_news()

    def _tick_leading(self, configuration: Configuration) -> None:
        core, proposer, election = self._core, self.proposer, self.election
        patience = core.settings.election_ticks
        self.succession.tick()
        if election.has_lost_links(configuration, True) or election.outranked(proposer.ballot):
            self._step_down()
        elif proposer.refused_by and core.now - proposer.refused_at > patience:
            # A member has promised to somebody who never came to lead: without this it would be shut out for ever.
            self.campaign()
        elif proposer.in_flight and core.now - proposer.decided_at > patience:
            # Its disk or its links are too slow to lead, or what it proposes is decided long since: others go first.
            election.attempts += 1
            self._step_down()
            self.learner.compacted(*self._behind)
        else:
            election.content()
            proposer.retransmit()
            if self.reads.repeat():
                core.out.send_all(core.others, self._beat())

    def _tick_preparing(self, configuration: Configuration) -> None:
        proposer, election = self.proposer, self.election
        patience = self._core.settings.election_ticks
        if (
            election.outranked(proposer.ballot)
            or election.has_lost_links(configuration, False)
            or (proposer.refused_by and self._core.now - proposer.refused_at > patience)
            or self._core.now - proposer.advanced_at > 2 * patience
        ):
            self._step_down()
        else:
            proposer.retry_prepare()

    def _tick_idle(self, configuration: Configuration) -> None:
        if self.election.leader() is not None:
            self.election.content()
            return
        self.election.missing()
        if self.election.should_stand(configuration):
            self.campaign()

    def campaign(self) -> None:
        """Stands for leadership now, in a new ballot: promised by this node itself first, durably (rule 2).

        :meth:`tick` does so in good manners, when it is time and a quorum agrees; safety does not depend on that.
        """
        # What it cannot read it cannot propose again (rule 5): it votes, and learns of those slots from others.
        if self._core.log.held or self._core.log.unreadable or self.acceptor.holds.bind(self.me):
            return  # Held by a lease: somebody serves reads on its word (leases.py).
        self._rest()
        ballot = self.election.next_ballot(self.acceptor.promised)
        self.acceptor.promise(ballot)
        self.election.linked()
        self.proposer.prepare(ballot)

    def resign(self) -> None:
        """Leads no more, where it does: something that the protocol does not see makes it unfit, its disk for one."""
        if self.proposer.leading:
            self.election.attempts += 1
            self._step_down()

    def _step_down(self) -> None:
        """Leads, or stands, no more; frames and reads that waited here are asked again by their owners."""
        self.proposer.give_up()
        self._rest()
        self.election.give_way()

    def _rest(self) -> None:
        """What waits for the leadership that ends here is asked again by its owners."""
        self.reads.step_down()
        self.reconfiguration.step_down()
        self.succession.step_down()

    def _prepare_anew(self) -> None:
        """The members have changed, and this ballot is not one for those that there are now (changes.py)."""
        if self.may_campaign:
            self.campaign()
        else:
            self._step_down()

    def _look_for_news(self) -> None:
        """Without a leader of its own to tell it, a node learns from whoever knows more."""
        peers = self.election.peers.items()
        known = [(n, p.decided_through) for n, p in peers if self.election.fresh(n)]
        if self._core.log.held:
            at_least = max(1, self.compacted_through)
            ahead = sorted([n for n, through in known if through >= at_least])
            if ahead:
                # Any of them: one may be without its state, too, and ask this one.
                chosen = self._core.random.randint(0, len(ahead) - 1)
                self._core.out.fetch_snapshot(ahead[chosen], at_least)
        elif self.election.leader() is None and not self.proposer.leading:
            self.learner.ask(known)

    def _alive(self) -> bool:
        """The pre-vote: whether there is a leader, or somebody on the way to it, that should not be disturbed."""
        return (
            self.proposer.phase is not Phase.IDLE
            or self.election.supports
            or self.election.leader() is not None
        )

    def _beat(self) -> m.Heartbeat:
        leader = self.election.leader()
        leading = self.proposer.leading
        ballot = self.proposer.ballot if leading else leader[1] if leader else NO_BALLOT
        return m.Heartbeat(
            ballot=ballot,
            leading=leading,
            leader_alive=self._alive(),
            decided_through=self._core.log.decided_through,
            round=self.reads.round if leading and self.reads.waiting else 0,
            reach=self.election.reach(),
            promised=self.acceptor.promised,
            hold_us=self.reads.lease.asked_us if leading and self.reads.waiting else 0,
        )

    # ---- phase 1 and 2 ---------------------------------------------------------------------------------------

    def _overtaken(self, ballot: Ballot) -> None:
        """A higher ballot has been promised or is led: whatever this proposer was doing in a lower one is over."""
        if self.proposer.phase is not Phase.IDLE and ballot > self.proposer.ballot:
            self._step_down()

    def _prepare(self, sender: NodeId, message: m.Prepare) -> None:
        if message.ballot.node != sender:
            return
        if self.reconfiguration.is_removed(sender):
            self._tell_removed(sender)
            return
        self.election.note_round(message.ballot)
        if self.acceptor.prepare(sender, message):
            self._overtaken(message.ballot)
            self.election.support()

    def _promise(self, sender: NodeId, message: m.Promise) -> None:
        if self.proposer.phase is not Phase.PREPARING:
            return
        self.proposer.promised(sender, message)
        if self.proposer.leading:
            self.election.linked()
            self._core.out.send_all(self._core.others, self._beat())

    def _accept(self, sender: NodeId, message: m.Accept) -> None:
        if message.ballot.node != sender:
            return
        if message.slot > 1 and self.configuration is None:
            # Rule 9: no vote beyond a genesis entry that this server does not know to be decided. Otherwise a minority
            # that alone knows it could take that knowledge along, and slot 1 needs every member to be decided anew.
            self._follow(sender, message.ballot, message.decided_through)
            if self.configuration is None:
                return
        if not self.acceptor.accept(sender, message):
            return
        self._overtaken(message.ballot)
        self.learner.voted(message.slot, message.ballot)
        self._follow(sender, message.ballot, message.decided_through)

    def _accepted(self, sender: NodeId, message: m.Accepted) -> None:
        proposer = self.proposer
        if not proposer.leading or message.ballot != proposer.ballot:
            return
        if message.slots:
            proposer.acked[sender] = max(proposer.acked.get(sender, 0), message.slots[-1])
        decided = self.learner.tally(sender, message, proposer.in_flight)
        if decided:
            proposer.decided_at = self._core.now
            for slot in decided:
                del proposer.in_flight[slot]

    def _nack(self, sender: NodeId, message: m.Nack) -> None:
        self.election.note_round(message.promised)
        if self.proposer.phase is not Phase.IDLE and message.refused == self.proposer.ballot:
            self._refused(sender, message.promised)

    def _refused(self, sender: NodeId, promised: Ballot) -> None:
        """A member will not follow this ballot any more; without enough of them it is over."""
        proposer = self.proposer
        proposer.refused(sender, promised)
        configuration = self._core.next_configuration
        if configuration is None or sender not in configuration.everybody:
            return
        left = configuration.nodes - proposer.refused_by
        enough = configuration.is_phase2_quorum if proposer.leading else configuration.is_phase1_quorum
        if not enough(left):
            self._step_down()

    def _decide(self, sender: NodeId, message: m.Decide) -> None:
        if message.ballot.node == sender:
            self._follow(sender, message.ballot, message.decided_through)

    def _follow(self, leader: NodeId, ballot: Ballot, decided_through: Slot) -> None:
        """The word of a leader: it is there, and slots up to its watermark are decided (rule 6)."""
        self.election.heard_leader(leader, ballot)
        self._overtaken(ballot)
        if self.proposer.leading:
            return  # A deposed leader's word: what this one knows to be decided it has decided itself (rule 6).
        if self.learner.watermark(ballot, decided_through):
            self.learner.ask([(leader, decided_through)])

    # ---- heartbeats and reads --------------------------------------------------------------------------------

    def _heartbeat(self, sender: NodeId, message: m.Heartbeat) -> None:
        if self.reconfiguration.is_removed(sender):
            self._tell_removed(sender)
            return
        self.election.heartbeat(sender, message)
        self.reconfiguration.heard(sender, message.decided_through)
        if not message.leading or message.ballot.node != sender:
            return
        if message.ballot < self.acceptor.promised:
            self.acceptor.refuse(sender, message.ballot)
        else:
            self._overtaken(message.ballot)
            if message.round:
                held = self.acceptor.holds.give(message.ballot, message.hold_us)
                self._core.out.send(sender, m.HeartbeatReply(message.ballot, message.round, held))
        self._follow(sender, message.ballot, message.decided_through)

    def _tell_removed(self, node: NodeId) -> None:
        """Whoever was removed hears what this node knows, once that is durable: it may stop for it (changes.py)."""
        self.learner.mark()
        self._core.out.send_after_marks(node, self._beat())

    def _hand_over(self, sender: NodeId, message: m.HandOver) -> None:
        if message.ballot.node == sender:
            self.acceptor.holds.given_up(message.ballot)
            self.proposer.given_up = message.ballot
            if message.ballot >= self.acceptor.promised and self.may_campaign:
                self.campaign()

    def _heartbeat_reply(self, sender: NodeId, message: m.HeartbeatReply) -> None:
        if self.proposer.leading and self.reads.expects(self.proposer.ballot, message):
            self.reads.confirmed(sender, message)

    def _forward(self, sender: NodeId, message: m.Forward) -> None:
        if self.proposer.leading:
            self.proposer.offer(message.frames)
            return
        route = self.election.route()
        if message.hops == 0 and route is not None and route != sender:
            self._core.out.send(route, m.Forward(message.frames, 1))

    def _read_request(self, sender: NodeId, message: m.ReadRequest) -> None:
        route = self.election.route()
        if message.accepted:
            self.reads.quorum.asked(sender, message)
        elif self.proposer.leading:
            self.reads.arrive(sender, message.read_id)
        elif message.hops == 0 and route is not None and route != sender:
            self.reads.ask(route, sender, message.read_id, 1)
        else:
            self._core.out.send(sender, m.ReadReply(message.read_id, 0))

    # ---- catching up -----------------------------------------------------------------------------------------

    def _catch_up(self, sender: NodeId, message: m.CatchUp) -> None:
        self.learner.answer(sender, message, self.acceptor.promised)

    def _catch_up_reply(self, sender: NodeId, message: m.CatchUpReply) -> None:
        self.election.note_round(message.promised)
        if not self.proposer.leading:
            self.learner.caught(sender, message)
        elif message.promised > self.proposer.ballot:
            # A leader takes no decision from others while it leads: its watermark would name a slot that it lost to a
            # higher ballot, and a follower that voted there in this one would believe it (rule 6).
            self._refused(sender, message.promised)
        elif message.compacted_through > self.decided_through:
            self._behind = sender, message.compacted_through

    # ---- invariants ------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raises InvariantViolation where anything that must always hold does not. For tests and simulation."""
        self._core.log.check()
        self.learner.check()
        self.proposer.check()
        if self.proposer.phase is not Phase.IDLE and self.acceptor.promised != self.proposer.ballot:
            raise InvariantViolation(
                f"proposes in {self.proposer.ballot} while its own acceptor has promised {self.acceptor.promised}"
            )
        for slot, state in self._core.log.slots.items():
            if state.ballot > self.acceptor.promised:
                raise InvariantViolation(
                    f"slot {slot} holds a vote in {state.ballot}, above {self.acceptor.promised}"
                )


def _parts(frames: Sequence[bytes], bytes_max: int) -> Iterator[tuple[bytes, ...]]:
    """Frames in groups, each of which makes an entry at most: what is larger than a peer takes would never arrive."""
    start = size = 0
    for at, frame in enumerate(frames):
        size += len(frame) + 4
        if at > start and (size > bytes_max or at - start == FORWARD_FRAMES_MAX):
            yield tuple(frames[start:at])
            start, size = at, len(frame) + 4
    if start < len(frames):
        yield tuple(frames[start:])
