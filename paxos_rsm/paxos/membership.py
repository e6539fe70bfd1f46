"""Who the members are, and which of them make a quorum.

A :class:`Configuration` is decided in the log like any entry and governs from the next slot on. The first one is
the genesis entry in slot 1; slot 1 itself needs *every* initial member in both phases (rule 9), so that no
cluster can be formed twice by two halves that have not met. How one configuration becomes the next is told in
changes.py.

A member is a *voter* or a *learner* (a word of membership here, not the role of Paxos): a learner is sent everything
and counts in no quorum. One that has been added and was never heard of yet has no incarnation.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from paxos_rsm.errors import ConfigError
from paxos_rsm.paxos.quorum import QuorumSizes

__all__ = ["Base", "Configuration", "ConfigurationHistory", "Member"]


@dataclass(frozen=True, slots=True)
class Member:
    """One member, named for good by its incarnation; the rest says how to find it."""

    incarnation: int
    """0: it was added, and has yet to join. It is a learner then."""
    member_id: int
    name: str
    peer_url: str
    client_urls: tuple[str, ...] = ()
    learner: bool = False
    promote: bool = False
    """Of a learner: it becomes a voter by itself, once it has caught up."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """The members, and how many of those that vote are a quorum in each phase.

    Always holds: incarnations, member ids and names are each unique where they are known, nobody is a member who was
    removed, there is a voter, and every phase-1 quorum meets every phase-2 quorum (Howard, Malkhi, Spiegelman,
    *Flexible Paxos*, 2016).
    """

    cluster_id: int
    members: tuple[Member, ...]
    quorum: QuorumSizes
    """Sizes among the voters."""
    removed: tuple[int, ...] = ()
    """Incarnations that were members once: they never may be again (rule 9)."""
    changes: tuple[int, ...] = ()
    """The requests that made the last configurations, newest last: what is asked twice is done once."""
    nodes: frozenset[int] = field(init=False, repr=False, compare=False)
    """The incarnations that may vote."""
    everybody: frozenset[int] = field(init=False, repr=False, compare=False)
    """The incarnations of voters and of the learners that have joined."""

    def __post_init__(self) -> None:
        # Every vote asks for them: worked out once.
        object.__setattr__(self, "nodes", frozenset(m.incarnation for m in self.members if not m.learner))
        everybody = frozenset(m.incarnation for m in self.members if m.incarnation)
        object.__setattr__(self, "everybody", everybody)

    def validate(self) -> None:
        """Raises ConfigError where an invariant of the type does not hold."""
        voters = [m for m in self.members if not m.learner]
        if not voters:
            raise ConfigError("a configuration needs at least one member that votes")
        for what, values in (
            ("incarnation", [m.incarnation for m in self.members if m.incarnation]),
            ("member id", [m.member_id for m in self.members]),
            ("name", [m.name for m in self.members if m.name]),
        ):
            if len(set(values)) != len(values):
                raise ConfigError(f"two members of the configuration share one {what}: {values}")
        if 0 in self.nodes:
            raise ConfigError("a member votes whose incarnation is not known")
        if back := self.everybody.intersection(self.removed):
            raise ConfigError(f"incarnations were removed and are members again: {sorted(back)}")
        if self.quorum.members != len(voters):
            raise ConfigError(
                f"quorum sizes are for {self.quorum.members} members that vote, there are {len(voters)}"
            )
        self.quorum.validate()

    def is_phase1_quorum(self, nodes: Iterable[int]) -> bool:
        """Whether the members among ``nodes`` may elect a leader."""
        return len(self.nodes.intersection(nodes)) >= self.quorum.phase1

    def is_phase2_quorum(self, nodes: Iterable[int]) -> bool:
        """Whether the members among ``nodes`` may decide an entry or confirm a read."""
        return len(self.nodes.intersection(nodes)) >= self.quorum.phase2

    def by_incarnation(self, node: int) -> Member | None:
        """The member with this incarnation, if it is one."""
        return next((m for m in self.members if m.incarnation == node), None)

    def by_member_id(self, member_id: int) -> Member | None:
        """The member with this id, if there is one."""
        return next((m for m in self.members if m.member_id == member_id), None)


@dataclass(frozen=True, slots=True)
class Base:
    """What a state that was not made from the log, but from a snapshot, says of the log that it stands for."""

    slot: int
    """The last one whose effects are in it."""
    changed_in: int
    """The slot that decided ``configuration``."""
    configuration: Configuration
    """What governs the slot after ``slot``."""


class ConfigurationHistory:
    """Which configuration governs which slot.

    Always holds: a configuration decided in slot s governs from s + 1 until the next one does; slot 1 is governed by
    the initial members as they have met, *all* of them in both phases; there is none for it until all have met.
    """

    __slots__ = ("_changes", "_founders", "forming", "newest")

    def __init__(self) -> None:
        self.newest: Configuration | None = None
        """What governs the next slot to be decided; None while the cluster has not met."""
        self.forming: Configuration | None = None
        """What the genesis entry is to hold: the initial members as they have met, with their quorums from slot 2."""
        self._founders: Configuration | None = None
        self._changes: list[tuple[int, Configuration]] = []

    def meet(self, forming: Configuration) -> None:
        """All initial members have met, under these incarnations (rule 9)."""
        self.forming = forming
        self._founders = replace(forming, quorum=QuorumSizes.unanimous(len(forming.members)))
        if not self._changes:
            self.newest = self._founders

    def decided(self, slot: int, configuration: Configuration) -> None:
        """Notes the configuration that ``slot`` decided. Slots come in order."""
        self._changes.append((slot, configuration))
        self.newest = configuration

    def install(self, base: Base) -> None:
        """What a snapshot says takes the place of all before it; what is known beyond it stays."""
        later = [(slot, change) for slot, change in self._changes if slot > base.slot]
        self._changes = [(base.changed_in, base.configuration), *later]
        self.newest = self._changes[-1][1]

    def changed_by(self, slot: int) -> tuple[int, Configuration] | None:
        """The last change decided in ``slot`` or before, with its slot; None before the genesis entry."""
        for changed_in, configuration in reversed(self._changes):
            if changed_in <= slot:
                return changed_in, configuration
        return None

    def governing(self, slot: int) -> Configuration | None:
        """The configuration whose quorums decide ``slot``; None while the cluster has not met."""
        for changed_in, configuration in reversed(self._changes):
            if changed_in < slot:
                return configuration
        return self._founders

    @property
    def changed_in(self) -> int:
        """The slot that decided :attr:`current`; 0 before the genesis entry."""
        return self._changes[-1][0] if self._changes else 0

    @property
    def current(self) -> Configuration | None:
        """The newest decided configuration; None before the genesis entry."""
        return self._changes[-1][1] if self._changes else None
