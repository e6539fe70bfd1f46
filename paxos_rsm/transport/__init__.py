"""The streams between servers: one gRPC stream each way between every two, bounded, back within a second."""

from paxos_rsm.transport.describe import Description, describe, join_identity
from paxos_rsm.transport.handshake import PROTOCOL_VERSIONS, Hello, PeerBook, Reason, Refusal, check_hello
from paxos_rsm.transport.options import TransportOptions
from paxos_rsm.transport.transport import PeerStats, Transport

__all__ = [
    "PROTOCOL_VERSIONS",
    "Description",
    "Hello",
    "PeerBook",
    "PeerStats",
    "Reason",
    "Refusal",
    "Transport",
    "TransportOptions",
    "check_hello",
    "describe",
    "join_identity",
]
