"""Which facts about a server are kept: versions, and nothing that must not be committed to a repository."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from sweeper.comfy.client import ComfyClient
from sweeper.comfy.protocol import ServerResponse
from sweeper.comfy.responses import NodePack, query_node_packs, query_server_info, redact_arguments
from sweeper.comfy.target import Target

STATS = {
    "system": {
        "comfyui_version": "0.3.64",
        "python_version": "3.12.3 (main, Jan 1 2026) [GCC]",
        "pytorch_version": "2.8.0+cu129",
        "argv": ["/home/me/ComfyUI/main.py", "--listen", "0.0.0.0", "--cache-lru", "20", "--api-key", "1234"],
    },
    "devices": [{"name": "cuda:0 NVIDIA L4 : native", "type": "cuda", "vram_total": 1}],
}
PACKS = {
    "rgthree-comfy": {"ver": "1.0.2", "cnr_id": "rgthree-comfy", "aux_id": None, "enabled": True},
    "off": {"ver": "2.0.0", "enabled": False},
    "by-git": {"ver": "0badcafe", "aux_id": "me/by-git", "enabled": True},
}


def query(dialect, answers):
    return run(query_server_info(dialect), answers)


def run(flow, answers):
    """Run a flow with these answers by path, 404 for any other; return its result and the requested paths."""
    paths = []
    request = next(flow)
    try:
        while True:
            paths.append(request.path)
            answer = answers.get(request.path)
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            request = flow.send(ServerResponse(404 if answer is None else 200, {}, content))
    except StopIteration as stop:
        return stop.value, paths


def test_comfyui_reports_versions_device_and_node_packs():
    facts, paths = query("comfyui", {"/system_stats": STATS, "/customnode/installed": PACKS})
    assert facts == {
        "comfyui": "0.3.64",
        "python": "3.12.3",
        "pytorch": "2.8.0+cu129",
        "argv": ["--cache-lru", "20", "--api-key"],
        "devices": ["cuda:0 NVIDIA L4 : native"],
        "nodes": {"by-git": "0badcafe", "rgthree-comfy": "1.0.2"},
    }
    assert paths == ["/system_stats", "/v2/customnode/installed", "/customnode/installed"]


def test_node_packs_have_their_registry_id_or_repository():
    odd = {
        "odd": {"ver": 3, "cnr_id": ["x"], "aux_id": "https://git.example/x/y"},
        "none": {"ver": None},
        "text": "1.0",
    }
    assert run(query_node_packs(), {"/v2/customnode/installed": {**PACKS, **odd}})[0] == {
        "rgthree-comfy": NodePack("1.0.2", "rgthree-comfy"),
        "by-git": NodePack("0badcafe", "", "https://github.com/me/by-git"),
        "odd": NodePack("3", "['x']"),
        "none": NodePack(),
    }


def test_cloud_gets_no_comfyui_manager_requests():
    assert query("cloud", {"/api/system_stats": STATS})[1] == ["/api/system_stats"]


@pytest.mark.parametrize("odd", [None, b"", b"<html>", [], {}, {"system": 3, "devices": 4}, {"devices": [1, {}]}])
def test_malformed_facts_are_left_out(odd):
    assert query("comfyui", {"/system_stats": odd, "/v2/customnode/installed": {"a": 1, "b": {}}})[0] == {}


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (["main.py", "--cpu"], ["--cpu"]),
        (["--reserve-vram", "0.5", "--preview-method=auto"], ["--reserve-vram", "0.5", "--preview-method=auto"]),
        (["--token", "abc", "--password=hunter2"], ["--token", "--password=..."]),
        (["--base-directory", "/out", "--front-end-root=sqlite:///x"], ["--base-directory", "--front-end-root=..."]),
        (["--port", "8188", "--listen", "--output-directory=out", "--lowvram", "--database-url", "x"], ["--lowvram"]),
        (["-x", "http://host:1"], ["-x"]),
    ],
)  # fmt: skip
def test_arguments_keep_only_options_numbers_and_plain_words(arguments, kept):
    assert redact_arguments(arguments) == kept


def test_server_without_info_is_accepted():
    def answer(request):
        if request.url.path == "/system_stats":
            return httpx.Response(500, text="no")
        raise httpx.ConnectError("gone")

    async def get_info():
        target = Target("t", "http://127.0.0.1:1", dialect="comfyui")
        async with ComfyClient(target, httpx.MockTransport(answer)) as client:
            return await client.get_server_info()

    assert asyncio.run(get_info()) == {}
