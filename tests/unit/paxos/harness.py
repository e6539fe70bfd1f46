"""A few nodes, their disks and the links between them, driven by hand: no clock, no threads, one seed.

:class:`Cluster` keeps for every node what is durable and what is only said to be: a turn takes the node's Ready, puts
its writes in flight, and holds what must wait for them. A test decides when writes become durable, which messages
arrive, in which order, and who crashes; the :class:`~tests.unit.paxos.oracle.Oracle` watches.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from paxos_rsm.paxos.changes import Change
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.messages import Envelope, Message
from paxos_rsm.paxos.node import Node
from paxos_rsm.paxos.proposer import Phase
from paxos_rsm.paxos.quorum import QuorumSizes
from paxos_rsm.paxos.ready import Ready, Write
from paxos_rsm.paxos.settings import Settings
from paxos_rsm.paxos.types import Batch, Entry, Slot, join_frames, split_frames
from tests.unit.paxos.oracle import Disk, Oracle

SETTINGS = Settings(heartbeat_ticks=1, election_ticks=8, retransmit_ticks=3, window_slots=4, pipeline_bytes=1)

MessageT = TypeVar("MessageT", bound=Message)


def members(count: int, phase2: int = 0) -> Configuration:
    """Members 1..count under a majority, or a flexible quorum."""
    people = tuple(Member(i, 100 + i, f"n{i}", f"http://n{i}:2380") for i in range(1, count + 1))
    sizes = QuorumSizes.flexible(count, phase2) if phase2 else QuorumSizes.majority(count)
    return Configuration(7, people, sizes)


def batch(*frames: bytes) -> Batch:
    """The entry that frames make which go together."""
    return Batch(join_frames(frames))


@dataclass
class Turn:
    """What one Ready wants written, and what must not be said before."""

    writes: list[Write] = field(default_factory=list)
    after: list[Envelope] = field(default_factory=list)


class Host:
    """One node with its disk, what is being written, and what it has applied."""

    def __init__(self, number: int, seed: int, settings: Settings = SETTINGS) -> None:
        self.number = number
        self.settings = settings
        self.random = random.Random(seed * 1000 + number)
        self.disk = Disk()
        self.up = True
        self.boot = 1
        self.writing: list[Turn] = []
        self.applied: list[tuple[Slot, Entry]] = []
        self.reads: dict[int, Slot | None] = {}
        self.change_replies: dict[int, tuple[str, int]] = {}
        """What became of the changes that were asked for here."""
        self.claims = 100 + number
        """The member that its operator started it as."""
        self.stopped = False
        """It was removed, and has gone for good."""
        self.clock_rate = 1.0
        """How fast its clock runs."""
        self.wants: tuple[int, Slot] | None = None
        """A peer whose snapshot this node has asked for, and of which slot at least."""
        self.node = self._boot()

    def _boot(self) -> Node:
        disk = self.disk
        if disk.snapshot is not None:
            self.applied = list(disk.snapshot[1])
        return Node(
            self.number,
            self.settings,
            self.random,
            promised=disk.promised,
            votes=dict(disk.votes),
            decided_through=disk.decided_through,
            compacted_through=disk.compacted_through,
            base=disk.snapshot[0] if disk.snapshot else None,
            hold_owed_us=self.settings.read_hold_us if self.boot > 1 else 0,
        )

    def crash(self) -> None:
        """Loses everything that is not durable."""
        self.up = False
        self.writing = []

    def restart(self) -> None:
        """Comes back with what the disk holds."""
        self.boot += 1
        self.applied = []
        self.reads = {}
        self.wants = None
        self.node = self._boot()
        self.up = True

    def frames(self) -> list[bytes]:
        """The client frames applied here, in order."""
        return [f for _, entry in self.applied if isinstance(entry, Batch) for f in split_frames(entry.data)]


class Cluster:
    """Hosts and the messages under way between them."""

    def __init__(
        self, count: int = 3, seed: int = 0, settings: Settings = SETTINGS, phase2: int = 0, met: bool = True
    ) -> None:
        self.random = random.Random(seed)
        self.configuration = members(count, phase2)
        self.oracle = Oracle(self.configuration)
        self.hosts = {i: Host(i, seed, settings) for i in range(1, count + 1)}
        self.wire: list[tuple[int, int, Message]] = []
        self.cut: set[tuple[int, int]] = set()
        self.observers: list[Callable[[int, Ready], None]] = []
        self.hold_writes: set[int] = set()
        self.time_us = 0
        """What a true clock would say. It stands still unless a test moves it."""
        self.stops_removed = True
        """Whether a server stops that was removed, and is not needed any more."""
        if met:
            for host in self.hosts.values():
                host.node.meet(self.configuration)

    def node(self, number: int) -> Node:
        """The node of a host."""
        return self.hosts[number].node

    def clock_us(self, number: int) -> int:
        """What the clock of a host says."""
        return int(self.time_us * self.hosts[number].clock_rate)

    # ---- one host's turn ---------------------------------------------------------------------------------------

    def turn(self, number: int) -> None:
        """Takes the Ready of one host and does what it says; checks every invariant."""
        host = self.hosts[number]
        ready = host.node.ready(self.clock_us(number))
        for observer in self.observers:
            observer(number, ready)
        host.node.check()
        self._post(number, ready.messages)
        host.writing.append(Turn(ready.writes, ready.messages_after_writes))
        for slot, entry in ready.decided:
            self.oracle.applied(number, host.applied[-1][0] if host.applied else 0, slot, entry)
            host.applied.append((slot, entry))
        for grant in ready.reads:
            host.reads[grant.read_id] = grant.index
            if grant.index is not None:
                self.oracle.read_granted(number, grant.read_id, grant.index)
        host.wants = ready.fetch_snapshot or host.wants
        for reply in ready.change_replies:
            host.change_replies[reply.request_id] = reply.refusal, reply.reason
        if host.node.removed and self.stops_removed:
            self.crash(number)
            host.stopped = True
        elif number not in self.hold_writes:
            self.sync(number)

    def sync(self, number: int, turns: int | None = None) -> None:
        """Makes what a host has written durable (the first ``turns`` turns of it); what waited for it leaves."""
        host = self.hosts[number]
        done = host.writing[:turns]
        host.writing = host.writing[len(done) :]
        mine: list[Message] = []
        for turn in done:
            for write in turn.writes:
                self.oracle.wrote(number, host.disk, write)
            self._post(number, [e for e in turn.after if e.to != number])
            self.oracle.says(number, host.boot, host.disk, [e for e in turn.after if e.to == number])
            mine += [e.message for e in turn.after if e.to == number]
        for message in mine:
            host.node.step(number, message)
        if mine:
            self.turn(number)

    def crash(self, number: int, writes: int = 0) -> None:
        """Stops a host. Of what it was writing, the first ``writes`` records reach the disk; nothing more is said."""
        host = self.hosts[number]
        for write in [w for turn in host.writing for w in turn.writes][:writes]:
            self.oracle.wrote(number, host.disk, write)
        host.crash()

    def restart(self, number: int, meet: bool = True) -> None:
        """Starts a host again from its disk."""
        host = self.hosts[number]
        host.restart()
        if meet and number in self.configuration.nodes:
            host.node.meet(self.configuration)
        self.turn(number)

    def add(self, number: int, claims: int = 0) -> Host:
        """Starts a server with an empty directory, as the member that the configuration names so or is to."""
        host = self.hosts[number] = Host(number, 0, self.hosts[min(self.hosts)].settings)
        host.claims = claims or host.claims
        return host

    def introduce(self, number: int) -> None:
        """A host meets the processes that say they are members which have yet to join."""
        configuration = self.node(number).configuration
        for member in configuration.members if configuration is not None else ():
            for host in self.hosts.values():
                if not member.incarnation and host.up and host.claims == member.member_id:
                    self.node(number).joined(replace(member, incarnation=host.number))
        self.turn(number)

    def change(self, number: int, request_id: int, change: Change) -> None:
        """Somebody asks a host for a change of the members."""
        self.node(number).change(request_id, change)
        self.turn(number)

    def hand_over(self, number: int, to: int | None = None) -> int | None:
        """A host hands its leadership over."""
        heir = self.node(number).hand_over(to)
        self.turn(number)
        return heir

    def members(self) -> dict[int, Host]:
        """The hosts that the newest chosen configuration names."""
        everybody = self.oracle.governing(1 << 62).everybody
        return {n: host for n, host in self.hosts.items() if n in everybody}

    def snapshot(self, number: int, keep: int = 0) -> None:
        """A host makes a durable snapshot of what it has applied, and forgets all but the last ``keep`` slots of it."""
        host = self.hosts[number]
        if host.applied and host.applied[-1][0] > (host.disk.snapshot[0].slot if host.disk.snapshot else 0):
            slot = host.applied[-1][0]
            host.disk.snapshot = host.node.base(slot), tuple(host.applied)
            host.node.compact(slot - keep)
            self.turn(number)

    def fetch(self, number: int, crash: bool = False) -> bool:
        """A host is given the snapshot that it has asked for; it may lose its power when that is on its disk."""
        host = self.hosts[number]
        if host.wants is None or not host.up:
            return False
        (peer, at_least), host.wants = host.wants, None
        other = self.hosts[peer]
        if not other.up or (peer, number) in self.cut:
            return False
        if other.disk.snapshot is None or other.disk.snapshot[0].slot < at_least:
            self.snapshot(peer)
        found = other.disk.snapshot
        if found is None or found[0].slot < at_least or not host.node.may_install(found[0].slot):
            return False
        host.disk.snapshot = found
        if crash:
            self.crash(number)
        else:
            host.node.install(found[0])
            host.applied = list(found[1])
            self.turn(number)
        return True

    def _post(self, sender: int, envelopes: Iterable[Envelope]) -> None:
        envelopes = list(envelopes)
        host = self.hosts[sender]
        self.oracle.says(sender, host.boot, host.disk, envelopes)
        self.wire.extend((sender, e.to, e.message) for e in envelopes)

    # ---- the world ---------------------------------------------------------------------------------------------

    def tick(self, *numbers: int) -> None:
        """One tick at every host that is up (or at those named), and its turn."""
        for number in numbers or list(self.hosts):
            if self.hosts[number].up:
                self.node(number).tick()
                self.turn(number)

    def hand(self, sender: int, to: int, message: Message) -> None:
        """A message arrives, whatever the links, and the receiver takes its turn."""
        if self.hosts[to].up:
            self.oracle.arrives(sender, message)
            self.node(to).step(sender, message)
            self.turn(to)

    def deliver(self, index: int = 0) -> None:
        """Delivers one message of the wire, or loses it where the link is cut."""
        sender, to, message = self.wire.pop(index)
        if (sender, to) not in self.cut and to in self.hosts:
            self.hand(sender, to, message)

    def take(self, kind: type[MessageT], sender: int = 0, to: int = 0) -> list[tuple[int, int, MessageT]]:
        """Takes the messages of one kind (from one sender, for one receiver) off the wire, to be used or lost."""
        taken: list[tuple[int, int, MessageT]] = []
        rest: list[tuple[int, int, Message]] = []
        for origin, target, message in self.wire:
            if isinstance(message, kind) and sender in (0, origin) and to in (0, target):
                taken.append((origin, target, message))
            else:
                rest.append((origin, target, message))
        self.wire = rest
        return taken

    def settle(self, limit: int = 100_000) -> None:
        """Delivers until the wire is empty."""
        while self.wire:
            limit -= 1
            if limit < 0:
                raise AssertionError("the wire does not fall silent")
            self.deliver()

    def settle_but(self, *kinds: type[Message]) -> None:
        """Delivers everything but messages of these kinds, which stay on the wire."""
        kept: list[tuple[int, int, Message]] = []
        while self.wire:
            if isinstance(self.wire[0][2], kinds):
                kept.append(self.wire.pop(0))
            else:
                self.deliver()
        self.wire = kept

    def lose(self, *kinds: type[Message]) -> None:
        """Delivers everything but messages of these kinds, which are lost."""
        self.settle_but(*kinds)
        self.wire = []

    def run(self, ticks: int, *lost: type[Message]) -> None:
        """Ticks, with everything delivered in between but what is lost."""
        for _ in range(ticks):
            self.tick()
            self.lose(*lost)

    def leaders(self) -> list[int]:
        """Hosts that are up and believe that they lead."""
        return [n for n, h in self.hosts.items() if h.up and h.node.proposer.leading]

    def elect(self, ticks: int = 200) -> int:
        """Runs until exactly one host leads and has decided an entry; returns it."""
        for _ in range(ticks):
            self.run(1)
            leaders = self.leaders()
            if len(leaders) == 1 and not self.node(leaders[0]).proposer.in_flight:
                return leaders[0]
        raise AssertionError(f"no single leader after {ticks} ticks: {self.leaders()}")

    def calm(self, ticks: int = 3, *lost: type[Message]) -> None:
        """Time passes in which nobody stands; heartbeats go round."""
        for _ in range(ticks):
            for host in self.hosts.values():
                host.node.election.stand_at = 1 << 40
            self.run(1, *lost)

    def stand(self, number: int, *lost: type[Message]) -> None:
        """This host, and nobody else, stands now; nothing that it says has arrived yet."""
        for host in self.hosts.values():
            host.node.election.supports_until = 0
        self.calm(3, *lost)
        self.node(number).election.stand_at = 0
        self.tick(number)
        if self.node(number).proposer.phase is not Phase.PREPARING:
            raise AssertionError(f"host {number} does not stand")

    def make_lead(self, number: int) -> None:
        """Elects this host where nobody leads."""
        self.stand(number)
        self.settle()
        self.run(2)
        if self.leaders() != [number] or self.node(number).proposer.in_flight:
            raise AssertionError(f"{number} does not come to lead: {self.leaders()}")

    def propose(self, number: int, *frames: bytes) -> None:
        """Frames at one host."""
        self.node(number).propose(list(frames))
        self.turn(number)

    def read(self, number: int, read_id: int) -> None:
        """A linearizable read at one host."""
        self.oracle.read_asked(read_id)
        self.node(number).read(read_id)
        self.turn(number)

    def partition(self, *groups: set[int]) -> None:
        """Cuts every link between different groups."""
        where = {n: i for i, group in enumerate(groups) for n in group}
        self.cut = {(a, b) for a in self.hosts for b in self.hosts if a != b and where.get(a) != where.get(b)}

    def only(self, *links: tuple[int, int]) -> None:
        """Only these links stand, both ways."""
        kept = {*links, *((b, a) for a, b in links)}
        self.cut = {(a, b) for a in self.hosts for b in self.hosts if a != b and (a, b) not in kept}

    def heal(self) -> None:
        """All links stand again."""
        self.cut = set()
