"""GITS: the noise levels at which few Euler steps lose least, by dynamic programming (Chen et al. 2024,
"On the Trajectory Regularity of ODE-based Diffusion Sampling", arXiv:2405.11326).

ComfyUI carries a table that the authors found on Stable Diffusion 1.5. Here their search runs on data for which the
whole trajectory is known in closed form: a Gaussian with a power-law spectrum, as pictures have one. The levels come
out some 15 percent from that table's on the average, in the same order for every `coeff`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from sweeper.embedded.diffusion.schedules import Sampling

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

LONGEST = 20  # steps up to which the search runs; more are read off this many, as ComfyUI does
_GRID = 101  # levels to choose from, at evenly spaced times of the trained schedule
# Variances 30 k^-1.5 of 25 components: of the spectra tried, the nearest to what was found on Stable Diffusion.
_VARIANCES = 30.0 * np.geomspace(1, 1000, 25) ** -1.5


def _grid() -> Array:
    sampling = Sampling()
    return np.array([sampling.sigma(float(time)) for time in np.linspace(999, 0, _GRID)])


@lru_cache(maxsize=1)
def _costs() -> tuple[Array, Array]:
    """The grid, and what one Euler step from level i to level j misses of the exact trajectory, [i, j]."""
    grid = _grid()
    start, end = grid[:, None, None], grid[None, :, None]
    exact = np.sqrt((_VARIANCES + end**2) / (_VARIANCES + start**2))
    euler = 1 + (end - start) * start / (_VARIANCES + start**2)
    missed = np.square(euler - exact) * (_VARIANCES + start**2)
    return grid, np.sqrt(missed.mean(axis=-1))


@lru_cache(maxsize=64)
def search_levels(coeff: float, steps: int) -> tuple[float, ...]:
    """The steps + 1 levels, from the highest to the lowest of the trained schedule.

    `coeff` weighs what later steps miss against what earlier ones do: larger puts more steps at low noise. `steps` is
    2 to `LONGEST`.
    """
    grid, cost = _costs()
    last = len(grid) - 1
    best = cost[:, last].copy()  # the least that can be missed from each level on, with one step, two, ...
    choices: list[Array] = []
    for _ in range(steps - 1):
        # [i, j]: step to j, then the best from there; only downwards, and never to the end before the last step.
        total = cost[:, :last] + coeff * best[None, :last]
        total[np.arange(len(grid))[:, None] >= np.arange(last)[None]] = np.inf
        choices.append(total.argmin(axis=1))
        best = total.min(axis=1)
    indices = [0]
    for choice in reversed(choices):
        indices.append(int(choice[indices[-1]]))
    return tuple(float(grid[index]) for index in [*indices, last])
