"""Accepting: a run's pictures become the baseline. First what it would change, as a value; then the change itself.

Nothing is overwritten or removed unless the caller says so (`yes`), and the manifest is written last, in one piece.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal

from sweeper.did_you_mean import suggest
from sweeper.errors import ImageError, InputError, ResultsError, UsageError
from sweeper.images.byte_equality import compare_bytes, png_checksums
from sweeper.images.compare import pixel_hash
from sweeper.model.trial import InputFile
from sweeper.regression.baseline import AcceptedFile, Baseline, BaselineEntry, default_folder, read_baseline
from sweeper.regression.cases import Case, OutputFile, RunCases, TrialRow, read_run
from sweeper.regression.match_files import find_best_match, map_parallel
from sweeper.regression.server_changes import find_models
from sweeper.tables.results_folder import find_results_folder

Kind = Literal["new", "changed", "added", "same", "removed", "kept"]
WRITES: Final = ("new", "changed", "added", "removed")
OVERWRITES: Final = ("changed", "removed")
_LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True, slots=True)
class CaseChange:
    """What accepting does to a case: `new` (it had no picture), `changed` (its pictures give way), `added` (one more
    beside them), `same`, `removed` (the experiment has no such trial any more), `kept` (its trial gave nothing).
    """

    case: Case
    kind: Kind
    output: OutputFile | None = None
    row: TrialRow | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AcceptPlan:
    """What accepting a run would change in a baseline, or has changed."""

    baseline: Baseline
    run_cases: RunCases
    changes: tuple[CaseChange, ...]
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """How many cases of each kind; kinds without any are left out."""
        return dict(Counter(change.kind for change in self.changes))

    @property
    def overwrites(self) -> bool:
        """Whether an accepted picture would give way."""
        return any(change.kind in OVERWRITES for change in self.changes)

    @property
    def writes(self) -> bool:
        return any(change.kind in WRITES for change in self.changes)

    def apply(self) -> None:
        """Write files and manifest. Raises ResultsError when the folder or a picture cannot be used."""
        try:
            _write_plan(self)
        except OSError as error:
            raise ResultsError(f"{self.baseline.folder}: cannot be written: {error.strerror or error}") from error


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

    The arguments are those of `acceptance`. Raises UsageError, and writes nothing, when accepted pictures would give
    way and `yes` is not given.
    """
    found = plan_acceptance(results, baseline, where=where, new_only=new_only, add=add, cases=cases, run=run)
    if found.overwrites and not yes:
        told = ", ".join(f"{count} {kind}" for kind, count in found.counts.items())
        raise UsageError(f"{found.baseline.folder}: accepted pictures would be overwritten ({told}); say yes to that")
    if found.writes:
        found.apply()
    return found


def plan_acceptance(
    results: str | os.PathLike[str],
    baseline: str | os.PathLike[str] | None = None,
    *,
    where: str | None = None,
    new_only: bool = False,
    add: bool = False,
    cases: Iterable[str] | None = None,
    run: str | int | None = None,
) -> AcceptPlan:
    """What accepting would change; nothing is written.

    `baseline`: its folder, by default `baselines/<name>/` beside the experiment file. `where`: an expression over
    slots and axes, `cases`: names of cases; both choose. `new_only`: only cases that have no picture yet. `add`: one
    more picture for a case that changed, instead of another. `run`: an earlier run than the latest. Cases that the
    experiment does not have any more are removed only when nothing is chosen.

    Raises ResultsError for results or a baseline that cannot be read, UsageError for a `where` or a case that is
    wrong, ImageError for a picture that cannot be read.
    """
    observed = read_run(find_results_folder(results), run)
    folder = Path(baseline) if baseline is not None else default_folder(observed.file, observed.experiment)
    known = read_baseline(folder, observed.experiment)
    rows = observed.select_rows(where)
    wanted = set(cases) if cases is not None else None
    if wanted is not None:
        _check_case_names(wanted, rows)
    shown = [(one, row) for row in rows for one in row.outputs if wanted is None or one.case.name in wanted]
    observed.fetch(one for one, _ in shown)
    absent = [told for one, _ in shown if (told := observed.describe_missing(one))]
    if absent:
        raise ResultsError("\n".join(absent))
    changes = map_parallel(lambda pair: _plan_change(known, *pair, new_only=new_only, add=add), shown)
    if wanted is None and not new_only and not add:
        changes += _plan_without_output(known, observed, rows, remove_absent=where is None)
    notes = [f"{one.case.name}: {one.reason}" for one in changes if one.kind == "kept"]
    return AcceptPlan(known, observed, tuple(changes), tuple(notes))


