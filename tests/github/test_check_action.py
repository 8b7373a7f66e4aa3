"""The action `.github/actions/check`: its steps, run in a working copy, with a server in GitHub's place."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeper.cli import main
from tests import ROOT
from tests.github.github_api import TOKEN, GitHub, serve_github
from tests.github.workflow_steps import Steps, run_action
from tests.launching.comfyui_folder import ComfyUIFolder
from tests.regression.conftest import TEMPLATE

ACTION = ROOT / ".github/actions/check"
KEY = "a-secret-key"
forks = ""  # what the steps run in place of Python, see `tests.cli.forked_commands`
needs_git_lfs = pytest.mark.skipif(shutil.which("git-lfs") is None, reason="git-lfs is not installed")


@pytest.fixture
def github() -> Iterator[GitHub]:
    with serve_github() as server:
        yield server


@pytest.fixture(autouse=True)
def _forks(python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "forks", python)


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working copy: an experiment with two accepted pictures."""
    folder = tmp_path / "clone"
    (folder / "sweeps").mkdir(parents=True)
    monkeypatch.chdir(folder)
    write_template(folder, cfg=7.0)
    (folder / "sweeps/shop.yaml").write_text(
        json.dumps({"template": "shop.json", "sweep": {"grid": {"steps": [3, 5], "seed": [1]}}})
    )
    assert main(["run", "sweeps/shop.yaml"]) == 0
    assert main(["accept", "sweeps/shop.yaml"]) == 0
    shutil.rmtree("sweeps/results")
    return folder


def make_folder(tmp_path: Path) -> Path:
    """A working copy without an experiment, for what does not depend on one."""
    folder = tmp_path / "clone"
    folder.mkdir()
    return folder


def write_template(folder: Path, **inputs: object) -> None:
    graph = json.loads(json.dumps(TEMPLATE))
    graph["3"]["inputs"] |= inputs
    (folder / "sweeps/shop.json").write_text(json.dumps(graph))


def run_check(
    clone: Path, github: GitHub | None = None, *, fork: bool = False, starts_pip: bool = False, **inputs: str
) -> Steps:
    """Run the action for pull request 7, or for a push if there is no `github`."""
    context = {"token": TOKEN, "repository": "someone/pictures", "event_name": "pull_request" if github else "push"}
    if github:
        head = "stranger/pictures" if fork else "someone/pictures"
        context |= {"event.pull_request.number": "7", "event.pull_request.head.repo.full_name": head}
    done = run_action(
        ACTION, clone, {"experiments": "sweeps/shop.yaml", "target": "embedded", "api-key": KEY} | inputs, context,
        GITHUB_API_URL=github.url if github else "http://127.0.0.1:9", GITHUB_SERVER_URL="https://github.example",
        GITHUB_REPOSITORY="someone/pictures", GITHUB_RUN_ID="42", PYTHONPATH=str(clone), starts_pip=starts_pip,
        forks=None if starts_pip else forks,
    )  # fmt: skip
    assert TOKEN not in done.log + done.summary
    assert KEY not in done.log + done.summary
    return done


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=False, capture_output=True, text=True, timeout=60,
        env=os.environ | {"GIT_LFS_SKIP_SMUDGE": "1", "GIT_CONFIG_GLOBAL": os.devnull},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_check_fails_and_keeps_one_comment_up_to_date(clone: Path, github: GitHub):
    marker = "<!-- sweeper check: sweeper-check -->"
    github.add(None, "the comment of an account that was deleted")
    stranger = github.add("stranger", f"{marker} mine")
    write_template(clone, cfg=3.0)
    done = run_check(clone, github, extras="media")
    assert (done.code, done.outputs["exit-code"]) == (1, "1")
    assert f"pip install --quiet {ROOT}[media]" in done.installed
    results = Path(done.outputs["folder"]) / "sweeps-shop"
    assert (results / "report/index.html").exists()
    assert len([case for case in ET.parse(results / "check.xml").getroot()[0] if len(case)]) == 2
    uploads = [given for action, given in done.used if "upload-artifact" in action]
    assert uploads == [{"name": "sweeper-check", "path": done.outputs["folder"]}]
    ours = github.comments[2]
    assert ours["body"].startswith(f"{marker}\n### ❌ sweeper check: shop\n\n2 changed.")
    assert "https://github.example/someone/pictures/actions/runs/42" in ours["body"]
    assert "https://github.example/artifact/1" in ours["body"]
    assert done.summary in ours["body"]
    assert "`sweeper accept FOLDER --cases FILE --baseline DIR`" in ours["body"]

    # As the comment says, with the downloaded results, for one of the two cases.
    downloaded = shutil.move(results, clone / "downloaded")
    accepting = ["accept", str(downloaded), "--where", "steps == 3", "--baseline", "sweeps/baselines/shop", "--yes"]
    assert main(accepting) == 0
    (clone / "sweeps/wrong.yaml").write_text("template: missing.json\n")
    done = run_check(clone, github, experiments="sweeps/*.yaml\n", options="--where 'steps == 3' --attribute")
    assert (done.code, done.outputs["exit-code"]) == (2, "2")
    assert "missing.json" in done.log
    assert (github.writes, len(github.comments)) == (["POST", "PATCH"], 3)
    assert "### ✅ sweeper check: shop\n\n1 same; 1 accepted cases not selected.\n" in ours["body"]
    assert "### ❌ sweeper check: sweeps/wrong.yaml\n\nNothing was compared (exit code 2)" in ours["body"]
    assert stranger["body"] == f"{marker} mine"


