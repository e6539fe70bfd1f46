"""What is needed to test against paxos_rsm: servers in processes of their own, and what can go wrong around them."""

from paxos_rsm.testing.cluster import LocalCluster, LocalServer
from paxos_rsm.testing.errors import FaultUnavailable, LocalClusterError
from paxos_rsm.testing.links import CLIENTS, Links
from paxos_rsm.testing.ports import PortHolder, port_is_free

__all__ = [
    "CLIENTS",
    "FaultUnavailable",
    "Links",
    "LocalCluster",
    "LocalClusterError",
    "LocalServer",
    "PortHolder",
    "port_is_free",
]
