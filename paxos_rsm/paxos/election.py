"""Who is there, who leads, and when to stand.

Every member sends every member a heartbeat that says whom it hears (*reach*), whom it follows, and whether it has
a leader it would not see disturbed. From the last heartbeat of each, a node knows without asking:

- its *links*: those it hears that also hear it. A node whose links are no quorum does not stand, and a leader
  whose links are no quorum steps down;
- the *leader*: of those that say they lead, and hear a quorum, the one with the highest ballot;
- the *pre-vote*: a node stands only where a quorum of its links says that it, too, misses a leader (Ongaro's
  thesis, section 9.6) and knows of nobody on the way to become one. A member that flaps, or that alone has lost the
  leader, disturbs nobody;
- that it is *outranked*: a leader cut from the one that replaced it hears of that one from the members that follow it,
  and goes, instead of fighting for its place.

That is enough for the three cases of partial connectivity in the OmniPaxos paper (Ng, Haridi, Carbone, EuroSys
2023, section 2): quorum-loss (the old leader reports no quorum of reach, so it counts as missing to the one server
that all can reach), constrained election (that server stands though its log is behind, and phase 1 brings it up),
chained (the far end of the chain has no quorum that misses the leader, so it never stands; a leader at one end that the
middle has left is outranked).

Two proposers cannot duel for ever: a node waits a random time before it stands, and longer after each attempt that
failed; who has promised to a candidate *supports* it for one election time-out, in which it neither stands nor lets
others; and a new leader has twice the usual time for its first decision, since a leadership that ends before the first
Accepted could arrive only feeds the duel.
"""

from paxos_rsm.paxos.core import Core
from paxos_rsm.paxos.membership import Configuration
from paxos_rsm.paxos.messages import Heartbeat
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, NodeId, Slot

__all__ = ["Election", "Peer"]

BACKOFF_DOUBLINGS_MAX = 2
"""Four election time-outs at most: a longer wait would keep a cluster that has healed without a leader."""
NEVER = -(1 << 60)


class Peer:
    """What one other member last said."""

    __slots__ = ("decided_through", "follows", "heard_at", "leader_alive", "leads", "reach")

    def __init__(self) -> None:
        self.heard_at = NEVER
        self.leads: Ballot | None = None
        self.follows = NO_BALLOT
        self.leader_alive = False
        self.decided_through: Slot = 0
        self.reach: frozenset[NodeId] = frozenset()


