"""Image nodes, compared to values computed by hand or by another formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.embedded.diffusion.arrays import resize

RNG = np.random.default_rng(3)


def picture(*shape: int) -> Any:
    return RNG.random(shape, dtype=np.float32)


def plane(rows: list[list[float]]) -> Any:
    return np.array(rows, np.float32)[None, None]


def test_nearest_exact_takes_the_pixel_under_each_centre() -> None:
    assert resize(plane([[0, 1, 2, 3, 4]]), 3, 1, "nearest-exact").ravel().tolist() == [0, 2, 4]
    assert resize(plane([[0, 1]]), 5, 1, "nearest-exact").ravel().tolist() == [0, 0, 1, 1, 1]


def test_bilinear_has_clamped_edges_and_area_is_a_mean() -> None:
    doubled = resize(plane([[0, 1, 4, 2]]), 8, 1, "bilinear").ravel()
    assert doubled.tolist() == pytest.approx([0, 0.25, 0.75, 1.75, 3.25, 3.5, 2.5, 2])
    assert resize(plane([[1, 3, 5, 7]]), 2, 1, "area").ravel().tolist() == pytest.approx([2, 6])


@given(st.integers(1, 24), st.integers(1, 24), st.sampled_from(["nearest-exact", "bilinear", "area", "bicubic"]))
def test_a_flat_picture_stays_flat_at_every_size(width: int, height: int, method: str) -> None:
    flat = np.full((1, 3, 7, 9), 0.3, np.float32)
    result = resize(flat, width, height, method)
    assert result.shape == (1, 3, height, width)
    assert np.allclose(result, 0.3, atol=1e-6)


def test_a_picture_scales_with_a_side_of_zero_following_the_other(context: Any) -> None:
    image = picture(1, 20, 40, 3)
    scaled = context.run("ImageScale", image=image, upscale_method="area", width=0, height=10, crop="disabled")
    assert scaled.shape == (1, 10, 20, 3)
    same = context.run("ImageScale", image=image, upscale_method="area", width=0, height=0, crop="disabled")
    assert same is image


def test_the_centre_crop_keeps_the_new_aspect_ratio(context: Any) -> None:
    image = np.zeros((1, 4, 12, 3), np.float32)
    image[:, :, 4:8] = 1
    cropped = context.run("ImageScale", image=image, upscale_method="bilinear", width=4, height=4, crop="center")
    assert np.array_equal(cropped, np.ones((1, 4, 4, 3), np.float32))


def convolve(image: Any, radius: int, sigma: float) -> Any:
    """ComfyUI's blur in its simple, slow form: a two-dimensional kernel over -1 .. 1 with reflected edges."""
    axis = np.linspace(-1, 1, 2 * radius + 1)
    kernel = np.exp(-(axis[:, None] ** 2 + axis[None] ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    padded = np.pad(image.astype(np.float64), ((0, 0), (radius, radius), (radius, radius), (0, 0)), mode="reflect")
    total = np.zeros(image.shape)
    for dy in range(2 * radius + 1):
        for dx in range(2 * radius + 1):
            total += kernel[dy, dx] * padded[:, dy : dy + image.shape[1], dx : dx + image.shape[2]]
    return total


@pytest.mark.parametrize(("radius", "sigma"), [(1, 1.0), (3, 0.4), (5, 10.0)])
def test_blur_and_sharpen_are_the_two_dimensional_kernel(context: Any, radius: int, sigma: float) -> None:
    image = picture(2, 9, 11, 3)
    blurred = convolve(image, radius, sigma)
    assert np.allclose(context.run("ImageBlur", image=image, blur_radius=radius, sigma=sigma), blurred, atol=1e-6)
    sharp = context.run("ImageSharpen", image=image, sharpen_radius=radius, sigma=sigma, alpha=0.3)
    assert np.allclose(sharp, np.clip(image + 3.0 * (image - blurred), 0, 1), atol=1e-5)


def test_a_blur_wider_than_the_picture_is_an_error(context: Any) -> None:
    with pytest.raises(RuntimeError, match=r"padding \(5\) must be less than each side"):
        context.run("ImageBlur", image=picture(1, 4, 4, 3), blur_radius=5, sigma=1.0)


@pytest.mark.parametrize(
    ("mode", "under", "over", "expected"),
    [
        ("normal", 0.2, 0.6, 0.6),
        ("multiply", 0.5, 0.6, 0.3),
        ("screen", 0.5, 0.6, 0.8),
        ("overlay", 0.4, 0.6, 0.48),
        ("overlay", 0.8, 0.6, 0.84),
        ("soft_light", 0.5, 0.25, 0.375),
        ("soft_light", 0.64, 0.75, 0.72),  # 0.64 + 0.5 (sqrt 0.64 - 0.64)
        ("difference", 0.7, 0.3, 0.4),
        ("difference", 0.3, 0.7, 0.0),  # negative before clipping, hence black
    ],
)
def test_blend_modes_have_the_published_values(
    context: Any, mode: str, under: float, over: float, expected: float
) -> None:
    image, two = np.full((1, 2, 2, 3), under, np.float32), np.full((1, 2, 2, 3), over, np.float32)
    full = context.run("ImageBlend", image1=image, image2=two, blend_factor=1.0, blend_mode=mode)
    assert np.allclose(full, expected, atol=1e-6)
    none = context.run("ImageBlend", image1=image, image2=two, blend_factor=0.0, blend_mode=mode)
    assert np.allclose(none, under)


def test_unknown_modes_and_methods_of_a_newer_server_count_as_the_usual_ones(context: Any) -> None:
    image, other = picture(1, 4, 4, 3), np.zeros((1, 4, 4, 3), np.float32)
    blended = context.run("ImageBlend", image1=image, image2=other, blend_factor=1.0, blend_mode="nope")
    assert np.array_equal(blended, other)
    planes = np.moveaxis(image, -1, 1)
    assert np.array_equal(resize(planes, 2, 2, "nope"), resize(planes, 2, 2, "bicubic"))


def test_invert_batch_crop_and_empty_nodes(context: Any) -> None:
    image = picture(1, 6, 8, 3)
    assert np.allclose(context.run("ImageInvert", image=image), 1 - image)
    assert np.array_equal(context.run("ImageCrop", image=image, width=3, height=99, x=2, y=4), image[:, 4:, 2:5])
    assert context.run("ImageCrop", image=image, width=3, height=3, x=99, y=99).shape == (1, 1, 1, 3)
    both = context.run("ImageBatch", image1=image, image2=picture(2, 12, 16, 3))
    assert both.shape == (3, 6, 8, 3)
    red = context.run("EmptyImage", width=3, height=2, batch_size=2, color=0xFF8000)
    assert red.shape == (2, 2, 3, 3)
    assert np.allclose(red[1, 1, 2], [1, 128 / 255, 0])


def test_height_zero_follows_the_width_and_radius_zero_does_nothing(context: Any) -> None:
    image = picture(1, 20, 40, 3)
    scaled = context.run("ImageScale", image=image, upscale_method="bicubic", width=10, height=0, crop="disabled")
    assert scaled.shape == (1, 5, 10, 3)
    assert context.run("ImageBlur", image=image, blur_radius=0, sigma=1.0) is image
    assert context.run("ImageSharpen", image=image, sharpen_radius=0, sigma=1.0, alpha=1.0) is image


def test_blending_follows_the_first_pictures_channels_and_size(context: Any) -> None:
    rgb, rgba = picture(1, 6, 6, 3), picture(1, 6, 6, 4)
    dropped = context.run("ImageBlend", image1=rgb, image2=rgba, blend_factor=1.0, blend_mode="normal")
    assert np.allclose(dropped, rgba[..., :3])
    opaque = context.run("ImageBlend", image1=rgba, image2=rgb, blend_factor=1.0, blend_mode="normal")
    assert np.allclose(opaque[..., 3], 1)
    flat = np.full((1, 12, 30, 3), 0.25, np.float32)
    fitted = context.run("ImageBlend", image1=rgb, image2=flat, blend_factor=0.5, blend_mode="normal")
    assert np.allclose(fitted, rgb * 0.5 + 0.125, atol=1e-6)


def test_impossible_sizes_are_reported() -> None:
    with pytest.raises(ValueError, match="cannot scale to 0 x 4: each side must be at least 1"):
        resize(plane([[1]]), 0, 4, "area")


def test_a_mask_plane_survives_lanczos() -> None:
    assert resize(np.ones((1, 1, 8, 8), np.float32), 4, 2, "lanczos").shape == (1, 1, 2, 4)
