"""Batches of latents, shifts of models, and films."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


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


def test_too_large_a_video_is_refused_before_drawing(context: Any, parts: dict[str, Any]) -> None:
    huge = {"samples": np.zeros((1, 4, 4000, 64, 64), np.float32)}
    with pytest.raises(ValueError, match="this server decodes up to 120"):
        context.run("VAEDecode", samples=huge, vae=parts["vae"])


def test_shift_of_a_model_changes_the_picture(context: Any, parts: dict[str, Any]) -> None:
    empty = context.run("EmptyLatentImage", width=64, height=64)
    images = []
    for shift in (1.0, 1.73, 3.0):
        model = context.run("ModelSamplingAuraFlow", model=parts["model"], shift=shift)
        images.append(sample_latent(context, parts, empty, model=model)["samples"])
    assert 0 < np.abs(images[0] - images[1]).mean() < np.abs(images[0] - images[2]).mean()


def test_neighbouring_frames_of_a_film_are_alike(context: Any, parts: dict[str, Any]) -> None:
    empty = {"samples": np.zeros((1, 4, 6, 16, 16), np.float32)}
    frames = sample_latent(context, parts, empty)["samples"][0, :3]
    near, far = (float(np.abs(frames[:, 0] - frames[:, index]).mean()) for index in (1, 5))
    assert 0 < near < far < 1


def test_latents_of_a_film_are_upscaled_frame_by_frame(context: Any) -> None:
    film = np.random.default_rng(1).normal(size=(2, 4, 3, 8, 16)).astype(np.float32)
    larger = context.run("LatentUpscaleBy", samples={"samples": film}, upscale_method="bilinear", scale_by=2.0)
    assert larger["samples"].shape == (2, 4, 3, 16, 32)
    frame = {"samples": film[:, :, 1]}
    alone = context.run("LatentUpscale", samples=frame, upscale_method="bilinear", width=256, height=0, crop="disabled")
    assert np.array_equal(larger["samples"][:, :, 1], alone["samples"])
