"""A few nodes, their disks and the links between them, driven by hand: no clock, no threads, one seed.

``Cluster`` keeps for every node what is durable and what is only said to be: a turn takes the node's Ready, puts its
writes in flight, and holds what must wait for them. A test decides when writes become durable, which messages
arrive, in which order, and who crashes.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.messages import Envelope, Message
from paxos_rsm.paxos.node import Node
from paxos_rsm.paxos.quorum import QuorumSizes
from paxos_rsm.paxos.ready import Ready, Write, WriteAccepted, WriteDecided, WriteDecidedThrough, WritePromise
from paxos_rsm.paxos.settings import Settings
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Entry, Slot

SETTINGS = Settings(heartbeat_ticks=1, election_ticks=8, retransmit_ticks=3, window_slots=4)


def members(count: int, phase2: int = 0) -> Configuration:
    """Members 1..count under a majority, or a flexible quorum."""
    people = tuple(Member(i, 100 + i, f"n{i}", f"http://n{i}:2380") for i in range(1, count + 1))
    sizes = QuorumSizes.flexible(count, phase2) if phase2 else QuorumSizes.majority(count)
    return Configuration(7, people, sizes)


@dataclass
class Disk:
    """What one node has on disk, as recovery would find it."""

    promised: Ballot = NO_BALLOT
    votes: dict[Slot, tuple[Ballot | None, Entry]] = field(default_factory=dict)
    decided_through: Slot = 0

    def write(self, writes: Iterable[Write]) -> None:
        """Makes writes durable."""
        for write in writes:
            if isinstance(write, WritePromise):
                self.promised = max(self.promised, write.ballot)
            elif isinstance(write, WriteAccepted):
                held = self.votes.get(write.slot)
                if held is None or held[0] is not None:
                    self.votes[write.slot] = write.ballot, write.entry
                self.promised = max(self.promised, write.ballot)
            elif isinstance(write, WriteDecided):
                self.votes[write.slot] = None, write.entry
            elif isinstance(write, WriteDecidedThrough):
                self.decided_through = write.slot


class Host:
    """One node with its disk, what is being written, and what it has applied."""

    def __init__(self, number: int, seed: int, settings: Settings = SETTINGS) -> None:
        self.number = number
        self.settings = settings
        self.random = random.Random(seed * 1000 + number)
        self.disk = Disk()
        self.up = True
        self.writing: list[tuple[list[Write], list[Envelope]]] = []
        self.applied: list[tuple[Slot, Entry]] = []
        self.reads: dict[int, Slot | None] = {}
        self.node = self._boot()

    def _boot(self) -> Node:
        disk = self.disk
        return Node(
            self.number,
            self.settings,
            self.random,
            promised=disk.promised,
            votes=dict(disk.votes),
            decided_through=disk.decided_through,
        )

    def crash(self) -> None:
        """Loses everything that is not durable."""
        self.up = False
        self.writing = []

    def restart(self, forming: Configuration) -> None:
        """Comes back with what the disk holds."""
        self.applied = []
        self.node = self._boot()
        self.node.meet(forming)
        self.up = True


class Cluster:
    """Hosts and the messages under way between them."""

    def __init__(self, count: int = 3, seed: int = 0, settings: Settings = SETTINGS, phase2: int = 0) -> None:
        self.random = random.Random(seed)
        self.configuration = members(count, phase2)
        self.hosts = {i: Host(i, seed, settings) for i in range(1, count + 1)}
        self.wire: list[tuple[int, int, Message]] = []
        self.cut: set[tuple[int, int]] = set()
        self.chosen: dict[Slot, Entry] = {}
        self.observers: list[Callable[[int, Ready], None]] = []
        self.hold_writes: set[int] = set()
        for host in self.hosts.values():
            host.node.meet(self.configuration)

    # ---- one host's turn ---------------------------------------------------------------------------------------

    def turn(self, number: int) -> None:
        """Takes the Ready of one host and does what it says; checks every invariant."""
        host = self.hosts[number]
        ready = host.node.ready()
        for observer in self.observers:
            observer(number, ready)
        self._post(number, ready.messages)
        host.writing.append((ready.writes, ready.messages_after_writes))
        for slot, entry in ready.decided:
            expected = host.applied[-1][0] + 1 if host.applied else 1
            if slot != expected:
                raise AssertionError(f"host {number} was told to apply {slot} after {expected - 1}")
            if self.chosen.setdefault(slot, entry) != entry:
                raise AssertionError(f"slot {slot} decided twice: {self.chosen[slot]} and {entry}")
            host.applied.append((slot, entry))
        for grant in ready.reads:
            host.reads[grant.read_id] = grant.index
        host.node.check()
        if number not in self.hold_writes:
            self.sync(number)

    def sync(self, number: int) -> None:
        """Makes everything that a host has written durable; what waited for it leaves."""
        host = self.hosts[number]
        mine: list[Message] = []
        for writes, after in host.writing:
            host.disk.write(writes)
            self._post(number, [e for e in after if e.to != number])
            mine += [e.message for e in after if e.to == number]
        host.writing = []
        for message in mine:
            host.node.step(number, message)
        if mine:
            self.turn(number)

    def _post(self, sender: int, envelopes: Iterable[Envelope]) -> None:
        self.wire.extend((sender, e.to, e.message) for e in envelopes)

    # ---- the world ---------------------------------------------------------------------------------------------

    def tick(self, *numbers: int) -> None:
        """One tick at every host that is up (or at those named), and its turn."""
        for number in numbers or list(self.hosts):
            if self.hosts[number].up:
                self.hosts[number].node.tick()
                self.turn(number)

    def deliver(self, index: int = 0) -> None:
        """Delivers one message of the wire."""
        sender, to, message = self.wire.pop(index)
        if (sender, to) in self.cut or to not in self.hosts or not self.hosts[to].up:
            return
        self.hosts[to].node.step(sender, message)
        self.turn(to)

    def settle(self, limit: int = 100_000) -> None:
        """Delivers until the wire is empty."""
        while self.wire:
            limit -= 1
            if limit < 0:
                raise AssertionError("the wire does not fall silent")
            self.deliver()

    def run(self, ticks: int) -> None:
        """Ticks, with everything delivered in between."""
        for _ in range(ticks):
            self.tick()
            self.settle()

    def leaders(self) -> list[int]:
        """Hosts that are up and believe that they lead."""
        return [n for n, h in self.hosts.items() if h.up and h.node.proposer.leading]

    def elect(self, ticks: int = 200) -> int:
        """Runs until exactly one host leads and all that are up follow it."""
        for _ in range(ticks):
            self.run(1)
            leaders = self.leaders()
            if len(leaders) == 1:
                return leaders[0]
        raise AssertionError(f"no single leader after {ticks} ticks: {self.leaders()}")

    def propose(self, number: int, *frames: bytes) -> None:
        """Frames at one host."""
        self.hosts[number].node.propose(list(frames))
        self.turn(number)

    def partition(self, *groups: set[int]) -> None:
        """Cuts every link between different groups."""
        where = {n: i for i, group in enumerate(groups) for n in group}
        self.cut = {(a, b) for a in self.hosts for b in self.hosts if a != b and where.get(a) != where.get(b)}

    def heal(self) -> None:
        """All links stand again."""
        self.cut = set()
