"""Metrics of models: a CLIP and a rating small enough to compute by hand, and the messages if one is missing."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import sweeper
from sweeper.cli import main
from sweeper.errors import ExperimentError, ImageError
from sweeper.images.metrics import learned, registry
from sweeper.images.metrics.measure import measure, read_picture
from sweeper.images.neural import choose_levels, embed_picture
from sweeper.model.experiment import HashedFile, Likeness
from sweeper.running.run_events import Notice
from tests import ROOT

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


# --- likeness


@pytest.fixture
def project(clip, tmp_path):
    """An experiment of two pictures, with three references: two reds that are alike, and a green."""
    (tmp_path / "refs").mkdir()
    for name, colour in (("red", (250, 20, 90)), ("rose", (250, 20, 140)), ("green", (20, 250, 90))):
        Image.fromarray(fill(*colour)).save(tmp_path / "refs" / f"{name}.png")
    (tmp_path / "face.onnx").write_bytes((clip / "vision_model.onnx").read_bytes())

    def run(**settings):
        metric = {"likeness": "refs/*.png", "model": "face.onnx", **settings}
        experiment = {
            "template": str(ROOT / "templates" / "txt2img.json"),
            "params": {"steps": 2, "width": 64, "height": 64},
            "sweep": {"grid": {"prompt": ["a red fox", "a lighthouse"]}},
            "metrics": ["sharpness", metric],
        }
        (tmp_path / "e.yaml").write_text(yaml.safe_dump(experiment))
        notices = []
        sweeper.run(
            tmp_path / "e.yaml", out=tmp_path / "out",
            progress=lambda event: notices.append(event.message) if isinstance(event, Notice) else None,
        )  # fmt: skip
        assert notices == []
        return sweeper.results(tmp_path / "out")

    run.folder = tmp_path
    return run


def look_at(picture):
    """The vector of any picture by the small encoder, which sees the mean of the colours of the centre."""
    return embed_picture(picture, Path(os.environ["SWEEPER_CLIP"]))


def test_likeness_is_the_cosine_to_the_nearest_and_the_mean_reference(project):
    table = project()
    references = {f"refs/{path.stem}.png": look_at(read_picture(path)) for path in (project.folder / "refs").iterdir()}
    names, vectors = list(references), np.stack(list(references.values()))
    for _, row in table.iterrows():
        own = look_at(read_picture(project.folder / "out" / row["outputs"][0]))
        assert row["likeness"] == pytest.approx(max(vectors @ own), abs=1e-5)
        mean = vectors.mean(axis=0)
        assert row["likeness.mean"] == pytest.approx(mean @ own / np.linalg.norm(mean), abs=1e-5)
        assert row["likeness.nearest"] == names[int(np.argmax(vectors @ own))]
    red, rose, green = (embed_by_hand(*colour) for colour in ((250, 20, 90), (250, 20, 140), (20, 250, 90)))
    low, high = max(green @ red, green @ rose), red @ rose
    assert all(text.endswith(f" {low:.3f} to {high:.3f}") for text in table["likeness.range"])
    columns = [name for name in table.columns if name.startswith("likeness")]
    assert columns == ["likeness", "likeness.mean", "likeness.nearest", "likeness.range"]


def test_copies_are_above_the_range_of_the_references_and_others_below(project):
    files = {path.stem: HashedFile(path, path.stem) for path in sorted((project.folder / "refs").iterdir())}
    likeness = Likeness("likeness", HashedFile(project.folder / "face.onnx", ""), files)
    measured = {
        colour: measure(fill(*colour), registry.load_metrics(["likeness"], likenesses={"likeness": likeness}))
        for colour in ((20, 250, 90), (250, 20, 115))
    }
    copy, alike = measured.values()
    assert (copy["likeness"], copy["likeness.nearest"]) == (pytest.approx(1, abs=1e-5), "green")
    assert copy["likeness.range"].startswith("above ")
    assert alike["likeness.nearest"] in ("red", "rose")
    reds = replace(likeness, references={name: files[name] for name in ("red", "rose")})
    other = measure(fill(20, 250, 90), registry.load_metrics(["likeness"], likenesses={"likeness": reds}))
    assert other["likeness.range"].startswith("below ")
    single = replace(likeness, references={"red": files["red"]})
    alone = measure(fill(20, 250, 90), registry.load_metrics(["likeness"], likenesses={"likeness": single}))
    assert alone["likeness.range"] == "unknown: one reference"


def test_another_reference_or_model_measures_again_and_an_equal_one_does_not(project, monkeypatch):
    first = project()["likeness.mean"].tolist()
    calls = []
    monkeypatch.setattr(learned, "embed_picture", lambda *args, **rest: calls.append(1) or embed_picture(*args, **rest))
    assert (project()["likeness.mean"].tolist(), calls) == (first, [])
    Image.fromarray(fill(90, 90, 90)).save(project.folder / "refs" / "grey.png")
    second = project()["likeness.mean"].tolist()
    assert len(calls) == 4 + 2
    assert second != first
    (project.folder / "refs" / "grey.png").unlink()
    assert project()["likeness.mean"].tolist() == first


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("face.onnx", b"no model", "cannot be loaded as one"),
        ("refs/red.png", b"no picture", "needs pictures to compare with, and refs/red.png cannot be read as a picture"),
    ],
)
def test_unusable_files_end_a_run_before_anything_is_submitted(project, file, content, words):
    (project.folder / file).write_bytes(content)
    with pytest.raises(ExperimentError, match=f"metric 'likeness' .*{words}"):
        project()
    assert not (project.folder / "out").exists()


def test_broken_reference_is_read_once(project, monkeypatch):
    files = {path.stem: HashedFile(path, path.stem) for path in sorted((project.folder / "refs").iterdir())}
    broken = project.folder / "refs" / "red.png"
    broken.write_bytes(broken.read_bytes()[:-40])
    likeness = Likeness("likeness", HashedFile(project.folder / "face.onnx", ""), files)
    loaded = registry.load_metrics(["likeness"], likenesses={"likeness": likeness})
    calls = []
    monkeypatch.setattr(learned, "read_bytes", lambda path: calls.append(path) or path.read_bytes())
    for colour in ((1, 2, 3), (250, 20, 115)):
        with pytest.raises(ImageError, match=r"metric 'likeness' failed: ImageError: .*red.png: cannot be decoded"):
            measure(fill(*colour), loaded)
    assert len(calls) == len(set(calls))


def test_kind_of_encoder_chooses_its_levels(tmp_path):
    def write(name, shape, outputs):
        write_model(
            tmp_path / name,
            [("GlobalAveragePool", ["x"], "pooled", {}), ("Flatten", ["pooled"], outputs, {})],
            {"x": ("float", shape)},
            {outputs: ("float", ["batch", 3])},
        )
        return choose_levels(tmp_path / name)

    assert write("clip.onnx", ["batch", 3, 224, 224], "image_embeds")[0][0] == 0.48145466
    assert write("face.onnx", ["batch", 3, 112, 112], "embedding")[0] == (0.5, 0.5, 0.5)
    assert write("dino.onnx", ["batch", 3, "height", "width"], "pooler_output")[0] == (0.485, 0.456, 0.406)


def test_first_token_is_the_embedding_of_an_encoder_without_another(tmp_path):
    write_model(
        tmp_path / "tokens.onnx",
        [("Reshape", ["x", "shape"], "tokens", {})],
        {"x": ("float", [1, 3, 2, 2])},
        {"tokens": ("float", [1, 3, 4])},
        [("shape", np.array([1, 3, 4]))],
    )
    levels = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    np.testing.assert_allclose(embed_picture(fill(255, 20, 90), tmp_path / "tokens.onnx", levels), np.full(4, 0.5))


def test_files_outside_of_the_project_need_trust(project, monkeypatch, capsys):
    monkeypatch.setenv("SWEEPER_TRUST_FILE", str(project.folder / "none.json"))
    inner = project.folder / "inner"
    inner.mkdir()
    metric = {"likeness": "../refs/*.png", "model": "../face.onnx"}
    (inner / "e.yaml").write_text(yaml.safe_dump({"template": "../t.json", "metrics": [metric]}))
    assert main(["validate", str(inner / "e.yaml")]) == 2
    message = capsys.readouterr().err
    assert f"metrics[0].likeness: reads '{project.folder.resolve()}/refs', outside of the project" in message
    assert f"metrics[0].model: reads '{project.folder.resolve()}/face.onnx', outside of the project" in message
