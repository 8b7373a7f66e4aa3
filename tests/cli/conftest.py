"""Fixtures that run the command line in an empty folder and return its exit code and both streams."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sweeper.cli import main
from sweeper.store import Store
from sweeper.store.records import Artifact, JobEnd, JobRecord, TableLayout
from tests import ROOT
from tests.cli.forked_commands import forked_commands

__all__ = ["forked_commands"]  # a fixture


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def _an_empty_folder_and_a_clean_environment(tmp_path, monkeypatch):
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in list(os.environ):
        if name.startswith(("SWEEPER_", "COMFY_")) or name in ("NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("WIN_PD_OVERRIDE_LOCAL_APPDATA", str(tmp_path / "config"))
    monkeypatch.setenv("SWEEPER_TRUST_FILE", str(tmp_path / "trusted.json"))


@pytest.fixture
def sweeper(capsys):
    """A function that runs one command line in this process."""

    def run(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        streams = capsys.readouterr()
        return Outcome(code, streams.out, streams.err)

    return run


@pytest.fixture
def process(python):
    """A function that runs one command line in a new process."""

    def run(*arguments, program=python, **options):
        command = [program, "-m", "sweeper", *map(str, arguments)]
        root = str(ROOT)
        env = {**os.environ, "PYTHONPATH": root, "PYTHONIOENCODING": "utf-8", **options.pop("env", {})}
        done = subprocess.run(command, capture_output=True, env=env, timeout=60, check=False, **options)
        return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


SEED = 2**64 - 1


@pytest.fixture
def recorded():
    """A results folder made without a server: one run with one trial of each status."""
    out = Path("results/shop")
    layout = TableLayout("shop", ("style", "seed"), ("prompt", "seed"), ("brightness",))
    styles = ["oil", "ink", "wash", "oil"]
    rows = [
        (
            index,
            f"{index}" * 64,
            {"prompt": f"a fox, {style}", "seed": SEED - index},
            {"style": style, "seed": SEED - index},
        )
        for index, style in enumerate(styles)
    ]
    with Store.open(out) as store:
        with store.transaction():
            run = store.create_run(layout, file="shop.yaml", targets=["embedded"], now=1_000_000.0)
            store.add_trials(run, rows)
        ends = [
            ("succeeded", None, [Artifact("9", "images", 0, "artifacts/a.png", "f" * 64, 10, "a.png")]),
            ("failed", ("ExecutionError", "node 3 (KSampler): out of\nideas"), []),
            ("cancelled", None, []),
        ]
        for index, (state, error, artifacts) in enumerate(ends):
            store.record_intent(
                JobRecord(f"job{index}", run, "embedded", f"{index}" * 64, "s" * 64, 1, f"p{index}", "intent", 1.0)
            )
            store.record_submitted(f"job{index}", f"p{index}", 1.0)
            store.record_finished(
                f"job{index}", JobEnd(state, started=2.0, ended=2.5, error=error, artifacts=artifacts)
            )
        store.cache_metrics([("f" * 64, "brightness", 127.5)])
        store.end_run(run, now=1_000_060.0, stopped_by=None)
    return out


TXT2IMG = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 5, "steps": 4, "cfg": 8.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
            "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "x.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["4", 1]}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "p", "images": ["8", 0]}},
}  # fmt: skip

SLOTS = """\
slots:
  prompt: {at: "6.text", schema: {type: string, minLength: 1}}
  seed: {at: "3.seed", schema: {type: integer, minimum: 0}}
  steps: {at: "3.steps", schema: {type: integer, minimum: 1, maximum: 100}}
  cfg: {at: "3.cfg", schema: {type: number}}
"""


@pytest.fixture
def write():
    """A function that writes an experiment `shop.yaml` beside a small template."""

    def make(text, name="shop.yaml"):
        Path("t.json").write_text(json.dumps(TXT2IMG))
        Path("t.slots.yaml").write_text(SLOTS)
        Path(name).write_text(text, encoding="utf-8")
        return name

    return make


@pytest.fixture
def stranger():
    """A server that keeps everything that it receives."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            length = int(self.headers.get("Content-Length") or 0)
            seen.append(f"{self.command} {self.path}\n{self.headers}\n{self.rfile.read(length)!r}")
            self.send_response(404)
            self.end_headers()

        do_POST = do_HEAD = do_GET  # noqa: N815 - the names that http.server calls

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    server.url, server.seen = f"http://127.0.0.1:{server.server_port}", seen
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
