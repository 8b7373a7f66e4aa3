"""Every command, in a folder with files that have the names of modules: no Python that sweeper starts imports them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="the extra `dask` is not installed")

from sweeper.cli.command_table import COMMANDS
from tests import ROOT
from tests.regression.conftest import TEMPLATE

CODE = "from os import environ\nopen(environ['MARKER'], 'a').write(__name__ + '\\n')\nraise ImportError('planted')\n"
SEARCH = {
    "maximize": "brightness",
    "trials": 2,
    "method": "random",
    "space": {"steps": {"from": 1, "to": 4, "step": 1}},
}

# Command lines, in an order that gives each what it needs; one process runs all of the first list.
AT_ONCE = (
    "schema", "completion bash", "trust .", "validate shop.yaml", "plan shop.yaml", "template slots shop.json",
    "init made", "results shop.yaml", "runs shop.yaml", "costs shop.yaml", "effects shop.yaml",
    "export shop.yaml -o t.csv", "export shop.yaml --to hf-dataset -o data", "report shop.yaml",
    "accept shop.yaml --yes", "check shop.yaml", "calibrate shop.yaml --repeats 2",
    "compare results/shop results/shop-check", "search find.yaml", "doctor shop.yaml", "votes shop.yaml", "mcp",
    "lock --help", "bisect --help", "comfyui-extension install comfyui",
)  # fmt: skip
# Each of these has a process of its own: it starts workers of a cluster, or waits until it is stopped.
ALONE = (
    "run PROJECT --dask local:1 --trust --quiet -o results/shop", "doctor shop.yaml --dask local:1", "serve",
    "view shop.yaml", "vote shop.yaml --between steps", "open shop.yaml --no-open",
)  # fmt: skip
WAITING = ("serve", "view ", "vote ", "open ")

RUN_AT_ONCE = """
import os, sys
from sweeper.cli import main

here = os.getcwd()

def watch(event, arguments):  # a module that is imported already hides its namesake, so look at the path itself too
    if event == "import" and here in map(os.path.abspath, sys.path):
        open(os.environ["MARKER"], "a").write(f"sys.path, while {arguments[0]} is imported")

sys.addaudithook(watch)
for line in sys.argv[1:]:
    print(line, flush=True)
    if code := main(line.split()):
        sys.exit(code)
"""


@pytest.fixture(scope="module")
def packages() -> set[str]:
    return set(packages_distributions())


@pytest.fixture
def planted(packages: set[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A marker file; every module that can be imported has a namesake in the current folder which writes there."""
    marker = Path("imported.txt").absolute()
    monkeypatch.setenv("MARKER", str(marker))
    names = {
        *sys.stdlib_module_names,
        *packages,
        "sitecustomize",
        "usercustomize",
        "planted",
        "own_metric",
    }
    for name in names - {"sys", "builtins"}:
        Path(f"{name.partition('.')[0]}.py").write_text(CODE)
    for name in ("sweeper", "tests"):
        Path(name).mkdir()
        Path(name, "__init__.py").write_text(CODE)
    Path("planted-1.0.dist-info").mkdir()
    Path("planted-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 1.0\n")
    Path("planted-1.0.dist-info/entry_points.txt").write_text(
        "".join(f"[{group}]\nplanted = planted:f\n" for group in ("sweeper.metrics", "fsspec.specs", "dask.backends"))
    )
    Path("shop.json").write_text(json.dumps(TEMPLATE))
    shop = {"template": "shop.json", "target": "embedded", "metrics": ["brightness"]}
    Path("shop.yaml").write_text(json.dumps({**shop, "sweep": {"grid": {"steps": [1, 2], "seed": [1]}}}))
    Path("comfyui/custom_nodes").mkdir(parents=True)
    Path("comfyui/models").mkdir()
    Path("find.yaml").write_text(json.dumps({**shop, "params": {"seed": 1}, "search": SEARCH}))
    return marker


@pytest.fixture
def project(planted: Path, tmp_path: Path) -> Path:
    """An experiment in another folder, with a metric of its own."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "own_metric.py").write_text("def red(picture):\n    return float(picture[..., 0].mean())\n")
    shutil.copy("shop.json", folder)
    experiment = json.loads(Path("shop.yaml").read_text())
    (folder / "shop.yaml").write_text(json.dumps(experiment | {"metrics": ["brightness", "own_metric:red"]}))
    return folder / "shop.yaml"


def start(program: list[str], *words: str) -> tuple[int | None, str]:
    """Run a command. Returns its exit code, or None if it waited and was stopped, and what it printed."""
    command, environment = [*program, *words], {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        if not " ".join(words).startswith(WAITING):
            text, _ = process.communicate(timeout=100)
            return process.returncode, text
        text = process.stdout.readline()
        process.terminate()
        return None, text


def find_script() -> list[str]:
    script = shutil.which("sweeper", path=str(Path(sys.executable).parent))
    if script is None:
        pytest.skip("the command `sweeper` is not installed beside this Python")
    return [script]


MODULE = [sys.executable, "-P", "-m", "sweeper"]


def test_script_and_its_workers_import_no_file_of_the_current_folder(planted: Path, project: Path):
    """But a worker imports a metric from beside its experiment."""
    script = find_script()
    for line in ALONE:
        code, text = start(script, *line.replace("PROJECT", str(project)).split())
        assert not planted.exists(), (line, planted.read_text())
        assert code == 0 or "http://127.0.0.1" in text, (line, text)
    code, text = start(MODULE, "results", "results/shop", "--json")
    assert code == 0
    assert all(isinstance(row["own_metric:red"], float) for row in json.loads(text))


def test_no_command_imports_a_file_of_the_current_folder(planted: Path):
    assert {line.partition(" ")[0] for line in (*AT_ONCE, *ALONE)} == COMMANDS.keys()
    for line in ("run shop.yaml", "results shop.yaml"):
        assert start(MODULE, *line.split())[0] == 0
    code, text = start([sys.executable, "-P", "-c", RUN_AT_ONCE], *AT_ONCE)
    assert not planted.exists(), (planted.read_text(), text)
    assert code == 0, text
    assert "calibrate" in text


def test_module_without_p_imports_only_what_python_does_first(planted: Path):
    """`python -m` puts the current folder first, so a file there with the name of a module of Python still wins."""
    for name in sys.stdlib_module_names:
        Path(f"{name}.py").unlink(missing_ok=True)
    shutil.rmtree("sweeper")
    program = [sys.executable, "-m", "sweeper"]
    for line in ("run shop.yaml --dask local:1", "results shop.yaml"):
        assert start(program, *line.split())[0] == 0
    experiment = json.loads(Path("shop.yaml").read_text())
    Path("shop.yaml").write_text(json.dumps(experiment | {"metrics": ["planted"]}))
    code, text = start(program, "run", "shop.yaml", "--trust")
    assert (code, planted.exists()) == (2, False)
    assert "unknown metric 'planted'" in text
