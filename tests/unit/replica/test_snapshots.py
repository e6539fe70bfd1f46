"""Snapshots that are taken, fetched and installed by running loops, over files in memory."""

import asyncio
import errno
import random
from collections.abc import Iterable, Iterator

import pytest

from paxos_rsm.codec.frames import FrameCodec, commands_frame
from paxos_rsm.errors import LogIOError, Unavailable
from paxos_rsm.machines.sessions import SessionMachine
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.node import Node
from paxos_rsm.paxos.quorum import QuorumSizes
from paxos_rsm.paxos.settings import Settings
from paxos_rsm.replica.forming import InitialCluster
from paxos_rsm.replica.loop import ReplicaLoop
from paxos_rsm.replica.replica import Replica, ReplicaSettings
from paxos_rsm.replica.snapshots import SnapshotKeeper, sound_snapshot
from paxos_rsm.replica.transfer import FinishFetch
from paxos_rsm.storage.memory import MemoryFiles
from paxos_rsm.storage.snapshots import SnapshotMeta, SnapshotStore
from tests.unit.replica.harness import Journal, Sink
from tests.unit.replica.test_loop import Hub, Wire, Writer, stop, until

CLUSTER_ID = 7
DIRECTORY = "/snapshots"


class Slow(Journal):
    """A state of many slices, each of which takes a while."""

    def snapshot(self) -> Iterable[bytes]:
        commands = list(self.commands)

        def slices() -> Iterator[bytes]:
            yield b"\n".join(commands)
            for _ in range(20):
                sum(range(100_000))
                yield b""

        return slices()


def build(
    hub: Hub, number: int, count: int = 3, files: MemoryFiles | None = None, **options: int
) -> ReplicaLoop:
    me = Member(number, 100 + number, f"n{number}", f"http://n{number}")
    chance = random.Random(number)
    settings = Settings(heartbeat_ticks=1, election_ticks=20, retransmit_ticks=5)
    replica = Replica(
        Node(number, settings, chance),
        SessionMachine(Slow(), FrameCodec()),
        ReplicaSettings(**({"tick_ms": 10, "resend_ticks": 40} | options)),
        lambda: chance.getrandbits(60),
    )
    store = SnapshotStore.open(files or MemoryFiles(), DIRECTORY)
    keeper = SnapshotKeeper(replica, store, CLUSTER_ID)
    members = [100 + i for i in range(1, count + 1)]
    loop = ReplicaLoop(replica, InitialCluster(CLUSTER_ID, members, me), lambda: 0, keeper)
    loop.writer = writer = Writer()
    writer.loop = loop
    loop.network = Wire(hub, me)
    hub.loops[number] = loop
    hub.members[number] = me
    return loop


async def started(**options: int) -> tuple[Hub, ReplicaLoop, list[ReplicaLoop]]:
    hub = Hub()
    loops = [build(hub, number, 3, None, **options) for number in (1, 2, 3)]
    for loop in loops:
        await loop.start()
    await until(lambda: any(loop.status().role == "leader" for loop in loops))
    leader = next(loop for loop in loops if loop.status().role == "leader")
    return hub, leader, [loop for loop in loops if loop is not leader]


async def write(loop: ReplicaLoop, count: int) -> None:
    sink = Sink()
    handle = loop.attach(sink)
    await until(lambda: sink.session != 0)
    for seq in range(1, count + 1):
        handle.submit(commands_frame(sink.session, seq, 0, [b"%d" % seq]), seq, 1)
        await until(lambda seq=seq: seq in sink.answers)  # type: ignore[misc]
    handle.close()


def keeper_of(loop: ReplicaLoop) -> SnapshotKeeper:
    assert loop.snapshots is not None
    return loop.snapshots


async def test_a_server_that_was_away_for_long_gets_a_snapshot_and_then_the_log() -> None:
    hub, leader, (late, other) = await started()
    number = late.replica.node.me
    del hub.loops[number]
    leader.on_peer_down(number)
    other.on_peer_down(number)
    await write(leader, 30)
    await until(lambda: other.applied_slot == leader.applied_slot)
    compacted = 0
    for loop in (leader, other):  # nobody has the log any more
        info = await keeper_of(loop).take()
        assert info is not None
        compacted = info.slot
        loop.replica.node.compact(compacted)
    said: list[bool] = []
    late.watch_install(said.append)
    hub.loops[number] = late
    for loop in (leader, other):
        loop.on_peer_up(hub.members[number])
        late.on_peer_up(hub.members[loop.replica.node.me])
    await until(lambda: said == [True, False])  # the machine has the slot before that, on its thread
    assert late.applied_slot >= compacted
    assert not keeper_of(late).installing
    await write(leader, 3)
    await until(lambda: late.applied_slot == leader.applied_slot)
    assert late.query(b"") == leader.query(b"")
    assert late.status().compacted_slot >= compacted
    await stop(leader, late, other)


async def test_the_log_stays_short_under_load_by_itself() -> None:
    hub, leader, others = await started(snapshot_log_bytes=2_000)
    await write(leader, 60)
    everybody = [leader, *others]
    await until(lambda: all(loop.status().compacted_slot > 0 for loop in everybody))
    for loop in everybody:
        assert len(loop.replica.node.log.slots) < 60
    await stop(*everybody)
    assert hub.loops == {}


