"""``lock``: a lock of the cluster, for as long as a command runs or until Ctrl-C.

The lock is that of the client (etcd's keys, so that etcd's own command and this one exclude each other), and it is lost
when its lease is: the command is ended then, since somebody else may hold the lock. What it writes elsewhere should
bear the fencing token all the same, which it finds in its environment.
"""

import asyncio
from typing import TYPE_CHECKING

import click

from paxos_rsm.cli.answers import show
from paxos_rsm.cli.connect import connected
from paxos_rsm.cli.direct import complete_header
from paxos_rsm.cli.options import Settings, global_options, key_bytes, pass_settings
from paxos_rsm.cli.running import ExecCommand, child_environment, run_command, terminated_as_interrupted
from paxos_rsm.cli.store import execute

if TYPE_CHECKING:
    from paxos_rsm.client import AsyncClient

__all__ = ["COMMANDS", "lock", "show_key"]

EPILOG = """\
\b
Examples:
  paxos-rsm lock nightly-report ./report.sh       its exit code is ours
  paxos-rsm lock --ttl 30 nightly-report -- sh -c 'echo "token $PAXOS_RSM_LOCK_REV"'
  paxos-rsm lock nightly-report                   prints its key, holds it until Ctrl-C

The command finds in its environment PAXOS_RSM_LOCK_KEY and PAXOS_RSM_LOCK_REV (ETCD_LOCK_KEY and ETCD_LOCK_REV): the
key that is there as long as the lock is held, and its fencing token, higher for each holder than for the one before.

Exit codes: those of the command; 1 also where the lock was lost (the command was ended); 5 interrupted, and released.
"""


@click.command("lock", cls=ExecCommand, epilog=EPILOG)
@click.argument("name")
@click.argument("command", nargs=-1, metavar="[COMMAND...]")
@click.option(
    "--ttl",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    metavar="SECONDS",
    help="How long it stays taken where its holder dies.",
)
@global_options()
@pass_settings
@click.pass_context
def lock(ctx: click.Context, settings: Settings, name: str, command: tuple[str, ...], ttl: int) -> None:
    """Wait for the lock NAME, and hold it while COMMAND runs, or until Ctrl-C."""
    ctx.exit(asyncio.run(_lock(settings, key_bytes(name), command, ttl)))


async def _lock(settings: Settings, name: bytes, command: tuple[str, ...], ttl_s: int) -> int:
    ended = terminated_as_interrupted()
    async with ended, connected(settings) as client, client.lock(name, ttl_s=ttl_s) as held:
        if not command:
            await show_key(settings, client, held.key)
            await held.guard(asyncio.Event().wait())
            return 0
        environment = child_environment("LOCK", {"KEY": held.key, "REV": held.fencing_token})
        return await held.guard(run_command(command, environment))


async def show_key(settings: Settings, client: "AsyncClient", key: bytes) -> None:
    """Prints the key by which a lock or an election is held, as etcd's command does: as if it had been read."""
    from paxos_rsm._proto import kv_pb2 as pb

    answer = await execute(client, pb.KvCommand(range=pb.RangeRequest(key=key)))
    await complete_header(settings, answer.header)
    show(settings, answer)


COMMANDS = {"lock": lock}
