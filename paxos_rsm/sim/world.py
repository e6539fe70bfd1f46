"""What a seed is played under: how many servers, how patient, how fast, and how often what goes wrong.

Each seed draws a :class:`World` of its own, so that a campaign meets combinations that nobody would think of: a
flexible quorum on slow disks, a window of one slot under duplication, seven servers of which two have clocks that
run a quarter too fast. One world in eight has no fault at all, for what only happens when nothing does.

Time is in *units*, ``TICK_UNITS`` to a tick of a server whose clock is right.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from random import Random
from types import MappingProxyType
from typing import Any, get_origin

from paxos_rsm.errors import ConfigError
from paxos_rsm.machines.sessions import DIGEST_SLOTS
from paxos_rsm.paxos.settings import Settings
from paxos_rsm.replica.replica import ReplicaSettings
from paxos_rsm.storage.segments import SEGMENT_BYTES_MIN

__all__ = ["ELECTION_TICKS", "ENTRY_BYTES", "FAULTS", "TICK_UNITS", "TICK_US", "UNIT_US", "World"]

TICK_UNITS = 1000
UNIT_US = 250
"""Of a true clock: as a tick is 250 ms long."""
TICK_US = TICK_UNITS * UNIT_US
ELECTION_TICKS = 8

ENTRY_BYTES = Settings().entry_bytes_max
SMALL_ENTRY_BYTES = 300
"""More than any frame of a simulated client, and less than what waits at a server when much was lost."""

FAULTS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        # What happens to a server.
        "crash": (0.0, 0.002, 0.01, 0.03),
        "kill": (0.0, 0.002, 0.01),
        "blackout": (0.0, 0.0, 0.002, 0.005),
        "pause": (0.0, 0.0, 0.005, 0.02),
        "usurp": (0.0, 0.0, 0.01, 0.05, 0.1),
        # What happens to its disk.
        "slow-disk": (0.0, 0.005, 0.02),
        "sync-error": (0.0, 0.0, 0.005),
        "full-disk": (0.0, 0.0, 0.005),
        "flip": (0.0, 0.0, 0.05, 0.2),
        "wipe": (0.0, 0.0, 0.01),
        # What happens to the links.
        "isolate": (0.0, 0.005, 0.02),
        "one-way": (0.0, 0.005, 0.02),
        "partition": (0.0, 0.005, 0.02),
        "ragged": (0.0, 0.005, 0.01),
        "quorum-loss": (0.0, 0.0, 0.005),
        "chain": (0.0, 0.0, 0.005),
        "constrained": (0.0, 0.0, 0.02),
        "coup": (0.0, 0.02, 0.05, 0.2),
        "streams": (0.0, 0.0, 0.01),
        "reconnect": (0.0, 0.02, 0.05),
        # What happens to snapshots.
        "snapshot": (0.0, 0.01, 0.05),
        "absence": (0.0, 0.01, 0.03),
        "interrupt": (0.0, 0.02, 0.1),
        "rot": (0.0, 0.0, 0.05, 0.2),
        "old-copy": (0.0, 0.0, 0.01),
        # What operators do.
        "change": (0.0, 0.0, 0.0, 0.04),
        "hand-over": (0.0, 0.0, 0.02),
        # What happens to a server's memory.
        "diverge": (0.0, 0.0, 0.0, 0.01, 0.04),
    }
)
"""Every kind of fault that comes and goes, with the rates (per tick of the cluster) that a world draws from."""

_DRAWN_LAST = frozenset({"snapshot", "absence", "interrupt", "rot", "old-copy", "change", "hand-over"})

_DRAWN_AFTER_THAT = frozenset({"diverge"})

SPARES = 5
"""Servers that may be added to a cluster whose members change."""

COMPARED_SLOTS = 8

SNAPSHOT_LOG_BYTES = (1_500, 4_000, 4_000, 12_000, 1 << 40)
"""Runs are short, and so are their logs: a snapshot is due often, or never."""
SNAPSHOT_PART_BYTES = (600, 4 << 10, 256 << 10)

RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "servers": (1, 9),
        "segment_bytes": (SEGMENT_BYTES_MIN, 64 << 20),
        "delay_units": (1, 3 * TICK_UNITS),
        "loss": (0, 0.6),
        "duplicate": (0, 1),
        "late": (0, 1),
        "sync_units": (0, 20 * TICK_UNITS),
        "lazy": (0, 1),
        "restart_ticks": (1, 400),
        "clients": (0, 20),
        "client_units": (1, 20 * TICK_UNITS),
        "in_flight_max": (1, 1000),
        "frame_commands_max": (1, 3),
        "reads": (0, 1),
        "moves": (0, 0.9),
        "sleeps": (0, 0.9),
        "ends": (0, 0.9),
        "patience_ticks": (1, 100_000),
        "calm": (0, 1),
        "digest_slots": (1, 1 << 20),
        "hold_ticks": (0, ELECTION_TICKS),
        "drift_percent": (0, 1000),
        "siege": (0, 1),
        "old_server": (0, 9),
        **dict.fromkeys(FAULTS, (0, 1)),
    }
)
"""What a world may be given. Beyond, a run never ends, or fails for no fault of the servers: a cluster does not form
where nearly everything is lost, and neither the genesis of ten servers nor a frame of many commands fits into the
smallest entries that are drawn."""

TICK_RANGE = TICK_UNITS // 10, 10 * TICK_UNITS


@dataclass(frozen=True, slots=True)
class World:
    """See the module's docstring. Probabilities are per message unless it says otherwise."""

    servers: int
    phase2: int
    """The phase-2 quorum; 0 for a majority."""
    settings: Settings
    replica: ReplicaSettings
    segment_bytes: int
    tick_units: tuple[int, ...]
    """How long a tick takes by the clock of each server."""
    # links
    delay_units: int
    fifo: bool
    """Whether what one server says to another arrives in that order."""
    loss: float
    duplicate: float
    late: float
    """Sent again, and delivered up to fifty election time-outs later."""
    streams_carry: bool
    """Whether what was sent before a restart of either end may still arrive after it."""
    encoded: bool
    """Whether messages pass through their wire format."""
    # servers
    sync_units: int
    lazy: float
    """A server takes several inputs before its turn."""
    restart_ticks: int
    # clients
    clients: int
    client_units: int
    """Between two acts of a client."""
    in_flight_max: int
    frame_commands_max: int
    reads: float
    moves: float
    """Per act: the client goes to another server."""
    sleeps: float
    """Per act: the client is away for so long that its session may expire."""
    ends: float
    """Per act without anything in flight: the client ends its session and begins another."""
    patience_ticks: int
    # faults
    rates: Mapping[str, float] = field(default_factory=dict)
    """Of each of ``FAULTS``, per tick."""
    forms_first: bool = False
    """Whether nothing happens to servers, disks and links before the cluster has formed; events count from then on."""
    calm: float = 0.5
    """The share of the time in which no fault begins."""
    digest_slots: int = 32
    """Digests of the whole state are compared at every slot that this divides."""
    hold_ticks: int = 0
    """For so long those who confirm a round of reads promise nobody else: reads are leased. 0: they are not."""
    drift_percent: int = 0
    """By how much the clock of one server may run faster than that of another: leases allow for it."""
    quorum_reads: bool = False
    """Servers that do not lead read by a quorum of acceptors."""
    reads_vary: bool = False
    """Each start of a server draws anew which of these ways of reading are on there."""
    siege: float = 0.0
    """Per tick: a leader is besieged (siege.py)."""
    old_server: int = 0
    """The number of one that knows of no changes of the members, until all is healed; 0: all are of this version."""

    restored: bool = False
    """Whether the first members begin with a state that was restored from a backup."""

    @classmethod
    def draw(cls, rnd: Random) -> "World":
        """A world."""
        servers = rnd.choice((1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7))
        harsh = rnd.choice((0.0, 0.3, 0.6, 1.0))
        fair = harsh == 0.0 and rnd.random() < 0.5
        # A run has few ticks: in some worlds one thing must follow another at once, or nothing ever meets.
        storm = rnd.choice((1, 1, 4, 12))
        drawn = {
            name: min(0.3, rnd.choice(rates) * storm)
            for name, rates in FAULTS.items()
            if name not in _DRAWN_LAST | _DRAWN_AFTER_THAT
        }
        drawn_world = cls(
            servers=servers,
            phase2=rnd.choice((0, 0, 0, rnd.randint(1, servers))),
            settings=Settings(
                heartbeat_ticks=rnd.choice((1, 2)),
                election_ticks=ELECTION_TICKS,
                retransmit_ticks=rnd.choice((2, 3, 5)),
                window_slots=rnd.choice((1, 2, 4, 8)),
                pipeline_bytes=rnd.choice((1, 1, 200, 1 << 16)),
                chunk_bytes_max=rnd.choice((1, 150, 600, 1 << 20)),
                waiting_bytes_max=rnd.choice((800, 64 << 20, 64 << 20)),
                read_rounds_max=rnd.choice((1, 2, 4)),
            ),
            replica=ReplicaSettings(
                tick_ms=TICK_US // 1000,
                resend_ticks=rnd.choice((10, 16, 30)),
                stall_ticks=2 * ELECTION_TICKS,
                session_timeout_ms=rnd.choice((3_000, 5_000, 60_000)),
            ),
            segment_bytes=rnd.choice((16 << 10, 16 << 10, 64 << 10)),
            tick_units=tuple(
                TICK_UNITS if fair else rnd.choice((800, 950, TICK_UNITS, TICK_UNITS, 1050, 1250))
                for _ in range(servers)
            ),
            delay_units=rnd.choice((20, 200, 600, 1500)),
            fifo=rnd.random() < 0.4,
            loss=rnd.choice((0.0, 0.01, 0.1, 0.3)) * harsh,
            duplicate=rnd.choice((0.0, 0.02, 0.2, 0.5)) * harsh,
            late=rnd.choice((0.0, 0.01, 0.05, 0.25)) * harsh,
            streams_carry=rnd.random() < 0.5,
            encoded=rnd.random() < 0.1,
            sync_units=rnd.choice((1, 50, 300, 2000)),
            lazy=rnd.choice((0.0, 0.1, 0.4)),
            restart_ticks=rnd.choice((2, 10, 40)),
            clients=rnd.randint(1, 5),
            client_units=rnd.choice((250, 500, 1000)),
            in_flight_max=rnd.choice((1, 4, 12)),
            frame_commands_max=rnd.choice((1, 3)),
            reads=rnd.choice((0.1, 0.3, 0.6)),
            moves=rnd.choice((0.0, 0.01, 0.05)),
            sleeps=rnd.choice((0.0, 0.0, 0.01, 0.05)),
            ends=rnd.choice((0.0, 0.0, 0.02)),
            patience_ticks=rnd.choice((12, 30)),
            rates={name: 0.0 if fair else rate for name, rate in drawn.items()},
            forms_first=rnd.random() < 0.75,
            calm=rnd.choice((0.2, 0.5, 0.8)),
            digest_slots=rnd.choice((8, 32, 32)),
        )
        return drawn_world._with_what_came_later(rnd, 0.0 if fair else storm)

    def _with_what_came_later(self, rnd: Random, storm: float) -> "World":
        """What is drawn last leaves all the rest of a seed's world as it was before there was this."""
        entry_bytes_max = rnd.choice((SMALL_ENTRY_BYTES, SMALL_ENTRY_BYTES, ENTRY_BYTES))
        part_bytes = rnd.choice(SNAPSHOT_PART_BYTES)
        parts_per_tick = rnd.choice((1, 3, 50))
        replica = replace(
            self.replica,
            snapshot_log_bytes=rnd.choice(SNAPSHOT_LOG_BYTES),
            snapshot_part_bytes=part_bytes,
            snapshot_rate_bytes_per_s=parts_per_tick * part_bytes * 1000 // self.replica.tick_ms,
        )
        later = {
            name: min(0.3, rnd.choice(rates) * storm) for name, rates in FAULTS.items() if name in _DRAWN_LAST
        }
        settings = replace(self.settings, entry_bytes_max=entry_bytes_max)
        old_server = rnd.choice((0, 0, 0, 0, rnd.randint(1, self.servers))) if later["change"] else 0
        drawn_world = replace(
            self,
            settings=settings,
            replica=replica,
            rates={**self.rates, **later},
            old_server=old_server,
        )
        return drawn_world._with_what_came_after_that(rnd, storm)

    def _with_what_came_after_that(self, rnd: Random, storm: float) -> "World":
        """Likewise."""
        restored = rnd.random() < (0.4 if self.changes else 0.15)
        diverge = min(0.3, rnd.choice(FAULTS["diverge"]) * storm)
        replica = self.replica
        if self.servers < 3:
            diverge = 0.0  # nobody could tell who is right
        if diverge:
            replica = replace(replica, compare_ticks=rnd.choice((3, 8, 20)))
        return replace(self, restored=restored, replica=replica, rates={**self.rates, "diverge": diverge})

    @property
    def is_marked(self) -> bool:
        """Whether states have marks (marks.py)."""
        return self.restored or bool(self.rates.get("diverge"))

    @property
    def compared_slots(self) -> int:
        """Between two slots at which servers compare their states: few where that is what a run is about."""
        return COMPARED_SLOTS if self.rates.get("diverge") or self.old_server else DIGEST_SLOTS

    def with_reads(self, rnd: Random) -> "World":
        """This world with ways of reading, drawn apart: all else is as it was before there were any but one."""
        hold_ticks = rnd.choice((0, 0, 0, ELECTION_TICKS // 2, ELECTION_TICKS))
        by_quorum = rnd.random() < 0.3
        siege = rnd.choice((0.0, 0.1, 0.3, 0.3))
        return replace(
            self,
            hold_ticks=hold_ticks,
            drift_percent=rnd.choice((10, 100, 100)),
            quorum_reads=by_quorum,
            reads_vary=rnd.random() < 0.3,
            siege=siege if (hold_ticks or by_quorum) and any(self.rates.values()) else 0.0,
        )

    def settings_at_start(self, rnd: Random) -> Settings:
        """What a server is started with."""
        hold_ticks, by_quorum = self.hold_ticks, self.quorum_reads
        if self.reads_vary:
            hold_ticks = rnd.choice((0, hold_ticks // 2, hold_ticks, hold_ticks))
            by_quorum = by_quorum and rnd.random() < 0.5
        return replace(
            self.settings,
            read_lease_us=hold_ticks * TICK_US * 100 // (100 + self.drift_percent),
            read_lease_drift_percent=self.drift_percent,
            quorum_reads=int(by_quorum),
        )

    @property
    def changes(self) -> bool:
        """Whether the members change."""
        return bool(self.rates.get("change"))

    @property
    def message_bytes_max(self) -> int:
        """What a peer takes as one message, as a server sets it: by the largest entry (``server/app.py``)."""
        return 2 * self.settings.entry_bytes_max + self.settings.chunk_bytes_max

    @property
    def phase2_quorum(self) -> int:
        """How many votes decide a slot after the first."""
        return self.phase2 or self.servers // 2 + 1

    @property
    def losable(self) -> int:
        """How many servers may lose their disks for good, and the others still go on."""
        phase1 = self.servers - self.phase2 + 1 if self.phase2 else self.phase2_quorum
        return self.servers - max(phase1, self.phase2_quorum)

    def but(self, changes: Mapping[str, Any]) -> "World":
        """This world with some of it changed: a name of a fault is its rate, any other one that of a field.

        What goes with the number of servers follows it. Raises ConfigError for a name that is neither, and for a value
        that cannot be one of that field, or is out of its range.
        """
        fields = dict(changes)
        rates = {name: fields.pop(name) for name in changes if name in FAULTS}
        for name, value in [*fields.items(), *rates.items()]:
            _check(name, value)
        servers = fields.get("servers", self.servers)
        ticks = fields.setdefault("tick_units", tuple(islice(cycle(self.tick_units), servers)))
        if len(ticks) != servers:
            raise ConfigError(f"tick_units has {len(ticks)} ticks for {servers} servers; give one for each")
        phase2 = fields.setdefault("phase2", self.phase2 if self.phase2 <= servers else 0)
        if not 0 <= phase2 <= servers:
            raise ConfigError(
                f"a phase-2 quorum of {phase2} is not for {servers} servers; 0 means a majority"
            )
        rates = {**self.rates, **fields.pop("rates", {}), **rates}
        return replace(self, **fields, rates=rates)


def _check(name: str, value: Any) -> None:
    """Raises ConfigError where ``value`` can be no ``name`` of a world, whatever else that has."""
    declared = World.__dataclass_fields__
    if name not in FAULTS and name not in declared:
        raise ConfigError(
            f"the world of a simulation has nothing called {name!r}; it has {', '.join([*declared, *FAULTS])}"
        )
    kind: Any = float if name in FAULTS else get_origin(declared[name].type) or declared[name].type
    if not _is_a(kind, value):
        raise ConfigError(
            f"{name} of the world of a simulation is of the type {kind.__name__}, {value!r} is not"
        )
    if name == "settings":
        value.validate()
    elif name == "rates":
        for fault, rate in value.items():
            if fault not in FAULTS:
                raise ConfigError(f"rates has the fault {fault!r}; there are {', '.join(FAULTS)}")
            _check(fault, rate)
    elif name == "tick_units":
        for units in value:
            _within(name, units, TICK_RANGE)
    elif name in RANGES:
        _within(name, value, RANGES[name])


def _is_a(kind: Any, value: Any) -> bool:
    """Whether a value is of this type; True and False are no numbers here."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _within(name: str, value: Any, bounds: tuple[float, float]) -> None:
    least, most = bounds
    if not (_is_a(float, value) and least <= value <= most):
        raise ConfigError(
            f"{name} of the world of a simulation is {value!r}; it must be from {least} to {most}"
        )
