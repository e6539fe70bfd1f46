"""The header that every response in etcd's words begins with.

``cluster_id`` and ``member_id`` say who answered, ``raft_term`` in which round of ballots, ``revision`` how new the
store is. The first three only the answering server knows, so they are filled in here and not by the log; the
revision is that of the result where there is one (a transaction's own, a watch's), and the store's newest otherwise.
"""

from collections.abc import Callable

from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm.replica.api import ReplicaHandle

__all__ = ["Headers"]


class Headers:
    """Makes and fills headers; one for all the services of a server."""

    __slots__ = ("_replica", "_revision", "cluster_id", "member_id")

    def __init__(
        self, replica: ReplicaHandle, cluster_id: int, member_id: int, revision: Callable[[], int]
    ) -> None:
        self._replica = replica
        self._revision = revision
        self.cluster_id = cluster_id
        self.member_id = member_id

    def make(self, revision: int | None = None) -> pb.ResponseHeader:
        """A new header; without ``revision`` it has the store's newest."""
        return pb.ResponseHeader(
            cluster_id=self.cluster_id,
            member_id=self.member_id,
            revision=self._revision() if revision is None else revision,
            raft_term=self._replica.ballot.round,
        )

    def fill(self, header: pb.ResponseHeader, revision: int | None = None) -> None:
        """Fills ``header`` in place. Without ``revision`` one that it has already stays; 0 becomes the newest."""
        header.cluster_id = self.cluster_id
        header.member_id = self.member_id
        header.raft_term = self._replica.ballot.round
        if revision is not None:
            header.revision = revision
        elif not header.revision:
            header.revision = self._revision()
