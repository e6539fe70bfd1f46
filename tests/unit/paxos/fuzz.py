"""Random schedules against the oracle: a small model checker that draws instead of enumerating.

A seed draws a *world* (how many members, which quorums, how large a chunk, how much is lost, doubled, reordered, held
back, how often somebody crashes or links are cut) and then plays rounds in it: ticks at some hosts, messages delivered
in some order, frames and reads asked here and there, disks that lag behind, crashes that leave a prefix of what was
being written. At the end everything heals, and within a bounded time there must be one leader, a new frame must be
applied everywhere, and a read must be granted.

    python -m tests.unit.paxos.fuzz FIRST LAST

plays those seeds, and prints the first lines of what each broken one says.
"""

import random
import sys
from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise

from paxos_rsm.paxos.messages import Message
from paxos_rsm.paxos.settings import Settings
from tests.unit.paxos.churn import Churn
from tests.unit.paxos.harness import Cluster

ELECTION_TICKS = 8
ROUND_US = 1_000
"""How long a round takes by a true clock, about: a tick, mostly."""
HEAL_ELECTIONS = 8
"""Election time-outs after which a healed cluster must have a leader and have applied a new frame everywhere."""


@dataclass(frozen=True)
class World:
    """What a seed is played under. Probabilities are per round and host, or per message."""

    count: int
    phase2: int
    settings: Settings
    rounds: int
    fifo: bool
    deliver: float
    drop: float
    duplicate: float
    stash: float
    tick: tuple[float, ...]
    propose: float
    read: float
    lag: float
    crash: float
    restart: float
    cut: float
    heal: float
    coup: float
    streams: float
    unruly: float
    pause: float
    calm: float
    snapshot: float
    lose_snapshot: float
    churn: float
    ghosts: bool
    """Servers that were removed go on."""

    @classmethod
    def draw(cls, rnd: random.Random) -> "World":
        """A world."""
        count = rnd.choice([1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 7])
        harsh = rnd.choice([0.0, 0.0, 0.3, 1.0])
        return cls(
            count=count,
            phase2=rnd.choice([0, 0, 0, rnd.randint(1, count)]),
            settings=Settings(
                heartbeat_ticks=rnd.choice([1, 2]),
                election_ticks=ELECTION_TICKS,
                retransmit_ticks=rnd.choice([2, 3, 5]),
                window_slots=rnd.choice([1, 2, 4, 8]),
                pipeline_bytes=rnd.choice([1, 1, 20, 1 << 16]),
                chunk_bytes_max=rnd.choice([1, 1, 150, 400, 1 << 20]),
                read_rounds_max=rnd.choice([1, 2, 4]),
            ),
            rounds=rnd.choice([60, 120, 240]),
            fifo=rnd.random() < 0.4,
            deliver=rnd.choice([0.4, 0.7, 0.9, 1.0]),
            drop=rnd.choice([0.0, 0.02, 0.1, 0.3]) * harsh,
            duplicate=rnd.choice([0.0, 0.05, 0.5]) * harsh,
            stash=rnd.choice([0.0, 0.02, 0.1]) * harsh,
            tick=tuple(rnd.choice([0.3, 0.9, 1.0, 1.0, 1.0]) for _ in range(count)),
            propose=rnd.choice([0.05, 0.3, 1.0]),
            read=rnd.choice([0.0, 0.1, 0.5]),
            lag=rnd.choice([0.0, 0.0, 0.2, 0.6]),
            crash=rnd.choice([0.0, 0.0, 0.01, 0.04]),
            restart=rnd.choice([0.05, 0.2, 0.5]),
            cut=rnd.choice([0.0, 0.02, 0.05]),
            heal=rnd.choice([0.1, 0.3]),
            coup=rnd.choice([0.0, 0.02, 0.1]),
            streams=rnd.choice([0.0, 0.0, 0.02]),
            unruly=rnd.choice([0.0, 0.0, 0.01, 0.05, 0.2]),
            pause=rnd.choice([0.0, 0.0, 0.02, 0.1]),
            calm=rnd.choice([0.0, 0.3, 0.6]),
            snapshot=rnd.choice([0.0, 0.02, 0.1]),
            lose_snapshot=rnd.choice([0.0, 0.0, 0.2]),
            churn=rnd.choice([0.0, 0.03, 0.1, 0.3]),
            ghosts=rnd.random() < 0.3,
        )


