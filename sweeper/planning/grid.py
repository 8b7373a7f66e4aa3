"""One block's product of dimensions, compiled: params, table cells and digest at any coordinates.

The canonical bytes of a workflow are the template's own bytes with the leaves' bytes in between; the skeleton is
encoded once, a leaf once per value. Which coordinates belong to the plan is `selection`'s business, their order
`order`'s.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from sweeper.errors import ExperimentError, Problem
from sweeper.model.experiment import Dimension, Experiment
from sweeper.model.expressions import Expression, ExpressionError
from sweeper.model.slot_values import ValueRefusedError
from sweeper.model.template import MISSING, Leaf
from sweeper.model.trial import Trial
from sweeper.model.workflow import encode_canonical, encode_graph, make_file_marker
from sweeper.planning.columns import Column, ComputedColumn, ConstantColumn, Coordinates, OptionColumn
from sweeper.schemas.values import KeyPath, format_value

_MAX_EXAMPLES: Final = 5  # of values for which one expression fails


class Grid:
    """A compiled product. `fixed` are values that go before everything else: those of an `include` row."""

    def __init__(self, experiment: Experiment, dimensions: Sequence[Dimension], fixed: Mapping[str, Any]) -> None:
        self.experiment = experiment
        self.dimensions = tuple(dimensions)
        self.sizes = tuple(len(dimension[0].options) for dimension in dimensions)
        self._fixed = fixed
        self.names: dict[str, Column] = {}
        self._build_names()
        self.slots = {name: self.names[name] for name in experiment.template.slots}
        self.skeleton, self.leaf_columns = self._compile_leaves()
        self.axes, self.columns = self._build_cells()

    # Names

    def _build_names(self) -> None:
        given = self._build_swept()
        slots = self.experiment.template.slots
        for name in dict.fromkeys([*slots, *self.experiment.params, *given, *self._fixed]):
            if name in self._fixed:
                self.names[name] = ConstantColumn(self._fixed[name])
            elif name in given:
                self.names[name] = given[name]
            elif name not in self.experiment.derive:
                self.names[name] = ConstantColumn(self._get_unswept(name))
        for name, expression in self.experiment.derive.items():  # in an order in which each needs only earlier ones
            if name not in self._fixed:
                self.names[name] = self._build_derived(name, expression)

    def _get_unswept(self, name: str) -> Any:
        if name in self.experiment.params:
            return self.experiment.params[name]
        slot = self.experiment.template.slots.get(name)
        return slot.default if slot is not None else MISSING

    def _build_swept(self) -> dict[str, Column]:
        """The columns of the names that axes and bundles give; an option that does not give one leaves it unswept."""
        found: dict[str, Column] = {}
        for place, dimension in enumerate(self.dimensions):
            for axis in dimension:
                names = dict.fromkeys([axis.name, *(slot for option in axis.options for slot in option.sets)])
                for name in names:
                    own = [option.value if name == axis.name else MISSING for option in axis.options]
                    values = [option.sets.get(name, value) for option, value in zip(axis.options, own, strict=True)]
                    if all(value is MISSING for value in values):  # a bundle axis: an expression sees its labels
                        found[name] = OptionColumn(place, [option.label for option in axis.options])
                    else:
                        found[name] = OptionColumn(
                            place, [self._get_unswept(name) if v is MISSING else v for v in values]
                        )
        return found

    def _build_derived(self, name: str, expression: Expression) -> Column:
        path: KeyPath = ("derive", name)
        slot = self.experiment.template.slots.get(name)

        def compute(values: dict[str, Any]) -> Any:
            try:
                value = expression.evaluate(values)
                return slot.schema.normalise(value) if slot is not None else value
            except (ExpressionError, ValueRefusedError) as error:
                raise self.make_error(path, error, values) from error

        return ComputedColumn(self.select_columns(expression), compute)

    def select_columns(self, expression: Expression) -> dict[str, Column]:
        """The columns that an expression reads; a name nobody gives here was refused when the file was read."""
        return {name: self.names[name] for name in expression.names if name in self.names}

    def make_error(self, path: KeyPath, error: Exception, values: Mapping[str, Any]) -> ExperimentError:
        """An expression failed: where, why, and on which values."""
        given = ", ".join(f"{name} = {format_value(value, 40)}" for name, value in values.items())
        message = f"{error} (with {given})" if given else str(error)
        source = self.experiment.source
        return ExperimentError(source.make_problem(path, message) if source is not None else message)

    def iter_values(self, name: str) -> Iterator[Any]:
        """Every value of a name in this grid."""
        column = self.names[name]
        return (column.get(at) for at in self.iter_points(column.dimensions))

    def iter_points(self, dimensions: Sequence[int]) -> Iterator[list[int]]:
        """Coordinates that differ in these dimensions only: one list, which moves."""
        at = [0] * len(self.sizes)
        for point in itertools.product(*(range(self.sizes[place]) for place in dimensions)):
            for place, value in zip(dimensions, point, strict=True):
                at[place] = value
            yield at

    def locate_value(self, slot: str, coordinates: Coordinates) -> Problem:
        """Where the value that a slot has at these coordinates was written, as a Problem without its message."""
        experiment = self.experiment
        source = experiment.source
        if source is not None:
            for place, dimension in enumerate(self.dimensions):
                for axis in dimension:
                    option = axis.options[coordinates[place]]
                    item = axis.locate_option(source, coordinates[place])
                    if slot in option.sets:
                        return source.make_problem((*item, "set", slot), "")
                    if slot == axis.name:
                        return source.make_problem(item, "")
            for part in ("params", "derive"):
                if (part, slot) in source.lines:
                    return source.make_problem((part, slot), "")
        return experiment.template.locate_default(slot)

    # Leaves and digest

    def _compile_leaves(self) -> tuple[list[bytes], list[Column]]:
        """The template's bytes around its leaves, and a column of bytes for each leaf in between."""
        template = self.experiment.template
        text = encode_canonical(template.graph)
        mark = "sweeper-leaf"
        while mark.encode() in text:
            mark += "-"
        numbered = [(f"{mark}:{place}:", leaf) for place, leaf in enumerate(template.leaves)]
        graph = _encode_marked(template.graph, numbered)
        found = sorted((graph.index(encode_canonical(name)), name, leaf) for name, leaf in numbered)
        texts, start = [], 0
        for place, name, _ in found:
            texts.append(graph[start:place])
            start = place + len(encode_canonical(name))
        return [*texts, graph[start:]], [self._build_leaf_column(leaf) for _, _, leaf in found]

    def _build_leaf_column(self, leaf: Leaf) -> Column:
        template, files = self.experiment.template, self.experiment.files

        def compute(values: dict[str, Any]) -> bytes:
            for name, value in values.items():
                if template.slots[name].is_file and value in files:
                    values[name] = make_file_marker(files[value].sha256)
            try:
                value = leaf.evaluate(values)
                return encode_canonical(value if leaf.mask is None else f"{value} mask {values[leaf.mask]}")
            except (ExpressionError, ValueError) as error:
                message = f"in {template.file}: {error}"
                raise self.make_error(("template",), ExpressionError(message), values) from error

        inputs = {name: self.slots[name] for name in leaf.names}
        if all(len(column.dimensions) == 0 for column in inputs.values()):
            return ConstantColumn(compute({name: column.get(()) for name, column in inputs.items()}))
        only = next(iter(inputs.values()))
        if len(inputs) == 1 and isinstance(only, OptionColumn):
            (name,) = inputs
            return OptionColumn(only.dimension, [compute({name: value}) for value in only.values])
        return ComputedColumn(inputs, compute)

    # Table cells

    def _build_cells(self) -> tuple[dict[str, Column], dict[str, Column]]:
        """The columns of `trial.axes` and of the table, for every axis of the experiment."""
        own = {axis.name: (place, axis) for place, dimension in enumerate(self.dimensions) for axis in dimension}
        axes: dict[str, Column] = {}
        for name in self.experiment.axis_names:
            if name in own:
                place, axis = own[name]
                axes[name] = OptionColumn(place, [option.cell for option in axis.options])
            else:
                column = self.names.get(name, ConstantColumn(None))
                absent = isinstance(column, ConstantColumn) and column.value is MISSING
                axes[name] = ConstantColumn(None) if absent else column
        columns: dict[str, Column] = {}
        for name in list_axis_columns(self.experiment):
            axis_name, extra = _split_column(name, own, axes)
            if not extra:
                known = own.get(axis_name)
                plain = known is None or any(
                    option.label is not None and not option.sets for option in known[1].options
                )
                columns[name] = self._build_value_column(*known) if known and plain else axes[name]
            elif axis_name in own:
                place, axis = own[axis_name]
                columns[name] = OptionColumn(place, [_get_extra(option, extra) for option in axis.options])
            else:
                columns[name] = ConstantColumn(None)
        return axes, columns

    def _build_value_column(self, dimension: int, axis: Any) -> Column:
        return OptionColumn(dimension, [option.cell if option.sets else option.value for option in axis.options])

    def find_problems(self, combinations: int) -> Iterator[Problem]:
        """What fails in computed texts, over at most so many combinations of each; of each a few examples."""
        for column in [*self.names.values(), *self.leaf_columns]:
            if isinstance(column, ComputedColumn):
                yield from _find_failures(column, self.sizes, combinations)

    # Walking

    def walk(self, order: Sequence[int], start: int) -> Iterator[Trial]:
        """Every point, the dimensions nested in `order`, outermost first; indexes count written order from `start`."""
        return Walker(self, order).walk_product(0, start)

    def visit(self, order: Sequence[int], numbered: Iterable[tuple[int, int]]) -> Iterator[Trial]:
        """The points of these (index, written position) pairs, best sorted as `order` nests the dimensions."""
        return Walker(self, order).visit(numbered)

    def to_coordinates(self, position: int) -> list[int]:
        """The coordinates of a written position: the last dimension varies fastest."""
        found = [0] * len(self.sizes)
        for place in range(len(self.sizes) - 1, -1, -1):
            position, found[place] = divmod(position, self.sizes[place])
        return found


