"""Exactly once under chance: loss, delays, cuts, crashes of any server, and clients that move, from one seed each.

Each client keeps a few commands in flight, moves to another server when it hears nothing, and submits again whatever it
has no result for. The machine keeps every command in order, so that executing one twice, losing one that was
answered, or taking them out of order shows.
"""

import random

import pytest

from paxos_rsm.codec.frames import FrameCodec, commands_frame
from paxos_rsm.errors import Unavailable
from paxos_rsm.machines.sessions import SessionMachine
from paxos_rsm.paxos.node import Node
from paxos_rsm.replica.replica import Replica, ReplicaSettings
from paxos_rsm.storage.base import Recovered
from tests.forms import of_form
from tests.unit.replica.harness import SETTINGS, Journal, Servers, Sink

COMMANDS = 30


class Cluster(Servers):
    """Servers whose disks survive them."""

    def __init__(self, count: int, seed: int) -> None:
        super().__init__(count)
        self.random = random.Random(seed)
        self.disks = {n: Recovered() for n in self.servers}
        self.answered: dict[bytes, bytes] = {}

    def sync(self, number: int) -> None:
        for effects in self.servers[number].unsynced:
            for write in effects.writes:
                self.disks[number].apply(write)
        super().sync(number)

    def crash(self, number: int) -> None:
        server = self.servers[number]
        server.up = False
        server.unsynced = []
        for other in self.servers:
            if other != number:
                self[other].peer_down(number)

    def restart(self, number: int) -> None:
        disk, server = self.disks[number], self.servers[number]
        server.journal = Journal()
        node = Node(
            number,
            SETTINGS,
            self.random,
            promised=disk.promised,
            votes=dict(disk.slots),
            decided_through=disk.decided_through,
        )
        settings = ReplicaSettings(resend_ticks=12, session_timeout_ms=10_000_000)
        server.replica = Replica(
            node, SessionMachine(server.journal, FrameCodec()), settings, lambda: self.random.getrandbits(60)
        )
        server.replica.meet(self.forming)
        server.up = True
        self.turn(number)
        for other in self.servers:
            if other != number and self.servers[other].up:
                self[other].peer_up(number)
                server.replica.peer_up(other)

    def chance(self) -> None:
        """One thing happens."""
        draw = self.random.random()
        number = self.random.choice(list(self.servers))
        if draw < 0.03:
            self.crash(number) if self.servers[number].up else self.restart(number)
        elif draw < 0.05:
            self.cut = {
                (a, b) for a in self.servers for b in self.servers if a != b and self.random.random() < 0.3
            }
        elif draw < 0.07:
            self.cut = set()
        elif draw < 0.12:
            self.slow_disks ^= {number}
        elif draw < 0.3:
            if self.servers[number].up:
                self.servers[number].replica.tick()
                self.turn(number)
        elif draw < 0.35 and self.servers[number].up:
            self.sync(number)
            self.turn(number)
        elif draw < 0.38 and self.wire:
            del self.wire[self.random.randrange(len(self.wire))]
        elif self.wire:
            at = self.random.randrange(len(self.wire)) if self.random.random() < 0.2 else 0
            sender, to, message = self.wire.pop(at)
            if (sender, to) not in self.cut and self.servers[to].up:
                self[to].receive(sender, [message])
                self.turn(to)


class Mover:
    """A client that goes from server to server with one session."""

    def __init__(self, cluster: Cluster, name: int) -> None:
        self.cluster = cluster
        self.name = name
        self.session = 0
        self.results: dict[int, bytes] = {}
        self.sent = 0
        self.submitted = 0
        self.number = 0
        self.move()

    def move(self) -> None:
        self.number = self.cluster.random.choice(list(self.cluster.servers))
        self.sink = Sink()
        self.replica = self.cluster[self.number]
        self.handle = self.replica.attach(self.sink, self.session)
        self.submitted = 0

    def command(self, seq: int) -> bytes:
        return b"%d/%d" % (self.name, seq)

    def act(self) -> None:
        gone = self.replica is not self.cluster[self.number] or not self.cluster.servers[self.number].up
        if gone or self.sink.errors or self.cluster.random.random() < 0.02:
            self.take()
            if not gone:
                self.handle.close()
            self.move()
            return
        if not self.sink.session:
            return
        self.session = self.sink.session
        self.take()
        if self.submitted == 0:
            self.submitted = self.acknowledged()
        if self.sent < COMMANDS and self.cluster.random.random() < 0.5:
            self.sent += 1
        if self.submitted < self.sent:
            count = self.cluster.random.randint(1, self.sent - self.submitted)
            first = self.submitted + 1
            commands = [self.command(s) for s in range(first, first + count)]
            try:
                frame = commands_frame(self.session, first, self.acknowledged() + 1, commands)
                self.handle.submit(frame, first, count)
            except Unavailable:
                return
            self.submitted += count

    def acknowledged(self) -> int:
        """Every result up to here is there."""
        seq = 0
        while seq + 1 in self.results:
            seq += 1
        return seq

    def take(self) -> None:
        for seq, result in self.sink.answers.items():
            if result is not None:
                assert self.results.setdefault(seq, result) == result, "two results for one command"
                self.cluster.answered[self.command(seq)] = result


@pytest.mark.parametrize("seed", range(of_form(12, 30)))
def test_every_command_is_executed_once_in_order_whatever_happens(seed: int) -> None:
    cluster = Cluster(3 if seed % 3 else 5, seed)
    clients = [Mover(cluster, i) for i in range(3)]
    for _ in range(2500):
        cluster.chance()
        cluster.random.choice(clients).act()
    heal(cluster)
    for _ in range(400):
        for client in clients:
            client.act()
        cluster.run(1)
        if all(c.acknowledged() >= c.sent == COMMANDS for c in clients):
            break
    cluster.run(20)
    journals = [cluster.journal(n) for n in cluster.servers]
    assert all(journal == journals[0] for journal in journals)
    for client in clients:
        mine = [c for c in journals[0] if c.startswith(b"%d/" % client.name)]
        assert mine == [client.command(s) for s in range(1, COMMANDS + 1)]
    for command, result in cluster.answered.items():
        assert journals[0][int(result) - 1] == command


def heal(cluster: Cluster) -> None:
    cluster.cut = set()
    cluster.slow_disks = set()
    for number, server in cluster.servers.items():
        if server.up:
            cluster.sync(number)
            cluster.turn(number)
        else:
            cluster.restart(number)
