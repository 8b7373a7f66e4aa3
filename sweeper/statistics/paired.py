"""Compare the values of an axis over matched trials, which are equal in all other axes.

The other axes are of three kinds. *Settings*, such as cfg, are fixed: a difference is its mean over them. *Seeds* stand
for all others. *Prompts* are asked about in two ways (narrow and broad inference: McLean, Sanders & Stroup, American
Statistician 45, 1991, 54-64): "on these prompts", and from three prompts on "for other prompts too". With few prompts,
the second interval says little. With y of value v, prompt p and seed s (the mean over the settings), the error of a
difference is, as in the analysis of variance,

    these prompts:   MS(axis x seed), pooled with MS(axis x seed x prompt) if its F test has p > 0.5
    other prompts:   MS(axis x prompt) + MS(axis x seed) - MS(axis x seed x prompt), each pooled likewise, with
                     Satterthwaite's degrees of freedom (Biometrics Bulletin 2, 1946, 110-114)

On the level for pooling: Bozivich, Bancroft & Hartley, Annals of Mathematical Statistics 27, 1956, 1017-1043. Where
trials are missing, each pair of values has its own matched trials, and the mean squares are means over the pairs of
values, each divided by what it would be for noise alone. The intervals of all pairs of an axis hold together
(Tukey-Kramer: Kramer, Biometrics 12, 1956, 307-310; Hayter, Annals of Statistics 12, 1984, 61-75). Two values *differ*
if their interval excludes 0; nothing else decides it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import combinations
from typing import Any, Final, TypeAlias

import numpy as np
from scipy import sparse, special

from sweeper.answers.render import json_keys, json_name
from sweeper.statistics.codes import FEWEST_PROMPTS, Codes, Numbers, Replicates, renumber

# With 0.25, one in ten sweeps has a false alarm if a seed acts alike on all prompts (tests/benchmarks/effects.py).
POOLING_LEVEL: Final = 0.5
FEWEST_OF_SLOPE: Final = 4  # values: three are three values, without a line or a curve between them
_LEAST_KNOWN: Final = 0.25  # of the pairs must tell their noise, or the settings take the place of the replicates
_NOTHING: Final = 1e-9  # a sum of squares that is 0 but for rounding
_ROUNDING: Final = 1e-12  # of the largest number: a smaller difference is an error of rounding
_STEPS: Final = 60  # of the bisection: more digits than a number has

Interval: TypeAlias = tuple[float, float]
_Average: TypeAlias = Callable[[Codes, Codes], "MeanSquare | None"]  # of the groups, within the inner ones


def excludes_zero(interval: Interval | None) -> bool:
    return interval is not None and not interval[0] <= 0 <= interval[1]


@dataclass(frozen=True, slots=True)
class ValueComparison:
    """How much higher a value is than another one, each given by its index (int), or in an answer by its name (str).

    `mean` is the mean over `pairs` of matched trials, of which `higher` are above 0 and `lower` below; of a search,
    `pairs` is the number of points, and both are 0. `interval` is for these prompts, with `df` degrees of freedom; None
    if a single pair is all there is. The intervals of all axes of a metric hold together with 95 % confidence, and
    `differs` says that this one excludes 0. `others` is the interval for other prompts too; None if there are too few
    prompts to say.
    """

    value: Any
    other: Any
    higher: int
    lower: int
    pairs: int
    mean: float = field(metadata=json_name("difference"))
    interval: Interval | None = field(default=None, metadata=json_keys(
        low=lambda ends: ends and ends[0], high=lambda ends: ends and ends[1], differs=excludes_zero))  # fmt: skip
    df: float = 0.0
    others: Interval | None = field(default=None, metadata=json_keys(
        other_low=lambda ends: ends and ends[0], other_high=lambda ends: ends and ends[1]))  # fmt: skip

    @property
    def differs(self) -> bool:
        return excludes_zero(self.interval)


@dataclass(frozen=True, slots=True)
class ValueComparisons:
    """All pairs of values of an axis. `slope`: the interval of the change for 1 more of an axis of numbers.

    `reach`: the smallest difference that twice as many replicates would tell from 0, with the same noise; None if that
    is not known.
    """

    pairs: tuple[ValueComparison, ...] = ()
    slope: Interval | None = None
    reach: float | None = None


@dataclass(frozen=True, slots=True)
class MeanSquare:
    """A mean square, such as that of the difference of one pair, and its degrees of freedom."""

    square: float
    df: float


def compare_values(
    table: Numbers, replicates: Replicates, level: float = 0.95, numbers: Sequence[float] | None = None
) -> ValueComparisons:
    """Compare each pair of values that has matched trials.

    `table[row, value]` is the number of a trial, NaN if it is missing. All intervals hold together with this level of
    confidence. `numbers` are the values, if they are numbers: of four or more, the slope takes half of what is left.
    """
    pairs = list(_find_pairs(table))
    if not pairs:
        return ValueComparisons()
    values = 1 + len({other for _, other, _, _ in pairs})
    line = numbers if numbers and len(numbers) >= FEWEST_OF_SLOPE and len(pairs) == math.comb(len(numbers), 2) else None
    level = (1 + level) / 2 if line else level
    average = partial(_average, [(used, difference) for _, _, used, difference in pairs], values - 1)
    error, broad = _find_error(average, replicates), _find_broad_error(average, replicates)
    found = tuple(
        ValueComparison(
            value, other, int((difference > 0).sum()), int((difference < 0).sum()), len(difference),
            mean := float(difference.mean()), _make_interval(mean, error, len(difference), values, level),
            error.df if error else 0.0, _make_interval(mean, broad, len(difference), values, level),
        )
        for value, other, _, difference in pairs
    )  # fmt: skip
    if error is None:
        return ValueComparisons(found)
    slope = _find_slope(found, line, error, level) if line else None
    many = sorted(pair.pairs for pair in found)[len(found) // 2]
    twice = MeanSquare(error.square, 2 * error.df + values - 1)
    return ValueComparisons(found, slope, _compute_margin(twice, 2 * many, values, level))


def compare_means(samples: Sequence[Numbers], level: float = 0.95) -> ValueComparisons:
    """Compare values that have seeds of their own, so that no trials match: by the means of their seeds.

    `samples` has one mean for each seed of a value. The variance and the degrees of freedom of each pair are its own
    (Welch, Biometrika 34, 1947, 28-35; of several pairs, Games & Howell, Journal of Educational Statistics 1, 1976,
    113-125).
    """
    found = []
    for value, other in combinations(range(len(samples)), 2):
        own, against = samples[value], samples[other]
        mean, above = float(own.mean() - against.mean()), own[:, None] - against[None, :]
        parts = [MeanSquare(float(s.var(ddof=1)) / len(s), len(s) - 1) for s in (own, against) if len(s) > 1]
        is_known = len(parts) == 2 and any(part.square for part in parts)
        error = add_errors(parts, MeanSquare(0.0, 1.0)) if is_known else None
        higher, lower = int((above > 0).sum()), int((above < 0).sum())
        interval = _make_interval(mean, error, 1, len(samples), level)
        found.append(
            ValueComparison(value, other, higher, lower, above.size, mean, interval, error.df if error else 0.0)
        )
    return ValueComparisons(tuple(found))


def _find_pairs(table: Numbers) -> Any:
    """For each pair of values with matched trials: both, the rows, and the differences."""
    known = np.isfinite(table)
    smallest = _ROUNDING * float(np.max(np.abs(table), initial=0.0, where=known))
    for value, other in combinations(range(table.shape[1]), 2):
        used = np.flatnonzero(known[:, value] & known[:, other])
        if len(used):
            difference = table[used, value] - table[used, other]
            difference[np.abs(difference) < smallest] = 0.0
            yield value, other, used, difference


def _find_error(average: _Average, replicates: Replicates) -> MeanSquare | None:
    """The error of a difference on these prompts. Without replicates, the settings take their place."""
    settings, prompts, seeds = replicates.settings, replicates.prompts, replicates.seeds
    if seeds is None:
        seeds, prompts = prompts, None
    none = np.zeros_like(settings)
    fixed = [settings] if prompts is None else [renumber(settings, prompts), settings]
    for inner in (*fixed, none):
        if seeds is not None and (error := average(inner, seeds)) is not None:
            whole = None if prompts is None else average(inner, renumber(prompts, seeds))
            return error if whole is None else _pool(whole, [error])
    return average(none, np.arange(len(settings)))


def _find_broad_error(average: _Average, replicates: Replicates) -> MeanSquare | None:
    """The error of a difference for other prompts too; None if there are too few of them."""
    settings, prompts, seeds = replicates.settings, replicates.prompts, replicates.seeds
    if prompts is None or len(np.unique(prompts)) < FEWEST_PROMPTS:
        return None
    if seeds is None:
        return _find_error(average, replicates)
    for inner in (settings, np.zeros_like(settings)):
        by_prompt, by_seed, whole = (average(inner, codes) for codes in (prompts, seeds, renumber(prompts, seeds)))
        if by_prompt and by_seed and whole:
            return _pool(whole, [by_prompt, by_seed])
    return None


def _average(
    differences: Sequence[tuple[Codes, Numbers]], axis_df: int, inner: Codes, groups: Codes
) -> MeanSquare | None:
    """The mean over the pairs of values of the mean square between groups, within the `inner` groups.

    `differences` has the rows and the differences of each pair. Returns None if too few pairs tell it.
    """
    both = renumber(inner, groups)
    weights: dict[bytes, tuple[float, float]] = {}
    found = []
    for used, difference in differences:
        within, of = inner[used], groups[used]
        if (key := used.tobytes()) not in weights:
            weights[key] = _weigh(within, of, both[used])
        known, df = weights[key]
        if known > _LEAST_KNOWN * len(used):
            residuals = difference - (np.bincount(within, difference) / np.maximum(np.bincount(within), 1))[within]
            sums = np.bincount(of, residuals)
            found.append((float(sums @ sums) / known, df))
    if not found:
        return None
    squares, dfs = np.array(found).T
    return MeanSquare(float(squares.mean()), max(axis_df * float(dfs.mean()), 1.0))


def _weigh(inner: Codes, groups: Codes, both: Codes) -> tuple[float, float]:
    """The expected sum of squares between groups within the inner groups, for noise of variance 1, and its df.

    The sums of the groups have the covariance matrix M = diag(n) - N'N, where N has the numbers of pairs of each inner
    group and group, divided by the root of those of the inner group. The sum of squares has the expectation tr(M) and
    Satterthwaite's (tr M)^2 / tr(M^2) degrees of freedom.
    """
    counts = np.bincount(both)[both]
    known = len(groups) - float((counts / np.bincount(inner)[inner]).sum())
    first = np.unique(both, return_index=True)[1]
    rows, columns = renumber(inner[first]), renumber(groups[first])
    sizes, parts = np.bincount(columns, counts[first]), counts[first] / np.sqrt(np.bincount(inner)[inner[first]])
    if math.prod(shape := (int(rows.max()) + 1, len(sizes))) < 10_000:  # a sparse matrix takes a millisecond
        scaled: Any = np.zeros(shape)
        scaled[rows, columns] = parts
    else:
        scaled = sparse.coo_array((parts, (rows, columns)), shape).tocsr()
    product = scaled @ scaled.T if scaled.shape[0] < scaled.shape[1] else scaled.T @ scaled  # both have the same norm
    squares = float((sizes**2).sum() - 2 * sizes @ np.bincount(columns, parts**2) + (product * product).sum())
    return known, known**2 / squares if squares > _NOTHING else 0.0


def _pool(whole: MeanSquare, parts: Sequence[MeanSquare]) -> MeanSquare:
    """The error from the mean square of all cells and those of its parts: a part that is not more than noise is noise.

    The parts that are more add up, and what they have in common, the rest, is subtracted.
    """

    def find_rest(of: Sequence[MeanSquare]) -> MeanSquare | None:
        df = whole.df - sum(part.df for part in of)
        square = whole.square * whole.df - sum(part.square * part.df for part in of)
        return MeanSquare(max(square, 0.0) / df, df) if df > _NOTHING else None

    rest = find_rest(parts)
    if rest is None:
        return MeanSquare(sum(part.square for part in parts), min(part.df for part in parts))
    kept = select_errors(parts, rest)
    return add_errors(kept, find_rest(kept) or rest)


def select_errors(parts: Sequence[MeanSquare], rest: MeanSquare) -> list[MeanSquare]:
    """The mean squares that are more than noise."""
    return [
        part
        for part in parts
        if not rest.square or special.fdtrc(part.df, rest.df, part.square / rest.square) <= POOLING_LEVEL
    ]


def add_errors(parts: Sequence[MeanSquare], noise: MeanSquare) -> MeanSquare:
    """The sum of mean squares that each contain the noise, which counts once. Its df are Satterthwaite's."""
    terms = [*parts, MeanSquare((1 - len(parts)) * noise.square, noise.df)]
    square = max(sum(term.square for term in terms), noise.square)
    spread = sum(term.square**2 / term.df for term in terms)
    return MeanSquare(square, max(square**2 / spread, 1.0) if spread else noise.df)


