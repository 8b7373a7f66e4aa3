"""Accept the pictures of a run as the baseline: first compute what would change, then write it.

Nothing is replaced or removed unless the caller agrees (`yes`). New pictures are written beside the accepted ones, then
the manifest is replaced atomically, then each picture takes its place under the same name as before, so that git shows
what changed. A process that is killed leaves the old baseline or the new one, which `read_baseline` completes.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from sweeper.answers.parts import Line, Part, Table, Warn
from sweeper.answers.render import NOT_IN_JSON, json_keys
from sweeper.errors import DISTRIBUTION, GONE_ERROR, ImageError, InputError, ResultsError, UsageError
from sweeper.files import atomic_write
from sweeper.images.compare import compare_bytes, pixel_hash, png_checksums
from sweeper.loading.load import load_recorded
from sweeper.loading.read_scope import find_project
from sweeper.loading.trust import check_default_folder
from sweeper.model.experiment import select_settings
from sweeper.model.node_classes.spec import MODEL_SUFFIXES
from sweeper.model.selection import EVERYTHING, Selection
from sweeper.model.trial import InputFile
from sweeper.planning.plan import Plan
from sweeper.regression.baseline import AcceptedFile, Baseline, BaselineEntry, default_folder, read_baseline, read_stamp
from sweeper.regression.cases import Case, OutputFile, RunCases, TrialRow, read_run
from sweeper.regression.match_files import find_best_match, map_parallel
from sweeper.running.folder_lock import lock_itself
from sweeper.tables.results_folder import find_results_folder
from sweeper.tables.select_rows import select_trials
from sweeper.wording import suggest

Kind: TypeAlias = Literal["new", "changed", "added", "same", "removed", "kept"]
# A graph, and the input files that it reads: `node.input` -> {file, sha256}.
WorkflowInfo: TypeAlias = tuple[dict[str, Any], dict[str, dict[str, str]]]
_MAX_ROWS: Final = 40  # changes shown; the counts include all
# Of a file that waits for its place (see `AcceptedFile.waiting_name`), or that `atomic_write` has not finished.
_OWN_NAME: Final = re.compile(r"\.(?P<sha256>[0-9a-f]{12})\..+|\.[0-9a-f]{16}\.part")
_LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True, slots=True)
class CaseChange:
    """What accepting does to a case.

    - `new`: it has no accepted file yet.
    - `changed`: the picture replaces its accepted files.
    - `added`: the picture is accepted beside them.
    - `same`: nothing changes.
    - `removed`: the experiment no longer has this trial or output.
    - `kept`: its trial did not succeed, so its accepted files stay.
    """

    case: Case = field(metadata=json_keys(case=attrgetter("name")))
    kind: Kind
    output: OutputFile | None = field(default=None, metadata=NOT_IN_JSON)
    row: TrialRow | None = field(default=None, metadata=NOT_IN_JSON)
    reason: str = ""


def _list_writes(changes: Iterable[CaseChange]) -> list[CaseChange]:
    return [change for change in changes if change.kind not in ("same", "kept")]


@dataclass(frozen=True, slots=True)
class AcceptPlan:
    """The answer of `sweeper accept`: what accepting a run would change in a baseline, or has changed.

    In JSON, `baseline` is its folder. `counts` has the number of cases of each kind that occurs, and `targets` the
    number of pictures by the target that made them, because the table may hold pictures of several runs. `changes` has
    all cases; in JSON, those that are written. `message`: why nothing is selected.
    """

    baseline: Baseline = field(metadata=json_keys(baseline=attrgetter("folder")))
    run_cases: RunCases = field(metadata=NOT_IN_JSON)
    counts: Mapping[str, int] = field(init=False)
    targets: Mapping[str, int] = field(init=False)
    changes: tuple[CaseChange, ...] = field(metadata=json_keys(changes=_list_writes))
    message: str = field(default="", metadata=NOT_IN_JSON)

    def __post_init__(self) -> None:
        made = (change.row.result.target or "" for change in self.changes if change.row is not None)
        object.__setattr__(self, "counts", dict(Counter(change.kind for change in self.changes)))
        object.__setattr__(self, "targets", dict(Counter(made)))

    @property
    def overwrites(self) -> bool:
        """Whether an accepted file would be replaced or removed."""
        return any(change.kind in ("changed", "removed") for change in self.changes)

    @property
    def writes(self) -> bool:
        """Whether there is anything to write."""
        return bool(_list_writes(self.changes))

    def parts(self) -> Iterator[Part]:
        """The first changes, the counts, and what the user may not expect."""
        rows = [(change.case.name, change.kind, change.reason) for change in _list_writes(self.changes)]
        if rows:
            yield Table(("case", "change", "why"), rows[:_MAX_ROWS])
        if len(rows) > _MAX_ROWS:
            yield Line(f"... and {len(rows) - _MAX_ROWS} more")
        counts = ", ".join(f"{count} {kind}" for kind, count in self.counts.items()) or "no pictures"
        yield Line(f"{self.baseline.folder}: {counts}")
        kept = (change for change in self.changes if change.kind == "kept")
        yield from (Warn(f"not changed: {change.case.name}: {change.reason}") for change in kept)
        if len(self.targets) > 1:
            made = ", ".join(f"{count} on {target}" for target, count in self.targets.items())
            yield Warn(f"these pictures were made on several targets ({made}); `--run ID` accepts those of one run")

    def apply(self) -> None:
        """Write the files and the manifest, and remove files that a killed process left, also if nothing changes.

        Raises ResultsError, and writes nothing, if the baseline has changed since this plan read it, or another process
        writes it now; also if the folder or a picture cannot be used.
        """
        folder = self.baseline.folder
        if not self.writes and not folder.is_dir():
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with lock_itself(folder):
                if read_stamp(folder) != self.baseline.stamp:
                    raise ResultsError(f"{folder}: has changed in the meantime; accept again to see what changes now")
                _write_plan(self)
        except BlockingIOError:
            raise ResultsError(
                f"{folder}: another process is accepting pictures; accept again when it is done"
            ) from None
        except OSError as error:
            raise ResultsError(f"{folder}: cannot be written: {error.strerror or error}") from error


def accept(
    results: str | os.PathLike[str],
    baseline: str | os.PathLike[str] | None = None,
    *,
    where: str | None = None,
    new_only: bool = False,
    add: bool = False,
    cases: Iterable[str] | None = None,
    run: str | int | None = None,
    yes: bool = False,
) -> AcceptPlan:
    """Accept the pictures of a results folder (or of an experiment file's default folder) as its baseline.

    The arguments are those of `plan_acceptance`; `where` is an expression that selects trials. Raises UsageError, and
    writes nothing, if accepted files would be replaced or removed and `yes` is not given.
    """
    selection = Selection(where=where)
    plan = plan_acceptance(results, baseline, selection=selection, new_only=new_only, add=add, cases=cases, run=run)
    if plan.overwrites and not yes:
        counts = ", ".join(f"{count} {kind}" for kind, count in plan.counts.items())
        raise UsageError(
            f"{plan.baseline.folder}: accepted pictures would be overwritten ({counts}); allow it with yes"
        )
    plan.apply()
    return plan


def plan_acceptance(
    results: str | os.PathLike[str],
    baseline: str | os.PathLike[str] | None = None,
    *,
    selection: Selection = EVERYTHING,
    new_only: bool = False,
    add: bool = False,
    cases: Iterable[str] | None = None,
    run: str | int | None = None,
) -> AcceptPlan:
    """Compute what accepting would change, without writing anything.

    - `baseline`: its folder, by default `baselines/<name>/` beside the experiment file. A results folder whose
      experiment is in another project needs it.
    - `selection` (of trials, by the columns of the table) and `cases` (names of cases) select pictures.
    - `new_only`: only cases that have no accepted file yet.
    - `add`: for a changed case, keep its accepted files and add the picture.
    - `run`: the pictures of one run. By default those of the table, which may come from several runs and targets.

    Cases that the experiment no longer has are removed only if nothing is selected, and no `--set` changed the run.

    Raises ResultsError for results or a baseline that cannot be read, UsageError for an invalid `where` or an unknown
    case, and ImageError for a picture that cannot be read.
    """
    run_cases = read_run(find_results_folder(results), run)
    trials, message = select_trials(run_cases.folder, run, selection)
    if baseline is None and Path(results).is_dir():
        _check_project(run_cases)
    folder = Path(baseline) if baseline is not None else default_folder(run_cases.file, run_cases.experiment)
    if baseline is None:
        check_default_folder(folder, run_cases.file)
    known = read_baseline(folder, run_cases.experiment)
    rows = tuple(row for row in run_cases.rows if trials is None or row.result.trial in trials)
    names = set(cases) if cases is not None else None
    if names is not None:
        _check_case_names(names, rows)
    pairs = [(output, row) for row in rows for output in row.outputs if names is None or output.case.name in names]
    run_cases.fetch(output for output, _ in pairs)
    missing = [message for output, _ in pairs if (message := run_cases.describe_missing(output))]
    if missing:
        raise ResultsError("\n".join(missing))
    changes = map_parallel(lambda pair: _plan_change(known, *pair, new_only=new_only, add=add), pairs)
    if names is None and not new_only and not add:
        remove_absent = trials is None and not select_settings(run_cases.overrides)
        changes += _plan_without_output(known, run_cases, rows, remove_absent=remove_absent)
    return AcceptPlan(known, run_cases, tuple(changes), message)


def _check_project(run_cases: RunCases) -> None:
    """Raise UsageError if the results name an experiment of another project: its author may not be the results'."""
    file, folder = run_cases.file, run_cases.folder.resolve()
    project = find_project(file)
    near = (project.folder, project.home)
    if not any(folder.is_relative_to(parent) for parent in near):
        raise UsageError(
            f"{run_cases.folder}: is of the experiment {file}, which belongs to another project; if the results are "
            f"yours, accept them with `--baseline {default_folder(file, run_cases.experiment)}`"
        )


def _check_case_names(wanted: set[str], rows: Iterable[TrialRow]) -> None:
    names = [output.case.name for row in rows for output in row.outputs]
    unknown = sorted(wanted - set(names))
    if unknown:
        raise UsageError(
            "; ".join(f"the run has no picture of case '{name}'{suggest(name, names)}" for name in unknown)
        )


def _plan_change(baseline: Baseline, output: OutputFile, row: TrialRow, *, new_only: bool, add: bool) -> CaseChange:
    entry = baseline.entries.get(output.case.key)
    if entry is None:
        return CaseChange(output.case, "new", output, row)
    if new_only:
        return CaseChange(output.case, "same", output, row)
    files = [(baseline.folder / accepted.file, accepted) for accepted in entry.accepted]
    usable = [path for path, accepted in files if not describe_unusable(path, accepted)]
    if not usable:
        return CaseChange(output.case, "changed", output, row, "its accepted files are missing or altered")
    _, match = find_best_match(usable, output.path, {})
    if match.passes:
        return CaseChange(output.case, "same", output, row)
    return CaseChange(output.case, "added" if add else "changed", output, row, match.reason)


def is_surely_same(path: str, accepted: AcceptedFile, now: OutputFile) -> bool:
    """Whether the accepted file at `path` is intact and equals today's file, apart from a PNG's text.

    False means only that a closer look is necessary. This is fast because it computes no hash. If all bytes are equal,
    the two files have the same hash, and today's was computed when it arrived. If they differ only in text, the size
    and the checksums of the pixels must be those that were recorded when the file was accepted.
    """
    try:
        equality = compare_bytes(path, now.path_text)
    except ImageError:
        return False
    if equality.identical:
        return now.sha256 == accepted.sha256
    if not equality.equal or not equality.checksums:
        return False
    return equality.size == accepted.size and equality.checksums.hex() == accepted.ending


def describe_unusable(path: Path, accepted: AcceptedFile) -> str:
    """Why an accepted file cannot be used; empty if it can."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return f"the accepted file {path} cannot be read: {error.strerror or error}"
    if data.startswith(_LFS_POINTER):
        return f"the accepted file {path} is only a Git LFS pointer; fetch it with `git lfs pull`"
    if hashlib.sha256(data).hexdigest() != accepted.sha256:
        return f"the accepted file {path} is not the one recorded in the manifest"
    return ""


def _plan_without_output(
    baseline: Baseline, run_cases: RunCases, rows: Iterable[TrialRow], *, remove_absent: bool
) -> list[CaseChange]:
    """The changes to cases for which the run has no output."""
    present = run_cases.outputs.keys()
    unsuccessful = {row.point: row for row in rows if not row.succeeded}
    planned = {row.point for row in run_cases.rows}
    changes = []
    for key, entry in baseline.entries.items():
        point = entry.case.point
        if point in unsuccessful:
            result = unsuccessful[point].result
            why = str(result.error) if result.error_type == GONE_ERROR else f"its trial is {result.status}"
            changes.append(CaseChange(entry.case, "kept", reason=why))
        elif remove_absent and key not in present:
            reason = "its trial no longer gives this output" if point in planned else "the trial no longer exists"
            changes.append(CaseChange(entry.case, "removed", reason=reason))
    return changes


def _write_plan(plan: AcceptPlan) -> None:
    baseline = plan.baseline
    before = baseline.list_files()
    digests = {change.row.result.digest for change in plan.changes if change.row is not None}
    workflows = _workflows_by_digest(plan.run_cases, digests) if plan.writes else {}
    for change in _list_writes(plan.changes):
        key = change.case.key
        if change.output is None or change.row is None:
            del baseline.entries[key]
        else:
            others = baseline.entries[key].accepted if change.kind == "added" else ()
            workflow = workflows.get(change.row.result.digest)
            accepted = _add_file(baseline, change.output, others, change.row, workflow)
            baseline.entries[key] = BaselineEntry(change.case, (*others, accepted))
    if plan.writes:
        baseline.save()
        baseline.complete()
    used = baseline.list_files()
    for path in baseline.folder.iterdir():
        if path.name not in used and (path.name in before or _is_leftover(path)):
            path.unlink()


def _is_leftover(path: Path) -> bool:
    """Whether a killed `accept` wrote this file: its name has the hash of its content, or is that of a part of one."""
    found = _OWN_NAME.fullmatch(path.name)
    if found is None or path.is_symlink() or not path.is_file():
        return False
    return found["sha256"] is None or hashlib.sha256(path.read_bytes()).hexdigest().startswith(found["sha256"])


def _add_file(
    baseline: Baseline,
    output: OutputFile,
    others: tuple[AcceptedFile, ...],
    row: TrialRow,
    workflow: WorkflowInfo | None,
) -> AcceptedFile:
    """Copy a file into the baseline's folder, where it waits for its place, and describe it for the manifest."""
    names = {accepted.file for accepted in others}
    extension = output.path.suffix[1:] or "bin"
    candidates = (output.case.build_file_name(extension, number) for number in itertools.count(1))
    name = next(candidate for candidate in candidates if candidate not in names)
    data = output.path.read_bytes()
    if hashlib.sha256(data).hexdigest() != output.sha256:
        raise ResultsError(f"{output.path}: is not the file that the run saved; delete it, and `sweeper run` again")
    accepted = AcceptedFile(
        file=name, sha256=output.sha256, pixels=None, size=len(data), ending=png_checksums(data).hex(),
        params=row.result.params, digest=row.result.digest, target=row.result.target or "",
        server=baseline.add_server(row.server), sweeper=version(DISTRIBUTION),
        model_facts=baseline.add_models(row.result.model_facts),
    )  # fmt: skip
    with atomic_write(baseline.folder / accepted.waiting_name) as copy:
        copy.write(data)
    with suppress(ImageError):  # a text, a sound, a video: only its bytes are known
        accepted = replace(accepted, pixels=pixel_hash(baseline.folder / accepted.waiting_name))
    if workflow is None:
        return accepted
    graph, inputs = workflow
    base, changes = baseline.add_graph(graph)
    values = (value for node in graph.values() for value in node["inputs"].values())
    models = {value for value in values if isinstance(value, str) and value.lower().endswith(MODEL_SUFFIXES)}
    return replace(accepted, workflow=base, changes=changes, inputs=inputs, models=tuple(sorted(models)))


def _workflows_by_digest(run_cases: RunCases, digests: set[str]) -> dict[str, WorkflowInfo]:
    """The workflows of these digests, as far as the experiment still makes them: digest -> workflow."""
    try:
        plan = Plan(load_recorded(run_cases.file, run_cases.overrides, results=run_cases.folder))
    except InputError:  # the experiment has changed or is gone; its pictures can be accepted all the same
        return {}
    return {
        trial.digest: (
            plan.workflow(trial),
            {f"{file.node}.{file.input}": _describe_input(file) for file in plan.files(trial)},
        )
        for trial in plan.written()
        if trial.digest in digests
    }


def _describe_input(file: InputFile) -> dict[str, str]:
    """An input file, with its mask, as the manifest records it."""
    mask = {"mask": file.mask.value, "mask_sha256": file.mask.sha256} if file.mask is not None else {}
    return {"file": file.value, "sha256": file.sha256, **mask}
