"""What lies in the data directory of a server that is down, read without changing anything."""

from pathlib import Path

from paxos_rsm.errors import PaxosRsmError
from paxos_rsm.storage.base import Recovered
from paxos_rsm.storage.files import RealFiles
from paxos_rsm.storage.identity import Identity, read_identity
from paxos_rsm.storage.recovery import read_log
from paxos_rsm.testing.cluster import LocalServer

__all__ = ["identity_on_disk", "log_directory", "log_on_disk", "segments_of"]


def identity_on_disk(server: LocalServer) -> Identity:
    """Who the directory belongs to."""
    identity = read_identity(RealFiles(), str(server.data_dir))
    if identity is None:
        raise PaxosRsmError(f"{server.data_dir} has no identity")
    return identity


def log_directory(server: LocalServer) -> Path:
    """Where the segments are."""
    return server.data_dir / "log"


def log_on_disk(server: LocalServer) -> Recovered:
    """What the server would remember if it were started now."""
    found = read_log(RealFiles(), str(log_directory(server)), identity_on_disk(server).incarnation)
    if found is None:
        raise PaxosRsmError(f"{log_directory(server)} has no log")
    return found[0]


def segments_of(server: LocalServer) -> list[Path]:
    """The files of its log, in order."""
    return sorted(log_directory(server).glob("*.log"))
