"""Who reaches whom: links over a real proxy process, with sockets in place of servers.

Every "server" has dialed every other one, as real ones do, and says its name and a number on that connection.
"""

import itertools
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from paxos_rsm.testing import CLIENTS, Links, LocalClusterError, PortHolder

NAMES = ["n1", "n2", "n3", "n4", "n5"]
Pair = tuple[str, str]
ALL = set(itertools.permutations(NAMES, 2))
TIMEOUT_S = 30.0
ABSENT_S = 0.1


class Cables:
    """A socket each way between every two of the five, through the links."""

    def __init__(self) -> None:
        self._holder = PortHolder()
        ports = dict(zip(NAMES, self._holder.take(len(NAMES)), strict=True))
        self._client_port = self._holder.take(1)[0]
        self.links = Links(ports, self._holder, client_ports={"n1": self._client_port}, seed=3)
        self._numbers = itertools.count(1)
        self._listeners = {
            name: socket.create_server(("127.0.0.1", port), backlog=64) for name, port in ports.items()
        }
        self.near: dict[Pair, socket.socket] = {}
        self.far: dict[Pair, socket.socket] = {}
        self._heard: dict[Pair, bytes] = {}
        for a, b in sorted(ALL):
            self.connect(a, b)

    def connect(self, a: str, b: str) -> None:
        self.near[a, b] = socket.create_connection(("127.0.0.1", self.links.port(a, b)), TIMEOUT_S)
        self._listeners[b].settimeout(TIMEOUT_S)
        self.far[a, b] = self._listeners[b].accept()[0]
        self._heard[a, b] = b""

    def connect_client(self) -> tuple[socket.socket, socket.socket]:
        with socket.create_server(("127.0.0.1", self._client_port)) as listener:
            near = socket.create_connection(("127.0.0.1", self.links.port(CLIENTS, "n1")), TIMEOUT_S)
            near.settimeout(TIMEOUT_S)
            return near, listener.accept()[0]

    def reached(self, awaited: set[Pair]) -> set[Pair]:
        """Says something on every link: on which ones it is heard. Waits longer for those ``awaited``."""
        number = b"%08d" % next(self._numbers)
        with selectors.DefaultSelector() as selector:
            for pair, near in self.near.items():
                near.sendall(number)
                selector.register(self.far[pair], selectors.EVENT_READ, pair)
            found: set[Pair] = set()
            deadline = time.monotonic() + TIMEOUT_S
            quiet_since = None
            while time.monotonic() < deadline:
                for key, _ in selector.select(0.02):
                    self._heard[key.data] += self.far[key.data].recv(65536)
                    if number in self._heard[key.data]:
                        found.add(key.data)
                if awaited <= found:
                    quiet_since = quiet_since or time.monotonic()
                    if time.monotonic() - quiet_since > ABSENT_S:
                        break
        return found

    def check_reached(self, expected: set[Pair]) -> None:
        assert self.reached(expected) == expected

    def close(self) -> None:
        for each in (*self.near.values(), *self.far.values(), *self._listeners.values()):
            each.close()
        self.links.close()
        self._holder.close()


@pytest.fixture(scope="module")
def _cables() -> Iterator[Cables]:
    made = Cables()
    yield made
    made.close()


@pytest.fixture
def cables(_cables: Cables) -> Iterator[Cables]:
    yield _cables
    _cables.links.heal_all()
    _cables.check_reached(ALL)


@pytest.fixture
def links(cables: Cables) -> Links:
    return cables.links


def both(*pairs: Pair) -> set[Pair]:
    return {*pairs, *((b, a) for a, b in pairs)}


def test_everyone_reaches_everyone(cables: Cables) -> None:
    cables.check_reached(ALL)
    assert cables.links.cuts == set()


def test_a_cut_is_one_way(cables: Cables, links: Links) -> None:
    links.cut("n1", "n2")
    assert not links.reaches("n1", "n2")
    assert links.reaches("n2", "n1")
    cables.check_reached(ALL - {("n1", "n2")})
    links.heal("n1", "n2")
    cables.check_reached(ALL)


def test_what_is_answered_on_a_cut_link_comes_through_until_both_ways_are_cut(
    cables: Cables, links: Links
) -> None:
    """What keeps a stream alive, and no more."""
    near, far = cables.near["n1", "n2"], cables.far["n1", "n2"]
    links.cut("n2", "n1")
    far.sendall(b"window")
    assert near.recv(64) == b"window"
    links.cut("n1", "n2")
    far.sendall(b"window")
    near.settimeout(ABSENT_S)
    with pytest.raises(TimeoutError):
        near.recv(64)
    links.heal("n2", "n1")
    near.settimeout(TIMEOUT_S)
    assert near.recv(64) == b"window"
    cables.check_reached(ALL - {("n1", "n2")})


