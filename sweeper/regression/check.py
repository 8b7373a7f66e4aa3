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

from sweeper.did_you_mean import nearest
from sweeper.errors import UsageError
from sweeper.loading.load import load
from sweeper.model.experiment import Experiment
from sweeper.regression.baseline import Baseline, default_folder, read_baseline
from sweeper.regression.cases import Observed, observe, recorded
from sweeper.regression.comparison import CHANGED, Comparisons, compare
from sweeper.regression.thresholds import NO_CHECKS, Checks, checks_of

if TYPE_CHECKING:
    from sweeper.model.result import Run
    from sweeper.model.target_spec import Named, Spec
    from sweeper.regression.match_files import Answering
    from sweeper.running.run_events import Event

_FOR_FOLDER: Final = ("allow_new", "answer", "attribute", "baseline", "fresh", "run", "trials")


@dataclass(frozen=True, slots=True)
class _Sides:
    """What is held against what. `experiment` is None where it is gone."""

    experiment: Experiment | None
    observed: Observed
    known: Baseline
    checks: Checks
    stopped_by: str | None = None


def check(
    what: Experiment | str | os.PathLike[str],
    baseline: str | os.PathLike[str] | None = None,
    *,
    target: Spec | Sequence[Spec] | None = None,
    out: str | os.PathLike[str] | None = None,
    run: str | int | None = None,
    fresh: bool = False,
    trials: Collection[int] | None = None,
    allow_new: bool = False,
    attribute: bool = False,
    named: Named | None = None,
    progress: Callable[[Event], None] | None = None,
    runner: Callable[..., Run] | None = None,
    answer: Answering | None = None,
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
        _refuse_for_experiment(what, {"run": run, "trials": trials})
        experiment = what if isinstance(what, Experiment) else load(what)
        fresh = True
        sides = _run_afresh(experiment, baseline, out, runner or _run_here(), {**where, **changes})
    else:
        given = {"out": out} if attribute else {"out": out, "target": target, "runner": runner}
        refuse_for_folder(
            Path(what), [*(name for name, value in given.items() if value is not None), *map(_guessed, changes)]
        )
        sides = _as_it_is(Path(what), baseline, run, trials, attribute=attribute)
    found = compare(sides.observed, sides.known, sides.checks, fresh=fresh, allow_new=allow_new, answer=answer)
    found = replace(found, stopped_by=sides.stopped_by, elsewhere=baseline is not None)
    changed = found.stopped_by is None and any(one.state == CHANGED for one in found)
    if not attribute or not changed or sides.experiment is None:
        return found
    from sweeper.regression.attribute import attributed  # noqa: PLC0415 - the network, only where it is used

    place = sides.observed.folder
    aside = place.with_name(f"{place.name}-attribution")
    return attributed(
        found, sides.known, sides.checks, sides.experiment, out=aside, runner=runner or _run_here(), **where
    )


def _run_afresh(
    experiment: Experiment,
    baseline: str | os.PathLike[str] | None,
    out: str | os.PathLike[str] | None,
    runner: Callable[..., Run],
    wishes: Mapping[str, Any],
) -> _Sides:
    """Run an experiment, every trial of it, and take what came of it."""
    checks = checks_of(experiment)
    known = read_baseline(_folder(baseline, experiment.file, experiment.name), experiment.name)
    place = Path(out) if out is not None else Path("results") / f"{experiment.name}-check"
    ended = runner(experiment, out=place, fresh=True, **wishes)
    return _Sides(experiment, observe(place, ended.run_id), known, checks, ended.stopped_by)


def _as_it_is(
    folder: Path,
    baseline: str | os.PathLike[str] | None,
    run: str | int | None,
    trials: Collection[int] | None,
    *,
    attribute: bool,
) -> _Sides:
    """Take a run from a results folder; nothing is run. Raises UsageError where `attribute` needs what is gone."""
    record = recorded(folder, run)
    file = Path(record.file)
    if attribute and not file.is_file():
        raise UsageError(
            f"{folder}: attribute cannot apply: the experiment of these results ({file}) is gone; "
            "put it back, or check without"
        )
    # Before the rows: what is read of the manifest takes most of its memory for a moment only.
    known = read_baseline(_folder(baseline, file, record.experiment), record.experiment)
    observed = observe(folder, record.id, trials)
    experiment = load(file) if file.is_file() else None
    return _Sides(experiment, observed, known, checks_of(experiment) if experiment is not None else NO_CHECKS)


def refuse_for_folder(folder: Path, given: Sequence[str]) -> None:
    """Raises UsageError where something was given, told by these names, that only a run could heed."""
    if given:
        file = recorded(folder).file
        raise UsageError(
            f"{folder}: {_listed(given)} cannot apply: a results folder is compared as it is, and nothing is run; "
            f"check the experiment instead ({file}) to run it afresh, or leave out what cannot apply"
        )


def _refuse_for_experiment(what: object, given: Mapping[str, object]) -> None:
    names = [name for name, value in given.items() if value is not None]
    if names:
        told = what.file if isinstance(what, Experiment) else what
        raise UsageError(
            f"{told}: {_listed(names)} cannot apply: an experiment is run afresh, all of it; check its results folder "
            "instead to choose among what is there, or leave out what cannot apply"
        )


def _guessed(name: str) -> str:
    near = nearest(name, _FOR_FOLDER)
    return f"{name} (did you mean '{near}'?)" if near else name


def _listed(names: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def _run_here() -> Callable[..., Run]:
    from sweeper.running.run import run  # noqa: PLC0415 - the network, only where it is used

    return run


def _folder(baseline: str | os.PathLike[str] | None, file: Path, name: str) -> Path:
    return Path(baseline) if baseline is not None else default_folder(file, name)
