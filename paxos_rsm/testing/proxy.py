"""A TCP proxy that stands in for the cables between servers: the half that runs in a process of its own.

::

    n1 --dials--> 127.0.0.1:P12 ==[ link "n1>n2" ]==> 127.0.0.1:PEER2        P12 is known to n1 alone
    n2 --dials--> 127.0.0.1:P21 ==[ link "n2>n1" ]==> 127.0.0.1:PEER1

A *link* is one listening port and the port that it leads to. Of each connection through it there are two *ways*:
forward (what the one who dialed says) and reverse (what it is answered). Each way of each link can be held, delayed,
throttled; a link can refuse connections, drop those it has, and flap. Who cuts what from whom is decided elsewhere
(:mod:`paxos_rsm.testing.links`), and told to this process in lines of JSON on its standard input, each answered by a
line on its standard output once it is in force. A request is a list of changes, made in one turn of the loop: a
partition comes into being at once.

**Held** is a cable pulled: nothing passes, nothing is closed, nobody is told. What is sent meanwhile is kept, up to
``HELD_BYTES_MAX`` a connection; beyond that the sender's own buffers fill, as they would. A connection that is opened
meanwhile is accepted (the kernel does that) and leads nowhere until the way is free again. When it is, what was kept
is delivered, late as it is: old messages are one of the faults that a protocol must bear. A ``drop`` before that
closes the connections instead, and what was kept is gone.

TCP is a stream: it cannot lose a part and go on. So there is no loss here *within* a connection, nor reordering or
duplication; the simulator has those. What is lost here is lost with its connection.

Nothing is imported but the standard library, and the file is run by its path: the process is up in a few dozen
milliseconds. A chunk that nothing holds up costs one read and one write. It runs until its standard input ends.
"""

import asyncio
import json
import random
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["HELD_BYTES_MAX", "Link", "Proxy"]

HOST = "127.0.0.1"
HELD_BYTES_MAX = 4 << 20
"""Of one way of one connection: kept while it is held or delayed. Beyond it the sender waits."""
PIECE_BYTES = 8 << 10
"""What a throttled way delivers at once."""
REQUEST_BYTES_MAX = 4 << 20
FORWARD, REVERSE = 0, 1

_EOF = object()  # the sender has no more to say
_LOST = object()  # its connection is gone


class ProxyError(Exception):
    """A request that makes no sense."""


class _Way:
    """One direction of one link: what is done to it, and the pipes that run through it."""

    def __init__(self) -> None:
        self.held = False
        self.flapped = False
        self.delay_s = 0.0
        self.jitter_s = 0.0
        self.bytes_per_s = 0.0
        self.free_at = 0.0
        """Until when a throttled way is busy with what was put in before."""
        self.passed_bytes = 0
        self.pipes: set[_Pipe] = set()

    @property
    def stopped(self) -> bool:
        return self.held or self.flapped

    @property
    def plain(self) -> bool:
        """Whether what comes in goes out at once."""
        return not (self.held or self.flapped or self.delay_s or self.jitter_s or self.bytes_per_s)

    def set(self, change: dict[str, Any]) -> None:
        """Takes over what a request says of this way; what it does not mention stays."""
        self.held = bool(change.get("held", self.held))
        self.delay_s = change.get("delay_ms", self.delay_s * 1000) / 1000
        self.jitter_s = change.get("jitter_ms", self.jitter_s * 1000) / 1000
        self.bytes_per_s = change.get("bytes_per_s", self.bytes_per_s)
        self.changed()

    def changed(self) -> None:
        """Lets what waits go, where it may."""
        self.free_at = 0.0
        for pipe in list(self.pipes):
            pipe.hurry()


