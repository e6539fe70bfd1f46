"""Who may speak to whom: what each end of a new stream says of itself, and why the other may refuse it.

A stream begins with a :class:`Hello` from the caller, answered by a Hello or a :class:`Refusal`; nothing else is
said before. Both ends check with :func:`check_hello`, against a :class:`PeerBook` that remembers who is who:

- which incarnation the decided configuration names under each member id (nobody, until the cluster has formed).
  Another incarnation under a known id is a data directory that was wiped or swapped, and it has lost the votes
  that were cast under that name (rule 9). A *pending* member was added and has never been heard of: whoever comes
  under its id is spoken with, until the configuration names one;
- which incarnations were removed. The configuration carries them on, so that a server that starts knows them too;
- of each incarnation, the highest boot count heard, which process spoke then, and the highest ballot it has told
  us that it promised. A directory that says less than it said before is an old copy. The same boot count from a
  second process is a copy in use twice, or an old copy that was started until its count fitted.

A book is in memory: a server that has itself restarted has forgotten. An old copy that no peer that remembers
is there to meet, or one taken after the last promise and at the last boot, cannot be told.

Within one process nothing is compared but the process: its Hello may be read after younger messages that came
on the stream of the other direction.

The configuration that a server knows may be old. Who has learned of one and is not in ours may be in a later one,
and may be the only one to tell us of it: it is spoken with. To speak is not to count: votes count by incarnation, in
the configuration that governs the slot (``paxos``). Who comes to join and is not in ours yet is told so, and asks
again.

*Fatal* is a refusal after which the refused server should stop: its directory must never vote again (rolled back,
removed), or it is not formed itself, has nothing to lose, and meets a formed cluster that will not have it. All
else is said again at every attempt until an operator has put it right: a server in service does not stop on
the word of a stranger that was started under the address of a peer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType

from paxos_rsm._proto import paxos_pb2 as pb
from paxos_rsm.codec.entries import ballot_to_pb, member_from_pb, member_to_pb
from paxos_rsm.codec.messages import NUMBER_MAX, MalformedMessage, read_ballot
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.messages import StateDigest
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, NodeId

__all__ = [
    "LEVEL",
    "LEVEL_OF",
    "PROTOCOL_VERSIONS",
    "Hello",
    "PeerBook",
    "Reason",
    "Refusal",
    "check_hello",
    "hello_from_pb",
    "hello_to_pb",
    "how_to_add",
    "refusal_from_pb",
    "refusal_to_pb",
    "shown",
]

PROTOCOL_VERSIONS = (1,)
"""The versions of the protocol between servers that this code speaks."""

LEVEL = 1
"""What this code understands beyond that, each level all below it. 1: the message StateDigest, and the command of the
key-value store that sets its quota. A server says nothing to a peer, and leaves nothing in the log, that asks for a
level which some of those concerned do not have."""

LEVEL_OF: Mapping[type, int] = MappingProxyType({StateDigest: 1})
"""What a peer must understand to be sent a message that the first version would end the stream for."""

TEXT_CHARS_MAX = 4_096
LIST_ITEMS_MAX = 256

STRANGERS_MAX = 64
"""Servers that know of a configuration which we do not, at a time."""

SHOWN_CHARS_MAX = 200
"""Of a text of another server that is said again in a sentence."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What a server says of itself at the start of every stream.

    ``promised`` is a promise that is *durable*: a higher one, lost in a crash, would make an honest server look
    rolled back. ``process`` is a random number of this process, not 0; the transport puts it in.
    """

    cluster_id: int
    member: Member
    boot_count: int
    promised: Ballot
    formed: bool
    versions: tuple[int, ...] = PROTOCOL_VERSIONS
    process: int = 0
    joining: bool = False
    """It was added to a cluster that ran, and does not know the configuration yet. Never together with ``formed``."""
    restored_from: str = ""
    """The checksum of the backup that its directory was restored from; it is part of the cluster's id."""
    level: int = LEVEL
    """What the sender understands; of a version that does not say it, 0."""


