"""For every test: no key, no named target and no cache of whoever runs it. And a browser for the tests of pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
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


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium is installed (apt-get install chromium, or set CHROMIUM)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, which drives chromium")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield found
        found.close()
