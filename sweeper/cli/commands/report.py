"""`sweeper report`: write the HTML page of a run, or contact sheets of its pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from sweeper.cli import console, options
from sweeper.cli.open_page import open_in_browser, write_checked_report
from sweeper.cli.options import complete_from, format_examples
from sweeper.errors import UsageError
from sweeper.model.picture_size import MAX_SHEET_MEGAPIXELS
from sweeper.model.selection import Selection
from sweeper.store.votes import Mark, parse_mark_file
from sweeper.tables.results_folder import find_results_folder
from sweeper.tables.select_rows import select_marked, select_trials
from sweeper.wording import join_names


@click.command(
    epilog=format_examples(
        "sweeper report experiments/quickstart.yaml",
        "sweeper report experiments/quickstart.yaml --one-file client.html --marked keep",
        "sweeper report experiments/quickstart.yaml --sheet sheet.png --x steps --y prompt",
    )
)
@options.results
@click.option("-o", "--out", type=options.FOLDER, metavar="DIR", help="Folder of the page. [default: RESULTS/report]")
@options.run_id
@options.selection
@options.baseline
@click.option(
    "--check/--no-check", "with_check", default=True,
    help="Show how each picture compares with the accepted one. [default: if there is a baseline]",
)  # fmt: skip
@click.option("--marks", "mark_files", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              multiple=True, help="Show the marks of this file too, which the page saved; repeatable.")  # fmt: skip
@click.option("--marked", type=click.Choice(["keep", "reject", "none"]), help="Only trials with this mark.")
@click.option("--one-file", type=options.FILE, metavar="FILE",
              help="Write the page as one HTML file to send, with its pictures inside.")  # fmt: skip
@click.option("--max-mb", type=click.FloatRange(0.5, 2000), default=25.0, show_default=True, metavar="MB",
              help="Size of that file at most; pictures become smaller until they fit.")  # fmt: skip
@click.option("--sheet", type=options.FILE, metavar="FILE",
              help="Draw contact sheets (.png, .webp, .pdf) instead of the page; pages are numbered.")  # fmt: skip
@click.option("--x", metavar="AXIS", shell_complete=complete_from("columns"),
              help="The axis across the sheet. [default: chosen by sweeper]")  # fmt: skip
@click.option("--y", metavar="AXIS", shell_complete=complete_from("columns"),
              help="The axis down the sheet. [default: chosen by sweeper]")  # fmt: skip
@click.option("--cell", type=click.IntRange(32, 4096), default=256, show_default=True, metavar="PIXELS",
              help="Longer side of a cell, which holds all pictures of a trial.")  # fmt: skip
@click.option("--megapixels", type=click.FloatRange(1, MAX_SHEET_MEGAPIXELS), default=50.0, show_default=True,
              metavar="N", help="Split a sheet that would be larger into several.")  # fmt: skip
@options.open_browser
@options.as_json
def command(
    results: Path, *, out: Path | None, run_id: str | None, baseline: Path | None, with_check: bool,
    mark_files: tuple[Path, ...], marked: str | None, one_file: Path | None, max_mb: float, sheet: Path | None,
    selection: Selection, open_browser: bool, as_json: bool, **sheet_options: Any,
) -> None:  # fmt: skip
    """Make a web page of a run that opens from disk, one file of it to send, or contact sheets.

    RESULTS is a results folder, or an experiment file (for its default folder).
    """
    folder = find_results_folder(results)
    marks = [mark for file in mark_files for mark in _read_marks(file)]
    trials, no_match = select_trials(folder, run_id, selection)
    if marked is not None and not no_match:
        found = select_marked(folder, run_id, "" if marked == "none" else marked, marks)
        trials = found if trials is None else trials & found
        no_match = "" if trials else f"--marked {marked}: no trial has this mark"
    if no_match:  # a page of no trials would replace one
        raise UsageError(f"{no_match}; the report would be empty")
    write_page = partial(
        write_checked_report,
        folder, run=run_id, baseline=baseline, with_check=with_check, trials=trials, marks=marks,
    )  # fmt: skip
    if sheet is not None:
        of_page = {"-o": out, "--one-file": one_file, "--baseline": baseline, "--no-check": not with_check or None}
        _refuse_page_options(of_page | ({} if marked else {"--marks": marks or None}))
        from sweeper.reporting.contact_sheet import write_sheets

        written = write_sheets(folder, sheet, run=run_id, trials=trials, **sheet_options)
        facts: dict[str, Any] = {"sheets": written}
    else:
        _refuse_sheet_options(sheet_options)
        if one_file is None:
            report = write_page(out)
        else:
            if out is not None:
                raise UsageError("--one-file FILE says where the page goes; -o is for a page with its folder")
            if one_file.suffix.lower() not in (".html", ".htm"):  # it must not replace a store or a picture by mistake
                raise UsageError(f"--one-file {one_file}: the name of a page ends in .html")
            from sweeper.reporting.one_file import write_one_file

            report, words = write_one_file(folder, one_file, int(max_mb * 1e6), write_page)
            console.print_status(words)
        written = [report.page]
        facts = {"page": report.page, "trials": report.trial_count, "missing": report.missing_count}
    if as_json:
        console.print_json(facts)
    else:
        console.print_line("\n".join(map(str, written)))
    if open_browser:
        open_in_browser(written[0])


def _refuse_page_options(values: Mapping[str, Any]) -> None:
    given = [option for option, value in values.items() if value is not None]
    if given:
        raise UsageError(
            f"{join_names(given)}: for the page; --sheet draws sheets in its place, without check or marks"
        )


def _refuse_sheet_options(sheet_options: Iterable[str]) -> None:
    get_source = click.get_current_context().get_parameter_source
    given = [f"--{name}" for name in sheet_options if get_source(name) is not ParameterSource.DEFAULT]
    if given:
        belong = "belong" if len(given) > 1 else "belongs"
        raise UsageError(f"{', '.join(given)} {belong} to --sheet FILE; the page chooses axes and sizes in the browser")


def _read_marks(file: Path) -> list[Mark]:
    """Read a file of marks that the page saved. Raises UsageError."""
    try:
        return parse_mark_file(file.read_bytes())
    except (OSError, ValueError, RecursionError) as problem:
        raise UsageError(f"--marks {file}: {problem}") from None
