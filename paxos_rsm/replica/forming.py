"""How a cluster comes to be: who of the initial members has shown its incarnation so far (rule 9).

Slot 1 names every initial member by its incarnation and needs all of them, so nothing is proposed before all have
met. This is the list of those that have; the streams between servers fill it.

A server that joins a cluster which runs forms nothing: slot 1 was decided long ago, and without it.
"""

from collections.abc import Sequence

from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.quorum import QuorumSizes

__all__ = ["InitialCluster"]


class InitialCluster:
    """The members that must all have met before slot 1 can be decided (rule 9)."""

    def __init__(
        self, cluster_id: int, member_ids: Sequence[int], me: Member, phase2_quorum: int = 0
    ) -> None:
        self._cluster_id = cluster_id
        self._wanted = frozenset(member_ids)
        self._phase2 = phase2_quorum
        self.met: dict[int, Member] = {me.member_id: me}

    @classmethod
    def of_joiner(cls, cluster_id: int, me: Member) -> "InitialCluster":
        """Of a server that joins, or has joined: it is never complete."""
        return cls(cluster_id, (), me)

    @property
    def is_founder(self) -> bool:
        """Whether this server is one of the first members."""
        return bool(self._wanted)

    def meet(self, member: Member) -> Configuration | None:
        """Notes a member; the configuration to form with once all have met."""
        if member.member_id in self._wanted:
            self.met[member.member_id] = member
        return self.complete()

    def complete(self) -> Configuration | None:
        """The configuration to form with, or None while somebody is missing."""
        if self._wanted != self.met.keys():
            return None
        members = tuple(self.met[i] for i in sorted(self.met))
        count = len(members)
        sizes = QuorumSizes.flexible(count, self._phase2) if self._phase2 else QuorumSizes.majority(count)
        return Configuration(self._cluster_id, members, sizes)
