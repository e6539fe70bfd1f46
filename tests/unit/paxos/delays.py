"""A cluster in which every message takes its time: nothing is lost, and nobody drives it by hand.

Each message is delayed by a random number of ticks, hence overtaken by others; the disk is as fast as can be. It has no
oracle, so that a thousand seeds take seconds; :mod:`tests.unit.paxos.fuzz` looks after safety.
"""

import random
from collections import defaultdict

from paxos_rsm.paxos.messages import Envelope, Message
from paxos_rsm.paxos.node import Node
from paxos_rsm.paxos.settings import Settings
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, ConfigChange
from tests.unit.paxos.harness import members

SETTINGS = Settings(heartbeat_ticks=2, election_ticks=8, retransmit_ticks=3, window_slots=4, pipeline_bytes=1)
T = SETTINGS.election_ticks
"""One election time-out in ticks."""


class DelayedCluster:
    """Formed (slot 1 is decided everywhere), without a leader, and with no word said yet."""

    def __init__(self, count: int, seed: int, delay_max: int = T, phase2: int = 0) -> None:
        self.random = rnd = random.Random(seed)
        self.delay_max = delay_max
        self.now = 0
        self.cut: set[tuple[int, int]] = set()
        self.down: set[int] = set()
        self.ballots: set[Ballot] = set()
        """Every ballot that anybody has prepared."""
        self.led: list[Ballot] = []
        """Every ballot that has led, in the order that they came to."""
        self._arriving: defaultdict[int, list[tuple[int, int, Message]]] = defaultdict(list)
        genesis = ConfigChange(members(count, phase2))
        self.nodes = {
            n: Node(n, SETTINGS, rnd, votes={1: (None, genesis)}, decided_through=1)
            for n in range(1, count + 1)
        }
        self.quorum = count // 2 + 1

    def introduce(self) -> None:
        """Everybody has heard from everybody; nobody stands yet."""
        delay_max, self.delay_max = self.delay_max, 0
        for _ in range(3):
            for node in self.nodes.values():
                node.election.stand_at = 1 << 40
            self.tick()
        self.delay_max = delay_max

    def only(self, *links: tuple[int, int]) -> None:
        """Only these links stand, both ways."""
        kept = {*links, *((b, a) for a, b in links)}
        self.cut = {(a, b) for a in self.nodes for b in self.nodes if a != b and (a, b) not in kept}

    def tick(self) -> None:
        """What is due arrives, in any order; then the clocks go on."""
        while arriving := self._arriving.pop(self.now, []):
            self.random.shuffle(arriving)
            for sender, to, message in arriving:
                if (sender, to) not in self.cut and to not in self.down:
                    self.nodes[to].step(sender, message)
                    self._turn(to)
        self.now += 1
        for number, node in self.nodes.items():
            if number not in self.down:
                node.tick()
                self._turn(number)

    def _turn(self, number: int) -> None:
        node = self.nodes[number]
        while True:
            ready = node.ready()
            self._post(number, ready.messages)
            self._post(number, ready.messages_after_writes)
            own = [e.message for e in ready.messages_after_writes if e.to == number]
            if not own:
                break
            for message in own:
                node.step(number, message)
        ballot = node.proposer.ballot
        if ballot != NO_BALLOT:
            self.ballots.add(ballot)
        if node.proposer.leading and ballot not in self.led:
            self.led.append(ballot)

    def _post(self, sender: int, envelopes: list[Envelope]) -> None:
        for envelope in envelopes:
            if envelope.to != sender:
                due = self.now + self.random.randint(0, self.delay_max)
                self._arriving[due].append((sender, envelope.to, envelope.message))

    def leader(self) -> int:
        """The one that leads, has decided an entry of its own ballot, and is followed by all it can reach; or 0."""
        leading = [n for n, node in self.nodes.items() if n not in self.down and node.proposer.leading]
        if len(leading) != 1:
            return 0
        node = self.nodes[leading[0]]
        followers = 1 + sum(
            other.election.leader() == (node.me, node.proposer.ballot)
            for n, other in self.nodes.items()
            if n != node.me and n not in self.down
        )
        reached = sum(
            {(node.me, n), (n, node.me)}.isdisjoint(self.cut) for n in self.nodes if n not in self.down
        )
        done = node.decided_through >= node.proposer.recovery_end
        return node.me if done and followers == reached >= self.quorum else 0

    def until_led(self, limit: int) -> int:
        """Runs until there is a leader; gives the ticks that it took."""
        start = self.now
        while not self.leader():
            if self.now - start >= limit:
                raise AssertionError(f"no leader after {limit} ticks and {len(self.ballots)} ballots")
            self.tick()
        return self.now - start
