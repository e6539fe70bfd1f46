"""``paxos-rsm verify DIR``: a data directory, read without a server.

Every file by itself, what is damaged first, and what a start would make of it all (``storage/verify.py``). It changes
nothing, and may be run on a copy. Exit codes: 0 sound; 1 something is damaged, be it what a server can fetch again from
its peers or what keeps it from starting; 3 there is no data directory there, or a server runs on it.
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from paxos_rsm.cli.answers import print_fields
from paxos_rsm.cli.failures import BadInput, describe
from paxos_rsm.cli.options import Settings, client_command, pass_settings
from paxos_rsm.cli.output import print_json, print_line, print_table
from paxos_rsm.errors import DirectoryLocked, DirectoryUnusable

if TYPE_CHECKING:
    from paxos_rsm.storage.verify import Report

__all__ = ["COMMANDS", "verify"]

EPILOG = """\
\b
Examples:
  paxos-rsm verify n1.paxos
  paxos-rsm verify /var/lib/paxos/n1 -w json | jq .verdict
  paxos-rsm verify n1.paxos && paxos-rsm server --data-dir n1.paxos

Exits 0 where all that the server needs is sound, 1 where any of it is damaged, 3 where there is nothing to read or a
server runs on it.
"""

COLUMNS = ("file", "bytes", "content", "damage")


@client_command("verify", epilog=EPILOG)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@pass_settings
@click.pass_context
def verify(ctx: click.Context, settings: Settings, directory: Path) -> None:
    """Check every file of the data directory DIR, without a server; nothing is changed.

    Says of each file what stands in it, of the first that is damaged where, and what it means: nothing, something that
    the other members have, or a promise that may be lost, when no server starts on it.
    """
    from paxos_rsm.storage.files import RealFiles
    from paxos_rsm.storage.verify import Verdict
    from paxos_rsm.storage.verify import verify as verify_directory

    try:
        report = verify_directory(RealFiles(), directory)
    except (DirectoryUnusable, DirectoryLocked) as error:
        raise BadInput(describe(error)) from None
    if settings.write_out == "json":
        print_json(as_json(report))
    elif settings.write_out == "fields":
        print_fields({name: value for name, value in as_json(report).items() if name != "files"})
    else:
        show(report, as_table=settings.write_out == "table")
    if report.verdict is not Verdict.SOUND:
        ctx.exit(1)


def as_json(report: "Report") -> dict[str, object]:
    """The whole report. Ids are in hexadecimal, as everywhere; a ballot is ``round.node``."""
    identity = report.identity
    first = report.first_problem
    return {
        "path": report.path,
        "verdict": report.verdict.value,
        "meaning": list(report.meaning),
        "first_damage": asdict(first) if first is not None else None,
        "name": identity.name if identity is not None else None,
        "cluster_id": f"{identity.cluster_id:x}" if identity is not None else None,
        "member_id": f"{identity.member_id:x}" if identity is not None else None,
        "incarnation": f"{identity.incarnation:x}" if identity is not None else None,
        "boot_count": identity.boot_count if identity is not None else None,
        "format_version": identity.format_version if identity is not None else None,
        "promised": f"{report.promised.round}.{report.promised.node:x}",
        "decided_slot": report.decided_through,
        "compacted_slot": report.compacted_through,
        "snapshot_slot": report.snapshot,
        "unreadable_slots": list(report.unreadable),
        "files": [asdict(file) for file in report.files],
    }


def show(report: "Report", *, as_table: bool) -> None:
    """The report for a person: files, then what it means."""
    rows = []
    for file in report.files:
        where = f", at byte {file.offset}" if file.problem is not None and file.offset is not None else ""
        rows.append((file.name, str(file.bytes), file.content, f"{file.problem or ''}{where}"))
    if as_table:
        print_table(COLUMNS, rows, ("bytes",))
    else:
        for name, size, content, problem in rows:
            said = "; ".join(part for part in (content, f"DAMAGED: {problem}" if problem else "") if part)
            print_line(f"{name}: {size} bytes, {said or 'empty'}")
    print_line(
        f"{report.verdict.value}: decided up to slot {report.decided_through}, compacted through "
        f"{report.compacted_through}, newest sound snapshot {report.snapshot or 'none'}"
    )
    for sentence in report.meaning:
        print_line(sentence)


COMMANDS = {"verify": verify}
