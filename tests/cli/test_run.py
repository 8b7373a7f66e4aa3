"""`sweeper run`: its library calls, output and exit codes, with an embedded server."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import signal
import subprocess
import time
from decimal import Decimal
from pathlib import Path

import pytest

from sweeper.embedded import EmbeddedServer
from sweeper.embedded.nodes import NodeOutput, make_node_class
from sweeper.model.result import Run
from tests import ROOT
from tests.platforms import needs_signals
from tests.waiting import read_line

PAINT = {
    "1": {"class_type": "Paint", "inputs": {"seed": "{{ seed }}", "text": "{{ text | default('a fox') }}"}},
    "2": {"class_type": "Keep", "inputs": {"images": ["1", 0], "filename_prefix": "p"}},
}


def _paint(context, seed, text):
    return NodeOutput((hashlib.sha256(f"{seed}{text}".encode()).digest()[:3],))


def _keep(context, images, filename_prefix):
    from PIL import Image

    path = context.output_dir / f"{filename_prefix}_00001_.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), tuple(images)).save(path)
    where = path.relative_to(context.output_dir)
    folder = where.parent.as_posix()
    return NodeOutput((), {"images": [{"filename": where.name, "subfolder": folder, "type": "output"}]})


def _make_node(name, required, outputs, run):
    record = {"input": {"required": required}, "output": list(outputs), "output_node": not outputs}
    return make_node_class(name, record, run)


NODES = {
    "Paint": _make_node("Paint", {"seed": ("INT", {"max": 2**64 - 1}), "text": ("STRING", {})}, ("IMAGE",), _paint),
    "Keep": _make_node("Keep", {"images": ("IMAGE", {}), "filename_prefix": ("STRING", {})}, (), _keep),
}


@pytest.fixture(params=["comfyui", "cloud"])
def server(request):
    with EmbeddedServer(dialect=request.param, nodes=NODES) as server:
        yield server


@pytest.fixture
def sweep():
    """A function that writes `paint.yaml`, by default with seeds 0, 1 and 2."""

    def make(rest="sweep: {grid: {seed: [0, 1, 18446744073709551615]}}\n"):
        Path("t.json").write_text(json.dumps(PAINT))
        Path("paint.yaml").write_text(f"name: paint\ntemplate: t.json\n{rest}")
        return "paint.yaml"

    return make


def read_table(folder="results/paint"):
    return list(csv.DictReader(io.StringIO(Path(folder, "results.csv").read_bytes().decode(), newline="")))


def test_run_saves_pictures_and_second_run_submits_nothing(sweeper, server, sweep):
    experiment = sweep()

    first = sweeper("run", experiment, "--target", server.url, "--json")
    second = sweeper("run", experiment, "--target", server.url, "--json")

    assert first.code == second.code == 0
    assert first.json == {
        "run": 1, "out": str(Path("results/paint")), "trials": 3, "submitted": 3, "succeeded": 3, "failed": 0,
        "cancelled": 0, "pending": 0, "reused": 0, "kept": {}, "stopped_by": None, "error": None,
            "pictures": str(Path("results/paint/artifacts")), "report": None, "cost": None,
    }  # fmt: skip
    assert (second.json["submitted"], second.json["reused"], second.json["succeeded"]) == (0, 3, 3)
    assert "nothing to do: all 3 trials are already done" in second.err
    rows = read_table()
    assert [row["seed"] for row in rows] == ["0", "1", str(2**64 - 1)]
    for row in rows:
        (path,) = json.loads(row["outputs"])
        assert Path("results/paint", path).read_bytes().startswith(b"\x89PNG")


def test_results_name_what_is_missing_and_run_makes_it_again(sweeper, server, sweep):
    sweeper("run", sweep(), "--target", server.url)
    before = sweeper("results", "paint.yaml")
    gone = sorted(Path("results/paint/artifacts").iterdir())[1]
    gone.unlink()
    outcome = sweeper("results", "paint.yaml")
    command = f"sweeper run paint.yaml --out {Path('results/paint')}"
    assert "missing" not in before.err
    assert f"1 artifact is missing: artifacts/{gone.name}; `{command}` fetches what the server still has" in outcome.err
    assert outcome.out == before.out
    rows = sweeper("results", "results/paint", "--json").json
    assert [row.get("missing_files") for row in rows] == [None, [f"artifacts/{gone.name}"], None]
    for path in server.folders.output_dir.rglob("*.png"):
        path.unlink()
    assert "`--remake` submits their trials again" in sweeper("run", "paint.yaml", "--target", server.url).err
    assert sweeper("run", "paint.yaml", "--target", server.url, "--remake").code == 0
    assert "missing" not in sweeper("results", "paint.yaml").err


def test_summary_goes_to_stdout_and_progress_to_stderr(sweeper, server, sweep):
    outcome = sweeper("run", sweep(), "--target", server.url, "--out", "elsewhere")

    lines = outcome.out.splitlines()
    assert lines[0].split() == ["trials", "submitted", "reused", "succeeded", "failed", "cancelled", "pending"]
    assert lines[1].split() == ["3", "3", "0", "3", "0", "0", "0"]
    assert lines[-2].split() == ["table", str(Path("elsewhere/results.csv"))]
    assert lines[-1].split() == ["report", "sweeper", "report", "elsewhere"]
    assert "3/3: 3 done, 0 failed, 0 under way, 0 queued" in outcome.err


def test_quiet_prints_nothing_on_success(sweeper, server, sweep):
    outcome = sweeper("run", sweep(), "--target", server.url, "--quiet")

    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")


def test_failed_trial_exits_1_with_its_reason(sweeper, server, sweep):
    server.faults.fail_nodes = {"Paint"}
    server.faults.fail_message = "No colour is left."

    outcome = sweeper("run", sweep(), "--target", server.url, "--retries", "0")

    assert outcome.code == 1
    assert "failed: trial 0: " in outcome.err
    assert "No colour is left." in outcome.err
    assert "No colour is left." in outcome.out
    assert [row["status"] for row in read_table()] == ["failed"] * 3
    again = sweeper("run", "paint.yaml", "--target", server.url)
    assert "all 3 trials have ended: 0 succeeded, 3 failed; --retry-failed runs those again" in again.err


def test_where_limit_and_set_select_trials(sweeper, server, sweep):
    experiment = sweep()

    some = sweeper("run", experiment, "--target", server.url, "--where", "seed < 2", "--limit", "1", "--json").json
    other = sweeper(
        "run", experiment, "--target", server.url, "--set", "text=a lighthouse", "--set", "seed=7", "--json"
    ).json

    assert (some["submitted"], some["succeeded"], some["pending"]) == (1, 1, 2)
    assert (other["trials"], other["submitted"]) == (1, 1)
    assert [(row["seed"], row["text"]) for row in read_table()] == [("7", "a lighthouse")]


def test_unreachable_target_exits_3_and_writes_nothing(sweeper, sweep):
    outcome = sweeper("run", sweep(), "--target", "http://127.0.0.1:9", "--json")

    assert (outcome.code, outcome.out) == (3, "")
    assert "error: " in outcome.err
    assert not Path("results").exists()


def test_missing_key_exits_2_before_any_request(sweeper, sweep):
    outcome = sweeper("run", sweep(), "--target", "cloud")

    assert (outcome.code, outcome.out) == (2, "")
    assert "COMFY_CLOUD_API_KEY" in outcome.err
    assert not Path("results").exists()


def test_target_can_be_named_in_the_targets_file(sweeper, server, sweep, tmp_path):
    (tmp_path / "config/sweeper").mkdir(parents=True)
    (tmp_path / "config/sweeper/targets.yaml").write_text(f"mine: {server.url}\n")

    assert sweeper("run", sweep(), "--target", "mine", "--json").json["succeeded"] == 3
    assert {row["target"] for row in read_table()} == {"mine"}


def test_more_trials_than_max_trials_exits_2_and_writes_nothing(sweeper, sweep):
    outcome = sweeper("run", sweep(), "--max-trials", "2")

    assert (outcome.code, outcome.out) == (2, "")
    assert "the plan has 3 trials, more than max_trials allows (2)" in outcome.err
    assert not Path("results").exists()


def test_unimportable_metric_is_reported_before_any_request(sweeper, sweep):
    outcome = sweeper("run", sweep("params: {seed: 1}\nmetrics: [no_such_module:f]\n"), "--trust")

    assert outcome.code == 2
    assert outcome.err == (
        "error: metric 'no_such_module:f' cannot be imported: No module named 'no_such_module'; looked beside the "
        "experiment, in the current folder and among installed packages\n"
    )
    assert not Path("results").exists()


DEFAULTS = {
    "concurrency": None, "retries": None, "timeout": None, "patience": None, "max_trials": None, "max_failures": None,
    "fail_fast": False, "retry_failed": False, "retry_unknown": False, "fresh": False, "where": None, "limit": None,
    "check": True, "keep_temp": None, "remake": False, "budget": None, "session": None, "per_target": None,
    "keep_stale": False, "remake_stale": False, "allow_different_models": False, "notify": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], (None, None, {})),
        (["--target", "embedded"], (["embedded"], None, {})),
        (["-t", "a", "-t", "http://b:1"], (["a", "http://b:1"], None, {})),
        (["--out", "o"], (None, Path("o"), {})),
        (["--concurrency", "3", "--retries", "0"], (None, None, {"concurrency": 3, "retries": 0})),
        (["--timeout", "2.5", "--max-trials", "9"], (None, None, {"timeout": 2.5, "max_trials": 9})),
        (["--patience", "60"], (None, None, {"patience": 60.0})),
        (["--notify", "https://ntfy.sh/a"], (None, None, {"notify": "https://ntfy.sh/a"})),
        (["--budget", "20 USD"], (None, None, {"budget": Decimal(20)})),
        (["--budget", "0.5"], (None, None, {"budget": Decimal("0.5")})),
        (["--max-failures", "3"], (None, None, {"max_failures": 3})),
        (["--max-failures", "25%"], (None, None, {"max_failures": 0.25})),
        (["--fail-fast", "--fresh"], (None, None, {"fail_fast": True, "fresh": True})),
        (["--retry-failed", "--no-check"], (None, None, {"retry_failed": True, "check": False})),
        (["--retry-unknown"], (None, None, {"retry_unknown": True})),
        (["--per-target", "--keep-stale"], (None, None, {"per_target": True, "keep_stale": True})),
        (
            ["--remake-stale", "--allow-different-models"],
            (None, None, {"remake_stale": True, "allow_different_models": True}),
        ),
        (["--remake", "--keep-temp"], (None, None, {"remake": True, "keep_temp": True})),
        (["--where", "seed > 1", "--limit", "0"], (None, None, {"where": "seed > 1", "limit": 0})),
    ],
)
def test_every_option_reaches_the_library(sweeper, sweep, monkeypatch, arguments, expected):
    target, out, changes = expected
    calls = []

    def run(experiment, target, out, *, named, progress, **options):
        calls.append((experiment.name, target, out, named, options))
        return Run(1, Path("o"), 0, 0, 0, 0, 0, 0, 0)

    monkeypatch.setattr("sweeper.running.run.run", run)

    assert sweeper("run", sweep(), "--json", *arguments).code == 0
    assert calls == [("paint", target, out, {}, {**DEFAULTS, **changes})]
    for name, value in changes.items():
        assert type(calls[0][4][name]) is type(value)  # a count of 1 is not a share of 100%


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, 0),
        ({"pending": 3}, 0),
        ({"failed": 1}, 1),
        ({"cancelled": 1}, 1),
        ({"failed": 9, "stopped_by": "max_failures"}, 1),
        ({"stopped_by": "interrupt"}, 130),
        ({"failed": 1, "stopped_by": "interrupt"}, 130),
        ({"stopped_by": "refused", "error": "out of credits"}, 3),
        ({"stopped_by": "unreachable"}, 3),
        ({"succeeded": 5, "stopped_by": "unwritable"}, 1),
    ],
)
def test_exit_code_tells_how_the_run_ended(sweeper, sweep, monkeypatch, changes, code):
    facts = {"trials": 9, "submitted": 0, "succeeded": 0, "failed": 0, "cancelled": 0, "pending": 0, "reused": 0}
    monkeypatch.setattr("sweeper.running.run.run", lambda *_, **__: Run(1, Path("o"), **{**facts, **changes}))

    outcome = sweeper("run", sweep(), "--json")

    assert outcome.code == code
    assert outcome.json["stopped_by"] == changes.get("stopped_by")
    assert ("error: out of credits" in outcome.err) == ("error" in changes)


@pytest.mark.parametrize("presses", [1, 2])
@needs_signals
def test_ctrl_c_waits_then_cancels_and_keeps_every_row(python, sweep, presses):
    sweep("sweep: {grid: {seed: {from: 0, to: 19, step: 1}}}\n")
    with EmbeddedServer(dialect="comfyui", nodes=NODES) as server:
        server.faults.node_seconds = 0.2
        if presses == 2:
            server.faults.stall_nodes = {"Paint"}
        command = [python, "-m", "sweeper", "run", "paint.yaml", "--target", server.url, "--json"]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
            lines = [read_line(process.stderr)]
            while "trials to do" not in lines[-1]:
                lines.append(read_line(process.stderr))
            while not server.seen.accepted and process.poll() is None:
                time.sleep(0.01)
            for _ in range(presses):
                process.send_signal(signal.SIGINT)
                lines.append(read_line(process.stderr))
            out, err = process.communicate(timeout=30)

    assert process.returncode == 130
    assert "Traceback" not in "".join([*lines, err])
    assert any(line.startswith("interrupted: submitting no more, waiting for ") for line in lines)
    ended = json.loads(out)
    assert ended["stopped_by"] == "interrupt"
    assert ended["trials"] == 20 == sum(ended[name] for name in ("succeeded", "failed", "cancelled", "pending"))
    assert ended["pending"] > 0
    assert (ended["succeeded"] == 0) == (presses == 2)
    assert len(read_table()) == 20
