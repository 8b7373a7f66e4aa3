"""`sweeper results`: the table of a run on the terminal, whole, in groups or as a pivot; or as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sweeper.cli import console, options, terminal_images
from sweeper.cli.options import examples
from sweeper.cli.table_query import Mistakes, Rows, condition, filtered, listed, ordered, true_for_none
from sweeper.did_you_mean import listed as shortened

if TYPE_CHECKING:
    from sweeper.model.expressions.column_expression import ColumnExpression
    from sweeper.tables.aggregate import Leading

# Shown after the axes where no columns are asked for; the rest is one `--columns` or `sweeper export` away.
_OUTCOME = ("status", "attempts", "ran_s")
_COUNTS = ("trials", "succeeded")


@dataclass(frozen=True, slots=True)
class _Table:
    """The rows of a run and what its columns are."""

    rows: Rows
    names: tuple[str, ...]
    axes: tuple[str, ...]
    metrics: tuple[str, ...]
    folder: Path
    leading: Leading  # of the axes


@dataclass(frozen=True, slots=True)
class _Question:
    """The options as they were given."""

    where: str | None
    sorts: tuple[str, ...]
    columns: list[str]
    limit: int | None
    by: list[str]
    pivot: list[str]
    images: bool | None


@click.command(
    epilog=examples(
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
    asked = _Question(columns=listed(columns), by=listed(by), pivot=listed([pivot or ""]), **rest)
    table = _read(results, run_id)
    empty = [option for option, given, names in (("--columns", columns, asked.columns), ("--by", by, asked.by))
             if given and not names]  # fmt: skip
    rows = _answered(table, asked, empty, given_pivot=pivot is not None, as_json=as_json)
    if asked.pivot:
        _show_pivot(rows, table, asked.pivot, as_json=as_json)
    elif asked.by:
        _show_groups(rows, table, asked, as_json=as_json)
    else:
        _show_rows(rows, table, asked, as_json=as_json)


def _read(results: Path, run_id: str | None) -> _Table:
    from sweeper.store import Store  # noqa: PLC0415
    from sweeper.tables.dataframe import column_names, frame, results_folder  # noqa: PLC0415
    from sweeper.tables.export import records  # noqa: PLC0415 - each command imports what it uses

    folder = results_folder(results)
    with Store.open(folder, readonly=True) as store:
        layout = store.layout(run_id)
        rows = records(frame(store.results(run_id), layout))
    leading = {name: layout.leading(name, [row[name] for row in rows]) for name in layout.axis_columns}
    return _Table(rows, column_names(layout), tuple(layout.axis_columns), tuple(layout.metrics), folder, leading)


def _answered(table: _Table, asked: _Question, empty: Sequence[str], *, given_pivot: bool, as_json: bool) -> Rows:
    """The rows that are meant. Raises UsageError with everything that is wrong with the options; `empty` are those that
    were given without a name.
    """
    mistakes = Mistakes()
    expression = condition(asked.where, table.names, mistakes)
    for option in empty:
        mistakes.add(option, f"names no column; columns: {shortened(table.names)}")
    for option, names in (("--columns", asked.columns), ("--by", asked.by), ("--pivot", asked.pivot)):
        mistakes.columns(option, names, table.names)
    _check_measures(table, asked, mistakes)
    known = [name for name in (*asked.by, *_measured(table, asked)) if name in table.names]
    sortable = [*known, *_COUNTS] if asked.by else table.names
    if not given_pivot:
        mistakes.columns("--sort", [name.removeprefix("-") for name in asked.sorts], sortable)
    if given_pivot and len(asked.pivot) != 3:
        found = f"{len(asked.pivot)} name{'s' if len(asked.pivot) != 1 else ''}"
        mistakes.add("--pivot", f"has {found}, and needs three: X,Y,METRIC, such as steps,seed,sharpness")
    for option, names in (("--by", asked.by), ("--pivot", asked.pivot)):
        for name in dict.fromkeys(name for name in names if names.count(name) > 1):
            mistakes.add(option, f"'{name}' is named {names.count(name)} times; each column can be named once")
    for given, option, instead in _clashes(asked, given_pivot=given_pivot, as_json=as_json):
        if given:
            mistakes.add(option, instead)
    mistakes.raise_any()
    return _kept(table, expression, asked)


def _check_measures(table: _Table, asked: _Question, mistakes: Mistakes) -> None:
    """Columns of which a mean is asked for must hold numbers."""
    numeric = _numeric(table)
    measured = [("--pivot", name) for name in asked.pivot[2:3]]
    measured += [("--columns", name) for name in asked.columns if asked.by and name not in asked.by]
    for option, name in measured:
        if name in table.names and name not in numeric:
            allowed = f"; columns with numbers: {shortened(numeric)}" if numeric else ""
            mistakes.add(option, f"'{name}' holds no numbers, and a mean needs some{allowed}")


def _kept(table: _Table, expression: ColumnExpression | None, asked: _Question) -> Rows:
    """The rows of `--where`. That there is none is said: a condition that is always false may be a mistake."""
    rows = filtered(table.rows, expression)
    if table.rows and not rows:
        console.say(true_for_none(asked.where, len(table.rows)))
    return rows


def _clashes(asked: _Question, *, given_pivot: bool, as_json: bool) -> Sequence[tuple[bool, str, str]]:
    return (
        (given_pivot and bool(asked.by), "--pivot", "cannot go with --by; one table is one answer"),
        (given_pivot and bool(asked.sorts), "--sort", "a pivot keeps the order of the sweep"),
        (given_pivot and bool(asked.columns), "--columns", "a pivot has the one that --pivot names"),
        (given_pivot and asked.limit is not None, "--limit", "a pivot is shown whole"),
        (bool(asked.images) and (given_pivot or bool(asked.by)), "--images", "a group has no picture of its own"),
        (bool(asked.images) and as_json, "--images", "cannot go with --json"),
    )


def _numeric(table: _Table) -> list[str]:
    """The columns that hold numbers: the metrics first, as they are asked for most."""
    from sweeper.tables.aggregate import is_number  # noqa: PLC0415

    names = dict.fromkeys((*table.metrics, *table.names))
    return [name for name in names if name != "trial" and any(is_number(row[name]) for row in table.rows)]


def _measured(table: _Table, asked: _Question) -> list[str]:
    """The columns whose means are shown: those asked for, or every metric and the seconds. What the groups are made by
    is there already.
    """
    if asked.columns:
        return [name for name in asked.columns if name not in asked.by]
    numeric = _numeric(table)
    return [name for name in ("ran_s", *table.metrics) if name in numeric and name not in asked.by]


def _show_rows(rows: Rows, table: _Table, asked: _Question, *, as_json: bool) -> None:
    shown = asked.columns or (list(table.names) if as_json else _usual(rows, table))
    rows = ordered(rows, asked.sorts)[: asked.limit]
    if as_json:
        console.out_json([{name: row[name] for name in shown} for row in rows])
        return
    pictures = terminal_images.wanted(asked.images, len(rows))
    measured = ("queued_s", "ran_s", *table.metrics)
    console.table(shown, [[row[name] for name in shown] for row in rows], measured=measured)
    if pictures:
        from sweeper.store.remote_artifacts import bring_all  # noqa: PLC0415

        bring_all(table.folder, (pair for row in rows for pair in _files(row)))
        terminal_images.show([(f"trial {row['trial']}", table.folder, _files(row), row["status"]) for row in rows])


def _files(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    return list(zip(row["outputs"], row["sha256"], strict=True))


def _usual(rows: Rows, table: _Table) -> list[str]:
    errors = ("error_type", "error") if any(row["error"] for row in rows) else ()
    return ["trial", *table.axes, *_OUTCOME, *table.metrics, *errors]


def _show_groups(rows: Rows, table: _Table, asked: _Question, *, as_json: bool) -> None:
    from sweeper.cli import group_tables  # noqa: PLC0415

    columns = _measured(table, asked)
    groups = group_tables.by_table(rows, asked.by, columns, table.leading)
    groups = group_tables.ordered_groups(groups, asked.sorts)[: asked.limit]
    if as_json:
        console.out_json(group_tables.groups_json(groups))
    else:
        group_tables.print_groups(groups, asked.by, columns, group_tables.labels_of(rows, table.names, asked.by))


def _show_pivot(rows: Rows, table: _Table, pivot: list[str], *, as_json: bool) -> None:
    from sweeper.cli import group_tables  # noqa: PLC0415
    from sweeper.tables.aggregate import pivoted  # noqa: PLC0415

    x, y, column = pivot
    found = pivoted(rows, x, y, column, table.leading)
    if as_json:
        console.out_json(group_tables.pivot_json(found, x, y, column))
    else:
        group_tables.print_pivot(found, x, y, column, group_tables.labels_of(rows, table.names, (x, y)))
