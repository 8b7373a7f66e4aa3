"""A third dialect takes one class, and a whole run works with it. All lists of dialect names agree."""

from __future__ import annotations

import json

import sweeper
from sweeper.comfy import dialects
from sweeper.comfy.comfyui import CloudDialect
from sweeper.embedded import EmbeddedServer
from sweeper.model.target_spec import DIALECTS
from sweeper.schemas import load_schema

GRAPH = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "x.png"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}
KEY = "sk-third"


class ThirdDialect(CloudDialect):
    """Another name, another header for the key, no WebSocket."""

    name = "third"
    has_event_stream = False

    def auth_headers(self, key):
        return {"X-API-Key": key, "X-Third": "yes"}


def test_run_with_a_third_dialect(tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.setattr(dialects, "_DIALECTS", {**dialects._DIALECTS, "third": ThirdDialect})
    monkeypatch.setattr("sweeper.model.target_spec.DIALECTS", (*DIALECTS, "third"))
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "t.json").write_text(json.dumps(GRAPH))
    (tmp_path / "t.slots.yaml").write_text('slots: {image: {at: "1.image", kind: file}}')
    (tmp_path / "e.yaml").write_text("template: t.json\nparams: {image: a.png}\n")
    with EmbeddedServer(api_key=KEY) as server:
        target = {"url": server.url, "dialect": "third", "api_key_env": "K"}
        run = sweeper.run(tmp_path / "e.yaml", target, tmp_path / "out", environ={"K": KEY})
    assert run.succeeded == 1
    assert server.seen.connections == 0
    api_requests = [request for request in server.seen.requests if request.path.startswith("/api/")]
    assert api_requests
    assert all("x-third" in request.headers for request in api_requests)
    assert not any("x-third" in request.headers for request in server.seen.storage_requests)


def test_dialect_names_are_the_same_everywhere():
    written = load_schema("experiment")["$defs"]["settings"]["properties"]["dialect"]["enum"]
    assert list(dialects._DIALECTS) == list(DIALECTS) == written
