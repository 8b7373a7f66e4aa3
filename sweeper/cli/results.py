"""`sweeper results`: the table of a run on the terminal, or as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sweeper.cli import console, options
from sweeper.cli.options import examples
from sweeper.errors import UsageError
from sweeper.nearest import hint

# Shown after the axes where no columns are asked for; the rest is one `--columns` or `sweeper export` away.
_OUTCOME = ("status", "attempts", "ran_s")


@click.command(
    epilog=examples(
        "sweeper results results/quickstart --where \"status == 'failed'\"",
        "sweeper results experiments/quickstart.yaml --sort -sharpness --limit 5",
    )
)
@options.results
@options.run_id
@click.option(
    "--where", metavar="EXPR", help="Rows for which this is true, such as \"steps > 4 and status == 'failed'\"."
)
@click.option("--sort", "sorts", multiple=True, metavar="COLUMN", help="Sort by this column; -COLUMN: descending.")
@click.option("--columns", metavar="A,B,...", help="Show these columns only.")
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="Show the first N rows.")
@options.as_json
def command(
    results: Path,
    *,
    run_id: str | None,
    where: str | None,
    sorts: tuple[str, ...],
    columns: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """Show the table of a run. RESULTS is a results folder, or an experiment file (its default folder is meant)."""
    from sweeper.formats import records  # noqa: PLC0415 - each command imports what it uses
    from sweeper.store import Store  # noqa: PLC0415
    from sweeper.table import column_names, frame, results_folder  # noqa: PLC0415

    with Store.open(results_folder(results), readonly=True) as store:
        layout = store.layout(run_id)
        names = column_names(layout)
        rows = records(frame(store.results(run_id), layout))
    shown = _chosen(columns, names) or (list(names) if as_json else _usual(rows, layout.axis_columns, layout.metrics))
    if where is not None:
        rows = _filtered(rows, where, names)
    rows = _sorted(rows, sorts, names)[:limit]
    if as_json:
        console.out_json([{name: row[name] for name in shown} for row in rows])
    else:
        console.table(shown, [[row[name] for name in shown] for row in rows])


def _usual(rows: list[dict[str, Any]], axes: tuple[str, ...], metrics: tuple[str, ...]) -> list[str]:
    errors = ("error_type", "error") if any(row["error"] for row in rows) else ()
    return ["trial", *axes, *_OUTCOME, *metrics, *errors]


def _chosen(columns: str | None, names: tuple[str, ...]) -> list[str]:
    chosen = [name.strip() for name in (columns or "").split(",") if name.strip()]
    for name in chosen:
        _known(name, names, "--columns")
    return chosen


def _known(name: str, names: tuple[str, ...], option: str) -> None:
    if name not in names:
        raise UsageError(f"{option}: there is no column '{name}'{hint(name, names, 'columns')}")


def _filtered(rows: list[dict[str, Any]], where: str, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rows for which the expression holds. A comparison with a value that is missing does not hold."""
    from sweeper.expressions import ExpressionError, compile_expression, unknown_names  # noqa: PLC0415 - Jinja2

    try:
        expression = compile_expression(where)
    except ExpressionError as error:
        raise UsageError(f"--where: {error}") from None
    unknown = unknown_names(expression, names)
    if unknown:
        raise UsageError(f"--where: {'; '.join(unknown)}")
    kept = []
    for row in rows:
        try:
            holds = expression.evaluate(row)
        except ExpressionError as error:
            if any(row[name] is None for name in expression.names):
                continue
            raise UsageError(f"--where: trial {row['trial']}: {error}") from None
        if holds:
            kept.append(row)
    return kept


def _sorted(rows: list[dict[str, Any]], sorts: tuple[str, ...], names: tuple[str, ...]) -> list[dict[str, Any]]:
    for sort in reversed(sorts):
        name = sort.removeprefix("-")
        _known(name, names, "--sort")
        there = [row for row in rows if row[name] is not None]
        there.sort(key=lambda row: _sort_key(row[name]), reverse=sort.startswith("-"))
        rows = there + [row for row in rows if row[name] is None]
    return rows


def _sort_key(value: Any) -> tuple[bool, Any]:
    """Numbers before texts; neither can be compared with the other."""
    return (False, value) if isinstance(value, (int, float)) else (True, str(value))