class Reason(IntEnum):
    """Why a server will not work with another. The numbers are those of the wire."""

    UNSPECIFIED = 0
    WRONG_CLUSTER = 1
    UNKNOWN_INCARNATION = 2
    ROLLED_BACK = 3
    NOT_A_MEMBER = 4
    VERSION = 5
    REMOVED = 6


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer to a Hello that is not accepted; ``message`` is for the operator of the refused server."""

    reason: Reason
    message: str
    fatal: bool


@dataclass(slots=True)
class _Heard:
    boot_count: int
    process: int
    promised: Ballot
    name: str


class PeerBook:
    """What a server remembers of the others. See the module's docstring."""

    def __init__(self, member_ids: frozenset[int] | set[int]) -> None:
        self._named: dict[int, NodeId | None] = dict.fromkeys(member_ids)
        self._removed: set[NodeId] = set()
        self._heard: dict[NodeId, _Heard] = {}
        self._last_of: dict[int, NodeId] = {}
        self._strangers: dict[int, NodeId] = {}
        self._allowed: set[NodeId] = set()
        self.formed = False

    def form(self, configuration: Configuration) -> None:
        """The decided configuration names the incarnations from now on; whom it no longer names is removed."""
        before = {node for node in self._named.values() if node is not None}
        self._named = {member.member_id: member.incarnation or None for member in configuration.members}
        self._removed |= before
        self._removed.update(configuration.removed)
        self._removed -= configuration.everybody
        self._strangers = {
            member_id: node
            for member_id, node in self._strangers.items()
            if member_id not in self._named and node not in self._removed
        }
        self.formed = True
        self._last_of = {m: n for m, n in self._last_of.items() if self._stands_for(m, n)}
        kept = set(self._last_of.values())
        self._heard = {node: heard for node, heard in self._heard.items() if node in kept}
        self._allowed = kept | configuration.everybody

    def is_member(self, member_id: int) -> bool:
        """Whether the configuration (before there is one: the list this server was started with) has this member."""
        return member_id in self._named

    def named(self, member_id: int) -> NodeId | None:
        """The incarnation that the configuration names; None before the cluster has formed, and of a pending member."""
        return self._named.get(member_id)

    def is_pending(self, member_id: int) -> bool:
        """Whether the configuration has this member and names no incarnation of it: it has yet to join."""
        return self.formed and member_id in self._named and self._named[member_id] is None

    def is_removed(self, node: NodeId) -> bool:
        """Whether this incarnation was a member, of the configuration's word or our own memory, and is none now."""
        return node in self._removed

    def allows(self, node: NodeId) -> bool:
        """Whether streams with this incarnation may live on."""
        return not self.formed or node in self._allowed

    def _stands_for(self, member_id: int, node: NodeId) -> bool:
        """Whether an incarnation that was heard under a member id is the one that it names, or may be."""
        if member_id in self._named:
            return self._named[member_id] in (None, node) and node not in self._removed
        return self._strangers.get(member_id) == node

    def is_stranger(self, member_id: int) -> bool:
        """Whether one is spoken with under this id that is in no configuration that we know."""
        return member_id in self._strangers

    def takes_stranger(self, hello: Hello) -> bool:
        """Whether one that is not in the configuration is spoken with: it has learned of one, maybe a later one."""
        return hello.formed and (
            hello.member.member_id in self._strangers or len(self._strangers) < STRANGERS_MAX
        )

    def hear(self, hello: Hello) -> None:
        """Remembers a Hello that was accepted."""
        node, member_id = hello.member.incarnation, hello.member.member_id
        if member_id not in self._named:
            self._strangers[member_id] = node
        known = self._heard.get(node)
        if known is None:
            # Before it has a place in the configuration a member may still be wiped; keep one of each, whoever calls.
            before = self._last_of.get(member_id, 0)
            self._heard.pop(before, None)
            self._allowed.discard(before)
            self._last_of[member_id] = node
            self._allowed.add(node)
            known = self._heard[node] = _Heard(0, 0, NO_BALLOT, "")
        known.boot_count, known.process = hello.boot_count, hello.process
        known.promised = max(known.promised, hello.promised)
        known.name = hello.member.name

    def hear_promise(self, node: NodeId, ballot: Ballot) -> None:
        """Remembers that a peer has said it promised ``ballot``, or voted in it."""
        known = self._heard.get(node)
        if known is not None and known.promised < ballot:
            known.promised = ballot

    def rolled_back(self, hello: Hello) -> str | None:
        """How this Hello says less than what the same incarnation said before, as half a sentence."""
        known = self._heard.get(hello.member.incarnation)
        if known is None or known.process == hello.process:
            return None
        if hello.boot_count < known.boot_count:
            return f"it says it was started {hello.boot_count} times, after {known.boot_count} times before"
        if hello.boot_count == known.boot_count:
            return f"another process has spoken for it in its start number {known.boot_count}"
        if hello.promised < known.promised:
            return f"it has forgotten a promise: it says {hello.promised}, and said {known.promised} before"
        return None


