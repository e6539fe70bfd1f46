"""``elect``: take part in an election among clients, or watch one.

The election is that of the client, with etcd's keys. Who is elected stays so until Ctrl-C, and then resigns.
"""

import asyncio

import click

from paxos_rsm.cli.answers import show
from paxos_rsm.cli.connect import connected
from paxos_rsm.cli.direct import complete_header
from paxos_rsm.cli.lock import show_key
from paxos_rsm.cli.options import Settings, client_command, key_bytes, pass_settings
from paxos_rsm.cli.running import terminated_as_interrupted

__all__ = ["COMMANDS", "elect"]

EPILOG = """\
\b
Examples:
  paxos-rsm elect worker host-7                   waits, prints its key once elected, leads until Ctrl-C
  paxos-rsm elect worker                          who leads, and whoever leads after that
  paxos-rsm elect worker -l -w json

Exit codes: 1 also where the leadership was lost; 5 interrupted, and resigned.
"""


@client_command("elect", epilog=EPILOG)
@click.argument("name")
@click.argument("proposal", required=False)
@click.option("-l", "--listen", is_flag=True, help="Only watch, also with a PROPOSAL.")
@click.option(
    "--ttl",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    metavar="SECONDS",
    help="How long one that dies stays elected.",
)
@pass_settings
def elect(settings: Settings, name: str, proposal: str | None, listen: bool, ttl: int) -> None:
    """Stand in the election NAME with PROPOSAL, which is what others see; without one, watch it."""
    election = key_bytes(name)
    if listen or proposal is None:
        asyncio.run(_listen(settings, election))
    else:
        asyncio.run(_campaign(settings, election, key_bytes(proposal), ttl))


async def _campaign(settings: Settings, name: bytes, proposal: bytes, ttl_s: int) -> None:
    ended = terminated_as_interrupted()
    async with ended, connected(settings) as client, client.election(name, ttl_s=ttl_s) as election:
        await election.campaign(proposal)
        await show_key(settings, client, election.key)
        await election.guard(asyncio.Event().wait())


async def _listen(settings: Settings, name: bytes) -> None:
    from paxos_rsm._proto import kv_pb2 as pb

    async with connected(settings) as client:
        told = pb.ResponseHeader()
        await complete_header(settings, told)
        async for leader in client.election(name).observe():
            told.revision = leader.revision
            kv = pb.KeyValue(key=leader.key, value=leader.value, create_revision=leader.fencing_token)
            show(settings, pb.RangeResponse(header=told, kvs=[kv], count=1))


COMMANDS = {"elect": elect}
