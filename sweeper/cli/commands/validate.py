"""`sweeper validate`: report every mistake in experiments and templates, before anything runs."""

from __future__ import annotations

from pathlib import Path

import click

from sweeper.cli import console, options, trust_check
from sweeper.cli.exit_codes import INVALID_INPUT, OK
from sweeper.cli.load_prepared import check_file
from sweeper.cli.options import format_examples


@click.command(epilog=format_examples("sweeper validate experiments/*.yaml templates/*.json"))
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="FILE...")
@options.targets
@options.object_info
@trust_check.option
@options.as_json
def command(
    files: tuple[Path, ...], *, targets: list[str] | None, object_info: Path | None, trust: bool, as_json: bool
) -> int:
    """Check experiments (.yaml) with all files that they name, and templates (.json, or their .slots.yaml)."""
    reports = []
    for file in files:
        report = check_file(file, targets, object_info, trust=trust)
        reports.append(report)
        if not as_json:
            console.print_answer(report, as_json=False)
    if as_json:
        console.print_json(reports)
    return OK if all(report.valid for report in reports) else INVALID_INPUT
