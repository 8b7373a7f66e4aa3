"""Files in tiers: equal bytes, equal pixels, measured; what cannot be compared is a state; hashes; animations."""

from __future__ import annotations

import dataclasses
import math
import zlib

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sweeper.errors import ImageError
from sweeper.images.compare import compare_bytes, compare_files, compare_images, pixel_hash
from tests.images import image_cases

RGB = image_cases.noise("files", 20, 30, 3)


def png(path, array, *, text=None, **options):
    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_text(key, value, zip=len(value) > 50)
        info.add_itxt(key + " again", value)
    Image.fromarray(array).save(path, pnginfo=info, **options)
    return path


def animation(path, frames, **options):
    first, *rest = [Image.fromarray(frame) for frame in frames]
    first.save(path, save_all=True, append_images=rest, duration=40, **options)
    return path


def test_png_with_another_workflow_has_the_same_bytes(tmp_path):
    a = png(tmp_path / "a.png", RGB, text={"prompt": '{"3": {}}', "workflow": "x" * 200})
    b = png(tmp_path / "b.png", RGB, text={"prompt": '{"4": {"inputs": {}}}'})
    c = png(tmp_path / "c.png", RGB)
    assert len({path.read_bytes() for path in (a, b, c)}) == 3
    assert compare_bytes(a, b).equal
    assert compare_bytes(b, c).equal
    found = compare_files(a, c)
    assert (found.state, found.reason) == ("same_bytes", "")
    assert found.metrics["psnr"] == math.inf
    assert found.metrics["ssim"] == 1


def test_other_chunks_of_a_png_count(tmp_path):
    a, b = png(tmp_path / "a.png", RGB, dpi=(72, 72)), png(tmp_path / "b.png", RGB, dpi=(300, 300))
    assert not compare_bytes(a, b).equal
    assert compare_files(a, b).state == "same_pixels"


def test_files_of_any_type_are_compared_by_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"tEXt")
    (tmp_path / "b").write_bytes(b"tEXt")
    (tmp_path / "c").write_bytes(b"")
    assert compare_bytes(tmp_path / "a", tmp_path / "b").equal
    assert not compare_bytes(tmp_path / "a", tmp_path / "c").equal


CHUNKS = st.lists(
    st.tuples(st.sampled_from([b"tEXt", b"iTXt", b"IDAT", b"gAMA"]), st.sampled_from([b"", b"a", b"b" * 300_000])),
    max_size=5,
)


@hypothesis.given(CHUNKS, CHUNKS, st.sampled_from([0, 0, 1, 12]), st.sampled_from([b"", b"", b"x"]))
def test_pngs_are_equal_if_their_chunks_without_text_are(tmp_path_factory, a, b, cut, more):
    def written(name, chunks):
        parts = [
            len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
            for kind, data in [*chunks, (b"IEND", b"")]
        ]
        whole = b"\x89PNG\r\n\x1a\n" + b"".join(parts)
        path = folder / name
        path.write_bytes(whole[: len(whole) - cut] + more)
        return path

    folder = tmp_path_factory.mktemp("chunks")
    left = [[one for one in chunks if one[0] not in (b"tEXt", b"iTXt")] for chunks in (a, b)]
    assert compare_bytes(written("a.png", a), written("b.png", b)).equal == (left[0] == left[1])


def test_png_with_invalid_chunks_equals_only_itself(tmp_path):
    whole = png(tmp_path / "a.png", RGB, text={"prompt": "one"}).read_bytes()
    other = png(tmp_path / "b.png", RGB, text={"prompt": "two"}).read_bytes()
    (tmp_path / "a.png").write_bytes(whole[:-20])
    (tmp_path / "b.png").write_bytes(other[:-20])
    assert not compare_bytes(tmp_path / "a.png", tmp_path / "b.png").equal
    assert compare_bytes(tmp_path / "a.png", tmp_path / "a.png").equal


def test_compression_changes_neither_pixels_nor_hash(tmp_path):
    a, b = png(tmp_path / "a.png", RGB, compress_level=0), png(tmp_path / "b.png", RGB, compress_level=9)
    webp = tmp_path / "c.webp"
    Image.fromarray(RGB).save(webp, lossless=True)
    for other in (b, webp):
        assert not compare_bytes(a, other).equal
        assert compare_files(a, other).state == "same_pixels"
        assert compare_files(a, other).metrics == compare_images(RGB, RGB.copy())
        assert pixel_hash(other) == pixel_hash(a)


def test_pixel_hash_depends_on_values_and_shape(tmp_path):
    bytes_of = np.arange(48, dtype=np.uint8)
    shapes = [(4, 4, 3), (2, 8, 3), (8, 2, 3), (6, 8), (8, 6), (4, 3, 4)]
    hashes = {pixel_hash(png(tmp_path / "x.png", bytes_of.reshape(shape))) for shape in shapes}
    hashes.add(pixel_hash(png(tmp_path / "x.png", bytes_of.reshape(4, 4, 3)[::-1])))
    assert len(hashes) == 7
    # Baselines hold these digits: another value here is another format.
    assert (
        pixel_hash(png(tmp_path / "x.png", bytes_of.reshape(4, 4, 3)))
        == "0194067b43c6aef4494d346cbb83fec860e8d390423fdfbe05dfa6d8ab284af9"
    )


def test_different_pixels_are_measured(tmp_path):
    other = RGB.copy()
    other[5, 6] ^= 64
    found = compare_files(
        png(tmp_path / "a.png", RGB), png(tmp_path / "b.png", other), metrics=["max_abs", "differing"]
    )
    assert found.state == "measured"
    assert found.metrics == {"max_abs": 64, "differing": 1 / 600}
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.state = "same_bytes"