def _check_case_names(wanted: set[str], rows: Iterable[TrialRow]) -> None:
    names = [one.case.name for row in rows for one in row.outputs]
    unknown = sorted(wanted - set(names))
    if unknown:
        raise UsageError(
            "; ".join(f"the run has no picture of a case '{name}'{suggest(name, names)}" for name in unknown)
        )


def _plan_change(baseline: Baseline, one: OutputFile, row: TrialRow, *, new_only: bool, add: bool) -> CaseChange:
    entry = baseline.entries.get(one.case.key)
    if entry is None:
        return CaseChange(one.case, "new", one, row)
    if new_only:
        return CaseChange(one.case, "same", one, row)
    usable = [path for accepted in entry.accepted if (path := find_accepted_file(baseline, accepted)) is not None]
    if not usable:
        return CaseChange(one.case, "changed", one, row, "its accepted files are gone or altered")
    _, found = find_best_match(usable, one.path, {})
    if found.passes:
        return CaseChange(one.case, "same", one, row)
    return CaseChange(one.case, "added" if add else "changed", one, row, found.reason)


def find_accepted_file(baseline: Baseline, accepted: AcceptedFile) -> Path | None:
    """The accepted file, if it is there and is the one that was accepted."""
    path = baseline.folder / accepted.file
    return None if describe_unusable(path, accepted) else path


def is_surely_same(path: str, accepted: AcceptedFile, now: OutputFile) -> bool:
    """Whether an accepted file is certainly met: today's has its bytes (a PNG's text aside), and it is the one that the
    manifest tells of. False is no answer: look closer.

    That takes no hash, which would take longer than the reading. Equal in every byte, the two have one hash, and
    today's is known from its arrival; equal but for their text, the file has the size and the checksums of the pixels
    that it was accepted with.
    """
    try:
        found = compare_bytes(path, now.path_text)
    except ImageError:
        return False
    if found.identical:
        return now.sha256 == accepted.sha256
    return (
        found.equal
        and found.size == accepted.size
        and bool(found.checksums)
        and found.checksums.hex() == accepted.ending
    )


