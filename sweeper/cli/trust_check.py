"""Ask for trust before a command does what an experiment may do only with it; see `sweeper.loading.trust`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from sweeper.cli import console
from sweeper.cli.targets_file import load_named_targets
from sweeper.cli.trusted_folders import add_trusted_folder, load_trusted_folders
from sweeper.errors import ExperimentError, Problem
from sweeper.loading.trust import find_project, find_trust_needs
from sweeper.model.experiment import Experiment
from sweeper.model.result import Run
from sweeper.model.shell_words import join_command
from sweeper.model.target_spec import NamedTargets

option = click.option(
    "--trust", is_flag=True, help="Trust the experiment for this command; see `sweeper trust --help`."
)


def require_trust(
    experiment: Experiment,
    *,
    trust: bool,
    targets: Sequence[Any] | None = None,
    named: NamedTargets | None = None,
    out: object = None,
) -> None:
    """Return if the experiment needs no trust, or has it. Raises ExperimentError as `find_missing_trust` describes."""
    problems = find_missing_trust(experiment, trust=trust, targets=targets, named=named, out=out)
    if problems:
        raise ExperimentError(problems)


def require_trust_before(
    runner: Callable[..., Run], *, trust: bool, targets: Sequence[Any] | None
) -> Callable[..., Run]:
    """The same runner, but it raises ExperimentError as `require_trust` does before it runs an experiment."""

    def run(experiment: Experiment, *arguments: Any, **run_options: Any) -> Run:
        require_trust(experiment, trust=trust, targets=targets)
        return runner(experiment, *arguments, **run_options)

    return run


def find_missing_trust(
    experiment: Experiment,
    *,
    trust: bool,
    targets: Sequence[Any] | None = None,
    named: NamedTargets | None = None,
    out: object = None,
) -> list[Problem]:
    """What the experiment needs trust for and is not trusted with; the first problem says how to trust it.

    On a terminal, asks whether to trust the project from now on. `trust` is the flag --trust; `targets` and `out` are
    the user's own choice, which needs no trust. `named` are the user's targets; None: those of the targets file.
    """
    if trust:
        return []
    users = load_named_targets() if named is None else named
    needs = find_trust_needs(experiment, targets=targets, named=users, out=out)
    project = find_project(experiment.file)
    if not needs or project.is_trusted(load_trusted_folders()):
        return []
    folder = project.suggested_folder
    if console.is_terminal(sys.stdin) and console.is_terminal(sys.stdout):
        for need in needs:
            console.warn(f"needs trust: {need}")
        if click.confirm(f"Trust {console.sanitize(str(folder))} from now on?", err=True):
            add_trusted_folder(folder)
            return []
    source = experiment.source
    name = source.name if source is not None else str(experiment.file)
    advice = (
        f"is not trusted to do what the next lines say. If you trust its author: `"
        f"{join_command(['sweeper', 'trust', str(folder)])}`, or add --trust to this command"
    )
    return [Problem(name, 0, "", advice), *needs]
