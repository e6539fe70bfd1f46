"""From a data directory and the settings to a replica with its log, its streams and its snapshots around it."""

import asyncio
import logging
import random
import secrets

from paxos_rsm.codec.frames import FrameCodec
from paxos_rsm.config import ServerConfig, Tuning
from paxos_rsm.errors import ConfigError, LogDamaged, RefusedByCluster
from paxos_rsm.machines.base import StateMachine
from paxos_rsm.machines.sessions import SessionMachine
from paxos_rsm.paxos.membership import Base, Member
from paxos_rsm.paxos.node import Node
from paxos_rsm.paxos.settings import Settings
from paxos_rsm.paxos.types import ConfigChange
from paxos_rsm.replica.forming import InitialCluster
from paxos_rsm.replica.founding import restore_initial
from paxos_rsm.replica.loop import HAS_STEADY_CLOCK, ReplicaLoop
from paxos_rsm.replica.replica import Replica, ReplicaSettings
from paxos_rsm.replica.snapshots import SnapshotKeeper, sound_snapshot
from paxos_rsm.server.joining import peers_to_dial
from paxos_rsm.storage.directory import DataDirectory
from paxos_rsm.storage.writer import StorageThread
from paxos_rsm.transport import Hello, Refusal, Transport, TransportOptions

__all__ = ["make_replica"]

log = logging.getLogger(__name__)

RETRANSMIT_MS = 200
RESEND_MS = 1_000
SLOTS_TOLD_MAX = 20
STALL_ELECTIONS = 3
"""A leader whose disk has not answered for so many election time-outs gives up its place."""


async def make_replica(config: ServerConfig, directory: DataDirectory, machine: StateMachine) -> ReplicaLoop:
    """The replica of the member that ``directory`` belongs to, not started yet.

    Raises ConfigError, and RefusedByCluster where a server that joins is told that it may not.
    """
    node = await _make_node(config.tuning, directory, machine)
    replica = Replica(
        node,
        SessionMachine(machine, FrameCodec()),
        _replica_settings(config.tuning),
        lambda: secrets.randbits(64),
    )
    identity = directory.identity
    me = Member(identity.incarnation, identity.member_id, identity.name, config.peer_url, config.client_urls)
    initial = (
        InitialCluster(config.cluster_id, list(config.member_ids.values()), me, config.tuning.phase2_quorum)
        if config.joined_ids is None
        else InitialCluster.of_joiner(config.cluster_id, me)
    )
    keeper = SnapshotKeeper(replica, directory.snapshots, config.cluster_id)
    loop = ReplicaLoop(replica, initial, lambda: directory.log.bytes_on_disk, keeper)

    def hello() -> Hello:
        formed = node.configuration is not None
        return Hello(
            config.cluster_id,
            me,
            identity.boot_count,
            loop.durable_promise,
            formed,
            joining=identity.joined and not formed,
            restored_from=identity.restored_from,
        )

    def refused(refusal: Refusal) -> None:
        if refusal.fatal:
            loop.on_failed(RefusedByCluster(refusal.message))

    loop.network = Transport(
        hello=hello,
        peers=await peers_to_dial(config, formed=node.configuration is not None),
        listen_urls=config.listen_peer_urls,
        on_messages=loop.on_messages,
        on_peer_up=loop.on_peer_up,
        on_peer_down=loop.on_peer_down,
        on_refused=refused,
        on_failed=loop.on_failed,
        dial=lambda member: config.dial_url(member.name, member.peer_url),
        options=_transport_options(config.tuning),
    )
    loop.writer = StorageThread(directory.log, loop.on_durable, loop.on_storage_failure, loop.on_storage_full)
    return loop


