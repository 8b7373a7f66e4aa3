"""Select the points of a block's product that become trials: by `exclude`, then `where`, then `sample`."""

from __future__ import annotations

import hashlib
import heapq
import itertools
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import Any, Final

from sweeper.model.experiment import Block, Experiment, Sample
from sweeper.model.expressions import ExpressionError
from sweeper.model.workflow import encode_canonical
from sweeper.planning.grid import Column, ComputedColumn, Grid

_MAX_RANKED: Final = 2_000_000  # with more points, a sample draws random positions, because hashing is too slow
_MAX_FILTERED: Final = 20_000_000  # points times conditions: `exclude` and `where` look at every point


def filter_points(grid: Grid, block: Block) -> tuple[Sequence[int] | None, Counter[str]]:
    """Return the written positions of the trials, ascending (None if all points stay), and how many each filter drops.

    A point counts only for the first filter that drops it, named as by `iter_drop_reasons`. Raises ExperimentError if
    `where` fails, or if there are too many points to filter.
    """
    dropped: Counter[str] = Counter()
    total, sample = prod(grid.sizes), block.sample
    kept: array[int] | None = None
    if block.exclude or block.where is not None:
        conditions = len(block.exclude) + (block.where is not None)
        if total * conditions > _MAX_FILTERED:
            key = "where" if block.where is not None else "exclude"
            message = (
                f"would look at {total:,} points with {conditions:,} conditions, but at most {_MAX_FILTERED:,} looks "
                "are allowed; write fewer values, or let a zip or a bundle say which values go together"
            )
            raise grid.make_error((*block.path, key), ExpressionError(message), {})
        kept = array("Q")
        for position, reason in enumerate(_iter_reasons(grid, block)):
            if reason is None:
                kept.append(position)
            else:
                dropped[reason] += 1
    count = total if kept is None else len(kept)
    if sample is None or count <= sample.n:
        return kept, dropped
    dropped["sample"] = count - sample.n
    if count > _MAX_RANKED:
        drawn = sorted(_draw_positions(count, sample))
        return (drawn if kept is None else [kept[index] for index in drawn]), dropped
    return _sample_positions(grid, range(total) if kept is None else kept, sample), dropped


def iter_drop_reasons(grid: Grid, block: Block) -> Iterator[str | None]:
    """Yield for every point in written order the filter that drops it: `exclude[0]`, `where`, `sample`, or None.

    Raises ExperimentError if `where` fails.
    """
    selected, _ = filter_points(grid, block)
    kept = None if selected is None else set(selected)
    for position, reason in enumerate(_iter_reasons(grid, block)):
        yield reason or (None if kept is None or position in kept else "sample")


def get_written_block(experiment: Experiment, block: Block) -> Mapping[str, Any]:
    value = experiment.source.value if experiment.source is not None else {}
    for key in block.path:
        if isinstance(value, Mapping) and key not in value:
            return {}
        value = value[key]
    return value if isinstance(value, Mapping) else {}


def _iter_reasons(grid: Grid, block: Block) -> Iterator[str | None]:
    """Yield for every point in written order what drops it before `sample`."""
    condition = _compile_where(grid, block)
    rows = [(f"exclude[{number}]", list(row.items())) for number, row in enumerate(block.exclude)]
    for point in itertools.product(*(range(size) for size in grid.sizes)):
        for reason, row in rows:
            if all(point[dimension] in options for dimension, options in row):
                yield reason
                break
        else:
            yield None if condition is None or condition.get(point) else "where"


def _compile_where(grid: Grid, block: Block) -> Column | None:
    expression = block.where
    if expression is None:
        return None

    def compute(values: dict[str, Any]) -> bool:
        try:
            return bool(expression.evaluate(values))
        except ExpressionError as error:
            raise grid.make_error((*block.path, "where"), error, values) from error

    return ComputedColumn({name: grid.names[name] for name in expression.names if name in grid.names}, compute)


def _sample_positions(grid: Grid, positions: Iterable[int], sample: Sample) -> array[int]:
    """Return the `n` positions whose axis values have the lowest hashes.

    So the sample changes little if a value is added to an axis later.
    """
    axis_names = [axis.name for dimension in grid.dimensions for axis in dimension]  # not the axes of other blocks

    def rank(position: int) -> bytes:
        coordinates = grid.to_coordinates(position)
        cells = encode_canonical({name: grid.axes[name].get(coordinates) for name in axis_names})
        return hashlib.sha256(b"%d\n" % sample.seed + cells).digest()

    return array("Q", sorted(heapq.nsmallest(sample.n, positions, key=rank)))


def _draw_positions(total: int, sample: Sample) -> set[int]:
    """Return `n` distinct positions below `total`, from SHA-256: the same on every machine and version."""
    positions: set[int] = set()
    for count in itertools.count():
        if len(positions) == sample.n:
            break
        positions.add(int.from_bytes(hashlib.sha256(b"%d\n%d" % (sample.seed, count)).digest()[:16], "big") % total)
    return positions
