"""Conditionings of video and 3D families: which pictures they follow, for how long, and their shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

SIZE = {"width": 96, "height": 64}


class Bench:
    def __init__(self, context: Any) -> None:
        self.run = context.run
        self.model, self.clip, self.vae = self.run("CheckpointLoaderSimple", ckpt_name="wan2.1.safetensors")
        texts = {"positive": "a fox", "negative": ""}
        self.sides = {n: self.run("CLIPTextEncode", clip=self.clip, text=text) for n, text in texts.items()}
        self.vision = self.run("CLIPVisionLoader", clip_name="procedural-vision.safetensors")

    def condition(self, kind: str, **inputs: Any) -> tuple[Any, ...]:
        """Run a Wan node for 9 frames: (positive, negative, latent, ...)."""
        given = {**self.sides, "vae": self.vae, **SIZE, "length": 9, "batch_size": 1} | inputs
        return tuple(self.run(kind, **given))

    def draw(self, positive: Any, negative: Any, latent: Any, *, model: Any = None) -> Any:
        inputs = {"seed": 2, "steps": 4, "cfg": 3.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
        sides = {"positive": positive, "negative": negative}
        return self.run("KSampler", model=model or self.model, latent_image=latent, **sides, **inputs)["samples"]

    def seen(self, image: Any) -> Any:
        return self.run("CLIPVisionEncode", clip_vision=self.vision, image=image, crop="center")


@pytest.fixture
def bench(context: Any) -> Bench:
    return Bench(context)


def halves(count: int = 1, *, light: float = 1.0) -> Any:
    """Pictures that are dark on the left and light on the right."""
    image = np.zeros((count, 64, 96, 3), np.float32)
    image[:, :, 48:] = light
    return image


def lean(latent: Any) -> Any:
    """How much lighter the right half of each frame is."""
    return (latent[0, 0, :, :, 6:].mean(axis=(1, 2)) - latent[0, 0, :, :, :6].mean(axis=(1, 2))).tolist()


INPUTS = {
    "WanFunControlToVideo": {"control_video": halves(9)},
    "Wan22FunControlToVideo": {"control_video": halves(9)},
    "WanVaceToVideo": {"control_video": halves(9), "strength": 1.0},
    "WanSoundImageToVideo": {"control_video": halves(9)},
    "WanAnimateToVideo": {"pose_video": halves(9), "continue_motion_max_frames": 5, "video_frame_offset": 0},
}


@pytest.mark.parametrize("kind", INPUTS)
def test_a_control_video_is_followed_in_every_frame(bench: Bench, kind: str) -> None:
    inputs = INPUTS[kind]
    bare = {name: value for name, value in inputs.items() if not name.endswith("_video")}
    without, held = (bench.draw(*bench.condition(kind, **given)[:3]) for given in (bare, inputs))
    assert held.shape == without.shape
    assert all(after > before + 0.3 for before, after in zip(lean(without), lean(held), strict=True))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("WanFunControlToVideo", "start_image"), ("Wan22FunControlToVideo", "ref_image"),
        ("WanVaceToVideo", "reference_image"), ("WanPhantomSubjectToVideo", "images"),
        ("WanSoundImageToVideo", "ref_image"), ("WanSoundImageToVideo", "ref_motion"),
        ("WanHuMoImageToVideo", "ref_image"), ("WanAnimateToVideo", "reference_image"),
        ("WanAnimateToVideo", "background_video"), ("WanAnimateToVideo", "continue_motion"),
        ("WanTrackToVideo", "start_image"),
    ],
)  # fmt: skip
def test_a_picture_holds_the_video(bench: Bench, kind: str, name: str) -> None:
    more = {
        "WanVaceToVideo": {"strength": 1.0},
        "WanAnimateToVideo": {"continue_motion_max_frames": 5, "video_frame_offset": 0},
        "WanTrackToVideo": {"tracks": "[]", "temperature": 220.0, "topk": 2},
    }.get(kind, {})
    without, held = (bench.condition(kind, **more, **given) for given in ({}, {name: halves()}))
    latent = -1 if kind == "WanPhantomSubjectToVideo" else 2
    pictures = [bench.draw(condition[0], condition[1], condition[latent]) for condition in (without, held)]
    assert lean(pictures[1])[0] > lean(pictures[0])[0] + 0.3


def test_frames_in_front_are_reported_for_trimming(bench: Bench) -> None:
    *_, latent, trim = bench.condition("WanVaceToVideo", strength=1.0)
    assert (latent["samples"].shape[2], trim) == (3, 0)
    *_, latent, trim = bench.condition("WanVaceToVideo", strength=1.0, reference_image=halves())
    assert (latent["samples"].shape[2], trim) == (4, 1)
    given = {"continue_motion_max_frames": 5, "video_frame_offset": 9, "continue_motion": halves(7)}
    _, _, latent, trim_latent, trim_image, offset = bench.condition("WanAnimateToVideo", **given)
    assert latent["samples"].shape == (1, 16, 4, 8, 12)
    assert (trim_latent, trim_image, offset) == (1, 5, 13)


def test_vace_keeps_the_video_where_its_mask_is_black(bench: Bench) -> None:
    mask = np.ones((9, 64, 96), np.float32)
    mask[:, :, 48:] = 0
    given = {"control_video": halves(9, light=0.9), "control_masks": mask, "strength": 1.0}
    held = bench.draw(*bench.condition("WanVaceToVideo", **given)[:3])
    kept = bench.run("VAEEncode", pixels=halves(1, light=0.9), vae=bench.vae)["samples"][0, 0, 4, 9]
    assert held[0, 0, :, 2:6, 8:].mean() == pytest.approx(kept, abs=0.4)


def test_extended_sound_video_continues_the_last_one(bench: Bench) -> None:
    before = {"samples": np.full((1, 4, 3, 8, 12), -1.5, np.float32)}
    given = {**bench.sides, "vae": bench.vae, "length": 9, "video_latent": before}
    positive, negative, latent = bench.run("WanSoundImageToVideoExtend", **given)
    assert latent["pixels"] == (96, 64)
    assert bench.draw(positive, negative, latent)[0, 0, 0].mean() == pytest.approx(-1.5, abs=0.4)


def test_tracks_that_are_not_a_list_are_refused(bench: Bench) -> None:
    more = {"start_image": halves(), "temperature": 220.0, "topk": 2}
    for tracks, problem in (("{", ValueError), ('"x"', TypeError)):
        with pytest.raises(problem, match="tracks"):
            bench.condition("WanTrackToVideo", tracks=tracks, **more)
    bench.condition("WanTrackToVideo", tracks="[[{'x': 1, 'y': 2}]]", **more)


def test_video_area_has_a_time_range(bench: Bench) -> None:
    light, dark = (
        bench.run("CLIPTextEncode", clip=bench.clip, text=text) for text in ("a white room, bright", "night")
    )
    whole = {"width": 1.0, "height": 1.0, "x": 0.0, "y": 0.0, "strength": 1.0}
    first = bench.run("ConditioningSetAreaPercentageVideo", conditioning=light, temporal=0.5, z=0.0, **whole)
    second = bench.run("ConditioningSetAreaPercentageVideo", conditioning=dark, temporal=0.5, z=0.5, **whole)
    both = bench.run("ConditioningCombine", conditioning_1=first, conditioning_2=second)
    latent = bench.run("EmptyHunyuanLatentVideo", width=64, height=64, length=29, batch_size=1)
    luma = bench.draw(both, bench.sides["negative"], latent)[0, 0].mean(axis=(1, 2))
    assert luma[:3].mean() > luma[5:].mean() + 0.5


def test_refined_video_keeps_the_given_one(bench: Bench) -> None:
    rng = np.random.default_rng(2)
    given = rng.standard_normal((1, 4, 3, 1, 1), dtype=np.float32) * np.ones((1, 4, 3, 8, 8), np.float32)
    apart = []
    for amount in (0.0, 0.9):
        inputs = {**bench.sides, "latent": {"samples": given}, "noise_augmentation": amount}
        condition = bench.run("HunyuanRefinerLatent", **inputs)
        assert condition[2]["samples"].shape == (1, 32, 3, 8, 8)
        apart.append(float(np.abs(bench.draw(*condition)[:, :3] - given[:, :3]).mean()))
    assert apart[0] < 0.3 < apart[1]


def test_orbit_shows_the_subject_from_all_sides(bench: Bench) -> None:
    inputs = {"clip_vision": bench.vision, "init_image": halves(), "vae": bench.vae, "width": 64, "height": 64}
    condition = bench.run("SV3D_Conditioning", video_frames=9, elevation=0.0, **inputs)
    samples = bench.draw(*condition)
    leans = samples[:, 0, :, 4:].mean(axis=(1, 2)) - samples[:, 0, :, :4].mean(axis=(1, 2))
    assert leans[0] > leans[4] + 0.3
    assert leans[8] > leans[4] + 0.3
    views = {"batch_size": 3, "elevation": 0.0, "azimuth": 0.0, "elevation_batch_increment": 0.0}
    condition = bench.run("StableZero123_Conditioning_Batched", azimuth_batch_increment=60.0, **views, **inputs)
    assert condition[2]["batch_index"] == [0, 0, 0]
    samples = bench.draw(*condition)
    leans = samples[:, 0, :, 4:].mean(axis=(1, 2)) - samples[:, 0, :, :4].mean(axis=(1, 2))
    assert leans[0] > leans[1] > leans[2]


def test_model_patches_act_on_every_prompt(bench: Bench) -> None:
    latent = bench.run("EmptyLatentImage", **SIZE)
    sides = bench.sides.values()
    patch = bench.run("ModelPatchLoader", name="qwen_image_canny_diffsynth.safetensors")
    hint = {"model_patch": patch, "vae": bench.vae, "image": halves()}
    plain = bench.draw(*sides, latent)
    moved = []
    for strength in (0.0, 0.5, 1.5):
        model = bench.run("QwenImageDiffsynthControlnet", model=bench.model, strength=strength, **hint)
        moved.append(float(np.abs(bench.draw(*sides, latent, model=model) - plain).mean()))
    assert moved[0] == 0 < moved[1] < moved[2]
    styled = bench.run(
        "USOStyleReference", model=bench.model, model_patch=patch, clip_vision_output=bench.seen(halves())
    )
    assert float(np.abs(bench.draw(*sides, latent, model=styled) - plain).mean()) > 0.02


def test_photomaker_uses_its_picture_only_with_its_word(bench: Bench) -> None:
    maker = bench.run("PhotoMakerLoader", photomaker_model_name="photomaker-v1.bin")
    latent = bench.run("EmptyLatentImage", **SIZE)

    def draw(text: str, image: Any) -> Any:
        condition = bench.run("PhotoMakerEncode", photomaker=maker, image=image, clip=bench.clip, text=text)
        return bench.draw(condition, bench.sides["negative"], latent)

    pictures = halves(), 1 - halves() * np.float32([1, 0, 0])
    assert np.array_equal(draw("a fox", pictures[0]), draw("a fox", pictures[1]))
    assert not np.array_equal(draw("a fox photomaker", pictures[0]), draw("a fox photomaker", pictures[1]))


def test_lotus_needs_no_text_and_cascade_encodes_its_control(bench: Bench) -> None:
    nothing = bench.run("LotusConditioning")
    assert not nothing[0][0].any()
    hint, stage_c, stage_b = bench.run("StableCascade_SuperResolutionControlnet", image=halves(), vae=bench.vae)
    assert hint.shape == (1, 8, 12, 4)
    assert (stage_c["samples"].shape, stage_b["samples"].shape) == ((1, 16, 4, 6), (1, 4, 32, 48))