class _Pipe:
    """What one end of a connection says to the other. Always holds: bytes leave in the order in which they came."""

    def __init__(self, way: _Way, chance: random.Random, on_ended: Callable[[], None]) -> None:
        self.source: asyncio.Transport | None = None
        self.sink: asyncio.Transport | None = None
        self.ended = False
        """The end has been told to the sink."""
        self.waiting_bytes = 0
        self.blocked = False
        """The sink has more than it can send."""
        self._way = way
        self._chance = chance
        self._on_ended = on_ended
        self._items: deque[tuple[float, Any]] = deque()
        self._last_due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False
        self._dead = False
        self._loop = asyncio.get_running_loop()
        way.pipes.add(self)

    def put(self, item: Any) -> None:
        """A chunk, or the end, from the source."""
        if self._dead:
            return
        way = self._way
        if way.plain and not self._items and self.sink is not None and not self.blocked:
            self._deliver(item)
        elif way.bytes_per_s and isinstance(item, bytes):
            for at in range(0, len(item), PIECE_BYTES):
                self._queue(item[at : at + PIECE_BYTES])
        else:
            self._queue(item)
        if self._items:
            self.pump()

    def _queue(self, item: Any) -> None:
        way, now = self._way, self._loop.time()
        length = len(item) if isinstance(item, bytes) else 0
        due = now + way.delay_s + (self._chance.uniform(0, way.jitter_s) if way.jitter_s else 0.0)
        if way.bytes_per_s:
            way.free_at = max(way.free_at, now) + length / way.bytes_per_s
            due = max(due, way.free_at + way.delay_s)
        self._last_due = max(self._last_due, due)
        self._items.append((self._last_due, item))
        self.waiting_bytes += length

    def pump(self) -> None:
        """Delivers what is due and may pass, and sees to it that the rest will be."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._items and self.sink is not None and not self.blocked and not self._way.stopped:
            due, item = self._items[0]
            if due > self._loop.time():
                self._timer = self._loop.call_at(due, self.pump)
                break
            self._items.popleft()
            if isinstance(item, bytes):
                self.waiting_bytes -= len(item)
            self._deliver(item)
        self._balance()

    def hurry(self) -> None:
        """The way has changed: nothing waits longer than it would now."""
        way = self._way
        latest = self._loop.time() + way.delay_s + way.jitter_s
        if not way.bytes_per_s:
            self._items = deque((min(due, latest), item) for due, item in self._items)
            self._last_due = min(self._last_due, latest)
        self.pump()

    def stop(self) -> None:
        """Whoever should hear is gone: what waits is forgotten."""
        self._dead = True
        self._items.clear()
        self.waiting_bytes = 0
        self._way.pipes.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._balance()

    def _deliver(self, item: Any) -> None:
        sink = self.sink
        if sink is None or self._dead or (sink.is_closing() and isinstance(item, bytes)):
            return  # nobody is there to hear it
        if item is _LOST:
            self.ended = True
            sink.abort()
        elif item is _EOF:
            self.ended = True
            try:
                if not sink.is_closing():
                    sink.write_eof()
            except OSError:  # reset a moment ago, which the loop has yet to be told
                sink.abort()
            self._on_ended()
        else:
            self._way.passed_bytes += len(item)
            sink.write(item)

    def _balance(self) -> None:
        """Reads from the source only as long as there is room."""
        full = self.waiting_bytes > HELD_BYTES_MAX
        if self.source is None or self.source.is_closing() or full == self._paused:
            return
        self._paused = full
        if full:
            self.source.pause_reading()
        else:
            self.source.resume_reading()


class _End(asyncio.Protocol):
    """One socket of a connection: what it says goes into ``says``, what it hears comes out of ``hears``."""

    def __init__(self, connection: "_Connection", says: _Pipe, hears: _Pipe) -> None:
        self._connection = connection
        self._says = says
        self._hears = hears
        self.transport: asyncio.Transport | None = None
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"not a stream: {transport!r}")
        transport.set_write_buffer_limits(high=1 << 20)
        self.transport = transport
        self._says.source = transport
        self._hears.sink = transport
        self._hears.pump()

    def data_received(self, data: bytes) -> None:
        self._says.put(data)

    def eof_received(self) -> bool:
        if self._connection.undialed:
            self._connection.abort()  # it never got anywhere, and has given up
        self._says.put(_EOF)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._hears.stop()
        # Without an error it was closed from here, or has said its end.
        self._says.put(_EOF if exc is None else _LOST)
        self._connection.settle()

    def pause_writing(self) -> None:
        self._hears.blocked = True

    def resume_writing(self) -> None:
        self._hears.blocked = False
        self._hears.pump()


class _Connection:
    """Two sockets and the two pipes between them."""

    def __init__(self, link: "Link") -> None:
        self._link = link
        forward, reverse = (_Pipe(way, link.chance, self.settle) for way in link.ways)
        self.pipes = (forward, reverse)
        self.near = _End(self, forward, reverse)
        self.far = _End(self, reverse, forward)
        self._dialing: asyncio.Task[None] | None = None

    @property
    def undialed(self) -> bool:
        """Whether it was opened while the link was held, and has not gone on yet."""
        return self._dialing is None

    def dial(self) -> None:
        """Goes on to where the link leads, unless it is held or has been there."""
        if self.undialed and not self.near.lost and not self._link.ways[FORWARD].stopped:
            self._dialing = asyncio.get_running_loop().create_task(self._dial())

    async def _dial(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.far, HOST, self._link.target)
        except OSError:
            self.abort()
            return
        if self.near.lost:
            self.abort()

    def abort(self) -> None:
        """Closes both sockets at once; what is under way is gone."""
        for end in (self.near, self.far):
            if end.transport is not None:
                end.transport.abort()
            else:
                end.lost = True
        self.settle()

    def settle(self) -> None:
        """Closes a connection of which both ends have said all, and forgets one whose sockets are gone."""
        if self.near.lost and (self.far.lost or self.undialed):
            for pipe in self.pipes:
                pipe.stop()
            self._link.connections.discard(self)
        elif all(pipe.ended for pipe in self.pipes):
            for end in (self.near, self.far):
                if end.transport is not None:
                    end.transport.close()


class Link:
    """One listening port, where it leads, and the connections through it."""

    def __init__(self, name: str, port: int, target: int, chance: random.Random) -> None:
        self.name = name
        self.port = port
        self.target = target
        self.chance = chance
        self.ways = (_Way(), _Way())
        self.connections: set[_Connection] = set()
        self.accepted = 0
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        """Takes connections. Raises OSError."""
        if self._server is None:
            self._server = await asyncio.get_running_loop().create_server(
                self._accept, HOST, self.port, reuse_address=True, family=socket.AF_INET
            )

    def refuse(self) -> None:
        """Takes no connections any more; those there are get closed."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.drop()

    def drop(self) -> None:
        """Closes the connections."""
        for connection in list(self.connections):
            connection.abort()

    def changed(self) -> None:
        """A way of it may be free again: connections that were opened meanwhile get where they were going."""
        for connection in list(self.connections):
            connection.dial()

    def stats(self) -> dict[str, Any]:
        """Bytes that have passed and that wait, each forward and reverse; connections."""
        waiting = [sum(pipe.waiting_bytes for pipe in way.pipes) for way in self.ways]
        return {
            "passed_bytes": [way.passed_bytes for way in self.ways],
            "waiting_bytes": waiting,
            "connections": len(self.connections),
            "accepted": self.accepted,
        }

    def _accept(self) -> _End:
        self.accepted += 1
        connection = _Connection(self)
        self.connections.add(connection)
        connection.dial()
        return connection.near


