"""Each measure against scikit-image, against the paper that defines it, or against the slow and plain way."""

from __future__ import annotations

import importlib.util
import json
import math

import numpy as np
import pytest
from PIL import Image

from sweeper.errors import UsageError
from sweeper.images.colour import ciede2000
from sweeper.images.compare import COMPARISON_METRICS, compare_images
from sweeper.images.measures import SCALES
from tests.images import image_cases

STORED = json.loads(image_cases.REFERENCE.read_text("utf-8"))

# Sharma, Wu and Dalal 2005, table 1: L1 a1 b1, L2 a2 b2, and CIEDE2000 to four decimals.
SHARMA = """
50.0000 2.6772 -79.7751 50.0000 0.0000 -82.7485 2.0425
50.0000 3.1571 -77.2803 50.0000 0.0000 -82.7485 2.8615
50.0000 2.8361 -74.0200 50.0000 0.0000 -82.7485 3.4412
50.0000 -1.3802 -84.2814 50.0000 0.0000 -82.7485 1.0000
50.0000 -1.1848 -84.8006 50.0000 0.0000 -82.7485 1.0000
50.0000 -0.9009 -85.5211 50.0000 0.0000 -82.7485 1.0000
50.0000 0.0000 0.0000 50.0000 -1.0000 2.0000 2.3669
50.0000 -1.0000 2.0000 50.0000 0.0000 0.0000 2.3669
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0009 7.1792
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0010 7.1792
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0011 7.2195
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0012 7.2195
50.0000 -0.0010 2.4900 50.0000 0.0009 -2.4900 4.8045
50.0000 -0.0010 2.4900 50.0000 0.0010 -2.4900 4.8045
50.0000 -0.0010 2.4900 50.0000 0.0011 -2.4900 4.7461
50.0000 2.5000 0.0000 50.0000 0.0000 -2.5000 4.3065
50.0000 2.5000 0.0000 73.0000 25.0000 -18.0000 27.1492
50.0000 2.5000 0.0000 61.0000 -5.0000 29.0000 22.8977
50.0000 2.5000 0.0000 56.0000 -27.0000 -3.0000 31.9030
50.0000 2.5000 0.0000 58.0000 24.0000 15.0000 19.4535
50.0000 2.5000 0.0000 50.0000 3.1736 0.5854 1.0000
50.0000 2.5000 0.0000 50.0000 3.2972 0.0000 1.0000
50.0000 2.5000 0.0000 50.0000 1.8634 0.5757 1.0000
50.0000 2.5000 0.0000 50.0000 3.2592 0.3350 1.0000
60.2574 -34.0099 36.2677 60.4626 -34.1751 39.4387 1.2644
63.0109 -31.0961 -5.8663 62.8187 -29.7946 -4.0864 1.2630
61.2901 3.7196 -5.3901 61.4292 2.2480 -4.9620 1.8731
35.0831 -44.1164 3.7933 35.0232 -40.0716 1.5901 1.8645
22.7233 20.0904 -46.6940 23.0331 14.9730 -42.5619 2.0373
36.4612 47.8580 18.3852 36.2715 50.5065 21.2231 1.4146
90.8027 -2.0831 1.4410 91.1528 -1.6435 0.0447 1.4441
90.9257 -0.5406 -0.9208 88.6381 -0.8985 -0.7239 1.5381
6.7747 -0.2908 -2.4247 5.8714 -0.0985 -2.2286 0.6377
2.0776 0.0795 -1.1350 0.9033 -0.0636 -0.5514 0.9082
"""


def test_measures_equal_the_stored_values_of_scikit_image():
    compared = 0
    for number, a, b in image_cases.pairs():
        expected = STORED[str(number)]
        found = compare_images(a, b, metrics=expected)
        for name, value in expected.items():
            compared += 1
            assert found[name] == pytest.approx(value, abs=1e-9), f"{name} of pair {number}"
    assert compared > 700


