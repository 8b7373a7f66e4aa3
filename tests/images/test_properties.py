"""What holds of any two pictures: identity, symmetry, bounds."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from sweeper.images.compare import COMPARISON_METRICS, compare_images
from sweeper.images.measures import EQUAL_VALUES, measure_pair

SHAPES = st.tuples(st.integers(1, 26), st.integers(1, 26), st.integers(1, 4))
LEVELS = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}


def draw_pixels(shape, dtype):
    """Noise, few tones, or one: pictures at both ends."""
    levels = st.integers(0, LEVELS[np.dtype(dtype)])
    few = st.lists(levels, min_size=1, max_size=3).flatmap(st.sampled_from)
    seeds = st.integers(0, 2**32 - 1)
    noise = seeds.map(
        lambda seed: np.random.default_rng(seed).integers(0, LEVELS[np.dtype(dtype)], shape, dtype, endpoint=True)
    )
    return (
        noise | arrays(dtype, shape, elements=levels, fill=levels) | few.map(lambda level: np.full(shape, level, dtype))
    )


@st.composite
def two_pictures(draw):
    shape = draw(SHAPES)
    return tuple(draw(draw_pixels(shape, draw(st.sampled_from([np.uint8, np.uint16])))) for _ in range(2))


@given(two_pictures())
@settings(max_examples=60)
def test_measures_are_symmetric_and_in_range(pictures):
    a, b = pictures
    found = compare_images(a, b)
    assert found == compare_images(b, a)
    assert not any(math.isnan(value) for value in found.values())
    assert found["psnr"] >= 0
    assert -1 - 1e-9 <= found["ssim"] <= 1 + 1e-9
    assert 0 <= found["ms_ssim"] <= 1 + 1e-9
    assert 0 <= found["mae"] <= found["max_abs"] + 1e-9 <= 255 + 1e-9
    assert 0 <= found["differing"] <= 1
    assert found["differing"] - 1e-12 <= found["windowed"] * math.ceil(a.shape[0] / 16) * math.ceil(a.shape[1] / 16)
    assert 0 <= found["ciede2000"] <= 150
    assert found["phash"] in range(65)


@given(two_pictures())
@settings(max_examples=30)
def test_only_equal_pictures_have_no_difference(pictures):
    a, b = pictures
    found = compare_images(a, b)
    equal = bool(np.array_equal(a * np.float64(1 / LEVELS[a.dtype]), b * np.float64(1 / LEVELS[b.dtype])))
    assert (found["differing"] == 0) == (found["max_abs"] == 0) == (found["psnr"] == math.inf) == equal


@given(SHAPES.flatmap(lambda shape: draw_pixels(shape, np.uint8)))
@settings(max_examples=30)
def test_measures_of_equal_pictures_are_the_promised_values(picture):
    expected = {name: EQUAL_VALUES[name] for name in COMPARISON_METRICS}
    assert compare_images(picture, picture.copy()) == expected
    assert measure_pair(picture, picture.copy(), COMPARISON_METRICS) == expected
    finer = picture.astype(np.float64)
    assert measure_pair(finer, finer.copy(), COMPARISON_METRICS) == expected