async def _make_node(tuning: Tuning, directory: DataDirectory, machine: StateMachine) -> Node:
    recovered = directory.recovered
    base = await asyncio.to_thread(sound_snapshot, directory.snapshots, recovered.compacted_through)
    if base is None and recovered.compacted_through:
        log.error(
            "no snapshot holds what the log was compacted for; this server waits for one of another member",
            extra={"data_dir": directory.path, "compacted_slot": recovered.compacted_through},
        )
    has_beginning = base is not None or await asyncio.to_thread(restore_initial, directory, machine)
    settings = Settings(
        heartbeat_ticks=tuning.heartbeat_ticks,
        election_ticks=tuning.election_timeout_ticks,
        retransmit_ticks=max(1, RETRANSMIT_MS // tuning.tick_ms),
        window_slots=tuning.window_entries,
        entry_bytes_max=tuning.entry_bytes_max,
        waiting_bytes_max=tuning.pending_bytes_max,
        read_lease_us=tuning.read_lease_ms * 1_000,
        read_lease_drift_percent=tuning.read_lease_drift_percent,
        quorum_reads=tuning.quorum_reads,
    )
    if tuning.read_lease_ms and not HAS_STEADY_CLOCK:
        raise ConfigError(
            "--read-lease-ms needs a clock that goes on while the machine sleeps (CLOCK_BOOTTIME), and this platform "
            "has none: leave it at 0"
        )
    node = Node(
        directory.identity.incarnation,
        settings,
        random.Random(secrets.randbits(64)),
        promised=recovered.promised,
        votes=recovered.slots,
        decided_through=recovered.decided_through,
        compacted_through=recovered.compacted_through,
        unreadable=recovered.unreadable,
        base=Base(base.slot, base.changed_in, base.configuration) if base is not None else None,
        restored=bool(directory.identity.restored_from),
        missing=not has_beginning,
        hold_owed_us=directory.hold_owed_us,
    )
    _check_unreadable(node, directory)
    return node


def _check_unreadable(node: Node, directory: DataDirectory) -> None:
    """Says which slots have to come from others. Raises LogDamaged where there is nobody else."""
    lost = sorted(node.log.unreadable)  # without those that a snapshot makes up for
    if not lost:
        return
    genesis = node.log.get(1)
    configuration = node.configuration
    if configuration is None and genesis is not None and type(genesis.entry) is ConfigChange:
        configuration = genesis.entry.configuration  # not known to be decided; but it says who there may be
    if configuration is not None and configuration.nodes <= {node.me}:
        raise LogDamaged(
            f"the log is damaged in {directory.path}: {len(lost)} slots cannot be read, the first of them {lost[0]}, "
            "and there is no other member that has them. Restore the disk to what it was, or restore a backup "
            "(`paxos-rsm snapshot restore`)"
        )
    log.error(
        "slots of the log cannot be read; they are fetched from the other members",
        extra={
            "data_dir": directory.path,
            "slots": ",".join(map(str, lost[:SLOTS_TOLD_MAX])),
            "count": len(lost),
        },
    )


def _replica_settings(tuning: Tuning) -> ReplicaSettings:
    return ReplicaSettings(
        tick_ms=tuning.tick_ms,
        resend_ticks=max(1, RESEND_MS // tuning.tick_ms),
        stall_ticks=STALL_ELECTIONS * tuning.election_timeout_ticks,
        frame_bytes_max=tuning.frame_bytes_max,
        pending_bytes_max=tuning.pending_bytes_max,
        session_timeout_ms=tuning.session_timeout_ms,
        snapshot_log_bytes=tuning.snapshot_log_bytes,
        snapshot_rate_bytes_per_s=tuning.snapshot_rate_bytes_per_s,
    )


def _transport_options(tuning: Tuning) -> TransportOptions:
    # A promise or a catch-up is a chunk, or one entry where that is longer.
    message_bytes_max = max(TransportOptions().message_bytes_max, 2 * tuning.entry_bytes_max)
    return TransportOptions(
        message_bytes_max=message_bytes_max,
        queue_bytes_max=max(tuning.peer_queue_bytes_max, message_bytes_max),
    )
