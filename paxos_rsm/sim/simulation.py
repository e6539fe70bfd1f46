"""One seed, from the first boot to the check that all is well again.

A run has two parts. In the first, the weather does what it likes until most of the events have happened. Then
everything heals (but for disks that are lost), and within ``HEAL_ELECTIONS`` election time-outs there must be one
leader, every command in flight must have its result, a client at every server must have written and read, every lease
must have run out, all members must have applied what was chosen, and who was removed must have stopped. Last, what
clients of the key-value store saw is judged from outside (``history.py``).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from paxos_rsm.errors import InvariantViolation, MachineFailed
from paxos_rsm.replica.comparison import Verdict
from paxos_rsm.sim.client import SimClient
from paxos_rsm.sim.executions import Executions
from paxos_rsm.sim.failure import Broken, Failure, Result
from paxos_rsm.sim.history import judge
from paxos_rsm.sim.kv_reference import Ended
from paxos_rsm.sim.network import Network
from paxos_rsm.sim.oracle import Oracle
from paxos_rsm.sim.server import SimServer
from paxos_rsm.sim.server_view import number_of
from paxos_rsm.sim.siege import Siege
from paxos_rsm.sim.stage import Stage
from paxos_rsm.sim.weather import Weather
from paxos_rsm.sim.workload import Asked, KvWorkload, Workload
from paxos_rsm.sim.world import ELECTION_TICKS, ENTRY_BYTES, SPARES, TICK_UNITS, World

__all__ = ["HEALING_EVENTS", "HEAL_ELECTIONS", "Simulation", "run_seed"]

HEAL_ELECTIONS = 40
"""Election time-outs after which a cluster that has healed must be whole."""
HEALING_EVENTS = 350
"""Of the events of a run so many are left for the healing; where it takes fewer, the cluster goes on in peace."""
IDLE_TICKS_MAX = 200_000
"""A run in which so little happens that its events do not come together is ended after so many ticks."""
PROBE_COMMANDS = 2
LOOK_UNITS = 370
"""Between two looks whether all is whole: not in step with the ticks, at which something is always on its way."""


class Simulation:
    """See the module's docstring. One object plays one seed, once.

    ``changes`` are fields of the world, or names of faults and their rates, that take the place of what the seed
    draws. ``history`` asks for what every client was answered.
    """

    def __init__(
        self,
        seed: int,
        *,
        events: int = 1000,
        changes: Mapping[str, Any] | None = None,
        workload: Workload | None = None,
        traced: bool = False,
        history: bool = False,
    ) -> None:
        self.stage = stage = Stage(seed, traced)
        world = World.draw(stage.chance("world")).with_reads(stage.chance("reads"))
        if workload is not None:
            # A user's commands may be of any size: only our own fit into the entries that some worlds are given.
            world = replace(world, settings=replace(world.settings, entry_bytes_max=ENTRY_BYTES))
        self.world = world.but(changes or {})
        self.events_wanted = events
        self.oracle = Oracle()
        self.workload = workload or KvWorkload()
        self.executions = Executions(self.workload)
        if isinstance(self.workload, KvWorkload):
            self.workload.clock = lambda: stage.now
            self.workload.units_per_s = 1000 / self.world.replica.tick_ms * min(self.world.tick_units)
        self._healed_in_ticks = 0
        self._due = 0
        self._is_judged = workload is None
        self.history: list[Asked] | None = [] if history or self._is_judged else None
        self.network = Network(stage, self.world)
        self.servers = {
            number: SimServer(number, stage, self.network, self.oracle, self.executions, self.workload)
            for number in range(1, self.world.servers + 1)
        }
        if self.world.changes:
            for number in range(self.world.servers + 1, self.world.servers + SPARES + 1):
                self.servers[number] = SimServer(
                    number, stage, self.network, self.oracle, self.executions, self.workload, joins=True
                )
        self.network.peers = dict(self.servers)
        self.clients = [self._client(number, self.world) for number in range(1, self.world.clients + 1)]
        self.weather = Weather(stage, self.world, self.network, self.servers, self.oracle)
        self.siege = Siege(stage, self.world, self.network, self.servers, self.weather)

    def _client(self, number: int, world: World) -> SimClient:
        return SimClient(
            number,
            self.stage,
            world,
            self.servers,
            self.oracle,
            self.executions,
            self.workload,
            self.history,
        )

    @property
    def ended(self) -> list[tuple[Ended, int]]:
        """Every lease that has ended, and when."""
        return self.workload.ended if isinstance(self.workload, KvWorkload) else []

    def run(self) -> Result:
        """Plays the seed to its end."""
        failure: Failure | None = None
        stage = self.stage
        try:
            self._play()
            self._heal()
            if self._is_judged and self.history is not None:
                verdict = judge(self.history, self.executions, stage.now, self.ended)
                stage.fired["lease ended"] += len(self.ended)
                stage.fire(f"history {verdict.value}")
                if not verdict:
                    raise Broken("undecided", "the checker could not judge what clients saw: that is no pass")
        except Broken as broken:
            failure = Failure(broken.rule, str(broken), stage.events, stage.tick)
        except (InvariantViolation, MachineFailed) as error:
            # What a check says inside of a machine comes out as a failure of the machine.
            cause = error.__cause__
            what = cause if isinstance(cause, Broken) else Broken("invariant", str(error))
            failure = Failure(what.rule, str(what), stage.events, stage.tick)
        except Exception as error:
            failure = Failure("error", f"{type(error).__name__}: {error}", stage.events, stage.tick)
        stage.fired["slots"] += self.oracle.chosen_through
        stage.fired["ballots"] += len(self.oracle.ballots)
        stage.fired["members changed"] += max(0, len(self.oracle.changes) - 1)
        stage.fired["commands answered"] += sum(client.answered for client in self.clients)
        stage.fired["reads answered"] += sum(client.read for client in self.clients)
        return Result(
            stage.seed,
            stage.events,
            stage.trace_hash,
            failure,
            stage.fired,
            self._healed_in_ticks,
            stage.trace or [],
        )

    def _play(self) -> None:
        stage = self.stage
        for client in self.clients:
            client.start()
        self.weather.begin()
        self.siege.begin()
        while self.weather.held_back and stage.tick < IDLE_TICKS_MAX:
            stage.next()
            self.weather.held_back = 1 not in self.oracle.chosen
        enough = max(stage.events + self.events_wanted // 2, self.events_wanted - HEALING_EVENTS)
        while stage.events < enough and stage.tick < IDLE_TICKS_MAX:
            stage.next()

    # ---- the end ---------------------------------------------------------------------------------------------

    def _heal(self) -> None:
        """Everything stands again; see the module's docstring."""
        stage = self.stage
        if stage.trace is not None:
            stage.tell("the weather clears up")
        self.network.world = calm = replace(
            self.world,
            delay_units=20,
            fifo=True,  # as streams are: parts of a snapshot that overtake one another are asked for again much later
            loss=0.0,
            duplicate=0.0,
            late=0.0,
            lazy=0.0,
            moves=0.0,
            sleeps=0.0,
            ends=0.0,
            reads=0.5,
            client_units=100,
        )
        self.weather.heal()
        for client in self.clients:
            client.commands_left = client.reads_left = 0
        probes = []
        for number in self.servers:
            if self.servers[number] in self._members():
                probe = self._client(100 + number, calm)
                probe.home, probe.commands_left, probe.reads_left = number, PROBE_COMMANDS, 1
                probe.start()
                probes.append(probe)
        began = stage.tick
        self._wait_until_whole(probes)
        self._healed_in_ticks = max(1, stage.tick - began)
        self._go_on_in_peace(probes)
        for probe in probes:
            probe.give_up()  # its server was removed meanwhile
        for server in self._members():
            if server.up:
                server.compare_digest()
                server.replica.node.check()

    def _wait_until_whole(self, probes: list[SimClient]) -> None:
        stage = self.stage
        deadline = stage.now + HEAL_ELECTIONS * ELECTION_TICKS * TICK_UNITS
        next_look = stage.now
        while not self._is_whole(probes):
            if stage.now > deadline and self.weather.stranded():
                stage.fire("stranded")
                for client in self.clients:
                    client.give_up()
                return
            if stage.now > deadline:
                raise Broken("liveness", self._story(probes))
            if any(self._is_wrong(server) for server in self._members()):
                self.weather.nudge()  # states are compared at some slots only
            next_look += LOOK_UNITS
            if self.oracle.configuration is not None:
                self.weather.start_added(self.oracle.configuration)
            while stage.now < next_look:
                stage.next()

    def _go_on_in_peace(self, probes: list[SimClient]) -> None:
        """Until all the events that were wanted have happened."""
        stage = self.stage
        if stage.events >= self.events_wanted:
            return
        for probe in probes:
            probe.commands_left = probe.reads_left = None
        while stage.events < self.events_wanted:
            stage.next()
        for probe in probes:
            probe.commands_left = probe.reads_left = 0
        self._wait_until_whole(probes)

    def _members(self) -> list[SimServer]:
        """Those that must be whole again: all members whose disks were spared, and whoever came back all the same."""
        named = self.oracle.configuration
        everybody = named.everybody if named is not None else ()
        return [
            server
            for server in self.servers.values()
            if not server.spoilt and (server.node in everybody or (named is None and not server.joins))
        ]

    def _is_wrong(self, server: SimServer) -> bool:
        """Whether the state of a server that runs is not that of the others, or not there; or is thought not to be."""
        if not server.up:
            return False
        if server.replica.node.log.held:
            return True
        named = self.oracle.configuration
        if named is None or self.oracle.flaws.have_spread(named.nodes):
            return False
        return server.suspect or server.replica.comparison.standing.verdict is not Verdict.EQUAL

    def _is_whole(self, probes: list[SimClient]) -> bool:
        members = self._members()
        if not all(server.up for server in members):
            return False
        named = self.oracle.configuration
        if named is not None:
            if any(s.up and not s.joins and s.node not in named.everybody for s in self.servers.values()):
                return False  # wiped or removed, and nobody has told it yet
            if any(s.up and s.node in named.removed for s in self.servers.values()):
                return False
            if any(
                (m.promote or not m.incarnation) and not self.servers[number_of(m.member_id)].spoilt
                for m in named.members
            ):
                return False  # on the way to become a voter, or a member
        if any(self._is_wrong(server) for server in members):
            return False
        probes = [probe for probe in probes if self.servers[probe.home or 0] in members]
        if any(client.in_flight for client in (*self.clients, *probes)):
            return False
        if not all(probe.answered >= PROBE_COMMANDS and probe.read for probe in probes):
            return False
        leaders = {server.replica.leader for server in members}
        # Sessions are kept alive, so there is always something new; what there was at the last look is applied by all.
        due, self._due = self._due, self.oracle.chosen_through
        applied = min((server.replica.machine.applied_slot for server in members), default=0)
        # Nobody keeps a lease alive any more: those that there are run out.
        leases = self.workload.leases if isinstance(self.workload, KvWorkload) else 0
        return not leases and len(leaders) == 1 and None not in leaders and 0 < due <= applied

    def _story(self, probes: list[SimClient]) -> str:
        servers = "; ".join(server.describe() for server in self.servers.values())
        waiting = [c.number for c in self.clients if c.in_flight]
        starved = [p.home for p in probes if p.answered < PROBE_COMMANDS or not p.read]
        return (
            f"{HEAL_ELECTIONS} election time-outs after everything healed: {servers}; "
            f"clients without results: {waiting}; servers that have not served their own: {starved}"
        )


def run_seed(
    seed: int,
    *,
    events: int = 1000,
    changes: Mapping[str, Any] | None = None,
    workload: Workload | None = None,
    traced: bool = False,
) -> Result:
    """Plays one seed of at least ``events`` events, the last few hundred of which are the healing.

    Never raises for what is broken: that is the result's ``failure``. Raises ConfigError for a change of something that
    there is not.
    """
    return Simulation(seed, events=events, changes=changes, workload=workload, traced=traced).run()
