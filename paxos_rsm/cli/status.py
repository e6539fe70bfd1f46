"""``paxos-rsm status``: every member, the unreachable too, from any one that answers.

Who the members are and what each says of itself is the client's to find out (``AsyncClient.status``); here it is only
shown. What nobody could tell is null in JSON and empty in the table. A digest is work for the servers, so it is asked
for apart, and only of the members that answered.
"""

import asyncio
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from paxos_rsm.cli.answers import print_fields
from paxos_rsm.cli.failures import BadConnection
from paxos_rsm.cli.options import Settings, client_command, pass_settings
from paxos_rsm.cli.output import human_bytes, print_json, print_line, print_table

if TYPE_CHECKING:
    from paxos_rsm.client import MemberStatus

__all__ = ["COMMANDS", "plain_reason", "status"]

EPILOG = """\
\b
Examples:
  paxos-rsm status                                every member, by way of the default endpoint
  paxos-rsm status --endpoints 127.0.0.1:2381     the same, by way of another
  paxos-rsm status -w json | jq '.[] | select(.error) | .name'
  paxos-rsm status --digest                       equal digests at equal applied slots: equal states

Exits 2 where no member answers, 0 where at least one does.
"""

NUMBERS = (
    "decided_slot",
    "applied_slot",
    "compacted_slot",
    "snapshot_slot",
    "revision",
    "log_bytes",
    "memory_bytes",
)
JSON_FIELDS = ("name", "member_id", "endpoint", "role", "learner", "leader", "ballot", *NUMBERS, "error")
COLUMNS = ("name", "endpoint", "role", "leader", "ballot", "decided", "applied", "compacted")
SIZES = ("revision", "log", "memory")

STYLES = {"leader": "bold green", "unreachable": "bold red", "candidate": "yellow", "forming": "yellow"}

REASONS = re.compile(
    r"connection refused|no route to host|network is unreachable|connection reset", re.IGNORECASE
)


def plain_reason(error: str) -> str:
    """Why a member did not answer, without gRPC's inner words."""
    known = REASONS.search(error)
    if known:
        return known[0].lower()
    if error.startswith("UNIMPLEMENTED"):
        return "not a paxos_rsm server"
    return " ".join(error.split())


def why_silent(row: "MemberStatus") -> str:
    """Why a member did not answer."""
    if row.member_id and not row.name and not row.endpoint:
        return "it was added, and has yet to start"
    return plain_reason(row.error)


def as_json(row: "MemberStatus", digest: str | None, with_digest: bool) -> dict[str, Any]:
    """The object that ``-w json`` prints; null is what nobody could tell."""
    shown: dict[str, Any] = {name: asdict(row)[name] for name in JSON_FIELDS}
    shown["error"] = why_silent(row) if row.error else None
    if row.error:
        for name in ("role", "learner", "leader", "ballot", *NUMBERS):
            shown[name] = None
        shown["name"] = row.name or None
        shown["member_id"] = row.member_id or None
    if with_digest:
        shown["digest"] = digest
    return shown


async def _ask(settings: Settings, with_digest: bool) -> "tuple[list[MemberStatus], dict[str, str]]":
    """A row for each member, and by endpoint the digests of those that answered, in hexadecimal."""
    from paxos_rsm.client import AsyncClient

    timeout_s = min(settings.dial_timeout_s, settings.command_timeout_s)
    async with AsyncClient(settings.endpoints, timeout_s=timeout_s) as client:
        rows = await client.status()
    if not with_digest:
        return rows, {}
    answering = [row.endpoint for row in rows if not row.error]
    digests = await asyncio.gather(*(_digest(endpoint, settings.command_timeout_s) for endpoint in answering))
    return rows, {endpoint: found for endpoint, found in zip(answering, digests, strict=True) if found}


async def _digest(endpoint: str, timeout_s: float) -> str | None:
    import grpc

    from paxos_rsm._proto import admin_pb2, admin_pb2_grpc

    async with grpc.aio.insecure_channel(endpoint, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = admin_pb2_grpc.AdminStub(channel)
        try:
            answer = await stub.Status(admin_pb2.StatusRequest(digest=True), timeout=timeout_s)
        except grpc.aio.AioRpcError:
            return None  # it answered a moment ago: its row stays
    return answer.digest.hex()


def _cells(row: "MemberStatus") -> list[str]:
    """One row of the table, without digest and error."""
    if row.error:
        return [row.name or "?", row.endpoint, "unreachable", *[""] * (len(COLUMNS) + len(SIZES) - 3)]
    ballot = f"{row.ballot.round}.{row.ballot.node & 0xFFFF:04x}" if row.ballot.round else "none"
    return [
        *(row.name, row.endpoint, "learner" if row.learner else row.role, row.leader or "none", ballot),
        *map(str, (row.decided_slot, row.applied_slot, row.compacted_slot, row.revision)),
        *(human_bytes(row.log_bytes), human_bytes(row.memory_bytes)),
    ]


def _print_table(rows: "list[MemberStatus]", digests: dict[str, str], with_digest: bool) -> None:
    columns = [*COLUMNS, *SIZES]
    with_error = any(row.error for row in rows)
    columns += ["digest"] * with_digest + ["error"] * with_error
    lines: list[list[str | Text]] = []
    for row in rows:
        cells: list[str | Text] = list(_cells(row))
        cells[2] = Text(str(cells[2]), style=STYLES.get(str(cells[2]), ""))
        if with_digest:
            cells.append(digests.get(row.endpoint, "")[:16])
        if with_error:
            cells.append(Text(why_silent(row) if row.error else "", style="red"))
        lines.append(cells)
    print_table(columns, lines, right=[*COLUMNS[5:], *SIZES])


def _print_simple(rows: "list[MemberStatus]", digests: dict[str, str]) -> None:
    for row in rows:
        line = f"{row.name or '?'} {row.endpoint} "
        if row.error:
            line += f"unreachable: {why_silent(row)}"
        else:
            line += f"{row.role} ballot {row.ballot.round} applied {row.applied_slot} revision {row.revision}"
        if row.endpoint in digests:
            line += f" digest {digests[row.endpoint]}"
        print_line(line)


@client_command("status", epilog=EPILOG)
@click.option("--digest", is_flag=True, help="Also hash each state; takes time in proportion to its size.")
@pass_settings
def status(settings: Settings, digest: bool) -> None:
    """Show every member: role, ballot, slots, sizes; the unreachable too."""
    rows, digests = asyncio.run(_ask(settings, digest))
    rows.sort(key=lambda row: (not row.name, row.name))  # a row stays in its place whether it answers or not
    if settings.write_out == "json":
        print_json([as_json(row, digests.get(row.endpoint), digest) for row in rows])
    elif settings.write_out == "fields":
        for row in rows:
            print_fields(as_json(row, digests.get(row.endpoint), digest))
            print_line("")
    elif settings.write_out == "simple":
        _print_simple(rows, digests)
    else:
        _print_table(rows, digests, digest)
    if all(row.error for row in rows):
        reasons = "; ".join(f"{row.endpoint}: {plain_reason(row.error)}" for row in rows)
        raise BadConnection(f"no server answers ({reasons}); is one running there? see --endpoints")


COMMANDS = {"status": status}
