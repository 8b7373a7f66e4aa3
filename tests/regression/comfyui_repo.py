"""A Git repository that looks like ComfyUI's: each commit is a `main.py` that serves our embedded server.

`version.py` of a commit raises an exception, or says what its pictures are like: `CFG`, if not None, takes the place of
that of a KSampler with one of the `STEPS`. `starts.log` in the folder of the repository has the commit of each start.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests import ROOT

MAIN = f"import sys\nsys.path[:0] = [{str(ROOT)!r}]\nfrom tests.regression.comfyui_repo import serve\nserve()\n"
BROKEN = "raise ModuleNotFoundError(\"No module named 'comfy_new'\")"
_ADA = {"NAME": "Ada", "EMAIL": "ada@example.com", "DATE": "2026-01-02T03:04:05Z"}
_AUTHOR = {f"GIT_{who}_{what}": text for who in ("AUTHOR", "COMMITTER") for what, text in _ADA.items()}


class ComfyUIRepo:
    """The repository in `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "--quiet", "--initial-branch", "master")
        (path / "main.py").write_text(MAIN)
        (path / ".gitignore").write_text("/models\n/user\n/input\nstarts.log\n")
        (path / "models").mkdir()

    def git(self, *words: str) -> str:
        command = ["git", "-C", str(self.path), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **_AUTHOR}).stdout

    def commit(self, subject: str, version: str = "CFG = None", tag: str = "") -> str:
        """Commit a version; returns its hash."""
        (self.path / "version.py").write_text(f"STEPS = (3, 5)\n{version}\n# {subject}\n")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", subject)
        if tag:
            self.git("tag", tag)
        return self.git("rev-parse", "HEAD").strip()

    @property
    def starts(self) -> list[str]:
        """The commits that were started, in order."""
        log = self.path / "starts.log"
        return log.read_text().split() if log.exists() else []

    def read_all(self) -> dict[str, bytes]:
        """Every file in the folder but the log of starts, also Git's own."""
        files = (file for file in self.path.rglob("*") if file.is_file() and file.name != "starts.log")
        return {str(file.relative_to(self.path)): file.read_bytes() for file in files}


def serve() -> None:
    """What `main.py` does, in the folder of the version."""
    options = dict(zip(sys.argv[1:], sys.argv[2:], strict=False))
    with Path(options["--base-directory"], "starts.log").open("a") as file:
        file.write(f"{os.environ['SWEEPER_COMFYUI_COMMIT']}\n")
    assert Path(options["--user-directory"]).is_dir()
    sys.path[:0] = [os.getcwd()]  # noqa: PTH109
    import version  # type: ignore[import-not-found]

    from sweeper.embedded import EmbeddedServer, app_comfyui
    from tests.few_classes import pick_classes

    app_comfyui.CommonRoutes._build_argv = lambda _: sys.argv
    nodes = pick_classes()
    sampler = nodes["KSampler"]

    def run(context: Any, **inputs: Any) -> Any:
        is_changed = version.CFG is not None and inputs["steps"] in version.STEPS
        return sampler.run(context, **inputs | ({"cfg": version.CFG} if is_changed else {}))

    nodes["KSampler"] = replace(sampler, run=run)
    with EmbeddedServer("comfyui", port=int(options["--port"]), data=options["--output-directory"], nodes=nodes):
        threading.Event().wait()