class Walker:
    """A state that moves through a grid: only what depends on a changed dimension is set again."""

    def __init__(self, grid: Grid, order: Sequence[int]) -> None:
        self.grid = grid
        self.order = tuple(order)
        self.coordinates = [0] * len(grid.sizes)
        self.strides = [1] * len(grid.sizes)
        for place in range(len(grid.sizes) - 2, -1, -1):
            self.strides[place] = self.strides[place + 1] * grid.sizes[place + 1]
        self.chunks: list[bytes] = [grid.skeleton[0]]
        for text in grid.skeleton[1:]:
            self.chunks += [b"", text]
        self.params: dict[str, Any] = dict.fromkeys(grid.slots)
        self.axes: dict[str, Any] = dict.fromkeys(grid.axes)
        # Most experiments have no labels: then the table's cells are the axes' and one dict serves both.
        self.shares_cells = list(grid.columns) == list(grid.axes) and all(
            grid.columns[k] is v for k, v in grid.axes.items()
        )
        self.columns: dict[str, Any] = self.axes if self.shares_cells else dict.fromkeys(grid.columns)
        self.updates: list[list[tuple[Any, Any, Column]]] = [[] for _ in range(len(order) + 1)]
        for place, leaf in enumerate(grid.leaf_columns):
            self._add_update(self.chunks, 2 * place + 1, leaf)
        for target, source in ((self.params, grid.slots), (self.axes, grid.axes)):
            for name, column in source.items():
                self._add_update(target, name, column)
        for name, column in grid.columns.items() if not self.shares_cells else ():
            self._add_update(self.columns, name, column)
        self.apply_updates(0)

    def _add_update(self, target: Any, key: Any, column: Column) -> None:
        """Have `target[key]` set when the innermost of the column's dimensions has changed."""
        level = max((self.order.index(dimension) + 1 for dimension in column.dimensions), default=0)
        self.updates[level].append((target, key, column))

    def apply_updates(self, level: int) -> None:
        """Set all that depends on the dimension at this level (0: on none)."""
        for target, key, column in self.updates[level]:
            target[key] = column.get(self.coordinates)

    def make_trial(self, index: int) -> Trial:
        """A copy of where we are, with its digest."""
        axes = self.axes.copy()
        columns = axes if self.shares_cells else self.columns.copy()
        return Trial(index, self.params.copy(), axes, hashlib.sha256(b"".join(self.chunks)).hexdigest(), columns)

    def walk_product(self, level: int, index: int) -> Iterator[Trial]:
        """Every point below the current one, from `level` inward; `index` is that of the first."""
        if level == len(self.order):
            yield self.make_trial(index)
            return
        dimension = self.order[level]
        stride, at, innermost = self.strides[dimension], self.coordinates, level + 1 == len(self.order)
        effects = self.updates[level + 1]
        for place in range(self.grid.sizes[dimension]):
            at[dimension] = place
            for target, key, column in effects:
                target[key] = column.get(at)
            if innermost:
                yield self.make_trial(index + place * stride)
            else:
                yield from self.walk_product(level + 1, index + place * stride)

    def visit(self, numbered: Iterable[tuple[int, int]]) -> Iterator[Trial]:
        """The points of (index, written position) pairs, in that order."""
        fresh = True
        for index, position in numbered:
            coordinates = self.grid.to_coordinates(position)
            changed = False
            for level, dimension in enumerate(self.order):
                changed = changed or fresh or self.coordinates[dimension] != coordinates[dimension]
                if changed:
                    self.coordinates[dimension] = coordinates[dimension]
                    self.apply_updates(level + 1)
            fresh = False
            yield self.make_trial(index)


