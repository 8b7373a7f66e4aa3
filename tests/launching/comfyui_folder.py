"""A folder that looks like a ComfyUI: its main.py serves our embedded server, and does what `behaviour.json` says.

- `fail`: an exception's text, at the start; `late`: seconds before it answers; `faults`: of the server
- `signals`: by the colour of an EmptyImage, the number of the signal that its process sends itself when it executes it
- `seconds`: that each EmptyImage takes, or some by their colours; `megabytes`: that each takes and keeps
- `models`: its model files, as `folder/name`

Each start and each executed colour is a line in `log.txt`, with the number of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests import ROOT

MAIN = f"import sys\nsys.path[:0] = [{str(ROOT)!r}]\nfrom tests.launching.comfyui_folder import serve\nserve()\n"


class ComfyUIFolder:
    """`python` starts it: the fixture of that name, or Python where a test looks at the process itself."""

    def __init__(self, path: Path, python: str = sys.executable, **behaviour: Any) -> None:
        self.path, self.python = path, python
        path.mkdir(parents=True, exist_ok=True)
        (path / "main.py").write_text(MAIN)
        self.behave(**behaviour)

    def behave(self, **behaviour: Any) -> None:
        (self.path / "behaviour.json").write_text(json.dumps(behaviour))

    def target(self, **settings: Any) -> dict[str, Any]:
        return {"launch": str(self.path), "python": self.python, "gpus": "cpu", "name": "mine", **settings}

    @property
    def lines(self) -> list[list[str]]:
        """The words of each line of the log: pid, and `starts`, or the colour that it executed."""
        log = self.path / "log.txt"
        return [line.split() for line in log.read_text().splitlines()] if log.exists() else []

    @property
    def pids(self) -> list[int]:
        """The process of each start, in order."""
        return [int(pid) for pid, word, *_ in self.lines if word == "starts"]

    @property
    def colours(self) -> list[int]:
        """The colours that were executed, in order."""
        return [int(word) for _, word, *_ in self.lines if word != "starts"]


def serve() -> None:
    parser = argparse.ArgumentParser()
    directories = ("--output-directory", "--temp-directory", "--base-directory")
    for name in ("--listen", "--port", *directories, "--database-url", "--cuda-device"):
        parser.add_argument(name)
    for name in ("--cpu", "--disable-auto-launch"):
        parser.add_argument(name, action="store_true")
    arguments = parser.parse_args()
    behaviour = json.loads(Path("behaviour.json").read_text())
    _write("starts", arguments.cuda_device or "cpu")
    time.sleep(behaviour.get("late", 0))
    if "fail" in behaviour:
        raise ModuleNotFoundError(behaviour["fail"])
    from sweeper.embedded import EmbeddedServer, app_comfyui
    from tests.few_classes import pick_classes
    from tests.running.studio import make_file

    app_comfyui.CommonRoutes._build_argv = lambda _: sys.argv
    nodes = pick_classes("LoraLoader")
    empty, held = nodes["EmptyImage"], []

    def run(context: Any, **inputs: Any) -> Any:
        _write(inputs["color"])
        seconds = behaviour.get("seconds", 0)
        time.sleep(seconds.get(str(inputs["color"]), 0) if isinstance(seconds, dict) else seconds)
        held.append(b"x" * behaviour.get("megabytes", 0) * 2**20)
        number = behaviour.get("signals", {}).get(str(inputs["color"]))
        if number is not None:
            os.kill(os.getpid(), number)
            time.sleep(60)
        return empty.run(context, **inputs)

    nodes["EmptyImage"] = replace(empty, run=run)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    options = {"data": arguments.output_directory, "nodes": nodes, "strict_models": True}
    with EmbeddedServer("comfyui", port=int(arguments.port), **options) as server:
        for name in behaviour.get("models", ()):
            path = server.folders.base / "models" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(make_file({"format": "pt"}))
        for name, value in behaviour.get("faults", {}).items():
            setattr(server.faults, name, value)
        print("To see the GUI go to: http://127.0.0.1", flush=True)  # noqa: T201 (as ComfyUI)
        threading.Event().wait()


def _write(*words: object) -> None:
    with Path("log.txt").open("a") as file:
        file.write(" ".join(map(str, (os.getpid(), *words))) + "\n")