async def test_whoever_asks_while_one_is_taken_gets_that_one_and_then_none_until_something_was_applied() -> (
    None
):
    loop = build(Hub(), 1, 1)
    await loop.start()
    await write(loop, 3)
    first, second = await asyncio.gather(keeper_of(loop).take(), keeper_of(loop).take())
    assert first is not None
    assert second is first
    assert await keeper_of(loop).take() is None
    await write(loop, 1)
    third = await keeper_of(loop).take()
    assert third is not None
    assert third.slot > first.slot
    await stop(loop)
    with pytest.raises(Unavailable):
        await keeper_of(loop).take()


async def test_one_that_was_fetched_and_is_not_installed_is_the_one_that_others_are_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may outlive this server's own: whoever is to be sent that one would ask for it for ever."""
    hub, leader, (late, other) = await started()
    await write(leader, 5)
    await until(lambda: late.applied_slot == leader.applied_slot)
    own = await keeper_of(late).take()
    assert own is not None
    del hub.loops[late.replica.node.me]
    await write(leader, 5)
    info = await keeper_of(leader).take()
    assert info is not None
    keeper = keeper_of(late)
    fetch = keeper._open_fetch(info.slot, info.bytes)
    fetch.write(0, keeper_of(leader)._store.read_range(info.slot, 0, info.bytes) or b"")
    monkeypatch.setattr(late.replica.node, "may_install", lambda slot: False)  # it has come to lead, say
    await keeper._finish(FinishFetch(info.slot, info.bytes))
    assert late.applied_slot < info.slot
    assert late.replica.transfer.newest == info.slot
    assert not late.replica.snapshot_is_due
    await stop(leader, late, other)


async def test_none_is_begun_between_the_end_of_one_and_the_installing_that_waits_for_it() -> None:
    """It would walk a state that is being replaced, and be believed."""
    hub, leader, (late, other) = await started()
    await write(leader, 5)
    await until(lambda: late.applied_slot == leader.applied_slot)
    del hub.loops[late.replica.node.me]
    await write(leader, 5)
    info = await keeper_of(leader).take()
    assert info is not None
    keeper = keeper_of(late)
    fetch = keeper._store.fetch(info.slot, info.bytes)
    fetch.write(0, keeper_of(leader)._store.read_range(info.slot, 0, info.bytes) or b"")
    fetched = fetch.finish()
    begun: list[bool] = []
    late.watch_install(lambda begins: begun.append(keeper._taking is not None) if begins else None)

    async def take_twice() -> None:
        await keeper.take()
        await keeper.take()

    twice = asyncio.create_task(take_twice())
    await asyncio.sleep(0)
    await keeper._install(fetched)
    await asyncio.gather(twice, return_exceptions=True)
    assert begun == [False]
    assert late.applied_slot == info.slot
    await stop(leader, late, other)


async def test_commands_go_on_while_a_snapshot_is_taken_and_do_not_show_in_it() -> None:
    files = MemoryFiles()
    loop = build(Hub(), 1, 1, files)
    await loop.start()
    await write(loop, 3)
    before = loop.applied_slot
    taking = asyncio.ensure_future(keeper_of(loop).take())
    await write(loop, 5)
    info = await taking
    assert info is not None
    assert before <= info.slot < loop.applied_slot
    machine = SessionMachine(Journal(), FrameCodec())
    machine.restore(SnapshotStore.open(files, DIRECTORY).read(info.slot)[1])
    assert machine.applied_slot == info.slot
    await stop(loop)


async def test_without_space_there_is_no_snapshot_and_the_server_goes_on() -> None:
    files = MemoryFiles()
    loop = build(Hub(), 1, 1, files, snapshot_log_bytes=500)
    await loop.start()
    files.fail("pwrite", 1, errno.ENOSPC)
    await write(loop, 20)
    await until(lambda: keeper_of(loop)._not_before > 0)
    await write(loop, 5)
    assert not loop.failed.done()
    assert loop.status().compacted_slot == 0
    await stop(loop)


async def test_any_other_error_of_the_disk_stops_the_server() -> None:
    files = MemoryFiles()
    loop = build(Hub(), 1, 1, files, snapshot_log_bytes=500)
    await loop.start()
    files.fail("fdatasync", 1, errno.EIO)
    writing = asyncio.ensure_future(write(loop, 1_000))
    await until(loop.failed.done)
    writing.cancel()
    with pytest.raises(LogIOError):
        loop.failed.result()
    await stop(loop)


async def test_a_start_goes_on_from_the_snapshot() -> None:
    files = MemoryFiles()
    loop = build(Hub(), 1, 1, files)
    await loop.start()
    await write(loop, 3)
    info = await keeper_of(loop).take()
    assert info is not None
    answer = loop.query(b"")
    await stop(loop)
    again = build(Hub(), 1, 1, files)
    await keeper_of(again).restore(info.slot)
    assert again.query(b"") == answer
    assert again.applied_slot == info.slot == again.replica.transfer.newest
    await keeper_of(again).close()


def test_of_snapshots_that_do_not_hold_an_older_one_is_taken() -> None:
    files = MemoryFiles()
    configuration = Configuration(CLUSTER_ID, (Member(1, 101, "n1", "http://n1"),), QuorumSizes.majority(1))
    store = SnapshotStore.open(files, DIRECTORY)
    for slot in (5, 9):
        writer = store.begin(SnapshotMeta(CLUSTER_ID, slot, 1, configuration))
        writer.write(bytes(1_000))
        writer.finish()
    newest = store.newest()
    assert newest is not None
    files.open(newest.path).pwrite(b"\xff", newest.bytes // 2)
    found = sound_snapshot(store, 0)
    assert found is not None
    assert found.slot == 5
    assert sound_snapshot(store, 6) is None
