"""The answer of `sweeper validate` about one file. It is here because an experiment may need trust."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sweeper.answers.parts import Fail, Line, Part, Warn
from sweeper.answers.render import IF_GIVEN
from sweeper.cli import trust_check
from sweeper.cli.load_prepared import load_prepared
from sweeper.cli.options import get_workflow_path
from sweeper.errors import InputError, Problem, summarise_problems
from sweeper.planning.searching.search_plan import is_space
from sweeper.wording import count_things, join_names


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
    from sweeper.regression.thresholds import check_models

    workflow = get_workflow_path(file)
    kind = "template" if workflow.suffix.lower() == ".json" else "experiment"
    try:
        if kind == "template":
            trust_check.load_named_template(workflow)
            return FileReport(str(file), kind, valid=True)
        checked = load_prepared(
            file, targets, object_info=object_info, extra_check=check_models, trust=trust, needs_sweep=False
        )
    except InputError as error:
        return FileReport(str(file), kind, valid=False, problems=summarise_problems(error.problems))
    trials, search = None if is_space(checked.plan) else len(checked.plan), checked.experiment.search
    searched = None if search is None else [axis.name for axis in search.space]
    return FileReport(str(file), kind, True, trials, search=searched, notes=checked.notes or None)
