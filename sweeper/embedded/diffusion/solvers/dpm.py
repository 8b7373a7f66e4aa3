"""DPM-Solver with single steps of order 1 to 3, in its "fast" and "adaptive" arrangements.

Source: Lu et al. 2022, "DPM-Solver" (arXiv:2206.00927), with t = -ln sigma, and the PID step controller that
k-diffusion puts around it (relative tolerance 0.05, absolute 0.0078, first step 0.05).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from sweeper.embedded.diffusion.solvers.run import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_RTOL, _ATOL, _FIRST, _SAFETY, _MOST = 0.05, 0.0078, 0.05, 0.81, 2000


class _Step:
    """One single step from t to t_next; the slopes at the inner points are evaluated once and shared by orders."""

    def __init__(self, run: Run, x: Array, t: float, t_next: float) -> None:
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
        one = self._slope_at(r1, lambda: self._euler(r1))
        inner = r2 * self.h
        bend = self._sigma(r2) * (r2 / r1) * (math.expm1(inner) / inner - 1)
        two = self._slope_at(r2, lambda: self._euler(r2) - (one - self.eps) * bend)
        return self._euler(1.0) - (two - self.eps) * (self._sigma(1) / r2 * (math.expm1(self.h) / self.h - 1))


def _span(sigmas: list[float]) -> tuple[float, float]:
    """Start and end in t = -ln sigma; both arrangements stop at the last level above zero."""
    end = sigmas[-1] if sigmas[-1] > 0 else sigmas[-2]
    return -math.log(sigmas[0]), -math.log(end)


def dpm_fast(run: Run, x: Array, sigmas: list[float]) -> Array:
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


def dpm_adaptive(run: Run, x: Array, sigmas: list[float]) -> Array:
    """Orders 2 and 3 side by side choose the step; `steps` only sets the range of noise levels."""
    at, end = _span(sigmas)
    size, previous, reported = _FIRST, x, 0
    for _ in range(_MOST):  # far above what a smooth denoiser needs; a bound, so that no job hangs
        if at >= end - 1e-5:
            break
        after = min(end, at + size)
        step = _Step(run, x, at, after)
        low, high = step.second(1 / 3), step.third()
        scale = np.maximum(np.float32(_ATOL), np.float32(_RTOL) * np.maximum(np.abs(low), np.abs(previous)))
        error = float(np.sqrt(np.mean(np.square((low - high) / scale), dtype=np.float64)))
        # A PID controller with only its integral part, for order 3, limited by 1 + atan(f - 1).
        factor = 1 + math.atan((1 / (error + 1e-8)) ** (1 / 3) - 1)
        if factor >= _SAFETY:
            previous, x, at = low, high, after
            run.report(min(reported, len(sigmas) - 2), x, step.denoised)
            reported += 1
        size *= factor
    return x
