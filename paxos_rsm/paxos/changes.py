"""How one configuration becomes the next.

A change names one member and says what becomes of it; :func:`changed` makes the next configuration of it, or refuses
with a sentence and a :class:`Reason`. It is a function of its arguments and nothing else: what depends on who is
there (:func:`check_reach`) and on how far a learner is (reconfiguration.py) is asked of the leader before.

The way of a server into the cluster and out of it::

    AddMember        named by its id and address; a learner without an incarnation: whoever is to be it has not been met
    JoinMember       the process that was met under that address brings its incarnation; the first one wins, for good
    PromoteMember    it has caught up: from the next slot on it counts
    UpdateMember     its addresses
    RemoveMember     from the next slot on it does not count; its incarnation never may again

A machine is replaced by adding another and removing the first; a directory that was wiped is another member, too.

**One at a time, and why that is enough** (rule 10). A configuration decided in slot s governs from s + 1, and
"decided" is said only of a slot below which everything is decided, too. So which configuration governs a slot is a
fact of the log, and not an opinion. A leader presumes it while slots below are in flight; where it presumed wrongly,
that must not count.

Let v be decided in slot t, in ballot b, by the tally of b's leader. All below t was decided, and known to that
leader, so it counted a phase-2 quorum of the configuration C that does govern t. Let b' > b be another ballot that
proposes in t.

1. *Its leader, too, takes C to govern t.* Then it holds promises that cover t from a phase-1 quorum of C; the two
   quorums meet (``QuorumSizes.validate``), and it proposes v (rule 5).
2. *It takes another.* Then there is a lowest slot s < t that decides a change and in which, in b', something else was
   proposed. Up to s its leader is right about who governs. If s was decided in a ballot up to b, case 1 holds for s:
   it proposes that very change there, and nothing beyond before that is decided. So it proposes nothing in t.

It remains that nobody decides under a configuration in a ballot below the one that decided *it*. A leader of b that
decided s itself, in b, does not. Another had learned of s. If it did so before it sent the first Prepare of b, then
every promise and vote of b is younger than the decision of s, and those who promised or voted when s was decided
refuse b, if b is lower. They cannot all be avoided: of the two kinds of quorum the larger is more than half, and more
than half of the voters before meets more than half of those after, where one is added or removed. If it learned of s
in the middle of phase 1, its promises may be older than the decision: so a candidate that learns of a change prepares
anew, in a ballot of its own for the new configuration (``Proposer.outgrown``). Otherwise: let 1..5 decide with 2
votes. All have promised 5 to server 3, in messages that are late; then four have promised 7 to server 5, which
proposes x in s + 1, in messages that are later still, and loses its own vote in a crash; then four have promised 10
to server 1, which decides in s, with 2, that 6 votes. Server 3 hears of that, leads in 5, and decides v in s + 1 with
6; and x overtakes v there, for 7 is more than 5. (tests/scripts tells it.)

*Why the tally goes in the order of the slots* (``Learner.tally``). Counted as they come, slots beyond a hole would be
decided with the quorums that were presumed. Let 1..5 decide with 2 votes again. Leader 1 has voted for a batch in s,
and 1 and 5 for x in s + 1. Leader 2, with the promises of 2..5, finds an older vote in s, for the removal of 5; it
decides that with 3, and dies. Leader 3 has the promises of 2, 3 and 4, a quorum of 1..4, none of which has heard of
x. Had leader 1 taken x as decided, there would be two values. (With majorities these quorums happen to meet. We do
not rely on it.)

**Who may stop, and when.** A member that was removed is still needed until a phase-2 quorum of the new configuration
knows that the change is decided: let 1..4 remove 4, decided by 1, 2 and 4; if 4 stopped at once and 1 died, 2 and 3
would be a quorum of the three that are left, and not of the four that they still believe in. So who is removed votes
on, stands no more (others refuse to promise to it, once they know), asks the others what they know, and is done when
a quorum has told it (``Node.removed``).
"""

import enum
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TypeAlias

from paxos_rsm.errors import MembershipRefused
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.quorum import QuorumSizes

__all__ = [
    "CHANGES_KEPT",
    "LEARNERS_MAX",
    "MEMBERS_MAX",
    "AddMember",
    "Change",
    "JoinMember",
    "PromoteMember",
    "Reason",
    "RemoveMember",
    "UpdateMember",
    "changed",
    "check_reach",
    "resized",
]

