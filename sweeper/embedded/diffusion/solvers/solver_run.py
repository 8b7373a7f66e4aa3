"""What a solver is given: the denoiser, the noise, the model's sampling, and where to report each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sweeper.embedded.diffusion.latent_noise import LatentNoise, ScaledNoise
    from sweeper.embedded.diffusion.schedules import Sampling

    Array = NDArray[Any]


class StepNoise(Protocol):
    """Standard normal noise for a step between two noise levels."""

    def __call__(self, sigma: float, sigma_next: float, /) -> Array: ...


class SolverRun:
    """One sampling run. Latents are float32 [B, 4, h, w], noise levels Python floats (NumPy's would widen to float64).

    `denoise(x, sigma)` gives the guided estimate of the clean latent and the one of the unguided (negative) side,
    which the CFG++ solvers need. `report(i, x, denoised)` is called once per step and may raise to interrupt.
    """

    def __init__(
        self,
        denoise: Callable[[Array, float], tuple[Array, Array]],
        noise: LatentNoise | ScaledNoise,
        sampling: Sampling,
        report: Callable[[int, Array, Array], None],
    ) -> None:
        self._denoise = denoise
        self.noise = noise
        self.sampling = sampling
        self.report = report
        self.unguided: Array  # set by the first evaluation

    def denoise(self, x: Array, sigma: float) -> Array:
        """The guided estimate; `unguided` then holds the other side of the same evaluation."""
        guided, self.unguided = self._denoise(x, sigma)
        return guided

    def slope(self, x: Array, sigma: float) -> tuple[Array, Array]:
        """dx/dsigma of the probability flow ODE, (x - D) / sigma (Karras et al. 2022, eq. 3), and D."""
        denoised = self.denoise(x, sigma)
        return (x - denoised) / sigma, denoised

    def with_finite_start(self, sigmas: Sequence[float]) -> list[float]:
        """Sigmas whose first has a finite log SNR: a flow model starts at pure noise, where it is minus infinity."""
        first = self.sampling.percent_to_sigma(1e-4) if self.sampling.flow and sigmas[0] >= 1 else sigmas[0]
        return [first, *sigmas[1:]]


def ancestral_step(sigma: float, sigma_next: float, eta: float = 1.0) -> tuple[float, float]:
    """(sigma to step down to, standard deviation of the noise to add), as in k-diffusion's ancestral samplers."""
    up = min(sigma_next, eta * (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2) ** 0.5)
    return max(sigma_next**2 - up**2, 0.0) ** 0.5, up


def ancestral_flow_step(sigma: float, sigma_next: float, eta: float = 1.0) -> tuple[float, float, float]:
    """(sigma to step down to, factor on x, standard deviation of noise) for rectified flow."""
    down = sigma_next * (1 + (sigma_next / sigma - 1) * eta)
    scale = (1 - sigma_next) / (1 - down)
    return down, scale, max(sigma_next**2 - down**2 * scale**2, 0.0) ** 0.5
