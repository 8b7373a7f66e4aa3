"""`check`: an experiment is run afresh, or a results folder taken as it is, and held against the baseline."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.experiment import Experiment
from sweeper.loading import load
from sweeper.regression.baseline import default_folder, read_baseline
from sweeper.regression.cases import observe, recorded
from sweeper.regression.checks import NO_CHECKS, checks_of
from sweeper.regression.comparison import CHANGED, Comparisons, compare

if TYPE_CHECKING:
    from sweeper.reading.targets import Named, Spec
    from sweeper.regression.matching import Answering
    from sweeper.result import Run
    from sweeper.running.progress import Event


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

    A folder whose experiment is gone is held to identical pixels. Raises ExperimentError for wrong `checks`, before
    anything is submitted; ResultsError for a baseline or results that cannot be read; what `sweeper.run` raises.
    """
    runner = runner or _run_here()
    if isinstance(what, Experiment) or not Path(what).is_dir():
        experiment = what if isinstance(what, Experiment) else load(what)
        checks = checks_of(experiment)
        known = read_baseline(_folder(baseline, experiment.file, experiment.name), experiment.name)
        place = Path(out) if out is not None else Path("results") / f"{experiment.name}-check"
        ended = runner(experiment, target=target, out=place, named=named, progress=progress, fresh=True, **changes)
        observed = observe(place, ended.run_id)
        found = compare(observed, known, checks, fresh=True, allow_new=allow_new, answer=answer)
        found = replace(found, stopped_by=ended.stopped_by)
    else:
        record = recorded(Path(what), run)
        file = Path(record.file)
        # Before the rows: what is read of the manifest takes most of its memory for a moment only.
        known = read_baseline(_folder(baseline, file, record.experiment), record.experiment)
        observed = observe(Path(what), record.id, trials)
        loaded = load(file) if file.is_file() else None
        checks = checks_of(loaded) if loaded is not None else NO_CHECKS
        found = compare(observed, known, checks, fresh=fresh, allow_new=allow_new, answer=answer)
        if loaded is None:
            return found
        experiment, place = loaded, Path(what)
    if attribute and found.stopped_by is None and any(one.state == CHANGED for one in found):
        from sweeper.regression.attribution import attributed  # noqa: PLC0415 - the network, only where it is used

        aside = place.with_name(f"{place.name}-attribution")
        return attributed(
            found, known, checks, experiment, target=target, out=aside, runner=runner, named=named, progress=progress
        )
    return found


def _run_here() -> Callable[..., Run]:
    from sweeper.runner import run  # noqa: PLC0415 - the network, only where it is used

    return run


def _folder(baseline: str | os.PathLike[str] | None, file: Path, name: str) -> Path:
    return Path(baseline) if baseline is not None else default_folder(file, name)
