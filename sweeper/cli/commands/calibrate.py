"""`sweeper calibrate`: measure a target's noise, and propose `checks` that tolerate it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sweeper.cli import console, options, trust_check
from sweeper.cli.exit_codes import get_run_exit_code
from sweeper.cli.load_prepared import load_for_run
from sweeper.cli.options import format_examples
from sweeper.cli.progress import ProgressDisplay


@click.command(epilog=format_examples("sweeper calibrate experiments/quickstart.yaml --repeats 5 --target cloud"))
@options.experiment
@click.option("--repeats", type=click.IntRange(min=2), default=5, show_default=True, metavar="K",
              help="How many times to run each trial.")  # fmt: skip
@click.option("--margin", type=click.FloatRange(min=1), default=2.0, show_default=True, metavar="X",
              help="A threshold allows X times the worst noise.")  # fmt: skip
@options.targets
@click.option("-o", "--out", type=options.FOLDER, metavar="DIR",
              help="Results folder. [default: results/NAME-calibrate beside EXPERIMENT]")  # fmt: skip
@trust_check.option
@options.as_json
@options.quiet
def command(
    experiment: Path, *, targets: list[str] | None, trust: bool, as_json: bool, quiet: bool, **calibrate_options: Any
) -> int:
    """Run every trial K times, measure how much its pictures vary, and propose `checks`.

    Exit code 1 if no threshold can check a case, because its noise is as large as its difference from neighbouring
    cases.
    """
    from sweeper.regression.calibrate import calibrate

    with ProgressDisplay(quiet=quiet, shows_error=True) as display:
        prepared = load_for_run(experiment, targets, trust=trust, report=display)
        calibration = calibrate(
            prepared.experiment, target=targets, named=prepared.users, progress=display, **calibrate_options
        )
    console.print_answer(calibration, as_json=as_json)
    return get_run_exit_code(calibration.stopped_by, ok=calibration.ok)