def describe_unusable(path: Path, accepted: AcceptedFile) -> str:
    """Why an accepted file cannot be compared with; empty when it can."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return f"the accepted file {path} cannot be read: {error.strerror or error}"
    if data.startswith(_LFS_POINTER):
        return f"the accepted file {path} is only a Git LFS pointer; fetch it with `git lfs pull`"
    if hashlib.sha256(data).hexdigest() != accepted.sha256:
        return f"the accepted file {path} is not the one that the manifest tells of"
    return ""


def _plan_without_output(
    baseline: Baseline, run_cases: RunCases, rows: Iterable[TrialRow], *, remove_absent: bool
) -> list[CaseChange]:
    """What becomes of cases for which the run shows nothing."""
    shown = {one.case.key for row in run_cases.rows for one in row.outputs}
    broken = {row.point: row for row in rows if not row.succeeded}
    planned = {row.point for row in run_cases.rows}
    found = []
    for key, entry in baseline.entries.items():
        trial = entry.case.point
        if trial in broken:
            found.append(CaseChange(entry.case, "kept", reason=f"its trial is {broken[trial].result.status}"))
        elif remove_absent and (trial not in planned or key not in shown):
            reason = "no such trial any more" if trial not in planned else "its trial gives no such output any more"
            found.append(CaseChange(entry.case, "removed", reason=reason))
    return found


def _write_plan(plan: AcceptPlan) -> None:
    known = plan.baseline
    known.folder.mkdir(parents=True, exist_ok=True)
    works = _workflows_by_digest(plan.run_cases, {one.row.result.digest for one in plan.changes if one.row is not None})
    leaving: list[str] = []
    for change in plan.changes:
        key = change.case.key
        before = known.entries.get(key)
        if change.kind == "removed" and before is not None:
            leaving += [accepted.file for accepted in before.accepted]
            del known.entries[key]
        elif change.kind in ("new", "changed", "added") and change.output is not None and change.row is not None:
            kept = before.accepted if before is not None and change.kind == "added" else ()
            leaving += [accepted.file for accepted in before.accepted] if before is not None and not kept else []
            accepted = _add_file(known, change.output, kept, change.row, works.get(change.row.result.digest))
            known.entries[key] = BaselineEntry(change.case, (*kept, accepted))
    known.save()
    staying = {accepted.file for entry in known.entries.values() for accepted in entry.accepted}
    for name in set(leaving) - staying:
        (known.folder / name).unlink(missing_ok=True)


def _add_file(
    baseline: Baseline,
    output: OutputFile,
    others: tuple[AcceptedFile, ...],
    row: TrialRow,
    workflow: tuple[dict[str, Any], dict[str, dict[str, str]]] | None,
) -> AcceptedFile:
    """Copy a picture into the baseline, and say all that is known of it."""
    taken = {accepted.file for accepted in others}
    extension = output.path.suffix[1:] or "bin"
    number = next(n for n in range(1, len(taken) + 2) if output.case.build_file_name(extension, n) not in taken)
    name = output.case.build_file_name(extension, number)
    part = baseline.folder / f".{name}.part"
    shutil.copyfile(output.path, part)
    part.replace(baseline.folder / name)
    try:
        pixels = pixel_hash(baseline.folder / name)
    except ImageError:  # a text, a sound, a video: its bytes are all that is known
        pixels = None
    data = (baseline.folder / name).read_bytes()
    accepted = AcceptedFile(
        file=name, sha256=output.sha256, pixels=pixels, size=len(data), ending=png_checksums(data).hex(),
        params=row.result.params, digest=row.result.digest, target=row.result.target or "",
        server=baseline.add_server(row.server), sweeper=version("sweeper"),
    )  # fmt: skip
    if workflow is None:
        return accepted
    graph, inputs = workflow
    base, changes = baseline.add_graph(graph)
    return replace(accepted, workflow=base, changes=changes, inputs=inputs, models=find_models(graph))


def _workflows_by_digest(
    run_cases: RunCases, digests: set[str]
) -> Mapping[str, tuple[dict[str, Any], dict[str, dict[str, str]]]]:
    """The workflow and the input files behind digests, where the experiment still makes them: digest -> both."""
    from sweeper.loading.load import load  # noqa: PLC0415 - Jinja2 and jsonschema, only for this
    from sweeper.planning.plan import plan as planned  # noqa: PLC0415

    try:
        plan = planned(load(run_cases.file))
    except InputError:  # it has changed or gone since: the pictures can be accepted all the same
        return {}
    return {
        trial.digest: (
            plan.workflow(trial),
            {f"{one.node}.{one.input}": _describe_input(one) for one in plan.files(trial)},
        )
        for trial in plan.written()
        if trial.digest in digests
    }


def _describe_input(file: InputFile) -> dict[str, str]:
    """An input file as the manifest keeps it, with its mask."""
    mask = {"mask": file.mask.value, "mask_sha256": file.mask.sha256} if file.mask is not None else {}
    return {"file": file.value, "sha256": file.sha256, **mask}
