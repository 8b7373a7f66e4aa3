"""Load an experiment's plan and check it against the node classes of its targets, for commands that submit nothing.

A target is skipped if its key is not set here or if it does not respond, because planning must work without servers,
and the run checks again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sweeper.cli.node_class_source import load_classes
from sweeper.cli.trust_check import find_confinement, load_trusted
from sweeper.comfy.target import Target, check_targets, resolve_targets
from sweeper.errors import ExperimentError, InputError, Problem, UsageError
from sweeper.loading.targets_file import load_named_targets
from sweeper.model.experiment import Experiment
from sweeper.model.node_classes import NodeInfo
from sweeper.model.target_spec import CLOUD_URL
from sweeper.planning.compatibility import Compatibility, check_written_values
from sweeper.planning.plan import Plan, plan
from sweeper.planning.searching.search_plan import plan_space
from sweeper.running.node_class_cache import fetch_classes, get_cached_classes


@dataclass(frozen=True, slots=True)
class CheckedPlan:
    """A plan without mistakes. `notes` say what is unusual but runs; `classes` are those of its first known target."""

    plan: Plan
    notes: Sequence[str] = ()
    classes: NodeInfo | None = None


def load_checked_plan(
    file: Path,
    targets: Sequence[Any] | None,
    *,
    overrides: Mapping[str, Any] | None = None,
    object_info: Path | None = None,
    extra_check: Callable[[Experiment], object] | None = None,
    trust: bool = False,
    out: object = None,
    keep_temp: bool | None = None,
    needs_sweep: bool = True,
) -> CheckedPlan:
    """The plan of an experiment file, checked against its targets, as are all values of its search.

    If it has only a search, that is a mistake if `needs_sweep`; otherwise the plan is that of `plan_space`.
    `extra_check` may raise ExperimentError with further problems. `trust` and `out` are those of `load_trusted`.
    `keep_temp` overrides that of the experiment. Without the trust that an experiment needs, it is not checked against
    its targets.

    Raises ExperimentError with every problem: if one stage finds some, the later stages still check whatever could be
    read.
    """
    partial, missing_trust = load_trusted(file, trust=trust, targets=targets, overrides=overrides, out=out)
    plans: list[Plan] = []
    notes: list[str] = []
    classes: NodeInfo | None = None
    problems = [*partial.problems, *missing_trust]
    if extra_check is not None:
        try:
            extra_check(partial.experiment)
        except ExperimentError as error:
            problems += error.problems
    for make_plan in list_planners(partial.experiment, needs_sweep=needs_sweep) if partial.has_plan else ():
        try:
            plans.append(make_plan())
        except ExperimentError as error:
            problems += error.problems
    if (
        partial.has_template
        and not missing_trust
        and not any(problem.key.startswith("target") for problem in partial.problems)
    ):
        known = {(problem.file, problem.line, problem.key) for problem in problems}
        try:
            notes, classes = check_against_targets(plans or partial.experiment, targets, object_info, keep_temp)
        except InputError as error:
            problems += [
                problem for problem in error.problems if (problem.file, problem.line, problem.key) not in known
            ]
    if problems or not plans:
        raise ExperimentError(problems)
    return CheckedPlan(plans[0], notes, classes)


def list_planners(experiment: Experiment, *, needs_sweep: bool) -> list[Callable[[], Plan]]:
    """Functions that make the plan of the sweep, and that of all values of the search. Each may raise ExperimentError.

    If there is only a search, the first is left out, unless `needs_sweep`.
    """
    search = experiment.search
    planners: list[Callable[[], Plan]] = []
    if experiment.blocks or needs_sweep:
        planners.append(lambda: plan(experiment))
    if search is not None:
        planners.append(lambda: plan_space(experiment, search))
    return planners


def load_for_run(
    file: Path,
    targets: Sequence[Any] | None,
    overrides: Mapping[str, Any] | None = None,
    *,
    trust: bool,
    out: object = None,
) -> Experiment:
    """The experiment, if it needs no trust that it has not. Raises ExperimentError with every mistake in it."""
    partial, missing_trust = load_trusted(file, trust=trust, targets=targets, overrides=overrides, out=out)
    if partial.problems:
        # Raises with these problems and more.
        load_checked_plan(file, targets, overrides=overrides, trust=trust, out=out)
    if partial.problems or missing_trust:
        raise ExperimentError([*partial.problems, *missing_trust])
    confinement = find_confinement()
    return partial.experiment if confinement is None else confinement.allow_run(partial.experiment, targets)


def check_against_targets(
    checked: Sequence[Plan] | Experiment,
    targets: Sequence[Any] | None,
    object_info: Path | None = None,
    keep_temp: bool | None = None,
) -> tuple[list[str], NodeInfo | None]:
    """Notes on what is unusual but runs, and on each target that was not checked; and the first classes that are known.

    `checked`: the plans of an experiment. An experiment is passed if it has no plan because of its mistakes; then only
    the values written in it are checked. If `object_info` is given, its classes are used instead of the targets'.
    Raises ExperimentError for what a target would refuse, and UsageError for an unusable file or an unknown target.
    """
    problems: list[Problem] = []
    notes: list[str] = []
    experiment = checked if isinstance(checked, Experiment) else checked[0].experiment
    specs = experiment.targets if targets is None else targets
    named = {**load_named_targets(), **experiment.named_targets}
    check_targets(specs, named)
    first_classes: NodeInfo | None = None
    for name, classes in _iter_classes(specs, named, object_info, may_send_keys=targets is not None):
        if isinstance(classes, str):
            notes.append(f"not checked against {name} ({classes})")
            continue
        first_classes = first_classes or classes
        fits = (
            [Compatibility(check_written_values(checked, classes), ())]
            if isinstance(checked, Experiment)
            else [plan.fit(classes) for plan in checked]
        )
        for fit in fits:
            problems += [replace(problem, message=f"{problem.message} (on {name})") for problem in fit.problems]
            notes += [str(note) for note in fit.notes]
            if not (experiment.run.keep_temp if keep_temp is None else keep_temp):
                notes += [f"{note} (`run` refuses this)" for note in fit.unsaved]
    if problems:
        raise ExperimentError(dict.fromkeys(problems))
    return list(dict.fromkeys(notes)), first_classes


def find_classes(experiment: Experiment, targets: Sequence[Any] | None) -> NodeInfo | None:
    """The node classes of the first target that has or returns them, for a run, which may send it its key."""
    named = {**load_named_targets(), **experiment.named_targets}
    specs = experiment.targets if targets is None else targets
    found = (classes for _, classes in _iter_classes(specs, named, None, may_send_keys=True))
    return next((classes for classes in found if not isinstance(classes, str)), None)


def _iter_classes(
    specs: Sequence[Any], named: Mapping[str, Any], object_info: Path | None, *, may_send_keys: bool
) -> Iterator[tuple[str, NodeInfo | str]]:
    """The name and the node classes of each server, or why its classes are not known."""
    if object_info is not None:
        yield f"the server of {object_info.name}", load_classes(object_info)
        return
    for spec in specs:
        target = _resolve_target(spec, named, with_keys=False)
        if target is not None:
            name = "Comfy Cloud" if target.url == CLOUD_URL else target.name
            yield name, _find_classes(spec, target, named, may_send_keys=may_send_keys)


def _resolve_target(spec: Any, named: Mapping[str, Any], *, with_keys: bool) -> Target | None:
    """The target; None if its key is not set on this machine."""
    try:
        (target,) = resolve_targets([spec], named=named, environ=os.environ, with_keys=with_keys)
    except UsageError:
        return None
    return target


def _find_classes(spec: Any, target: Target, named: Mapping[str, Any], *, may_send_keys: bool) -> NodeInfo | str:
    """The classes of a target from the cache or the server, or why they are not known.

    Only a target that the command line names (`may_send_keys`) receives a key, because a command that submits nothing
    must not send a secret to a server that a file chose.

    Comfy Cloud's classes rarely change, so the cache answers before a keyring is opened for its key. A ComfyUI is asked
    each time, because its classes change with every custom node.
    """
    cached = get_cached_classes(target) if target.dialect == "cloud" else None
    if cached is not None:
        return cached
    if target.key_source is not None and not may_send_keys:
        return get_cached_classes(target) or "its key is sent only if you give the target by --target"
    keyed = _resolve_target(spec, named, with_keys=True)
    if keyed is None:
        return get_cached_classes(target) or "no key"
    return asyncio.run(fetch_classes(keyed)) or "it does not respond with its node classes"
