"""What is needed to test against paxos_rsm: servers in processes of their own, ports that stay free."""

from paxos_rsm.testing.cluster import LocalCluster, LocalClusterError, LocalServer
from paxos_rsm.testing.ports import PortHolder, port_is_free

__all__ = ["LocalCluster", "LocalClusterError", "LocalServer", "PortHolder", "port_is_free"]
