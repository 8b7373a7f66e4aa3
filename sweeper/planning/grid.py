"""The product of the dimensions of one block, compiled: params, table cells and digest at any coordinates.

The canonical bytes of a workflow are the fixed bytes of the template, the skeleton, with the bytes of the leaves in
between. The skeleton is encoded once, a leaf once for each value. The inputs of a node with branches count as one leaf.
`trial_filters` selects coordinates, `order` sorts them.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from operator import itemgetter, mul, ne
from typing import Any, Final

from sweeper.errors import ExperimentError, Problem
from sweeper.model.axis_values import NONE, Option
from sweeper.model.experiment import Dimension, Experiment
from sweeper.model.expressions import Expression, ExpressionError
from sweeper.model.slot_values import ValueRefusedError
from sweeper.model.template import MISSING, Leaf, Template, drop_unchosen_inputs, set_at_path
from sweeper.model.trial import Trial
from sweeper.model.workflow import encode_canonical, encode_graph, make_file_marker
from sweeper.schemas.values import KeyPath, format_value

_MAX_EXAMPLES: Final = 5  # of values for which one expression fails

_MAX_CACHED: Final = 65_536  # combinations of one derived value

Coordinates = Sequence[int]  # of a trial: the index of its option in each dimension
# The canonical bytes of a template in pieces, and the leaves at one path between each two of them.
_TemplatePieces = tuple[list[bytes], list[tuple[KeyPath, list[Leaf]]]]


# A column has a value for each coordinates. Its `dimensions` are the indexes of those that it depends on, ascending.


@dataclass(frozen=True, slots=True)
class ConstantColumn:
    """The same value everywhere."""

    value: Any
    dimensions: tuple[int, ...] = ()

    def get(self, _coordinates: Coordinates) -> Any:
        return self.value


@dataclass(frozen=True, slots=True)
class OptionColumn:
    """One value for each option of one dimension."""

    dimension: int
    values: Sequence[Any]

    @property
    def dimensions(self) -> tuple[int, ...]:
        return (self.dimension,)

    def get(self, coordinates: Coordinates) -> Any:
        return self.values[coordinates[self.dimension]]


class ComputedColumn:
    """A value computed from other columns, and cached for each combination of their dimensions."""

    def __init__(self, inputs: Mapping[str, Column], compute: Callable[[dict[str, Any]], Any]) -> None:
        self.inputs = dict(inputs)
        self.dimensions = merge_dimensions(self.inputs.values())
        self._compute = compute
        self._cache: dict[tuple[int, ...], Any] = {}

    def get(self, coordinates: Coordinates) -> Any:
        key = tuple([coordinates[dimension] for dimension in self.dimensions])
        try:
            return self._cache[key]
        except KeyError:
            pass
        value = self._compute({name: column.get(coordinates) for name, column in self.inputs.items()})
        if len(self._cache) >= _MAX_CACHED:
            self._cache.clear()
        self._cache[key] = value
        return value


Column = ConstantColumn | OptionColumn | ComputedColumn


def merge_dimensions(columns: Iterable[Column]) -> tuple[int, ...]:
    return tuple(sorted({dimension for column in columns for dimension in column.dimensions}))


class Grid:
    """A compiled product of dimensions.

    `fixed` are the values of an `include` row, which override all others. `names`, `slots`, `axes` and `columns` are
    the columns of all names, of the slots, of `trial.axes` and of the table. `skeleton` has one more piece than
    `leaf_columns`, which are the columns of the bytes in between.
    """

    def __init__(
        self,
        experiment: Experiment,
        dimensions: Sequence[Dimension],
        fixed: Mapping[str, Any],
        like: Grid | None = None,
    ) -> None:
        """`like` is another grid of the same experiment, whose compiled template this one uses too."""
        self.experiment, self.dimensions = experiment, tuple(dimensions)
        self.sizes = tuple(len(dimension[0].options) for dimension in self.dimensions)
        self._fixed = fixed
        self.names = self._build_names()
        self.slots = {name: self.names[name] for name in experiment.template.slots}
        self.pieces: _TemplatePieces = like.pieces if like is not None else _split_template(experiment.template)
        self.skeleton, leaves_by_path = self.pieces
        self.leaf_columns = [self._build_leaf_column(path, leaves) for path, leaves in leaves_by_path]
        self.axes, self.columns = self._build_cells()

    # Names

    def _build_names(self) -> dict[str, Column]:
        experiment, derive = self.experiment, self.experiment.derive
        unswept = [name for name in (*experiment.template.slots, *experiment.params) if name not in derive]
        names: dict[str, Column] = {name: ConstantColumn(self._get_unswept(name)) for name in unswept}
        names |= self._build_swept()
        names |= {name: ConstantColumn(value) for name, value in self._fixed.items()}
        for name, expression in derive.items():  # sorted: each needs only earlier ones
            if name not in self._fixed:
                names[name] = self._build_derived(name, expression, names)
        return names

    def _get_unswept(self, name: str) -> Any:
        if name in self.experiment.params:
            return self.experiment.params[name]
        slot = self.experiment.template.slots.get(name)
        return slot.default if slot is not None else MISSING

    def _build_swept(self) -> dict[str, Column]:
        """Return the columns of the names that axes and bundles give. An option may leave a name to its default."""
        columns: dict[str, Column] = {}
        for dimension, axes in enumerate(self.dimensions):
            for axis in axes:
                names = dict.fromkeys([axis.name, *(slot for option in axis.options for slot in option.sets)])
                for name in names:
                    own_values = [option.value if name == axis.name else MISSING for option in axis.options]
                    values = [
                        option.sets.get(name, value) for option, value in zip(axis.options, own_values, strict=True)
                    ]
                    if all(value is MISSING for value in values):  # in expressions, a bundle axis has its labels
                        columns[name] = OptionColumn(dimension, [option.label for option in axis.options])
                    else:
                        columns[name] = OptionColumn(
                            dimension, [self._get_unswept(name) if value is MISSING else value for value in values]
                        )
                for name in dict.fromkeys(name for option in axis.options for name in option.extra):
                    columns[name] = OptionColumn(dimension, [option.extra.get(name) for option in axis.options])
        return columns

    def _build_derived(self, name: str, expression: Expression, names: Mapping[str, Column]) -> Column:
        path: KeyPath = ("derive", name)
        slot = self.experiment.template.slots.get(name)

        def compute(values: dict[str, Any]) -> Any:
            try:
                value = expression.evaluate(values)
                return slot.schema.normalise(value) if slot is not None else value
            except (ExpressionError, ValueRefusedError) as error:
                raise self.make_error(path, error, values) from error

        return ComputedColumn({name: names[name] for name in expression.names if name in names}, compute)

    def make_error(self, path: KeyPath, error: Exception, values: Mapping[str, Any]) -> ExperimentError:
        """Make the error of a failed expression: its location, the reason, and the values."""
        values_text = ", ".join(f"{name} = {format_value(value, 40)}" for name, value in values.items())
        return self.experiment.make_error(path, f"{error} (with {values_text})" if values_text else str(error))

    def iter_points(self, dimensions: Sequence[int]) -> Iterator[list[int]]:
        """Iterate over these dimensions. Yields the same list each time, mutated in place."""
        coordinates = [0] * len(self.sizes)
        for point in itertools.product(*(range(self.sizes[dimension]) for dimension in dimensions)):
            for dimension, value in zip(dimensions, point, strict=True):
                coordinates[dimension] = value
            yield coordinates

    def locate_value(self, slot: str, coordinates: Coordinates) -> Problem:
        """Return where the value of a slot at these coordinates was written, as a Problem without a message."""
        experiment = self.experiment
        source = experiment.source
        if source is not None:
            for index, dimension in enumerate(self.dimensions):
                for axis in dimension:
                    option = axis.options[coordinates[index]]
                    path = axis.locate_option(source, coordinates[index])
                    if slot in option.sets:
                        return source.make_problem((*path, "set", slot), "")
                    if slot == axis.name:
                        return source.make_problem(path, "")
            for section in ("params", "derive"):
                if (section, slot) in source.lines:
                    return source.make_problem((section, slot), "")
        return experiment.template.locate_default(slot)

    # Leaves and digest

    def _build_leaf_column(self, path: KeyPath, leaves: Sequence[Leaf]) -> Column:
        """Return the column of the bytes at a path: of one leaf, or of all inputs of a node with branches."""
        template, files = self.experiment.template, self.experiment.files

        def evaluate(values: Mapping[str, Any]) -> Any:
            evaluated = [_identify(leaf, values) for leaf in leaves]
            if len(path) > 2:
                return evaluated[0]
            inputs = copy.deepcopy(template.graph[str(path[0])]["inputs"])
            for leaf, value in zip(leaves, evaluated, strict=True):
                set_at_path(inputs, leaf.path[2:], value)
            drop_unchosen_inputs(inputs, template.branches[str(path[0])])
            return inputs

        def compute(values: dict[str, Any]) -> bytes:
            for name, value in values.items():
                if template.slots[name].is_file and value in files:
                    values[name] = make_file_marker(files[value].sha256)
            try:
                return encode_canonical(evaluate(values))
            except (ExpressionError, ValueError) as error:
                message = f"in {template.file}: {error}"
                raise self.make_error(("template",), ExpressionError(message), values) from error

        inputs = {name: self.slots[name] for leaf in leaves for name in leaf.names}
        if not any(column.dimensions for column in inputs.values()):
            return ConstantColumn(compute({name: column.get(()) for name, column in inputs.items()}))
        column = next(iter(inputs.values()))
        if len(inputs) == 1 and isinstance(column, OptionColumn):
            (name,) = inputs
            return OptionColumn(column.dimension, [compute({name: value}) for value in column.values])
        return ComputedColumn(inputs, compute)

    # Table cells

    def _build_cells(self) -> tuple[dict[str, Column], dict[str, Column]]:
        """Return the columns of `trial.axes` and of the table, for every axis of the experiment."""
        own_axes = {
            axis.name: (dimension, axis)
            for dimension, axes_of_dimension in enumerate(self.dimensions)
            for axis in axes_of_dimension
        }
        axes: dict[str, Column] = {}
        for name in self.experiment.axis_names:
            if name in own_axes:
                dimension, axis = own_axes[name]
                axes[name] = OptionColumn(dimension, [option.cell for option in axis.options])
            else:
                column = self.names.get(name, ConstantColumn(None))
                absent = isinstance(column, ConstantColumn) and column.value is MISSING
                axes[name] = ConstantColumn(None) if absent else column
        columns: dict[str, Column] = {}
        for name, axis_name in map_axis_columns(self.experiment).items():
            if axis_name not in own_axes:
                columns[name] = axes[name] if name in axes else ConstantColumn(None)
                continue
            dimension, axis = own_axes[axis_name]
            if name not in axes:
                columns[name] = OptionColumn(dimension, [_get_extra(option, name) for option in axis.options])
            elif any(option.label is not None and not option.sets for option in axis.options):
                values = [option.cell if option.sets else option.value for option in axis.options]
                columns[name] = OptionColumn(dimension, values)
            else:
                columns[name] = axes[name]
        return axes, columns

    def find_problems(self, combinations: int) -> Iterator[Problem]:
        """Yield the errors of computed columns, over at most `combinations` values of each; a few for each column."""

        def iter_failures(column: ComputedColumn) -> Iterator[Problem]:
            for coordinates in itertools.islice(self.iter_points(column.dimensions), combinations):
                try:
                    column.get(coordinates)
                except ExperimentError as error:
                    yield error.problems[0]

        for column in [*self.names.values(), *self.leaf_columns]:
            if isinstance(column, ComputedColumn):
                yield from itertools.islice(iter_failures(column), _MAX_EXAMPLES)

    # Walking

    def walk(self, order: Sequence[int], start: int, kept: Iterable[int] | None = None) -> Iterator[Trial]:
        """Yield every trial, or those at the `kept` written positions, which ascend.

        The dimensions are nested in `order`, outermost first; the indexes of the trials count the written order from
        `start`. What depends on no changed dimension is not computed again.
        """
        chunks: list[bytes] = [self.skeleton[0]]
        for text in self.skeleton[1:]:
            chunks += [b"", text]
        params: dict[str, Any] = dict.fromkeys(self.slots)
        axes: dict[str, Any] = dict.fromkeys(self.axes)
        # Most experiments have no labels. Then the cells of the table equal the axes, and one dict serves both.
        shares_cells = list(self.columns) == list(self.axes) and all(self.columns[k] is v for k, v in self.axes.items())
        columns = axes if shares_cells else dict.fromkeys(self.columns)
        outputs: list[tuple[Any, Any, Column]] = [
            *((chunks, 2 * index + 1, leaf) for index, leaf in enumerate(self.leaf_columns)),
            *((params, *item) for item in self.slots.items()),
            *((axes, *item) for item in self.axes.items()),
            *((columns, *item) for item in (() if shares_cells else self.columns.items())),
        ]
        levels = [max(map(order.index, column.dimensions), default=0) for _, _, column in outputs]
        # By the outermost level that changed, what changes with it: these levels and all inside of them
        effects = [
            [output for output, own in zip(outputs, levels, strict=True) if own >= level]
            for level in range(max(len(order), 1))
        ]
        coordinates, before = [0] * len(self.sizes), tuple[int, ...]()
        for index, options in self._iter_options(order, start, kept):
            changed = next(itertools.compress(itertools.count(), map(ne, options, before)), 0)
            for level in range(changed, len(order)):
                coordinates[order[level]] = options[level]
            for target, key, column in effects[changed]:
                target[key] = column.get(coordinates)
            before = options
            digest, cells = hashlib.sha256(b"".join(chunks)).hexdigest(), axes.copy()
            yield Trial(index, params.copy(), cells, digest, cells if shares_cells else columns.copy())

    def _iter_options(
        self, order: Sequence[int], start: int, kept: Iterable[int] | None
    ) -> Iterable[tuple[int, tuple[int, ...]]]:
        """The index of each trial, and its options in the dimensions of `order`."""
        is_written = list(order) == sorted(order)
        if kept is None:
            points = itertools.product(*(range(self.sizes[dimension]) for dimension in order))
            if is_written:
                return enumerate(points, start)
            strides = [prod(self.sizes[dimension + 1 :]) for dimension in order]
            return ((start + sum(map(mul, options, strides)), options) for options in points)
        found = enumerate(map(self.to_coordinates, kept), start)
        numbered = ((index, tuple([coordinates[dimension] for dimension in order])) for index, coordinates in found)
        return numbered if is_written else sorted(numbered, key=itemgetter(1))

    def to_coordinates(self, position: int) -> list[int]:
        """Return the coordinates of a written position. The last dimension varies fastest."""
        coordinates = [0] * len(self.sizes)
        for dimension in range(len(self.sizes) - 1, -1, -1):
            position, coordinates[dimension] = divmod(position, self.sizes[dimension])
        return coordinates


def map_axis_columns(experiment: Experiment) -> dict[str, str]:
    """Return the axis of each axis column of the table: `style`, `style.label` if values have labels, and more columns.

    More columns are `style.1` for choices, `lora.step` for the numbers in names of files, and other fields of a row.
    """
    columns: dict[str, str] = {}
    for name in experiment.axis_names:
        axes = (axis for block in experiment.blocks for group in block.dimensions for axis in group)
        options = [option for axis in axes if axis.name == name for option in axis.options]
        columns[name] = name
        if any(option.label is not None and not option.sets for option in options):
            columns[f"{name}.label"] = name
        columns |= {column: name for option in options for column in option.extra}
    return columns


def _get_extra(option: Option, column: str) -> Any:
    if column.endswith(".label") and column not in option.extra:
        return None if option.sets else option.label
    return option.extra.get(column)


def _identify(leaf: Leaf, values: Mapping[str, Any]) -> Any:
    """Return the value of a leaf as it counts for the digest."""
    if leaf.switch is not None and values[leaf.switch] == NONE:
        return NONE
    value = leaf.evaluate(values)
    return value if leaf.mask is None else f"{value} mask {values[leaf.mask]}"


def _split_template(template: Template) -> _TemplatePieces:
    """Return the bytes of the template around its leaves, and the leaves in between."""
    text = encode_canonical(template.graph)
    marker = "sweeper-leaf"
    while marker.encode() in text:
        marker += "-"
    # The inputs of a node with branches are one piece, because some values decide whether others are left out.
    pieces: dict[KeyPath, list[Leaf]] = {(node_id, "inputs"): [] for node_id in template.branches}
    for leaf in template.leaves:
        pieces.setdefault(leaf.path[:2] if leaf.path[0] in template.branches else leaf.path, []).append(leaf)
    marked = copy.deepcopy(dict(template.graph))
    for index, path in enumerate(pieces):
        set_at_path(marked, path, f"{marker}:{index}:")
    parts = re.split(rb'"%s:(\d+):"' % re.escape(marker).encode(), encode_graph(marked))  # bytes and indexes by turns
    paths = list(pieces)
    return parts[::2], [(paths[int(index)], pieces[paths[int(index)]]) for index in parts[1::2]]