def check_hello(mine: Hello, theirs: Hello, known: PeerBook) -> Refusal | None:
    """Why the server ``mine`` will not work with ``theirs``; None where it will."""
    member = theirs.member
    who = f"member {shown(member.name)!r} (id {member.member_id:x}, incarnation {member.incarnation:x})"
    outsider = known.formed and not theirs.formed
    if theirs.cluster_id != mine.cluster_id and theirs.restored_from != mine.restored_from:
        return Refusal(
            Reason.WRONG_CLUSTER,
            f"{who}, of cluster {theirs.cluster_id:x}, {_began(theirs)}; {mine.member.name!r} at "
            f"{mine.member.peer_url}, of cluster {mine.cluster_id:x}, {_began(mine)}. The members of one cluster are "
            "all restored from one and the same backup file (`paxos-rsm snapshot restore`), or none of them is"
            + (_how_to_join(member) if outsider else ""),
            outsider,
        )
    if theirs.cluster_id != mine.cluster_id:
        return Refusal(
            Reason.WRONG_CLUSTER,
            f"{who} belongs to cluster {theirs.cluster_id:x}, but {mine.member.name!r} at "
            f"{mine.member.peer_url} to cluster {mine.cluster_id:x}: check that both were started with the same "
            "--initial-cluster and --initial-cluster-token, and that each address is that of the member it names"
            + (_how_to_join(member) if outsider else ""),
            outsider,
        )
    if not set(theirs.versions) & set(mine.versions):
        return Refusal(
            Reason.VERSION,
            f"{who} speaks versions {_listed(theirs.versions)} of the protocol between servers, "
            f"{mine.member.name!r} speaks {_listed(mine.versions)}: upgrade the older of the two, by way of a "
            "release that speaks both",
            False,
        )
    if member.member_id == mine.member.member_id:
        return Refusal(
            Reason.NOT_A_MEMBER,
            f"{who} has the member id of {mine.member.name!r} at {mine.member.peer_url} itself: two servers were "
            "started under one name, or an address leads a server back to itself; give each its own",
            False,
        )
    if known.is_removed(member.incarnation):
        return Refusal(
            Reason.REMOVED,
            f"{who} was removed from the cluster and takes no part in it any more. To bring the server back as a new "
            f"member: {how_to_add(member)}",
            True,
        )
    if not known.is_member(member.member_id) and not known.takes_stranger(theirs):
        return Refusal(
            Reason.NOT_A_MEMBER,
            f"{who} is not a member of cluster {mine.cluster_id:x}. Add it: {how_to_add(member)}. Or correct its "
            "--name, --initial-advertise-peer-urls and --initial-cluster",
            # One that was just added may ask before we have learned of it.
            outsider and not theirs.joining,
        )
    return _check_directory(theirs, who, known, outsider)


def _check_directory(theirs: Hello, who: str, known: PeerBook, outsider: bool) -> Refusal | None:
    """Whether the data directory is the one that goes with the name, and no older than it was."""
    named = known.named(theirs.member.member_id)
    if named is not None and named != theirs.member.incarnation:
        return Refusal(
            Reason.UNKNOWN_INCARNATION,
            f"{who} has a data directory that this cluster does not know; it knows this member by incarnation "
            f"{named:x}. The directory was wiped or replaced, and the votes that were in it are gone, so it cannot "
            "come back under the old identity. Start it with its own old directory; where that is lost, remove the "
            f"old member with `paxos-rsm member remove {theirs.member.member_id:x}` and add this server as a new "
            f"one: {how_to_add(theirs.member)}",
            outsider,
        )
    how = known.rolled_back(theirs)
    if how is not None:
        return Refusal(
            Reason.ROLLED_BACK,
            f"{who} runs on an old copy of its data directory, or a second server runs on a copy of it: {how}. "
            "It must not vote: stop it, and start the server that has the latest directory; where that is lost, "
            f"remove the member with `paxos-rsm member remove {theirs.member.member_id:x}` and add it as a new one: "
            f"{how_to_add(theirs.member)}",
            True,
        )
    return None


