"""KSampler and the custom sampling nodes, with ComfyUI's semantics of steps, noise and denoise.

SIGMAS are float32 [n + 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from sweeper.embedded.diffusion import schedules
from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.diffusion.guidance import Conditioning, Guider, sample
from sweeper.embedded.diffusion.latent_noise import FrameNoise, LatentNoise
from sweeper.embedded.diffusion.models import Model
from sweeper.embedded.diffusion.prior import SCALE
from sweeper.embedded.diffusion.scaling import resize
from sweeper.embedded.diffusion.vocabulary import yuv_to_rgb
from sweeper.embedded.nodes.base import Context

Latent = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SeededNoise:
    """NOISE: a seed 0 .. 2^64-1, or None for no noise at all."""

    seed: int | None


@dataclass(frozen=True, slots=True)
class NamedSampler:
    """SAMPLER: one of `names.SAMPLERS`, how strong its later noise is, and what else its solver takes."""

    name: str
    s_noise: float = 1.0
    options: tuple[tuple[str, Any], ...] = ()


def _prepare_samples(latent: Latent) -> Array:
    """The latent's array with this model's 4 channels; an empty latent of another family is refilled."""
    samples: Array = latent["samples"]
    if samples.ndim not in {4, 5} or (np.any(samples) and samples.shape[1] != 4):
        raise ValueError(f"this model takes latents [B, 4, h, w] or [B, 4, t, h, w]; not {list(samples.shape)}")
    return samples if np.any(samples) else np.zeros((samples.shape[0], 4, *samples.shape[2:]), np.float32)


def _prepare_mask(latent: Latent, samples: Array) -> Array | None:
    """The latent's noise mask as [B, 1, h, w], or None."""
    mask = latent.get("noise_mask")
    if mask is None:
        return None
    planes = mask.reshape(-1, 1, *mask.shape[-2:]).astype(np.float32)  # a video's [B, 1, t, 1, 1] too
    fitted = resize(planes, samples.shape[3], samples.shape[2], "bilinear")
    return fitted[np.arange(len(samples)) % len(fitted)]


def _make_preview(denoised: Array) -> Image.Image:
    """A small picture of the estimate so far: the first item's colours, one pixel per latent pixel."""
    rgb = yuv_to_rgb(denoised[0, :3] / np.float32(SCALE))
    return Image.fromarray((np.clip(np.moveaxis(rgb, 0, -1), 0, 1) * 255).astype(np.uint8))


def _prepare_noise(latent: Latent, samples: Array, seed: int) -> tuple[Array, LatentNoise]:
    """The samples as [B, 4, h, w] (a video's frames in a row), and their noise."""
    items = latent.get("batch_index") or range(len(samples))
    if samples.ndim == 4:
        return samples, LatentNoise(seed, items, samples.shape[1:])
    flat = np.ascontiguousarray(np.moveaxis(samples, 2, 1)).reshape(-1, 4, *samples.shape[3:])
    return flat, FrameNoise(seed, items, flat.shape[1:], samples.shape[2])


def _unfold_frames(flat: Array, like: Array) -> Array:
    """Frames in a row as [B, 4, t, h, w] again, where `like` is a video's."""
    if like.ndim == 4:
        return flat
    return np.ascontiguousarray(np.moveaxis(flat.reshape(-1, like.shape[2], *flat.shape[1:]), 1, 2))


def run_sampler(
    context: Context, guider: Guider, sampler: NamedSampler, sigmas: Array, latent: Latent, seed: int, *, noisy: bool
) -> tuple[Latent, Latent]:
    """Sample; the latent that results, and the last estimate of the clean one."""
    shaped = _prepare_samples(latent)
    total = len(sigmas) - 1
    if total < 1:
        return {**latent, "samples": shaped}, {**latent, "samples": shaped}
    samples, source = _prepare_noise(latent, shaped, seed)
    noise = source.draw_initial() if noisy else np.zeros_like(samples)
    last: list[Array] = [samples]

    def report(step: int, _x: Array, denoised: Array) -> None:
        last[0] = denoised
        context.progress(min(step + 1, total), total, _make_preview(denoised))

    context.check()
    levels = [float(sigma) for sigma in sigmas]
    mask = _prepare_mask(latent, samples)
    result = sample(
        guider,
        sampler.name,
        levels,
        samples,
        noise,
        later=source,
        s_noise=sampler.s_noise,
        report=report,
        mask=mask,
        options=dict(sampler.options),
    )
    ends = (_unfold_frames(end, shaped) for end in (result, last[0]))
    first, second = ({**latent, "samples": end} for end in ends)
    return first, second


