"""Where the servers are: parsed, put in an order, and tried again after a while.

Every client shuffles the endpoints once, so that the clients of a dead server do not all turn to the same
next one. It then stays with a server that answers, and goes round in that order when one fails: at once the
first time round (only some milliseconds apart), later with pauses that double, each cut by a random part of
itself: a thousand clients that lost the same server at the same moment come back spread out.
"""

import random
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from paxos_rsm.errors import InvalidArgument

__all__ = ["EndpointRing", "parse_endpoints"]

FIRST_PAUSE_S_MAX = 0.02
ROUND_PAUSE_S = 0.05
ROUND_PAUSE_S_MAX = 1.0

HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
IPV6 = re.compile(r"[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]+)?")


def parse_endpoints(endpoints: Sequence[str] | str) -> list[str]:
    """``host:port`` of every endpoint, each once, in the order given.

    Takes ``host:port``, ``http://host:port``, IPv6 addresses in brackets, and several of them with commas in
    between. Raises InvalidArgument for anything else.
    """
    if isinstance(endpoints, str):
        endpoints = [endpoints]
    parsed: dict[str, None] = {}
    for each in endpoints:
        if not isinstance(each, str):
            raise InvalidArgument(f"an endpoint is a str such as '127.0.0.1:2379', not {each!r}")
        for part in each.split(","):
            if part.strip():
                parsed[_parse(part.strip())] = None
    if not parsed:
        raise InvalidArgument("there is no endpoint; name at least one server, such as '127.0.0.1:2379'")
    return list(parsed)


def _parse(text: str) -> str:
    wanted = "an endpoint looks like 127.0.0.1:2379 or http://127.0.0.1:2379"
    if not text.isprintable():  # urlsplit drops tabs and line breaks in silence
        raise InvalidArgument(f"{text!r} is not an endpoint; {wanted}")
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise InvalidArgument(f"{text!r} is not an endpoint ({error}); {wanted}") from None
    if parts.scheme == "https":
        raise InvalidArgument(f"{text!r} asks for TLS, which this version does not speak yet; use http://")
    if (
        parts.scheme != "http"
        or parts.path not in ("", "/")
        or "?" in text
        or "#" in text
        or "@" in parts.netloc
    ):
        raise InvalidArgument(f"{text!r} is not an endpoint; {wanted}")
    if not port:
        raise InvalidArgument(f"{text!r} has no port; {wanted}")
    if ":" in host and IPV6.fullmatch(host):
        return f"[{host}]:{port}"
    if not HOST.fullmatch(host):
        raise InvalidArgument(f"{text!r} has no host that can be looked up; {wanted}")
    return f"{host}:{port}"


class EndpointRing:
    """Which server to try next, and after what pause."""

    def __init__(self, endpoints: Sequence[str], rng: random.Random) -> None:
        self._order = rng.sample(endpoints, len(endpoints))
        self._rng = rng
        self._at = 0
        self._failures = 0
        self._refusals: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._order)

    @property
    def current(self) -> str:
        """The one to use now."""
        return self._order[self._at]

    @property
    def failures(self) -> int:
        """Since a server last gave what was asked of it."""
        return self._failures

    def replace(self, endpoints: Sequence[str]) -> None:
        """From now on these are the servers. The current one stays the current one where it is among them."""
        if set(endpoints) == set(self._order):
            return
        current = self.current
        self._order = self._rng.sample(endpoints, len(endpoints))
        self._at = self._order.index(current) if current in self._order else 0
        self._refusals = {each: why for each, why in self._refusals.items() if each in self._order}

    def succeeded(self) -> None:
        """The current endpoint gave what was asked of it: it has a clean slate, and so have the pauses."""
        self._failures = 0
        self._refusals.clear()

    def failed(self) -> float:
        """Moves on to the next endpoint; returns how long to wait before it is tried, in seconds."""
        self._at = (self._at + 1) % len(self._order)
        rounds, self._failures = self._failures // len(self._order), self._failures + 1
        if not rounds:
            return self._rng.uniform(0, FIRST_PAUSE_S_MAX)
        pause = min(ROUND_PAUSE_S * 2.0 ** min(rounds - 1, 16), ROUND_PAUSE_S_MAX)
        return pause * self._rng.uniform(0.5, 1.0)

    def refused(self, reason: str) -> str | None:
        """Notes that the current endpoint is of no use whatever is asked, such as one of another cluster.

        Returns a sentence once every endpoint is so, and forgets them: the next call may try them anew.
        """
        self._refusals[self.current] = reason
        if len(self._refusals) < len(self._order):
            return None
        said = "; ".join(f"{endpoint}: {why}" for endpoint, why in self._refusals.items())
        self._refusals.clear()
        return said
