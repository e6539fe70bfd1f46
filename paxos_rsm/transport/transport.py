"""The streams between servers, as the replica's loop sees them: send, and be told.

::

                 send(envelopes)                                      on_messages(sender, messages)
                       |                                                          ^
     Transport --------+----------------------------------------------------------+---------------------
                       v                                                          |
     PeerLink, one a peer: outbox -> one stream out ~~~~~~ gRPC ~~~~~~> PeerService: streams in, one a peer

Between two servers there are two streams, one each way; what A has to say to B goes on the one that A opened.

Peers are *found* by member id and URL, and *addressed* by incarnation, which each proves in its Hello
(``handshake``). A message to an incarnation that is not at the other end of a stream just now is dropped: so is
one that does not fit its queue, or was under way when a stream broke. The protocol is made for that, and sends
again what still matters.

A peer is *up* while at least one of the two streams is; ``connected`` says to whom something can be sent.

Everything runs on the event loop that ``start`` was called on, and every callback is called there. A message to
several peers (an Accept, a Heartbeat) is encoded once.
"""

import asyncio
import logging
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from random import Random

from grpc import aio

from paxos_rsm.config import url_address
from paxos_rsm.errors import ConfigError
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.messages import Accepted, Envelope, Message, Promise
from paxos_rsm.paxos.types import NodeId
from paxos_rsm.transport.frames import Lane, Packed, pack
from paxos_rsm.transport.handshake import Hello, PeerBook, Refusal, check_hello
from paxos_rsm.transport.log import RepeatLog
from paxos_rsm.transport.options import CHUNK_OVERHEAD_BYTES, TransportOptions, server_options
from paxos_rsm.transport.peer_link import PeerLink
from paxos_rsm.transport.peer_service import PeerService

__all__ = ["PeerStats", "Transport"]

logger = logging.getLogger(__name__)

STREAMS_MAX = 1_024
"""Of callers at once, those that have not said who they are included."""


class _Way(Enum):
    IN = "in"
    OUT = "out"


@dataclass(frozen=True, slots=True)
class PeerStats:
    """The way out to one peer, at this moment."""

    member_id: int
    url: str
    node: NodeId | None
    """The incarnation at the other end; None where there is none."""
    waiting_messages: int
    waiting_bytes: int
    dropped_messages: int
    """Since the start."""


