"""``watch``: every change of a key or of many, in order, as long as one wants; or a command run for each.

The watch is the client's: it goes on at another server when one dies, without a gap. Changes that have come together
are printed together, one response of the wire for all of them, as etcd's command does.

``-i`` reads further watches from standard input, a line each, and tells with ``progress`` how far all of them have
come: everything up to that revision has been printed.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from paxos_rsm.cli.answers import Style, show
from paxos_rsm.cli.connect import connected
from paxos_rsm.cli.direct import complete_header
from paxos_rsm.cli.failures import EXIT_BAD_INPUT, BadInput, Failure
from paxos_rsm.cli.go_strings import split_words
from paxos_rsm.cli.kv import bounds_of, bounds_options
from paxos_rsm.cli.options import SectionCommand, Settings, global_options, pass_settings
from paxos_rsm.cli.running import child_environment, run_command
from paxos_rsm.cli.stdin import arriving_lines
from paxos_rsm.cli.store import execute, key_value_to_pb

if TYPE_CHECKING:
    from paxos_rsm._proto import kv_pb2 as pb
    from paxos_rsm.client import AsyncClient, WatchEvent
    from paxos_rsm.client.watch import AsyncWatch

__all__ = ["COMMANDS", "Request", "parse_line", "watch"]

COMMAND = "paxos_rsm.cli.watch.command"
PROGRESS_PAUSE_S = 0.05

EPILOG = """\
\b
Examples:
  paxos-rsm watch greeting                        until Ctrl-C
  paxos-rsm watch --prefix app/ --prev-kv
  paxos-rsm watch --prefix app/ --rev 17          from that revision on, then what comes
  paxos-rsm watch --prefix app/ -- ./reload.sh    run for each change
  paxos-rsm watch -i                              asks: watch KEY [flags] [-- COMMAND], or progress

The command finds in its environment PAXOS_RSM_WATCH_EVENT_TYPE (PUT or DELETE), PAXOS_RSM_WATCH_KEY,
PAXOS_RSM_WATCH_VALUE and PAXOS_RSM_WATCH_REVISION; and the same under ETCD_WATCH_..., key, value and type in quotes.
One that fails ends the watch.

Exit codes: 1 also where what comes next has been compacted, or the command failed; 3 a line of -i that cannot be read;
5 interrupted.
"""


@dataclass(frozen=True)
class Request:
    """What is to be watched."""

    key: bytes
    range_end: bytes
    start_revision: int = 0
    prev_kv: bool = False
    progress: bool = False
    command: tuple[str, ...] = ()
    """To be run for each event."""


class WatchCommand(SectionCommand):
    """Its line may end with ``--`` and another command line: what stands behind is not ours to parse."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.meta[COMMAND] = tuple(args[at + 1 :])
            args = args[:at]
        return super().parse_args(ctx, args)


@click.command("watch", cls=WatchCommand, epilog=EPILOG)
@bounds_options
@click.option(
    "--rev", type=click.IntRange(0), default=0, metavar="REV", help="Begin with the changes of this revision."
)
@click.option("--prev-kv", is_flag=True, help="Also print what stood there before.")
@click.option("--progress-notify", is_flag=True, help="Also say now and then how far the watch has come.")
@click.option("-i", "--interactive", is_flag=True, help="Read what to watch from standard input.")
@global_options()
@pass_settings
@click.pass_context
def watch(
    ctx: click.Context,
    settings: Settings,
    key: str | None,
    range_end: str | None,
    prefix: bool,
    from_key: bool,
    rev: int,
    prev_kv: bool,
    progress_notify: bool,
    interactive: bool,
) -> None:
    """Print every change of KEY, or of the keys from KEY up to RANGE_END."""
    if interactive:
        if key is not None:
            raise click.UsageError("with -i, what to watch comes from standard input: watch KEY")
        try:
            ctx.exit(asyncio.run(_interactive(settings)))
        except ExceptionGroup as group:  # what ended one of the watches
            raise group.exceptions[0] from None
    bounds = bounds_of(key, range_end, prefix, from_key)
    command = ctx.meta.get(COMMAND, ())
    asyncio.run(_watch_one(settings, Request(*bounds, rev, prev_kv, progress_notify, command)))


