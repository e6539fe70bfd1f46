"""How clients are let in: which addresses, and what gRPC is told so that no client can starve the others.

Every address is tried with a plain socket first. gRPC says only that it failed; the socket says why, and a user who
starts a server wants to hear "the port is in use", and by whom to ask.
"""

import errno
import os
import socket
from collections.abc import Iterable

import grpc

from paxos_rsm.config import Tuning, url_address
from paxos_rsm.errors import ConfigError

__all__ = ["client_server", "require_free"]

MIB = 1024 * 1024

RPCS_MAX = 16_384
"""Requests and streams at once, over all clients; beyond it gRPC answers RESOURCE_EXHAUSTED."""

STREAMS_PER_CONNECTION_MAX = 4_096
"""One connection cannot take all of them."""

KEEPALIVE_MS = 10_000
KEEPALIVE_TIMEOUT_MS = 5_000
"""A client whose host vanished is noticed, and its sessions given back, within their sum."""

PING_INTERVAL_MS_MIN = 1_000
PING_STRIKES_MAX = 5
"""A client that pings more often than the one, so often in a row, is told to calm down and disconnected."""


def server_options(tuning: Tuning) -> list[tuple[str, int]]:
    """gRPC's options for the server that clients talk to."""
    return [
        # A second server on our port must fail, not take every other connection.
        ("grpc.so_reuseport", 0),
        # Somewhat too large a request still arrives, so that it can be refused in etcd's words and not in gRPC's.
        ("grpc.max_receive_message_length", max(8 * MIB, 4 * tuning.request_bytes_max)),
        # A range is as large as it is: its size is the caller's choice, and its limit too.
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", STREAMS_PER_CONNECTION_MAX),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", PING_INTERVAL_MS_MIN),
        ("grpc.http2.max_ping_strikes", PING_STRIKES_MAX),
    ]


def client_server(
    urls: Iterable[str], tuning: Tuning, handlers: Iterable[grpc.GenericRpcHandler]
) -> grpc.aio.Server:
    """A gRPC server that has the addresses of ``urls`` and is not started yet. Raises ConfigError."""
    server = grpc.aio.server(
        handlers=tuple(handlers), options=server_options(tuning), maximum_concurrent_rpcs=RPCS_MAX
    )
    for url in urls:
        address = url_address(url)
        try:
            server.add_insecure_port(address)
        except RuntimeError as error:
            require_free([url], "--listen-client-urls", "clients")
            raise ConfigError(f"cannot listen for clients on {url}: {error}") from None
    return server


def require_free(urls: Iterable[str], flag: str, whom: str) -> None:
    """Raises ConfigError, which says why and what to do, where one of the addresses cannot be listened on."""
    for url in urls:
        host, _, port = url_address(url).rpartition(":")
        try:
            found = socket.getaddrinfo(
                host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except OSError as error:
            raise ConfigError(f"cannot listen for {whom} on {url}: {error.strerror}; change {flag}") from None
        failures = [_failure(*each) for each in found]
        # A name may stand for addresses that this machine does not have, as long as one of them will do.
        fatal = [each for each in failures if each is not None and each != errno.EADDRNOTAVAIL]
        if not fatal and any(each is None for each in failures):
            continue
        number = fatal[0] if fatal else errno.EADDRNOTAVAIL
        raise ConfigError(f"cannot listen for {whom} on {url}: {_sentence(number, port, flag)}")


def _failure(
    family: int, kind: int, protocol: int, _name: str, where: tuple[str | bytes | int, ...]
) -> int | None:
    """The error with which a socket cannot have the address; None where it can."""
    try:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC does
            probe.bind(where)
    except OSError as error:
        return error.errno or errno.EIO
    return None


def _sentence(number: int, port: str, flag: str) -> str:
    if number == errno.EADDRINUSE:
        return (
            f"port {port} is in use by another process (`ss -ltnp 'sport = :{port}'` tells which); stop that one, "
            f"or change {flag}"
        )
    if number == errno.EACCES:
        return f"this user may not use port {port}; change {flag}"
    if number == errno.EADDRNOTAVAIL:
        return f"this machine does not have that address; change {flag}"
    return f"{os.strerror(number)}; change {flag}"
