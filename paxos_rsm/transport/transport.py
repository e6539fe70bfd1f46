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

The links follow the decided configuration (``form``): each member is looked for where it says that it is, from the
moment that it is added; who is removed is not looked for any more, and is told why when it calls. Before there is a
configuration, the links are those to the peers that the server was started with. A *stranger*, which knows of a
configuration and is not in ours, is looked for where its Hello says, so that we can ask it for what we missed.

A peer is *up* while at least one of the two streams is; ``connected`` says to whom something can be sent. Where nobody
is for long, or the cluster does not form, the log says who is missing (``lookout``).

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
from paxos_rsm.transport.describe import Description, encode_description
from paxos_rsm.transport.frames import Lane, Packed, pack
from paxos_rsm.transport.handshake import LEVEL, LEVEL_OF, Hello, PeerBook, Reason, Refusal, check_hello
from paxos_rsm.transport.log import RepeatLog
from paxos_rsm.transport.lookout import (
    ALONE_S,
    finds_nobody,
    has_not_formed,
    is_not_called,
    is_not_reached,
)
from paxos_rsm.transport.options import CHUNK_OVERHEAD_BYTES, TransportOptions, server_options
from paxos_rsm.transport.peer_link import PeerLink
from paxos_rsm.transport.peer_service import PeerService

__all__ = ["PeerStats", "Transport"]

