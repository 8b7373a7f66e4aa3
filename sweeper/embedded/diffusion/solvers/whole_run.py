"""Solvers that choose their own steps, or correct them: DPM-Solver, UniPC, SA-Solver.

Sources: Lu et al. 2022 (DPM-Solver, arXiv:2206.00927, with t = -ln sigma) and the step controller that k-diffusion puts
around it, Zhao et al. 2023 (UniPC, arXiv:2302.04867, variants B1(h) = h and B2(h) = exp(h) - 1), Xue et al. 2023
(SA-Solver, arXiv:2309.05019, eqs. 15 and 18, predictor order 3, corrector order 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.diffusion.solvers.solver_run import SolverRun

_MOST = 2000  # steps of dpm_adaptive: far above what a smooth denoiser needs; a bound, so that no job hangs
_RELATIVE, _ABSOLUTE = 0.05, 0.0078  # its tolerances
_FIRST, _SAFETY = 0.05, 0.81  # its first step in t, and the factor from which a step counts


class _DpmStep:
    """One single step from t to t_next; the slopes at the inner points are evaluated once and shared by orders."""

    def __init__(self, run: SolverRun, x: Array, t: float, t_next: float) -> None:
        self.run, self.x, self.t, self.h = run, x, t, t_next - t
        self.eps, self.denoised = run.slope(x, math.exp(-t))
        self._inner: dict[float, Array] = {}

    def _sigma(self, share: float) -> float:
        return math.exp(-(self.t + share * self.h))

    def _euler(self, share: float) -> Array:
        return self.x - self.eps * (self._sigma(share) * math.expm1(share * self.h))

    def _slope_at(self, share: float, point: Callable[[], Array]) -> Array:
        if share not in self._inner:
            self._inner[share] = self.run.slope(point(), self._sigma(share))[0]
        return self._inner[share]

    def first(self) -> Array:
        return self._euler(1.0)

    def second(self, r: float = 0.5) -> Array:
        inner = self._slope_at(r, lambda: self._euler(r))
        return self._euler(1.0) - (inner - self.eps) * (self._sigma(1) / (2 * r) * math.expm1(self.h))

    def third(self) -> Array:
        r1, r2 = 1 / 3, 2 / 3
        first_slope = self._slope_at(r1, lambda: self._euler(r1))
        inner = r2 * self.h
        bend = self._sigma(r2) * (r2 / r1) * (math.expm1(inner) / inner - 1)
        second_slope = self._slope_at(r2, lambda: self._euler(r2) - (first_slope - self.eps) * bend)
        return self._euler(1.0) - (second_slope - self.eps) * (self._sigma(1) / r2 * (math.expm1(self.h) / self.h - 1))


def _span(sigmas: list[float]) -> tuple[float, float]:
    """Start and end in t = -ln sigma; both arrangements stop at the last level above zero."""
    end = sigmas[-1] if sigmas[-1] > 0 else sigmas[-2]
    return -math.log(sigmas[0]), -math.log(end)


def dpm_fast(run: SolverRun, x: Array, sigmas: list[float]) -> Array:
    """As many evaluations as steps, in single steps of order three and a remainder."""
    start, end = _span(sigmas)
    evaluations = len(sigmas) - 1
    count = evaluations // 3 + 1
    rest = evaluations % 3
    orders = [3] * (count - 1) + [rest] if rest else [3] * (count - 2) + [2, 1]
    times = np.linspace(start, end, count + 1).tolist()
    done = 0
    for order, t, after in zip(orders, times, times[1:], strict=False):
        if after == t:  # a single step above zero: nothing to integrate
            return x
        step = _DpmStep(run, x, t, after)
        x = (step.first, step.second, step.third)[order - 1]()
        run.report(done, x, step.denoised)
        done += order
    return x


def dpm_adaptive(run: SolverRun, x: Array, sigmas: list[float]) -> Array:
    """Orders 2 and 3 side by side choose the step by their difference; `steps` only sets the range of noise levels."""
    t, end = _span(sigmas)
    size, previous, reported = _FIRST, x, 0
    for _ in range(_MOST):
        if t >= end - 1e-5:
            break
        after = min(end, t + size)
        step = _DpmStep(run, x, t, after)
        low, high = step.second(1 / 3), step.third()
        bound = np.maximum(np.abs(low), np.abs(previous)) * np.float32(_RELATIVE)
        scale = np.maximum(np.float32(_ABSOLUTE), bound)
        error = float(np.sqrt(np.mean(np.square((low - high) / scale), dtype=np.float64)))
        factor = 1 + math.atan((1 / (error + 1e-8)) ** (1 / 3) - 1)
        size *= factor
        if factor >= _SAFETY:
            previous, x, t = low, high, after
            run.report(min(reported, len(sigmas) - 2), x, step.denoised)
            reported += 1
    return x


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


def sa_solver(run: SolverRun, x: Array, sigmas: list[float], *, pece: bool = False) -> Array:
    """Stochastic Adams of orders 3 and 4, with noise from 20% to 80% of the model's time.

    `pece` evaluates corrected states.
    """
    space = run.sampling
    closes = sigmas[-1] == 0
    sigmas = run.with_finite_start(sigmas)
    count = len(sigmas)
    lambdas = [space.log_snr(sigma) if sigma > 0 else math.inf for sigma in sigmas]
    noisy = space.percent_to_sigma(0.2), space.percent_to_sigma(0.8)
    predicted, noise, strength = x, np.zeros_like(x), 0.0
    estimates: list[Array] = []
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        denoised = run.denoise(predicted, sigma)
        run.report(i, predicted, denoised)
        estimates = [*estimates, denoised][-4:]
        left = count - 2 - i if closes else 4
        ahead = min(3, len(estimates), left)
        back = 0 if i == 0 or (after == 0 and not pece) else min(4, len(estimates), left + 1)
        if back == 0:
            x = predicted
        else:
            h = lambdas[i] - lambdas[i - 1]
            weights = _adams_weights(lambdas[i - back + 1 : i + 1], lambdas[i - 1], lambdas[i], strength)
            x = x * (sigma / sigmas[i - 1] * math.exp(-(strength**2) * h)) + noise
            x = x + _sum_weighted(weights, estimates[-back:]) * space.alpha(sigma)
            if pece:
                denoised = run.denoise(x, sigma)
                estimates[-1] = denoised
        if after == 0:
            return denoised
        strength = 1.0 if noisy[0] >= after >= noisy[1] else 0.0
        h = lambdas[i + 1] - lambdas[i]
        weights = _adams_weights(lambdas[i - ahead + 1 : i + 1], lambdas[i], lambdas[i + 1], strength)
        spread = after * (-math.expm1(-2 * strength**2 * h)) ** 0.5
        noise = run.draw_noise() * spread if strength else np.zeros_like(x)
        predicted = x * (after / sigma * math.exp(-(strength**2) * h)) + noise
        predicted = predicted + _sum_weighted(weights, estimates[-ahead:]) * space.alpha(after)
    return predicted
