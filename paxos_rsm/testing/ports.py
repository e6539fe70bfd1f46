"""Free TCP ports that stay free until the server that is to have them has started.

Asking the kernel for a port and giving it back is a race: any outgoing connection may be handed the same
port a moment later. So ports are drawn from below the range that kernels give out by themselves, and each
is held by a UDP socket of the same number for as long as its owner lives: UDP and TCP do not clash, and two
test runs on one machine see each other's.
"""

import random
import socket
from collections.abc import Iterable
from typing import Self

__all__ = ["PortHolder", "port_is_free"]

LOWEST, HIGHEST = 10_000, 32_000
"""Below 32,768, where Linux begins to give out ports to outgoing connections (others begin higher)."""

TRIES_MAX = 1_000


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on ``host:port`` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections that have ended and still wait (TIME_WAIT) are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen()
        except OSError:
            return False
    return True


class PortHolder:
    """Ports of 127.0.0.1 that nobody else who asks here will be given, until :meth:`close`."""

    def __init__(self) -> None:
        self._held: dict[int, socket.socket] = {}
        # Its own generator: a test that seeds the global one must not make every run ask for the same ports.
        self._random = random.SystemRandom()

    def take(self, count: int) -> list[int]:
        """``count`` free ports. Raises OSError where none can be found."""
        return [self._take_one() for _ in range(count)]

    def take_row(self, count: int) -> list[int]:
        """``count`` free ports, each one above the last. Raises OSError where none can be found."""
        for _ in range(TRIES_MAX):
            first = self._random.randrange(LOWEST, HIGHEST - count)
            row: list[int] = []
            for port in range(first, first + count):
                if port in self._held or not port_is_free(port) or not self._try_hold(port):
                    break
                row.append(port)
            if len(row) == count:
                return row
            for port in row:
                self._held.pop(port).close()
        raise OSError(f"no {count} free ports in a row found in {LOWEST}..{HIGHEST} of 127.0.0.1")

    def hold(self, ports: Iterable[int]) -> None:
        """Holds ports that the caller has chosen, as far as they are not held by others."""
        for port in ports:
            self._try_hold(port)

    def close(self) -> None:
        """Lets go of every port."""
        for held in self._held.values():
            held.close()
        self._held.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _take_one(self) -> int:
        for _ in range(TRIES_MAX):
            port = self._random.randrange(LOWEST, HIGHEST)
            if port not in self._held and port_is_free(port) and self._try_hold(port):
                return port
        raise OSError(f"no free port found in {LOWEST}..{HIGHEST} of 127.0.0.1")

    def _try_hold(self, port: int) -> bool:
        held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            held.bind(("127.0.0.1", port))
        except OSError:
            held.close()
            return False
        self._held[port] = held
        return True
