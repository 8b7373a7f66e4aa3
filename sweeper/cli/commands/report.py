"""`sweeper report`: the page of a run, or contact sheets of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from sweeper.cli import console, options
from sweeper.cli.baseline_check import check_results
from sweeper.cli.options import format_examples
from sweeper.errors import UsageError
from sweeper.reporting.sheets.limits import MAX_MEGAPIXELS, MIN_CELL_SIDE


@click.command(
    epilog=format_examples(
        "sweeper report results/quickstart",
        "sweeper report results/quickstart --sheet sheet.png --x steps --y prompt",
    )
)
@options.results
@click.option(
    "-o", "--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Folder of the page. "
    "[default: RESULTS/report]"
)  # fmt: skip
@options.run_id
@click.option(
    "--baseline", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Hold the pictures against this baseline. [default: baselines/NAME beside the experiment]",
)  # fmt: skip
@click.option(
    "--check/--no-check", "compares", default=True,
    help="Show what became of each picture since it was accepted. [default: where there is a baseline]",
)  # fmt: skip
@click.option("--sheet", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Draw contact sheets (.png, .webp) instead of the page; several pages are numbered.")  # fmt: skip
@click.option("--x", metavar="AXIS", help="Across the sheet. [default: chosen from the axes]")
@click.option("--y", metavar="AXIS", help="Down the sheet. [default: chosen from the axes]")
@click.option("--animate", metavar="AXIS", help="One frame for each value of this axis (.webp, .png, .gif).")
@click.option("--cell", type=click.IntRange(MIN_CELL_SIDE, 4096), default=256, show_default=True, metavar="PIXELS",
              help="Longer side of a cell; the pictures of one trial share it.")  # fmt: skip
@click.option("--megapixels", type=click.FloatRange(1, MAX_MEGAPIXELS), default=50.0, show_default=True, metavar="N",
              help="A sheet that would be larger becomes several.")  # fmt: skip
@options.as_json
def command(
    results: Path,
    *,
    out: Path | None,
    run_id: str | None,
    baseline: Path | None,
    compares: bool,
    sheet: Path | None,
    as_json: bool,
    **sheet_options: Any,
) -> None:
    """Make a web page of a run that opens from disk, or contact sheets.

    RESULTS is a results folder, or an experiment file (its default folder is meant).
    """
    from sweeper.tables.dataframe import find_results_folder  # noqa: PLC0415

    folder = find_results_folder(results)
    if sheet is not None:
        if out is not None:
            raise UsageError("--sheet FILE says where the sheets go; -o is for the page")
        if baseline is not None or not compares:
            raise UsageError("sheets show no check; --baseline and --no-check are for the page")
        from sweeper.reporting.sheets.contact_sheet import SheetOptions, write_sheets  # noqa: PLC0415

        files = write_sheets(folder, sheet, SheetOptions(**sheet_options), run=run_id)
        if as_json:
            console.print_json({"sheets": [str(file) for file in files]})
        for file in files if not as_json else ():
            console.print_line(str(file))
        return
    asked = click.get_current_context().get_parameter_source
    given = [f"--{name}" for name in sheet_options if asked(name) is not ParameterSource.DEFAULT]
    if given:
        belong = "belong" if len(given) > 1 else "belongs"
        raise UsageError(f"{', '.join(given)} {belong} to --sheet FILE; the page chooses axes and sizes in the browser")
    from sweeper.reporting.write_report import write_report  # noqa: PLC0415

    checked = check_results(folder, run_id, baseline) if compares or baseline is not None else None
    report = write_report(folder, out, run=run_id, checked=checked)
    if report.missing_count:
        console.warn(f"{report.missing_count} artifacts are not there any more; the page says so in their cells")
    if as_json:
        console.print_json({"page": str(report.page), "trials": report.trial_count, "missing": report.missing_count})
    else:
        console.print_line(str(report.page))
