"""Requests for a ComfyUI, and the parts of its answers that can be compared between two servers.

Used by `test_against_real_server.py`. The requests use core nodes only, and none that kills a real server.
`data/exchanges.json` holds the answers of a ComfyUI 0.33.0; `python tests/embedded/exchanges.py URL` records others.
"""

from __future__ import annotations

import io
import json
import re
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from tests.waiting import wait_until

RECORDED = Path(__file__).parent / "data" / "exchanges.json"

Request = tuple[str, str, dict[str, Any]]

# Not compared, because they are random, depend on the machine, are prose, or tell where a page shows a class.
IGNORED = {
    "traceback", "timestamp", "tooltip", "description", "modified", "created", "output_tooltips", "create_time",
    "execution_start_time", "execution_end_time", "display_name", "category", "search_aliases", "essentials_category",
}  # fmt: skip
JOB, NOBODY = "7b0b7a5e-2c1f-4f0e-9d52-0f6f1f6a8c11", "7b0b7a5e-2c1f-4f0e-9d52-0f6f1f6a8c12"


def png(colour: tuple[int, ...] = (1, 2, 3, 128), size: tuple[int, int] = (8, 4)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", size, colour).save(buffer, format="PNG")
    return buffer.getvalue()


def graph(prefix: str = "sweeper/a", **inputs: Any) -> dict[str, Any]:
    """EmptyImage -> ImageInvert -> SaveImage; `n1_width=5` sets an input of node 1, `n1_width=...` removes it."""
    nodes: dict[str, Any] = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 8, "batch_size": 1, "color": 255}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": prefix}},
    }
    for address, value in inputs.items():
        node, _, name = address[1:].partition("_")
        if value is ...:
            del nodes[node]["inputs"][name]
        else:
            nodes[node]["inputs"][name] = value
    return nodes


def blend(prefix: str = "sweeper/b", **inputs: Any) -> dict[str, Any]:
    """The same graph with an ImageBlend, which has a FLOAT and a newer COMBO."""
    nodes = graph(prefix, n9_images=["3", 0])
    widgets = {"blend_factor": 0.5, "blend_mode": "normal"} | inputs
    nodes["3"] = {"class_type": "ImageBlend", "inputs": {"image1": ["1", 0], "image2": ["2", 0], **widgets}}
    return nodes


def prompt(nodes: Any, **fields: Any) -> Request:
    return "POST", "/prompt", {"json": {"prompt": nodes, **fields}}


def single(node: Any) -> Request:
    return prompt({"9": node})


def get(path: str, **headers: str) -> Request:
    return "GET", path, {"headers": headers} if headers else {}


def post(path: str, body: bytes | None = None, **more: Any) -> Request:
    return "POST", path, more if body is None else {"content": body}


def upload(path: str, name: str, data: bytes, **fields: str) -> Request:
    return "POST", path, {"files": {"image": (name, data, "image/png")}, "data": fields}


def mask(name: str, data: bytes, original: str) -> Request:
    return upload("/upload/mask", name, data, original_ref=json.dumps({"filename": original, "type": "input"}))


