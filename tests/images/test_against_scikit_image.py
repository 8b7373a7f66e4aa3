"""Whatever the kind of picture, SSIM and PSNR are scikit-image's, to a millionth: from files, random and degenerate."""

from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image

from sweeper.images.compare import compare_files, compare_images

metrics = pytest.importorskip("skimage.metrics", reason="needs scikit-image, whose numbers are the reference")
color = pytest.importorskip("skimage.color")

PALETTE = np.random.default_rng(5).integers(0, 256, (256, 3), dtype=np.uint8)


def in_palette(array):
    image = Image.fromarray(array[:, :, 0])
    image.putpalette(PALETTE.tobytes())  # L becomes P
    return image


def sixteen(array):
    return array[:, :, 0].astype(np.uint16) * 256 + array[::-1, ::-1, 0]


# How a kind is made of noise, and what of it is compared: (height, width, channels) of 0-255, worked out without us.
KINDS = {
    "greyscale": (1, lambda array: Image.fromarray(array[:, :, 0]), lambda array: array),
    "RGB": (3, Image.fromarray, lambda array: array),
    "RGBA": (4, Image.fromarray, lambda array: array),
    "palette": (1, in_palette, lambda array: PALETTE[array[:, :, 0]]),
    "16-bit": (1, lambda array: Image.fromarray(sixteen(array)), lambda array: sixteen(array)[:, :, None] / 257.0),
    "bits": (1, lambda array: Image.fromarray(array[:, :, 0] > 127), lambda array: (array > 127) * 255),
}


@st.composite
def pairs(draw):
    """(kind, a, b): noise and its neighbours, constants, edges; sides from one pixel on."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    height, width = draw(st.one_of(st.just((1, 1)), st.tuples(st.integers(1, 40), st.integers(1, 40))))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (height, width, KINDS[kind][0])
    noise = [random.integers(0, 256, shape, dtype=np.uint8) for _ in range(2)]
    flat = [np.full(shape, random.integers(0, 256), np.uint8) for _ in range(2)]
    near = np.clip(noise[0].astype(int) + random.integers(-3, 4, shape), 0, 255).astype(np.uint8)
    halves = flat[0].copy()
    halves[:, width // 2 :] = flat[1][0, 0]
    spot = noise[0].copy()
    spot[height // 2 :, width // 2 :] ^= 0xFF
    a, b = draw(
        st.sampled_from([
            (noise[0], noise[1]), (noise[0], near), (noise[0], spot), (flat[0], flat[1]), (halves, flat[0]),
            (noise[0], flat[0]), (noise[0], noise[0]), (flat[0], flat[0]),
        ])
    )  # fmt: skip
    return kind, a, b


def reference(a, b):
    """scikit-image's SSIM and PSNR of two arrays of 0-255; it knows no windows for short sides, which are mirrored."""
    short = [(5, 5) if side < 11 else (0, 0) for side in a.shape[:2]]
    wide = [np.pad(one.astype(np.float64), [*short, (0, 0)], mode="symmetric") for one in (a, b)]
    ssim = metrics.structural_similarity(
        *wide, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=-1
    )
    if np.array_equal(a, b):
        return ssim, math.inf  # where scikit-image divides by zero
    return ssim, metrics.peak_signal_noise_ratio(a.astype(np.float64), b.astype(np.float64), data_range=255)


@given(pairs())
@settings(max_examples=80)
def test_ssim_and_psnr_equal_scikit_image(pair):
    kind, a, b = pair
    _, written, seen = KINDS[kind]
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("a.png", "b.png")]
        for array, path in zip((a, b), paths, strict=True):
            written(array).save(path)
        found = compare_files(*paths, metrics=["ssim", "psnr"]).metrics
    ssim, psnr = reference(seen(a), seen(b))
    assert found["ssim"] == pytest.approx(ssim, abs=1e-6)
    assert found["psnr"] == pytest.approx(psnr, abs=1e-6)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3]))
@settings(max_examples=25)
def test_colour_difference_equals_scikit_image(seed, channels):
    random = np.random.default_rng(seed)
    a, b = (random.integers(0, 256, (17, 19, channels), dtype=np.uint8) for _ in range(2))
    labs = [color.rgb2lab(np.repeat(one, 3 // channels, axis=2) / 255.0) for one in (a, b)]
    expected = color.deltaE_ciede2000(*labs).mean()
    assert compare_images(a, b, metrics=["ciede2000"])["ciede2000"] == pytest.approx(expected, abs=1e-6)
