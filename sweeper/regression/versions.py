"""Check an experiment on several versions of ComfyUI: against the baseline, and each against the version before.

Versions may be commits of a user's Git clone, which run in worktrees of ours. Nothing that the user has in the clone
changes: not its files, index, branches, settings or a bisection of theirs. Git records a worktree in the clone while it
exists, and forgets it with the worktree. No setting, hook or filter of the clone can start a program, because the clone
may be a stranger's.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from sweeper.answers.parts import Fail, Heading, Line, Note, Part, Table
from sweeper.answers.render import IF_GIVEN
from sweeper.comfy.target import check_targets
from sweeper.errors import ExperimentError, Problem, SweeperError, TargetError, TransientError, UsageError
from sweeper.files import make_portable
from sweeper.launching.launch_comfyui import find_python
from sweeper.model.experiment import Experiment
from sweeper.model.launch_spec import LaunchSpec
from sweeper.planning.plan import Plan
from sweeper.regression.baseline import AcceptedFile, Baseline, BaselineEntry
from sweeper.regression.cases import RunCases, read_run
from sweeper.regression.check import check_experiment
from sweeper.regression.comparison import MAX_ROWS, SAME, Comparison, Comparisons, compare_with_baseline
from sweeper.regression.match_files import parse_checks
from sweeper.running.folder_lock import lock_folder
from sweeper.running.settings import TrialFilter
from sweeper.store.containment import refuse_links
from sweeper.wording import join_command, suggest

# What may be wrong with one version only, so that the others still run.
VERSION_ERRORS: Final = (TargetError, TransientError, ExperimentError, UsageError)
WORKTREE: Final = "sweeper-worktree"  # in the results folder; it is deleted, so nobody else may use the name

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


@dataclass(frozen=True, slots=True)
class Version:
    """A version to check, and its target. `commit`: the hash of one of a clone, which runs in a worktree instead."""

    name: str
    target: Mapping[str, Any]
    commit: str = ""


@dataclass(frozen=True, slots=True)
class VersionCheck:
    """What the check of one version found.

    `checked`: its cases against the baseline; None if it did not run, with the `problem`. `changes`: its cases against
    those of `before`, the last version that ran before it; None for the first.
    """

    version: str
    problem: str = ""
    checked: Comparisons | None = None
    before: str | None = field(default=None, metadata=IF_GIVEN)
    changes: Comparisons | None = field(default=None, metadata=IF_GIVEN)

    def parts(self) -> Iterator[Part]:
        """The counts, or why there are none."""
        if self.checked is None:
            yield from map(Fail, f"{self.version} was left out: {self.problem}".splitlines())
            return
        counts = [self.checked.describe_counts()] if self.checked.has_baseline else []
        counts += [f"against {self.before}: {self.changes.describe_counts()}"] if self.changes is not None else []
        counts += [f"the run ended early ({self.checked.stopped_by})"] if self.checked.stopped_by else []
        yield Line(f"{self.version}: {'; '.join(counts) or 'nothing to compare with'}")


@dataclass(frozen=True, slots=True)
class VersionChecks:
    """The answer of `sweeper check` for several versions.

    `ok`: whether some ran, and no case changed in any, against the baseline or the version before. `stopped_by`:
    `interrupt` if the user ended it early, or `unreachable` if nothing changed, but a version did not run.
    """

    experiment: str
    ok: bool = field(init=False)
    results: Path
    stopped_by: str | None = field(init=False)
    versions: tuple[VersionCheck, ...]

    def __post_init__(self) -> None:
        ran = [version.checked for version in self.versions if version.checked is not None]
        found = [each if each.has_baseline else replace(each, has_baseline=True, allow_new=True) for each in ran]
        found += [version.changes for version in self.versions if version.changes is not None]
        ok = bool(ran) and all(checked.ok for checked in found)
        failed = len(ran) < len(self.versions) and (ok or not ran)
        interrupted = any(checked.stopped_by == "interrupt" for checked in ran)
        object.__setattr__(self, "ok", ok)
        object.__setattr__(self, "stopped_by", "interrupt" if interrupted else "unreachable" if failed else None)

    @property
    def has_differences(self) -> bool:
        return not self.ok or self.stopped_by is not None

    @property
    def suites(self) -> Mapping[str, Comparisons | str]:
        """The suites of its JUnit XML; of a version that did not run, the problem."""
        return {
            f"{self.experiment} {each.version}": each.problem if each.checked is None else each.checked
            for each in self.versions
        }

    def parts(self) -> Iterator[Part]:
        """The tables of versions and cases, and a sentence about each version."""
        yield from self._tabulate("Against the baseline", lambda version: version.checked)
        yield from self._tabulate("Against the version before", lambda version: version.changes)
        for version in self.versions:
            yield from version.parts()
        first = next((version.checked for version in self.versions if version.checked is not None), None)
        if first is not None and not first.has_baseline:
            yield Note(f"there is no baseline; `{first.accept_command}` makes one of the first version that ran")

    def summary_parts(self) -> Iterator[Part]:
        """A summary for a pull request."""
        yield Heading(f"{'✅' if self.ok and not self.stopped_by else '❌'} sweeper check: {self.experiment}")
        yield from self.parts()

    def _tabulate(self, title: str, select: Callable[[VersionCheck], Comparisons | None]) -> Iterator[Part]:
        """The cases that are not the same in some version; the versions are the columns."""
        found = map(select, self.versions)
        columns = [{item.case.key: item for item in each} if each and each.has_baseline else {} for each in found]
        names = {key: item.case.name for column in columns for key, item in column.items() if item.state != SAME}
        if not names:
            return
        cells = [
            {key: "not run" if version.checked is None else describe_change(column.get(key)) for key in names}
            for version, column in zip(self.versions, columns, strict=True)
        ]
        rows = [[name, *(column[key] for column in cells)] for key, name in names.items()]
        yield Heading(title)
        yield Table(("case", *(version.version for version in self.versions)), rows[:MAX_ROWS])
        if len(rows) > MAX_ROWS:
            yield Line(f"... and {len(rows) - MAX_ROWS} more")


def make_versions(
    places: Sequence[tuple[str, str]], names: Sequence[str], clone: ComfyuiClone | None,
    pythons: Mapping[str, str], settings: Mapping[str, Any],
) -> list[Version]:  # fmt: skip
    """The versions that a user gives. Raises UsageError with all mistakes in them.

    `places`: a name each, with a folder or a URL. `names`: of commits of the clone. `pythons`: by version, that of all
    others under "". `settings`: what a target with `launch` has besides.
    """
    known = [*(name for name, _ in places), *names]
    counts = Counter(make_folder_name(name).casefold() for name in known)
    problems = [f"two versions have the name {name}; give each its own" for name, count in counts.items() if count > 1]
    unknown = [name for name in pythons if name and name not in known]
    problems += [f"--python {name}: there is no such version{suggest(name, known, 'versions')}" for name in unknown]
    versions = []
    for name, place in [*places, *((name, "") for name in names)]:
        python = {key: pythons[part] for key, part in (("python", ""), ("python", name)) if part in pythons}
        target = {"url": place} if "://" in place else {**settings, **python, "launch": place}
        commit = ""
        try:
            if clone is not None and not place:
                commit, target["launch"] = clone.find_commit(name).hash, str(clone.folder)
            check_targets(target, {})
        except UsageError as error:
            problems += map(str, error.problems)
        versions.append(Version(name, {**target, "name": name}, commit))
    if problems:
        raise UsageError([Problem("", 0, "", text) for text in problems])
    return versions


def describe_change(item: Comparison | None) -> str:
    """The state of a case, and by how much it changed on average, or what keeps it from being compared."""
    if item is None or not item.tier or item.state == SAME:
        return "" if item is None else item.state
    return f"{item.state} by {item.severity:.3g} of 255" if item.tier == "beyond" else f"{item.state} ({item.tier})"


def make_folder_name(version: str) -> str:
    """The name of the results folder of a version, such as `origin-master`."""
    return make_portable(re.sub(r"[^\w.-]", "-", version), "version") or "version"


def check_versions(
    experiment: Experiment,
    versions: Sequence[Version],
    baseline: str | os.PathLike[str] | None = None,
    *,
    out: Path,
    clone: ComfyuiClone | None = None,
    where: str | None = None,
    **options: Any,
) -> VersionChecks:
    """Run every trial afresh on each version in turn; compare with the baseline, and with the version before.

    The results of each are in a folder of its name in `out`. `clone`: that of their commits. `options` are those of
    `check_experiment`. A version that cannot start, or cannot run the experiment, is left out. Raises ResultsError if
    another process uses `out`, and what `check_experiment` raises before it submits anything.
    """
    checks, found = parse_checks(experiment), list[VersionCheck]()
    TrialFilter(where, Plan(experiment))  # a mistake in it is not one of the versions
    before: tuple[str | None, Baseline | None] = (None, None)
    with lock_folder(out, now=time.time()):
        for version in versions:
            folder = out / make_folder_name(version.name)
            try:
                with _open_target(version, clone, out) as target:
                    checked = check_experiment(experiment, baseline, out=folder, target=target, where=where, **options)
            except VERSION_ERRORS as error:
                found.append(VersionCheck(version.name, _describe_problem(error, version, clone, out)))
                continue
            own = read_run(checked.results, checked.run, own=True)
            changes = None if before[1] is None else compare_with_baseline(own, before[1], checks, is_partial=True)
            found.append(VersionCheck(version.name, "", checked, before[0], changes))
            if checked.stopped_by == "interrupt":
                break
            before = version.name, make_reference(own)
    return VersionChecks(experiment.name, out, tuple(found))


@contextmanager
def _open_target(version: Version, clone: ComfyuiClone | None, out: Path) -> Iterator[Mapping[str, Any]]:
    if clone is None or not version.commit:
        yield version.target
        return
    with clone.open_worktree(out / WORKTREE, version.commit) as tree:
        yield clone.complete_launch(version.target, tree, version.commit)


def _describe_problem(error: SweeperError, version: Version, clone: ComfyuiClone | None, out: Path) -> str:
    """The message; its advice names a file of the worktree, which is gone by now."""
    if clone is None:
        return str(error)
    file = shlex.quote(str(out.resolve() / WORKTREE / "requirements.txt"))
    show = join_command(["git", "-C", str(clone.folder), "show", f"{version.name}:requirements.txt"])
    return str(error).replace(file, f"<({show})")


def make_reference(run_cases: RunCases) -> Baseline:
    """A baseline, in memory only, that accepts the files of a run."""
    entries: dict[str, BaselineEntry] = {}
    for row in run_cases.rows:
        run_cases.fetch(row.outputs)
        for output in row.outputs:
            facts = row.result.params, row.result.digest, row.result.target or ""
            accepted = AcceptedFile(output.file, output.sha256, None, 0, *facts)
            entries[output.case.key] = BaselineEntry(output.case, (accepted,))
    return Baseline(run_cases.folder.resolve(), run_cases.experiment, entries, exists=True)
