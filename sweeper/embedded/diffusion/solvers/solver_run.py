"""What a solver is given: the denoiser, the noise, the model's sampling, and where to report each step.

Most solvers say only what one step does. `StepSolver` walks the noise levels and calls them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.diffusion.latent_noise import BrownianPath, LatentNoise
from sweeper.embedded.diffusion.schedules import Sampling


class SolverRun:
    """One sampling run. Latents are float32 [B, 4, h, w], noise levels Python floats (NumPy's would widen to float64).

    `denoise(x, sigma)` gives the guided estimate of the clean latent and the one of the unguided (negative) side,
    which the CFG++ solvers need. `report(i, x, denoised)` is called once per step and may raise to interrupt.
    """

    def __init__(
        self,
        denoise: Callable[[Array, float], tuple[Array, Array]],
        noise: LatentNoise,
        sampling: Sampling,
        report: Callable[[int, Array, Array], None],
        s_noise: float = 1.0,  # how strong the noise of the steps is
    ) -> None:
        self._denoise = denoise
        self._noise = noise
        self._s_noise = np.float32(s_noise)
        self.sampling = sampling
        self.report = report
        self.unguided: Array  # set by the first evaluation
        self._paths: dict[int, BrownianPath] = {}

    def denoise(self, x: Array, sigma: float) -> Array:
        """The guided estimate; `unguided` then holds the other side of the same evaluation."""
        guided, self.unguided = self._denoise(x, sigma)
        return guided

    def slope(self, x: Array, sigma: float) -> tuple[Array, Array]:
        """dx/dsigma of the probability flow ODE, (x - D) / sigma (Karras et al. 2022, eq. 3), and D."""
        denoised = self.denoise(x, sigma)
        return (x - denoised) / sigma, denoised

    def draw_noise(self) -> Array:
        """Fresh noise for one step."""
        return self._noise.draw_step() * self._s_noise

    def draw_from_path(self, sigma: float, after: float, stream: int) -> Array:
        """Noise of the run's Brownian path, so that the solver converges as steps grow; each stream is another path."""
        if stream not in self._paths:
            self._paths[stream] = self._noise.brownian(self.sampling.sigma_max, stream=stream)
        return self._paths[stream](sigma, after) * self._s_noise

    def with_finite_start(self, sigmas: Sequence[float]) -> list[float]:
        """Sigmas whose first has a finite log SNR: a flow model starts at pure noise, where it is minus infinity."""
        first = self.sampling.percent_to_sigma(1e-4) if self.sampling.flow and sigmas[0] >= 1 else sigmas[0]
        return [first, *sigmas[1:]]


@dataclass(eq=False)
class Step:
    """One step between two noise levels: the latent, its estimates, and the steps before that the solver remembers."""

    run: SolverRun
    sigmas: list[float]
    index: int
    x: Array
    denoised: Array
    unguided: Array
    past: list[Step] = field(default_factory=list)  # oldest first; theirs are empty

    @property
    def sigma(self) -> float:
        return self.sigmas[self.index]

    @property
    def after(self) -> float:
        """The level that the step goes to."""
        return self.sigmas[self.index + 1]

    @cached_property
    def slope(self) -> Array:
        """(x - D) / sigma."""
        return (self.x - self.denoised) / self.sigma

    @property
    def log_step(self) -> float:
        """How far the step goes in lambda = ln(alpha / sigma)."""
        space = self.run.sampling
        return space.log_snr(self.after) - space.log_snr(self.sigma)

    def list_slopes(self, count: int) -> list[Array]:
        """The slopes of this and up to count - 1 earlier steps, newest first."""
        return [step.slope for step in (self, *reversed(self.past))][:count]

    def draw_noise(self) -> Array:
        return self.run.draw_noise()

    def split(self, eta: float = 1.0) -> tuple[float, float, float]:
        """Sigma to go down to, factor on x and noise on the way up again, for either kind of model."""
        if self.run.sampling.flow:
            return ancestral_flow_step(self.sigma, self.after, eta)
        down, up = ancestral_step(self.sigma, self.after, eta)
        return down, 1.0, up

    def renoise(self, x: Array, scale: float, up: float) -> Array:
        return x * scale + self.draw_noise() * up if self.after > 0 else x


@dataclass(frozen=True, slots=True)
class StepSolver:
    """A solver of one function: from a `Step` to the latent after it."""

    step: Callable[..., Array]
    reaches_zero: bool = False  # the function does the step to level 0 too; else the estimate is the end
    finite_start: bool = False  # see `SolverRun.with_finite_start`
    memory: int = 3  # past steps

    def __call__(self, run: SolverRun, x: Array, sigmas: list[float], **options: Any) -> Array:
        """The latent at the last of the levels."""
        levels = run.with_finite_start(sigmas) if self.finite_start else sigmas
        past: list[Step] = []
        for index, (sigma, after) in enumerate(pairwise(levels)):
            denoised = run.denoise(x, sigma)
            run.report(index, x, denoised)
            if after == 0 and not self.reaches_zero:
                return denoised
            step = Step(run, levels, index, x, denoised, run.unguided, past)
            x = self.step(step, **options)
            step.past = []
            past = [*past, step][-self.memory :]
        return x


def ancestral_step(sigma: float, sigma_next: float, eta: float = 1.0) -> tuple[float, float]:
    """(sigma to step down to, standard deviation of the noise to add), as in k-diffusion's ancestral samplers."""
    up = min(sigma_next, eta * (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2) ** 0.5)
    return max(sigma_next**2 - up**2, 0.0) ** 0.5, up


def ancestral_flow_step(sigma: float, sigma_next: float, eta: float = 1.0) -> tuple[float, float, float]:
    """(sigma to step down to, factor on x, standard deviation of noise) for rectified flow."""
    down = sigma_next * (1 + (sigma_next / sigma - 1) * eta)
    scale = (1 - sigma_next) / (1 - down)
    return down, scale, max(sigma_next**2 - down**2 * scale**2, 0.0) ** 0.5
