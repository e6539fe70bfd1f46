"""``shell``: every command at a prompt, with history and completion.

A line is a command line without ``paxos-rsm`` in front, cut into words as a shell does it. The global options that the
shell was given stand before each line, which may say otherwise. An error is told in one line, and the next prompt
comes. Without a terminal (a pipe, a file) there is no prompt, and the exit code is that of the last command.

Line editing is Python's own ``readline``: it needs nothing to be installed, does what people's ``~/.inputrc`` says, and
where it is missing the shell still works. What a word may become is the same here as in bash: click knows commands and
flags, and key_completion.py asks a server for keys.
"""

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import ShellComplete

from paxos_rsm.cli.failures import describe
from paxos_rsm.cli.options import Settings, client_command, pass_settings

if TYPE_CHECKING:
    from paxos_rsm.cli.app import Root

__all__ = ["COMMANDS", "Completer", "Shell", "default_history", "shell"]

PROMPT = "paxos-rsm> "
HISTORY_LINES_MAX = 1_000
OWN_COMMANDS = ("exit", "help", "quit")

EPILOG = """\
\b
Examples:
  paxos-rsm shell
  paxos-rsm shell --endpoints 127.0.0.1:2381 < commands.txt
  paxos-rsm> put greeting "hello, world"
  paxos-rsm> get gr<Tab>
  paxos-rsm> help lease

Tab completes commands, flags and keys. exit, quit or Ctrl-D leave; Ctrl-C ends the command that runs. A line that
begins with a space is not kept in the history; # begins a comment.
"""


def default_history() -> Path:
    """Where the lines are kept: in the user's state directory."""
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return base / "paxos-rsm" / "history"


@client_command("shell", epilog=EPILOG)
@click.option(
    "--history",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to keep the lines. [default: ~/.local/state/paxos-rsm/history]",
)
@click.option("--no-history", is_flag=True, help="Keep no lines.")
@pass_settings
@click.pass_context
def shell(ctx: click.Context, settings: Settings, history: Path | None, no_history: bool) -> None:
    """Run commands at a prompt, with history and completion."""
    from paxos_rsm.cli.app import cli

    running = Shell(cli, settings)
    if sys.stdin.isatty():
        with _line_editing(running.completer, None if no_history else history or default_history()):
            running.run(_prompted_lines(), interactive=True)
    else:
        ctx.exit(running.run(_piped_lines(), interactive=False))


class Shell:
    """Runs lines one after the other."""

    def __init__(self, root: "Root", settings: Settings) -> None:
        self._root = root
        self._options = _as_arguments(settings)
        self.completer = Completer(root, self._options)

    def run(self, lines: Iterator[str], *, interactive: bool) -> int:
        """Runs ``lines`` until they end, or one says so; returns the exit code of the last command."""
        code = 0
        for line in lines:
            try:
                words = shlex.split(line, comments=True)
            except ValueError as error:
                click.echo(f"Error: {str(error).lower()}: {line.strip()}", err=True)
                code = click.UsageError.exit_code
                continue
            if words in (["exit"], ["quit"]):
                break
            if words:
                code = self._run_words(words)
        else:
            if interactive:
                click.echo()  # after Ctrl-D the prompt of whoever started us stands on a line of its own
        return code

    def _run_words(self, words: list[str]) -> int:
        if words[0] == "help":
            words = [*words[1:], "--help"]
        elif words[0] == "shell":
            click.echo("Error: this is a shell already", err=True)
            return 1
        return self._root.run([*self._options, *words])


def _as_arguments(settings: Settings) -> list[str]:
    """The global options as they stand before a command: the environment would win over anything else."""
    arguments = ["--endpoints", ",".join(settings.endpoints)]
    arguments += ["--command-timeout", f"{settings.command_timeout_s:.9f}s"]
    arguments += ["--dial-timeout", f"{settings.dial_timeout_s:.9f}s"]
    if settings.write_out:
        arguments += ["--write-out", settings.write_out]
    return arguments + ["--hex"] * settings.hex + ["--debug"] * settings.debug


# ---- where lines come from -------------------------------------------------------------------------------


def _piped_lines() -> Iterator[str]:
    # One by one, and by way of the same buffer that commands read: what follows `txn` is its transaction.
    while line := sys.stdin.buffer.readline():
        yield os.fsdecode(line)


def _prompted_lines() -> Iterator[str]:
    while True:
        try:
            line = input(PROMPT)
        except EOFError:
            return
        except KeyboardInterrupt:
            click.echo()  # what was typed is dropped, as in any shell
            continue
        if line.startswith(" ") and (readline := sys.modules.get("readline")) is not None:
            kept = readline.get_current_history_length()
            if kept and readline.get_history_item(kept) == line:
                readline.remove_history_item(kept - 1)
        yield line


class _line_editing:  # used as a function
    """Switches on completion and history, where there is readline; saves the history at the end."""

    def __init__(self, completer: "Completer", history: Path | None) -> None:
        self._completer = completer
        self._history = history
        self._readline: Any = None

    def __enter__(self) -> None:
        try:
            import readline
        except ImportError:
            return
        self._readline = readline
        libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
        readline.set_completer_delims(" \t\n")
        readline.set_completer(self._completer.complete)
        readline.set_history_length(HISTORY_LINES_MAX)
        if self._history is not None:
            with suppress(OSError):
                readline.read_history_file(self._history)

    def __exit__(self, *raised: object) -> None:
        readline, history = self._readline, self._history
        if readline is None:
            return
        readline.set_completer(None)
        if history is None:
            return
        try:
            history.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            history.touch(mode=0o600)  # values may be secrets
            readline.write_history_file(history)
        except OSError as error:
            click.echo(f"Error: the history was not kept: {describe(error)}", err=True)


# ---- completion ------------------------------------------------------------------------------------------


class Completer:
    """What a word may become."""

    def __init__(self, root: click.Command, options: Sequence[str]) -> None:
        self._click = ShellComplete(root, {}, "paxos-rsm", "_PAXOS_RSM_COMPLETE")
        self._options = list(options)
        self._found: list[str] = []

    def complete(self, text: str, state: int) -> str | None:
        """For readline: the ``state``-th completion of the last word; None where there are no more."""
        if state == 0:
            import readline

            try:
                self._found = self.completions(readline.get_line_buffer()[: readline.get_endidx()])
            except Exception:  # a completion that fails must not break the line that is being typed
                self._found = []
        return self._found[state] if state < len(self._found) else None

    def completions(self, line: str) -> list[str]:
        """The words that the last word of ``line`` may become, each with a space where it is whole.

        Keys are offered up to where they part: those below a slash together, until it has been typed.
        """
        words = line.split(" ")
        before, word = [each for each in words[:-1] if each], words[-1]
        found = [f"{name} " for name in OWN_COMMANDS if not before and name.startswith(word)]
        if before[:1] == ["help"]:
            before = before[1:]
        for item in self._click.get_completions([*self._options, *before], word):
            if item.type != "plain":
                continue  # files: readline has its own
            directory, slash, _ = item.value[len(word) :].partition("/")
            whole = not (item.key and slash)
            found.append(f"{item.value} " if whole else f"{word}{directory}/")
        return list(dict.fromkeys(found))


COMMANDS = {"shell": shell}
