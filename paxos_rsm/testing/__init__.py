"""What is needed to test against paxos_rsm, and to test what runs on it.

``simulate`` looks for bugs in a state machine, with the deterministic simulator. ``LocalCluster`` has servers in
processes of their own, ``InProcessCluster`` in this one; ``Links`` and the faults of a server are what can go wrong
around them. pytest finds the fixtures ``paxos_cluster`` and ``paxos_cluster_inprocess`` by itself.

Every name is imported when it is first used: pytest imports this package in every run, of every project.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paxos_rsm.testing.cluster import LocalCluster, LocalServer
    from paxos_rsm.testing.errors import FaultUnavailable, LocalClusterError
    from paxos_rsm.testing.in_process import InProcessCluster
    from paxos_rsm.testing.links import CLIENTS, Links
    from paxos_rsm.testing.ports import PortHolder, port_is_free
    from paxos_rsm.testing.simulation import CommandWorkload, SimulationFailed, SimulationReport, simulate

__all__ = [
    "CLIENTS",
    "CommandWorkload",
    "FaultUnavailable",
    "InProcessCluster",
    "Links",
    "LocalCluster",
    "LocalClusterError",
    "LocalServer",
    "PortHolder",
    "SimulationFailed",
    "SimulationReport",
    "port_is_free",
    "simulate",
]

_LAZY = {
    "CLIENTS": "links",
    "CommandWorkload": "simulation",
    "FaultUnavailable": "errors",
    "InProcessCluster": "in_process",
    "Links": "links",
    "LocalCluster": "cluster",
    "LocalClusterError": "errors",
    "LocalServer": "cluster",
    "PortHolder": "ports",
    "SimulationFailed": "simulation",
    "SimulationReport": "simulation",
    "port_is_free": "ports",
    "simulate": "simulation",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
