"""How much of the variance each factor explains, and each pair of factors together.

The sums of squares are those of type II: a factor beside all others, a pair of factors beside all factors and all
other pairs. Of a complete factorial, they add up to the total. A factor is tested against its interactions with the
replicates, if they are more than noise (p <= 0.5), otherwise against the rest.

An axis of numbers may be a curve, a line and its bend, as for the points of a search. With a factor for each axis
without numbers, such curves are a response surface (Box & Wilson, Journal of the Royal Statistical Society B 13, 1951,
1-45).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import Final

import numpy as np
from scipy import special

from sweeper.answers.render import NOT_IN_JSON
from sweeper.statistics.codes import LEVEL, Codes, Numbers, renumber
from sweeper.statistics.paired import (
    Interval,
    MeanSquare,
    add_errors,
    bisect,
    compute_studentized_range,
    excludes_zero,
    select_errors,
)

_MAX_COLUMNS: Final = 500  # of all pairs of factors: an analysis with more takes seconds
_TOLERANCE: Final = 1e-9  # relative to the largest: smaller numbers are errors of rounding
LOG_RATIO: Final = 100  # of the largest to the smallest number: from here on, the curve is one of the logarithms
INSIDE, RISING, FALLING, ENDS = "inside", "rising", "falling", "ends"  # where the largest value of a curve is

Term = tuple[int, ...]  # the index of a factor, or of two


@dataclass(frozen=True, slots=True)
class Factor:
    """An axis as numbers: the index of its value in each trial. Replicates stand for many others, such as seeds."""

    name: str
    codes: Codes
    is_replicate: bool = False


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


@dataclass(frozen=True, slots=True)
class AxisShare:
    """The share (0 to 1) of a metric's variance that an axis explains, or that two explain only together.

    `p` is the p-value of its F test. `low` and `high` are the 95 % interval of the share by the noncentral F
    distribution, with Patnaik's approximation (Biometrika 36, 1949, 202-232).
    """

    axes: tuple[str, ...]
    share: float
    low: float
    high: float
    p: float = field(metadata=NOT_IN_JSON)


@dataclass(frozen=True, slots=True)
class VarianceShares:
    """The shares of the terms that explain anything beside the others. `rest` is the share of the residual.

    The residual includes pairs of factors with too many combinations. `rest` is None, and there are no terms, if the
    numbers are all equal, or the trials leave no rest.
    """

    terms: tuple[AxisShare, ...] = ()
    rest: float | None = None

    def get(self, *axes: str) -> AxisShare | None:
        return next((term for term in self.terms if term.axes == axes), None)


class VarianceModel:
    """The analysis of variance of some trials. Metrics that are known for the same trials share its decompositions."""

    def __init__(self, factors: Sequence[Factor | Curve], least_rest: int = 1) -> None:
        """`factors` have the values of these trials only. Their pairs leave the rest `least_rest` degrees of freedom.

        A curve has two columns, of which only the straight one is paired with other factors.
        """
        columns: dict[Term, Numbers] = {(index,): code_factor(factor) for index, factor in enumerate(factors)}
        columns = {term: column for term, column in columns.items() if column.shape[1]}
        self._trials = len(next(iter(columns.values()))) if columns else 0
        self._names = [factor.name for factor in factors]
        self._replicates = {i for i, factor in enumerate(factors) if isinstance(factor, Factor) and factor.is_replicate}
        paired = {
            term: column[:, :1] if isinstance(factors[term[0]], Curve) else column for term, column in columns.items()
        }
        main = sum(column.shape[1] for column in columns.values())
        columns |= _choose_pairs(paired, self._trials, self._trials - 1 - least_rest - main)
        self._terms = tuple(columns)
        self._design = np.hstack(list(columns.values())) if columns else np.empty((self._trials, 0))
        self._design -= self._design.mean(axis=0)
        self._products = self._design.T @ self._design
        ends = np.cumsum([column.shape[1] for column in columns.values()])
        self._columns_of = {
            term: np.arange(end - column.shape[1], end)
            for (term, column), end in zip(columns.items(), ends, strict=True)
        }
        self._decompositions: dict[tuple[Term, ...], tuple[Numbers, Numbers]] = {}

    def share_out(self, numbers: Numbers) -> VarianceShares:
        """Share out the variance of one number for each trial."""
        values = numbers - numbers.mean() if len(numbers) else numbers
        total = float(values @ values)
        if total <= (_TOLERANCE * float(np.max(np.abs(numbers), initial=0.0))) ** 2 * len(values):
            return VarianceShares()
        projections = self._design.T @ values
        explained, rank = self._explain(self._terms, projections)
        rest_df = self._trials - 1 - rank
        if rest_df < 1:
            return VarianceShares()
        left = total - explained if total - explained > _TOLERANCE * total else 0.0
        rest = MeanSquare(left / rest_df, rest_df)
        sums = {term: self._compute_sum_of_squares(term, projections) for term in self._terms}
        terms = (
            self._test_term(term, found, total, self._choose_error(term, sums, rest))
            for term, found in sums.items()
            if found[1]
        )
        return VarianceShares(tuple(terms), left / total)

    def share_out_whole(self, index: int, numbers: Numbers) -> AxisShare | None:
        """The share that a factor explains alone or in pairs, beside all that is explained without it.

        `high` bounds what it would explain if it varied independently of the other factors: the upper bound of its own
        term is divided by the part of its columns that the others leave (the smallest, 1 - R^2 of its canonical
        correlation with them). None if the trials are too few for all its pairs, or if the others leave nothing.
        """
        shares = self.share_out(numbers)
        rest = [term for term in self._terms if index not in term]
        mains = [term for term in rest if len(term) == 1]
        main = shares.get(self._names[index])
        if shares.rest is None or main is None or len(self._terms) - len(rest) != 1 + len(mains):
            return None
        values = numbers - numbers.mean()
        projections, total = self._design.T @ values, float(values @ values)
        explained, rank = self._explain(self._terms, projections)
        without, rest_rank = self._explain(rest, projections)
        bases = [np.linalg.qr(self._design[:, self._list_columns(terms)])[0] for terms in ([(index,)], mains) if terms]
        left = 1 - float(np.linalg.norm(bases[0].T @ bases[1], 2)) ** 2 if mains else 1.0
        if rank == rest_rank or left <= _TOLERANCE:
            return None
        found = max(explained - without, 0.0), rank - rest_rank
        rest_df = self._trials - 1 - rank
        whole = self._test_term((index,), found, total, MeanSquare(shares.rest * total / rest_df, rest_df))
        return replace(whole, high=min(max(whole.high, main.high / left), 1.0))

    def _list_columns(self, terms: Sequence[Term]) -> Codes:
        return np.sort(np.concatenate([self._columns_of[term] for term in terms]))

    def _explain(self, terms: Sequence[Term], projections: Numbers) -> tuple[float, int]:
        """The sum of squares that these terms explain together, and its degrees of freedom."""
        if not terms:
            return 0.0, 0
        columns, key = self._list_columns(terms), tuple(sorted(terms))
        if key not in self._decompositions:
            weights, vectors = np.linalg.eigh(self._products[np.ix_(columns, columns)])
            kept = weights > _TOLERANCE * weights[-1]
            self._decompositions[key] = (weights[kept], vectors[:, kept])
        weights, vectors = self._decompositions[key]
        return float(((vectors.T @ projections[columns]) ** 2 / weights).sum()), len(weights)

    def _compute_sum_of_squares(self, term: Term, projections: Numbers) -> tuple[float, int]:
        """What a term explains beside the other terms of no higher order, and its degrees of freedom."""
        others = [other for other in self._terms if other != term and len(other) <= len(term)]
        rest = [column for other in others for column in self._columns_of[other]]
        if not rest or np.abs(self._products[np.ix_(self._columns_of[term], rest)]).max() <= _TOLERANCE:
            return self._explain([term], projections)  # orthogonal, as in a complete factorial
        whole, rank = self._explain([*others, term], projections)
        part, other_rank = self._explain(others, projections)
        return max(whole - part, 0.0), rank - other_rank

    def _choose_error(self, term: Term, sums: Mapping[Term, tuple[float, int]], rest: MeanSquare) -> MeanSquare:
        """The mean square against which a term is tested."""
        if len(term) > 1 or term[0] in self._replicates:
            return rest
        found = [sums.get((min(term[0], other), max(term[0], other)), (0.0, 0)) for other in self._replicates]
        return add_errors(select_errors([MeanSquare(total / df, df) for total, df in found if df], rest), rest)

    def _test_term(self, term: Term, found: tuple[float, int], total: float, error: MeanSquare) -> AxisShare:
        squares, df = found
        names, share = tuple(self._names[index] for index in term), squares / total
        if squares <= _TOLERANCE * total or error.square <= 0:
            return AxisShare(names, share, share, share, float(squares <= _TOLERANCE * total))
        ratio = squares / df / error.square
        bounds = [_find_noncentrality(ratio, df, error.df, chance) * error.square for chance in (0.975, 0.025)]
        low, high = (bound / (bound + total - squares) if bound else 0.0 for bound in bounds)
        return AxisShare(names, share, min(low, share), max(high, share), float(special.fdtrc(df, error.df, ratio)))


def code_factor(factor: Factor | Curve) -> Numbers:
    """The columns of a factor for least squares: a curve has its own, other factors one for each value but the last.

    A trial has 1 in the column of its value, -1 in all columns if its value is the last, and otherwise 0.
    """
    if isinstance(factor, Curve):
        return factor.columns
    codes = renumber(factor.codes)
    levels = int(codes.max(initial=0)) + 1
    table = np.vstack([np.eye(levels - 1), np.full((1, levels - 1), -1.0)])
    return np.asarray(table[codes])


def _choose_pairs(columns: Mapping[Term, Numbers], trials: int, most: int) -> dict[Term, Numbers]:
    """The columns of the pairs of factors, those of the smallest pairs first; at most `most` columns in all."""
    pairs = [
        (term + other, columns[term].shape[1] * columns[other].shape[1]) for term, other in combinations(columns, 2)
    ]
    chosen, count = {}, 0
    for pair, width in sorted(pairs, key=lambda pair: pair[1]):
        if count + width > min(_MAX_COLUMNS, most):
            continue
        count += width
        this, other = columns[pair[:1]], columns[pair[1:]]
        chosen[pair] = (this[:, :, None] * other[:, None, :]).reshape(trials, width)
    return dict(sorted(chosen.items()))


def _find_noncentrality(ratio: float, df: int, error_df: float, chance: float) -> float:
    """The noncentrality for which an F statistic is at most `ratio` with this chance; 0 if there is none."""

    def is_above(noncentrality: float) -> bool:
        scale = (df + noncentrality) / df
        of_central = (df + noncentrality) ** 2 / (df + 2 * noncentrality)
        return bool(special.fdtr(of_central, error_df, ratio / scale) <= chance)

    return 0.0 if is_above(0.0) else bisect(is_above, max(df * ratio, 1.0))


def adjust_p_values(p_values: Sequence[float]) -> list[float]:
    """The p-values of one family, adjusted by Holm's method (Scandinavian Journal of Statistics 6, 1979, 65-70).

    The chance of any false alarm in the family is then at most the level to which an adjusted p-value is compared.
    (statsmodels' `multipletests` does the same, but takes a second to import and collects all garbage at each call.)
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, (p, index) in enumerate(sorted((p, index) for index, p in enumerate(p_values))):
        adjusted[index] = highest = max(highest, min(1.0, p * (len(p_values) - rank)))
    return adjusted


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
