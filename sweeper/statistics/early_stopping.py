"""Which points of a search are clearly worse than another one, so that more of their trials would be a waste.

The model is `value = point + combination + noise`: each point is tried on the same combinations, such as prompts and
seeds. Two points are compared over the combinations that both have, so an easy prompt helps neither. The variance of
the noise comes from the residuals of all points together. So even one shared combination can decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from scipy import special

from sweeper.statistics.codes import Numbers

ERROR_RATE: Final = 0.01  # the chance that the best point is dropped, over all looks and rivals, where noise is even
_ROUNDING: Final = 1e-12  # of the largest value: a smaller deviation is an error of rounding

Flags: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]


def find_clearly_worse(values: Sequence[Numbers], maximize: Sequence[bool], looks: int | None = None) -> list[int]:
    """Return the unfinished points that are clearly worse than another one. A finished point has a number everywhere.

    `values` has one table for each objective: a row for each point, a column for each combination, and NaN for a trial
    that did not run or has no number. `maximize` says for each objective whether larger is better. With several
    objectives, a point is dropped only if its rival is clearly better in each of them.

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
