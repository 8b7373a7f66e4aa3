"""The studentized range: how far the largest of some means may be above the smallest by chance."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import numpy as np
from scipy import special

_STEPS: Final = 60  # of the bisection: more digits than a number has


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
    # The standard deviation, as a multiple of the true one, at equal steps of its probability in a wide grid
    spreads = np.sqrt(special.chdtri(df, 1 - _get_nodes()[0]) / df)
    weights = _get_nodes()[1]

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
