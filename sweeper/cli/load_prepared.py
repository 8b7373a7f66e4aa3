"""Load and prepare the experiment that a command names, with the trust that it has; see `sweeper.running.prepare`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeper.cli.node_class_source import load_classes
from sweeper.cli.trust_check import find_confinement, load_trusted
from sweeper.errors import ExperimentError
from sweeper.loading.targets_file import load_named_targets
from sweeper.model.experiment import Experiment
from sweeper.running.prepare import Prepared, prepare


def load_prepared(
    file: Path,
    targets: Sequence[Any] | None,
    *,
    trust: bool,
    overrides: Mapping[str, Any] | None = None,
    out: object = None,
    object_info: Path | None = None,
    extra_check: Callable[[Experiment], object] | None = None,
    keep_temp: bool | None = None,
    needs_sweep: bool = True,
) -> Prepared:
    """The experiment with its plans, checked against its targets, for a command that submits nothing.

    `object_info`: a file whose classes stand for those of the targets. The other arguments are those of `load_trusted`
    and `prepare`. Without the trust that an experiment needs, its targets are not asked. Raises ExperimentError with
    every problem, and UsageError for an unusable file or an unknown target.
    """
    users = load_named_targets()
    partial, missing_trust = load_trusted(file, users, trust=trust, targets=targets, overrides=overrides, out=out)
    return prepare(
        partial,
        missing_trust,
        specs=targets,
        users=users,
        object_info=None if object_info is None else (f"the server of {object_info.name}", load_classes(object_info)),
        extra_check=extra_check,
        keep_temp=keep_temp,
        needs_sweep=needs_sweep,
        asks_targets=not missing_trust,
    )


def load_for_run(
    file: Path,
    targets: Sequence[Any] | None,
    overrides: Mapping[str, Any] | None = None,
    *,
    trust: bool,
    out: object = None,
) -> Prepared:
    """The experiment for a run, which makes the plan and checks it. Raises ExperimentError with every mistake."""
    users = load_named_targets()
    partial, missing_trust = load_trusted(file, users, trust=trust, targets=targets, overrides=overrides, out=out)
    if partial.problems:  # raises with these and more
        prepare(partial, missing_trust, specs=targets, users=users, asks_targets=not missing_trust)
    if missing_trust:
        raise ExperimentError(missing_trust)
    prepared = Prepared(partial.experiment, targets, users)
    confinement = find_confinement()
    return prepared if confinement is None else confinement.allow_run(prepared)