def _compute_margin(error: MeanSquare, pairs: int, values: int, level: float) -> float:
    return compute_studentized_range(level, values, error.df) * math.sqrt(error.square / (2 * pairs))


def _make_interval(mean: float, error: MeanSquare | None, pairs: int, values: int, level: float) -> Interval | None:
    if error is None:
        return None
    margin = _compute_margin(error, pairs, values, level)
    return mean - margin, mean + margin


def _find_slope(
    pairs: Sequence[ValueComparison], numbers: Sequence[float], error: MeanSquare, level: float
) -> Interval:
    """The interval of the slope of the means over the numbers (the linear contrast of the analysis of variance)."""
    means = np.zeros(len(numbers))
    for pair in pairs:
        means[[pair.value, pair.other]] += np.array([pair.mean, -pair.mean]) / len(numbers)
    centred = np.array(numbers) - np.mean(numbers)
    squares, count = float(centred @ centred), len(pairs) / sum(1 / pair.pairs for pair in pairs)
    slope = float(centred @ means) / squares
    margin = _compute_margin(MeanSquare(error.square / squares, error.df), round(count), 2, level)
    margin /= math.sqrt(2)  # the margin of a difference of two means, of which the slope has one
    return slope - margin, slope + margin


@cache
def compute_studentized_range(level: float, values: int, df: float) -> float:
    """Return the quantile of the studentized range of this many means with `df` degrees of freedom.

    Of two means it is the quantile of Student's t times the root of 2. Otherwise the distribution is the integral of
    that of the range over that of the standard deviation (Lund & Lund, Applied Statistics 32, 1983, 204-210). Five
    digits agree with `scipy.stats.studentized_range`, which takes a second to import and 0.3 s for each quantile.
    """
    if values == 2:
        return math.sqrt(2) * float(special.stdtrit(df, (1 + level) / 2))
    ranges, chances = _tabulate_range(values)
    nodes, weights = _get_nodes()
    # The standard deviation, as a multiple of the true one, at equal steps of its probability in a wide grid
    spreads = np.sqrt(special.chdtri(df, 1 - nodes) / df)
    return bisect(lambda quantile: bool(np.interp(quantile * spreads, ranges, chances) @ weights >= level), 10.0)


