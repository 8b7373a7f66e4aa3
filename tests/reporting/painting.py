"""A small server with a painting node that waits for the test, and an experiment that uses it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from PIL import Image

import sweeper
from sweeper.embedded.nodes import NodeClass, NodeOutput, make_node_class

TEMPLATE = {
    "1": {"class_type": "Paint", "inputs": {"text": "{{ text }}"}},
    "2": {"class_type": "Keep", "inputs": {"images": ["1", 0], "filename_prefix": "sweep"}},
}


class Painter:
    """The nodes; every painting waits for `go_on`. A text `bad...` fails."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        inputs = {"images": ("IMAGE", {}), "filename_prefix": ("STRING", {"default": "ComfyUI"})}
        self.nodes = {
            "Paint": _node("Paint", {"text": ("STRING", {})}, ("IMAGE",), self._paint),
            "Keep": _node("Keep", inputs, (), _keep),
        }

    def _paint(self, context: Any, text: str) -> NodeOutput:
        context.progress(3, 10)
        while not self.go_on.wait(0.05):
            context.progress(3, 10, Image.new("RGB", (16, 16), "orange"))  # also checks whether it has to stop
        if text.startswith("bad"):
            raise RuntimeError(f"out of paint for {text}")
        return NodeOutput((text,))


def _keep(context: Any, images: str, filename_prefix: str) -> NodeOutput:
    path = context.output_dir / f"{filename_prefix}_00001_.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (48, 32), (len(images) * 9 % 256, 90, 200)).save(path)
    where = path.relative_to(context.output_dir)
    return NodeOutput(
        (), {"images": [{"filename": where.name, "subfolder": where.parent.as_posix(), "type": "output"}]}
    )


def _node(name: str, required: dict[str, Any], outputs: tuple[str, ...], run: Any) -> NodeClass:
    record = {"input": {"required": required}, "output": list(outputs), "output_node": not outputs}
    return make_node_class(name, record, run)


def experiment(folder: Path, texts: list[str]) -> sweeper.Experiment:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "template.json").write_text(json.dumps(TEMPLATE))
    file = folder / "painted.yaml"
    body = {"name": "painted", "template": "template.json", "sweep": {"grid": {"text": texts}}, "run": {"retries": 0}}
    file.write_text(json.dumps(body))
    return sweeper.load(file)
