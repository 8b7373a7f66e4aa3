"""A run on a simulated Windows: its lock, its stop by Ctrl-Break, its table and its messages."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.waiting import read_line

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="simulates Windows on POSIX")

COMMAND = [sys.executable, str(Path(__file__).with_name("simulated_windows.py"))]
EXPERIMENT = """\
template: TEMPLATE
params: {width: 64, height: 64, steps: 1, prompt: a fox}
target: embedded
sweep: {grid: {seed: {from: 1, to: 500, step: 1}}}
"""


def start(*arguments, **environment):
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([*COMMAND, *arguments], **pipes, text=True, env=env)


def test_a_run_locks_its_folder_and_ctrl_break_stops_it():
    template = json.dumps(str(ROOT / "templates/txt2img.json"))
    Path("my sweep.yaml").write_text(EXPERIMENT.replace("TEMPLATE", template))
    # The second one imports what it needs meanwhile, because the first makes pictures until the second has ended.
    with start("run", "my sweep.yaml", "--trust") as run, start("run", "my sweep.yaml", "--trust", HELD="1") as second:
        while "done" not in read_line(run.stderr):
            pass
        _, refusal = second.communicate("\n", timeout=60)
        run.send_signal(signal.SIGUSR1)
        out, err = run.communicate(timeout=60)
    assert second.returncode == 2
    assert f"another run is using this results folder (process {run.pid} on " in refusal
    assert run.returncode == 130
    assert "interrupted: submitting no more, waiting for " in err
    assert 'sweeper report "my sweep.yaml"' in out

    with Path("results/my-sweep/results.csv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    assert len(rows) == 500
    assert {row["status"] for row in rows} == {"succeeded", "pending"}