@needs_git_lfs
def test_only_the_files_of_the_baseline_are_fetched_from_lfs(clone: Path, tmp_path: Path):
    (clone / "large.png").write_bytes(next(clone.glob("sweeps/baselines/**/*.png")).read_bytes()[:-1])
    git(tmp_path, "init", "--quiet", "--bare", "origin")
    git(clone, "init", "--quiet")
    git(clone, "lfs", "install", "--local")
    git(clone, "lfs", "track", "*.png")
    git(clone, "add", ".")
    git(clone, "commit", "--quiet", "--message", "accept")
    git(clone, "remote", "add", "origin", (tmp_path / "origin").as_uri())
    git(clone, "push", "--quiet", "origin", "HEAD:main")
    git(tmp_path, "clone", "--quiet", "--branch", "main", (tmp_path / "origin").as_uri(), "fresh")
    fresh = tmp_path / "fresh"
    pictures = [*fresh.glob("sweeps/baselines/**/*.png"), fresh / "large.png"]
    assert len(pictures) == 3
    assert all(picture.read_bytes().startswith(b"version https://git-lfs") for picture in pictures)
    done = run_check(fresh)
    assert done.code == 0, done.log
    assert "### ✅ sweeper check: shop\n\n2 same.\n" in done.summary
    assert (fresh / "large.png").read_bytes().startswith(b"version https://git-lfs")


PLANTED = "import os\nopen(os.environ['RUNNER_TEMP'] + '/planted', 'a').write(__name__ + '\\n')\n"


def plant_modules(folder: Path) -> None:
    """Files with the names of modules, and others that Python, pip and version managers look for."""
    for name in {*sys.stdlib_module_names, *packages_distributions(), "sitecustomize"} - {"sys", "builtins"}:
        (folder / f"{name.partition('.')[0]}.py").write_text(PLANTED)
    for name in ("pip", "sweeper", "httpx", "action_inputs"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(PLANTED)
    (folder / "setup.cfg").write_text("[install]\nprefix = elsewhere\n")
    (folder / "pip.conf").write_text("[global]\nindex-url = http://127.0.0.1:9/\n")
    (folder / "pyvenv.cfg").write_text("home = elsewhere\n")


def test_no_step_runs_python_of_the_pull_request(clone: Path, tmp_path: Path, github: GitHub):
    plant_modules(clone)
    (clone / "sweeps/wrong.yaml").write_text('{"template": "shop.json", "metrics": ["planted_metric:f"]}')
    done = run_check(clone, github, experiments="sweeps/*.yaml", extras="media", starts_pip=True)
    assert not (tmp_path / "runner/planted").exists(), (tmp_path / "runner/planted").read_text()
    assert f"pip install --quiet {ROOT}[media]" in done.installed
    assert "### ✅ sweeper check: shop\n\n2 same.\n" in done.summary
    assert "imports the module 'planted_metric'" in done.log
    assert github.writes == ["POST"]


def write_pointer(picture: Path) -> str:
    """Replace a picture by its pointer for Git LFS; returns its SHA-256."""
    content = picture.read_bytes()
    oid = hashlib.sha256(content).hexdigest()
    picture.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(content)}\n")
    return oid


