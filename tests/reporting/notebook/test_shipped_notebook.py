"""`experiments/notebook.ipynb` runs in a Jupyter kernel as it stands, and git has it without outputs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

from tests import ROOT

NOTEBOOK = ROOT / "experiments/notebook.ipynb"


def test_the_notebook_is_stored_without_outputs():
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert [cell["source"] for cell in code if cell["outputs"] or cell["execution_count"] is not None] == []


def test_the_notebook_runs_and_shows_bar_thumbnails_and_page(tmp_path):
    for folder in ("templates", "experiments"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("results", "baselines"))
    quickstart = tmp_path / "experiments/quickstart.yaml"
    quickstart.write_text(quickstart.read_text("utf-8").replace("384", "64"), encoding="utf-8")
    notebook = tmp_path / "experiments/notebook.ipynb"
    execute = "from nbclient.cli import main; main()"  # the command `jupyter execute`
    command = [sys.executable, "-c", execute, "--timeout=80", "--inplace", str(notebook)]
    environ = os.environ | {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path), "JUPYTER_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False, timeout=110)
    assert done.returncode == 0, done.stderr

    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    plan, run, table, means, effects, page, some = [
        ["".join(output["data"].get("text/html", output["data"]["text/plain"])) for output in cell["outputs"]]
        for cell in cells
        if cell["cell_type"] == "code"
    ]
    assert "= 2 x 3 x 2" in plan[0]
    bar, summary = run
    assert '<progress value="12" max="12"' in bar
    assert "succeeded" in summary
    assert summary.count("<img") == 12
    assert table[0].count("<img") == 4
    assert "sharpness" in means[0]
    assert "steps" in effects[0]
    assert [one.startswith("<iframe srcdoc='") for one in (*page, *some)] == [True, True]
    assert (tmp_path / "experiments/results/notebook/notebook/index.html").is_file()
