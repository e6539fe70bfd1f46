"""Reads by a quorum, without the leader: an option, off by default.

After Charapko, Ailijiang, Demirbas, *Linearizable Quorum Reads in Paxos*, HotStorage 2019.

A server that does not lead asks every voter for the highest slot in which it holds anything. Once a phase-1 quorum has
answered, the read may be served from a state that has applied the highest of those slots. It is linearizable (rule 8):
what was acknowledged before the question had been accepted by a phase-2 quorum of the configuration K that governs its
slot, durably, and that quorum meets the one that answers, *where K is the configuration that was asked*.

Where it is not, because this server is behind: the change that ended the configuration which it asked was accepted by
a phase-2 quorum of that very configuration before anything beyond it was proposed (rule 10). So the highest slot named
is not below that change, and when it has been applied here the configuration is another one: then the read is asked
again. The same argument holds for the configuration after it, and so on.

An acceptor counts what it has compacted, installed or learned as decided, and slots that it cannot read, too.

It costs one round trip, where the way by the leader costs two, and has to wait for what is accepted and not decided
yet: under way, mostly. But an acceptor that was cut off may hold a vote far above all that the others have proposed
since, and long may pass until that slot is decided. So a read that has waited for some ticks is given back, and for an
election time-out reads go by the leader.

Older versions of paxos_rsm answer the question with a read index (rule 8), or with 0. An index is at least what this
asks for; 0 counts for nothing.
"""

from paxos_rsm.paxos.core import Core
from paxos_rsm.paxos.membership import Configuration
from paxos_rsm.paxos.messages import ReadReply, ReadRequest
from paxos_rsm.paxos.types import NodeId, Slot

__all__ = ["QuorumReads"]


class _Question:
    __slots__ = ("answered", "asked_at", "configuration", "highest", "read_id")

    def __init__(
        self, read_id: int, configuration: Configuration, me: NodeId, highest: Slot, asked_at: int
    ) -> None:
        self.read_id = read_id
        self.configuration = configuration
        self.answered = {me}
        self.highest = highest
        self.asked_at = asked_at


class QuorumReads:
    """See the module's docstring."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._questions: dict[int, _Question] = {}
        self._by_leader_until = 0

    @property
    def are_on(self) -> bool:
        """Whether reads are to be asked this way now."""
        core = self._core
        return (
            core.settings.quorum_reads > 0
            and core.configurations.current is not None
            and core.now >= self._by_leader_until
        )

    def ask(self, number: int, read_id: int) -> None:
        """Asks all voters, for the reads that wait here under ``read_id``."""
        core = self._core
        configuration = core.next_configuration
        if configuration is None:
            core.out.grant(read_id, None)
            return
        self._questions[number] = _Question(read_id, configuration, core.me, core.log.max_slot, core.now)
        others = sorted(configuration.nodes - {core.me})
        core.out.send_all(others, ReadRequest(number, 0, accepted=True))

    def asked(self, sender: NodeId, message: ReadRequest) -> None:
        """Another server asks this acceptor."""
        self._core.out.send(sender, ReadReply(message.read_id, self._core.log.max_slot))

    def answered(self, sender: NodeId, message: ReadReply) -> bool:
        """A voter's word. False where it answers no question of this kind."""
        question = self._questions.get(message.read_id)
        if question is not None and message.index:
            question.answered.add(sender)
            question.highest = max(question.highest, message.index)
        return question is not None

    def turn(self) -> None:
        """Grants what a quorum has answered and this server has caught up with. Called once a turn."""
        if not self._questions:
            return
        core = self._core
        through = core.log.decided_through
        for number, question in list(self._questions.items()):
            if question.highest > through or not question.configuration.is_phase1_quorum(question.answered):
                continue
            del self._questions[number]
            is_same = question.configuration is core.next_configuration
            core.out.grant(question.read_id, question.highest if is_same else None)

    def tick(self) -> None:
        """Gives back what has waited for too long."""
        core = self._core
        latest = core.now - core.settings.retransmit_ticks
        for number in [n for n, q in self._questions.items() if q.asked_at <= latest]:
            core.out.grant(self._questions.pop(number).read_id, None)
            self._by_leader_until = core.now + core.settings.election_ticks
