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

from sweeper.cli.node_class_source import load_classes
from sweeper.cli.targets_file import load_named_targets, load_names_unless_given
from sweeper.comfy.target import check_targets, resolve_targets
from sweeper.errors import ExperimentError, InputError, Problem, UsageError

if TYPE_CHECKING:
    from sweeper.comfy.target import Target
    from sweeper.model.experiment import Experiment
    from sweeper.model.node_classes import NodeInfo
    from sweeper.planning.plan import Plan


def load_checked_plan(
    file: Path,
    targets: Sequence[Any] | None,
    *,
    overrides: Mapping[str, Any] | None = None,
    object_info: Path | None = None,
    extra_check: Callable[[Experiment], object] | None = None,
) -> tuple[Plan, list[str]]:
    """The plan of an experiment's file, and what is odd but runs, as `checked` tells it; `also` looks at the experiment
    once more, for ExperimentErrors of its own.

    Raises ExperimentError with all that is wrong: where one stage finds something, each later one sees what is left.
    """
    from sweeper.loading.load import load_partial  # noqa: PLC0415 - as below
    from sweeper.planning.plan import plan  # noqa: PLC0415

    found = load_partial(file, overrides=overrides, named=load_names_unless_given(targets))
    made: Plan | None = None
    notes: list[str] = []
    problems = list(found.problems)
    if extra_check is not None:
        try:
            extra_check(found.experiment)
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
            notes = check_against_targets(made or found.experiment, targets, object_info)
        except InputError as error:
            problems += [one for one in error.problems if (one.file, one.line, one.key) not in told]
    if problems or made is None:
        raise ExperimentError(problems)
    return made, notes


def check_against_targets(
    plan_or_experiment: Plan | Experiment, targets: Sequence[Any] | None, object_info: Path | None = None
) -> list[str]:
    """What is odd but runs, for each target that could be asked; with the file `object_info`, for what it describes.
    An experiment has no plan for its mistakes: of it the written values are checked.

    Raises ExperimentError for what would not run, UsageError for a file that cannot be used and a target that is none.
    """
    from sweeper.planning.compatibility import Compatibility, check_written_values  # noqa: PLC0415
    from sweeper.planning.plan import Plan  # noqa: PLC0415 - each command imports what it uses

    problems: list[Problem] = []
    notes: list[str] = []
    experiment = plan_or_experiment.experiment if isinstance(plan_or_experiment, Plan) else plan_or_experiment
    specs = experiment.targets if targets is None else targets
    named = {**load_named_targets(), **experiment.named_targets}
    check_targets(specs, named)
    for name, classes in _iter_known_classes(specs, named, object_info):
        fit = (
            plan_or_experiment.fit(classes)
            if isinstance(plan_or_experiment, Plan)
            else Compatibility(check_written_values(experiment, classes), ())
        )
        problems += [replace(one, message=f"{one.message} (on {name})") for one in fit.problems]
        notes += [str(note) for note in fit.notes]
        notes += [str(note) for note in fit.unsaved if not experiment.run.keep_temp]
    if problems:
        raise ExperimentError(problems)
    return list(dict.fromkeys(notes))


def _iter_known_classes(
    specs: Sequence[Any], named: Mapping[str, Any], object_info: Path | None
) -> Iterator[tuple[str, NodeInfo]]:
    """The name and the classes of each server that can be had."""
    if object_info is not None:
        yield f"the server of {object_info.name}", load_classes(object_info)
        return
    for spec in specs:
        target = _resolve_target(spec, named, with_keys=False)
        classes = _find_classes(spec, target, named) if target is not None else None
        if target is not None and classes is not None:
            yield target.name, classes


def _resolve_target(spec: Any, named: Mapping[str, Any], *, with_keys: bool) -> Target | None:
    """The target, None where this machine has no key for it: who only plans needs none."""
    try:
        (target,) = resolve_targets([spec], named=named, environ=os.environ, with_keys=with_keys)
    except UsageError:
        return None
    return target


def _find_classes(spec: Any, target: Target, named: Mapping[str, Any]) -> NodeInfo | None:
    from sweeper.running.node_class_cache import fetch_classes, get_cached_classes  # noqa: PLC0415 - not for commands that ask nobody

    # A Cloud is the same tomorrow, and a keyring is not to be opened for what is on disk; a ComfyUI may be another.
    known = get_cached_classes(target) if target.dialect == "cloud" else None
    if known is not None:
        return known
    keyed = _resolve_target(spec, named, with_keys=True)
    return asyncio.run(fetch_classes(keyed)) if keyed is not None else get_cached_classes(target)
