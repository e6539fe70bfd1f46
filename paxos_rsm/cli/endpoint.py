"""``endpoint health|status|hashkv``: each endpoint asked for itself, all at the same time.

The other commands speak to the cluster and do not mind which server answers; these ask every one of ``--endpoints``, or
with ``--cluster`` every member that any of them names. One that does not answer costs the others nothing, and makes the
exit code 1.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from paxos_rsm.cli.answers import write_lines
from paxos_rsm.cli.direct import ask, ask_any, ask_each
from paxos_rsm.cli.failures import BadConnection, Failure, describe
from paxos_rsm.cli.go_strings import go_duration, go_size
from paxos_rsm.cli.options import Settings, client_command, client_group, parse_endpoint, pass_settings
from paxos_rsm.cli.output import print_json, print_line, print_table
from paxos_rsm.errors import ClientError, Unavailable

if TYPE_CHECKING:
    from paxos_rsm._proto import maintenance_pb2

__all__ = ["COMMANDS", "chosen_endpoints", "cluster_option", "endpoint"]

F = TypeVar("F", bound=Callable[..., Any])

IN_CLUSTER = "paxos_rsm.cli.endpoint.cluster"
STATUS_COLUMNS = (
    *("endpoint", "id", "version", "db size", "is leader", "is learner"),
    *("raft term", "raft index", "raft applied index", "errors"),
)

EPILOG = """\
\b
Examples:
  paxos-rsm endpoint health --cluster
  paxos-rsm endpoint status --cluster -w table
  paxos-rsm endpoint hashkv --endpoints 127.0.0.1:2379,127.0.0.1:2381

