"""A plan held against the node classes of a server: each value once, what no slot decides once.

`sweeper.model.node_classes.template_check` says why that is the same as checking every workflow. Here its pieces meet
the grids' values, and each finding gets the line where the value was written.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from sweeper.errors import Problem
from sweeper.model.experiment import Block, Experiment
from sweeper.model.expressions import ExpressionError
from sweeper.model.node_classes import NodeInfo, SlotInputCheck, TemplateCheck, check_template
from sweeper.model.source import Source
from sweeper.model.template import MISSING, Template
from sweeper.model.trial import Trial
from sweeper.planning.columns import merge_dimensions
from sweeper.planning.grid import Grid
from sweeper.schemas.values import KeyPath

_MAX_COMBINATIONS: Final = 100_000  # of the values of one input; more than that only a text of several axes has
_MAX_RENDERED: Final = 1_000  # trials checked whole where values are links themselves


@dataclass(frozen=True, slots=True)
class Compatibility:
    """How a plan fits a server: `problems` would be refused, fail or show nothing; `notes` are odd but run, and so are
    the `unsaved`, whose results are kept only where previews are.
    """

    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]
    unsaved: tuple[Problem, ...] = ()


def check_compatibility(
    template: Template, grids: Iterable[Grid], trials: Iterable[Trial], info: NodeInfo
) -> Compatibility:
    """Check every value of a plan against the classes of a server. `trials` are asked for only if values are links."""
    check = check_template(template, info)
    problems = [template.make_problem(path, message) for path, message in (*check.fixed_problems, *check.ignored)]
    rewired = False
    for grid in grids:
        for piece in check.input_checks:
            for problem in _iter_input_problems(grid, piece):
                rewired = rewired or problem is None
                problems += [problem] if problem is not None else []
    if rewired:
        problems += _iter_rendered_problems(check, itertools.islice(trials, _MAX_RENDERED))
    notes = [template.make_problem(path, message) for path, message in check.notes]
    unsaved = tuple(template.make_problem(path, message) for path, message in check.unsaved)
    return Compatibility(tuple(dict.fromkeys(problems)), tuple(dict.fromkeys(notes)), unsaved)


def check_written_values(experiment: Experiment, info: NodeInfo) -> tuple[Problem, ...]:
    """What a server would refuse of an experiment of which no plan can be made: what no slot decides, and each value
    where it is written, for the inputs that one slot decides.
    """
    template = experiment.template
    check = check_template(template, info)
    problems = [template.make_problem(path, message) for path, message in (*check.fixed_problems, *check.ignored)]
    for piece in check.input_checks:
        for where, value in _iter_written(experiment, piece.slots[0]) if len(piece.slots) == 1 else ():
            with suppress(ExpressionError):  # as above
                verdict = piece.check_values({piece.slots[0]: value})
                problems += [replace(where, message=message) for _, message in verdict.problems]
    return tuple(dict.fromkeys(problems))


def _iter_written(experiment: Experiment, slot: str) -> Iterator[tuple[Problem, Any]]:
    """Every value that a slot is given as it stands, and where, as a Problem without its message."""
    source = experiment.source
    assert source is not None  # an experiment with mistakes was read from a file
    found: list[tuple[KeyPath, Any]] = (
        [(("params", slot), experiment.params[slot])] if slot in experiment.params else []
    )
    found += [one for block in experiment.blocks for one in _iter_swept(block, slot, source)]
    yield from ((source.make_problem(path, ""), value) for path, value in found)
    default = experiment.template.slots[slot].default
    if not found and slot not in experiment.derive and default is not MISSING:
        yield experiment.template.locate_default(slot), default


def _iter_swept(block: Block, slot: str, source: Source) -> Iterator[tuple[KeyPath, Any]]:
    """The values that a block gives a slot, and where it does."""
    for axis in (axis for dimension in block.dimensions for axis in dimension):
        for place, option in enumerate(axis.options):
            if slot in option.sets:
                yield (*axis.locate_option(source, place), "set", slot), option.sets[slot]
            elif slot == axis.name and option.value is not MISSING:
                yield axis.locate_option(source, place), option.value
    for place, row in enumerate(block.include):
        value = row.options[slot].value if slot in row.options else row.values.get(slot, MISSING)
        if value is not MISSING:
            yield (*block.path, "include", place, slot), value


def _iter_input_problems(grid: Grid, input_check: SlotInputCheck) -> Iterator[Problem | None]:
    """The problems of one input over all its values; None where a value is a link, which only the whole graph tells."""
    columns = {name: grid.slots[name] for name in input_check.slots}
    dimensions = merge_dimensions(columns.values())
    at = [0] * len(grid.sizes)
    seen: set[str] = set()
    points = itertools.product(*(range(grid.sizes[place]) for place in dimensions))
    for point in itertools.islice(points, _MAX_COMBINATIONS):
        for place, value in zip(dimensions, point, strict=True):
            at[place] = value
        try:
            verdict = input_check.check_values({name: column.get(at) for name, column in columns.items()})
        except ExpressionError:
            continue  # the plan's own compilation tells that, with its values
        if verdict.changes_links:
            yield None
        for _, message in verdict.problems:
            where = grid.locate_value(input_check.slots[0], at)
            if (known := f"{where}{message}") not in seen:
                seen.add(known)
                yield replace(where, message=message)


def _iter_rendered_problems(check: TemplateCheck, trials: Iterable[Trial]) -> Iterator[Any]:
    for trial in trials:
        for path, message in check.check_rendered(trial.params):
            yield check.template.make_problem(path, f"trial {trial.index}: {message}")
