"""What is to go wrong, and when: drawn from one seed, before anything runs.

The same seed, length and number of servers give the same plan, on every machine and Python: kinds, roles, times, and
a number for each fault from which everything else that is random about it follows. They do not give the same *run*:
which server leads when a fault strikes, and what the kernel does meanwhile, nobody draws.

The draw is stratified: one round has every kind once, in a random order, and the next begins when it is through. So
a run that is long enough for one round shows every kind. In the first round each fault is alone, and what it cost
can be measured; in later ones some get a companion that strikes while they last, which is where bugs hide that no
single fault shows.

A fault owns its time and the :data:`RECOVERY_S` after it: nothing else strikes in this window.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from paxos_rsm.errors import ConfigError
from paxos_rsm.testing.chaos.kinds import KINDS, Kind, kinds_for

__all__ = ["FIRST_AT_S", "RECOVERY_S", "SERVERS", "Plan", "PlannedFault", "draw_plan"]

SERVERS = (3, 5, 7)
FIRST_AT_S = 3.0
"""The cluster is seen in health before the first fault."""
RECOVERY_S = 5.0
"""After a fault, before the next."""
PAUSE_S = (0.2, 1.0)
"""On top of that, so that faults keep no beat."""
COMPANION_SHARE = 0.35
PICK_BITS = 32


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """One fault. Times are seconds since the start of the run."""

    number: int
    kind: Kind
    role: str
    start_s: float
    duration_s: float
    pick: int
    """Seeds whatever else is drawn when it strikes: which follower, which links, how slow."""
    companion_of: int | None = None
    """The number of the fault in whose time it falls; None where it has its own."""

    @property
    def end_s(self) -> float:
        """When it is mended."""
        return self.start_s + self.duration_s


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is to happen, in the order of its start."""

    seed: int
    servers: int
    seconds: float
    """How long the run is."""
    faults: tuple[PlannedFault, ...]
    wanted: tuple[str, ...] = ()
    """The kinds that are drawn from."""

    @property
    def not_reached(self) -> list[str]:
        """Kinds that were wanted, and for which this run is too short."""
        drawn = {fault.kind.name for fault in self.faults}
        return [name for name in self.wanted if name not in drawn]

    def combined(self, number: int) -> bool:
        """Whether another fault falls into the time of this one: what it cost cannot be told then."""
        return any(
            fault.companion_of == number or (fault.number == number and fault.companion_of is not None)
            for fault in self.faults
        )


def draw_plan(
    seed: int,
    *,
    servers: int = 5,
    minutes: float = 5.0,
    only: Sequence[str] = (),
    times: int | None = None,
) -> Plan:
    """The plan that ``seed`` means.

    ``only`` names kinds; no others are drawn then, and each fault is alone. With ``times``, each kind is drawn so
    often, and the run is as long as that takes; otherwise it lasts ``minutes``. Raises ConfigError where a name is
    unknown, a kind needs more servers, or the time is too short for a single fault.
    """
    if servers not in SERVERS:
        raise ConfigError(f"{servers} servers: chaos runs with {', '.join(map(str, SERVERS))}")
    if minutes <= 0 or (times is not None and times < 1):
        raise ConfigError("a run lasts longer than nothing, and shows each kind once at least")
    kinds = _wanted(only, servers)
    wanted = tuple(kind.name for kind in kinds)
    rng = random.Random(seed)
    seconds = minutes * 60
    faults: list[PlannedFault] = []
    at_s = FIRST_AT_S
    rounds = range(times) if times is not None else iter(int, 1)  # the latter: for ever
    for index, _ in enumerate(rounds):
        for kind in _shuffled(kinds, rng):
            fault = _draw_one(rng, len(faults), kind, at_s)
            if times is None and fault.end_s + RECOVERY_S > seconds:
                return _checked(Plan(seed, servers, seconds, tuple(faults), wanted))
            faults.append(fault)
            if index and not only and rng.random() < COMPANION_SHARE:
                faults.append(_companion(rng, len(faults), fault, kinds))
            at_s = round(max(each.end_s for each in faults[-2:]) + RECOVERY_S + rng.uniform(*PAUSE_S), 1)
    return Plan(seed, servers, at_s, tuple(faults), wanted)


def _wanted(only: Sequence[str], servers: int) -> list[Kind]:
    for name in only:
        if name not in KINDS:
            raise ConfigError(f"there is no fault {name!r}; there are {', '.join(KINDS)}")
        if KINDS[name].servers_min > servers:
            raise ConfigError(f"{name} needs {KINDS[name].servers_min} servers, and there are {servers}")
    if only:
        return [KINDS[name] for name in dict.fromkeys(only)]
    return kinds_for(servers)


def _checked(plan: Plan) -> Plan:
    if not plan.faults:
        raise ConfigError(f"{plan.seconds:g} s are too short for a single fault; give it more --minutes")
    return plan


def _shuffled(kinds: Sequence[Kind], rng: random.Random) -> Iterator[Kind]:
    order = list(kinds)
    rng.shuffle(order)
    return iter(order)


def _draw_one(rng: random.Random, number: int, kind: Kind, start_s: float) -> PlannedFault:
    role = rng.choice(kind.roles)
    duration_s = round(rng.uniform(*kind.duration_s), 1)
    return PlannedFault(number, kind, role, start_s, duration_s, rng.getrandbits(PICK_BITS))


def _companion(rng: random.Random, number: int, fault: PlannedFault, kinds: Sequence[Kind]) -> PlannedFault:
    """Another kind that strikes in the time of ``fault``, and ends not much after it."""
    kind = rng.choice([each for each in kinds if each is not fault.kind])
    start_s = round(fault.start_s + rng.uniform(0.1, 0.9) * fault.duration_s, 1)
    drawn = _draw_one(rng, number, kind, start_s)
    return PlannedFault(
        drawn.number, kind, drawn.role, start_s, drawn.duration_s, drawn.pick, companion_of=fault.number
    )