BODIES = [post("/prompt", body) for body in (b"[]", b'"abc"', b"5", b"{}", b"", b"nope", b"null")]
PROMPTS = [prompt(value) for value in ([], {}, "x", None, 5, [{}], ["a"], {"1": []}, {"1": "x"}, {"1": {}})]
NODES = [
    single(node)
    for node in (
        {"inputs": {}},
        {"class_type": None, "inputs": {}},
        {"class_type": ["a"], "inputs": {}},
        {"class_type": "Nope", "inputs": {}},
        {"class_type": "Nope", "inputs": {}, "_meta": {"title": "My node"}},
        {"inputs": {}, "_meta": {"title": "My node"}},
        {"class_type": "EmptyImage", "inputs": {}},
        *({"class_type": "SaveImage", "inputs": value} for value in ({}, [], None, "x", 5)),
        {"class_type": "SaveImage"},
    )
]
WIDTHS = [0, 99999, 7.9, "7", "7.5", None, "abc", True, ..., [1], [1, 2, 3], [], {}, {"a": 1}, {"__value__": 9}]
WIDGETS = [
    *(prompt(graph(f"sweeper/w{index}", n1_width=value)) for index, value in enumerate(WIDTHS)),
    *(prompt(graph(n9_filename_prefix=value)) for value in (5, None, ...)),
    *(
        prompt(blend(f"sweeper/f{index}", blend_factor=value))
        for index, value in enumerate((2, -1, "0.5", "abc", None, [], "inf", "-inf"))
    ),
    *(prompt(blend(blend_mode=value)) for value in ("nope", 5)),
    prompt({"8": {"class_type": "PreviewImage", "inputs": {"images": ["9", 0]}}, "7": graph()["1"], "9": {
        "class_type": "ImageScale",
        "inputs": {"image": ["7", 0], "upscale_method": "nope", "width": 5, "height": -1, "crop": "none"}}}),
    prompt({"9": {"class_type": "LoadImage", "inputs": {"image": "nope.png"}},
            "8": {"class_type": "SaveImage", "inputs": {"images": ["9", 0], "filename_prefix": "x"}}}),
]  # fmt: skip
LINKS = [
    *(prompt(graph(n2_image=value)) for value in (["77", 0], ["1", 5], ["1", "0"], [1, 0], ["1", 0.5], ["2", 0])),
    *(
        prompt({**graph(n2_image=["4", 0]), "4": {"class_type": "ImageInvert", "inputs": {"image": [node, 0]}}})
        for node in ("2", "4")
    ),
    *(prompt(graph(n9_images=value)) for value in (..., ["1"], ["77", 0])),
]
FIELDS = [
    *(prompt(graph(), number=value) for value in ("abc", None)),
    *(prompt(graph(), partial_execution_targets=value) for value in ([], ["nope"])),
    prompt(graph("sweeper/p"), partial_execution_targets=["9"]),
    *(prompt(graph("sweeper/p"), prompt_id=value) for value in (None, 7, "sweep 1/cell 7", JOB.upper(), JOB + "0")),
    *(prompt(value) for value in ({"nodes": [], "links": []}, {"id": "x", "nodes": []}, {"last_node_id": 9})),
]
METHODS: list[Request] = [
    *(get(path) for path in ("/nope", "/api/nope", "/prompt/")),
    *((method, path, {}) for method in ("PUT", "DELETE", "PATCH") for path in ("/prompt", "/queue")),
    ("HEAD", "/prompt", {}), ("HEAD", "/view?filename=none.png", {}),
    get("/prompt", Origin="http://evil.example"), ("OPTIONS", "/prompt", {"headers": {"Origin": "http://evil.example"}}),
]  # fmt: skip
QUEUES = [
    get("/prompt"), get("/queue"), get("/history/none"),
    *(get(f"/history?max_items={number}") for number in ("abc", "0")),
    *(post("/queue", body) for body in (b"{}", b"", b'{"delete":null}', b'{"delete":["zz"]}', b'{"clear":true}')),
    *(post("/history", body) for body in (b"{}", b"", b'{"delete":["zz"]}')),
    *(post("/interrupt", body) for body in (b"", b"nope", b"{}", b"[]", b"null", b'{"prompt_id":"x"}')),
    *(post("/free", body) for body in (b"{}", b"")),
]  # fmt: skip
JOBS = [
    prompt(graph("sweeper/j"), prompt_id=JOB, extra_data={"mine": 1, "extra_pnginfo": {"workflow": {"id": "w"}}}),
    *(get(f"/api/jobs/{job}") for job in (JOB, NOBODY, "nobody")), get("/jobs"),
    *(
        get(f"/api/jobs?{query}")
        for query in (
            "workflow_id=w", "workflow_id=w&limit=1&offset=1", "workflow_id=w&status=completed", "workflow_id=nope",
            "workflow_id=w&status=FAILED, pending", "workflow_id=w&after=x", "workflow_id=w&offset=-1", "limit=0",
            "limit=x", "offset=x", "status=nope,gone",
        )
    ),
    *(post(f"/api/jobs/{job}/cancel") for job in (JOB, NOBODY, "nobody")),
    *(
        post("/api/jobs/cancel", body)
        for body in (
            b"", b"[]", b"{}", b'{"job_ids":[]}', b'{"job_ids":null}', b'{"job_ids":["x",3,[1]]}',
            json.dumps({"job_ids": [JOB, NOBODY]}).encode(), json.dumps({"job_ids": [JOB.upper()]}).encode(),
        )
    ),
]  # fmt: skip
UPLOADS = [
    upload("/upload/image", "v.png", png(), overwrite="true"),
    upload("/upload/image", "t.bin", b"x", subfolder="s", overwrite="true"),
    upload("/upload/image", "t.bin", b"x", subfolder="s"),
    upload("/upload/image", "t.bin", b"y", subfolder="s"),
    upload("/upload/image", "t.bin", b"y", subfolder="s", overwrite="True"),
    upload("/upload/image", "t.bin", b"x", type="nope"),
    upload("/upload/image", "t.bin", b"x", subfolder="../.."),
    ("POST", "/upload/image", {"files": {"pic": ("a.png", b"x")}}),
    post("/upload/image", json={}),
    upload("/upload/mask", "m.png", png((0, 0, 0, 9)), overwrite="true", original_ref='{"filename":"v.png [input]"}'),
    upload("/upload/mask", "m2.png", png((0, 0, 0, 9))),
    mask("m3.png", png((0, 0, 0, 9), (5, 5)), "v.png"),
]  # fmt: skip
RANGES = ("0-3", "-4", "999999-")
VIEWS = [
    *(get("/view?filename=v.png&type=input", Range=f"bytes={span}") for span in RANGES),
    *(
        get(f"/view?filename=v.png&type=input{query}")
        for query in ("", "&subfolder=..", "&subfolder=nope", "&channel=zz")
    ),
    *(
        get(f"/view{query}")
        for query in (
            "", "?filename=", "?filename=/etc/passwd", "?filename=a..b.png", "?filename=v.png&type=user",
            "?filename=v.png", "?filename=v.png [input]", "?filename=v.png[input]", "?filename=d/v.png&type=input",
        )
    ),
    ("HEAD", "/view?filename=v.png&type=input", {}),
]  # fmt: skip
FACTS = [
    get(f"/{path}")
    for path in (
        "features", "embeddings", "object_info/Nope",
        "object_info/EmptyImage", "object_info/EmptyLatentImage", "object_info/ImageScale", "object_info/ImageBlend",
    )
]  # fmt: skip
REQUESTS: list[Request] = [
    *BODIES, *PROMPTS, *NODES, *WIDGETS, *LINKS, *FIELDS, *METHODS, *QUEUES, *JOBS, *UPLOADS, *VIEWS, get("/users"),
    *FACTS,
]  # fmt: skip


