"""What a plan is, before anybody reads a results folder: its axes, and what its filters leave out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final

from sweeper.answers.cells import format_cell, join_choices
from sweeper.answers.parts import Fact, Facts, Line, Part
from sweeper.answers.render import NOT_IN_JSON
from sweeper.answers.value_labels import label_values
from sweeper.model.experiment import Block, Experiment
from sweeper.planning.plan import Plan
from sweeper.planning.trial_filters import DropCounts, get_written_block
from sweeper.wording import count_things

_MAX_LABELLED: Final = 1000  # values of an axis, of which a line shows a few


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
            yield Facts([Fact(name, size, describe_cells(cells[name])) for name, size in self.axes.items()])

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
    return PlanOutline(
        name=experiment.name,
        file=str(experiment.file),
        template=experiment.template.file,
        count=len(plan),
        axes=dict(plan.axis_sizes),
        blocks=tuple(
            _outline_block(experiment, block, dropped)
            for block, dropped in zip(experiment.blocks, plan.drop_counts, strict=False)
        ),
        get_cells=plan.axis_cells,
    )


def describe_cells(cells: Sequence[Any]) -> str:
    """The first values of an axis: `4 | 8 | 20`."""
    return join_choices(label_values(cells[:_MAX_LABELLED]), len(cells))


def _outline_block(experiment: Experiment, block: Block, dropped: DropCounts) -> BlockOutline:
    written = get_written_block(experiment, block)
    rows = written.get("exclude", [{}] * len(dropped.exclude))
    excluded = [
        Exclusion(f"exclude[{index}]", row, count)
        for index, (row, count) in enumerate(zip(rows, dropped.exclude, strict=True))
    ]
    if block.where is not None:
        excluded.append(Exclusion("where", written.get("where"), dropped.where))
    if block.sample is not None:
        excluded.append(Exclusion("sample", {"n": block.sample.n, "seed": block.sample.seed}, dropped.sample))
    product = prod(block.sizes)
    return BlockOutline(
        axes=tuple(tuple(axis.name for axis in dimension) for dimension in block.dimensions),
        sizes=tuple(block.sizes),
        product=product,
        excluded=tuple(excluded),
        included=len(block.include),
        count=product - dropped.total + len(block.include),
    )
