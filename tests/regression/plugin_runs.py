"""Run pytest with the plugin: in this process, which avoids the imports, or in a separate one."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import entry_points

import pytest

from tests import ROOT


@dataclass(frozen=True)
class PytestOutcome:
    returncode: int
    stdout: str


def run_pytest(folder, *arguments):
    """Run pytest in this process. Test modules are imported anew each time, because tests rewrite them."""
    text = io.StringIO()
    importlib.invalidate_caches()
    # A base folder of its own, because pytest would clean up the folders of other runs, and leave a scan of them open.
    own = ["--capture=sys", "--import-mode=importlib", f"--rootdir={folder}", f"--basetemp={folder / '.temp'}"]
    own += ["-p", "no:unraisableexception"]  # it collects the garbage of this process ten times, whose pytest has it
    try:
        with contextlib.chdir(folder), contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            code = pytest.main([*_plugin(), *own, *map(str, arguments)])
    finally:
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(f"{folder}{os.sep}"):
                del sys.modules[name]
    return PytestOutcome(int(code), text.getvalue())


def start_pytest(folder, *arguments):
    """Run pytest in a separate process."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", *_plugin(), *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def _plugin():
    installed = any(one.value == "sweeper.pytest_plugin" for one in entry_points(group="pytest11"))
    return [*([] if installed else ["-p", "sweeper.pytest_plugin"]), "-p", "no:cacheprovider"]