def comparable(response: httpx.Response) -> Any:
    """(status, media type, body) of an answer, without IGNORED fields and without the plain text of refusals."""
    media = response.headers.get("content-type", "").partition(";")[0]
    refused = response.status_code >= 400
    if media == "application/json" and response.request.method != "HEAD":
        return [response.status_code, media, plain(response.json())]
    return [response.status_code, *([] if refused else [media, b64encode(response.content).decode()])]


def plain(value: Any) -> Any:
    """Replace ids, numbers of jobs and of files in JSON, and sort values without an order."""
    if isinstance(value, dict):
        result = {key: plain(part) for key, part in value.items() if key not in IGNORED}
        for key in ("prompt_id", "number", "priority"):
            result |= {key: "*"} if key in result else {}
        if result.get("type") == "prompt_outputs_failed_validation":
            result["details"] = sorted(str(result["details"]).splitlines())
        for key in ("current_outputs", "executed"):  # sets in ComfyUI
            result |= {key: sorted(result[key])} if key in result else {}
        return result
    if isinstance(value, list):
        parts = [plain(part) for part in value]
        named = parts and all(isinstance(part, dict) and "details" in part for part in parts)
        if len(parts) == 2 and parts[1] == {} and not isinstance(parts[0], dict):
            parts = parts[:1]  # an input's options, empty without the tooltip
        return sorted(parts, key=lambda part: part["details"]) if named else parts
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return str(value)  # ours are strings, because JSON has no infinity
    return _VARYING.sub("*", value) if isinstance(value, str) else value


_VARYING = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{5}(?=_\.png)")


def describe(request: Request) -> str:
    """A request in one line, which is its name in the recording."""
    method, path, body = request
    return f"{method} {path} { ({key: value for key, value in body.items() if key != 'files'}) }"


def answers(url: str) -> list[Any]:
    """Send all requests in order. Returns [request, comparable answer] for each."""
    with httpx.Client(base_url=url, timeout=30) as client:
        return [
            [describe(request), comparable(client.request(method, path, **body))]
            for request in REQUESTS
            for method, path, body in [request]
            if wait_until(lambda: is_idle(client))  # the recorded server had nothing to do at each request
        ]


def is_idle(client: httpx.Client) -> bool:
    return client.get("/prompt").json()["exec_info"]["queue_remaining"] == 0


if __name__ == "__main__":
    lines = ",\n".join(json.dumps(exchange) for exchange in answers(sys.argv[1]))
    RECORDED.write_text(f"[\n{lines}\n]\n", "utf-8")