class _Flapper:
    """Holds some ways and lets them go, in turns."""

    def __init__(
        self, links: Iterable[Link], ways: Iterable[_Way], up_s: float, down_s: float, *, drop: bool
    ) -> None:
        self.links = list(dict.fromkeys(links))
        self.ways = list(ways)
        self._times_s = (up_s, down_s)
        self._drop = drop
        self._is_down = False
        self._timer: asyncio.TimerHandle | None = None
        self._turn()

    def stop(self) -> None:
        """Ends with the ways let go."""
        if self._timer is not None:
            self._timer.cancel()
        self._put(False)

    def _turn(self) -> None:
        self._put(not self._is_down)
        self._timer = asyncio.get_running_loop().call_later(self._times_s[self._is_down], self._turn)

    def _put(self, is_down: bool) -> None:
        self._is_down = is_down
        for link in self.links if self._drop and is_down else ():
            link.drop()
        for way in self.ways:
            way.flapped = is_down
            way.changed()
        for link in self.links:
            link.changed()


class Proxy:
    """All the links, and what is asked of them."""

    def __init__(self, ports: dict[str, tuple[int, int]], seed: int | None = None) -> None:
        """``ports``: of each link, by its name, where it listens and where it leads."""
        chance = random.Random(seed)
        self.links = {name: Link(name, port, target, chance) for name, (port, target) in ports.items()}
        self._flappers: list[_Flapper] = []
        self._does: dict[str, Callable[[dict[str, Any]], None]] = {
            "set": self._set,
            "drop": lambda change: self._each(change, Link.drop),
            "refuse": lambda change: self._each(change, Link.refuse),
            "flap": self._flap,
            "steady": self._steady,
        }

    async def listen(self) -> None:
        """Opens every link. Raises OSError."""
        for link in self.links.values():
            await link.listen()

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Does what a request asks, all at once; ``accept`` only after the rest. Raises ProxyError, OSError."""
        if request.get("stats"):
            return {name: link.stats() for name, link in self.links.items()}
        changes = request.get("changes", [])
        for change in changes:
            if change["do"] != "accept" and change["do"] not in self._does:
                raise ProxyError(f"what is {change['do']!r}?")
        for change in changes:
            if change["do"] != "accept":
                self._does[change["do"]](change)
        for change in changes:
            if change["do"] == "accept":
                for name in change["links"]:
                    await self._link(name).listen()
        return {}

    def _link(self, name: str) -> Link:
        if name not in self.links:
            raise ProxyError(f"there is no link {name!r}")
        return self.links[name]

    def _each(self, change: dict[str, Any], do: Callable[[Link], None]) -> None:
        for name in change["links"]:
            do(self._link(name))

    def _set(self, change: dict[str, Any]) -> None:
        for name, way in change["ways"]:
            link = self._link(name)
            link.ways[way].set(change)
            link.changed()

    def _flap(self, change: dict[str, Any]) -> None:
        self._steady(change)
        links = [self._link(name) for name, _ in change["ways"]]
        ways = [self._link(name).ways[way] for name, way in change["ways"]]
        up_s, down_s = change["up_ms"] / 1000, change["down_ms"] / 1000
        self._flappers.append(_Flapper(links, ways, up_s, down_s, drop=bool(change.get("drop"))))

    def _steady(self, change: dict[str, Any]) -> None:
        """Ends every flapping that has to do with one of the ways."""
        ways = [self._link(name).ways[way] for name, way in change["ways"]]
        for flapper in list(self._flappers):
            if any(way in flapper.ways for way in ways):
                flapper.stop()
                self._flappers.remove(flapper)


async def _serve() -> None:
    """Reads requests from standard input until it ends. The first one says which links there are."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=REQUEST_BYTES_MAX)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    proxy: Proxy | None = None
    while line := await reader.readline():
        try:
            request = json.loads(line)
            if proxy is None:
                proxy = Proxy(request["ports"], request.get("seed"))
                await proxy.listen()
                answer: dict[str, Any] = {}
            else:
                answer = await proxy.answer(request)
            reply: dict[str, Any] = {"answer": answer}
        except (ProxyError, OSError, ValueError, KeyError, TypeError) as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_serve())
