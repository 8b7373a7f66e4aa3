"""`sweeper calibrate`: how noisy a target is, and which `checks` hold that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sweeper.cli import console, options
from sweeper.cli.exit_codes import FAILED, INTERRUPTED, OK, UNREACHABLE
from sweeper.cli.options import format_examples

if TYPE_CHECKING:
    from sweeper.regression.calibrate import Calibration


@click.command(epilog=format_examples("sweeper calibrate experiments/quickstart.yaml --repeats 5 --target cloud"))
@options.experiment
@click.option("--repeats", type=click.IntRange(min=2), default=5, show_default=True, metavar="K",
              help="How often each trial runs.")  # fmt: skip
@click.option("--margin", type=click.FloatRange(min=1), default=2.0, show_default=True, metavar="X",
              help="How many times the worst noise a bound allows.")  # fmt: skip
@options.targets
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Results folder. [default: results/NAME-calibrate here]")  # fmt: skip
@options.as_json
@click.option("-q", "--quiet", is_flag=True, help="Show failures only.")
def command(experiment: Path, *, targets: tuple[str, ...], as_json: bool, quiet: bool, **calibrate_options: Any) -> int:
    """Run every trial K times, measure how much its pictures differ from time to time, and propose `checks`.

    Exit code 1 where a case cannot be gated: its noise is as large as what tells it from its neighbours.
    """
    from sweeper.cli.progress import ProgressDisplay  # noqa: PLC0415 - each command imports what it uses
    from sweeper.cli.targets_file import load_named_targets  # noqa: PLC0415
    from sweeper.regression.calibrate import calibrate  # noqa: PLC0415

    with ProgressDisplay(quiet=quiet) as watch:
        found = calibrate(
            experiment,
            target=options.to_target_list(targets),
            named=load_named_targets(),
            progress=watch,
            **calibrate_options,
        )
    if as_json:
        console.print_json(_as_json(found))
    else:
        _show(found)
    if found.stopped_by == "interrupt":
        return INTERRUPTED
    if found.stopped_by in ("refused", "unreachable"):
        return UNREACHABLE
    return OK if found.items and found.stopped_by is None and all(one.is_checkable for one in found.items) else FAILED


def _show(calibration: Calibration) -> None:
    rows: list[tuple[Any, ...]] = []
    for one in calibration.items:
        if one.stable or not one.noise:
            rows.append((one.case.name, one.repeats, "", "", "", "", "the same pixels" if one.stable else one.reason))
        for noise in one.noise:
            bound = str(noise.threshold) if noise.threshold else f"none: {noise.reason}"
            rows.append((one.case.name, one.repeats, noise.measure, noise.mean, noise.worst, noise.effect, bound))
    headers = ("case", "repeats", "measure", "mean", "worst", "effect", "bound")
    console.print_table(headers, rows, rounded=("mean", "worst", "effect"))
    console.print_line()
    refused = [one for one in calibration.items if not one.is_checkable]
    for one in refused:
        console.warn(f"{one.case.name} cannot be gated: {one.reason}")
    if calibration.checks:
        _show_checks(calibration.checks)
    elif calibration.items and not refused and all(one.stable for one in calibration.items):
        console.print_line(
            "Every picture was the same every time: no checks are needed, identical pixels is the default."
        )
    else:
        console.print_line("No one measure serves all cases; give `overrides` for each.")


def _show_checks(checks: dict[str, Any]) -> None:
    """As they are to stand in the experiment."""
    from sweeper.regression.thresholds import OVERRIDES  # noqa: PLC0415 - as above

    console.print_line("checks:")
    for measure, bound in checks.items():
        if measure != OVERRIDES:
            console.print_line(f'  {measure}: "{bound}"')
    if OVERRIDES in checks:
        console.print_line(f"  {OVERRIDES}:")
    for entry in checks.get(OVERRIDES, ()):
        # JSON is YAML, and knows how to quote whatever a prompt holds.
        console.print_line("    - {" + ", ".join(f"{name}: {json.dumps(text)}" for name, text in entry.items()) + "}")


def _as_json(calibration: Calibration) -> dict[str, Any]:
    return {
        "experiment": calibration.experiment,
        "repeats": calibration.repeats,
        "checks": calibration.checks,
        "stopped_by": calibration.stopped_by,
        "cases": [
            {
                "case": one.case.name,
                "repeats": one.repeats,
                "steady": one.stable,
                "gated": one.is_checkable,
                "reason": one.reason,
                "noise": {
                    noise.measure: {
                        "mean": _to_json_number(noise.mean),
                        "worst": _to_json_number(noise.worst),
                        "effect": _to_json_number(noise.effect),
                        "bound": str(noise.threshold) if noise.threshold else None,
                    }
                    for noise in one.noise
                },
            }
            for one in calibration.items
        ],
    }


def _to_json_number(value: float | None) -> float | None:
    """JSON has no infinity."""
    return None if value is None or value == float("inf") else value
