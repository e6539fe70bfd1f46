"""The key-value store as a replicated state machine.

Bytes become commands, and results bytes, in a codec that is given: nothing here knows the wire format. A command
that the codec cannot read, or that `check` or the store refuse, is answered with a KvError and changes nothing. A
frame is applied in one call, and its results stay as they are until the one server whose client waits for
them encodes them.

**Leases** are timers of the machine (leases.py): when the log says that one has run out, its keys are deleted.

Reads do not go through the log: :meth:`KeyValueMachine.query` (bytes) and :meth:`KeyValueMachine.execute_query`
(typed, for the unary services of a server) answer from the state as it is.

**Snapshots.** The leases, the records at the last compaction, by key, then the log after it: equal states give equal
bytes. Taking the view copies references to every key and to every version that is kept, and nothing else runs
meanwhile: 50 ms for a million keys, 200 ms where a fifth of them have older versions. The encoding is done slice by
slice, as the slices are taken, 1.5 µs a record and some 10 ms a slice; but one slice may take 500 ms for each million
keys that were written since the last compaction, since it walks over them. Restoring costs 4 µs a record.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from struct import Struct
from typing import Any, Protocol

from paxos_rsm.errors import InvariantViolation
from paxos_rsm.machines.base import Position, Timeout, Timer
from paxos_rsm.machines.kv.check import check, is_read_only
from paxos_rsm.machines.kv.leases import Lease, Leases
from paxos_rsm.machines.kv.store import MultiVersionStore, Record
from paxos_rsm.machines.kv.txn import execute_txn
from paxos_rsm.machines.kv.types import (
    LEASE_NOT_FOUND,
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
    Txn,
    TxnResult,
)
from paxos_rsm.machines.slices import SliceReader, sealed

__all__ = ["CommandCodec", "KeyValueMachine"]

# The snapshot: MAGIC, HEADER, a LEASE for each lease, the records at the compaction, END, those of the log, END. Sealed
# (see slices.py).
MAGIC = b"paxos_rsm key-value 2\n"
HEADER = Struct(">qqQQ")  # revision, compacted revision, armings of leases so far, leases
LEASE = Struct(">qqQ")  # id, ttl_s, arming
RECORD = Struct(
    ">IIqqqq"
)  # bytes of the key and the value, which follow; create and mod revision, version, lease
REVISION_MAX = 1 << 62
"""Of a snapshot that is believed: no store gets there, and the revisions after it still fit 64 bits."""
END = bytes(RECORD.size)  # no record has mod revision 0


class CommandCodec(Protocol):
    """What the machine needs of a wire format. ``paxos_rsm.codec.kv`` has the one that the servers use."""

    def decode(self, data: bytes) -> Command | KvError:
        """The command in ``data``, or the error that it is answered with. Never raises."""
        ...

    def encode_result(self, result: Result) -> bytes:
        """The bytes of a result."""
        ...


class KeyValueMachine:
    """A BatchStateMachine with timers. Its results are those of types.py."""

    def __init__(self, codec: CommandCodec) -> None:
        self._codec = codec
        self._store = MultiVersionStore()
        self._compacting: Callable[[int], None] | None = None

    @property
    def revision(self) -> int:
        """Of the newest transaction that changed anything; an empty store has 1."""
        return self._store.revision

    @property
    def compacted_revision(self) -> int:
        """Reads below it are refused; -1 before the first compaction."""
        return self._store.compacted_revision

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
        decode, put, execute = self._codec.decode, self._store.put, self.execute
        results: list[Result] = []
        for data in commands:
            command = decode(data)
            # A put that could not fail any check is by far the most common command.
            if type(command) is Put and command[0] and not (command[4] or command[5]):
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
        if isinstance(command, Put):
            return store.put(command)
        if isinstance(command, Range):
            return store.range(command)
        if isinstance(command, DeleteRange):
            return store.delete_range(command)
        if isinstance(command, Txn):
            return execute_txn(store, command)
        if isinstance(command, Compact):
            if self._compacting is not None and store.compacted_revision < command.revision <= store.revision:
                self._compacting(command.revision)
            return store.compact(command)
        return self._execute_of_leases(command)

    def _execute_of_leases(self, command: Command) -> Result:
        store = self._store
        if isinstance(command, LeaseKeepAlive):
            renewed = store.leases.renew(command.id)
            return LeaseKeepAliveResult(
                store.revision, command.id, renewed.ttl_s if renewed is not None else 0
            )
        if isinstance(command, LeaseGrant):
            granted = store.leases.grant(command.id, command.ttl_s)
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

    def snapshot(self) -> Iterator[bytes]:
        """The state as of this call, in slices. What it costs is told at the head of the module."""
        revision, compacted, base, log = self._store.view()
        leases = self._store.leases.view()
        header = HEADER.pack(revision, compacted, self._store.leases.armings, len(leases))
        return sealed(_pieces(header + b"".join(LEASE.pack(*each) for each in leases), base, log))

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Replaces the state, all or nothing. Raises MachineFailed where the chunks are damaged."""
        reader = SliceReader(chunks, "the key-value store")
        reader.expect(MAGIC, "it is not one of this version of paxos_rsm")
        revision, compacted, armings, lease_count = HEADER.unpack(reader.read(HEADER.size))
        if not (1 <= revision <= REVISION_MAX and -1 <= compacted <= revision):
            raise reader.damaged(f"revision {revision}, compacted at {compacted}, cannot be")
        try:
            leases = Leases.from_view(
                armings, (LEASE.unpack(reader.read(LEASE.size)) for _ in range(lease_count))
            )
            store = MultiVersionStore.from_view(
                revision, compacted, leases, _records(reader), _records(reader)
            )
        except ValueError as error:
            raise reader.damaged(str(error)) from error
        reader.finish()
        self._store = store

    def view(self) -> tuple[int, int, Iterator[Record], list[Record]]:
        """See :meth:`MultiVersionStore.view`: what a hash of the store is made from."""
        return self._store.view()

    def digest(self) -> bytes:
        """A hash of 16 bytes over every version that is kept. Costs as much as a whole snapshot."""
        digest = blake2b(digest_size=16)
        for each in self.snapshot():
            digest.update(each)
        return digest.digest()


def _pieces(header: bytes, base: Iterable[Record], log: Iterable[Record]) -> Iterator[bytes]:
    yield MAGIC + header
    pack = RECORD.pack
    for records in (base, log):
        for key, create, mod, version, value, lease in records:
            yield pack(len(key), len(value), create, mod, version, lease)
            yield key
            yield value
        yield END


def _records(reader: SliceReader) -> Iterator[Record]:
    while (head := reader.read(RECORD.size)) != END:
        key_bytes, value_bytes, create, mod, version, lease = RECORD.unpack(head)
        yield reader.read(key_bytes), create, mod, version, reader.read(value_bytes), lease
