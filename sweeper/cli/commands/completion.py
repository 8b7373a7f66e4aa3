"""`sweeper completion`: print the script by which a shell completes commands, options and names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import click
from click.shell_completion import get_completion_class

from sweeper.cli import console
from sweeper.cli.command_table import COMPLETION_VARIABLE
from sweeper.cli.options import format_examples
from sweeper.errors import SweeperError
from sweeper.loading.targets_file import load_named_targets
from sweeper.model.target_spec import CLOUD, EMBEDDED
from sweeper.store import Store
from sweeper.tables.results_folder import find_results_folder


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


# A shell calls sweeper for each press of the Tab key, so nothing here plans an experiment or asks a server.


def _list_targets(_ctx: click.Context) -> Iterable[str]:
    """The targets that have names: our own, and those of the user's targets file."""
    try:
        named = load_named_targets()
    except SweeperError:
        named = {}
    return [EMBEDDED, CLOUD, *named]


def _list_runs(ctx: click.Context) -> Iterable[str]:
    """The ids of the runs in RESULTS, the latest first."""
    return _read_results(ctx, lambda store: [str(run.id) for run in reversed(store.runs())])


def _list_columns(ctx: click.Context) -> Iterable[str]:
    """The columns of RESULTS: axes, other slots and metrics."""

    def read(store: Store) -> Iterable[str]:
        layout = store.layout()
        return dict.fromkeys((*layout.axis_columns, *layout.slot_names, *layout.metrics))

    return _read_results(ctx, read)


def _read_results(ctx: click.Context, read: Callable[[Store], Iterable[str]]) -> Iterable[str]:
    """What `read` finds in the store of the argument RESULTS; nothing if there is none (yet)."""
    # click assigns no argument as long as the last option has no value.
    results = ctx.params.get("results") or next(iter(ctx.args), None)
    results = results[0] if isinstance(results, tuple) else results
    if not results:
        return ()
    try:
        with Store.open(find_results_folder(Path(results)), readonly=True) as store:
            return read(store)
    except SweeperError:
        return ()


COMPLETERS: Final[Mapping[str, Callable[[click.Context], Iterable[str]]]] = {
    "targets": _list_targets, "runs": _list_runs, "columns": _list_columns,
}  # fmt: skip
