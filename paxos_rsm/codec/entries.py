"""Entries, ballots and configurations as bytes: the same on the wire and on disk.

An entry is a kind and its data. The data of a batch is passed through untouched, so that a frame is encoded once,
by the client, and decoded once a server, by its state machine. A kind that this version does not know stops the
server (rule 12): it is never skipped. A configuration that is none is a ConfigError, whether its bytes do not parse or
say what cannot be; whoever read them, from a stream or from the log, says what that means there.
"""

from google.protobuf.message import DecodeError

from paxos_rsm._proto import paxos_pb2 as pb
from paxos_rsm.errors import ConfigError, UnknownEntry
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.quorum import QuorumSizes
from paxos_rsm.paxos.types import Ballot, Batch, ConfigChange, Entry, Noop

__all__ = [
    "ballot_from_pb",
    "ballot_to_pb",
    "configuration_from_pb",
    "configuration_to_pb",
    "entry_from_kind",
    "entry_from_pb",
    "entry_to_kind",
    "entry_to_pb",
    "member_from_pb",
    "member_to_pb",
]

NOOP = int(pb.ENTRY_KIND_NOOP)
BATCH = int(pb.ENTRY_KIND_BATCH)
CONFIG = int(pb.ENTRY_KIND_CONFIG)
CHANGED_CONFIG = int(pb.ENTRY_KIND_CHANGED_CONFIG)

MEMBERS_MAX = 1_024
"""Of a configuration: far above any cluster, and few enough that an error may list them."""
REASON_CHARS_MAX = 500


def ballot_to_pb(ballot: Ballot) -> pb.Ballot:
    """A ballot for the wire."""
    return pb.Ballot(round=ballot.round, node=ballot.node)


def ballot_from_pb(message: pb.Ballot) -> Ballot:
    """A ballot from the wire; an absent one is ``NO_BALLOT``."""
    return Ballot(message.round, message.node)


def member_to_pb(member: Member) -> pb.Member:
    """A member for the wire."""
    return pb.Member(
        incarnation=member.incarnation,
        member_id=member.member_id,
        name=member.name,
        peer_url=member.peer_url,
        client_urls=member.client_urls,
        learner=member.learner,
        promote=member.promote,
    )


def member_from_pb(message: pb.Member) -> Member:
    """A member from the wire."""
    return Member(
        message.incarnation,
        message.member_id,
        message.name,
        message.peer_url,
        tuple(message.client_urls),
        message.learner,
        message.promote,
    )


def configuration_to_pb(configuration: Configuration) -> pb.Configuration:
    """A configuration for the wire."""
    return pb.Configuration(
        cluster_id=configuration.cluster_id,
        members=[member_to_pb(m) for m in configuration.members],
        phase1_quorum=configuration.quorum.phase1,
        phase2_quorum=configuration.quorum.phase2,
        removed=configuration.removed,
        changes=configuration.changes,
    )


def configuration_from_pb(message: pb.Configuration) -> Configuration:
    """A configuration from the wire. Raises ConfigError where it breaks an invariant of the type."""
    if len(message.members) > MEMBERS_MAX:
        raise ConfigError(f"a configuration names {len(message.members)} members; the most are {MEMBERS_MAX}")
    members = tuple(member_from_pb(m) for m in message.members)
    voters = sum(not member.learner for member in members)
    quorum = QuorumSizes(voters, message.phase1_quorum, message.phase2_quorum)
    configuration = Configuration(
        message.cluster_id, members, quorum, tuple(message.removed), tuple(message.changes)
    )
    try:
        configuration.validate()
    except ConfigError as error:
        # It repeats names, which may be as long as a message.
        raise ConfigError(str(error)[:REASON_CHARS_MAX]) from None
    return configuration


def entry_to_kind(entry: Entry) -> tuple[int, bytes]:
    """The kind and the data of an entry."""
    if type(entry) is Batch:
        return BATCH, entry.data
    if type(entry) is ConfigChange:
        data = configuration_to_pb(entry.configuration).SerializeToString(deterministic=True)
        # What an older version would count as it always did, in other quorums, has a kind at which that one stops.
        return (CHANGED_CONFIG if _is_changed(entry.configuration) else CONFIG), data
    return NOOP, b""


def _is_changed(configuration: Configuration) -> bool:
    """Whether it says what the first one of a cluster does not."""
    learns = any(member.learner for member in configuration.members)
    return learns or bool(configuration.removed or configuration.changes)


def entry_from_kind(kind: int, data: bytes) -> Entry:
    """The entry of a kind and its data.

    Raises UnknownEntry for a kind of a later version, ConfigError for a configuration that is none.
    """
    if kind == BATCH:
        return Batch(data)
    if kind == NOOP:
        return Noop()
    if kind in (CONFIG, CHANGED_CONFIG):
        return ConfigChange(configuration_from_pb(_configuration(data)))
    raise UnknownEntry(
        f"an entry of kind {kind} is unknown to this version of paxos_rsm; it is not skipped. "
        "Upgrade this server to the version that the rest of the cluster runs"
    )


def _configuration(data: bytes) -> pb.Configuration:
    try:
        return pb.Configuration.FromString(data)
    except DecodeError:
        raise ConfigError(f"{len(data)} bytes are no Configuration") from None


def entry_to_pb(entry: Entry) -> pb.Entry:
    """An entry for the wire."""
    kind, data = entry_to_kind(entry)
    return pb.Entry(kind=pb.EntryKind.ValueType(kind), data=data)


def entry_from_pb(message: pb.Entry) -> Entry:
    """An entry from the wire. Raises as :func:`entry_from_kind` does."""
    return entry_from_kind(message.kind, message.data)
