"""For every test: no key, no named target and no cache of whoever runs it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# These choose tests, and the server that they meet.
_CHOOSING = ("SWEEPER_OBJECT_INFO", "SWEEPER_SCHEDULES", "SWEEPER_REAL_COMFYUI", "SWEEPER_REAL_RESTART")
_FOREIGN = ("COMFY_CLOUD_API_KEY", "DASK_SCHEDULER_ADDRESS", "NO_COLOR", "FORCE_COLOR")


@pytest.fixture(autouse=True, scope="session")
def _own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    home: Path = tmp_path_factory.mktemp("home")
    before = dict(os.environ)
    for name in [*_FOREIGN, *(name for name in os.environ if name.startswith("SWEEPER_"))]:
        if name not in _CHOOSING:
            os.environ.pop(name, None)
    os.environ["XDG_CACHE_HOME"] = str(home / "cache")
    os.environ["XDG_CONFIG_HOME"] = str(home / "config")
    yield
    os.environ.clear()
    os.environ.update(before)
