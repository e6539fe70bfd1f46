"""A server that goes on alone: what it keeps and loses, who it is afterwards, and a loss of power at any moment."""

from collections.abc import Iterable
from random import Random

import pytest

from paxos_rsm.codec.frames import FrameCodec, commands_frame, register_frame
from paxos_rsm.codec.kv import KvCodec, encode_command
from paxos_rsm.config import ServerConfig, Tuning
from paxos_rsm.errors import DirectoryLocked, DirectoryUnusable, DiskFull, LogDamaged, SnapshotDamaged
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.types import LeaseGrant, Put
from paxos_rsm.machines.sessions import SessionMachine
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.quorum import QuorumSizes
from paxos_rsm.paxos.ready import Write, WriteAccepted, WriteCompacted, WriteDecided, WriteDecidedThrough
from paxos_rsm.paxos.types import Ballot, Batch, ConfigChange, join_frames
from paxos_rsm.server.forcing import Loss, Survivor
from paxos_rsm.storage.directory import DataDirectory
from paxos_rsm.storage.memory import CrashMode, MemoryFiles, PowerLost
from paxos_rsm.storage.segments import SEGMENT_BYTES_MIN
from paxos_rsm.storage.snapshots import SnapshotMeta

PATH = "/var/n1"
CONFIG = ServerConfig(
    name="n1",
    data_dir=PATH,
    initial_cluster="n1=http://h1:1,n2=http://h2:2,n3=http://h3:3",
    tuning=Tuning(log_segment_bytes=SEGMENT_BYTES_MIN),
)
INCARNATION = 0x111
OLD = Configuration(
    CONFIG.cluster_id,
    (
        Member(INCARNATION, CONFIG.member_id, "n1", "http://h1:1"),
        Member(0x222, 2, "n2", "http://h2:2"),
        Member(0x333, 3, "n3", "http://h3:3"),
    ),
    QuorumSizes.majority(3),
    removed=(0x999,),
)
SESSION = 2 << 16
LEASE = 7


def put(key: bytes, seq: int, lease: int = 0) -> Batch:
    frame = commands_frame(SESSION, seq, 1, [encode_command(Put(key, b"v", lease=lease))])
    return Batch(join_frames([frame]))


GENESIS = WriteDecided(1, ConfigChange(OLD))
REGISTER = WriteDecided(2, Batch(join_frames([register_frame(5, 60_000)])))
GRANT = WriteDecided(
    3, Batch(join_frames([commands_frame(SESSION, 1, 1, [encode_command(LeaseGrant(60, LEASE))])]))
)
DECIDED = WriteDecided(4, put(b"decided", 2, LEASE))
ACCEPTED = WriteAccepted(5, Ballot(1, 0x222), put(b"accepted", 3))
BEYOND = WriteAccepted(7, Ballot(1, 0x222), put(b"beyond", 4))
LOG = (GENESIS, REGISTER, GRANT, DECIDED, WriteDecidedThrough(4), ACCEPTED, BEYOND)


def survivor(writes: Iterable[Write] = LOG, snapshot: int = 0, compact: int = 0) -> MemoryFiles:
    """A disk with the directory of n1, one of three; perhaps with a snapshot of a slot, and a log that starts later."""
    files = MemoryFiles()
    files.mkdir("/var")
    directory = start(files)
    directory.log.append(list(writes))
    if snapshot:
        writer = directory.snapshots.begin(SnapshotMeta(CONFIG.cluster_id, snapshot, 1, OLD))
        for each in machine_at(snapshot).snapshot():
            writer.write(each)
        writer.finish()
    if compact:
        directory.log.append([WriteCompacted(compact)])
    directory.close()
    return files


def machine_at(slot: int) -> SessionMachine:
    """The state as of a slot of LOG."""
    sessions = SessionMachine(KeyValueMachine(KvCodec()), FrameCodec())
    entries = {write.slot: write.entry for write in LOG if isinstance(write, WriteDecided)}
    for each in range(1, slot + 1):
        entry = entries[each]
        frames = [entry.data[4:]] if isinstance(entry, Batch) else []
        sessions.apply_slot(each, frames)
    return sessions


