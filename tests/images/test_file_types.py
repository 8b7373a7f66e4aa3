"""Every kind of picture on one scale, and what is said of those that cannot be compared."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from sweeper.errors import ImageError
from sweeper.images.compare import compare_images, pixel_hash
from tests.images import image_cases

RGB = image_cases.noise("kinds", 20, 30, 3)
MOVED = image_cases.shift(RGB, image_cases.noise("kinds moved", 20, 30, 3), 20)
GREY = RGB[:, :, 0]


def save(tmp_path, name, image, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def is_same(a, b):
    return compare_images(a, b, metrics=["differing"]) == {"differing": 0}


def test_path_image_and_array_give_the_same_numbers(tmp_path):
    a, b = save(tmp_path, "a.png", Image.fromarray(RGB)), save(tmp_path, "b.png", Image.fromarray(MOVED))
    expected = compare_images(RGB, MOVED)
    assert 0 < expected["ssim"] < 1
    for one in (a, str(a), Image.fromarray(RGB), RGB.astype(np.int32), RGB.astype(np.float32)):
        for other in (b, MOVED):
            assert compare_images(one, other) == expected


def test_comparing_changes_neither_array():
    a, b = RGB.copy(), MOVED.copy()
    compare_images(a, b)
    np.testing.assert_array_equal(a, RGB)
    np.testing.assert_array_equal(b, MOVED)


def test_strided_view_compares_like_its_copy():
    assert compare_images(RGB[::-1, ::2], MOVED[::-1, ::2]) == compare_images(
        RGB[::-1, ::2].copy(), MOVED[::-1, ::2].copy()
    )


def test_palette_is_looked_up(tmp_path):
    few = (RGB // 128) * 120
    plain = Image.fromarray(few)
    palette = plain.quantize(8)
    assert palette.mode == "P"
    path = save(tmp_path, "p.png", palette)
    assert is_same(path, palette.convert("RGB"))
    reordered = palette.remap_palette([7, 6, 5, 4, 3, 2, 1, 0])
    assert np.asarray(reordered).tobytes() != np.asarray(palette).tobytes()
    assert is_same(reordered, path)
    assert pixel_hash(save(tmp_path, "r.png", reordered)) == pixel_hash(path)


def test_transparent_palette_colour_becomes_alpha(tmp_path):
    palette = Image.fromarray((RGB // 128) * 120).quantize(8)
    path = save(tmp_path, "t.png", palette, transparency=3)
    with Image.open(path) as image:
        rgba = np.asarray(image.convert("RGBA"))
    assert is_same(path, rgba)
    assert (rgba[:, :, 3] == 0).any()


@pytest.mark.parametrize(("mode", "key", "channels"), [("L", 7, 2), ("1", 0, 2), ("RGB", (1, 2, 3), 4)])
def test_transparent_colour_without_a_palette_becomes_alpha(tmp_path, mode, key, channels):
    shape = (4, 4, 3) if mode == "RGB" else (4, 4)
    values = np.zeros(shape, np.uint8)
    values[0, 0] = key
    path = save(tmp_path, "k.png", Image.fromarray(values).convert(mode), transparency=key)
    expected = np.zeros((4, 4, channels), np.uint8)
    expected[..., -1] = 255 if mode != "1" else 0
    expected[0, 0, :-1] = key
    expected[0, 0, -1] = 0
    assert is_same(path, expected)


def test_black_and_white_becomes_greyscale(tmp_path):
    bits = GREY > 100
    path = save(tmp_path, "1.png", Image.fromarray(bits))
    with Image.open(path) as image:
        assert image.mode == "1"
    assert is_same(path, bits)
    assert is_same(path, np.where(bits, 255, 0).astype(np.uint8))


def test_sixteen_bits_are_scaled_with_their_fractions(tmp_path):
    wide = GREY.astype(np.uint16) * 257
    path = save(tmp_path, "16.png", Image.fromarray(wide))
    assert is_same(path, GREY)
    finer = wide.copy()
    finer[0, 0] ^= 1
    found = compare_images(save(tmp_path, "finer.png", Image.fromarray(finer)), path)
    assert found["max_abs"] == pytest.approx(1 / 257)
    assert found["differing"] == found["windowed"] * 256 / 600 == 1 / 600
    assert pixel_hash(path) != pixel_hash(tmp_path / "finer.png")
    assert pixel_hash(path) == pixel_hash(save(tmp_path, "8.png", Image.fromarray(GREY)))


def test_alpha_counts_as_a_channel():
    opaque = np.dstack([RGB, np.full((20, 30), 255, np.uint8)])
    clearer = opaque.copy()
    clearer[3, 4, 3] = 55
    found = compare_images(opaque, clearer)
    assert found["max_abs"] == 200
    assert found["mae"] == 200 / opaque.size
    assert found["ssim"] < 1


@pytest.mark.parametrize("level", [0, 255])
def test_change_of_alpha_is_detected_on_any_colour(level):
    a, b = np.full((8, 8, 4), level, np.uint8), np.full((8, 8, 4), level, np.uint8)
    a[:, :, 3], b[:, :, 3] = 255, 0
    assert compare_images(a, b)["ciede2000"] == pytest.approx(100, abs=1e-3)
    invisible = np.zeros((8, 8, 4), np.uint8)
    invisible[:, :, 0] = 255  # red, and quite transparent
    found = compare_images(invisible, np.zeros((8, 8, 4), np.uint8))
    assert (found["ciede2000"], found["phash"], found["differing"]) == (0, 0, 1)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "RGBX"])
def test_other_colour_spaces_are_converted_to_rgb(mode):
    image = Image.fromarray(RGB).convert(mode)
    assert is_same(image, np.asarray(image.convert("RGB")))


def test_premultiplied_and_palette_alpha_become_plain_alpha():
    rgba = Image.fromarray(np.dstack([RGB, GREY | 128]))
    assert is_same(rgba.convert("RGBa"), np.asarray(rgba.convert("RGBa").convert("RGBA")))
    palette = rgba.quantize(16, method=Image.Quantize.FASTOCTREE)
    assert palette.palette.mode == "RGBA"
    assert is_same(palette, np.asarray(palette.convert("RGBA")))
    grey = Image.fromarray(np.dstack([GREY, GREY | 128]))
    assert is_same(grey.convert("La"), np.asarray(grey.convert("La").convert("LA")))


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (RGB, RGB[:, :-1], "the first picture is 30 x 20 pixels, the second picture is 29 x 20"),
        (RGB, RGB[:-2], "the first picture is 30 x 20 pixels, the second picture is 30 x 18"),
        (RGB, GREY, "the first picture is RGB, the second picture is greyscale"),
        (np.zeros((2, 2, 4)), np.zeros((2, 2, 2)), "the first picture is RGBA, the second picture is greyscale with"),
    ],
)
def test_mismatch_describes_both_pictures(a, b, message):
    with pytest.raises(ImageError, match=f"^{message}"):
        compare_images(a, b)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2, 5)), r"an array of shape \(2, 2, 5\) is not a picture; allowed: \(height, width\)"),
        (np.zeros((1, 2, 2, 3)), r"an array of shape \(1, 2, 2, 3\) is not a picture"),
        (np.zeros((0, 4, 3)), r"has no pixels \(shape \(0, 4, 3\)\)"),
        (np.array([["a"]]), "an array of <U1 is not a picture; allowed: bool, integers, floats"),
        (np.array([[256]]), r"holds values outside 0-255 \(256.0 to 256.0\)"),
        (np.array([[-1.0, 4.0]]), r"holds values outside 0-255 \(-1.0 to 4.0\)"),
        (np.array([[np.nan, 4.0]]), "holds values outside 0-255"),
        (np.array([[0.5, 1.0]]), "its floats are between 0 and 1; multiply them by 255"),
    ],
)
def test_array_that_is_not_a_picture_is_refused(array, message):
    with pytest.raises(ImageError, match=f"^the second picture: {message}"):
        compare_images(np.zeros((2, 2)), array)


def test_images_without_a_scale_are_refused():
    with pytest.raises(ImageError, match="floating-point pictures have no fixed scale; save it with 8 or 16 bits"):
        compare_images(Image.new("F", (2, 2)), Image.new("F", (2, 2)))
    with pytest.raises(ImageError, match=r"holds values outside 0-65535 \(70000 to 70000\)"):
        compare_images(Image.new("I", (2, 2), 70000), Image.new("I", (2, 2)))


def written(array):
    """PNG bytes whose rows take each of the five filters in turn (PNG specification, 9.2), which no encoder does."""
    height, width, channels = array.shape
    step = channels
    rows = array.reshape(height, -1).astype(int)
    lines = []
    for at, row in enumerate(rows):
        above = rows[at - 1] if at else np.zeros_like(row)
        left = np.concatenate([np.zeros(step, int), row[:-step]])
        corner = np.concatenate([np.zeros(step, int), above[:-step]])
        guess = left + above - corner
        near = np.abs(np.stack([guess - left, guess - above, guess - corner])).argmin(axis=0)
        predicted = [0, left, above, (left + above) // 2, np.choose(near, [left, above, corner])][at % 5]
        lines.append(bytes([at % 5]) + ((row - predicted) % 256).astype(np.uint8).tobytes())
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"".join(lines))), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data)) for tag, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (11, 7), (64, 65)])
def test_every_png_filter_is_decoded(tmp_path, channels, size):
    array = image_cases.noise(f"filters {channels} {size}", *size, channels)
    path = tmp_path / "a.png"
    path.write_bytes(written(array))
    assert is_same(path, array)