TOPOLOGIES: dict[str, tuple[Callable[[Links], None], set[Pair]]] = {
    "partition": (
        lambda links: links.partition(["n1", "n2"]),
        both(("n1", "n2"), ("n3", "n4"), ("n3", "n5"), ("n4", "n5")),
    ),
    "three parts": (
        lambda links: links.partition(["n1", "n2"], ["n3"], ["n4", "n5"]),
        both(("n1", "n2"), ("n4", "n5")),
    ),
    "isolate": (lambda links: links.isolate("n3"), {pair for pair in ALL if "n3" not in pair}),
    "mute": (lambda links: links.mute("n3"), {(a, b) for a, b in ALL if a != "n3"}),
    "deafen": (lambda links: links.deafen("n3"), {(a, b) for a, b in ALL if b != "n3"}),
    "sever": (lambda links: links.sever("n1", "n5"), ALL - both(("n1", "n5"))),
    "only": (lambda links: links.only(("n1", "n2")), both(("n1", "n2"))),
    "quorum-loss": (lambda links: links.quorum_loss("n4"), {pair for pair in ALL if "n4" in pair}),
    "constrained": (
        lambda links: links.constrained("n4", "n1"),
        both(("n4", "n2"), ("n4", "n3"), ("n4", "n5")),
    ),
    "chained": (lambda links: links.chained("n2", "n1", "n3"), ALL - both(("n2", "n3"))),
    "chain of five": (lambda links: links.chained(*NAMES), both(*itertools.pairwise(NAMES))),
}


@pytest.mark.parametrize(("what", "kept"), TOPOLOGIES.values(), ids=TOPOLOGIES)
def test_topologies(cables: Cables, what: Callable[[Links], None], kept: set[Pair]) -> None:
    what(cables.links)
    assert cables.links.cuts == ALL - kept
    cables.check_reached(kept)


def test_one_topology_after_the_other(cables: Cables, links: Links) -> None:
    """``only`` (and what is made of it) heals what it keeps; cuts add up."""
    links.isolate("n4")
    links.quorum_loss("n4")
    cables.check_reached({pair for pair in ALL if "n4" in pair})
    links.cut("n4", "n1")
    cables.check_reached({pair for pair in ALL if "n4" in pair} - {("n4", "n1")})


def test_dropped_at_the_heal(cables: Cables, links: Links) -> None:
    links.sever("n1", "n2")
    cables.near["n1", "n2"].sendall(b"old words")
    links.mend("n1", "n2", held="drop")
    far = cables.far["n1", "n2"]
    far.settimeout(TIMEOUT_S)
    try:
        heard = far.recv(64)
    except ConnectionResetError:
        heard = b""
    assert heard == b""
    for pair in (("n1", "n2"), ("n2", "n1")):
        cables.connect(*pair)


def test_refused(cables: Cables, links: Links) -> None:
    links.cut("n1", "n2", mode="reset")
    assert links.cuts == {("n1", "n2")}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", links.port("n1", "n2")), TIMEOUT_S)
    links.heal("n1", "n2")
    cables.connect("n1", "n2")


def test_delay_throttle_and_flap_end_with_the_heal(cables: Cables, links: Links) -> None:
    links.delay("n1", "n2", 600_000)
    links.throttle("n2", "n3", 1)
    links.flap(("n3", "n4"), up_ms=1, down_ms=600_000)
    links.flap_server("n5", up_ms=1, down_ms=600_000)
    stopped = {("n1", "n2"), ("n2", "n3"), ("n3", "n4"), *(pair for pair in ALL if "n5" in pair)}
    cables.check_reached(ALL - stopped)
    assert links.stats("n1", "n2").waiting_bytes == 8
    assert links.cuts == set()
    links.heal_all()
    cables.check_reached(ALL)
    links.delay_all(20, jitter_ms=5)
    cables.check_reached(ALL)


def test_requests_and_replies_of_clients(cables: Cables, links: Links) -> None:
    """On one connection: the reply can be lost alone."""
    near, far = cables.connect_client()
    with near, far:
        links.cut("n1", CLIENTS)
        near.sendall(b"request")
        assert far.recv(64) == b"request"
        far.sendall(b"reply")
        near.settimeout(ABSENT_S)
        with pytest.raises(TimeoutError):
            near.recv(64)
        assert links.stats("n1", CLIENTS).waiting_bytes == 5
        links.heal("n1", CLIENTS)
        near.settimeout(TIMEOUT_S)
        assert near.recv(64) == b"reply"
        links.cut(CLIENTS, "n1")
        near.sendall(b"request")
        far.settimeout(ABSENT_S)
        with pytest.raises(TimeoutError):
            far.recv(64)


def test_mistakes_are_said(links: Links) -> None:
    with pytest.raises(LocalClusterError, match="no link from 'n1' to 'n9'"):
        links.cut("n1", "n9")
    with pytest.raises(LocalClusterError, match="no link from 'n2' to 'clients'"):
        links.cut("n2", CLIENTS)
    with pytest.raises(LocalClusterError, match="one group"):
        links.partition(["n1", "n2"], ["n2"])
    with pytest.raises(LocalClusterError, match="cannot be the leader"):
        links.constrained("n1", "n1")
    with pytest.raises(LocalClusterError, match="no link that n1 dials to n1"):
        links.port("n1", "n1")
    assert links.cuts == set()


def test_a_proxy_that_died_is_said() -> None:
    with PortHolder() as holder:
        links = Links(dict(zip(["n1", "n2"], holder.take(2), strict=True)), holder)
        os.kill(links.proxy_pid, signal.SIGKILL)
        with pytest.raises(LocalClusterError, match="has ended"):
            links.cut("n1", "n2")
        links.close()
        links.close()


def test_a_port_in_use_is_said() -> None:
    with PortHolder() as holder, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        holder.take = lambda count: [port] * count  # type: ignore[method-assign]
        with pytest.raises(LocalClusterError, match="refused: OSError"):
            Links({"n1": 1, "n2": 2}, holder)
