"""The sampling nodes, called as the executor calls them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sweeper.embedded.nodes import NODE_CLASSES, Interrupted

CHECKPOINT = "procedural-paint.safetensors"


class Studio:
    """A checkpoint, two prompts, and the inputs of KSampler."""

    def __init__(self, context: Any, checkpoint: str = CHECKPOINT, prompt: str = "a red fox in the snow") -> None:
        self.context = context
        self.model, self.clip, self.vae = context.run("CheckpointLoaderSimple", ckpt_name=checkpoint)
        self.positive = self.text(prompt)
        self.negative = self.text("")

    def text(self, prompt: str) -> Any:
        return self.context.run("CLIPTextEncode", text=prompt, clip=self.clip)

    def empty(self, batch: int = 1) -> Any:
        return self.context.run("EmptyLatentImage", width=128, height=96, batch_size=batch)

    def latent(self, **changes: Any) -> Any:
        inputs: dict[str, Any] = {
            "model": self.model,
            "seed": 7,
            "steps": 6,
            "cfg": 6.0,
            "sampler_name": "euler",
            "scheduler": "normal",
            "positive": self.positive,
            "negative": self.negative,
            "latent_image": changes.get("latent_image") or self.empty(),
            "denoise": 1.0,
        }
        return self.context.run("KSampler", **(inputs | changes))

    def part(self, latent: Any, start: int, end: int, *, noise: bool, leftover: bool, **changes: Any) -> Any:
        inputs: dict[str, Any] = {
            "model": self.model,
            "add_noise": "enable" if noise else "disable",
            "noise_seed": 7,
            "steps": 6,
            "cfg": 6.0,
            "sampler_name": "euler",
            "scheduler": "normal",
            "positive": self.positive,
            "negative": self.negative,
            "latent_image": latent,
            "start_at_step": start,
            "end_at_step": end,
            "return_with_leftover_noise": "enable" if leftover else "disable",
        }
        return self.context.run("KSamplerAdvanced", **(inputs | changes))

    def picture(self, latent: Any) -> Any:
        return self.context.run("VAEDecode", samples=latent, vae=self.vae)


@pytest.fixture
def studio(context: Any) -> Studio:
    return Studio(context)


def grain(latent: Any) -> float:
    """Mean absolute difference of neighbouring pixels."""
    return float(np.abs(np.diff(latent["samples"][:, :3], axis=-1)).mean())


def apart(first: Any, other: Any) -> float:
    """Mean absolute difference of two latents."""
    return float(np.abs(first["samples"] - other["samples"]).mean())


@pytest.mark.parametrize("name", NODE_CLASSES["KSampler"].required["sampler_name"][0])
def test_every_sampler_gives_a_picture(studio: Studio, name: str) -> None:
    latent = studio.latent(sampler_name=name, scheduler="sgm_uniform", cfg=2.0)
    image = studio.picture(latent)
    assert image.shape == (1, 96, 128, 3)
    assert image.dtype == np.float32
    assert np.isfinite(image).all()
    assert 0.05 < image.std() < 0.6
    # At most one report per step, never past the end, each with a preview of latent size.
    values = [value for value, _, _ in studio.context.seen]
    assert values == sorted(values)
    assert all(1 <= value <= total == 6 for value, total, _ in studio.context.seen)
    assert {size for _, _, size in studio.context.seen} == {(16, 12)}


def test_seeds_up_to_the_last_bit_differ(studio: Studio) -> None:
    pictures = [studio.latent(seed=seed) for seed in (0, 1, 2**53, 2**53 + 1, 2**64 - 2, 2**64 - 1)]
    for i, first in enumerate(pictures):
        for other in pictures[:i]:
            assert apart(first, other) > 0.02
    assert apart(studio.latent(seed=2**64 - 1), pictures[-1]) == 0


def test_an_item_of_a_batch_does_not_depend_on_the_batch(studio: Studio) -> None:
    alone, three = studio.latent(), studio.latent(latent_image=studio.empty(3))
    assert np.allclose(three["samples"][0], alone["samples"][0], atol=1e-5)
    assert np.abs(three["samples"][1] - three["samples"][0]).mean() > 0.02


@pytest.mark.parametrize("name", ["euler", "heun", "euler_ancestral"])
def test_two_halves_of_a_schedule_make_nearly_the_whole_picture(studio: Studio, name: str) -> None:
    whole = studio.part(studio.empty(), 0, 10000, noise=True, leftover=False, sampler_name=name)
    first = studio.part(studio.empty(), 0, 3, noise=True, leftover=True, sampler_name=name)
    second = studio.part(first, 3, 10000, noise=False, leftover=False, sampler_name=name, noise_seed=99)
    other = studio.latent(sampler_name=name, seed=99)
    assert apart(second, whole) < 0.3 * apart(other, whole)
    assert np.array_equal(whole["samples"], studio.latent(sampler_name=name)["samples"])


def test_base_and_refiner_share_the_picture(studio: Studio) -> None:
    refiner = studio.context.run("UNETLoader", unet_name="procedural-ink.safetensors", weight_dtype="default")
    base = studio.part(studio.empty(), 0, 4, noise=True, leftover=True)
    alone = studio.part(base, 4, 10000, noise=False, leftover=False)
    refined = studio.part(base, 4, 10000, noise=False, leftover=False, model=refiner)
    only = studio.latent(model=refiner)
    assert 0.02 < apart(refined, alone) < apart(only, alone)


def test_latent_that_is_enlarged_can_be_painted_again(studio: Studio) -> None:
    small = studio.latent()
    large = studio.context.run("LatentUpscaleBy", samples=small, upscale_method="bicubic", scale_by=2.0)
    again = studio.latent(latent_image=large, denoise=0.5)
    assert again["samples"].shape == (1, 4, 24, 32)
    assert np.corrcoef(again["samples"][0, 0].ravel(), large["samples"][0, 0].ravel())[0, 1] > 0.8


def test_a_part_without_leftover_noise_ends_clean(studio: Studio) -> None:
    noisy = studio.part(studio.empty(), 0, 2, noise=True, leftover=True)
    clean = studio.part(studio.empty(), 0, 2, noise=True, leftover=False)
    assert grain(noisy) > 2 * grain(clean)


def test_part_that_starts_after_the_end_changes_nothing(studio: Studio) -> None:
    latent = studio.latent()
    assert apart(studio.part(latent, 6, 10000, noise=True, leftover=False), latent) == 0


def test_custom_sampling_equals_ksampler(studio: Studio) -> None:
    run = studio.context.run
    output, denoised = run(
        "SamplerCustomAdvanced",
        noise=run("RandomNoise", noise_seed=7),
        guider=run("CFGGuider", model=studio.model, positive=studio.positive, negative=studio.negative, cfg=6.0),
        sampler=run("KSamplerSelect", sampler_name="euler"),
        sigmas=run("BasicScheduler", model=studio.model, scheduler="normal", steps=6, denoise=1.0),
        latent_image=studio.empty(),
    )
    assert apart(output, studio.latent()) == 0
    assert np.array_equal(denoised["samples"], output["samples"])


def test_no_noise_and_no_steps_keep_the_latent(studio: Studio) -> None:
    run = studio.context.run
    latent = studio.latent()
    assert apart(studio.latent(latent_image=latent, denoise=0.0), latent) == 0
    guider = run("BasicGuider", model=studio.model, conditioning=studio.positive)
    sampler = run("KSamplerSelect", sampler_name="euler")
    inputs = {"noise": run("DisableNoise"), "guider": guider, "sampler": sampler, "latent_image": latent}
    still, _ = run("SamplerCustomAdvanced", **inputs, sigmas=np.array([0.01, 0.0], np.float32))
    assert apart(still, latent) < 0.01


def test_every_input_of_a_sampler_changes_the_picture(studio: Studio) -> None:
    plain = studio.part(studio.empty(), 0, 6, noise=True, leftover=False)
    changes: list[dict[str, Any]] = [
        {"noise_seed": 8}, {"steps": 7}, {"cfg": 6.5}, {"sampler_name": "dpmpp_2m"}, {"scheduler": "karras"},
        {"start_at_step": 1}, {"end_at_step": 5}, {"add_noise": "disable"}, {"return_with_leftover_noise": "enable"},
        {"positive": studio.text("a red fox in the fog")}, {"negative": studio.text("dark")},
    ]  # fmt: skip
    changes[-3]["end_at_step"] = 5
    pictures = [studio.part(studio.empty(), 0, 6, noise=True, leftover=False, **change) for change in changes]
    for change, first in zip(changes, pictures, strict=True):
        assert apart(first, plain) > 1e-3, change
    assert apart(pictures[6], pictures[8]) > 1e-3


def test_flux_chain_draws_and_guidance_matters(context: Any) -> None:
    run = context.run
    model = run("UNETLoader", unet_name="flux1-dev.safetensors", weight_dtype="default")
    clip = run("DualCLIPLoader", clip_name1="t5xxl.safetensors", clip_name2="clip_l.safetensors", type="flux")
    vae = run("VAELoader", vae_name="ae.safetensors")
    shifted = run("ModelSamplingSD3", model=model, shift=3.0)
    latents = []
    for guidance in (1.0, 3.5, 10.0):
        text = run("CLIPTextEncode", clip=clip, text="a lighthouse")
        text = run("FluxGuidance", conditioning=text, guidance=guidance)
        output, _ = run(
            "SamplerCustomAdvanced",
            noise=run("RandomNoise", noise_seed=1),
            guider=run("BasicGuider", model=shifted, conditioning=text),
            sampler=run("KSamplerSelect", sampler_name="euler"),
            sigmas=run("BasicScheduler", model=shifted, scheduler="simple", steps=6, denoise=1.0),
            latent_image=run("EmptySD3LatentImage", width=128, height=128, batch_size=1),
        )
        assert run("VAEDecode", samples=output, vae=vae).shape == (1, 128, 128, 3)
        latents.append(float(output["samples"][:, :3].std()))
    assert latents == sorted(latents)
    assert latents[2] > 1.1 * latents[0]


def test_a_job_can_be_interrupted_between_steps(studio: Studio) -> None:
    studio.context.stop_at = 3
    with pytest.raises(Interrupted):
        studio.latent(steps=50)
    assert [value for value, _, _ in studio.context.seen] == [1, 2, 3]


def test_arithmetic_on_conditionings(studio: Studio) -> None:
    run = studio.context.run
    fox, night = studio.positive, studio.text("night")
    mixed = run("ConditioningAverage", conditioning_to=fox, conditioning_from=night, conditioning_to_strength=0.25)
    assert np.allclose(mixed[0][0], 0.25 * fox[0][0] + 0.75 * night[0][0])
    assert run("ConditioningConcat", conditioning_to=fox, conditioning_from=night)[0][0].shape[1] == 154
    assert len(run("ConditioningCombine", conditioning_1=fox, conditioning_2=night)) == 2
    assert not run("ConditioningZeroOut", conditioning=fox)[0][0].any()
    skipped = run("CLIPSetLastLayer", clip=studio.clip, stop_at_clip_layer=-2)
    assert not np.array_equal(run("CLIPTextEncode", text="zorblax", clip=skipped)[0][0], studio.text("zorblax")[0][0])


def test_a_lora_moves_the_picture_by_its_strength(studio: Studio) -> None:
    plain = studio.latent()
    moved = []
    for strength in (0.0, 0.5, 1.0, -1.0):
        model, clip = studio.context.run(
            "LoraLoader",
            model=studio.model,
            clip=studio.clip,
            lora_name="some-style.safetensors",
            strength_model=strength,
            strength_clip=0.0,
        )
        assert clip == studio.clip
        moved.append(apart(studio.latent(model=model), plain))
    assert moved[0] == 0
    assert 0 < moved[1] < moved[2]
    only = studio.context.run("LoraLoaderModelOnly", model=studio.model, lora_name="x.safetensors", strength_model=1.0)
    assert apart(studio.latent(model=only), plain) > 0


def test_low_precision_weights_change_the_picture_a_little(context: Any, studio: Studio) -> None:
    full = context.run("UNETLoader", unet_name="some.safetensors", weight_dtype="default")
    low = context.run("UNETLoader", unet_name="some.safetensors", weight_dtype="fp8_e5m2")
    assert 0 < apart(studio.latent(model=full), studio.latent(model=low)) < 0.5


def test_latents_are_resized_as_comfyui_does(studio: Studio) -> None:
    run, latent = studio.context.run, studio.latent()
    sizes = {
        (0, 0): (12, 16),
        (256, 0): (24, 32),  # 12 rows * 256 / 16 columns, in latent pixels there: 192 / 8
        (0, 192): (24, 32),
        (8, 200): (25, 8),  # never below 64 image pixels
    }
    for (width, height), expected in sizes.items():
        scaled = run(
            "LatentUpscale", samples=latent, upscale_method="bislerp", width=width, height=height, crop="disabled"
        )
        assert scaled["samples"].shape[2:] == expected
    assert run("LatentUpscaleBy", samples=latent, upscale_method="area", scale_by=1.5)["samples"].shape == (
        1,
        4,
        18,
        24,
    )


def test_a_scheduler_without_denoise_has_no_levels(studio: Studio) -> None:
    def count(denoise: float) -> int:
        sigmas = studio.context.run("BasicScheduler", model=studio.model, scheduler="karras", steps=9, denoise=denoise)
        return len(sigmas)

    assert [count(denoise) for denoise in (0.0, 0.5, 1.0)] == [0, 10, 10]


def test_denoise_moves_from_the_picture_to_the_prompt(studio: Studio) -> None:
    picture = studio.picture(studio.latent(positive=studio.text("a lighthouse by the sea"), steps=12))
    source = studio.context.run("VAEEncode", pixels=picture, vae=studio.vae)
    assert np.allclose(studio.picture(source), picture, atol=1e-6)
    moved = []
    for denoise in (0.05, 0.2, 0.4, 0.6, 0.8, 1.0):
        image = studio.picture(studio.latent(latent_image=source, denoise=denoise, steps=12))
        moved.append(float(np.abs(image - picture).mean()))
    assert max(moved[:2]) < 0.03
    assert moved == sorted(moved)
    assert moved[-1] > 0.12


def test_noise_mask_protects_its_part(studio: Studio) -> None:
    latent = studio.latent()
    mask = np.zeros((1, 96, 128), np.float32)
    mask[:, :, 64:] = 1
    painted = studio.latent(latent_image={**latent, "noise_mask": mask}, seed=9, positive=studio.text("night, forest"))
    before, after = latent["samples"], painted["samples"]
    assert np.allclose(after[..., :7], before[..., :7], atol=1e-4)
    assert np.abs(after[..., 9:] - before[..., 9:]).mean() > 0.05


def test_primitives_return_their_value(context: Any) -> None:
    for kind, value in {
        "PrimitiveInt": 2**62,
        "PrimitiveFloat": 0.1,
        "PrimitiveString": "x",
        "PrimitiveBoolean": False,
    }.items():
        assert context.run(kind, value=value) == value
