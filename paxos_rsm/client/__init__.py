"""The client: one hand-written async client, a blocking twin, and the engine beneath both.

From the top down::

    async_client   AsyncClient: what a user calls; keys and values in, results out
    client         Client: the same for threads, a thin twin over a loop in the background; blocking and background
    locks,         what holds something of the cluster, or would like to: over places, a queue that the store keeps,
    elections      and leases, which keep themselves alive
    watch          changes, as they come: over watch_stream, the one stream for all of them, and subscription, the
                   place and the buffer of each (pure)
    scan           a range page by page
    core           what all views of a client share, and its end
    commands, txn  what is called -> bytes of the key-value machine, and back; types holds the results
    namespace      the prefix of a view. Pure
    session        one stream to one server at a time: tasks, timers, failover
    window         the commands: numbered, cut into frames, matched with results. Pure: no clock, no socket
    reads          the queries: the same, without numbers, since asking twice does no harm. Pure
    calls          what is asked beside the session, at any server
    patience       when a server is given up. Pure
    wire           the few messages whose encoding costs per command, made by hand
    endpoints      where the servers are, in which order they are tried, how long to wait in between
    forks          what a forked process is told
    failures       from status codes to exceptions: the one table

It stands beside the servers: of the package it knows errors, the generated messages and itself.
"""

from paxos_rsm.client.async_client import AsyncClient
from paxos_rsm.client.blocking import Election, Lease, Lock, Scan, Watch
from paxos_rsm.client.client import Client
from paxos_rsm.client.elections import AsyncElection
from paxos_rsm.client.leases import AsyncLease
from paxos_rsm.client.locks import AsyncLock
from paxos_rsm.client.scan import AsyncScan
from paxos_rsm.client.txn import Compare, Op, TxnBuilder, TxnResult
from paxos_rsm.client.types import (
    Ballot,
    DeleteResult,
    GetResult,
    GrantResult,
    KeyValue,
    Leader,
    Member,
    MemberStatus,
    PutResult,
    RangeResult,
    TimeToLive,
    WatchEvent,
)
from paxos_rsm.client.watch import AsyncWatch

__all__ = [
    "AsyncClient",
    "AsyncElection",
    "AsyncLease",
    "AsyncLock",
    "AsyncScan",
    "AsyncWatch",
    "Ballot",
    "Client",
    "Compare",
    "DeleteResult",
    "Election",
    "GetResult",
    "GrantResult",
    "KeyValue",
    "Leader",
    "Lease",
    "Lock",
    "Member",
    "MemberStatus",
    "Op",
    "PutResult",
    "RangeResult",
    "Scan",
    "TimeToLive",
    "TxnBuilder",
    "TxnResult",
    "Watch",
    "WatchEvent",
]
