"""`sweeper run --rehearse`: run an experiment on the embedded server in place of its targets, in a folder of its own.

Sends nothing to the real targets and reads no key: their node classes come from the cache or from a file.
"""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from sweeper.cli import console
from sweeper.cli.node_class_source import load_classes
from sweeper.cli.targets_file import load_named_targets
from sweeper.comfy.target import resolve_targets
from sweeper.errors import ExperimentError, Problem, UsageError
from sweeper.model.experiment import Experiment
from sweeper.model.node_classes import NodeInfo
from sweeper.model.selection import Selection
from sweeper.planning.plan import Plan, plan
from sweeper.running.node_class_cache import get_cached_classes, get_embedded_classes
from sweeper.tables.results_folder import REHEARSAL, default_results_folder

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A rehearsal. `object_info`: a file with the node classes of the target; None: those in the cache."""

    object_info: Path | None

    def prepare(
        self, experiment: Experiment, targets: Sequence[Any] | None, out: Path | str | None, *, check: bool
    ) -> tuple[Experiment, Plan, Path]:
        """The experiment without a storage for its pictures, its plan, and the folder of the rehearsal.

        `targets`, `out`: those of the real run, None for the experiment's own. If `check`, checks the plan against the
        node classes of the targets, and warns of a target whose classes are unknown.

        Raises UsageError for an unusable option, and ExperimentError for what a target would refuse or the embedded
        server cannot run.
        """
        if isinstance(out, str):
            raise UsageError(f"--out {out}: a rehearsal keeps its pictures on this machine; give a folder as --out")
        local = replace(experiment, run=replace(experiment.run, out=None))
        expanded = plan(local)
        problems = list(_iter_missing_classes(experiment))
        for name, classes in _iter_classes(experiment, targets, self.object_info) if check else ():
            found = expanded.fit(classes).problems
            problems += [replace(problem, message=f"{problem.message} (on {name})") for problem in found]
        if problems:
            raise ExperimentError(problems)
        return local, expanded, (out or default_results_folder(experiment.file, experiment.name)) / REHEARSAL


def rehearsal_options(command: _F) -> _F:
    """Add `--rehearse` and `--object-info`. The command gets them as one argument `rehearsal`, None without."""

    @functools.wraps(command)
    def with_rehearsal(*args: Any, rehearse: bool, object_info: Path | None, **rest: Any) -> Any:
        if object_info is not None and not rehearse:
            raise UsageError("--object-info belongs to --rehearse; a real run gets the node classes from its targets")
        if rehearse and rest.get("dask") is not None:
            raise UsageError("--rehearse runs on this machine; drop --dask")
        return command(*args, rehearsal=Rehearsal(object_info) if rehearse else None, **rest)

    return _rehearse_option(_object_info_option(cast("_F", with_rehearsal)))


_rehearse_option = click.option(
    "--rehearse",
    is_flag=True,
    help="Run on sweeper's own server, into the folder rehearsal in the results folder. Checks the plan against the "
    "node classes of the target, and sends it nothing.",
)
_object_info_option = click.option(
    "--object-info",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="With --rehearse: the target's node classes, a saved response to GET /object_info. [default: those that "
    "sweeper fetched from the target in the last 24 hours]",
)


def _iter_missing_classes(experiment: Experiment) -> Iterator[Problem]:
    """A problem for each node whose class the embedded server lacks."""
    known = get_embedded_classes().classes
    command = shlex.join(["sweeper", "plan", str(experiment.file)])
    for node_id, node in experiment.template.graph.items():
        if node["class_type"] not in known:
            yield experiment.template.make_problem(
                (node_id, "class_type"),
                f"node {node_id}: a rehearsal runs on the embedded server, which has no class '{node['class_type']}'; "
                f"to check the workflow without running it: {command}",
            )


def _iter_classes(
    experiment: Experiment, targets: Sequence[Any] | None, object_info: Path | None
) -> Iterator[tuple[str, NodeInfo]]:
    """The name and the known classes of each real target. Warns of the others."""
    if object_info is not None:
        yield f"the server of {object_info.name}", load_classes(object_info)
        return
    named = {**load_named_targets(), **experiment.named_targets}
    specs = list(experiment.targets) if targets is None else targets
    for target in resolve_targets(specs, named=named, environ={}, with_keys=False):
        classes = get_cached_classes(target)
        if classes is not None:
            yield target.name, classes
            continue
        command = shlex.join(["sweeper", "plan", str(experiment.file), "--target", target.name])
        console.warn(
            f"not checked against {target.name}, whose node classes are unknown here; `{command}` fetches them, or "
            "give --object-info FILE"
        )


def build_real_command(experiment: Path, targets: Sequence[str], out: object, selection: Selection) -> str:
    """The command of the real run, with the options that say what it does and where."""
    given = [("--target", target) for target in targets] + [("--out", out), ("--where", selection.where)]
    given += [("--limit", selection.limit)]
    given += [("--set", setting) for setting in selection.format_values()]
    options = [word for option, value in given if value is not None for word in (option, str(value))]
    return shlex.join(["sweeper", "run", str(experiment), *options])
