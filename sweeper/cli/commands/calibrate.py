"""`sweeper calibrate`: measure a target's noise, and propose `checks` that tolerate it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sweeper.cli import console, options, trust_check
from sweeper.cli.exit_codes import get_run_exit_code
from sweeper.cli.load_prepared import load_for_run
from sweeper.cli.options import format_examples
from sweeper.cli.progress import ProgressDisplay

if TYPE_CHECKING:
    from sweeper.regression.calibrate import Calibration


@click.command(epilog=format_examples("sweeper calibrate experiments/quickstart.yaml --repeats 5 --target cloud"))
@options.experiment
@click.option("--repeats", type=click.IntRange(min=2), default=5, show_default=True, metavar="K",
              help="How many times to run each trial.")  # fmt: skip
@click.option("--margin", type=click.FloatRange(min=1), default=2.0, show_default=True, metavar="X",
              help="A threshold allows X times the worst noise.")  # fmt: skip
@options.targets
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Results folder. [default: results/NAME-calibrate beside EXPERIMENT]")  # fmt: skip
@trust_check.option
@options.as_json
@options.quiet
def command(
    experiment: Path,
    *,
    targets: tuple[str, ...],
    trust: bool,
    as_json: bool,
    quiet: bool,
    **calibrate_options: Any,
) -> int:
    """Run every trial K times, measure how much its pictures vary, and propose `checks`.

    Exit code 1 if no threshold can check a case, because its noise is as large as its difference from neighbouring
    cases.
    """
    from sweeper.regression.calibrate import calibrate

    requested = options.to_target_list(targets)
    prepared = load_for_run(experiment, requested, trust=trust)
    with ProgressDisplay(quiet=quiet, shows_error=True) as display:
        calibration = calibrate(
            prepared.experiment,
            target=requested,
            named=prepared.users,
            progress=display,
            **calibrate_options,
        )
    if as_json:
        console.print_json(_as_json(calibration))
    else:
        _show(calibration)
    ok = bool(calibration.items) and all(item.is_checkable for item in calibration.items)
    return get_run_exit_code(calibration.stopped_by, ok=ok and calibration.stopped_by is None)


def _show(calibration: Calibration) -> None:
    rows: list[tuple[Any, ...]] = []
    for item in calibration.items:
        if item.stable or not item.noise:
            rows.append(
                (item.case.name, item.repeats, "", "", "", "", "the same pixels" if item.stable else item.reason)
            )
        for noise in item.noise:
            bound = str(noise.threshold) if noise.threshold else f"none: {noise.reason}"
            rows.append((item.case.name, item.repeats, noise.measure, noise.mean, noise.worst, noise.effect, bound))
    headers = ("case", "repeats", "measure", "mean", "worst", "effect", "bound")
    console.print_table(headers, rows, rounded=("mean", "worst", "effect"))
    console.print_line()
    uncheckable = [item for item in calibration.items if not item.is_checkable]
    for item in uncheckable:
        console.warn(f"no threshold can separate {item.case.name} from noise: {item.reason}")
    if calibration.checks:
        _show_checks(calibration.checks)
    elif calibration.items and not uncheckable and all(item.stable for item in calibration.items):
        console.print_line(
            "Every picture was the same every time. No checks are needed: by default pixels must be identical."
        )
    else:
        console.print_line("No single measure works for all cases; write `overrides` for each.")


def _show_checks(checks: dict[str, Any]) -> None:
    """Print the checks as YAML for the experiment."""
    overrides = checks.get("overrides", ())
    console.print_line("checks:")
    for measure, threshold in checks.items():
        if measure != "overrides":
            console.print_line(f'  {measure}: "{threshold}"')
    if overrides:
        console.print_line("  overrides:")
    for entry in overrides:
        # A JSON string is valid YAML, whatever characters a prompt contains.
        console.print_line("    - {" + ", ".join(f"{name}: {json.dumps(text)}" for name, text in entry.items()) + "}")


def _as_json(calibration: Calibration) -> dict[str, Any]:
    return {
        "experiment": calibration.experiment,
        "repeats": calibration.repeats,
        "checks": calibration.checks,
        "stopped_by": calibration.stopped_by,
        "cases": [
            {
                "case": item.case.name,
                "repeats": item.repeats,
                "steady": item.stable,
                "gated": item.is_checkable,
                "reason": item.reason,
                "noise": {
                    noise.measure: {
                        "mean": console.to_json_number(noise.mean),
                        "worst": console.to_json_number(noise.worst),
                        "effect": console.to_json_number(noise.effect),
                        "bound": str(noise.threshold) if noise.threshold else None,
                    }
                    for noise in item.noise
                },
            }
            for item in calibration.items
        ],
    }
