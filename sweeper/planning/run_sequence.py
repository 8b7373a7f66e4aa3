"""The jobs of one part of a plan in the order in which they run, as arrays, to count node executions of a million jobs.

`order` counts the executions of whole products by formulas. Here, any jobs may be left out: those that are done, and
those that filters drop.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import TYPE_CHECKING

from sweeper.planning.server_cache import ServerCache

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Positions = NDArray[np.int64]


class RunSequence:
    """The jobs that are sent, as written positions in a grid of these sizes, in the order in which they run."""

    def __init__(
        self, sizes: Sequence[int], order: Sequence[int], kept_positions: Iterable[int] | None, is_sent: bytearray
    ) -> None:
        """`is_sent` has one byte for each trial in written order; `kept_positions` None: all positions of the grid."""
        import numpy as np

        self._sizes = tuple(sizes)
        mask = np.frombuffer(is_sent, dtype=np.uint8).astype(bool)
        kept = np.arange(len(mask)) if kept_positions is None else np.fromiter(kept_positions, np.int64, len(mask))
        self.positions: Positions = kept[mask]
        if tuple(order) != tuple(range(len(self._sizes))):
            self.positions = self.positions[np.argsort(self.to_indexes(self.positions, order), kind="stable")]

    def to_indexes(self, positions: Positions, dimensions: Sequence[int]) -> Positions:
        """Return which combination of the options of these dimensions each position has; the last varies fastest."""
        import numpy as np

        indexes = np.zeros(len(positions), np.int64)
        for dimension in dimensions:
            stride = prod(self._sizes[dimension + 1 :])
            indexes = indexes * self._sizes[dimension] + positions // stride % self._sizes[dimension]
        return indexes

    def find_executions(self, dimensions: Iterable[int], caching: ServerCache) -> Positions:
        """Return the jobs in which a node runs that depends on these dimensions; an LRU cache counts as the classic."""
        import numpy as np

        if caching.kind == "none" or not len(self.positions):
            return self.positions
        keys = self.to_indexes(self.positions, sorted(dimensions))
        if caching.keeps_all:
            return self.positions[np.sort(np.unique(keys, return_index=True)[1])]
        return self.positions[np.concatenate(([True], keys[1:] != keys[:-1]))]
