"""What a fault does to the servers: one small class for each kind, with a beginning and an end.

::

    fault = make_fault(planned, scene)      # draws its victims; nothing happens yet
    fault.begin()                           # what was done, in a sentence
    fault.step(1.2)                         # again and again while it lasts, with the seconds since it began
    fault.end()                             # everything is as it was, as far as this fault goes

A new kind is an entry in `kinds.py` and a class here. Everything blocks and is called from one thread.

Faults may overlap, so each mends what it did itself, and takes nothing for granted: what it stopped may have been
killed meanwhile. (Two that cut the same link are mended by the first that ends.) A fault that cannot be (no leader to
kill) raises FaultImpossible before it has done anything.
No fault destroys data: what was synced stays.
"""

import contextlib
import itertools
import random
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from paxos_rsm.errors import PaxosRsmError
from paxos_rsm.testing.chaos.plan import PlannedFault
from paxos_rsm.testing.cluster import LocalCluster, LocalServer
from paxos_rsm.testing.errors import LocalClusterError
from paxos_rsm.testing.links import Held, Mode

__all__ = ["FAULTS", "Fault", "FaultImpossible", "make_fault"]

HOUR_S = 3_600
FLAPS_MS = ((300, 300), (150, 450), (700, 300))
"""Up and down."""
BEHIND_S = 1.0
"""How long the server of a constrained election misses what is written."""
DELAYS_MS = (20, 50, 100, 300)
HELD: tuple[Held, ...] = ("resume", "drop")
MODES: tuple[Mode, ...] = ("hold", "reset")
FULL_DISKS = ("segments", "writes", "start")
"""At the next segment, at the next write, at the start."""
SYNC_DELAYS_MS = (100, 300, 700, 1_500)


class FaultImpossible(PaxosRsmError):
    """The fault cannot strike now; nothing was done."""


class Fault(ABC):
    """One fault. ``leader`` is who led when it was made; None where nobody did."""

    ends_servers = False
    """Whether its victims may stop running while it lasts."""

    def __init__(self, cluster: LocalCluster, leader: str | None, role: str, rng: random.Random) -> None:
        self.cluster = cluster
        self.leader = leader
        self.rng = rng
        self.problems: list[str] = []
        """What the victims did that they must not, each as a sentence."""
        self.victims: tuple[str, ...] = tuple(self.choose(role))

    def choose(self, role: str) -> Sequence[str]:
        """The names of the victims. Raises FaultImpossible."""
        names = self.cluster.names
        if role == "all":
            return names
        if role == "random":
            return [self.rng.choice(names)]
        if self.leader is None:
            raise FaultImpossible(f"there is no leader, so that nobody is the {role}")
        if role == "leader":
            return [self.leader]
        return [self.rng.choice([name for name in names if name != self.leader])]

    @abstractmethod
    def begin(self) -> str:
        """Does it, and says what was done."""

    def step(self, elapsed_s: float) -> None:
        """Called some twenty times a second while it lasts."""
        return  # most faults just last

    @abstractmethod
    def end(self) -> None:
        """Mends what this fault did."""

    @property
    def victim(self) -> LocalServer:
        """The first of them."""
        return self.cluster[self.victims[0]]

    @property
    def others(self) -> list[str]:
        """Everybody but the first victim."""
        return [name for name in self.cluster.names if name != self.victims[0]]

    def named(self) -> str:
        """``n2, the leader,`` or ``n1, n3``."""
        names = [f"{name}, the leader" if name == self.leader else name for name in self.victims]
        return " and ".join(names) if len(names) < 3 else ", ".join(names)


# ---- processes -------------------------------------------------------------------------------------------


class Kill(Fault):
    """SIGKILL, and a start on the data that is there."""

    ends_servers = True

    def begin(self) -> str:
        for name in self.victims:
            self.cluster[name].kill()
        return f"killed {self.named()}"

    def end(self) -> None:
        _start_again(self.cluster, self.victims)


