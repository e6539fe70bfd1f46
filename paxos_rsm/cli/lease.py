"""``lease``: grant, revoke, timetolive, list, keep-alive.

What changes a lease goes through the log, as a command of the client's session: a grant is made once, however often it
had to be sent (its number is drawn here, for that reason), and a keep-alive that is answered was in the log. How much
time is left is what the leader's clock says, which any server asks for us.
"""

import asyncio
import secrets

import click

from paxos_rsm.cli.answers import Style, show
from paxos_rsm.cli.connect import connected
from paxos_rsm.cli.direct import ask_any, complete_header
from paxos_rsm.cli.failures import Failure
from paxos_rsm.cli.lease_ids import LeaseIdType
from paxos_rsm.cli.options import Settings, client_command, client_group, pass_settings
from paxos_rsm.cli.output import print_line
from paxos_rsm.cli.store import ask_store, execute

__all__ = ["COMMANDS", "lease"]

NOT_FOUND = "etcdserver: requested lease not found"
BEATS = 3
"""Keep-alives in the time that a lease has: it survives the loss of two."""

GROUP_EPILOG = """\
\b
Examples:
  paxos-rsm lease grant 60                        prints its number, in hexadecimal
  paxos-rsm put worker/7 up --lease 694d77aa9e38260f
  paxos-rsm lease timetolive 694d77aa9e38260f --keys
  paxos-rsm lease keep-alive 694d77aa9e38260f     until Ctrl-C
  paxos-rsm lease revoke 694d77aa9e38260f         and its keys are gone
"""


@client_group("lease", epilog=GROUP_EPILOG)
def lease() -> None:
    """Keys that go when their holder has been silent for too long."""


GRANT_EPILOG = """\
\b
Examples:
  paxos-rsm lease grant 60
  id=$(paxos-rsm lease grant 60 | cut -d' ' -f2)
"""


@client_command("grant", epilog=GRANT_EPILOG)
@click.argument("ttl", type=click.IntRange(1), metavar="TTL")
@click.option("--id", "number", type=LeaseIdType(), help="Its number, in hexadecimal. [default: a new one]")
@pass_settings
def grant(settings: Settings, ttl: int, number: int | None) -> None:
    """Make a lease of TTL seconds. What is granted may be more."""
    from paxos_rsm._proto import kv_pb2 as pb

    request = pb.LeaseGrantRequest(TTL=ttl, ID=number or secrets.randbelow(2**63 - 1) + 1)
    show(settings, ask_store(settings, pb.KvCommand(lease_grant=request)))


REVOKE_EPILOG = """\
\b
Examples:
  paxos-rsm lease revoke 694d77aa9e38260f
"""


@client_command("revoke", epilog=REVOKE_EPILOG)
@click.argument("lease_id", type=LeaseIdType(), metavar="LEASE")
@pass_settings
def revoke(settings: Settings, lease_id: int) -> None:
    """End LEASE, and delete the keys that are bound to it."""
    from paxos_rsm._proto import kv_pb2 as pb

    answer = ask_store(settings, pb.KvCommand(lease_revoke=pb.LeaseRevokeRequest(ID=lease_id)))
    if settings.write_out in ("json", "fields"):
        show(settings, answer)
    else:
        print_line(f"lease {lease_id:016x} revoked")


TIME_TO_LIVE_EPILOG = """\
\b
Examples:
  paxos-rsm lease timetolive 694d77aa9e38260f
  paxos-rsm lease timetolive 694d77aa9e38260f --keys
"""


@client_command("timetolive", epilog=TIME_TO_LIVE_EPILOG)
@click.argument("lease_id", type=LeaseIdType(), metavar="LEASE")
@click.option("--keys", is_flag=True, help="Also print the keys that are bound to it.")
@pass_settings
def time_to_live(settings: Settings, lease_id: int, keys: bool) -> None:
    """Print how many seconds LEASE has left. One that is gone is no error."""
    from paxos_rsm._proto import lease_pb2

    request = lease_pb2.LeaseTimeToLiveRequest(ID=lease_id, keys=keys)
    asked = ask_any(settings, "Lease/LeaseTimeToLive", request, lease_pb2.LeaseTimeToLiveResponse)
    show(settings, asyncio.run(asked), Style(hex=settings.hex, with_keys=keys))


LIST_EPILOG = """\
\b
Examples:
  paxos-rsm lease list
"""


@client_command("list", epilog=LIST_EPILOG)
@pass_settings
def list_leases(settings: Settings) -> None:
    """Print the leases there are."""
    from paxos_rsm._proto import lease_pb2

    request = lease_pb2.LeaseLeasesRequest()
    show(
        settings, asyncio.run(ask_any(settings, "Lease/LeaseLeases", request, lease_pb2.LeaseLeasesResponse))
    )


KEEP_ALIVE_EPILOG = """\
\b
Examples:
  paxos-rsm lease keep-alive 694d77aa9e38260f           until Ctrl-C, or until it is gone
  paxos-rsm lease keep-alive 694d77aa9e38260f --once

Exit codes: 0 also where it was revoked meanwhile; 1 with --once, where there is no such lease.
"""


@client_command("keep-alive", epilog=KEEP_ALIVE_EPILOG)
@click.argument("lease_id", type=LeaseIdType(), metavar="LEASE")
@click.option("--once", is_flag=True, help="Once, not for ever.")
@pass_settings
def keep_alive(settings: Settings, lease_id: int, once: bool) -> None:
    """Renew LEASE again and again, and say so each time."""
    asyncio.run(_keep_alive(settings, lease_id, once))


async def _keep_alive(settings: Settings, lease_id: int, once: bool) -> None:
    from paxos_rsm._proto import kv_pb2 as pb

    command = pb.KvCommand(lease_keep_alive=pb.LeaseKeepAliveRequest(ID=lease_id))
    told = pb.ResponseHeader()
    timeout_s = settings.command_timeout_s
    async with connected(settings) as client:
        await complete_header(settings, told)
        while True:
            answer: pb.LeaseKeepAliveResponse = await execute(client, command, timeout_s=timeout_s)
            if answer.TTL <= 0:
                if once:
                    raise Failure(NOT_FOUND)
                print_line(f"lease {lease_id:016x} expired or revoked.")
                return
            told.revision = answer.header.revision
            answer.header.CopyFrom(told)
            show(settings, answer)
            if once:
                return
            await asyncio.sleep(answer.TTL / BEATS)
            # As long as the lease may still live, it is worth asking.
            timeout_s = max(settings.command_timeout_s, answer.TTL * (1 - 1 / BEATS))


for _command in (grant, revoke, time_to_live, list_leases, keep_alive):
    lease.add_command(_command)

COMMANDS = {"lease": lease}