@pytest.mark.parametrize(
    ("other", "state", "reason"),
    [
        (RGB[:10], "size", "{a} is 30 x 20 pixels, {b} is 30 x 10"),
        (RGB[:, :, 0], "channels", "{a} is RGB, {b} is greyscale"),
    ],
)
def test_mismatch_is_a_state_or_an_error(tmp_path, other, state, reason):
    a, b = png(tmp_path / "a.png", RGB), png(tmp_path / "b.png", other)
    found = compare_files(a, b)
    assert (found.state, found.metrics, found.reason) == (state, {}, reason.format(a=a, b=b))
    with pytest.raises(ImageError) as raised:
        compare_images(a, b)
    assert str(raised.value) == found.reason


@pytest.mark.parametrize("suffix", ["webp", "png", "gif"])
def test_worst_frame_of_an_animation_counts(tmp_path, suffix):
    frames = [image_cases.gradient(f"frame {at}", 40, 40, 3) // 64 * 80 for at in range(4)]
    changed = [frame.copy() for frame in frames]
    changed[1][3:9, 3:9] = 255
    changed[2][20, 20] = 255 - changed[2][20, 20]
    options = {"lossless": True} if suffix == "webp" else {}
    a = animation(tmp_path / f"a.{suffix}", frames, **options)
    b = animation(tmp_path / f"b.{suffix}", changed, **options)
    found = compare_files(a, b)
    assert found.state == "measured"
    with Image.open(a) as one, Image.open(b) as other:
        by_frame = []
        for at in range(4):
            one.seek(at)
            other.seek(at)
            by_frame.append(compare_images(one.convert("RGBA"), other.convert("RGBA")))
    assert by_frame[0]["differing"] == 0 < by_frame[2]["differing"] < by_frame[1]["differing"]
    for name, value in found.metrics.items():
        assert value == (min if name in ("psnr", "ssim", "ms_ssim") else max)(frame[name] for frame in by_frame)
    assert compare_images(a, b) == found.metrics
    assert pixel_hash(a) != pixel_hash(b)


def test_different_number_of_frames_is_a_state(tmp_path):
    frames = [RGB, RGB[::-1], RGB[:, ::-1]]
    a = animation(tmp_path / "a.webp", frames, lossless=True)
    b = animation(tmp_path / "b.webp", frames[:2], lossless=True)
    found = compare_files(a, b)
    assert (found.state, found.reason) == ("frames", f"{a} has 3 frames, {b} has 2")
    with pytest.raises(ImageError, match="has 3 frames"):
        compare_images(a, b)


def test_pillow_image_is_its_current_frame(tmp_path):
    path = animation(tmp_path / "a.webp", [RGB, RGB[::-1], RGB[:, ::-1]], lossless=True)
    with Image.open(path) as image:
        image.seek(1)
        assert compare_images(image, RGB[::-1].copy())["differing"] == 0
        assert image.tell() == 1


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n"])
def test_file_that_is_not_a_picture_is_an_error_even_if_equal(tmp_path, content):
    bad = tmp_path / "bad.png"
    bad.write_bytes(content)
    good = png(tmp_path / "good.png", RGB)
    for a, b in ((bad, good), (good, bad), (bad, bad)):
        with pytest.raises(ImageError, match=r"bad\.png: cannot be read as a picture"):
            compare_files(a, b)
    with pytest.raises(ImageError, match=r"bad\.png"):
        pixel_hash(bad)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of metadata that it skips
@pytest.mark.parametrize("suffix", ["png", "webp", "gif", "jpg", "tiff", "bmp"])
def test_broken_file_is_an_image_error(tmp_path, suffix):
    whole = tmp_path / f"whole.{suffix}"
    options = {"save_all": True, "append_images": [Image.fromarray(RGB[::-1])]} if suffix in ("webp", "gif") else {}
    Image.fromarray(RGB).save(whole, **options)
    data, broken = whole.read_bytes(), tmp_path / f"broken.{suffix}"
    failed = 0
    for cut in range(0, len(data), 97):
        flipped = bytearray(data)
        flipped[cut : cut + 3] = b"\xff\x00\x7f"
        for content in (data[:cut], bytes(flipped)):
            broken.write_bytes(content)
            try:
                compare_files(whole, broken, metrics=["mae"])
            except ImageError as error:
                failed += "broken" in str(error)
    assert failed > len(data) // 97 // 2


def test_missing_file_is_an_error_with_its_name(tmp_path):
    with pytest.raises(ImageError, match=r"none\.png: cannot be read: No such file or directory"):
        compare_images(tmp_path / "none.png", RGB)
    with pytest.raises(ImageError, match="cannot be read"):
        compare_bytes(tmp_path, tmp_path)


@pytest.mark.parametrize("place", [0, 300_000, 599_999])
def test_one_byte_anywhere_makes_a_file_different(tmp_path, place):
    """Longer than a piece of the comparison, with an end shorter than one; compared after files of other bytes."""
    data = np.random.default_rng(1).integers(0, 256, 600_000, dtype=np.uint8)
    one, copy, other = (tmp_path / f"{name}.bin" for name in ("one", "copy", "other"))
    one.write_bytes(data.tobytes())
    copy.write_bytes(data.tobytes())
    data[place] ^= 1
    other.write_bytes(data.tobytes())
    assert not compare_bytes(one, other).equal
    assert compare_bytes(one, copy).equal
    assert not compare_bytes(copy, other).equal
