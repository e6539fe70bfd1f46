"""The client: one hand-written async client, a blocking twin, and the engine beneath both.

From the top down::

    async_client   AsyncClient: what a user calls; keys and values in, results out
    client         Client: the same for threads, a thin twin over a loop in the background
    commands, txn  what is called -> bytes of the key-value machine, and back; types holds the results
    session        one stream to one server at a time: tasks, timers, failover
    window         the commands: numbered, cut into frames, matched with results. Pure: no clock, no socket
    reads          the queries: the same, without numbers, since asking twice does no harm. Pure
    patience       when a server is given up. Pure
    wire           the few messages whose encoding costs per command, made by hand
    endpoints      where the servers are, in which order they are tried, how long to wait in between
    forks          what a forked process is told
    failures       from status codes to exceptions: the one table

It stands beside the servers: of the package it knows errors, the generated messages and itself.
"""

from paxos_rsm.client.async_client import AsyncClient
from paxos_rsm.client.client import Client
from paxos_rsm.client.txn import Compare, Op, TxnResult
from paxos_rsm.client.types import Ballot, GetResult, KeyValue, MemberStatus, PutResult, RangeResult

__all__ = [
    "AsyncClient",
    "Ballot",
    "Client",
    "Compare",
    "GetResult",
    "KeyValue",
    "MemberStatus",
    "Op",
    "PutResult",
    "RangeResult",
    "TxnResult",
]
