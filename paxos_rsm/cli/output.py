"""What the commands print: plain lines, JSON, tables.

Keys and values are bytes. Plain output writes them as they are, each with a newline after it, as etcd's
command does. JSON shows bytes that are UTF-8 as text, and says where they are not: ``"value": "AP8=",
"value_encoding":
"base64"``. A table shows them as text with what cannot be printed escaped.
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.text import Text

__all__ = [
    "field_of",
    "human_bytes",
    "print_json",
    "print_line",
    "print_lines",
    "print_table",
    "settings_text",
    "text_of",
]

TABLE_WIDTH_PIPED = 200
"""Columns of a table that goes to a file or a pipe, whose width nobody knows."""


def field_of(name: str, data: bytes) -> dict[str, str]:
    """One JSON member for ``data``, and a second that says so where it had to be base64."""
    try:
        return {name: data.decode("utf-8")}
    except UnicodeDecodeError:
        return {name: base64.b64encode(data).decode("ascii"), f"{name}_encoding": "base64"}


def text_of(data: bytes, length_max: int = 80) -> str:
    """``data`` for a person: text where it is, the rest escaped, the end cut off where it is long."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("utf-8", "backslashreplace")
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[: length_max + 1])
    return shown if len(shown) <= length_max else shown[: length_max - 1] + "…"


def print_json(value: Any) -> None:
    """One JSON document, a line on its own."""
    click.echo(json.dumps(value, ensure_ascii=False))


def print_line(data: bytes | str) -> None:
    """One line, bytes as they are."""
    click.echo(data)


def print_lines(lines: Iterable[bytes]) -> None:
    """Many lines in one write: a range may have a hundred thousand keys."""
    data = b"".join(line + b"\n" for line in lines)
    if data:
        click.echo(data, nl=False)


def print_table(
    columns: Sequence[str], rows: Iterable["Sequence[str | Text]"], right: Iterable[str] = ()
) -> None:
    """A table on standard output; columns named in ``right`` hold numbers."""
    numbers = set(right)
    # Most commands print no table, and need not wait for what draws one.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = TABLE_WIDTH_PIPED
    console.print(table)


def human_bytes(count: int | None) -> str:
    """``12.3 MiB``; nothing for what is not known."""
    if count is None:
        return ""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def settings_text(settings: Mapping[str, Any]) -> str:
    """``clients 1, in flight 512`` of a mapping, for a line that says how something was measured."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.items())
