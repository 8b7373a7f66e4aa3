"""A LocalCluster of worker processes, each with its own server, and experiments that use small nodes.

The servers run in the test's process, so they outlive a killed worker and tests can read their counters.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from multiprocessing import forkserver
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import sweeper
from sweeper.embedded import EmbeddedServer

if TYPE_CHECKING:
    from tests.cluster.probes import BesideServers

# Otherwise each process of Dask looks at itself up to fifty times a second, all the time.
os.environ |= {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__WORKER__MEMORY__MONITOR_INTERVAL": "5s",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "5s",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "1s",
}

_METHOD = "distributed.worker.multiprocessing-method"
TARGET = {"worker": "${SERVER_URL}", "name": "fleet"}


# What a worker imports, which takes more than a second.
_MODULES = (
    "distributed.nanny", "sweeper.cluster.worker_plugin", "sweeper.embedded.embedded_server",
    "sweeper.images.metrics.measure", "tests.cluster.killable_driver", "tests.cluster.probes",
)  # fmt: skip


@pytest.fixture(scope="package", autouse=True)
def _forked_workers() -> Iterator[None]:
    """Fork the workers from one process that has imported what they need, where that is safe."""
    if sys.platform != "linux" or find_spec("distributed") is None:
        yield
        return
    import dask
    import distributed.utils

    multiprocessing.set_forkserver_preload(list(_MODULES))
    with pytest.MonkeyPatch.context() as patch, dask.config.set({_METHOD: "forkserver"}):
        patch.setattr(distributed.utils, "_forkserver_preload_set", True)  # Dask would import pandas
        yield
    forkserver._forkserver._stop()


@pytest.fixture(scope="package")  # a cluster takes 5 s of the processor to start
def servers() -> Iterator[list[EmbeddedServer]]:
    """One ComfyUI per worker. It accepts our prompt ids, runs one job at a time, and outlives its worker."""
    from tests.cluster.probes import NODES, WORKERS

    started = [EmbeddedServer(dialect="comfyui", nodes=NODES).start() for _ in range(WORKERS)]
    yield started
    for server in started:
        server.stop()


@pytest.fixture(scope="package")
def cluster(servers: list[EmbeddedServer]) -> Iterator[BesideServers]:
    from tests.cluster.probes import WORKERS, BesideServers

    with BesideServers([server.url for server in servers], silence_logs=50) as cluster:
        cluster.scale(WORKERS)
        cluster.wait_for_workers(WORKERS)
        yield cluster


@pytest.fixture
def executions(servers: list[EmbeddedServer]) -> Callable[[], list[int]]:
    """How often each job ran since the test began, on all servers. A trial that ran twice adds an entry."""
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
    """Makes experiments that use the probe nodes: `experiment(seed=[1, 2], run={...})`. Each test has its own seeds."""
    from tests.cluster.probes import SLOTS, TEMPLATE

    offset = int(hashlib.sha256(str(tmp_path).encode()).hexdigest()[:8], 16)

    def make(
        *, run: dict[str, Any] | None = None, metrics: tuple[str, ...] = (), target: Any = TARGET, **axes: list[Any]
    ) -> Any:
        folder = tmp_path / "project"
        folder.mkdir(exist_ok=True)
        (tmp_path / "pyproject.toml").touch()  # one project with its results
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
