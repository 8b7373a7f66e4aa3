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

from sweeper.did_you_mean import suggest
from sweeper.errors import ExperimentError, Problem, UsageError
from sweeper.images.compare import ALL_METRICS
from sweeper.images.neural import MODELS, find_model
from sweeper.images.sound_and_text import SOUND_METRICS, TEXT_METRICS
from sweeper.planning.grid import list_axis_columns
from sweeper.regression.cases import Condition

if TYPE_CHECKING:
    from sweeper.model.experiment import Experiment

OVERRIDES: Final = "overrides"
MEASURE_NAMES: Final = (*ALL_METRICS, *SOUND_METRICS, *TEXT_METRICS)
_THRESHOLD: Final = re.compile(r"(>=|<=|>|<|==) *(-?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)")
_OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "==": operator.eq,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Threshold:
    """`>= 0.95`."""

    sign: str
    number: float

    def is_met_by(self, value: float) -> bool:
        return _OPERATORS[self.sign](value, self.number)

    def __str__(self) -> str:
        return f"{self.sign} {self.number:.6g}"


def parse_threshold(text: str) -> Threshold:
    """A bound as the experiment writes it. Raises UsageError for anything else."""
    found = _THRESHOLD.fullmatch(text.strip())
    if found is None:
        raise UsageError(f'{text!r} is no bound; write one of >= <= > < == and a number, such as ">= 0.95"')
    return Threshold(found[1], float(found[2]))


@dataclass(frozen=True, slots=True)
class Checks:
    """The bounds of every case, and those that replace them where a condition holds; the last that holds wins.

    Without any bound a case is held to identical pixels.
    """

    thresholds: Mapping[str, Threshold]
    overrides: tuple[tuple[Condition, Mapping[str, Threshold]], ...] = ()

    def thresholds_for(self, params: Mapping[str, Any], cells: Mapping[str, Any]) -> dict[str, Threshold]:
        """The bounds that hold for a trial. Raises UsageError when a condition cannot be computed for it."""
        found = dict(self.thresholds)
        for condition, bounds in self.overrides:
            if condition(params, cells):
                found |= bounds
        return found


NO_CHECKS: Final = Checks({})


def parse_checks(experiment: Experiment) -> Checks:
    """The experiment's `checks`. Raises ExperimentError with every mistake: an unknown measure, a bad bound or name."""
    problems: list[Problem] = []
    names = (*experiment.template.slots, *list_axis_columns(experiment))
    bounds = _parse_thresholds(experiment, experiment.checks, (), problems)
    overrides = []
    for place, entry in enumerate(experiment.checks.get(OVERRIDES, ())):
        path = (OVERRIDES, place)
        there = _parse_thresholds(experiment, entry, path, problems)
        try:
            overrides.append((Condition(entry["where"], names, "where"), there))
        except UsageError as error:
            problems += [_make_problem(experiment, (*path, "where"), problem.message) for problem in error.problems]
    if problems:
        raise ExperimentError(problems)
    return Checks(bounds, tuple(overrides))


def _parse_thresholds(
    experiment: Experiment, entry: Mapping[str, Any], path: tuple[str | int, ...], problems: list[Problem]
) -> dict[str, Threshold]:
    found: dict[str, Threshold] = {}
    for name, text in entry.items():
        if name in (OVERRIDES, "where"):
            continue
        if name not in MEASURE_NAMES:
            message = f"there is no measure '{name}'{suggest(name, MEASURE_NAMES, 'measures')}"
            problems.append(_make_problem(experiment, (*path, name), message))
            continue
        try:
            if name in MODELS:
                find_model(name)  # before anything is run
            found[name] = parse_threshold(str(text))
        except UsageError as error:
            problems += [_make_problem(experiment, (*path, name), problem.message) for problem in error.problems]
    return found


def _make_problem(experiment: Experiment, path: tuple[str | int, ...], message: str) -> Problem:
    where = ("checks", *path)
    if experiment.source is not None:
        return experiment.source.make_problem(where, message)
    return Problem(str(experiment.file), 0, ".".join(map(str, where)), message)


def find_violations(thresholds: Mapping[str, Threshold], metrics: Mapping[str, float]) -> dict[str, Threshold]:
    """The bounds that these measures do not keep."""
    return {name: bound for name, bound in thresholds.items() if not bound.is_met_by(metrics[name])}
