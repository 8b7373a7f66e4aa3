"""A LocalCluster whose workers have a server each, and the small nodes of those servers."""

from __future__ import annotations

import hashlib
import time
from typing import Any

from distributed import LocalCluster

from sweeper.embedded.nodes import NodeClass, NodeOutput, make_node_class

WORKERS = 3
TEMPLATE = {
    "1": {"class_type": "Paint", "inputs": {"seed": 0, "size": 64, "fail": "no"}},
    "2": {"class_type": "Keep", "inputs": {"images": ["1", 0], "filename_prefix": "sweep"}},
}
SLOTS = {
    "seed": {"at": "1.seed", "schema": {"type": "integer"}, "default": 0},
    "size": {"at": "1.size", "schema": {"type": "integer"}, "default": 64},
    "fail": {"at": "1.fail", "schema": {"type": "string"}, "default": "no"},
}


def _paint(context: Any, seed: int, size: int, fail: str) -> NodeOutput:
    time.sleep(0.01)  # so that several jobs are in flight when a process is killed
    if fail != "no":
        raise RuntimeError(fail)
    return NodeOutput(((hashlib.sha256(str(seed).encode()).digest(), size),))


def _keep(context: Any, images: tuple[bytes, int], filename_prefix: str) -> NodeOutput:
    import numpy as np
    from PIL import Image

    folder, _, name = filename_prefix.rpartition("/")
    path = context.output_dir / folder
    path.mkdir(parents=True, exist_ok=True)
    file = f"{name}_{len(list(path.glob(f'{name}_*'))) + 1:05}_.png"
    seed, size = images
    noise = np.random.default_rng(list(seed)).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path / file)
    return NodeOutput((), {"images": [{"filename": file, "subfolder": folder, "type": "output"}]})


def _node(name: str, required: dict[str, Any], outputs: tuple[str, ...], run: Any) -> NodeClass:
    record = {"input": {"required": required}, "output": list(outputs), "output_node": not outputs}
    return make_node_class(name, record, run)


INTEGER = ("INT", {"default": 0, "min": 0, "max": 2**63})
NODES = {
    node.name: node
    for node in (
        _node("Paint", {"seed": INTEGER, "size": INTEGER, "fail": ("STRING", {})}, ("IMAGE",), _paint),
        _node("Keep", {"images": ("IMAGE", {}), "filename_prefix": ("STRING", {"default": "ComfyUI"})}, (), _keep),
    )
}


class BesideServers(LocalCluster):
    """A LocalCluster whose n-th worker has the n-th server's URL in its environment."""

    def __init__(self, urls: list[str], **options: Any) -> None:
        self.urls = urls
        super().__init__(n_workers=0, threads_per_worker=2, processes=True, dashboard_address="127.0.0.1:0", **options)

    def new_worker_spec(self) -> dict[Any, dict[str, Any]]:
        specs = {}
        for name, spec in super().new_worker_spec().items():
            url = self.urls[int(name) % len(self.urls)]
            environ = {**spec["options"].get("env", {}), "SERVER_URL": url, "SWEEPER_WORKER_VARIABLES": "SERVER_URL"}
            specs[name] = {**spec, "options": {**spec["options"], "env": environ}}
        return specs
