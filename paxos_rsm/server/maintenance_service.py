"""The Maintenance service: what an operator asks a server, in etcd's words.

One servicer under two names, ``paxos_rsm.v1.Maintenance`` and ``etcdserverpb.Maintenance``.

*Status* answers at once, from what this server knows, without a leader too; ``dbSize`` is the log on disk,
``dbSizeInUse`` what the quota counts. *Alarm* lists what stands (``alarms.py``) once this server knows all that was
acknowledged; none can be set, and to disarm one does nothing: they end by themselves. *Defragment* says OK and
does nothing: the state lies in memory, and no file of ours has holes. *Hash* is over the whole state of this server as
it is, *HashKV* over the key-value store up to a revision (see ``kv_hash.py``). *MoveLeader* is for the server that
leads: it answers once the other does.

*Snapshot* streams the state as of one moment after the request, in blobs of at most 64 KiB: a backup, as
``storage/backup_format.py`` has it, of any state machine. ``etcdctl snapshot save`` stores it; its ``snapshot status``
and ``restore`` expect etcd's own database file, and cannot read it: ``paxos-rsm snapshot`` can.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from itertools import chain

import grpc

from paxos_rsm._proto import maintenance_pb2 as pb
from paxos_rsm.errors import PaxosRsmError, ResourceExhausted
from paxos_rsm.machines.base import StateMachine
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.replica.api import ReplicaHandle, ReplicaStatus
from paxos_rsm.server.alarms import alarm_text, alarms_of
from paxos_rsm.server.etcd_calls import NO_LEADER, status_of
from paxos_rsm.server.headers import Headers
from paxos_rsm.server.kv_hash import hash_at, hash_of, revision_error, snapshot_of
from paxos_rsm.server.rpc import Context, StatusError, parse, service_handler, unary_handler, watch_handler
from paxos_rsm.storage.backup_format import END, SLICE_HEAD, BackupHead, encode_head, padding

__all__ = ["DISK_FULL", "ETCD_VERSION", "SERVICES", "MaintenanceService"]

SERVICES = ("paxos_rsm.v1.Maintenance", "etcdserverpb.Maintenance")

ETCD_VERSION = "3.4.0"
"""The etcd whose API this is. Tools decide by it what they may ask; our own version is in Admin.Status."""

DISK_FULL = "no space left on this member's disk: it neither votes nor leads until there is some"
"""Among the errors of a member's status."""

BLOB_BYTES = 64 * 1024

SLICE_BYTES_MAX = 1 << 31

SNAPSHOTS_MAX = 4
"""At once. Each holds a view of the state, and an old view keeps what has been overwritten since in memory."""


