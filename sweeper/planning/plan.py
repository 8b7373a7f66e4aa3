"""The plan: an experiment's trials, in written order and in the order in which they run; a pure value, lazily produced.

A trial holds its params and digest, never its graph. `grid` compiles one block, `selection` filters it, `order` nests
it; here the blocks become one sequence with one numbering.
"""

from __future__ import annotations

import copy
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import prod
from typing import Any, Final

from sweeper.errors import ExperimentError, Problem
from sweeper.model.experiment import Axis, Block, Experiment, IncludeRow
from sweeper.model.node_classes import NodeInfo
from sweeper.model.template import Address
from sweeper.model.trial import InputFile, Trial
from sweeper.model.workflow import encode_canonical
from sweeper.planning.axis_facts import find_linked_axes, find_value_order
from sweeper.planning.columns import merge_dimensions
from sweeper.planning.compatibility import Compatibility, check_compatibility
from sweeper.planning.grid import Grid, list_axis_columns
from sweeper.planning.order import Costs, count_cached_executions, count_executions, find_best_order, find_dependencies
from sweeper.planning.server_cache import ServerCache
from sweeper.planning.trial_filters import find_kept_positions

_ASSUMED_COSTS: Final = Costs()
_MAX_COUNTED: Final = 50_000  # trials of a block up to which its node executions are counted one by one
_MAX_TRIED: Final = 2_000  # combinations of a computed text tried at once; a larger product is checked as it is walked


@dataclass(frozen=True, slots=True)
class OrderReport:
    """What the order of nesting saves on a server that keeps the last job's results.

    `axes` are outermost first, one list for each block; `executions` and `written` count node executions in this order
    and in the written one. `measured` says whether the order went by measured node times, `caching` what the server
    keeps: `classic` (the last job's results), `lru N` or `none`.
    """

    axes: tuple[tuple[str, ...], ...]
    executions: int
    written: int
    measured: bool = False
    caching: str = "classic"

    @property
    def saved(self) -> int:
        """Node executions that the order saves against the written one."""
        return self.written - self.executions


