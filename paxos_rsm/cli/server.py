"""``paxos-rsm server``: one server, in the foreground, until SIGTERM or Ctrl-C.

The options are made from the table in `paxos_rsm.config`, so that flag, environment and file cannot drift
apart; reading and checking them is left to ``load_config``, whose sentences name the source of a bad value.
"""

import os
import secrets
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from paxos_rsm.cli.failures import Failure
from paxos_rsm.cli.options import SectionCommand, SectionOption, global_options
from paxos_rsm.config import OPTIONS, Option, ServerConfig, load_config

__all__ = ["COMMANDS", "server", "server_options"]

EPILOG = """\
\b
Examples:
  paxos-rsm server                                a cluster of one, clients on 2379
  paxos-rsm server --name n1 --data-dir d1 \\
      --listen-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380 \\
      --initial-cluster n1=http://127.0.0.1:2380,n2=http://127.0.0.1:2382,n3=http://127.0.0.1:2384
  paxos-rsm server --machine mypackage.counter:Counter
  PAXOS_RSM_NAME=n1 paxos-rsm server --config-file n1.toml
  paxos-rsm server --config-file n1.toml --force-new-cluster    what it would lose; --yes does it

Every option can be set in a TOML file (key: its name without dashes in front) and in the environment
(PAXOS_RSM_DATA_DIR). Options win over the environment, and the environment over the file.
"""

TUNING_SECTION = "Tuning (the same on every member)"

F = TypeVar("F", bound=Callable[..., Any])


def _metavar(option: Option) -> str:
    if option.kind is int:
        return "N"
    if option.kind is tuple:
        return "URL,..."
    return {
        "data_dir": "DIR",
        "initial_cluster": "NAME=URL,...",
        "peer_dial_urls": "NAME=URL,...",
        "machine": "MODULE:CLASS",
    }.get(option.field, "TEXT")


def _help(option: Option) -> str:
    default = ",".join(option.default) if option.kind is tuple else option.default
    sentence = option.description[0].upper() + option.description[1:]
    return f"{sentence}. [default: {default}]" if default not in (None, "") else f"{sentence}."


def server_options(chosen: Callable[[Option], bool], *, environment: bool) -> Callable[[F], F]:
    """Declares the options of the table that are ``chosen``; with ``environment`` click reads it too."""

    def decorate(function: F) -> F:
        for option in reversed([each for each in OPTIONS if chosen(each)]):
            function = click.option(
                f"--{option.flag}",
                option.field,
                cls=SectionOption,
                section=TUNING_SECTION if option.tuning else None,
                metavar=_metavar(option),
                default=None,
                help=_help(option),
                allow_from_autoenv=environment,
            )(function)
        return function

    return decorate


@click.command("server", cls=SectionCommand, epilog=EPILOG)
@server_options(lambda option: True, environment=False)
@click.option(
    "--config-file",
    type=click.Path(path_type=Path),
    allow_from_autoenv=False,
    help="A TOML file with any of these settings.",
)
@click.option(
    "--force-new-cluster",
    is_flag=True,
    allow_from_autoenv=False,
    help="A majority of the cluster is lost for good: go on alone, with what this server has. Says first what that is.",
)
@click.option("--yes", is_flag=True, allow_from_autoenv=False, help="To --force-new-cluster: do it.")
@click.option("--until-stdin-closes", is_flag=True, hidden=True, allow_from_autoenv=False)
@global_options(connects=False)
def server(
    config_file: Path | None, until_stdin_closes: bool, force_new_cluster: bool, yes: bool, **flags: Any
) -> None:
    """Run one server in the foreground; with no option, a cluster of one.

    It takes clients on one address and its peers on another. SIGTERM and Ctrl-C end it in order: it
    finishes what it has begun, and the others go on.
    """
    if until_stdin_closes:
        threading.Thread(target=_end_with_stdin, name="stdin", daemon=True).start()
    if yes and not force_new_cluster:
        raise click.UsageError("--yes goes with --force-new-cluster")
    config = load_config(flags, os.environ, config_file)
    # Kept apart from the imports above: help and bad usage need no server.
    from paxos_rsm.server.app import run_server

    if force_new_cluster:
        _force(config, yes)
    code = run_server(config)
    if code:
        raise click.exceptions.Exit(code)


def _force(config: ServerConfig, yes: bool) -> None:
    """Makes the server the only member of a new cluster. Raises Failure, with nothing changed, without ``yes``."""
    from paxos_rsm.server.app import choose_machine
    from paxos_rsm.server.forcing import Survivor
    from paxos_rsm.storage.files import RealFiles

    with Survivor(config, RealFiles(), secrets.randbits) as survivor:
        if survivor.is_alone:
            # So a supervisor may start it again and again with the same flags.
            click.echo(f"{survivor.path} belongs to a cluster of one already: nothing is forced", err=True)
            return
        for sentence in survivor.loss.describe(survivor.path):
            click.echo(sentence, err=True)
        if not yes:
            raise Failure(
                "nothing was changed. Copy the directory away, make sure that the others never come back, then give "
                "--yes as well"
            )
        identity = survivor.force(choose_machine(config))
    click.echo(f"done: {survivor.path} is that of the new cluster {identity.cluster_id:x}", err=True)


def _end_with_stdin() -> None:
    """For servers that belong to another process: when it dies, its end of the pipe closes."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


COMMANDS = {"server": server}
