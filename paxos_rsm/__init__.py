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
    DeadlineExceeded,
    InvalidArgument,
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
        Client,
        Compare,
        GetResult,
        KeyValue,
        MemberStatus,
        Op,
        PutResult,
        RangeResult,
        TxnResult,
    )
    from paxos_rsm.config import ServerConfig
    from paxos_rsm.server import Server

__all__ = [
    "AsyncClient",
    "Client",
    "ClientError",
    "Compare",
    "DeadlineExceeded",
    "GetResult",
    "InvalidArgument",
    "KeyValue",
    "MemberStatus",
    "Op",
    "OutOfRange",
    "PaxosRsmError",
    "PutResult",
    "RangeResult",
    "ResourceExhausted",
    "Server",
    "ServerConfig",
    "SessionExpired",
    "TxnResult",
    "Unavailable",
    "UnknownOutcome",
    "__version__",
]

_LAZY = {
    "AsyncClient": "paxos_rsm.client",
    "Client": "paxos_rsm.client",
    "Compare": "paxos_rsm.client",
    "GetResult": "paxos_rsm.client",
    "KeyValue": "paxos_rsm.client",
    "MemberStatus": "paxos_rsm.client",
    "Op": "paxos_rsm.client",
    "PutResult": "paxos_rsm.client",
    "RangeResult": "paxos_rsm.client",
    "TxnResult": "paxos_rsm.client",
    "Server": "paxos_rsm.server",
    "ServerConfig": "paxos_rsm.config",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