def bisect(is_above: Callable[[float], bool], start: float) -> float:
    """The smallest positive number that is above a threshold; `start` is doubled until it is."""
    low, high = 0.0, start
    while not is_above(high):
        low, high = high, 2 * high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if is_above(middle) else (middle, high)
    return high


@cache
def _get_nodes() -> tuple[Any, Any]:
    """Nodes and weights of the integral over a probability, dense at both ends (tanh-sinh)."""
    steps = np.linspace(-3.6, 3.6, 401)
    nodes = 0.5 * (1 + np.tanh(math.pi / 2 * np.sinh(steps)))
    weights = np.cosh(steps) / np.cosh(math.pi / 2 * np.sinh(steps)) ** 2
    return nodes, weights / weights.sum()


@cache
def _tabulate_range(values: int) -> tuple[Any, Any]:
    """The chance that the range of this many normal numbers is at most each of a grid of ranges."""
    ranges, points = np.linspace(0, 16, 2001), np.linspace(-8, 8, 401)
    density = np.exp(-(points**2) / 2) / math.sqrt(2 * math.pi) * (points[1] - points[0])
    below = special.ndtr(points)
    chances = [float(values * density @ (below - special.ndtr(points - width)) ** (values - 1)) for width in ranges]
    return ranges, np.minimum(chances, 1.0)


