"""Replicas over links and disks that a test drives by hand: the synchronous step, without asyncio."""

import random
from collections.abc import Iterable, Sequence
from typing import Any

from paxos_rsm.codec.frames import FrameCodec, commands_frame
from paxos_rsm.errors import PaxosRsmError
from paxos_rsm.machines.base import Position
from paxos_rsm.machines.sessions import SessionMachine
from paxos_rsm.paxos.membership import Base, Configuration, Member
from paxos_rsm.paxos.messages import Envelope, Message
from paxos_rsm.paxos.node import Node
from paxos_rsm.paxos.quorum import QuorumSizes
from paxos_rsm.paxos.settings import Settings
from paxos_rsm.replica.replica import Effects, Replica, ReplicaSettings
from paxos_rsm.replica.transfer import PART_BYTES, DropSnapshots, ReadPart, SnapshotTask, WritePart

SETTINGS = Settings(heartbeat_ticks=1, election_ticks=8, retransmit_ticks=3, window_slots=4, pipeline_bytes=1)


class Journal:
    """A machine that is not idempotent: it keeps every command in order, and answers how many there are."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []

    def apply(self, command: bytes, at: Position) -> bytes:
        self.commands.append(command)
        return b"%d" % len(self.commands)

    def query(self, request: bytes) -> bytes:
        return b" ".join(self.commands)

    def snapshot(self) -> Iterable[bytes]:
        return [b"\n".join(self.commands)]

    def restore(self, chunks: Iterable[bytes]) -> None:
        self.commands = b"".join(chunks).split(b"\n")

    def digest(self) -> bytes:
        return b"\n".join(self.commands)


class Sink:
    """A client's end of a session."""

    def __init__(self) -> None:
        self.session = 0
        self.next_seq = 0
        self.answers: dict[int, Any] = {}
        self.errors: list[tuple[int, PaxosRsmError]] = []

    def opened(self, session: int, next_seq: int) -> None:
        self.session, self.next_seq = session, next_seq

    def results(self, first_seq: int, results: Sequence[Any]) -> None:
        for seq, result in enumerate(results, first_seq):
            self.answers.setdefault(seq, result)

    def failed(self, first_seq: int, error: PaxosRsmError) -> None:
        self.errors.append((first_seq, error))


class Server:
    """One replica and what it has handed to its driver."""

    def __init__(
        self, number: int, forming: Configuration, settings: ReplicaSettings, protocol: Settings
    ) -> None:
        self.number = number
        self.journal = Journal()
        node = Node(number, protocol, random.Random(number))
        chance = random.Random(100 + number)
        self.replica = Replica(
            node, SessionMachine(self.journal, FrameCodec()), settings, lambda: chance.getrandbits(63) or 1
        )
        self.replica.meet(forming)
        self.up = True
        self.unsynced: list[Effects] = []
        self.snapshots: dict[int, tuple[Base, bytes]] = {}
        """By slot: durable ones."""
        self.everywhere: dict[int, Base] = {}
        """What the snapshots of all servers stand for: their files would say it."""
        self.fetched = bytearray()

    def take_snapshot(self) -> None:
        """A snapshot of the state as it is, durable at once."""
        base, slices = self.replica.begin_snapshot()
        data = b"".join(slices)
        self.snapshots[base.slot] = base, data
        self.everywhere[base.slot] = base
        self.replica.snapshot_taken(base.slot, len(data))

    def do(self, task: SnapshotTask) -> None:
        """What the thread of a real server does with a snapshot file."""
        transfer = self.replica.transfer
        if isinstance(task, ReadPart):
            _, data = self.snapshots.get(task.slot, (None, b""))
            transfer.read(task.to, task.slot, len(data), task.offset, data[task.offset :][:PART_BYTES])
        elif isinstance(task, WritePart):
            self.fetched = self.fetched[: task.offset] + task.data
            transfer.written(task.slot, len(self.fetched))
        elif isinstance(task, DropSnapshots):
            self.snapshots.clear()
        else:
            self.install(task.slot, bytes(self.fetched))

    def install(self, slot: int, data: bytes) -> None:
        """Puts a snapshot in the place of the state."""
        replica = self.replica
        if replica.node.may_install(slot):
            replica.hold(True)
            replica.machine.restore([data])
            base = self.everywhere[slot]
            self.snapshots[slot] = base, data
            replica.installed(base, len(data))
        else:
            replica.transfer.finished()


