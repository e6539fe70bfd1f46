"""What the servers answered, as text: one module for each ``-w``.

::

    simple   what etcd's command prints when it is not told otherwise: lines for people and shell scripts
    json     the response as etcd's command has it in JSON, and beside it what is text as text
    fields   every field on a line of its own, ``"Name" : value``
    table    columns

Each of them turns a response into lines, and prints nothing: an answer from the wire in, bytes out. What etcd's command
prints, these print to the letter (tests/unit/cli/answers holds them against what it printed); for what it does not
have, the nearest thing to it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from paxos_rsm.cli.options import Settings

if TYPE_CHECKING:
    from google.protobuf.message import Message

__all__ = ["Style", "print_fields", "show", "write_lines"]


@dataclass(frozen=True)
class Style:
    """How an answer is to be shown, beyond ``-w``."""

    hex: bool = False
    """simple: keys and values in hexadecimal."""
    value_only: bool = False
    """simple: no keys."""
    with_value: bool = True
    """table: values were asked for."""
    count_only: bool = False
    """Only how many there are was asked for."""
    with_keys: bool = False
    """Of a lease: its keys were asked for."""


def show(settings: Settings, answer: "Message", style: Style | None = None, **more: object) -> None:
    """Prints ``answer`` as ``-w`` wants it; ``more`` becomes members of its JSON and lines of its fields."""
    style = style or Style(hex=settings.hex)
    write_out = settings.write_out
    if write_out == "json":
        from paxos_rsm.cli.answers import json

        write_lines([json.line(answer, **more)])
    elif write_out == "fields":
        from paxos_rsm.cli.answers import fields

        write_lines(fields.lines(answer, **more))
    elif write_out == "table":
        from paxos_rsm.cli.answers import table

        table.print_answer(answer, style)
    else:
        from paxos_rsm.cli.answers import simple

        write_lines(simple.lines(answer, style))


def print_fields(mapping: Mapping[str, Any]) -> None:
    """``-w fields`` of what is no response."""
    from paxos_rsm.cli.answers.fields import mapping_lines

    write_lines(mapping_lines(mapping))


def write_lines(lines: Iterable[bytes]) -> None:
    """All of them in one write (a range may have a hundred thousand keys), at once: a pipe may be waiting."""
    data = b"".join(line + b"\n" for line in lines)
    if data:
        click.echo(data, nl=False)
