"""What a plan is, before anybody reads a results folder: its axes, what its filters leave out, and what it costs.

A cost is `priced` (from the class of a partner node) or `estimated` (learnt seconds, times the price of the target).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import repeat
from math import prod
from typing import Any, Final

from sweeper.answers.cells import format_cell, join_choices, label_values
from sweeper.answers.parts import Fact, Facts, Heading, Item, Line, Part, Table
from sweeper.answers.render import NOT_IN_JSON, json_name
from sweeper.model.experiment import Block, Experiment
from sweeper.model.money import CURRENCY, PRICED, Amount
from sweeper.planning.plan import Plan
from sweeper.planning.trial_filters import get_written_block
from sweeper.wording import count_things

_MAX_LABELLED: Final = 1000  # values of an axis, of which a few are shown
_MIN_SHOWN: Final = 3  # values in a line; if they do not fit, each has its own
_MAX_LINES: Final = 6  # of an axis with long values


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A filter of a block: `exclude[0]`, `where` or `sample`, what it says, and how many combinations it drops."""

    reason: str
    says: Any
    count: int

    def __str__(self) -> str:
        """`where steps < 9`, `exclude[0] {steps: 8, seed: 1}`, as it is written in the experiment."""
        if not isinstance(self.says, Mapping):
            return f"{self.reason} {format_cell(self.says)}"
        values = (f"{key}: {format_cell(value)}" for key, value in self.says.items())
        return f"{self.reason} {{{', '.join(values)}}}"


@dataclass(frozen=True, slots=True)
class BlockOutline:
    """A block: its axes by dimension, the sizes of these and their product, and how `count` trials result from it.

    `included` counts the rows of `include`.
    """

    axes: tuple[tuple[str, ...], ...]
    sizes: tuple[int, ...]
    product: int
    excluded: tuple[Exclusion, ...]
    included: int
    count: int


@dataclass(frozen=True, slots=True)
class PlanOutline:
    """The experiment of a plan, the number of its trials, how many values each axis has, and its blocks."""

    name: str
    file: str
    template: str | None
    count: int
    axes: Mapping[str, int]
    blocks: tuple[BlockOutline, ...]
    get_cells: Callable[[str], Sequence[Any]] = field(metadata=NOT_IN_JSON)  # the values of an axis

    def parts(self) -> Iterator[Part]:
        """The title, the axes with their values, and the filters."""
        yield self.format_title()
        yield from self.list_axes()
        yield Facts(list(self.list_filters()))

    def format_title(self, on: str = "") -> Line:
        return Line(f"{self.name}: {count_things(self.count, 'trial')} of {self.template}{on}")

    def list_axes(self) -> Iterator[Facts]:
        cells = {name: self.get_cells(name) for name in self.axes}
        if cells:
            yield Facts([fact for name in self.axes for fact in list_values(name, cells[name])])

    def list_filters(self) -> Iterator[Fact]:
        """The product of each block, what its filters exclude, and what its `include` adds."""
        for number, block in enumerate(self.blocks, 1):
            if len(self.blocks) > 1 or len(block.sizes) > 1 or block.excluded or block.included:
                factors = " x ".join(map(str, block.sizes))
                yield Fact("product" if len(self.blocks) == 1 else f"block {number}", block.product, f"= {factors}")
            for index, exclusion in enumerate(block.excluded):
                yield Fact("" if index else "excluded", exclusion.count, f"by {exclusion}")
            if block.included:
                yield Fact("included", block.included)


def outline_plan(plan: Plan) -> PlanOutline:
    """Describe a plan without expanding its trials."""
    experiment = plan.experiment
    dropped = [part.dropped for part in plan.parts if part.dropped is not None]
    return PlanOutline(
        name=experiment.name,
        file=str(experiment.file),
        template=experiment.template.file,
        count=len(plan),
        axes=dict(plan.axis_sizes),
        blocks=tuple(map(_outline_block, repeat(experiment), experiment.blocks, dropped)),
        get_cells=plan.axis_cells,
    )


def list_values(axis: str, cells: Sequence[Any]) -> Iterator[Fact]:
    """The number of values of an axis and the first ones: `4 | 8 | 20` in a line, or long ones each in its own."""
    labels = label_values(cells[:_MAX_LABELLED])
    lines = [join_choices(labels, len(cells))]
    if not lines[0].startswith(" | ".join(labels[:_MIN_SHOWN])):
        rest = len(cells) - _MAX_LINES
        lines = [*labels[:_MAX_LINES], *([f"and {rest} more"] if rest > 0 else [])]
    yield from (Fact("" if line else axis, "" if line else len(cells), text) for line, text in enumerate(lines))


def _outline_block(experiment: Experiment, block: Block, dropped: Counter[str]) -> BlockOutline:
    written = get_written_block(experiment, block)
    rows = written.get("exclude", [{}] * len(block.exclude))
    said = {f"exclude[{index}]": row for index, row in enumerate(rows)}
    if block.where is not None:
        said["where"] = written.get("where")
    if block.sample is not None:
        said["sample"] = {"n": block.sample.n, "seed": block.sample.seed}
    product = prod(block.sizes)
    return BlockOutline(
        axes=tuple(tuple(axis.name for axis in dimension) for dimension in block.dimensions),
        sizes=tuple(block.sizes),
        product=product,
        excluded=tuple(Exclusion(reason, says, dropped[reason]) for reason, says in said.items()),
        included=len(block.include),
        count=product - dropped.total() + len(block.include),
    )


