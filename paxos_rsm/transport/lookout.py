"""What a server says in its log that finds none of the others, or not all of those that it needs, or is not found.

It cannot tell why: they may be down, or cut off from it, or at other addresses. Worst of all, every one of them may
have been replaced while it was away. Then those whom it looks for are gone, those who are there do not look for it if
it was removed, and nobody is left to tell it so. So it says after a while what it knows, and what can be done.

Two servers may also have but one of the two streams between them: one listens elsewhere than where it is said to be
(who adds a server, and starts it without --listen-peer-urls), or is not let through. Nothing comes the other way then,
however well both look. Each of them says so.
"""

from collections.abc import Sequence

from paxos_rsm.paxos.membership import Member
from paxos_rsm.transport.handshake import how_to_add

__all__ = ["ALONE_S", "SHOWN_MAX", "finds_nobody", "has_not_formed", "is_not_called", "is_not_reached"]

ALONE_S = 30.0
"""So long after the last stream has ended."""

SHOWN_MAX = 9


def finds_nobody(me: Member, others: Sequence[str]) -> str:
    """The sentence of a member that reaches none of the ``others``, as it knows them: names and addresses."""
    return (
        f"no other member has been reached for {ALONE_S:g} s: {_listed(others)}. Start them, or see why this server "
        f"does not reach them there. If all of them were replaced while it was away, it may have been removed, and "
        f"knows nobody who could tell it: ask a server that serves for `paxos-rsm member list`. Where {me.name!r} (id "
        f"{me.member_id:x}) is not in it, this directory is of no more use: {how_to_add(me)}"
    )


def has_not_formed(missing: Sequence[str]) -> str:
    """The sentence of a first member; the cluster begins once all of --initial-cluster have been there together."""
    return (
        f"the cluster has not formed after {ALONE_S:g} s: every member of --initial-cluster has to be there for that, "
        f"and not connected is {_listed(missing)}. Start what is missing, or correct the address"
    )


def is_not_reached(name: str, url: str) -> str:
    """The sentence of a server whom a member has called, and that does not reach it."""
    return (
        f"member {name!r} is connected to this server, and has not been reached at {url} for {ALONE_S:g} s: nothing "
        "can be sent to it. See that it listens there (--listen-peer-urls), or correct the address: `paxos-rsm member "
        f"update {name} --peer-urls URL`"
    )


def is_not_called(me: Member, name: str) -> str:
    """The sentence of that member."""
    return (
        f"member {name!r} has not connected to this server for {ALONE_S:g} s, which reaches it: it looks for this "
        f"server at {me.peer_url}. See that it listens there (--listen-peer-urls), and is let through"
    )


def _listed(those: Sequence[str]) -> str:
    more = len(those) - SHOWN_MAX
    return ", ".join(those[:SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")
