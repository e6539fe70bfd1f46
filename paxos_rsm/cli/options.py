"""What the commands share: global options, endpoints, durations, and help in sections.

A global option may stand before or after the subcommand, since hands put it in either place. So the root
and every subcommand that connects declare the same options; each writes what it was given into one
:class:`Settings`, the subcommand after the root. The environment is read by the root alone, and so loses to
both.

Every other option can also be set by ``PAXOS_RSM_<COMMAND>_<OPTION>`` (``PAXOS_RSM_BENCH_IN_FLIGHT``);
those of ``server`` by ``PAXOS_RSM_<OPTION>``, which `paxos_rsm.config` reads.
"""

import math
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

__all__ = [
    "DEFAULT_ENDPOINT",
    "DEFAULT_PORT",
    "ENVIRONMENT_PREFIX",
    "DurationType",
    "EndpointsType",
    "SectionCommand",
    "SectionGroup",
    "SectionOption",
    "Settings",
    "client_command",
    "client_group",
    "global_options",
    "key_bytes",
    "parse_duration_s",
    "parse_endpoint",
    "pass_settings",
    "value_bytes",
]

DEFAULT_PORT = 2379
DEFAULT_ENDPOINT = f"127.0.0.1:{DEFAULT_PORT}"
ENVIRONMENT_PREFIX = "PAXOS_RSM"

WRITE_OUT = ("simple", "json", "fields", "table")
GLOBAL_SECTION = "Global options"

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Settings:
    """What the global options say, wherever they stood."""

    endpoints: tuple[str, ...] = (DEFAULT_ENDPOINT,)
    """Each ``host:port``."""
    write_out: str | None = None
    """simple, json, fields or table; None where the user left it to the command."""
    command_timeout_s: float = 5.0
    dial_timeout_s: float = 2.0
    debug: bool = False
    hex: bool = False
    """``-w simple``: keys and values in hexadecimal."""


def parse_endpoint(text: str) -> str:
    """``host:port`` of an endpoint with or without a scheme and a port.

    Raises ValueError, with a sentence, where it is none.
    """
    stripped = text.strip()
    scheme, separator, rest = stripped.partition("://")
    if not separator:
        scheme, rest = "http", stripped
    if scheme == "https":
        raise ValueError(f"{text!r}: this version speaks no TLS: give the endpoint as host:port")
    if scheme != "http":
        raise ValueError(f"{text!r}: unknown scheme {scheme!r}: give the endpoint as host:port")
    rest = rest.rstrip("/")
    try:
        parts = urlsplit(f"//{rest}")
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{text!r} is no endpoint ({error}): give it as host:port") from error
    if (
        not parts.hostname
        or port == 0
        or parts.path
        or parts.query
        or parts.username is not None
        or re.search(r"\s", rest)
    ):
        raise ValueError(f"{text!r} is no endpoint: give it as host:port")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{DEFAULT_PORT if port is None else port}"


