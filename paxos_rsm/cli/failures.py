"""How the command fails: exit codes, and any exception as one line.

====  ==========================================================================================
0     done; a key that is missing is no error
1     an error, said in one line on stderr
2     bad connection: no server could be reached
3     bad input: a transaction or a line of an interactive watch that cannot be read
4     undecided: a check that came to no verdict, which is no pass
5     interrupted
128   bad usage: an unknown option, a value that does not parse, a server's flags that contradict each other
====  ==========================================================================================
"""

import click

from paxos_rsm.errors import ConfigError

__all__ = [
    "EXIT_BAD_CONNECTION",
    "EXIT_BAD_INPUT",
    "EXIT_BAD_USAGE",
    "EXIT_ERROR",
    "EXIT_INTERRUPTED",
    "BadConnection",
    "BadInput",
    "Failure",
    "describe",
    "exit_code_of",
]

EXIT_ERROR = 1
EXIT_BAD_CONNECTION = 2
EXIT_BAD_INPUT = 3
EXIT_INTERRUPTED = 5
EXIT_BAD_USAGE = 128


class Failure(click.ClickException):
    """A command that did not do what was asked."""


class BadConnection(Failure):
    """No server could be reached."""

    exit_code = EXIT_BAD_CONNECTION


class BadInput(Failure):
    """What was read from standard input is no transaction, or no request for a watch."""

    exit_code = EXIT_BAD_INPUT


def describe(error: BaseException) -> str:
    """One line that says what went wrong, for any exception."""
    if isinstance(error, click.UsageError):
        message = error.format_message().rstrip(".")
        if error.ctx is not None:
            message += f" (see '{error.ctx.command_path} --help')"
    elif isinstance(error, click.ClickException):
        message = error.format_message()
    elif isinstance(error, OSError) and error.strerror:
        message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        message = str(error) or type(error).__name__
    return " ".join(message.split())


def exit_code_of(error: BaseException) -> int:
    """The exit code for any exception."""
    if isinstance(error, click.UsageError | ConfigError):
        return EXIT_BAD_USAGE
    if isinstance(error, click.ClickException):
        return error.exit_code
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return EXIT_INTERRUPTED
    return EXIT_ERROR
