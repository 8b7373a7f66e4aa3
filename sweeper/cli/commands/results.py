"""`sweeper results`: the table of a run on the terminal, whole, in groups or as a pivot; or as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sweeper.cli import console, options, terminal_images
from sweeper.cli.options import format_examples
from sweeper.cli.table_query import (
    OptionErrors,
    Rows,
    compile_where,
    describe_no_match,
    filter_rows,
    sort_rows,
    split_names,
)
from sweeper.did_you_mean import join_names as shortened

if TYPE_CHECKING:
    from sweeper.model.expressions.column_expression import ColumnExpression
    from sweeper.tables.aggregate import ValueOrder

# Shown after the axes where no columns are asked for; the rest is one `--columns` or `sweeper export` away.
_OUTCOME_COLUMNS = ("status", "attempts", "ran_s")
_COUNT_COLUMNS = ("trials", "succeeded")


@dataclass(frozen=True, slots=True)
class _RunTable:
    """The rows of a run and what its columns are."""

    rows: Rows
    names: tuple[str, ...]
    axes: tuple[str, ...]
    metrics: tuple[str, ...]
    folder: Path
    leading: ValueOrder  # of the axes


@dataclass(frozen=True, slots=True)
class _Query:
    """The options as they were given."""

    where: str | None
    sorts: tuple[str, ...]
    columns: list[str]
    limit: int | None
    by: list[str]
    pivot: list[str]
    images: bool | None


@click.command(
    epilog=format_examples(
        "sweeper results results/quickstart --where \"status == 'failed'\"",
        "sweeper results experiments/quickstart.yaml --sort -sharpness --limit 5 --images",
        "sweeper results results/quickstart --by steps",
        "sweeper results results/quickstart --pivot steps,prompt,sharpness",
    )
)
@options.results
@options.run_id
@click.option(
    "--where",
    metavar="EXPR",
    help="Rows for which this is true, such as \"steps > 4 and style.label == 'oil'\"; a "
    "column that is no word goes between backticks.",
)
@click.option("--sort", "sorts", multiple=True, metavar="COLUMN", help="Sort by this column; -COLUMN: descending.")
@click.option("--columns", multiple=True, metavar="A,B,...", help="Show these columns only.")
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="Show the first N rows.")
@click.option("--by", multiple=True, metavar="AXIS,...",
              help="One row for each value (or combination): mean and standard deviation of every metric.")  # fmt: skip
@click.option("--pivot", metavar="X,Y,METRIC", help="The means of METRIC, over the values of X across and of Y down.")
@click.option("--images/--no-images", default=None,
              help="The pictures below the table. [default: up to 24, where the terminal does it]")  # fmt: skip
@options.as_json
def command(
    results: Path, *, run_id: str | None, columns: tuple[str, ...], by: tuple[str, ...], pivot: str | None,
    as_json: bool, **rest: Any,
) -> None:  # fmt: skip
    """Show the table of a run. RESULTS is a results folder, or an experiment file (its default folder is meant).

    With --by and --pivot every column that holds numbers can be asked for: metrics, ran_s, attempts, slots.
    """
    asked = _Query(columns=split_names(columns), by=split_names(by), pivot=split_names([pivot or ""]), **rest)
    table = _read_table(results, run_id)
    empty = [option for option, given, names in (("--columns", columns, asked.columns), ("--by", by, asked.by))
             if given and not names]  # fmt: skip
    rows = _select_rows(table, asked, empty, has_pivot=pivot is not None, as_json=as_json)
    if asked.pivot:
        _show_pivot(rows, table, asked.pivot, as_json=as_json)
    elif asked.by:
        _show_groups(rows, table, asked, as_json=as_json)
    else:
        _show_rows(rows, table, asked, as_json=as_json)


def _read_table(results: Path, run_id: str | None) -> _RunTable:
    from sweeper.store import Store  # noqa: PLC0415
    from sweeper.tables.dataframe import build_frame, column_names, find_results_folder  # noqa: PLC0415
    from sweeper.tables.export import to_records  # noqa: PLC0415 - each command imports what it uses

    folder = find_results_folder(results)
    with Store.open(folder, readonly=True) as store:
        layout = store.layout(run_id)
        rows = to_records(build_frame(store.results(run_id), layout))
    leading = {name: layout.values_in_order(name, [row[name] for row in rows]) for name in layout.axis_columns}
    return _RunTable(rows, column_names(layout), tuple(layout.axis_columns), tuple(layout.metrics), folder, leading)


def _select_rows(
    table: _RunTable, query: _Query, empty_options: Sequence[str], *, has_pivot: bool, as_json: bool
) -> Rows:
    """The rows that are meant. Raises UsageError with everything that is wrong with the options; `empty` are those that
    were given without a name.
    """
    mistakes = OptionErrors()
    expression = compile_where(query.where, table.names, mistakes)
    for option in empty_options:
        mistakes.add(option, f"names no column; columns: {shortened(table.names)}")
    for option, names in (("--columns", query.columns), ("--by", query.by), ("--pivot", query.pivot)):
        mistakes.check_columns(option, names, table.names)
    _check_mean_columns(table, query, mistakes)
    known = [name for name in (*query.by, *_choose_mean_columns(table, query)) if name in table.names]
    sortable = [*known, *_COUNT_COLUMNS] if query.by else table.names
    if not has_pivot:
        mistakes.check_columns("--sort", [name.removeprefix("-") for name in query.sorts], sortable)
    if has_pivot and len(query.pivot) != 3:
        found = f"{len(query.pivot)} name{'s' if len(query.pivot) != 1 else ''}"
        mistakes.add("--pivot", f"has {found}, and needs three: X,Y,METRIC, such as steps,seed,sharpness")
    for option, names in (("--by", query.by), ("--pivot", query.pivot)):
        for name in dict.fromkeys(name for name in names if names.count(name) > 1):
            mistakes.add(option, f"'{name}' is named {names.count(name)} times; each column can be named once")
    for given, option, instead in _find_conflicts(query, has_pivot=has_pivot, as_json=as_json):
        if given:
            mistakes.add(option, instead)
    mistakes.raise_if_any()
    return _filter_table(table, expression, query)


def _check_mean_columns(table: _RunTable, query: _Query, errors: OptionErrors) -> None:
    """Columns of which a mean is asked for must hold numbers."""
    numeric = _find_numeric_columns(table)
    measured = [("--pivot", name) for name in query.pivot[2:3]]
    measured += [("--columns", name) for name in query.columns if query.by and name not in query.by]
    for option, name in measured:
        if name in table.names and name not in numeric:
            allowed = f"; columns with numbers: {shortened(numeric)}" if numeric else ""
            errors.add(option, f"'{name}' holds no numbers, and a mean needs some{allowed}")


def _filter_table(table: _RunTable, expression: ColumnExpression | None, query: _Query) -> Rows:
    """The rows of `--where`. That there is none is said: a condition that is always false may be a mistake."""
    rows = filter_rows(table.rows, expression)
    if table.rows and not rows:
        console.print_status(describe_no_match(query.where, len(table.rows)))
    return rows


def _find_conflicts(query: _Query, *, has_pivot: bool, as_json: bool) -> Sequence[tuple[bool, str, str]]:
    return (
        (has_pivot and bool(query.by), "--pivot", "cannot go with --by; one table is one answer"),
        (has_pivot and bool(query.sorts), "--sort", "a pivot keeps the order of the sweep"),
        (has_pivot and bool(query.columns), "--columns", "a pivot has the one that --pivot names"),
        (has_pivot and query.limit is not None, "--limit", "a pivot is shown whole"),
        (bool(query.images) and (has_pivot or bool(query.by)), "--images", "a group has no picture of its own"),
        (bool(query.images) and as_json, "--images", "cannot go with --json"),
    )


def _find_numeric_columns(table: _RunTable) -> list[str]:
    """The columns that hold numbers: the metrics first, as they are asked for most."""
    from sweeper.tables.aggregate import is_number  # noqa: PLC0415

    names = dict.fromkeys((*table.metrics, *table.names))
    return [name for name in names if name != "trial" and any(is_number(row[name]) for row in table.rows)]


def _choose_mean_columns(table: _RunTable, query: _Query) -> list[str]:
    """The columns whose means are shown: those asked for, or every metric and the seconds. What the groups are made by
    is there already.
    """
    if query.columns:
        return [name for name in query.columns if name not in query.by]
    numeric = _find_numeric_columns(table)
    return [name for name in ("ran_s", *table.metrics) if name in numeric and name not in query.by]


def _show_rows(rows: Rows, table: _RunTable, query: _Query, *, as_json: bool) -> None:
    shown = query.columns or (list(table.names) if as_json else _choose_default_columns(rows, table))
    rows = sort_rows(rows, query.sorts)[: query.limit]
    if as_json:
        console.print_json([{name: row[name] for name in shown} for row in rows])
        return
    pictures = terminal_images.should_show_images(query.images, len(rows))
    measured = ("queued_s", "ran_s", *table.metrics)
    console.print_table(shown, [[row[name] for name in shown] for row in rows], rounded=measured)
    if pictures:
        from sweeper.store.remote_artifacts import download_artifacts  # noqa: PLC0415

        download_artifacts(table.folder, (pair for row in rows for pair in _pair_outputs(row)))
        terminal_images.show(
            [(f"trial {row['trial']}", table.folder, _pair_outputs(row), row["status"]) for row in rows]
        )


def _pair_outputs(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    return list(zip(row["outputs"], row["sha256"], strict=True))


def _choose_default_columns(rows: Rows, table: _RunTable) -> list[str]:
    errors = ("error_type", "error") if any(row["error"] for row in rows) else ()
    return ["trial", *table.axes, *_OUTCOME_COLUMNS, *table.metrics, *errors]


def _show_groups(rows: Rows, table: _RunTable, query: _Query, *, as_json: bool) -> None:
    from sweeper.cli import group_tables  # noqa: PLC0415

    columns = _choose_mean_columns(table, query)
    groups = group_tables.make_group_rows(rows, query.by, columns, table.leading)
    groups = group_tables.sort_groups(groups, query.sorts)[: query.limit]
    if as_json:
        console.print_json(group_tables.groups_to_json(groups))
    else:
        group_tables.print_groups(groups, query.by, columns, group_tables.find_labels(rows, table.names, query.by))


def _show_pivot(rows: Rows, table: _RunTable, pivot: list[str], *, as_json: bool) -> None:
    from sweeper.cli import group_tables  # noqa: PLC0415
    from sweeper.tables.aggregate import make_pivot  # noqa: PLC0415

    x, y, column = pivot
    found = make_pivot(rows, x, y, column, table.leading)
    if as_json:
        console.print_json(group_tables.pivot_to_json(found, x, y, column))
    else:
        group_tables.print_pivot(found, x, y, column, group_tables.find_labels(rows, table.names, (x, y)))