@pytest.mark.skipif(
    not (importlib.util.find_spec("skimage") and importlib.util.find_spec("imagehash")),
    reason="needs scikit-image and ImageHash",
)
def test_stored_values_are_those_of_scikit_image():
    for number, a, b in image_cases.pairs():
        assert STORED[str(number)] == pytest.approx(image_cases.reference(a, b), abs=1e-9)


def test_ciede2000_gives_the_34_published_differences():
    table = np.array([line.split() for line in SHARMA.split("\n") if line], dtype=np.float64).T
    assert table.shape == (7, 34)
    np.testing.assert_allclose(ciede2000(table[:3], table[3:6]), table[6], rtol=0, atol=5e-5)
    np.testing.assert_allclose(ciede2000(table[3:6], table[:3]), table[6], rtol=0, atol=5e-5)


def plain_means(a, b):
    """(SSIM, contrast-structure) of one channel by the formulas of the 2004 paper, window by window."""
    taps = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    weights = np.outer(taps, taps) / taps.sum() ** 2
    x, y = (np.lib.stride_tricks.sliding_window_view(plane, (11, 11)) for plane in (a, b))
    mean_x, mean_y = (np.einsum("ijkl,kl", windows, weights) for windows in (x, y))
    off_x, off_y = x - mean_x[..., None, None], y - mean_y[..., None, None]
    var_x, var_y = np.einsum("ijkl,kl", off_x**2, weights), np.einsum("ijkl,kl", off_y**2, weights)
    covariance = np.einsum("ijkl,kl", off_x * off_y, weights)
    structure = (2 * covariance + 58.5225) / (var_x + var_y + 58.5225)
    luminance = (2 * mean_x * mean_y + 6.5025) / (mean_x**2 + mean_y**2 + 6.5025)
    return (luminance * structure).mean(), structure.mean()


def halve(plane):
    rows, columns = plane.shape
    even = np.pad(plane, ((0, rows % 2), (0, columns % 2)), mode="edge")
    return even.reshape(even.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3))


def plain_multiscale(a, b, scales):
    weights = np.array(SCALES[:scales]) / sum(SCALES[:scales])
    result = 1.0
    for scale, weight in enumerate(weights):
        whole, structure = plain_means(a, b)
        result *= max(whole if scale == scales - 1 else structure, 0.0) ** weight
        if scale < scales - 1:
            a, b = (halve(plane) for plane in (a, b))
    return result


@pytest.mark.parametrize(("side", "scales"), [(176, 5), (169, 5), (168, 4), (93, 4), (44, 3), (23, 2), (16, 1)])
def test_ms_ssim_uses_as_many_scales_as_the_picture_has(side, scales):
    a = image_cases.gradient("scales", side, side, 2) // 2 + image_cases.noise("scales", side, side, 2) // 4
    b = image_cases.shift(a, image_cases.noise("moves", side, side, 2), 40)
    expected = [plain_multiscale(*(x[:, :, at].astype(float) for x in (a, b)), scales) for at in range(2)]
    assert 0.2 < np.mean(expected) < 0.99
    assert compare_images(a, b)["ms_ssim"] == pytest.approx(np.mean(expected), abs=1e-12)


def test_ms_ssim_of_anticorrelated_pictures_is_zero():
    a = image_cases.noise("anti", 50, 61)
    assert compare_images(a, 255 - a)["ms_ssim"] == 0.0


def test_side_shorter_than_the_window_is_mirrored():
    a, b = image_cases.noise("thin a", 7, 40), image_cases.noise("thin b", 7, 40)
    tall = [np.pad(x, ((5, 5), (0, 0)), mode="symmetric").astype(float) for x in (a, b)]
    assert compare_images(a, b)["ssim"] == pytest.approx(plain_means(*tall)[0], abs=1e-12)


