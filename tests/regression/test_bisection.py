"""`sweeper bisect`: the first commit of ComfyUI that changes a case."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

import sweeper
from tests.regression.comfyui_repo import BROKEN, ComfyUIRepo
from tests.waiting import wait_until

CHANGED = "CFG = 2.0"


@pytest.fixture
def repo(tmp_path):
    found = ComfyUIRepo(tmp_path / "ComfyUI")
    found.commit("Begin", tag="v1")
    return found


@pytest.fixture
def bisect(command, repo, start):
    def run(*options, good="v1", bad="master"):
        return command(
            "bisect", "shop.yaml", "--comfyui-repo", repo.path, "--good", good, "--bad", bad, *start, *options
        )

    return run


def test_it_finds_the_commit_and_the_clone_stays_as_it_was(shop, bisect, repo):
    repo.commit("Write a text")
    first = repo.commit("Change the sampler", CHANGED)
    repo.commit("Write more text", CHANGED)
    repo.git("bisect", "start", "HEAD", "v1")
    (repo.path / "version.py").write_text("# mine\n")
    before = repo.read_all()
    outcome = bisect()
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["case", "state", "why"]
    assert lines[4:] == [
        f"{first[:12]} (2026-01-02, Ada): Change the sampler is the first commit that changes a case",
        "2 commits tested, compared with results/shop-bisect/good; to see the change:",
        f"  git -C {repo.path} show {first[:12]}",
        f"  sweeper compare results/shop-bisect/good results/shop-bisect/{first[:12]}",
    ]
    assert repo.read_all() == before
    starts = len(repo.starts)
    assert json.loads(bisect("--json", "-q").out)["commits"][0]["hash"] == first
    assert len(repo.starts) == starts  # all of it was known


def test_commits_that_cannot_tell_are_skipped(shop, bisect, repo):
    broken = repo.commit("Need a new package", BROKEN)
    failing = repo.commit("Fail in the sampler", "CFG = 'x'")
    first = repo.commit("Change the sampler", CHANGED)
    outcome = bisect("-q")
    assert outcome.code == 0
    assert f"those below the first cannot be tested\n  {first[:12]}" in outcome.out
    assert all(commit[:12] in outcome.out for commit in (broken, failing))
    assert "2 commits tested, 2 of them without a result" in outcome.out


def test_pictures_are_compared_with_the_baseline_if_the_good_version_matches(shop, bisect, repo, command, start):
    first = repo.commit("Change the sampler", CHANGED)
    assert command("check", "shop.yaml", "--comfyui-repo", repo.path, "--versions", "v1", *start, "-q").code == 0
    sweeper.accept("results/shop-versions/v1")
    outcome = bisect("-q")
    assert "0 commits tested, compared with baselines/shop" in outcome.out
    assert outcome.out.splitlines()[-1] == "  sweeper check results/shop-bisect/bad --baseline baselines/shop"
    assert first[:12] in outcome.out


def test_a_selection_can_have_another_commit(shop, bisect, repo):
    repo.commit("Change few steps", f"{CHANGED}\nSTEPS = (3,)")
    repo.commit("Change many steps", CHANGED)
    assert "Change many steps is the first commit" in bisect("-q", "--where", "steps == 5").out


@pytest.mark.parametrize(("version", "words"), [
    ("CFG = None", "master: changes no case against v1, so there is nothing to find"),
    (BROKEN, "bad: ComfyUI in "),
])  # fmt: skip
def test_a_bad_version_must_change_something(shop, bisect, repo, version, words):
    repo.commit("Write a text", version)
    outcome = bisect("-q")
    assert outcome.code in (1, 3)
    assert words in outcome.err


@pytest.mark.parametrize(("version", "words"), [
    ("import random; CFG = random.uniform(2, 3)", "v2: no case is the same in two runs (changed: pixels differ: "),
    ("CFG = 'x'", "v2: no case is the same in two runs (failed: TypeError: "),
])  # fmt: skip
def test_a_good_version_must_give_its_pictures_twice(shop, bisect, repo, version, words):
    repo.commit("Draw by chance", version, tag="v2")
    repo.commit("Change the sampler", CHANGED)
    outcome = bisect("-q", good="v2")
    assert outcome.code == 1
    assert words in outcome.err


def test_a_good_version_comes_before_the_bad_one(shop, bisect, repo):
    repo.commit("Change the sampler", CHANGED)
    outcome = bisect("-q", good="master", bad="v1")
    assert outcome.code == 1
    assert repo.starts == []
    assert "git bisect: " in outcome.err


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_same_command_goes_on_after_an_interruption(shop, bisect, repo, *, python, start, number):
    repo.commit("Write a text")
    first = repo.commit("Change the sampler", CHANGED)
    repo.commit("Write more text", CHANGED)
    before = repo.read_all()
    words = ["bisect", shop.file, "--comfyui-repo", repo.path, "--good", "v1", "--bad", "master", *start]
    process = subprocess.Popen(
        [python, "-m", "sweeper", *map(os.fspath, words)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    wait_until(lambda: len(repo.starts) == 5, seconds=100)
    process.send_signal(number)
    text, _ = process.communicate()
    if number == signal.SIGINT:
        assert (process.returncode, repo.read_all()) == (130, before)
        assert text == "shop: interrupted, 1 commit tested; the same command goes on\n"
    assert Path("results/shop-bisect/sweeper-worktree").is_dir() is (number == signal.SIGKILL)
    outcome = bisect("-q")
    assert f"{first[:12]} (2026-01-02, Ada): Change the sampler is the first commit" in outcome.out
    assert repo.starts[3:].count(repo.starts[3]) == 1  # tested before the kill
    assert repo.starts[4] == repo.starts[5]
    assert repo.read_all() == before


def test_state_of_another_experiment_or_writer_is_not_used(shop, bisect, repo, tmp_path):
    repo.commit("Change the sampler", CHANGED)
    assert bisect("-q").code == 0
    starts = len(repo.starts)
    file = Path("results/shop-bisect/bisect.json")
    state = json.loads(file.read_text())
    file.write_text(json.dumps(state | {"marks": [[f"touch {tmp_path / 'ran'}", "run"]]}))
    assert "Change the sampler is the first commit" in bisect("-q").out
    assert not (tmp_path / "ran").exists()
    assert json.loads(file.read_text())["marks"] == []
    assert len(repo.starts) == 2 * starts
    shop.write(steps=(3,))
    assert bisect("-q").code == 0
    assert len(repo.starts) == 3 * starts
