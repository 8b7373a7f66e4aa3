"""Samplers with options, guiders and schedulers that have their own nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sweeper.embedded.diffusion.gits import search_levels
from sweeper.embedded.nodes import NODE_CLASSES

GREY = ""


class Bench:
    def __init__(self, context: Any) -> None:
        self.run = context.run
        self.model, self.clip, self.vae = self.run("CheckpointLoaderSimple", ckpt_name="procedural-photo.safetensors")
        self.positive = self.text("a red flower in a desert at sunset, warm")
        self.negative = self.text("blurry, dark")
        self.empty = self.text(GREY)

    def text(self, text: str) -> Any:
        return self.run("CLIPTextEncode", clip=self.clip, text=text)

    def sigmas(self, steps: int = 8) -> Any:
        return self.run("KarrasScheduler", steps=steps, sigma_max=14.6, sigma_min=0.03, rho=7.0)

    def sample(self, sampler: Any, *, guider: Any = None, sigmas: Any = None, latent: Any = None) -> Any:
        both = {"positive": self.positive, "negative": self.negative}
        guider = guider or self.run("CFGGuider", model=self.model, cfg=4.0, **both)
        latent = latent or self.run("EmptyLatentImage", width=96, height=96)
        first, _ = self.run(
            "SamplerCustomAdvanced",
            noise=self.run("RandomNoise", noise_seed=4),
            guider=guider,
            sampler=sampler,
            sigmas=self.sigmas() if sigmas is None else sigmas,
            latent_image=latent,
        )
        return first["samples"]

    def select(self, name: str) -> Any:
        return self.run("KSamplerSelect", sampler_name=name)


@pytest.fixture
def bench(context: Any) -> Bench:
    return Bench(context)


def apart(first: Any, second: Any) -> float:
    return float(np.abs(first - second).mean())


def defaults(kind: str) -> dict[str, Any]:
    """The default inputs of a class; False for a switch without a default."""
    specs = {**NODE_CLASSES[kind].required, **NODE_CLASSES[kind].optional}
    widgets = {name: spec for name, spec in specs.items() if spec[0] in ("INT", "FLOAT", "BOOLEAN", "COMBO")}
    return {
        name: options["options"][0] if kind == "COMBO" else options.get("default", False)
        for name, (kind, options) in widgets.items()
    }


TWINS = {
    "SamplerDPMAdaptative": "dpm_adaptive", "SamplerER_SDE": "er_sde", "SamplerSASolver": "sa_solver",
    "SamplerLCMUpscale": "lcm",
}  # fmt: skip


@pytest.mark.parametrize("kind", TWINS)
def test_sampler_with_defaults_equals_the_listed_one(bench: Bench, kind: str) -> None:
    inputs = defaults(kind) | ({"model": bench.model} if "model" in NODE_CLASSES[kind].required else {})
    own = bench.sample(bench.run(kind, **inputs))
    assert apart(own, bench.sample(bench.select(TWINS[kind]))) < 1e-6


CHANGES = {
    "SamplerDPMAdaptative": [{"order": 2}, {"rtol": 0.5}, {"atol": 0.5}, {"h_init": 0.2}, {"pcoeff": 0.3},
                             {"icoeff": 0.5}, {"dcoeff": 0.2}, {"accept_safety": 0.99}, {"eta": 1.0},
                             {"eta": 1.0, "s_noise": 0.5}],
    "SamplerER_SDE": [{"solver_type": "Reverse-time SDE"}, {"solver_type": "ODE"}, {"max_stage": 1}, {"max_stage": 2},
                      {"solver_type": "Reverse-time SDE", "eta": 0.3}, {"s_noise": 0.7}],
    "SamplerSASolver": [{"eta": 0.0}, {"eta": 0.5}, {"sde_start_percent": 0.5}, {"sde_end_percent": 0.4},
                        {"s_noise": 0.5}, {"predictor_order": 1}, {"corrector_order": 0}, {"use_pece": True},
                        {"predictor_order": 2, "simple_order_2": True}],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "changed"), [(kind, one) for kind, many in CHANGES.items() for one in many])
def test_every_option_changes_the_result(bench: Bench, kind: str, changed: dict[str, Any]) -> None:
    inputs = defaults(kind) | ({"model": bench.model} if "model" in NODE_CLASSES[kind].required else {})
    other = bench.sample(bench.run(kind, **(inputs | changed)))
    assert np.isfinite(other).all()
    assert apart(bench.sample(bench.run(kind, **inputs)), other) > 1e-5


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("SamplerER_SDE", {"solver_type": "ODE"}),
        ("SamplerER_SDE", {"solver_type": "Reverse-time SDE", "eta": 0.0}),
        ("SamplerSASolver", {"eta": 0.0}),
        ("SamplerSASolver", {"eta": 0.0, "predictor_order": 2, "corrector_order": 2, "simple_order_2": True}),
        ("SamplerDPMAdaptative", {"rtol": 0.005, "atol": 0.0008}),
    ],
)
def test_samplers_without_noise_solve_the_same_equation(bench: Bench, kind: str, changed: dict[str, Any]) -> None:
    inputs = defaults(kind) | ({"model": bench.model} if "model" in NODE_CLASSES[kind].required else {})
    levels = bench.sigmas(120)
    if kind == "SamplerDPMAdaptative":
        levels = levels[:-1]  # it stops at the last level above zero
    exact = bench.sample(bench.select("heun"), sigmas=levels)
    own = bench.sample(bench.run(kind, **(inputs | changed)), sigmas=bench.sigmas(80))
    assert apart(own, exact) < 0.02


def test_zero_step_size_is_refused(bench: Bench) -> None:
    for changed in ({"h_init": 0.0}, {"rtol": 0.0, "atol": 0.0}):
        sampler = bench.run("SamplerDPMAdaptative", **(defaults("SamplerDPMAdaptative") | changed))
        with pytest.raises(ValueError, match="above 0"):
            bench.sample(sampler)


@pytest.mark.parametrize(("scale", "steps"), [(2.0, -1), (1.5, 2), (0.5, 1)])
def test_lcm_upscale_ends_at_its_size(bench: Bench, scale: float, steps: int) -> None:
    sampler = bench.run("SamplerLCMUpscale", scale_ratio=scale, scale_steps=steps, upscale_method="bislerp")
    side = round(12 * scale)
    grown = bench.sample(sampler)
    assert grown.shape == (1, 4, side, side)
    # It is the same picture, larger, apart from the fresh noise of another size at every step.
    small = bench.sample(bench.select("lcm"))
    shrunk = bench.run("LatentUpscaleBy", samples={"samples": grown}, upscale_method="area", scale_by=1 / scale)
    assert np.corrcoef(shrunk["samples"][0, 0].ravel(), small[0, 0].ravel())[0, 1] > 0.35


def perp(bench: Bench, negative: Any, **changed: Any) -> Any:
    inputs = {"positive": bench.positive, "negative": negative, "empty_conditioning": bench.empty}
    guider = bench.run("PerpNegGuider", model=bench.model, **inputs, **({"cfg": 4.0, "neg_scale": 1.0} | changed))
    return bench.sample(bench.select("euler"), guider=guider)


def test_perp_neg_removes_only_the_perpendicular_part(bench: Bench) -> None:
    plain = perp(bench, bench.negative, neg_scale=0.0)
    assert apart(plain, perp(bench, bench.positive)) < 1e-4  # the same text has nothing of its own
    once, twice = (apart(plain, perp(bench, bench.negative, neg_scale=scale)) for scale in (0.5, 1.5))
    assert 0.003 < once < twice
    # A negative prompt with the same words pushes a plain guider away from them, but hardly this one.
    shared = bench.text("a red flower in a desert")
    both = {"positive": bench.positive, "cfg": 4.0}
    usual = [
        bench.sample(bench.select("euler"), guider=bench.run("CFGGuider", model=bench.model, negative=negative, **both))
        for negative in (bench.empty, shared)
    ]
    assert apart(plain, perp(bench, shared)) < 0.6 * apart(*usual)


def test_perp_neg_patch_equals_the_guider(bench: Bench) -> None:
    patched = bench.run("PerpNeg", model=bench.model, empty_conditioning=bench.empty, neg_scale=1.0)
    both = {"positive": bench.positive, "negative": bench.negative, "cfg": 4.0}
    guider = bench.run("CFGGuider", model=patched, **both)
    assert np.array_equal(bench.sample(bench.select("euler"), guider=guider), perp(bench, bench.negative))


def test_operation_acts_on_the_guidance_only(bench: Bench) -> None:
    both = {"positive": bench.positive, "negative": bench.negative, "cfg": 9.0}

    def drawn(model: Any) -> Any:
        guider = bench.run("CFGGuider", model=model, **both)
        return bench.sample(bench.select("euler"), guider=guider)

    plain = drawn(bench.model)
    calmer = bench.run("LatentOperationTonemapReinhard", multiplier=0.5)
    calmed = drawn(bench.run("LatentApplyOperationCFG", model=bench.model, operation=calmer))
    assert apart(plain, calmed) > 0.01
    assert np.abs(calmed[:, 1:3]).mean() < np.abs(plain[:, 1:3]).mean()  # less guidance gives less colour


def test_denoise_cuts_published_levels(bench: Bench) -> None:
    run = bench.run
    whole = run("OptimalStepsScheduler", model_type="FLUX", steps=10, denoise=1.0)
    assert whole[:3].tolist() == pytest.approx([0.9968, 0.9886, 0.9819])
    assert whole[-1] == 0
    # The levels of a ComfyUI 0.3.64.
    part = run("OptimalStepsScheduler", model_type="FLUX", steps=6, denoise=0.7)
    assert part.tolist() == pytest.approx([0.9720, 0.9471, 0.8568, 0.4402, 0.0], abs=5e-5)
    assert len(run("OptimalStepsScheduler", model_type="Wan", steps=10, denoise=0.0)) == 0
    with pytest.raises(ValueError, match="FLUX, Wan, Chroma"):
        run("OptimalStepsScheduler", model_type="SD1", steps=10, denoise=1.0)


def test_gits_coefficient_moves_steps_to_low_noise(bench: Bench) -> None:
    for steps in (4, 10, 20):
        means = []
        for coeff in (0.8, 1.0, 1.2, 1.5):
            levels_ = bench.run("GITSScheduler", coeff=coeff, steps=steps, denoise=1.0)
            assert len(levels_) == steps + 1
            assert (np.diff(levels_) < 0).all()
            assert levels_[0] == pytest.approx(14.6146, abs=1e-3)
            assert levels_[-1] == 0
            means.append(float(np.log(levels_[1:-1]).mean()))
        assert means == sorted(means, reverse=True)
    assert len(bench.run("GITSScheduler", coeff=1.2, steps=50, denoise=0.5)) == 26


def test_gits_levels_minimise_the_cost() -> None:
    """Compare to every choice of three levels from the grid: 2 steps leave one level to choose."""
    from sweeper.embedded.diffusion.gits import _costs

    grid, cost = _costs()
    for coeff in (0.8, 1.2):
        losses = cost[0, 1:-1] + coeff * cost[1:-1, -1]
        assert search_levels(coeff, 2)[1] == grid[1 + int(losses.argmin())]
