"""`sweeper check`: run an experiment again and compare it with its baseline."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sweeper.answers.render import render_markdown
from sweeper.cli import confirm_cost, console, dask_options, options, trust_check
from sweeper.cli.commands.export import select_trials
from sweeper.cli.exit_codes import get_run_exit_code
from sweeper.cli.load_prepared import load_for_run
from sweeper.cli.options import format_examples
from sweeper.cli.progress import ProgressDisplay
from sweeper.errors import UsageError
from sweeper.files import atomic_write
from sweeper.loading.targets_file import load_named_targets
from sweeper.model.experiment import Experiment
from sweeper.model.selection import Selection
from sweeper.model.target_spec import TargetSpec
from sweeper.tables.results_folder import default_results_folder
from sweeper.wording import join_names

if TYPE_CHECKING:
    from sweeper.regression.comparison import Comparisons
    from sweeper.regression.versions import VersionChecks

_ONLY_FOR_VERSIONS = {"--comfyui-repo": "repo", "--python": "pythons", "--launch": "settings"}

comfyui_repo = partial(
    click.option, "--comfyui-repo", "repo", type=options.FOLDER, metavar="REPO",
    help="Your Git clone of ComfyUI; its models and custom nodes are used.",
)  # fmt: skip


@click.command(
    epilog=format_examples(
        "sweeper check experiments/quickstart.yaml",
        "sweeper check experiments/quickstart.yaml --junit check.xml --html check --attribute",
        "sweeper check mine.yaml --comfyui-repo ComfyUI --versions v0.33.0,master --html check",
        "pytest --sweeper experiments/quickstart.yaml --sweeper-target cloud  # each case is a test",
        "pytest --sweeper experiments/quickstart.yaml --sweeper-accept-new    # or --sweeper-accept",
    )
)
@options.experiment
@options.baseline
@options.targets
@click.option("-o", "--out", type=options.FOLDER, metavar="DIR",
              help="Results folder of the new run. [default: results/NAME-check beside EXPERIMENT]")  # fmt: skip
@click.option("--junit", type=options.FILE, metavar="FILE", help="Write JUnit XML.")
@click.option("--html", type=options.FOLDER, metavar="DIR",
              help="Write the page of the run, opened on what is not the same as accepted.")  # fmt: skip
@click.option("--summary", type=options.FILE, metavar="FILE",
              help="Write Markdown; appends if FILE is $GITHUB_STEP_SUMMARY.")  # fmt: skip
@click.option("--allow-new", is_flag=True, help="Do not fail on cases that have no accepted picture yet.")
@click.option(
    "--attribute",
    is_flag=True,
    help="Also run the accepted workflows of changed cases, to show whether the server or you changed them.",
)
@click.option("--comfyui", "places", multiple=True, metavar="VERSION=DIR|URL",
              help="Check this ComfyUI, and compare it with the one before; may be repeated.")  # fmt: skip
@options.make_names_option("--versions", "names", "Check these tags, branches or commits of REPO.", "VERSION,...")
@comfyui_repo()
@options.pythons
@options.launch
@options.selection
@options.notify
@dask_options.dask
@dask_options.resources
@trust_check.option
@confirm_cost.option
@options.as_json
@options.quiet
def command(
    experiment: Path,
    *,
    junit: Path | None,
    html: Path | None,
    summary: Path | None,
    as_json: bool,
    quiet: bool,
    **check_options: Any,
) -> int:
    """Run an experiment again and compare every picture with the accepted one: by bytes, by pixels, then by `checks`.

    EXPERIMENT may be a results folder instead. Then nothing is run, and options that only apply to a run are rejected.
    With --comfyui or --versions, each version runs it in turn. Exit code 1 if a case changed, failed, is new, is
    missing or could not be compared.
    """
    given = {name: check_options.pop(name) for name in ("places", "names", "repo", "pythons", "settings")}
    if given["places"] or given["names"]:
        found: Any = _check_versions(experiment, given, quiet=quiet, **check_options)
    elif wrong := [option for option, name in _ONLY_FOR_VERSIONS.items() if given[name]]:
        raise UsageError(f"{join_names(wrong)}: name the versions, with --versions or --comfyui VERSION=DIR")
    else:
        found = _check_once(experiment, quiet=quiet, **check_options)
    _write_reports(found, junit, html, summary)
    if as_json or not quiet or found.has_differences:
        console.print_answer(found, as_json=as_json)
    return get_run_exit_code(found.stopped_by, ok=found.ok)


def _check_once(
    experiment: Path,
    *,
    baseline: Path | None,
    targets: list[str] | None,
    out: Path | None,
    selection: Selection,
    trust: bool,
    yes: bool,
    quiet: bool,
    dask: str | None,
    dask_resources: tuple[str, ...],
    **check_options: Any,
) -> Comparisons:
    from sweeper.regression.check import check, reject_for_folder

    runs = check_options["attribute"] or not experiment.is_dir()
    if experiment.is_dir():
        ignored: dict[str, Any] = {"--out": out}
        if not runs:
            ignored |= {"--target": targets, "--dask": dask, "--dask-resource": dask_resources}
        reject_for_folder(experiment, [name for name, value in ignored.items() if value])
        check_options["trials"] = select_trials(experiment, None, selection)
    else:
        check_options |= {"where": selection.where, "limit": selection.limit}
    runner = dask_options.choose_runner(dask, dask_resources) if runs else None
    if runner is not None:
        runner = confirm_cost.confirm_before(runner, yes=yes)
        runner = trust_check.require_trust_before(runner, trust=trust, targets=targets)
    with ProgressDisplay(quiet=quiet, shows_error=True) as display:
        prepared = None
        if not experiment.is_dir():
            prepared = load_for_run(experiment, targets, selection.values, trust=trust, report=display)
        comparisons = check(
            experiment if prepared is None else prepared.experiment, baseline, target=targets, out=out,
            named=load_named_targets() if prepared is None else prepared.users,
            progress=display, runner=runner, **check_options,
        )  # fmt: skip
    if not comparisons.has_baseline:
        console.print_error(f"{comparisons.baseline}: there is no baseline; `{comparisons.accept_command}` makes one")
    return comparisons


def _check_versions(
    experiment: Path, given: Mapping[str, Any], *, baseline: Path | None, targets: list[str] | None, dask: str | None,
    dask_resources: tuple[str, ...], attribute: bool, allow_new: bool, **run_options: Any,
) -> VersionChecks:  # fmt: skip
    from sweeper.regression.versions import ComfyuiClone, check_versions, make_versions

    excluded = {"--target": targets, "--dask": dask or dask_resources, "--attribute": attribute}
    if wrong := [option for option, value in excluded.items() if value]:
        raise UsageError(f"{join_names(wrong)}: do not go together with --comfyui and --versions")
    if unnamed := [text for text in given["places"] if not all(text.partition("=")[::2])]:
        raise UsageError(f"--comfyui {unnamed[0]}: write VERSION=DIR, such as master=ComfyUI")
    if given["names"] and given["repo"] is None:
        raise UsageError("--versions: name your Git clone of ComfyUI with --comfyui-repo")
    clone = None if given["repo"] is None else ComfyuiClone(given["repo"])
    places = [text.partition("=")[::2] for text in given["places"]]
    versions = make_versions(places, given["names"], clone, given["pythons"], given["settings"])
    with prepare_versions(experiment, "versions", versions[0].target, **run_options) as (loaded, folder, options):
        return check_versions(loaded, versions, baseline, out=folder, clone=clone, allow_new=allow_new, **options)


@contextmanager
def prepare_versions(
    file: Path, kind: str, target: TargetSpec, *, out: Path | None,
    selection: Selection, trust: bool, yes: bool, quiet: bool, notify: str | None = "",
) -> Iterator[tuple[Experiment, Path, dict[str, Any]]]:  # fmt: skip
    """Load an experiment for this target; with its results folder, and the options of its runs.

    `kind`: the end of the name of the default results folder.
    """
    prepared = load_for_run(file, [target], selection.values, trust=trust)
    loaded = prepared.experiment
    runner = confirm_cost.confirm_before(dask_options.choose_runner(None, ()), yes=yes)
    runner = trust_check.require_trust_before(runner, trust=trust, targets=[target])
    folder = out or default_results_folder(loaded.file, loaded.name, kind)
    with ProgressDisplay(quiet=quiet, shows_error=True) as display:
        selected = {"where": selection.where, "limit": selection.limit}
        yield loaded, folder, dict(selected, runner=runner, named=prepared.users, progress=display, notify=notify)


def _write_reports(
    found: Comparisons | VersionChecks, junit_file: Path | None, html_folder: Path | None, summary_file: Path | None
) -> None:
    from sweeper.regression.comparison import Comparisons, to_junit_xml
    from sweeper.reporting.write_report import write_review, write_versions

    if junit_file is not None:
        suites = {found.experiment: found} if isinstance(found, Comparisons) else found.suites
        with atomic_write(junit_file) as file:
            file.write(to_junit_xml(suites))
    if html_folder is not None:
        if isinstance(found, Comparisons):
            write_review(found, html_folder)
        else:
            write_versions(found, html_folder)
    if summary_file is not None:
        summary_file.parent.mkdir(parents=True, exist_ok=True)
        shared = os.environ.get("GITHUB_STEP_SUMMARY")  # all steps of a job append to that file
        mode = "a" if shared and Path(shared) == summary_file else "w"
        with summary_file.open(mode, encoding="utf-8") as stream:
            stream.write(render_markdown(found.summary_parts()))
