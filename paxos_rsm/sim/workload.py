"""What the clients of a simulation ask for."""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple, Protocol

from paxos_rsm.codec.kv import KvCodec, decode_command, encode_command, encode_result
from paxos_rsm.machines.base import StateMachine, Timeout
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.types import (
    ALL_FROM,
    Compact,
    Compare,
    CompareTarget,
    DeleteRange,
    KvError,
    LeaseGrant,
    LeaseKeepAlive,
    LeaseRevoke,
    Put,
    Range,
    Txn,
)
from paxos_rsm.sim.failure import Broken
from paxos_rsm.sim.kv_reference import Ended, KvReference, NotModelled

__all__ = ["Asked", "KvWorkload", "LeaseTimes", "Workload"]

LEASES = 4
"""Ids that clients fight for."""


class Asked(NamedTuple):
    """One operation of the history: ``returned_at`` is None, and ``result`` too, where its outcome is unknown."""

    client: int
    is_read: bool
    request: bytes
    result: Any
    called_at: int
    returned_at: int | None
    session: int = 0
    """Of a command, with its sequence number there."""
    seq: int = 0


class Workload(Protocol):
    """A state machine, and the commands and queries that clients send it.

    That of a machine with timers may also have ``timed_out(timeouts)``: called once for every frame of time-outs, at
    its place among the commands.
    """

    def machine(self) -> StateMachine:
        """A new machine, for one server."""
        ...

    def command(self, rnd: Random, client: int, number: int) -> bytes:
        """The ``number``-th command of a client, drawn from ``rnd`` and nothing else."""
        ...

    def query(self, rnd: Random) -> bytes:
        """A query, drawn likewise."""
        ...

    def executed(self, command: bytes, result: Any) -> None:
        """The log's next command has been executed, on the first server that came to it.

        Called once for every command, in order; ``result`` is as ``apply_batch`` gave it. May raise
        :class:`~paxos_rsm.sim.failure.Broken` where that cannot be right.
        """
        ...

    def queried(self, request: bytes, result: bytes) -> None:
        """A query has been answered from the newest state that there is: after all that was :meth:`executed`.

        May raise Broken likewise.
        """
        ...


class LeaseTimes:
    """When each lease was armed last, as an observer of the whole cluster knows: when the first server executed it.

    The leader executes it then at the earliest, and no clock runs faster than the fastest: a time-out that the first
    server executes before the lease's time has passed on that clock is early.
    """

    def __init__(self) -> None:
        self._armed: dict[int, tuple[int, int, int]] = {}

    def look(self, leases: Mapping[int, tuple[int, int]], now: int) -> None:
        """The leases as they are now: by id, their times and armings."""
        for lease, (ttl_s, armed) in leases.items():
            if self._armed.get(lease, (0, 0, 0))[1] != armed:
                self._armed[lease] = ttl_s, armed, now

    def early(self, lease: int, now: int, units_per_s: float) -> str:
        """What is wrong with the end of a lease by time-out now; empty where nothing is."""
        ttl_s, armed, since = self._armed[lease]
        if now - since >= ttl_s * units_per_s:
            return ""
        return (
            f"lease {lease} of {ttl_s} s, arming {armed} at {since}, has run out at {now}: that is "
            f"{(now - since) / units_per_s:.2f} s by the fastest clock"
        )


def _no_clock() -> int:
    return 0


class KvWorkload:
    """Puts, deletes, transactions, ranges, compactions and leases on a few keys of the key-value store."""

    def __init__(self, keys: int = 8) -> None:
        self._keys = keys
        self._revision = 1
        self._reference = KvReference()
        self._leases = LeaseTimes()
        self.clock: Callable[[], int] = _no_clock
        """Units of the simulation."""
        self.units_per_s = 0.0
        """As the fastest clock of all servers has them."""
        self.ended: list[tuple[Ended, int]] = []
        """Every lease that has ended, with the time at which the first server knew."""

    @property
    def leases(self) -> int:
        """How many there are."""
        return len(self._reference.leases)

    def machine(self) -> StateMachine:
        """An empty store."""
        return KeyValueMachine(KvCodec())

    def command(self, rnd: Random, client: int, number: int) -> bytes:
        """Two puts of three commands; each value is written once."""
        key, value = self._key(rnd), b"%d/%d" % (client, number)
        draw = rnd.random()
        if draw < 0.55:
            lease = rnd.randint(1, LEASES) if draw < 0.15 else 0
            return encode_command(Put(key, value, lease, prev_kv=draw < 0.1))
        if draw < 0.65:
            return encode_command(self._of_a_lease(rnd, draw))
        if draw < 0.75:
            return encode_command(DeleteRange(key, ALL_FROM if draw < 0.66 else b"", prev_kv=True))
        if draw < 0.95:
            compare = Compare(key, CompareTarget.VERSION, operand=rnd.randint(0, 3))
            return encode_command(
                Txn(
                    (compare,),
                    (Put(key, value), Put(b"twin of " + key, value)),
                    (Range(key), Put(self._key(rnd), value)),
                )
            )
        if draw < 0.98:
            return encode_command(Range(key, ALL_FROM))
        return encode_command(Compact(max(1, self._revision - rnd.randint(0, 20))))

    def _of_a_lease(self, rnd: Random, draw: float) -> LeaseGrant | LeaseKeepAlive | LeaseRevoke:
        lease = rnd.randint(1, LEASES)
        if draw < 0.6:
            return LeaseGrant(rnd.randint(1, 3), lease)
        return LeaseKeepAlive(lease) if draw < 0.64 else LeaseRevoke(lease)

    def query(self, rnd: Random) -> bytes:
        """One key, or all of them."""
        return encode_command(Range(self._key(rnd), ALL_FROM if rnd.random() < 0.2 else b""))

    def executed(self, command: bytes, result: Any) -> None:
        """The reference must say the same."""
        self._revision = result.revision if hasattr(result, "revision") else self._revision
        self._compare(command, result)
        self._look_at_leases()

    def timed_out(self, timeouts: Sequence[Timeout]) -> None:
        """None of them may be early."""
        self._reference.time_out(timeouts)
        for ended in self._reference.ended[len(self.ended) :]:
            early = self._leases.early(ended.lease, self.clock(), self.units_per_s)
            if early:
                raise Broken("lease", early)
        self._look_at_leases()

    def _look_at_leases(self) -> None:
        now = self.clock()
        self.ended += [(ended, now) for ended in self._reference.ended[len(self.ended) :]]
        self._leases.look(self._reference.leases, now)

    def queried(self, request: bytes, result: bytes) -> None:
        """The reference must say the same."""
        self._compare(request, result)

    def _compare(self, request: bytes, result: Any) -> None:
        command = decode_command(request)
        if isinstance(command, KvError):
            return
        try:
            expected: Any = self._reference.execute(command)
        except NotModelled:
            return
        if type(result) is bytes:
            expected = encode_result(expected)
        if expected != result:
            raise Broken("11", f"{command} was answered {result!r}; it should be {expected!r}")

    def _key(self, rnd: Random) -> bytes:
        return b"k%d" % rnd.randrange(self._keys)