def commit_pointers(folder: Path) -> None:
    """Make a repository of a folder, with an empty one as its remote."""
    (folder / ".gitattributes").write_text("*.png filter=lfs diff=lfs merge=lfs -text\n")
    git(folder.parent, "init", "--quiet", "--bare", "ours")
    git(folder, "init", "--quiet")
    git(folder, "remote", "add", "origin", (folder.parent / "ours").as_uri())
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "accept")


@needs_git_lfs
def test_baselines_that_look_like_a_repository_run_nothing(clone: Path, tmp_path: Path):
    baseline, marker = clone / "sweeps/baselines", tmp_path / "ran"
    write_pointer(next(baseline.glob("shop/*.png")))
    commit_pointers(baseline)
    for name, value in {
        "core.worktree": ".", "lfs.standalonetransferagent": "x", "lfs.customtransfer.x.path": "touch",
        "lfs.customtransfer.x.args": str(marker),
    }.items():  # fmt: skip
        git(baseline, "config", name, value)
    for file in (baseline / ".git").iterdir():
        file.rename(baseline / file.name)  # as a pull request can contain it
    (baseline / ".git").rmdir()
    git(tmp_path, "init", "--quiet", "clone")
    run_check(clone)
    assert not marker.exists()


@needs_git_lfs
def test_files_of_lfs_come_from_no_server_of_the_pull_request(clone: Path, tmp_path: Path):
    picture = next(clone.glob("sweeps/baselines/**/*.png"))
    content, oid = picture.read_bytes(), write_pointer(picture)
    git(tmp_path, "init", "--quiet", "--bare", "theirs")
    theirs = tmp_path / "theirs/lfs/objects" / oid[:2] / oid[2:4] / oid
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(content)
    (clone / ".lfsconfig").write_text(f"[lfs]\nurl = {(tmp_path / 'theirs').as_uri()}\n")
    commit_pointers(clone)
    done = run_check(clone)
    assert done.code != 0
    assert not [*(clone / ".git/lfs").rglob(oid)]
    git(clone, "config", "lfs.url", (tmp_path / "theirs").as_uri())
    assert run_check(clone).code == 0


def test_names_of_files_are_no_commands_for_github(clone: Path, github: GitHub):
    names = [
        "a%0A::error::b.yaml",
        "c\n::set-output name=folder::etc.yaml",
        "d\r##[add-path]e.yaml",
        "\udcff::f::.yaml",
    ]
    for name in names:
        (clone / "sweeps" / name).write_text("template: '##[set-output name=folder;]x'\nname: \"::notice::y\"\n")
    (clone / "-t.yaml").write_text("{")
    done = run_check(clone, github, experiments="sweeps/*.yaml\n*.yaml")
    assert done.code == 2
    assert {line.partition("::")[2].partition("::")[0] for line in done.commands} == {"group", "endgroup", "error"}
    assert all(line.startswith("::") for line in done.commands)
    assert "\n::set-output" not in done.summary


@pytest.mark.parametrize("target", ["../outside", ".git/config", "loop.yaml"])
def test_a_link_out_of_the_checkout_is_not_opened(tmp_path: Path, target: str):
    clone = make_folder(tmp_path)
    (clone / ".git").mkdir()
    for secret in (tmp_path / "outside", clone / ".git/config"):
        secret.write_text("s3cr3t: [\n")
    (clone / "loop.yaml").symlink_to(clone / target)
    done = run_check(clone, experiments="*.yaml")
    assert done.code == 2
    assert done.commands == ["::error::loop.yaml: is a link that leads out of the checkout; replace it by the file"]
    assert "s3cr3t" not in done.log


def test_a_pull_request_from_a_fork_gets_no_comment(tmp_path: Path, github: GitHub):
    done = run_check(make_folder(tmp_path), github, fork=True)
    assert (done.code, github.writes) == (2, [])
    assert "sweeper check: sweeps/shop.yaml" in done.summary


