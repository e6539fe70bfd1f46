"""The links between simulated servers: streams that are opened by a Hello, and messages that take their time.

A stream joins two incarnations. It stands once each side has accepted the other's Hello, by the very rules of the
servers (``transport/handshake.py``), and breaks when either end dies or the weather says so; the ends may learn of
that late. What is sent without a stream is lost. On a stream, messages are lost, doubled, delayed, overtaken, or turn
up again much later, as the world says; a link may be cut in one direction alone.

A message that is larger than what a peer takes never arrives, however often it is sent. The servers' transport drops
it; here it is an error of who sent it.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from paxos_rsm.codec.messages import decode_message, encode_message
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.messages import (
    Accept,
    Accepted,
    CatchUpReply,
    Envelope,
    Forward,
    Message,
    Promise,
)
from paxos_rsm.paxos.types import Batch, ConfigChange, Entry, NodeId
from paxos_rsm.sim.failure import Broken
from paxos_rsm.sim.stage import Stage
from paxos_rsm.sim.world import ELECTION_TICKS, TICK_UNITS, World
from paxos_rsm.transport.handshake import LEVEL_OF, Hello, PeerBook, Refusal, check_hello

__all__ = ["Network", "Peer", "entries_of"]

RETRY_TICKS = 2
GRACE_TICKS = 20
"""So long, at most, the streams with a member that was removed live on."""
LATE_TICKS_MAX = 50 * ELECTION_TICKS
LATE_TICKS = (2 * ELECTION_TICKS, 8 * ELECTION_TICKS, LATE_TICKS_MAX)
"""A late message comes within one of these."""


class Peer(Protocol):
    """A server, as the network sees it."""

    number: int
    node: NodeId
    life: int
    up: bool
    paused_until: int
    book: PeerBook

    @property
    def configuration(self) -> Configuration | None:
        """Who the members are, as far as it knows."""
        ...

    def hello(self) -> Hello:
        """What it says of itself at the start of a stream."""
        ...

    def refused(self, refusal: Refusal) -> None:
        """A peer will not work with it, for good."""
        ...

    def peer_up(self, member: Member) -> None:
        """A stream stands."""
        ...

    def peer_down(self, node: NodeId) -> None:
        """A stream has broken."""
        ...

    def receive(self, sender: NodeId, message: Message) -> None:
        """A message has come."""
        ...

    def understands(self, message: Message) -> bool:
        """Whether its version knows all that is in the message; it stops where not."""
        ...


class Network:
    """See the module's docstring."""

    def __init__(self, stage: Stage, world: World) -> None:
        self._stage = stage
        self.world = world
        self._random = stage.chance("network")
        self.peers: dict[int, Peer] = {}
        self._by_node: dict[NodeId, Peer] = {}
        self.cut: set[tuple[int, int]] = set()
        """Directed links on which nothing passes, by server numbers."""
        self._streams: dict[tuple[int, int], int] = {}
        """Streams that stand, each with a number of its own; the lower server number first."""
        self._opened = 0
        self._told: dict[tuple[int, int], Member] = {}
        """Whom a server believes to have a stream with: (server, peer) to what that one said of itself."""
        self._levels: dict[tuple[int, int], int] = {}
        """What both ends of a stream understand, by (sender, receiver)."""
        self._last_arrival: dict[tuple[int, int], int] = {}

    # ---- streams ---------------------------------------------------------------------------------------------

    def came_up(self, peer: Peer) -> None:
        """A server has started: it and the others look for each other."""
        self._by_node[peer.node] = peer
        for other in self.peers.values():
            if other is not peer:
                self._connect_later(peer, other, self._random.randint(1, 2 * self.world.delay_units))

    def went_down(self, peer: Peer) -> None:
        """A server has died: its streams break, and the others learn of that soon, late, or not at all."""
        self._by_node.pop(peer.node, None)
        for number, other in self.peers.items():
            self._told.pop((peer.number, number), None)
            if (
                self._streams.pop(_pair(peer.number, number), None) is not None
                and self._random.random() < 0.7
            ):
                delay = self._random.randint(1, 4 * self.world.delay_units)
                self._stage.schedule(delay, self._lose, other, other.life, peer.number, peer.node)

    def break_stream(self, a: Peer, b: Peer) -> None:
        """A stream breaks while both ends live; they look for each other again."""
        if self._streams.pop(_pair(a.number, b.number), None) is None:
            return
        for one, other in ((a, b), (b, a)):
            self._lose(one, one.life, other.number, other.node)
        self._connect_later(a, b, RETRY_TICKS * TICK_UNITS)

    def _lose(self, peer: Peer, life: int, number: int, node: NodeId) -> None:
        told = self._told.get((peer.number, number))
        if peer.up and peer.life == life and told is not None and told.incarnation == node:
            del self._told[peer.number, number]
            peer.peer_down(node)

    def _connect_later(self, a: Peer, b: Peer, delay: int) -> None:
        self._stage.schedule(delay, self._connect, a, a.life, b, b.life)

    def _connect(self, a: Peer, a_life: int, b: Peer, b_life: int) -> None:
        if not (a.up and b.up and a.life == a_life and b.life == b_life):
            return  # whichever starts next tries again
        pair = _pair(a.number, b.number)
        if pair in self._streams:
            return
        links = (a.number, b.number), (b.number, a.number)
        now = self._stage.now
        if self.cut.intersection(links) or a.paused_until > now or b.paused_until > now:
            self._connect_later(a, b, RETRY_TICKS * TICK_UNITS)
            return
        hello_a, hello_b = a.hello(), b.hello()
        for one, mine, other, theirs in ((a, hello_a, b, hello_b), (b, hello_b, a, hello_a)):
            refusal = check_hello(mine, theirs, one.book)
            if refusal is not None:
                self._stage.fire("refused")
                if self._stage.trace is not None:
                    self._stage.tell(f"n{one.number} refuses n{other.number}: {refusal.message}")
                if refusal.fatal:
                    other.refused(refusal)
                else:
                    self._connect_later(a, b, ELECTION_TICKS * TICK_UNITS)
                return
        a.book.hear(hello_b)
        b.book.hear(hello_a)
        self._opened += 1
        self._streams[pair] = self._opened
        for link in links:
            self._levels[link] = min(hello_a.level, hello_b.level)
        for one, other, theirs in ((a, b, hello_b), (b, a, hello_a)):
            known = self._told.get((one.number, other.number))
            if known is not None:
                self._lose(one, one.life, other.number, known.incarnation)
            self._told[one.number, other.number] = theirs.member
        for one, theirs in ((a, hello_b), (b, hello_a)):
            if one.up:
                one.peer_up(theirs.member)

    def introduce(self, a: Peer, b: Peer) -> None:
        """Two servers meet at once, whatever stands between them."""
        self.cut -= {(a.number, b.number), (b.number, a.number)}
        self._connect(a, a.life, b, b.life)

    def describe(self, number: int) -> Configuration | None:
        """What one that a server can reach says of the members; None where it reaches nobody that knows them."""
        able = [
            peer.configuration
            for peer in self.peers.values()
            if peer.up and not self.cut.intersection([(number, peer.number), (peer.number, number)])
        ]
        known = [configuration for configuration in able if configuration is not None]
        return self._random.choice(known) if known else None

    def arrived(self, peer: Peer) -> list[Member]:
        """Those that a server has streams with and knows as members which have yet to join."""
        return [
            member
            for (number, _), member in sorted(self._told.items(), key=lambda told: told[0])
            if number == peer.number and peer.book.is_pending(member.member_id)
        ]

    def formed(self, peer: Peer) -> None:
        """The members have changed, as a server knows: streams with others end, after a while."""
        delay = self._random.randint(1, GRACE_TICKS * TICK_UNITS)
        self._stage.schedule(delay, self._part, peer, peer.life)

    def _part(self, peer: Peer, life: int) -> None:
        if not peer.up or peer.life != life:
            return
        for (number, other), member in sorted(self._told.items(), key=lambda told: told[0]):
            if number == peer.number and not peer.book.allows(member.incarnation):
                self.break_stream(peer, self.peers[other])

    def connected(self) -> list[tuple[int, int]]:
        """The streams that stand, by server numbers."""
        return sorted(self._streams)

    # ---- messages --------------------------------------------------------------------------------------------

    def send(self, sender: Peer, envelopes: Iterable[Envelope]) -> None:
        """Puts messages on their way."""
        world, stage, rnd = self.world, self._stage, self._random
        for envelope in envelopes:
            to = self._by_node.get(envelope.to)
            if to is None:
                continue
            number, other = sender.number, to.number
            stream = self._streams.get((number, other) if number < other else (other, number))
            if stream is None:
                continue
            message = envelope.message
            if type(message) in LEVEL_OF and LEVEL_OF[type(message)] > self._levels[number, other]:
                stage.fired["kept from an older version"] += 1
                continue
            size = _bytes_of(message)
            if size > world.message_bytes_max:
                raise Broken(
                    "wire",
                    f"n{number} sends a {type(message).__name__} of about {size} bytes; the most that a peer takes is "
                    f"{world.message_bytes_max}",
                )
            if world.encoded:
                message = self._through_the_wire(message)
            if world.late and rnd.random() < world.late:
                # Also of what is lost now: a copy was on its way elsewhere.
                stage.fired["late"] += 1
                delay = rnd.randint(1, rnd.choice(LATE_TICKS)) * TICK_UNITS
                stage.schedule(delay, self._arrive, sender.node, to.node, number, other, stream, message)
            if (number, other) in self.cut:
                stage.fired["cut"] += 1
                continue
            if world.loss and rnd.random() < world.loss:
                stage.fired["loss"] += 1
                continue
            self._post(sender, to, stream, message, int(rnd.random() * 2 * world.delay_units))
            if world.duplicate and rnd.random() < world.duplicate:
                stage.fired["duplicate"] += 1
                self._post(sender, to, stream, message, int(rnd.random() * 6 * world.delay_units))

    def _post(self, sender: Peer, to: Peer, stream: int, message: Message, delay: int) -> None:
        stage = self._stage
        link = sender.number, to.number
        arrival = stage.now + delay
        last = self._last_arrival.get(link, 0)
        if arrival <= last:
            if self.world.fifo:
                arrival = last
            else:
                stage.fired["reorder"] += 1
        if arrival > last:
            self._last_arrival[link] = arrival
        stage.schedule(
            arrival - stage.now, self._arrive, sender.node, to.node, link[0], link[1], stream, message
        )

    def _arrive(
        self, sender: NodeId, to: NodeId, sender_number: int, number: int, stream: int, message: Message
    ) -> None:
        peer = self._by_node.get(to)
        if peer is None or not peer.up:
            return
        stage = self._stage
        if peer.paused_until > stage.now:
            stage.schedule(
                peer.paused_until - stage.now,
                self._arrive,
                sender,
                to,
                sender_number,
                number,
                stream,
                message,
            )
            return
        if self._streams.get(_pair(sender_number, number)) != stream:
            if not (self.world.streams_carry and peer.book.allows(sender)):
                return
            stage.fired["stale"] += 1
        if not peer.understands(message):
            return
        kind = type(message)
        if kind is Promise or kind is Accepted:
            peer.book.hear_promise(sender, message.ballot)  # type: ignore[union-attr]
        if stage.trace is not None:
            stage.tell(f"n{number} hears n{sender_number}: {message}")
        stage.event(_KINDS[kind], number, sender_number)
        peer.receive(sender, message)

    def _through_the_wire(self, message: Message) -> Message:
        decoded = decode_message(encode_message(message))
        if decoded != message:
            raise Broken("wire", f"{message} comes out of its wire format as {decoded}")
        self._stage.fired["encoded"] += 1
        return decoded


