import click
import pytest

from paxos_rsm.cli.failures import BadConnection, BadInput, Failure, describe, exit_code_of
from paxos_rsm.errors import ConfigError, Unavailable


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (click.UsageError("x"), 128),
        (click.BadParameter("x"), 128),
        (ConfigError("x"), 128),
        (BadConnection("x"), 2),
        (BadInput("x"), 3),
        (Failure("x"), 1),
        (Unavailable("x"), 1),
        (OSError("x"), 1),
        (RuntimeError("x"), 1),
        (click.Abort(), 5),
        (KeyboardInterrupt(), 5),
    ],
)
def test_exit_codes(error: BaseException, code: int) -> None:
    assert exit_code_of(error) == code


def test_every_error_is_one_line() -> None:
    assert describe(Failure("two\n  lines")) == "two lines"
    assert (
        describe(FileNotFoundError(2, "No such file or directory", "a.toml"))
        == "a.toml: No such file or directory"
    )
    assert describe(RuntimeError()) == "RuntimeError"


def test_bad_usage_says_where_the_help_is() -> None:
    context = click.Context(
        click.Command("get"), info_name="get", parent=click.Context(click.Group(), info_name="p")
    )
    assert (
        describe(click.UsageError("No such option: -x.", context))
        == "No such option: -x (see 'p get --help')"
    )