_MAX_NODES: Final = 3  # in the line; the table has all
_MAX_VALUES: Final = 20  # in a table; --json has all
_MAX_REASONS: Final = 3  # of a node


@dataclass(frozen=True, slots=True)
class Bounds:
    """The smallest and the largest number: executions of a node, or seconds."""

    low: float
    high: float

    def __str__(self) -> str:
        return str(self.high) if self.low == self.high else f"{self.low}-{self.high}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCost:
    """What one partner node costs in a plan, which runs it `executions` times.

    `each` is the price of one execution, from the cheapest to the dearest; `total` that of all; `left` what is left to
    pay. `approximate`: the class does not state the price exactly. `reasons` say why the price is unknown or only a
    lower bound.
    """

    node: str
    class_type: str = field(metadata=json_name("class"))
    kind: str = PRICED
    executions: Bounds
    each: Amount
    total: Amount
    left: Amount
    approximate: bool = False
    reasons: tuple[str, ...] = ()

    def describe_each(self) -> str:
        return ("about " if self.approximate else "") + str(self.each)


@dataclass(frozen=True, slots=True)
class DueAmount:
    """What all distinct trials cost, and what is left to pay."""

    total: Amount
    left: Amount


@dataclass(frozen=True, slots=True)
class TimeCost:
    """What the time of the jobs costs on their targets: `seconds` of all distinct trials, `total` and `left` to pay.

    `seconds` is None if no job has run or only jobs have a price.
    """

    seconds: Bounds | None
    total: Amount
    left: Amount

    def __str__(self) -> str:
        if self.seconds is not None:
            return f"{_format_seconds(self.seconds)} of GPU, {self.total}"
        if self.total.high is None:
            return "GPU time, unknown until the first job has run"
        return f"{self.total} for the jobs on the target"


@dataclass(frozen=True, slots=True)
class CellCost:
    """What the partner nodes cost in the `jobs` that have one value of an axis."""

    value: Any
    jobs: int
    priced: Amount


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanCost:
    """What the distinct trials of a plan cost (`total`), which are `jobs`, and what is left to pay (`left`).

    Both are sums of `priced`, the partner nodes, and `estimated`, which is None if no target has a price. `axes` has
    the cells of each axis that changes the price of a node. Amounts are in US dollars; `high` is null without a limit.
    """

    currency: str = CURRENCY
    jobs: int
    total: Amount
    left: Amount
    priced: DueAmount
    estimated: TimeCost | None
    nodes: tuple[NodeCost, ...]
    axes: Mapping[str, tuple[CellCost, ...]]

    def __str__(self) -> str:
        texts = [
            f"{node.executions} {'jobs' if str(node.executions) == str(self.jobs) else 'executions'} x "
            f"{node.describe_each()} {node.class_type}"
            for node in self.nodes[:_MAX_NODES]
        ]
        if len(self.nodes) > _MAX_NODES:
            texts.append(f"{len(self.nodes) - _MAX_NODES} more nodes")
        nodes = [f"{self.priced.total} ({', '.join(texts)})"] if self.nodes else []
        return " + ".join([*nodes, *([] if self.estimated is None else [str(self.estimated)])])

    def parts(self) -> Iterator[Part]:
        """The cost by node if there are several, and by the value of each axis that changes it."""
        if len(self.nodes) > 1:
            yield Heading("cost by node:")
            rows = [
                (node.node, node.class_type, str(node.executions), node.describe_each(), str(node.total))
                for node in self.nodes
            ]
            yield Table(("node", "class", "executions", "each", "total"), rows)
        for name, cells in self.axes.items():
            used = [cell for cell in cells if cell.jobs]
            yield Heading(f"cost by {name}:")
            labels = label_values([cell.value for cell in used[:_MAX_VALUES]])
            yield Table((name, "jobs", "each job", "total"), list(map(_make_row, labels, used)))
            if len(used) > _MAX_VALUES:
                yield Item(f"and {len(used) - _MAX_VALUES} more; --json lists them")
        reasons = [(node, reason) for node in self.nodes for reason in node.reasons[:_MAX_REASONS]]
        if reasons:
            yield Line("not known exactly, so the cost is a lower bound:")
        for node, reason in reasons:
            yield Item(f"node {node.node} ({node.class_type}): {reason}")


def _make_row(label: str, cell: CellCost) -> tuple[Any, ...]:
    each = cell.priced.scale(Fraction(1, cell.jobs))
    return label, cell.jobs, str(each), str(cell.priced)


def _format_seconds(seconds: Bounds) -> str:
    """A range of seconds in one unit: `40-55 s`, `0.9-1.3 h`."""
    units = (("h", 3600.0), ("min", 60.0))
    unit, size = next(((unit, size) for unit, size in units if seconds.high >= 1.5 * size), ("s", 1.0))
    first, last = f"{seconds.low / size:.1f}", f"{seconds.high / size:.1f}"
    return f"{first} {unit}" if first == last else f"{first}-{last} {unit}"
