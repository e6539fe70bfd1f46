"""``submit`` and ``query``: raw bytes to and from a state machine of the user's own (``server --machine``)."""

import click

from paxos_rsm.cli.answers import print_fields
from paxos_rsm.cli.connect import run
from paxos_rsm.cli.options import Settings, client_command, pass_settings, value_bytes
from paxos_rsm.cli.output import field_of, print_json, print_line

__all__ = ["COMMANDS", "query", "submit"]

SUBMIT_EPILOG = """\
\b
Examples:
  paxos-rsm submit increment
  paxos-rsm submit < command.bin                  any bytes, from standard input
  printf '\\x01\\x02' | paxos-rsm submit -w json    a result that is no UTF-8 in base64
"""

QUERY_EPILOG = """\
\b
Examples:
  paxos-rsm query total
  paxos-rsm query total --consistency s           at once, perhaps stale
  paxos-rsm query < request.bin
"""


def _print_result(settings: Settings, result: bytes) -> None:
    if settings.write_out == "json":
        print_json(field_of("result", result))
    elif settings.write_out == "fields":
        print_fields({"result": result})
    else:
        print_line(result)


@client_command("submit", epilog=SUBMIT_EPILOG)
@click.argument("command", required=False)
@pass_settings
def submit(settings: Settings, command: str | None) -> None:
    """Have the state machine apply COMMAND, and print the result.

    It takes effect exactly once. COMMAND is bytes that only the state machine understands; without it, all of
    standard input. The built-in key-value store has commands of its own: put, get, del, cas.
    """
    data = value_bytes(command, "the command")
    _print_result(settings, run(settings, lambda client: client.submit(data)))


@client_command("query", epilog=QUERY_EPILOG)
@click.argument("request", required=False)
@click.option(
    "--consistency",
    type=click.Choice(["l", "s"]),
    default="l",
    show_default=True,
    help="Linearizable, or serializable: at once, from a state that may be stale.",
)
@pass_settings
def query(settings: Settings, request: str | None, consistency: str) -> None:
    """Ask the state machine REQUEST, and print the answer.

    That changes nothing. REQUEST is bytes that only the state machine understands; without it, all of standard input.
    """
    data = value_bytes(request, "the request")
    _print_result(settings, run(settings, lambda client: client.query(data, serializable=consistency == "s")))


COMMANDS = {"submit": submit, "query": query}
