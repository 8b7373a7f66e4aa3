"""`--rehearse` of `sweeper run` and `search`: the embedded server in place of the targets, in a folder of its own.

Sends nothing to the real targets and reads no key: their node classes come from the cache or from a file.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import click

from sweeper.cli import console
from sweeper.comfy.target import Target
from sweeper.editing.read_workflow import read_object_info
from sweeper.errors import ExperimentError, UsageError
from sweeper.model.experiment import Experiment, Search
from sweeper.model.node_classes import NodeInfo
from sweeper.model.selection import Selection
from sweeper.planning.plan import Plan
from sweeper.planning.searching.search_plan import plan_space
from sweeper.running.node_class_cache import get_cached_object_info
from sweeper.running.prepare import Prepared
from sweeper.running.settings import TrialFilter
from sweeper.schemas.values import is_integer
from sweeper.store import Store
from sweeper.store.containment import refuse_links
from sweeper.store.server_facts import BESIDES_NODES
from sweeper.tables.results_folder import REHEARSAL, default_results_folder
from sweeper.wording import join_command, join_names

_JOB_SECONDS: Final = 1.0  # that the nodes of a rehearsed job wait at most, if none comes from the cache
_FAST_SIDE: Final = 512  # pixels of a picture that is drawn fast
_FAST_PIXELS: Final = 20 * _FAST_SIDE**2  # of all pictures of a rehearsal that takes some seconds
_MAX_MEASURED: Final = 1_000  # trials
_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A rehearsal. `object_info`: a file with the node classes of the target; None: those in the cache."""

    object_info: Path | None

    def prepare(
        self,
        prepared: Prepared,
        out: Path | str | None,
        options: Mapping[str, Any],
        *,
        quiet: bool,
        make_plan: Callable[[Experiment], Plan] = Plan,
    ) -> tuple[Experiment, Path, dict[str, Any]]:
        """The experiment without a storage for its pictures, the folder of the rehearsal, and the options of its run.

        `prepared`, `out`, `options`: those of the real run. If `options["check"]`, checks
        the plan against the node classes of the targets, and warns of a target whose classes are unknown. Stand-ins run
        the classes that the embedded server lacks. If earlier runs recorded how long nodes take on the targets, nodes
        of the rehearsal take a share of that, which a line says unless `quiet`.

        Raises UsageError for an unusable option, and ExperimentError for what a target would refuse.
        """
        experiment = prepared.experiment
        if isinstance(out, str):
            raise UsageError(f"--out {out}: a rehearsal keeps its pictures on this machine; give a folder as --out")
        metrics = tuple(name for name in experiment.metrics if name not in experiment.judges)  # a judge may cost money
        local = replace(experiment, run=replace(experiment.run, out=None), metrics=metrics, judges={})
        expanded = make_plan(local)
        described = dict(_iter_object_infos(prepared, self.object_info, warn=options["check"]))
        keep_temp = local.run.keep_temp if options["keep_temp"] is None else options["keep_temp"]
        names = {node["class_type"] for node in experiment.template.graph.values()}
        problems = []
        for name, object_info in described.items() if options["check"] else ():
            fit = expanded.fit(NodeInfo.from_object_info(object_info, only=names))
            found = fit.problems or (() if keep_temp else fit.unsaved)
            problems += [replace(problem, message=f"{problem.message} (on {name})") for problem in found]
        if problems:
            raise ExperimentError(problems)
        real = out or default_results_folder(experiment.file, experiment.name)
        refuse_links(real / REHEARSAL)
        known = {class_type: declared for info in described.values() for class_type, declared in info.items()}
        # Known classes were checked here, and the embedded server then has more than its own.
        checked = {"check": False, "object_info": known} if described else {}
        seconds = _scale_node_seconds(prepared, real, quiet=quiet)
        if not quiet and (slow := _explain_slowness(expanded, options.get("where"), options.get("limit"))):
            console.print_status(slow)
        if not quiet and not _list_real_targets(prepared):
            console.print_status("the target is sweeper's own server already; to rehearse for another, add --target")
        given = {**options, "plan": expanded, "node_seconds": seconds, "notify": ""}
        return local, real / REHEARSAL, {**given, **checked}

    def prepare_search(
        self, prepared: Prepared, search: Search, out: Path | str | None, options: Mapping[str, Any], *, quiet: bool
    ) -> tuple[Experiment, Path, dict[str, Any]]:
        """Do for a search what `prepare` does for a run. No budget ends the rehearsal, because its jobs cost nothing.

        Checks all values of the space. Raises UsageError also if the search needs answers or costs, or has no end.
        """
        unknown = {*prepared.experiment.judges, "cost"}
        names = [objective.metric for objective in search.objectives if objective.metric in unknown]
        if names:
            raise UsageError(f"--rehearse asks no judge and costs nothing, so no trial would have {join_names(names)}")
        if search.trials is None and search.patience is None:
            raise UsageError("--rehearse costs nothing, so the budget would not end it; add --trials N")
        local, folder, settings = self.prepare(
            prepared, out, options, quiet=quiet, make_plan=lambda local: plan_space(local, search)
        )
        del settings["plan"]
        unpaid = replace(local, search=replace(search, budget=None), run=replace(local.run, budget=None))
        return unpaid, folder, {**settings, "budget": None}


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


