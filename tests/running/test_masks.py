"""A mask over the picture of a file slot: uploaded with it, part of the digest, checked before anything is sent."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sweeper
from sweeper.embedded import EmbeddedServer
from sweeper.errors import ExperimentError, TemplateError
from sweeper.images import decoding
from tests.few_classes import pick_classes

GRAPH = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "x.png"}},
    "2": {"class_type": "MaskToImage", "inputs": {"mask": ["1", 1]}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "mask"}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "picture"}},
}
SLOTS = {"photo": {"at": "1.image", "kind": "file"}, "mask": {"kind": "mask", "of": "photo"}}


def drawn(size=(16, 16)):
    """A mask whose left half is white, that is, masked."""
    picture = Image.new("L", size, 0)
    picture.paste(255, (0, 0, size[0] // 2, size[1]))
    return picture


@pytest.fixture
def sweep(tmp_path):
    def make(params, slots=SLOTS, **more):
        (tmp_path / "t.json").write_text(json.dumps(GRAPH))
        (tmp_path / "t.slots.yaml").write_text(json.dumps({"slots": slots}))
        (tmp_path / "e.yaml").write_text(
            json.dumps({"template": "t.json", "params": params, "run": {"retries": 0}, **more})
        )
        return tmp_path / "e.yaml"

    Image.new("RGB", (16, 16), (200, 100, 50)).save(tmp_path / "photo.png")
    drawn().save(tmp_path / "left.png")
    return make


def pixels(out, row=0):
    """The mask and the picture that the run saved, as arrays."""
    paths = sweeper.results(out)["outputs"].iloc[row]
    return [np.asarray(Image.open(out / path).convert("RGB")) for path in paths]


@pytest.mark.parametrize("dialect", ["cloud", "comfyui", "v2"])
def test_white_areas_are_masked_and_the_picture_keeps_its_colours(sweep, tmp_path, dialect):
    with EmbeddedServer(dialect=dialect, nodes=pick_classes()) as server:
        run = sweeper.run(sweep({"photo": "photo.png", "mask": "left.png"}), server.url, tmp_path / "out")
    assert run.succeeded == 1
    mask, picture = pixels(tmp_path / "out")
    assert (mask[:, :8] == 255).all()
    assert (mask[:, 8:] == 0).all()
    assert (picture == (200, 100, 50)).all()


def test_a_mask_of_comfyuis_editor_uses_its_alpha_channel(sweep, tmp_path):
    painted = Image.new("RGBA", (16, 16), (255, 255, 255, 255))
    painted.putalpha(drawn().point(lambda value: 255 - value))
    painted.save(tmp_path / "editor.png")
    with EmbeddedServer(nodes=pick_classes()) as server:
        sweeper.run(sweep({"photo": "photo.png", "mask": "editor.png"}), server.url, tmp_path / "out")
    mask, _ = pixels(tmp_path / "out")
    assert (mask[:, :8] == 255).all()
    assert (mask[:, 8:] == 0).all()


@pytest.mark.parametrize("dialect", ["cloud", "comfyui", "v2"])
def test_pictures_and_masks_are_uploaded_once_and_each_pair_is_a_job(sweep, tmp_path, dialect):
    Image.new("RGB", (16, 16), (1, 2, 3)).save(tmp_path / "other.png")
    drawn().transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "right.png")
    grid = {"photo": ["photo.png", "other.png"], "mask": ["left.png", "right.png"]}
    file = sweep({}, sweep={"grid": grid})
    assert len({trial.digest for trial in sweeper.plan(sweeper.load(file))}) == 4
    with EmbeddedServer(dialect=dialect, nodes=pick_classes()) as server:
        run = sweeper.run(file, server.url, tmp_path / "out")
        uploads = [
            path.removeprefix("/api")
            for path in server.seen.paths("POST")
            if path.endswith(("/image", "/mask", "/assets"))
        ]
        again = sweeper.run(file, server.url, tmp_path / "out", fresh=True)
        later = [
            path.removeprefix("/api")
            for path in server.seen.paths("POST")
            if path.endswith(("/image", "/mask", "/assets"))
        ]
    assert (run.succeeded, again.succeeded, again.submitted) == (4, 4, 4)
    assert later == uploads
    # API v2 stores no masks, so the combined pictures are uploaded, and not the pictures themselves.
    assert sorted(uploads) == (["/v2/assets"] * 4 if dialect == "v2" else ["/upload/image"] * 2 + ["/upload/mask"] * 4)
    masks = [pixels(tmp_path / "out", row)[0][0, 0, 0] for row in range(4)]
    assert masks == [255, 0, 255, 0]


def test_the_digest_depends_on_the_masks_bytes_not_its_name(sweep, tmp_path):
    def digest(mask):
        (trial,) = sweeper.plan(sweeper.load(sweep({"photo": "photo.png", "mask": mask})))
        return trial.digest

    (tmp_path / "copy.png").write_bytes((tmp_path / "left.png").read_bytes())
    drawn((16, 16)).rotate(180).save(tmp_path / "turned.png")
    assert digest("left.png") == digest("copy.png") != digest("turned.png")


def test_a_mask_of_another_size_is_reported_before_anything_is_sent(sweep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawn((8, 8)).save("small.png")
    Path("words.png").write_text("no picture")
    grid = {"photo": ["photo.png", "words.png"], "mask": ["left.png", "small.png", "words.png"]}
    with pytest.raises(ExperimentError) as caught:
        sweeper.load(sweep({}, sweep={"grid": grid}).name)
    assert [(problem.key, problem.message) for problem in caught.value.problems] == [
        (
            "sweep.grid.mask[1]",
            "the mask 'small.png' has 8 x 8 pixels, but its picture 'photo.png' 16 x 16; both must have the same size",
        ),
        ("sweep.grid.mask[2]", "the mask 'words.png' cannot be read as a picture: unknown format"),
        (
            "sweep.grid.photo[1]",
            "the picture 'words.png' of a mask cannot be read as a picture: unknown format",
        ),
    ]


def test_a_mask_may_differ_in_size_from_pictures_it_never_covers(sweep, tmp_path):
    drawn((8, 8)).save(tmp_path / "small.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "little.png")
    grid = {"photo": ["photo.png", "little.png"], "mask": ["left.png", "small.png"]}
    exclude = [{"photo": "photo.png", "mask": "small.png"}, {"photo": "little.png", "mask": "left.png"}]
    assert len(sweeper.plan(sweeper.load(sweep({}, sweep={"grid": grid, "exclude": exclude})))) == 2
    with pytest.raises(ExperimentError, match=r"'left.png' has 16 x 16 pixels, but its picture 'little.png' 8 x 8"):
        sweeper.load(sweep({}, sweep={"grid": grid, "exclude": exclude[:1]}))


def test_each_file_is_read_once_for_any_number_of_trials(sweep, monkeypatch):
    looked = []
    monkeypatch.setattr(decoding, "read_size", lambda path: looked.append(path.name) or (16, 16))
    sweeper.load(sweep({"photo": "photo.png", "mask": "left.png"}, sweep={"grid": {"n": {"seeds": 50}}, "where": "n"}))
    assert looked == ["photo.png", "left.png"]


def test_a_truncated_mask_is_a_failed_row_and_nothing_is_submitted(sweep, tmp_path):
    Image.effect_noise((16, 16), 80).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])  # which its header does not tell
    with EmbeddedServer(nodes=pick_classes()) as server:
        run = sweeper.run(sweep({"photo": "photo.png", "mask": "half.png"}), server.url, tmp_path / "out")
    assert (run.failed, run.submitted, server.seen.submits) == (1, 0, 0)
    assert "mask half.png: cannot be read as a picture: " in sweeper.results(tmp_path / "out")["error"].iloc[0]


@pytest.mark.parametrize(
    ("slots", "expected"),
    [
        ({"mask": {"kind": "mask"}}, "slots.mask: a mask needs `of`"),
        ({"mask": {"kind": "mask", "of": "phto"}}, "there is no slot 'phto' of `kind: file`; did you mean 'photo'?"),
        ({"mask": {"kind": "mask", "of": "photo", "at": "1.image"}}, "slots.mask.at: a mask has the inputs of"),
        ({"text": {"at": "3.filename_prefix", "of": "photo"}}, "slots.text.of: only a slot of `kind: mask` has `of`"),
        ({"a": {"kind": "mask", "of": "photo"}, "b": {"kind": "mask", "of": "photo"}}, "'photo' already has the mask"),
    ],
)
def test_an_invalid_mask_slot_is_reported(sweep, slots, expected):
    with pytest.raises(TemplateError) as caught:
        sweeper.load_template(sweep({}, {"photo": SLOTS["photo"], **slots}).with_name("t.json"))
    assert expected in str(caught.value)
