"""A studio: an experiment over two LoRAs and two seeds, and ComfyUI servers whose model files change."""

from __future__ import annotations

import json
import os
import struct
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from time import sleep
from typing import Any

import httpx

import sweeper
from sweeper.embedded import EmbeddedServer
from tests.few_classes import pick_classes

NAME = "mychar.safetensors"
OLD, NEW = 1_700_000_000, 1_700_500_000


def make_file(metadata: dict[str, str] | None, weights: bytes = b"\0" * 8) -> bytes:
    header: dict[str, Any] = {"weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    encoded = json.dumps(header if metadata is None else {"__metadata__": metadata, **header}).encode()
    return struct.pack("<Q", len(encoded)) + encoded + weights


THIRD, FOURTH = make_file({"ss_epoch": "3"}), make_file({"ss_epoch": "4"})
BASE, OTHER_BASE = make_file({"format": "pt"}), make_file({"format": "pt"}, b"\1" * 8)

GRAPH = {
    node: {"class_type": kind, "inputs": inputs}
    for node, kind, inputs in (
        ("1", "CheckpointLoaderSimple", {"ckpt_name": "base.safetensors"}),
        ("2", "LoraLoader", {"model": ["1", 0], "clip": ["1", 1], "lora_name": NAME, "strength_model": 1.0,
                             "strength_clip": 1.0}),
        ("3", "CLIPTextEncode", {"clip": ["2", 1], "text": "a fox"}),
        ("4", "EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        ("5", "KSampler", {"model": ["2", 0], "positive": ["3", 0], "negative": ["3", 0], "latent_image": ["4", 0],
                           "steps": 2, "cfg": 5.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
                           "seed": 1}),
        ("6", "VAEDecode", {"samples": ["5", 0], "vae": ["1", 2]}),
        ("7", "SaveImage", {"images": ["6", 0], "filename_prefix": "m"}),
    )
}  # fmt: skip


class Studio:
    """An experiment over two seeds and two LoRAs, and ComfyUI servers with model files."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self._stack = folder, stack
        (folder / "w.json").write_text(json.dumps(GRAPH))
        (folder / "w.slots.yaml").write_text("slots: {lora: {at: 2.lora_name}, seed: {at: 5.seed}}\n")
        self.write("")

    def write(self, more: str, target: str = "") -> None:
        sweep = f"sweep: {{grid: {{lora: [{NAME}, style.safetensors], seed: [1, 2]}}}}"
        (self.folder / "e.yaml").write_text(f"name: e\ntemplate: w.json\n{sweep}\n{target}\n{more}\n")

    def serve(self, name: str, **options: Any) -> EmbeddedServer:
        """Start a server with the first version of each file. It has few classes, which are soon read."""
        classes = pick_classes("LoraLoader")
        server = self._stack.enter_context(EmbeddedServer(**{"dialect": "comfyui", "nodes": classes, **options}))
        self.place(server, THIRD, time=OLD)
        self.place(server, make_file({"ss_epoch": "1"}), "loras/style.safetensors", time=OLD)
        self.place(server, BASE, "checkpoints/base.safetensors", time=OLD)
        return server

    def place(self, server: EmbeddedServer, content: bytes, name: str = f"loras/{NAME}", *, time: float = NEW) -> Path:
        """Put a file under its name as a trainer or `mv` does: another file takes its place."""
        path = server.folders.base / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name("part.tmp")
        part.write_bytes(content)
        os.utime(part, (time, time))
        part.replace(path)
        return path

    def run(self, *servers: Any, **options: Any) -> sweeper.Run:
        targets = [{"url": server.url, "name": name} for name, server in servers]
        self.notices: list[str] = []

        def note(event: Any) -> None:
            if hasattr(event, "message"):
                self.notices.append(event.message)

        return sweeper.run(self.folder / "e.yaml", targets, progress=note, **options)

    def rows(self) -> list[dict[str, Any]]:
        return list(sweeper.results(self.folder / "results" / "e").to_dict("records"))

    def tags(self) -> list[str]:
        """The tag of the LoRA in each row."""
        return [row["models"].rpartition("@")[2] for row in self.rows()]


def draw_by_hand(server: EmbeddedServer, seed: int) -> bytes:
    """The picture of the same workflow, posted to a server that has read nothing yet."""
    httpx.post(f"{server.url}/free", json={"unload_models": True, "free_memory": True}).raise_for_status()
    graph = json.loads(json.dumps(GRAPH))
    graph["5"]["inputs"]["seed"] = seed
    job = httpx.post(f"{server.url}/prompt", json={"prompt": graph}).json()["prompt_id"]
    while not (history := httpx.get(f"{server.url}/history/{job}").json()):
        sleep(0.03)
    (image,) = history[job]["outputs"]["7"]["images"]
    return httpx.get(f"{server.url}/view", params=image).content


def read_pixels(content: bytes | Path) -> bytes:
    from PIL import Image

    with Image.open(BytesIO(content) if isinstance(content, bytes) else content) as picture:
        return picture.tobytes()
