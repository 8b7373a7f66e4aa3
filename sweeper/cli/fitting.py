"""Holds a plan against the node classes of its targets, for commands that submit nothing.

A target whose classes are not at hand is asked; one that needs a key which is not there, or does not answer, is left
out: planning works without servers, and the run itself checks once more.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sweeper.cli.targets_file import named_targets
from sweeper.comfy.target import resolve_targets
from sweeper.errors import ExperimentError, Problem, UsageError

if TYPE_CHECKING:
    from sweeper.comfy.target import Target
    from sweeper.nodes import NodeInfo
    from sweeper.planner import Plan


def checked(plan: Plan, targets: Sequence[Any] | None) -> list[str]:
    """What is odd but runs, for each target that could be asked. Raises ExperimentError for what would not run."""
    specs: Sequence[Any] = plan.experiment.targets if targets is None else targets
    problems: list[Problem] = []
    notes: list[str] = []
    named = {**named_targets(), **plan.experiment.named_targets}
    for spec in specs:
        target = _resolved(spec, named, with_keys=False)
        classes = _classes(spec, target, named) if target is not None else None
        if target is None or classes is None:
            continue
        fit = plan.fit(classes)
        problems += [replace(one, message=f"{one.message} (on {target.name})") for one in fit.problems]
        notes += [str(note) for note in fit.notes]
    if problems:
        raise ExperimentError(problems)
    return list(dict.fromkeys(notes))


def _resolved(spec: Any, named: Mapping[str, Any], *, with_keys: bool) -> Target | None:
    """The target, None where this machine has no such name or no key: who only plans needs neither."""
    try:
        (target,) = resolve_targets([spec], named=named, environ=os.environ, with_keys=with_keys)
    except UsageError:
        return None
    return target


def _classes(spec: Any, target: Target, named: Mapping[str, Any]) -> NodeInfo | None:
    from sweeper.catalogue import classes_at, kept_classes  # noqa: PLC0415 - not for commands that ask nobody

    known = kept_classes(target)
    if known is not None:
        return known
    keyed = _resolved(spec, named, with_keys=True)  # a keyring is not to be opened for what is on disk
    return asyncio.run(classes_at(keyed)) if keyed is not None else None
