"""The action `.github/actions/check`: its steps, run in a working copy, with a server in GitHub's place."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from sweeper.cli import main
from tests import ROOT
from tests.github.github_api import TOKEN, GitHub, serve_github
from tests.github.workflow_steps import Steps, run_action
from tests.regression.conftest import TEMPLATE

ACTION = ROOT / ".github/actions/check"
KEY = "a-secret-key"
needs_git_lfs = pytest.mark.skipif(shutil.which("git-lfs") is None, reason="git-lfs is not installed")


@pytest.fixture
def github() -> Iterator[GitHub]:
    with serve_github() as server:
        yield server


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


def run_check(clone: Path, github: GitHub | None = None, *, fork: bool = False, **inputs: str) -> Steps:
    """Run the action for pull request 7, or for a push if there is no `github`."""
    context = {"token": TOKEN, "repository": "someone/pictures", "event_name": "pull_request" if github else "push"}
    if github:
        head = "stranger/pictures" if fork else "someone/pictures"
        context |= {"event.pull_request.number": "7", "event.pull_request.head.repo.full_name": head}
    done = run_action(
        ACTION, clone, {"experiments": "sweeps/shop.yaml", "target": "embedded", "api-key": KEY} | inputs, context,
        GITHUB_API_URL=github.url if github else "http://127.0.0.1:9", GITHUB_SERVER_URL="https://github.example",
        GITHUB_REPOSITORY="someone/pictures", GITHUB_RUN_ID="42", PYTHONPATH=str(ROOT),
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
    assert "### ✅ sweeper check: shop\n\n1 same.\n" in ours["body"]
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
