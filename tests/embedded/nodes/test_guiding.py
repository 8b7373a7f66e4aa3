"""Inputs beside text: inpainting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

RED, BLUE = "a red flower in a desert at sunset, warm", "a blue sea at night"


class Bench:
    """A checkpoint with two prompts, and short methods to make a picture."""

    def __init__(self, context: Any) -> None:
        self.run = context.run
        self.model, self.clip, self.vae = self.run("CheckpointLoaderSimple", ckpt_name="procedural-photo.safetensors")
        self.red, self.blue, self.none = (self.text(text) for text in (RED, BLUE, ""))

    def text(self, text: str) -> Any:
        return self.run("CLIPTextEncode", clip=self.clip, text=text)

    def latent(self, positive: Any, **changed: Any) -> Any:
        inputs = {"model": self.model, "seed": 3, "steps": 8, "cfg": 5.0, "denoise": 1.0, "negative": self.none}
        inputs |= {"sampler_name": "euler", "scheduler": "normal", "positive": positive}
        inputs["latent_image"] = self.run("EmptyLatentImage", width=128, height=128)
        return self.run("KSampler", **(inputs | changed))

    def picture(self, positive: Any, **changed: Any) -> Any:
        return self.run("VAEDecode", samples=self.latent(positive, **changed), vae=self.vae)[0]

    def both(self, first: Any, second: Any) -> Any:
        return self.run("ConditioningCombine", conditioning_1=first, conditioning_2=second)


@pytest.fixture
def bench(context: Any) -> Bench:
    return Bench(context)


def blueness(image: Any) -> float:
    return float((image[..., 2] - image[..., 0]).mean())


def apart(first: Any, second: Any) -> float:
    return float(np.abs(first - second).mean() * 255)


@pytest.mark.parametrize("grow", [0, 6])
def test_inpainting_changes_only_the_masked_part(bench: Bench, grow: int) -> None:
    picture = bench.picture(bench.red)[None]
    mask = np.zeros((1, 128, 128), np.float32)
    mask[:, 32:96, 32:96] = 1
    inputs = {"pixels": picture, "vae": bench.vae, "mask": mask, "grow_mask_by": grow}
    image = bench.picture(bench.blue, latent_image=bench.run("VAEEncodeForInpaint", **inputs))
    assert blueness(image[40:88, 40:88]) > blueness(picture[0, 40:88, 40:88]) + 0.3
    assert apart(image[:16], picture[0, :16]) < 2


def test_inpainting_conditioning_keeps_the_picture_outside_the_mask(bench: Bench) -> None:
    picture = bench.picture(bench.red)[None]
    mask = np.zeros((1, 128, 128), np.float32)
    mask[:, :, :64] = 1
    inputs = {"negative": bench.none, "vae": bench.vae, "pixels": picture, "mask": mask, "noise_mask": True}
    positive, negative, latent = bench.run("InpaintModelConditioning", positive=bench.blue, **inputs)
    image = bench.picture(positive, negative=negative, latent_image=latent)
    assert apart(image[:, 80:], picture[0, :, 80:]) < 12 < apart(image[:, :48], picture[0, :, :48])