class Election:
    """Failure detection and candidacy. Holds opinions only: safety never depends on it."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.peers: dict[NodeId, Peer] = {}
        self.attempts = 0
        self.stand_at = core.random.randint(1, core.settings.election_ticks)
        self.supports_until = 0
        self._heartbeat_at = 0
        self._linked_at = 0
        self.max_round = 0
        """The highest round heard of in any ballot."""
        self._content_since: int | None = None

    # ---- what is heard ---------------------------------------------------------------------------------------

    def heard(self, sender: NodeId) -> Peer:
        """Any message is a sign of life."""
        peer = self.peers.get(sender)
        if peer is None:
            peer = self.peers[sender] = Peer()
        peer.heard_at = self._core.now
        return peer

    def heard_leader(self, sender: NodeId, ballot: Ballot) -> None:
        """An Accept or Decide: its sender leads ``ballot``, whatever its last heartbeat said."""
        peer = self.heard(sender)
        if peer.leads is None or peer.leads < ballot:
            peer.leads = ballot
        self.note_round(ballot)

    def heartbeat(self, sender: NodeId, message: Heartbeat) -> None:
        """What a member says of itself."""
        peer = self.heard(sender)
        peer.leads = message.ballot if message.leading else None
        peer.follows = message.ballot
        peer.leader_alive = message.leader_alive
        peer.decided_through = message.decided_through
        peer.reach = message.reach
        self.note_round(message.ballot)
        self.note_round(message.promised)

    def lost(self, node: NodeId) -> None:
        """The streams to a node have broken: it is absent until it is heard again."""
        self.peers.pop(node, None)

    def note_round(self, ballot: Ballot) -> None:
        """Remembers how high rounds have gone, so that the next candidacy goes above."""
        self.max_round = max(self.max_round, ballot.round)

    # ---- what follows from it --------------------------------------------------------------------------------

    def fresh(self, node: NodeId) -> bool:
        """Heard within one election time-out."""
        peer = self.peers.get(node)
        return peer is not None and self._core.now - peer.heard_at <= self._core.settings.election_ticks

    def reach(self) -> frozenset[NodeId]:
        """Whom this node hears, itself included."""
        return frozenset([self._core.me, *(n for n in self._core.others if self.fresh(n))])

    def links(self) -> set[NodeId]:
        """Whom this node hears and is heard by, itself included."""
        me = self._core.me
        return {me, *(n for n in self._core.others if self.fresh(n) and me in self.peers[n].reach)}

    def leader(self) -> tuple[NodeId, Ballot] | None:
        """The live leader that this node hears, if there is one."""
        configuration = self._core.next_configuration
        if configuration is None:
            return None
        best: tuple[NodeId, Ballot] | None = None
        for node in self._core.others:
            peer = self.peers.get(node)
            if peer is None or peer.leads is None or not self.fresh(node):
                continue
            if peer.leads.node != node or not configuration.is_phase2_quorum(peer.reach):
                continue
            if best is None or peer.leads > best[1]:
                best = node, peer.leads
        return best

    def route(self) -> NodeId | None:
        """Where frames and reads go: the leader, or a member that hears it (one hop)."""
        leader = self.leader()
        if leader is not None:
            return leader[0]
        best: tuple[Ballot, NodeId] | None = None
        for node in self._core.others:
            if not self.fresh(node):
                continue
            follows = self.peers[node].follows
            if follows.node not in (NO_BALLOT.node, self._core.me, node) and (
                best is None or (follows, node) > best
            ):
                best = follows, node
        return best[1] if best else None

    def outranked(self, ballot: Ballot) -> bool:
        """Whether a member that this node hears follows the leader of a higher ballot than ``ballot``."""
        return any(self.fresh(n) and self.peers[n].follows > ballot for n in self._core.others)

    def quorum_age_ticks(self) -> int | None:
        """Since a phase-2 quorum, this node included, was last heard; None where it never was."""
        configuration = self._core.next_configuration
        if configuration is None:
            return None
        heard: list[NodeId] = []
        for age, node in sorted(
            [(0, self._core.me), *((self._core.now - p.heard_at, n) for n, p in self.peers.items())]
        ):
            heard.append(node)
            if configuration.is_phase2_quorum(heard):
                return age
        return None

    # ---- when to stand ---------------------------------------------------------------------------------------

    def content(self) -> None:
        """There is a leader. Once that has held for an election time-out, failed attempts are forgotten."""
        if self._content_since is None:
            self._content_since = self._core.now
        elif self._core.now - self._content_since >= self._core.settings.election_ticks:
            self.attempts = 0

    def missing(self) -> None:
        """There is no leader: where there was one, start a random wait."""
        if self._content_since is not None:
            self._content_since = None
            self.wait()

    def wait(self) -> None:
        """Stand no sooner than after a random time, up to an election time-out."""
        self.stand_at = self._core.now + self._core.random.randint(1, self._core.settings.election_ticks)

    def give_way(self) -> None:
        """An attempt has failed, or a leadership: wait a random time, longer with every attempt."""
        most = self._core.settings.election_ticks << min(self.attempts, BACKOFF_DOUBLINGS_MAX)
        self.stand_at = self._core.now + self._core.random.randint(most // 2 + 1, most + 1)
        self._content_since = None

    def support(self) -> None:
        """A candidate has this node's promise: it gets the time that phase 1 takes, undisturbed."""
        ticks = self._core.settings.election_ticks
        self.supports_until = self._core.now + ticks
        self.stand_at = max(self.stand_at, self.supports_until + self._core.random.randint(1, ticks))

    @property
    def supports(self) -> bool:
        """Whether there is a candidate that this node would not see disturbed."""
        return self._core.now < self.supports_until

    def should_stand(self, configuration: Configuration) -> bool:
        """Whether the wait is over, the links are there, and a quorum of them misses a leader, too."""
        if self._core.now < self.stand_at or self.supports or self._core.me not in configuration.nodes:
            return False
        links = self.links()
        if not configuration.is_phase2_quorum(links):
            return False
        missing = {n for n in links if n == self._core.me or not self.peers[n].leader_alive}
        return configuration.is_phase1_quorum(missing)

    def next_ballot(self, promised: Ballot) -> Ballot:
        """A ballot above every one heard of, never used before: ``promised`` is durable (rule 2)."""
        self.attempts += 1
        self.max_round = max(self.max_round, promised.round) + 1
        return Ballot(self.max_round, self._core.me)

    def has_lost_links(self, configuration: Configuration, leading: bool) -> bool:
        """Whether the links that it takes to decide, or to be elected, have been missing for one election time-out."""
        links = self.links()
        enough = configuration.is_phase2_quorum if leading else configuration.is_phase1_quorum
        if enough(links):
            self._linked_at = self._core.now
        return self._core.now - self._linked_at > self._core.settings.election_ticks

    def linked(self) -> None:
        """Starts the time-out of :meth:`has_lost_links` anew."""
        self._linked_at = self._core.now

    # ---- heartbeats ------------------------------------------------------------------------------------------

    def heartbeat_due(self) -> bool:
        """Whether it is time for the next one."""
        if self._core.now < self._heartbeat_at:
            return False
        self._heartbeat_at = self._core.now + self._core.settings.heartbeat_ticks
        return True
