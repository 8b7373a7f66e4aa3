"""Steps that reuse the estimates or slopes of earlier ones.

Sources: Adams-Bashforth with exact quadrature of the Lagrange basis (k-diffusion's LMS), Liu et al. 2022 and Zhang &
Chen 2023 (iPNDM, DEIS "tab", over the VP time of Karras et al. 2022 with sigma 0.002 .. 80), Permenter & Yuan 2024
(gradient estimation), Lu et al. 2022b (DPM-Solver++ 2M) and k-diffusion's SDE forms of it, Zhang et al. 2023 (RES,
"refined exponential solver", arXiv:2308.02157), Chung et al. 2024 (CFG++), Cui et al. 2023 (ER-SDE, arXiv:2309.06169);
the semantics are ComfyUI 0.3.64's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.diffusion.solvers.solver_run import Step, ancestral_step

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
    """Add to x the sum of coefficient times slope."""
    for coefficient, slope in zip(coefficients, slopes, strict=False):
        x = x + slope * coefficient
    return x


def lms(now: Step, *, order: int = 4) -> Array:
    slopes = now.list_slopes(order)
    points = [now.sigmas[now.index - k] for k in range(len(slopes))]
    return _combine(now.x, _lagrange_integrals(points, now.sigma, now.after), slopes)


# Adams-Bashforth for equal steps, orders 1 to 4, newest first.
_ADAMS = ([1.0], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24])


def ipndm(now: Step) -> Array:
    slopes = now.list_slopes(4)
    return _combine(now.x, [c * (now.after - now.sigma) for c in _ADAMS[len(slopes) - 1]], slopes)


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


def ipndm_v(now: Step) -> Array:
    slopes, i = now.list_slopes(4), now.index
    steps = [now.sigmas[i + 1 - k] - now.sigmas[i - k] for k in range(len(slopes))]
    return _combine(now.x, [w * (now.after - now.sigma) for w in _variable_weights(steps)], slopes)


# The variance preserving time in which DEIS interpolates: log(sigma^2 + 1) = _BETA_D t^2 / 2 + _BETA_MIN t.
_LOW, _HIGH = math.log(0.002**2 + 1), math.log(80.0**2 + 1)
_BETA_D = 2 * (_LOW / 1e-3 - _HIGH) / (1e-3 - 1)
_BETA_MIN = _HIGH - 0.5 * _BETA_D


def _vp_time(sigma: float) -> float:
    return (math.sqrt(_BETA_MIN**2 + 2 * _BETA_D * math.log(sigma**2 + 1)) - _BETA_MIN) / _BETA_D


def _vp_rate(t: float) -> float:
    """Rate dsigma/dt."""
    grown = math.exp(_BETA_D * t**2 / 2 + _BETA_MIN * t)
    return 0.5 * (_BETA_D * t + _BETA_MIN) * grown / math.sqrt(max(grown - 1, 1e-12))


def deis(now: Step) -> Array:
    slopes = now.list_slopes(3)
    if now.after <= 0 or len(slopes) == 1:
        return now.x + now.slope * (now.after - now.sigma)
    points = [_vp_time(now.sigmas[now.index - k]) for k in range(len(slopes))]
    return _combine(now.x, _lagrange_integrals(points, points[0], _vp_time(now.after), _vp_rate), slopes)


def gradient_estimation(now: Step, *, plus: bool = False) -> Array:
    """Euler with the slope extrapolated (gamma = 2). `plus`: CFG++, the slope of the unguided side."""
    by = now.after - now.sigma
    slopes = [(step.x - step.unguided) / step.sigma if plus else step.slope for step in (now, *now.past[-1:])]
    x = now.denoised + slopes[0] * now.after if plus else now.x + slopes[0] * by
    return x + (slopes[0] - slopes[1]) * by if len(slopes) > 1 else x


def _log_ratio(step: Step) -> float:
    """The step's length in t = -ln sigma."""
    return math.log(step.sigma / step.after)


def dpmpp_2m(now: Step) -> Array:
    """DPM-Solver++(2M) in t = -ln sigma."""
    share, ahead = now.after / now.sigma, now.denoised
    for before in now.past[-1:]:
        ahead = now.denoised + (now.denoised - before.denoised) * (_log_ratio(now) / (2 * _log_ratio(before)))
    return now.x * share + ahead * (1 - share)


