"""The cables between the servers of a LocalCluster: each can be cut one way, delayed, throttled, made to flap.

::

    cluster = LocalCluster(5, proxied=True)
    cluster.links.cut("n1", "n2")              # nothing n1 says reaches n2; n2 still reaches n1
    cluster.links.partition(["n1", "n2"])      # these two from all others, both ways
    cluster.links.quorum_loss("n1")            # all reach n1, and nobody else
    cluster.links.heal_all()

Two servers have two streams, each opened by the one that speaks on it (``paxos_rsm.transport``). Every server is told
to dial each of its peers through a port of its own (``--peer-dial-urls``), behind which
:mod:`paxos_rsm.testing.proxy` carries the bytes on. So the *link* from a to b is a connection that a has dialed, and
to cut it is to hold what a says there: no message of a's reaches b, whatever its kind, and nothing of what b says on
its own stream is touched. What still passes on b's stream towards b is what keeps such a stream alive, and no message
of the protocol: gRPC's windows and pings, and the Hello that answers b's, should b dial anew while the cut lasts.
Where both ways are cut, nothing at all passes.

Bytes that the kernel had already taken when the cut was made may still arrive, like packets on their way.

With ``proxied_clients`` the clients' ways are links as well, under the name ``clients``: ``cut("clients", "n1")``
loses requests, ``cut("n1", "clients")`` replies.

Every call returns once what it asks for is in force, and is in force at once for all links that it names. Calls may
come from several threads.
"""

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Collection, Iterable, Mapping
from itertools import combinations, permutations
from pathlib import Path
from typing import Any, Literal, NamedTuple

from paxos_rsm.testing import proxy
from paxos_rsm.testing.errors import LocalClusterError
from paxos_rsm.testing.ports import PortHolder

__all__ = ["CLIENTS", "LinkStats", "Links"]

CLIENTS = "clients"
"""Stands for all clients, as one end of a link."""

END_TIMEOUT_S = 5.0

Pair = tuple[str, str]
Held = Literal["resume", "drop"]
Mode = Literal["hold", "reset"]


class LinkStats(NamedTuple):
    """What a link has done so far, in the direction asked for."""

    passed_bytes: int
    waiting_bytes: int
    """Held or delayed in the proxy just now."""
    connections: int
    """Open just now."""
    accepted: int
    """Connections taken since the start."""


