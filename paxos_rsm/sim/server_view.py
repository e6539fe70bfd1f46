"""What a simulated server says of itself to those who play with it: to be read only."""

from typing import NamedTuple

from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.types import NodeId, Slot
from paxos_rsm.replica.replica import Replica
from paxos_rsm.sim.oracle import DiskModel
from paxos_rsm.storage.memory import MemoryFiles
from paxos_rsm.storage.snapshots import snapshot_slot

__all__ = ["DIRECTORY", "SNAPSHOTS", "Copy", "ServerView", "number_of"]

DIRECTORY = "/data"
SNAPSHOTS = f"{DIRECTORY}/snapshots"


def number_of(member_id: int) -> int:
    """The number of the server that is this member; it may have been others before."""
    return member_id % 100


class Copy(NamedTuple):
    """A backup of a server's disk, as it was in its start number ``boot_count``."""

    files: MemoryFiles
    model: DiskModel
    boot_count: int


class ServerView:
    """The half of a simulated server that changes nothing."""

    number: int
    member_id: int
    node: NodeId
    up: bool
    lost: str
    files: MemoryFiles
    replica: Replica
    _models: dict[NodeId, DiskModel]

    @property
    def introduction(self) -> Member:
        """What an operator says of it."""
        url = f"http://n{self.number}:2380"
        return Member(0, self.member_id, f"n{self.number}", url, learner=True)

    @property
    def configuration(self) -> Configuration | None:
        """See :class:`~paxos_rsm.sim.network.Peer`."""
        return self.replica.node.configuration if self.up else None

    @property
    def formed(self) -> bool:
        """Whether it knows who the members are."""
        return self.configuration is not None

    @property
    def leads(self) -> bool:
        """Whether it believes that it leads."""
        return self.up and self.replica.node.proposer.leading

    def describe(self) -> str:
        """What it is at, in a line."""
        if not self.up:
            return f"n{self.number} is down ({self.lost or 'not started'})"
        node = self.replica.node
        leader = self.replica.leader
        return (
            f"n{self.number}: {node.role}, follows {leader[1] if leader else 'nobody'}, "
            f"promised {node.acceptor.promised}, decided {node.decided_through}, "
            f"applied {self.replica.machine.applied_slot}"
        )

    @property
    def decided_on_disk(self) -> Slot:
        """Up to where its disk has every slot, in a snapshot or in the log, and says that it is decided."""
        model = self._models.get(self.node)
        return model.decided_through if model is not None else 0

    @property
    def forgotten_through(self) -> Slot:
        """Up to where its log has forgotten all, or will when it starts."""
        model = self._models.get(self.node)
        slots = [snapshot_slot(path.rpartition("/")[2]) or 0 for path in self.files.paths(SNAPSHOTS)]
        return max(slots, default=0) if model is None else max([model.compacted_through, *slots])

    @property
    def knows_genesis(self) -> bool:
        """Whether its disk says that the genesis entry is decided."""
        model = self._models.get(self.node)
        return model is not None and model.decided_through >= 1
