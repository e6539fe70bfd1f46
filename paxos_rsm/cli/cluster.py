"""``paxos-rsm cluster``: a few local servers in the foreground, each a process of its own, until Ctrl-C.

The directory remembers how the cluster was made, because servers know each other by their addresses:
started again with another size or other ports it could never agree, and says so here instead. A server that
ends is reported and not started again; what one would type to do so is printed, since that is the lesson of
trying it.
"""

import json
import shlex
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

from paxos_rsm.cli.failures import Failure
from paxos_rsm.cli.options import SectionCommand, global_options
from paxos_rsm.cli.output import print_line, print_table
from paxos_rsm.cli.server import server_options
from paxos_rsm.config import OPTIONS
from paxos_rsm.testing.cluster import LocalCluster, LocalClusterError, LocalServer

__all__ = ["COMMANDS", "EndedBySignal", "cluster", "signals_end_it"]

EPILOG = """\
\b
Examples:
  paxos-rsm cluster                               three servers, clients on 2379, 2381, 2383
  paxos-rsm cluster --size 5 --data-dir /tmp/five
  paxos-rsm cluster --machine mypackage.counter:Counter
  paxos-rsm cluster --election-timeout 300 --log-level debug

In another terminal: paxos-rsm put greeting hello; paxos-rsm status; kill -9 a server and look again.
"""

DEFAULT_DIRECTORY = "paxos-rsm-cluster"
SIZE_MAX = 9
MADE_WITH = "cluster.json"
WATCH_INTERVAL_S = 0.2
LEADER_INTERVAL_S = 1.0
START_TIMEOUT_S = 60.0


class EndedBySignal(KeyboardInterrupt):
    """SIGINT, SIGTERM or SIGHUP came: as Ctrl-C, which asyncio too lets through."""


@contextmanager
def signals_end_it() -> Iterator[None]:
    """Within, the first signal that asks for the end raises EndedBySignal; a second one is not waited for."""

    def first(number: int, frame: object) -> NoReturn:
        for each in watched:
            signal.signal(each, signal.SIG_IGN if number == signal.SIGHUP else signal.default_int_handler)
        raise EndedBySignal

    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {each: signal.signal(each, first) for each in watched}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_made_with(directory: Path, wanted: Mapping[str, Any]) -> None:
    """Writes down how the cluster in ``directory`` is made, or raises Failure where it was made otherwise."""
    path = directory / MADE_WITH
    directory.mkdir(parents=True, exist_ok=True)
    # A start that failed before any server had data binds nobody.
    if path.exists() and any(each.is_dir() for each in directory.iterdir()):
        try:
            made = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise Failure(
                f"{path} cannot be read; remove {directory} to begin anew, or take another --data-dir"
            ) from None
        if made != wanted:
            given = {name.replace("_", "-"): value for name, value in made.items() if value is not None}
            flags = " ".join(f"--{name} {value}" for name, value in given.items())
            raise Failure(
                f"{directory} holds a cluster that was made with {flags}: start it so, or take another --data-dir"
            )
    path.write_text(json.dumps(wanted) + "\n", encoding="utf-8")


@click.command("cluster", cls=SectionCommand, epilog=EPILOG)
@click.option(
    "--size",
    type=click.IntRange(1, SIZE_MAX),
    metavar="N",
    default=3,
    show_default=True,
    help="How many servers.",
)
@click.option(
    "--base-port",
    type=click.IntRange(1, 65_535),
    default=2379,
    show_default=True,
    metavar="PORT",
    help="Clients on PORT, PORT+2, ..., peers on PORT+1, PORT+3, ...",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_DIRECTORY,
    show_default=True,
    help="Directory of data and logs; kept, and used again by the next start.",
)
@server_options(
    lambda option: option.tuning or option.field in ("machine", "log_level", "log_format"), environment=True
)
@global_options(connects=False)
def cluster(size: int, base_port: int, data_dir: Path, machine: str | None, **flags: str | None) -> None:
    """Run a local cluster in the foreground, until Ctrl-C.

    Each server is a process of its own, on ports next to each other, with its data and its log in one
    directory. A server that dies is reported; the others go on.
    """
    if base_port + 2 * size - 1 > 65_535:
        raise click.BadParameter(f"{size} servers need the ports up to {base_port + 2 * size - 1}")
    check_made_with(data_dir, {"size": size, "base_port": base_port, "machine": machine})
    names = {option.field: option.flag for option in OPTIONS}
    options = {names[field]: value for field, value in flags.items() if value is not None}
    servers = LocalCluster(size, directory=data_dir, base_port=base_port, machine=machine, options=options)
    try:
        with signals_end_it():
            try:
                _start(servers)
                _watch(servers)
            except EndedBySignal:
                _end(servers)
    finally:
        servers.close()


def _start(servers: LocalCluster) -> None:
    print_line(f"starting {len(servers)} servers, data and logs in {servers.directory}")
    try:
        servers.start(timeout_s=START_TIMEOUT_S)
    except LocalClusterError as error:
        raise Failure(error.headline) from error
    rows = [
        (server.name, server.endpoint, str(server.peer_port), str(server.pid), str(server.data_dir))
        for server in servers
    ]
    print_table(("name", "clients", "peers", "pid", "data"), rows, right=("peers", "pid"))
    print_line(f"endpoints: {','.join(servers.endpoints)}")


def _watch(servers: LocalCluster) -> NoReturn:
    """Reports what changes, until a signal. Raises Failure where no server is left."""
    leader, looked_at, alive = "", -LEADER_INTERVAL_S, {server.name for server in servers}
    while True:
        for server in servers:
            if server.name in alive and not server.running:
                alive.discard(server.name)
                _report_end(server)
        if not alive:
            raise Failure(f"no server is left; their logs are {servers.directory}/n*.log")
        if time.monotonic() - looked_at >= LEADER_INTERVAL_S:
            looked_at = time.monotonic()
            found = servers.leader() or "none"
            if found != leader:
                leader = found
                _print_leader(servers, leader)
        time.sleep(WATCH_INTERVAL_S)


def _report_end(server: LocalServer) -> None:
    """Says that a server has ended, why where it has said so itself, and how to start it again."""
    said = ""
    if server.returncode is not None and server.returncode > 0:
        said = "".join(f": {line}" for line in server.log().splitlines()[-1:])
    click.echo(f"{server.name} (pid {server.pid}) {server.describe_end()}{said}", err=True)
    click.echo(f"  its log: {server.log_path}", err=True)
    click.echo(f"  to start it again: paxos-rsm server {shlex.join(server.command_line())}", err=True)


def _print_leader(servers: LocalCluster, leader: str) -> None:
    if leader == "none":
        print_line("leader: none")
    else:
        print_line(f"leader: {leader} at {servers[leader].endpoint}")


def _end(servers: LocalCluster) -> None:
    print_line("ending the servers")
    try:
        codes = servers.terminate()
    except LocalClusterError as error:
        raise Failure(error.headline) from error
    bad = ", ".join(f"{name} {servers[name].describe_end()}" for name, code in codes.items() if code)
    if bad:
        raise Failure(f"{bad}; their logs are in {servers.directory}")
    print_line(f"ended; {servers.directory} keeps the data for the next start")


COMMANDS = {"cluster": cluster}
