"""Load and prepare the experiment that a command names, with the trust that it has; see `sweeper.running.prepare`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweeper.answers.parts import Fail, Line, Part, Warn
from sweeper.answers.render import IF_GIVEN
from sweeper.cli import console
from sweeper.cli.options import get_workflow_path
from sweeper.cli.trust_check import find_confinement, load_named_template, load_trusted
from sweeper.editing.read_workflow import read_object_info
from sweeper.errors import ExperimentError, InputError, Problem, summarise_problems
from sweeper.loading.targets_file import load_named_targets
from sweeper.model.experiment import Experiment
from sweeper.model.model_facts import ModelFacts
from sweeper.model.node_classes import NodeInfo
from sweeper.model.target_spec import EMBEDDED, NamedTargets
from sweeper.planning.plan import Plan
from sweeper.planning.searching.search_plan import is_space
from sweeper.running.prepare import Prepared, complete_models, list_planners, prepare
from sweeper.running.run_events import Event
from sweeper.wording import count_things, join_names


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
    users, classes = load_named_targets(), None
    if object_info is not None:
        classes = f"the server of {object_info.name}", NodeInfo.from_object_info(read_object_info(object_info))
    partial, missing_trust = load_trusted(file, users, trust=trust, targets=targets, overrides=overrides, out=out)
    return prepare(
        partial,
        missing_trust,
        specs=targets,
        users=users,
        object_info=classes,
        extra_check=extra_check,
        keep_temp=keep_temp,
        needs_sweep=needs_sweep,
        asks_targets=not missing_trust,
        out=out,
    )


def load_plans(
    file: Path, targets: Sequence[Any] | None, users: NamedTargets, *, trust: bool, checks_names: bool = True
) -> tuple[Experiment, list[Plan]]:
    """The experiment with its plans, for a command that looks at its targets. Raises ExperimentError."""
    partial, missing_trust = load_trusted(file, users, trust=trust, targets=targets, checks_names=checks_names)
    if not missing_trust:
        partial, _ = complete_models(partial, targets, users, may_send_keys=True)
    if partial.problems or missing_trust:
        raise ExperimentError([*partial.problems, *missing_trust])
    return partial.experiment, [make_plan() for make_plan in list_planners(partial.experiment, needs_sweep=False)]


def load_for_run(
    file: Path,
    targets: Sequence[Any] | None,
    overrides: Mapping[str, Any] | None = None,
    *,
    trust: bool,
    out: object = None,
    rehearses: bool = False,
    counts: Callable[[str, str, ModelFacts], bool] = lambda *_: True,
    report: Callable[[Event], None] | None = None,
) -> Prepared:
    """The experiment for a run, which makes the plan and checks it. Raises ExperimentError with every mistake.

    `rehearses`: it runs on the embedded server, and the `targets` are not asked. `counts` and `report` are those of
    `complete_models`.
    """
    users = load_named_targets()
    used = [EMBEDDED] if rehearses else targets
    partial, missing_trust = load_trusted(file, users, trust=trust, targets=used, overrides=overrides, out=out)
    if not missing_trust:
        asks = not rehearses
        partial, notes = complete_models(
            partial, targets, users, asks=asks, may_send_keys=asks, out=out, counts=counts,
            report=report if asks else None,
        )  # fmt: skip
        for note in notes:
            console.warn(note)
    if partial.problems:  # raises with these and more
        prepare(partial, missing_trust, specs=used, users=users, asks_targets=not missing_trust)
    if missing_trust:
        raise ExperimentError(missing_trust)
    prepared = Prepared(partial.experiment, used, users)
    confinement = find_confinement()
    return prepared if confinement is None else confinement.allow_run(prepared)


@dataclass(frozen=True, slots=True)
class FileReport:
    """What is wrong with a file.

    `kind`: `experiment` or `template`. `trials`: of the sweep; None without one. `search`: the axes of the search, left
    out without one. `notes`: what is unusual but runs; left out if there is nothing.
    """

    file: str
    kind: str
    valid: bool
    trials: int | None = None
    problems: tuple[Problem, ...] = ()
    search: list[str] | None = field(default=None, metadata=IF_GIVEN)
    notes: tuple[str, ...] | None = field(default=None, metadata=IF_GIVEN)

    def parts(self) -> Iterator[Part]:
        """The mistakes, or that there are none, and what the file has."""
        yield from (Fail(line) for problem in self.problems for line in str(problem).splitlines())
        if self.valid:
            contents = [] if self.trials is None else [count_things(self.trials, "trial")]
            contents += [f"a search of {join_names(self.search)}"] if self.search else []
            yield Line(f"{self.file}: {self.kind} is valid" + (f", {' and '.join(contents)}" if contents else ""))
        yield from map(Warn, self.notes or ())


def check_file(file: Path, targets: list[str] | None, object_info: Path | None, *, trust: bool) -> FileReport:
    """Check an experiment or a template, against the targets or the node classes of a file if they are given."""
    from sweeper.regression.match_files import check_models

    workflow = get_workflow_path(file)
    kind = "template" if workflow.suffix.lower() == ".json" else "experiment"
    try:
        if kind == "template":
            load_named_template(workflow)
            return FileReport(str(file), kind, valid=True)
        checked = load_prepared(
            file, targets, object_info=object_info, extra_check=check_models, trust=trust, needs_sweep=False
        )
    except InputError as error:
        return FileReport(str(file), kind, valid=False, problems=summarise_problems(error.problems))
    trials, search = None if is_space(checked.plan) else len(checked.plan), checked.experiment.search
    searched = None if search is None else [axis.name for axis in search.space]
    return FileReport(str(file), kind, True, trials, search=searched, notes=checked.notes or None)
