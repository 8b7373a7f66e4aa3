"""Check a plan against the node classes of a server: each value once, and the fixed parts of the workflow once.

`sweeper.model.node_classes.template_check` explains why this finds the same as a check of every workflow. This module
runs its checks on the values of the grids and adds to each problem where the value was written.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from sweeper.errors import Problem
from sweeper.model.experiment import Block, Experiment
from sweeper.model.expressions import ExpressionError
from sweeper.model.node_classes import NodeInfo, SlotInputCheck, TemplateCheck, check_template
from sweeper.model.node_classes.graph_check import GraphProblem
from sweeper.model.source import Source
from sweeper.model.template import MISSING, Address, Template
from sweeper.model.trial import Trial
from sweeper.planning.grid import Grid, merge_dimensions
from sweeper.schemas.values import KeyPath, format_value
from sweeper.wording import join_names

_MAX_COMBINATIONS: Final = 100_000  # of the values of one input; only a text of several axes can have more
_MIN_WORDS: Final = 2  # of a text that is a prompt, and not a choice
_MAX_RENDERED: Final = 1_000  # trials that are checked as a whole if values are links


@dataclass(frozen=True, slots=True)
class Compatibility:
    """How a plan fits a server.

    `problems`: what the server would refuse, what would fail there, and what would have no effect. `notes`: what is odd
    but runs. `unsaved`: the outputs of a workflow that saves no file. `run` refuses such a workflow, because results
    that are only shown are kept only with `--keep-temp`.
    """

    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]
    unsaved: tuple[Problem, ...] = ()


def check_compatibility(
    template: Template, grids: Iterable[Grid], trials: Iterable[Trial], info: NodeInfo
) -> Compatibility:
    """Check every value of a plan against the classes of a server. `trials` are used only if values are links."""
    grids = list(grids)
    check = check_template(_without_unchosen_inputs(template, grids), info)
    swept = {name for grid in grids for name, column in grid.slots.items() if column.dimensions}
    problems = [template.make_problem(path, message) for path, message in _list_fixed_problems(check, swept)]
    has_changed_links = False
    for grid in grids:
        for input_check in check.input_checks:
            for problem in _iter_input_problems(grid, input_check):
                has_changed_links = has_changed_links or problem is None
                problems += [problem] if problem is not None else []
    if has_changed_links:
        for trial in itertools.islice(trials, _MAX_RENDERED):
            rendered = check.check_rendered(trial.params)
            problems += [template.make_problem(path, f"trial {trial.index}: {message}") for path, message in rendered]
    notes = [template.make_problem(path, message) for path, message in (*check.ignored, *check.notes)]
    notes = [note for note in notes if note not in problems]
    notes += [template.make_problem(path, message) for path, message in _find_equal_texts(template, grids)]
    unsaved = tuple(template.make_problem(path, message) for path, message in check.unsaved)
    problems = [_add_model_source(problem, template) for problem in problems]
    return Compatibility(tuple(dict.fromkeys(problems)), tuple(dict.fromkeys(notes)), unsaved)


def _find_equal_texts(template: Template, grids: Collection[Grid]) -> Iterator[GraphProblem]:
    """Yield a note for each swept text that another input of the workflow has too and keeps."""
    columns = [(name, column) for grid in grids for name, column in grid.slots.items()]
    swept = {name for name, column in columns if column.dimensions}
    changed = {name for name, column in columns if name in swept or column.get(()) != template.slots[name].default}
    written = {address for name in changed for address in template.slots[name].addresses}
    for name in sorted(swept):
        slot = template.slots[name]
        if slot.is_file or not isinstance(slot.default, str) or len(slot.default.split()) < _MIN_WORDS:
            continue
        kept = [
            address
            for node_id, node in template.graph.items()
            for key, value in node["inputs"].items()
            if value == slot.default and (address := Address(node_id, key)) not in written
        ]
        if kept:
            advice = f"give the slot `at: [{', '.join(map(str, (*slot.addresses, *kept)))}]`"
            message = f"'{name}' is swept, but {join_names(kept)} has the same text and keeps it; if both must change, "
            yield (kept[0].node, "inputs", kept[0].input), message + advice


def _without_unchosen_inputs(template: Template, grids: Collection[Grid]) -> Template:
    """Return the template without the inputs of branches that no trial chooses. Its workflows stay the same.

    A node that only such an input links to does not run, so a server does not check it.
    """
    unchosen = {
        (node_id, child)
        for node_id, branches in template.branches.items()
        for combo, options in branches.items()
        for child in _list_unchosen(options, [*iter_options(template, grids, (node_id, "inputs", combo))])
    }
    if not unchosen:
        return template

    def is_unchosen(node_id: str, name: str) -> bool:
        return any(node_id == node and f"{name}.".startswith(f"{child}.") for node, child in unchosen)

    graph = {
        node_id: {**node, "inputs": {name: node["inputs"][name] for name in node["inputs"]
                                     if not is_unchosen(node_id, name)}}
        for node_id, node in template.graph.items()
    }  # fmt: skip
    leaves = tuple(leaf for leaf in template.leaves if not is_unchosen(str(leaf.path[0]), str(leaf.path[2])))
    return replace(template, graph=graph, leaves=leaves)


def _list_unchosen(options: Mapping[str, Collection[str]], values: Collection[Any]) -> set[str]:
    """Return the inputs that no chosen option has. `values`: the chosen options; empty if one is not an option."""
    if not all(isinstance(value, str) and value in options for value in values):
        return set()
    chosen = {child for value in values for child in options[value]}
    return {child for children in options.values() for child in children} - chosen


def iter_options(template: Template, grids: Iterable[Grid], path: KeyPath) -> Iterator[Any]:
    """Yield the values that an input has in any trial, and None for one that cannot be computed."""
    leaf = next((leaf for leaf in template.leaves if leaf.path == path), None)
    if leaf is None:
        yield template.graph[str(path[0])]["inputs"].get(path[2])
        return
    for grid in grids:
        columns = {name: grid.slots[name] for name in leaf.names}
        for coordinates in grid.iter_points(merge_dimensions(columns.values())):
            try:
                yield leaf.evaluate({name: column.get(coordinates) for name, column in columns.items()})
            except ExpressionError:
                yield None


def _add_model_source(problem: Problem, template: Template) -> Problem:
    """Add to a problem about a model file of the template where to get the file."""
    for model in template.models:
        if model.url and f"found {format_value(model.name)}" in problem.message:
            folder = f" into its folder {model.folder}" if model.folder else ""
            return replace(problem, message=f"{problem.message}; to get it: download {model.url}{folder}")
    return problem


def check_written_values(experiment: Experiment, info: NodeInfo) -> tuple[Problem, ...]:
    """Return what a server would refuse of an experiment that has mistakes, so that no plan can be made.

    Checked are the fixed parts of the workflow, and every written value of the inputs that depend on one slot only.
    """
    template = experiment.template
    check = check_template(template, info)
    blocks = experiment.written_blocks
    axes = {axis.name for block in blocks for dimension in block.dimensions for axis in dimension}
    swept = {*axes, *experiment.derive}
    problems = [template.make_problem(path, message) for path, message in _list_fixed_problems(check, swept)]
    for input_check in check.input_checks:
        if len(input_check.slots) != 1:
            continue
        (slot,) = input_check.slots
        for location, value in _iter_written(experiment, slot):
            with suppress(ExpressionError):  # another problem reports it
                found, _ = input_check.check_values({slot: value})
                problems += [replace(location, message=message) for _, message in found]
    return tuple(dict.fromkeys(problems))


def _list_fixed_problems(check: TemplateCheck, swept: Collection[str]) -> list[GraphProblem]:
    """Return the problems that no value changes. An ignored slot is a problem only if it is swept without effect."""
    swept_paths = {leaf.path[:3] for leaf in check.template.leaves if not set(leaf.names).isdisjoint(swept)}
    return [*check.fixed_problems, *(problem for problem in check.ignored if problem[0] in swept_paths)]


def _iter_written(experiment: Experiment, slot: str) -> Iterator[tuple[Problem, Any]]:
    """Yield every value that is written for a slot, with its location as a Problem without a message."""
    source = experiment.source
    assert source is not None  # an experiment with mistakes comes from a file
    written = [value_at for block in experiment.written_blocks for value_at in _iter_swept(block, slot, source)]
    if slot in experiment.params:
        written.insert(0, (("params", slot), experiment.params[slot]))
    yield from ((source.make_problem(path, ""), value) for path, value in written)
    default = experiment.template.slots[slot].default
    swept = {path[-1] for path in experiment.pending.values()}  # by files that nobody knows
    if not written and slot not in {*experiment.derive, *swept} and default is not MISSING:
        yield experiment.template.locate_default(slot), default


def _iter_swept(block: Block, slot: str, source: Source) -> Iterator[tuple[KeyPath, Any]]:
    for axis in (axis for dimension in block.dimensions for axis in dimension):
        for index, option in enumerate(axis.options):
            if slot in option.sets:
                yield (*axis.locate_option(source, index), "set", slot), option.sets[slot]
            elif slot == axis.name and option.value is not MISSING:
                yield axis.locate_option(source, index), option.value
    for index, row in enumerate(block.include):
        value = row.options[slot].value if slot in row.options else row.values.get(slot, MISSING)
        if value is not MISSING:
            yield (*block.path, "include", index, slot), value


def _iter_input_problems(grid: Grid, input_check: SlotInputCheck) -> Iterator[Problem | None]:
    """Yield the problems of one input over all its values, and None for each value that is a link."""
    columns = {name: grid.slots[name] for name in input_check.slots}
    seen: set[Problem] = set()
    for coordinates in itertools.islice(grid.iter_points(merge_dimensions(columns.values())), _MAX_COMBINATIONS):
        try:
            params = {name: column.get(coordinates) for name, column in columns.items()}
            found, changes_links = input_check.check_values(params)
        except ExpressionError:
            continue  # the compilation of the plan reports it with its values
        if changes_links:
            yield None
        for path, message in found:
            if input_check.slots:
                problem = replace(grid.locate_value(input_check.slots[0], coordinates), message=message)
            else:  # Jinja2 that reads no slot
                problem = grid.experiment.template.make_problem(path, message)
            if problem not in seen:
                seen.add(problem)
                yield problem
