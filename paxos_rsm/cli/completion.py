"""``paxos-rsm completion``: the script that makes a shell complete commands and options."""

import click
from click.shell_completion import get_completion_class

from paxos_rsm.cli.options import SectionCommand, global_options

__all__ = ["COMMANDS", "completion"]

EPILOG = """\
\b
Examples:
  bash:  paxos-rsm completion bash > ~/.local/share/bash-completion/completions/paxos-rsm
  zsh:   paxos-rsm completion zsh > ~/.zfunc/_paxos-rsm      (with ~/.zfunc in fpath, before compinit)
  fish:  paxos-rsm completion fish > ~/.config/fish/completions/paxos-rsm.fish

For this shell only, in bash and zsh:  eval "$(paxos-rsm completion bash)"
"""


@click.command("completion", cls=SectionCommand, epilog=EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@global_options(connects=False)
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes paxos-rsm in SHELL."""
    root = ctx.find_root()
    maker = get_completion_class(shell)
    if maker is None:
        raise click.UsageError(f"no completion for {shell}", ctx)
    script = maker(root.command, {}, "paxos-rsm", "_PAXOS_RSM_COMPLETE")
    # Not script.source(): it also asks the bash of this machine for its version, which need not be the
    # user's.
    click.echo(script.source_template % script.source_vars())


COMMANDS = {"completion": completion}
