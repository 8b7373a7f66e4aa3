"""Holds a plan against the node classes of its targets, or of a saved object_info, for commands that submit nothing.

A target is asked; one that needs a key which is not there, or does not answer, is left
out: planning works without servers, and the run itself checks once more.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.cli.node_class_source import classes_in
from sweeper.cli.targets_file import named_targets, names_for
from sweeper.comfy.target import check_targets, resolve_targets
from sweeper.errors import ExperimentError, InputError, Problem, UsageError

if TYPE_CHECKING:
    from sweeper.comfy.target import Target
    from sweeper.model.experiment import Experiment
    from sweeper.model.node_classes import NodeInfo
    from sweeper.planning.plan import Plan


def sound_plan(
    file: Path,
    targets: Sequence[Any] | None,
    *,
    overrides: Mapping[str, Any] | None = None,
    object_info: Path | None = None,
    also: Callable[[Experiment], object] | None = None,
) -> tuple[Plan, list[str]]:
    """The plan of an experiment's file, and what is odd but runs, as `checked` tells it; `also` looks at the experiment
    once more, for ExperimentErrors of its own.

    Raises ExperimentError with all that is wrong: where one stage finds something, each later one sees what is left.
    """
    from sweeper.loading.load import draft  # noqa: PLC0415 - as below
    from sweeper.planning.plan import plan  # noqa: PLC0415

    found = draft(file, overrides=overrides, named=names_for(targets))
    made: Plan | None = None
    notes: list[str] = []
    problems = list(found.problems)
    if also is not None:
        try:
            also(found.experiment)
        except ExperimentError as error:  # a condition may be about what could not be read
            problems += [one for one in error.problems if found.has_plan or not one.key.endswith(".where")]
    if found.has_plan:
        try:
            made = plan(found.experiment)
        except ExperimentError as error:
            problems += error.problems
    if found.has_template and not any(one.key.startswith("target") for one in found.problems):
        told = {(one.file, one.line, one.key) for one in problems}
        try:
            notes = checked(made or found.experiment, targets, object_info)
        except InputError as error:
            problems += [one for one in error.problems if (one.file, one.line, one.key) not in told]
    if problems or made is None:
        raise ExperimentError(problems)
    return made, notes


def checked(planned: Plan | Experiment, targets: Sequence[Any] | None, object_info: Path | None = None) -> list[str]:
    """What is odd but runs, for each target that could be asked; with the file `object_info`, for what it describes.
    An experiment has no plan for its mistakes: of it the written values are checked.

    Raises ExperimentError for what would not run, UsageError for a file that cannot be used and a target that is none.
    """
    from sweeper.planning.compatibility import Fit, fit_written  # noqa: PLC0415
    from sweeper.planning.plan import Plan  # noqa: PLC0415 - each command imports what it uses

    problems: list[Problem] = []
    notes: list[str] = []
    experiment = planned.experiment if isinstance(planned, Plan) else planned
    specs = experiment.targets if targets is None else targets
    named = {**named_targets(), **experiment.named_targets}
    check_targets(specs, named)
    for name, classes in _described(specs, named, object_info):
        fit = planned.fit(classes) if isinstance(planned, Plan) else Fit(fit_written(experiment, classes), ())
        problems += [replace(one, message=f"{one.message} (on {name})") for one in fit.problems]
        notes += [str(note) for note in fit.notes]
        notes += [str(note) for note in fit.unsaved if not experiment.run.keep_temp]
    if problems:
        raise ExperimentError(problems)
    return list(dict.fromkeys(notes))


def _described(
    specs: Sequence[Any], named: Mapping[str, Any], object_info: Path | None
) -> Iterator[tuple[str, NodeInfo]]:
    """The name and the classes of each server that can be had."""
    if object_info is not None:
        yield f"the server of {object_info.name}", classes_in(object_info)
        return
    for spec in specs:
        target = _resolved(spec, named, with_keys=False)
        classes = _classes(spec, target, named) if target is not None else None
        if target is not None and classes is not None:
            yield target.name, classes


def _resolved(spec: Any, named: Mapping[str, Any], *, with_keys: bool) -> Target | None:
    """The target, None where this machine has no key for it: who only plans needs none."""
    try:
        (target,) = resolve_targets([spec], named=named, environ=os.environ, with_keys=with_keys)
    except UsageError:
        return None
    return target


def _classes(spec: Any, target: Target, named: Mapping[str, Any]) -> NodeInfo | None:
    from sweeper.running.node_class_cache import classes_at, kept_classes  # noqa: PLC0415 - not for commands that ask nobody

    # A Cloud is the same tomorrow, and a keyring is not to be opened for what is on disk; a ComfyUI may be another.
    known = kept_classes(target) if target.dialect == "cloud" else None
    if known is not None:
        return known
    keyed = _resolved(spec, named, with_keys=True)
    return asyncio.run(classes_at(keyed)) if keyed is not None else kept_classes(target)
