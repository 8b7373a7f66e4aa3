"""`check`: an experiment is run afresh, or a results folder taken as it is, and held against the baseline.

The two take different arguments. What the one at hand has no use for is refused: a check that passes without the target
that somebody named would be believed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweeper.did_you_mean import find_nearest
from sweeper.errors import UsageError
from sweeper.loading.load import load
from sweeper.model.experiment import Experiment
from sweeper.regression.baseline import Baseline, default_folder, read_baseline
from sweeper.regression.cases import RunCases, load_run_record, read_run
from sweeper.regression.comparison import CHANGED, Comparisons, compare_with_baseline
from sweeper.regression.thresholds import NO_CHECKS, Checks, parse_checks

if TYPE_CHECKING:
    from sweeper.model.result import Run
    from sweeper.model.target_spec import NamedTargets, TargetSpec
    from sweeper.regression.match_files import CompareFunction
    from sweeper.running.run_events import Event

_FOLDER_OPTIONS: Final = ("allow_new", "answer", "attribute", "baseline", "fresh", "run", "trials")


@dataclass(frozen=True, slots=True)
class _CheckInputs:
    """What is held against what. `experiment` is None where it is gone."""

    experiment: Experiment | None
    run_cases: RunCases
    baseline: Baseline
    checks: Checks
    stopped_by: str | None = None


def check(
    what: Experiment | str | os.PathLike[str],
    baseline: str | os.PathLike[str] | None = None,
    *,
    target: TargetSpec | Sequence[TargetSpec] | None = None,
    out: str | os.PathLike[str] | None = None,
    run: str | int | None = None,
    fresh: bool = False,
    trials: Collection[int] | None = None,
    allow_new: bool = False,
    attribute: bool = False,
    named: NamedTargets | None = None,
    progress: Callable[[Event], None] | None = None,
    runner: Callable[..., Run] | None = None,
    answer: CompareFunction | None = None,
    **changes: Any,
) -> Comparisons:
    """Hold pictures against what was accepted.

    `what`: an experiment or its file, which is run afresh into `out` (by default `results/<name>-check/` here); or a
    results folder, whose latest run (or `run`) is compared as it is, with `fresh` only what that very run made, with
    `trials` only these. `baseline`: its folder, by default `baselines/<name>/` beside the experiment file. `allow_new`:
    cases without an accepted picture may be. `attribute`: run the accepted workflows of changed cases on today's server
    too, to tell whose change it is. `target`, `named`, `progress` and `changes` (fields of RunOptions) are those of
    `sweeper.run`. `runner`: what runs it in place of `sweeper.run`, and `answer`: what holds pictures that lie at a URL
    against accepted ones, in place of this process; `sweeper.cluster` has both.

    A folder whose experiment is gone is held to identical pixels. Raises ExperimentError for wrong `checks` and
    UsageError for an argument that `what` has no use for, before anything is submitted; ResultsError for a baseline or
    results that cannot be read; what `sweeper.run` raises.
    """
    where: dict[str, Any] = {"target": target, "named": named, "progress": progress}
    if isinstance(what, Experiment) or not Path(what).is_dir():
        _reject_for_experiment(what, {"run": run, "trials": trials})
        experiment = what if isinstance(what, Experiment) else load(what)
        fresh = True
        sides = _run_experiment(experiment, baseline, out, runner or _default_runner(), {**where, **changes})
    else:
        given = {"out": out} if attribute else {"out": out, "target": target, "runner": runner}
        reject_for_folder(
            Path(what), [*(name for name, value in given.items() if value is not None), *map(_with_suggestion, changes)]
        )
        sides = _read_results(Path(what), baseline, run, trials, attribute=attribute)
    found = compare_with_baseline(
        sides.run_cases, sides.baseline, sides.checks, fresh=fresh, allow_new=allow_new, compare_remote=answer
    )
    found = replace(found, stopped_by=sides.stopped_by, custom_baseline=baseline is not None)
    changed = found.stopped_by is None and any(one.state == CHANGED for one in found)
    if not attribute or not changed or sides.experiment is None:
        return found
    from sweeper.regression.attribute import attribute_changes  # noqa: PLC0415 - the network, only where it is used

    place = sides.run_cases.folder
    aside = place.with_name(f"{place.name}-attribution")
    return attribute_changes(
        found, sides.baseline, sides.checks, sides.experiment, out=aside, runner=runner or _default_runner(), **where
    )


def _run_experiment(
    experiment: Experiment,
    baseline: str | os.PathLike[str] | None,
    out: str | os.PathLike[str] | None,
    runner: Callable[..., Run],
    options: Mapping[str, Any],
) -> _CheckInputs:
    """Run an experiment, every trial of it, and take what came of it."""
    checks = parse_checks(experiment)
    known = read_baseline(_baseline_folder(baseline, experiment.file, experiment.name), experiment.name)
    place = Path(out) if out is not None else Path("results") / f"{experiment.name}-check"
    ended = runner(experiment, out=place, fresh=True, **options)
    return _CheckInputs(experiment, read_run(place, ended.run_id), known, checks, ended.stopped_by)


def _read_results(
    folder: Path,
    baseline: str | os.PathLike[str] | None,
    run: str | int | None,
    trials: Collection[int] | None,
    *,
    attribute: bool,
) -> _CheckInputs:
    """Take a run from a results folder; nothing is run. Raises UsageError where `attribute` needs what is gone."""
    record = load_run_record(folder, run)
    file = Path(record.file)
    if attribute and not file.is_file():
        raise UsageError(
            f"{folder}: attribute cannot apply: the experiment of these results ({file}) is gone; "
            "put it back, or check without"
        )
    # Before the rows: what is read of the manifest takes most of its memory for a moment only.
    known = read_baseline(_baseline_folder(baseline, file, record.experiment), record.experiment)
    observed = read_run(folder, record.id, trials)
    experiment = load(file) if file.is_file() else None
    return _CheckInputs(experiment, observed, known, parse_checks(experiment) if experiment is not None else NO_CHECKS)


def reject_for_folder(folder: Path, given: Sequence[str]) -> None:
    """Raises UsageError where something was given, told by these names, that only a run could heed."""
    if given:
        file = load_run_record(folder).file
        raise UsageError(
            f"{folder}: {_join_names(given)} cannot apply: a results folder is compared as it is, and nothing is run; "
            f"check the experiment instead ({file}) to run it afresh, or leave out what cannot apply"
        )


def _reject_for_experiment(what: object, given: Mapping[str, object]) -> None:
    names = [name for name, value in given.items() if value is not None]
    if names:
        told = what.file if isinstance(what, Experiment) else what
        raise UsageError(
            f"{told}: {_join_names(names)} cannot apply: an experiment is run afresh, all of it; check its results "
            "folder instead to choose among what is there, or leave out what cannot apply"
        )


def _with_suggestion(name: str) -> str:
    near = find_nearest(name, _FOLDER_OPTIONS)
    return f"{name} (did you mean '{near}'?)" if near else name


def _join_names(names: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def _default_runner() -> Callable[..., Run]:
    from sweeper.running.run import run  # noqa: PLC0415 - the network, only where it is used

    return run


def _baseline_folder(baseline: str | os.PathLike[str] | None, file: Path, name: str) -> Path:
    return Path(baseline) if baseline is not None else default_folder(file, name)
