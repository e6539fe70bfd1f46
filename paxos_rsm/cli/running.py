"""Commands of the user's that are run for something: for an event of a watch, or while a lock is held.

Their standard streams are ours, and their environment has in it what they are run for, under etcd's names and under our
own. None of them outlives us where we can help it: cancelled, we tell them to end, and in the end make them.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import click

from paxos_rsm.cli.go_strings import quote
from paxos_rsm.cli.options import SectionCommand

__all__ = ["ExecCommand", "child_environment", "exit_status", "run_command", "terminated_as_interrupted"]

GRACE_S = 5.0
"""Between being told to end and being made to."""


class ExecCommand(SectionCommand):
    """A command line that ends with another one: its last argument is called ``command``, and takes the rest.

    ``--`` may stand before it, and must where anything else could be meant; our own options stand before it.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" not in args:
            options, rest = self._split(ctx, args)
            if rest:
                more, command = self._split(ctx, rest[1:])
                args = [*options, *more, "--", rest[0], *command]
        return super().parse_args(ctx, args)

    def _split(self, ctx: click.Context, args: list[str]) -> tuple[list[str], list[str]]:
        """The options at the beginning of ``args``, and what stands behind them."""
        parser = self.make_parser(ctx)
        parser.allow_interspersed_args = False
        found: dict[str, Any] = parser.parse_args(list(args))[0]
        names = {param.name: param.nargs for param in self.params if isinstance(param, click.Argument)}
        words = 0
        for name, nargs in names.items():
            value = found.get(name or "")
            words += len(value) if nargs == -1 and isinstance(value, tuple) else isinstance(value, str)
        at = len(args) - words
        return args[:at], args[at:]


def child_environment(what: str, values: Mapping[str, bytes | int]) -> dict[bytes, bytes]:
    """Our environment and ``values``, twice: ``ETCD_<WHAT>_<NAME>`` and ``PAXOS_RSM_<WHAT>_<NAME>``.

    Where etcd's command has bytes of the store in quotes (watches), the first has; the second always has them as they
    are, and is left out where they hold a zero byte, which no environment can.
    """
    made = dict(os.environb)
    for name, value in values.items():
        plain = value if isinstance(value, bytes) else str(value).encode()
        quoted = quote(value).encode() if what == "WATCH" and isinstance(value, bytes) else plain
        for prefix, shown in ((b"ETCD", quoted), (b"PAXOS_RSM", plain)):
            variable = b"_".join((prefix, what.encode(), name.encode()))
            made.pop(variable, None)
            if b"\0" not in shown:
                made[variable] = shown
    return made


async def run_command(command: Sequence[str], environment: Mapping[bytes, bytes]) -> int:
    """Runs a command to its end; returns its exit status, see :func:`exit_status`. Raises OSError where it cannot."""
    process = await asyncio.create_subprocess_exec(*command, env=dict(environment))
    try:
        return exit_status(await process.wait())
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), GRACE_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        raise


def exit_status(returncode: int) -> int:
    """As a shell has it: 128 and the signal's number where one ended it."""
    return returncode if returncode >= 0 else 128 - returncode


@contextlib.asynccontextmanager
async def terminated_as_interrupted() -> AsyncIterator[None]:
    """Within it SIGTERM does what Ctrl-C does: what is held is let go before the end."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    told = False

    def end() -> None:
        nonlocal told
        told = True
        if task is not None:
            task.cancel()

    try:
        loop.add_signal_handler(signal.SIGTERM, end)
    except (RuntimeError, ValueError):  # not the main thread
        yield
        return
    try:
        yield
    except asyncio.CancelledError:
        if told:
            raise KeyboardInterrupt from None
        raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