def test_a_refused_comment_is_a_warning_that_names_the_permission(tmp_path: Path, github: GitHub):
    github.may_write = False
    done = run_check(make_folder(tmp_path), github)
    assert done.code == 2
    assert "::warning::" in done.log
    assert "`permissions: pull-requests: write`" in done.log


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"experiments": " \n"}, "`experiments` is empty"),
        ({"experiments": "a.yaml\nb.yaml", "baseline": "accepted"}, "`baseline` is the folder of one experiment"),
        ({"options": "--where 'steps"}, "`options` cannot be split into words: No closing quotation"),
    ],
)
def test_mistakes_in_the_inputs_are_named(tmp_path: Path, inputs: dict[str, str], message: str):
    done = run_check(make_folder(tmp_path), **inputs)
    assert done.code == 2
    assert f"::error::{message}" in done.log
    assert [action for action, _ in done.used if "upload" in action] == []


def test_every_input_of_the_action_is_used_and_documented():
    text = (ACTION / "action.yml").read_text("utf-8")
    page = (ROOT / "sweeper/regression/README.md").read_text("utf-8")
    for name, one in yaml.safe_load(text)["inputs"].items():
        assert f"inputs.{name} " in text, name
        assert f"`{name}`" in page, name
        assert one["description"].endswith("."), name


def test_experiments_run_on_each_comfyui_that_earlier_steps_have_put_there(clone: Path):
    make_comfyui(clone.parent / "comfyui")
    text = Path("sweeps/shop.json").read_text("utf-8")
    Path("sweeps/shop.json").write_text(text.replace("x.safetensors", "procedural-photo.safetensors"), "utf-8")
    done = run_check(clone, **{"target": "", "api-key": "", "comfyui": "v1=../comfyui\nv2=../comfyui"})
    assert done.code == 1, done.log
    (report,) = Path(done.outputs["folder"]).glob("*/check.xml")
    assert len(ET.parse(report).getroot()) == 2  # a suite for each
    assert "v1" in done.summary
    assert "v2" in done.summary
    assert [words[2:] for words in ComfyUIFolder(clone.parent / "comfyui").lines if words[1] == "starts"] == [
        ["cpu"], ["cpu"]]  # fmt: skip


# --- a node pack


