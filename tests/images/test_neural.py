"""LPIPS and CLIP through onnxruntime, with models small enough to be reckoned by hand."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sweeper.errors import ImageError, UsageError
from sweeper.images.compare import COMPARISON_METRICS, compare_files, compare_images
from sweeper.images.neural import embed_picture
from tests.images import image_cases

onnx = pytest.importorskip("onnx", reason="makes the models")
pytest.importorskip("onnxruntime", reason="runs the models")

RGB = image_cases.noise("seen", 40, 30, 3)
MOVED = image_cases.shift(RGB, image_cases.noise("seen moved", 40, 30, 3), 60)


def model(path, nodes, inputs, outputs, constants=()):
    from onnx import TensorProto, checker, helper, numpy_helper, save

    def values(named):
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in named.items()]

    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants]
    made = [helper.make_node(operator, takes, [gives], **rest) for operator, takes, gives, rest in nodes]
    graph = helper.make_graph(made, "small", values(inputs), values(outputs), held)
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(whole)
    save(whole, path)
    return path


@pytest.fixture
def clip(tmp_path, monkeypatch):
    """The mean of each channel, as CLIP's tower sees it: reckoned by hand below."""
    nodes = [
        ("GlobalAveragePool", ["pixel_values"], "pooled", {}),
        ("Flatten", ["pooled"], "image_embeds", {}),
    ]
    shape = ["batch", 3, 8, 8]
    outputs = {"pooled": ["b", 3, 1, 1], "image_embeds": ["b", 3]}
    path = model(tmp_path / "clip.onnx", nodes, {"pixel_values": shape}, outputs)
    monkeypatch.setenv("SWEEPER_CLIP", str(path))
    return path


@pytest.fixture
def lpips(tmp_path, monkeypatch):
    """The mean square of the difference of two pictures of -1 to 1."""
    nodes = [
        ("Sub", ["in0", "in1"], "off", {}),
        ("Mul", ["off", "off"], "square", {}),
        ("ReduceMean", ["square"], "distance", {"axes": [1, 2, 3]}),
    ]
    shape = ["batch", 3, "height", "width"]
    path = model(tmp_path / "lpips.onnx", nodes, {"in0": shape, "in1": shape}, {"distance": ["batch", 1, 1, 1]})
    monkeypatch.setenv("SWEEPER_LPIPS", str(path))
    return path


def by_hand(picture, side=8):
    image = Image.fromarray(picture)
    scale = side / min(image.size)
    image = image.resize([max(side, round(length * scale)) for length in image.size], Image.Resampling.BICUBIC)
    left, top = ((length - side) // 2 for length in image.size)
    levels = np.asarray(image)[top : top + side, left : left + side] / 255
    means = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of openai/CLIP
    found = ((levels - means[0]) / means[1]).mean(axis=(0, 1))
    return found / np.linalg.norm(found)


def test_embedding_is_of_the_preprocessed_picture_and_length_one(clip):
    for picture in (RGB, MOVED, RGB[:, :12]):
        found = embed_picture(picture, clip)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, by_hand(picture), atol=1e-5)
    np.testing.assert_array_equal(
        embed_picture(RGB[:, :, :1], clip), embed_picture(np.repeat(RGB[:, :, :1], 3, 2), clip)
    )
    fine = RGB.astype(np.float64)
    np.testing.assert_array_equal(embed_picture(fine, clip), embed_picture(RGB, clip))


def test_clip_is_the_cosine_and_lpips_the_number_of_the_model(clip, lpips):
    found = compare_images(RGB, MOVED, metrics=["clip", "lpips"])
    assert found["clip"] == pytest.approx(by_hand(RGB) @ by_hand(MOVED), abs=1e-5)
    assert found["lpips"] == pytest.approx(np.square((RGB / 127.5) - (MOVED / 127.5)).mean(), rel=1e-5)
    assert compare_images(MOVED, RGB, metrics=["clip", "lpips"]) == pytest.approx(found, rel=1e-6)
    assert compare_images(RGB, RGB.copy(), metrics=["clip", "lpips"]) == {"clip": 1.0, "lpips": 0.0}


def test_worse_view_of_transparent_pictures_counts(lpips):
    clear = np.dstack([RGB, np.full(RGB.shape[:2], 128, np.uint8)])
    opaque = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
    over_white = np.square((RGB / 255 - (RGB * (128 / 255) + 127) / 255) * 2).mean()
    over_black = np.square((RGB / 255 - RGB * (128 / 255) / 255) * 2).mean()
    found = compare_images(clear, opaque, metrics=["lpips"])["lpips"]
    assert found == pytest.approx(max(over_white, over_black), rel=1e-4)


def test_frames_of_an_animation_are_compared_one_by_one(tmp_path, lpips):
    frames = [Image.fromarray(one) for one in (RGB, MOVED)]
    for name, order in (("a", frames), ("b", frames[::-1])):
        order[0].save(tmp_path / f"{name}.webp", save_all=True, append_images=order[1:], lossless=True)
    found = compare_files(tmp_path / "a.webp", tmp_path / "b.webp", metrics=["lpips"])
    assert found.metrics == pytest.approx(compare_images(RGB, MOVED, metrics=["lpips"]))


def test_measures_with_a_model_are_computed_only_on_request(monkeypatch):
    monkeypatch.delenv("SWEEPER_CLIP", raising=False)
    assert not {"clip", "lpips"} & {*compare_images(RGB, MOVED)} | {*COMPARISON_METRICS} & {"clip", "lpips"}
    with pytest.raises(UsageError, match="'clip' needs a model of yours: set SWEEPER_CLIP to an ONNX file"):
        compare_images(RGB, MOVED, metrics=["clip"])


def test_unsuitable_model_is_reported(tmp_path, monkeypatch, clip, lpips):
    monkeypatch.setenv("SWEEPER_LPIPS", str(tmp_path / "none.onnx"))
    with pytest.raises(UsageError, match=r"SWEEPER_LPIPS names .*none\.onnx, which is not a file"):
        compare_images(RGB, MOVED, metrics=["lpips"])
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"not a model")
    monkeypatch.setenv("SWEEPER_LPIPS", str(bad))
    with pytest.raises(UsageError, match=r"^.lpips. needs a model, and .*bad\.onnx cannot be loaded as one"):
        compare_images(RGB, MOVED, metrics=["lpips"])
    monkeypatch.setenv("SWEEPER_LPIPS", str(clip))
    with pytest.raises(UsageError, match="needs a model of two pictures"):
        compare_images(RGB, MOVED, metrics=["lpips"])
    with pytest.raises(UsageError, match="needs a model of one picture"):
        embed_picture(RGB, lpips)
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        embed_picture(RGB, tmp_path / "none.onnx")


def test_model_that_fails_on_a_picture_is_an_image_error(tmp_path, monkeypatch):
    shape = [1, 3, 64, 64]
    fixed = model(tmp_path / "fixed.onnx", [("Sub", ["a", "b"], "d", {})], {"a": shape, "b": shape}, {"d": shape})
    monkeypatch.setenv("SWEEPER_LPIPS", str(fixed))
    with pytest.raises(ImageError, match=r"fixed\.onnx: cannot be run on a picture of 30 x 40 pixels"):
        compare_images(RGB, MOVED, metrics=["lpips"])
