"""Compare the values of the factors of an experiment over matched trials, which need not be a complete factorial."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np

from sweeper.statistics.extra_packages import load_stats_package
from sweeper.statistics.paired import Codes, MeanDifference, Numbers, PairDesign, renumber

POWER: Final = 0.8  # the chance with which `count_needed_values` wants a difference to be found
_ROUNDING: Final = 1e-12  # of the largest number: a smaller difference is an error of rounding

Flags = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class Factor:
    """An axis as numbers: the index of its value in each trial. Replicates stand for many others, such as seeds."""

    name: str
    codes: Codes
    levels: int
    is_replicate: bool = False


@dataclass(frozen=True, slots=True)
class ValueComparison:
    """The mean difference of a value from another one, or from the mean of all others (`other` is None)."""

    value: int
    other: int | None
    difference: MeanDifference


@dataclass(frozen=True, slots=True)
class _Cells:
    """The trials grouped for one factor: those of a cell are equal in all other factors.

    `rows[cell, value]` is the index of the trial of a cell with a value of the factor, or -1 if there is none.
    """

    rows: Codes
    settings: Codes
    replicates: tuple[Codes, ...]


class Factorial:
    """The factors of some trials, of which no two are equal. Designs are kept, because many columns share them."""

    def __init__(self, factors: Sequence[Factor]) -> None:
        self.factors = tuple(factors)
        self._cells: dict[int, _Cells] = {}
        self._designs: dict[tuple[int, bytes], PairDesign] = {}

    def compare(self, index: int, numbers: Numbers, level: float = 0.95) -> list[ValueComparison]:
        """Compare each value of a factor with the mean of the others, if there are more than two, and each pair.

        `numbers` has one for each trial, NaN if it is missing. A comparison without matched trials is left out.
        """
        cells = self._get_cells(index)
        table = np.where(cells.rows < 0, np.nan, numbers[cells.rows])
        known = np.isfinite(table)
        smallest = _ROUNDING * float(np.max(np.abs(table), initial=0.0, where=known))
        found = []
        for value, other in self._list_comparisons(table.shape[1]):
            used: Flags = np.logical_and.reduce(known if other is None else known[:, [value, other]], axis=1)
            if not used.any():
                continue
            others = np.delete(table[used], value, axis=1).mean(axis=1) if other is None else table[used, other]
            differences = table[used, value] - others
            differences[np.abs(differences) < smallest] = 0.0
            found.append(ValueComparison(value, other, self._get_design(index, used).estimate(differences, level)))
        return found

    @property
    def replicates(self) -> tuple[int, ...]:
        return tuple(index for index, factor in enumerate(self.factors) if factor.is_replicate)

    def _list_comparisons(self, levels: int) -> Iterator[tuple[int, int | None]]:
        if levels > 2:
            yield from ((value, None) for value in range(levels))
        yield from combinations(range(levels), 2)

    def _get_cells(self, index: int) -> _Cells:
        if index not in self._cells:
            factor = self.factors[index]
            others = [other for other in self.factors if other is not factor]
            cell_of = renumber(*(other.codes for other in others)) if others else np.zeros_like(factor.codes)
            first = np.unique(cell_of, return_index=True)[1]
            rows = np.full((len(first), factor.levels), -1)
            rows[cell_of, factor.codes] = np.arange(len(factor.codes))
            settings = [other.codes[first] for other in others if not other.is_replicate]
            self._cells[index] = _Cells(
                rows,
                renumber(*settings) if settings else np.zeros(len(first), dtype=np.int64),
                tuple(other.codes[first] for other in others if other.is_replicate),
            )
        return self._cells[index]

    def _get_design(self, index: int, used: Flags) -> PairDesign:
        key = (index, used.tobytes())
        if key not in self._designs:
            cells = self._cells[index]
            self._designs[key] = PairDesign(cells.settings[used], [codes[used] for codes in cells.replicates])
        return self._designs[key]


def count_needed_values(difference: MeanDifference, axis: int, alpha: float, most: int) -> int | None:
    """The number of values that replicate axis `axis` needs for this difference to be found; None if `most` do not do.

    It assumes that the true difference is the one that was seen, and that new values vary as the present ones do. The
    power of the two-sided t-test at level `alpha` is then at least `POWER`.
    """
    present = difference.levels[axis]
    if not difference.standard_error or not difference.mean or present < 2:
        return None
    special: Any = load_stats_package("scipy.special")
    for needed in range(present + 1, most + 1):
        scale = present / needed
        variance = sum(
            part * (scale if index in (axis, len(difference.levels)) else 1)
            for index, part in enumerate(difference.parts)
        )
        df = (difference.df + 1) / scale - 1
        bound = float(special.stdtrit(df, 1 - alpha / 2))
        if 1 - float(special.nctdtr(df, abs(difference.mean) / variance**0.5, bound)) >= POWER:
            return needed
    return None