def parse_line(line: str) -> Request | None:
    """A line of ``-i``: what to watch; None for ``progress``. Raises BadInput for anything else."""
    try:
        words = split_words(line)
    except ValueError as error:
        raise BadInput(f"{line.strip()}: {error}") from None
    if words == ["progress"]:
        return None
    if words[0] != "watch":
        raise BadInput(f"Invalid command {words[0]} (only support watch and progress)")
    try:
        with watch.make_context("watch", words[1:]) as context:
            flags = context.params
            if flags["interactive"]:
                raise click.UsageError("it is interactive already")
            bounds = bounds_of(flags["key"], flags["range_end"], flags["prefix"], flags["from_key"])
            command = context.meta.get(COMMAND, ())
            return Request(*bounds, flags["rev"], flags["prev_kv"], flags["progress_notify"], command)
    except click.UsageError as error:
        raise BadInput(f"{line.strip()}: {error.format_message().rstrip('.')}") from None
    except click.exceptions.Exit:  # --help
        raise BadInput(f"{line.strip()}: --help is not for here") from None


# ---- one watch -------------------------------------------------------------------------------------------


async def _watch_one(settings: Settings, request: Request) -> None:
    async with connected(settings) as client, _open(client, request) as watching:
        await _follow(settings, request, watching)


def _open(client: "AsyncClient", request: Request) -> "AsyncWatch":
    return client.watch(
        request.key,
        request.range_end or None,
        start_revision=request.start_revision,
        prev_kv=request.prev_kv,
        progress=request.progress,
    )


async def _follow(settings: Settings, request: Request, watching: "AsyncWatch") -> None:
    """Prints what comes, and runs the command for it. Raises Failure where that fails."""
    from paxos_rsm._proto import kv_pb2 as pb

    told = pb.ResponseHeader()
    await complete_header(settings, told)
    while events := await watching.next_batch():
        changes = [event for event in events if event.kind != "progress"]
        if changes:
            _print(settings, told, changes)
        for event in changes if request.command else ():
            await _run_for(request.command, event)
        if len(changes) < len(events):
            _print(settings, told, [], events[-1].revision)


def _print(
    settings: Settings, told: "pb.ResponseHeader", events: "Sequence[WatchEvent]", revision: int = 0
) -> None:
    from paxos_rsm._proto import watch_pb2

    answer = watch_pb2.WatchResponse(header=told)
    answer.header.revision = events[-1].revision if events else revision
    for event in events:
        kind = watch_pb2.Event.DELETE if event.kind == "delete" else watch_pb2.Event.PUT
        previous = None if event.prev_kv is None else key_value_to_pb(event.prev_kv)
        answer.events.append(watch_pb2.Event(type=kind, kv=key_value_to_pb(event.kv), prev_kv=previous))
    show(settings, answer, Style(hex=settings.hex))


async def _run_for(command: tuple[str, ...], event: "WatchEvent") -> None:
    values: dict[str, bytes | int] = {
        "EVENT_TYPE": event.kind.upper().encode(),
        "KEY": event.key,
        "VALUE": event.value,
        "REVISION": event.revision,
    }
    status = await run_command(command, child_environment("WATCH", values))
    if status:
        raise Failure(f"the command {' '.join(command)} ended with exit code {status}")


# ---- interactive -----------------------------------------------------------------------------------------


async def _interactive(settings: Settings) -> int:
    """Watches what it is told to, until standard input ends; returns the exit code.

    A line that cannot be read is told of, and has no other effect until the end.
    """
    code = 0
    async with connected(settings) as client, AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        watches: list[AsyncWatch] = []
        following: list[asyncio.Task[None]] = []
        async for line in arriving_lines():
            if not line.strip():
                continue
            try:
                request = parse_line(line)
            except BadInput as error:
                click.echo(f"Error: {error.format_message()}", err=True)
                code = EXIT_BAD_INPUT
                continue
            if request is None:
                await _tell_progress(settings, client, watches)
            else:
                watching = await stack.enter_async_context(_open(client, request))
                watches.append(watching)
                following.append(tasks.create_task(_follow(settings, request, watching)))
        for task in following:
            task.cancel()
    return code


async def _tell_progress(settings: Settings, client: "AsyncClient", watches: "Sequence[AsyncWatch]") -> None:
    """Says a revision, of now or later, up to which everything has been printed. Waits until that is so.

    A watch to which nothing happens learns by itself how far its server has come, about once a second.
    """
    from paxos_rsm._proto import kv_pb2 as pb

    read = pb.KvCommand(range=pb.RangeRequest(key=b"\0", count_only=True))
    answer = await execute(client, read)
    told: pb.ResponseHeader = answer.header
    await complete_header(settings, told)
    while any(watching.resume_revision <= told.revision for watching in watches):  # noqa: ASYNC110 # it has no event
        await asyncio.sleep(PROGRESS_PAUSE_S)
    _print(settings, told, [], told.revision)


COMMANDS = {"watch": watch}