def ksampler(
    context: Context,
    *,
    model: Model,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latent,
    seed: int = 0,
    denoise: float = 1.0,
    noise_seed: int | None = None,
    add_noise: str = "enable",
    start_at_step: int = 0,
    end_at_step: int = 10000,
    return_with_leftover_noise: str = "disable",
) -> Latent:
    """KSampler, and KSamplerAdvanced: a part of a schedule. Without leftover noise it ends at level 0."""
    sigmas = schedules.sampler_sigmas(model.sampling, scheduler, sampler_name, steps, denoise).copy()
    if end_at_step < len(sigmas) - 1:
        sigmas = sigmas[: end_at_step + 1]
        if return_with_leftover_noise != "enable":
            sigmas[-1] = 0
    if start_at_step:  # a part that starts behind the end does nothing
        sigmas = sigmas[start_at_step:] if start_at_step < len(sigmas) - 1 else sigmas[:0]
    guider, sampler = Guider(model, positive, negative, cfg), NamedSampler(sampler_name)
    noisy, chosen = add_noise != "disable", seed if noise_seed is None else noise_seed
    return run_sampler(context, guider, sampler, sigmas, latent_image, chosen, noisy=noisy)[0]


def sampler_custom(
    context: Context,
    *,
    model: Model,
    add_noise: bool,
    noise_seed: int,
    cfg: float,
    positive: Conditioning,
    negative: Conditioning,
    sampler: NamedSampler,
    sigmas: Array,
    latent_image: Latent,
) -> tuple[Latent, Latent]:
    guider = Guider(model, positive, negative, cfg)
    return run_sampler(context, guider, sampler, sigmas, latent_image, noise_seed, noisy=add_noise)


def sampler_custom_advanced(
    context: Context, noise: SeededNoise, guider: Guider, sampler: NamedSampler, sigmas: Array, latent_image: Latent
) -> tuple[Latent, Latent]:
    noisy = noise.seed is not None
    return run_sampler(context, guider, sampler, sigmas, latent_image, noise.seed or 0, noisy=noisy)


def make_noise(noise_seed: int | None = None) -> SeededNoise:
    """RandomNoise and DisableNoise."""
    return SeededNoise(noise_seed)


def basic_guider(model: Model, conditioning: Conditioning) -> Guider:
    return Guider(model, conditioning, None, 1.0)


def cfg_guider(model: Model, positive: Conditioning, negative: Conditioning, cfg: float) -> Guider:
    return Guider(model, positive, negative, cfg)


def select_named(sampler_name: str) -> NamedSampler:
    return NamedSampler(sampler_name)


def select(
    name: str, *, s_noise: float = 1.0, solver_type: str = "", noise_device: str = "cpu", **options: Any
) -> NamedSampler:
    """A sampler with its options."""
    if solver_type:
        options["midpoint"] = solver_type == "midpoint"
    return NamedSampler(name if noise_device == "cpu" else f"{name}_gpu", s_noise, tuple(options.items()))


_NONE: Array = np.zeros(0, np.float32)


def _end_with_zero(levels: Any) -> Array:
    return np.append(np.asarray(levels), 0.0).astype(np.float32)


def schedule_karras(steps: int, sigma_max: float, sigma_min: float, rho: float) -> Array:
    return schedules.karras(steps, sigma_min, sigma_max, rho)


def schedule_polyexponential(steps: int, sigma_max: float, sigma_min: float, rho: float = 1.0) -> Array:
    """Polynomial of degree `rho` in log sigma (k-diffusion)."""
    high, low = math.log(sigma_max), math.log(sigma_min)
    return _end_with_zero(np.exp(np.linspace(1, 0, steps) ** rho * (high - low) + low))


def schedule_named(model: Model, scheduler: str, steps: int, denoise: float) -> Array:
    """None at denoise 0."""
    if denoise <= 0:
        return _NONE
    whole = int(steps / denoise) if denoise < 1 else steps
    return schedules.schedule(model.sampling, scheduler, whole)[-(steps + 1) :]


def schedule_beta(model: Model, steps: int, alpha: float, beta: float) -> Array:
    return np.array(schedules.beta_levels(model.sampling, steps, alpha, beta), np.float32)


def split_schedule(sigmas: Array, step: int) -> tuple[Array, Array]:
    return sigmas[: step + 1], sigmas[step:]


def split_schedule_by_denoise(sigmas: Array, denoise: float) -> tuple[Array, Array]:
    """The last `denoise` part is the low half. At 0 ComfyUI's slice `[:-0]` leaves the high half empty."""
    total = round(max(len(sigmas) - 1, 0) * denoise)
    return sigmas[:-total] if total else sigmas[:0], sigmas[-(total + 1) :]


def flip_schedule(sigmas: Array) -> Array:
    """Rising levels, as unsampling wants them; a zero at the start becomes 0.0001."""
    turned = sigmas[::-1].copy()
    if len(turned) and turned[0] == 0:
        turned[0] = 0.0001
    return turned
