"""`sweeper check` on several versions of ComfyUI."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from sweeper.embedded import EmbeddedServer
from tests.regression.comfyui_repo import BROKEN, ComfyUIRepo
from tests.waiting import wait_until


@pytest.fixture
def repo(tmp_path):
    found = ComfyUIRepo(tmp_path / "ComfyUI")
    found.commit("Begin", tag="v1")
    return found


def test_versions_are_compared_with_the_baseline_and_the_one_before(shop, command, repo, start):
    repo.commit("Need a new package", BROKEN, tag="v2")
    repo.commit("Change the sampler", "CFG = 2.0", tag="v3")
    repo.commit("Write a text", "CFG = 2.0")
    before = repo.read_all()
    options = ("--comfyui-repo", repo.path, *start, "-q")
    assert command("check", shop.file, *options, "--versions", "v1").code == 0
    assert command("accept", "results/shop-versions/v1").code == 0
    reports = ("--junit", "x.xml", "--summary", "s.md", "--html", "page")
    outcome = command("check", shop.file, *options, "--versions", "v1,v2,v3,master", *reports)
    assert outcome.code == 1
    cells = [
        line.split()
        for line in outcome.out.replace("changed by", "").replace(" of 255", "").replace("not run", "no").splitlines()
    ]
    assert cells[:5] == [
        ["Against", "the", "baseline"], [], ["case", "v1", "v2", "v3", "master"],
        ["steps=5", "seed=1", "[9]", "same", "no", "10.8", "10.8"],
        ["steps=3", "seed=1", "[9]", "same", "no", "9.91", "9.91"],
    ]  # fmt: skip
    assert cells[9:10] == [["steps=5", "seed=1", "[9]", "no", "10.8", "same"]]
    assert outcome.out.splitlines()[-3:] == [
        "v1: 2 same", "v3: 2 changed; against v1: 2 changed", "master: 2 changed; against v3: 2 same",
    ]  # fmt: skip
    assert "v2 was left out: v2: ComfyUI in " in outcome.err
    assert "No module named 'comfy_new'" in outcome.err
    assert f"pip install -r <(git -C {repo.path} show v2:requirements.txt)" in outcome.err
    suites = [[suite.get(key) for key in ("name", "failures", "errors")] for suite in ET.parse("x.xml").getroot()]
    assert suites == [
        ["sweeper shop v1", "0", "0"], ["sweeper shop v2", "0", "1"], ["sweeper shop v3", "2", "0"],
        ["sweeper shop master", "2", "0"],
    ]  # fmt: skip
    assert "| steps=5 seed=1 \\[9\\] | same | not run | changed by 10.8 of 255 |" in Path("s.md").read_text("utf-8")
    assert_page_has("v1", "v3", "master")
    assert repo.read_all() == before
    assert not Path("results/shop-versions/sweeper-worktree").exists()


def assert_page_has(*versions):
    """Check that the page has the pictures of these versions: the axis `comfyui` of its grid."""
    data = json.loads(Path("page/data.json").read_text())
    axis = data["columns"][0]
    assert (axis["name"], axis["role"], axis["values"]) == ("comfyui", "axis", list(versions))
    assert data["first"]["axes"] == {"x": "comfyui"}
    assert len(set(data["trials"])) == 2 * len(versions)
    states = data["check"]["columns"][0]
    assert [states["values"][code] for code in states["of"]] == ["same"] * 2 + ["changed"] * (2 * len(versions) - 2)
    paths = [file["path"] for file in data["files"]]
    assert len(paths) == len(set(paths))
    assert all(Path("page", path).is_file() for path in paths)


def test_without_a_baseline_versions_are_compared_with_each_other(shop, command):
    with EmbeddedServer("comfyui") as first, EmbeddedServer("comfyui") as second:
        places = ("--comfyui", f"a={first.url}", "--comfyui", f"b={second.url}", "--comfyui", "c=http://127.0.0.1:9")
        outcome = command("check", shop.file, *places, "--junit", "x.xml", "--html", "page", "-q")
    assert outcome.code == 3  # nothing changed, but one version did not run
    assert outcome.out.splitlines() == ["a: nothing to compare with", "b: against a: 2 same"]
    assert "c was left out: c: cannot be reached" in outcome.err
    assert "`sweeper accept results/shop-versions/a` makes one" in outcome.err
    assert [suite.get("errors") for suite in ET.parse("x.xml").getroot()] == ["0", "0", "1"]


@pytest.mark.parametrize(("options", "words"), [
    (("--comfyui", "master"), "--comfyui master: write VERSION=DIR, such as master=ComfyUI"),
    (("--versions", "v1"), "--versions: name your Git clone of ComfyUI with --comfyui-repo"),
    (("--comfyui-repo", "ComfyUI"), "--comfyui-repo: name the versions, with --versions or --comfyui"),
    (("--comfyui", "a=x", "--target", "cloud", "--attribute"), "--target, --attribute: do not go together with"),
    (("--comfyui", "a=x", "--launch", "{url: y}"), "--launch: write a mapping such as"),
    (("--comfyui", "a=x", "--launch", "{gpu: cpu}"), "target.gpu: unknown key; did you mean 'gpus'"),
    (("--comfyui", "a/b=x", "--comfyui", "a-b=y", "--python", "c=z"), "two versions have the name a-b"),
    (("--comfyui", "a/b=x", "--comfyui", "a-b=y", "--python", "c=z"), "--python c: there is no such version"),
    (("--comfyui-repo", "ComfyUI", "--versions", "v1,v9"), "has no version 'v9'; versions: master, v1"),
    (("--comfyui", "a=x", "--where", "stepz > 1"), "--where: there is no column 'stepz'"),
])  # fmt: skip
def test_mistakes_are_told_before_anything_starts(shop, command, repo, options, words):
    outcome = command("check", shop.file, *options)
    assert (outcome.code, repo.starts) == (2, [])
    assert words in outcome.err


def test_a_clone_without_a_python_asks_for_one(shop, command, repo):
    outcome = command("check", shop.file, "--comfyui-repo", repo.path, "--versions", "v1")
    assert (outcome.code, repo.starts) == (3, [])
    assert "has no venv or .venv; name the Python with ComfyUI's packages by --python" in outcome.err


def test_the_target_of_the_experiment_is_not_used(shop, command, repo, start, tmp_path):
    shop.write(target={"launch": str(tmp_path / "theirs"), "env": {"TOKEN": "x"}})
    outcome = command("check", shop.file, "--comfyui-repo", repo.path, "--versions", "v1", *start, "-q")
    assert (outcome.code, repo.starts) == (0, [repo.git("rev-parse", "v1").strip()])


def test_ctrl_c_ends_the_check_and_removes_the_worktree(shop, repo, python, start):
    repo.commit("Take long", "import time; time.sleep(60)", tag="v2")
    before = repo.read_all()
    words = ("-m", "sweeper", "check", shop.file, "--comfyui-repo", repo.path, "--versions", "v1,v2", *start)
    process = subprocess.Popen([python, *map(os.fspath, words)], stderr=subprocess.DEVNULL)
    wait_until(lambda: len(repo.starts) == 2, seconds=60)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert repo.read_all() == before
    assert not Path("results/shop-versions/sweeper-worktree").exists()
