"""A run in a real marimo shows its bar in its cell; skipped without marimo, which no extra installs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests import ROOT

pytest.importorskip("marimo")

NOTEBOOK = """
import marimo

app = marimo.App()


@app.cell
def _():
    import sweeper

    run = sweeper.run("mine.yaml", target="embedded")
    return run, sweeper


@app.cell
def _(run, sweeper):
    sweeper.show(run)
    return
"""


def test_marimo_shows_the_bar_and_the_page(tmp_path):
    (tmp_path / "notebook.py").write_text(NOTEBOOK)
    (tmp_path / "mine.yaml").write_text(
        f"template: {ROOT / 'templates/txt2img.json'}\nparams: {{width: 64, height: 64, steps: 1}}\n"
        "sweep: {grid: {seed: [1, 2, 3]}}\n"
    )
    command = [sys.executable, "-m", "marimo", "-y", "export", "html", "notebook.py", "-o", "out.html"]
    environ = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environ, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out.html").read_text("utf-8")
    assert "3/3: 3 done, 0 failed, 0 under way, 0 queued" in text
    assert "<iframe srcdoc=" in text.replace("\\u003C", "<").replace("\\u003c", "<")