def start(files: MemoryFiles) -> DataDirectory:
    """As a server opens it, whoever it belongs to by now."""
    return DataDirectory.open(
        PATH,
        files,
        cluster_id=CONFIG.cluster_id,
        member_id=CONFIG.member_id,
        name="n1",
        draw_bits=lambda bits: INCARNATION,
        segment_bytes=SEGMENT_BYTES_MIN,
    )


def force(files: MemoryFiles, seed: int = 1) -> KeyValueMachine:
    machine = KeyValueMachine(KvCodec())
    with Survivor(CONFIG, files, Random(seed).getrandbits) as found:
        found.force(machine)
    return machine


def state_in(files: MemoryFiles) -> tuple[DataDirectory, SessionMachine, list[bytes]]:
    """The directory as a server finds it next, the state in its snapshot, and the keys in it."""
    directory = start(files)
    newest = directory.snapshots.newest()
    assert newest is not None
    machine = KeyValueMachine(KvCodec())
    sessions = SessionMachine(machine, FrameCodec())
    sessions.restore(directory.snapshots.read(newest.slot)[1])
    return directory, sessions, [record[0] for record in machine.changes(1, 100)]


def test_it_is_a_new_cluster_of_one_with_all_that_was_accepted() -> None:
    files = survivor()
    force(files)
    directory, sessions, keys = state_in(files)
    # Nothing was accepted in slot 6, of another session it seems: it is a no-op.
    assert keys == [b"decided", b"accepted", b"beyond"]
    identity = directory.identity
    assert identity.cluster_id not in (0, CONFIG.cluster_id)
    assert identity.incarnation not in (0, INCARNATION)
    assert (identity.member_id, identity.name, identity.boot_count) == (CONFIG.member_id, "n1", 1)
    [info] = directory.snapshots.infos()
    assert (info.slot, sessions.applied_slot, directory.recovered.compacted_through) == (8, 8, 8)
    configuration = info.meta.configuration
    configuration.validate()
    assert (info.meta.cluster_id, configuration.cluster_id) == (identity.cluster_id,) * 2
    assert [(m.incarnation, m.name, m.peer_url) for m in configuration.members] == [
        (identity.incarnation, "n1", "http://h1:1")
    ]
    assert set(configuration.removed) == {INCARNATION, 0x222, 0x333, 0x999}


def test_sessions_end_and_leases_stay() -> None:
    files = survivor()
    machine = force(files)
    _, sessions, _ = state_in(files)
    assert sessions.session_count == 0
    assert machine.lease_ids() == [LEASE]
    assert [timer.timer for timer in sessions.take_timers()] == [LEASE]


def test_what_it_keeps_and_loses_is_said_before_and_changes_nothing() -> None:
    files = survivor()
    with Survivor(CONFIG, files, Random(1).getrandbits) as found:
        assert not found.is_alone
        loss = found.loss
    assert loss == Loss(4, (5, 7), (6,), OLD.members[1:])
    text = " ".join(loss.describe(PATH))
    assert "without n2, n3" in text
    assert "every slot up to 4, which it knows to be decided, and 2 more that it has accepted (5, 7)" in text
    assert "In slots 6 it has nothing" in text
    assert "Lost is everything that the others decided without it, acknowledged or not" in text
    directory = start(files)
    assert directory.identity.incarnation == INCARNATION
    assert directory.recovered.slots.keys() == {1, 2, 3, 4, 5, 7}


def test_many_slots_are_not_all_listed() -> None:
    loss = Loss(1, tuple(range(2, 2_000)), (), OLD.members[1:])
    assert "(2, 3, 4, 5 ... 1999)" in " ".join(loss.describe(PATH))


