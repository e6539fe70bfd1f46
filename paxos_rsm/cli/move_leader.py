"""``move-leader``: has another server lead, without an outage worth the name.

The leader is looked for: any endpoint will do. It hands over to the one that is named, or to whoever is closest
behind it, and goes on as a follower.
"""

import asyncio

import click

from paxos_rsm.cli.answers import show, write_lines
from paxos_rsm.cli.connect import dial
from paxos_rsm.cli.member import member_ref
from paxos_rsm.cli.options import Settings, client_command, pass_settings

__all__ = ["COMMANDS", "move_leader"]

EPILOG = """\
\b
Examples:
  paxos-rsm move-leader
  paxos-rsm move-leader n2
  paxos-rsm move-leader 8e9e05c52164694d
"""


@client_command("move-leader", epilog=EPILOG)
@click.argument("which", metavar="[MEMBER]", required=False)
@pass_settings
def move_leader(settings: Settings, which: str | None) -> None:
    """Have another server lead: MEMBER, or the one that is closest behind."""
    from paxos_rsm.client import membership
    from paxos_rsm.client.members import ask_members

    async def move() -> membership.Moved:
        await dial(settings.endpoints, settings.dial_timeout_s)
        to: int | None = None
        if which is not None:
            rows = await ask_members(settings.endpoints, settings.command_timeout_s)
            to = member_ref([(row.name, row.member_id) for row in rows], which)
        return await membership.move_leader(settings.endpoints, to, settings.command_timeout_s)

    moved = asyncio.run(move())
    if settings.write_out in ("json", "fields"):
        show(settings, moved.answer)
    else:
        write_lines([f"Leadership transferred from {moved.before:x} to {moved.after:x}".encode()])


COMMANDS = {"move-leader": move_leader}
