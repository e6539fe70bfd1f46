"""The gRPC services over a replica, and the process around them.

``status_codes`` and ``rpc`` are the seam to gRPC; one module a service; ``own_sessions`` gives unary calls their
place in the log; ``app`` wires a whole server and takes it down in order.
"""

from paxos_rsm.config import ServerConfig, Tuning
from paxos_rsm.server.app import Server, run_server

__all__ = ["Server", "ServerConfig", "Tuning", "run_server"]