class Fuzz:
    """One seed."""

    def __init__(self, seed: int) -> None:
        self.random = rnd = random.Random(seed)
        self._clocks = random.Random(f"clocks {seed}")
        self._drift = self._clocks.choice([0, 10, 100])
        self.world = world = self._lease(World.draw(rnd))
        self.cluster = Cluster(world.count, seed, world.settings, world.phase2, met=False)
        self.cluster.stops_removed = not world.ghosts
        self.seen: Counter[str] = Counter()
        self.churn = Churn(rnd, self.cluster, self.seen)
        self._old: list[tuple[int, int, Message]] = []
        for host in self.cluster.hosts.values():
            host.clock_rate = (
                1 + self._clocks.choice([0, self._drift, self._drift * self._clocks.random()]) / 100
            )
        self._frame = 0
        self._read = 0
        self._calm = False
        self._paused: dict[int, int] = {}
        """Hosts that do not run, and for how many more rounds: what is sent to them waits."""

    def _lease(self, world: World) -> World:
        """Leases on reads in half the seeds, and clocks that differ by as much as is said, at most; reads by quorums.

        Drawn apart, so that the rest of a seed is what it was.
        """
        hold_us = self._clocks.choice([0, 0, 0, 3, ELECTION_TICKS, ELECTION_TICKS]) * ROUND_US
        lease_us = hold_us * 100 // (100 + self._drift)
        settings = replace(
            world.settings,
            read_lease_us=lease_us,
            read_lease_drift_percent=self._drift,
            quorum_reads=int(self._clocks.random() < 0.3),
        )
        return replace(world, settings=settings)

    def _time_passes(self, share: float) -> None:
        """A part of a round, about."""
        self.cluster.time_us += self._clocks.randint(0, int(2 * share * ROUND_US))

    # ---- one round -------------------------------------------------------------------------------------------

    def play(self) -> Counter[str]:
        """Plays the seed to its end; gives how often what happened. Raises where anything is broken."""
        for _ in range(self.world.rounds):
            self._round()
            if self._chance(self.world.churn):
                self.churn.disturb()
        self._heal()
        self.churn.count()
        for host in self.cluster.hosts.values():
            self.seen["reads"] += sum(index is not None for index in host.reads.values())
        self.seen["slots"] += len(self.cluster.oracle.chosen)
        self.seen["ballots"] += len(self.cluster.oracle.ballots)
        self.seen["boots"] += sum(h.boot - 1 for h in self.cluster.hosts.values())
        return self.seen

    def _chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def _round(self) -> None:
        world, cluster = self.world, self.cluster
        self._time_passes(0.5)
        if self._chance(0.05):
            self._calm = self._chance(world.calm)
        if not self._calm:
            self._weather()
        self._paused = {n: rounds - 1 for n, rounds in self._paused.items() if rounds > 0 and not self._calm}
        for number, host in list(cluster.hosts.items()):
            if not host.up:
                if host.stopped:
                    continue
                if self._calm or self._chance(world.restart):
                    if not self._calm and not world.churn and self._chance(world.lose_snapshot):
                        self._lose_snapshot(number)
                    cluster.restart(number, meet=False)
                continue
            if number in self._paused:
                continue
            if not self._calm and self._chance(world.unruly):
                self._disturb(number)
            if number <= world.count and (self._calm or self._chance(0.3)):
                host.node.meet(cluster.configuration)
            if self._chance(world.tick[number % world.count]):
                cluster.tick(number)
            if host.up:
                self._ask(number)
                self._snapshots(number)
        for number, host in cluster.hosts.items():
            if host.up and number not in self._paused and (self._calm or not self._chance(world.lag)):
                turns = None if self._calm or self._chance(0.5) else self.random.randint(0, len(host.writing))
                cluster.sync(number, turns)
        self._deliver()

    def _ask(self, number: int) -> None:
        if self._chance(self.world.propose):
            self._propose(number)
        if self._chance(self.world.read) or (self.world.coup and self.cluster.node(number).proposer.leading):
            self._read += 1
            self.cluster.read(number, self._read)

    def _snapshots(self, number: int) -> None:
        if self._chance(self.world.snapshot):
            self.cluster.snapshot(number, self.random.choice([0, 0, 1, 5]))
        if self._chance(0.3) and self.cluster.fetch(number, crash=not self._calm and self._chance(0.1)):
            self.seen["installed"] += 1

    def _disturb(self, number: int) -> None:
        """Stands out of turn, without asking anybody: safety must not depend on good manners."""
        node = self.cluster.node(number)
        if node.may_campaign:
            self.seen["unruly"] += 1
            node.campaign()
            self.cluster.turn(number)

    def _lose_snapshot(self, number: int) -> None:
        """Its snapshot is damaged; never the last one that holds what has left every log.

        Not where members go: those that are left may be the ones that have lost theirs, and nobody minds that.
        """
        disks = [host.disk for n, host in self.cluster.hosts.items() if n != number and not host.stopped]
        needed = self.cluster.hosts[number].disk.compacted_through
        if any(d.snapshot is not None and d.snapshot[0].slot >= needed for d in disks):
            self.seen["snapshots lost"] += 1
            self.cluster.hosts[number].disk.snapshot = None

    def _propose(self, number: int) -> None:
        for _ in range(self.random.randint(1, 3)):
            self._frame += 1
            self.cluster.propose(number, b"%d" % self._frame)

    def _coup(self) -> None:
        """Another host takes over behind a leader's back, which hears nothing of it, or only from those between."""
        cluster, rnd = self.cluster, self.random
        leaders = [n for n in cluster.leaders() if n not in self._paused]
        others = [n for n, host in cluster.hosts.items() if host.up and n not in leaders]
        if not leaders or not others:
            return
        old, new = rnd.choice(leaders), rnd.choice(others)
        cluster.cut |= {(old, new), (new, old)}
        if self._chance(0.5):
            cluster.cut |= {(n, old) for n in cluster.hosts if n != old}
            cluster.cut |= {(old, n) for n in cluster.hosts if n != old and self._chance(0.5)}
        self._disturb(new)
        for number in (old, new):
            self._propose(number)

    def _weather(self) -> None:
        """Crashes, cuts, broken streams."""
        world, cluster = self.world, self.cluster
        cluster.hold_writes = {n for n in cluster.hosts if self._chance(world.lag)}
        for number, host in cluster.hosts.items():
            if host.up and self._chance(world.crash):
                cluster.crash(number, self.random.choice([0, 0, 1, 2, 5, 100]))
                for other in cluster.hosts.values():
                    if other.up and self._chance(0.5):
                        other.node.peer_down(number)
            elif host.up and self._chance(world.pause):
                self._paused[number] = self.random.choice([2, 10, 30])
        if self._chance(world.heal):
            cluster.heal()
        if self._chance(world.coup):
            self._coup()
        if self._chance(world.cut):
            self._cut()
        for a in cluster.hosts:
            for b in cluster.hosts:
                if a != b and cluster.hosts[a].up and self._chance(world.streams):
                    node = cluster.node(a)
                    self.random.choice([node.peer_up, node.peer_down])(b)

    def _cut(self) -> None:
        cluster, rnd = self.cluster, self.random
        numbers = list(cluster.hosts)
        rnd.shuffle(numbers)
        kind = rnd.choice(["partition", "one-way", "star", "chain", "isolate", "any"])
        if kind == "partition":
            at = rnd.randint(0, len(numbers))
            cluster.partition(set(numbers[:at]), set(numbers[at:]))
        elif kind == "star":
            cluster.only(*((numbers[0], n) for n in numbers[1:]))
        elif kind == "chain":
            cluster.only(*pairwise(numbers))
        elif kind == "isolate":
            cluster.cut |= {(numbers[0], n) for n in numbers[1:]} | {(n, numbers[0]) for n in numbers[1:]}
        elif kind == "one-way":
            cluster.cut |= {(numbers[0], n) for n in numbers[1:]}
        else:
            cluster.cut = {(a, b) for a in numbers for b in numbers if a != b and self._chance(0.4)}

    def _deliver(self) -> None:
        """Some of what is under way arrives, in some order, doubled or not at all."""
        world, cluster, rnd = self.world, self.cluster, self.random
        arriving, cluster.wire = cluster.wire, []
        if self._old and self._chance(0.2):
            arriving.append(self._old.pop(rnd.randrange(len(self._old))))
        if not world.fifo and not self._calm:
            rnd.shuffle(arriving)
        stays: list[tuple[int, int, Message]] = []
        slow: set[tuple[int, int]] = set()
        for sender, to, message in arriving:
            link = sender, to
            if self._calm:
                cluster.wire.append((sender, to, message))
                cluster.deliver(len(cluster.wire) - 1)
            elif link in cluster.cut or self._chance(world.drop):
                self.seen["lost"] += 1
            elif to in self._paused:
                stays.append((sender, to, message))
            elif (world.fifo and link in slow) or not self._chance(world.deliver):
                slow.add(link)
                stays.append((sender, to, message))
            else:
                if self._chance(world.duplicate):
                    stays.append((sender, to, message))
                if self._chance(world.stash):
                    self._old.append((sender, to, message))
                self._hand(sender, to, message)
        cluster.wire = stays + cluster.wire

    def _hand(self, sender: int, to: int, message: Message) -> None:
        """Delivers; now and then the receiver takes several messages before its turn."""
        host = self.cluster.hosts[to]
        if host.up:
            self._time_passes(0.05)
            self.seen["delivered"] += 1
            host.node.step(sender, message)
            if self._chance(0.7):
                self.cluster.turn(to)

    # ---- the end ---------------------------------------------------------------------------------------------

    def _heal(self) -> None:
        """Everything stands again: one leader, and the same log everywhere, within a bounded time."""
        cluster = self.cluster
        cluster.heal()
        cluster.hold_writes = set()
        for number, host in cluster.hosts.items():
            if host.stopped:
                continue
            if not host.up:
                cluster.restart(number, meet=False)
            if number <= self.world.count:
                host.node.meet(cluster.configuration)
            cluster.turn(number)
        for number in cluster.hosts:
            cluster.sync(number)
        last = b"last"
        patience = HEAL_ELECTIONS + 2 * len(cluster.oracle.changes) + 8 * bool(self.world.churn)
        for tick in range(patience * ELECTION_TICKS):
            self._pass(1)
            if tick % ELECTION_TICKS == 0:
                for number in [n for n, host in cluster.members().items() if host.up]:
                    self._read += 1
                    cluster.propose(number, last)
                    cluster.read(number, self._read)
            arrived = all(last in host.frames() for host in cluster.members().values())
            if arrived and not self.churn.is_under_way():
                break
        else:
            raise AssertionError(f"healed for {patience} election time-outs: {self._story()}")
        self._pass(2 * ELECTION_TICKS)
        leaders = cluster.leaders()
        if len(leaders) != 1:
            raise AssertionError(f"leaders after healing: {leaders}: {self._story()}")
        for number in cluster.members():
            for _ in range(1 + self.world.settings.quorum_reads):  # asked again, it goes by the leader
                self._read += 1
                cluster.read(number, self._read)
                self._pass(1 + self.world.settings.quorum_reads * self.world.settings.retransmit_ticks)
                if cluster.hosts[number].reads.get(self._read) is not None:
                    break
            else:
                raise AssertionError(f"no read at host {number} after healing: {self._story()}")
        self._pass(2 * ELECTION_TICKS)
        logs = {tuple(host.applied) for host in cluster.members().values()}
        if len(logs) != 1 or cluster.leaders() != leaders:
            raise AssertionError(f"not one log, or another leader, after healing: {self._story()}")

    def _pass(self, ticks: int) -> None:
        """Calm ticks: whoever needs a snapshot gets it, whoever is awaited is met."""
        for _ in range(ticks):
            self.cluster.time_us += ROUND_US
            self.cluster.run(1)
            for number in self.cluster.hosts:
                self.cluster.fetch(number)
            self.churn.settle()

    def _story(self) -> str:
        return "; ".join(
            f"{n}: {h.node.role} {h.node.proposer.ballot}, promised {h.node.acceptor.promised}, "
            f"decided {h.node.decided_through}, highest {h.node.log.max_slot}"
            for n, h in self.cluster.hosts.items()
        )


def play(seed: int) -> Counter[str]:
    """Plays one seed. Raises where anything is broken."""
    return Fuzz(seed).play()


def main(first: int, last: int) -> None:
    """Plays seeds, and tells of those that break."""
    total: Counter[str] = Counter()
    broken = 0
    for seed in range(first, last):
        try:
            total += play(seed)
        except Exception as error:
            broken += 1
            sys.stdout.write(f"seed {seed}: {type(error).__name__}: {str(error)[:300]}\n")
    sys.stdout.write(f"{last - first} seeds, {broken} broken; {dict(total)}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