class MaintenanceService:
    """Alarm, Status, Defragment, Hash, HashKV, Snapshot and MoveLeader. All but HashKV serve any state machine."""

    def __init__(
        self,
        replica: ReplicaHandle,
        machine: StateMachine,
        headers: Headers,
        read_index: Callable[[Context], Awaitable[None]],
    ) -> None:
        """``read_index`` returns once the local state is as new as its call; it raises where that cannot be."""
        self._replica = replica
        self._machine = machine
        self._headers = headers
        self._read_index = read_index
        self._hashing = asyncio.Lock()
        self._snapshots = 0

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """What a gRPC server is given: the one servicer, under both names."""
        methods = {
            "Alarm": unary_handler(self._alarm),
            "Status": unary_handler(self._status),
            "Defragment": unary_handler(self._defragment),
            "Hash": unary_handler(self._hash),
            "HashKV": unary_handler(self._hash_kv),
            "Snapshot": watch_handler(self._snapshot),
            "MoveLeader": unary_handler(self._move_leader),
        }
        return [service_handler(service, methods) for service in SERVICES]

    # ---- at once -------------------------------------------------------------------------------------------

    async def _alarm(self, data: bytes, context: Context) -> bytes:
        request = parse(pb.AlarmRequest, data)
        if request.action == pb.AlarmRequest.ACTIVATE:
            raise StatusError(
                grpc.StatusCode.UNIMPLEMENTED,
                "paxos_rsm: an alarm cannot be set by hand: each says what is so, and ends when it is so no more",
            )
        if request.action == pb.AlarmRequest.DEACTIVATE:
            # As etcd answers where none was disarmed: what still stands ends by itself, once there is room.
            return pb.AlarmResponse(header=self._headers.make()).SerializeToString()
        if isinstance(self._machine, KeyValueMachine):
            await self._read_index(context)
        asked = (request.alarm,) if request.alarm else pb.AlarmType.values()
        alarms = [each for each in self._alarms(self._replica.status()) if each.alarm in asked]
        return pb.AlarmResponse(header=self._headers.make(), alarms=alarms).SerializeToString()

    def _alarms(self, status: ReplicaStatus) -> list[pb.AlarmMember]:
        return alarms_of(status, self._machine, self._headers.member_id)

    async def _status(self, data: bytes, _context: Context) -> bytes:
        parse(pb.EndpointStatusRequest, data)
        status = self._replica.status()
        store = self._machine if isinstance(self._machine, KeyValueMachine) else None
        errors = [] if status.leader else [NO_LEADER.message]
        if status.disk_full:
            errors.append(DISK_FULL)
        return pb.EndpointStatusResponse(
            header=self._headers.make(),
            version=ETCD_VERSION,
            dbSize=status.log_bytes,
            dbSizeInUse=store.state_bytes if store is not None else status.log_bytes,
            dbSizeQuota=store.quota_bytes if store is not None else 0,
            leader=_leader_id(status),
            raftIndex=status.decided_slot,
            raftTerm=status.ballot.round,
            raftAppliedIndex=status.applied_slot,
            isLearner=self._is_learner(status),
            errors=errors + [alarm_text(each) for each in self._alarms(status)],
        ).SerializeToString()

    def _is_learner(self, status: ReplicaStatus) -> bool:
        if status.configuration is None:
            return False
        member = status.configuration.by_member_id(self._headers.member_id)
        return member is None or member.learner

    async def _defragment(self, data: bytes, _context: Context) -> bytes:
        """OK, and nothing done: the state lives in memory, and there is no file that could have holes."""
        parse(pb.DefragmentRequest, data)
        return pb.DefragmentResponse(header=self._headers.make()).SerializeToString()

    async def _move_leader(self, data: bytes, _context: Context) -> bytes:
        target = parse(pb.MoveLeaderRequest, data).targetID
        status = self._replica.status()
        if status.role != "leader" or status.configuration is None:
            raise StatusError(grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: not leader")
        member = status.configuration.by_member_id(target)
        if member is None or member.learner:
            raise StatusError(grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: bad leader transferee")
        if member.incarnation != status.leader:
            heir = await self._replica.hand_over(member.incarnation)
            if heir != member.incarnation:
                raise StatusError(
                    grpc.StatusCode.UNAVAILABLE,
                    "etcdserver: request timed out, leader transfer took too long",
                )
        return pb.MoveLeaderResponse(header=self._headers.make()).SerializeToString()

    # ---- hashes --------------------------------------------------------------------------------------------

    async def _hash(self, data: bytes, _context: Context) -> bytes:
        parse(pb.HashRequest, data)
        # One at a time: each holds a view of the state.
        async with self._hashing:
            header = self._headers.make()
            checksum = await hash_of(snapshot_of(self._machine))
        return pb.HashResponse(header=header, hash=checksum).SerializeToString()

    async def _hash_kv(self, data: bytes, _context: Context) -> bytes:
        revision = parse(pb.HashKVRequest, data).revision
        machine = self._machine
        if not isinstance(machine, KeyValueMachine):
            raise StatusError(
                grpc.StatusCode.UNIMPLEMENTED,
                f"this server runs the state machine {_name_of(machine)}, which has no revisions; "
                "compare the servers by Hash, or by the digest of Admin.Status",
            )
        async with self._hashing:
            error = revision_error(machine, revision)
            if error is not None:
                raise status_of(error)
            header, compacted = self._headers.make(), machine.compacted_revision
            checksum = await hash_at(machine, revision)
        response = pb.HashKVResponse(header=header, hash=checksum, compact_revision=compacted)
        return response.SerializeToString()

    # ---- snapshots -----------------------------------------------------------------------------------------

    async def _snapshot(self, data: bytes, context: Context) -> None:
        parse(pb.SnapshotRequest, data)
        if self._snapshots >= SNAPSHOTS_MAX:
            raise ResourceExhausted(f"{self._snapshots} snapshots are being read from this server already")
        self._snapshots += 1
        try:
            await self._read_index(context)
            await self._stream(context)
        finally:
            self._snapshots -= 1

    async def _stream(self, context: Context) -> None:
        # Two views of one moment: how long the whole is must be said before its first byte, and to keep it until it
        # is sent would take the memory of the store a second time.
        machine = self._machine
        header, measured, state = self._headers.make(), snapshot_of(machine), snapshot_of(machine)
        keys = len(machine) if isinstance(machine, KeyValueMachine) else None
        applied_slot = self._replica.status().applied_slot
        state_bytes = len(END)
        for piece in measured:
            state_bytes += SLICE_HEAD.size + len(piece) if piece else 0
            await asyncio.sleep(0)
        head = encode_head(
            BackupHead(
                state_bytes,
                self._headers.cluster_id,
                self._headers.member_id,
                applied_slot,
                header.revision,
                _name_of(machine),
                keys,
            )
        )
        end = END + padding(state_bytes)
        remaining = len(head) + state_bytes + len(end) - len(END)
        hashed = hashlib.sha256()
        async for blob in _blobs(chain((head,), _framed(state), (end,))):
            hashed.update(blob)
            remaining -= len(blob)
            await _write(
                context, pb.SnapshotResponse(header=header, remaining_bytes=max(0, remaining), blob=blob)
            )
        if remaining:
            raise PaxosRsmError(
                f"the state machine {_name_of(machine)} gave two snapshots of one state that differ by "
                f"{-remaining} bytes; what was sent is not to be used"
            )
        await _write(context, pb.SnapshotResponse(header=header, blob=hashed.digest()))


def _framed(slices: Iterable[bytes]) -> Iterator[bytes]:
    """The slices, each after its length; where one is empty, others have their turn."""
    for each in slices:
        if len(each) >= SLICE_BYTES_MAX:
            raise PaxosRsmError(f"a slice of {len(each)} bytes: give slices of at most some megabytes")
        yield SLICE_HEAD.pack(len(each)) + each if each else each


async def _blobs(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    """The pieces end to end, none longer than BLOB_BYTES; others have their turn between two pieces."""
    for piece in pieces:
        for start in range(0, len(piece), BLOB_BYTES):
            yield piece[start : start + BLOB_BYTES]
        await asyncio.sleep(0)


async def _write(context: Context, response: pb.SnapshotResponse) -> None:
    await context.write(response.SerializeToString())


def _leader_id(status: ReplicaStatus) -> int:
    if not status.leader or status.configuration is None:
        return 0
    member = status.configuration.by_incarnation(status.leader)
    return member.member_id if member is not None else 0


def _name_of(machine: StateMachine) -> str:
    return f"{type(machine).__module__}:{type(machine).__qualname__}"
