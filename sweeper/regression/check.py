"""Check pictures against a baseline, after running an experiment afresh or for a results folder as it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeper.errors import UsageError
from sweeper.loading.load import load, load_recorded
from sweeper.model.experiment import Experiment
from sweeper.model.result import Run
from sweeper.model.target_spec import NamedTargets, TargetSpec
from sweeper.planning.plan import plan as make_plan
from sweeper.regression.attribute import attribute_changes
from sweeper.regression.baseline import Baseline, default_folder, read_baseline
from sweeper.regression.cases import identify_points, load_run_record, read_run
from sweeper.regression.comparison import Comparisons, compare_with_baseline
from sweeper.regression.thresholds import NO_CHECKS, parse_checks
from sweeper.running.notify import EndNotice
from sweeper.running.run import run
from sweeper.running.run_events import Event
from sweeper.running.settings import TrialFilter, read_notify
from sweeper.tables.results_folder import default_results_folder


def check(
    what: Experiment | str | os.PathLike[str],
    baseline: str | os.PathLike[str] | None = None,
    *,
    target: TargetSpec | Sequence[TargetSpec] | None = None,
    out: str | os.PathLike[str] | None = None,
    attribute: bool = False,
    named: NamedTargets | None = None,
    progress: Callable[[Event], None] | None = None,
    runner: Callable[..., Run] | None = None,
    notify: str | None = None,
    **options: Any,
) -> Comparisons:
    """Compare pictures with the accepted ones, and with `attribute` find out why pictures changed.

    `what` is an experiment or its file, which is run afresh, or a results folder, which is compared as it is. `options`
    are those of `check_experiment` or of `check_results`. `target`, `named` and `progress` are those of `sweeper.run`,
    and `runner` is a function to use instead of it, such as `sweeper.cluster.run`. `notify`: the URL that gets one
    message at the end (default: that of the experiment); none does if nothing was run.

    Raises UsageError for an option that has no effect on a results folder, and what the two functions and
    `attribute_changes` raise.
    """
    experiment: Experiment | None
    runs: list[Run] = []
    if is_folder := not isinstance(what, Experiment) and Path(what).is_dir():
        folder = Path(str(what))
        only_for_runs = {} if attribute else {"target": target, "runner": runner, "notify": notify}
        reject_for_folder(folder, [name for name, value in {"out": out, **only_for_runs}.items() if value is not None])
        experiment = _load_recorded_experiment(folder, options.get("run")) if attribute else None
    else:
        experiment = what if isinstance(what, Experiment) else load(what)
        folder = Path(out) if out is not None else _find_results(experiment)

    def run_silently(*arguments: Any, **rest: Any) -> Run:
        runs.append((runner or run)(*arguments, notify="", **rest))
        return runs[-1]

    def compare() -> Comparisons:
        shared: dict[str, Any] = {"target": target, "named": named, "progress": progress, "runner": run_silently}
        if experiment is None or is_folder:
            found = check_results(folder, baseline, **options)
        else:
            found = check_experiment(experiment, baseline, out=out, **shared, **options)
        return attribute_changes(found, experiment, **shared) if attribute and experiment is not None else found

    if experiment is None:
        return compare()
    report = progress or (lambda _: None)
    notice = EndNotice(read_notify(notify, experiment.run), "check", experiment.name, folder, report)
    try:
        found = compare()
    except Exception as error:
        if runs or not is_folder:
            notice.post_now(runs[0] if runs else None, stopped_by=None, ok=False, reason=type(error).__name__)
        raise
    if runs:
        notice.post_now(runs[0], stopped_by=found.stopped_by, ok=found.ok)
    return found


def _find_results(experiment: Experiment) -> Path:
    return default_results_folder(experiment.file, experiment.name, "check")


def check_experiment(
    experiment: Experiment,
    baseline: str | os.PathLike[str] | None = None,
    *,
    runner: Callable[..., Run] = run,
    out: str | os.PathLike[str] | None = None,
    where: str | None = None,
    limit: int | None = None,
    allow_new: bool = False,
    **run_arguments: Any,
) -> Comparisons:
    """Run every trial of an experiment afresh and compare its pictures with the accepted ones.

    - `baseline`: its folder, by default `baselines/<name>/` beside the experiment file.
    - `out`: the results folder, by default `results/<name>-check/` beside the experiment file.
    - `where`, `limit`: run and compare only the trials for which this expression is true, and at most this many.
    - `allow_new`: cases without an accepted picture do not fail the check.
    - `run_arguments`: further arguments of `runner`, such as the fields of RunOptions.

    Raises ExperimentError for invalid `checks` and ResultsError for an unreadable baseline before anything is
    submitted, and everything that `sweeper.run` raises.
    """
    checks = parse_checks(experiment)
    accepted = _read_baseline(baseline, experiment.file, experiment.name)
    folder = Path(out) if out is not None else _find_results(experiment)
    plan = make_plan(experiment)
    is_selected = TrialFilter(where, plan)
    trials = None if where is None else {trial.index for trial in plan.written() if is_selected(trial)}
    known = {entry.case.point for entry in accepted.entries.values()}
    written = list(plan.written()) if known else []
    may_be_gone = {
        trial.index for trial, (_, point) in zip(written, identify_points(written), strict=True) if point in known
    }
    options = {"plan": plan, "fresh": True, "alone": True, "where": where, "limit": limit, "may_be_gone": may_be_gone}
    ended = runner(experiment, out=folder, **options, **run_arguments)
    run_cases = read_run(folder, ended.run_id, trials)
    if limit is not None:  # which trials these are is known only after the run
        run_cases = replace(run_cases, rows=tuple(row for row in run_cases.rows if row.run == ended.run_id))
    found = compare_with_baseline(
        run_cases, accepted, checks, fresh=True, allow_new=allow_new,
        is_partial=where is not None or limit is not None or bool(experiment.overrides),
    )  # fmt: skip
    return replace(found, stopped_by=ended.stopped_by, custom_baseline=baseline is not None)


def check_results(
    folder: Path,
    baseline: str | os.PathLike[str] | None = None,
    *,
    run: str | int | None = None,
    fresh: bool = False,
    trials: Collection[int] | None = None,
    allow_new: bool = False,
) -> Comparisons:
    """Compare the pictures of a results folder with the accepted ones, without running anything.

    `run` selects one run instead of the table, `trials` only some of its trials, and `fresh` only the pictures that
    this run made itself. The other options are those of `check_experiment`. If the experiment file is gone, every
    picture must be identical to the accepted one.

    Raises ResultsError for results or a baseline that cannot be read, and ExperimentError for invalid `checks`.
    """
    record = load_run_record(folder, run)
    file = Path(record.file)
    # Read the baseline before the rows, because parsing its manifest takes much memory for a moment.
    accepted = _read_baseline(baseline, file, record.experiment)
    run_cases = read_run(folder, run, trials)
    checks = parse_checks(load_recorded(file, record.overrides, results=folder)) if file.is_file() else NO_CHECKS
    found = compare_with_baseline(
        run_cases, accepted, checks, fresh=fresh, allow_new=allow_new,
        is_partial=trials is not None or bool(run_cases.overrides),
    )  # fmt: skip
    return replace(found, custom_baseline=baseline is not None)


def reject_for_folder(folder: Path, options: Sequence[str]) -> None:
    """Raise UsageError if `options` names any option, because checking a results folder runs nothing."""
    if options:
        names = " and ".join(part for part in (", ".join(options[:-1]), options[-1]) if part)
        verb, noun = ("has", "the option") if len(options) == 1 else ("have", "the options")
        raise UsageError(
            f"{folder}: {names} {verb} no effect, because checking a results folder runs nothing; "
            f"check the experiment ({load_run_record(folder).file}) to rerun it, or drop {noun}"
        )


def _load_recorded_experiment(folder: Path, run: str | int | None) -> Experiment:
    record = load_run_record(folder, run)
    file = Path(record.file)
    if not file.is_file():
        raise UsageError(
            f"{folder}: attribute needs the experiment of these results, and {file} is gone; "
            "restore it, or check without attribute"
        )
    return load_recorded(file, record.overrides, results=folder)


def _read_baseline(folder: str | os.PathLike[str] | None, experiment_file: Path, name: str) -> Baseline:
    return read_baseline(Path(folder) if folder is not None else default_folder(experiment_file, name), name)
