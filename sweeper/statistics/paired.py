"""The mean of paired differences with its interval, where the difference itself may vary from replicate to replicate.

The two trials of a pair are equal in all axes but one. The other axes are of two kinds. *Settings*, such as cfg, are
fixed: the difference may depend on them, and the mean is over the settings that have pairs. *Replicates*, such as
seeds and prompts, are a sample of many others, and the interval is for the mean over all of them. For the difference
of setting f, prompt p and seed s the model is

    d = delta_f + a_p + b_s + c_ps + e        a, b, c and e: independent, normal, with mean 0

The variances of a, b, c and e come from the sums of squares of d around the mean of its setting, set equal to their
expectations (Searle, Casella & McCulloch, "Variance Components", 1992, chapter 5). If no pair is missing, this is the
analysis of variance: with seeds alone, a t-test of the means of the seeds; with prompts and seeds, the variance of the
mean is (MS_p + MS_s - MS_ps) / n with Satterthwaite's degrees of freedom (Biometrics Bulletin 2, 1946, 110-114). There,
a variance counts as 0 if its F test has p > 0.5 (on the level for pooling: Bozivich, Bancroft & Hartley, Annals of
Mathematical Statistics 27, 1956, 1017-1043).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any, Final

import numpy as np

from sweeper.statistics.extra_packages import load_stats_package

# With 0.25, a family would have a false alarm in up to 12 % of sweeps (tests/benchmarks/effects.py).
POOLING_LEVEL: Final = 0.5
_NOTHING: Final = 1e-9  # a sum of squares that is 0 but for rounding

Codes = np.ndarray[Any, np.dtype[np.int64]]
Numbers = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class MeanDifference:
    """The mean of paired differences, and how sure it is.

    `low` and `high` bound the interval, `p` is the two-sided p-value of "the mean is 0" with `df` degrees of freedom.
    They are None if a single pair is all there is. `levels` is the number of values of each replicate axis. The
    variance of the mean is the sum of `parts`: one for each replicate axis, which only more values of this axis
    reduce, and one that more pairs of any kind reduce.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    df: float
    pairs: int
    levels: tuple[int, ...]
    parts: tuple[float, ...]

    @property
    def standard_error(self) -> float:
        return math.sqrt(sum(self.parts))