REMOVED_GRACE_S = 5.0
"""So long the streams with a member that was removed live on."""

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
        dial: Callable[[Member], str] | None = None,
        options: TransportOptions | None = None,
        random: Random | None = None,
    ) -> None:
        """``peers`` is member id to URL, of all members; this server itself may be among them. ``dial`` says where a
        member of a configuration is looked for: under its ``peer_url``, where it is not given.

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
        self._dial = dial or (lambda member: member.peer_url)
        self._random = random
        self._configuration: Configuration | None = None
        self._me = hello().member.member_id
        self._book = PeerBook({self._me, *peers})
        self._log = RepeatLog(logger)
        self._up: dict[NodeId, set[_Way]] = {}
        self._told: dict[NodeId, Member] = {}
        self._levels: dict[NodeId, int] = {}
        """Of those that are up: what each understands."""
        self._by_node: dict[NodeId, PeerLink] = {}
        self._server: aio.Server | None = None
        self._started = False
        self._closed = False
        self._ending: set[asyncio.Task[None]] = set()
        self._met_at = 0.0
        """When somebody was up last."""
        self._one_way_since: dict[NodeId, float] = {}
        """Of those with whom there is but one of the two streams."""
        self._lookout: asyncio.TimerHandle | None = None
        self._service = PeerService(
            self._options,
            own_hello=self._own_hello,
            describe=self._describe,
            check=self._check,
            on_messages=self._received,
            on_up=lambda theirs: self._stream_up(theirs, _Way.IN),
            on_down=lambda node: self._stream_down(node, _Way.IN),
            on_failed=self._failed,
            log=self._log,
        )
        self._links = {
            member_id: self._link(member_id, url) for member_id, url in peers.items() if member_id != self._me
        }

    def _link(self, member_id: int, url: str) -> PeerLink:
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
            random=self._random or Random(),
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
        self._started = True
        for link in self._links.values():
            link.start()
        self._met_at = asyncio.get_running_loop().time()
        self._look_out()

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
            if type(message) in LEVEL_OF and self._levels.get(envelope.to, 0) < LEVEL_OF[type(message)]:
                continue
            # Kept with its key: the id of an object that is gone may be another's.
            known = packed.get(id(message))
            if known is None:
                known = packed[id(message)] = message, self._pack(message)
            if known[1] is not None:
                link.send(known[1])

    def connected(self) -> set[NodeId]:
        """The incarnations to which something can be sent now."""
        return set(self._by_node)

    def least_level(self) -> int:
        """What every member of the configuration understands (``handshake.LEVEL``); 0 while one of them is not up."""
        if self._configuration is None:
            return 0
        others = self._configuration.everybody - {self._hello().member.incarnation}
        return min((self._levels.get(node, 0) for node in others), default=LEVEL)

    def form(self, configuration: Configuration) -> None:
        """The decided configuration: who is spoken with from now on (``handshake``), and where they are looked for.

        To be called with each that is decided, in their order; at a start after that, before ``start``, with the
        newest.
        """
        self._configuration = configuration
        self._book.form(configuration)
        for member in configuration.members:
            self._look_for(member)
        for member_id in [m for m in self._links if not self._is_wanted(m)]:
            if self._links[member_id].node is None:
                self._end(self._links.pop(member_id))
        if not all(self._book.allows(node) for node in self._up):
            # Who was removed is needed until the others know it (paxos/changes.py), and learns it on these streams.
            asyncio.get_running_loop().call_later(REMOVED_GRACE_S, self._part)

    def _part(self) -> None:
        """Ends the streams with those who are no members any more."""
        if self._closed:
            return
        for member_id in [m for m in self._links if not self._is_wanted(m)]:
            self._end(self._links.pop(member_id))
        for node in [node for node in self._up if not self._book.allows(node)]:
            self._service.disconnect(node)
            link = self._by_node.get(node)
            if link is not None:
                link.disconnect()

    def arrived(self) -> list[Member]:
        """The members that are up, under their incarnations, and that the configuration names none of yet.

        What each has proposed (``Node.joined``) makes it a member in service. ``on_peer_up`` told of them too, but
        maybe to a server that did not lead then, or did not know yet that they were added.
        """
        return [
            m
            for m in self._told.values()
            if self._book.is_pending(m.member_id) and self._book.allows(m.incarnation)
        ]

    def stats(self) -> list[PeerStats]:
        """One a peer, in the order in which they became known."""
        return [
            PeerStats(
                link.member_id,
                link.url,
                link.node,
                len(link.outbox),
                link.outbox.waiting_bytes,
                link.outbox.dropped,
            )
            for link in self._links.values()
        ]

    async def close(self) -> None:
        """Ends every stream and stops listening. No callback is called any more."""
        self._closed = True
        if self._lookout is not None:
            self._lookout.cancel()
        await asyncio.gather(*(link.close() for link in self._links.values()), *self._ending)
        # Handlers first: gRPC complains of those that it finds at work when it stops.
        await self._service.close()
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    # ---- whom to look for ------------------------------------------------------------------------------------

    def _is_wanted(self, member_id: int) -> bool:
        return self._book.is_member(member_id) or self._book.is_stranger(member_id)

    def _look_for(self, member: Member) -> None:
        """Makes the link to a member, or turns it to where the member is now."""
        if member.member_id == self._me or self._closed:
            return
        link = self._links.get(member.member_id)
        if link is None and member.peer_url == self._hello().member.peer_url:
            return  # whose place we have taken, in a configuration of the past: there is only ourselves
        url = self._dial(member)
        try:
            if link is not None:
                link.move(url)
                return
            link = self._link(member.member_id, url)
        except ConfigError as error:
            # It is in the log, and every server reads it: no reason to stop.
            self._log.say(
                logging.ERROR,
                f"address of {member.member_id}",
                f"member {member.name!r} (id {member.member_id:x}) cannot be looked for: {error}. Correct it with "
                f"`paxos-rsm member update {member.member_id:x} --peer-urls URL`",
            )
            return
        self._links[member.member_id] = link
        if self._started:
            link.start()

    def _end(self, link: PeerLink) -> None:
        if self._started:
            task = asyncio.get_running_loop().create_task(link.close())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    # ---- whether anybody is found ----------------------------------------------------------------------------

    def _look_out(self) -> None:
        """Says who is missing, where nobody is up for long, or the cluster has not formed."""
        loop = asyncio.get_running_loop()
        self._lookout = loop.call_later(ALONE_S / 2, self._look_out)
        self._look_for_one_way(loop.time())
        if loop.time() - self._met_at < ALONE_S or not self._links:
            return
        me = self._hello()
        found = {member.member_id for member in self._told.values()}
        missing = [link for member_id, link in sorted(self._links.items()) if member_id not in found]
        if self._configuration is None and not me.joining:
            text = has_not_formed([link.url for link in missing]) if missing else ""
        else:
            away = [self._shown(link) for link in missing if not self._book.is_pending(link.member_id)]
            text = finds_nobody(me.member, away) if away and not self._up else ""
        if text:
            self._log.say(logging.WARNING, "lookout", text)

    def _look_for_one_way(self, now: float) -> None:
        """Says with whom there has been but one of the two streams for long."""
        one_way = {node: ways for node, ways in self._up.items() if len(ways) == 1 and node in self._told}
        self._one_way_since = {node: self._one_way_since.get(node, now) for node in one_way}
        for node, since in self._one_way_since.items():
            member = self._told[node]
            if now - since < ALONE_S or not self._book.allows(node):
                continue
            link = self._links.get(member.member_id)
            if _Way.IN not in one_way[node]:
                text = is_not_called(self._hello().member, member.name)
            elif link is not None:
                text = is_not_reached(member.name, link.url)
            else:
                continue
            self._log.say(logging.WARNING, f"one way {member.member_id}", text)

    def _shown(self, link: PeerLink) -> str:
        member = self._configuration.by_member_id(link.member_id) if self._configuration is not None else None
        return f"{member.name} ({link.url})" if member is not None and member.name else link.url

    # ---- what links and service say --------------------------------------------------------------------------

    def _own_hello(self) -> Hello:
        return replace(self._hello(), process=self._process)

    def _check(self, theirs: Hello) -> Refusal | None:
        refusal = check_hello(self._own_hello(), theirs, self._book)
        if refusal is None:
            self._book.hear(theirs)
        return refusal

    def _describe(self) -> bytes:
        return encode_description(Description(self._hello().cluster_id, self._configuration))

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
        self._levels[member.incarnation] = theirs.level
        if self._book.is_stranger(member.member_id) and member.member_id not in self._links:
            self._look_for(member)
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
        self._levels.pop(node, None)
        if not self._up:
            self._met_at = asyncio.get_running_loop().time()
        if self._told.pop(node, None) is not None and not self._closed:
            self._on_peer_down(node)

    def _refused(self, refusal: Refusal) -> None:
        if self._closed:
            return
        if self._own_hello().joining and self._is_unknown_to_all():
            refusal = replace(refusal, fatal=True)
        if refusal.reason is Reason.REMOVED and not self._is_removed_by_most():
            refusal = replace(refusal, fatal=False)
        self._on_refused(refusal)

    def _is_removed_by_most(self) -> bool:
        """Whether more than half of the peers say that we were removed.

        As long as few know, they may need our vote for others to learn it (paxos/changes.py, *Who may stop, and when*).
        """
        saying = [
            link.refusal is not None and link.refusal.reason is Reason.REMOVED
            for link in self._links.values()
        ]
        return 2 * sum(saying) > len(saying)

    def _is_unknown_to_all(self) -> bool:
        """Whether every peer says that we are no member: one alone may not have learned of us yet."""
        refusals = [link.refusal for link in self._links.values()]
        return all(each is not None and each.reason is Reason.NOT_A_MEMBER for each in refusals)

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