def parse_duration_s(text: str) -> float:
    """Seconds of ``5``, ``1.5s``, ``500ms``, ``2m``. Raises ValueError where it is none."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|m|h|)", text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is no duration: write it as 5s, 500ms or 2m")
    value = float(match[1]) * {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}[match[2]]
    if value <= 0 or not math.isfinite(value):
        raise ValueError(f"{text!r}: a duration is above zero")
    return value


class EndpointsType(click.ParamType[tuple[str, ...]]):
    """Comma-separated endpoints, with or without scheme, as a tuple of ``host:port``."""

    name = "host:port,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        try:
            found = tuple(
                dict.fromkeys(parse_endpoint(part) for part in str(value).split(",") if part.strip())
            )
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not found:
            self.fail("names no endpoint: give at least one host:port", param, ctx)
        return found


class DurationType(click.ParamType[float]):
    """A duration such as ``5s``, ``500ms`` or plain seconds, as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return parse_duration_s(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class SectionOption(click.Option):
    """An option that stands under its own heading in the help."""

    def __init__(self, *args: Any, section: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class SectionCommand(click.Command):
    """A command whose help shows its options in sections, its own first."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_sections(self, ctx, formatter)


class SectionGroup(click.Group):
    """Commands under a common name (``lease grant``); its help shows them before the global options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        _write_sections(self, ctx, formatter)


def _write_sections(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    sections: dict[str, list[tuple[str, str]]] = {"Options": []}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is not None and isinstance(param, click.Option):  # the text speaks of the arguments
            section = getattr(param, "section", None) or "Options"
            sections.setdefault(section, []).append(record)
    # The global ones come last, after what is this command's own.
    for section in sorted(sections, key=lambda name: name == GLOBAL_SECTION):
        if sections[section]:
            with formatter.section(section):
                formatter.write_dl(sections[section])


def _store(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Writes a global option into the Settings, unless it was not given here."""
    settings = ctx.ensure_object(Settings)
    if value is not None and param.name is not None:
        setattr(settings, param.name, value)


def global_options(*, connects: bool = True, root: bool = False) -> Callable[[F], F]:
    """Declares the global options, on the root (which also reads the environment) or on a subcommand.

    Without ``connects``, only ``--debug``: for commands that start servers rather than ask them.
    """

    def option(*names: str, **attributes: Any) -> Callable[[F], F]:
        destination = attributes.pop("destination")
        variable = attributes.pop("variable", destination).upper()
        return click.option(
            *names,
            destination,
            cls=SectionOption,
            section=None if root else GLOBAL_SECTION,
            expose_value=False,
            callback=_store,
            default=None,
            envvar=f"{ENVIRONMENT_PREFIX}_{variable}" if root else None,
            allow_from_autoenv=False,
            show_envvar=root,
            **attributes,
        )

    def decorate(function: F) -> F:
        declared = [
            option("--debug", destination="debug", is_flag=True, hidden=True, help="Show tracebacks."),
        ]
        if connects:
            declared = [
                option(
                    "--endpoints",
                    destination="endpoints",
                    type=EndpointsType(),
                    help=f"Servers to ask, comma-separated, with or without http://. [default: {DEFAULT_ENDPOINT}]",
                ),
                option(
                    "-w",
                    "--write-out",
                    destination="write_out",
                    type=click.Choice(WRITE_OUT),
                    help="How to print. [default: what suits the command]",
                ),
                option("--hex", destination="hex", is_flag=True, help="-w simple: bytes as \\x61\\x62."),
                option(
                    "--command-timeout",
                    destination="command_timeout_s",
                    variable="command_timeout",
                    type=DurationType(),
                    help="How long a command may take, failover and retries included. [default: 5s]",
                ),
                option(
                    "--dial-timeout",
                    destination="dial_timeout_s",
                    variable="dial_timeout",
                    type=DurationType(),
                    help="How long to wait for a connection. [default: 2s]",
                ),
                *declared,
            ]
        for each in reversed(declared):
            function = each(function)
        return function

    return decorate


def client_command(name: str, *, epilog: str | None = None) -> Callable[[Callable[..., Any]], click.Command]:
    """Makes a function a subcommand that connects: options in sections, the global ones included."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        return click.command(name, cls=SectionCommand, epilog=epilog)(global_options()(function))

    return decorate


def client_group(name: str, *, epilog: str | None = None) -> Callable[[Callable[..., Any]], click.Group]:
    """Makes a function a group of such subcommands; the global options may also stand between its name and theirs."""

    def decorate(function: Callable[..., Any]) -> click.Group:
        return click.group(name, cls=SectionGroup, epilog=epilog)(global_options()(function))

    return decorate


pass_settings = click.make_pass_decorator(Settings, ensure=True)
"""Hands a command its Settings as the first argument."""


def key_bytes(text: str) -> bytes:
    """The bytes the user typed: arguments that are not UTF-8 come through unchanged."""
    return os.fsencode(text)


def value_bytes(text: str | None, what: str = "the value") -> bytes:
    """The bytes of an argument, or all of standard input where there is none."""
    if text is not None:
        return os.fsencode(text)
    if sys.stdin.isatty():
        click.echo(f"reading {what} from standard input; end it with Ctrl-D", err=True)
    return sys.stdin.buffer.read()