class PairDesign:
    """The setting and the replicates of each pair, from which the uncertainty of any difference of these pairs follows.

    `settings` has the setting of each pair as a number, `replicates` holds such an array for each replicate axis.
    """

    def __init__(self, settings: Codes, replicates: Sequence[Codes]) -> None:
        self.pairs = len(settings)
        numbered = [renumber(codes) for codes in replicates]
        self.levels = tuple(int(codes.max(initial=-1)) + 1 for codes in numbered)
        # Two values say nothing about all others. If another axis has more, the mean is for these two values.
        least = 3 if max(self.levels, default=0) > 2 else 2
        self.sampled = tuple(axis for axis, count in enumerate(self.levels) if count >= least)
        self._settings = renumber(settings, *(c for axis, c in enumerate(numbered) if axis not in self.sampled))
        if not self.sampled or int(self._settings.max(initial=0)) + 1 == self.pairs:
            # No setting has a second replicate, so the settings are the only sample of the difference that there is.
            self._settings = np.zeros(self.pairs, dtype=np.int64)
        groups = {axis: numbered[axis] for axis in self.sampled}
        self._most_df = np.inf
        if len(groups) > 1:
            cells = groups[len(numbered)] = renumber(*groups.values())
            self._most_df = np.inf if least > 2 else float(cells.max())
        self._weigh_groups(groups, len(numbered))

    def _weigh_groups(self, groups: Mapping[int, Codes], cell_axis: int) -> None:
        """Compute what the sums of squares measure. Index 0 is the residual, the groups follow.

        `_expected[j, k]`: the expectation of sum of squares j for a variance of 1 of group k. `_shares`: the variance
        of the mean for a variance of 1. `_sizes`: the pairs of a group, on average. `_contains[j, k]`: whether group j
        has the differences between the groups of k, too.
        """
        setting_sizes = np.bincount(self._settings)
        tables = {axis: self._count_by_setting(codes, setting_sizes) for axis, codes in groups.items()}
        traces = {axis: self.pairs - float(table.power(2).sum()) for axis, table in tables.items()}
        # A group for each pair is the residual; one that does not vary within any setting cannot be estimated.
        axes = [axis for axis, c in groups.items() if int(c.max()) + 1 < self.pairs and traces[axis] > _NOTHING]
        expected = np.empty((len(axes) + 1, len(axes) + 1))
        expected[0] = expected[:, 0] = [self.pairs - len(setting_sizes), *(traces[axis] for axis in axes)]
        for (j, this), (k, other) in combinations_with_replacement(enumerate(axes, 1), 2):
            expected[j, k] = expected[k, j] = self._square_crossing(
                groups[this], groups[other], tables[this], tables[other]
            )
        self._axes, self._codes = axes, [groups[axis] for axis in axes]
        self._expected, self._sizes = expected, expected.diagonal() / np.maximum(expected[0], _NOTHING)
        self._shares = np.array([1, *((np.bincount(c) ** 2).sum() / self.pairs for c in self._codes)]) / self.pairs
        self._contains = np.eye(len(axes) + 1, dtype=bool)
        self._contains[0] = True
        self._contains[[index for index, axis in enumerate(axes, 1) if axis == cell_axis], 1:] = True

    def _count_by_setting(self, codes: Codes, setting_sizes: Codes) -> Any:
        """The number of pairs by setting and group, divided by the root of the number of the setting's pairs."""
        weights = 1 / np.sqrt(setting_sizes[self._settings])
        return load_stats_package("scipy.sparse").coo_array((weights, (self._settings, codes))).tocsr()

    def _square_crossing(self, this: Codes, other: Codes, one_table: Any, other_table: Any) -> float:
        """The sum of squares of the numbers of pairs in each cell of two groups, beyond the settings."""
        if this is other:  # without a large matrix: there may be thousands of groups or of settings
            sizes, rows = np.bincount(this), one_table
            product = rows @ rows.T if rows.shape[0] < rows.shape[1] else rows.T @ rows
            means = sizes * np.asarray(rows.power(2).sum(axis=0)).ravel()
            return float((sizes**2).sum() - 2 * means.sum() + product.power(2).sum())
        counts = load_stats_package("scipy.sparse").coo_array((np.ones(self.pairs), (this, other))).tocsr()
        return float((counts - one_table.T @ other_table).power(2).sum())

    def estimate(self, differences: Numbers, level: float = 0.95) -> MeanDifference:
        """The mean of the differences, one for each pair, and its interval with this level of confidence."""
        mean = float(differences.mean())
        if self._expected[0, 0] < 1:
            return MeanDifference(mean, None, None, None, 0.0, self.pairs, self.levels, ())
        squares = self._sum_squares(differences)
        if len(self._codes) == 1:
            variances, df = self._estimate_by_group(squares)
        else:
            variances, df = self._estimate_pooled(squares)
        parts = [0.0] * (len(self.levels) + 1)
        for index, axis in enumerate((-1, *self._axes)):
            parts[axis] += float(variances[index] * self._shares[index])
        special: Any = load_stats_package("scipy.special")
        error = math.sqrt(sum(parts))
        margin = float(special.stdtrit(df, (1 + level) / 2)) * error
        p = 2 * float(special.stdtr(df, -abs(mean) / error)) if error else float(mean == 0)
        return MeanDifference(mean, mean - margin, mean + margin, p, df, self.pairs, self.levels, tuple(parts))

    def _sum_squares(self, differences: Numbers) -> Numbers:
        """The sum of the squared residuals, and for each group the sum of the squared sums of residuals."""
        means = np.bincount(self._settings, differences) / np.bincount(self._settings)
        residuals = differences - means[self._settings]
        return np.array([residuals @ residuals, *((np.bincount(c, residuals) ** 2).sum() for c in self._codes)])

    def _estimate_by_group(self, squares: Numbers) -> tuple[Numbers, float]:
        """The variances and the degrees of freedom from the differences between the groups of one replicate axis."""
        variances = self._solve(squares, [0, 1])
        expected = float(self._expected[1] @ variances)
        return variances * (squares[1] / expected if expected else 0.0), self._count_df([0, 1])[1]

    def _estimate_pooled(self, squares: Numbers) -> tuple[Numbers, float]:
        used, variances = self._pool(squares)
        return variances, min(self._compute_df(self._shares, used, variances), self._most_df)

    def _pool(self, squares: Numbers) -> tuple[list[int], Numbers]:
        """The groups whose variance is more than noise, and the variances (0 for the others)."""
        special: Any = load_stats_package("scipy.special")
        used = list(range(len(squares)))
        while True:
            variances = self._solve(squares, used)
            p_values = {}
            for index in used[1:]:
                # The part of the sum of squares that the groups in this one do not have, and its expectation
                inner = [k for k in used if k != index and self._contains[index, k]]
                own = np.zeros(len(squares))
                own[index] = 1 / self._sizes[index]
                own[inner] = -1 / self._sizes[inner]
                others = np.where(np.arange(len(squares)) == index, 0.0, variances)
                expectation = own @ self._expected
                expected, found = float(expectation @ others), max(float(own @ squares), 0.0)
                below = self._compute_df(expectation, [k for k in used if k != index], others)
                above = self._count_df(used)[index]
                p_values[index] = float(special.fdtrc(above, below, found / expected)) if expected > _NOTHING else 0.0
            least = max(p_values, key=lambda index: p_values[index], default=0)
            if not p_values or p_values[least] <= POOLING_LEVEL:
                return used, variances
            used.remove(least)

    def _solve(self, squares: Numbers, used: list[int]) -> Numbers:
        """The variances, none below 0, by setting the sums of squares equal to their expectations."""
        variances: Numbers = np.zeros(len(squares))
        solution = np.linalg.lstsq(self._expected[np.ix_(used, used)], squares[used], rcond=None)[0]
        variances[used] = np.maximum(solution, 0)
        return variances

    def _count_df(self, used: list[int]) -> Numbers:
        """The degrees of freedom of each group beyond those of the groups that it contains."""
        df = self._expected[0] / self._sizes
        own = df.copy()
        for index in used[1:]:
            own[index] -= sum(df[k] for k in used if k != index and self._contains[index, k])
        own[0] = df[0] - sum(own[index] for index in used[1:])
        result: Numbers = np.maximum(own, _NOTHING)
        return result

    def _compute_df(self, weights: Numbers, used: list[int], variances: Numbers) -> float:
        """Satterthwaite's degrees of freedom of the estimate of `weights @ variances`."""
        own = self._count_df(used)[used]
        contains, sizes = self._contains[np.ix_(used, used)], self._sizes[used]
        of_squares = np.linalg.lstsq(self._expected[np.ix_(used, used)].T, weights[used], rcond=None)[0]
        mean_squares = contains.T @ (sizes * variances[used])
        terms = (contains.T @ (of_squares * sizes)) * own * mean_squares
        total, spread = float(terms.sum()), float((terms**2 / own).sum())
        return max(total**2 / spread, 1.0) if spread > 0 else float(own.sum())


def renumber(*codes: Codes) -> Codes:
    """Number the combinations of these codes from 0, without gaps."""
    combined = np.zeros(len(codes[0]), dtype=np.int64)
    for code in codes:
        _, numbers = np.unique(code, return_inverse=True)
        combined = combined * (int(numbers.max(initial=0)) + 1) + numbers
        combined = np.unique(combined, return_inverse=True)[1].astype(np.int64)
    return combined
