"""`sweeper export`: write the table to a file or to stdout."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sweeper.cli import console, options
from sweeper.cli.options import format_examples
from sweeper.cli.table_query import select_trials
from sweeper.errors import UsageError
from sweeper.model.selection import Selection
from sweeper.tables import export
from sweeper.tables.results_folder import find_results_folder


@click.command(
    epilog=format_examples(
        "sweeper export experiments/quickstart.yaml -o table.parquet",
        "sweeper export experiments/quickstart.yaml -o - --format csv --where \"status == 'failed'\"",
    )
)
@options.results
@click.option(
    "-o", "--output", required=True, metavar="FILE", help="The file; its suffix chooses the format. -: stdout."
)
@click.option(
    "--format", "kind", metavar="FORMAT", help="csv, tsv, jsonl, parquet or markdown, regardless of the suffix."
)
@click.option("--safe-csv", is_flag=True, help="Escape texts that a spreadsheet would run as formulas (csv, tsv).")
@options.run_id
@options.selection
@options.as_json
def command(
    results: Path, output: str, kind: str | None, run_id: str | None, *, safe_csv: bool, selection: Selection,
    as_json: bool,
) -> None:  # fmt: skip
    """Write the table of a run as csv, tsv, jsonl, parquet or markdown."""
    if not output or Path(output).is_dir():
        mistake = "is a folder" if output else "is empty"
        raise UsageError(
            f"-o '{output}': {mistake}; name a file, such as {Path(output) / 'table.csv'}, or - for stdout"
        )
    if output == "-" and as_json:
        raise UsageError("--json and -o - both write to stdout; give one")
    if output == "-" and kind is None:
        raise UsageError(f"-o -: stdout has no suffix; give --format, one of {', '.join(export.FORMATS)}")
    chosen = export.choose_format(output, kind)  # raises before anything is read
    from sweeper.tables.dataframe import read_table

    folder = find_results_folder(results)
    frame = read_table(folder, run_id)
    trials = select_trials(folder, run_id, selection)
    if trials is not None:
        frame = frame[frame["trial"].isin(trials)]
    if output == "-":
        export.export(frame, sys.stdout.buffer, chosen, safe=safe_csv)
        sys.stdout.buffer.flush()
        return
    export.export(frame, output, chosen, safe=safe_csv)
    if as_json:
        console.print_json({"written": [output], "format": chosen, "rows": len(frame)})
    else:
        console.print_status(f"wrote {len(frame)} rows to {output}")
