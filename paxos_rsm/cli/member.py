"""``member``: who the servers of the cluster are, and how one comes, moves, is given a vote, and goes.

A member is added first, and its server started after that: what to start it with is printed, as settings of the
environment. It has no vote until it has caught up, so nothing is lost where it never comes. Members are named by their
names here, or by their numbers, in hexadecimal as ``member list`` prints them or in decimal as ``-w json`` does.

The servers refuse in etcd's words, which its clients compare. Here follows what to do.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

import click

from paxos_rsm.cli.answers import show, write_lines
from paxos_rsm.cli.connect import dial
from paxos_rsm.cli.direct import ask_any
from paxos_rsm.cli.failures import Failure
from paxos_rsm.cli.options import Settings, client_command, client_group, pass_settings
from paxos_rsm.config_checks import check_name
from paxos_rsm.errors import ClientError, InvalidArgument

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from paxos_rsm._proto import cluster_pb2
    from paxos_rsm.client.calls import Calls

__all__ = ["COMMANDS", "member", "member_ref"]

T = TypeVar("T")

OTHER_FORMS = ("json", "fields", "table")

WHAT_TO_DO = {
    "etcdserver: Peer URLs already exists": (
        "a member has that address already (`paxos-rsm member list`). One that has yet to start is not added again: "
        "start it; one whose server is lost is removed first"
    ),
    "etcdserver: given member URLs are invalid": "give one address, such as http://10.0.0.4:2380",
    "etcdserver: member not found": (
        "`paxos-rsm member list` prints the members, each with its number in hexadecimal"
    ),
    "etcdserver: re-configuration failed due to not enough started members": (
        "the members with a vote that would be left, and can be reached now, are no quorum of them. Start those that "
        "are down first, or remove one that is down instead; the last one cannot be removed"
    ),
    "etcdserver: can only promote a learner member": "it has its vote already",
    "etcdserver: can only promote a learner member which is in sync with leader": (
        "it has yet to start, or to catch up: see `paxos-rsm status`, and try again"
    ),
    "etcdserver: too many learner members in cluster": (
        "another one waits for `paxos-rsm member promote`: promote or remove that one first"
    ),
}
"""By what a change of the members was refused with."""

EPILOG = """\
\b
Examples:
  paxos-rsm member list -w table
  paxos-rsm member add n4 --peer-urls http://10.0.0.4:2380
  paxos-rsm member remove n2

