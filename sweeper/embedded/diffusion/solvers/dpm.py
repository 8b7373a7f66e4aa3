"""DPM-Solver with single steps of order 1 to 3, in its "fast" and "adaptive" arrangements.

Source: Lu et al. 2022, "DPM-Solver" (arXiv:2206.00927), with t = -ln sigma, and the PID step controller that
k-diffusion puts around it (Soderlind 2003).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sweeper.embedded.diffusion.solvers.solver_run import SolverRun, ancestral_step

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_MOST = 2000  # steps: far above what a smooth denoiser needs; a bound, so that no job hangs


class _Step:
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
        step = _Step(run, x, t, after)
        x = (step.first, step.second, step.third)[order - 1]()
        run.report(done, x, step.denoised)
        done += order
    return x


@dataclass(slots=True)
class _Pid:
    """The step's size in t, from the inverse errors of this step and the two accepted ones before it."""

    size: float
    order: float
    gains: tuple[float, float, float]  # proportional, integral, derivative
    safety: float
    inverses: tuple[float, float] | None = None

    def is_accepted(self, error: float) -> bool:
        """Whether a step with this error counts; sets the size of the next try, limited by 1 + atan(f - 1)."""
        p, i, d = self.gains
        inverse = 1 / (error + 1e-8)
        before, earlier = self.inverses = self.inverses or (inverse, inverse)
        weights = ((p + i + d) / self.order, -(p + 2 * d) / self.order, d / self.order)
        factor = 1.0
        for value, weight in zip((inverse, before, earlier), weights, strict=True):
            factor *= value**weight
        factor = 1 + math.atan(factor - 1)
        accepted = factor >= self.safety
        if accepted:
            self.inverses = inverse, before
        self.size *= factor
        return accepted


def dpm_adaptive(
    run: SolverRun,
    x: Array,
    sigmas: list[float],
    *,
    order: int = 3,
    tolerances: tuple[float, float] = (0.05, 0.0078),
    first: float = 0.05,
    gains: tuple[float, float, float] = (0.0, 1.0, 0.0),
    safety: float = 0.81,
    eta: float = 0.0,
) -> Array:
    """Two orders side by side choose the step; `steps` only sets the range of noise levels.

    `tolerances` are the relative and the absolute one, `first` is the first step in t, `gains` the controller's
    (proportional, integral, derivative); `eta` adds noise on the way, as an ancestral step does. Raises ValueError
    for a first step or tolerances of 0, with which it would not move.
    """
    if first <= 0 or max(tolerances) <= 0:
        raise ValueError(f"h_init {first} must be above 0, and so must rtol {tolerances[0]} or atol {tolerances[1]}")
    t, end = _span(sigmas)
    pid = _Pid(first, 1.5 if eta else order, gains, safety)
    previous, reported = x, 0
    for _ in range(_MOST):
        if t >= end - 1e-5:
            break
        after = min(end, t + pid.size)
        level, up = _lower(t, after, end, eta)
        step = _Step(run, x, t, level)
        low, high = (step.first(), step.second()) if order == 2 else (step.second(1 / 3), step.third())
        bound = np.maximum(np.abs(low), np.abs(previous)) * np.float32(tolerances[0])
        scale = np.maximum(np.float32(tolerances[1]), bound)
        if pid.is_accepted(float(np.sqrt(np.mean(np.square((low - high) / scale), dtype=np.float64)))):
            sigma, sigma_after = math.exp(-t), math.exp(-after)
            previous, x, t = low, high, after
            if up:
                x = x + run.noise.draw_step(sigma, sigma_after) * np.float32(up)
            run.report(min(reported, len(sigmas) - 2), x, step.denoised)
            reported += 1
    return x


def _lower(t: float, after: float, end: float, eta: float) -> tuple[float, float]:
    """(t to step to, deviation of the noise that lifts it to `after` again); never below the last level."""
    if not eta:
        return after, 0.0
    down, _ = ancestral_step(math.exp(-t), math.exp(-after), eta)
    level = min(end, -math.log(down)) if down > 0 else end
    return level, max(math.exp(-2 * after) - math.exp(-2 * level), 0.0) ** 0.5
