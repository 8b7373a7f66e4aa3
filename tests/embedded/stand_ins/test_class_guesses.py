"""A permissive server: classes that nothing describes run from what the submitted graph shows of them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from sweeper.embedded import EmbeddedServer
from sweeper.embedded.nodes import NODE_CLASSES
from tests.embedded.clients import Comfy
from tests.embedded.stand_ins.test_stand_ins import change, distance, pixels, run
from tests.embedded.test_pictures import fetch, txt2img

FILM = {
    "1": {"class_type": "UnknownLoader", "inputs": {"model": "film-14b.safetensors"}},
    "2": {"class_type": "UnknownText", "inputs": {"positive_prompt": "a fox in the snow", "t5": ["1", 1]}},
    "3": {"class_type": "UnknownSampler", "inputs": {
        "model": ["1", 0], "text_embeds": ["2", 0], "width": 64, "height": 48, "shift": 5.0, "seed": 1,
    }},
    "4": {"class_type": "UnknownDecoder", "inputs": {"samples": ["3", 0], "vae": ["1", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "p"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def client():
    with EmbeddedServer("comfyui", permissive=True) as server:
        comfy = Comfy(server)
        yield comfy
        comfy.http.close()


def test_a_graph_of_unknown_classes_makes_a_picture_of_its_inputs(client):
    first = pixels(client, FILM)
    assert first.shape == (48, 64, 3)
    for node_id, values in (("2", {"positive_prompt": "a boat"}), ("3", {"shift": 1.0}), ("3", {"seed": 2})):
        assert distance(first, pixels(client, change(FILM, node_id, **values))) > 1


def test_a_misspelt_sampler_between_known_classes_samples(client):
    graph = txt2img()
    graph["3"]["class_type"] = "KSamplr"
    assert distance(pixels(client, graph), pixels(client, change(graph, "3", seed=2))) > 1


def test_unknown_nodes_at_the_end_save_what_reaches_them(client):
    graph = change(FILM, "9")
    graph["9"] = {"class_type": "UnknownSaver", "inputs": {"images": ["4", 0]}}
    graph["10"] = {"class_type": "UnknownNote", "inputs": {"text": "to do"}}
    outputs = run(client, graph)
    assert list(outputs) == ["9"]
    picture = Image.open(io.BytesIO(fetch(client, outputs["9"]["images"][0])))
    assert np.asarray(picture).shape == (48, 64, 3)


def test_saver_transforms_what_it_saves_by_its_own_values(client):
    graph = change(FILM, "9")
    graph["9"] = {"class_type": "UnknownSaver", "inputs": {"images": ["4", 0], "quality": 90}}
    plain = change(graph, "9")
    del plain["9"]["inputs"]["quality"]
    assert np.array_equal(pixels(client, plain), pixels(client, FILM))
    assert distance(pixels(client, graph), pixels(client, change(graph, "9", quality=10))) > 1


def test_a_missing_input_gets_its_default(client):
    graph = txt2img()
    steps = NODE_CLASSES["KSampler"].required["steps"][1]["default"]
    expected = pixels(client, change(graph, "3", steps=steps))
    del graph["3"]["inputs"]["steps"]
    assert np.array_equal(pixels(client, graph), expected)


def test_a_picture_whose_alpha_is_read_is_opaque(client):
    graph = change(FILM, "9", images=["6", 0])
    graph["5"] = {"class_type": "ImageToMask", "inputs": {"image": ["4", 0], "channel": "alpha"}}
    graph["6"] = {"class_type": "MaskToImage", "inputs": {"mask": ["5", 0]}}
    assert pixels(client, graph).mean() > 250  # but for the mark


def test_an_encoded_sound_counts(client):
    graph = change(txt2img(), "3", latent_image=["encoded", 0], denoise=0.5)
    graph["sound"] = {"class_type": "UnknownSound", "inputs": {"pitch": 1.0}}
    graph["encoded"] = {"class_type": "VAEEncodeAudio", "inputs": {"audio": ["sound", 0], "vae": ["4", 2]}}
    assert distance(pixels(client, graph), pixels(client, change(graph, "sound", pitch=2.0))) > 0.1


def test_the_last_word_of_a_name_is_its_type(client):
    graph = change(txt2img(), "3", latent_image=["joined", 0], denoise=0.5)
    graph["image"] = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255}}
    graph["first"] = {"class_type": "UnknownEncoder", "inputs": {"start_image": ["image", 0], "strength": 1.0}}
    graph["joined"] = {"class_type": "UnknownJoin", "inputs": {"video_latent": ["first", 0]}}
    assert distance(pixels(client, graph), pixels(client, change(graph, "first", strength=0.2))) > 0.5


def test_pictures_upstream_of_a_film_are_its_frames(client):
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 5, "color": 0}},
        "2": {"class_type": "UnknownFilm", "inputs": {"frames": ["1", 0], "width": 32, "height": 32, "length": 9}},
        "3": {"class_type": "VAELoader", "inputs": {"vae_name": "a.safetensors"}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["2", 0], "vae": ["3", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "p"}},
    }
    film = change(graph, "2", seed=1)
    assert len(run(client, film)["9"]["images"]) == 9


def test_a_switch_selects_a_text_and_an_expression_computes(client):
    graph = {
        "a": {"class_type": "UnknownSwitch", "inputs": {"text1": "a fox", "text2": "a boat", "Input": 2}},
        "b": {"class_type": "UnknownSum", "inputs": {"a": 7, "b": 5, "expression": "a * b"}},
        "c": {"class_type": "EmptyImage", "inputs": {"width": ["b", 0], "height": 8, "batch_size": 1, "color": 0}},
        "d": {"class_type": "StringConcatenate", "inputs": {"string_a": ["a", 0], "string_b": "", "delimiter": ""}},
        "8": {"class_type": "PreviewAny", "inputs": {"source": ["d", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["c", 0], "filename_prefix": "p"}},
    }
    outputs = run(client, graph)
    assert outputs["8"]["text"] == ["a boat"]
    assert pixels(client, graph).shape == (8, 35, 3)


def test_each_use_of_an_unknown_class_has_the_types_that_it_needs(client):
    graph = txt2img()
    for index, source in enumerate((["4", 0], ["6", 0], ["5", 0])):
        graph[f"r{index}"] = {"class_type": "UnknownReroute", "inputs": {"any": source}}
    graph["3"]["inputs"] |= {"model": ["r0", 0], "positive": ["r1", 0], "latent_image": ["r2", 0]}
    assert pixels(client, graph).shape == (48, 64, 3)


def test_an_option_of_a_newer_server_runs_and_counts(client):
    newer = pixels(client, txt2img(sampler_name="newer_sampler"))
    assert distance(newer, pixels(client, txt2img(sampler_name="newest_sampler"))) > 0.1
    assert distance(newer, pixels(client, txt2img())) > 0.1


def test_sizes_that_an_unknown_class_gives_can_be_used(client):
    graph = txt2img()
    graph["5"]["inputs"] |= {"width": ["s", 0], "height": ["s", 1]}
    graph["s"] = {"class_type": "UnknownSize", "inputs": {"resolution": "96x64 (3:2)", "batch": 1}}
    assert pixels(client, graph).shape == (64, 96, 3)


@pytest.mark.parametrize("graph", [[], {"1": 3}, {"1": {"class_type": "X"}}, {"1": {"class_type": 5, "inputs": {}}}])
def test_what_is_no_graph_is_refused(client, graph):
    assert client.http.post("/prompt", json={"prompt": graph}).status_code == 400


def test_a_server_that_is_not_permissive_refuses_unknown_classes(serve):
    answer = serve("comfyui", nodes=None).http.post("/prompt", json={"prompt": FILM})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "missing_node_type")
