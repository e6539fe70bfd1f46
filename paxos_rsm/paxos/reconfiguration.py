"""Changes of the members, on their way to the leader and at it.

At the leader they wait in a queue, for one is under way at a time: the next configuration is worked out of the one
that is decided when its turn comes, once an entry of this leader's own ballot is decided. (Why that is enough:
changes.py.) The leader also makes changes of its own: it binds a process that was met to the member that was added
for it, and makes learners that have caught up voters, where that was asked when they were added.

Any other server hands a request on to the leader, over one hop at most, as it does with frames. What is refused is
answered along the same way; so is what has been decided. A refusal, or word that there is nothing to do, is an answer
out of what the leader knows, and it may have been replaced: it leaves when a quorum has confirmed that it leads, like
the answer to a read (rule 8). No answer comes where a leader or a message is lost: whoever
asked asks again *under the same number*, and is answered for what was done the first time.

A member that was removed is answered when it shows itself, so that it learns of that, though nobody sends it
anything any more; see changes.py on when it may stop.
"""

from collections import deque
from dataclasses import dataclass

from paxos_rsm.errors import MembershipRefused
from paxos_rsm.paxos.changes import (
    Change,
    JoinMember,
    PromoteMember,
    Reason,
    RemoveMember,
    changed,
    check_reach,
)
from paxos_rsm.paxos.core import Core
from paxos_rsm.paxos.election import Election
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.messages import ChangeReply, ChangeRequest, Decide
from paxos_rsm.paxos.proposer import Proposer
from paxos_rsm.paxos.reads import NOBODY, Reads
from paxos_rsm.paxos.ready import ChangeAnswer
from paxos_rsm.paxos.types import ConfigChange, NodeId, Slot

__all__ = ["CHANGES_WAITING_MAX", "Reconfiguration"]

CHANGES_WAITING_MAX = 256
CLOSE_WINDOWS = 4
"""A learner has caught up when it is so many windows of slots behind, or less: a follower is, of a busy leader."""
CLOSE_HEARTBEATS = 3
"""For so many of its heartbeats one after another: then it becomes a voter by itself."""
NO_LEADER = "no leader is known, or it is another now: ask again, with the same number"


@dataclass(frozen=True, slots=True)
class _Asked:
    """A change that somebody waits for."""

    asker: NodeId
    request_id: int
    change: Change


