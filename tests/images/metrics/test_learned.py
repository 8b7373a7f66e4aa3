"""Metrics of models: a CLIP and a rating small enough to be reckoned by hand, and what is said where one is missing."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from sweeper.errors import ExperimentError, ImageError
from sweeper.images import metrics

onnx = pytest.importorskip("onnx", reason="makes the models")
tokenizers = pytest.importorskip("tokenizers", reason="makes a tokenizer")
pytest.importorskip("onnxruntime", reason="runs the models")

MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of openai/CLIP
WORDS = {"[UNK]": 0, "red": 1, "green": 2, "blue": 3}


def model(path, nodes, inputs, outputs, constants=()):
    from onnx import TensorProto, checker, helper, numpy_helper, save

    def values(named):
        return [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in named.items()]

    kinds = {"float": TensorProto.FLOAT, "int": TensorProto.INT64}
    inputs, outputs = (
        {name: (kinds[kind], shape) for name, (kind, shape) in named.items()} for named in (inputs, outputs)
    )
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants]
    made = [helper.make_node(operator, takes, [gives], **rest) for operator, takes, gives, rest in nodes]
    graph = helper.make_graph(made, "small", values(inputs), values(outputs), held)
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(whole)
    save(whole, path)


@pytest.fixture
def clip(tmp_path, monkeypatch):
    """Sees the mean of each channel, and reads the words red, green and blue as the axes of that space."""
    model(
        tmp_path / "vision_model.onnx",
        [("GlobalAveragePool", ["pixel_values"], "pooled", {}), ("Flatten", ["pooled"], "image_embeds", {})],
        {"pixel_values": ("float", ["batch", 3, 8, 8])},
        {"image_embeds": ("float", ["batch", 3])},
    )
    table = np.concatenate([np.full((1, 3), 1e-3), np.eye(3)]).astype(np.float32)
    model(
        tmp_path / "text_model.onnx",
        [
            ("Gather", ["words", "input_ids"], "each", {}),
            ("ReduceSum", ["each", "ones"], "text_embeds", {"keepdims": 0}),
        ],
        {"input_ids": ("int", ["batch", "tokens"])},
        {"text_embeds": ("float", ["batch", 3])},
        [("words", table), ("ones", np.array([1]))],
    )  # fmt: skip
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    monkeypatch.setenv("SWEEPER_CLIP", str(tmp_path / "vision_model.onnx"))
    return tmp_path


@pytest.fixture
def rating(clip, monkeypatch):
    """Rates how red an embedding is: 5 + 2 times its first number."""
    model(
        clip / "rating.onnx",
        [("Gemm", ["embedding", "weights", "bias"], "score", {})],
        {"embedding": ("float", ["batch", 3])},
        {"score": ("float", ["batch", 1])},
        [("weights", np.array([[2], [0], [0]], np.float32)), ("bias", np.array([5], np.float32))],
    )
    monkeypatch.setenv("SWEEPER_AESTHETIC", str(clip / "rating.onnx"))


def painted(*colour):
    return np.full((20, 30, 3), colour, dtype=np.uint8)


def seen(*colour):
    found = (np.array(colour) / 255 - MEAN) / DEVIATION
    return found / np.linalg.norm(found)


def test_prompt_similarity_is_the_cosine_of_the_picture_and_its_prompt(clip):
    wanted = metrics.load_metrics(["prompt_similarity"])
    for words, vector in {"red": (1, 0, 0), "blue": (0, 0, 1), "red green": (0.5**0.5, 0.5**0.5, 0)}.items():
        found = metrics.measure(painted(250, 20, 90), wanted, {"prompt": words, "steps": 4})
        assert found["prompt_similarity"] == pytest.approx(seen(250, 20, 90) @ vector, abs=1e-5)


@pytest.mark.parametrize(
    "params", [{"positive": "red"}, {"text": "red"}, {"prompt": 7, "text": "red", "other": "blue"}]
)
def test_the_prompt_is_the_first_slot_that_bears_such_a_name(clip, params):
    found = metrics.measure(painted(250, 20, 90), metrics.load_metrics(["prompt_similarity"]), params)
    assert found["prompt_similarity"] == pytest.approx(seen(250, 20, 90)[0], abs=1e-5)


def test_without_a_prompt_there_is_no_similarity(clip):
    wanted = metrics.load_metrics(["prompt_similarity"])
    with pytest.raises(ImageError, match="no slot is called prompt, positive or text and holds a text"):
        metrics.measure(painted(1, 2, 3), wanted, {"steps": 4})


def test_a_prompt_beyond_the_models_positions_is_cut_and_not_refused(clip):
    wanted = metrics.load_metrics(["prompt_similarity"])
    found = metrics.measure(painted(250, 20, 90), wanted, {"prompt": "red " * 77 + "blue " * 500})
    assert found["prompt_similarity"] == pytest.approx(seen(250, 20, 90)[0], abs=1e-5)


def test_aesthetic_is_the_ratings_number(rating):
    found = metrics.measure(painted(250, 20, 90), metrics.load_metrics(["aesthetic"]))
    assert found["aesthetic"] == pytest.approx(5 + 2 * seen(250, 20, 90)[0], abs=1e-5)


def test_another_model_is_another_version(rating, clip):
    (before,) = metrics.load_metrics(["aesthetic"]).values()
    (same,) = metrics.load_metrics(["aesthetic"]).values()
    model(
        clip / "rating.onnx",
        [("Gemm", ["embedding", "weights"], "score", {})],
        {"embedding": ("float", ["batch", 3])},
        {"score": ("float", ["batch", 1])},
        [("weights", np.ones((3, 1), np.float32))],
    )
    (after,) = metrics.load_metrics(["aesthetic"]).values()
    assert before.version == same.version != after.version


def told(*names):
    with pytest.raises(ExperimentError) as caught:
        metrics.load_metrics(names)
    return str(caught.value).splitlines()


def test_without_models_every_variable_is_named(monkeypatch):
    monkeypatch.delenv("SWEEPER_CLIP", raising=False)
    assert told("aesthetic", "prompt_similarity", "sharpnes") == [
        *(
            f"metric '{name}' needs a model of yours: set SWEEPER_CLIP to an ONNX file, the image tower of a CLIP"
            for name in ("aesthetic", "prompt_similarity")
        ),
        "unknown metric 'sharpnes' (your own is written module:function); did you mean 'sharpness'?",
    ]


def test_files_that_are_missing_or_broken_are_named(clip, monkeypatch):
    monkeypatch.setenv("SWEEPER_AESTHETIC", str(clip / "gone.onnx"))
    assert told("aesthetic") == [
        f"metric 'aesthetic' needs a model of yours, and SWEEPER_AESTHETIC names {clip / 'gone.onnx'}, which is no file"
    ]
    (clip / "tokenizer.json").write_text("{}")
    assert "cannot be read as one" in told("prompt_similarity")[0]
    (clip / "text_model.onnx").write_bytes(b"no model")
    assert "text_model.onnx cannot be loaded as one" in told("prompt_similarity")[0]
    (clip / "text_model.onnx").unlink()
    (clip / "tokenizer.json").unlink()
    assert told("prompt_similarity") == [
        f"metric 'prompt_similarity' needs text_model.onnx and tokenizer.json beside the image tower, in {clip}"
    ]


@pytest.mark.parametrize("package", ["onnxruntime", "tokenizers"])
def test_a_package_that_is_missing_is_named_with_the_way_to_get_it(clip, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert told("prompt_similarity") == [
        f"metric 'prompt_similarity' needs {package}: python -m pip install 'sweeper[perceptual]'"
    ]
