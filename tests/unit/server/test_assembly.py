"""A replica that is put together from a directory: what it starts from. That it runs is shown in test_app.py."""

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import pytest

from paxos_rsm.config import ServerConfig
from paxos_rsm.errors import LogDamaged
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.quorum import QuorumSizes
from paxos_rsm.paxos.ready import WriteCompacted, WriteDecided, WriteDecidedThrough
from paxos_rsm.paxos.types import Batch, ConfigChange, Noop, join_frames
from paxos_rsm.replica.loop import ReplicaLoop
from paxos_rsm.server.assembly import make_replica
from paxos_rsm.storage.directory import DataDirectory
from paxos_rsm.storage.memory import MemoryFiles
from paxos_rsm.storage.snapshots import SnapshotMeta
from tests.unit.replica.harness import Journal

CONFIG = ServerConfig(name="n1")


@contextmanager
def opened(files: MemoryFiles, hold_us: int = 0) -> Iterator[DataDirectory]:
    directory = DataDirectory.open(
        "/data",
        files,
        cluster_id=CONFIG.cluster_id,
        member_id=CONFIG.member_id,
        name="n1",
        draw_bits=Random(1).getrandbits,
        repair=True,
        hold_us=hold_us,
    )
    try:
        yield directory
    finally:
        directory.close()


def grow(directory: DataDirectory) -> None:
    """Six decided slots, a snapshot of the fifth, and a log that starts after the second."""
    me = Member(directory.identity.incarnation, CONFIG.member_id, "n1", CONFIG.peer_url)
    configuration = Configuration(CONFIG.cluster_id, (me,), QuorumSizes.majority(1))
    log = directory.log
    log.append(
        [WriteDecided(1, ConfigChange(configuration)), *(WriteDecided(s, Noop()) for s in range(2, 7))]
    )
    log.append([WriteDecidedThrough(6)])
    log.sync()
    writer = directory.snapshots.begin(SnapshotMeta(CONFIG.cluster_id, 5, 1, configuration))
    writer.write(b"state")
    writer.finish()
    log.append([WriteCompacted(2)])
    log.sync()


async def made(files: MemoryFiles) -> ReplicaLoop:
    with opened(files) as directory:
        loop = await make_replica(CONFIG, directory, Journal())
        loop.writer.close()
        return loop


async def test_an_empty_directory_makes_a_server_that_has_yet_to_form() -> None:
    loop = await made(MemoryFiles())
    assert loop.replica.node.role == "forming"
    assert loop.replica.node.decided_through == 0


async def test_who_may_have_held_for_a_leader_follows_nobody_at_first() -> None:
    files = MemoryFiles()
    with opened(files, hold_us=300_000):
        pass
    node = (await made(files)).replica.node
    node.ready(1)
    assert node.acceptor.holds.bind(7)
    node.ready(300_001)
    assert not node.acceptor.holds.bind(7)


async def test_it_starts_from_the_newest_snapshot_that_holds() -> None:
    files = MemoryFiles()
    with opened(files) as directory:
        grow(directory)
    node = (await made(files)).replica.node
    assert (node.decided_through, node.compacted_through, node.log.held) == (6, 2, False)
    assert [slot for slot, _ in node.ready().decided] == [6]
    assert node.configuration is not None


async def test_without_one_it_waits_for_that_of_another() -> None:
    files = MemoryFiles()
    with opened(files) as directory:
        grow(directory)
        path = directory.snapshots.infos()[0].path
    files.open(path).pwrite(b"\xff\xff", files.open(path).size() // 2)
    node = (await made(files)).replica.node
    assert node.log.held
    assert node.ready().decided == []
    assert not node.may_campaign


def damage(files: MemoryFiles, slot: int) -> None:
    """Flips a bit in the entry of a slot, whose record's header stays as it is."""
    (path,) = [p for p in files.paths("/data/log") if p.endswith(".log")]
    file = files.open(path)
    data = file.pread(file.size(), 0)
    at = data.index(b"entry of %d" % slot)
    file.pwrite(bytes([data[at] ^ 1]), at)


def vote(files: MemoryFiles, members: int) -> None:
    """Six decided slots of a cluster of so many members."""
    with opened(files) as directory:
        people = tuple(
            Member(directory.identity.incarnation + i, CONFIG.member_id + i, f"n{i + 1}", f"http://h:{i + 1}")
            for i in range(members)
        )
        genesis = ConfigChange(Configuration(CONFIG.cluster_id, people, QuorumSizes.majority(members)))
        entries = [Batch(join_frames([b"entry of %d" % slot])) for slot in range(2, 7)]
        directory.log.append([WriteDecided(1, genesis)])
        directory.log.append([WriteDecided(slot, entry) for slot, entry in enumerate(entries, 2)])
        directory.log.append([WriteDecidedThrough(6)])
        directory.log.sync()


async def test_an_entry_that_cannot_be_read_is_left_to_the_others(caplog: pytest.LogCaptureFixture) -> None:
    files = MemoryFiles()
    vote(files, 3)
    damage(files, 4)
    node = (await made(files)).replica.node
    assert node.log.unreadable == {4}
    assert [slot for slot, _ in node.ready().decided] == [1, 2, 3]
    assert any("fetched from the other members" in message for message in caplog.messages)


async def test_an_entry_that_nobody_else_has_is_told(caplog: pytest.LogCaptureFixture) -> None:
    files = MemoryFiles()
    vote(files, 1)
    damage(files, 4)
    with pytest.raises(LogDamaged, match="the first of them 4, and there is no other member"):
        await made(files)


async def test_an_entry_that_a_snapshot_makes_up_for_is_missed_by_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    files = MemoryFiles()
    vote(files, 1)
    with opened(files) as directory:
        genesis = directory.recovered.slots[1].entry
        assert isinstance(genesis, ConfigChange)
        writer = directory.snapshots.begin(SnapshotMeta(CONFIG.cluster_id, 5, 1, genesis.configuration))
        writer.write(b"the state after slot 5")
        writer.finish()
    damage(files, 4)
    node = (await made(files)).replica.node
    assert (node.log.unreadable, node.compacted_through) == (set(), 5)
    assert [slot for slot, _ in node.ready().decided] == [6]
    assert not any("cannot be read" in message for message in caplog.messages)
