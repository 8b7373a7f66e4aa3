"""The server with its own nodes: pictures from text and from uploads, and the lists of nodes and models."""

from __future__ import annotations

import io
import json

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.embedded.clients import Cloud, Comfy
from tests.embedded.probes import chain
from tests.waiting import wait_until


def txt2img(seed=1, **sampler):
    return {
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "procedural-paint.safetensors"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 48, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red fox", "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["4", 1]}},
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "seed": seed, "steps": 3, "cfg": 7, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
                "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0],
            } | sampler,
        },
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "sweep/cell", "images": ["8", 0]}},
    }  # fmt: skip


def fetch(client, file):
    if isinstance(client, Cloud):
        location = client.http.get("/api/view", params=file).headers["location"]
        return httpx.get(location).content
    return client.http.get("/view", params=file).content


@pytest.mark.parametrize("dialect", ["cloud", "comfyui"])
def test_text_becomes_a_picture_with_its_workflow(serve, dialect):
    client = serve(dialect, nodes=None)
    job = client.run(txt2img(), extra_data={"extra_pnginfo": {"sweeper": {"cell": 7}}})
    file = job["outputs"]["9"]["images"][0]
    assert file == {"filename": "cell_00001_.png", "subfolder": "sweep", "type": "output"}
    picture = Image.open(io.BytesIO(fetch(client, file)))
    assert (picture.format, picture.size, picture.mode) == ("PNG", (64, 48), "RGB")
    assert json.loads(picture.info["prompt"]) == txt2img()
    assert json.loads(picture.info["sweeper"]) == {"cell": 7}


def test_both_dialects_give_the_same_pixels_for_a_seed(serve):
    pixels = []
    for dialect, seed in (("cloud", 1), ("comfyui", 1), ("comfyui", 2)):
        client = serve(dialect, nodes=None)
        file = client.run(txt2img(seed))["outputs"]["9"]["images"][0]
        pixels.append(Image.open(io.BytesIO(fetch(client, file))).tobytes())
    assert pixels[0] == pixels[1]
    assert pixels[1] != pixels[2]


@pytest.mark.parametrize("dialect", ["cloud", "comfyui"])
def test_upload_is_loaded_by_the_returned_name(serve, dialect):
    client = serve(dialect, nodes=None)
    buffer = io.BytesIO()
    Image.new("RGB", (6, 5), (255, 0, 255)).save(buffer, format="PNG")
    name = client.http.post("/api/upload/image", files={"image": ("a fox.png", buffer.getvalue())}).json()["name"]
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": name}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x", "images": ["2", 0]}},
    }
    job = client.run(graph)
    picture = Image.open(io.BytesIO(fetch(client, job["outputs"]["9"]["images"][0])))
    assert picture.getpixel((0, 0)) == (0, 255, 0)
    graph["1"]["inputs"]["image"] = "nope.png"
    answer = client.http.post("/api/prompt", json={"prompt": graph})
    (error,) = answer.json()["node_errors"]["1"]["errors"]
    assert (error["type"], error["details"]) == ("custom_validation_failed", "image - Invalid image file: nope.png")


def test_previews_are_temporary_files(serve):
    client = serve("comfyui", nodes=None)
    graph = txt2img()
    graph["9"] = {"class_type": "PreviewImage", "inputs": {"images": ["8", 0]}}
    file = client.run(graph)["outputs"]["9"]["images"][0]
    assert file["type"] == "temp"
    assert fetch(client, file)[:4] == b"\x89PNG"


def test_strict_models_refuses_unlisted_models(serve):
    client = serve("comfyui", nodes=None, strict_models=True)
    info = client.http.get("/object_info/CheckpointLoaderSimple").json()["CheckpointLoaderSimple"]
    assert "procedural-paint.safetensors" in info["input"]["required"]["ckpt_name"][0]
    graph = txt2img()
    graph["4"]["inputs"]["ckpt_name"] = "sd_xl_base_1.0.safetensors"
    assert client.http.post("/prompt", json={"prompt": graph}).status_code == 400
    assert serve("comfyui", nodes=None).run(graph)["status"]["status_str"] == "success"


def test_sampler_can_be_interrupted_between_steps(serve):
    client = serve("comfyui", nodes=None)
    graph = txt2img(steps=10_000)
    graph["5"]["inputs"] |= {"width": 512, "height": 512}
    prompt_id = client.submit(graph)
    wait_until(lambda: client.http.get("/queue").json()["queue_running"])
    client.http.post("/interrupt", json={"prompt_id": prompt_id})
    assert client.wait_for_end(prompt_id)["status"]["messages"][-1][0] == "execution_interrupted"


CELLS = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["alpha", "beta"]),
        "text": st.sampled_from(["a", "b"]),
        "seed": st.integers(0, 1),
        "prefix": st.sampled_from(["p", "q"]),
        "fail": st.booleans(),
    }
)


@pytest.mark.parametrize("cache", ["classic", "lru 5", "none"])
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(cells=st.lists(CELLS, min_size=1, max_size=8))
def test_no_cache_policy_mixes_up_results_of_jobs(shared, cache, cells):
    comfy: Comfy = shared(cache)
    ids = [comfy.submit(chain(steps=1, **cell)) for cell in cells]
    for prompt_id, cell in zip(ids, cells, strict=True):
        entry = comfy.wait_for_end(prompt_id)
        if cell["fail"]:
            assert entry["status"]["status_str"] == "error"
            continue
        (file,) = entry["outputs"]["9"]["images"]
        assert file["filename"].startswith(cell["prefix"])
        expected = f"{cell['model']}|{cell['model']}:{cell['text']}|{cell['seed']}|1|7.0|euler"
        assert comfy.http.get("/view", params=file).text == expected


@pytest.fixture
def shared(serve):
    """One server per cache policy for all examples, because cached results of one example affect the next."""
    servers = {}

    def get(cache):
        if cache not in servers:
            servers[cache] = serve("comfyui", cache=cache)
        return servers[cache]

    return get