@pytest.mark.parametrize(("snapshot", "compact"), [(2, 0), (3, 3), (4, 2)])
def test_it_goes_on_from_a_snapshot(snapshot: int, compact: int) -> None:
    plain, files = survivor(), survivor(snapshot=snapshot, compact=compact)
    expected, found = force(plain), force(files)
    assert found.digest() == expected.digest()
    directory, _, _ = state_in(files)
    assert [info.slot for info in directory.snapshots.infos()] == [8]


def test_a_configuration_that_was_only_accepted_counts_too() -> None:
    """Whoever was to come by it must not be taken for a member, nor be told that it is one."""
    members = (*OLD.members, Member(0x444, 4, "n4", "http://h4:4"))
    later = Configuration(CONFIG.cluster_id, members, QuorumSizes.majority(4), OLD.removed)
    files = survivor([*LOG, WriteAccepted(8, Ballot(1, 0x222), ConfigChange(later))])
    force(files)
    directory, _, _ = state_in(files)
    assert 0x444 in directory.snapshots.infos()[0].meta.configuration.removed


def test_once_it_is_alone_there_is_nothing_to_force() -> None:
    files = survivor()
    force(files)
    before = start(files)
    before.close()
    with Survivor(CONFIG, files, Random(2).getrandbits) as found:
        assert found.is_alone
        assert found.loss.others == ()
    assert start(files).identity.incarnation == before.identity.incarnation


@pytest.mark.parametrize("mode", list(CrashMode))
def test_a_loss_of_power_at_any_moment_leaves_the_old_member_or_the_new_cluster(mode: CrashMode) -> None:
    whole, seen = survivor(snapshot=2, compact=2), set()
    changes, done = 0, False
    while not done:
        files = whole.clone()
        files.power_off_after(changes)
        try:
            force(files)
            done = True
        except PowerLost:
            pass
        files.crash(Random(changes), mode)
        directory = start(files)
        is_new = directory.identity.cluster_id != CONFIG.cluster_id
        seen.add(is_new)
        if is_new:
            directory.close()
            directory, sessions, keys = state_in(files)
            assert (sessions.applied_slot, keys) == (8, [b"decided", b"accepted", b"beyond"])
            assert not directory.recovered.slots
        else:
            assert directory.recovered.slots.keys() == {3, 4, 5, 7}
            assert [info.slot for info in directory.snapshots.infos()] == [2]
        assert not directory.snapshot_missing
        directory.close()
        assert not [path for path in files.paths(PATH) if path.endswith(".next")]
        changes += 1
    assert seen == {False, True}


def test_a_full_disk_leaves_the_old_member() -> None:
    files = survivor()
    files.capacity_bytes = files.used_bytes + 100
    with pytest.raises(DiskFull):
        force(files)
    files.capacity_bytes = None
    assert start(files).identity.cluster_id == CONFIG.cluster_id
    assert not [path for path in files.paths(PATH) if path.endswith(".next")]


def test_where_there_is_no_directory_there_is_nothing_to_force() -> None:
    with pytest.raises(DirectoryUnusable, match="there is no data directory at /var/n1"):
        force(MemoryFiles())


def test_one_that_never_was_part_of_a_cluster_is_refused() -> None:
    files = survivor([])
    with pytest.raises(DirectoryUnusable, match="never been part of a cluster that had formed"):
        force(files)
    start(files)  # and let go of


def test_one_that_is_in_use_is_refused() -> None:
    files = survivor()
    running = start(files)
    with pytest.raises(DirectoryLocked):
        force(files)
    running.close()


def test_without_its_state_or_with_damage_it_is_refused() -> None:
    files = survivor(snapshot=3, compact=3)
    for path in files.paths(f"{PATH}/snapshots"):
        files.remove(path)
    with pytest.raises(SnapshotDamaged, match="the state is not here"):
        force(files)
    files = survivor()
    log = files.paths(f"{PATH}/log")[0]
    position = files.read(log).find(b"decided")
    files.flip(log, 8 * position)
    with pytest.raises(LogDamaged):
        force(files)
