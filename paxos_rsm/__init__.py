"""A replicated state machine: a Multi-Paxos log over gRPC, kept on disk, with an etcd-compatible store on top.

::

    from paxos_rsm import AsyncClient, Client        # to use a cluster
    from paxos_rsm import Server, ServerConfig       # to be a member of one

Every name is imported when it is first used. So the pure protocol and the state machines can be imported without gRPC,
and a program that only needs the client never loads the server.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from paxos_rsm._version import __version__
from paxos_rsm.errors import (
    ClientError,
    Compacted,
    DeadlineExceeded,
    InvalidArgument,
    LeaseLost,
    MembershipRefused,
    OutOfRange,
    PaxosRsmError,
    ResourceExhausted,
    SessionExpired,
    Unavailable,
    UnknownOutcome,
)

if TYPE_CHECKING:
    from paxos_rsm.client import (
        AsyncClient,
        AsyncElection,
        AsyncLease,
        AsyncLock,
        AsyncScan,
        AsyncWatch,
        Client,
        Compare,
        DeleteResult,
        Election,
        GetResult,
        GrantResult,
        KeyValue,
        Leader,
        Lease,
        Lock,
        Member,
        MemberStatus,
        Op,
        PutResult,
        RangeResult,
        Scan,
        TimeToLive,
        TxnBuilder,
        TxnResult,
        Watch,
        WatchEvent,
    )
    from paxos_rsm.config import ServerConfig
    from paxos_rsm.server import Server

__all__ = [
    "AsyncClient",
    "AsyncElection",
    "AsyncLease",
    "AsyncLock",
    "AsyncScan",
    "AsyncWatch",
    "Client",
    "ClientError",
    "Compacted",
    "Compare",
    "DeadlineExceeded",
    "DeleteResult",
    "Election",
    "GetResult",
    "GrantResult",
    "InvalidArgument",
    "KeyValue",
    "Leader",
    "Lease",
    "LeaseLost",
    "Lock",
    "Member",
    "MemberStatus",
    "MembershipRefused",
    "Op",
    "OutOfRange",
    "PaxosRsmError",
    "PutResult",
    "RangeResult",
    "ResourceExhausted",
    "Scan",
    "Server",
    "ServerConfig",
    "SessionExpired",
    "TimeToLive",
    "TxnBuilder",
    "TxnResult",
    "Unavailable",
    "UnknownOutcome",
    "Watch",
    "WatchEvent",
    "__version__",
]

_LAZY = {
    "AsyncClient": "paxos_rsm.client",
    "AsyncElection": "paxos_rsm.client",
    "AsyncLease": "paxos_rsm.client",
    "AsyncLock": "paxos_rsm.client",
    "AsyncScan": "paxos_rsm.client",
    "AsyncWatch": "paxos_rsm.client",
    "Client": "paxos_rsm.client",
    "Compare": "paxos_rsm.client",
    "DeleteResult": "paxos_rsm.client",
    "Election": "paxos_rsm.client",
    "GetResult": "paxos_rsm.client",
    "GrantResult": "paxos_rsm.client",
    "KeyValue": "paxos_rsm.client",
    "Leader": "paxos_rsm.client",
    "Lease": "paxos_rsm.client",
    "Lock": "paxos_rsm.client",
    "Member": "paxos_rsm.client",
    "MemberStatus": "paxos_rsm.client",
    "Op": "paxos_rsm.client",
    "PutResult": "paxos_rsm.client",
    "RangeResult": "paxos_rsm.client",
    "Scan": "paxos_rsm.client",
    "TimeToLive": "paxos_rsm.client",
    "TxnBuilder": "paxos_rsm.client",
    "TxnResult": "paxos_rsm.client",
    "Watch": "paxos_rsm.client",
    "WatchEvent": "paxos_rsm.client",
    "Server": "paxos_rsm.server",
    "ServerConfig": "paxos_rsm.config",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