def _find_failures(column: ComputedColumn, sizes: Sequence[int], combinations: int) -> Iterator[Problem]:
    at = [0] * len(sizes)
    points = itertools.product(*(range(sizes[place]) for place in column.dimensions))
    failed = 0
    for point in itertools.islice(points, combinations):
        for place, value in zip(column.dimensions, point, strict=True):
            at[place] = value
        try:
            column.get(at)
        except ExperimentError as error:
            yield from error.problems
            failed += 1
            if failed == _MAX_EXAMPLES:
                return


def list_axis_columns(experiment: Experiment) -> tuple[str, ...]:
    """The table's columns of the axes: `style`, then `style.label` where values have labels, `style.1` for choices."""
    found: dict[str, None] = {}
    for name in experiment.axis_names:
        axes = [a for block in experiment.blocks for group in block.dimensions for a in group if a.name == name]
        every = [option for axis in axes for option in axis.options]
        found[name] = None
        if any(option.label is not None and not option.sets for option in every):
            found[f"{name}.label"] = None
        for number in range(max((len(option.groups) for option in every), default=0)):
            found[f"{name}.{number + 1}"] = None
    return tuple(found)


def _split_column(column: str, own: Mapping[str, Any], axes: Mapping[str, Any]) -> tuple[str, str]:
    if column in own or column in axes:
        return column, ""
    name, _, extra = column.rpartition(".")
    return name, extra


def _get_extra(option: Any, extra: str) -> str | None:
    if extra == "label":
        return None if option.sets else option.label
    groups: tuple[str, ...] = option.groups
    return groups[int(extra) - 1] if int(extra) <= len(groups) else None


def _encode_marked(graph: Mapping[str, Any], numbered: Sequence[tuple[str, Leaf]]) -> bytes:
    """Canonical bytes of the graph with a mark at each leaf."""

    def copy_value(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: copy_value(item) for key, item in value.items()}
        return [copy_value(item) for item in value] if isinstance(value, list) else value

    marked = copy_value(graph)
    for name, leaf in numbered:
        place = marked
        for part in leaf.path[:-1]:
            place = place[part]
        place[leaf.path[-1]] = name
    return encode_graph(marked)
