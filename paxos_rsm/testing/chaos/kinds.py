"""The kinds of faults, by name: what each does, to whom, for how long, what it needs, and how good is good enough.

A kind is data; `faults.py` has a small class of the same name that does it. What it needs of the machine:

====== ============================================================================================
links  a proxy for each directed link between two servers
disk   a small file system of its own for each server's data (mounting one takes root)
shim   a library that is loaded into a server and stands before its disk and its clock (takes a C compiler)
====== ============================================================================================

The goals are those that the project has set itself: docs/CHAOS.md. Kinds without one have no figure to meet; they
are there for what must never happen.
"""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["KINDS", "NEEDS", "Goal", "Kind", "kinds_for"]

NEEDS: Mapping[str, str] = {
    "links": "proxies on the links between the servers",
    "disk": "a small file system for each server (tmpfs; mounting one takes root)",
    "shim": "a library before each server's disk and clock (building it takes a C compiler)",
}


@dataclass(frozen=True, slots=True)
class Goal:
    """How long writes may stand still, in ms, over all occurrences of a kind; None: no limit of this sort."""

    median_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None
    leader_changes_max: int | None = None
    """While it lasts, and in the five seconds after."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault."""

    name: str
    does: str
    """In half a sentence, for whoever reads a report."""
    roles: tuple[str, ...] = ("random",)
    """Whom it may be done to: ``leader``, ``follower``, ``random``, or ``all``."""
    duration_s: tuple[float, float] = (2.0, 5.0)
    needs: tuple[str, ...] = ()
    servers_min: int = 3
    goal: Goal | None = None


_RESUMED_SOON = Goal(max_ms=2_000)
_LINKS = ("links",)

_ALL = (
    Kind(
        "leader-kill",
        "the leader dies of SIGKILL and starts again",
        ("leader",),
        (1.5, 3.0),
        goal=Goal(median_ms=400, p99_ms=1_000, max_ms=2_000),
    ),
    Kind(
        "follower-kill",
        "a follower dies of SIGKILL and starts again",
        ("follower",),
        (1.5, 3.0),
        goal=Goal(max_ms=200),
    ),
    Kind("minority-kill", "as many as may die at once do, the leader among them", ("leader",), (1.5, 3.0)),
    Kind("all-kill", "every server dies at once and starts again", ("all",), (0.5, 1.5)),
    Kind(
        "leader-pause",
        "the leader is stopped (SIGSTOP) and goes on",
        ("leader",),
        (2.5, 5.0),
        goal=_RESUMED_SOON,
    ),
    Kind("follower-pause", "a follower is stopped (SIGSTOP) and goes on", ("follower",), (2.5, 5.0)),
    Kind(
        "leader-deaf",
        "the leader can send and not receive",
        ("leader",),
        (3.0, 5.0),
        _LINKS,
        goal=_RESUMED_SOON,
    ),
    Kind(
        "leader-mute",
        "the leader can receive and not send",
        ("leader",),
        (3.0, 5.0),
        _LINKS,
        goal=_RESUMED_SOON,
    ),
    Kind("one-way-cuts", "some links are cut in one direction", ("random",), (3.0, 5.0), _LINKS),
    Kind("partition", "a minority is cut off, the leader not in it", ("follower",), (3.0, 5.0), _LINKS),
    Kind("leader-cut-off", "a minority is cut off, the leader in it", ("leader",), (3.0, 5.0), _LINKS),
    Kind("slow-links", "some links are slow, by 20 to 300 ms", ("random",), (3.0, 5.0), _LINKS),
    Kind(
        "flapping-link",
        "a follower's links go and come, several times a second",
        ("follower",),
        (3.0, 5.0),
        _LINKS,
        goal=Goal(leader_changes_max=1),
    ),
    Kind(
        "quorum-loss",
        "all reach one server only, which does not lead",
        ("follower",),
        (4.0, 6.0),
        _LINKS,
        servers_min=5,
        goal=_RESUMED_SOON,
    ),
    Kind(
        "constrained-election",
        "only a server that is behind has a quorum of links",
        ("follower",),
        (4.0, 6.0),
        _LINKS,
        servers_min=5,
        goal=_RESUMED_SOON,
    ),
    Kind(
        "chained",
        "the servers are a chain, the leader at one end of it",
        ("leader",),
        (4.0, 6.0),
        _LINKS,
        goal=_RESUMED_SOON,
    ),
    Kind("full-disk", "a disk is full, and has room again", ("leader", "follower"), (2.0, 4.0), ("disk",)),
    Kind("sync-error", "a sync of the log fails, once", ("leader", "follower"), (2.0, 4.0), ("shim",)),
    Kind(
        "slow-sync",
        "every sync takes 0.1 to 1.5 s longer",
        ("leader", "follower"),
        (3.0, 5.0),
        ("shim",),
    ),
    Kind("clock-jump", "a wall clock jumps by an hour, and back", ("random",), (2.0, 4.0), ("shim",)),
    Kind(
        "restart", "a server is asked to end (SIGTERM) and started again", ("leader", "follower"), (1.0, 2.0)
    ),
)

KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _ALL}
"""By name, in the order in which reports list them."""


def kinds_for(servers: int) -> list[Kind]:
    """The kinds that a cluster of ``servers`` can be shown."""
    return [kind for kind in _ALL if kind.servers_min <= servers]
