"""Axes that change no picture: found by the pixels, and never claimed falsely."""

from __future__ import annotations

import json
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sweeper
from sweeper.model.result import FAILED, SUCCEEDED, Result
from sweeper.running.count_plan import answer_plan
from sweeper.running.prepare import Prepared
from sweeper.running.run_answer import answer_run
from sweeper.store.records import TableLayout
from sweeper.tables.effect_axes import find_equal_pictures
from sweeper.tables.effects import EffectQuery, analyse_effects
from tests.tables.written_results import make_grid

AXES = {"strength": [0.0, 0.5, 1.0, 2.0], "lora": ["noir", "vivid", "ink"], "seed": [1, 2]}


def find(rows, paint, *, together=()):
    """The sentences about these rows. `paint` returns the hashes of the pixels of a row's files; None: it failed."""
    results, hashes = [], {}
    for index, row in enumerate(rows):
        painted = paint(row)
        files = tuple(f"file {index} {place}" for place in range(len(painted or ())))
        hashes |= {name: pixels for name, pixels in zip(files, painted or (), strict=True) if pixels is not None}
        results.append(Result(index, row, row, str(index), FAILED if painted is None else SUCCEEDED, files, files))
    layout = TableLayout("x", tuple(rows[0]), tuple(rows[0]), (), together=together)
    return list(map(str, find_equal_pictures(results, layout, hashes)))


def test_axis_that_changes_nothing_is_named():
    rows = make_grid(**AXES)
    assert find(rows, lambda row: [f"{row['lora']} {row['seed']}"]) == [
        "strength: all 4 values gave equal pictures in all 6 matched sets of trials; it changes nothing here"
    ]
    assert find(rows[:1] + rows[6:7], lambda row: [""]) == [
        "strength: both values gave equal pictures in the only matched set of trials; it changes nothing here"
    ]


def test_value_under_which_another_axis_changes_nothing_is_named():
    rows = make_grid(**AXES)
    paint = lambda row: [str(row["seed"]) if row["strength"] < 0.7 else str(row)]  # noqa: E731
    assert find(rows, lambda row: [str(row["seed"]) if not row["strength"] else str(row)]) == [
        "strength 0: the 3 values of lora gave equal pictures"
    ]
    assert "strength 0, 0.5: the 3 values of lora gave equal pictures" in find(rows, paint)


def test_value_that_explains_less_than_another_one_is_not_named():
    rows = make_grid(strength=[0.0, 1.0], prompt=["fox", "boat"], lora=["noir", "vivid"])

    def paint(row):  # an interrupted run: of the fox, only strength 0 is done
        is_done = row["strength"] == 0.0 or row["prompt"] == "boat"
        return [row["prompt"] if row["strength"] == 0.0 else str(row)] if is_done else None

    assert find(rows, paint) == ["strength 0: the 2 values of lora gave equal pictures"]


def test_all_pictures_of_a_trial_are_compared_in_their_order():
    rows = make_grid(strength=[0.0, 1.0], seed=[1, 2])
    same = ["a", "b"]
    assert find(rows, lambda row: [*same, str(row["seed"])])
    assert not find(rows, lambda row: [*same, str(row)])
    assert not find(rows, lambda row: [*(same if row["strength"] else reversed(same)), str(row["seed"])])
    assert not find(rows, lambda row: [str(row["seed"])] * (1 + int(row["strength"])))


def test_nothing_is_claimed_without_pictures_that_were_compared():
    rows = make_grid(strength=[0.0, 1.0], seed=[1, 2])
    assert find(rows, lambda _: None) == []  # failed
    assert find(rows, lambda _: []) == []  # nothing saved
    assert find(rows, lambda _: [None]) == []  # not decoded, and the files differ
    assert find(rows, lambda row: [str(row["seed"]), None]) == []  # beside a film, which differs
    assert find(rows, lambda row: ["a"] if row["strength"] == float(row["seed"] == 1) else None) == []  # no set
    diagonal = [row for row in make_grid(a=[1, 2, 3, 4], b=[1, 2]) if (row["a"] < 3) == (row["b"] == 1)]
    assert find(diagonal, lambda row: ["a"]) == []  # nothing compared the values 1 and 3