Each is listed with its number in hexadecimal, whether it was ever started, name, peer and client addresses, and
whether it is a learner. What each says of itself: paxos-rsm status, paxos-rsm endpoint status --cluster.
"""


@client_group("member", epilog=EPILOG)
def member() -> None:
    """The servers of the cluster."""


@client_command("list", epilog=EPILOG)
@pass_settings
def list_members(settings: Settings) -> None:
    """Print the members of the cluster."""
    from paxos_rsm._proto import cluster_pb2

    request = cluster_pb2.MemberListRequest()
    show(
        settings,
        asyncio.run(ask_any(settings, "Cluster/MemberList", request, cluster_pb2.MemberListResponse)),
    )


ADD_EPILOG = """\
\b
Examples:
  paxos-rsm member add n4 --peer-urls http://10.0.0.4:2380
  env $(paxos-rsm member add n4 --peer-urls http://10.0.0.4:2380 | grep = | tr -d '"') paxos-rsm server ...

Then start the server with an empty data directory and what is printed. It gets a vote by itself once it has caught up;
with --learner it waits for `member promote`.
"""


@client_command("add", epilog=ADD_EPILOG)
@click.argument("name")
@click.option("--peer-urls", required=True, metavar="URL", help="Where the other servers reach it.")
@click.option("--learner", is_flag=True, help="It stays without a vote until it is promoted.")
@pass_settings
def add(settings: Settings, name: str, peer_urls: str, learner: bool) -> None:
    """Add a member, and print what to start its server with."""
    from paxos_rsm.client import membership

    check_name(name)

    async def work(calls: "Calls") -> "cluster_pb2.MemberAddResponse":
        from paxos_rsm.client.members import list_members

        for each in await list_members(calls, settings.command_timeout_s):
            if each.name == name:
                raise InvalidArgument(
                    f"there is a member {name} already, {each.id:x} at {','.join(each.peer_urls)}: choose another "
                    f"name, or, where its server is lost, `paxos-rsm member remove {name}` first"
                )
        return await membership.add(calls, peer_urls, learner, settings.command_timeout_s)

    answer = _run(settings, work)
    how = "added as learner to" if learner else "added to"
    _show_change(
        settings, answer, f"Member {answer.member.ID:16x} {how} cluster {answer.header.cluster_id:16x}"
    )
    if settings.write_out not in OTHER_FORMS:
        write_lines([b"", *(line.encode() for line in start_with(name, answer))])


def start_with(name: str, answer: "cluster_pb2.MemberAddResponse") -> Iterable[str]:
    """The environment in which the server of a new member is started."""
    urls = {each.name: each.peerURLs[0] for each in answer.members if each.name and each.peerURLs}
    url = urls[name] = answer.member.peerURLs[0]
    yield f'PAXOS_RSM_NAME="{name}"'
    yield f'PAXOS_RSM_INITIAL_CLUSTER="{",".join(f"{each}={at}" for each, at in urls.items())}"'
    yield f'PAXOS_RSM_INITIAL_ADVERTISE_PEER_URLS="{url}"'
    yield 'PAXOS_RSM_INITIAL_CLUSTER_STATE="existing"'


@client_command(
    "remove", epilog="\b\nExamples:\n  paxos-rsm member remove n2\n  paxos-rsm member remove 8e9e05c52164694d"
)
@click.argument("which", metavar="MEMBER")
@pass_settings
def remove(settings: Settings, which: str) -> None:
    """Remove a member for good; its server stops by itself."""
    from paxos_rsm.client import membership

    member_id, answer = _change(
        settings, which, lambda calls, found: membership.remove(calls, found, settings.command_timeout_s)
    )
    _show_change(
        settings, answer, f"Member {member_id:16x} removed from cluster {answer.header.cluster_id:16x}"
    )


@client_command(
    "update", epilog="\b\nExamples:\n  paxos-rsm member update n2 --peer-urls http://10.0.0.7:2380"
)
@click.argument("which", metavar="MEMBER")
@click.option(
    "--peer-urls", required=True, metavar="URL", help="Where the other servers reach it from now on."
)
@pass_settings
def update(settings: Settings, which: str, peer_urls: str) -> None:
    """Say where the other servers reach a member from now on."""
    from paxos_rsm.client import membership

    member_id, answer = _change(
        settings,
        which,
        lambda calls, found: membership.update(calls, found, peer_urls, settings.command_timeout_s),
    )
    _show_change(
        settings, answer, f"Member {member_id:16x} updated in cluster {answer.header.cluster_id:16x}"
    )


@client_command("promote", epilog="\b\nExamples:\n  paxos-rsm member promote n4")
@click.argument("which", metavar="MEMBER")
@pass_settings
def promote(settings: Settings, which: str) -> None:
    """Give a learner a vote."""
    from paxos_rsm.client import membership

    member_id, answer = _change(
        settings, which, lambda calls, found: membership.promote(calls, found, settings.command_timeout_s)
    )
    _show_change(
        settings, answer, f"Member {member_id:16x} promoted in cluster {answer.header.cluster_id:16x}"
    )


# ---- what they share -----------------------------------------------------------------------------------------


def member_ref(members: Iterable[tuple[str, int]], which: str) -> int:
    """The id of the member of that name or number: hexadecimal, or decimal of one there is. Raises InvalidArgument."""
    members = list(members)
    for name, member_id in members:
        if which and name == which:
            return member_id
    try:
        number = int(which, 16)
    except ValueError:
        number = -1
    ids = {member_id for _, member_id in members}
    if number not in ids and which.isdecimal() and int(which) in ids:
        return int(which)
    if not 0 <= number < 1 << 64:
        raise InvalidArgument(
            f"there is no member {which!r}: give its name, or its number in hexadecimal as `member list` prints it "
            "(one that has yet to start has only its number)"
        )
    return number


def _run(settings: Settings, work: "Callable[[Calls], Awaitable[T]]") -> T:
    async def whole() -> T:
        from paxos_rsm.client.calls import Calls

        await dial(settings.endpoints, settings.dial_timeout_s)
        calls = Calls(settings.endpoints, random.Random())
        try:
            return await work(calls)
        except ClientError as error:
            if str(error) not in WHAT_TO_DO:
                raise
            raise Failure(f"{error} ({WHAT_TO_DO[str(error)]})") from error
        finally:
            await calls.close()

    return asyncio.run(whole())


def _change(settings: Settings, which: str, work: "Callable[[Calls, int], Awaitable[T]]") -> tuple[int, T]:
    """Finds a member, has ``work`` done to it, and gives its number with what that gives."""

    async def both(calls: "Calls") -> tuple[int, T]:
        from paxos_rsm.client.members import list_members

        listed = await list_members(calls, settings.command_timeout_s)
        member_id = member_ref([(each.name, each.id) for each in listed], which)
        return member_id, await work(calls, member_id)

    return _run(settings, both)


def _show_change(settings: Settings, answer: "Message", line: str) -> None:
    if settings.write_out not in OTHER_FORMS:
        write_lines([line.encode()])
    else:
        show(settings, answer)


for each in (list_members, add, remove, update, promote):
    member.add_command(each)

COMMANDS = {"member": member}
