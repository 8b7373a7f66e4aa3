"""A user's clone of ComfyUI: sweeper finds versions in it, checks them out elsewhere, and changes nothing in it."""

from __future__ import annotations

import subprocess

import pytest

from sweeper.errors import UsageError
from sweeper.regression.versions import ComfyuiClone
from tests.regression.comfyui_repo import ComfyUIRepo


@pytest.fixture
def repo(tmp_path):
    found = ComfyUIRepo(tmp_path / "ComfyUI")
    found.commit("Begin", tag="v0.33.0")
    found.commit("Go on")
    return found


def check_out(repo, tmp_path, version="v0.33.0"):
    """Check out a version for a moment; returns its version.py."""
    clone = ComfyuiClone(repo.path)
    with clone.open_worktree(tmp_path / "tree", clone.find_commit(version).hash) as tree:
        text = (tree / "version.py").read_text()
    assert not (tmp_path / "tree").exists()
    return text


def test_a_dirty_clone_stays_as_it_was(repo, tmp_path, monkeypatch):
    (repo.path / "version.py").write_text("staged")
    repo.git("add", "version.py")
    (repo.path / "version.py").write_text("changed")
    (repo.path / "untracked.txt").write_text("mine")
    repo.git("bisect", "start", "HEAD", "v0.33.0")
    before = repo.read_all()
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere")
    assert "# Begin" in check_out(repo, tmp_path)
    assert repo.read_all() == before


def test_no_hook_and_no_filter_of_the_clone_runs(repo, tmp_path):
    hook = repo.path / ".git" / "hooks" / "post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    hook.chmod(0o755)
    (repo.path / ".git" / "info" / "attributes").write_text("*.py filter=x\n")
    repo.git("config", "core.fsmonitor", str(hook))
    for key in ("smudge", "process"):
        repo.git("config", f"filter.x.{key}", f"touch {tmp_path / 'ran'}; cat")
    assert "# Begin" in check_out(repo, tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_hook_that_git_bisect_would_start_is_refused(repo):
    (repo.path / ".git" / "hooks" / "reference-transaction").write_text("#!/bin/sh\n")
    with pytest.raises(UsageError, match=r"Git would start .*hooks/reference-transaction; remove it"):
        ComfyuiClone(repo.path)


@pytest.mark.parametrize(
    "name", ["core.sshcommand", "filter.a=b.smudge", "include.path", "diff.x.textconv", "gpg.program"]
)
def test_settings_that_start_programs_are_refused(repo, name):
    repo.git("config", name, "evil")
    with pytest.raises(UsageError, match=rf"{name}, which can start programs; remove them \(git -C "):
        ComfyuiClone(repo.path)


@pytest.mark.parametrize(("name", "words"), [
    ("v0.33", "has no version 'v0.33'; did you mean 'v0.33.0'"), ("--all", "no version '--all'"), ("", "no version ''"),
])  # fmt: skip
def test_unknown_versions_are_refused(repo, name, words):
    with pytest.raises(UsageError, match=words):
        ComfyuiClone(repo.path).find_commit(name)


def test_only_the_top_of_a_clone_is_one(repo, tmp_path):
    (repo.path / "inside").mkdir()
    for folder, words in ((repo.path / "inside", "is the folder inside/ of a Git clone"), (tmp_path, "not a git repo")):
        with pytest.raises(UsageError, match=words):
            ComfyuiClone(folder)


def test_a_bare_clone_is_one_too(repo, tmp_path):
    subprocess.run(["git", "clone", "--quiet", "--bare", repo.path, tmp_path / "bare"], check=True)
    repo.path = tmp_path / "bare"
    assert "# Begin" in check_out(repo, tmp_path)


def test_what_a_killed_process_left_goes_and_nothing_else(repo, tmp_path):
    tree = tmp_path / "tree"
    repo.git("worktree", "add", "--detach", str(tree), "HEAD")
    repo.git("worktree", "lock", str(tree))
    (tree / ".git").unlink()
    other = tmp_path / "elsewhere"
    repo.git("worktree", "add", "--detach", str(other), "HEAD")
    other.rename(tmp_path / "unmounted")
    check_out(repo, tmp_path)
    assert str(other) in repo.git("worktree", "list")
    assert str(tree) not in repo.git("worktree", "list")
    tree.mkdir()
    check_out(repo, tmp_path)
    tree.mkdir()
    (tree / "mine.txt").touch()
    with pytest.raises(UsageError, match=r"is not a worktree of .*; move it away, or give another --out"):
        check_out(repo, tmp_path)
    assert (tree / "mine.txt").exists()
