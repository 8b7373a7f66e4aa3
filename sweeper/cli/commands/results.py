"""`sweeper results`: print the table of a run, whole, in groups or as a pivot table, or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from sweeper.cli import console, group_tables, options
from sweeper.cli.group_tables import COST_SUM
from sweeper.cli.options import complete_from, format_examples, split_names
from sweeper.cli.search_text import show_best_points
from sweeper.cli.table_query import sort_rows
from sweeper.model.search_columns import ROUND, SearchColumns
from sweeper.model.search_result import SearchedPoint
from sweeper.model.selection import Selection
from sweeper.model.shell_words import join_command
from sweeper.schemas.values import is_number
from sweeper.store import Store
from sweeper.store.experiment_path import display_path
from sweeper.store.records import TableLayout
from sweeper.tables.aggregate import ValueOrder, make_pivot
from sweeper.tables.export import to_records
from sweeper.tables.result_rows import column_names
from sweeper.tables.results_folder import find_results_folder
from sweeper.tables.searched_points import find_best_points, find_search_run
from sweeper.tables.select_rows import OptionErrors, RowFilter, Rows, describe_no_match
from sweeper.wording import count_things, join_names

# Shown after the axes, without `--columns`.
_OUTCOME_COLUMNS = ("status", "attempts", "ran_s")
_COST_COLUMNS = ("cost", "cost_kind")
_COUNT_COLUMNS = ("trials", "succeeded")


@dataclass(frozen=True, slots=True)
class _RunTable:
    """The rows of a run and its columns. `value_order` has the values of each axis in the order of the sweep.

    `measures` are the columns whose numbers are shown and averaged without being asked for. `cost` is one of them if a
    row has a cost. `best` are the points for `--best`, best first.
    """

    rows: Rows
    names: tuple[str, ...]
    axes: tuple[str, ...]
    metrics: tuple[str, ...]
    measures: tuple[str, ...]
    folder: Path
    value_order: ValueOrder
    layout: TableLayout
    best: Sequence[SearchedPoint]


@dataclass(frozen=True, slots=True)
class _Query:
    """The options of the command, as they were given."""

    selection: Selection
    sorts: tuple[str, ...]
    columns: list[str]
    by: list[str]
    pivot: list[str]
    best: int | None


@click.command(
    epilog=format_examples(
        "sweeper results experiments/quickstart.yaml --where \"status == 'failed'\"",
        "sweeper results experiments/quickstart.yaml --sort -sharpness --limit 5",
        "sweeper results experiments/quickstart.yaml --by steps",
        "sweeper results experiments/quickstart.yaml --pivot steps,prompt,sharpness",
        "sweeper results experiments/search.yaml --best 5",
    )
)
@options.results
@options.run_id
@options.selection
@click.option(
    "--sort",
    "sorts",
    multiple=True,
    metavar="COLUMN",
    shell_complete=complete_from("columns"),
    help="Sort by this column; -COLUMN sorts in descending order.",
)
@click.option("--columns", multiple=True, metavar="A,B,...", shell_complete=complete_from("columns"),
              help="Show only these columns.")  # fmt: skip
@click.option("--by", multiple=True, metavar="AXIS,...", shell_complete=complete_from("columns"),
              help="Show one row per value (or combination): cost, mean and deviation of every metric.")  # fmt: skip
@click.option(
    "--pivot",
    metavar="X,Y,METRIC",
    shell_complete=complete_from("columns"),
    help="Show the means of METRIC, with the values of X across and of Y down.",
)
@click.option("--best", type=click.IntRange(min=1), metavar="N", help="Show the N best points of a search, one row for "
              "each; with several objectives, the points of the Pareto front.")  # fmt: skip
@options.as_json
def command(
    results: Path, *, run_id: str | None, columns: tuple[str, ...], by: tuple[str, ...], pivot: str | None,
    best: int | None, as_json: bool, **rest: Any,
) -> None:  # fmt: skip
    """Show the table of a run. RESULTS is a results folder, or an experiment file (for its default folder).

    --by and --pivot work with every column that holds numbers: metrics, ran_s, cost, attempts, slots.
    """
    names = split_names([pivot or ""])
    query = _Query(columns=split_names(columns), by=split_names(by), pivot=names, best=best, **rest)
    table = _read_table(results, run_id, of_search=best is not None)
    name_lists = (("--columns", columns, query.columns), ("--by", by, query.by))
    empty_options = [option for option, texts, names in name_lists if texts and not names]
    rows = _select_rows(table, query, empty_options, has_pivot=pivot is not None)
    if query.pivot:
        _show_pivot(rows, table, query.pivot, as_json=as_json)
    elif query.by:
        _show_groups(rows, table, query, as_json=as_json)
    elif table.layout.search is not None and best is not None:
        _show_best(rows, table, table.layout.search, best, as_json=as_json)
    else:
        _show_rows(rows, table, query, as_json=as_json)


def _read_table(results: Path, run_id: str | None, *, of_search: bool) -> _RunTable:
    """The table of a run; with `of_search` and without `run_id`, of the latest search, if there is one."""
    from sweeper.tables.dataframe import build_frame

    folder = find_results_folder(results)
    with Store.open(folder, readonly=True) as store:
        chosen, of_folder = (find_search_run(store), True) if of_search and run_id is None else (run_id, None)
        layout = store.layout(chosen)
        results_of_run = list(store.results(chosen, of_folder=of_folder))
        rows = to_records(build_frame(iter(results_of_run), layout))
        best = find_best_points(results_of_run, layout.search) if of_search and layout.search is not None else []
    value_order = {name: layout.values_in_order(name, [row[name] for row in rows]) for name in layout.axis_columns}
    axes, metrics = tuple(layout.axis_columns), tuple(layout.metrics)
    has_cost = any(row["cost"] is not None for row in rows)
    measures = ("ran_s", *(("cost",) if has_cost else ()), *metrics)
    if layout.search is not None:
        measures = tuple(name for name in measures if name != ROUND)  # the mean of rounds says nothing
    return _RunTable(rows, column_names(layout), axes, metrics, measures, folder, value_order, layout, best)


def _select_rows(table: _RunTable, query: _Query, empty_options: Sequence[str], *, has_pivot: bool) -> Rows:
    """The rows of `--where` and `--set`. Raises UsageError with all mistakes in the options.

    `empty_options` are the options that were given without a column name.
    """
    errors = OptionErrors()
    row_filter = RowFilter(query.selection, table.layout, errors)
    for option in empty_options:
        errors.add(option, f"names no column; columns: {join_names(table.names)}")
    for option, names in (("--columns", query.columns), ("--by", query.by), ("--pivot", query.pivot)):
        errors.check_columns(option, names, table.names)
    _check_mean_columns(table, query, errors)
    known = [*(name for name in query.by if name in table.names), *_choose_group_columns(table, query)]
    sortable = [*known, *_COUNT_COLUMNS] if query.by else table.names
    if not has_pivot:
        errors.check_columns("--sort", [name.removeprefix("-") for name in query.sorts], sortable)
    if has_pivot and len(query.pivot) != 3:
        names_given = count_things(len(query.pivot), "name")
        errors.add("--pivot", f"has {names_given} but needs three: X,Y,METRIC, such as steps,seed,sharpness")
    for option, names in (("--by", query.by), ("--pivot", query.pivot)):
        for name in dict.fromkeys(name for name in names if names.count(name) > 1):
            errors.add(option, f"'{name}' is listed {names.count(name)} times; list it once")
    for is_conflict, option, message in _find_conflicts(query, has_pivot=has_pivot):
        if is_conflict:
            errors.add(option, message)
    if query.best is not None and table.layout.search is None:
        errors.add("--best", _explain_no_search(table, query.best))
    errors.raise_if_any()
    return _filter_table(table, row_filter, query)


def _explain_no_search(table: _RunTable, count: int) -> str:
    metric = next((name for name in table.metrics if any(is_number(row[name]) for row in table.rows)), "COLUMN")
    words = ["sweeper", "results", display_path(table.folder), "--sort", f"-{metric}", "--limit", str(count)]
    return f"this run is not a search, so it has no points; `{join_command(words)}` shows its trials with most {metric}"


def _check_mean_columns(table: _RunTable, query: _Query, errors: OptionErrors) -> None:
    """Add an error for each column whose mean is requested but which holds no numbers."""
    numeric = _find_numeric_columns(table)
    requested = [("--pivot", name) for name in query.pivot[2:3]]
    requested += [("--columns", name) for name in query.columns if query.by and name not in query.by]
    for option, name in requested:
        if name in table.names and name not in numeric:
            allowed = f"; columns with numbers: {join_names(numeric)}" if numeric else ""
            errors.add(option, f"'{name}' holds no numbers, and a mean needs some{allowed}")


def _filter_table(table: _RunTable, row_filter: RowFilter, query: _Query) -> Rows:
    """The rows of `--where` and `--set`. If there are none, says so, because that may be a mistake in them."""
    rows = row_filter.filter(table.rows)
    if table.rows and not rows:
        console.print_status(describe_no_match(query.selection, len(table.rows)))
    return rows


def _find_conflicts(query: _Query, *, has_pivot: bool) -> Sequence[tuple[bool, str, str]]:
    """(whether there is a conflict, option, message) for each pair of options that exclude each other."""
    is_best = query.best is not None
    return (
        (has_pivot and bool(query.by), "--pivot", "cannot be combined with --by; give one"),
        (has_pivot and bool(query.sorts), "--sort", "a pivot table keeps the order of the sweep"),
        (has_pivot and bool(query.columns), "--columns", "a pivot table has only the column that --pivot names"),
        (has_pivot and query.selection.limit is not None, "--limit", "a pivot table is always shown whole"),
        (is_best and has_pivot, "--best", "cannot be combined with --pivot; give one"),
        (is_best and bool(query.by), "--best", "cannot be combined with --by; give one"),
        (is_best and bool(query.sorts), "--sort", "--best sorts the points itself"),
        (is_best and bool(query.columns), "--columns", "--best has columns of its own"),
        (is_best and query.selection.limit is not None, "--limit", "--best N says how many points to show"),
    )


def _find_numeric_columns(table: _RunTable) -> list[str]:
    """The columns that hold numbers: metrics first, then the others."""
    names = dict.fromkeys((*table.metrics, *table.names))
    return [name for name in names if name != "trial" and any(is_number(row[name]) for row in table.rows)]


def _choose_mean_columns(table: _RunTable, query: _Query) -> list[str]:
    """The columns whose means are shown: those of --columns, or all measures, without those of --by."""
    if query.columns:
        return [name for name in query.columns if name not in query.by]
    numeric = _find_numeric_columns(table)
    return [name for name in table.measures if name in numeric and name not in query.by]


def _choose_group_columns(table: _RunTable, query: _Query) -> list[str]:
    """The columns of a group: those whose means are shown, and before `cost` its sum."""
    columns = [name for name in _choose_mean_columns(table, query) if name in table.names]
    if "cost" in columns and "cost" in table.measures and COST_SUM not in table.names:
        columns.insert(columns.index("cost"), COST_SUM)
    return columns


def _show_rows(rows: Rows, table: _RunTable, query: _Query, *, as_json: bool) -> None:
    shown = query.columns or (list(table.names) if as_json else _choose_default_columns(rows, table))
    rows = sort_rows(rows, query.sorts)[: query.selection.limit]
    if as_json:
        console.print_json([{name: row[name] for name in shown} for row in rows])
        return
    rounded = ("queued_s", *table.measures)
    console.print_table(shown, [[row[name] for name in shown] for row in rows], rounded=rounded)


def _show_best(rows: Rows, table: _RunTable, search: SearchColumns, count: int, *, as_json: bool) -> None:
    selected = {row["trial"] for row in rows}
    points = [point for point in table.best if not selected.isdisjoint(point.trials)]
    if rows or as_json:
        show_best_points(points, search.objectives, count, as_json=as_json)


def _choose_default_columns(rows: Rows, table: _RunTable) -> list[str]:
    errors = ("error_type", "error") if any(row["error"] for row in rows) else ()
    costs = _COST_COLUMNS if _COST_COLUMNS[0] in table.measures else ()
    return ["trial", *table.axes, *_OUTCOME_COLUMNS, *costs, *table.metrics, *errors]


def _show_groups(rows: Rows, table: _RunTable, query: _Query, *, as_json: bool) -> None:
    columns = _choose_group_columns(table, query)
    groups = group_tables.make_group_rows(rows, query.by, columns, table.value_order)
    groups = group_tables.sort_groups(groups, query.sorts)[: query.selection.limit]
    if as_json:
        console.print_json(group_tables.groups_to_json(groups))
    else:
        group_tables.print_groups(groups, query.by, columns, group_tables.find_labels(rows, table.names, query.by))


def _show_pivot(rows: Rows, table: _RunTable, pivot: list[str], *, as_json: bool) -> None:
    x, y, column = pivot
    pivot_table = make_pivot(rows, x, y, column, table.value_order)
    if as_json:
        console.print_json(group_tables.pivot_to_json(pivot_table, x, y, column))
    else:
        group_tables.print_pivot(pivot_table, x, y, column, group_tables.find_labels(rows, table.names, (x, y)))
