"""``paxos-rsm``: the command.

::

    app       the root command: what is where, exit codes, one-line errors
    options   endpoints, durations, global options before or after the subcommand, sections of the help
    output    bytes as text or base64; json, tables and plain lines
    connect   opens a client for one command and says what went wrong
    direct    calls to one server                     store     commands of the key-value store
    answers/  what servers answer, as text: simple, json, fields, table       go_strings   strings as Go has them

    kv        put, get, del, cas, compaction          machine   submit, query
    txn       txn; txn_grammar reads it               watch     watch
    lease     lease; lease_ids reads its number       lock, elect; running runs commands while they are held
    status    status                                  member    member list
    endpoint  endpoint health|status|hashkv           snapshot, maintenance (alarm, defrag)
    server    server (one)                            cluster   cluster (three local ones)
    bench     bench: starts load processes            load      one load process        latency  what it notes
    sim, chaos, check                                 perf      check perf
    demo      demo: a leader dies, nothing is lost
    shell     shell; stdin brings lines               completion   completion; key_completion that of keys

Only this file may be imported without click and rich, which the library does not need: it says what to
install.
"""

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Runs the command line of this process; leaves by SystemExit.

    Exit codes: see failures.py.
    """
    try:
        import click  # noqa: F401
        import rich  # noqa: F401
    except ImportError as error:
        missing = error.name or "a module"
        print(
            f"Error: the command line needs {missing}, which is not installed: pip install 'paxos-rsm[cli]'",
            file=sys.stderr,
        )
        sys.exit(1)
    # gRPC's own log lines about connections that end are no news to a user; GRPC_VERBOSITY=info brings them
    # back.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from paxos_rsm.cli.app import cli

    cli.main(prog_name="paxos-rsm")
