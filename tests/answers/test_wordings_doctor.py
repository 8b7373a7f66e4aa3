"""What `sweeper doctor` and `sweeper validate` find keeps its approved words."""

from __future__ import annotations

from sweeper.cli.load_prepared import FileReport
from sweeper.errors import Problem
from sweeper.running.diagnosis import Diagnosis, ExperimentReport, TargetReport
from tests.answers.approved import check_approved

GOOD = TargetReport(
    "lab", True, "http://lab:8188", "from LAB_KEY", "sweeper sends its key unencrypted", "comfyui", "0.33.0", "classic",
    100 * 2**20, experiment=ExperimentReport("fox.yaml", 54, True, [], ["class X is a stand-in"], search=True),
)  # fmt: skip
CLOUD = TargetReport(
    "cloud", True, "https://cloud.comfy.org", "from COMFY_CLOUD_API_KEY", dialect="cloud", balance_usd=12.5,
    max_jobs=5, longest_run_s=3600.0, timeout_s=600.0, warning="timeout: too long\nconcurrency: 8, but 5",
    experiment=ExperimentReport("fox.yaml", None, True, [], [], search=True),
)  # fmt: skip
LACKING = TargetReport(
    "mine", url="http://mine:8188", dialect="comfyui", problem="no class 'A'\nmine: no model 'b'", next="install both",
    experiment=ExperimentReport("fox.yaml", 54, True, ["no class 'A'", "mine: no model 'b'"], [], search=None),
)  # fmt: skip


def test_doctor(monkeypatch):
    packages = {"click": "8.1.7", "pyarrow": None}
    targets = (GOOD, CLOUD, LACKING, TargetReport("gone", problem="target gone: there is no such name"))
    extras = {"media": (), "search": ("optuna>=4.4",), "mcp": ()}
    monkeypatch.setattr("sys.executable", "/venv/bin/python")
    found = Diagnosis("0.1", "3.12.1", "Linux", packages, extras, 5 * 2**30, targets,
                      "targets.yaml: is not YAML\n  at line 1", ("the package 'numpy' is not installed",))  # fmt: skip
    check_approved("doctor", found)
    check_approved("doctor_ok", Diagnosis("0.1", "3.12.1", "Linux", {}, {}, 2**30, (), None, None))
    assert list(found.tabulate_packages().rows) == [("click", "8.1.7"), ("pyarrow", "missing")]


def test_validate():
    notes = ("class X is a stand-in",)
    check_approved("validate", FileReport("fox.yaml", "experiment", True, 54, (), ["cfg", "steps"], notes))
    check_approved("validate_template", FileReport("fox.json", "template", valid=True))
    problem = Problem("fox.yaml", 3, "sweep.grid", "unknown key 'stps'\n  did you mean 'steps'?")
    check_approved("validate_wrong", FileReport("fox.yaml", "experiment", valid=False, problems=(problem,)))
