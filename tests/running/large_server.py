"""A ComfyUI with thousands of LoRA files, which many classes list, and an experiment over some of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml

from sweeper import embedded
from tests.running.hostile_server import HostileHandler, hostile
from tests.running.studio import GRAPH

PARTNER = {"input": {"required": {"image": ["IMAGE"]}}, "output": ["IMAGE"], "api_node": True,
           "price_badge": {"engine": "jsonata", "expr": '{"type": "usd", "usd": 0.05}', "depends_on": {}}}  # fmt: skip


def name_files(count: int) -> list[str]:
    """Names of 90 characters."""
    return ["style of a long name/" * 3 + f"{i:015d}.safetensors" for i in range(count)]


class LargeStudio:
    """What the server has. `names`: of its LoRA files; `loaders`: of the classes that list them beside LoraLoader."""

    def __init__(self, loaders: int, names: list[str]) -> None:
        self.names = names
        self.has_class_call = True
        self.broken: set[str] = set()  # classes that the server cannot describe, and leaves out of the list of all
        self.whole_reads = 0
        self.others = [f"Loader{i}" for i in range(loaders)]
        used = {node["class_type"] for node in GRAPH.values()}
        self.known = {name: declared for name, declared in embedded.node_classes().items() if name in used}
        self.known |= {"Upscale": PARTNER, "Twin": {"input": {"required": {"x": ["TWINS"]}}, "output": ["IMAGE"]}}

    def describe(self, name: str) -> dict[str, Any]:
        if name in self.others:
            return {"input": {"required": {"lora_name": [self.names, {}]}}, "output": ["TWINS"], "name": name}
        declared = self.known[name]
        if name == "LoraLoader":
            inputs = declared["input"]["required"]
            return {**declared, "input": {"required": {**inputs, "lora_name": [self.names, {}]}}}
        if name == "CheckpointLoaderSimple":
            return {**declared, "input": {"required": {"ckpt_name": [["base.safetensors"], {}]}}}
        return declared

    def send_classes(self, handler: HostileHandler) -> None:
        _, _, name = handler.path.partition("/object_info")
        name = unquote(name.removeprefix("/"))
        if name and not self.has_class_call:
            handler.answer(404, b"404: Not Found")
        elif name in self.broken:
            handler.answer(500, b"500: this class raises an error")
        elif name:
            found = {name: self.describe(name)} if name in (*self.others, *self.known) else {}
            handler.answer(200, json.dumps(found).encode())
        else:
            self.whole_reads += 1
            handler.close_connection = True
            handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n")
            mark = b"{"
            listed = json.dumps(self.names)
            for each in (name for name in (*self.known, *self.others) if name not in self.broken):
                text = json.dumps({each: self.describe(each)}) if each in self.known else ""
                text = text or f'{{"{each}": {json.dumps({**self.describe(each), "input": 0})}}}'.replace(
                    '"input": 0', f'"input": {{"required": {{"lora_name": [{listed}, {{}}]}}}}'
                )
                handler.wfile.write(mark + text[1:-1].encode())
                mark = b", "
            handler.wfile.write(b"}")

    def send_models(self, handler: HostileHandler) -> None:
        files = [{"name": name, "pathIndex": 0, "modified": 1.7e9, "created": 1.7e9, "size": 8} for name in self.names]
        folders = {"/experiment/models": [{"name": "loras", "folders": []}], "/experiment/models/loras": files}
        answer = folders.get(handler.path.removeprefix("/api"))
        handler.answer(404 if answer is None else 200, json.dumps(answer).encode())


@contextmanager
def large_server(loaders: int = 3, files: int = 40) -> Iterator[tuple[LargeStudio, Any]]:
    studio = LargeStudio(loaders, name_files(files))
    with hostile("comfyui", classes=studio.send_classes, other=studio.send_models) as server:
        server.outputs = {"7": {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}]}}
        yield studio, server


def write_experiment(
    folder: Path, url: str, loras: list[str], graph: dict[str, Any] | None = None, more: str = ""
) -> Path:
    """An experiment on that server over these LoRA files."""
    (folder / "w.json").write_text(json.dumps(GRAPH if graph is None else graph))
    (folder / "w.slots.yaml").write_text("slots: {lora: {at: 2.lora_name}, seed: {at: 5.seed}}\n")
    target = {"url": url, "dialect": "comfyui", "name": "studio"}
    file = folder / "e.yaml"
    written = {"name": "e", "template": "w.json", "target": target, "sweep": {"grid": {"lora": loras, "seed": [1, 2]}}}
    file.write_text(yaml.safe_dump(written) + more)
    return file
