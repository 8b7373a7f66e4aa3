"""`checks` of an experiment: which measure a case must reach, and where other thresholds hold.

The shape is the schema's; here the bounds become values, and what a schema cannot know is checked: whether there is
such a measure, and whether the names of a `where` exist.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sweeper.did_you_mean import hint
from sweeper.errors import ExperimentError, Problem, UsageError
from sweeper.images.compare import ALL_METRICS
from sweeper.images.neural import MODELS, model_of
from sweeper.images.sound_and_text import SOUND_METRICS, TEXT_METRICS
from sweeper.planning.grid import axis_columns
from sweeper.regression.cases import Condition

if TYPE_CHECKING:
    from sweeper.model.experiment import Experiment

OVERRIDES: Final = "overrides"
MEASURES: Final = (*ALL_METRICS, *SOUND_METRICS, *TEXT_METRICS)
_BOUND: Final = re.compile(r"(>=|<=|>|<|==) *(-?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)")
_TESTS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "==": operator.eq,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bound:
    """`>= 0.95`."""

    sign: str
    number: float

    def holds(self, value: float) -> bool:
        return _TESTS[self.sign](value, self.number)

    def __str__(self) -> str:
        return f"{self.sign} {self.number:.6g}"


def parse_bound(text: str) -> Bound:
    """A bound as the experiment writes it. Raises UsageError for anything else."""
    found = _BOUND.fullmatch(text.strip())
    if found is None:
        raise UsageError(f'{text!r} is no bound; write one of >= <= > < == and a number, such as ">= 0.95"')
    return Bound(found[1], float(found[2]))


@dataclass(frozen=True, slots=True)
class Checks:
    """The bounds of every case, and those that replace them where a condition holds; the last that holds wins.

    Without any bound a case is held to identical pixels.
    """

    bounds: Mapping[str, Bound]
    overrides: tuple[tuple[Condition, Mapping[str, Bound]], ...] = ()

    def for_trial(self, params: Mapping[str, Any], cells: Mapping[str, Any]) -> dict[str, Bound]:
        """The bounds that hold for a trial. Raises UsageError when a condition cannot be computed for it."""
        found = dict(self.bounds)
        for condition, bounds in self.overrides:
            if condition(params, cells):
                found |= bounds
        return found


NO_CHECKS: Final = Checks({})


def checks_of(experiment: Experiment) -> Checks:
    """The experiment's `checks`. Raises ExperimentError with every mistake: an unknown measure, a bad bound or name."""
    problems: list[Problem] = []
    names = (*experiment.template.slots, *axis_columns(experiment))
    bounds = _bounds(experiment, experiment.checks, (), problems)
    overrides = []
    for place, entry in enumerate(experiment.checks.get(OVERRIDES, ())):
        path = (OVERRIDES, place)
        there = _bounds(experiment, entry, path, problems)
        try:
            overrides.append((Condition(entry["where"], names, "where"), there))
        except UsageError as error:
            problems += [_problem(experiment, (*path, "where"), problem.message) for problem in error.problems]
    if problems:
        raise ExperimentError(problems)
    return Checks(bounds, tuple(overrides))


def _bounds(
    experiment: Experiment, entry: Mapping[str, Any], path: tuple[str | int, ...], problems: list[Problem]
) -> dict[str, Bound]:
    found: dict[str, Bound] = {}
    for name, text in entry.items():
        if name in (OVERRIDES, "where"):
            continue
        if name not in MEASURES:
            message = f"there is no measure '{name}'{hint(name, MEASURES, 'measures')}"
            problems.append(_problem(experiment, (*path, name), message))
            continue
        try:
            if name in MODELS:
                model_of(name)  # before anything is run
            found[name] = parse_bound(str(text))
        except UsageError as error:
            problems += [_problem(experiment, (*path, name), problem.message) for problem in error.problems]
    return found


def _problem(experiment: Experiment, path: tuple[str | int, ...], message: str) -> Problem:
    where = ("checks", *path)
    if experiment.source is not None:
        return experiment.source.problem(where, message)
    return Problem(str(experiment.file), 0, ".".join(map(str, where)), message)


def broken(bounds: Mapping[str, Bound], metrics: Mapping[str, float]) -> dict[str, Bound]:
    """The bounds that these measures do not keep."""
    return {name: bound for name, bound in bounds.items() if not bound.holds(metrics[name])}