def dpmpp_2m_cfg_pp(now: Step) -> Array:
    share = now.after / now.sigma
    mixed = now.unguided * -share
    for before in now.past[-1:]:
        weight = (1 - share) * _log_ratio(now) / (2 * _log_ratio(before))
        mixed = mixed + (now.denoised - before.unguided) * weight
    return now.denoised + mixed + now.x * share


def res_multistep(now: Step, *, eta: float = 0.0, plus: bool = False) -> Array:
    """RES of order 2 over the last two estimates; `eta` 1 is ancestral, `plus` is CFG++."""

    def split(step: Step) -> tuple[float, float]:
        return ancestral_step(step.sigma, step.after, eta) if eta else (step.after, 0.0)

    down, up = split(now)
    own = now.unguided if plus else now.denoised
    if down == 0 or not now.past:
        x = now.denoised + (now.x - own) * (down / now.sigma)
    else:
        before = now.past[-1]
        h = math.log(now.sigma / down)
        # Where the last estimate stands on this step, in units of it.
        position = math.log(split(before)[0] / before.sigma) / h
        phi_1 = math.expm1(-h) / -h
        phi_2 = (phi_1 - 1) / -h
        older = phi_2 / position if position else 0.0
        x = now.x + (now.denoised - own) if plus else now.x
        x = x * math.exp(-h) + (own * (phi_1 - older) + (before.unguided if plus else before.denoised) * older) * h
    return x + now.draw_noise() * up if up else x


def dpmpp_multistep_sde(
    now: Step, *, order: int = 2, midpoint: bool = False, stream: int = 0, eta: float = 1.0
) -> Array:
    """DPM-Solver++ (2M) or (3M) SDE; the correction of order 2 by the midpoint or by Heun's rule."""
    h, alpha = now.log_step, now.run.sampling.alpha(now.after)
    full = h * (eta + 1)
    x = now.x * (now.after / now.sigma * math.exp(-h * eta)) + now.denoised * (alpha * -math.expm1(-full))
    phi_2 = 0.5 * -math.expm1(-full) if midpoint else 1 - -math.expm1(-full) / full
    before = now.past[:-order:-1]
    if len(before) == 2:
        r0, r1 = before[0].log_step / h, before[1].log_step / h
        near = (now.denoised - before[0].denoised) / r0
        far = (before[0].denoised - before[1].denoised) / r1
        first = near + (near - far) * (r0 / (r0 + r1))
        second = (near - far) / (r0 + r1)
        x = x + first * (alpha * phi_2) - second * (alpha * (phi_2 / full - 0.5))
    elif before:
        x = x + (now.denoised - before[0].denoised) * (alpha * phi_2 * h / before[0].log_step)
    return np.asarray(
        x + now.run.draw_from_path(now.sigma, now.after, stream) * (now.after * (-math.expm1(-2 * h * eta)) ** 0.5)
    )


def _er_scale(value: Array) -> Array:
    """The noise scaling of the authors' solver ER-SDE 5: v (exp(v^0.3) + 10)."""
    return np.asarray(value * (np.exp(value**0.3) + 10.0))


def er_sde(now: Step) -> Array:
    """Extended reverse-time SDE solver of order 3, integrals by 200 points as in the authors' code."""
    space, alpha = now.run.sampling, now.run.sampling.alpha(now.after)
    steps = [now, *reversed(now.past)]
    levels = [math.exp(-space.log_snr(step.sigma)) for step in steps]  # sigma / alpha
    after = math.exp(-space.log_snr(now.after))
    scale, scale_after = _er_scale(np.array([levels[0], after])).tolist()
    ratio, dt = scale_after / scale, after - levels[0]
    x = now.x * (alpha / space.alpha(now.sigma) * ratio) + now.denoised * (alpha * (1 - ratio))
    slopes = [
        (steps[i].denoised - steps[i + 1].denoised) / (levels[i] - levels[i + 1]) for i in range(min(len(now.past), 2))
    ]
    if slopes:
        width = -dt / 200
        points = after + np.arange(200) * width
        integral = float(np.sum(1 / _er_scale(points))) * width
        x = x + slopes[0] * (alpha * (dt + integral * scale_after))
        if len(slopes) > 1:
            moment = float(np.sum((points - levels[0]) / _er_scale(points))) * width
            bend = (slopes[0] - slopes[1]) / ((levels[0] - levels[2]) / 2)
            x = x + bend * (alpha * (dt**2 / 2 + moment * scale_after))
    up = max(after**2 - levels[0] ** 2 * ratio**2, 0.0) ** 0.5
    return np.asarray(x + now.draw_noise() * (alpha * up))
