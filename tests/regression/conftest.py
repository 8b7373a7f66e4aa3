"""Fixtures: a small experiment in its own folder for the embedded server, and the command line in this process."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import sweeper
from sweeper.cli import main

TEMPLATE: dict[str, Any] = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": "{{ seed }}", "steps": "{{ steps }}", "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal",
            "denoise": 1.0, "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "x.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["4", 1]}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "p", "images": ["8", 0]}},
}  # fmt: skip


@dataclass(frozen=True)
class Shop:
    """The experiment `shop.yaml` and its template, which tests rewrite."""

    folder: Path
    file: Path

    def write(self, *, steps: tuple[Any, ...] = (3, 5), **more: Any) -> None:
        value = {"template": "shop.json", "sweep": {"grid": {"steps": list(steps), "seed": [1]}}, **more}
        self.file.write_text(json.dumps(value))

    def rewire(self, **inputs: Any) -> None:
        """Write the template with other values of its KSampler."""
        graph = json.loads(json.dumps(TEMPLATE))
        graph["3"]["inputs"] |= inputs
        (self.folder / "shop.json").write_text(json.dumps(graph))


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.chdir(tmp_path)
    return _write_shop(tmp_path)


def _write_shop(folder: Path) -> Shop:
    found = Shop(folder, Path("shop.yaml"))
    found.rewire()
    found.write()
    return found


@pytest.fixture(scope="session")
def _accepted_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run, whose pictures are accepted."""
    folder: Path = tmp_path_factory.mktemp("accepted")
    with contextlib.chdir(folder):
        sweeper.run(_write_shop(folder).file)
        sweeper.accept("results/shop")
    return folder


@pytest.fixture
def accepted(shop: Shop, _accepted_folder: Path) -> None:
    """The shop has `results/shop`, and its baseline. A run of its own would take a tenth of a second."""
    for name in ("results", "baselines"):
        shutil.copytree(_accepted_folder / name, shop.folder / name)


@pytest.fixture
def start(python: str) -> tuple[str, ...]:
    """The options of the command line that start a version of a `ComfyUIRepo`."""
    return ("--launch", "{gpus: cpu}", "--python", python)


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]):
    def run(*arguments: Any) -> Outcome:
        capsys.readouterr()
        code = main([os.fspath(argument) for argument in arguments])
        streams = capsys.readouterr()
        return Outcome(code, streams.out, streams.err)

    return run
