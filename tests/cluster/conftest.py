"""A LocalCluster of worker processes, each beside a server of its own, and experiments over small nodes.

The servers live in the test's process, so they outlive any worker that is killed, and their counts can be asked for.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("distributed", reason="the extra `dask` is not installed")

from distributed import LocalCluster

import sweeper
from sweeper.embedded import EmbeddedServer
from sweeper.embedded.nodes.base import NodeClass, NodeOutput

WORKERS = 3
TARGET = {"worker": "${SERVER_URL}", "name": "fleet"}
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
    time.sleep(0.01)  # so that several are in flight when something dies
    if fail != "no":
        raise RuntimeError(fail)
    return NodeOutput(((hashlib.sha256(str(seed).encode()).digest(), size),))


def _keep(context: Any, images: tuple[bytes, int], filename_prefix: str) -> NodeOutput:
    import numpy as np
    from PIL import Image

    folder, _, name = filename_prefix.rpartition("/")
    place = context.output_dir / folder
    place.mkdir(parents=True, exist_ok=True)
    file = f"{name}_{len(list(place.glob(f'{name}_*'))) + 1:05}_.png"
    seed, size = images
    noise = np.random.default_rng(list(seed)).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(place / file)
    return NodeOutput((), {"images": [{"filename": file, "subfolder": folder, "type": "output"}]})


def _node(name: str, required: dict[str, Any], outputs: tuple[str, ...], run: Any) -> NodeClass:
    return NodeClass(
        name=name, display_name=name, category="tests", description="", required=required, optional={}, hidden={},
        outputs=outputs, output_names=outputs, output_node=not outputs, run=run,
    )  # fmt: skip


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
        super().__init__(n_workers=0, threads_per_worker=1, processes=True, dashboard_address=None, **options)

    def new_worker_spec(self) -> dict[Any, dict[str, Any]]:
        found = {}
        for name, spec in super().new_worker_spec().items():
            url = self.urls[int(name) % len(self.urls)]
            environ = {**spec["options"].get("env", {}), "SERVER_URL": url}
            found[name] = {**spec, "options": {**spec["options"], "env": environ}}
        return found


@pytest.fixture(scope="module")
def servers() -> Iterator[list[EmbeddedServer]]:
    """One ComfyUI per worker: it takes our prompt ids, runs one job at a time and outlives its worker."""
    started = [EmbeddedServer(dialect="comfyui", nodes=NODES).start() for _ in range(WORKERS)]
    yield started
    for server in started:
        server.stop()


@pytest.fixture(scope="module")
def cluster(servers: list[EmbeddedServer]) -> Iterator[BesideServers]:
    with BesideServers([server.url for server in servers], silence_logs=50) as cluster:
        cluster.scale(WORKERS)
        cluster.wait_for_workers(WORKERS)
        yield cluster


@pytest.fixture
def executions(servers: list[EmbeddedServer]) -> Callable[[], list[int]]:
    """How often each job ran since the test began, over all servers: a trial that ran twice is one more entry."""
    before = [set(server.seen.executions) for server in servers]

    def counts() -> list[int]:
        return [
            times
            for server, known in zip(servers, before, strict=True)
            for job, times in server.seen.executions.items()
            if job not in known
        ]

    return counts


@pytest.fixture
def experiment(tmp_path: Path) -> Callable[..., Any]:
    """Makes an experiment over the probe nodes: `experiment(seed=[1, 2], run={...})`; its seeds are this test's own."""
    offset = int(hashlib.sha256(str(tmp_path).encode()).hexdigest()[:8], 16)

    def make(
        *, run: dict[str, Any] | None = None, metrics: tuple[str, ...] = (), target: Any = TARGET, **axes: list[Any]
    ) -> Any:
        folder = tmp_path / "project"
        folder.mkdir(exist_ok=True)
        (folder / "template.json").write_text(json.dumps(TEMPLATE))
        (folder / "template.slots.yaml").write_text(json.dumps({"slots": SLOTS}))
        if "seed" in axes:
            axes["seed"] = [offset + seed for seed in axes["seed"]]
        body = {
            "name": "probe",
            "template": "template.json",
            "target": target,
            "sweep": {"grid": axes},
            "run": {"retries": 3, **(run or {})},
            **({"metrics": list(metrics)} if metrics else {}),
        }
        (folder / "experiment.yaml").write_text(json.dumps(body))
        return sweeper.load(folder / "experiment.yaml")

    return make
