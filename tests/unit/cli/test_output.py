import base64

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from paxos_rsm.cli.output import (
    field_of,
    human_bytes,
    print_json,
    print_lines,
    print_table,
    settings_text,
    text_of,
)


def output_of(function: object, *args: object, **kwargs: object) -> str:
    @click.command()
    def command() -> None:
        function(*args, **kwargs)  # type: ignore[operator]

    result = CliRunner().invoke(command, catch_exceptions=False)
    return result.stdout


def test_text_is_shown_as_text_and_the_rest_says_that_it_is_base64() -> None:
    assert field_of("value", "grüße\n\x00".encode()) == {"value": "grüße\n\x00"}
    assert field_of("value", b"\x00\xff") == {"value": "AP8=", "value_encoding": "base64"}


@given(st.binary())
def test_no_bytes_are_lost_in_json(data: bytes) -> None:
    shown = field_of("key", data)
    encoded = shown.get("key_encoding") == "base64"
    assert (base64.b64decode(shown["key"]) if encoded else shown["key"].encode()) == data


def test_json_is_one_line_and_keeps_letters() -> None:
    assert output_of(print_json, {"key": "ü"}) == '{"key": "ü"}\n'


def test_text_for_a_person_escapes_what_cannot_be_printed_and_is_cut() -> None:
    assert text_of(b"a\x1b[31m\n\xff") == r"a\x1b[31m\n\xff"
    assert text_of(b"x" * 81) == "x" * 79 + "…"
    assert text_of(b"x" * 80) == "x" * 80


def test_lines_are_the_bytes_as_they_are() -> None:
    assert output_of(print_lines, [b"a", b"b"]) == "a\nb\n"
    assert output_of(print_lines, []) == ""


def test_a_piped_table_is_wide_and_takes_no_markup() -> None:
    output = output_of(
        print_table, ("key", "n"), [("[bold]k[/]" + "x" * 90, "1"), (Text("b"), "22")], right=("n",)
    )
    assert "[bold]k[/]" + "x" * 90 in output
    assert "\x1b" not in output


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (None, ""),
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (5 << 30, "5.0 GiB"),
        (5 << 40, "5120.0 GiB"),
    ],
)
def test_sizes_for_a_person(count: int | None, shown: str) -> None:
    assert human_bytes(count) == shown


def test_settings() -> None:
    assert settings_text({"in_flight": 5, "keys": 2}) == "in flight 5, keys 2"
