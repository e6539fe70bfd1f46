"""``member list``: who the servers of the cluster are, by the word of any one of them."""

import asyncio

from paxos_rsm.cli.answers import show
from paxos_rsm.cli.direct import ask_any
from paxos_rsm.cli.options import Settings, client_command, client_group, pass_settings

__all__ = ["COMMANDS", "member"]

EPILOG = """\
\b
Examples:
  paxos-rsm member list
  paxos-rsm member list -w table

Each with its number in hexadecimal, whether it was ever started, name, peer and client addresses, and whether it is a
learner. What each says of itself: paxos-rsm status, paxos-rsm endpoint status --cluster.
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


member.add_command(list_members)

COMMANDS = {"member": member}