class Transport:
    """All the streams of one server. See the module's docstring."""

    def __init__(
        self,
        *,
        hello: Callable[[], Hello],
        peers: Mapping[int, str],
        listen_urls: Sequence[str],
        on_messages: Callable[[NodeId, list[Message]], None],
        on_peer_up: Callable[[Member], None],
        on_peer_down: Callable[[NodeId], None],
        on_refused: Callable[[Refusal], None],
        on_failed: Callable[[Exception], None],
        options: TransportOptions | None = None,
        random: Random | None = None,
    ) -> None:
        """``peers`` is member id to URL, of all members; this server itself may be among them.

        ``hello`` makes what this server says of itself at that moment; ``process`` is put in here, and its
        ``promised`` has to be durable. ``on_messages`` gets the messages of one frame; ``on_refused`` is told each
        new reason why a peer will not work with this server (fatal: stop it); ``on_failed`` gets what must stop
        this server: UnknownEntry, and whatever comes out of a callback. None of them may block.

        Raises ConfigError for a URL or an option that makes no sense.
        """
        self._options = options or TransportOptions()
        self._options.validate()
        self._hello = hello
        self._listen = {url: url_address(url) for url in listen_urls}
        self._process = secrets.randbits(63) | 1
        self._on_messages = on_messages
        self._on_peer_up = on_peer_up
        self._on_peer_down = on_peer_down
        self._on_refused = on_refused
        self._on_failed = on_failed
        self._me = hello().member.member_id
        self._book = PeerBook({self._me, *peers})
        self._log = RepeatLog(logger)
        self._up: dict[NodeId, set[_Way]] = {}
        self._told: dict[NodeId, Member] = {}
        self._by_node: dict[NodeId, PeerLink] = {}
        self._server: aio.Server | None = None
        self._closed = False
        self._service = PeerService(
            self._options,
            own_hello=self._own_hello,
            check=self._check,
            on_messages=self._received,
            on_up=lambda theirs: self._stream_up(theirs, _Way.IN),
            on_down=lambda node: self._stream_down(node, _Way.IN),
            on_failed=self._failed,
            log=self._log,
        )
        self._links = [
            self._link(member_id, url, random or Random())
            for member_id, url in peers.items()
            if member_id != self._me
        ]

    def _link(self, member_id: int, url: str, random: Random) -> PeerLink:
        return PeerLink(
            member_id,
            url,
            self._options,
            own_hello=self._own_hello,
            check=self._check,
            on_up=self._link_up,
            on_down=self._link_down,
            on_refused=self._refused,
            on_failed=self._failed,
            log=self._log,
            random=random,
        )

    async def start(self) -> None:
        """Listens, and begins to look for the peers. Raises ConfigError where an address cannot be had."""
        self._server = aio.server(
            handlers=[self._service.generic_handler()],
            options=server_options(self._options),
            maximum_concurrent_rpcs=STREAMS_MAX,
        )
        for url, address in self._listen.items():
            try:
                self._server.add_insecure_port(address)
            except RuntimeError:
                raise ConfigError(f"cannot listen for peers on {url}: {_why_not(address)}") from None
        await self._server.start()
        for link in self._links:
            link.start()

    def send(self, envelopes: Iterable[Envelope]) -> None:
        """Queues messages for whoever of their addressees is connected. Never blocks.

        Call it once a turn with all there is: what is queued together leaves together, and a message object that
        is in several envelopes is encoded once.
        """
        packed: dict[int, tuple[Message, Packed | None]] = {}
        for envelope in envelopes:
            link = self._by_node.get(envelope.to)
            if link is None:
                continue
            message = envelope.message
            # Kept with its key: the id of an object that is gone may be another's.
            known = packed.get(id(message))
            if known is None:
                known = packed[id(message)] = message, self._pack(message)
            if known[1] is not None:
                link.send(known[1])

    def connected(self) -> set[NodeId]:
        """The incarnations to which something can be sent now."""
        return set(self._by_node)

    def form(self, configuration: Configuration) -> None:
        """The decided configuration: from now on only the incarnations that it names are talked to.

        To be called when it is decided, and at a start after that, before ``start``.
        """
        self._book.form(configuration)
        for node in [node for node in self._up if not self._book.allows(node)]:
            self._service.disconnect(node)
            link = self._by_node.get(node)
            if link is not None:
                link.disconnect()

    def stats(self) -> list[PeerStats]:
        """One a peer, in the order in which the peers were given."""
        return [
            PeerStats(
                link.member_id,
                link.url,
                link.node,
                len(link.outbox),
                link.outbox.waiting_bytes,
                link.outbox.dropped,
            )
            for link in self._links
        ]

    async def close(self) -> None:
        """Ends every stream and stops listening. No callback is called any more."""
        self._closed = True
        await asyncio.gather(*(link.close() for link in self._links))
        # Handlers first: gRPC complains of those that it finds at work when it stops.
        await self._service.close()
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    # ---- what links and service say --------------------------------------------------------------------------

    def _own_hello(self) -> Hello:
        return replace(self._hello(), process=self._process)

    def _check(self, theirs: Hello) -> Refusal | None:
        refusal = check_hello(self._own_hello(), theirs, self._book)
        if refusal is None:
            self._book.hear(theirs)
        return refusal

    def _pack(self, message: Message) -> Packed | None:
        packed = pack(message)
        bytes_max = self._options.message_bytes_max
        if packed.lane is Lane.BACKGROUND:  # in pieces it would hold up those of an Accept
            bytes_max = self._options.piece_bytes_max + CHUNK_OVERHEAD_BYTES
        if len(packed.data) <= bytes_max:
            return packed
        kind = type(message).__name__
        self._log.say(
            logging.ERROR,
            f"size of {kind}",
            f"a message ({kind}) of {len(packed.data)} bytes is not sent: the most that a peer takes is "
            f"{bytes_max}",
        )
        return None

    def _received(self, node: NodeId, messages: list[Message]) -> None:
        if self._closed:
            return
        for message in messages:
            if type(message) is Promise or type(message) is Accepted:
                self._book.hear_promise(node, message.ballot)
        self._on_messages(node, messages)

    def _link_up(self, link: PeerLink, theirs: Hello) -> None:
        self._by_node[theirs.member.incarnation] = link
        self._stream_up(theirs, _Way.OUT)

    def _link_down(self, link: PeerLink, node: NodeId) -> None:
        if self._by_node.get(node) is link:
            del self._by_node[node]
        self._stream_down(node, _Way.OUT)

    def _stream_up(self, theirs: Hello, way: _Way) -> None:
        member = theirs.member
        self._up.setdefault(member.incarnation, set()).add(way)
        # Told again where a peer that was never seen to go has come back with other addresses.
        if self._told.get(member.incarnation) != member and not self._closed:
            self._told[member.incarnation] = member
            self._on_peer_up(member)

    def _stream_down(self, node: NodeId, way: _Way) -> None:
        ways = self._up.get(node, set())
        ways.discard(way)
        if ways:
            return
        self._up.pop(node, None)
        if self._told.pop(node, None) is not None and not self._closed:
            self._on_peer_down(node)

    def _refused(self, refusal: Refusal) -> None:
        if not self._closed:
            self._on_refused(refusal)

    def _failed(self, error: Exception) -> None:
        if not self._closed:
            self._on_failed(error)


def _why_not(address: str) -> str:
    """Why an address cannot be listened on: gRPC does not say, so the kernel is asked again."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, where in found:
            with socket.socket(family, kind, protocol) as probe:
                probe.bind(where)
    except OSError as error:
        return f"{error.strerror or error}. Stop what listens there, or change --listen-peer-urls"
    return "the address cannot be used. Change --listen-peer-urls"
