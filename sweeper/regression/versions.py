"""Check an experiment on several versions of ComfyUI: against the baseline, and each against the version before."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from sweeper.answers.parts import Fail, Heading, Line, Note, Part, Table
from sweeper.answers.render import IF_GIVEN
from sweeper.comfy.target import check_targets
from sweeper.errors import ExperimentError, Problem, SweeperError, TargetError, TransientError, UsageError
from sweeper.files import make_portable
from sweeper.model.experiment import Experiment
from sweeper.planning.plan import Plan
from sweeper.regression.baseline import AcceptedFile, Baseline, BaselineEntry
from sweeper.regression.cases import RunCases, read_run
from sweeper.regression.check import check_experiment
from sweeper.regression.comfyui_clone import ComfyuiClone
from sweeper.regression.comparison import MAX_ROWS, SAME, Comparison, Comparisons, compare_with_baseline
from sweeper.regression.match_files import parse_checks
from sweeper.running.folder_lock import lock_folder
from sweeper.running.settings import TrialFilter
from sweeper.wording import join_command, suggest

# What may be wrong with one version only, so that the others still run.
VERSION_ERRORS: Final = (TargetError, TransientError, ExperimentError, UsageError)
WORKTREE: Final = "sweeper-worktree"  # in the results folder; it is deleted, so nobody else may use the name


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
            own = select_run(read_run(checked.results, checked.run))
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


def select_run(run_cases: RunCases) -> RunCases:
    """The cases that a run made itself."""
    return replace(run_cases, rows=tuple(row for row in run_cases.rows if row.run == run_cases.run))


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
