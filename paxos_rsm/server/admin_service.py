"""The Admin service: what this server knows of itself, at once.

Nobody else is asked, so that Status answers most readily when it is needed most: without a leader, without a
quorum, while the cluster is still forming. Whether what it says is recent, ``leader_age_ms`` tells.
"""

import os
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import grpc

from paxos_rsm._proto import admin_pb2 as pb
from paxos_rsm._version import __version__
from paxos_rsm.codec.entries import ballot_to_pb
from paxos_rsm.replica.api import ReplicaHandle, ReplicaStatus
from paxos_rsm.server.rpc import Context, parse, service_handler, unary_handler

__all__ = ["SERVICE", "AdminService", "ServerIdentity", "resident_bytes"]

SERVICE = "paxos_rsm.v1.Admin"

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """Who this server is: by its configuration and by its data directory."""

    cluster_id: int
    name: str
    member_id: int
    incarnation: int
    boot_count: int
    initial_members: Mapping[str, str]
    """Name to peer URL: all that is known of the others while the cluster is forming."""
    initial_member_ids: Mapping[str, int]
    client_urls: tuple[str, ...]


class AdminService:
    """Status, and a snapshot on demand."""

    def __init__(
        self,
        replica: ReplicaHandle,
        identity: ServerIdentity,
        *,
        revision: Callable[[], int],
        digest: Callable[[], bytes],
    ) -> None:
        self._replica = replica
        self._identity = identity
        self._revision = revision
        self._digest = digest
        self._digest_of: tuple[int, bytes] = (-1, b"")

    def handler(self) -> grpc.GenericRpcHandler:
        """What a gRPC server is given."""
        methods = {"Status": self._status, "TakeSnapshot": self._take_snapshot}
        return service_handler(SERVICE, {name: unary_handler(method) for name, method in methods.items()})

    async def _take_snapshot(self, data: bytes, _context: Context) -> bytes:
        parse(pb.TakeSnapshotRequest, data)
        slot, size = await self._replica.take_snapshot()
        log_bytes = self._replica.status().log_bytes
        return pb.TakeSnapshotResponse(slot=slot, bytes=size, log_bytes=log_bytes).SerializeToString()

    async def _status(self, data: bytes, _context: Context) -> bytes:
        request = parse(pb.StatusRequest, data)
        status = self._replica.status()
        identity = self._identity
        response = pb.StatusResponse(
            cluster_id=identity.cluster_id,
            name=identity.name,
            member_id=identity.member_id,
            incarnation=identity.incarnation,
            boot_count=identity.boot_count,
            version=__version__,
            role=status.role,
            leader=_leader_name(status),
            ballot=ballot_to_pb(status.ballot),
            decided_slot=status.decided_slot,
            applied_slot=status.applied_slot,
            compacted_slot=status.compacted_slot,
            revision=self._revision(),
            log_bytes=status.log_bytes,
            memory_bytes=resident_bytes(),
            leader_age_ms=status.leader_age_ms,
            members=self._members(status),
            sessions=status.sessions,
            snapshot_slot=status.snapshot_slot,
            learner=_is_learner(status, identity.incarnation),
        )
        if request.digest:
            response.digest = self._digest_at(status.applied_slot)
        return response.SerializeToString()

    def _digest_at(self, applied_slot: int) -> bytes:
        # It costs in proportion to the state: who asks again before anything has happened gets the same one.
        if self._digest_of[0] != applied_slot:
            self._digest_of = applied_slot, self._digest()
        return self._digest_of[1]

    def _members(self, status: ReplicaStatus) -> list[pb.MemberStatus]:
        identity = self._identity
        if status.configuration is not None:
            return [
                pb.MemberStatus(
                    member_id=member.member_id,
                    name=member.name,
                    peer_url=member.peer_url,
                    client_urls=member.client_urls,
                    connected=member.incarnation in status.reachable
                    or member.incarnation == identity.incarnation,
                    learner=member.learner,
                    joined=member.incarnation != 0,
                )
                for member in status.configuration.members
            ]
        return [
            pb.MemberStatus(
                member_id=identity.initial_member_ids[name],
                name=name,
                peer_url=url,
                client_urls=identity.client_urls if name == identity.name else (),
                connected=name == identity.name,
                joined=name == identity.name,
            )
            for name, url in sorted(identity.initial_members.items())
            # One that joins was not told the ids of the others, and takes none of them for another.
            if identity.initial_member_ids[name]
        ]


def _is_learner(status: ReplicaStatus, incarnation: int) -> bool:
    """A server that the configuration does not name yet does not vote either; while the cluster forms, all will."""
    if status.configuration is None:
        return False
    member = status.configuration.by_incarnation(incarnation)
    return member is None or member.learner


def _leader_name(status: ReplicaStatus) -> str:
    if not status.leader or status.configuration is None:
        return ""
    member = status.configuration.by_incarnation(status.leader)
    return member.name if member is not None else ""


def resident_bytes() -> int:
    """The memory that this process has in use, in bytes; where the system does not tell, the most it ever had."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
