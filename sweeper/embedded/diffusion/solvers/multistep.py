"""Solvers that reuse the slopes of earlier steps: LMS, iPNDM, DEIS, gradient estimation.

Sources: Adams-Bashforth with exact quadrature of the Lagrange basis (k-diffusion's LMS), Liu et al. 2022 and Zhang &
Chen 2023 (iPNDM, DEIS "tab", over the VP time of Karras et al. 2022 with sigma 0.002 .. 80), Permenter & Yuan 2024
(gradient estimation).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from sweeper.embedded.diffusion.solvers.solver_run import SolverRun

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)


def _lagrange_integrals(
    points: list[float], start: float, end: float, weight: Callable[[float], float] = lambda _: 1.0
) -> list[float]:
    """Integral from start to end of weight times each Lagrange basis polynomial over `points`."""
    half, middle = (end - start) / 2, (end + start) / 2
    result = []
    for j, own in enumerate(points):
        total = 0.0
        for node, share in zip(_NODES.tolist(), _WEIGHTS.tolist(), strict=True):
            t = middle + half * node
            basis = math.prod((t - other) / (own - other) for k, other in enumerate(points) if k != j)
            total += share * basis * weight(t)
        result.append(total * half)
    return result


def _combine(x: Array, coefficients: list[float], slopes: list[Array]) -> Array:
    """Add to x the sum of coefficient times slope, the newest slope first."""
    for coefficient, slope in zip(coefficients, reversed(slopes), strict=False):
        x = x + slope * coefficient
    return x


def lms(run: SolverRun, x: Array, sigmas: list[float], *, order: int = 4) -> Array:
    slopes: list[Array] = []
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        slope, denoised = run.slope(x, sigma)
        run.report(i, x, denoised)
        slopes = [*slopes, slope][-order:]
        if after == 0:
            x = denoised
        else:
            points = [sigmas[i - k] for k in range(len(slopes))]
            x = _combine(x, _lagrange_integrals(points, sigma, after), slopes)
    return x


# Adams-Bashforth for equal steps, orders 1 to 4, newest first.
_ADAMS = ([1.0], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24])


def ipndm(run: SolverRun, x: Array, sigmas: list[float]) -> Array:
    slopes: list[Array] = []
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        slope, denoised = run.slope(x, sigma)
        run.report(i, x, denoised)
        slopes = [*slopes[-3:], slope]
        weights = [c * (after - sigma) for c in _ADAMS[len(slopes) - 1]]
        x = denoised if after == 0 else _combine(x, weights, slopes)
    return x


def _variable_weights(h: list[float]) -> list[float]:
    """Weights of iPNDM for unequal steps; h holds this step and up to three earlier ones, newest first.

    The arrangement of terms is that of the authors' solver (diff-sampler), in which `third` and `fourth` are the
    corrections that the third and fourth order add.
    """
    if len(h) == 1:
        return [1.0]
    ratio = h[0] / h[1]
    first, second = (2 + ratio) / 2, -ratio / 2
    if len(h) == 2:
        return [first, second]
    two = h[0] + h[1]
    third = (1 - h[0] / (3 * two) * (h[0] * two) / (h[1] * (h[1] + h[2]))) / 2
    back = h[1] / h[2]
    weights = [first + third, second - (1 + back) * third, third * back]
    if len(h) == 3:
        return weights
    lead = (1 - h[0] / (3 * two)) / 2 + (1 - h[0] / (2 * two)) * h[0] / (6 * (two + h[2]))
    fourth = lead * (h[0] * two * (two + h[2])) / (h[1] * (h[1] + h[2]) * (h[1] + h[2] + h[3]))
    far = h[1] * (h[1] + h[2]) / (h[2] * (h[2] + h[3]))
    return [
        weights[0] + fourth,
        weights[1] - (1 + back + far) * fourth,
        weights[2] + (back + far * (1 + h[2] / h[3])) * fourth,
        -fourth * far * h[1] / h[2],
    ]


def ipndm_v(run: SolverRun, x: Array, sigmas: list[float]) -> Array:
    slopes: list[Array] = []
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        slope, denoised = run.slope(x, sigma)
        run.report(i, x, denoised)
        slopes = [*slopes[-3:], slope]
        if after == 0:
            x = denoised
        else:
            steps = [sigmas[i + 1 - k] - sigmas[i - k] for k in range(len(slopes))]
            x = _combine(x, [w * (after - sigma) for w in _variable_weights(steps)], slopes)
    return x


class _VpTime:
    """The variance preserving time in which DEIS interpolates: log(sigma^2 + 1) = beta_d t^2 / 2 + beta_min t."""

    def __init__(self) -> None:
        eps, low, high = 1e-3, math.log(0.002**2 + 1), math.log(80.0**2 + 1)
        self.beta_d = 2 * (low / eps - high) / (eps - 1)
        self.beta_min = high - 0.5 * self.beta_d

    def time_of(self, sigma: float) -> float:
        grown = math.log(sigma**2 + 1)
        return (math.sqrt(self.beta_min**2 + 2 * self.beta_d * grown) - self.beta_min) / self.beta_d

    def rate(self, t: float) -> float:
        """Rate dsigma/dt."""
        grown = math.exp(self.beta_d * t**2 / 2 + self.beta_min * t)
        return 0.5 * (self.beta_d * t + self.beta_min) * grown / math.sqrt(max(grown - 1, 1e-12))


def deis(run: SolverRun, x: Array, sigmas: list[float]) -> Array:
    time = _VpTime()
    times = [time.time_of(sigma) for sigma in sigmas]
    slopes: list[Array] = []
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        slope, denoised = run.slope(x, sigma)
        run.report(i, x, denoised)
        slopes = [*slopes[-2:], slope]
        if after <= 0 or len(slopes) == 1:
            x = x + slope * (after - sigma)
        else:
            points = [times[i - k] for k in range(len(slopes))]
            x = _combine(x, _lagrange_integrals(points, times[i], times[i + 1], time.rate), slopes)
    return x


def gradient_estimation(run: SolverRun, x: Array, sigmas: list[float], *, plus: bool = False) -> Array:
    """Euler with the slope extrapolated (gamma = 2). `plus`: CFG++, the slope of the unguided side."""
    before: Array | None = None
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        slope, denoised = run.slope(x, sigma)
        if plus:
            slope = (x - run.unguided) / sigma
        run.report(i, x, denoised)
        if after == 0:
            x = denoised
        else:
            x = denoised + slope * after if plus else x + slope * (after - sigma)
            if before is not None:
                x = x + (slope - before) * (after - sigma)
        before = slope
    return x