What is called raft here is the log: the term is the ballot's round, an index is a slot. Exits 1 where one of the
endpoints does not answer.
"""


def cluster_option(function: F) -> F:
    """Declares ``--cluster``, before or after the subcommand's name."""

    def note(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value:
            ctx.meta[IN_CLUSTER] = True

    help_text = "Ask every member of the cluster, not only --endpoints."
    option = click.option("--cluster", is_flag=True, expose_value=False, callback=note, help=help_text)
    return option(function)


def chosen_endpoints(settings: Settings) -> list[str]:
    """Those of ``--endpoints``, or with ``--cluster`` one of each member. Raises ClientError where nobody names any."""
    if not click.get_current_context().meta.get(IN_CLUSTER):
        return list(settings.endpoints)
    from paxos_rsm._proto import cluster_pb2

    request = cluster_pb2.MemberListRequest()
    answer = asyncio.run(ask_any(settings, "Cluster/MemberList", request, cluster_pb2.MemberListResponse))
    found = [_usable(member.clientURLs) or f"member {member.name or member.ID}" for member in answer.members]
    if unusable := [name for name in found if ":" not in name]:
        raise Failure(f"no client address is known of {', '.join(unusable)}")
    return found


def _usable(urls: Iterable[str]) -> str | None:
    for url in urls:
        try:
            return parse_endpoint(url)
        except ValueError:
            continue  # an address that this version cannot speak to
    return None


@client_group("endpoint", epilog=EPILOG)
@cluster_option
def endpoint() -> None:
    """Ask each server for itself: is it well, what does it know."""


# ---- health ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Health:
    endpoint: str
    took_s: float
    error: str


@client_command("health", epilog="\b\nExamples:\n  paxos-rsm endpoint health --cluster")
@cluster_option
@pass_settings
def health(settings: Settings) -> None:
    """Have each server answer a linearizable read: it is well, and knows a leader with a quorum."""
    found = asyncio.run(_ask_health(chosen_endpoints(settings), settings.command_timeout_s))
    took = [go_duration(row.took_s) for row in found]
    if settings.write_out == "json":
        rows = zip(found, took, strict=True)
        shown = [{"endpoint": row.endpoint, "health": not row.error, "took": time_} for row, time_ in rows]
        print_json(
            [
                {**one, **({"error": row.error} if row.error else {})}
                for one, row in zip(shown, found, strict=True)
            ]
        )
    elif settings.write_out == "fields":
        for row, time_ in zip(found, took, strict=True):
            lines = (f'"Endpoint" : "{row.endpoint}"', f'"Health" : {str(not row.error).lower()}')
            write_lines(line.encode() for line in (*lines, f'"Took" : {time_}', f'"Error" : {row.error}', ""))
    elif settings.write_out == "table":
        cells = [
            (row.endpoint, str(not row.error).lower(), time_, row.error)
            for row, time_ in zip(found, took, strict=True)
        ]
        print_table(("endpoint", "health", "took", "error"), cells, right=("took",))
    else:
        for row, time_ in zip(found, took, strict=True):
            if row.error:
                print_line(f"{row.endpoint} is unhealthy: failed to commit proposal: {row.error}")
            else:
                print_line(f"{row.endpoint} is healthy: successfully committed proposal: took = {time_}")
    if any(row.error for row in found):
        raise Failure("unhealthy cluster")


async def _ask_health(endpoints: Sequence[str], timeout_s: float) -> list[_Health]:
    from paxos_rsm._proto import kv_pb2 as pb

    request = pb.RangeRequest(key=b"health")

    async def one(name: str) -> _Health:
        started = time.monotonic()
        try:
            await ask(name, "KV/Range", request, pb.RangeResponse, timeout_s)
        except ClientError as error:
            return _Health(name, time.monotonic() - started, describe(error))
        return _Health(name, time.monotonic() - started, "")

    return list(await asyncio.gather(*map(one, endpoints)))


# ---- status ----------------------------------------------------------------------------------------------


@client_command("status", epilog="\b\nExamples:\n  paxos-rsm endpoint status --cluster -w table")
@cluster_option
@pass_settings
def status(settings: Settings) -> None:
    """Print what each server says of itself: id, version, size, whether it leads, term and slots."""
    from paxos_rsm._proto import maintenance_pb2

    answers = _each(
        settings, "Status", maintenance_pb2.EndpointStatusRequest(), maintenance_pb2.EndpointStatusResponse
    )
    if settings.write_out == "json":
        from paxos_rsm.cli.answers.json import plain

        print_json([{"Endpoint": name, "Status": plain(answer)} for name, answer in answers])
    elif settings.write_out == "fields":
        from paxos_rsm.cli.answers.fields import status_lines

        for name, answer in answers:
            write_lines(status_lines(answer, name))
    elif settings.write_out == "table":
        rows = [_status_cells(name, answer) for name, answer in answers]
        print_table(STATUS_COLUMNS, rows, right=(STATUS_COLUMNS[3], *STATUS_COLUMNS[6:9]))
    else:
        write_lines(", ".join(_status_cells(name, answer)).encode() for name, answer in answers)
    _complain(answers, settings)


def _status_cells(name: str, answer: "maintenance_pb2.EndpointStatusResponse") -> list[str]:
    leads = answer.leader == answer.header.member_id
    return [
        name,
        f"{answer.header.member_id:x}",
        answer.version,
        go_size(answer.dbSize),
        str(leads).lower(),
        str(answer.isLearner).lower(),
        *map(str, (answer.raftTerm, answer.raftIndex, answer.raftAppliedIndex)),
        ", ".join(answer.errors),
    ]


# ---- hashkv ----------------------------------------------------------------------------------------------


@client_command("hashkv", epilog="\b\nExamples:\n  paxos-rsm endpoint hashkv --cluster --rev 1000")
@cluster_option
@click.option(
    "--rev", type=click.IntRange(0), default=0, metavar="REV", help="Up to this revision. [default: all]"
)
@pass_settings
def hashkv(settings: Settings, rev: int) -> None:
    """Print a hash of each server's keys and their history: equal at equal revisions, or something is wrong."""
    from paxos_rsm._proto import maintenance_pb2

    request = maintenance_pb2.HashKVRequest(revision=rev)
    answers = _each(settings, "HashKV", request, maintenance_pb2.HashKVResponse)
    if settings.write_out == "json":
        from paxos_rsm.cli.answers.json import plain

        print_json([{"Endpoint": name, "HashKV": plain(answer)} for name, answer in answers])
    elif settings.write_out == "fields":
        from paxos_rsm.cli.answers.fields import header_lines

        for name, answer in answers:
            lines = (f'"Endpoint" : "{name}"', f'"Hash" : {answer.hash}', "")
            write_lines([*header_lines(answer), *(line.encode() for line in lines)])
    elif settings.write_out == "table":
        print_table(
            ("endpoint", "hash"), [(name, str(answer.hash)) for name, answer in answers], right=("hash",)
        )
    else:
        write_lines(f"{name}, {answer.hash}".encode() for name, answer in answers)
    _complain(answers, settings)


class _Answers(list[tuple[str, Any]]):
    """Endpoint and answer of those that answered; ``silent`` has the reasons of the others."""

    silent: dict[str, ClientError]


def _each(settings: Settings, method: str, request: Any, answer_type: Any) -> _Answers:
    endpoints = chosen_endpoints(settings)
    timeout_s = settings.command_timeout_s
    asked = asyncio.run(ask_each(endpoints, f"Maintenance/{method}", request, answer_type, timeout_s))
    answers = _Answers()
    answers.silent = {}
    for name, answer in zip(endpoints, asked, strict=True):
        if isinstance(answer, ClientError):
            answers.silent[name] = answer
        else:
            answers.append((name, answer))
    return answers


def _complain(answers: _Answers, settings: Settings) -> None:
    """Names the endpoints that did not answer. Raises Failure, or BadConnection where none did."""
    if not answers.silent:
        return
    reasons = "; ".join(describe(error) for error in answers.silent.values())
    if answers or not all(isinstance(error, Unavailable) for error in answers.silent.values()):
        raise Failure(
            f"no answer from {len(answers.silent)} of {len(answers) + len(answers.silent)} endpoints ({reasons})"
        )
    raise BadConnection(f"no server answers ({reasons}); is one running there? see --endpoints")


for _command in (health, status, hashkv):
    endpoint.add_command(_command)

COMMANDS = {"endpoint": endpoint}