class Plan:
    """The ordered trials of an experiment. `len(plan)` is exact; iterating yields them in run order."""

    _parts: Sequence[_PlanPart] = ()  # of a plan that is no product: calibration and attribution make such

    def __init__(self, experiment: Experiment, costs: Costs = _ASSUMED_COSTS) -> None:
        self.experiment = experiment
        self._costs = costs
        self._parts = [_with_best_order(experiment, part, costs) for part in _compile_parts(experiment)]
        if len(self) == 0:
            source = experiment.source
            message = "no trial is left: `exclude` and `where` drop every one"
            raise ExperimentError(source.make_problem(("sweep",), message) if source is not None else message)

    def __len__(self) -> int:
        return sum(part.count for part in self._parts)

    def __iter__(self) -> Iterator[Trial]:
        start = 0
        for part in self._parts:
            yield from part.iter_trials(start, part.order)
            start += part.count

    def written(self) -> Iterator[Trial]:
        """The trials in written order: the first axis outermost, the last varying fastest."""
        start = 0
        for part in self._parts:
            yield from part.iter_trials(start, part.written)
            start += part.count

    def workflow(self, trial: Trial) -> dict[str, Any]:
        """The concrete API-format graph of a trial, a new dict; input files stand in it under their local names."""
        return self.experiment.template.render(trial.params)

    def files(self, trial: Trial) -> tuple[InputFile, ...]:
        """The local files that the trial's workflow reads."""
        slots = self.experiment.template.slots
        masks = {slot.masked_slot: slot.name for slot in slots.values() if slot.kind == "mask"}

        def make_input_file(address: Address, name: str | None) -> InputFile | None:
            value = trial.params.get(name) if name is not None else None
            fact = self.experiment.files.get(value) if isinstance(value, str) else None
            if name is None or fact is None:
                return None
            mask = make_input_file(address, masks.get(name))
            return InputFile(address.node, address.input, str(value), fact.path, fact.sha256, mask)

        places = [(address, slot.name) for slot in slots.values() if slot.kind == "file" for address in slot.addresses]
        return tuple(found for address, name in places if (found := make_input_file(address, name)) is not None)

    def reordered(self, costs: Costs) -> Plan:
        """The same trials, nested by other costs: measured node times, or a server that keeps no results."""
        again = copy.copy(self)
        again.__dict__.pop("order", None)
        again._costs = costs  # noqa: SLF001 - a copy of our own
        again._parts = [_with_best_order(self.experiment, part, costs) for part in self._parts]  # noqa: SLF001
        return again

    def fit(self, nodes: NodeInfo) -> Compatibility:
        """How the plan fits a server with these node classes: what it would refuse, coerce or fail on, and oddities."""
        return check_compatibility(self.experiment.template, [part.grid for part in self._parts], self.written(), nodes)

    @cached_property
    def axis_columns(self) -> tuple[str, ...]:
        """The table's columns of the axes, in order, over all blocks."""
        return list_axis_columns(self.experiment)

    @property
    def slot_names(self) -> tuple[str, ...]:
        """The template's slots, in its order."""
        return tuple(self.experiment.template.slots)

    @cached_property
    def value_order(self) -> Mapping[str, tuple[int, ...]]:
        """Where the rows have an axis' values in another order than they were written: see `declared`."""
        return find_value_order(self._parts)

    @cached_property
    def together(self) -> tuple[tuple[str, str], ...] | None:
        """The pairs of axes that are swept as one: see `declared`. None for a plan that is no product."""
        return find_linked_axes(self._parts) if self._parts else None

    @cached_property
    def axis_sizes(self) -> Mapping[str, int]:
        """How many different values or labels each axis has, over all blocks."""
        return {name: len(self.axis_cells(name)) for name in self.experiment.axis_names}

    def axis_cells(self, name: str) -> list[Any]:
        """The values or labels of an axis as a table shows them, over all blocks, each once."""
        axes = [axis for block in self.experiment.blocks for group in block.dimensions for axis in group]
        cells = [option.cell for axis in axes if axis.name == name for option in axis.options]
        # Numbers and texts are themselves the key: an axis may have a million seeds. True equals 1, so it is encoded.
        plain = (int, float, str)
        return list({cell if type(cell) in plain else (encode_canonical(cell),): cell for cell in cells}.values())

    @cached_property
    def order(self) -> OrderReport:
        """How the axes nest when the plan runs, and what that saves."""
        products = [part for part in self._parts if part.is_product]
        names = [tuple(axis.name for place in part.order for axis in part.grid.dimensions[place]) for part in products]
        caching = self._costs.caching
        runs, written = (
            sum(sum(part.count_node_runs(self.experiment, order, caching).values()) for part, order in orders)
            for orders in ([(part, part.order) for part in products], [(part, part.written) for part in products])
        )
        return OrderReport(tuple(names), runs, written, bool(self._costs.seconds), str(caching))


@dataclass(frozen=True, slots=True)
class _PlanPart:
    """A compiled piece of the plan: the product of a block, or one of its `include` rows."""

    grid: Grid
    order: tuple[int, ...]
    kept_positions: array[int] | None
    is_product: bool

    @property
    def written(self) -> tuple[int, ...]:
        return tuple(range(len(self.grid.sizes)))

    def count_node_runs(self, experiment: Experiment, order: tuple[int, ...], caching: ServerCache) -> dict[str, int]:
        """How often each node runs in that order on a server that keeps results in this way.

        For more than `_COUNTED` trials an estimate: filters drop evenly, and an LRU cache saves no more than the
        classic one, which is the least that it saves.
        """
        graph = experiment.template.graph
        if caching.kind == "none":
            return dict.fromkeys(graph, self.count)
        needs = find_dependencies(experiment, self.grid)
        if self.count <= _MAX_COUNTED and (self.kept_positions is not None or caching.kind == "lru"):
            positions = range(self.count) if self.kept_positions is None else self.kept_positions
            return count_cached_executions(
                graph, order, [self.grid.to_coordinates(position) for position in positions], needs, caching
            )
        share = self.count / max(prod(self.grid.sizes), 1)
        return {node: round(count * share) for node, count in count_executions(order, self.grid.sizes, needs).items()}

    @property
    def count(self) -> int:
        return prod(self.grid.sizes) if self.kept_positions is None else len(self.kept_positions)

    def iter_trials(self, start: int, order: tuple[int, ...]) -> Iterator[Trial]:
        """The part's trials with the dimensions nested in `order`; indexes count from `start` in written order."""
        if self.kept_positions is None:
            return self.grid.walk(order, start)
        numbered = enumerate(self.kept_positions, start)
        if order == self.written:
            return self.grid.visit(order, numbered)

        def sort_key(numbered_position: tuple[int, int]) -> tuple[int, ...]:
            at = self.grid.to_coordinates(numbered_position[1])
            return tuple([at[dimension] for dimension in order])

        return self.grid.visit(order, sorted(numbered, key=sort_key))


