"""`sweeper completion`: print the script by which a shell completes commands, options and names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from sweeper.cli import console
from sweeper.cli.command_table import COMPLETION_VARIABLE
from sweeper.cli.options import format_examples


@click.command(
    epilog=format_examples(
        "sweeper completion bash > ~/.local/share/bash-completion/completions/sweeper",
        "sweeper completion zsh >> ~/.zshrc",
        "sweeper completion fish > ~/.config/fish/completions/sweeper.fish",
    )
)
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")), metavar="SHELL")
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script by which SHELL (bash, zsh or fish) completes commands, options, targets, runs and columns."""
    shell_class = get_completion_class(shell)
    assert shell_class is not None, shell
    console.print_line(shell_class(ctx.find_root().command, {}, "sweeper", COMPLETION_VARIABLE).source().rstrip())
