"""The asyncio loop around the replica, over a network and a log in memory."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from paxos_rsm.codec.frames import FrameCodec, commands_frame
from paxos_rsm.errors import InvariantViolation, LogIOError, RefusedByCluster, Unavailable
from paxos_rsm.machines.base import Position, Timer
from paxos_rsm.machines.sessions import SessionMachine
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.messages import Accept, CatchUpReply, Envelope, Prepare
from paxos_rsm.paxos.node import Node
from paxos_rsm.paxos.quorum import QuorumSizes
from paxos_rsm.paxos.ready import Write
from paxos_rsm.paxos.settings import Settings
from paxos_rsm.paxos.types import Ballot, Batch, ConfigChange
from paxos_rsm.replica.forming import InitialCluster
from paxos_rsm.replica.loop import ReplicaLoop
from paxos_rsm.replica.replica import Replica, ReplicaSettings
from paxos_rsm.replica.timers import Timers
from tests.unit.replica.harness import Journal, Sink

WAIT_S = 20


class Writer:
    """A log that is durable one turn of the loop later; or fails, or never is."""

    def __init__(self) -> None:
        self.loop: ReplicaLoop | None = None
        self.batches: list[int] = []
        self.error: Exception | None = None
        self.stuck = False
        self.closed = False

    def submit(self, batch_number: int, writes: Sequence[Write], sync: bool = True) -> None:
        assert self.loop is not None
        self.batches.append(batch_number)
        if self.error is not None:
            self.loop.on_storage_failure(self.error)
        elif not self.stuck:
            self.loop.on_durable(batch_number)

    def close(self) -> None:
        self.closed = True


class Hub:
    """Streams between loops of one process."""

    def __init__(self) -> None:
        self.loops: dict[int, ReplicaLoop] = {}
        self.members: dict[int, Member] = {}


class Wire:
    def __init__(self, hub: Hub, me: Member) -> None:
        self.hub = hub
        self.me = me
        self.sent: list[Envelope] = []
        self.configuration: Configuration | None = None
        self.closed = False

    async def start(self) -> None:
        for number, loop in list(self.hub.loops.items()):
            if number != self.me.incarnation:
                loop.on_peer_up(self.me)
                self.hub.loops[self.me.incarnation].on_peer_up(self.hub.members[number])

    def send(self, envelopes: list[Envelope]) -> None:
        self.sent += envelopes
        for envelope in envelopes:
            loop = self.hub.loops.get(envelope.to)
            if loop is not None:
                asyncio.get_running_loop().call_soon(
                    loop.on_messages, self.me.incarnation, [envelope.message]
                )

    def form(self, configuration: Configuration) -> None:
        self.configuration = configuration

    def least_level(self) -> int:
        return 1

    def arrived(self) -> list[Member]:
        return [
            member
            for member in self.hub.members.values()
            if self.configuration is not None
            and (known := self.configuration.by_member_id(member.member_id)) is not None
            and not known.incarnation
        ]

    async def close(self) -> None:
        self.closed = True
        self.hub.loops.pop(self.me.incarnation, None)
        for loop in self.hub.loops.values():
            loop.on_peer_down(self.me.incarnation)


def build(hub: Hub, number: int, count: int, machine: Journal | None = None) -> ReplicaLoop:
    me = Member(number, 100 + number, f"n{number}", f"http://n{number}")
    chance = random.Random(number)
    settings = Settings(heartbeat_ticks=1, election_ticks=10, retransmit_ticks=5)
    replica = Replica(
        Node(number, settings, chance),
        SessionMachine(machine or Journal(), FrameCodec()),
        ReplicaSettings(tick_ms=10, resend_ticks=40),
        lambda: chance.getrandbits(60),
    )
    loop = ReplicaLoop(replica, InitialCluster(7, [100 + i for i in range(1, count + 1)], me), lambda: 0)
    loop.writer = writer = Writer()
    writer.loop = loop
    loop.network = Wire(hub, me)
    hub.loops[number] = loop
    hub.members[number] = me
    return loop


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - conditions of several loops, none of which has an event for it
            await asyncio.sleep(0.005)


async def stop(*loops: ReplicaLoop) -> None:
    for loop in loops:
        await loop.stop()


async def test_a_server_alone_forms_answers_and_reads() -> None:
    loop = build(Hub(), 1, 1)
    await loop.start()
    sink = Sink()
    handle = loop.attach(sink)
    await until(lambda: sink.session != 0)
    handle.submit(commands_frame(sink.session, 1, 0, [b"a"]), 1, 1)
    await until(lambda: sink.answers == {1: b"1"})
    applied = await asyncio.wait_for(loop.read(), WAIT_S)
    assert applied == loop.applied_slot
    assert loop.query(b"") == b"a"
    status = loop.status()
    assert (status.role, status.leader) == ("leader", 1)
    assert status.leader_age_ms < WAIT_S * 1000
    assert loop.network.configuration == status.configuration  # type: ignore[attr-defined]
    await stop(loop)
    with pytest.raises(Unavailable):
        loop.attach(Sink())


async def test_who_has_slept_says_how_old_its_knowledge_is() -> None:
    hub = Hub()
    loops = [build(hub, number, 3) for number in (1, 2, 3)]
    for loop in loops:
        await loop.start()
    await until(lambda: all(loop.status().role in ("leader", "follower") for loop in loops))
    time.sleep(0.3)  # noqa: ASYNC251 - as it is to be: nothing runs meanwhile, no tick either
    assert all(loop.status().leader_age_ms >= 300 for loop in loops)
    # Messages that were sent before are heard, and a tick passes: that alone makes nothing younger. Time does.
    await asyncio.sleep(0.05)
    assert all(loop.status().leader_age_ms >= 300 for loop in loops)
    await until(lambda: all(loop.status().leader_age_ms < 300 for loop in loops))
    await stop(*loops)


async def test_three_form_and_go_on_when_the_leader_is_gone() -> None:
    hub = Hub()
    loops = [build(hub, i, 3) for i in (1, 2, 3)]
    for loop in loops:
        await loop.start()
    leading: list[bool] = []
    loops[0].watch_leader(leading.append)
    await until(lambda: all(loop.status().role in ("leader", "follower") for loop in loops))
    await until(lambda: leading[-1])
    first = next(loop for loop in loops if loop.status().role == "leader")
    others = [loop for loop in loops if loop is not first]
    sink = Sink()
    handle = others[0].attach(sink)
    await until(lambda: sink.session != 0)
    await first.stop()
    handle.submit(commands_frame(sink.session, 1, 0, [b"a"]), 1, 1)
    await until(lambda: sink.answers == {1: b"1"})
    await asyncio.wait_for(others[1].read(), WAIT_S)
    assert others[1].query(b"") == b"a"
    await stop(*others)


async def test_nothing_is_proposed_before_all_have_met() -> None:
    hub = Hub()
    loops = [build(hub, i, 3) for i in (1, 2)]
    for loop in loops:
        await loop.start()
    await asyncio.sleep(0.3)  # many election time-outs: nothing may come of them
    assert [loop.status().role for loop in loops] == ["forming", "forming"]
    assert all(not any(isinstance(e.message, Prepare) for e in loop.network.sent) for loop in loops)  # type: ignore[attr-defined]
    third = build(hub, 3, 3)
    await third.start()
    await until(lambda: all(loop.status().role != "forming" for loop in (*loops, third)))
    await stop(*loops, third)


async def test_reads_of_one_turn_share_an_index_and_later_ones_do_not() -> None:
    loop = build(Hub(), 1, 1)
    await loop.start()
    await until(lambda: loop.status().role == "leader")
    first, second = loop.read(), loop.read()
    assert first is second
    await asyncio.sleep(0)
    assert loop.read() is not first
    await asyncio.wait_for(first, WAIT_S)
    await stop(loop)


async def test_a_read_without_a_leader_fails() -> None:
    loop = build(Hub(), 1, 3)
    await loop.start()
    with pytest.raises(Unavailable):
        await asyncio.wait_for(loop.read(), WAIT_S)
    await stop(loop)


async def test_a_failing_log_stops_the_server_and_it_says_nothing_more() -> None:
    loop = build(Hub(), 1, 1)
    await loop.start()
    await until(lambda: loop.status().role == "leader")
    loop.writer.error = LogIOError("the disk is gone")  # type: ignore[attr-defined]
    sink = Sink()
    loop.attach(sink)
    with pytest.raises(LogIOError):
        await asyncio.wait_for(asyncio.shield(loop.failed), WAIT_S)
    batches = len(loop.writer.batches)  # type: ignore[attr-defined]
    await asyncio.sleep(0.05)
    assert len(loop.writer.batches) == batches  # type: ignore[attr-defined]
    assert sink.session == 0
    await stop(loop)


async def test_a_leader_whose_disk_is_full_leads_no_more_and_reads_what_the_others_write() -> None:
    hub = Hub()
    loops = [build(hub, i, 3) for i in (1, 2, 3)]
    for loop in loops:
        await loop.start()
    await until(lambda: any(loop.status().role == "leader" for loop in loops))
    full = next(loop for loop in loops if loop.status().role == "leader")
    others = [loop for loop in loops if loop is not full]
    writer: Writer = full.writer  # type: ignore[assignment]
    writer.stuck = True
    full.on_storage_full(True)
    await until(lambda: any(loop.status().role == "leader" for loop in others))
    assert full.status().disk_full
    sink = Sink()
    handle = others[0].attach(sink)
    await until(lambda: sink.session != 0)
    handle.submit(commands_frame(sink.session, 1, 0, [b"a"]), 1, 1)
    await until(lambda: sink.answers == {1: b"1"})
    await asyncio.wait_for(full.read(), WAIT_S)
    assert full.query(b"") == b"a"
    writer.stuck = False
    full.on_durable(writer.batches[-1])
    full.on_storage_full(False)
    await until(lambda: not full.status().disk_full)
    follower = next(loop for loop in others if loop.status().role != "leader")
    leader = next(loop for loop in others if loop is not follower)
    await follower.stop()
    again = Sink()
    handle = leader.attach(again)
    await until(lambda: again.session != 0)  # with the vote of the one whose disk was full
    await stop(full, leader)


async def test_a_machine_that_raises_stops_the_server() -> None:
    class Broken(Journal):
        def apply(self, command: bytes, at: Position) -> bytes:
            raise ZeroDivisionError("oops")

    loop = build(Hub(), 1, 1, Broken())
    await loop.start()
    sink = Sink()
    handle = loop.attach(sink)
    await until(lambda: sink.session != 0)
    handle.submit(commands_frame(sink.session, 1, 0, [b"a"]), 1, 1)
    with pytest.raises(Exception, match="Broken"):
        await asyncio.wait_for(asyncio.shield(loop.failed), WAIT_S)
    assert sink.answers == {}
    await stop(loop)


async def test_a_refusal_by_the_cluster_stops_the_server() -> None:
    loop = build(Hub(), 1, 3)
    await loop.start()
    loop.on_failed(RefusedByCluster("wiped"))
    with pytest.raises(RefusedByCluster):
        await asyncio.wait_for(asyncio.shield(loop.failed), WAIT_S)
    await stop(loop)


async def test_a_wiped_server_that_learns_of_a_cluster_formed_without_it_stops() -> None:
    """Rule 9: it was wiped while the cluster formed, with its vote; what it learns names the incarnation it had."""
    loop = build(Hub(), 3, 3)
    await loop.start()
    wiped = (1, 2, 99)
    people = tuple(Member(node, 101 + i, f"n{i + 1}", f"http://n{i + 1}") for i, node in enumerate(wiped))
    genesis = ConfigChange(Configuration(7, people, QuorumSizes.majority(3)))
    loop.on_messages(1, [CatchUpReply(Ballot(1, 1), ((1, genesis),), 1)])
    with pytest.raises(RefusedByCluster, match="add this server as a new one"):
        await asyncio.wait_for(asyncio.shield(loop.failed), WAIT_S)
    said = len(loop.network.sent)  # type: ignore[attr-defined]
    loop.on_messages(1, [Prepare(Ballot(2, 1), 1)])
    await asyncio.sleep(0.05)
    assert len(loop.network.sent) == said, "it says nothing more"  # type: ignore[attr-defined]
    await stop(loop)


async def test_a_broken_invariant_stops_the_server() -> None:
    loop = build(Hub(), 1, 1)
    await loop.start()
    await until(lambda: loop.status().role == "leader")
    loop.on_messages(2, [Accept(Ballot(99, 2), 1, Batch(b"\0\0\0\5other"), 0)])
    with pytest.raises(InvariantViolation, match="slot 1"):
        await asyncio.wait_for(asyncio.shield(loop.failed), WAIT_S)
    await stop(loop)
    assert loop.writer.closed  # type: ignore[attr-defined]


class Clock:
    """In place of the event loop: time is what the test says, and callbacks wait until it calls them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due = 0.0

    def time(self) -> float:
        return self.now

    def call_later(self, delay_s: float, _call: Callable[[], None]) -> None:
        self.due = self.now + delay_s


