"""Inputs beside text: areas, masks, time ranges, control, inpainting, merging, rescaled guidance."""

from __future__ import annotations

from itertools import pairwise
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


def test_two_areas_are_drawn_in_their_own_parts(bench: Bench) -> None:
    half = {"width": 64, "height": 128, "y": 0, "strength": 1.0}
    left = bench.run("ConditioningSetArea", conditioning=bench.blue, x=0, **half)
    right = bench.run("ConditioningSetArea", conditioning=bench.red, x=64, **half)
    image = bench.picture(bench.both(left, right))
    assert blueness(image[:, :48]) > blueness(image[:, 80:]) + 0.2
    share = {"width": 0.5, "height": 1.0, "y": 0.0, "strength": 1.0}
    left = bench.run("ConditioningSetAreaPercentage", conditioning=bench.blue, x=0.0, **share)
    right = bench.run("ConditioningSetAreaPercentage", conditioning=bench.red, x=0.5, **share)
    assert np.array_equal(bench.picture(bench.both(left, right)), image)


@pytest.mark.parametrize("area", [(4096, 64, 0, 0), (64, 64, 8192, 8192), (64, 64, 120, 120)])
def test_an_area_outside_the_picture_is_clipped_to_it(bench: Bench, area: tuple[int, int, int, int]) -> None:
    placed = dict(zip(("width", "height", "x", "y"), area, strict=True))
    entry = bench.run("ConditioningSetArea", conditioning=bench.blue, strength=1.0, **placed)
    assert np.isfinite(bench.picture(bench.both(entry, bench.red))).all()


@pytest.mark.parametrize("bounds", ["default", "mask bounds"])
def test_mask_limits_where_a_prompt_acts(bench: Bench, bounds: str) -> None:
    mask = np.zeros((1, 128, 128), np.float32)
    mask[:, :, :64] = 1
    inputs = {"mask": mask, "strength": 4.0, "set_cond_area": bounds}
    image = bench.picture(bench.both(bench.run("ConditioningSetMask", conditioning=bench.blue, **inputs), bench.red))
    assert blueness(image[:, :48]) > blueness(image[:, 80:]) + 0.2


def test_the_strengths_of_two_prompts_weigh_them(bench: Bench) -> None:
    results = []
    for strength in (0.0, 0.5, 1.0, 3.0, 10.0):
        weighed = bench.run("ConditioningSetAreaStrength", conditioning=bench.blue, strength=strength)
        results.append(blueness(bench.picture(bench.both(bench.red, weighed), steps=4)))
    assert results == sorted(results)
    assert results[0] == blueness(bench.picture(bench.red, steps=4))


def test_prompt_acts_only_within_its_time_range(bench: Bench) -> None:
    def run_at(at: float) -> Any:
        early = bench.run("ConditioningSetTimestepRange", conditioning=bench.blue, start=0.0, end=at)
        late = bench.run("ConditioningSetTimestepRange", conditioning=bench.red, start=at, end=1.0)
        return bench.picture(bench.both(early, late))

    assert np.array_equal(run_at(1.0), bench.picture(bench.blue))
    assert blueness(run_at(0.9)) > blueness(run_at(0.05)) + 0.1


@pytest.mark.parametrize("name", ["control_canny.pth", "depth.safetensors", "tile.safetensors", "anything.safetensors"])
def test_picture_follows_the_hint_by_control_strength(bench: Bench, name: str) -> None:
    hint = np.zeros((1, 128, 128, 3), np.float32)
    hint[:, 32:96, 32:96] = 1
    control = bench.run("ControlNetLoader", control_net_name=name)
    images = []
    for strength in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0):
        inputs = {"conditioning": bench.red, "control_net": control, "image": hint, "strength": strength}
        images.append(bench.picture(bench.run("ControlNetApply", **inputs)))
    assert np.array_equal(images[0], bench.picture(bench.red))
    away = [apart(image, images[0]) for image in images]
    assert away[-1] > 8
    assert all(later > earlier - 1.5 for earlier, later in pairwise(away))
    assert max(apart(one, other) for one, other in pairwise(images)) < 0.6 * away[-1] + 6


def test_control_acts_within_its_percent_range(bench: Bench) -> None:
    hint = np.zeros((1, 64, 64, 3), np.float32)
    hint[:, 16:48] = 1
    inputs = {"positive": bench.red, "negative": bench.none, "image": hint, "strength": 1.0, "start_percent": 0.0}

    def drawn(name: str, end: float) -> Any:
        control = bench.run("ControlNetLoader", control_net_name=name)
        sides = bench.run("ControlNetApplyAdvanced", **inputs, control_net=control, end_percent=end)
        return bench.picture(sides[0], negative=sides[1])

    assert apart(drawn("depth-a.pth", 1.0), drawn("depth-a.pth", 0.0)) > 3
    assert apart(drawn("depth-a.pth", 1.0), drawn("depth-b.pth", 1.0)) > 0.5


@pytest.mark.parametrize("grow", [0, 6])
def test_inpainting_changes_only_the_masked_part(bench: Bench, grow: int) -> None:
    picture = bench.picture(bench.red)[None]
    mask = np.zeros((1, 128, 128), np.float32)
    mask[:, 32:96, 32:96] = 1
    inputs = {"pixels": picture, "vae": bench.vae, "mask": mask, "grow_mask_by": grow}
    image = bench.picture(bench.blue, latent_image=bench.run("VAEEncodeForInpaint", **inputs))
    assert blueness(image[40:88, 40:88]) > blueness(picture[0, 40:88, 40:88]) + 0.3
    assert apart(image[:16], picture[0, :16]) < 2


def test_inpainting_model_keeps_the_picture_outside_the_mask(bench: Bench) -> None:
    picture = bench.picture(bench.red)[None]
    mask = np.zeros((1, 128, 128), np.float32)
    mask[:, :, :64] = 1
    inputs = {"negative": bench.none, "vae": bench.vae, "pixels": picture, "mask": mask, "noise_mask": False}
    positive, negative, latent = bench.run("InpaintModelConditioning", positive=bench.blue, **inputs)
    assert "noise_mask" not in latent
    image = bench.picture(positive, negative=negative, latent_image=latent)
    assert apart(image[:, 80:], picture[0, :, 80:]) < 12 < apart(image[:, :48], picture[0, :, :48])


def test_merges_move_the_style_smoothly(bench: Bench) -> None:
    other = bench.run("UNETLoader", unet_name="procedural-ink.safetensors", weight_dtype="default")
    images = [
        bench.picture(bench.red, model=bench.run("ModelMergeSimple", model1=bench.model, model2=other, ratio=ratio))
        for ratio in (1.0, 0.9, 0.8, 0.0)
    ]
    assert np.array_equal(images[0], bench.picture(bench.red))
    assert apart(images[0], images[1]) < apart(images[0], images[3])
    assert np.allclose(images[3], bench.picture(bench.red, model=other), atol=0.01)


def test_rescaling_reduces_contrast_of_high_guidance(bench: Bench) -> None:
    plain = bench.latent(bench.red, cfg=14.0)["samples"]
    tamed = bench.latent(bench.red, cfg=14.0, model=bench.run("RescaleCFG", model=bench.model, multiplier=0.7))
    assert tamed["samples"].std() < plain.std()
    same = bench.run("RescaleCFG", model=bench.model, multiplier=0.0)
    assert bench.latent(bench.red, cfg=14.0, model=same)["samples"] == pytest.approx(plain, abs=1e-4)