class Reconfiguration:
    """See the module's docstring."""

    def __init__(self, core: Core, proposer: Proposer, election: Election, reads: Reads) -> None:
        self._core = core
        self._proposer = proposer
        self._election = election
        self._reads = reads
        self._waiting: deque[_Asked] = deque()
        self._under_way: _Asked | None = None
        self._relayed: dict[int, tuple[NodeId, int]] = {}
        """Requests that were handed on for others: for whom, and when."""
        self._close: dict[NodeId, int] = {}
        """Of learners: for how many heartbeats they have been close."""
        self._seen: Configuration | None = None

    # ---- at any server -----------------------------------------------------------------------------------------

    def ask(self, request_id: int, change: Change) -> None:
        """A change that was asked for at this server."""
        self._take(_Asked(self._core.me, request_id, change), 0)

    def joined(self, member: Member) -> int:
        """A process was met that says it is a member which has yet to join; the number of the request."""
        request_id = self._number()
        self.ask(
            request_id,
            JoinMember(
                member.member_id, member.incarnation, member.name, member.client_urls, member.peer_url
            ),
        )
        return request_id

    def requested(self, sender: NodeId, message: ChangeRequest) -> None:
        """A change that another server was asked for, or hands on."""
        self._take(_Asked(sender, message.request_id, message.change), message.hops)

    def replied(self, sender: NodeId, message: ChangeReply) -> None:
        """What became of a request that was handed on."""
        asker, _ = self._relayed.pop(message.request_id, (NOBODY, 0))
        self._tell(asker, ChangeAnswer(message.request_id, message.refusal, message.reason))

    def _take(self, asked: _Asked, hops: int) -> None:
        core = self._core
        if self._proposer.leading:
            self._queue(asked)
            return
        route = self._election.route()
        if route is None or route == asked.asker or hops:
            self._refuse(asked, Reason.UNAVAILABLE, NO_LEADER)
            return
        self._relayed[asked.request_id] = asked.asker, core.now
        core.out.send(route, ChangeRequest(asked.request_id, asked.change, int(asked.asker != core.me)))

    def _refuse(self, asked: _Asked, reason: int, message: str) -> None:
        self._tell(asked.asker, ChangeAnswer(asked.request_id, message, int(reason)))

    def _tell(self, asker: NodeId, answer: ChangeAnswer) -> None:
        if asker == self._core.me:
            self._core.out.answer_change(answer)
        elif asker != NOBODY:
            self._core.out.send(asker, ChangeReply(*answer))

    def forget(self) -> None:
        """What was handed on too long ago is not answered any more (on a tick)."""
        latest = self._core.now - 4 * self._core.settings.election_ticks
        for request_id in [n for n, (_, at) in self._relayed.items() if at < latest]:
            del self._relayed[request_id]

    # ---- those that are no members (any more) --------------------------------------------------------------------

    def is_removed(self, node: NodeId) -> bool:
        """Whether a decided change has removed ``node``, as a member sees it."""
        configuration = self._core.configurations.current
        if configuration is None or not configuration.removed:
            return False
        return node in configuration.removed and self._core.me not in configuration.removed

    @property
    def done(self) -> bool:
        """Whether this node was removed, and a phase-2 quorum of those that are left has told it that they know."""
        configuration = self._core.configurations.current
        if configuration is None or self._core.me not in configuration.removed:
            return False
        changed_in = self._core.configurations.changed_in
        peers = self._election.peers.items()
        return configuration.is_phase2_quorum([n for n, p in peers if p.decided_through >= changed_in])

    # ---- at the leader -------------------------------------------------------------------------------------------

    def heard(self, node: NodeId, decided_through: Slot) -> None:
        """A heartbeat: how far a learner is."""
        configuration = self._core.configurations.current
        if configuration is None or node in configuration.nodes:
            return
        behind = self._core.log.decided_through - decided_through
        is_close = self._proposer.leading and behind <= CLOSE_WINDOWS * self._core.settings.window_slots
        self._close[node] = self._close.get(node, 0) + 1 if is_close else 0

    def turn(self) -> None:
        """Proposes the next change, where its turn has come. Called once a turn, before frames are proposed."""
        configuration = self._core.configurations.current
        if configuration is None:
            return
        if configuration is not self._seen:
            self._notice(configuration)
        if not self._proposer.leading:
            return
        if self._close:
            self._promote(configuration)
        while self._waiting and self._proposer.may_change():
            self._propose(configuration, self._waiting.popleft())

    def _notice(self, configuration: Configuration) -> None:
        """Another configuration governs. Those that it has removed hear of it at once, where this node leads."""
        core, before = self._core, self._seen
        self._seen = configuration
        done, self._under_way = self._under_way, None
        if done is not None:
            self._tell(done.asker, ChangeAnswer(done.request_id, "", Reason.DONE))
        self._close = {n: count for n, count in self._close.items() if n in configuration.everybody}
        if before is not None and self._proposer.leading:
            gone = sorted(before.everybody - configuration.everybody - {core.me})
            core.out.send_all(gone, Decide(self._proposer.ballot, core.log.decided_through))

    def _promote(self, configuration: Configuration) -> None:
        for member in configuration.members:
            if member.promote and self._close.get(member.incarnation, 0) >= CLOSE_HEARTBEATS:
                self._queue(_Asked(NOBODY, self._number(), PromoteMember(member.member_id)))

    def _queue(self, asked: _Asked) -> None:
        same = [self._under_way] if self._under_way is not None else []
        for other in (*same, *self._waiting):
            if other.request_id == asked.request_id:
                return
            if other.change == asked.change and asked.asker == NOBODY:
                return
        if len(self._waiting) >= CHANGES_WAITING_MAX:
            self._refuse(asked, Reason.UNAVAILABLE, "too many changes of the members wait already: ask again")
            return
        self._waiting.append(asked)

    def _number(self) -> int:
        return self._core.random.randint(1, (1 << 63) - 1)

    def _propose(self, configuration: Configuration, asked: _Asked) -> None:
        try:
            following = changed(configuration, asked.change, asked.request_id)
            if type(asked.change) is RemoveMember:
                check_reach(configuration, following, self._election.reach())
            if type(asked.change) is PromoteMember and following is not configuration:
                self._check_close(configuration, asked.change.member_id)
        except MembershipRefused as refusal:
            self._say(asked, ChangeAnswer(asked.request_id, str(refusal), int(refusal.reason)))
            return
        if following is configuration:
            self._say(asked, ChangeAnswer(asked.request_id, "", Reason.DONE))
            return
        self._under_way = asked
        self._proposer.change(ConfigChange(following))

    def _say(self, asked: _Asked, answer: ChangeAnswer) -> None:
        """Answers out of what this leader knows, once it is sure that it led when it looked."""

        def confirmed(has_led: bool) -> None:
            if has_led:
                self._tell(asked.asker, answer)
            else:
                self._refuse(asked, Reason.UNAVAILABLE, NO_LEADER)

        configuration = self._core.configurations.current
        if configuration is not None and asked.request_id in configuration.changes:
            self._tell(asked.asker, answer)  # it is decided, whoever leads
        elif asked.asker != NOBODY:
            self._reads.confirm(confirmed)

    def _check_close(self, configuration: Configuration, member_id: int) -> None:
        member = configuration.by_member_id(member_id)
        node = member.incarnation if member is not None else NOBODY
        if not self._close.get(node) or not self._election.fresh(node):
            raise MembershipRefused(
                f"member {member_id:x} is not in sync with the leader yet: wait until it has caught up",
                Reason.LEARNER_NOT_READY,
            )

    def step_down(self) -> None:
        """This node leads no more: whoever waits asks again."""
        waiting = [*([self._under_way] if self._under_way is not None else []), *self._waiting]
        self._waiting.clear()
        self._under_way = None
        self._close = {}
        for asked in waiting:
            self._refuse(asked, Reason.UNAVAILABLE, NO_LEADER)