CHANGES_KEPT = 64
"""Requests that the configuration remembers: one that is asked again later than that is carried out again."""
LEARNERS_MAX = 1
"""Learners that stay learners until somebody promotes them, at most (etcd's limit): each costs the leader a follower's
work. Those that become voters by themselves are not counted."""
MEMBERS_MAX = 64
"""Of all kinds."""
TEXT_CHARS_MAX = 1_024
"""Of a name or an address."""


class Reason(enum.IntEnum):
    """Why a change was refused. The numbers travel; 0 is "not refused"."""

    DONE = 0
    UNAVAILABLE = 1
    """No leader is known, or it has changed: ask again."""
    MEMBER_NOT_FOUND = 2
    MEMBER_ID_EXISTS = 3
    PEER_URL_EXISTS = 4
    NAME_EXISTS = 5
    NOT_A_LEARNER = 6
    LEARNER_NOT_READY = 7
    NOT_JOINED = 8
    ALREADY_JOINED = 9
    """Another process has been that member before."""
    WAS_REMOVED = 10
    """This incarnation was a member once."""
    TOO_MANY_LEARNERS = 11
    TOO_MANY_MEMBERS = 12
    NOT_ENOUGH_STARTED = 13
    """Those that are left and can be reached would be no quorum."""
    LAST_VOTER = 14
    INVALID = 15


@dataclass(frozen=True, slots=True)
class AddMember:
    """A new member, which comes as a learner. ``member.promote``: it is to become a voter by itself."""

    member: Member


@dataclass(frozen=True, slots=True)
class JoinMember:
    """A process has been met that is this member. Where a text is empty, what was added stands."""

    member_id: int
    incarnation: int
    name: str = ""
    client_urls: tuple[str, ...] = ()
    peer_url: str = ""


@dataclass(frozen=True, slots=True)
class RemoveMember:
    """It is a member no more, whether it was one already or had yet to join."""

    member_id: int


@dataclass(frozen=True, slots=True)
class UpdateMember:
    """Its addresses. What is empty stays as it is."""

    member_id: int
    peer_url: str = ""
    client_urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PromoteMember:
    """A learner becomes a voter."""

    member_id: int


Change: TypeAlias = AddMember | JoinMember | RemoveMember | UpdateMember | PromoteMember


def changed(configuration: Configuration, change: Change, request_id: int) -> Configuration:
    """The next configuration.

    The very same object where there is nothing to do: the request has been carried out, or what it asks for is so.
    Raises MembershipRefused.
    """
    if request_id in configuration.changes:
        return configuration
    members = _CHANGES[type(change)](configuration, change)  # type: ignore[operator]
    if members == configuration.members:
        return configuration
    removed = configuration.removed
    if type(change) is RemoveMember:
        removed += tuple(configuration.everybody.difference(m.incarnation for m in members))
    voters = sum(not member.learner for member in members)
    following = replace(
        configuration,
        members=members,
        quorum=resized(configuration.quorum, voters),
        removed=removed,
        changes=(*configuration.changes, request_id)[-CHANGES_KEPT:],
    )
    following.validate()
    return following


def resized(quorum: QuorumSizes, members: int) -> QuorumSizes:
    """The sizes for another number of voters: a majority stays one, else phase 2 keeps its size as far as it goes."""
    if quorum == QuorumSizes.majority(quorum.members):
        return QuorumSizes.majority(members)
    return QuorumSizes.flexible(members, min(quorum.phase2, members))


def check_reach(configuration: Configuration, following: Configuration, reach: Collection[int]) -> None:
    """Refuses to remove a live voter where those that are left and live would be no quorum, in either phase.

    ``reach`` are the incarnations that the leader hears, itself included. Raises MembershipRefused.
    """
    gone = configuration.nodes - following.nodes
    if not gone.intersection(reach):
        return
    left = following.nodes.intersection(reach)
    if not (following.is_phase1_quorum(left) and following.is_phase2_quorum(left)):
        sizes = following.quorum
        raise _refused(
            Reason.NOT_ENOUGH_STARTED,
            f"of the {sizes.members} members that would be left to vote, {len(left)} can be reached, and it takes "
            f"{max(sizes.phase1, sizes.phase2)}. Start the others first, or remove one that is down",
        )


# ---- each change -----------------------------------------------------------------------------------------------


def _refused(reason: Reason, message: str) -> MembershipRefused:
    return MembershipRefused(message, int(reason))


def _found(configuration: Configuration, member_id: int) -> Member:
    member = configuration.by_member_id(member_id)
    if member is None:
        raise _refused(Reason.MEMBER_NOT_FOUND, f"there is no member {member_id:x}")
    return member


