"""A user's Git clone of ComfyUI: find its versions, and check them out into worktrees of ours.

Nothing that the user has in the clone changes: not its files, index, branches, settings or a bisection of theirs. Git
records a worktree in the clone while it exists, and forgets it with the worktree. No setting, hook or filter of the
clone can start a program, because the clone may be a stranger's.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sweeper.errors import SweeperError, UsageError
from sweeper.launching.launch_comfyui import find_python
from sweeper.model.launch_spec import LaunchSpec
from sweeper.store.containment import refuse_links
from sweeper.wording import suggest

_TIMEOUT: Final = 600.0  # seconds; a checkout from a slow disk takes a minute
_LINES: Final = 3  # of what Git says, in a message
# Settings in the clone by which Git starts programs while it checks out or shows a commit (`git help config`).
_STARTS_PROGRAM: Final = re.compile(
    r"include(if)?\.|hook\.|gpg\.|protocol\.|credential\.|core\.(sshcommand|gitproxy|askpass|pager|editor|worktree|"
    r"alternaterefscommand)|diff\.(external|.*\.(command|textconv))|remote\..*\.(uploadpack|vcs)|pager\.|filter\..*=",
    re.IGNORECASE,
)
_SAFE: Final = (
    f"core.hooksPath={os.devnull}", "core.fsmonitor=false", "submodule.recurse=false", "color.ui=false",
    "log.showSignature=false",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit: its full hash, the author's date (ISO 8601) and name, and the first line of its message."""

    hash: str
    date: str
    author: str
    subject: str

    def __str__(self) -> str:
        return f"{self.hash[:12]} ({self.date[:10]}, {self.author}): {self.subject}"


class ComfyuiClone:
    """A clone at `folder`, which may be bare. `git` runs Git in it, or in a worktree of it."""

    def __init__(self, folder: Path) -> None:
        """Raises UsageError if `folder` is not a clone, or has settings by which Git starts programs."""
        self.folder = folder.resolve()
        self._settings: tuple[str, ...] = _SAFE
        try:
            scopes = [line.partition("\t") for line in self.git("config", "--list", "--name-only", "--show-scope")]
            inner = "".join(self.git("rev-parse", "--show-prefix"))
            hook = self.folder.joinpath(*self.git("rev-parse", "--git-common-dir"), "hooks", "reference-transaction")
        except SweeperError as error:
            raise UsageError(f"--comfyui-repo {folder}: is not a Git clone that can be used: {error}") from None
        if inner:
            raise UsageError(f"--comfyui-repo {folder}: is the folder {inner} of a Git clone; give the clone itself")
        if hook.exists():  # `git bisect` of Git 2.47 starts it although core.hooksPath names another folder
            raise UsageError(f"--comfyui-repo {folder}: Git would start {hook}; remove it, or give a new clone")
        names = [name for scope, _, name in scopes if scope in ("local", "worktree")]
        if found := sorted(filter(_STARTS_PROGRAM.match, names)):
            raise UsageError(
                f"--comfyui-repo {folder}: its Git settings have {', '.join(found)}, which can start programs; remove "
                f"them (git -C {folder} config --unset-all {found[0]}), or give a new clone"
            )
        filters = {name.rpartition(".")[0] for _, _, name in scopes if name.startswith("filter.")}
        self._settings += tuple(
            f"{name}.{key}" for name in sorted(filters) for key in ("smudge=", "clean=", "process=", "required=false")
        )

    def git(self, *words: str, folder: Path | None = None) -> list[str]:
        """Run Git and return its lines. Raises SweeperError with its last ones if it fails."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        environ |= {"GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_NO_REPLACE_OBJECTS": "1", "LC_ALL": "C"}
        settings = [word for setting in self._settings for word in ("-c", setting)]
        command = ["git", *settings, "-C", str(folder or self.folder), *words]
        try:
            done = subprocess.run(  # noqa: S603 (no shell)
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT, check=False, env=environ
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SweeperError(f"git cannot run: {getattr(error, 'strerror', None) or error}") from None
        if done.returncode:
            lines = (done.stderr or done.stdout).decode("utf-8", "replace").split("\n")
            raise SweeperError(f"git {words[0]}: {' '.join(list(filter(None, lines))[-_LINES:])}")
        return done.stdout.decode("utf-8", "replace").splitlines()

    def find_commit(self, name: str) -> Commit:
        """The commit of a tag, branch or hash. Raises UsageError with the nearest name."""
        try:
            found = self.git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
            fields = self.git("log", "-1", "--format=%H%n%aI%n%an%n%s", found[0], "--")
        except SweeperError:
            known = self.git("for-each-ref", "--format=%(refname:short)", "refs/tags", "refs/heads", "refs/remotes")
            advice = suggest(name, known, "versions") if known else ""
            message = f"{self.folder}: has no version '{name}'{advice}; `git fetch --tags` there gets new ones"
            raise UsageError(message) from None
        return Commit(*(fields + [""] * 4)[:4])

    @contextmanager
    def open_worktree(self, path: Path, commit: str) -> Iterator[Path]:
        """Check out a commit at `path` while the block runs, in place of what a killed process left there.

        Raises UsageError if `path` is something else, and SweeperError.
        """
        path = path.parent.resolve() / path.name
        self._remove_worktree(path)
        with suppress(OSError):
            path.rmdir()  # git was killed before it wrote anything
        if path.exists():
            raise UsageError(f"{path}: is not a worktree of {self.folder}; move it away, or give another --out")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.git("worktree", "add", "--quiet", "-f", "-f", "--detach", str(path), commit)
            yield path
        finally:
            self._remove_worktree(path)

    def complete_launch(self, target: Mapping[str, Any], tree: Path, commit: str) -> dict[str, Any]:
        """Complete a target with `launch`: it starts a worktree with the models, nodes and input files of the clone.

        It writes no settings and no compiled modules into the clone. Raises UsageError if the clone has no Python.
        """
        (tree / "user").mkdir(exist_ok=True)
        args = ["--user-directory", str(tree / "user")]
        args += ["--base-directory", str(self.folder)] if (self.folder / "models").is_dir() else []
        paths = self.folder / "extra_model_paths.yaml"
        args += ["--extra-model-paths-config", str(paths)] if paths.is_file() else []
        # sweeper remembers node classes by all that starts a ComfyUI, so the commit is a part of that.
        env = {"PYTHONDONTWRITEBYTECODE": "1", "SWEEPER_COMFYUI_COMMIT": commit}
        try:
            python = target.get("python") or find_python(LaunchSpec(str(self.folder)))
        except UsageError:
            message = f"{self.folder}: has no venv or .venv; name the Python with ComfyUI's packages by --python"
            raise UsageError(message) from None
        added = {"launch": str(tree), "python": python, "args": [*args, *target.get("args", ())]}
        return {**target, **added, "env": {**env, **target.get("env", {})}}

    def _remove_worktree(self, path: Path) -> None:
        # Not by `git worktree prune`, which forgets the user's own worktrees too while their disk is not there.
        refuse_links(path)
        lines = self.git("worktree", "list", "--porcelain")
        if any(Path(line.removeprefix("worktree ")) == path for line in lines if line.startswith("worktree ")):
            shutil.rmtree(path, ignore_errors=True)
            self.git("worktree", "remove", "-f", "-f", str(path))
