"""Model files: what the server says about them, and when it reads them, as measured on ComfyUI 0.33.0."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from sweeper.embedded import EmbeddedServer
from tests.embedded.clients import Cloud, Comfy

NAME = "mychar.safetensors"
OLD = 1_600_000_000
HIDDEN = "../" * 3 + "secret.safetensors"


def safetensors(metadata: dict[str, str] | None, weights: bytes = b"\0" * 8) -> bytes:
    header: dict[str, Any] = {"weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    encoded = json.dumps(header if metadata is None else {"__metadata__": metadata, **header}).encode()
    return struct.pack("<Q", len(encoded)) + encoded + weights


FIRST, SECOND = safetensors({"ss_epoch": "3"}), safetensors({"ss_epoch": "4"})


def place(server: EmbeddedServer, content: bytes, folder: str = "loras", name: str = NAME) -> Path:
    """Put a file under its name as a trainer or `mv` does: another file takes its place."""
    path = server.folders.base / "models" / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name("part.tmp")
    part.write_bytes(content)
    part.replace(path)
    return path


def lora(name: str = NAME, *, strength: float = 1.0, seed: int = 1, checkpoint: str = "a.safetensors") -> Any:
    ends = {"model": ["2", 0], "positive": ["3", 0], "negative": ["3", 0], "latent_image": ["4", 0]}
    sampling = {"steps": 2, "cfg": 5.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0, "seed": seed}
    nodes = [
        ("1", "CheckpointLoaderSimple", {"ckpt_name": checkpoint}),
        ("2", "LoraLoader", {"model": ["1", 0], "clip": ["1", 1], "lora_name": name,
                             "strength_model": strength, "strength_clip": strength}),
        ("3", "CLIPTextEncode", {"clip": ["2", 1], "text": "a fox"}),
        ("4", "EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        ("5", "KSampler", ends | sampling),
        ("6", "VAEDecode", {"samples": ["5", 0], "vae": ["1", 2]}),
        ("7", "SaveImage", {"images": ["6", 0], "filename_prefix": "m"}),
    ]  # fmt: skip
    return {node: {"class_type": kind, "inputs": inputs} for node, kind, inputs in nodes}


@pytest.fixture
def comfy(serve: Any) -> Comfy:
    client: Comfy = serve("comfyui", nodes=None)
    return client


def draw(client: Comfy, graph: Any) -> str:
    """Run a graph. Returns the hash of the pixels of its picture."""
    from PIL import Image

    entry = client.run(graph)
    assert entry["status"]["status_str"] == "success", entry["status"]
    (image,) = entry["outputs"]["7"]["images"]
    with Image.open(client.server.folders.output_dir / image["filename"]) as picture:
        return hashlib.sha256(picture.tobytes()).hexdigest()


@pytest.mark.parametrize(("dialect", "prefix"), [("comfyui", ""), ("comfyui", "/api"), ("cloud", "/api")])
def test_listing_of_a_folder_has_size_and_time_of_each_file(serve, dialect, prefix):
    client = serve(dialect, nodes=None)
    path = place(client.server, FIRST, name="people/" + NAME)
    os.utime(path, (OLD, OLD))
    facts = {"name": "people/" + NAME, "pathIndex": 0, "modified": OLD, "size": len(FIRST)}
    files = client.http.get(f"{prefix}/experiment/models/loras").json()
    found = next(entry for entry in files if entry["name"] == facts["name"])
    assert found == facts | {"created": path.stat().st_ctime}
    place(client.server, SECOND + b"more", name="people/" + NAME)
    files = client.http.get(f"{prefix}/experiment/models/loras").json()
    found = next(entry for entry in files if entry["name"] == facts["name"])
    assert found["modified"] > OLD
    assert found["size"] == len(SECOND) + 4


def test_known_name_without_a_file_has_fixed_facts(serve):
    first, second = (serve("comfyui", nodes=None).http.get("/experiment/models/loras").json() for _ in range(2))
    assert first == second
    assert {entry["modified"] for entry in first} == {entry["created"] for entry in first} == {1.7e9}
    assert len({entry["size"] for entry in first}) == len(first) > 1


def test_folder_that_only_exists_on_disk_is_listed(comfy):
    place(comfy.server, FIRST, folder="ultralytics", name="face.pt")
    place(comfy.server, FIRST, folder="ultralytics", name="readme.txt")
    assert "ultralytics" in [entry["name"] for entry in comfy.http.get("/experiment/models").json()]
    assert "ultralytics" in comfy.http.get("/models").json()
    assert comfy.http.get("/models/ultralytics").json() == ["face.pt"]
    assert comfy.http.get("/experiment/models/nothing").status_code == 404


def test_files_are_among_the_choices_of_the_loaders(serve):
    server = serve("comfyui", nodes=None, strict_models=True)
    place(server.server, FIRST)
    place(server.server, FIRST, folder="controlnet", name="pose.safetensors")
    nodes = server.http.get("/object_info").json()
    for name in ("LoraLoader", "LoraLoaderModelOnly"):
        assert nodes[name]["input"]["required"]["lora_name"][0][-1] == NAME
    assert "pose.safetensors" in nodes["ControlNetLoader"]["input"]["required"]["control_net_name"][0]
    graph = lora(checkpoint="procedural-ink.safetensors")
    assert server.run(graph)["status"]["status_str"] == "success"
    graph["2"]["inputs"]["lora_name"] = "other.safetensors"
    assert server.http.post("/prompt", json={"prompt": graph}).status_code == 400


@pytest.mark.parametrize("prefix", ["", "/api"])
def test_metadata_of_a_header_are_read_at_each_request(comfy, prefix):
    for content, epoch in ((FIRST, "3"), (SECOND, "4")):
        place(comfy.server, content)
        answer = comfy.http.get(f"{prefix}/view_metadata/loras", params={"filename": NAME})
        assert answer.json() == {"ss_epoch": epoch}


@pytest.mark.parametrize(
    "content",
    [
        safetensors(None),
        b"",
        b"short",
        b"\xff" * 8 + b"{}",
        struct.pack("<Q", 2**20 + 1) + b" " * (2**20 + 1),
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 4) + b"\xff\xfe{}",
        struct.pack("<Q", 20) + b'{"__metadata__": "x"}'[:20],
        struct.pack("<Q", 10**6) + b"[" * 10**6,
    ],
)
def test_file_without_metadata_answers_404(comfy, content):
    place(comfy.server, content)
    assert comfy.http.get("/view_metadata/loras", params={"filename": NAME}).status_code == 404


@pytest.mark.parametrize("folder", ["loras", "..", "nothing", "%2e%2e", "loras%2f.."])
@pytest.mark.parametrize("name", [None, "", HIDDEN, "/" + HIDDEN, "..\\secret.safetensors", "a\0.safetensors", "."])
def test_metadata_of_files_elsewhere_are_not_shown(comfy, folder, name):
    place(comfy.server, FIRST)
    for parent in (comfy.server.folders.base, comfy.server.folders.base / "models"):
        (parent / "secret.safetensors").write_bytes(FIRST)
    answer = comfy.http.get(f"/view_metadata/{folder}", params={} if name is None else {"filename": name})
    assert answer.status_code == 404


def test_name_that_climbs_is_read_below_its_folder_as_in_comfyui(comfy):
    place(comfy.server, FIRST)
    answer = comfy.http.get("/view_metadata/loras", params={"filename": f"../../{NAME}"})
    assert answer.json() == {"ss_epoch": "3"}


def test_content_of_a_file_decides_the_picture(serve):
    pictures = []
    for content in (FIRST, SECOND, safetensors({"ss_epoch": "3"}, b"\1" * 8), FIRST, None):
        client = serve("comfyui", nodes=None)
        if content:
            place(client.server, content)
        pictures.append(draw(client, lora()))
    assert pictures[0] == pictures[3]
    assert len({*pictures}) == 4


def test_content_of_a_checkpoint_decides_the_picture(serve):
    pictures = []
    for content in (FIRST, SECOND):
        client = serve("comfyui", nodes=None)
        place(client.server, content, "checkpoints", "a.safetensors")
        pictures.append(draw(client, lora()))
    assert pictures[0] != pictures[1]


def test_stand_in_depends_on_the_content_of_its_file(serve):
    pictures = []
    for content in (FIRST, SECOND):
        client = serve("comfyui", nodes=None)
        place(client.server, content, "style_models", "s.safetensors")
        graph = lora()
        graph["8"] = {"class_type": "StyleModelLoader", "inputs": {"style_model_name": "s.safetensors"}}
        graph["10"] = {"class_type": "CLIPVisionLoader", "inputs": {"clip_name": "v.safetensors"}}
        graph["11"] = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 9}}
        graph["12"] = {"class_type": "CLIPVisionEncode",
                       "inputs": {"clip_vision": ["10", 0], "image": ["11", 0], "crop": "none"}}  # fmt: skip
        graph["9"] = {"class_type": "StyleModelApply",
                      "inputs": {"conditioning": ["3", 0], "style_model": ["8", 0], "strength": 1.0,
                                 "clip_vision_output": ["12", 0], "strength_type": "multiply"}}  # fmt: skip
        graph["5"]["inputs"]["positive"] = ["9", 0]
        pictures.append(draw(client, graph))
    assert pictures[0] != pictures[1]


@pytest.mark.parametrize("linked", [False, True])
def test_stand_in_hands_on_the_name_of_a_file_as_it_came(serve, linked):
    """It may choose the LoRA of a loader, or show the name."""
    declared = {"input": {"required": {"lora_name": [["a.safetensors", NAME]]}}, "output": ["*"]}
    client = serve("comfyui", nodes=None, object_info={"MyChoice": declared})
    place(client.server, FIRST)
    graph = lora()
    graph["8"] = {"class_type": "MyChoice", "inputs": {"lora_name": NAME}}
    graph["9"] = {"class_type": "PreviewAny", "inputs": {"source": ["8", 0]}}
    if linked:
        graph["10"] = {"class_type": "MyChoice", "inputs": {"lora_name": NAME}}
        graph["8"]["inputs"]["lora_name"] = ["10", 0]
    assert client.run(graph)["outputs"]["9"] == {"text": [NAME]}


def test_replaced_lora_is_not_read_while_its_result_is_cached(serve):
    expected = {}
    for content in (FIRST, SECOND):
        client = serve("comfyui", nodes=None)
        place(client.server, content)
        expected[content] = draw(client, lora(seed=2))
    place(client.server, FIRST)
    client.http.post("/free", json={"unload_models": True, "free_memory": True})
    draw(client, lora())
    place(client.server, SECOND)
    assert draw(client, lora(seed=2)) == expected[FIRST] != expected[SECOND]


def test_replaced_lora_is_read_again_without_cache(serve):
    client = serve("comfyui", nodes=None, cache="none")
    place(client.server, FIRST)
    first = draw(client, lora())
    place(client.server, SECOND)
    assert draw(client, lora()) != first


def test_replaced_lora_is_read_after_a_job_with_another_one(comfy):
    place(comfy.server, FIRST)
    first = draw(comfy, lora())
    place(comfy.server, SECOND)
    draw(comfy, lora("other.safetensors"))
    assert draw(comfy, lora()) != first


def test_replaced_file_is_read_by_the_first_job_after_free(comfy):
    place(comfy.server, FIRST)
    place(comfy.server, FIRST, "checkpoints", "a.safetensors")
    first = draw(comfy, lora())
    place(comfy.server, SECOND)
    place(comfy.server, SECOND, "checkpoints", "a.safetensors")
    assert draw(comfy, lora()) == first
    comfy.http.post("/free", json={"unload_models": True, "free_memory": True})
    second = draw(comfy, lora())
    assert second != first
    assert draw(comfy, lora(seed=2)) != second


def test_replaced_checkpoint_is_read_after_a_job_with_another_one(comfy):
    place(comfy.server, FIRST, "checkpoints", "a.safetensors")
    first = draw(comfy, lora())
    place(comfy.server, SECOND, "checkpoints", "a.safetensors")
    assert draw(comfy, lora()) == first
    draw(comfy, lora(checkpoint="b.safetensors"))
    assert draw(comfy, lora()) != first


def test_cache_that_keeps_all_results_keeps_a_replaced_checkpoint_until_free(serve):
    client = serve("comfyui", nodes=None, cache="ram 0")
    place(client.server, FIRST, "checkpoints", "a.safetensors")
    first = draw(client, lora())
    place(client.server, SECOND, "checkpoints", "a.safetensors")
    draw(client, lora(checkpoint="b.safetensors"))
    assert draw(client, lora()) == first
    client.http.post("/free", json={"unload_models": True, "free_memory": True})
    assert draw(client, lora()) != first


def test_cloud_lists_models_with_their_hash_as_assets(serve):
    cloud: Cloud = serve("cloud", nodes=None)
    place(cloud.server, FIRST)
    body = cloud.http.get("/api/assets", params={"include_tags": "models,loras"}).json()
    mine = next(asset for asset in body["assets"] if asset["name"] == NAME)
    assert mine["hash"] == f"blake3:{blake3(FIRST).hexdigest()}"
    assert (mine["size"], mine["tags"], mine["loader_path"]) == (len(FIRST), ["models", "loras"], NAME)
    assert body["total"] == len(body["assets"]) == 3
    place(cloud.server, SECOND)
    body = cloud.http.get("/api/assets", params={"tags_all": "loras"}).json()
    assert f"blake3:{blake3(SECOND).hexdigest()}" in [asset["hash"] for asset in body["assets"]]


def test_pages_of_assets_show_each_model_once(serve):
    cloud: Cloud = serve("cloud", nodes=None)
    ids: list[str] = []
    while True:
        query = {"include_tags": "models", "limit": 4, "offset": len(ids)}
        page = cloud.http.get("/api/assets", params=query).json()
        ids += [asset["id"] for asset in page["assets"]]
        if not page["has_more"]:
            break
    assert len(ids) == len(set(ids)) == page["total"] > 8
    assert cloud.http.get("/api/assets", params={"include_tags": "nothing"}).json()["assets"] == []
    for limit in (0, 501, "x"):
        assert cloud.http.get("/api/assets", params={"limit": limit}).status_code == 400


def test_described_class_lists_files_beside_those_of_its_description(serve):
    described = {"output": ["MODEL"], "output_node": False, "name": "My"}
    classes = {
        "MyLoader": described | {"input": {"required": {"lora_name": [["theirs.safetensors", ["odd"]]]}, "hidden": {}}},
        "MyOdd": described | {"input": None},
    }
    client = serve("comfyui", nodes=None, object_info=classes)
    assert client.http.get("/object_info/MyLoader").json()["MyLoader"]["input"] == classes["MyLoader"]["input"]
    place(client.server, FIRST)
    nodes = client.http.get("/object_info").json()
    assert nodes["MyLoader"]["input"]["required"]["lora_name"] == [["theirs.safetensors", ["odd"], NAME]]
    assert nodes["MyOdd"]["input"] is None
    assert "theirs.safetensors" in client.http.get("/models/loras").json()


def test_name_with_half_a_surrogate_pair_is_listed(serve):
    declared = {"input": {"required": {"lora_name": [["\ud800.safetensors"]]}}, "output": ["MODEL"]}
    cloud: Cloud = serve("cloud", nodes=None, object_info={"MyLoader": declared})
    names = [entry["name"] for entry in cloud.http.get("/api/experiment/models/loras").json()]
    assets = cloud.http.get("/api/assets", params={"include_tags": "loras"}).json()["assets"]
    assert "\ud800.safetensors" in names
    assert names == [asset["name"] for asset in assets]