class MinorityKill(Kill):
    """As many as a quorum can do without, the leader among them."""

    def choose(self, role: str) -> Sequence[str]:
        first = list(super().choose(role))
        others = [name for name in self.cluster.names if name not in first]
        return first + self.rng.sample(others, (len(self.cluster) - 1) // 2 - 1)


class Pause(Fault):
    """SIGSTOP and SIGCONT: its connections stay, it does nothing, and it does not know."""

    def begin(self) -> str:
        self.victim.stop()
        return f"stopped {self.named()}"

    def end(self) -> None:
        if self.victim.running:
            self.victim.cont()


class Restart(Fault):
    """SIGTERM; what it was asked it may still answer; then a start."""

    ends_servers = True

    def begin(self) -> str:
        self.victim.request_end()
        return f"asked {self.named()} to end"

    def end(self) -> None:
        code = self.victim.terminate() if self.victim.running else self.victim.returncode
        if code not in (0, -signal.SIGKILL):  # another fault may have killed it meanwhile
            self.problems.append(f"{self.victims[0]} was asked to end, and {self.victim.describe_end()}")
        _start_again(self.cluster, self.victims)


def _start_again(cluster: LocalCluster, names: Iterable[str]) -> None:
    for name in names:
        if not cluster[name].running:
            cluster[name].start()


# ---- links -----------------------------------------------------------------------------------------------


class Links(Fault):
    """A fault of links. What was held back on them is delivered when they are mended, or lost: drawn for each."""

    def __init__(self, cluster: LocalCluster, leader: str | None, role: str, rng: random.Random) -> None:
        super().__init__(cluster, leader, role, rng)
        self.held: Held = rng.choice(HELD)

    def touched(self) -> list[tuple[str, str]]:
        """The directed links that are to be mended."""
        return self.pairs()

    def end(self) -> None:
        for source, target in self.touched():
            self.cluster.links.heal(source, target, held=self.held)

    def around(self, side: Iterable[str]) -> list[tuple[str, str]]:
        """Every link, both ways, between those of ``side`` and all others."""
        inside = set(side)
        return [pair for pair in self.pairs() if (pair[0] in inside) != (pair[1] in inside)]

    def pairs(self) -> list[tuple[str, str]]:
        """Every directed link there is."""
        return list(itertools.permutations(self.cluster.names, 2))


class Deaf(Links):
    """It can send and not receive."""

    def begin(self) -> str:
        self.cluster.links.deafen(self.victims[0])
        return f"{self.named()} hears nobody"

    def touched(self) -> list[tuple[str, str]]:
        return [(other, self.victims[0]) for other in self.others]


class Mute(Links):
    """It can receive and not send."""

    def begin(self) -> str:
        self.cluster.links.mute(self.victims[0])
        return f"nobody hears {self.named()}"

    def touched(self) -> list[tuple[str, str]]:
        return [(self.victims[0], other) for other in self.others]


class OneWayCuts(Links):
    """About a quarter of all links, each in one direction."""

    def choose(self, role: str) -> Sequence[str]:
        return ()

    def begin(self) -> str:
        for source, target in self.touched():
            self.cluster.links.cut(source, target)
        return f"cut {', '.join(f'{source}→{target}' for source, target in self.touched())}"

    @cached_property
    def _drawn(self) -> list[tuple[str, str]]:
        pairs = self.pairs()
        return sorted(self.rng.sample(pairs, max(1, len(pairs) // 4)))

    def touched(self) -> list[tuple[str, str]]:
        return self._drawn


class Partition(Links):
    """A minority, the victim in it, without links to the rest; only the rest has a quorum.

    Either silent, as with a cable pulled, or with connections closed and refused, as where a host has no such server.
    """

    def choose(self, role: str) -> Sequence[str]:
        first = list(super().choose(role))
        others = [name for name in self.cluster.names if name not in (*first, self.leader)]
        return first + self.rng.sample(others, (len(self.cluster) - 1) // 2 - 1)

    def begin(self) -> str:
        mode = self.rng.choice(MODES)
        self.cluster.links.partition(self.victims, mode=mode)
        return f"cut off {self.named()}" + (", connections closed" if mode == "reset" else "")

    def touched(self) -> list[tuple[str, str]]:
        return self.around(self.victims)


class SlowLinks(Links):
    """About a third of all links pass everything on late, each by a delay of its own."""

    delays: Mapping[tuple[str, str], int] = {}

    def choose(self, role: str) -> Sequence[str]:
        return ()

    def begin(self) -> str:
        pairs = self.pairs()
        drawn = sorted(self.rng.sample(pairs, max(1, len(pairs) // 3)))
        self.delays = {pair: self.rng.choice(DELAYS_MS) for pair in drawn}
        for (source, target), delay_ms in self.delays.items():
            self.cluster.links.delay(source, target, delay_ms, jitter_ms=delay_ms / 4)
        return "delayed " + ", ".join(f"{a}→{b} {delay_ms} ms" for (a, b), delay_ms in self.delays.items())

    def end(self) -> None:
        for source, target in self.delays:
            self.cluster.links.delay(source, target, 0)


class FlappingLink(Links):
    """All links of one server are cut, then not, then cut, ..."""

    def begin(self) -> str:
        up_ms, down_ms = self.rng.choice(FLAPS_MS)
        self.cluster.links.flap_server(self.victims[0], up_ms=up_ms, down_ms=down_ms)
        return f"the links of {self.named()} flap: up {up_ms} ms, down {down_ms} ms"

    def touched(self) -> list[tuple[str, str]]:
        return self.around(self.victims)


class QuorumLoss(Links):
    """Every server reaches the victim, and nobody else: the leader too, which so has lost its quorum."""

    def begin(self) -> str:
        self.cluster.links.quorum_loss(self.victims[0])
        return f"all reach {self.named()} only; {self.leader} led"


class ConstrainedElection(Links):
    """As quorum loss, but the victim has missed what was written last, and the leader is cut off from it too."""

    behind = True

    def begin(self) -> str:
        if self.leader is None:
            raise FaultImpossible("there is no leader to be cut off")
        self.cluster.links.isolate(self.victims[0])
        return (
            f"{self.named()} misses {BEHIND_S:g} s of writes; then it alone has a quorum of links, "
            f"and {self.leader}, which led, has none"
        )

    def step(self, elapsed_s: float) -> None:
        if self.behind and self.leader is not None and elapsed_s >= BEHIND_S:
            self.behind = False
            self.cluster.links.constrained(self.victims[0], self.leader)


class Chained(Links):
    """Each server reaches its two neighbours in a chain; the leader stands at one end of it."""

    def begin(self) -> str:
        chain = [*self.victims, *self.rng.sample(self.others, len(self.others))]
        self.cluster.links.chained(*chain)
        return f"a chain: {' – '.join(chain)}; {self.leader} led"


# ---- disks and clocks ------------------------------------------------------------------------------------


class FullDisk(Fault):
    """No room is left where its data lies: while it runs, or when it is started.

    While it runs, the log goes on in the segment that it has allocated, for some seconds. Or the shim refuses every
    write from now on, so that it fails in the middle of one.
    """

    ends_servers = True

    def begin(self) -> str:
        self.victim.fill_disk()
        how = self.rng.choice(FULL_DISKS)
        if how == "start":
            self.victim.kill()
            self.victim.start()
            return f"killed {self.named()} and started it on a full disk"
        if how == "writes":
            with contextlib.suppress(LocalClusterError):  # no shim: the disk is full all the same
                self.victim.faults.no_space(True)
        return f"filled the disk of {self.named()}" + (
            ", in the middle of a write" if how == "writes" else ""
        )

    def end(self) -> None:
        self.victim.free_disk()
        with contextlib.suppress(LocalClusterError):
            self.victim.faults.no_space(False)
        _start_again(self.cluster, self.victims)


class SyncError(Fault):
    """The next sync fails, once. The server must stop; it may not try again."""

    ends_servers = True

    def begin(self) -> str:
        self.failed_before = self.victim.faults.syncs_failed
        self.process = self.victim.pid
        self.victim.faults.sync_errors(1)
        return f"the next sync of {self.named()} fails"

    def end(self) -> None:
        self.victim.faults.sync_errors(0)
        has_failed = self.victim.faults.syncs_failed > self.failed_before
        if has_failed and self.victim.running and self.victim.pid == self.process:
            self.problems.append(f"{self.victims[0]} still runs after a sync of its log has failed")
        _start_again(self.cluster, self.victims)


class SlowSync(Fault):
    """Every sync takes longer."""

    def begin(self) -> str:
        delay_ms = self.rng.choice(SYNC_DELAYS_MS)
        self.victim.faults.sync_delay_ms(delay_ms)
        return f"every sync of {self.named()} takes {delay_ms} ms longer"

    def end(self) -> None:
        self.victim.faults.sync_delay_ms(0)


class ClockJump(Fault):
    """The wall clock is an hour off, forward or back, until the end."""

    def begin(self) -> str:
        offset_s = self.rng.choice((-HOUR_S, HOUR_S))
        self.victim.faults.clock_offset_s(offset_s)
        return f"the clock of {self.named()} jumps {'forward' if offset_s > 0 else 'back'} by an hour"

    def end(self) -> None:
        self.victim.faults.clock_offset_s(0)


FAULTS: dict[str, type[Fault]] = {
    "leader-kill": Kill,
    "follower-kill": Kill,
    "minority-kill": MinorityKill,
    "all-kill": Kill,
    "leader-pause": Pause,
    "follower-pause": Pause,
    "leader-deaf": Deaf,
    "leader-mute": Mute,
    "one-way-cuts": OneWayCuts,
    "partition": Partition,
    "leader-cut-off": Partition,
    "slow-links": SlowLinks,
    "flapping-link": FlappingLink,
    "quorum-loss": QuorumLoss,
    "constrained-election": ConstrainedElection,
    "chained": Chained,
    "full-disk": FullDisk,
    "sync-error": SyncError,
    "slow-sync": SlowSync,
    "clock-jump": ClockJump,
    "restart": Restart,
}
"""By the name of their kind."""


def make_fault(planned: PlannedFault, cluster: LocalCluster, leader: str | None) -> Fault:
    """The fault that was planned, with its victims chosen. Raises FaultImpossible."""
    return FAULTS[planned.kind.name](cluster, leader, planned.role, random.Random(planned.pick))
