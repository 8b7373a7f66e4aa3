"""How much of the variance each factor explains, and each pair of factors together.

The sums of squares are those of type II: a factor beside all others, a pair of factors beside all factors and all
other pairs. Of a complete factorial, they add up to the total. A factor is tested against its interactions with the
replicates, if they are more than noise (p <= 0.5), otherwise against the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final

import numpy as np
from scipy import special

from sweeper.statistics.codes import Codes, Numbers, renumber
from sweeper.statistics.paired import POOLING_LEVEL
from sweeper.statistics.response_curve import Curve

_MAX_COLUMNS: Final = 500  # of all pairs of factors: an analysis with more takes seconds
_TOLERANCE: Final = 1e-9  # relative to the largest: smaller numbers are errors of rounding

Term = tuple[int, ...]  # the index of a factor, or of two


@dataclass(frozen=True, slots=True)
class Factor:
    """An axis as numbers: the index of its value in each trial. Replicates stand for many others, such as seeds."""

    name: str
    codes: Codes
    levels: int
    is_replicate: bool = False


@dataclass(frozen=True, slots=True)
class TermShare:
    """The share of the variance that a factor explains, or that two factors explain only together.

    `sum_of_squares` has `df` degrees of freedom, `p` is the p-value of its F test with `error_df`. `low` and `high` are
    the 95 % interval of the share by the noncentral F distribution, with Patnaik's approximation (Biometrika 36, 1949,
    202-232).
    """

    term: Term
    share: float
    low: float
    high: float
    p: float
    sum_of_squares: float
    df: int
    f: float
    error_df: float


@dataclass(frozen=True, slots=True)
class VarianceShares:
    """The shares of the terms that explain anything beside the others. `rest` is the share of the residual.

    The residual includes pairs of factors with too many combinations.
    """

    terms: tuple[TermShare, ...]
    rest: float
    rest_df: int


class VarianceModel:
    """The analysis of variance of some trials. Metrics that are known for the same trials share its decompositions."""

    def __init__(self, factors: Sequence[Factor | Curve], least_rest: int = 1) -> None:
        """`factors` have the values of these trials only. Their pairs leave the rest `least_rest` degrees of freedom.

        A curve has two columns, of which only the straight one is paired with other factors.
        """
        columns: dict[Term, Numbers] = {(index,): code_factor(factor) for index, factor in enumerate(factors)}
        columns = {term: column for term, column in columns.items() if column.shape[1]}
        self._trials = len(next(iter(columns.values()))) if columns else 0
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

    def share_out(self, numbers: Numbers) -> VarianceShares | None:
        """Share out the variance of one number for each trial. None if it is 0, or the trials leave no rest."""
        values = numbers - numbers.mean() if len(numbers) else numbers
        total = float(values @ values)
        if total <= (_TOLERANCE * float(np.max(np.abs(numbers), initial=0.0))) ** 2 * len(values):
            return None
        projections = self._design.T @ values
        explained, rank = self._explain(self._terms, projections)
        rest_df = self._trials - 1 - rank
        if rest_df < 1:
            return None
        rest = total - explained if total - explained > _TOLERANCE * total else 0.0
        sums = {term: self._compute_sum_of_squares(term, projections) for term in self._terms}
        terms = tuple(
            _test_term(term, sums[term], total, *_choose_error(term, sums, self._replicates, rest / rest_df, rest_df))
            for term in self._terms
            if sums[term][1]
        )
        return VarianceShares(terms, rest / total, rest_df)

    def share_out_whole(self, index: int, numbers: Numbers) -> TermShare | None:
        """The share that a factor explains alone or in pairs, beside all that is explained without it.

        `high` bounds what it would explain if it varied independently of the other factors: the upper bound of its own
        term is divided by the part of its columns that the others leave (the smallest, 1 - R^2 of its canonical
        correlation with them). None if the trials are too few for all its pairs, or if the others leave nothing.
        """
        shares = self.share_out(numbers)
        own = [term for term in self._terms if index in term]
        rest = [term for term in self._terms if index not in term]
        mains = [term for term in rest if len(term) == 1]
        main = None if shares is None else next((share for share in shares.terms if share.term == (index,)), None)
        if shares is None or main is None or len(own) != 1 + len(mains):
            return None
        values = numbers - numbers.mean()
        projections, total = self._design.T @ values, float(values @ values)
        explained, rank = self._explain(self._terms, projections)
        without, rest_rank = self._explain(rest, projections)
        left = self._measure_left([(index,)], mains)
        if rank == rest_rank or left <= _TOLERANCE:
            return None
        found = max(explained - without, 0.0), rank - rest_rank
        whole = _test_term((index,), found, total, shares.rest * total / shares.rest_df, shares.rest_df)
        return replace(whole, high=min(max(whole.high, main.high / left), 1.0))

    def _measure_left(self, terms: Sequence[Term], others: Sequence[Term]) -> float:
        """The smallest part of the variance of any mixture of the columns of some terms that the others leave."""
        bases = [
            np.linalg.qr(self._design[:, np.concatenate([self._columns_of[term] for term in group])])[0]
            for group in (terms, others)
            if group
        ]
        return 1 - float(np.linalg.norm(bases[0].T @ bases[1], 2)) ** 2 if others else 1.0

    def _explain(self, terms: Sequence[Term], projections: Numbers) -> tuple[float, int]:
        """The sum of squares that these terms explain together, and its degrees of freedom."""
        if not terms:
            return 0.0, 0
        columns, key = np.concatenate([self._columns_of[term] for term in terms]), tuple(sorted(terms))
        columns.sort()
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


def code_factor(factor: Factor | Curve) -> Numbers:
    """The columns of a factor for least squares: a curve has its own, other factors one for each value but the last.

    A trial has 1 in the column of its value, -1 in all columns if its value is the last, and otherwise 0.
    """
    if isinstance(factor, Curve):
        return factor.columns
    codes = renumber(factor.codes)
    levels = int(codes.max(initial=0)) + 1
    table = np.vstack([np.eye(levels - 1), np.full((1, levels - 1), -1.0)])
    result: Numbers = table[codes]
    return result


def _choose_pairs(columns: Mapping[Term, Numbers], trials: int, most: int) -> dict[Term, Numbers]:
    """The columns of the pairs of factors, without the pairs that have too many; at most `most` in all."""
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


def _choose_error(
    term: Term, sums: Mapping[Term, tuple[float, int]], replicates: set[int], rest: float, rest_df: int
) -> tuple[float, float]:
    """The mean square against which a term is tested, and its degrees of freedom (Satterthwaite's)."""
    if len(term) > 1 or term[0] in replicates:
        return rest, rest_df
    found = [sums.get(tuple(sorted((term[0], other))), (0.0, 0)) for other in replicates]
    squares = [(total / df, df) for total, df in found if df]
    kept = [(mean, df) for mean, df in squares if rest == 0 or special.fdtrc(df, rest_df, mean / rest) <= POOLING_LEVEL]
    terms = [*kept, *([((1 - len(kept)) * rest, rest_df)] if len(kept) != 1 else [])]
    error = max(sum(mean for mean, _ in terms), rest)
    spread = sum(mean**2 / df for mean, df in terms)
    return error, (error**2 / spread if spread else float(rest_df))


def _test_term(term: Term, found: tuple[float, int], total: float, error: float, error_df: float) -> TermShare:
    squares, df = found
    share = squares / total
    if squares <= _TOLERANCE * total or error <= 0:
        known = squares > _TOLERANCE * total
        ratio = np.inf if known else 0.0
        return TermShare(term, share, share, share, float(not known), squares, df, float(ratio), error_df)
    ratio = squares / df / error
    bounds = [_find_noncentrality(ratio, df, error_df, chance) * error for chance in (0.975, 0.025)]
    low, high = (bound / (bound + total - squares) if bound else 0.0 for bound in bounds)
    p = float(special.fdtrc(df, error_df, ratio))
    return TermShare(term, share, min(low, share), max(high, share), p, squares, df, ratio, error_df)


def _find_noncentrality(ratio: float, df: int, error_df: float, chance: float) -> float:
    """The noncentrality for which an F statistic is at most `ratio` with this chance; 0 if there is none."""

    def compute_chance(noncentrality: float) -> float:
        scale = (df + noncentrality) / df
        return float(special.fdtr((df + noncentrality) ** 2 / (df + 2 * noncentrality), error_df, ratio / scale))

    low, high = 0.0, max(df * ratio, 1.0)
    if compute_chance(low) < chance:
        return 0.0
    while compute_chance(high) > chance:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if compute_chance(middle) > chance else (low, middle)
    return high
