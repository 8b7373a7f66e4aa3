"""Metrics of models: a CLIP and a rating small enough to compute by hand, and the messages if one is missing."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from sweeper.errors import ExperimentError, ImageError
from sweeper.images.metrics import registry
from sweeper.images.metrics.measure import measure

onnx = pytest.importorskip("onnx", reason="makes the models")
tokenizers = pytest.importorskip("tokenizers", reason="makes a tokenizer")
pytest.importorskip("onnxruntime", reason="runs the models")

MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of openai/CLIP
WORDS = {"[UNK]": 0, "red": 1, "green": 2, "blue": 3}


def write_model(path, nodes, inputs, outputs, constants=()):
    from onnx import TensorProto, checker, helper, numpy_helper, save

    def values(shapes):
        return [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in shapes.items()]

    types = {"float": TensorProto.FLOAT, "int": TensorProto.INT64}
    inputs, outputs = (
        {name: (types[kind], shape) for name, (kind, shape) in shapes.items()} for shapes in (inputs, outputs)
    )
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants]
    operators = [
        helper.make_node(operator, input_names, [output_name], **rest)
        for operator, input_names, output_name, rest in nodes
    ]
    graph = helper.make_graph(operators, "small", values(inputs), values(outputs), initializers)
    onnx_model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(onnx_model)
    save(onnx_model, path)


@pytest.fixture
def clip(tmp_path, monkeypatch):
    """An encoder of the mean of each channel, and one of the words red, green and blue as the axes of that space."""
    write_model(
        tmp_path / "vision_model.onnx",
        [("GlobalAveragePool", ["pixel_values"], "pooled", {}), ("Flatten", ["pooled"], "image_embeds", {})],
        {"pixel_values": ("float", ["batch", 3, 8, 8])},
        {"image_embeds": ("float", ["batch", 3])},
    )
    table = np.concatenate([np.full((1, 3), 1e-3), np.eye(3)]).astype(np.float32)
    write_model(
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
    """A model that rates how red an embedding is: 5 + 2 times its first number."""
    write_model(
        clip / "rating.onnx",
        [("Gemm", ["embedding", "weights", "bias"], "score", {})],
        {"embedding": ("float", ["batch", 3])},
        {"score": ("float", ["batch", 1])},
        [("weights", np.array([[2], [0], [0]], np.float32)), ("bias", np.array([5], np.float32))],
    )
    monkeypatch.setenv("SWEEPER_AESTHETIC", str(clip / "rating.onnx"))


def fill(*colour):
    return np.full((20, 30, 3), colour, dtype=np.uint8)


def embed_by_hand(*colour):
    vector = (np.array(colour) / 255 - MEAN) / DEVIATION
    return vector / np.linalg.norm(vector)


def test_prompt_similarity_is_the_cosine_of_both_embeddings(clip):
    loaded = registry.load_metrics(["prompt_similarity"])
    for words, vector in {"red": (1, 0, 0), "blue": (0, 0, 1), "red green": (0.5**0.5, 0.5**0.5, 0)}.items():
        measured = measure(fill(250, 20, 90), loaded, {"prompt": words, "steps": 4})
        assert measured["prompt_similarity"] == pytest.approx(embed_by_hand(250, 20, 90) @ vector, abs=1e-5)


@pytest.mark.parametrize(
    "params", [{"positive": "red"}, {"text": "red"}, {"prompt": 7, "text": "red", "other": "blue"}]
)
def test_prompt_is_the_first_slot_with_a_prompt_name(clip, params):
    measured = measure(fill(250, 20, 90), registry.load_metrics(["prompt_similarity"]), params)
    assert measured["prompt_similarity"] == pytest.approx(embed_by_hand(250, 20, 90)[0], abs=1e-5)


def test_prompt_similarity_needs_a_prompt(clip):
    loaded = registry.load_metrics(["prompt_similarity"])
    with pytest.raises(ImageError, match="no slot named prompt, positive or text holds a text"):
        measure(fill(1, 2, 3), loaded, {"steps": 4})


def test_long_prompt_is_truncated(clip):
    loaded = registry.load_metrics(["prompt_similarity"])
    measured = measure(fill(250, 20, 90), loaded, {"prompt": "red " * 77 + "blue " * 500})
    assert measured["prompt_similarity"] == pytest.approx(embed_by_hand(250, 20, 90)[0], abs=1e-5)


def test_aesthetic_is_the_number_of_the_model(rating):
    measured = measure(fill(250, 20, 90), registry.load_metrics(["aesthetic"]))
    assert measured["aesthetic"] == pytest.approx(5 + 2 * embed_by_hand(250, 20, 90)[0], abs=1e-5)


def test_replacing_a_model_changes_the_version(rating, clip):
    (before,) = registry.load_metrics(["aesthetic"]).values()
    (same,) = registry.load_metrics(["aesthetic"]).values()
    write_model(
        clip / "rating.onnx",
        [("Gemm", ["embedding", "weights"], "score", {})],
        {"embedding": ("float", ["batch", 3])},
        {"score": ("float", ["batch", 1])},
        [("weights", np.ones((3, 1), np.float32))],
    )
    (after,) = registry.load_metrics(["aesthetic"]).values()
    assert before.version == same.version != after.version


def load_errors(*names):
    with pytest.raises(ExperimentError) as caught:
        registry.load_metrics(names)
    return str(caught.value).splitlines()


def test_missing_models_are_reported_with_their_variables(monkeypatch):
    monkeypatch.delenv("SWEEPER_CLIP", raising=False)
    assert load_errors("aesthetic", "prompt_similarity", "sharpnes") == [
        *(
            f"metric '{name}' needs a model of yours: set SWEEPER_CLIP to an ONNX file, the image encoder of a CLIP"
            for name in ("aesthetic", "prompt_similarity")
        ),
        "unknown metric 'sharpnes' (your own is written module:function); did you mean 'sharpness'?",
    ]


def test_missing_and_broken_files_are_reported(clip, monkeypatch):
    monkeypatch.setenv("SWEEPER_AESTHETIC", str(clip / "gone.onnx"))
    assert load_errors("aesthetic") == [
        f"metric 'aesthetic' needs a model of yours, and SWEEPER_AESTHETIC names {clip / 'gone.onnx'}, "
        "which is not a file"
    ]
    (clip / "tokenizer.json").write_text("{}")
    assert "cannot be read as one" in load_errors("prompt_similarity")[0]
    (clip / "text_model.onnx").write_bytes(b"no model")
    assert "text_model.onnx cannot be loaded as one" in load_errors("prompt_similarity")[0]
    (clip / "text_model.onnx").unlink()
    (clip / "tokenizer.json").unlink()
    assert load_errors("prompt_similarity") == [
        f"metric 'prompt_similarity' needs text_model.onnx and tokenizer.json beside the image encoder, in {clip}"
    ]


@pytest.mark.parametrize("package", ["onnxruntime", "tokenizers"])
def test_missing_package_is_reported_with_how_to_install_it(clip, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert load_errors("prompt_similarity") == [
        f"metric 'prompt_similarity' needs {package}: {sys.executable} -m pip install {package}"
    ]
