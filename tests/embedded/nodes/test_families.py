"""Arithmetic on latents, samplers with options, and the noise schedules of models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

RNG = np.random.default_rng(7)


def latent(*shape: int) -> dict[str, Any]:
    return {"samples": RNG.standard_normal(shape, dtype=np.float32)}


@pytest.fixture
def parts(context: Any) -> dict[str, Any]:
    model, clip, vae = context.run("CheckpointLoaderSimple", ckpt_name="procedural-paint.safetensors")
    text = {"positive": "a fox", "negative": ""}
    sides = {name: context.run("CLIPTextEncode", clip=clip, text=words) for name, words in text.items()}
    return {"model": model, "clip": clip, "vae": vae, **sides}


def sample_latent(context: Any, parts: dict[str, Any], latent_image: Any, **changed: Any) -> Any:
    inputs = {name: parts[name] for name in ("model", "positive", "negative")}
    inputs |= {"seed": 1, "steps": 4, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    return context.run("KSampler", **(inputs | {"latent_image": latent_image} | changed))


def test_latents_are_added_scaled_and_mixed(context: Any) -> None:
    first, second = latent(2, 4, 6, 8), latent(1, 4, 6, 8)
    a, b = first["samples"], second["samples"]
    assert np.array_equal(context.run("LatentAdd", samples1=first, samples2=second)["samples"], a + b)
    assert np.array_equal(context.run("LatentSubtract", samples1=first, samples2=second)["samples"], a - b)
    assert np.array_equal(context.run("LatentMultiply", samples=first, multiplier=2.0)["samples"], a * 2)
    whole = context.run("LatentInterpolate", samples1=first, samples2=second, ratio=1.0)["samples"]
    assert whole == pytest.approx(a, abs=1e-5)
    blended = context.run("LatentBlend", samples1=first, samples2=first, blend_factor=0.3)["samples"]
    assert blended == pytest.approx(a, abs=1e-6)


def test_latents_are_cut_turned_and_joined(context: Any) -> None:
    one = latent(1, 4, 16, 24)
    a = one["samples"]
    inputs = {"width": 64, "height": 64, "x": 800, "y": 16}
    assert np.array_equal(context.run("LatentCrop", samples=one, **inputs)["samples"], a[:, :, 2:10, 16:24])
    flipped = context.run("LatentFlip", samples=one, flip_method="x-axis: vertically")["samples"]
    assert np.array_equal(flipped, a[:, :, ::-1])
    assert context.run("LatentRotate", samples=one, rotation="270 degrees")["samples"].shape == (1, 4, 24, 16)


def test_a_batch_remembers_its_indices(context: Any, parts: dict[str, Any]) -> None:
    three = context.run("EmptyLatentImage", width=64, height=64, batch_size=3)
    second = context.run("LatentFromBatch", samples=three, batch_index=1, length=1)
    assert second["batch_index"] == [1]
    batch = sample_latent(context, parts, three)["samples"]
    assert np.array_equal(sample_latent(context, parts, second)["samples"][0], batch[1])
    joined = context.run("LatentBatch", samples1=second, samples2=three)
    assert joined["batch_index"] == [1, 0, 1, 2]
    fixed = context.run("LatentBatchSeedBehavior", samples=three, seed_behavior="fixed")
    alike = sample_latent(context, parts, fixed)["samples"]
    assert np.array_equal(alike[0], alike[2])


def test_too_large_a_video_is_refused_before_drawing(context: Any, parts: dict[str, Any]) -> None:
    huge = {"samples": np.zeros((1, 4, 4000, 64, 64), np.float32)}
    with pytest.raises(ValueError, match="this server decodes up to 120"):
        context.run("VAEDecode", samples=huge, vae=parts["vae"])


def test_a_sampler_takes_its_options(context: Any, parts: dict[str, Any]) -> None:
    sigmas = context.run("BasicScheduler", model=parts["model"], scheduler="karras", steps=6, denoise=1.0)
    inputs = {name: parts[name] for name in ("model", "positive", "negative")}
    inputs |= {"add_noise": True, "noise_seed": 4, "cfg": 4.0, "sigmas": sigmas}

    def run(kind: str, **options: Any) -> Any:
        empty = context.run("EmptyLatentImage", width=64, height=64)
        sampler = context.run(kind, **options)
        return context.run("SamplerCustom", **inputs, sampler=sampler, latent_image=empty)[0]["samples"]

    euler = run("KSamplerSelect", sampler_name="euler")
    assert run("SamplerEulerAncestral", eta=0.0, s_noise=1.0) == pytest.approx(euler, abs=1e-4)
    ancestral = run("KSamplerSelect", sampler_name="euler_ancestral")
    assert np.array_equal(run("SamplerEulerAncestral", eta=1.0, s_noise=1.0), ancestral)
    assert not np.array_equal(run("SamplerEulerAncestral", eta=1.0, s_noise=0.5), ancestral)
    multistep = run("KSamplerSelect", sampler_name="dpmpp_2m")
    still = {"solver_type": "midpoint", "eta": 0.0, "s_noise": 1.0, "noise_device": "cpu"}
    assert run("SamplerDPMPP_2M_SDE", **still) == pytest.approx(multistep, abs=1e-3)
    assert np.array_equal(run("SamplerLMS", order=4), run("KSamplerSelect", sampler_name="lms"))
    assert run("SamplerLMS", order=1) == pytest.approx(euler, abs=1e-3)
    sde = {"eta": 1.0, "s_noise": 1.0, "noise_device": "gpu"}
    for kind, known, more in (
        ("SamplerDPMPP_SDE", "dpmpp_sde_gpu", {"r": 0.5}),
        ("SamplerDPMPP_3M_SDE", "dpmpp_3m_sde_gpu", {}),
    ):
        assert np.array_equal(run(kind, **sde, **more), run("KSamplerSelect", sampler_name=known))


def test_model_sampling_node_sets_the_noise_schedule(context: Any, parts: dict[str, Any]) -> None:
    model = context.run("ModelSamplingAuraFlow", model=parts["model"], shift=1.73)
    assert model.sampling.sigma_max == pytest.approx(1.0, rel=1e-3)
    empty = context.run("EmptyLatentImage", width=64, height=64)
    assert np.isfinite(sample_latent(context, parts, empty, model=model)["samples"]).all()