def test_single_pixels_are_compared_by_luminance():
    found = compare_images(np.array([[100]], np.uint8), np.array([[110]], np.uint8))
    assert found["ssim"] == found["ms_ssim"] == pytest.approx((2 * 11000 + 6.5025) / (100**2 + 110**2 + 6.5025))
    assert (found["mae"], found["max_abs"], found["differing"], found["windowed"]) == (10, 10, 1, 1)
    assert found["psnr"] == pytest.approx(20 * math.log10(25.5))


def test_plain_distances_computed_by_hand():
    a = np.zeros((2, 2, 3), np.uint8)
    b = a.copy()
    b[0, 0] = 30, 0, 0
    b[1, 1] = 0, 6, 9
    found = compare_images(a, b)
    assert found["mae"] == 45 / 12
    assert found["max_abs"] == 30
    assert found["differing"] == 0.5
    assert found["psnr"] == pytest.approx(10 * math.log10(255**2 / ((900 + 36 + 81) / 12)))


def test_black_and_white_have_the_greatest_distance():
    a, b = np.zeros((20, 20, 3), np.uint8), np.full((20, 20, 3), 255, np.uint8)
    found = compare_images(a, b)
    assert (found["psnr"], found["mae"], found["max_abs"]) == (0, 255, 255)
    assert found["ciede2000"] == pytest.approx(100, abs=1e-3)  # the white of 8-bit sRGB is D65 to four digits
    assert found["ssim"] == pytest.approx(6.5025 / (255**2 + 6.5025))


@pytest.mark.parametrize(("height", "width"), [(16, 16), (40, 17), (9, 50), (50, 3), (1, 1), (15, 16)])
def test_windowed_is_the_worst_of_all_windows(height, width):
    differs = image_cases.noise(f"windows {height} {width}", height, width) < 60
    differs[height // 2 :, width // 2 :] |= (
        image_cases.noise("dense", *differs[height // 2 :, width // 2 :].shape) < 128
    )
    b = differs.astype(np.uint8)
    shape = (min(16, height), min(16, width))
    windows = np.lib.stride_tricks.sliding_window_view(differs, shape)
    assert compare_images(np.zeros_like(b), b)["windowed"] == windows.mean(axis=(2, 3)).max()


def test_windowed_distinguishes_a_defect_from_speckle():
    clean = np.zeros((256, 256), np.uint8)
    defect, speckle = clean.copy(), clean.copy()
    defect[100:116, 37:53] = 200
    speckle[::16, ::16] = 200  # as many pixels, spread
    of_defect, of_speckle = compare_images(clean, defect), compare_images(clean, speckle)
    assert of_defect["differing"] == of_speckle["differing"] == 256 / 256**2
    assert (of_defect["windowed"], of_speckle["windowed"]) == (1.0, 1 / 256)


def test_perceptual_hash_ignores_resizing_only():
    picture = Image.fromarray(image_cases.noise("hash", 9, 9, 3)).resize((300, 200), Image.Resampling.BICUBIC)
    coarse = picture.resize((75, 50)).resize((300, 200), Image.Resampling.BICUBIC)
    other = picture.transpose(Image.Transpose.ROTATE_180)
    assert compare_images(picture, coarse)["phash"] <= 4
    assert 20 <= compare_images(picture, other)["phash"] <= 44


def test_perceptual_hash_of_constant_pictures_is_stable():
    for level in (1, 77, 255):
        found = compare_images(np.full((50, 40), level, np.uint8), np.full((50, 40), 129, np.uint8))
        assert found["phash"] == 0


def test_measures_come_in_the_requested_order():
    a, b = image_cases.pair(1)
    assert list(compare_images(a, b, metrics=["mae", "ssim"])) == ["mae", "ssim"]
    assert tuple(compare_images(a, b)) == COMPARISON_METRICS
    assert compare_images(a, b, metrics=iter(())) == {}


def test_unknown_metric_is_reported_with_the_nearest():
    with pytest.raises(UsageError, match=r"^unknown metric 'sim'; did you mean 'ssim'\?$"):
        compare_images(np.zeros((1, 1)), np.zeros((1, 1)), metrics=["sim"])
