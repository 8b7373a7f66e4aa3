"""Completion in shells, by click: of commands and options, and of names that a file at hand holds.

A shell calls sweeper for each press of the Tab key, so nothing here plans an experiment or asks a server. A file that
cannot be read has no names.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Final

import click
from click.shell_completion import CompletionItem, get_completion_class, shell_complete

from sweeper.cli.targets_file import load_named_targets
from sweeper.errors import SweeperError
from sweeper.model.target_spec import CLOUD, EMBEDDED
from sweeper.store import Store
from sweeper.tables.results_folder import find_results_folder

SHELLS: Final = ("bash", "zsh", "fish")
VARIABLE: Final = "_SWEEPER_COMPLETE"  # click's name for it: the script for the shell sets it
_Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def render_script(group: click.Group, shell: str) -> str:
    """The script that a shell runs at its start to complete `sweeper`."""
    shell_class = get_completion_class(shell)
    assert shell_class is not None, shell
    return shell_class(group, {}, "sweeper", VARIABLE).source()


def complete(group: click.Group) -> int:
    """Answer a shell that asks for completions, by the variables that its script sets. Returns an exit code."""
    with redirect_stderr(io.StringIO()):  # a traceback in the middle of a command line helps nobody
        return shell_complete(group, {}, "sweeper", VARIABLE, os.environ[VARIABLE])


def complete_targets(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The targets that have names: our own, and those of the user's targets file."""
    try:
        named = load_named_targets()
    except SweeperError:
        named = {}
    return _select([EMBEDDED, CLOUD, *named], incomplete)


def complete_runs(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The ids of the runs in RESULTS, the latest first."""
    with _open_results(ctx) as store:
        return _select([str(run.id) for run in reversed(store.runs())] if store is not None else [], incomplete)


def make_column_completer(separator: str = "") -> _Completer:
    """Complete the columns of RESULTS: axes, other slots and metrics, or several of them with a `separator`."""

    def complete_columns(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, found, last = incomplete.rpartition(separator) if separator else ("", "", incomplete)
        with _open_results(ctx) as store:
            if store is None:
                return []
            layout = store.layout()
        names = dict.fromkeys((*layout.axis_columns, *layout.slot_names, *layout.metrics))
        return _select((f"{before}{found}{name}" for name in names), f"{before}{found}{last}")

    return complete_columns


def _select(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@contextmanager
def _open_results(ctx: click.Context) -> Iterator[Store | None]:
    """The store of the argument RESULTS, or None if there is none (yet)."""
    # click assigns no argument as long as the last option has no value.
    results = ctx.params.get("results") or next(iter(ctx.args), None)
    try:
        store = Store.open(find_results_folder(Path(results)), readonly=True) if results else None
    except SweeperError:
        store = None
    if store is None:
        yield None
        return
    with store:
        yield store
