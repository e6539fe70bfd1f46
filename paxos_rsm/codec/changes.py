"""Changes of the members as bytes, and back: what a server asks of the leader.

What makes no sense here (no member named, an incarnation beyond 63 bits) is a ConfigError; whether a change may be
made is for :mod:`paxos_rsm.paxos.changes` to say.
"""

from paxos_rsm._proto import paxos_pb2 as pb
from paxos_rsm.codec.entries import member_from_pb, member_to_pb
from paxos_rsm.errors import ConfigError
from paxos_rsm.paxos.changes import (
    AddMember,
    Change,
    JoinMember,
    PromoteMember,
    RemoveMember,
    UpdateMember,
)
from paxos_rsm.paxos.membership import Member

__all__ = ["change_from_pb", "change_to_pb"]

INCARNATION_MAX = (1 << 63) - 1


def change_to_pb(change: Change) -> pb.Change:
    """A change for the wire."""
    if isinstance(change, AddMember):
        return pb.Change(add=member_to_pb(change.member))
    if isinstance(change, JoinMember):
        joins = Member(change.incarnation, change.member_id, change.name, change.peer_url, change.client_urls)
        return pb.Change(join=member_to_pb(joins))
    if isinstance(change, UpdateMember):
        updated = Member(0, change.member_id, "", change.peer_url, change.client_urls)
        return pb.Change(update=member_to_pb(updated))
    if isinstance(change, RemoveMember):
        return pb.Change(remove=change.member_id)
    return pb.Change(promote=change.member_id)


def change_from_pb(message: pb.Change) -> Change:
    """A change from the wire. Raises ConfigError."""
    kind = message.WhichOneof("change")
    if kind is None:
        raise ConfigError("it names no change that this version knows")
    if kind == "remove":
        return RemoveMember(message.remove)
    if kind == "promote":
        return PromoteMember(message.promote)
    member: Member = member_from_pb(getattr(message, kind))
    if kind == "add":
        return AddMember(member)
    if kind == "update":
        return UpdateMember(member.member_id, member.peer_url, member.client_urls)
    if not 0 < member.incarnation <= INCARNATION_MAX:
        raise ConfigError(f"{member.incarnation} is no incarnation")
    return JoinMember(member.member_id, member.incarnation, member.name, member.client_urls, member.peer_url)
