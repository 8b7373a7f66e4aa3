"""Samplers, schedulers, guiders, model sampling: as ComfyUI 0.3.64's object_info describes them."""

from __future__ import annotations

from sweeper.embedded.diffusion.names import SAMPLERS, SCHEDULERS
from sweeper.embedded.nodes.base import InputSpec, NodeClass
from sweeper.embedded.nodes.catalog.spec_builders import SIZE_MAX, combo, integer, link, node, number, seed

_CUSTOM = "comfy_extras.nodes_custom_sampler"
_ADVANCED = "comfy_extras.nodes_model_advanced"
_STEPS = integer(20, 1, 10000)
_CFG = number(8.0, 0.0, 100.0, 0.1, round=0.01)
_KSAMPLER: dict[str, InputSpec] = {
    "model": link("MODEL"),
    "seed": seed(),
    "steps": _STEPS,
    "cfg": _CFG,
    "sampler_name": combo(SAMPLERS),
    "scheduler": combo(SCHEDULERS),
    "positive": link("CONDITIONING"),
    "negative": link("CONDITIONING"),
    "latent_image": link("LATENT"),
    "denoise": number(1.0, 0.0, 1.0, 0.01),
}

NODES: tuple[NodeClass, ...] = (
    node(
        "KSampler",
        ("sampling", "ksampler"),
        "sampling",
        _KSAMPLER,
        ("LATENT",),
    ),
    node(
        "KSamplerAdvanced",
        ("sampling", "ksampler_advanced"),
        "sampling",
        {
            "model": link("MODEL"),
            "add_noise": combo(("enable", "disable")),
            "noise_seed": seed(),
            "steps": _STEPS,
            "cfg": _CFG,
            "sampler_name": combo(SAMPLERS),
            "scheduler": combo(SCHEDULERS),
            "positive": link("CONDITIONING"),
            "negative": link("CONDITIONING"),
            "latent_image": link("LATENT"),
            "start_at_step": integer(0, 0, 10000),
            "end_at_step": integer(10000, 0, 10000),
            "return_with_leftover_noise": combo(("disable", "enable")),
        },
        ("LATENT",),
        title="KSampler (Advanced)",
    ),
    node(
        "SamplerCustomAdvanced",
        ("sampling", "sampler_custom_advanced"),
        "sampling/custom_sampling",
        {
            "noise": link("NOISE"),
            "guider": link("GUIDER"),
            "sampler": link("SAMPLER"),
            "sigmas": link("SIGMAS"),
            "latent_image": link("LATENT"),
        },
        {"output": "LATENT", "denoised_output": "LATENT"},
        module=_CUSTOM,
    ),
    node(
        "RandomNoise",
        ("sampling", "random_noise"),
        "sampling/custom_sampling/noise",
        {"noise_seed": seed()},
        ("NOISE",),
        module=_CUSTOM,
    ),
    node(
        "DisableNoise",
        ("sampling", "disable_noise"),
        "sampling/custom_sampling/noise",
        {},
        ("NOISE",),
        module=_CUSTOM,
    ),
    node(
        "BasicGuider",
        ("sampling", "basic_guider"),
        "sampling/custom_sampling/guiders",
        {"model": link("MODEL"), "conditioning": link("CONDITIONING")},
        ("GUIDER",),
        module=_CUSTOM,
    ),
    node(
        "CFGGuider",
        ("sampling", "cfg_guider"),
        "sampling/custom_sampling/guiders",
        {
            "model": link("MODEL"),
            "positive": link("CONDITIONING"),
            "negative": link("CONDITIONING"),
            "cfg": _CFG,
        },
        ("GUIDER",),
        module=_CUSTOM,
    ),
    node(
        "KSamplerSelect",
        ("sampling", "ksampler_select"),
        "sampling/custom_sampling/samplers",
        {"sampler_name": combo(SAMPLERS)},
        ("SAMPLER",),
        module=_CUSTOM,
    ),
    node(
        "BasicScheduler",
        ("sampling", "basic_scheduler"),
        "sampling/custom_sampling/schedulers",
        {
            "model": link("MODEL"),
            "scheduler": combo(SCHEDULERS),
            "steps": _STEPS,
            "denoise": number(1.0, 0.0, 1.0, 0.01),
        },
        ("SIGMAS",),
        module=_CUSTOM,
    ),
    node(
        "KarrasScheduler",
        ("sampling", "karras_scheduler"),
        "sampling/custom_sampling/schedulers",
        {
            "steps": _STEPS,
            "sigma_max": number(14.614642, 0.0, 5000.0, 0.01, round=False),
            "sigma_min": number(0.0291675, 0.0, 5000.0, 0.01, round=False),
            "rho": number(7.0, 0.0, 100.0, 0.01, round=False),
        },
        ("SIGMAS",),
        module=_CUSTOM,
    ),
    node(
        "ModelSamplingFlux",
        ("sampling", "model_sampling_flux"),
        "advanced/model",
        {
            "model": link("MODEL"),
            "max_shift": number(1.15, 0.0, 100.0, 0.01),
            "base_shift": number(0.5, 0.0, 100.0, 0.01),
            "width": integer(1024, 16, SIZE_MAX, 8),
            "height": integer(1024, 16, SIZE_MAX, 8),
        },
        ("MODEL",),
        module=_ADVANCED,
    ),
    node(
        "ModelSamplingSD3",
        ("sampling", "model_sampling_sd3"),
        "advanced/model",
        {"model": link("MODEL"), "shift": number(3.0, 0.0, 100.0, 0.01)},
        ("MODEL",),
        module=_ADVANCED,
    ),
)
