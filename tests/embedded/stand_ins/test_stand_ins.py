"""Node classes that only an `object_info` describes: what their stand-ins make, save and say."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

from sweeper.embedded import EmbeddedServer
from sweeper.embedded.nodes import NODE_CLASSES
from sweeper.embedded.stand_ins.histories import read_inputs
from tests.embedded.clients import Comfy
from tests.embedded.stand_ins.declarations import OBJECT_INFO
from tests.embedded.test_pictures import fetch, txt2img

FILM = {
    "1": {"class_type": "FilmLoader", "inputs": {"model": "film-14b.safetensors", "precision": "fp16"}},
    "2": {"class_type": "FilmText", "inputs": {"positive_prompt": "a fox in the snow", "negative_prompt": "blurry"}},
    "3": {"class_type": "FilmSampler", "inputs": {
        "model": ["1", 0], "text": ["2", 0], "width": 64, "height": 48, "steps": 20, "strength": 0.5, "looped": False,
        "schedule": "unipc", "seed": 1,
    }},
    "4": {"class_type": "VAELoader", "inputs": {"vae_name": "a.safetensors"}},
    "5": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 0]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "p"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def client():
    with EmbeddedServer("comfyui", object_info=OBJECT_INFO) as server:
        comfy = Comfy(server)
        yield comfy
        comfy.http.close()


def change(graph: dict[str, Any], node_id: str, **inputs: Any) -> dict[str, Any]:
    """The graph with other values at one node."""
    changed = json.loads(json.dumps(graph))
    changed[node_id]["inputs"] |= inputs
    return changed


def picture_graph(class_type: str, output: int = 0, **inputs: Any) -> dict[str, Any]:
    """A graph that saves a picture of one node. `fox`, `mask` and `loader` are there to be linked."""
    return {
        "fox": {"class_type": "PartnerImage", "inputs": {"prompt": "a fox", "aspect_ratio": "1:1", "seed": 1}},
        "small": {"class_type": "ImageScale", "inputs": {
            "image": ["fox", 0], "upscale_method": "bilinear", "width": 96, "height": 64, "crop": "disabled",
        }},
        "mask": {"class_type": "SolidMask", "inputs": {"value": 0.5, "width": 96, "height": 64}},
        "node": {"class_type": class_type, "inputs": inputs},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["node", output], "filename_prefix": "p"}},
    }  # fmt: skip


def run(client: Comfy, graph: dict[str, Any]) -> dict[str, Any]:
    job = client.run(graph)
    assert job["status"]["status_str"] == "success", job["status"]["messages"][-2:]
    return job["outputs"]


def draw(client: Comfy, graph: dict[str, Any], node_id: str = "9") -> list[Image.Image]:
    """The pictures that a node of the graph saves."""
    return [Image.open(io.BytesIO(fetch(client, file))) for file in run(client, graph)[node_id]["images"]]


def pixels(client: Comfy, graph: dict[str, Any], node_id: str = "9") -> Any:
    return np.asarray(draw(client, graph, node_id)[0].convert("RGB"), np.float64)


def distance(first: Any, second: Any) -> float:
    """The mean difference of two pictures, 0-255. Infinite for other sizes."""
    return float(np.abs(first - second).mean()) if first.shape == second.shape else float("inf")


def test_the_same_inputs_give_the_same_pixels_in_every_process(client):
    code = (
        "import sys; from tests.embedded.stand_ins import test_stand_ins as t\n"
        "with t.EmbeddedServer('comfyui', object_info=t.OBJECT_INFO) as server:\n"
        "    client = t.Comfy(server); sys.stdout.buffer.write(t.pixels(client, t.FILM).tobytes())\n"
    )
    here = pixels(client, FILM)
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60).stdout
    assert here.tobytes() == other


@pytest.mark.parametrize(
    ("node_id", "name", "value"),
    [
        ("1", "precision", "fp8"), ("2", "positive_prompt", "a boat on the sea"), ("2", "negative_prompt", "dark"),
        ("3", "steps", 40), ("3", "strength", 1.0), ("3", "looped", True), ("3", "schedule", "euler"), ("3", "seed", 2),
    ],
)  # fmt: skip
def test_every_input_changes_the_picture(client, node_id, name, value):
    assert distance(pixels(client, FILM), pixels(client, change(FILM, node_id, **{name: value}))) > 1


def test_numbers_change_the_picture_smoothly(client):
    zero, near, nearer, whole = (pixels(client, change(FILM, "3", strength=value)) for value in (0.0, 0.4, 0.5, 1.0))
    assert distance(near, nearer) < distance(zero, whole) / 2


def test_undeclared_inputs_and_titles_change_nothing(client):
    other = change(FILM, "3", control_after_generate="fixed")
    other["3"]["_meta"] = {"title": "mine"}
    assert distance(pixels(client, FILM), pixels(client, other)) == 0


def test_models_of_stand_ins_and_of_the_server_fit_together(client):
    graph = txt2img()
    graph["4"] = {"class_type": "AnyLoader", "inputs": {"name": "a.safetensors"}}
    graph["p"] = {"class_type": "AnyPatch", "inputs": {"model": ["4", 0], "clip": ["4", 1], "strength": 0.3}}
    graph["c"] = {
        "class_type": "AnyConditioning",
        "inputs": {"positive": ["6", 0], "negative": ["7", 0], "strength": 1},
    }
    graph["l"] = {"class_type": "AnyLatentTool", "inputs": {"samples": ["3", 0], "amount": 0.5}}
    graph["6"]["inputs"]["clip"] = ["p", 1]
    graph["3"]["inputs"] |= {"model": ["p", 0], "positive": ["c", 0], "negative": ["c", 1]}
    graph["8"]["inputs"]["samples"] = ["l", 0]
    whole = pixels(client, graph)
    for node_id, name, value in (("p", "strength", 1.5), ("c", "strength", 0.2), ("l", "amount", 1.5)):
        assert distance(whole, pixels(client, change(graph, node_id, **{name: value}))) > 1


@pytest.mark.parametrize(
    "graph",
    [
        picture_graph("AnyFilter", image=["small", 0], amount=0.5),
        picture_graph("Union", value=["mask", 0], amount=0.5),
    ],
)
def test_pictures_and_masks_go_on_transformed(client, graph):
    first = pixels(client, graph)
    assert distance(first, pixels(client, change(graph, "node", amount=1.5))) > 1
    assert distance(first, pixels(client, change(graph, "mask", value=0.9) | {"fox": {
        "class_type": "PartnerImage", "inputs": {"prompt": "a boat", "aspect_ratio": "1:1", "seed": 1}
    }})) > 1  # fmt: skip


def test_a_dynamic_combo_adds_its_inputs_and_a_match_type_follows_its_input(client):
    graph = picture_graph("Resize", input=["small", 0], kind="sides", **{"kind.width": 40, "kind.height": 24})
    assert draw(client, graph)[0].size == (40, 24)
    graph["node"]["inputs"] = {"input": ["small", 0], "kind": "factor", "kind.scale_by": 0.5}
    assert draw(client, graph)[0].size == (48, 32)
    missing = client.http.post("/prompt", json={"prompt": picture_graph("Resize", input=["small", 0], kind="sides")})
    assert missing.status_code == 400
    errors = missing.json()["node_errors"]["node"]["errors"]
    assert [error["extra_info"]["input_name"] for error in errors] == ["kind.width", "kind.height"]


def test_a_switch_hands_on_the_chosen_branch_linked_or_not(client):
    graph = {
        "1": {"class_type": "PrimitiveString", "inputs": {"value": "a boat"}},
        "2": {"class_type": "Branch", "inputs": {"switch": False, "on_false": "a fox", "on_true": ["1", 0]}},
        "3": {"class_type": "PreviewAny", "inputs": {"source": ["2", 0]}},
    }
    assert run(client, graph)["3"]["text"] == ["a fox"]
    assert run(client, change(graph, "2", switch=True))["3"]["text"] == ["a boat"]


def test_autogrow_and_lists_keep_every_picture(client):
    grown = picture_graph("Batch", **{"images.image0": ["small", 0], "images.image1": ["fox", 0]})
    assert [picture.size for picture in draw(client, grown)] == [(96, 64)] * 2
    grown["split"] = {"class_type": "Split", "inputs": {"images": ["node", 0]}}
    grown["tone"] = {"class_type": "AnyFilter", "inputs": {"image": ["split", 0], "amount": 0.5}}
    grown["join"] = {"class_type": "Join", "inputs": {"images": ["tone", 0]}}
    grown["9"]["inputs"]["images"] = ["join", 0]
    assert len(draw(client, grown)) == 2


def test_sizes_follow_the_inputs_that_name_them_in_bounds(client, monkeypatch):
    monkeypatch.setattr("sweeper.embedded.stand_ins.drawing._LARGEST", 2**17)
    assert draw(client, change(FILM, "3", width=80, height=32))[0].size == (80, 32)
    wide = picture_graph("PartnerImage", prompt="a fox", aspect_ratio="2:1", seed=1)
    width, height = draw(client, wide)[0].size
    assert width == pytest.approx(2 * height, rel=0.05)
    width, height = draw(client, change(FILM, "3", width=1024, height=512))[0].size
    assert (width, height) == (512, 256)


def test_an_upscaler_makes_pictures_four_times_larger(client):
    graph = picture_graph("ImageUpscaleWithModel", image=["small", 0], upscale_model=["u", 0])
    graph["u"] = {"class_type": "UpscaleModelLoader", "inputs": {"model_name": "x.pth"}}
    (large,) = draw(client, graph)
    assert large.size == (384, 256)
    other = change(graph, "u", model_name="y.pth")
    assert distance(np.asarray(large, float), np.asarray(draw(client, other)[0], float)) > 0.5


def test_texts_and_numbers_go_on_and_are_kept(client):
    graph = picture_graph("PartnerWriter", prompt="a fox", seed=1)
    del graph["9"]
    graph["shown"] = {"class_type": "ShowText", "inputs": {"text": ["node", 0]}}
    graph["measured"] = {"class_type": "Measure", "inputs": {"image": ["small", 0]}}
    graph["width"] = {"class_type": "PreviewAny", "inputs": {"source": ["measured", 0]}}
    outputs = run(client, graph)
    assert outputs["shown"]["text"][0].startswith("a fox, ")
    assert outputs["width"]["text"] == ["96"]
    other = run(client, change(graph, "node", seed=2))
    assert other["shown"]["text"] != outputs["shown"]["text"]


def test_sizes_are_computed_as_the_inputs_say(client):
    graph = {
        "sides": {"class_type": "Sides", "inputs": {"aspect_ratio": "16:9 (Wide)", "megapixels": 1.0, "multiple": 16}},
        "half": {"class_type": "Arithmetic", "inputs": {"expression": "a // b // 8 * 8", "a": ["sides", 0], "b": 4}},
        "9": {"class_type": "PreviewAny", "inputs": {"source": ["sides", 0]}},
        "10": {"class_type": "PreviewAny", "inputs": {"source": ["sides", 1]}},
        "11": {"class_type": "PreviewAny", "inputs": {"source": ["half", 0]}},
    }
    outputs = run(client, graph)
    assert [outputs[node_id]["text"] for node_id in ("9", "10", "11")] == [["1328"], ["752"], ["328"]]


def test_every_input_changes_a_sound(client):
    graph = {
        "1": {"class_type": "EmptyAudio", "inputs": {"duration": 0.2, "sample_rate": 8000, "channels": 1}},
        "2": {"class_type": "AnySoundTool", "inputs": {"audio": ["1", 0], "amount": 0.5}},
        "9": {"class_type": "SaveAudio", "inputs": {"audio": ["2", 0], "filename_prefix": "s"}},
    }
    sounds = set()
    for amount in (0.5, 0.6, 1.0):
        (file,) = run(client, change(graph, "2", amount=amount))["9"]["audio"]
        sounds.add(fetch(client, file)[-600:])  # the samples, behind the metadata
    assert len(sounds) == 3


def test_sound_has_the_seconds_of_its_empty_latent(client):
    av = pytest.importorskip("av")
    graph = txt2img(steps=1) | {
        "5": {"class_type": "EmptyAceStepLatentAudio", "inputs": {"seconds": 1.5, "batch_size": 1}},
        "8": {"class_type": "VAEDecodeAudio", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveAudio", "inputs": {"audio": ["8", 0], "filename_prefix": "s"}},
    }
    (file,) = run(client, graph)["9"]["audio"]
    with av.open(io.BytesIO(fetch(client, file))) as sound:
        stream = sound.streams.audio[0]
        assert sum(frame.samples for frame in sound.decode(stream)) == 1.5 * stream.rate


def test_a_film_is_saved_with_its_length(client):
    graph = {
        "1": {"class_type": "PartnerFilm", "inputs": {"prompt": "a boat", "duration": 1, "resolution": "144p"}},
        "2": {"class_type": "GetVideoComponents", "inputs": {"video": ["1", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "f"}},
    }
    frames = draw(client, graph)
    assert (len(frames), frames[0].size) == (16, (256, 144))


def test_animated_picture_has_all_frames_and_needs_no_codec(client):
    graph = {
        "1": {"class_type": "PartnerFilm", "inputs": {"prompt": "a boat", "duration": 1, "resolution": "144p"}},
        "2": {"class_type": "GetVideoComponents", "inputs": {"video": ["1", 0]}},
        "9": {"class_type": "SaveAnimatedWEBP", "inputs": {
            "images": ["2", 0], "filename_prefix": "anim", "fps": 8.0, "lossless": False, "quality": 80,
            "method": "default"}},
    }  # fmt: skip
    (file,) = run(client, graph)["9"]["images"]
    assert file["filename"] == "anim_00001_.webp"
    with Image.open(io.BytesIO(fetch(client, file))) as picture:
        assert "SaveAnimatedWEBP" in picture.getexif()[0x0110]
        durations = []
        for frame in ImageSequence.Iterator(picture):  # equal frames are one that lasts longer
            frame.load()
            durations.append(frame.info["duration"])
        assert (sum(durations), picture.size) == (16 * 125, (256, 144))
        assert len(durations) > 8
    (exact,) = run(client, change(graph, "9", lossless=True))["9"]["images"]
    assert [chunk in fetch(client, whole) for whole in (file, exact) for chunk in (b"VP8 ", b"VP8L")] == [
        True, False, False, True,
    ]  # fmt: skip


def test_output_nodes_save_what_reaches_them_or_a_scene(client):
    saved = picture_graph("AnyFilter", image=["small", 0], amount=0.5)
    saved["9"] = {"class_type": "SaveEverything", "inputs": {"images": ["node", 0], "filename_prefix": "mine"}}
    assert run(client, saved)["9"]["images"][0]["filename"] == "mine_00001_.png"
    model = {
        "1": {"class_type": "MakeModel3D", "inputs": {"prompt": "a red house"}},
        "9": {"class_type": "SaveModel3D", "inputs": {"model": ["1", 0]}},
    }
    first = pixels(client, model)
    assert distance(first, pixels(client, change(model, "1", prompt="a blue boat"))) > 1


def test_pictures_of_stand_ins_carry_a_mark_and_their_names(client):
    (marked,) = draw(client, FILM)
    assert json.loads(marked.info["sweeper_stand_ins"]) == ["FilmLoader", "FilmSampler", "FilmText"]
    (plain,) = draw(client, txt2img())
    assert "sweeper_stand_ins" not in plain.info
    corners = [np.asarray(picture.convert("L"), int)[-9:-3, -9:-3] for picture in (marked, plain)]
    assert [set(np.diag(corner)) == {38} for corner in corners] == [True, False]


def test_object_info_says_which_classes_are_stand_ins(client):
    info = client.http.get("/object_info").json()
    stand_ins = {name for name, declared in info.items() if declared.get("sweeper_stand_in")}
    assert stand_ins == info.keys() - NODE_CLASSES.keys() >= OBJECT_INFO.keys()
    assert info["Batch"]["input"] == OBJECT_INFO["Batch"]["input"]


def test_own_classes_run_with_what_only_a_description_has(client):
    own = client.http.get("/object_info/KSampler").json()["KSampler"]
    own["input"]["required"]["sampler_name"][0].append("res_2s")
    own["input"]["optional"] = {"sharpness": ["FLOAT", {"default": 0.0}]}
    with EmbeddedServer("comfyui", object_info={"KSampler": own}) as server:
        newer = Comfy(server)
        plain, extra = draw(newer, txt2img()), draw(newer, txt2img(sampler_name="res_2s"))
        sharper = draw(newer, txt2img(sharpness=2.0))
        newer.http.close()
    assert "sweeper_stand_ins" not in extra[0].info
    assert plain[0].tobytes() == sharper[0].tobytes() != extra[0].tobytes()


@pytest.mark.parametrize(
    ("expression", "value"),
    [("(a // 32) * 32", "512"), ("a * 2 + 1", "1027"), ("a if a > b else b", "513"), ("a.real", "513"),
     ("max(a, b)", "513"), ("9 ** 9 ** 9", "513"), ("(" * 300, "513")],
)  # fmt: skip
def test_expressions_are_computed_if_they_are_plain_and_small(client, expression, value):
    graph = {
        "1": {"class_type": "Arithmetic", "inputs": {"expression": expression, "a": 513, "b": 4}},
        "9": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    assert run(client, graph)["9"]["text"] == [value]


def test_a_huge_prompt_and_nested_values_are_read_in_bounds(client):
    nested: Any = {"a": 1}
    for _ in range(40):
        nested = {"b": [nested]}
    odd = change(FILM, "2", positive_prompt="(" * 5000 + "fox" + " 9" * 50_000)
    odd["p"] = {"class_type": "MakeModel3D", "inputs": {"prompt": "a house", "curve": nested}}
    odd["10"] = {"class_type": "SaveModel3D", "inputs": {"model": ["p", 0]}}
    assert draw(client, odd)[0].size == (64, 48)


def test_lists_of_lists_are_bounded(client, monkeypatch):
    monkeypatch.setattr("sweeper.embedded.executor._MAX_LISTED", 2**20)
    text: Any = "a fox"
    graph = {}
    for level in range(3):  # each makes 8 pictures of each picture before
        graph[f"b{level}"] = {"class_type": "Batches", "inputs": {"prompt": text, "batch_size": 8, "width": 64}}
        graph[f"c{level}"] = {"class_type": "Caption", "inputs": {"image": [f"b{level}", 0]}}
        text = [f"c{level}", 0]
    graph["9"] = {"class_type": "ShowText", "inputs": {"text": text}}
    status = client.run(graph)["status"]
    assert status["status_str"] == "error"
    assert "the lists of this node's outputs are larger" in str(status["messages"][-1])


def test_an_empty_batch_is_as_good_as_none():
    reading = read_inputs("X", {"image": ("IMAGE", {})}, {"image": np.zeros((0, 8, 8, 3))}, ["image"])
    assert reading.list_kind("IMAGE") == []


def test_wrong_inputs_of_a_described_class_are_refused(client):
    for values, kind in (
        ({"schedule": "nope"}, "value_not_in_list"),
        ({"steps": 0}, "value_smaller_than_min"),
        ({"model": ["2", 0]}, "return_type_mismatch"),
    ):
        answer = client.http.post("/prompt", json={"prompt": change(FILM, "3", **values)})
        assert [error["type"] for error in answer.json()["node_errors"]["3"]["errors"]] == [kind]
