"""`sweeper doctor`: check this installation and each target. Keys are never shown."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import click

from sweeper.cli import console, options, trust_check
from sweeper.cli.exit_codes import INVALID_INPUT, OK, UNREACHABLE, get_exit_code
from sweeper.cli.load_prepared import load_plans
from sweeper.cli.options import format_examples
from sweeper.cluster.address import describe_open_address
from sweeper.errors import Problem, UsageError
from sweeper.loading.targets_file import load_named_targets
from sweeper.model.target_spec import NamedTargets
from sweeper.planning.plan import Plan
from sweeper.running.diagnosis import diagnose

DASK_VARIABLE: Final = "DASK_SCHEDULER_ADDRESS"


@click.command(
    epilog=format_examples(
        "sweeper doctor",
        "sweeper doctor experiments/quickstart.yaml",
        "sweeper doctor --target cloud --target http://127.0.0.1:8188",
    )
)
@click.argument("experiment", type=click.Path(path_type=Path), required=False, metavar="[EXPERIMENT]")
@options.targets
@click.option("--dask", metavar="CLUSTER",
              help=f"Check the address of this Dask cluster too. [default: ${DASK_VARIABLE}]")  # fmt: skip
@click.option("-v", "--verbose", is_flag=True, help="Also list the installed packages.")
@trust_check.option
@options.as_json
def command(
    experiment: Path | None, targets: list[str] | None, *, dask: str | None, verbose: bool, trust: bool, as_json: bool
) -> int:
    """Check this installation and the targets: reachable, key accepted, version, cache mode, upload limit,
    balance of the account.

    With EXPERIMENT, checks its targets, and whether they have the nodes, models and values that it needs. Otherwise
    checks the embedded server, every target of the targets file, and Comfy Cloud if its key is set. Submits nothing.
    """
    named: NamedTargets = {}
    file_problems: tuple[Problem, ...] = ()
    try:
        named = load_named_targets()
    except UsageError as error:  # it must not stop targets that do not need the file
        file_problems = error.problems
    plans: list[Plan] = []
    if experiment is not None:
        _, plans = load_plans(experiment, targets, named, trust=trust, checks_names=not file_problems)
    has_cluster = dask is not None or os.environ.get(DASK_VARIABLE)
    open_cluster = describe_open_address("auto" if dask is None else dask, os.environ) if has_cluster else None
    warnings = [] if open_cluster is None else [open_cluster]
    diagnosis = diagnose(targets, plans, named, file_problems=file_problems, warnings=warnings)
    console.print_answer(diagnosis, as_json=as_json)
    if not as_json:
        console.print_line(f"stdout is {sys.stdout.encoding}")
    if verbose and not as_json:
        console.print_line()
        console.print_parts([diagnosis.tabulate_packages()])
    failed = [report.error for report in diagnosis.targets if not report.ok]
    codes = [UNREACHABLE if error is None else get_exit_code(error) for error in failed]
    return max([INVALID_INPUT if file_problems else OK, *codes])
