"""More image nodes, text nodes and sigmas, compared to values computed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sweeper.embedded.diffusion.models import load_model

RNG = np.random.default_rng(11)


def step_picture() -> Any:
    image = np.zeros((1, 16, 16, 3), np.float32)
    image[:, :, 8:] = 1
    return image


@pytest.mark.parametrize(
    ("kind", "inputs", "size"),
    [
        ("ImageScaleToTotalPixels", {"megapixels": 0.01}, (145, 72)),
        ("ImageScaleToTotalPixels", {"megapixels": 0.01, "resolution_steps": 16}, (144, 80)),
        ("ImageScaleToMaxDimension", {"largest_size": 50}, (50, 25)),
    ],
)
def test_picture_is_scaled_to_the_requested_size(
    kind: str, inputs: dict[str, Any], size: tuple[int, int], context: Any
) -> None:
    result = context.run(kind, image=np.zeros((1, 20, 40, 3), np.float32), upscale_method="area", **inputs)
    assert (result.shape[2], result.shape[1]) == size


def test_sizes_batches_and_turns(context: Any) -> None:
    image = RNG.random((3, 4, 6, 3), dtype=np.float32)
    assert context.run("GetImageSize", image=image) == (6, 4, 3)
    assert np.array_equal(context.run("ImageFromBatch", image=image, batch_index=1, length=9), image[1:])
    assert np.array_equal(context.run("ImageFromBatch", image=image, batch_index=-1, length=9), image[-1:])
    assert len(context.run("RepeatImageBatch", image=image, amount=2)) == 6
    turned = context.run("ImageRotate", image=image, rotation="90 degrees")
    assert np.array_equal(
        turned[:, 0, -1], image[:, 0, 0]
    )  # turned to the right, so that the first corner is at the right
    flipped = context.run("ImageFlip", image=image, flip_method="y-axis: horizontally")
    assert np.array_equal(flipped, image[:, :, ::-1])


@pytest.mark.parametrize("dither", ["none", "floyd-steinberg", "bayer-2", "bayer-16"])
def test_quantising_leaves_the_requested_number_of_colours(dither: str, context: Any) -> None:
    ramp = np.repeat(np.linspace(0, 1, 64, dtype=np.float32)[None, None, :, None], 3, axis=3).repeat(8, axis=1)
    result = context.run("ImageQuantize", image=ramp, colors=4, dither=dither)
    assert 2 <= len(np.unique(result.reshape(-1, 3), axis=0)) <= 4
    assert abs(result.mean() - ramp.mean()) < 0.1


def test_canny_finds_exactly_the_edge(context: Any) -> None:
    result = context.run("Canny", image=step_picture(), low_threshold=0.1, high_threshold=0.3)[0, :, :, 0]
    assert result[4:12].any(axis=1).all()
    assert set(np.flatnonzero(result.any(axis=0)).tolist()) <= {7, 8}
    with pytest.raises(ValueError, match="low_threshold should be smaller"):
        context.run("Canny", image=step_picture(), low_threshold=0.5, high_threshold=0.3)


@pytest.mark.parametrize(("name", "factor"), [("4x-UltraSharp.pth", 4), ("RealESRGAN_x2plus.pth", 2), ("foo.pth", 4)])
def test_an_upscale_model_enlarges_by_the_factor_in_its_name(name: str, factor: int, context: Any) -> None:
    image = RNG.random((1, 12, 10, 3), dtype=np.float32)
    model = context.run("UpscaleModelLoader", model_name=name)
    result = context.run("ImageUpscaleWithModel", upscale_model=model, image=image)
    assert result.shape == (1, 12 * factor, 10 * factor, 3)
    assert abs(result.mean() - image.mean()) < 0.03


def test_model_name_out_of_its_folder_is_refused(context: Any) -> None:
    with pytest.raises(ValueError, match="invalid model name"):
        context.run("UpscaleModelLoader", model_name="../secret.pth")


def test_text_nodes(context: Any) -> None:
    assert context.run("StringConcatenate", string_a="a", string_b="b", delimiter=", ") == "a, b"
    assert context.run("StringSubstring", string="lighthouse", start=0, end=5) == "light"
    assert context.run("StringLength", string="fox") == 3
    assert context.run("CaseConverter", string="a red FOX", mode="Title Case") == "A Red Fox"
    assert context.run("StringTrim", string="  x ", mode="Left") == "x "
    assert context.run("StringReplace", string="a fox", find="fox", replace="cat") == "a cat"
    assert context.run("StringContains", string="A Fox", substring="fox", case_sensitive=False) is True
    compared = {"string_a": "Fox", "string_b": "fox", "mode": "Equal"}
    assert context.run("StringCompare", **compared, case_sensitive=True) is False


def test_schedules_follow_their_formulas(context: Any) -> None:
    ends = {"steps": 5, "sigma_max": 10.0, "sigma_min": 0.1}
    geometric = context.run("ExponentialScheduler", **ends)
    assert geometric.tolist() == pytest.approx([10, 10**0.5, 1, 0.1**0.5, 0.1, 0])
    assert context.run("PolyexponentialScheduler", **ends, rho=1.0).tolist() == geometric.tolist()
    model = load_model("procedural-photo.safetensors")
    beta = context.run("BetaSamplingScheduler", model=model, steps=12, alpha=0.6, beta=0.6)
    expected = context.run("BasicScheduler", model=model, scheduler="beta", steps=12, denoise=1.0)
    assert beta.tolist() == expected.tolist()
    late = context.run("BetaSamplingScheduler", model=model, steps=12, alpha=0.4, beta=2.0)
    assert late[6] < beta[6]


def test_schedules_are_cut_and_joined(context: Any) -> None:
    sigmas = np.array([8, 4, 2, 1, 0], np.float32)
    high, low = context.run("SplitSigmas", sigmas=sigmas, step=2)
    assert (high.tolist(), low.tolist()) == ([8, 4, 2], [2, 1, 0])
    high, low = context.run("SplitSigmasDenoise", sigmas=sigmas, denoise=0.5)
    assert (high.tolist(), low.tolist()) == ([8, 4, 2], [2, 1, 0])
    assert context.run("FlipSigmas", sigmas=sigmas).tolist() == pytest.approx([1e-4, 1, 2, 4, 8])


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        ("EmptyImage", {"width": 16384, "height": 16384, "batch_size": 4096, "color": 0}),
        ("ImagePadForOutpaint", {"left": 16384, "top": 16384, "right": 16384, "bottom": 16384, "feathering": 0}),
        ("RepeatImageBatch", {"amount": 2**24}),
        ("ImageScale", {"upscale_method": "bilinear", "width": 16384, "height": 16384, "crop": "disabled"}),
    ],
)
def test_too_large_a_picture_is_refused(kind: str, inputs: dict[str, Any], context: Any) -> None:
    image = {} if kind == "EmptyImage" else {"image": np.zeros((1, 4, 4, 3), np.float32)}
    with pytest.raises(ValueError, match="the most is 268"):
        context.run(kind, **image, **inputs)
