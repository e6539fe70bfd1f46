"""The key-value store as a replicated state machine.

Bytes become commands, and results bytes, in a codec that is given: nothing here knows the wire format. A command
that the codec cannot read, or that `check` or the store refuse, is answered with a KvError and changes nothing. A
frame is applied in one call, and its results stay as they are until the one server whose client waits for
them encodes them.

**Leases** are timers of the machine (leases.py): when the log says that one has run out, its keys are deleted.

Reads do not go through the log: :meth:`KeyValueMachine.query` (bytes) and :meth:`KeyValueMachine.execute_query`
(typed, for the unary services of a server) answer from the state as it is.

**Snapshots** (``snapshots.py``) cost nothing to take and are read a piece at a time while commands go on. While one is
open, what it shows stays in memory: close it (its iterator has ``close``), or let go of it.

**The quota** on the size of the state is a command of the log like any other, SetQuota, so that every server refuses
the same puts. Deletes, compactions and the end of leases are allowed always, and where they have made room, puts are
taken again by themselves.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import Any, Protocol

from paxos_rsm.errors import InvariantViolation
from paxos_rsm.machines.base import Position, Timeout, Timer
from paxos_rsm.machines.kv import snapshots
from paxos_rsm.machines.kv.check import check, is_read_only, needs_room
from paxos_rsm.machines.kv.leases import Lease
from paxos_rsm.machines.kv.records import Record
from paxos_rsm.machines.kv.running import RunningHash
from paxos_rsm.machines.kv.store import MultiVersionStore
from paxos_rsm.machines.kv.txn import execute_txn
from paxos_rsm.machines.kv.types import (
    LEASE_NOT_FOUND,
    NO_SPACE,
    NOT_A_QUERY,
    Command,
    Compact,
    DeleteRange,
    KvError,
    LeaseGrant,
    LeaseGrantResult,
    LeaseKeepAlive,
    LeaseKeepAliveResult,
    LeaseRevoke,
    LeaseRevokeResult,
    Put,
    Range,
    RangeResult,
    Result,
    SetQuota,
    SetQuotaResult,
    Txn,
    TxnResult,
)
from paxos_rsm.machines.kv.view import StoreView
from paxos_rsm.machines.slices import SliceReader, Slices, sealed

__all__ = ["CommandCodec", "KeyValueMachine"]

TIDY_RECORDS = 1000
"""Of what compactions have freed, so much is dropped with each frame, beside one for each of its commands."""


class CommandCodec(Protocol):
    """What the machine needs of a wire format. ``paxos_rsm.codec.kv`` has the one that the servers use."""

    def decode(self, data: bytes) -> Command | KvError:
        """The command in ``data``, or the error that it is answered with. Never raises."""
        ...

    def encode_result(self, result: Result) -> bytes:
        """The bytes of a result."""
        ...


class KeyValueMachine:
    """A BatchStateMachine with timers and a running digest. Its results are those of types.py."""

    def __init__(self, codec: CommandCodec) -> None:
        self._codec = codec
        self._store = MultiVersionStore()
        self._running = RunningHash()
        self._compacting: Callable[[int], None] | None = None

    @property
    def revision(self) -> int:
        """Of the newest transaction that changed anything; an empty store has 1."""
        return self._store.revision

    @property
    def compacted_revision(self) -> int:
        """Reads below it are refused; -1 before the first compaction."""
        return self._store.compacted_revision

    @property
    def state_bytes(self) -> int:
        """What the state is taken to cost: the same on every server."""
        return self._store.state_bytes

    @property
    def quota_bytes(self) -> int:
        """What the state may grow to; 0: there is no limit."""
        return self._store.quota_bytes

    @property
    def is_over_quota(self) -> bool:
        """Whether puts are refused with NO_SPACE now."""
        return self._store.room <= 0

    def __len__(self) -> int:
        """Keys that exist."""
        return len(self._store)

    def changes(self, first_revision: int, records_max: int) -> list[Record]:
        """See :meth:`MultiVersionStore.changes`: what a watch is served from."""
        return self._store.changes(first_revision, records_max)

    def previous(self, record: Record) -> Record | None:
        """See :meth:`MultiVersionStore.previous`."""
        return self._store.previous(record)

    def watch_compaction(self, compacting: Callable[[int], None]) -> None:
        """Calls ``compacting(revision)`` right before the log is dropped up to that revision, itself included.

        It may read :meth:`changes` and :meth:`previous`, and must change nothing. One at a time; it outlives a restore.
        """
        self._compacting = compacting

    def lease(self, lease: int) -> Lease | None:
        """The lease of this id, where there is one. To be read only."""
        return self._store.leases.get(lease)

    def lease_ids(self) -> list[int]:
        """The ids of all leases, in order."""
        return self._store.leases.ids()

    # ---- commands ----------------------------------------------------------------------------------------

    def apply(self, command: bytes, at: Position) -> bytes:
        """Executes one command and encodes its result."""
        return self.encode_result(self.apply_batch((command,), at)[0])

    def apply_batch(self, commands: Sequence[bytes], at: Position) -> list[Any]:
        """Executes commands in order. Gives a Result for each."""
        store = self._store
        decode, put, execute = self._codec.decode, store.put, self.execute
        if store.is_untidy:
            store.tidy(TIDY_RECORDS + len(commands))
        results: list[Result] = []
        for data in commands:
            command = decode(data)
            # A put that could not fail any check is by far the most common command.
            if type(command) is Put and command[0] and not (command[4] or command[5]) and store.room > 0:
                results.append(put(command))
            elif isinstance(command, KvError):
                results.append(command)
            else:
                results.append(execute(command))
        return results

    def execute(self, command: Command) -> Result:
        """Executes one command. Only the log may call for this: it is what every server does alike."""
        error = check(command)
        if error is not None:
            return error
        store = self._store
        if store.room <= 0 and needs_room(command):
            return NO_SPACE
        if isinstance(command, Put):
            return store.put(command)
        if isinstance(command, Range):
            return store.range(command)
        if isinstance(command, DeleteRange):
            return store.delete_range(command)
        if isinstance(command, Txn):
            return execute_txn(store, command)
        if isinstance(command, Compact):
            if store.compacted_revision < command.revision <= store.revision:
                self._running.count(store.log)
                if self._compacting is not None:
                    self._compacting(command.revision)
            return store.compact(command)
        if isinstance(command, SetQuota):
            store.set_quota(command.quota_bytes)
            return SetQuotaResult(store.revision, store.state_bytes)
        return self._execute_of_leases(command)

    def _execute_of_leases(self, command: Command) -> Result:
        store = self._store
        if isinstance(command, LeaseKeepAlive):
            renewed = store.leases.renew(command.id)
            return LeaseKeepAliveResult(
                store.revision, command.id, renewed.ttl_s if renewed is not None else 0
            )
        if isinstance(command, LeaseGrant):
            granted = store.grant(command.id, command.ttl_s)
            return (
                granted
                if isinstance(granted, KvError)
                else LeaseGrantResult(store.revision, granted.id, granted.ttl_s)
            )
        if isinstance(command, LeaseRevoke):
            return LeaseRevokeResult(store.revision) if store.revoke(command.id) else LEASE_NOT_FOUND
        raise InvariantViolation(f"{type(command).__name__} is no command of the store: a bug in paxos_rsm")

    def encode_result(self, result: Any) -> bytes:
        """The bytes of a result."""
        return self._codec.encode_result(result)

    # ---- timers ------------------------------------------------------------------------------------------

    def take_timers(self) -> Sequence[Timer]:
        """Leases that were granted or renewed since the last call."""
        return self._store.leases.take_armed()

    def is_armed(self, timer: int) -> bool:
        """Whether there is such a lease."""
        return timer in self._store.leases

    def time_out(self, timeouts: Sequence[Timeout], at: Position) -> None:
        """Ends leases that have not been renewed since, each in a revision of its own if it has keys."""
        store = self._store
        for timer, armed in timeouts:
            lease = store.leases.get(timer)
            if lease is not None and lease.armed == armed:
                store.revoke(timer)

    # ---- queries -----------------------------------------------------------------------------------------

    def query(self, request: bytes) -> bytes:
        """Answers an encoded Range, or a Txn of nothing else; anything else with an encoded KvError."""
        command = self._codec.decode(request)
        return self._codec.encode_result(
            command if isinstance(command, KvError) else self.execute_query(command)
        )

    def execute_query(self, command: Command) -> RangeResult | TxnResult | KvError:
        """Answers a Range, or a Txn of nothing else, from the state as it is; a KvError for anything else."""
        error = check(command)
        if error is not None:
            return error
        if isinstance(command, Range):
            return self._store.range(command)
        if isinstance(command, Txn) and is_read_only(command):
            return execute_txn(self._store, command)
        return NOT_A_QUERY

    # ---- the whole state ---------------------------------------------------------------------------------

    def snapshot(self) -> Slices:
        """The state as of this call, in slices, some of them empty: see :mod:`paxos_rsm.machines.kv.snapshots`."""
        store, running = self._store, self._running
        return self._slices(store.quota_bytes, running.uncounted(store.log), running.checksum)

    def _slices(self, *more: int) -> Slices:
        store = self._store
        view, leases = store.view(), store.leases
        pieces = snapshots.pieces(view, leases.view(), leases.armings, snapshots.MORE.pack(*more))
        return Slices(sealed(pieces), view.close)

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Replaces the state, all or nothing. Raises MachineFailed where the chunks are damaged."""
        restored = snapshots.read(SliceReader(chunks, "the key-value store"))
        self._store = store = restored.store
        self._running = RunningHash(store.log.end - restored.uncounted, restored.checksum)

    def tidy(self, records_max: int) -> bool:
        """Drops what compactions have freed and no frame has dropped yet: gives whether there was anything.

        For a server that has nothing else to do. Nothing that anybody can ask for depends on it.
        """
        return self._store.tidy(records_max)

    def view(self) -> StoreView:
        """See :meth:`MultiVersionStore.view`: what a hash of the store is made from."""
        return self._store.view()

    def digest(self) -> bytes:
        """A hash of 16 bytes over every version that is kept. Costs as much as a whole snapshot."""
        digest = blake2b(digest_size=16)
        # Without the running hash: when it was last taken shows in no answer.
        for each in self._slices(self._store.quota_bytes, 0, 0):
            digest.update(each)
        return digest.digest()

    def running_digest(self) -> bytes:
        """See ``CheckedStateMachine``."""
        store = self._store
        leases = store.leases
        sums = (len(store), len(leases), leases.armings, store.state_bytes, store.quota_bytes)
        return self._running.take(store.log, (store.revision, store.compacted_revision), sums)
