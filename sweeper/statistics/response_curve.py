"""A fitted curve over the numbers of an axis: a line and its bend, for the points of a search.

With a factor for each axis without numbers, such curves are a response surface (Box & Wilson, Journal of the Royal
Statistical Society B 13, 1951, 1-45).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from sweeper.statistics.codes import LEVEL, Numbers
from sweeper.statistics.paired import Interval, excludes_zero
from sweeper.statistics.studentized_range import compute_studentized_range

LOG_RATIO: Final = 100  # of the largest to the smallest number: from here on, the curve is one of the logarithms
INSIDE, RISING, FALLING, ENDS = "inside", "rising", "falling", "ends"  # where the largest value of a curve is


@dataclass(frozen=True)
class Curve:
    """An axis of numbers, one for each point."""

    name: str
    numbers: Numbers

    @cached_property
    def scaled(self) -> Numbers:
        """The numbers, or their logarithms, with mean 0 and standard deviation 1."""
        low, high = float(self.numbers.min()), float(self.numbers.max())
        numbers = np.log(self.numbers) if low > 0 and high / low >= LOG_RATIO else self.numbers
        result: Numbers = (numbers - numbers.mean()) / (float(numbers.std()) or 1.0)
        return result

    @property
    def columns(self) -> Numbers:
        result: Numbers = np.column_stack([self.scaled, self.scaled**2])
        return result


class LinearFit:
    """The least squares fit of one number for each point to the columns of all axes, without their pairs."""

    def __init__(self, blocks: Sequence[Numbers], numbers: Numbers) -> None:
        design = np.hstack(blocks)
        design = design - design.mean(axis=0)
        self._ends = np.cumsum([block.shape[1] for block in blocks])
        self._blocks = blocks
        inverse = np.linalg.pinv(design.T @ design, hermitian=True)
        self._weights = inverse @ design.T @ (numbers - numbers.mean())
        residuals = numbers - numbers.mean() - design @ self._weights
        self.df = len(numbers) - 1 - int(np.linalg.matrix_rank(design))
        self._variances: Numbers = inverse * float(residuals @ residuals) / max(self.df, 1)

    def compare(
        self, axis: int, point: int, other: int, *, level: float = 1 - LEVEL, values: int = 2
    ) -> tuple[float, Interval]:
        """The difference that an axis makes between its values at two points, if all other axes are equal.

        Returns it with its interval; the intervals of this many values hold together (Tukey-Kramer).
        """
        columns = self._get_columns(axis)
        contrast = self._blocks[axis][point] - self._blocks[axis][other]
        mean = float(contrast @ self._weights[columns])
        error = math.sqrt(max(float(contrast @ self._variances[columns, columns] @ contrast), 0.0))
        margin = compute_studentized_range(level, values, self.df) / math.sqrt(2) * error
        return mean, (mean - margin, mean + margin)

    def find_largest(self, axis: int, sign: int) -> tuple[str, int]:
        """Find where `sign` (1 or -1) times the curve of an axis is largest.

        Returns a word and a point:

        - INSIDE, with the point nearest to a top between the ends that is more than chance above both of them;
        - ENDS, with the point nearest to a bottom between the ends that is more than chance below both of them;
        - else RISING or FALLING, with the point at the end where the curve is largest.
        """
        columns = self._get_columns(axis)
        scaled = self._blocks[axis][:, 0]
        slope, bend = self._weights[columns]
        low, high = int(np.argmin(scaled)), int(np.argmax(scaled))
        turn = -slope / (2 * bend) if bend else math.inf
        point = int(np.argmin(np.abs(scaled - turn)))
        is_inside = scaled[low] < turn < scaled[high] and point not in (low, high)
        if is_inside and all(excludes_zero(self.compare(axis, point, end)[1]) for end in (low, high)):
            return INSIDE if sign * bend < 0 else ENDS, point
        return (RISING, high) if sign * self.compare(axis, high, low)[0] >= 0 else (FALLING, low)

    def _get_columns(self, axis: int) -> slice:
        return slice(int(self._ends[axis]) - self._blocks[axis].shape[1], int(self._ends[axis]))
