"""What a node says of itself to those who drive it and look on: to be read only."""

from paxos_rsm.paxos.core import Core
from paxos_rsm.paxos.election import Election
from paxos_rsm.paxos.log import SlotLog
from paxos_rsm.paxos.membership import Configuration
from paxos_rsm.paxos.proposer import Phase, Proposer
from paxos_rsm.paxos.reconfiguration import Reconfiguration
from paxos_rsm.paxos.settings import Settings
from paxos_rsm.paxos.types import Ballot, NodeId, Slot

__all__ = ["NodeView"]


class NodeView:
    """The half of a node that changes nothing."""

    _core: Core
    proposer: Proposer
    election: Election
    reconfiguration: Reconfiguration

    @property
    def me(self) -> NodeId:
        """This incarnation."""
        return self._core.me

    @property
    def settings(self) -> Settings:
        """What it was made with."""
        return self._core.settings

    @property
    def log(self) -> SlotLog:
        """The slot log, to be read only."""
        return self._core.log

    @property
    def decided_through(self) -> Slot:
        """The contiguous watermark."""
        return self._core.log.decided_through

    @property
    def compacted_through(self) -> Slot:
        """Slots up to here are gone."""
        return self._core.log.compacted_through

    @property
    def configuration(self) -> Configuration | None:
        """What the log has decided; None before the genesis entry."""
        return self._core.configurations.current

    @property
    def role(self) -> str:
        """``leader``, ``candidate``, ``follower``, or ``forming`` before the genesis entry."""
        if self.configuration is None:
            return "forming"
        return {Phase.LEADING: "leader", Phase.PREPARING: "candidate", Phase.IDLE: "follower"}[
            self.proposer.phase
        ]

    @property
    def may_campaign(self) -> bool:
        """Whether there is a configuration to stand in, and this node is in it."""
        configuration = self._core.next_configuration
        return configuration is not None and self.me in configuration.nodes

    @property
    def removed(self) -> bool:
        """Whether this node was removed and nobody needs it any more: its driver is to stop the server."""
        return self.reconfiguration.done

    @property
    def leader(self) -> tuple[NodeId, Ballot] | None:
        """Who leads, as far as this node knows, and in which ballot."""
        way = self.way
        return None if way is None else (way[0], way[1])

    @property
    def way(self) -> tuple[NodeId, Ballot, NodeId] | None:
        """Who leads, in which ballot, and which node hands on to it what this one has: itself, mostly."""
        if self.proposer.leading:
            return self.me, self.proposer.ballot, self.me
        direct = self.election.leader()
        if direct is not None:
            return *direct, direct[0]
        route = self.election.route()
        if route is None:
            return None
        follows = self.election.peers[route].follows
        return follows.node, follows, route

    @property
    def leader_age_ticks(self) -> int | None:
        """Since the last word from the leader, or from the member that reaches it; None where there is none.

        At the leader itself: since it last heard a quorum, for another may lead where nobody hears this one.
        """
        if self.proposer.leading:
            return self.election.quorum_age_ticks()
        route = self.election.route()
        return None if route is None else self._core.now - self.election.peers[route].heard_at
