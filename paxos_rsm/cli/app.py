"""The root command: which subcommands there are, and where every failure ends.

A failure leaves through :meth:`Root.main` as one line on stderr and an exit code (see ``failures``); the
hidden ``--debug`` shows the traceback as well. Subcommands are imported when they are called: ``paxos-rsm
get`` need not load what a benchmark needs.
"""

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from paxos_rsm._version import __version__
from paxos_rsm.cli.failures import EXIT_INTERRUPTED, describe, exit_code_of
from paxos_rsm.cli.options import ENVIRONMENT_PREFIX, global_options
from paxos_rsm.errors import PaxosRsmError

__all__ = ["Root", "cli"]

# Heading of the help, and below it the commands, each with its module.
COMMANDS = {
    "Keys and values": {
        "put": "kv",
        "get": "kv",
        "del": "kv",
        "cas": "kv",
        "txn": "txn",
        "watch": "watch",
        "compaction": "kv",
    },
    "Leases, locks, elections": {"lease": "lease", "lock": "lock", "elect": "elect"},
    "Any state machine": {"submit": "machine", "query": "machine"},
    "Servers": {
        "server": "server",
        "cluster": "cluster",
        "status": "status",
        "member": "member",
        "move-leader": "move_leader",
        "endpoint": "endpoint",
        "snapshot": "snapshot",
        "verify": "verify",
        "alarm": "maintenance",
        "defrag": "maintenance",
    },
    "Trying it out": {
        "demo": "demo",
        "bench": "bench",
        "sim": "sim",
        "chaos": "chaos",
        "check": "check",
        "shell": "shell",
        "completion": "completion",
    },
}
MODULES = {name: module for commands in COMMANDS.values() for name, module in commands.items()}

EPILOG = """\
\b
Examples:
  paxos-rsm demo                                  see it survive the death of a leader
  paxos-rsm cluster                               three local servers, until Ctrl-C
  paxos-rsm put greeting hello
  paxos-rsm get greeting --endpoints 127.0.0.1:2381,127.0.0.1:2383
  paxos-rsm status -w json

Every option can be set in the environment: PAXOS_RSM_ENDPOINTS, PAXOS_RSM_BENCH_IN_FLIGHT.

Exit codes: 0 done; 1 error; 2 no server could be reached; 3 input that cannot be read;
4 a check was not decided; 5 interrupted; 128 bad usage.
"""


class Root(click.Group):
    """The group of all commands, which imports them late and turns exceptions into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in MODULES:
            return None
        module = importlib.import_module(f"paxos_rsm.cli.{MODULES[cmd_name]}")
        command: click.Command = module.COMMANDS[cmd_name]
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, names in COMMANDS.items():
            rows = []
            for name in names:
                command = self.get_command(ctx, name)
                if command is not None:
                    rows.append((name, command.get_short_help_str(limit=80)))
            with formatter.section(heading):
                formatter.write_dl(rows)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Runs one command line and leaves by SystemExit, whatever happens."""
        args = list(sys.argv[1:] if args is None else args)
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        sys.exit(self.run(args, prog_name, complete_var, **extra))

    def run(
        self,
        args: Sequence[str],
        prog_name: str | None = "paxos-rsm",
        complete_var: str | None = None,
        **extra: Any,
    ) -> int:
        """Runs one command line; says what went wrong, and returns the exit code."""
        args = list(args)
        try:
            # click itself leaves with 1, in silence, where the reader of our output has gone (``| head``).
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except (click.Abort, KeyboardInterrupt):
            click.echo("Error: interrupted", err=True)
            return EXIT_INTERRUPTED
        except Exception as error:
            _report(error, debug="--debug" in args or bool(os.environ.get(f"{ENVIRONMENT_PREFIX}_DEBUG")))
            return exit_code_of(error)
        return code if isinstance(code, int) else 0


def _report(error: Exception, debug: bool) -> None:
    if debug:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    message = describe(error)
    if not isinstance(error, PaxosRsmError | click.ClickException | OSError):
        # A bug of ours: the name of the exception is all there is to search for.
        message = f"{type(error).__name__}: {message}; this is a bug, --debug shows where"
    click.echo(f"Error: {message}", err=True)


@click.command(
    cls=Root,
    epilog=EPILOG,
    invoke_without_command=True,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": ENVIRONMENT_PREFIX,
        "max_content_width": 110,
    },
)
@global_options(root=True)
@click.version_option(__version__, "--version", message="paxos-rsm %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """A replicated state machine: a Multi-Paxos log, with a key-value store on top.

    Global options may stand before or after the subcommand.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