class _Proxy:
    """The process that carries the bytes, and the pipe to it."""

    def __init__(self, ports: Mapping[str, tuple[int, int]], seed: int | None) -> None:
        self._lock = threading.Lock()
        # By its path, and without its folder among the paths: it needs nothing of the package.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(proxy.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for whoever runs the cluster
        )
        try:
            self.ask({"ports": ports, "seed": seed})
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Raises LocalClusterError where the proxy says no, or is gone."""
        stdin, stdout = self._process.stdin, self._process.stdout
        with self._lock:
            line = b""
            if stdin is not None and stdout is not None and not stdin.closed:
                try:
                    stdin.write(json.dumps(request).encode() + b"\n")
                    stdin.flush()
                    line = stdout.readline()
                except OSError:
                    pass  # said below
            if not line:
                raise LocalClusterError(
                    "the proxy between the servers has ended: its links carry nothing any more"
                )
        reply = json.loads(line)
        if "error" in reply:
            raise LocalClusterError(f"the proxy between the servers refused: {reply['error']}")
        answer: dict[str, Any] = reply["answer"]
        return answer

    def close(self) -> None:
        with self._lock:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):  # of a request that was not read any more
                        pipe.close()
            try:
                self._process.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


class Links:
    """Every directed link of a cluster. See the module's docstring.

    Always holds: a way is held exactly where the cuts say so, whichever calls led there.
    """

    def __init__(
        self,
        peer_ports: Mapping[str, int],
        holder: PortHolder,
        *,
        client_ports: Mapping[str, int] | None = None,
        seed: int | None = None,
    ) -> None:
        """``peer_ports`` is name to the port where that server listens for peers. Starts the proxy.

        ``client_ports``, where given, is the same for clients. ``seed`` fixes how jitter is drawn.
        """
        self.names = list(peer_ports)
        targets = {(a, b): peer_ports[b] for a, b in permutations(self.names, 2)}
        targets |= {(CLIENTS, name): port for name, port in (client_ports or {}).items()}
        self._pairs = [*targets, *((b, a) for a, b in targets if a == CLIENTS)]
        self._ports = dict(zip(targets, holder.take(len(targets)), strict=True))
        self._cuts: set[Pair] = set()
        self._refused: set[Pair] = set()
        self._held: set[tuple[str, int]] = set()
        self._lock = threading.RLock()
        named = {_link_name(pair): (self._ports[pair], targets[pair]) for pair in targets}
        self._proxy = _Proxy(named, seed)

    # ---- where things are --------------------------------------------------------------------------------

    def port(self, a: str, b: str) -> int:
        """Where ``a`` (a server, or CLIENTS) dials ``b``. Raises LocalClusterError where there is no such link."""
        if (a, b) not in self._ports:
            raise LocalClusterError(f"there is no link that {a} dials to {b}")
        return self._ports[a, b]

    @property
    def cuts(self) -> set[Pair]:
        """The ordered pairs (a, b) where nothing that a says reaches b, but for flapping."""
        return self._cuts | self._refused

    def reaches(self, a: str, b: str) -> bool:
        """Whether what a says reaches b."""
        return (a, b) not in self.cuts

    def stats(self, a: str, b: str) -> LinkStats:
        """What has passed from ``a`` to ``b``, on the connections that a has dialed."""
        name, way = self._way(a, b)
        told = self._proxy.ask({"stats": True})[name]
        return LinkStats(
            told["passed_bytes"][way], told["waiting_bytes"][way], told["connections"], told["accepted"]
        )

    @property
    def proxy_pid(self) -> int:
        """The process that carries the bytes."""
        return self._proxy.pid

    def close(self) -> None:
        """Ends the proxy, and every connection with it. Closing twice is allowed."""
        self._proxy.close()

    # ---- one link ----------------------------------------------------------------------------------------

    def cut(self, a: str, b: str, *, mode: Mode = "hold") -> None:
        """Nothing that ``a`` says reaches ``b``. What b says reaches a as before.

        ``hold``: as with a cable pulled, nobody is told. ``reset``: connections are closed and refused, as where
        the host is up and nobody listens; this knows no single way of a client's link, and cuts both.
        """
        self._cut([(a, b)], mode)

    def sever(self, a: str, b: str, *, mode: Mode = "hold") -> None:
        """Cuts both ways between ``a`` and ``b``."""
        self._cut([(a, b), (b, a)], mode)

    def heal(self, a: str, b: str, *, held: Held = "resume") -> None:
        """The link from ``a`` to ``b`` is as new: not cut, delayed, throttled or flapping. (b to a is left as it is.)

        ``resume`` delivers what was held, old as it is; ``drop`` closes the connections, so that it is lost.
        """
        self._heal([(a, b)], held)

    def mend(self, a: str, b: str, *, held: Held = "resume") -> None:
        """Heals both ways between ``a`` and ``b``."""
        self._heal([(a, b), (b, a)], held)

    def heal_all(self, *, held: Held = "resume") -> None:
        """Every link is as new, the clients' too."""
        self._heal(self._pairs, held)

    def drop(self, a: str, b: str) -> None:
        """Closes the connections that ``a`` has dialed to ``b``, once; a new one finds its way."""
        name, _ = self._way(a, b)
        self._proxy.ask({"changes": [{"do": "drop", "links": [name]}]})

    def delay(self, a: str, b: str, delay_ms: float, *, jitter_ms: float = 0) -> None:
        """What ``a`` says reaches ``b`` so much later, plus up to ``jitter_ms`` at random; order is kept. 0 ends it."""
        self._set([(a, b)], delay_ms=delay_ms, jitter_ms=jitter_ms)

    def delay_all(self, delay_ms: float, *, jitter_ms: float = 0) -> None:
        """Delays every link between servers."""
        self._set(self._peer_pairs, delay_ms=delay_ms, jitter_ms=jitter_ms)

    def throttle(self, a: str, b: str, bytes_per_s: float) -> None:
        """No more than this passes from ``a`` to ``b``. 0 ends it."""
        self._set([(a, b)], bytes_per_s=bytes_per_s)

    def flap(self, *pairs: Pair, up_ms: float, down_ms: float, drop: bool = False) -> None:
        """Holds these links for ``down_ms`` and lets them go for ``up_ms``, all at once, again and again, until healed.

        Begins with them down. With ``drop`` their connections are closed each time they go down.
        """
        ways = [self._way(a, b) for a, b in pairs]
        change = {"do": "flap", "ways": ways, "up_ms": up_ms, "down_ms": down_ms, "drop": drop}
        self._proxy.ask({"changes": [change]})

    def flap_server(self, name: str, *, up_ms: float, down_ms: float, drop: bool = False) -> None:
        """Flaps every link between ``name`` and its peers, both ways."""
        pairs = [pair for pair in self._peer_pairs if name in pair]
        self.flap(*pairs, up_ms=up_ms, down_ms=down_ms, drop=drop)

    # ---- several links -----------------------------------------------------------------------------------

    def partition(self, *groups: Collection[str], mode: Mode = "hold") -> None:
        """Nothing passes between servers of different groups; inside a group nothing changes.

        Servers that are in no group form one more together.
        """
        named = [name for group in groups for name in group]
        if len(set(named)) != len(named):
            raise LocalClusterError(f"a partition has each server in one group: {groups}")
        rest = [name for name in self.names if name not in named]
        sides = [*groups, rest]
        pairs = [(a, b) for side, other in permutations(sides, 2) for a in side for b in other]
        self._cut(pairs, mode)

    def isolate(self, name: str, *, mode: Mode = "hold") -> None:
        """Cuts a server from every peer, both ways. Clients still reach it."""
        self.partition([name], mode=mode)

    def mute(self, name: str) -> None:
        """Half-cut: what this server says reaches no peer; it hears them all."""
        self._cut([(name, other) for other in self.names if other != name], "hold")

    def deafen(self, name: str) -> None:
        """Half-cut: this server hears no peer; they all hear it."""
        self._cut([(other, name) for other in self.names if other != name], "hold")

    def only(self, *pairs: Pair, held: Held = "resume") -> None:
        """Just these pairs of servers reach each other (both ways): the rest is cut, and these are as new."""
        for a, b in pairs:
            self._way(a, b)
        kept = {*pairs, *((b, a) for a, b in pairs)}
        with self._lock:
            self._cut([pair for pair in self._peer_pairs if pair not in kept], "hold")
            self._heal(kept, held)

    # ---- partial connectivity (Ng, Haridi, Carbone: Omni-Paxos, EuroSys 2023, section 2) ------------------

    def quorum_loss(self, hub: str) -> None:
        """Every server reaches only ``hub``. Whoever else led lives on without a quorum: the hub has to take over."""
        self.only(*((hub, other) for other in self.names if other != hub))

    def constrained(self, hub: str, leader: str) -> None:
        """``leader`` is cut from everybody, and the others reach only ``hub``: nobody else has a quorum of links.

        For the case of the paper the hub's log has to be behind: ``isolate`` it first, and have others write.
        """
        if hub == leader:
            raise LocalClusterError(f"{hub} cannot be the leader that is cut off and the hub that is left")
        self.only(*((hub, other) for other in self.names if other not in (hub, leader)))

    def chained(self, *names: str) -> None:
        """Each of these servers reaches, of these, only its neighbours in this order; links with others stay.

        The case of the paper is ``chained(b, a, c)``: b and c are cut from each other.
        """
        apart = [(a, b) for (i, a), (j, b) in combinations(enumerate(names), 2) if j - i > 1]
        self._cut([*apart, *((b, a) for a, b in apart)], "hold")

    # ---- how -----------------------------------------------------------------------------------------------

    @property
    def _peer_pairs(self) -> list[Pair]:
        return [pair for pair in self._pairs if CLIENTS not in pair]

    def _way(self, a: str, b: str) -> tuple[str, int]:
        """The link on which a's words reach b, and which way of it."""
        if (a, b) in self._ports:
            return _link_name((a, b)), proxy.FORWARD
        if b == CLIENTS and (b, a) in self._ports:
            return _link_name((b, a)), proxy.REVERSE
        known = ", ".join(self.names)
        raise LocalClusterError(f"there is no link from {a!r} to {b!r}: the servers are {known}")

    def _set(self, pairs: Iterable[Pair], **what: float) -> None:
        ways = [self._way(a, b) for a, b in pairs]
        self._proxy.ask({"changes": [{"do": "set", "ways": ways, **what}]})

    def _cut(self, pairs: Iterable[Pair], mode: Mode) -> None:
        pairs = list(pairs)
        links = [self._way(a, b)[0] for a, b in pairs]
        with self._lock:
            if mode == "reset":
                self._refused.update(pairs)
                self._apply([{"do": "refuse", "links": links}])
            else:
                self._cuts.update(pairs)
                self._apply([])

    def _heal(self, pairs: Iterable[Pair], held: Held) -> None:
        pairs = list(pairs)
        ways = [self._way(a, b) for a, b in pairs]
        with self._lock:
            freed = [self._way(a, b)[0] for a, b in pairs if (a, b) in self._cuts]
            self._cuts.difference_update(pairs)
            self._refused.difference_update(pairs)
            changes: list[dict[str, Any]] = [
                {"do": "steady", "ways": ways},
                {"do": "set", "ways": ways, "delay_ms": 0, "jitter_ms": 0, "bytes_per_s": 0},
                {"do": "accept", "links": [name for name, _ in ways]},
            ]
            if held == "drop":
                changes.insert(0, {"do": "drop", "links": freed})
            self._apply(changes)

    def _apply(self, changes: list[dict[str, Any]]) -> None:
        """Sends ``changes``, and with them what follows from the cuts."""
        cuts = self._cuts
        held = {self._way(a, b) for a, b in cuts}
        # What is answered on the connection that a has dialed: gRPC's own, until nothing passes at all.
        both = {pair for pair in cuts if (pair[1], pair[0]) in cuts and CLIENTS not in pair}
        held |= {(_link_name(pair), proxy.REVERSE) for pair in both}
        put, free = sorted(held - self._held), sorted(self._held - held)
        self._held = held
        if put:
            changes.append({"do": "set", "ways": put, "held": True})
        if free:
            changes.append({"do": "set", "ways": free, "held": False})
        if changes:
            self._proxy.ask({"changes": changes})


def _link_name(pair: Pair) -> str:
    return f"{pair[0]}>{pair[1]}"
