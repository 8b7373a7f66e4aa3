"""`sweeper costs`: show what the runs of results folders cost, by target, day, node class and axis value."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from sweeper.answers.cells import sanitize
from sweeper.cli import console, options
from sweeper.cli.cost_text import Groups, describe_charges, show_charges
from sweeper.cli.options import complete_from, format_examples, split_names
from sweeper.errors import UsageError
from sweeper.files import atomic_write
from sweeper.store.experiment_path import display_path
from sweeper.tables.charge_rows import (
    CSV_COLUMNS,
    ChargeRow,
    ChargeSum,
    add_up,
    group_charges,
    iter_csv_rows,
    list_axes,
    load_charge_rows,
)
from sweeper.tables.export import CSV_DIALECTS, encode_line, format_delimited
from sweeper.tables.results_folder import find_results_folder
from sweeper.tables.select_rows import OptionErrors
from sweeper.wording import join_names

_NOTHING_PRICED: Final = (
    "no job has a price. Partner nodes have prices of their own; give a target one in the experiment or in the targets "
    "file, such as `price: {per_second: 0.0013 USD}`, and the next run counts it"
)


@click.command(
    epilog=format_examples(
        "sweeper costs experiments/quickstart.yaml --by prompt",
        "sweeper costs results/* --csv costs.csv",
    )
)
@click.argument("results", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="RESULTS...")
@click.option("--by", multiple=True, metavar="AXIS,...", shell_complete=complete_from("columns"),
              help="Also show what each value of this axis or slot cost.")  # fmt: skip
@click.option("--csv", type=click.Path(dir_okay=False, allow_dash=True), metavar="FILE|-",
              help="Write each charge as a row of a CSV file.")  # fmt: skip
@options.as_json
def command(results: tuple[Path, ...], *, by: tuple[str, ...], csv: str | None, as_json: bool) -> None:
    """Show what all runs of results folders cost, and how much of it paid for the results in their tables.

    Each of RESULTS is a results folder, or an experiment file (for its default folder).
    """
    if as_json and csv == "-":
        raise UsageError("--json and --csv - both write to stdout; give one")
    folders = list({folder.resolve(): folder for folder in map(find_results_folder, results)}.values())
    rows = load_charge_rows(folders)
    axes = split_names(by)
    _check_axes(rows, axes, is_given=bool(by))
    if csv is not None:
        _write_csv(rows, axes, csv)
    total, groups = add_up(rows), _group_rows(rows, axes)
    if as_json:
        console.print_json(describe_charges(folders, total, groups))
    else:
        print_line = console.print_status if csv == "-" else console.print_line
        if not rows:
            print_line(sanitize(f"{join_names(map(display_path, folders))}: {_NOTHING_PRICED}"))
            return
        show_charges(total, groups, print_line)


def _check_axes(rows: Sequence[ChargeRow], axes: Sequence[str], *, is_given: bool) -> None:
    errors = OptionErrors()
    names = list_axes(rows)
    if is_given and not axes:
        errors.add("--by", f"names no axis; axes and slots: {join_names(names)}")
    if rows:
        errors.check_columns("--by", axes, names)
    errors.raise_if_any()


def _group_rows(rows: Sequence[ChargeRow], axes: Sequence[str]) -> Groups:
    """The sums of each table. A table by folder has only one row if there is one folder, so it is left out."""
    groups: dict[str, Sequence[tuple[Any, ChargeSum]]] = {
        "folder": group_charges(rows, lambda row: display_path(row.folder)),
        "target": group_charges(rows, lambda row: row.job.target),
        "day": sorted(group_charges(rows, lambda row: row.day), key=lambda group: str(group[0])),
        "class": group_charges(rows, lambda row: row.class_type),
    }
    if len(groups["folder"]) < 2:
        del groups["folder"]
    return groups | {name: group_charges(rows, partial(_get_cell, name)) for name in axes}


def _get_cell(name: str, row: ChargeRow) -> Any:
    return row.cells.get(name)


def _write_csv(rows: Sequence[ChargeRow], axes: Sequence[str], file: str) -> None:
    cells: list[Sequence[Any]] = list(zip(*iter_csv_rows(rows, axes), strict=True))
    lines = format_delimited((*CSV_COLUMNS, *axes), [cells] if cells else [], CSV_DIALECTS["csv"])
    with ExitStack() as files:
        handle = sys.stdout.buffer if file == "-" else files.enter_context(atomic_write(Path(file)))
        handle.writelines(map(encode_line, lines))
        handle.flush()
    if file != "-":
        console.print_status(f"wrote {len(rows)} rows to {file}")