def plan(experiment: Experiment, *, nodes: NodeInfo | None = None, costs: Costs = _ASSUMED_COSTS) -> Plan:
    """Expand an experiment into its plan.

    `nodes` are a server's node classes: then what that server would refuse, silently change or fail on is refused
    here. `costs` decide how the axes nest. Raises ExperimentError when a rule fails, no trial is left, or the plan does
    not fit.
    """
    planned = Plan(experiment, costs)
    if nodes is not None and (problems := planned.fit(nodes).problems):
        raise ExperimentError(problems)
    return planned


def iter_derived_values(experiment: Experiment, name: str) -> Iterator[Any]:
    """Every value that `derive` gives a name anywhere in the sweep. Raises ExperimentError where it fails."""
    for grid in _iter_grids(experiment):
        yield from grid.iter_values(name)


def iter_value_pairs(
    experiment: Experiment, one: str, other: str
) -> Iterator[tuple[Any, Any, Callable[[str], Problem]]]:
    """The values that two slots have together anywhere in the product of a block, and what tells, until the next pair,
    where the value of a slot was written, as a Problem without its message.
    """
    for grid in _iter_grids(experiment):
        first, second = grid.slots[one], grid.slots[other]
        for at in grid.iter_points(merge_dimensions((first, second))):
            yield first.get(at), second.get(at), partial(grid.locate_value, coordinates=at)


def _iter_grids(experiment: Experiment) -> Iterator[Grid]:
    """The product of each block, and its `include` rows, before anything is dropped."""
    for block in experiment.blocks:
        yield Grid(experiment, block.dimensions, {})
        yield from (_make_include_grid(experiment, block, row) for row in block.include)


def _with_best_order(experiment: Experiment, part: _PlanPart, costs: Costs) -> _PlanPart:
    """The part in the order that costs least, the written one where it costs no more.

    `best_order` reckons with a whole product and the classic cache. Filters, and a cache that keeps more, can make
    the written order as good or better: then it stays.
    """
    if not part.is_product or experiment.order == "written":
        return replace(part, order=part.written)
    order = find_best_order(experiment, part.grid, costs)
    changed = part.kept_positions is not None or costs.caching.kind == "lru"
    if changed and order != part.written and part.count <= _MAX_COUNTED:
        graph = experiment.template.graph
        spent = [
            costs.add_up(graph, part.count_node_runs(experiment, one, costs.caching)) for one in (order, part.written)
        ]
        order = order if spent[0] < spent[1] else part.written
    return replace(part, order=order)


def _compile_parts(experiment: Experiment) -> list[_PlanPart]:
    """The pieces of the plan in written order. Raises ExperimentError with what fails in any of them."""
    parts: list[_PlanPart] = []
    problems: list[Problem] = []
    for block in experiment.blocks:
        grids = [
            Grid(experiment, block.dimensions, {}),
            *(_make_include_grid(experiment, block, extra) for extra in block.include),
        ]
        found = [problem for grid in grids for problem in grid.find_problems(_MAX_TRIED)]
        problems += found
        try:
            selected = find_kept_positions(grids[0], block) if not found else None
        except ExperimentError as error:
            problems += error.problems
            continue
        parts.append(_PlanPart(grids[0], tuple(range(len(grids[0].sizes))), selected, is_product=True))
        parts += [_PlanPart(grid, tuple(range(len(grid.sizes))), None, is_product=False) for grid in grids[1:]]
    if problems:
        raise ExperimentError(problems)
    return parts


def _make_include_grid(experiment: Experiment, block: Block, row: IncludeRow) -> Grid:
    """An `include` row as a product of one."""
    axes = [(Axis(name, (option,), block.path),) for name, option in row.options.items()]
    return Grid(experiment, axes, row.values)
