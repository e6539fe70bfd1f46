"""``paxos-rsm``: the command.

::

    app       the root command: what is where, exit codes, one-line errors
    options   endpoints, durations, global options before or after the subcommand, sections of the help
    output    bytes as text or base64; json, tables and plain lines
    connect   opens a client for one command and says what went wrong
    kv        put, get, del, cas, compaction          machine   submit, query
    status    status                                  completion   completion
    server    server (one)                            cluster   cluster (three local ones)
    bench     bench: starts load processes            load      one load process        latency  what it notes
    demo      demo: a leader dies, nothing is lost

Only this file may be imported without click and rich, which the library does not need: it says what to
install.
"""

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Runs the command line of this process; leaves by SystemExit.

    Exit codes: 0; 1 error; 2 no server could be reached; 5 interrupted; 128 bad usage.
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