def test_values_that_failed_are_not_counted_as_equal():
    rows = make_grid(**AXES)
    assert find(rows, lambda row: None if row["strength"] == 2.0 else [f"{row['lora']} {row['seed']}"]) == [
        "strength: 3 of 4 values gave equal pictures in all 6 matched sets of trials; it changes nothing here"
    ]


def test_axes_that_vary_together_are_one():
    rows = [{"width": size, "height": size, "seed": seed} for size in (64, 128) for seed in (1, 2)]
    (found,) = find(rows, lambda row: [str(row["seed"])], together=[("width", "height")])
    assert found.startswith("width + height: both values gave equal pictures")


@given(st.data())
def test_a_claim_is_true_of_every_two_trials_that_it_is_about(data):
    rows = [row for row in make_grid(a=[0, 1, 2], b=[0, 1], c=[0, 1, 2]) if data.draw(st.integers(0, 9))]
    pictures = [data.draw(st.sampled_from(["x", "x", "x", "y", None])) for _ in rows]
    painted = dict(zip(map(str, rows), pictures, strict=True))
    if not rows:
        return
    results = [
        Result(index, row, row, str(index), SUCCEEDED, (f"{index}",), (f"{index}",)) for index, row in enumerate(rows)
    ]
    hashes = {str(index): picture for index, picture in enumerate(pictures) if picture is not None}
    for claim in find_equal_pictures(results, TableLayout("x", ("a", "b", "c"), (), ()), hashes):
        about = [row for row in rows if claim.other is None or str(row[claim.other]) in claim.where]
        others = [name for name in "abc" if name not in claim.axis.split(" + ")]
        pairs = [
            (painted[str(this)], painted[str(other)]) for this, other in product(about, about)
            if all(this[name] == other[name] for name in others)
        ]  # fmt: skip
        assert len({row[claim.axis.split(" + ")[0]] for row in about}) >= claim.values >= 2
        assert all(this == other for this, other in pairs if this is not None and other is not None)


GRAPH = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "procedural-photo.safetensors"}},
    "2": {"class_type": "LoraLoader", "inputs": {"model": ["1", 0], "clip": ["1", 1], "lora_name": "{{ lora }}",
          "strength_model": "{{ strength }}", "strength_clip": 0.0}},
    "3": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["2", 1], "text": "a red fox"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
    "6": {"class_type": "KSampler", "inputs": {"model": ["2", 0], "positive": ["3", 0], "negative": ["3", 0],
          "latent_image": ["5", 0], "seed": "{{ seed }}", "steps": 2, "cfg": 7.0, "sampler_name": "euler",
          "scheduler": "normal", "denoise": 1.0}},
    "7": {"class_type": "VAEDecode", "inputs": {"samples": ["6", 0], "vae": ["1", 2]}},
    "8": {"class_type": "SaveImage", "inputs": {"images": ["7", 0], "filename_prefix": "x"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A run over two LoRAs with the strengths 0 and 1, on the embedded server, which writes the workflow into files."""
    folder = tmp_path_factory.mktemp("lora")
    loras = ["procedural-noir.safetensors", "procedural-vivid.safetensors"]
    body = {"template": "t.json", "sweep": {"grid": {"lora": loras, "strength": [0.0, 1.0], "seed": [1, 2]}}}
    (folder / "t.json").write_text(json.dumps(GRAPH))
    (folder / "lora.yaml").write_text(json.dumps(body))
    experiment = sweeper.load(folder / "lora.yaml")
    return experiment, sweeper.run(experiment, target="embedded", out=folder / "out")


SENTENCE = "strength 0: the 2 values of lora gave equal pictures"


def test_run_says_at_its_end_which_axis_changed_no_picture(swept):
    _, run = swept
    parts = [getattr(part, "text", "") for part in answer_run(run).parts()]
    assert SENTENCE in parts
    rehearsed = answer_run(run, real_run="sweeper run lora.yaml")
    assert rehearsed.equal_pictures is None


def test_plan_says_which_axis_changed_no_picture(swept):
    experiment, run = swept
    answer = answer_plan(Prepared(experiment, ["embedded"], {}, (sweeper.plan(experiment),)), run.out)
    assert SENTENCE in [getattr(part, "text", "") for part in answer.parts()]


def test_effects_say_which_axis_changed_no_picture(swept):
    _, run = swept
    assert SENTENCE in analyse_effects(run.out, EffectQuery()).found.notes
