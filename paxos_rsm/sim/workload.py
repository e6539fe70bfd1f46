"""What the clients of a simulation ask for."""

from random import Random
from typing import Any, NamedTuple, Protocol

from paxos_rsm.codec.kv import KvCodec, decode_command, encode_command, encode_result
from paxos_rsm.machines.base import StateMachine
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.types import (
    ALL_FROM,
    Compact,
    Compare,
    CompareTarget,
    DeleteRange,
    KvError,
    Put,
    Range,
    Txn,
)
from paxos_rsm.sim.failure import Broken
from paxos_rsm.sim.kv_reference import KvReference, NotModelled

__all__ = ["Asked", "KvWorkload", "Workload"]


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
    """A state machine, and the commands and queries that clients send it."""

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


class KvWorkload:
    """Puts, deletes, transactions, ranges and compactions on a few keys of the key-value store."""

    def __init__(self, keys: int = 8) -> None:
        self._keys = keys
        self._revision = 1
        self._reference = KvReference()

    def machine(self) -> StateMachine:
        """An empty store."""
        return KeyValueMachine(KvCodec())

    def command(self, rnd: Random, client: int, number: int) -> bytes:
        """Two puts of three commands; each value is written once."""
        key, value = self._key(rnd), b"%d/%d" % (client, number)
        draw = rnd.random()
        if draw < 0.65:
            return encode_command(Put(key, value, prev_kv=draw < 0.1))
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

    def query(self, rnd: Random) -> bytes:
        """One key, or all of them."""
        return encode_command(Range(self._key(rnd), ALL_FROM if rnd.random() < 0.2 else b""))

    def executed(self, command: bytes, result: Any) -> None:
        """The reference must say the same."""
        self._revision = result.revision if hasattr(result, "revision") else self._revision
        self._compare(command, result)

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
