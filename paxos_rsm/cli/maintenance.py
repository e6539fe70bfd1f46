"""``alarm list|disarm`` and ``defrag``: words of etcd's.

An alarm says that the state is at its quota, or that a member's state differs from the others', as long as that is so:
there is none to disarm, and what stands ends by itself. A log in segments needs no defragmenting. Servers answer when
they are asked for either, so that scripts that make room as etcd wants it made (compact, defragment, disarm) go on
working.
"""

import asyncio
from typing import TYPE_CHECKING

import click

from paxos_rsm.cli.answers import show
from paxos_rsm.cli.direct import ask_any, ask_each
from paxos_rsm.cli.endpoint import chosen_endpoints, cluster_option
from paxos_rsm.cli.failures import Failure, describe
from paxos_rsm.cli.options import Settings, client_command, client_group, pass_settings
from paxos_rsm.cli.output import print_json, print_line
from paxos_rsm.errors import ClientError

if TYPE_CHECKING:
    from paxos_rsm._proto import maintenance_pb2 as pb

__all__ = ["COMMANDS", "alarm", "defrag"]

ENDS = {
    "NOSPACE": "it ends by itself once deletions and a compaction have made room",
    "CORRUPT": "it ends by itself once that member has taken the state of the others",
}
"""How an alarm ends that cannot be disarmed, by its name."""


@client_group("alarm", epilog="\b\nExamples:\n  paxos-rsm alarm list\n  paxos-rsm alarm disarm")
def alarm() -> None:
    """Alarms: the state is at its quota (NOSPACE), or a member's is wrong (CORRUPT)."""


@client_command("list", epilog="\b\nExamples:\n  paxos-rsm alarm list")
@pass_settings
def list_alarms(settings: Settings) -> None:
    """Print the alarms there are; nothing where there is none."""
    from paxos_rsm._proto import maintenance_pb2

    request = maintenance_pb2.AlarmRequest(action=maintenance_pb2.AlarmRequest.GET)
    show(
        settings, asyncio.run(ask_any(settings, "Maintenance/Alarm", request, maintenance_pb2.AlarmResponse))
    )


async def _disarm(settings: Settings) -> "tuple[pb.AlarmResponse, list[pb.AlarmMember]]":
    """Asks for each alarm there is to be disarmed, as etcdctl does; those that were, and those that were not."""
    from paxos_rsm._proto import maintenance_pb2

    request = maintenance_pb2.AlarmRequest(action=maintenance_pb2.AlarmRequest.GET)
    answer = await ask_any(settings, "Maintenance/Alarm", request, maintenance_pb2.AlarmResponse)
    found = list(answer.alarms)
    del answer.alarms[:]
    for each in found:
        request = maintenance_pb2.AlarmRequest(
            action=maintenance_pb2.AlarmRequest.DEACTIVATE, memberID=each.memberID, alarm=each.alarm
        )
        done = await ask_any(settings, "Maintenance/Alarm", request, maintenance_pb2.AlarmResponse)
        answer.alarms.extend(done.alarms)
    return answer, [each for each in found if each not in answer.alarms]


@client_command("disarm", epilog="\b\nExamples:\n  paxos-rsm alarm disarm")
@pass_settings
def disarm_alarms(settings: Settings) -> None:
    """Print the alarms that were disarmed: none of ours, which end by themselves once their cause has."""
    from paxos_rsm._proto import maintenance_pb2

    answer, left = asyncio.run(_disarm(settings))
    show(settings, answer)
    for each in left:
        name = maintenance_pb2.AlarmType.Name(each.alarm)
        click.echo(f"memberID:{each.memberID} alarm:{name} still stands: {ENDS[name]}", err=True)


alarm.add_command(list_alarms)
alarm.add_command(disarm_alarms)

DEFRAG_EPILOG = """\
\b
Examples:
  paxos-rsm defrag --cluster
"""


@client_command("defrag", epilog=DEFRAG_EPILOG)
@cluster_option
@pass_settings
def defrag(settings: Settings) -> None:
    """Tell each server to defragment its storage; here there is nothing to do, and nothing stops."""
    from paxos_rsm._proto import maintenance_pb2

    endpoints = chosen_endpoints(settings)
    request, answer_type = maintenance_pb2.DefragmentRequest(), maintenance_pb2.DefragmentResponse
    timeout_s = settings.command_timeout_s
    answers = asyncio.run(ask_each(endpoints, "Maintenance/Defragment", request, answer_type, timeout_s))
    errors = {
        name: describe(answer)
        for name, answer in zip(endpoints, answers, strict=True)
        if isinstance(answer, ClientError)
    }
    if settings.write_out == "json":
        print_json([{"endpoint": name, "error": errors.get(name)} for name in endpoints])
    else:
        for name in endpoints:
            if name in errors:
                click.echo(f"Failed to defragment etcd member[{name}] ({errors[name]})", err=True)
            else:
                print_line(f"Finished defragmenting etcd member[{name}]")
    if errors:
        raise Failure(f"{len(errors)} of {len(endpoints)} servers did not do it")


COMMANDS = {"alarm": alarm, "defrag": defrag}
