"""``txn``: a transaction read from standard input, in the grammar of etcd's command (see txn_grammar)."""

import click

from paxos_rsm.cli.answers import show
from paxos_rsm.cli.options import Settings, client_command, pass_settings
from paxos_rsm.cli.stdin import text_lines
from paxos_rsm.cli.store import ask_store
from paxos_rsm.cli.txn_grammar import read_txn

__all__ = ["COMMANDS", "txn"]

EPILOG = """\
\b
Examples:
  paxos-rsm txn -i                                it asks for each section
  paxos-rsm txn <<'TXN'
  value("owner") = "me"
  mod("owner") > "0"

  put owner you

  get owner

  TXN

Three sections, each ended by an empty line: comparisons, what is done where all of them hold, and what is done where
not. Targets are value, version, create, mod and lease; operators = != < >; key and value stand in double quotes.
Requests are get, put and del with their flags.

Exit codes: 0 also where a comparison did not hold (it prints FAILURE); 3 a transaction that cannot be read.
"""


@client_command("txn", epilog=EPILOG)
@click.option("-i", "--interactive", is_flag=True, help="Say which section is being read.")
@pass_settings
def txn(settings: Settings, interactive: bool) -> None:
    """Do several things at one point in time, or others where conditions do not hold.

    Prints SUCCESS or FAILURE, then the results one by one.
    """
    from paxos_rsm._proto import kv_pb2 as pb

    request = read_txn(text_lines(), click.echo if interactive else lambda heading: None)
    show(settings, ask_store(settings, pb.KvCommand(txn=request)))


COMMANDS = {"txn": txn}
