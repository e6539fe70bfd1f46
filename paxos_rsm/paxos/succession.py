"""Who leads next, where the leader goes of its own accord.

It picks a voter that is close, opens no slot for anything new, and waits until that one has accepted all that is in
flight; then it says so (:class:`~paxos_rsm.paxos.messages.HandOver`), and the voter stands at once, without asking
who misses a leader. Phase 1 finds what was in flight with it, and the old leader gives way to the higher ballot like
any other. Nothing waits for a tick on the way: what the cluster is without a leader is one message and one phase 1.

Nothing depends on it but time. Where the voter does not come to lead within one election time-out, the leader goes
on.
"""

from paxos_rsm.paxos.core import Core
from paxos_rsm.paxos.election import Election
from paxos_rsm.paxos.leases import Lease
from paxos_rsm.paxos.messages import HandOver
from paxos_rsm.paxos.proposer import Proposer
from paxos_rsm.paxos.types import NodeId, Slot

__all__ = ["Succession"]


class Succession:
    """See the module's docstring."""

    def __init__(self, core: Core, proposer: Proposer, election: Election, lease: Lease) -> None:
        self._core = core
        self._lease = lease
        self._proposer = proposer
        self._election = election
        self._heir: NodeId | None = None
        self._since = 0
        self._told = False

    @property
    def heir(self) -> NodeId | None:
        """To whom the leadership is being handed over."""
        return self._heir

    def begin(self, to: NodeId | None) -> NodeId | None:
        """Hands over to ``to``, or to whoever is closest; says to whom, None where that cannot be.

        Asked again while it is under way, it goes on as it is.
        """
        if not self._proposer.leading:
            return None
        if self._heir is not None and to in (None, self._heir):
            return self._heir
        able = self._able()
        if to is None:
            to = max(able, key=self._holds, default=None)
        if to is None or to not in able:
            return None
        self._heir, self._since, self._told = to, self._core.now, False
        self._proposer.paused = True
        return to

    def turn(self) -> None:
        """Tells the heir, once it holds everything. Called once a turn, when all that goes out has been proposed."""
        if self._heir is None or self._told or not self._proposer.leading:
            return
        if self._holds(self._heir) >= self._proposer.next_slot - 1:
            self._told = True
            self._lease.give_up()
            self._core.out.send(self._heir, HandOver(self._proposer.ballot))

    def leave(self) -> None:
        """This leader was removed: whoever is closest is to stand at once. The caller steps down."""
        heir = max(self._able(), key=self._holds, default=None)
        if heir is not None:
            self._lease.give_up()
            self._core.out.send(heir, HandOver(self._proposer.ballot))

    def tick(self) -> None:
        """Ends the patience."""
        if self._heir is not None and self._core.now - self._since > self._core.settings.election_ticks:
            self._proposer.paused = False
            self._heir = None

    def step_down(self) -> None:
        """This node leads no more."""
        self._heir = None

    def _able(self) -> list[NodeId]:
        """The other voters that this node hears and that hear it."""
        configuration = self._core.next_configuration
        links = self._election.links() - {self._core.me}
        return sorted(configuration.nodes.intersection(links)) if configuration is not None else []

    def _holds(self, node: NodeId) -> Slot:
        """Up to which slot ``node`` holds what this leader has proposed, about: a hole is for phase 1 to fill."""
        peer = self._election.peers.get(node)
        return max(self._proposer.acked.get(node, 0), peer.decided_through if peer is not None else 0)
