"""pytest in a process of its own, as a project meets the plugin."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_pytest(folder, *arguments):
    installed = any(one.value == "sweeper.pytest_plugin" for one in entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "sweeper.pytest_plugin"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *plugin, "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