def how_to_add(member: Member) -> str:
    """What an operator does to make a new member of a server, as half a sentence."""
    name, url = shown(member.name) or "NAME", shown(member.peer_url) or "URL"
    return (
        f"`paxos-rsm member add {name} --peer-urls {url}`, then start it with an empty data directory and "
        "--initial-cluster-state existing"
    )


def _how_to_join(member: Member) -> str:
    return (
        f". To join the cluster that runs: {how_to_add(member)}. Where `paxos-rsm member list` has a member at that "
        "address whose directory is lost, remove that one first"
    )


def shown(text: str) -> str:
    """A text of another server, short enough for a sentence."""
    return text if len(text) <= SHOWN_CHARS_MAX else f"{text[:SHOWN_CHARS_MAX]}..."


def _began(hello: Hello) -> str:
    return (
        f"was restored from the backup {shown(hello.restored_from)}" if hello.restored_from else "began empty"
    )


def _listed(versions: tuple[int, ...]) -> str:
    return ", ".join(map(str, versions)) or "none"


# ---- on the wire -----------------------------------------------------------------------------------------


def hello_to_pb(hello: Hello) -> pb.Hello:
    """A Hello for the wire."""
    return pb.Hello(
        cluster_id=hello.cluster_id,
        member=member_to_pb(hello.member),
        boot_count=hello.boot_count,
        promised=ballot_to_pb(hello.promised),
        formed=hello.formed,
        versions=hello.versions,
        process=hello.process,
        joining=hello.joining,
        restored_from=hello.restored_from,
        level=hello.level,
    )


def hello_from_pb(message: pb.Hello) -> Hello:
    """A Hello from the wire. Raises MalformedMessage where a part is missing or out of bounds."""
    member = message.member
    for what, number in (
        ("cluster id", message.cluster_id),
        ("member id", member.member_id),
        ("incarnation", member.incarnation),
        ("boot count", message.boot_count),
    ):
        if not 0 < number <= NUMBER_MAX:
            raise MalformedMessage(f"a Hello has the {what} {number}; it is from 1 to {NUMBER_MAX}")
    if not message.process:
        raise MalformedMessage("a Hello does not say which process it is from")
    if max(len(member.client_urls), len(message.versions)) > LIST_ITEMS_MAX:
        raise MalformedMessage(f"a Hello has a list of more than {LIST_ITEMS_MAX} items")
    texts = (member.name, member.peer_url, *member.client_urls, message.restored_from)
    if any(len(text) > TEXT_CHARS_MAX for text in texts):
        raise MalformedMessage(f"a Hello has a text of more than {TEXT_CHARS_MAX} characters")
    return Hello(
        message.cluster_id,
        member_from_pb(member),
        message.boot_count,
        read_ballot(message, "promised"),
        message.formed,
        tuple(message.versions),
        message.process,
        message.joining,
        message.restored_from,
        message.level,
    )


def refusal_to_pb(refusal: Refusal) -> pb.Refusal:
    """A Refusal for the wire."""
    reason = pb.Refusal.Reason.ValueType(int(refusal.reason))
    return pb.Refusal(reason=reason, message=refusal.message, fatal=refusal.fatal)


def refusal_from_pb(message: pb.Refusal) -> Refusal:
    """A Refusal from the wire; a reason of a later version is UNSPECIFIED, its sentence is kept."""
    try:
        reason = Reason(message.reason)
    except ValueError:
        reason = Reason.UNSPECIFIED
    return Refusal(reason, message.message[:TEXT_CHARS_MAX], message.fatal)