class OneTimer:
    """A machine with one timer."""

    def __init__(self) -> None:
        self.taken: list[Timer] = []

    def take_timers(self) -> Sequence[Timer]:
        taken, self.taken = self.taken, []
        return taken

    def is_armed(self, timer: int) -> bool:
        return True


async def test_no_timer_of_the_machine_is_early_however_late_ticks_come() -> None:
    """Those that are late come two at a time: what was armed just before them has not waited for either."""
    duration_s, earliest_s = 0.2, 1.0
    for seed in range(300):
        chance = random.Random(seed)
        loop = build(Hub(), 1, 1)
        clock, machine, timers = Clock(), OneTimer(), Timers(10)
        said: list[bytes] = []
        at: Any = loop
        at._loop, at._running, at._last_tick_at, at._ask_turn = clock, True, 0.0, lambda: None
        at.replica.tick = lambda said=said, timers=timers, machine=machine: said.extend(
            timers.tick(Ballot(1, 1), True, machine)
        )
        at._schedule_tick()
        armed_at = 0.0
        while not said:
            late_s = chance.choice([0.0, 0.0, chance.uniform(0, 0.025)])
            if not armed_at and clock.due + late_s > 0.1:
                armed_at = clock.due + late_s
                machine.taken.append(Timer(1, 1, int(duration_s * 1000)))
            clock.now = clock.due + late_s
            at._tick()
        earliest_s = min(earliest_s, clock.now - armed_at)
    assert duration_s <= earliest_s < duration_s + 0.02
