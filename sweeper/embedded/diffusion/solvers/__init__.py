"""The samplers by name. Each is its published mathematics; see the module that holds it for the source.

`ddim` is `euler`: DDIM with eta 0 is the Euler step of the probability flow ODE in sigma (Song et al. 2021, Karras et
al. 2022), and ComfyUI runs it as such. Names whose mathematics are not here would be missing from this table.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from sweeper.embedded.diffusion.solvers import adams, cfgpp, dpm, multistep, ode, sde
from sweeper.embedded.diffusion.solvers.solver_run import SolverRun

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

__all__ = ["SOLVERS", "UNLISTED", "Solver", "SolverRun"]

Solver = Callable[..., "Array"]  # (run, x, sigmas, **options)

SOLVERS: dict[str, Solver] = {
    "euler": ode.euler,
    "euler_cfg_pp": cfgpp.euler_cfg_pp,
    "euler_ancestral": ode.euler_ancestral,
    "euler_ancestral_cfg_pp": cfgpp.euler_ancestral_cfg_pp,
    "heun": ode.heun,
    "heunpp2": ode.heunpp2,
    "dpm_2": ode.dpm_2,
    "dpm_2_ancestral": ode.dpm_2_ancestral,
    "lms": multistep.lms,
    "dpm_fast": dpm.dpm_fast,
    "dpm_adaptive": dpm.dpm_adaptive,
    "dpmpp_2s_ancestral": sde.dpmpp_2s_ancestral,
    "dpmpp_2s_ancestral_cfg_pp": cfgpp.dpmpp_2s_ancestral_cfg_pp,
    "dpmpp_sde": sde.dpmpp_sde,
    "dpmpp_sde_gpu": partial(sde.dpmpp_sde, gpu=True),
    "dpmpp_2m": cfgpp.dpmpp_2m,
    "dpmpp_2m_cfg_pp": cfgpp.dpmpp_2m_cfg_pp,
    "dpmpp_2m_sde": sde.dpmpp_2m_sde,
    "dpmpp_2m_sde_gpu": partial(sde.dpmpp_2m_sde, gpu=True),
    "dpmpp_2m_sde_heun": partial(sde.dpmpp_2m_sde, midpoint=False),
    "dpmpp_2m_sde_heun_gpu": partial(sde.dpmpp_2m_sde, midpoint=False, gpu=True),
    "dpmpp_3m_sde": sde.dpmpp_3m_sde,
    "dpmpp_3m_sde_gpu": partial(sde.dpmpp_3m_sde, gpu=True),
    "ddpm": ode.ddpm,
    "lcm": ode.lcm,
    "ipndm": multistep.ipndm,
    "ipndm_v": multistep.ipndm_v,
    "deis": multistep.deis,
    "res_multistep": cfgpp.res_multistep,
    "res_multistep_cfg_pp": partial(cfgpp.res_multistep, plus=True),
    "res_multistep_ancestral": partial(cfgpp.res_multistep, eta=1.0),
    "res_multistep_ancestral_cfg_pp": partial(cfgpp.res_multistep, eta=1.0, plus=True),
    "gradient_estimation": multistep.gradient_estimation,
    "gradient_estimation_cfg_pp": partial(multistep.gradient_estimation, plus=True),
    "er_sde": sde.er_sde,
    "seeds_2": sde.seeds_2,
    "seeds_3": sde.seeds_3,
    "sa_solver": adams.sa_solver,
    "sa_solver_pece": partial(adams.sa_solver, pece=True),
    "ddim": ode.euler,
    "uni_pc": adams.uni_pc,
    "uni_pc_bh2": partial(adams.uni_pc, b2=True),
}
# Samplers that only a node of their own gives: no list offers these names.
UNLISTED: dict[str, Solver] = {"lcm_upscale": ode.lcm_upscale}
