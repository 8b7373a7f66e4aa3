"""SAMPLER selects with their options, the guiders and runs beside those of `sampling`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sweeper.embedded.diffusion.guidance import Conditioning, Guider
from sweeper.embedded.diffusion.models import Model
from sweeper.embedded.nodes.base import Context, NodeOutput
from sweeper.embedded.nodes.sampling import NamedSampler, SeededNoise, make_noise, run_sampler, unfold_frames

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Latent = dict[str, Any]


def _select(name: str, s_noise: float = 1.0, **options: Any) -> NodeOutput:
    return NodeOutput((NamedSampler(name, s_noise, tuple(options.items())),))


def _choose_device(name: str, noise_device: str) -> str:
    return name if noise_device == "cpu" else f"{name}_gpu"


def euler_ancestral(_context: Context, eta: float, s_noise: float) -> NodeOutput:
    return _select("euler_ancestral", s_noise, eta=eta)


def euler_ancestral_cfg_pp(_context: Context, eta: float, s_noise: float) -> NodeOutput:
    return _select("euler_ancestral_cfg_pp", s_noise, eta=eta)


def euler_cfg_pp(_context: Context, version: str) -> NodeOutput:
    """Both versions are one step, D + (x - D_unguided) / sigma * next; "alternative" orders it otherwise."""
    if version not in {"regular", "alternative"}:
        raise ValueError(f"unknown version {version!r}")
    return _select("euler_cfg_pp")


def dpmpp_2s_ancestral(_context: Context, eta: float, s_noise: float) -> NodeOutput:
    return _select("dpmpp_2s_ancestral", s_noise, eta=eta)


def dpmpp_sde(_context: Context, eta: float, s_noise: float, r: float, noise_device: str) -> NodeOutput:
    return _select(_choose_device("dpmpp_sde", noise_device), s_noise, eta=eta, r=r)


def dpmpp_2m_sde(_context: Context, solver_type: str, eta: float, s_noise: float, noise_device: str) -> NodeOutput:
    return _select(_choose_device("dpmpp_2m_sde", noise_device), s_noise, eta=eta, midpoint=solver_type == "midpoint")


def dpmpp_3m_sde(_context: Context, eta: float, s_noise: float, noise_device: str) -> NodeOutput:
    return _select(_choose_device("dpmpp_3m_sde", noise_device), s_noise, eta=eta)


def lms(_context: Context, order: int) -> NodeOutput:
    return _select("lms", order=order)


def dpm_adaptive(
    _context: Context,
    *,
    order: int,
    rtol: float,
    atol: float,
    h_init: float,
    pcoeff: float,
    icoeff: float,
    dcoeff: float,
    accept_safety: float,
    eta: float,
    s_noise: float,
) -> NodeOutput:
    gains = (pcoeff, icoeff, dcoeff)
    options: dict[str, Any] = {"order": order, "tolerances": (rtol, atol), "first": h_init, "gains": gains}
    return _select("dpm_adaptive", s_noise, **options, safety=accept_safety, eta=eta)


def er_sde(_context: Context, solver_type: str, max_stage: int, eta: float, s_noise: float) -> NodeOutput:
    """ER-SDE's own noise scaling, the reverse-time SDE's by `eta`, or none ("ODE")."""
    kinds = {"ER-SDE": None, "Reverse-time SDE": eta, "ODE": 0.0}
    if solver_type not in kinds:
        raise ValueError(f"unknown solver_type {solver_type!r}; there are {', '.join(kinds)}")
    strength = kinds[solver_type]
    return _select("er_sde", 0.0 if strength == 0 else s_noise, order=max_stage, eta=strength)


def sa_solver(
    _context: Context,
    *,
    model: Model,
    eta: float,
    sde_start_percent: float,
    sde_end_percent: float,
    s_noise: float,
    predictor_order: int,
    corrector_order: int,
    use_pece: bool,
    simple_order_2: bool,
) -> NodeOutput:
    between = model.sampling.percent_to_sigma(sde_start_percent), model.sampling.percent_to_sigma(sde_end_percent)
    options: dict[str, Any] = {"orders": (predictor_order, corrector_order), "between": between, "tau": eta}
    return _select("sa_solver", s_noise, **options, pece=use_pece, simple=simple_order_2)


def lcm_upscale(_context: Context, scale_ratio: float, scale_steps: int, upscale_method: str) -> NodeOutput:
    return _select(
        "lcm_upscale", scale=scale_ratio, steps=None if scale_steps < 0 else scale_steps, method=upscale_method
    )


def perp_neg_guider(
    _context: Context,
    *,
    model: Model,
    positive: Conditioning,
    negative: Conditioning,
    empty_conditioning: Conditioning,
    cfg: float,
    neg_scale: float,
) -> NodeOutput:
    return NodeOutput((Guider(model, positive, negative, cfg, empty=empty_conditioning, neg_scale=neg_scale),))


def perp_neg(_context: Context, model: Model, empty_conditioning: Conditioning, neg_scale: float) -> NodeOutput:
    """The same as a patch of the model, for every sampler with a negative prompt."""
    return NodeOutput((replace(model, perpendicular=(empty_conditioning, neg_scale)),))


def operate_on_guidance(_context: Context, model: Model, operation: Any) -> NodeOutput:
    """LatentApplyOperationCFG: the operation acts on what guidance adds, at every step."""
    return NodeOutput((replace(model, operations=(*model.operations, operation)),))


def dual_cfg_guider(
    _context: Context,
    *,
    model: Model,
    cond1: Conditioning,
    cond2: Conditioning,
    negative: Conditioning,
    cfg_conds: float,
    cfg_cond2_negative: float,
    style: str,
) -> NodeOutput:
    nested = style == "nested"
    return NodeOutput((Guider(model, cond1, negative, cfg_conds, cond2, cfg_cond2_negative, nested),))


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
) -> NodeOutput:
    guider = Guider(model, positive, negative, cfg)
    return NodeOutput(
        run_sampler(
            context,
            guider=guider,
            sampler=sampler,
            sigmas=sigmas,
            latent=latent_image,
            seed=noise_seed,
            noisy=add_noise,
        )
    )


def add_noise(_context: Context, model: Model, noise: SeededNoise, sigmas: Array, latent_image: Latent) -> NodeOutput:
    """The latent with noise of the first level, or of the difference of the first and the last."""
    if not len(sigmas):
        return NodeOutput((latent_image,))
    samples: Array = latent_image["samples"]
    level = abs(float(sigmas[0]) - float(sigmas[-1])) if len(sigmas) > 1 else float(sigmas[0])
    if noise.seed is None:
        drawn: Array = np.zeros_like(samples)
    else:
        flat, source, frames = make_noise(latent_image, samples, noise.seed)
        drawn = unfold_frames(source.draw_initial().reshape(flat.shape), frames, samples)
    signal = np.float32(model.sampling.alpha(level))
    return NodeOutput(({**latent_image, "samples": samples * signal + drawn * np.float32(level)},))