def _iter_object_infos(
    prepared: Prepared, object_info: Path | None, *, warn: bool
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The name and the known node classes of each real target. Warns of the others."""
    if object_info is not None:
        yield f"the server of {object_info.name}", read_object_info(object_info)
        return
    experiment = prepared.experiment
    for target in _list_real_targets(prepared):
        classes = get_cached_object_info(target, list(experiment.template.graph.values()))
        if classes is not None:
            yield target.name, classes
        elif warn:
            verb = "plan" if experiment.blocks else "validate"
            command = join_command(["sweeper", verb, str(experiment.file), "--target", target.name])
            console.warn(
                f"not checked against {target.name}, whose node classes are unknown here; `{command}` fetches them, or "
                "give --object-info FILE"
            )


def _list_real_targets(prepared: Prepared) -> list[Target]:
    """The targets of the real run, without keys. The run itself checks against the embedded server."""
    return [target for target in prepared.resolve_targets() if not target.embedded]


def _explain_slowness(expanded: Plan, where: str | None, limit: int | None) -> str:
    """Say why a rehearsal with many pixels takes long, and how to look faster; empty if it has few."""
    sizes = []
    selected = filter(TrialFilter(where, expanded), expanded.written())
    for trial in itertools.islice(selected, _MAX_MEASURED if limit is None else min(limit, _MAX_MEASURED)):
        inputs = [node["inputs"] for node in expanded.workflow(trial).values()]
        pairs = [(each.get("width"), each.get("height")) for each in inputs]
        sizes.append(max(((w, h) for w, h in pairs if is_integer(w) and is_integer(h)), key=math.prod, default=(0, 0)))
    width, height = max(sizes, key=math.prod, default=(0, 0))
    if width * height <= _FAST_SIDE**2 or sum(map(math.prod, sizes)) <= _FAST_PIXELS:
        return ""
    leaves = expanded.experiment.template.leaves
    names = dict.fromkeys(leaf.slot for leaf in leaves if leaf.path[2:] in (("width",), ("height",)) and leaf.slot)
    options = " ".join(f"--set {name}={_FAST_SIDE}" for name in names)
    advice = f"; add {options} to look faster" if options else ""
    up_to = "up to " if len(set(sizes)) > 1 else ""
    return f"{len(sizes)} pictures of {up_to}{width} x {height} on this computer take a while{advice}"


def _scale_node_seconds(prepared: Prepared, results: Path, *, quiet: bool) -> dict[str, float]:
    """Seconds by class, in proportion to what nodes took on the targets; empty if `results` records none.

    All nodes of the workflow together take at most `_JOB_SECONDS`.
    """
    if not Store.exists(results):
        return {}
    names = [target.name for target in _list_real_targets(prepared)]
    with Store.open(results, readonly=True) as store:
        learnt = store.servers.mean_node_seconds(names)
    learnt.pop(BESIDES_NODES, None)
    job = sum(learnt.get(node["class_type"], 0.0) for node in prepared.experiment.template.graph.values())
    if job == 0:
        return {}
    share = min(1.0, _JOB_SECONDS / job)
    if not quiet:
        part = "the time" if share == 1 else f"1/{1 / share:.3g} of the time"
        console.print_status(f"Each node takes {part} that nodes of its class took on {' and '.join(names)}.")
    return {class_type: seconds * share for class_type, seconds in learnt.items()}


def build_run_command(
    experiment: Path,
    targets: Sequence[str] | None,
    out: object,
    selection: Selection,
    *,
    command: str = "run",
    trials: int | None = None,
) -> str:
    """The command of a run or search, with the options that say what it does and where."""
    given = [("--target", target) for target in targets or ()] + [("--out", out), ("--where", selection.where)]
    given += [("--limit", selection.limit), ("--trials", trials)]
    given += [("--set", setting) for setting in selection.format_values()]
    options = [word for option, value in given if value is not None for word in (option, str(value))]
    return join_command(["sweeper", command, str(experiment), *options])