LARGE = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "gone.safetensors"}},
    "2": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 7}},
    "3": {"class_type": "VAEEncode", "inputs": {"pixels": ["2", 0], "vae": ["1", 2]}},
    "4": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["1", 2]}},
    "5": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "x"}},
}


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working copy of a node pack with two workflows, and a ComfyUI beside it."""
    folder = tmp_path / "my-pack"
    (folder / "example_workflows").mkdir(parents=True)
    monkeypatch.chdir(folder)
    colour = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 7}}
    save = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}
    save_workflow("plain", {"1": colour, "2": save})
    save_workflow("other", {"1": {**colour, "inputs": {**colour["inputs"], "color": 9}}, "2": save})
    make_comfyui(tmp_path / "comfyui")
    return folder


def make_comfyui(folder: Path) -> None:
    ComfyUIFolder(folder)
    (folder / "venv/bin").mkdir(parents=True)
    (folder / "venv/bin/python").write_text(f'#!/bin/sh\nexec {forks} "$@"\n')
    (folder / "venv/bin/python").chmod(0o755)


def save_workflow(name: str, graph: dict[str, Any]) -> None:
    Path("example_workflows", f"{name}.json").write_text(json.dumps(graph), "utf-8")


def check_the_pack(pack: Path, /, **inputs: str) -> Steps:
    given = {"pack": ".", "comfyui": "v1=../comfyui", "api-key": "", "experiments": "", "target": ""} | inputs
    return run_check(pack, **given)


def test_each_workflow_of_a_pack_is_compared_with_its_accepted_picture(pack: Path):
    first = check_the_pack(pack)
    assert (first.code, first.summary.count("1 new")) == (1, 2), first.log
    for name in ("plain", "other"):
        results = Path(first.outputs["folder"]) / "v1" / name
        assert main(["accept", str(results), "--baseline", f"baselines/{name}", "--yes"]) == 0
    (base,) = (pack.parent / "runner").glob("comfyui-*")
    assert (base / "custom_nodes/my-pack/example_workflows/plain.json").exists()

    graph = json.loads(Path("example_workflows/plain.json").read_text())
    graph["1"]["inputs"]["color"] = 8
    save_workflow("plain", graph)
    save_workflow("large", LARGE)
    shutil.rmtree(pack.parent / "runner")  # the next job
    second = check_the_pack(pack, comfyui="v1=../comfyui\nv2=../comfyui")
    assert (second.code, second.outputs["exit-code"]) == (1, "1"), second.log
    assert second.summary.count("left out") == 2
    assert second.summary.index("## ComfyUI v1") < second.summary.index("## ComfyUI v2")
    assert second.summary.count("1 changed") == second.summary.count("1 same") == 2
    assert len(ComfyUIFolder(pack.parent / "comfyui").pids) == 3  # one start for all workflows


def test_a_second_step_checks_another_pack_alone(pack: Path):
    other = shutil.copytree(pack, pack / "other-pack")
    assert check_the_pack(pack).summary.count("1 new") == 2
    done = check_the_pack(pack, pack=str(other), name="second")
    assert done.summary.count("1 new") == 2, done.log
    found = {tuple(path.name for path in base.iterdir()) for base in pack.parent.glob("runner/comfyui-*/custom_nodes")}
    assert found == {("my-pack",), ("other-pack",)}


def test_workflows_with_long_names_have_results_of_their_own(pack: Path):
    for file in Path("example_workflows").iterdir():
        file.rename(file.with_name("x" * 110 + file.name))
    done = check_the_pack(pack)
    assert len([*Path(done.outputs["folder"]).glob("v1/*/check.xml")]) == 2, done.log


def test_what_runs_in_comfyui_learns_no_file_of_the_job(pack: Path):
    main = pack.parent / "comfyui/main.py"
    dump = "import json, os\nwith open('environ.json', 'w') as file:\n    json.dump(dict(os.environ), file)\n"
    main.write_text(dump + main.read_text())
    assert check_the_pack(pack).summary.count("1 new") == 2
    environ = json.loads((pack.parent / "comfyui/environ.json").read_text())
    prefixes = ("GITHUB_", "RUNNER_", "ACTIONS_")
    assert {name: value for name, value in environ.items() if value and name.startswith(prefixes)} == {}
    assert "GITHUB_OUTPUT" in environ


def test_a_pack_of_which_no_workflow_can_run_fails(pack: Path):
    for file in Path("example_workflows").iterdir():
        file.unlink()
    save_workflow("large", LARGE)
    done = check_the_pack(pack)
    assert done.code == 2
    assert "large.json: left out: node 1 (CheckpointLoaderSimple) ckpt\\_name: found" in done.summary
    assert "all are left out" in done.log


def test_a_comfyui_that_does_not_start_is_named_and_the_others_are_checked(pack: Path):
    ComfyUIFolder(pack.parent / "broken", fail="no package")
    shutil.copytree(pack.parent / "comfyui/venv", pack.parent / "broken/venv")
    done = check_the_pack(pack, comfyui="bad=../broken\nv1=../comfyui\nnone=../missing")
    assert done.code == 2
    assert "no package" in done.log
    assert "## ComfyUI bad\n\nIt did not start" in done.summary
    assert "## ComfyUI none\n\nIt did not start" in done.summary
    assert done.summary.count("1 new") == 2


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"api-key": KEY}, "it takes neither `api-key` nor `target`"),
        ({"target": "cloud"}, "it takes neither `api-key` nor `target`"),
        ({"experiments": "sweeps/*.yaml"}, "use a step each"),
        ({"comfyui": "v1"}, "needs a line NAME=DIR"),
        ({"comfyui": "../x=../comfyui"}, "needs a line NAME=DIR"),
        ({"comfyui": ""}, "needs a line NAME=DIR"),
        ({"comfyui": "v1=../a\nV1=../b"}, "have the same name"),
        ({"options": "'"}, "cannot be split"),
        ({"workflows": "outside"}, "is a link that leads out of the checkout"),
    ],
)
def test_the_code_of_a_pack_gets_no_key_and_no_other_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: dict[str, str], message: str
):
    folder = make_folder(tmp_path)
    monkeypatch.chdir(folder)
    (folder / "outside").symlink_to(tmp_path)
    (folder / "example_workflows").mkdir()
    done = check_the_pack(folder, **inputs)
    assert (done.code, message in done.log) == (2, True), done.log
