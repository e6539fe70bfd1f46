"""How many members are enough.

Safety needs only that every quorum of phase 1 meets every quorum of phase 2 (Flexible Paxos): a majority in both
is the usual choice, a larger phase 1 buys a smaller phase 2. Sizes are part of the configuration that the log
decides, so that no two servers ever count differently.
"""

from dataclasses import dataclass

from paxos_rsm.errors import ConfigError

__all__ = ["QuorumSizes"]


@dataclass(frozen=True, slots=True)
class QuorumSizes:
    """Quorum sizes in members. Always holds: ``phase1 + phase2 > members``."""

    members: int
    phase1: int
    phase2: int

    @classmethod
    def majority(cls, members: int) -> "QuorumSizes":
        """More than half in both phases."""
        return cls(members, members // 2 + 1, members // 2 + 1)

    @classmethod
    def unanimous(cls, members: int) -> "QuorumSizes":
        """Everybody in both phases: the genesis slot."""
        return cls(members, members, members)

    @classmethod
    def flexible(cls, members: int, phase2: int) -> "QuorumSizes":
        """``phase2`` members to decide, and as many to elect as safety then asks for."""
        return cls(members, members - phase2 + 1, phase2)

    def validate(self) -> None:
        """Raises ConfigError where two quorums could miss each other or one could never be reached."""
        if not (1 <= self.phase1 <= self.members and 1 <= self.phase2 <= self.members):
            raise ConfigError(
                f"quorums of {self.phase1} and {self.phase2} are not within 1..{self.members} members"
            )
        if self.phase1 + self.phase2 <= self.members:
            raise ConfigError(
                f"a phase-1 quorum of {self.phase1} can miss a phase-2 quorum of {self.phase2} among {self.members}; "
                "their sum must be more than the number of members"
            )
