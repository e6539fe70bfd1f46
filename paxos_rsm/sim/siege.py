"""A leader is besieged: what it takes to make a read stale that is served on what others said before.

A lease on reads is only put to the test where another leads before it is over, and those who hold for the old leader
see to it that nobody can: by chance that comes to nothing. So the leader is first cut from members that it can do
without, until they hold for it no more, while it is read from all the time, so that the others do. Then it is cut off
from everybody, or paused, or it hands over just before; those who hold may be started again; one of the others
stands, as often as it takes, and writes once it leads; and everybody reads everywhere, and in what was the leader, too.
Reads by a quorum, which ask everybody, meet in the same siege acceptors that know more than they know to be decided.
"""

from collections.abc import Callable, Mapping
from typing import Any

from paxos_rsm.codec.frames import register_frame
from paxos_rsm.sim.network import Network
from paxos_rsm.sim.server import SimServer
from paxos_rsm.sim.stage import Stage
from paxos_rsm.sim.weather import Weather
from paxos_rsm.sim.world import ELECTION_TICKS, TICK_UNITS, World

__all__ = ["Siege"]


class Siege:
    """See the module's docstring. One at a time, beside whatever the weather does."""

    def __init__(
        self, stage: Stage, world: World, network: Network, servers: Mapping[int, SimServer], weather: Weather
    ) -> None:
        self._stage = stage
        self._world = world
        self._network = network
        self._servers = servers
        self._weather = weather
        self._random = stage.chance("siege")
        self._ticks = world.hold_ticks or ELECTION_TICKS // 2
        """What those who hold, hold for; or some time."""
        self._free_at = 0
        self._haste = 0.0
        """How likely who stands already stands anew, each time that it might."""

    def begin(self) -> None:
        """From now on, leaders are besieged."""
        if self._world.siege:
            self._stage.schedule(TICK_UNITS, self._tick)

    def _tick(self) -> None:
        if self._weather.over:
            return
        self._stage.schedule(TICK_UNITS, self._tick)
        if self._weather.held_back or self._stage.now < self._free_at:
            return
        if self._random.random() < self._world.siege and self._lay():
            self._stage.fire("siege")

    def _lay(self) -> bool:
        """Cuts a leader from all but those that it needs to go on."""
        able = [s for s in self._servers.values() if s.up and s.paused_until <= self._stage.now]
        leaders = [server for server in able if server.leads]
        if not leaders or len(able) < 2:
            return False
        leader = self._random.choice(leaders)
        others = [server for server in able if server is not leader]
        self._random.shuffle(others)
        needed = max(0, self._world.phase2_quorum - 1)
        self._network.cut = set()
        for server in others[needed:] if self._random.random() < 0.8 else ():
            self._cut(leader, server)
            self._cut(server, leader)
        ticks = self._ticks + self._random.randint(0, 2)
        self._free_at = self._stage.now + (ticks + 2 * self._ticks) * TICK_UNITS
        self._often(2 * ticks, ticks, self._look, leader)
        self._stage.schedule(ticks * TICK_UNITS, self._storm, leader, leader.life, others, others[:needed])
        return True

    def _storm(self, leader: SimServer, life: int, others: list[SimServer], holders: list[SimServer]) -> None:
        """Cuts it off from everybody, and lets another take its place."""
        if (
            self._weather.over
            or not leader.up
            or leader.life != life
            or leader.paused_until > self._stage.now
        ):
            return
        rnd = self._random
        free = [server for server in others if server not in holders]
        successor = rnd.choice(free if free and rnd.random() < 0.6 else others)
        if rnd.random() < 0.25 and successor.up:
            leader.feed(leader.replica.node.hand_over, successor.node)
            self._stage.schedule(rnd.randint(1, 2 * self._world.delay_units), self._isolate, leader)
        else:
            self._isolate(leader)
            if rnd.random() < 0.3 and leader.up:
                leader.paused_until = self._stage.now + rnd.randint(1, 2 * self._ticks) * TICK_UNITS
                self._stage.schedule(leader.paused_until - self._stage.now, self._look, leader, leader.life)
            if rnd.random() < 0.4:
                for server in holders:
                    self._start_again(server)
        ticks = self._ticks + 2
        self._haste = rnd.choice((0.1, 0.6))
        self._act(successor, successor.life)
        self._often(4 * ticks, ticks, self._act, successor)
        self._often(4 * ticks, ticks, self._look, leader)
        for server in others:
            self._often(ticks, ticks, self._look, server)
        self._stage.schedule(ticks * TICK_UNITS, self._lift)

    def _isolate(self, leader: SimServer) -> None:
        if self._weather.over:
            return
        for server in self._servers.values():
            if server is not leader:
                self._cut(server, leader)
                if self._random.random() < 0.8:
                    self._cut(leader, server)

    def _cut(self, a: SimServer, b: SimServer) -> None:
        self._network.cut.add((a.number, b.number))

    def _start_again(self, server: SimServer) -> None:
        for _ in range(self._random.randint(1, 2)):
            if server.up:
                server.kill()
                server.boot()

    def _lift(self) -> None:
        if not self._weather.over:
            self._network.cut = set()

    # ---- who does what meanwhile -------------------------------------------------------------------------------

    def _often(self, times: int, ticks: int, action: Callable[..., Any], server: SimServer) -> None:
        for _ in range(times):
            self._stage.schedule(self._random.randint(1, ticks * TICK_UNITS), action, server, server.life)

    def _is_there(self, server: SimServer, life: int) -> bool:
        return (
            not self._weather.over
            and server.up
            and server.life == life
            and server.paused_until <= self._stage.now
        )

    def _look(self, server: SimServer, life: int) -> None:
        """Somebody reads there."""
        if self._is_there(server, life):
            server.glance()

    def _act(self, server: SimServer, life: int) -> None:
        """It writes where it leads, stands where it does not, and somebody reads there."""
        if not self._is_there(server, life):
            return
        node = server.replica.node
        if server.leads:
            server.feed(node.propose, [register_frame(self._random.getrandbits(63) | 1, 60_000)])
        elif node.may_campaign and (node.role != "candidate" or self._random.random() < self._haste):
            server.feed(node.campaign)
        self._look(server, life)
