"""Complete names in a shell: of targets, of the runs of a results folder, and of its columns.

A shell calls sweeper for each press of the Tab key, so nothing here plans an experiment or asks a server. A file that
cannot be read has no names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click
from click.shell_completion import CompletionItem

from sweeper.errors import SweeperError
from sweeper.loading.targets_file import load_named_targets
from sweeper.model.target_spec import CLOUD, EMBEDDED
from sweeper.store import Store
from sweeper.tables.results_folder import find_results_folder


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


def complete_columns(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The columns of RESULTS: axes, other slots and metrics. Several of them if the option takes a list with commas."""
    separator = "," if "," in (param.metavar or "") else None
    before, found, _ = incomplete.rpartition(separator) if separator else ("", "", incomplete)
    with _open_results(ctx) as store:
        if store is None:
            return []
        layout = store.layout()
    names = dict.fromkeys((*layout.axis_columns, *layout.slot_names, *layout.metrics))
    return _select((f"{before}{found}{name}" for name in names), incomplete)


def _select(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@contextmanager
def _open_results(ctx: click.Context) -> Iterator[Store | None]:
    """The store of the argument RESULTS, or None if there is none (yet)."""
    # click assigns no argument as long as the last option has no value.
    results = ctx.params.get("results") or next(iter(ctx.args), None)
    results = results[0] if isinstance(results, tuple) else results
    try:
        store = Store.open(find_results_folder(Path(results)), readonly=True) if results else None
    except SweeperError:
        store = None
    if store is None:
        yield None
        return
    with store:
        yield store


COMPLETERS: Final[Mapping[str, Callable[[click.Context, click.Parameter, str], list[CompletionItem]]]] = {
    "targets": complete_targets,
    "runs": complete_runs,
    "columns": complete_columns,
}