class Servers:
    """Some servers and the messages under way between them."""

    def __init__(self, count: int = 3, protocol: Settings = SETTINGS, /, **settings: int) -> None:
        people = tuple(Member(i, 100 + i, f"n{i}", f"http://n{i}:2380") for i in range(1, count + 1))
        self.forming = Configuration(7, people, QuorumSizes.majority(count))
        options = ReplicaSettings(**({"resend_ticks": 12, "session_timeout_ms": 100_000} | settings))
        self.servers = {i: Server(i, self.forming, options, protocol) for i in range(1, count + 1)}
        everywhere: dict[int, Base] = {}
        for server in self.servers.values():
            server.everywhere = everywhere
        self.wire: list[tuple[int, int, Message]] = []
        self.cut: set[tuple[int, int]] = set()
        self.lossy: set[type] = set()
        self.slow_disks: set[int] = set()

    def __getitem__(self, number: int) -> Replica:
        return self.servers[number].replica

    def journal(self, number: int) -> list[bytes]:
        return self.servers[number].journal.commands

    def turn(self, number: int) -> None:
        """Turns until nothing more is to be done at once."""
        server = self.servers[number]
        for _ in range(50):
            effects = server.replica.turn()
            self._post(number, effects.messages)
            if effects.batch:
                server.unsynced.append(effects)
            server.replica.apply(effects)
            for task in effects.snapshot_tasks:
                server.do(task)
            if server.unsynced and number not in self.slow_disks:
                self.sync(number)
            elif not server.replica.needs_turn:
                return
        raise AssertionError(f"server {number} does not come to rest")

    def sync(self, number: int) -> None:
        """Everything written is durable."""
        server = self.servers[number]
        if server.unsynced:
            last = server.unsynced[-1].batch
            server.unsynced = []
            server.replica.durable(last)

    def _post(self, sender: int, envelopes: Iterable[Envelope]) -> None:
        self.wire.extend((sender, e.to, e.message) for e in envelopes)

    def deliver_all(self) -> None:
        """Until the wire is silent."""
        for _ in range(100_000):
            if not self.wire:
                return
            sender, to, message = self.wire.pop(0)
            if (sender, to) in self.cut or not self.servers[to].up or type(message) in self.lossy:
                continue
            self.servers[to].replica.receive(sender, [message])
            self.turn(to)
        raise AssertionError("the wire does not fall silent")

    def run(self, ticks: int = 1) -> None:
        for _ in range(ticks):
            for number, server in self.servers.items():
                if server.up:
                    server.replica.tick()
                    self.turn(number)
            self.deliver_all()

    def elect(self) -> int:
        for _ in range(300):
            self.run()
            leading = [n for n, s in self.servers.items() if s.up and s.replica.node.proposer.leading]
            following = [s for s in self.servers.values() if s.up and s.replica.leader is not None]
            if len(leading) == 1 and len(following) == sum(s.up for s in self.servers.values()):
                return leading[0]
        raise AssertionError("no leader")

    def stop(self, number: int) -> None:
        """It dies; the others see its streams break."""
        self.servers[number].up = False
        for other in self.servers:
            if other != number:
                self[other].peer_down(number)

    def open(self, number: int, session: int = 0) -> "Client":
        client = Client(self, number, session)
        self.turn(number)
        self.deliver_all()
        self.run(2)
        return client


class Client:
    """A client attached to one server."""

    def __init__(self, servers: Servers, number: int, session: int) -> None:
        self._servers = servers
        self.number = number
        self.sink = Sink()
        self.handle = servers[number].attach(self.sink, session)

    def submit(self, first_seq: int, *commands: bytes, deliver: bool = True) -> None:
        frame = commands_frame(self.sink.session, first_seq, 0, commands)
        self.handle.submit(frame, first_seq, len(commands))
        self._servers.turn(self.number)
        if deliver:
            self._servers.deliver_all()