# --- the points of a search

ERROR_RATE: Final = 0.01  # the chance that the best point is dropped, over all looks and rivals, where noise is even

Flags: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]


def find_clearly_worse(values: Sequence[Numbers], maximize: Sequence[bool], looks: int | None = None) -> list[int]:
    """Return the unfinished points that are clearly worse than another one. A finished point has a number everywhere.

    `values` has one table for each objective: a row for each point, a column for each combination, and NaN for a trial
    that did not run or has no number. `maximize` says for each objective whether larger is better. With several
    objectives, a point is dropped only if its rival is clearly better in each of them. The model is `value = point +
    combination + noise`: two points are compared over the combinations (prompts, seeds) that both have. The variance of
    the noise comes from the residuals of all points, so even one shared combination can decide.

    `looks` is how often the caller looks at a point with new combinations; by default after each one but the last. A
    rival has a number wherever the point has one. The test is one-sided, at the level `ERROR_RATE` / (rivals * looks)
    (Bonferroni). So a point that is truly as good as all others is dropped with a chance of at most `ERROR_RATE` where
    the noise is even: normal, and as large for each point. In simulations, lognormal noise dropped it in 1 to 8 %.
    """
    tables = [table if larger else -table for table, larger in zip(values, maximize, strict=True)]
    known: Flags = np.isfinite(np.stack(tables).sum(axis=0))
    tables = [np.where(known, table, np.nan) for table in tables]
    noises = [_estimate_noise(table) for table in tables]
    dropped = []
    for point in np.flatnonzero(known.any(axis=1) & ~known.all(axis=1)):
        shared = known[point]
        rivals: Flags = np.logical_and.reduce(known[:, shared], axis=1)
        rivals[point] = False
        tests = int(rivals.sum()) * (looks or known.shape[1] - 1)
        worse = rivals.copy()
        for table, (variance, df) in zip(tables, noises, strict=True):
            leads = np.where(rivals[:, None], table[:, shared] - table[point, shared], 0.0).mean(axis=1)
            error = math.sqrt(2 * variance / int(shared.sum()))
            # Without noise any lead is clear; without degrees of freedom none is.
            clear = special.stdtr(df, -leads / error) * tests <= ERROR_RATE if error else leads > 0
            worse &= clear & (df >= 1)
        if worse.any():
            dropped.append(int(point))
    return dropped


def _estimate_noise(table: Numbers) -> tuple[float, int]:
    """The variance of the residuals of the least squares fit `point + combination`, and its degrees of freedom."""
    known = np.isfinite(table)
    counts = np.maximum(known.sum(axis=1), 1)
    points, combinations = np.nonzero(known)
    design = np.eye(table.shape[1])[combinations] - (known / counts[:, None])[points]
    means = np.sum(table, axis=1, where=known) / counts
    numbers = table[known] - means[points]
    effects, _, rank, _ = np.linalg.lstsq(design.T @ design, design.T @ numbers, rcond=_ROUNDING)
    residuals = numbers - design @ effects
    residuals[np.abs(residuals) <= _ROUNDING * np.max(np.abs(table), initial=0, where=known)] = 0
    df = len(numbers) - int(known.any(axis=1).sum()) - int(rank)
    return float(residuals @ residuals) / max(df, 1), df
