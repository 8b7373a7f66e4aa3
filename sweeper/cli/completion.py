"""Complete names in a shell: of targets, of the runs of a results folder, and of its columns.

A shell calls sweeper for each press of the Tab key, so nothing here plans an experiment or asks a server. A file that
cannot be read has no names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import click

from sweeper.errors import SweeperError
from sweeper.loading.targets_file import load_named_targets
from sweeper.model.target_spec import CLOUD, EMBEDDED
from sweeper.store import Store
from sweeper.tables.results_folder import find_results_folder


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
