"""`sweeper costs`: show what the runs of results folders cost, by target, day, node class and axis value."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from sweeper.cli import console, options
from sweeper.cli.options import complete_from, format_examples, split_names
from sweeper.cli.text_table import print_table, shorten_cell
from sweeper.did_you_mean import join_names
from sweeper.errors import UsageError
from sweeper.files import atomic_write
from sweeper.model.money import CURRENCY, NOTHING
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

_MAX_VALUES: Final = 20  # in a table; --json has all
_OF_THE_JOB: Final = "(the job)"
_NOTHING_PRICED: Final = (
    "no job has a price. Partner nodes have prices of their own; give a target one in the experiment or in the targets "
    "file, such as `price: {per_second: 0.0013 USD}`, and the next run counts it"
)

Groups = Mapping[str, Sequence[tuple[Any, ChargeSum]]]


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
        console.print_json(_to_json(folders, total, groups))
    else:
        print_line = console.print_status if csv == "-" else console.print_line
        if not rows:
            print_line(console.sanitize(f"{join_names(map(display_path, folders))}: {_NOTHING_PRICED}"))
            return
        _show_total(total, print_line)
        _show_groups(groups, print_line)


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


def _to_json(folders: Sequence[Path], total: ChargeSum, groups: Groups) -> dict[str, Any]:
    return {
        "folders": list(map(str, folders)),
        "currency": CURRENCY,
        **_describe_sum(total),
        "kinds": {kind: amount.to_dict() for kind, amount in total.kinds.items()},
        "by": {name: [{"value": value, **_describe_sum(one)} for value, one in rows] for name, rows in groups.items()},
    }


def _describe_sum(one: ChargeSum) -> dict[str, Any]:
    return {
        "jobs": one.jobs,
        "open_jobs": one.open_jobs,
        "spent": one.spent.to_dict(),
        "kept": one.kept.to_dict(),
        "rest": one.rest.to_dict(),
        "open": one.open.to_dict(),
        "kind": one.kind,
    }


def _show_total(total: ChargeSum, print_line: Callable[[str], None]) -> None:
    kinds = ", ".join(f"{amount} {kind}" for kind, amount in total.kinds.items())
    print_line(f"spent  {total.spent} for {_count(total.jobs)}: {kinds}")
    print_line(f"kept   {total.kept} for results that the table shows")
    if total.rest != NOTHING:
        print_line(f"rest   {total.rest} for failures, retries and results that others replaced")
    if total.open_jobs:
        print_line(f"open   {total.open} at most, for {_count(total.open_jobs)} that may still run")


def _count(jobs: int) -> str:
    return "1 job" if jobs == 1 else f"{jobs} jobs"


def _show_groups(groups: Groups, print_line: Callable[[str], None]) -> None:
    for name, rows in groups.items():
        print_line("")
        print_line(console.sanitize(f"cost by {name}:"))
        print_table([_make_row(name, value, one) for value, one in rows[:_MAX_VALUES]], print_line)
        if len(rows) > _MAX_VALUES:
            print_line(f"  and {len(rows) - _MAX_VALUES} more; --json lists them")


def _make_row(name: str, value: Any, one: ChargeSum) -> dict[str, str]:
    text = _OF_THE_JOB if name == "class" and value is None else console.format_cell(value) or "(none)"
    return {
        name: text if name in ("folder", "class") else shorten_cell(text),
        "jobs": str(one.jobs),
        "spent": str(one.spent),
        "kept": str(one.kept),
        "kind": one.kind or "",
    }
