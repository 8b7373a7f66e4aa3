"""What is kept of a server's own account: versions, and nothing that does not belong in a file made to be committed."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from sweeper.comfy.client import ComfyClient
from sweeper.comfy.protocol import ServerResponse
from sweeper.comfy.server_info import query_server_info, redact_arguments
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


def answered(dialect, answers):
    """Drive the flow with these answers by path; everything else is a 404. Also the paths that it asked for."""
    flow, asked = query_server_info(dialect), []
    ask = next(flow)
    try:
        while True:
            asked.append(ask.path)
            found = answers.get(ask.path)
            content = found if isinstance(found, bytes) else json.dumps(found).encode()
            ask = flow.send(ServerResponse(404 if found is None else 200, {}, content))
    except StopIteration as stop:
        return stop.value, asked


def test_a_comfyui_tells_its_versions_its_device_and_its_node_packs():
    found, asked = answered("comfyui", {"/system_stats": STATS, "/customnode/installed": PACKS})
    assert found == {
        "comfyui": "0.3.64",
        "python": "3.12.3",
        "pytorch": "2.8.0+cu129",
        "argv": ["--listen", "--cache-lru", "20", "--api-key"],
        "devices": ["cuda:0 NVIDIA L4 : native"],
        "nodes": {"by-git": "0badcafe", "rgthree-comfy": "1.0.2"},
    }
    assert asked == ["/system_stats", "/v2/customnode/installed", "/customnode/installed"]


def test_the_cloud_is_not_asked_for_what_only_comfyui_manager_knows():
    assert answered("cloud", {"/api/system_stats": STATS})[1] == ["/api/system_stats"]


@pytest.mark.parametrize("odd", [None, b"", b"<html>", [], {}, {"system": 3, "devices": 4}, {"devices": [1, {}]}])
def test_what_is_not_understood_is_left_out(odd):
    assert answered("comfyui", {"/system_stats": odd, "/v2/customnode/installed": {"a": 1, "b": {}}})[0] == {}


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (["main.py", "--cpu"], ["--cpu"]),
        (["--reserve-vram", "0.5", "--preview-method=auto"], ["--reserve-vram", "0.5", "--preview-method=auto"]),
        (["--token", "abc", "--password=hunter2"], ["--token", "--password=..."]),
        (["--output-directory", "/out", "--database-url=sqlite:///x"], ["--output-directory", "--database-url=..."]),
        (["-x", "http://host:1"], ["-x"]),
    ],
)  # fmt: skip
def test_of_a_command_line_only_options_numbers_and_plain_words_are_kept(arguments, kept):
    assert redact_arguments(arguments) == kept


def test_a_server_that_is_silent_about_itself_is_no_trouble():
    def answer(request):
        if request.url.path == "/system_stats":
            return httpx.Response(500, text="no")
        raise httpx.ConnectError("gone")

    async def asked():
        target = Target("t", "http://127.0.0.1:1", dialect="comfyui")
        async with ComfyClient(target, httpx.MockTransport(answer)) as client:
            return await client.get_server_info()

    assert asyncio.run(asked()) == {}
