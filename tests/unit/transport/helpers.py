"""Transports on free ports of this machine, and what they were told."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.messages import Message
from paxos_rsm.paxos.quorum import QuorumSizes
from paxos_rsm.paxos.types import NO_BALLOT, NodeId
from paxos_rsm.testing.ports import PortHolder
from paxos_rsm.transport import Hello, Refusal, Transport, TransportOptions

PATIENCE_S = 30.0
"""How long a test waits for what should take milliseconds, on a machine that is busy with other things."""

CLUSTER = 77

MADE: list["Peer"] = []
"""Every peer of the test that runs; they are closed when it ends, whether or not it has done so."""

PORTS = PortHolder()
"""Of the test that runs: nobody else is given them before it ends, whether or not it listens on them yet."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, and nobody else will, until the end of the test."""
    return PORTS.take(count)


def url_of(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def hello_of(member_id: int, port: int = 1, **changes: object) -> Hello:
    """The Hello of the member's first process, but for ``changes``."""
    member = Member(1_000 + member_id, member_id, f"n{member_id}", url_of(port))
    hello = Hello(CLUSTER, member, boot_count=1, promised=NO_BALLOT, formed=False, process=member_id)
    return replace(hello, **changes)  # type: ignore[arg-type]


def configuration_of(*hellos: Hello) -> Configuration:
    members = tuple(hello.member for hello in hellos)
    return Configuration(CLUSTER, members, QuorumSizes(len(members), len(members), 1))


async def until(condition: Callable[[], object]) -> None:
    """Waits until a condition holds; fails after a time that no honest run takes."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - any condition, of things that know nothing of events
            await asyncio.sleep(0.002)


@dataclass
class Peer:
    """One server's transport with all its callbacks recorded."""

    hello: Hello
    transport: Transport = field(init=False)
    received: list[tuple[NodeId, Message]] = field(default_factory=list)
    frames: list[list[Message]] = field(default_factory=list)
    up: list[Member] = field(default_factory=list)
    down: list[NodeId] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    failed: list[Exception] = field(default_factory=list)

    @property
    def node(self) -> NodeId:
        return self.hello.member.incarnation

    def on_messages(self, sender: NodeId, messages: list[Message]) -> None:
        self.frames.append(messages)
        self.received += [(sender, message) for message in messages]


def make_peer(
    hello: Hello,
    members: Sequence[Hello],
    options: TransportOptions | None = None,
    listens: bool = True,
    dial: Callable[[Member], str] | None = None,
) -> Peer:
    """A server that knows ``members`` by their addresses. Not started."""
    peer = Peer(hello)
    peer.transport = Transport(
        hello=lambda: peer.hello,
        peers={each.member.member_id: each.member.peer_url for each in members},
        listen_urls=[hello.member.peer_url] if listens else [],
        on_messages=peer.on_messages,
        on_peer_up=peer.up.append,
        on_peer_down=peer.down.append,
        on_refused=peer.refused.append,
        on_failed=peer.failed.append,
        dial=dial,
        options=options,
        random=Random(hello.member.member_id),
    )
    MADE.append(peer)
    return peer


def make_peers(count: int, options: TransportOptions | None = None) -> list[Peer]:
    """Servers 1..count of one cluster. Not started."""
    hellos = [hello_of(i, port) for i, port in enumerate(free_ports(count), 1)]
    return [make_peer(hello, hellos, options) for hello in hellos]


async def start(*peers: Peer) -> None:
    """Starts them and waits until each can send to each other."""
    for peer in peers:
        await peer.transport.start()
    nodes = {peer.node for peer in peers}
    await until(lambda: all(peer.transport.connected() == nodes - {peer.node} for peer in peers))


async def close(*peers: Peer) -> None:
    await asyncio.gather(*(peer.transport.close() for peer in peers))
