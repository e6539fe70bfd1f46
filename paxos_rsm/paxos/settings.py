"""The measures of the protocol, in ticks, slots and bytes. What a tick is worth is the driver's business."""

from dataclasses import dataclass

from paxos_rsm.errors import ConfigError

__all__ = ["Settings"]

_MAY_BE_ZERO = frozenset(["read_lease_us", "read_lease_drift_percent", "quorum_reads"])


@dataclass(frozen=True, slots=True)
class Settings:
    """How patient and how greedy a node is."""

    heartbeat_ticks: int = 2
    election_ticks: int = 24
    """One election time-out: silence for so long counts as absence."""
    retransmit_ticks: int = 8
    window_slots: int = 8
    """Slots that a leader has proposed and not decided yet, at most."""
    pipeline_bytes: int = 64 << 10
    """Of frames that wait: so many open another slot while earlier ones are in flight; fewer go with the next."""
    entry_bytes_max: int = 1_600_000
    chunk_bytes_max: int = 1 << 20
    """Of entries in one Promise or CatchUpReply (one entry always goes)."""
    waiting_bytes_max: int = 64 << 20
    """Of frames that wait at the leader for a slot; above it they are dropped and their owners send again."""
    read_rounds_max: int = 4
    """Read confirmations under way at once."""
    read_lease_us: int = 0
    """How long a leader serves reads on one confirmation; 0: each read needs a confirmation (leases.py)."""
    read_lease_drift_percent: int = 0
    """By how much one member's clock may run faster than another's, at most, for that to be sound."""
    quorum_reads: int = 0
    """1: servers that do not lead ask the acceptors for what they read, not the leader (quorum_reads.py)."""

    @property
    def read_hold_us(self) -> int:
        """How long those who have confirmed promise to nobody else."""
        return -(-self.read_lease_us * (100 + self.read_lease_drift_percent) // 100)

    def validate(self) -> None:
        """Raises ConfigError where a measure makes no sense."""
        for name in self.__slots__:
            least = 0 if name in _MAY_BE_ZERO else 1
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if self.election_ticks < 3 * self.heartbeat_ticks:
            raise ConfigError(
                f"an election time-out of {self.election_ticks} ticks is less than three heartbeats of "
                f"{self.heartbeat_ticks}: one lost heartbeat would cost the leader its place"
            )
