"""An embedded server with small nodes of its own, and experiments over them, for the runner's tests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import sweeper
from sweeper.comfy import jobs_api
from sweeper.embedded import EmbeddedServer
from sweeper.embedded.nodes import NodeClass, NodeOutput, make_node_class
from tests.running.run_processes import Runners
from tests.running.servers import DIALECTS, REAL, WITH_UPLOAD, colour
from tests.running.servers import TEMPLATE as COLOURED

TEMPLATE = {
    "1": {"class_type": "Paint", "inputs": {"text": "{{ text }}", "seed": "{{ seed }}"}},
    "2": {"class_type": "Keep", "inputs": {"images": ["1", 0], "filename_prefix": "sweep"}},
}


def paint(context: Any, text: str, seed: int) -> NodeOutput:
    context.progress(1, 1)
    return NodeOutput((hashlib.sha256(f"{text}/{seed}".encode()).digest()[:3],))


def _keep(context: Any, images: bytes, filename_prefix: str) -> NodeOutput:
    from PIL import Image

    folder, _, name = filename_prefix.rpartition("/")
    path = context.output_dir / folder
    path.mkdir(parents=True, exist_ok=True)
    number = len(list(path.glob(f"{name}_*"))) + 1
    file = f"{name}_{number:05}_.png"
    Image.new("RGB", (64, 64), tuple(images)).save(path / file)
    return NodeOutput((), {"images": [{"filename": file, "subfolder": folder, "type": "output"}]})


def make_node(name: str, required: dict[str, Any], outputs: tuple[str, ...], run: Any) -> NodeClass:
    record = {"input": {"required": required}, "output": list(outputs), "output_node": not outputs}
    return make_node_class(name, record, run)


NODES = {
    node.name: node
    for node in (
        make_node(
            "Paint",
            {"text": ("STRING", {}), "seed": ("INT", {"default": 0, "min": 0, "max": 2**64 - 1})},
            ("IMAGE",),
            paint,
        ),
        make_node("Keep", {"images": ("IMAGE", {}), "filename_prefix": ("STRING", {"default": "ComfyUI"})}, (), _keep),
    )
}


@pytest.fixture(autouse=True)
def short_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that lacks a job is believed after a moment, because the lists of our server do not lag by default."""
    monkeypatch.setattr(jobs_api, "LIST_LAG", 0.3)


@pytest.fixture(scope="session")
def runners(python: str) -> Iterator[Runners]:
    """Starts runs that are killed or interrupted."""
    with Runners(python) as found:
        yield found


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(dialect: str) -> Iterator[EmbeddedServer]:
    if REAL:
        pytest.skip("this test needs nodes and faults that only our server has")
    with EmbeddedServer(dialect=dialect, nodes=NODES) as server:  # type: ignore[arg-type]
        server.faults.retry_after = 0.0
        yield server


@pytest.fixture
def experiment(tmp_path: Path) -> Callable[..., Any]:
    """Makes an experiment over the probe nodes: `experiment(seed=[1, 2], text=["a"], run={...})`."""

    def make(
        *,
        run: dict[str, Any] | None = None,
        name: str = "probe",
        metrics: tuple[str, ...] = (),
        **axes: list[Any],
    ) -> Any:
        folder = tmp_path / "project"
        folder.mkdir(exist_ok=True)
        (folder / "template.json").write_text(json.dumps(TEMPLATE))
        body = {
            "name": name,
            "template": "template.json",
            "params": {name: value for name, value in {"text": "a fox", "seed": 0}.items() if name not in axes},
            "sweep": {"grid": axes},
            "run": {"retries": 2, **(run or {})},
            **({"metrics": list(metrics)} if metrics else {}),
        }
        file = folder / "experiment.yaml"
        file.write_text(json.dumps(body))
        return sweeper.load(file)

    return make


@pytest.fixture
def coloured(tmp_path: Path) -> Callable[..., Any]:
    """Makes an experiment of core nodes only, which a real ComfyUI has too: `coloured(3)` has three trials."""

    def make(
        trials: int, *, upload: bool = False, template: dict[str, Any] = COLOURED, run: dict[str, Any] | None = None
    ) -> Any:
        from PIL import Image

        folder = tmp_path / "coloured"
        folder.mkdir(exist_ok=True)
        (folder / "template.json").write_text(json.dumps(WITH_UPLOAD if upload else template))
        body: dict[str, Any] = {
            # A name of its own: a real server keeps the files of every earlier test.
            "name": f"coloured-{uuid4().hex[:8]}",
            "template": "template.json",
            "sweep": {"grid": {"color": [colour(trial) for trial in range(trials)]}},
            "run": {"retries": 10, **(run or {})},
        }
        if upload:
            Image.new("RGB", (8, 8), (1, 2, 3)).save(folder / "photo.png")
            (folder / "template.slots.yaml").write_text(
                json.dumps({"slots": {"photo": {"at": "3.image", "kind": "file"}}})
            )
            body["params"] = {"photo": "photo.png"}
        (folder / "experiment.yaml").write_text(json.dumps(body))
        return sweeper.load(folder / "experiment.yaml")

    return make


@pytest.fixture
def target(server: EmbeddedServer, dialect: str) -> dict[str, Any]:
    return {"url": server.url, "dialect": dialect, "name": "probe-server", "concurrency": 3}
