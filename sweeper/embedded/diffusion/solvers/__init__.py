"""The samplers by name. Each is its published mathematics; see the module that holds it for the source.

`ddim` is `euler`: DDIM with eta 0 is the Euler step of the probability flow ODE in sigma (Song et al. 2021, Karras et
al. 2022), and ComfyUI runs it as such. Names whose mathematics are not here would be missing from this table.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.diffusion.solvers import multistep, single_step, whole_run
from sweeper.embedded.diffusion.solvers.solver_run import SolverRun, StepSolver

__all__ = ["SOLVERS", "Solver", "SolverRun"]

Solver = Callable[..., "Array"]  # (run, x, sigmas, **options)


def _walk(step: Callable[..., Any], *, snr: bool = False, **options: Any) -> StepSolver:
    """A solver of one function; `snr`: in log SNR, which must be finite."""
    return StepSolver(partial(step, **options), finite_start=snr)


SOLVERS: dict[str, Solver] = {
    "euler": StepSolver(single_step.euler, reaches_zero=True),
    "euler_cfg_pp": _walk(single_step.euler_cfg_pp),
    "euler_ancestral": StepSolver(single_step.euler_ancestral, reaches_zero=True),
    "euler_ancestral_cfg_pp": _walk(single_step.euler_cfg_pp, eta=1.0),
    "heun": StepSolver(single_step.heun, reaches_zero=True),
    "heunpp2": StepSolver(single_step.heunpp2, reaches_zero=True),
    "dpm_2": _walk(single_step.dpm_2),
    "dpm_2_ancestral": _walk(single_step.dpm_2_ancestral),
    "lms": StepSolver(multistep.lms, memory=99),
    "dpm_fast": whole_run.dpm_fast,
    "dpm_adaptive": whole_run.dpm_adaptive,
    "dpmpp_2s_ancestral": _walk(single_step.dpmpp_2s_ancestral),
    "dpmpp_2s_ancestral_cfg_pp": _walk(single_step.dpmpp_2s_ancestral_cfg_pp),
    "dpmpp_sde": _walk(single_step.dpmpp_sde, snr=True),
    "dpmpp_sde_gpu": _walk(single_step.dpmpp_sde, snr=True, stream=1),
    "dpmpp_2m": _walk(multistep.dpmpp_2m),
    "dpmpp_2m_cfg_pp": _walk(multistep.dpmpp_2m_cfg_pp),
    "dpmpp_2m_sde": _walk(multistep.dpmpp_multistep_sde, snr=True, midpoint=True),
    "dpmpp_2m_sde_gpu": _walk(multistep.dpmpp_multistep_sde, snr=True, midpoint=True, stream=1),
    "dpmpp_2m_sde_heun": _walk(multistep.dpmpp_multistep_sde, snr=True),
    "dpmpp_2m_sde_heun_gpu": _walk(multistep.dpmpp_multistep_sde, snr=True, stream=1),
    "dpmpp_3m_sde": _walk(multistep.dpmpp_multistep_sde, snr=True, order=3),
    "dpmpp_3m_sde_gpu": _walk(multistep.dpmpp_multistep_sde, snr=True, order=3, stream=1),
    "ddpm": StepSolver(single_step.ddpm, reaches_zero=True),
    "lcm": _walk(single_step.lcm),
    "ipndm": _walk(multistep.ipndm),
    "ipndm_v": _walk(multistep.ipndm_v),
    "deis": StepSolver(multistep.deis, reaches_zero=True),
    "res_multistep": _walk(multistep.res_multistep),
    "res_multistep_cfg_pp": _walk(multistep.res_multistep, plus=True),
    "res_multistep_ancestral": _walk(multistep.res_multistep, eta=1.0),
    "res_multistep_ancestral_cfg_pp": _walk(multistep.res_multistep, eta=1.0, plus=True),
    "gradient_estimation": _walk(multistep.gradient_estimation),
    "gradient_estimation_cfg_pp": _walk(multistep.gradient_estimation, plus=True),
    "er_sde": _walk(multistep.er_sde, snr=True),
    "seeds_2": _walk(single_step.seeds, snr=True, shares=(0.5,)),
    "seeds_3": _walk(single_step.seeds, snr=True, shares=(1 / 3, 2 / 3)),
    "sa_solver": whole_run.sa_solver,
    "sa_solver_pece": partial(whole_run.sa_solver, pece=True),
    "ddim": StepSolver(single_step.euler, reaches_zero=True),
    "uni_pc": whole_run.uni_pc,
    "uni_pc_bh2": partial(whole_run.uni_pc, b2=True),
}
