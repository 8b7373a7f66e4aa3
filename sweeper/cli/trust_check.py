"""Load an experiment with what the user allowed it, and ask before it gets more; see `sweeper.loading.trust`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from sweeper.answers.cells import sanitize
from sweeper.cli import console
from sweeper.errors import ExperimentError, Problem, TemplateError
from sweeper.loading.experiment_builder import PartialExperiment
from sweeper.loading.load import load_granted, load_partial, load_template
from sweeper.loading.read_scope import OutsideError, ReadScope, TrustNeed, make_scope
from sweeper.loading.targets_file import load_named_targets
from sweeper.loading.trust import add_grants, describe_missing_trust, find_trust_needs, load_grants
from sweeper.model.experiment import Experiment
from sweeper.model.result import Run
from sweeper.model.target_spec import NamedTargets
from sweeper.model.template import Template

if TYPE_CHECKING:
    from sweeper.running.prepare import Prepared
    from sweeper.running.session import Session

option = click.option(
    "--trust", is_flag=True, help="Trust the experiment for this command; see `sweeper trust --help`."
)


class Confinement(Protocol):
    """What limits a command that an assistant runs: its `AssistantConfinement`, which this room cannot import."""

    out: Path | None

    @property
    def scope(self) -> ReadScope: ...

    @property
    def session(self) -> type[Session]: ...

    def find_problems(
        self, experiment: Experiment, *, targets: Sequence[Any] | None, users: NamedTargets, out: object
    ) -> list[Problem]: ...

    def allow_run(self, prepared: Prepared) -> Prepared: ...


def find_confinement() -> Confinement | None:
    """The confinement of the command that is running; None for the user's own commands."""
    context = click.get_current_context(silent=True)
    confinement: Confinement | None = None if context is None else context.find_root().obj
    return confinement


def choose_output(out: Path | str | None) -> Path | str | None:
    """The results folder of a run after `load_for_run`: that of the confinement, or else `out`."""
    confinement = find_confinement()
    return out if confinement is None else confinement.out


def load_trusted(
    file: Path,
    users: NamedTargets,
    *,
    trust: bool,
    targets: Sequence[Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    out: object = None,
    checks_names: bool = True,
) -> tuple[PartialExperiment, list[Problem]]:
    """Load an experiment; returns it with what it needs trust for and is not trusted with.

    Opens a file outside of the project only after the user has allowed that. On a terminal, asks whether to allow what
    is missing from now on. `trust` is the flag --trust; `targets`, `overrides` and `out` are the user's own choice,
    which needs no trust. `users` are the user's targets. With `checks_names`, an unknown name of a target is a problem.
    The first problem says how to trust. Raises ExperimentError as `load_partial` does.
    """
    confinement = find_confinement()
    if confinement is not None:
        named = users if targets is None and checks_names else None
        partial = load_partial(file, overrides=overrides, named=named, scope=confinement.scope)
        refused = confinement.find_problems(partial.experiment, targets=targets, users=users, out=out)
        return partial, [*(need.problem for need in partial.needs), *refused]
    given: dict[str, Any] = {"trust": trust, "targets": targets, "overrides": overrides, "out": out}
    while True:
        partial, needs, is_known = load_granted(file, users, **given, checks_names=checks_names)
        # What is allowed can name more files, which the next round asks about.
        if not needs or not _ask(file, needs):
            return partial, describe_missing_trust(file, needs, is_known=is_known)


def load_named_template(file: Path) -> Template:
    """Load a template that the user named. Raises TemplateError, also if it or its slots are a link elsewhere."""
    confinement = find_confinement()
    try:
        if confinement is not None:
            return load_template(file, confinement.scope)
        return load_template(file, make_scope(file, load_grants().get(file.parent.resolve(), ()), {}))
    except OutsideError as error:
        raise TemplateError(Problem(str(file), 0, "", f"{error}; copy that file into the project")) from None


def require_trust(experiment: Experiment, *, trust: bool, targets: Sequence[Any] | None = None) -> None:
    """Return if a loaded experiment needs no trust, or has it. Raises ExperimentError with what is missing.

    The arguments are those of `load_trusted`.
    """
    confinement, users = find_confinement(), load_named_targets()
    if confinement is not None:
        if problems := confinement.find_problems(experiment, targets=targets, users=users, out=None):
            raise ExperimentError(problems)
        return
    known = load_grants().get(experiment.file.parent.resolve(), frozenset())
    needs = [] if trust else find_trust_needs(experiment, known, targets=targets, named=users)
    if needs and not _ask(experiment.file, needs):
        raise ExperimentError(describe_missing_trust(experiment.file, needs, is_known=bool(known)))


def require_trust_before(
    runner: Callable[..., Run], *, trust: bool, targets: Sequence[Any] | None
) -> Callable[..., Run]:
    """The same runner, but it raises ExperimentError as `require_trust` does before it runs an experiment."""

    def run(experiment: Experiment, *arguments: Any, **run_options: Any) -> Run:
        require_trust(experiment, trust=trust, targets=targets)
        return runner(experiment, *arguments, **run_options)

    return run


def _ask(file: Path, needs: Sequence[TrustNeed]) -> bool:
    """On a terminal, ask whether to allow something from now on, and remember a yes."""
    if not (console.is_terminal(sys.stdin) and console.is_terminal(sys.stdout)):
        return False
    for need in needs:
        console.warn(f"needs trust: {need.problem}")
        for grant in need.grants if len(need.grants) > 1 else ():
            console.warn(f"  {grant}")
    folder = file.parent.resolve()
    if not click.confirm(f"Allow this to the experiments in {sanitize(str(folder))} from now on?", err=True):
        return False
    add_grants(folder, [grant for need in needs for grant in need.grants])
    return True
