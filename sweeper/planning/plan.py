"""The plan: the trials of an experiment, produced lazily, in written order and in the order in which they run.

A trial has its params and its digest, but not its graph. This module joins the compiled blocks into one sequence with
one numbering.
"""

from __future__ import annotations

import copy
import json
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import combinations
from math import prod
from typing import Any, Final

from sweeper.errors import ExperimentError, Problem
from sweeper.model.experiment import Axis, Block, Experiment, IncludeRow
from sweeper.model.html_display import HtmlDisplay
from sweeper.model.node_classes import NodeInfo
from sweeper.model.search_columns import SearchColumns
from sweeper.model.template import Address, Template
from sweeper.model.trial import InputFile, Trial
from sweeper.model.workflow import encode_canonical
from sweeper.planning.compatibility import Compatibility, check_compatibility
from sweeper.planning.grid import Grid, map_axis_columns, merge_dimensions
from sweeper.planning.order import (
    CLASSIC_CACHE,
    Costs,
    RunSequence,
    ServerCache,
    count_executions,
    find_best_order,
    find_dependencies,
    prefer_files,
)
from sweeper.planning.trial_filters import filter_points
from sweeper.wording import join_command

_MAX_SIMULATED: Final = 50_000  # jobs; with more, an LRU cache counts as the classic, which is its minimum
_MAX_NAMES: Final = 2_000_000  # of all blocks and `include` rows
_MAX_TRIED: Final = 2_000  # combinations of a computed text; others are checked when the trials are produced
_MAX_VALUES: Final = 10_000  # of an axis; a longer order is of no use, and it would fill the store with seeds
_WHY_WRITTEN: Final = {  # by the first word of a cache
    "none": "the server keeps no results",
    "ram": "the server keeps the results of all jobs while its memory lasts",
    "lru": "another order saves nothing with a cache of this size",
}


@dataclass(frozen=True, slots=True)
class OrderReport:
    """What the nesting order saves on a server that caches node results.

    `mode` is the `order` of the experiment. `axes` has the axes of each block, outermost first. `executions` and
    `written` count node executions in this order and in the written order, and `include` rows not at all; `saved` is
    the difference. `measured`: the order is based on measured node times. `caching` is the cache of the server: see
    `ServerCache`. `why_written`: why another order saves nothing, if so.
    """

    mode: str
    axes: tuple[tuple[str, ...], ...]
    executions: int
    written: int
    saved: int
    measured: bool
    caching: str
    why_written: str | None


