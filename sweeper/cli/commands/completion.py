"""`sweeper completion`: print the script by which a shell completes commands, options and names."""

from __future__ import annotations

import click

from sweeper.cli import console
from sweeper.cli.completion import SHELLS, render_script
from sweeper.cli.options import format_examples


@click.command(
    epilog=format_examples(
        "sweeper completion bash > ~/.local/share/bash-completion/completions/sweeper",
        "sweeper completion zsh >> ~/.zshrc",
        "sweeper completion fish > ~/.config/fish/completions/sweeper.fish",
    )
)
@click.argument("shell", type=click.Choice(SHELLS), metavar="SHELL")
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script by which SHELL (bash, zsh or fish) completes commands, options, targets, runs and columns."""
    group = ctx.find_root().command
    assert isinstance(group, click.Group)
    console.print_line(render_script(group, shell).rstrip())
