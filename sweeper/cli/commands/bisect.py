"""`sweeper bisect`: find the commit of ComfyUI that changed a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sweeper.cli import confirm_cost, console, options, trust_check
from sweeper.cli.commands.check import comfyui_repo, prepare_versions
from sweeper.cli.exit_codes import get_run_exit_code
from sweeper.cli.options import format_examples


@click.command(epilog=format_examples("sweeper bisect mine.yaml --comfyui-repo ComfyUI --good v0.33.0 --bad master"))
@options.experiment
@comfyui_repo(required=True)
@click.option("--good", required=True, metavar="VERSION", help="A tag, branch or commit before the change.")
@click.option("--bad", required=True, metavar="VERSION", help="A later one, after the change.")
@options.baseline
@click.option("-o", "--out", type=options.FOLDER, metavar="DIR",
              help="Folder of the results. [default: results/NAME-bisect beside EXPERIMENT]")  # fmt: skip
@options.pythons
@options.launch
@options.selection
@trust_check.option
@confirm_cost.option
@options.as_json
@options.quiet
def command(
    experiment: Path, *, repo: Path, good: str, bad: str, baseline: Path | None,
    pythons: dict[str, str], settings: dict[str, Any], as_json: bool, **run_options: Any,
) -> int:  # fmt: skip
    """Find the first commit of ComfyUI that changes a case, by `git bisect` between a good version and a bad one.

    Starts ComfyUI at one commit after the other in a worktree of REPO, and skips those that cannot start. REPO itself
    stays as it is. After an interruption the same command goes on.
    """
    from sweeper.regression.bisection import Bisector
    from sweeper.regression.check import read_accepted
    from sweeper.regression.versions import ComfyuiClone, make_versions

    clone = ComfyuiClone(repo)
    ends = make_versions([], [good, bad], clone, pythons, settings)
    with prepare_versions(experiment, "bisect", ends[0].target, **run_options) as (loaded, out, options):
        accepted = read_accepted(baseline, loaded.file, loaded.name)
        found = Bisector(loaded, clone, ends, accepted, out, options).run()
    console.print_answer(found, as_json=as_json)
    return get_run_exit_code(None if found.commits else "interrupt", ok=True)
