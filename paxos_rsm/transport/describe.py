"""What a server asks that comes to join a cluster which runs: who the members are, and which of them it is to be.

It has no identity yet, so no stream can be opened: the streams begin with one. It asks by the call ``Describe``, on
the peer port, which says the cluster's id and its configuration to whoever comes. Among the members it finds itself by
its peer URL: the one that an operator has added under that URL and that has yet to join.

A server that is asked may not have learned yet that the newcomer was added, so the others are asked too, and all of
them again for a while, before the newcomer is told that it was not.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from paxos_rsm._proto import paxos_pb2 as pb
from paxos_rsm.codec.entries import configuration_from_pb, configuration_to_pb
from paxos_rsm.codec.messages import NUMBER_MAX, MalformedMessage
from paxos_rsm.config import url_address
from paxos_rsm.errors import ConfigError, RefusedByCluster
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.transport.handshake import how_to_add, shown
from paxos_rsm.transport.options import TransportOptions, channel_options

__all__ = [
    "DESCRIBE_METHOD",
    "Description",
    "decode_description",
    "describe",
    "encode_description",
    "join_identity",
]

DESCRIBE_METHOD = "/paxos_rsm.v1.Paxos/Describe"

PATIENCE_S = 30.0
"""Until somebody has to answer."""
LAG_S = 5.0
"""Until those who answered have to have learned of us."""
PAUSE_S = 0.25
CALL_S = 3.0

MEMBERS_SHOWN_MAX = 20

NO_PEER_PORT = "it takes no server that joins: that is the address for clients, or a version before this one"


@dataclass(frozen=True, slots=True)
class Description:
    """What a server says of its cluster."""

    cluster_id: int
    configuration: Configuration | None
    """None while the cluster is forming, as far as that server knows."""


def encode_description(description: Description) -> bytes:
    """The answer to Describe."""
    message = pb.DescribeResponse(cluster_id=description.cluster_id)
    if description.configuration is not None:
        message.configuration.CopyFrom(configuration_to_pb(description.configuration))
    return message.SerializeToString()


def decode_description(data: bytes) -> Description:
    """The answer to Describe, read. Raises MalformedMessage where it is none, or says what cannot be."""
    try:
        message = pb.DescribeResponse.FromString(data)
    except DecodeError:
        raise MalformedMessage(f"{len(data)} bytes are not a DescribeResponse") from None
    if not 0 < message.cluster_id <= NUMBER_MAX:
        raise MalformedMessage(f"a cluster has the id {message.cluster_id}; it is from 1 to {NUMBER_MAX}")
    if not message.HasField("configuration"):
        return Description(message.cluster_id, None)
    try:
        configuration = configuration_from_pb(message.configuration)
    except ConfigError as error:
        raise MalformedMessage(f"a configuration that is none: {error}") from None
    if configuration.cluster_id != message.cluster_id:
        raise MalformedMessage(
            f"cluster {message.cluster_id:x} has the configuration of cluster {configuration.cluster_id:x}"
        )
    if not all(0 < member.member_id <= NUMBER_MAX for member in configuration.members):
        raise MalformedMessage(f"a member id is not from 1 to {NUMBER_MAX}")
    return Description(message.cluster_id, configuration)


def join_identity(description: Description, name: str, peer_url: str) -> tuple[int, int]:
    """The cluster id and the member id with which the server ``name`` at ``peer_url`` joins.

    Raises RefusedByCluster where no member waits for it, with what is to be done.
    """
    configuration = description.configuration
    if configuration is None:
        raise RefusedByCluster(
            f"cluster {description.cluster_id:x} is still forming: a member that is there from the start is started "
            "with --initial-cluster-state new"
        )
    ours = [member for member in configuration.members if _is_same(member.peer_url, peer_url)]
    pending = [member for member in ours if not member.incarnation]
    for member in pending:
        if member.name in ("", name):
            return description.cluster_id, member.member_id
    where = f"cluster {description.cluster_id:x}"
    for member in pending:
        raise RefusedByCluster(
            f"{_who(member)} has yet to join {where}, and this server is called {name!r}: start it with --name "
            f"{shown(member.name)}, or remove that member and add this one: {_how(name, peer_url)}"
        )
    for member in ours:
        raise RefusedByCluster(
            f"{_who(member)} is in {where} already, and has a data directory that this server does not have. Start it "
            "with that directory; where it is lost, remove the old member with `paxos-rsm member remove "
            f"{member.member_id:x}` and add this server as a new one: {_how(name, peer_url)}"
        )
    for member in configuration.members:
        if member.name == name:
            raise RefusedByCluster(
                f"{_who(member)} is in {where}, and this server, of the same name, says that it is reached under "
                f"{peer_url}: correct --initial-cluster, or `paxos-rsm member update {member.member_id:x} "
                f"--peer-urls {peer_url}`, or start it under a name of its own"
            )
    there = ", ".join(
        f"{shown(m.name) or '(not started yet)'}={shown(m.peer_url)}"
        for m in configuration.members[:MEMBERS_SHOWN_MAX]
    )
    raise RefusedByCluster(
        f"this server, {name!r} at {peer_url}, is not a member of {where}, which has {there}. "
        f"Add it first: {_how(name, peer_url)}"
    )


def _is_same(one: str, other: str) -> bool:
    """Whether two URLs are one address."""
    try:
        return url_address(one) == url_address(other)
    except ConfigError:
        return one == other


def _who(member: Member) -> str:
    return f"member {shown(member.name)!r} (id {member.member_id:x}) at {shown(member.peer_url)}"


def _how(name: str, peer_url: str) -> str:
    return how_to_add(Member(0, 0, name, peer_url))


def _accept(_description: Description) -> None:
    """Whatever is said is taken."""


async def describe(
    urls: Sequence[str],
    *,
    check: Callable[[Description], object] = _accept,
    patience_s: float = PATIENCE_S,
    lag_s: float = LAG_S,
    options: TransportOptions | None = None,
) -> Description:
    """Asks the servers at ``urls`` in turn, again and again, until one has a configuration that ``check`` takes.

    ``check`` may raise RefusedByCluster (``join_identity`` does): it is raised here once that was the best of all the
    answers for ``lag_s``. Raises RefusedByCluster too where all that answer are still forming, and ConfigError where
    nobody answers within ``patience_s``, or a URL is none.
    """
    addresses = {url: url_address(url) for url in urls}
    if not addresses:
        raise ConfigError(
            "there is nobody to ask about the cluster: name its members in --initial-cluster, this server among them"
        )
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience_s
    refused_at: float | None = None
    while True:
        refusal: RefusedByCluster | None = None
        forming: str | None = None
        silent: list[str] = []
        for url, address in addresses.items():
            try:
                description = await _ask(address, options or TransportOptions())
            except _NoAnswer as error:
                silent.append(f"{url} ({error})")
                continue
            if description.configuration is None:
                forming = url
                continue
            try:
                check(description)
            except RefusedByCluster as error:
                refusal = error
                continue
            return description
        now = loop.time()
        if refusal is None:
            refused_at = None
        else:
            refused_at = now if refused_at is None else refused_at
            if now >= min(refused_at + lag_s, deadline):
                raise refusal
        if now >= deadline:
            raise _nobody(forming, silent, patience_s)
        await asyncio.sleep(PAUSE_S)


class _NoAnswer(Exception):
    """Says why one server did not answer."""


async def _ask(address: str, options: TransportOptions) -> Description:
    async with aio.insecure_channel(address, options=channel_options(options)) as channel:
        method: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(DESCRIBE_METHOD)
        try:
            return decode_description(await method(b"", timeout=CALL_S))
        except aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise _NoAnswer(NO_PEER_PORT) from None
            raise _NoAnswer(f"{error.code().name} {error.details() or ''}".strip()) from None
        except MalformedMessage as error:
            raise _NoAnswer(str(error)) from None


def _nobody(forming: str | None, silent: Sequence[str], patience_s: float) -> ConfigError | RefusedByCluster:
    asked = f"; no answer from {'; '.join(silent)}" if silent else ""
    if forming is not None:
        return RefusedByCluster(
            f"the cluster at {forming} is still forming after {patience_s:g} s, and a server can only join one that "
            f"runs{asked}. Start its other members first; a member that is there from the start is started with "
            "--initial-cluster-state new"
        )
    return ConfigError(
        f"--initial-cluster-state existing: no server of the cluster has answered within {patience_s:g} s{asked}. "
        "Check the addresses in --initial-cluster, and that the servers run"
    )
