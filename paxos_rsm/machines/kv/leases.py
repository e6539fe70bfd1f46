"""Leases: who holds which keys, and how often each was renewed.

A lease is a timer of the machine (see ``TimedStateMachine`` in ``machines/base.py``): granting and keeping alive *arm*
it, and when the log says that it has run out, its keys are deleted in one revision, in the order of the keys, as when
it is revoked. An arming has a number of its own, out of one counter for all leases and for ever: so a time-out that was
proposed before a renewal, or before a lease of the same id that is gone, is recognised and ignored. No clock is here;
what is left of a lease is known to the servers' watches only.

The keys of a lease are those whose newest version names it. They are not part of the snapshot: the records are, and say
so themselves.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from paxos_rsm.machines.base import Timer
from paxos_rsm.machines.kv.types import LEASE_EXISTS, LEASE_TTL_TOO_LARGE, KvError

__all__ = ["LEASE_TTL_MAX_S", "LEASE_TTL_MIN_S", "Lease", "Leases"]

LEASE_TTL_MIN_S = 2
"""What is granted at least; with etcd's default settings it is the same there. Shorter than an election is no use."""
LEASE_TTL_MAX_S = 9_000_000_000
"""etcd's limit."""


@dataclass(slots=True)
class Lease:
    """One lease."""

    id: int
    ttl_s: int
    armed: int
    """The number of its last arming."""
    attached: dict[bytes, None] = field(default_factory=dict)

    @property
    def keys(self) -> list[bytes]:
        """The keys that it holds, in order."""
        return sorted(self.attached)

    @property
    def timer(self) -> Timer:
        """As the servers watch it."""
        return Timer(self.id, self.armed, self.ttl_s * 1000)


class Leases:
    """The table of leases."""

    __slots__ = ("_armed", "_leases", "_rows", "armings")

    def __init__(self) -> None:
        self._leases: dict[int, Lease] = {}
        # Id -> (id, ttl_s, armed), of every lease: what a view can keep, since it never changes.
        self._rows: dict[int, tuple[int, int, int]] = {}
        self._armed: dict[int, None] = {}
        """Those armed since they were last taken."""
        self.armings = 0
        """The number of the last arming of any lease."""

    def __len__(self) -> int:
        return len(self._leases)

    def __contains__(self, lease: int) -> bool:
        return lease in self._leases

    def get(self, lease: int) -> Lease | None:
        """The lease of this id, where there is one."""
        return self._leases.get(lease)

    def ids(self) -> list[int]:
        """All ids, in order."""
        return sorted(self._leases)

    def grant(self, lease: int, ttl_s: int) -> Lease | KvError:
        """Makes a lease."""
        if ttl_s > LEASE_TTL_MAX_S:
            return LEASE_TTL_TOO_LARGE
        if lease in self._leases:
            return LEASE_EXISTS
        made = self._leases[lease] = Lease(lease, max(ttl_s, LEASE_TTL_MIN_S), 0)
        self._arm(made)
        return made

    def renew(self, lease: int) -> Lease | None:
        """Arms a lease anew; None where there is none."""
        found = self._leases.get(lease)
        if found is not None:
            self._arm(found)
        return found

    def drop(self, lease: int) -> None:
        """Forgets a lease, whose keys are gone."""
        del self._leases[lease], self._rows[lease]
        self._armed.pop(lease, None)

    def attach(self, lease: int, key: bytes) -> None:
        """The newest version of ``key`` is held by ``lease``."""
        self._leases[lease].attached[key] = None

    def detach(self, lease: int, key: bytes) -> None:
        """It is not any more."""
        del self._leases[lease].attached[key]

    def take_armed(self) -> Sequence[Timer]:
        """See ``TimedStateMachine.take_timers``."""
        if not self._armed:
            return ()
        armed, self._armed = self._armed, {}
        return [self._leases[lease].timer for lease in armed]

    def view(self) -> dict[int, tuple[int, int, int]]:
        """(id, ttl_s, armed) of every lease, under its id, in no order: a copy, 2 ms for each 100,000."""
        return self._rows.copy()

    @classmethod
    def from_view(cls, armings: int, rows: Iterable[tuple[int, int, int]]) -> "Leases":
        """The table that :meth:`view` was taken of, without its keys. Raises ValueError where it cannot be one."""
        table = cls()
        table.armings = armings
        last: int | None = None
        for lease, ttl_s, armed in rows:
            if not lease or (last is not None and lease <= last):
                raise ValueError(f"lease {lease} stands where it cannot")
            if not (LEASE_TTL_MIN_S <= ttl_s <= LEASE_TTL_MAX_S and 1 <= armed <= armings):
                raise ValueError(
                    f"lease {lease} has a time of {ttl_s} s, or an arming {armed}, that cannot be"
                )
            last = lease
            table._leases[lease] = Lease(lease, ttl_s, armed)
            table._rows[lease] = (lease, ttl_s, armed)
            table._armed[lease] = None
        return table

    def _arm(self, lease: Lease) -> None:
        self.armings += 1
        lease.armed = self.armings
        self._rows[lease.id] = (lease.id, lease.ttl_s, lease.armed)
        # Again at the end, where it was armed before: the order is that of the armings.
        self._armed.pop(lease.id, None)
        self._armed[lease.id] = None
