"""Predictor-corrector solvers: UniPC and SA-Solver.

Sources: Zhao et al. 2023 (UniPC, arXiv:2302.04867, variants B1(h) = h and B2(h) = exp(h) - 1), Xue et al. 2023
(SA-Solver, arXiv:2309.05019, eqs. 15 and 18, predictor order 3, corrector order 4).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from sweeper.embedded.diffusion.solvers.solver_run import SolverRun

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def _sum_weighted(weights: list[float], values: list[Array]) -> Array | float:
    return sum((value * weight for weight, value in zip(weights, values, strict=True)), 0.0)


def _uni_pc_coefficients(ratios: list[float], hh: float, order: int, base: float) -> tuple[list[float], list[float]]:
    """Weights of the differences for the predictor and for the corrector (whose last one is the new difference)."""
    phi = math.expm1(hh) / hh - 1
    rows, right, factorial = [], [], 1.0
    for i in range(1, order + 1):
        rows.append([ratio ** (i - 1) for ratio in ratios])
        right.append(phi * factorial / base)
        factorial *= i + 1
        phi = phi / hh - 1 / factorial
    matrix, vector = np.array(rows), np.array(right)
    corrector = [0.5] if order == 1 else np.linalg.solve(matrix, vector).tolist()
    if order <= 2:  # the authors' simplified forms
        return [0.5] * (order - 1), corrector
    return np.linalg.solve(matrix[:-1, :-1], vector[:-1]).tolist(), corrector


def uni_pc(run: SolverRun, x: Array, sigmas: list[float], *, b2: bool = False) -> Array:
    """UniPC of order 3, lower at both ends. Sigma 0 at the end is taken as 0.001, as in ComfyUI."""
    levels = [*sigmas[:-1], sigmas[-1] or 0.001]
    steps = len(levels) - 1
    order = max(1, min(3, steps - 1))
    levels = run.with_finite_start(levels)
    space = run.sampling
    points = [(space.log_snr(levels[0]), run.denoise(x, levels[0]))]  # newest last
    run.report(0, x, points[0][1])
    for j in range(1, steps + 1):
        used = j if j < order else min(order, steps + 1 - j)
        (start, newest), level = points[-1], levels[j]
        end = space.log_snr(level)
        h = end - start
        ratios = [(points[-1 - k][0] - start) / h for k in range(1, used)]
        differences = [(points[-1 - k][1] - newest) / ratio for k, ratio in enumerate(ratios, 1)]
        base = math.expm1(-h) if b2 else -h
        predictor, corrector = _uni_pc_coefficients([*ratios, 1.0], -h, used, base)
        alpha = space.alpha(level)
        plain = x * (level / levels[j - 1]) - newest * (alpha * math.expm1(-h))
        x = plain - _sum_weighted(predictor, differences) * (alpha * base)
        if j < steps:
            denoised = run.denoise(x, level)
            x = plain - _sum_weighted(corrector, [*differences, denoised - newest]) * (alpha * base)
            points = [*points[-2:], (end, denoised)]
            run.report(j, x, denoised)
    return x / space.alpha(levels[-1]) if space.flow else x


def _adams_weights(nodes: list[float], start: float, end: float, tau: float) -> list[float]:
    """(1 + tau^2) times the integral of exp((1 + tau^2)(l - end)) over each Lagrange basis polynomial on `nodes`."""
    rate, h = 1 + tau**2, end - start
    # Moments of (l - end)^p, by parts; taking l from the end keeps the Vandermonde system well conditioned.
    moments: list[float] = []
    for p in range(len(nodes)):
        edge = (1.0 if p == 0 else 0.0) - (-h) ** p * math.exp(-rate * h)
        moments.append(edge - (p / rate * moments[-1] if p else 0.0))
    matrix = np.vander(np.array(nodes) - end, len(nodes), increasing=True).T
    return [float(weight) for weight in np.linalg.solve(matrix, np.array(moments))]


def _simple_weights(nodes: list[float], start: float, end: float, tau: float, *, corrects: bool) -> list[float]:
    """The paper's simplified coefficients of order 2 (Xue et al. 2023, appendix D), oldest node first."""
    grown, linear = -math.expm1(-(1 + tau**2) * (end - start)), 0.5 * (1 + tau**2) * (end - start)
    if corrects:
        return [grown - linear, linear]
    old = linear * (end - start) / (nodes[-2] - start)
    return [old, grown - old]


def sa_solver(
    run: SolverRun,
    x: Array,
    sigmas: list[float],
    *,
    pece: bool = False,
    tau: float = 1.0,
    between: tuple[float, float] | None = None,
    orders: tuple[int, int] = (3, 4),
    simple: bool = False,
) -> Array:
    """Stochastic Adams (Xue et al. 2023): noise of strength `tau` at the levels `between` (high, low).

    Without `between` that is from 20% to 80% of the model's time. `orders` are the predictor's and the corrector's
    (0: none), `pece` evaluates corrected states, `simple` takes the paper's short form at order 2.
    """
    space = run.sampling
    closes = sigmas[-1] == 0
    sigmas = run.with_finite_start(sigmas)
    count = len(sigmas)
    lambdas = [space.log_snr(sigma) if sigma > 0 else math.inf for sigma in sigmas]
    noisy = between or (space.percent_to_sigma(0.2), space.percent_to_sigma(0.8))
    predicted, noise, strength = x, np.zeros_like(x), 0.0
    estimates: list[Array] = []

    def weigh(nodes: list[float], start: float, end: float, tau: float, *, corrects: bool) -> list[float]:
        if simple and len(nodes) == 2:
            return _simple_weights(nodes, start, end, tau, corrects=corrects)
        return _adams_weights(nodes, start, end, tau)

    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        denoised = run.denoise(predicted, sigma)
        run.report(i, predicted, denoised)
        estimates = [*estimates, denoised][-max(orders) :]
        left = count - 2 - i if closes else max(orders)
        ahead = min(orders[0], len(estimates), left)
        back = 0 if i == 0 or (after == 0 and not pece) else min(orders[1], len(estimates), left + 1)
        if back == 0:
            x = predicted
        else:
            h = lambdas[i] - lambdas[i - 1]
            nodes = lambdas[i - back + 1 : i + 1]
            weights = weigh(nodes, lambdas[i - 1], lambdas[i], strength, corrects=True)
            x = x * (sigma / sigmas[i - 1] * math.exp(-(strength**2) * h)) + noise
            x = x + _sum_weighted(weights, estimates[-back:]) * space.alpha(sigma)
            if pece:
                denoised = run.denoise(x, sigma)
                estimates[-1] = denoised
        if after == 0:
            return denoised
        strength = tau if noisy[0] >= after >= noisy[1] else 0.0
        h = lambdas[i + 1] - lambdas[i]
        weights = weigh(lambdas[i - ahead + 1 : i + 1], lambdas[i], lambdas[i + 1], strength, corrects=False)
        spread = after * (-math.expm1(-2 * strength**2 * h)) ** 0.5
        noise = run.noise.draw_step(sigma, after) * spread if strength else np.zeros_like(x)
        predicted = x * (after / sigma * math.exp(-(strength**2) * h)) + noise
        predicted = predicted + _sum_weighted(weights, estimates[-ahead:]) * space.alpha(after)
    return predicted
