"""What goes wrong, and when it is over: one draw a tick for each kind of fault of :data:`~paxos_rsm.sim.world.FAULTS`.

Faults come in spells: for a share of the time nothing new begins, so that a cluster also gets to work with what the
last spell left it. What servers lose for good is for losses.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise

from paxos_rsm.codec.frames import register_frame
from paxos_rsm.errors import MembershipRefused
from paxos_rsm.paxos.changes import AddMember, Change, PromoteMember, RemoveMember, UpdateMember
from paxos_rsm.paxos.membership import Configuration
from paxos_rsm.sim.losses import Losses
from paxos_rsm.sim.network import Network
from paxos_rsm.sim.oracle import Oracle
from paxos_rsm.sim.server import SimServer
from paxos_rsm.sim.server_view import number_of
from paxos_rsm.sim.stage import Stage
from paxos_rsm.sim.world import ELECTION_TICKS, TICK_UNITS, World
from paxos_rsm.storage.memory import MemoryFiles

__all__ = ["Weather"]

CONTESTS_MAX = 6
SPELL = 0.04
"""The probability, per tick, that the weather changes between calm and not."""


class Weather(Losses):
    """See the module's docstring."""

    def __init__(
        self,
        stage: Stage,
        world: World,
        network: Network,
        servers: Mapping[int, SimServer],
        oracle: Oracle,
    ) -> None:
        self._stage = stage
        self._world = world
        self._network = network
        self._servers = servers
        self._oracle = oracle
        self._random = stage.chance("weather")
        self._is_calm = False
        self._coming: set[int] = set()
        """Servers that are down and will be started again."""
        self._added = 0
        self.over = False
        self.held_back = world.forms_first
        """Nothing goes wrong yet."""
        makers: dict[str, Callable[[], bool]] = {
            "crash": self._crash,
            "kill": self._kill,
            "blackout": self._blackout,
            "pause": self._pause,
            "usurp": self._usurp,
            "slow-disk": self._slow_disk,
            "sync-error": self._sync_error,
            "full-disk": self._full_disk,
            "flip": self._flip,
            "wipe": self._wipe,
            "isolate": self._isolate,
            "one-way": self._one_way,
            "partition": self._partition,
            "ragged": self._ragged,
            "quorum-loss": self._quorum_loss,
            "chain": self._chain,
            "constrained": self._constrained,
            "coup": self._coup,
            "streams": self._break_streams,
            "reconnect": self._reconnect,
            "snapshot": self._snapshot,
            "absence": self._absence,
            "interrupt": self._interrupt,
            "rot": self._rot,
            "old-copy": self._old_copy,
            "change": self._change,
            "hand-over": self._hand_over,
            "diverge": self._diverge,
        }
        self._faults = [(name, rate, makers[name]) for name, rate in world.rates.items() if rate]

    def begin(self) -> None:
        """From now on, things go wrong."""
        self._stage.schedule(TICK_UNITS, self._tick)

    def _tick(self) -> None:
        if self.over:
            return
        rnd = self._random
        for server in self._servers.values():
            if not server.up and server.wanted and not server.lost and server.number not in self._coming:
                self._coming.add(server.number)
                at_once, later = TICK_UNITS // 10, self._ticks(2 * self._world.restart_ticks)
                self._stage.schedule(at_once if rnd.random() < 0.3 else later, self._restart, server)
        if rnd.random() < SPELL:
            self._is_calm = rnd.random() < self._world.calm
        if not self._is_calm and not self.held_back:
            for name, rate, make in self._faults:
                if rnd.random() < rate and make():
                    self._stage.fire(name)
        self._stage.schedule(TICK_UNITS, self._tick)

    def heal(self) -> None:
        """Nothing goes wrong any more, and what did is put right, but for disks that are lost."""
        self.over = True
        self._network.cut = set()
        for server in self._servers.values():
            server.paused_until = 0
            server.sync_units = 1
            server.armed = None
            server.files.power_off_after(None)
            server.files.forget_failures()
            server.files.capacity_bytes = None
            if server.is_old:
                server.is_old = False  # it is upgraded, and started again
                server.kill()
            if not server.up and server.wanted:
                server.boot()
                server.boot()  # Armed when it died, and its disk was touched since: the first start notices that.

    def start_added(self, configuration: Configuration) -> None:
        """Whoever is a member, or is to become one, is started; who was one before, with an empty directory."""
        for member in configuration.members:
            server = self._servers[number_of(member.member_id)]
            server.wanted = True
            if member.member_id != server.member_id and not member.incarnation:
                if server.node:
                    self._stage.fire("added again")
                server.start_anew(member.member_id)
            elif server.joins and not server.up:
                server.boot()

    def nudge(self) -> None:
        """Something is written, so that the log goes on."""
        for server in self._up():
            self._stir(server, server.life, healed=True)

    # ---- servers that come back ------------------------------------------------------------------------------

    def _restart(self, server: SimServer) -> None:
        self._coming.discard(server.number)
        if not (self.over or server.up or server.lost):
            server.boot()
            self._readers_at(server)
            if self._world.rates.get("kill") and self._random.random() < 0.3:
                self._kill_soon(server)  # who crashes once often crashes again

    def _readers_at(self, server: SimServer) -> None:
        """Somebody reads at a server again and again for a while."""
        for _ in range(4):
            delay = self._random.randint(1, ELECTION_TICKS // 2 * TICK_UNITS)
            self._stage.schedule(delay, self._read, server, server.life)

    def _read(self, server: SimServer, life: int) -> None:
        if not self.over and server.life == life and server.paused_until <= self._stage.now:
            server.glance()

    # ---- servers ---------------------------------------------------------------------------------------------

    def _crash(self) -> bool:
        server = self._someone()
        if server is None:
            return False
        draw = self._random.random()
        if draw < 0.4:
            server.crash()
        elif draw < 0.7:
            server.arm(self._random.randint(0, 6))
        else:
            server.arm(1 << 30, self._random.randint(0, 4))
        return True

    def _kill(self) -> bool:
        server = self._someone()
        if server is None:
            return False
        if self._random.random() < 0.5:
            server.kill()
            return True
        # With reads on their way, whose answers come when it is gone, or has come back.
        self._readers_at(server)
        self._kill_soon(server)
        return True

    def _kill_soon(self, server: SimServer) -> None:
        delay = self._random.randint(1, ELECTION_TICKS // 2 * TICK_UNITS)
        self._stage.schedule(delay, self._kill_now, server, server.life)

    def _kill_now(self, server: SimServer, life: int) -> None:
        if not self.over and server.up and server.life == life:
            server.kill()

    def _blackout(self) -> bool:
        for server in self._up():
            server.crash()
        return True

    def _pause(self) -> bool:
        server = self._someone()
        if server is None:
            return False
        server.paused_until = self._stage.now + self._ticks(3 * ELECTION_TICKS)
        # The first thing that it does when it goes on, before it hears of anything that was said meanwhile.
        self._stage.schedule(server.paused_until - self._stage.now, self._stir, server, server.life)
        return True

    def _usurp(self) -> bool:
        """Stands out of turn, without asking anybody: safety must not depend on good manners."""
        server = self._someone()
        if server is None or not server.replica.node.may_campaign:
            return False
        self._contest(server, *(each for each in self._up() if each.leads))
        server.feed(server.replica.node.campaign)
        return True

    def _contest(self, *servers: SimServer) -> None:
        """For one election time-out, each of these is now and then asked to write and to read, as if it led."""
        for server in servers:
            for _ in range(self._random.randint(0, CONTESTS_MAX)):
                delay = self._random.randint(1, ELECTION_TICKS * TICK_UNITS)
                self._stage.schedule(delay, self._stir, server, server.life)

    def _stir(self, server: SimServer, life: int, healed: bool = False) -> None:
        if self.over is not healed or not server.up or server.life != life:
            return
        if server.paused_until > self._stage.now:
            return
        if server.leads:
            frame = register_frame(self._random.getrandbits(63) | 1, 60_000)
            server.feed(server.replica.node.propose, [frame])
        server.glance()

    # ---- disks -----------------------------------------------------------------------------------------------

    def _slow_disk(self) -> bool:
        """A disk takes its time, or gets stuck: the leader's, where there is one."""
        units = self._random.choice((1, 500, 3000, 20_000, 60_000))
        leaders = [server for server in self._up() if server.leads]
        server = self._random.choice(leaders) if leaders and units >= 20_000 else self._someone()
        if server is None:
            return False
        server.sync_units = units
        return True

    def _sync_error(self) -> bool:
        server = self._someone()
        if server is None:
            return False
        server.fail_next_sync()
        return True

    def _full_disk(self) -> bool:
        server = self._someone()
        if server is None:
            return False
        # Not even an empty file fits, or just that.
        server.files.capacity_bytes = server.files.used_bytes - self._random.randint(0, 1)
        self._stage.schedule(self._ticks(6 * ELECTION_TICKS), self._free_disk, server.files)
        return True

    @staticmethod
    def _free_disk(files: MemoryFiles) -> None:
        files.capacity_bytes = None

    # ---- snapshots -------------------------------------------------------------------------------------------

    def _snapshot(self) -> bool:
        """An operator asks for one."""
        server = self._someone()
        if server is None or not server.formed:
            return False
        server.feed(server.snapshots.take)
        return True

    def _absence(self) -> bool:
        """A server is away for so long that the others may have forgotten what it needs when it comes back."""
        server = self._someone()
        if server is None or server.number in self._coming:
            return False
        server.kill()
        self._coming.add(server.number)
        ticks = self._random.randint(2 * ELECTION_TICKS, 12 * ELECTION_TICKS)
        self._stage.schedule(ticks * TICK_UNITS, self._restart, server)
        for other in self._up():
            at = self._random.randint(ticks // 2, ticks)
            self._stage.schedule(at * TICK_UNITS, self._snapshot_of, other)
        return True

    def _snapshot_of(self, server: SimServer) -> None:
        if not self.over and server.up and server.formed and server.paused_until <= self._stage.now:
            server.feed(server.snapshots.take)

    def _interrupt(self) -> bool:
        """The power goes where a snapshot is being taken, sent, fetched or installed."""
        busy = [s for s in self._up() if s.snapshots.busy or s.replica.transfer.fetching]
        if not busy:
            return False
        server = self._random.choice(busy)
        if self._random.random() < 0.7:
            server.arm(1 << 30, self._random.randint(0, 8))
        else:
            server.arm(self._random.randint(0, 6))
        return True

    # ---- operators -------------------------------------------------------------------------------------------

    def _change(self) -> bool:
        """Somebody asks for a change of the members, and waits for what becomes of it; others may do so meanwhile."""
        server = self._someone()
        configuration = server.configuration if server is not None else None
        if server is None or configuration is None:
            return False
        change = self._drawn_change(configuration)
        if not self._can_be_made(configuration, change):
            return False
        request_id = self._random.getrandbits(63) | 1

        def done(outcome: Configuration | MembershipRefused) -> None:
            if isinstance(outcome, MembershipRefused):
                self._stage.fire("change refused")
                return
            self._stage.fire(f"changed: {type(change).__name__}")
            if isinstance(change, AddMember) and not self.over:
                self._stage.schedule(TICK_UNITS, self.start_added, outcome)

        if isinstance(change, AddMember) and self._random.random() < 0.3:
            added = self._servers[number_of(change.member.member_id)]
            if not added.wanted:
                # Its operator does not wait; it does, until somebody knows that it was added.
                added.member_id, added.wanted = change.member.member_id, True
        server.feed(server.replica.changes.ask, request_id, change, done)
        return True

    def _drawn_change(self, configuration: Configuration) -> Change:
        rnd = self._random
        members = configuration.members
        servers = self._servers.values()
        numbers = {number_of(member.member_id) for member in configuration.members}
        unborn = [server for server in servers if server.number not in numbers]
        few = len(configuration.nodes) < rnd.choice((2, 3, 4))
        draw = rnd.random()
        if unborn and (few or draw < 0.4):
            server = rnd.choice(unborn)
            self._added += 1
            member_id = 100 * (1 + self._added) + server.number
            promote = rnd.random() < 0.8
            return AddMember(replace(server.introduction, member_id=member_id, promote=promote))
        gone = [m for m in members if self._servers[number_of(m.member_id)].lost]
        if gone and rnd.random() < 0.5:
            return RemoveMember(rnd.choice(gone).member_id)
        member = rnd.choice(members)
        leaders = [m for m in members if any(s.leads and s.node == m.incarnation for s in self._up())]
        if leaders and rnd.random() < 0.4:
            member = leaders[0]
        if draw < 0.8 and not few:
            return RemoveMember(member.member_id)
        learners = [m for m in members if m.learner]
        if learners and draw < 0.9:
            return PromoteMember(rnd.choice(learners).member_id)
        return UpdateMember(
            member.member_id, f"http://n{number_of(member.member_id)}:{rnd.randint(2380, 2399)}"
        )

    def _hand_over(self) -> bool:
        """A leader is told to hand over its place."""
        leaders = [server for server in self._up() if server.leads]
        if not leaders:
            return False
        leader = self._random.choice(leaders)
        others = [server.node for server in self._up() if server is not leader]
        to = self._random.choice(others) if others and self._random.random() < 0.5 else None
        leader.feed(leader.replica.node.hand_over, to)
        return True

    # ---- links -----------------------------------------------------------------------------------------------

    def _only(self, *links: tuple[int, int]) -> bool:
        """Only these links stand, both ways."""
        kept = {*links, *((b, a) for a, b in links)}
        self._network.cut = {(a, b) for a in self._servers for b in self._servers if a != b} - kept
        return len(self._servers) > 1

    def _isolate(self) -> bool:
        server = self._someone()
        if server is None:
            return False
        for other in self._servers:
            if other != server.number:
                self._network.cut |= {(server.number, other), (other, server.number)}
        return len(self._servers) > 1

    def _one_way(self) -> bool:
        """A server can send and not receive, or the reverse, to some or all of the others."""
        server = self._someone()
        if server is None:
            return False
        deaf = self._random.random() < 0.5
        share = self._random.choice((0.5, 1.0))
        for other in self._servers:
            if other != server.number and self._random.random() < share:
                self._network.cut.add((other, server.number) if deaf else (server.number, other))
        return len(self._servers) > 1

    def _partition(self) -> bool:
        numbers = self._shuffled()
        at = self._random.randint(0, len(numbers))
        one, other = numbers[:at], numbers[at:]
        self._network.cut = {(a, b) for a in one for b in other} | {(b, a) for a in one for b in other}
        return bool(one and other)

    def _ragged(self) -> bool:
        self._network.cut = {
            (a, b) for a in self._servers for b in self._servers if a != b and self._random.random() < 0.4
        }
        return bool(self._network.cut)

    def _quorum_loss(self) -> bool:
        """Everybody reaches one server only, which is not the leader (OmniPaxos, EuroSys 2023, section 2)."""
        numbers = self._shuffled()
        numbers.sort(key=lambda n: self._servers[n].leads)
        hub = numbers[0]
        return self._only(*((hub, n) for n in numbers[1:]))

    def _chain(self) -> bool:
        """Each server reaches its neighbours only."""
        return self._only(*pairwise(self._shuffled()))

    def _constrained(self) -> bool:
        """One server that is behind is the only one that all the others but the leader reach."""
        leaders = [n for n, server in self._servers.items() if server.leads]
        numbers = [n for n in self._shuffled() if n not in leaders[:1]]
        if not leaders or len(numbers) < 2:
            return False
        hub = min(
            numbers,
            key=lambda n: self._servers[n].replica.node.decided_through if self._servers[n].up else -1,
        )
        return self._only(*((hub, n) for n in numbers if n != hub))

    def _coup(self) -> bool:
        """Another takes over behind a leader's back, which hears nothing of it, or only from those between."""
        leaders = [server for server in self._up() if server.leads and server.paused_until <= self._stage.now]
        others = [server for server in self._up() if not server.leads and server.replica.node.may_campaign]
        if not leaders or not others:
            return False
        old, new = self._random.choice(leaders), self._random.choice(others)
        self._network.cut |= {(old.number, new.number), (new.number, old.number)}
        if self._random.random() < 0.5:
            for number in self._servers:
                if number != old.number:
                    self._network.cut.add((number, old.number))
                    if self._random.random() < 0.5:
                        self._network.cut.add((old.number, number))
        self._contest(old, new)
        if self._random.random() < 0.6:
            self._stage.schedule(self._random.randint(1, 4 * TICK_UNITS), self._encore)
        new.feed(new.replica.node.campaign)
        return True

    def _encore(self) -> None:
        """The next coup, before what the last one has decided is known to all: with other links than that had."""
        if not self.over:
            self._network.cut = set()
            if self._coup():
                self._stage.fire("coup")

    def _break_streams(self) -> bool:
        standing = self._network.connected()
        if not standing:
            return False
        a, b = self._random.choice(standing)
        self._network.break_stream(self._servers[a], self._servers[b])
        return True

    def _reconnect(self) -> bool:
        """All links stand again."""
        was_cut, self._network.cut = bool(self._network.cut), set()
        return was_cut
