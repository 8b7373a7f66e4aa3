"""The names that combos offer, apart from the code behind them, so that listing nodes imports no NumPy."""

from __future__ import annotations

import re

_SCHEDULER_NAMES = """
    simple sgm_uniform karras exponential ddim_uniform beta normal linear_quadratic kl_optimal
"""
_SAMPLER_NAMES = """
    euler euler_cfg_pp euler_ancestral euler_ancestral_cfg_pp heun heunpp2 dpm_2 dpm_2_ancestral lms dpm_fast
    dpm_adaptive dpmpp_2s_ancestral dpmpp_2s_ancestral_cfg_pp dpmpp_sde dpmpp_sde_gpu dpmpp_2m dpmpp_2m_cfg_pp
    dpmpp_2m_sde dpmpp_2m_sde_gpu dpmpp_2m_sde_heun dpmpp_2m_sde_heun_gpu dpmpp_3m_sde dpmpp_3m_sde_gpu ddpm lcm
    ipndm ipndm_v deis res_multistep res_multistep_cfg_pp res_multistep_ancestral res_multistep_ancestral_cfg_pp
    gradient_estimation gradient_estimation_cfg_pp er_sde seeds_2 seeds_3 sa_solver sa_solver_pece ddim uni_pc
    uni_pc_bh2
"""
SCHEDULERS = tuple(_SCHEDULER_NAMES.split())
SAMPLERS = tuple(_SAMPLER_NAMES.split())
CHECKPOINTS = ("procedural-ink.safetensors", "procedural-paint.safetensors", "procedural-photo.safetensors")
LORAS = ("procedural-noir.safetensors", "procedural-vivid.safetensors")
CLIPS = ("procedural-clip-g.safetensors", "procedural-clip-l.safetensors", "procedural-t5.safetensors")
VAES = ("procedural-ink.safetensors", "procedural-paint.safetensors", "procedural-photo.safetensors", "pixel_space")


def check_name(name: str) -> None:
    """Raise ValueError for a model name that could leave a folder: absolute, with `..`, a drive, or empty."""
    parts = re.split(r"[\\/]", name)
    if not name or parts[0] == "" or ".." in parts or re.match(r"^[A-Za-z]:", name) or "\0" in name:
        raise ValueError(f"invalid model name {name!r}: it must be a plain file name or a path below the model folder")
