"""Parse an experiment's `checks`: the thresholds that the measures must meet, and overrides for some cases.

The JSON schema has validated the names of measures and the form of thresholds, and `sweeper.loading` the conditions.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from sweeper.errors import ExperimentError, Problem, UsageError
from sweeper.images.compare import ALL_METRICS
from sweeper.images.media import SOUND_METRICS, TEXT_METRICS
from sweeper.images.neural import MODELS, find_model
from sweeper.model.experiment import Experiment
from sweeper.planning.grid import list_axis_columns
from sweeper.regression.cases import Condition

OVERRIDES: Final = "overrides"
MEASURE_NAMES: Final = (*ALL_METRICS, *SOUND_METRICS, *TEXT_METRICS)
_THRESHOLD: Final = re.compile(r"(>=|<=|>|<|==) *(-?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)")
_OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "==": operator.eq,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Threshold:
    """A condition on the value of a measure, such as `>= 0.95`."""

    sign: str
    number: float

    def is_met_by(self, value: float) -> bool:
        return _OPERATORS[self.sign](value, self.number)

    def __str__(self) -> str:
        return f"{self.sign} {self.number:.6g}"


Thresholds: TypeAlias = Mapping[str, Threshold]  # by measure


def parse_threshold(text: str) -> Threshold:
    """Parse a threshold as an experiment has it. Raises UsageError for anything else."""
    match = _THRESHOLD.fullmatch(text.strip())
    if match is None:
        raise UsageError(f'{text!r} is not a threshold; write one of >= <= > < == and a number, such as ">= 0.95"')
    return Threshold(match[1], float(match[2]))


@dataclass(frozen=True, slots=True)
class Checks:
    """The thresholds of every case, and overrides for the trials for which a condition is true.

    If several conditions are true, the last one wins. Without any threshold the pixels must be identical.
    """

    thresholds: Thresholds
    overrides: tuple[tuple[Condition, Thresholds], ...] = ()

    def thresholds_for(self, params: Mapping[str, Any], cells: Mapping[str, Any]) -> dict[str, Threshold]:
        """The thresholds for a trial. Raises UsageError if a condition cannot be computed for it."""
        merged = dict(self.thresholds)
        for condition, thresholds in self.overrides:
            if condition(params, cells):
                merged |= thresholds
        return merged


NO_CHECKS: Final = Checks({})


def parse_checks(experiment: Experiment) -> Checks:
    """Parse the experiment's `checks`. Raises what `check_models` raises."""
    check_models(experiment)
    names = (*experiment.template.slots, *list_axis_columns(experiment))
    overrides = [
        (Condition(entry["where"], names), _parse_thresholds(entry)) for entry in experiment.checks.get(OVERRIDES, ())
    ]
    return Checks(_parse_thresholds(experiment.checks), tuple(overrides))


def check_models(experiment: Experiment) -> None:
    """Raise ExperimentError for each measure in `checks` whose model cannot be used on this machine."""
    problems: list[Problem] = []
    entries = [
        ((), experiment.checks),
        *(((OVERRIDES, index), entry) for index, entry in enumerate(experiment.checks.get(OVERRIDES, ()))),
    ]
    for path, entry in entries:
        for name in MODELS.keys() & entry.keys():
            try:
                find_model(name)
            except UsageError as error:
                problems += [_make_problem(experiment, (*path, name), problem.message) for problem in error.problems]
    if problems:
        raise ExperimentError(problems)


def _parse_thresholds(entry: Mapping[str, Any]) -> dict[str, Threshold]:
    return {name: parse_threshold(text) for name, text in entry.items() if name not in (OVERRIDES, "where")}


def _make_problem(experiment: Experiment, path: tuple[str | int, ...], message: str) -> Problem:
    where = ("checks", *path)
    if experiment.source is not None:
        return experiment.source.make_problem(where, message)
    return Problem(str(experiment.file), 0, ".".join(map(str, where)), message)


def find_violations(thresholds: Thresholds, metrics: Mapping[str, float]) -> dict[str, Threshold]:
    """The thresholds that these metrics do not meet."""
    return {name: threshold for name, threshold in thresholds.items() if not threshold.is_met_by(metrics[name])}