def _replaced(configuration: Configuration, old: Member, new: Member) -> tuple[Member, ...]:
    others = [m for m in configuration.members if m is not old]
    _check_texts(new)
    if new.peer_url != old.peer_url and any(m.peer_url == new.peer_url for m in others):
        raise _refused(Reason.PEER_URL_EXISTS, f"another member has the address {new.peer_url}")
    if new.name and new.name != old.name and any(m.name == new.name for m in others):
        raise _refused(Reason.NAME_EXISTS, f"another member has the name {new.name!r}")
    return tuple(new if m is old else m for m in configuration.members)


def _check_texts(member: Member) -> None:
    texts = (member.name, member.peer_url, *member.client_urls)
    if max(map(len, texts)) > TEXT_CHARS_MAX or len(member.client_urls) > MEMBERS_MAX:
        raise _refused(
            Reason.INVALID,
            f"a name or an address of member {member.member_id:x} is longer than any should be",
        )


def _add(configuration: Configuration, change: AddMember) -> tuple[Member, ...]:
    member = replace(change.member, incarnation=0, learner=True)
    if member.member_id == 0 or not member.peer_url:
        raise _refused(Reason.INVALID, "a member needs an id and an address for its peers")
    _check_texts(member)
    if configuration.by_member_id(member.member_id) is not None:
        raise _refused(Reason.MEMBER_ID_EXISTS, f"there is a member {member.member_id:x} already")
    if any(m.peer_url == member.peer_url for m in configuration.members):
        raise _refused(Reason.PEER_URL_EXISTS, f"another member has the address {member.peer_url}")
    if member.name and any(m.name == member.name for m in configuration.members):
        raise _refused(Reason.NAME_EXISTS, f"another member has the name {member.name!r}")
    if len(configuration.members) >= MEMBERS_MAX:
        raise _refused(Reason.TOO_MANY_MEMBERS, f"a cluster has at most {MEMBERS_MAX} members")
    if not member.promote and sum(m.learner and not m.promote for m in configuration.members) >= LEARNERS_MAX:
        raise _refused(
            Reason.TOO_MANY_LEARNERS,
            f"a cluster has at most {LEARNERS_MAX} learner; promote or remove it first",
        )
    return (*configuration.members, member)


def _join(configuration: Configuration, change: JoinMember) -> tuple[Member, ...]:
    member = _found(configuration, change.member_id)
    if member.incarnation == change.incarnation:
        return configuration.members
    if member.incarnation:
        raise _refused(
            Reason.ALREADY_JOINED,
            f"member {change.member_id:x} has joined as another incarnation. "
            "Remove it, and add a new member for this one",
        )
    if change.incarnation in configuration.removed:
        raise _refused(
            Reason.WAS_REMOVED, f"incarnation {change.incarnation:x} was a member once, and removed"
        )
    if change.incarnation in configuration.everybody or change.incarnation <= 0:
        raise _refused(Reason.INVALID, f"incarnation {change.incarnation:x} is none that could join")
    joined = replace(
        member,
        incarnation=change.incarnation,
        name=change.name or member.name,
        client_urls=change.client_urls or member.client_urls,
        peer_url=change.peer_url or member.peer_url,
    )
    return _replaced(configuration, member, joined)


def _remove(configuration: Configuration, change: RemoveMember) -> tuple[Member, ...]:
    member = _found(configuration, change.member_id)
    if configuration.nodes == {member.incarnation}:
        raise _refused(Reason.LAST_VOTER, f"member {change.member_id:x} is the last one that votes")
    return tuple(m for m in configuration.members if m is not member)


def _update(configuration: Configuration, change: UpdateMember) -> tuple[Member, ...]:
    member = _found(configuration, change.member_id)
    updated = replace(
        member,
        peer_url=change.peer_url or member.peer_url,
        client_urls=change.client_urls or member.client_urls,
    )
    return _replaced(configuration, member, updated)


def _promote(configuration: Configuration, change: PromoteMember) -> tuple[Member, ...]:
    member = _found(configuration, change.member_id)
    if not member.learner:
        raise _refused(Reason.NOT_A_LEARNER, f"member {change.member_id:x} votes already")
    if not member.incarnation:
        raise _refused(Reason.NOT_JOINED, f"member {change.member_id:x} has not joined yet; start it first")
    return _replaced(configuration, member, replace(member, learner=False, promote=False))


_CHANGES = {
    AddMember: _add,
    JoinMember: _join,
    RemoveMember: _remove,
    UpdateMember: _update,
    PromoteMember: _promote,
}
