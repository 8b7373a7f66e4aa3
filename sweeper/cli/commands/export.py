"""`sweeper export`: write the table to a file or to stdout, or with its pictures as a dataset of another tool."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sweeper.cli import console, options
from sweeper.cli.options import format_examples
from sweeper.errors import UsageError
from sweeper.model.selection import Selection
from sweeper.tables import export, select_rows
from sweeper.tables.hf_dataset import FORMAT, write_dataset
from sweeper.tables.results_folder import find_results_folder
from sweeper.wording import suggest


@click.command(
    epilog=format_examples(
        "sweeper export experiments/quickstart.yaml -o table.parquet",
        "sweeper export experiments/quickstart.yaml -o - --format csv --where \"status == 'failed'\"",
        "sweeper export experiments/quickstart.yaml --to hf-dataset -o quickstart-hf",
    )
)
@options.results
@click.argument("path", required=False)
@click.option(
    "-o", "--output", metavar="FILE", help="The file; its suffix chooses the format. -: stdout. With --to, a folder. "
    "PATH is the same, without -o."
)  # fmt: skip
@click.option(
    "--format", "kind", metavar="FORMAT", help="csv, tsv, jsonl, parquet or markdown, regardless of the suffix."
)
@click.option("--safe-csv", is_flag=True, help="Escape texts that a spreadsheet would run as formulas (csv, tsv).")
@click.option(
    "--to", "tool", metavar="TOOL", help="hf-dataset: write the pictures too, as a folder that Hugging Face's datasets "
    "and other tools read."
)  # fmt: skip
@options.run_id
@options.selection
@options.as_json
def command(
    results: Path, path: str | None, output: str | None, kind: str | None, tool: str | None, *,
    safe_csv: bool, run_id: str | None, selection: Selection, as_json: bool,
) -> None:  # fmt: skip
    """Write the table of a run as csv, tsv, jsonl, parquet or markdown, or as a dataset with its pictures."""
    if path is not None and output is not None:
        raise UsageError(f"-o {output} and {path}: both say what to write; give one")
    output = path if output is None else output
    if tool is not None:
        if kind is not None or safe_csv:
            raise UsageError(
                "--format and --safe-csv are for tables without pictures; leave them out, or leave out --to"
            )
        _export_dataset(results, tool, output, run_id, selection, as_json=as_json)
    elif output is None:
        raise UsageError("name the file to write, such as -o table.csv, or -o - for stdout")
    else:
        _export_table(results, output, kind, run_id, selection, safe_csv=safe_csv, as_json=as_json)


def _export_dataset(
    results: Path, tool: str, output: str | None, run_id: str | None, selection: Selection, *, as_json: bool
) -> None:
    if tool != FORMAT:
        raise UsageError(f"--to {tool}: unknown format{suggest(tool, [FORMAT])}")
    if not output or output == "-":
        raise UsageError(f"--to {tool}: name the folder to write, such as -o my-{tool}")
    folder = find_results_folder(results)
    written = write_dataset(folder, Path(output), run=run_id, trials=select_trials(folder, run_id, selection))
    if as_json:
        facts = {"rows": written.row_count, "renamed": dict(written.renamed), "notes": list(written.notes)}
        console.print_json({"written": [output], "format": tool, **facts})
        return
    for note in written.notes:
        console.print_status(note)
    console.print_status(f"wrote {written.row_count} rows with their pictures to {output}")


def _export_table(
    results: Path, output: str, kind: str | None, run_id: str | None, selection: Selection, *,
    safe_csv: bool, as_json: bool,
) -> None:  # fmt: skip
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
    folder = find_results_folder(results)
    trials = select_trials(folder, run_id, selection)
    file = sys.stdout.buffer if output == "-" else output
    count = export.export_results(folder, file, chosen, run=run_id, trials=trials, safe=safe_csv)
    if output == "-":
        sys.stdout.buffer.flush()
    elif as_json:
        console.print_json({"written": [output], "format": chosen, "rows": count})
    else:
        console.print_status(f"wrote {count} rows to {output}")


def select_trials(results: Path, run: str | None, selection: Selection) -> frozenset[int] | None:
    """The selected trials of a run, or None for all. Prints a message if the options select nothing."""
    trials, message = select_rows.select_trials(results, run, selection)
    if message:
        console.print_status(message)
    return trials