def entries_of(message: Message) -> Iterable[Entry]:
    """The entries that a message carries."""
    kind = type(message)
    if kind is Accept:
        return (message.entry,)  # type: ignore[union-attr]
    if isinstance(message, CatchUpReply):
        return [entry for _, entry in message.entries]
    if isinstance(message, Promise):
        return [*(entry for _, _, entry in message.accepted), *(entry for _, entry in message.decided)]
    return ()


def _bytes_of(message: Message) -> int:
    """About how long a message is on the wire; 0 for those that are always small."""
    kind = type(message)
    if kind is Accept:
        return _entry_bytes(message.entry)  # type: ignore[union-attr]
    if isinstance(message, Forward):
        return sum(map(len, message.frames)) + 4 * len(message.frames)
    if isinstance(message, CatchUpReply):
        return sum(_entry_bytes(entry) for _, entry in message.entries)
    if isinstance(message, Promise):
        accepted = sum(_entry_bytes(entry) for _, _, entry in message.accepted)
        return accepted + sum(_entry_bytes(entry) for _, entry in message.decided)
    return 0


def _entry_bytes(entry: Entry) -> int:
    if type(entry) is Batch:
        return len(entry.data) + 32
    return 64 * len(entry.configuration.members) if type(entry) is ConfigChange else 32


_KINDS: Mapping[type, int] = {kind: number for number, kind in enumerate(Message.__args__, 16)}


def _pair(a: int, b: int) -> tuple[int, int]:
    return (a, b) if a < b else (b, a)