class Plan(HtmlDisplay):
    """The trials of an experiment. `len(plan)` is exact. Iteration yields the trials in the order in which they run.

    Raises ExperimentError if a rule fails or no trial is left.
    """

    # The products of the blocks and their `include` rows, in written order; none in plans that are not products.
    parts: Sequence[PlanPart] = ()

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        for pattern, path in experiment.pending.items():
            message = f"its values are the files {pattern} of a server, which nobody has asked for them"
            raise experiment.make_error(path, message)
        self._costs = Costs()  # until times are measured
        self.parts = [_with_best_order(experiment, part, self._costs) for part in _compile_parts(experiment)]
        if not any(part.count for part in self.parts):  # `len` fails for the space of a large search
            key, message = "sweep", "no trial is left, because `exclude` and `where` drop all of them"
            if not experiment.blocks:
                command = join_command(["sweeper", "search", str(experiment.file)])
                key = "search"
                message = f"there is no `sweep:` beside it, which a run needs; `{command}` runs the search"
            raise experiment.make_error((key,), message)

    def __repr__(self) -> str:
        axes = ", ".join(f"{name} {size}" for name, size in self.axis_sizes.items() if size)
        return f"<{type(self).__name__} of {self.experiment.name}: {len(self)} trials; {axes}>"

    def __len__(self) -> int:
        count = sum(part.count for part in self.parts)
        if count > sys.maxsize:  # which `len` cannot return
            message = f"has {count:,} trials, which are too many to count; write fewer values, or add a `sample`"
            raise self.experiment.make_error(("sweep",), message)
        return count

    def __iter__(self) -> Iterator[Trial]:
        for part in self.parts:
            yield from part.iter_trials(part.order)

    def written(self) -> Iterator[Trial]:
        """Yield the trials in written order: the first axis is outermost, the last varies fastest."""
        for part in self.parts:
            yield from part.iter_trials(part.written)

    def workflow(self, trial: Trial) -> dict[str, Any]:
        """Return the API-format graph of a trial as a new dict. Input files have their local names in it."""
        return self.experiment.template.render(trial.params)

    def get_template(self, _trial: Trial) -> Template:
        """Return the template that makes the workflow of a trial, with its params."""
        return self.experiment.template

    def files(self, trial: Trial) -> tuple[InputFile, ...]:
        template = self.experiment.template
        slots = template.slots
        graph = self.workflow(trial) if template.branches else template.graph
        mask_of = {slot.masked_slot: slot.name for slot in slots.values() if slot.kind == "mask"}

        def make_input_file(address: Address, name: str) -> InputFile | None:
            value = trial.params.get(name)
            found = self.experiment.files.get(value) if isinstance(value, str) else None
            if found is None:
                return None
            mask = make_input_file(address, mask_of[name]) if name in mask_of else None
            return InputFile(address.node, address.input, str(value), found.path, found.sha256, mask)

        addresses = [
            (address, slot.name)
            for slot in slots.values()
            if slot.kind == "file"
            for address in slot.addresses
            if address.input in graph[address.node]["inputs"]
        ]
        return tuple(file for address, name in addresses if (file := make_input_file(address, name)) is not None)

    def reordered(self, costs: Costs) -> Plan:
        """Return a plan of the same trials in the order that is best for these costs."""
        plan = copy.copy(self)
        vars(plan).pop("order", None)  # cached
        vars(plan).update(_costs=costs, parts=[_with_best_order(self.experiment, part, costs) for part in self.parts])
        return plan

    def fit(self, nodes: NodeInfo) -> Compatibility:
        return check_compatibility(self.experiment.template, [part.grid for part in self.parts], self.written(), nodes)

    @property
    def caching(self) -> ServerCache:
        """The cache of the server for which the plan is ordered."""
        return self._costs.caching

    @cached_property
    def axis_columns(self) -> tuple[str, ...]:
        """The axis columns of the table, in order, over all blocks."""
        return tuple(map_axis_columns(self.experiment))

    @property
    def extras(self) -> Mapping[str, str]:
        """The columns that tell more of the values of an axis, with the axis; without the labels."""
        columns = map_axis_columns(self.experiment).items()
        return {name: axis for name, axis in columns if name not in (axis, f"{axis}.label")}

    @property
    def slot_names(self) -> tuple[str, ...]:
        return tuple(self.experiment.template.slots)

    @cached_property
    def value_order(self) -> Mapping[str, tuple[int, ...]]:
        """The first trial of each value in written order, by axis column, if the rows have another order.

        If `exclude`, `where` or `sample` drop trials, values may appear in the rows in another order. Blocks follow
        each other.
        """
        if all(part.kept_positions is None for part in self.parts):
            return {}  # in complete products, values appear in written order
        firsts: dict[str, dict[Hashable, int]] = {name: {} for name in self.axis_columns}
        for trial in self.written():
            for name, first in firsts.items():
                first.setdefault(_to_key(trial.columns[name]), trial.index)
        orders = {}
        for name, first in firsts.items():
            grids = [(part.grid, part.grid.columns[name]) for part in self.parts]
            keys = (
                _to_key(column.get(point)) for grid, column in grids for point in grid.iter_points(column.dimensions)
            )
            order = [first[key] for key in dict.fromkeys(keys) if key in first]
            if len(order) <= _MAX_VALUES and order != sorted(order):
                orders[name] = tuple(order)
        return orders

    @cached_property
    def together(self) -> tuple[tuple[str, str], ...]:
        """The pairs of axis columns that depend on the same dimension in every block that sweeps both.

        These are the axes of a zip, a bundle and a slot that it sets (and that another block sweeps alone), choices and
        their groups, values and their labels. The rows alone cannot show it, because filters may drop trials.
        """
        are_linked: dict[tuple[str, str], bool] = {}
        for part in self.parts:
            swept = {name: column.dimensions for name, column in part.grid.columns.items() if column.dimensions}
            for pair in combinations(swept, 2) if part.is_product else ():
                are_linked[pair] = are_linked.get(pair, True) and swept[pair[0]] == swept[pair[1]]
        return tuple(pair for pair, linked in are_linked.items() if linked)

    @property
    def search_columns(self) -> SearchColumns | None:
        """What the table of a search shows beside the trials; None for other plans."""
        return None

    @cached_property
    def axis_sizes(self) -> Mapping[str, int]:
        """The number of different values or labels of each axis, over all blocks."""
        return {name: len(self.axis_cells(name)) for name in self.experiment.axis_names}

    def axis_cells(self, name: str) -> list[Any]:
        """Return the values or labels of an axis as the table shows them, over all blocks, each once."""
        axes = [axis for block in self.experiment.blocks for dimension in block.dimensions for axis in dimension]
        cells = [option.cell for axis in axes if axis.name == name for option in axis.options]
        # Numbers and texts are their own keys, because an axis may have a million seeds. True equals 1, so encode it.
        plain = (int, float, str)
        return list({cell if type(cell) in plain else (encode_canonical(cell),): cell for cell in cells}.values())

    @cached_property
    def order(self) -> OrderReport:
        products = [part for part in self.parts if part.is_product]
        names = [
            tuple(axis.name for dimension in part.order for axis in part.grid.dimensions[dimension])
            for part in products
        ]
        caching = self._costs.caching
        runs, written = (
            sum(sum(part.count_node_runs(self.experiment, order, caching).values()) for part, order in orders)
            for orders in ([(part, part.order) for part in products], [(part, part.written) for part in products])
        )
        is_written = self.experiment.order != "written" and all(part.order == part.written for part in products)
        why_written = _WHY_WRITTEN.get(str(caching).partition(" ")[0]) if is_written else None
        return OrderReport(
            self.experiment.order, tuple(names), runs, written, written - runs,
            bool(self._costs.seconds), str(caching), why_written,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PlanPart:
    """A compiled part of the plan: the product of a block, or one of its `include` rows.

    `start` is the index of its first trial. `kept_positions` are the written positions that the filters leave; None:
    all. `dropped` is what they drop; None for an `include` row.
    """

    grid: Grid
    start: int
    order: tuple[int, ...]
    kept_positions: Sequence[int] | None
    dropped: Counter[str] | None

    @property
    def is_product(self) -> bool:
        return self.dropped is not None

    @property
    def written(self) -> tuple[int, ...]:
        return tuple(range(len(self.grid.sizes)))

    def count_node_runs(self, experiment: Experiment, order: tuple[int, ...], caching: ServerCache) -> dict[str, int]:
        """Count how often each node runs in this order with this cache."""
        graph = experiment.template.graph
        if caching.kind == "none":
            return dict.fromkeys(graph, self.count)
        needs = find_dependencies(experiment, self.grid)
        caching = CLASSIC_CACHE if caching.kind == "lru" and self.count > _MAX_SIMULATED else caching
        if self.kept_positions is None and caching.kind != "lru":
            return count_executions(order, self.grid.sizes, needs, caching)
        return RunSequence(self.grid.sizes, order, self.kept_positions).count_executions(graph, needs, caching)

    @property
    def count(self) -> int:
        return prod(self.grid.sizes) if self.kept_positions is None else len(self.kept_positions)

    def iter_trials(self, order: tuple[int, ...]) -> Iterator[Trial]:
        """Yield the trials with the dimensions nested in `order`; their indexes count the written order."""
        return self.grid.walk(order, self.start, self.kept_positions)


def iter_derived_values(experiment: Experiment, name: str) -> Iterator[Any]:
    """Yield every value that `derive` computes for a name in the sweep. Raises ExperimentError if it fails."""
    for grid in _iter_grids(experiment):
        column = grid.names[name]
        yield from (column.get(coordinates) for coordinates in grid.iter_points(column.dimensions))


def iter_value_pairs(
    experiment: Experiment, first_name: str, second_name: str
) -> Iterator[tuple[Any, Any, Callable[[str], Problem]]]:
    """Yield the pairs of values that two slots have together in the product of a block.

    The third item is a function that returns where the value of a slot was written, as a Problem without a message. It
    is valid until the next pair.
    """
    for grid in _iter_grids(experiment):
        first_column, second_column = grid.slots[first_name], grid.slots[second_name]
        for coordinates in grid.iter_points(merge_dimensions((first_column, second_column))):
            locate = partial(grid.locate_value, coordinates=coordinates)
            yield first_column.get(coordinates), second_column.get(coordinates), locate


def _iter_grids(experiment: Experiment) -> Iterator[Grid]:
    """Yield the product of each block, and its `include` rows, before filters; and that of the search."""
    like: Grid | None = None
    for block in experiment.written_blocks:
        like = Grid(experiment, block.dimensions, {}, like)
        yield like
        yield from (_make_include_grid(experiment, block, row, like) for row in block.include)


def _with_best_order(experiment: Experiment, part: PlanPart, costs: Costs) -> PlanPart:
    """Return the part in the order of least cost; in the written order if it costs no more (see `prefer_files`).

    `find_best_order` assumes a whole product and the classic cache. With filters or a larger cache, the written order
    may be as good or better, so both are compared.
    """
    if not part.is_product or experiment.order == "written":
        return replace(part, order=part.written)
    order = find_best_order(experiment, part.grid, costs)
    may_differ = part.kept_positions is not None or costs.caching.kind == "lru"
    if may_differ and order != part.written:
        graph = experiment.template.graph
        preferred = prefer_files(part.grid)

        def rank(candidate: tuple[int, ...]) -> tuple[float, list[int]]:
            cost = costs.add_up(graph, part.count_node_runs(experiment, candidate, costs.caching))
            return round(cost, 6), [preferred.index(dimension) for dimension in candidate]

        order = min(order, part.written, key=rank)
    return replace(part, order=order)


def _compile_parts(experiment: Experiment) -> list[PlanPart]:
    """Return the parts of the plan in written order. Raises ExperimentError with the problems of all parts."""
    _check_size(experiment)
    parts: list[PlanPart] = []
    problems: list[Problem] = []
    start = 0
    for block in experiment.blocks:
        product = Grid(experiment, block.dimensions, {}, parts[0].grid if parts else None)
        grids = [product, *(_make_include_grid(experiment, block, extra, product) for extra in block.include)]
        grid_problems = [problem for grid in grids for problem in grid.find_problems(_MAX_TRIED)]
        problems += grid_problems
        try:
            selected, dropped = filter_points(product, block) if not grid_problems else (None, Counter[str]())
        except ExperimentError as error:
            problems += error.problems
            continue
        for grid, positions, counts in ((product, selected, dropped), *((grid, None, None) for grid in grids[1:])):
            parts.append(PlanPart(grid, start, tuple(range(len(grid.sizes))), positions, counts))
            start += parts[-1].count
    if problems:
        raise ExperimentError(problems)
    return parts


def _check_size(experiment: Experiment) -> None:
    """Raise ExperimentError if the parts of the plan together have too many names to fit into memory."""
    parts = sum(1 + len(block.include) for block in experiment.blocks)
    names = len(experiment.template.slots) + len(experiment.axis_names) + len(experiment.derive)
    if parts * names > _MAX_NAMES:
        message = (
            f"has {parts:,} blocks and `include` rows, for each of which the plan has {names:,} names; at most "
            f"{_MAX_NAMES:,} names are allowed in all; write fewer rows, or a template with fewer slots"
        )
        raise experiment.make_error(("sweep",), message)


def _make_include_grid(experiment: Experiment, block: Block, row: IncludeRow, like: Grid) -> Grid:
    axes = [(Axis(name, (option,), block.path),) for name, option in row.options.items()]
    return Grid(experiment, axes, row.values, like)


def _to_key(value: Any) -> Hashable:
    """Return a key that is different for 1, 1.0 and true."""
    return type(value), json.dumps(value, sort_keys=True) if isinstance(value, (list, dict)) else value
