"""Which points of a block's product belong to the plan: `exclude`, then `where`, then `sample`."""

from __future__ import annotations

import hashlib
import heapq
import itertools
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Final

from sweeper.model.experiment import Block, Experiment, Sample
from sweeper.model.expressions import ExpressionError
from sweeper.model.workflow import encode
from sweeper.planning.columns import Column, Computed
from sweeper.planning.grid import Grid

_RANKED: Final = 2_000_000  # more points than this are drawn by place: hashing them all would take too long
_WHERE: Final = -1  # stands for `where` among the numbers of the rows of `exclude`


def kept(grid: Grid, block: Block) -> array[int] | None:
    """The written positions that stay, ascending; None where all do. Raises ExperimentError when `where` fails."""
    total = prod(grid.sizes)
    sampled = block.sample is not None and block.sample.n < total
    if not block.exclude and block.where is None:
        if not sampled or block.sample is None:
            return None
        if total > _RANKED:
            return array("Q", sorted(_drawn(total, block.sample)))
        return _sampled(grid, array("Q", range(total)), block.sample)
    positions = array("Q", _filtered(grid, block))
    if block.sample is not None and block.sample.n < len(positions):
        if len(positions) > _RANKED:
            return array("Q", sorted(positions[place] for place in _drawn(len(positions), block.sample)))
        return _sampled(grid, positions, block.sample)
    return positions


@dataclass(frozen=True, slots=True)
class Dropped:
    """How many points of a block's product each filter drops; `exclude` counts row by row.

    A point counts for the first filter that drops it, so the counts add up.
    """

    exclude: tuple[int, ...] = ()
    where: int = 0
    sample: int = 0

    @property
    def total(self) -> int:
        """Points of the product that are no trials."""
        return sum(self.exclude) + self.where + self.sample


def dropped(grid: Grid, block: Block) -> Dropped:
    """What each filter of the block drops, by the same walk as `kept`. Raises ExperimentError when `where` fails."""
    counts = Counter(_reasons(grid, block)) if block.exclude or block.where is not None else Counter()
    rows = tuple([counts[row] for row in range(len(block.exclude))])
    left = prod(grid.sizes) - sum(rows) - counts[_WHERE]
    return Dropped(rows, counts[_WHERE], max(0, left - block.sample.n) if block.sample is not None else 0)


def reasons(grid: Grid, block: Block) -> Iterator[str | None]:
    """For every point of a block's product, in written order, what drops it: `exclude[0]`, `where`, `sample`, or None.

    Raises ExperimentError when `where` fails.
    """
    selected = kept(grid, block)
    there = None if selected is None else set(selected)
    for position, reason in enumerate(_reasons(grid, block)):
        if reason is None:
            yield None if there is None or position in there else "sample"
        else:
            yield "where" if reason == _WHERE else f"exclude[{reason}]"


def as_written(experiment: Experiment, block: Block) -> Mapping[str, Any]:
    """The block as the file has it; empty where there is no file."""
    value = experiment.source.value if experiment.source is not None else {}
    for part in block.path:
        if isinstance(value, Mapping) and part not in value:
            return {}
        value = value[part]
    return value if isinstance(value, Mapping) else {}


def _filtered(grid: Grid, block: Block) -> Iterator[int]:
    return (position for position, reason in enumerate(_reasons(grid, block)) if reason is None)


def _reasons(grid: Grid, block: Block) -> Iterator[int | None]:
    """For every point in written order what drops it: a row of `exclude`, `_WHERE`, or None."""
    where = _where(grid, block)
    rows = [(number, list(row.items())) for number, row in enumerate(block.exclude)]
    for point in itertools.product(*(range(size) for size in grid.sizes)):
        for number, row in rows:
            if all(point[place] in options for place, options in row):
                yield number
                break
        else:
            yield None if where is None or where.at(point) else _WHERE


def _where(grid: Grid, block: Block) -> Column | None:
    expression = block.where
    if expression is None:
        return None

    def compute(values: dict[str, Any]) -> bool:
        try:
            return bool(expression.evaluate(values))
        except ExpressionError as error:
            raise grid.failure((*block.path, "where"), error, values) from error

    return Computed(grid.inputs(expression), compute)


def _sampled(grid: Grid, positions: array[int], sample: Sample) -> array[int]:
    """The `n` positions whose axis values hash lowest: a value added to an axis later does not reshuffle the rest."""
    own = [axis.name for dimension in grid.dimensions for axis in dimension]  # not those of other blocks

    def rank(position: int) -> bytes:
        at = grid.coordinates(position)
        cells = encode({name: grid.axes[name].at(at) for name in own})
        return hashlib.sha256(b"%d\n" % sample.seed + cells).digest()

    return array("Q", sorted(heapq.nsmallest(sample.n, positions, key=rank)))


def _drawn(total: int, sample: Sample) -> set[int]:
    """`n` distinct places below `total`, by counting through SHA-256: the same on every machine and version."""
    found: set[int] = set()
    for count in itertools.count():
        if len(found) == sample.n:
            break
        found.add(int.from_bytes(hashlib.sha256(b"%d\n%d" % (sample.seed, count)).digest()[:16], "big") % total)
    return found
