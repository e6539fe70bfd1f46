import click
import pytest
from click.testing import CliRunner

from paxos_rsm.cli.app import cli
from paxos_rsm.cli.options import (
    GLOBAL_SECTION,
    Settings,
    client_command,
    parse_duration_s,
    parse_endpoint,
    pass_settings,
    value_bytes,
)


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("127.0.0.1:2379", "127.0.0.1:2379"),
        ("http://127.0.0.1:2381", "127.0.0.1:2381"),
        ("http://n1.example:2381/", "n1.example:2381"),
        (" localhost ", "localhost:2379"),
        ("[::1]:2381", "[::1]:2381"),
        ("http://[::1]", "[::1]:2379"),
    ],
)
def test_endpoint_with_or_without_scheme_and_port(text: str, endpoint: str) -> None:
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("https://a:1", "no TLS"),
        ("ftp://a:1", "unknown scheme 'ftp'"),
        ("a:port", "is no endpoint"),
        ("a:70000", "is no endpoint"),
        ("a:0", "is no endpoint"),
        ("a:1/path", "is no endpoint"),
        ("user@a:1", "is no endpoint"),
        (":2379", "is no endpoint"),
        ("a b:1", "is no endpoint"),
    ],
)
def test_bad_endpoint_is_said(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_endpoint(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5", 5), ("5s", 5), ("1.5s", 1.5), ("500ms", 0.5), ("2m", 120), ("1h", 3600), (".5", 0.5)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "five", "-1", "0", "0ms", "1d", "1e9", "inf", "nan"])
def test_bad_duration_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration_s(text)


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """A subcommand `show` that keeps the settings it was given."""
    seen: list[Settings] = []

    @client_command("show")
    @click.option("--own", help="This command's own.")
    @pass_settings
    def command(settings: Settings, own: str | None) -> None:
        seen.append(settings)

    inherited = cli.get_command
    monkeypatch.setattr(
        cli, "get_command", lambda ctx, name: command if name == "show" else inherited(ctx, name)
    )
    for name in ("ENDPOINTS", "WRITE_OUT", "COMMAND_TIMEOUT", "DIAL_TIMEOUT"):
        monkeypatch.delenv(f"PAXOS_RSM_{name}", raising=False)
    return seen


def test_defaults(show: list[Settings]) -> None:
    assert CliRunner().invoke(cli, ["show"]).exit_code == 0
    assert show == [Settings(("127.0.0.1:2379",), None, 5.0, 2.0, False)]


@pytest.mark.parametrize(
    "line",
    [
        ["--endpoints", "a:1,http://b:2", "-w", "json", "show"],
        ["show", "--endpoints", "a:1,http://b:2", "-w", "json"],
    ],
)
def test_global_options_before_or_after_the_subcommand(show: list[Settings], line: list[str]) -> None:
    result = CliRunner().invoke(cli, line)
    assert result.exit_code == 0, result.output
    assert (show[0].endpoints, show[0].write_out) == (("a:1", "b:2"), "json")


def test_after_wins_over_before_and_both_over_the_environment(show: list[Settings]) -> None:
    env = {
        "PAXOS_RSM_ENDPOINTS": "e:1",
        "PAXOS_RSM_WRITE_OUT": "table",
        "PAXOS_RSM_COMMAND_TIMEOUT": "250ms",
        "PAXOS_RSM_DIAL_TIMEOUT": "3",
    }
    line = ["-w", "simple", "--endpoints", "b:1", "show", "--endpoints", "a:1"]
    assert CliRunner().invoke(cli, line, env=env).exit_code == 0
    assert show[0] == Settings(("a:1",), "simple", 0.25, 3.0, False)


def test_an_endpoint_named_twice_is_asked_once(show: list[Settings]) -> None:
    assert CliRunner().invoke(cli, ["show", "--endpoints", "a:1,http://a:1,,b:1"]).exit_code == 0
    assert show[0].endpoints == ("a:1", "b:1")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["show", "--endpoints", "a:x"], "is no endpoint"),
        (["show", "--endpoints", ","], "names no endpoint"),
        (["show", "--command-timeout", "soon"], "'soon' is no duration"),
        (["show", "-w", "yaml"], "'yaml' is not one of"),
    ],
)
def test_bad_global_options_are_bad_usage(show: list[Settings], line: list[str], words: str) -> None:
    result = CliRunner().invoke(cli, line, prog_name="paxos-rsm")
    assert result.exit_code == 128
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert not show


def test_help_shows_its_own_options_first_and_the_global_ones_apart(show: list[Settings]) -> None:
    output = CliRunner().invoke(cli, ["show", "--help"]).output
    assert output.index("--own") < output.index(GLOBAL_SECTION) < output.index("--endpoints")
    assert "--debug" not in output


def test_value_comes_from_standard_input_where_there_is_no_argument() -> None:
    @click.command()
    @click.argument("value", required=False)
    def echo(value: str | None) -> None:
        click.echo(value_bytes(value), nl=False)

    assert CliRunner().invoke(echo, ["a"], input=b"b").stdout_bytes == b"a"
    assert CliRunner().invoke(echo, [], input=b"\x00\xff\n").stdout_bytes == b"\x00\xff\n"
